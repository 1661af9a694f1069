//! snapshot save, verify, restore: the verbs, and a saved file read to its last key.

use std::path::Path;

use raftd::client::Client;
use raftd::kv::StoreOptions;
use raftd::limits::HISTORY_BYTES_DEFAULT;
use raftd::replica::load_snapshot;
use raftd::wal::{ReadOnlyDisk, SnapshotSource};
use serde_json::json;

use super::args::{Format, SnapshotVerb};
use super::exit::{End, Failure};
use super::output::{json_line, table};
use super::{restore, save};

pub(crate) fn snapshot(
    client: &mut Client,
    format: Format,
    verb: SnapshotVerb,
) -> Result<(Vec<u8>, End), Failure> {
    match verb {
        SnapshotVerb::Save { file } => save::save(client, format, &file),
        SnapshotVerb::Restore(args) => restore::restore(format, &args),
        SnapshotVerb::Verify { file } => verify(format, &file),
    }
}

/// A store that nobody attacks.
pub(crate) fn store_options() -> StoreOptions {
    StoreOptions { index_seed: 0, history_bytes_max: HISTORY_BYTES_DEFAULT }
}

/// The file, by what it says of itself.
pub(crate) fn open(file: &Path) -> Result<SnapshotSource, Failure> {
    let Some(name) = file.file_name() else {
        return Err(Failure::refused(format!("{} is no file", file.display())));
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let disk = ReadOnlyDisk::new(folder.unwrap_or(Path::new(".")));
    SnapshotSource::of_file(&disk, &name.to_string_lossy()).map_err(Failure::of_snapshot)
}

fn verify(format: Format, file: &Path) -> Result<(Vec<u8>, End), Failure> {
    let source = open(file)?;
    let loaded = load_snapshot(&source, store_options());
    let (store, head) = loaded.map_err(Failure::of_snapshot)?;
    let (id, hash) = (source.id, format!("{:016x}", store.state_hash()));
    let text = match format {
        Format::Simple => format!(
            "whole index={} term={} revision={} keys={} bytes={} hash={hash} cluster={}\n",
            id.position.index,
            id.position.term,
            store.revision(),
            store.keys(),
            id.bytes,
            head.cluster_id,
        )
        .into_bytes(),
        Format::Json => json_line(&json!({
            "index": id.position.index.get(),
            "term": id.position.term.get(),
            "revision": store.revision().0,
            "compact_revision": store.compact_revision().0,
            "keys": store.keys(),
            "sessions": store.session_count(),
            "bytes": id.bytes,
            "state_hash": hash,
            "cluster_id": head.cluster_id.to_string(),
        })),
        Format::Table => table(
            &["INDEX", "TERM", "REVISION", "KEYS", "BYTES", "STATE HASH"],
            &[vec![
                id.position.index.to_string(),
                id.position.term.to_string(),
                store.revision().to_string(),
                store.keys().to_string(),
                id.bytes.to_string(),
                hash,
            ]],
        ),
    };
    Ok((text, End::Done))
}
