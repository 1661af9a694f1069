//! A snapshot of the leader on its way in: pieces to the record, blocks to a store beside the one
//! that serves, and then, in one step, the place of ours. Paper §7, Figure 13.
//!
//! ```text
//! pieces  → record (bg: write, sync)  → Wanted { offset }      from there on, after any break
//! whole   → record (bg: read, check)  → blocks → loader, a slice a turn; its state hash checked;
//!                                       Wanted { all } meanwhile, and no other one is begun
//! loaded  → record (bg: put in place) → may_install?
//! yes     → core, record and store change together; one sync job makes it durable → Installed
//! ```
//!
//! Until the last line nothing of the node has changed, and whatever happens meanwhile (entries
//! that overtake the snapshot, a new leader, our own candidacy) goes its way; the snapshot is then
//! asked again whether it is still wanted.

use super::connections::ConnectionId;
use super::entry::{Membership, Memberships};
use super::snapshots::{Loading, Worth, next_slice};
use super::{Fatal, Node, Stage};
use crate::kv::Sliced;
use crate::raft::message::{Message, SnapshotOutcome};
use crate::raft::{Install, LogFate, PieceVerdict};
use crate::types::{Instant, LogIndex, NodeId, SnapshotId};
use crate::wire::error::Error;
use crate::wire::peer::{PeerFrame, Room, decode_peer};

/// The snapshot that is being received.
pub(super) struct Receiving {
    id: SnapshotId,
    /// Who sent the last piece: to be answered.
    from: NodeId,
    loading: Loading,
    slice_at: Instant,
    /// When the sender is to hear next that it is being loaded.
    say_at: Instant,
    /// It was loaded, and is in place or about to be.
    accepted: bool,
    /// It is in place.
    ready: bool,
}

impl Node {
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    /// When the next slice is to be loaded.
    pub(super) fn receiving_wake_at(&self) -> Instant {
        match &self.receiving {
            Some(receiving) if !receiving.accepted => receiving.slice_at,
            Some(_) | None => Instant::FAR,
        }
    }

    /// How much of the snapshot that is being received is durable, and its size. Bytes.
    pub(super) fn received(&self) -> (u64, u64) {
        match (&self.receiving, self.wal.part()) {
            (Some(receiving), Some((_, stored))) => (stored.unwrap_or(0), receiving.id.bytes),
            (Some(_), None) | (None, _) => (0, 0),
        }
    }

    /// A frame on the connection that the member `from` made for a snapshot.
    pub(super) fn on_piece(&mut self, id: ConnectionId, from: NodeId, body: &[u8], now: Instant) {
        let decoded = decode_peer(body, Room::default());
        let Ok(PeerFrame { message, payloads, .. }) = decoded else {
            log::warn!("closed a peer that sent bytes of no message peer={from}");
            return self.connections.end(id);
        };
        let Message::InstallSnapshot { snapshot, offset, .. } = message else {
            log::warn!("closed a peer that sent a message out of place peer={from}");
            return self.connections.end(id);
        };
        let Stage::Member(raft) = &mut self.stage else { return self.connections.end(id) };
        raft.step(now, from, &message, 0);
        let verdict = raft.output().snapshot.take();
        self.carry_out_log();
        match verdict {
            None => {}
            Some(PieceVerdict::Superfluous) if !self.reloads_from(snapshot.position) => {
                self.answer_piece(from, snapshot, SnapshotOutcome::Installed);
            }
            Some(PieceVerdict::Keep | PieceVerdict::Superfluous) => {
                let piece = payloads.first().map_or(&[][..], |payload| payload.bytes);
                self.keep_piece(id, (from, snapshot), (offset, piece), now);
            }
        }
    }

    fn keep_piece(
        &mut self,
        id: ConnectionId,
        (from, snapshot): (NodeId, SnapshotId),
        (offset, piece): (u64, &[u8]),
        now: Instant,
    ) {
        let same = self.receiving.as_ref().is_some_and(|receiving| receiving.id == snapshot);
        if !same {
            // Loading takes a while, and the log that goes on from what is loaded may be gone by
            // the end of it. With each newer snapshot begun anew, none would ever be installed.
            if self.is_loading() {
                return self.answer_piece(from, snapshot, SnapshotOutcome::Refused);
            }
            self.begin_receiving(from, snapshot, now);
        }
        let receiving = self.receiving.as_mut().expect("begun above if there was none");
        receiving.from = from;
        let stored = self.wal.part().and_then(|(_, stored)| stored);
        if piece.is_empty() {
            if let Some(offset) = stored {
                self.answer_piece(from, snapshot, SnapshotOutcome::Wanted { offset });
            }
        } else if !self.wal.push_part(offset, piece) {
            // It does not follow: a new connection asks from where on to send.
            log::info!("closed a sender that was out of step peer={from} offset={offset}");
            self.connections.end(id);
        }
    }

    fn begin_receiving(&mut self, from: NodeId, id: SnapshotId, now: Instant) {
        let node = self.identity.node;
        if let Some(Receiving { id: old, loading, .. }) = self.receiving.take() {
            self.drop_loading(loading);
            log::info!("restarts with another snapshot node={node} from={from} old={old} new={id}");
        } else {
            log::info!("receives a snapshot node={node} from={from} id={id}");
        }
        self.wal.begin_part(id);
        let loading = Loading::new(self.store_options());
        let (slice_at, say_at) = (now, now);
        self.receiving =
            Some(Receiving { id, from, loading, slice_at, say_at, accepted: false, ready: false });
    }

    /// Whether all of a snapshot is on our disk: it is being loaded, or about to be installed.
    fn is_loading(&self) -> bool {
        let whole = |it: &Receiving| self.wal.part() == Some((it.id, Some(it.id.bytes)));
        self.receiving.as_ref().is_some_and(whole)
    }

    fn answer_piece(&mut self, to: NodeId, snapshot: SnapshotId, outcome: SnapshotOutcome) {
        if let Stage::Member(raft) = &mut self.stage {
            raft.answer_piece(to, snapshot, outcome);
        }
    }

    /// Everything before `offset` is durable. Of a file that turned out to be damaged there, blocks
    /// from before wait to be loaded, and nothing more is read until they are.
    pub(super) fn on_part_stored(&mut self, id: SnapshotId, offset: u64, now: Instant) {
        if let Some(receiving) = &mut self.receiving
            && receiving.id == id
        {
            receiving.slice_at = receiving.slice_at.min(now);
            let from = receiving.from;
            self.answer_piece(from, id, SnapshotOutcome::Wanted { offset });
        }
    }

    /// Blocks wait to be loaded.
    pub(super) fn on_part_read(&mut self, now: Instant) {
        if let Some(receiving) = &mut self.receiving {
            receiving.slice_at = receiving.slice_at.min(now);
        }
    }

    /// It is in place.
    pub(super) fn on_part_ready(&mut self, id: SnapshotId) {
        if let Some(receiving) = &mut self.receiving
            && receiving.id == id
        {
            receiving.ready = true;
        }
    }

    /// It is damaged, or could not be stored: the sender begins anew, after a while.
    pub(super) fn on_part_failed(&mut self, id: SnapshotId, why: &str) {
        log::warn!("dropped a snapshot node={} id={id} why={why}", self.identity.node);
        if let Some(receiving) = self.receiving.take_if(|receiving| receiving.id == id) {
            self.answer_piece(receiving.from, id, SnapshotOutcome::Refused);
            self.drop_loading(receiving.loading);
        }
    }

    fn drop_loading(&mut self, loading: Loading) {
        // All of it: what is loaded so far is as large as a store.
        self.wal.drop_in_background(Box::new(loading));
    }

    /// Loads a slice, and installs what is loaded.
    pub(super) fn continue_receiving(&mut self, now: Instant) {
        self.end_if_overtaken();
        let Some(receiving) = &mut self.receiving else { return };
        if receiving.ready {
            return self.install_if_wanted(now);
        }
        if receiving.accepted || receiving.slice_at > now {
            return;
        }
        receiving.slice_at = next_slice(now);
        let (id, genesis) = (receiving.id, self.genesis);
        match receiving.loading.step(self.options.snapshots.loaded_slice) {
            Ok(Sliced::More) => {}
            Ok(Sliced::Done) if receiving.loading.is_complete() => {
                receiving.accepted = true;
                self.wal.accept_part();
            }
            Ok(Sliced::Done) => match self.wal.take_block() {
                Some(block) => self.wal.free_block(receiving.loading.push(block)),
                None => receiving.slice_at = Instant::FAR, // the disk wakes us
            },
            Err(damage) => {
                self.wal.abandon_part();
                return self.on_part_failed(id, &damage.to_string());
            }
        }
        if let Some(retired) = receiving.loading.take_retired() {
            self.wal.drop_in_background(retired);
        }
        let Some(receiving) = &self.receiving else { return };
        let cluster_id = self.identity.cluster_id;
        let foreign = receiving.loading.head().is_some_and(|head| {
            (head.cluster_id, head.genesis, head.position) != (cluster_id, genesis, id.position)
        });
        if foreign {
            self.wal.abandon_part();
            self.on_part_failed(id, "it is of another cluster, or of another entry");
        }
        self.say_that_it_loads(now);
    }

    /// A slice was loaded. The sender gives up whom it does not hear, and goes over to another
    /// snapshot if its log has moved on: it hears again what it knows, that all of it is here.
    fn say_that_it_loads(&mut self, now: Instant) {
        let loads = self.is_loading();
        let Some(receiving) = self.receiving.as_mut().filter(|it| loads && it.say_at <= now) else {
            return;
        };
        receiving.say_at = now.after_ns(self.options.election_timeout_ns);
        let (from, id) = (receiving.from, receiving.id);
        self.answer_piece(from, id, SnapshotOutcome::Wanted { offset: id.bytes });
    }

    /// The log may bring what the snapshot stands for before it is whole: from another leader,
    /// whose log begins earlier. Then nobody sends more of it, and as long as it is here no other
    /// is made.
    fn end_if_overtaken(&mut self) {
        let Stage::Member(raft) = &self.stage else { return };
        let commit = raft.commit_index();
        let reloads = |id: SnapshotId| self.reloads_from(id.position);
        if self.receiving.as_ref().is_some_and(|it| reloads(it.id)) {
            return;
        }
        let overtaken = |it: &mut Receiving| !it.accepted && it.id.position.index <= commit;
        if let Some(receiving) = self.receiving.take_if(overtaken) {
            let Receiving { id, from, loading, .. } = receiving;
            log::info!("needs a snapshot no more node={} id={id}", self.identity.node);
            self.wal.abandon_part();
            self.answer_piece(from, id, SnapshotOutcome::Installed);
            self.drop_loading(loading);
        }
    }

    fn install_if_wanted(&mut self, now: Instant) {
        let Some(receiving) = &self.receiving else { return };
        let (id, from) = (receiving.id, receiving.from);
        let reloads = self.reloads_from(id.position);
        let Stage::Member(raft) = &mut self.stage else { return };
        let verdict = match reloads {
            true if raft.durable() < id.position.index => Install::Later,
            true => Install::Now(LogFate::Kept),
            false => raft.may_install(id.position),
        };
        match verdict {
            Install::Later => {}
            Install::Never => {
                let outcome = if raft.commit_index() >= id.position.index {
                    SnapshotOutcome::Installed
                } else {
                    SnapshotOutcome::Refused
                };
                self.wal.abandon_part();
                self.answer_piece(from, id, outcome);
                if let Some(receiving) = self.receiving.take() {
                    self.drop_loading(receiving.loading);
                }
            }
            Install::Now(fate) => {
                if self.wal.can_install(fate == LogFate::Replaced) {
                    self.install(now);
                }
            }
        }
    }

    /// Core, record and store change together.
    fn install(&mut self, now: Instant) {
        let Some(Receiving { id, from, loading, .. }) = self.receiving.take() else { return };
        let (Some(head), Some(store)) = loading.into_parts() else {
            unreachable!("it is ready only once it is loaded")
        };
        let membership = match Membership::decode(&head.configuration) {
            Ok(membership) => membership,
            Err(error) => {
                let index = head.configuration_index;
                return self.fail(Fatal::Entry { index, why: error.to_string() });
            }
        };
        self.end_drafting();
        let reloads = self.reloads_from(id.position);
        let Stage::Member(raft) = &mut self.stage else { return };
        let at = head.configuration_index;
        let fate = if reloads {
            // To the rules nothing happens: what it stands for is committed, and in the log.
            LogFate::Kept
        } else {
            raft.install_snapshot(now, id.position, (at, membership.configuration()))
        };
        self.wal.install_part(fate == LogFate::Replaced);
        let why = "the state came anew in the middle of a range".into();
        self.end_all_ranges(&Error::NotReady { why });
        let old = std::mem::replace(&mut self.store, *store);
        let old_applied = old.applied();
        assert!(reloads || old_applied < self.store.applied(), "a snapshot never goes back");
        self.wal.drop_in_background(Box::new(old));
        self.note_reloaded(old_applied);
        self.state_hashes.forget_own();
        self.watch_new_store();
        // Whoever waits for an entry below was answered when our leadership ended, or is now.
        self.pending.drop_after(LogIndex::ZERO, &mut self.scratch.lost);
        self.snapshots.configuration = Some((at, head.configuration));
        self.snapshots.worth = Worth::Sound;
        if fate == LogFate::Replaced {
            self.memberships = Memberships::new(vec![(at, membership)]);
            self.follow_members(now);
        }
        // It is committed, though its entry is never applied here.
        self.note_committed_members(at);
        self.answer_piece(from, id, SnapshotOutcome::Installed);
    }
}
