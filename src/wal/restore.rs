//! Making a data directory out of a snapshot: for a member of a new cluster.
//!
//! ```text
//! RESTORING     made and synced first         crash from here on: a server refuses the directory
//! snap/         the snapshot, synced          and says so; another restore begins anew
//! hs.0 hs.1     name it; term as it has
//! log/          a first segment, empty
//! IDENTITY      written last of all           from here on it is a data directory
//! RESTORING     removed                       if a crash leaves it, it means nothing
//! ```

use super::background::Template;
use super::directory::{LOG, list_segments, segment_name};
use super::disk::Disk;
use super::error::OpenError;
use super::hard_state::{self, HardStateFiles, Slot};
use super::identity::{self, Identity};
use super::job::Operation;
use super::options::Options;
use super::recovery::{OURS, remove, template};
use super::snapshot_file::{BlockWriter, SNAP, SnapshotHead, snapshot_name, unfinished_name};
use crate::types::{HardState, SnapshotId, Vote};
use std::io;

/// Says that a restore is under way, or was cut short.
pub(super) const MARK: &str = "RESTORING";

/// Makes the directory with a snapshot of this head and these blocks in force, and an empty log
/// behind it. Refuses one that holds anything but what another restore left.
pub fn restore(
    disk: &dyn Disk,
    options: &Options,
    head: &SnapshotHead,
    next_block: &mut dyn FnMut() -> Option<Vec<u8>>,
) -> Result<SnapshotId, OpenError> {
    let identity = Identity {
        cluster_id: head.cluster_id,
        token_hash: options.token_hash,
        node: options.node,
        disk_id: options.disk_id_if_new,
        created_unix_ms: options.created_unix_ms,
    };
    begin(disk)?;
    let id = write_snapshot(disk, head, next_block).map_err(OpenError::io(
        disk,
        "write a snapshot into",
        SNAP,
    ))?;
    disk.create_directory(LOG).map_err(OpenError::io(disk, "create", LOG))?;
    write_hard_state(disk, options, id)?;
    let template: Template = template(identity, options);
    let first = segment_name(1);
    template.prepare_now(disk, 1).map_err(OpenError::io(disk, "prepare", &first))?;
    disk.sync_directory("").map_err(OpenError::io(disk, "sync", ""))?;
    identity.write(disk)?;
    remove(disk, MARK)?;
    disk.sync_directory("").map_err(OpenError::io(disk, "sync", ""))?;
    Ok(id)
}

/// Leaves the mark, and takes away what an earlier attempt left.
fn begin(disk: &dyn Disk) -> Result<(), OpenError> {
    let names = disk.list("").map_err(OpenError::io(disk, "list", ""))?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let blank = ["LOCK", "lost+found"];
    let again = has(MARK) && !has(identity::NAME);
    let ours = |name: &String| *name == MARK || OURS.contains(&name.as_str());
    let fits = if again {
        names.iter().all(ours)
    } else {
        names.iter().all(|name| blank.contains(&name.as_str()))
    };
    if !fits {
        return Err(OpenError::NotEmpty { path: disk.path("") });
    }
    if !again {
        let mark = disk.create_new(MARK).map_err(OpenError::io(disk, "create", MARK))?;
        mark.sync().map_err(OpenError::io(disk, "sync", MARK))?;
        return disk.sync_directory("").map_err(OpenError::io(disk, "sync", ""));
    }
    for seq in list_segments(disk)? {
        remove(disk, &segment_name(seq))?;
    }
    match disk.list(SNAP) {
        Ok(names) => names.iter().try_for_each(|name| remove(disk, &format!("{SNAP}/{name}")))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::io(disk, "list", SNAP)(error)),
    }
    let files = hard_state::NAMES.into_iter().chain([identity::NAME_UNFINISHED]);
    files.filter(|name| has(name)).try_for_each(|name| remove(disk, name))
}

fn write_snapshot(
    disk: &dyn Disk,
    head: &SnapshotHead,
    next_block: &mut dyn FnMut() -> Option<Vec<u8>>,
) -> io::Result<SnapshotId> {
    disk.create_directory(SNAP)?;
    let unfinished = unfinished_name(head.position);
    let file = disk.create_new(&unfinished)?;
    let mut writer = BlockWriter::new();
    file.write_at(0, &writer.head(head))?;
    while let Some(payload) = next_block() {
        writer.write_data(&payload, &*file)?;
    }
    let at = writer.bytes();
    let (end, bytes, crc) = writer.end();
    file.write_at(at, &end)?;
    file.sync()?;
    let id = SnapshotId { position: head.position, bytes, crc };
    disk.rename(&unfinished, &snapshot_name(id))?;
    disk.sync_directory(SNAP)?;
    Ok(id)
}

fn write_hard_state(disk: &dyn Disk, options: &Options, id: SnapshotId) -> Result<(), OpenError> {
    let mut files = HardStateFiles::create(disk, options.disk_id_if_new, options.boot_nonce)?;
    let slot = Slot {
        hard_state: HardState { term: id.position.term, vote: Vote::None },
        last_durable: id.position,
        snapshot: id,
        base: id.position,
        first_segment: 1,
        ..*files.written()
    };
    let mut operations = Vec::new();
    // Both parities: one damaged slot must not bring back a directory without a snapshot.
    for _ in 0..2 {
        files.stage(slot, &mut operations);
    }
    let name = hard_state::NAMES[0];
    operations.iter().try_for_each(Operation::run).map_err(OpenError::io(disk, "write", name))
}
