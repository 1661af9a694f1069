//! Somebody saves a snapshot, from whichever node, and looks at what it got: `raftctl snapshot
//! save`.

use crate::chance::{Chance, u64_of};
use crate::coverage::Point;
use crate::disk::SimDisk;
use crate::invariants::{broken, must};
use crate::network::PipeKey;
use crate::trace::{Who, say};
use crate::world::{World, id_of};
use raftd::kv::StoreOptions;
use raftd::replica::load_snapshot;
use raftd::types::SnapshotId;
use raftd::wal::{Disk, SnapshotSource};
use raftd::wire::client::snapshot_request;
use raftd::wire::error::Error;
use raftd::wire::reply::{Reply, ReplyBody};

const NAME: &str = "saved";

/// A snapshot on its way to a client.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) pipe: PipeKey,
    /// The largest revision that anybody had been told when it was asked for.
    floor: u64,
    snapshot: Option<SnapshotId>,
    bytes: Vec<u8>,
}

impl World {
    pub(crate) fn ask_for_save(&mut self) {
        let chance = &mut self.faults.chance;
        let client = chance.index(self.crowd.clients.len());
        let any = chance.index(self.machines.len());
        let node = self.proof.leader().filter(|_| chance.one_in(2)).unwrap_or(any);
        if !self.has_line(client, node) {
            return;
        }
        let floor = self.crowd.told;
        let it = &mut self.crowd.clients[client];
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let mut bytes = Vec::new();
        snapshot_request(&mut bytes, it.requests + 1);
        say!(self, Who::Client(client), "save", "n{} knowing {floor}", node + 1);
        let request = self.send_request(client, pipe, bytes);
        let save = Save { pipe, floor, snapshot: None, bytes: Vec::new() };
        self.crowd.clients[client].saves.insert(request, save);
    }

    pub(super) fn is_saving(&self, client: usize, request: u64) -> bool {
        self.crowd.clients[client].saves.contains_key(&request)
    }

    /// A piece came, or a word. Says whether that was all.
    pub(super) fn on_save(&mut self, client: usize, node: usize, reply: &Reply<'_>) -> bool {
        let saves = &mut self.crowd.clients[client].saves;
        let save = saves.get_mut(&reply.id).expect("the caller looked");
        match &reply.body {
            ReplyBody::Snapshot(piece) if piece.bytes.is_empty() => return false,
            ReplyBody::Snapshot(piece) => {
                let same = *save.snapshot.get_or_insert(piece.snapshot) == piece.snapshot;
                let follows = piece.offset == u64_of(save.bytes.len());
                must!(same && follows, "SavedWhole", "c{client} gets {piece:?} out of place");
                save.bytes.extend_from_slice(piece.bytes);
                if u64_of(save.bytes.len()) < piece.snapshot.bytes {
                    return false;
                }
                let save = saves.remove(&reply.id).expect("it was just there");
                self.check_saved(client, node, &save);
            }
            ReplyBody::Error(
                Error::NotLeader { .. }
                | Error::Busy { .. }
                | Error::Refused { .. }
                | Error::NotReady { .. }
                | Error::NoSpace
                | Error::Denied { .. }
                | Error::Removed { .. },
            ) => drop(saves.remove(&reply.id)),
            other @ (ReplyBody::Error(_)
            | ReplyBody::Put { .. }
            | ReplyBody::DeleteRange { .. }
            | ReplyBody::OpenSession { .. }
            | ReplyBody::PutIf { .. }
            | ReplyBody::Compact { .. }
            | ReplyBody::PutWith { .. }
            | ReplyBody::DeleteRangeWith { .. }
            | ReplyBody::Txn { .. }
            | ReplyBody::LeaseTerm { .. }
            | ReplyBody::LeaseRevoke { .. }
            | ReplyBody::LeaseTimes(..)
            | ReplyBody::LeaseList(_)
            | ReplyBody::Range(_)
            | ReplyBody::Watch(_)
            | ReplyBody::WatchCancel { .. }
            | ReplyBody::WatchProgress { .. }
            | ReplyBody::Auth { .. }
            | ReplyBody::Login(_)
            | ReplyBody::LoginProof(_)
            | ReplyBody::AuthRead(_)
            | ReplyBody::Status(_)
            | ReplyBody::MemberList(_)
            | ReplyBody::MemberChange { .. }
            | ReplyBody::Transfer { .. }) => {
                broken("Answer", format!("a snapshot was asked for, and came {other:?}"));
            }
        }
        true
    }

    fn check_saved(&mut self, client: usize, node: usize, save: &Save) {
        let disk = SimDisk::new(Chance::of(0, NAME), self.proof.ground());
        let file = disk.create_new(NAME).expect("the disk is new");
        let written = file.write_at(0, &save.bytes).and_then(|()| file.sync());
        written.expect("nothing happens to this disk");
        let options = StoreOptions { index_seed: 1, history_bytes_max: u64::MAX };
        let source = SnapshotSource::of_file(&disk, NAME);
        let (store, head) = match source.and_then(|source| load_snapshot(&source, options)) {
            Ok(loaded) => loaded,
            Err(why) => {
                let it = &self.machines[node];
                let rotten = it.damaged || it.disk.snapshot_is_rotten();
                must!(
                    rotten,
                    "SavedWhole",
                    "c{client} saved no snapshot of {}: {why}",
                    id_of(node)
                );
                return;
            }
        };
        let (revision, floor) = (store.revision().0, save.floor);
        must!(revision >= floor, "SavedWhole", "c{client} saved {revision}, {floor} was known");
        self.proof.check_state(node, head.position, store.state_hash());
        self.coverage.hit(Point::SnapshotSaved);
    }
}
