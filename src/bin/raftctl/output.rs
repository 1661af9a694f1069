//! What the verbs print, in each format. The JSON is documented in protocol.md and stable.

use raftd::client::{ConnectionError, DeletedKeys, KeyValue, Put, RangeDone};
use raftd::types::Revision;
use serde_json::{Map, Value, json};

use super::args::Format;

/// Which half of a key and its value is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// The key and the value.
    Both,
    /// The key.
    Keys,
    /// The value.
    Values,
    /// Neither: how many there are.
    Count,
}

pub(crate) fn put(format: Format, done: &Put) -> Vec<u8> {
    let Put { revision, before } = done;
    match format {
        Format::Simple => put_lines(before.as_ref()),
        Format::Json => {
            let mut object = Map::new();
            object.insert("revision".to_owned(), revision.0.into());
            insert_before(&mut object, before.as_ref());
            json_line(&object.into())
        }
        Format::Table => table(&["REVISION"], &[vec![revision.to_string()]]),
    }
}

pub(crate) fn deleted(format: Format, done: &DeletedKeys) -> Vec<u8> {
    let DeletedKeys { revision, deleted, before } = done;
    match format {
        Format::Simple => deleted_lines(*deleted, before),
        Format::Json => {
            let mut object = Map::new();
            object.insert("revision".to_owned(), revision.0.into());
            object.insert("deleted".to_owned(), (*deleted).into());
            insert_all_before(&mut object, before);
            json_line(&object.into())
        }
        Format::Table => {
            table(&["REVISION", "DELETED"], &[vec![revision.to_string(), deleted.to_string()]])
        }
    }
}

pub(crate) fn compacted(format: Format, revision: Revision) -> Vec<u8> {
    match format {
        Format::Simple => format!("compacted revision {revision}\n").into_bytes(),
        Format::Json => json_line(&json!({ "compact_revision": revision.0 })),
        Format::Table => table(&["COMPACTED"], &[vec![revision.to_string()]]),
    }
}

/// What a put prints, in etcdctl's way.
pub(crate) fn put_lines(before: Option<&KeyValue>) -> Vec<u8> {
    let before = before.map(|kv| lines(Shown::Both, kv)).unwrap_or_default();
    [b"OK\n", &before[..]].concat()
}

/// What a delete prints, in etcdctl's way.
pub(crate) fn deleted_lines(deleted: u64, before: &[KeyValue]) -> Vec<u8> {
    let before = before.iter().flat_map(|kv| lines(Shown::Both, kv));
    format!("{deleted}\n").into_bytes().into_iter().chain(before).collect()
}

/// What a read prints, in etcdctl's way.
pub(crate) fn range_lines(shown: Shown, kvs: &[KeyValue], count: u64) -> Vec<u8> {
    if shown == Shown::Count {
        return format!("{count}\n").into_bytes();
    }
    kvs.iter().flat_map(|kv| lines(shown, kv)).collect()
}

pub(crate) fn insert_before(object: &mut Map<String, Value>, before: Option<&KeyValue>) {
    if let Some(kv) = before {
        object.insert("prev_kv".to_owned(), kv_json(Shown::Both, kv));
    }
}

pub(crate) fn insert_all_before(object: &mut Map<String, Value>, before: &[KeyValue]) {
    if !before.is_empty() {
        let kvs = before.iter().map(|kv| kv_json(Shown::Both, kv)).collect::<Vec<_>>();
        object.insert("prev_kvs".to_owned(), kvs.into());
    }
}

/// What a read prints, piece by piece.
#[derive(Debug)]
pub(crate) struct RangePieces {
    format: Format,
    shown: Shown,
    empty: bool,
}

impl RangePieces {
    pub(crate) fn new(format: Format, shown: Shown) -> RangePieces {
        RangePieces { format, shown, empty: true }
    }

    /// Appends a key.
    pub(crate) fn push(&mut self, text: &mut Vec<u8>, kv: &KeyValue) {
        match self.format {
            Format::Simple => text.extend_from_slice(&lines(self.shown, kv)),
            Format::Json => {
                text.extend_from_slice(if self.empty { b"{\"kvs\":[" } else { b"," });
                text.extend_from_slice(kv_json(self.shown, kv).to_string().as_bytes());
            }
            Format::Table => unreachable!("a table is printed as a whole"),
        }
        self.empty = false;
    }

    /// Appends what is known at the end.
    pub(crate) fn finish(self, text: &mut Vec<u8>, done: &RangeDone) {
        let RangeDone { revision, more, count } = *done;
        match self.format {
            Format::Simple if self.shown == Shown::Count => {
                text.extend_from_slice(format!("{count}\n").as_bytes());
            }
            Format::Simple => {}
            Format::Json => {
                text.extend_from_slice(if self.empty { b"{\"kvs\":[" } else { b"" });
                let rest =
                    format!("],\"count\":{count},\"more\":{more},\"revision\":{revision}}}\n");
                text.extend_from_slice(rest.as_bytes());
            }
            Format::Table => unreachable!("a table is printed as a whole"),
        }
    }
}

pub(crate) fn table_of_keys(shown: Shown, kvs: &[KeyValue], count: u64) -> Vec<u8> {
    if shown == Shown::Count {
        return table(&["COUNT"], &[vec![count.to_string()]]);
    }
    let rows: Vec<_> = kvs.iter().map(kv_row).collect();
    table(&["KEY", "VALUE", "CREATED", "MODIFIED", "VERSION"], &rows)
}

/// The bytes as they are: what was put comes out.
pub(crate) fn lines(shown: Shown, kv: &KeyValue) -> Vec<u8> {
    match shown {
        Shown::Both => [&kv.key, &b"\n"[..], &kv.value, b"\n"].concat(),
        Shown::Keys => [&kv.key, &b"\n"[..]].concat(),
        Shown::Values => [&kv.value, &b"\n"[..]].concat(),
        Shown::Count => Vec::new(),
    }
}

pub(crate) fn kv_json(shown: Shown, kv: &KeyValue) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &kv.key);
    match shown {
        Shown::Both | Shown::Values => insert_bytes(&mut object, "value", &kv.value),
        Shown::Keys | Shown::Count => {}
    }
    for (name, number) in [
        ("create_revision", kv.create_revision.0),
        ("mod_revision", kv.mod_revision.0),
        ("version", kv.version),
        ("lease", kv.lease),
    ] {
        object.insert(name.to_owned(), number.into());
    }
    Value::Object(object)
}

/// Text as it is under its name; other bytes in hex under `NAME_hex`, so that nothing is lost.
pub(crate) fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert(format!("{name}_hex"), hex.into())
        }
    };
}

fn kv_row(kv: &KeyValue) -> Vec<String> {
    vec![
        kv.key.escape_ascii().to_string(),
        kv.value.escape_ascii().to_string(),
        kv.create_revision.to_string(),
        kv.mod_revision.to_string(),
        kv.version.to_string(),
    ]
}

pub(crate) fn json_line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Columns as wide as their widest cell, two spaces apart; the last one is not padded.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> Vec<u8> {
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(headings.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.into_bytes()
}

/// The error and its cause, on one line.
pub(crate) fn text_of(why: &ConnectionError) -> String {
    match std::error::Error::source(why) {
        Some(source) => format!("{why}: {source}"),
        None => why.to_string(),
    }
}
