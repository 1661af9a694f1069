//! log dump, log verify: a data directory whose server does not run, read and not changed.

use std::path::{Path, PathBuf};

use raftd::replica::load_snapshot;
use raftd::types::{EntryKind, LogIndex, Vote};
use raftd::wal::{
    Contents, Damage, DamageExtent, EntryContents, OpenError, ReadOnlyDisk, SegmentContents,
    hard_state_version, inspect,
};
use serde_json::{Value, json};

use super::args::{DumpArgs, Format, LogVerb};
use super::exit::{End, Failure};
use super::output::{json_line, table};

pub(crate) fn log(format: Format, verb: LogVerb) -> Result<(Vec<u8>, End), Failure> {
    match verb {
        LogVerb::Dump(args) => {
            let contents = read(&args.dir)?;
            Ok((dump(format, &contents, &args), end_of(&contents)))
        }
        LogVerb::Verify { dir } => verify(format, &dir),
    }
}

/// Reads the directory, and makes sure that no server had it open meanwhile.
fn read(dir: &Path) -> Result<Contents, Failure> {
    let disk = ReadOnlyDisk::new(dir);
    disk.refuse_if_in_use().map_err(Failure::of_directory)?;
    let contents = inspect(&disk).map_err(Failure::of_directory)?;
    disk.refuse_if_in_use().map_err(Failure::of_directory)?;
    // Whoever starts writes the hard state first.
    let version = hard_state_version(&disk).map_err(Failure::of_directory)?;
    if version == contents.hard_state.version {
        Ok(contents)
    } else {
        let dir = dir.display();
        Err(Failure::refused(format!("a server ran on {dir} while it was read: ask again")))
    }
}

fn end_of(contents: &Contents) -> End {
    if contents.damages.is_empty() { End::Done } else { End::Damaged }
}

fn dump(format: Format, contents: &Contents, args: &DumpArgs) -> Vec<u8> {
    let entries = contents.log.entries.iter();
    let entries = entries.filter(|entry| entry.position.index.get() >= args.from.0);
    let limit = usize::try_from(args.limit.0).ok().filter(|limit| *limit > 0);
    let entries: Vec<&EntryContents> = entries.take(limit.unwrap_or(usize::MAX)).collect();
    match format {
        Format::Simple => {
            let mut text = head(contents).join("\n");
            for entry in entries {
                let kind = kind(entry.kind);
                text.push_str(&format!("\n{} {kind} {}", entry.position, entry.bytes));
            }
            text.push('\n');
            text.into_bytes()
        }
        Format::Json => json_line(&object(contents, &entries)),
        Format::Table => {
            let row = |entry: &&EntryContents| {
                let position = entry.position;
                let number = |number: u64| number.to_string();
                vec![
                    number(position.index.get()),
                    number(position.term.get()),
                    kind(entry.kind).to_owned(),
                    number(entry.bytes.into()),
                ]
            };
            let rows: Vec<_> = entries.iter().map(row).collect();
            table(&["INDEX", "TERM", "KIND", "BYTES"], &rows)
        }
    }
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Commands => "commands",
        EntryKind::NoOp => "no-op",
        EntryKind::Configuration => "configuration",
    }
}

fn vote(vote: Vote) -> String {
    match vote {
        Vote::None => "none".to_owned(),
        Vote::For(node) => node.to_string(),
        Vote::Abstain => "abstain".to_owned(),
    }
}

/// Everything but the entries, a fact a line.
fn head(contents: &Contents) -> Vec<String> {
    let Contents { identity, hard_state, log, .. } = contents;
    let place = |place: &Option<(PathBuf, u64)>| match place {
        Some((file, offset)) => format!("{}:{offset}", file.display()),
        None => "none".to_owned(),
    };
    let mut lines = vec![
        format!(
            "identity node={} cluster={} disk={} created_unix_ms={}",
            identity.node, identity.cluster_id, identity.disk_id, identity.created_unix_ms
        ),
        format!(
            "hard-state version={} term={} vote={} durable={} genesis={:016x} clean={}{} \
             snapshot={}",
            hard_state.version,
            hard_state.hard_state.term,
            vote(hard_state.hard_state.vote),
            hard_state.last_durable,
            hard_state.genesis,
            hard_state.clean,
            if hard_state.diverged { " diverged=true" } else { "" },
            hard_state.snapshot,
        ),
        format!(
            "log base={} last={} committed={} records={} harmless={} watermark={} torn={}",
            log.base,
            log.last,
            log.commit_index,
            log.records,
            log.harmless,
            place(&log.watermark),
            place(&log.torn_at),
        ),
    ];
    lines.extend(log.segments.iter().map(segment_line));
    let in_force = contents.snapshot.as_ref().map(|source| source.path().to_owned());
    for (name, bytes) in &contents.snapshot_files {
        let used = in_force.as_ref().is_some_and(|path| path.ends_with(name));
        lines.push(format!("snapshot {name} bytes={bytes} in_force={used}"));
    }
    lines.extend(findings(contents));
    lines
}

fn segment_line(segment: &SegmentContents) -> String {
    let SegmentContents { file, bytes, used, entries } = segment;
    let entries = match entries {
        Some((first, last)) => format!("{first}..{last}"),
        None => "none".to_owned(),
    };
    format!("segment {} entries={entries} bytes={bytes} used={used}", file.display())
}

/// What is damaged, a line each.
fn findings(contents: &Contents) -> Vec<String> {
    let damages = contents.damages.iter().map(|damage| format!("damage {damage}"));
    let copies = contents.bad_copies.iter().map(|(file, offset)| {
        let file = file.display();
        format!("note {file} at byte {offset}: one of two copies is bad; the next start mends it")
    });
    damages.chain(copies).collect()
}

fn object(contents: &Contents, entries: &[&EntryContents]) -> Value {
    let Contents { identity, hard_state, log, .. } = contents;
    let index = |index: LogIndex| index.get();
    let segment = |it: &SegmentContents| {
        json!({
            "file": it.file.to_string_lossy(),
            "bytes": it.bytes,
            "used": it.used,
            "first": it.entries.map(|(first, _)| first.get()),
            "last": it.entries.map(|(_, last)| last.get()),
        })
    };
    let entry = |it: &&EntryContents| {
        json!({
            "index": it.position.index.get(),
            "term": it.position.term.get(),
            "kind": kind(it.kind),
            "bytes": it.bytes,
        })
    };
    let file = |(name, bytes): &(String, u64)| json!({ "file": name, "bytes": bytes });
    json!({
        "node": identity.node.get(),
        "cluster_id": identity.cluster_id.to_string(),
        "disk_id": identity.disk_id.to_string(),
        "created_unix_ms": identity.created_unix_ms,
        "hard_state_version": hard_state.version,
        "term": hard_state.hard_state.term.get(),
        "vote": vote(hard_state.hard_state.vote),
        "durable_index": index(hard_state.last_durable.index),
        "genesis": format!("{:016x}", hard_state.genesis),
        "clean": hard_state.clean,
        "diverged": hard_state.diverged,
        "snapshot_index": index(hard_state.snapshot.position.index),
        "snapshot_term": hard_state.snapshot.position.term.get(),
        "snapshot_files": contents.snapshot_files.iter().map(file).collect::<Vec<_>>(),
        "log_base": index(log.base.index),
        "last_index": index(log.last.index),
        "commit_index": index(log.commit_index),
        "watermark": place_json(&log.watermark),
        "segments": log.segments.iter().map(segment).collect::<Vec<_>>(),
        "findings": findings_json(contents),
        "entries": entries.iter().map(entry).collect::<Vec<_>>(),
    })
}

fn place_json(place: &Option<(PathBuf, u64)>) -> Value {
    match place {
        Some((file, offset)) => json!({ "file": file.to_string_lossy(), "offset": offset }),
        None => Value::Null,
    }
}

fn findings_json(contents: &Contents) -> Value {
    let damage = |it: &Damage| {
        let last = match it.extent {
            DamageExtent::Entries { last, .. } => Some(last.get()),
            DamageExtent::From(_) => None,
        };
        json!({
            "file": it.file.to_string_lossy(),
            "offset": it.offset,
            "first": it.extent.first().get(),
            "last": last,
        })
    };
    let copy = |(file, offset): &(PathBuf, u64)| place_json(&Some((file.clone(), *offset)));
    json!({
        "damages": contents.damages.iter().map(damage).collect::<Vec<_>>(),
        "bad_copies": contents.bad_copies.iter().map(copy).collect::<Vec<_>>(),
        "harmless": contents.log.harmless,
        "torn_at": place_json(&contents.log.torn_at),
    })
}

/// Reads everything that a start would need, the snapshot in force to its last key.
fn verify(format: Format, dir: &Path) -> Result<(Vec<u8>, End), Failure> {
    let contents = read(dir)?;
    let mut end = end_of(&contents);
    let mut lines = findings(&contents);
    let mut snapshot = Value::Null;
    if let Some(source) = &contents.snapshot {
        match load_snapshot(source, super::snapshot::store_options()) {
            Ok((store, _)) => {
                snapshot = json!({
                    "index": source.id.position.index.get(),
                    "term": source.id.position.term.get(),
                    "bytes": source.id.bytes,
                    "keys": store.keys(),
                    "revision": store.revision().0,
                    "state_hash": format!("{:016x}", store.state_hash()),
                });
                let hash = store.state_hash();
                let (id, keys) = (source.id, store.keys());
                lines.push(format!("snapshot {id} keys={keys} hash={hash:016x}"));
            }
            Err(error @ OpenError::SnapshotDamaged { .. }) => {
                end = End::Damaged;
                lines.push(format!("damage {error}"));
                snapshot = json!({ "error": error.to_string() });
            }
            Err(error) => return Err(Failure::of_directory(error)),
        }
    }
    if end == End::Done && !contents.bad_copies.is_empty() {
        end = End::Unhealthy;
    }
    let log = &contents.log;
    let whole = end != End::Damaged;
    lines.push(format!(
        "{} node={} term={} base={} last={} records={} segments={} harmless={}",
        if whole { "whole" } else { "damaged" },
        contents.identity.node,
        contents.hard_state.hard_state.term,
        log.base,
        log.last,
        log.records,
        log.segments.len(),
        log.harmless,
    ));
    let text = match format {
        Format::Simple | Format::Table => format!("{}\n", lines.join("\n")).into_bytes(),
        Format::Json => json_line(&json!({
            "whole": whole,
            "node": contents.identity.node.get(),
            "log_base": log.base.index.get(),
            "last_index": log.last.index.get(),
            "records": log.records,
            "snapshot": snapshot,
            "findings": findings_json(&contents),
        })),
    };
    Ok((text, end))
}
