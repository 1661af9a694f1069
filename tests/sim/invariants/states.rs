//! Whose state is another one than the log says, whether the server knows, and what it does then.

use super::{Proof, Seen, must};
use crate::coverage::{Coverage, Point};
use raftd::raft::Raft;
use raftd::replica::Inspection;
use raftd::wire::frame::next_frame;
use raftd::wire::reply::{ReplyBody, SnapshotPiece, decode_reply};

/// What is known of a machine's state over all its starts.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct State {
    /// It is another one than the log says.
    pub(super) spoiled: bool,
    /// It was, at some time.
    pub(super) was_spoiled: bool,
    /// The server has found out, and has not loaded it anew.
    diverged: bool,
    /// Its disk may say so: it has found out since the start before, or began with the note.
    noted: bool,
}

impl Proof {
    pub(crate) fn on_spoiled(&mut self, machine: usize) {
        self.states[machine].spoiled = true;
        self.states[machine].was_spoiled = true;
        // It changes without an entry.
        self.seen[machine].hash = 0;
    }

    pub(crate) fn is_spoiled(&self, machine: usize) -> bool {
        self.states[machine].spoiled
    }

    pub(crate) fn spoiled(&self) -> impl Iterator<Item = usize> {
        (0..self.states.len()).filter(|nth| self.states[*nth].spoiled)
    }

    /// Whether the server has just loaded its state anew: it may stand before what it had applied.
    pub(super) fn check_state_known(
        &mut self,
        machine: usize,
        seen: &mut Seen,
        node: &Inspection<'_>,
        coverage: &mut Coverage,
    ) -> bool {
        let anyone = self.states.iter().any(|state| state.was_spoiled);
        must!(!node.disputed || anyone, "StatesAgree", "n{} disputes for nothing", machine + 1);
        coverage.hit_if(node.disputed && !seen.disputed, Point::StateDisputed);
        seen.disputed = node.disputed;
        let state = &mut self.states[machine];
        let reloaded = node.reloads > seen.reloads;
        seen.reloads = node.reloads;
        if reloaded {
            coverage.hit(Point::StateReloaded);
            (state.spoiled, state.diverged) = (false, false);
        }
        must!(
            !node.diverged || state.spoiled || state.diverged,
            "StatesAgree",
            "n{} holds its state for another one than the rest's, and it is not",
            machine + 1
        );
        must!(
            node.diverged_noted == node.diverged,
            "StatesAgree",
            "n{}: its state differs: {}, what it notes: {}",
            machine + 1,
            node.diverged,
            node.diverged_noted
        );
        state.noted |= node.diverged;
        if node.diverged && !state.diverged {
            coverage.hit(Point::StateDiverged);
            coverage.hit_if(node.raft.is_some_and(Raft::is_leader), Point::StateDivergedLeader);
        }
        // A crash may have come before the note was written.
        state.diverged = node.diverged;
        seen.silent = node.diverged;
        reloaded
    }

    /// A server that knows that its state is another one answers no client from it. `bytes` are
    /// whole frames to one.
    pub(crate) fn check_silence(&self, machine: usize, was_silent: bool, bytes: &[u8]) {
        if !was_silent || !self.seen[machine].silent {
            return;
        }
        let mut at = 0;
        while let Ok(Some(frame)) = next_frame(&bytes[at..], usize::MAX >> 1) {
            at += frame.consumed;
            let Ok(reply) = decode_reply(frame.body) else { continue }; // a welcome
            // That a save is under way: what is committed was asked before (seed 41470).
            let is_word = |piece: &SnapshotPiece<'_>| *piece == SnapshotPiece::default();
            let silent = matches!(
                &reply.body,
                ReplyBody::Error(_)
                    | ReplyBody::Status(_)
                    | ReplyBody::WatchCancel { .. }
                    | ReplyBody::MemberList(_)
                    | ReplyBody::MemberChange { .. }
                    | ReplyBody::Transfer { .. }
            ) || matches!(&reply.body, ReplyBody::Snapshot(piece) if is_word(piece));
            must!(
                silent,
                "DivergedSilent",
                "n{} answers #{} from a state that it knows to be wrong: {:?}",
                machine + 1,
                reply.id,
                reply.body
            );
        }
    }

    /// A process that starts with a note that its state is another one. The note may have outlived
    /// the state: what took it back was not durable when the process ended (seed 354).
    pub(super) fn note_start_of_state(
        &mut self,
        machine: usize,
        node: &Inspection<'_>,
        coverage: &mut Coverage,
    ) {
        coverage.hit_if(node.diverged, Point::StartedDiverged);
        let state = &mut self.states[machine];
        let known = !node.diverged || state.noted;
        must!(known, "StatesAgree", "n{} starts with a note that nobody wrote", machine + 1);
        (state.diverged, state.noted) = (node.diverged, node.diverged);
        state.spoiled |= node.diverged;
        // Whether it was spoiled is not known before it has applied something: `check_applied`.
        self.seen[machine].silent = node.diverged;
    }
}
