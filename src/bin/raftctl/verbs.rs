//! put, get, del, compact.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::Context;
use raftd::client::{
    CONTENT_BYTES_MAX, Client, DeleteWith, Deleted, DeletedKeys, Order, Put, PutIf, PutWith,
    RangeArgs, RangeEnd, RevisionSpan, Selection, SortBy, prefix_end,
};
use raftd::types::Revision;
use raftd::wire::client::Consistency;

use super::args::{DelArgs, Format, Freshness, GetArgs, PutArgs, SortOrder, SortTarget, Whole};
use super::exit::{End, Failure};
use super::output;

/// So much is printed at once. Bytes.
const PRINTED_BYTES: usize = 64 * 1024;

pub(crate) fn put(client: &mut Client, format: Format, args: PutArgs) -> Result<Vec<u8>, Failure> {
    let key = single_key(&args.key)?;
    let value = value_of(args.value)?;
    if let Some(expected) = args.if_mod_revision {
        return put_if(client, format, &key, &value, Revision(expected.0));
    }
    let lease = args.lease.0;
    let PutArgs { prev_kv, ignore_value, ignore_lease, .. } = args;
    let with = PutWith { key: &key, value: &value, lease, prev_kv, ignore_value, ignore_lease };
    let plain = PutWith { key: &key, value: &value, ..PutWith::default() };
    let done = if with == plain {
        Put { revision: client.put(&key, &value)?, before: None }
    } else {
        client.put_with(with)?
    };
    Ok(output::put(format, &done))
}

/// Puts if the key's last change was `expected`.
fn put_if(
    client: &mut Client,
    format: Format,
    key: &[u8],
    value: &[u8],
    expected: Revision,
) -> Result<Vec<u8>, Failure> {
    match client.put_if(key, value, expected)? {
        PutIf::Done { revision } => Ok(output::put(format, &Put { revision, before: None })),
        PutIf::Refused { mod_revision: Revision(0) } => {
            Err(Failure::refused("there is no such key: nothing was put".to_owned()))
        }
        PutIf::Refused { mod_revision } => Err(Failure::refused(format!(
            "the key's mod revision is {mod_revision}, not {expected}: nothing was put"
        ))),
    }
}

fn value_of(value: Option<OsString>) -> Result<Vec<u8>, Failure> {
    match value {
        Some(value) if value == OsStr::new("-") => read_stdin(),
        Some(value) => Ok(value.into_vec()),
        None => Ok(Vec::new()),
    }
}

/// Prints what it reads as it comes; but a table's columns are as wide as what is in them.
pub(crate) fn get(client: &mut Client, format: Format, args: GetArgs) -> Result<Vec<u8>, Failure> {
    let (key, end) = span(&args.key, reach_of_get(&args))?;
    let asked = RangeArgs {
        key: &key,
        end: &end,
        limit: args.limit.0,
        revision: Revision(args.rev.0),
        consistency: match args.consistency {
            Freshness::Linearizable => Consistency::Linearizable,
            Freshness::Lease => Consistency::Lease,
            Freshness::Serializable => Consistency::Serializable,
        },
        keys_only: args.keys_only,
        count_only: args.count_only,
        selection: selection(&args),
    };
    let shown = shown(&args);
    if format == Format::Table {
        let found = client.range(&asked)?;
        return Ok(output::table_of_keys(shown, &found.kvs, found.count));
    }
    let (mut pieces, mut text) = (output::RangePieces::new(format, shown), Vec::new());
    let mut printed = Ok(());
    let done = client.range_each(&asked, &mut |kv| {
        pieces.push(&mut text, &kv);
        if text.len() < PRINTED_BYTES {
            return ControlFlow::Continue(());
        }
        let heard = super::print_on(&text);
        text.clear();
        heard.unwrap_or_else(|why| {
            printed = Err(why);
            ControlFlow::Break(())
        })
    });
    printed?;
    match done {
        Ok(done) => pieces.finish(&mut text, &done),
        Err(why) => {
            // What came before belongs to the range.
            super::print(&text)?;
            return Err(why.into());
        }
    }
    Ok(text)
}

/// Which keys the flags ask for, and in which order.
pub(crate) fn selection(args: &GetArgs) -> Selection {
    let between =
        |min: Whole, max: Whole| RevisionSpan { min: Revision(min.0), max: Revision(max.0) };
    Selection {
        by: match args.sort_by {
            SortTarget::Key => SortBy::Key,
            SortTarget::Version => SortBy::Version,
            SortTarget::Create => SortBy::Create,
            SortTarget::Modify => SortBy::Mod,
            SortTarget::Value => SortBy::Value,
        },
        order: match (args.sort_by, args.order) {
            // As they are stored: one reply after the other, each of any size.
            (SortTarget::Key, SortOrder::Ascend) => Order::Unsorted,
            (_, SortOrder::Ascend) => Order::Ascend,
            (_, SortOrder::Descend) => Order::Descend,
        },
        mod_revision: between(args.min_mod_rev, args.max_mod_rev),
        create_revision: between(args.min_create_rev, args.max_create_rev),
    }
}

/// What of the keys the flags want to see.
pub(crate) fn shown(args: &GetArgs) -> output::Shown {
    if args.count_only {
        output::Shown::Count
    } else if args.keys_only {
        output::Shown::Keys
    } else if args.print_value_only {
        output::Shown::Values
    } else {
        output::Shown::Both
    }
}

pub(crate) fn del(client: &mut Client, format: Format, args: &DelArgs) -> Result<Vec<u8>, Failure> {
    let (key, end) = span(&args.key, reach_of_del(args))?;
    let done = if args.prev_kv {
        let end = RangeEnd::from_bytes(&end);
        client.delete_with(DeleteWith { key: &key, end, prev_kv: true })?
    } else {
        let Deleted { revision, deleted } = client.delete_range(&key, &end)?;
        DeletedKeys { revision, deleted, before: Vec::new() }
    };
    Ok(output::deleted(format, &done))
}

pub(crate) fn compact(
    client: &mut Client,
    format: Format,
    revision: Revision,
) -> Result<Vec<u8>, Failure> {
    client.compact(revision)?;
    Ok(output::compacted(format, revision))
}

pub(crate) fn single_key(key: &OsStr) -> Result<Vec<u8>, Failure> {
    if key.is_empty() {
        return Err(Failure::usage(
            "the key is empty: name one of a byte or more (get and del take an empty KEY with \
             --prefix, for all keys)",
        ));
    }
    Ok(key.as_bytes().to_vec())
}

/// How far from a key a verb reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach<'a> {
    /// To the key alone.
    Key,
    /// To every key from it to before this one.
    Before(&'a OsStr),
    /// To every key that begins with it.
    Prefix,
    /// To every key from it on.
    Onward,
}

/// What `RANGE_END`, `--prefix` and `--from-key` say; clap lets only one of them through.
pub(crate) fn reach(range_end: Option<&OsString>, prefix: bool, from_key: bool) -> Reach<'_> {
    match (range_end, prefix, from_key) {
        (Some(end), _, _) => Reach::Before(end),
        (None, true, _) => Reach::Prefix,
        (None, false, true) => Reach::Onward,
        (None, false, false) => Reach::Key,
    }
}

pub(crate) fn reach_of_get(args: &GetArgs) -> Reach<'_> {
    reach(args.range_end.as_ref(), args.prefix, args.from_key)
}

pub(crate) fn reach_of_del(args: &DelArgs) -> Reach<'_> {
    reach(args.range_end.as_ref(), args.prefix, args.from_key)
}

/// The range that a key stands for: its first key, and its end in the wire's form.
pub(crate) fn span(key: &OsStr, reach: Reach<'_>) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    // No key sorts before a single zero byte.
    let first = if key.is_empty() { vec![0] } else { key.as_bytes().to_vec() };
    match reach {
        Reach::Key => Ok((single_key(key)?, Vec::new())),
        Reach::Before(end) if end.is_empty() => Ok((single_key(key)?, Vec::new())),
        // An end of one zero byte is no end at all.
        Reach::Before(end) if *end > *key || *end.as_bytes() == [0] => {
            Ok((single_key(key)?, end.as_bytes().to_vec()))
        }
        Reach::Before(_) => Err(Failure::usage(
            "the range is empty: RANGE_END sorts behind KEY, and is not part of the range",
        )),
        Reach::Prefix => Ok((first, prefix_end(key.as_bytes()))),
        Reach::Onward => Ok((first, vec![0])),
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    // One byte more than can be put is enough to be refused.
    let most = u64::try_from(CONTENT_BYTES_MAX).unwrap_or(u64::MAX);
    std::io::stdin()
        .lock()
        .take(most.saturating_add(1))
        .read_to_end(&mut value)
        .context("cannot read the value from standard input")
        .map_err(|why| Failure { end: End::Refused, why })?;
    if value.len() <= CONTENT_BYTES_MAX {
        return Ok(value);
    }
    Err(Failure::refused(format!(
        "standard input has more than {CONTENT_BYTES_MAX} bytes, which a key and its value may \
         have together"
    )))
}
