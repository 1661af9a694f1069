//! txn: compares and two lists of requests, in etcdctl's form.
//!
//! ```text
//! compare   TARGET("KEY") RELATION "OPERAND"
//! TARGET    version, ver · create, c · mod, m · value, val · lease
//! RELATION  = · != · < · >
//! request   put, get or del with their words and flags
//! ```
//!
//! Three sections, each of lines up to an empty one: the compares, what is done if all of them
//! hold, what is done if not. Input that ends sooner was cut short, and nothing is done.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::Context;
use clap::Parser;
use raftd::client::{
    Client, Compare, DeleteWith, DeletedKeys, Operand, Put, PutWith, RangeEnd, RangeRequest,
    Relation, Txn, TxnDone, TxnParts, TxnRequest, TxnResult,
};
use raftd::types::Revision;
use serde_json::{Map, Value, json};

use super::args::{DelArgs, Format, Freshness, GetArgs, PutArgs};
use super::exit::{End, Failure};
use super::output::{self, Shown};
use super::verbs::{reach_of_del, reach_of_get, selection, shown, single_key, span};

/// A compare that owns its bytes.
struct OwnedCompare {
    key: Vec<u8>,
    relation: Relation,
    operand: OwnedOperand,
}

enum OwnedOperand {
    Version(u64),
    Create(u64),
    Mod(u64),
    Value(Vec<u8>),
    Lease(u64),
}

/// A line of the second or third section.
#[derive(Parser, Debug)]
#[command(name = "", no_binary_name = true, disable_help_flag = true)]
#[command(disable_help_subcommand = true, disable_version_flag = true)]
enum RequestLine {
    Put(PutArgs),
    Get(GetArgs),
    Del(DelArgs),
}

/// A request that owns its bytes, and how its result is shown.
enum OwnedRequest {
    Put { key: Vec<u8>, value: Vec<u8>, args: PutArgs },
    Del { key: Vec<u8>, end: Vec<u8>, prev_kv: bool },
    Get { key: Vec<u8>, end: Vec<u8>, args: GetArgs },
}

pub(crate) fn txn(
    client: &mut Client,
    format: Format,
    interactive: bool,
) -> Result<Vec<u8>, Failure> {
    let asks = interactive || std::io::stdin().is_terminal();
    let mut input = std::io::stdin().lock();
    let compares = section(&mut input, ("compares:", asks), parse_compare)?;
    let title = |which: &str| format!("{which} requests (get, put, del):");
    let (success, failure) = (title("success"), title("failure"));
    let then = section(&mut input, (&success, asks), parse_request)?;
    let otherwise = section(&mut input, (&failure, asks), parse_request)?;
    let mut bytes = Vec::new();
    TxnParts {
        compares: &compares.iter().map(OwnedCompare::borrow).collect::<Vec<_>>(),
        then: &then.iter().map(OwnedRequest::borrow).collect::<Vec<_>>(),
        otherwise: &otherwise.iter().map(OwnedRequest::borrow).collect::<Vec<_>>(),
    }
    .encode(&mut bytes);
    let txn = Txn::from_args(&bytes).map_err(|why| Failure::refused(why.to_string()))?;
    let done = client.txn(txn)?;
    Ok(show(format, &done, if done.succeeded { &then } else { &otherwise }))
}

/// Reads lines up to an empty one.
fn section<T>(
    input: &mut impl BufRead,
    (title, asks): (&str, bool),
    parse: impl Fn(&[u8]) -> anyhow::Result<T>,
) -> Result<Vec<T>, Failure> {
    if asks {
        // To the terminal, and not into what a script reads.
        let _ = writeln!(std::io::stderr(), "{title}");
    }
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = input.read_until(b'\n', &mut line);
        let read = read.context("cannot read the transaction from standard input");
        read.map_err(|why| Failure { end: End::Refused, why })?;
        let text = line.trim_ascii();
        if !line.ends_with(b"\n") {
            let section = title.trim_end_matches(':');
            let why = anyhow::anyhow!(
                "the input ends within a section, the {section}: nothing was done; an empty line \
                 ends each of the three, the last one too"
            );
            return Err(Failure { end: End::Usage, why });
        }
        if text.is_empty() {
            return Ok(items);
        }
        items.push(parse(text).map_err(|why| Failure {
            end: End::Usage,
            why: why.context(format!("cannot read {}", text.escape_ascii())),
        })?);
    }
}

fn parse_compare(line: &[u8]) -> anyhow::Result<OwnedCompare> {
    const FORM: &str = "a compare is as in mod(\"key\") > \"0\"";
    let open = line.iter().position(|byte| *byte == b'(').context(FORM)?;
    let (target, rest) = (&line[..open], &line[open + 1..]);
    let (key, rest) = word(rest.trim_ascii_start(), b")").context(FORM)?;
    let rest = rest.trim_ascii_start().strip_prefix(b")").context(FORM)?.trim_ascii_start();
    let signs: [(&[u8], Relation); 4] = [
        (b"!=", Relation::NotEqual),
        (b"=", Relation::Equal),
        (b">", Relation::Greater),
        (b"<", Relation::Less),
    ];
    let found = signs.iter().find_map(|(sign, it)| Some((*it, rest.strip_prefix(*sign)?)));
    let (relation, rest) = found.context(FORM)?;
    let (operand, rest) = word(rest.trim_ascii_start(), b"").context(FORM)?;
    if key.is_empty() || !rest.trim_ascii().is_empty() {
        anyhow::bail!(FORM);
    }
    let number = || {
        let text = String::from_utf8_lossy(&operand);
        text.parse::<u64>().with_context(|| format!("{text} is no whole number"))
    };
    let operand = match target.trim_ascii() {
        b"version" | b"ver" => OwnedOperand::Version(number()?),
        b"create" | b"c" => OwnedOperand::Create(number()?),
        b"mod" | b"m" => OwnedOperand::Mod(number()?),
        b"lease" => OwnedOperand::Lease(number()?),
        b"value" | b"val" => OwnedOperand::Value(operand),
        _ => anyhow::bail!("a compare looks at version, create, mod, value or lease"),
    };
    Ok(OwnedCompare { key, relation, operand })
}

fn parse_request(line: &[u8]) -> anyhow::Result<OwnedRequest> {
    let told = |failure: Failure| failure.why;
    let words = words(line).context("a quotation does not end")?;
    match RequestLine::try_parse_from(words)? {
        RequestLine::Put(args) => {
            if args.if_mod_revision.is_some() {
                anyhow::bail!("conditions are compares of the first section");
            }
            let value = args.value.as_ref().map_or(Vec::new(), |value| value.as_bytes().to_vec());
            Ok(OwnedRequest::Put { key: single_key(&args.key).map_err(told)?, value, args })
        }
        RequestLine::Get(args) => {
            if args.consistency != Freshness::Linearizable {
                anyhow::bail!("what a transaction reads is linearizable");
            }
            let (key, end) = span(&args.key, reach_of_get(&args)).map_err(told)?;
            Ok(OwnedRequest::Get { key, end, args })
        }
        RequestLine::Del(args) => {
            let (key, end) = span(&args.key, reach_of_del(&args)).map_err(told)?;
            Ok(OwnedRequest::Del { key, end, prev_kv: args.prev_kv })
        }
    }
}

/// All words of a line that does not begin with a space, without their quotation marks; `None` if a
/// quotation does not end.
pub(crate) fn words(line: &[u8]) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (one, after) = word(rest, b"")?;
        words.push(OsString::from_vec(one));
        rest = after.trim_ascii_start();
    }
    Some(words)
}

/// The first word, without its quotation marks, and what follows it. A bare word ends at a space or
/// at one of `ends`. `None`: a quotation does not end, or has an escape that is none.
fn word<'a>(text: &'a [u8], ends: &[u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'\'' => {
                let end = after.iter().position(|byte| *byte == b'\'')?;
                bytes.extend_from_slice(&after[..end]);
                rest = &after[end + 1..];
            }
            b'"' => rest = quoted(after, &mut bytes)?,
            byte if byte.is_ascii_whitespace() || ends.contains(&byte) => break,
            byte => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    Some((bytes, rest))
}

/// Reads up to the closing double quotation mark; returns what follows it.
fn quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some(rest),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                bytes.push(match escaped {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'\\' | b'"' | b'\'' => escaped,
                    b'x' => {
                        let (digits, after) = rest.split_at_checked(2)?;
                        rest = after;
                        let hex = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
                        u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?
                    }
                    _ => return None,
                });
            }
            byte => bytes.push(byte),
        }
    }
}

impl OwnedCompare {
    fn borrow(&self) -> Compare<'_> {
        let operand = match &self.operand {
            OwnedOperand::Version(version) => Operand::Version(*version),
            OwnedOperand::Create(revision) => Operand::Create(Revision(*revision)),
            OwnedOperand::Mod(revision) => Operand::Mod(Revision(*revision)),
            OwnedOperand::Value(value) => Operand::Value(value),
            OwnedOperand::Lease(lease) => Operand::Lease(*lease),
        };
        Compare { key: &self.key, end: RangeEnd::Key, relation: self.relation, operand }
    }
}

impl OwnedRequest {
    fn borrow(&self) -> TxnRequest<'_> {
        match self {
            OwnedRequest::Put { key, value, args } => TxnRequest::Put(PutWith {
                key,
                value,
                lease: args.lease.0,
                prev_kv: args.prev_kv,
                ignore_value: args.ignore_value,
                ignore_lease: args.ignore_lease,
            }),
            OwnedRequest::Del { key, end, prev_kv } => TxnRequest::Delete(DeleteWith {
                key,
                end: RangeEnd::from_bytes(end),
                prev_kv: *prev_kv,
            }),
            OwnedRequest::Get { key, end, args } => TxnRequest::Range(RangeRequest {
                key,
                end: RangeEnd::from_bytes(end),
                limit: args.limit.0,
                revision: Revision(args.rev.0),
                keys_only: args.keys_only,
                count_only: args.count_only,
                selection: selection(args),
            }),
        }
    }

    fn shown(&self) -> Shown {
        match self {
            OwnedRequest::Get { args, .. } => shown(args),
            OwnedRequest::Put { .. } | OwnedRequest::Del { .. } => Shown::Both,
        }
    }
}

fn show(format: Format, done: &TxnDone, requests: &[OwnedRequest]) -> Vec<u8> {
    let results = done.results.iter().zip(requests.iter().map(OwnedRequest::shown));
    match format {
        Format::Simple | Format::Table => {
            let head = if done.succeeded { "SUCCESS\n" } else { "FAILURE\n" };
            let mut text = head.as_bytes().to_vec();
            for (result, shown) in results {
                text.push(b'\n');
                text.extend(match format {
                    Format::Table => table_of(result, shown, done.revision),
                    Format::Simple | Format::Json => lines_of(result, shown),
                });
            }
            text
        }
        Format::Json => output::json_line(&json!({
            "revision": done.revision.0,
            "succeeded": done.succeeded,
            "results": results.map(|(result, shown)| json_of(result, shown)).collect::<Vec<_>>(),
        })),
    }
}

fn lines_of(result: &TxnResult, shown: Shown) -> Vec<u8> {
    match result {
        TxnResult::Put { before } => output::put_lines(before.as_ref()),
        TxnResult::Delete { deleted, before } => output::deleted_lines(*deleted, before),
        TxnResult::Range { kvs, count, .. } => output::range_lines(shown, kvs, *count),
        TxnResult::Txn { .. } => Vec::new(),
    }
}

/// As the verb by itself shows it.
fn table_of(result: &TxnResult, shown: Shown, revision: Revision) -> Vec<u8> {
    match result {
        TxnResult::Put { .. } => output::put(Format::Table, &Put { revision, before: None }),
        TxnResult::Delete { deleted, .. } => {
            let done = DeletedKeys { revision, deleted: *deleted, before: Vec::new() };
            output::deleted(Format::Table, &done)
        }
        TxnResult::Range { kvs, count, .. } => output::table_of_keys(shown, kvs, *count),
        TxnResult::Txn { .. } => Vec::new(),
    }
}

fn json_of(result: &TxnResult, shown: Shown) -> Value {
    let mut object = Map::new();
    match result {
        TxnResult::Put { before } => {
            object.insert("request".to_owned(), "put".into());
            output::insert_before(&mut object, before.as_ref());
        }
        TxnResult::Delete { deleted, before } => {
            object.insert("request".to_owned(), "del".into());
            object.insert("deleted".to_owned(), (*deleted).into());
            output::insert_all_before(&mut object, before);
        }
        TxnResult::Range { kvs, more, count } => {
            object.insert("request".to_owned(), "get".into());
            object.insert("count".to_owned(), (*count).into());
            object.insert("more".to_owned(), (*more).into());
            let kvs = kvs.iter().map(|kv| output::kv_json(shown, kv)).collect::<Vec<_>>();
            object.insert("kvs".to_owned(), kvs.into());
        }
        TxnResult::Txn { .. } => {}
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_bare_or_quoted_and_quotations_end() {
        let one = |text: &'static str| {
            word(text.as_bytes(), b")").map(|(bytes, rest)| {
                (String::from_utf8(bytes).unwrap(), String::from_utf8_lossy(rest).into_owned())
            })
        };
        let is = |word: &str, rest: &str| Some((word.to_owned(), rest.to_owned()));
        assert_eq!(one("key value"), is("key", " value"));
        assert_eq!(one("key) > 0"), is("key", ") > 0"));
        assert_eq!(one(r#""a \"b\" \x41\n") = 1"#), is("a \"b\" A\n", ") = 1"));
        assert_eq!(one("'a b'c d"), is("a bc", " d"));
        assert_eq!((one("\"open"), one("'open"), one(r#""\q""#)), (None, None, None));
        assert_eq!((one(r#""\x+f""#), one(r#""\x4""#)), (None, None));
    }

    #[test]
    fn a_compare_names_target_key_relation_and_operand() {
        let parse = |text: &str| parse_compare(text.as_bytes());
        let found = parse(r#"mod("a b") > "7""#).unwrap();
        assert_eq!((&found.key[..], found.relation), (&b"a b"[..], Relation::Greater));
        assert!(matches!(found.operand, OwnedOperand::Mod(7)));
        let found = parse("val(k)!='x'").unwrap();
        assert_eq!(found.relation, Relation::NotEqual);
        assert!(matches!(found.operand, OwnedOperand::Value(value) if value == b"x"));
        for wrong in [
            "",
            "mod",
            "mod(\"k\")",
            "mod() = 1",
            "mod(k) ~ 1",
            "mod(k) = x",
            "size(k) = 1",
            "mod(k) = 1 2",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_is_a_verb_with_its_flags() {
        let parse = |text: &str| parse_request(text.as_bytes());
        assert!(matches!(
            parse("put k 'a value' --prev-kv"),
            Ok(OwnedRequest::Put { value, args, .. }) if value == b"a value" && args.prev_kv
        ));
        assert!(
            matches!(parse("del a --prefix"), Ok(OwnedRequest::Del { end, .. }) if end == b"b")
        );
        assert!(
            matches!(parse("get \"\" --from-key"), Ok(OwnedRequest::Get { key, .. }) if key == [0])
        );
        assert!(matches!(parse("get a c"), Ok(OwnedRequest::Get { end, .. }) if end == b"c"));
        assert!(matches!(parse("put a -"), Ok(OwnedRequest::Put { value, .. }) if value == b"-"));
        for wrong in [
            "status",
            "put k",
            "put '' v",
            "get",
            "put k v --if-mod-revision 1",
            "get 'k",
            "get b a",
            "get a --consistency serializable",
            "put a z -o json",
            "get a --endpoints 1.2.3.4:5",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
