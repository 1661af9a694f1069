//! put, get, del.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::Context;
use raftd::client::{CONTENT_BYTES_MAX, Client, PutIf, prefix_end};
use raftd::types::Revision;
use raftd::wire::client::{Consistency, RangeArgs, Selection};

use super::args::{Format, Freshness, GetArgs};
use super::exit::{End, Failure};
use super::output;

pub(crate) fn put(
    client: &mut Client,
    format: Format,
    key: OsString,
    value: OsString,
) -> Result<Vec<u8>, Failure> {
    let revision = client.put(&single_key(&key)?, &value_of(value)?)?;
    Ok(output::put(format, revision))
}

/// Puts if the key's last change was `expected`.
pub(crate) fn put_if(
    client: &mut Client,
    format: Format,
    key: OsString,
    value: OsString,
    expected: Revision,
) -> Result<Vec<u8>, Failure> {
    match client.put_if(&single_key(&key)?, &value_of(value)?, expected)? {
        PutIf::Done { revision } => Ok(output::put(format, revision)),
        PutIf::Refused { mod_revision: Revision(0) } => {
            Err(Failure::refused("there is no such key: nothing was put".to_owned()))
        }
        PutIf::Refused { mod_revision } => Err(Failure::refused(format!(
            "the key's mod revision is {mod_revision}, not {expected}: nothing was put"
        ))),
    }
}

fn value_of(value: OsString) -> Result<Vec<u8>, Failure> {
    if value == OsStr::new("-") { read_stdin() } else { Ok(value.into_vec()) }
}

pub(crate) fn get(client: &mut Client, format: Format, args: GetArgs) -> Result<Vec<u8>, Failure> {
    let (key, end) = span(&args.key, args.prefix)?;
    let range = client.range(&RangeArgs {
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
        count_only: false,
        selection: Selection::ALL,
    })?;
    let shown = if args.keys_only {
        output::Shown::Keys
    } else if args.print_value_only {
        output::Shown::Values
    } else {
        output::Shown::Both
    };
    Ok(output::range(format, shown, &range))
}

pub(crate) fn del(
    client: &mut Client,
    format: Format,
    key: OsString,
    prefix: bool,
) -> Result<Vec<u8>, Failure> {
    let (key, end) = span(&key, prefix)?;
    let deleted = client.delete_range(&key, &end)?;
    Ok(output::deleted(format, deleted))
}

fn single_key(key: &OsStr) -> Result<Vec<u8>, Failure> {
    if key.is_empty() {
        return Err(Failure::usage(
            "the key is empty: name one of a byte or more (get and del take an empty KEY with \
             --prefix, for all keys)",
        ));
    }
    Ok(key.as_bytes().to_vec())
}

/// The range that a key, or a prefix, stands for.
fn span(key: &OsStr, prefix: bool) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    if !prefix {
        return Ok((single_key(key)?, Vec::new()));
    }
    // No key sorts before a single zero byte.
    let first = if key.is_empty() { vec![0] } else { key.as_bytes().to_vec() };
    Ok((first, prefix_end(key.as_bytes())))
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
