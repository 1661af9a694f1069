//! Handing over the leadership: on request, and when the server is to stop.
//!
//! Between two leaders nobody can say who does a request, so those that need a leader are held,
//! unread, until a successor is known or an election timeout has passed. A client then hears where
//! to go, and nothing that it sent is in doubt: the core hands over only once all that was proposed
//! is committed.
//!
//! A leader whose log finds no space hands over too, unasked, and so does one whose disk hangs.

use super::admission::as_u64;
use super::drive::room_after_overhead;
use super::pending::Waiter;
use super::{Fatal, Node, Stage};
use crate::raft::{Raft, TransferError};
use crate::types::{Instant, NodeId};
use crate::wal::Shortage;
use crate::wire::error::Error;
use crate::wire::members::transfer_reply;
use crate::wire::reply::error_reply;

/// Handovers, seen from the clients.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Clients wait, unread.
    pub(super) holding: bool,
    /// Until when we wait for the successor's word.
    until: Instant,
    /// To whom we handed over last.
    target: Option<NodeId>,
    /// Who waits for the end of a handover, and to whom.
    asked: Vec<(Waiter, NodeId)>,
    /// The log finds no space here.
    cramped: Option<Cramped>,
}

/// A server whose log finds no space, and which therefore does not want to lead.
#[derive(Debug)]
struct Cramped {
    /// When it looks for another leader again, if it leads.
    try_at: Instant,
    /// How long it waits after that. Nanoseconds.
    wait_ns: u64,
}

/// Where all are cramped, the leadership goes round no faster than once in so many election
/// timeouts, in the end.
const CRAMPED_WAIT_ELECTION_TIMEOUTS_MAX: u64 = 64;

/// The server leaves its office: it is to stop, or is no member any more.
#[derive(Debug)]
pub(super) struct Leaving {
    /// At the latest.
    until: Instant,
}

impl Node {
    /// Whether clients wait, unread.
    pub(super) fn holds_clients(&self) -> bool {
        self.stall.holds_clients() || self.handover.holding
    }

    /// Whether we hand over, or have done so and do not know to whom.
    pub(super) fn is_between_leaders(&self, now: Instant) -> bool {
        match &self.stage {
            Stage::Member(raft) if raft.is_leader() => raft.transferring_to().is_some(),
            // Who was removed hears from no leader any more.
            Stage::Member(raft) => {
                let waits = raft.leader().is_none() && now < self.handover.until;
                waits && !self.administration.removed
            }
            Stage::Alone(_) | Stage::Founding => false,
        }
    }

    /// Whom to ask, seen from here.
    pub(super) fn leader_or_successor(&self) -> Option<NodeId> {
        let Stage::Member(raft) = &self.stage else { return None };
        let successor = self.handover.target.filter(|_| self.administration.removed);
        raft.leader().or(successor)
    }

    pub(super) fn handover_wake_at(&self) -> Instant {
        let held = if self.handover.holding || !self.handover.asked.is_empty() {
            self.handover.until
        } else {
            Instant::FAR
        };
        let free = |raft: &Raft| raft.is_leader() && raft.transferring_to().is_none();
        let may_try = matches!(&self.stage, Stage::Member(raft) if free(raft));
        let cramped = self.handover.cramped.as_ref().filter(|_| may_try);
        held.min(self.leaving.as_ref().map_or(Instant::FAR, |leaving| leaving.until))
            .min(cramped.map_or(Instant::FAR, |cramped| cramped.try_at))
            .min(self.reload_wake_at())
    }

    /// Somebody wants `target` to lead, or whoever is furthest.
    pub(super) fn begin_transfer(
        &mut self,
        waiter: Waiter,
        target: Option<NodeId>,
        now: Instant,
    ) -> Result<(), Error> {
        // What clients sent before it is proposed before it.
        self.close_entry(now);
        self.carry_out_log();
        let Stage::Member(raft) = &mut self.stage else { return Err(self.not_leader(None)) };
        let Some(target) = target.or_else(|| raft.successor(now)) else {
            return Err(Error::Refused { why: "no other voter is connected".into() });
        };
        match raft.transfer(now, target) {
            Ok(()) | Err(TransferError::Leads) => {}
            Err(TransferError::NotLeader { leader }) => return Err(self.not_leader(leader)),
            Err(error @ TransferError::Underway) => {
                return Err(Error::Busy { what: error.to_string().into() });
            }
            Err(
                error @ (TransferError::NoVoter { .. }
                | TransferError::Unreachable { .. }
                | TransferError::Behind { .. }),
            ) => return Err(Error::Refused { why: error.to_string().into() }),
        }
        self.handover.asked.push((waiter, target));
        Ok(())
    }

    /// Says how handovers ended; a server that left the cluster ends after its own.
    pub(super) fn continue_handover(&mut self, now: Instant) {
        let Stage::Member(raft) = &self.stage else { return };
        let (leads, leader, to) = (raft.is_leader(), raft.leader(), raft.transferring_to());
        if to.is_some() {
            self.handover.target = to;
            self.handover.until = now.after_ns(self.options.election_timeout_ns);
        }
        let (until, connections) = (self.handover.until, &mut self.connections);
        self.handover.asked.retain(|(waiter, target)| {
            let error = if leader == Some(*target) {
                connections.answer(waiter.connection, |out| {
                    transfer_reply(out, waiter.request, *target);
                });
                return false;
            } else if to == Some(*target) || (leader.is_none() && now < until) {
                return true;
            } else if leads {
                let why = format!(
                    "{target} did not take over in time; the leader stays, unless {target} was \
                     only slow and does so yet"
                );
                Error::Refused { why: why.into() }
            } else {
                let why = format!("{target} was asked to lead, and does not yet");
                Error::NotReady { why: why.into() }
            };
            connections.answer(waiter.connection, |out| error_reply(out, waiter.request, &error));
            false
        });
        if self.administration.removed && !leads {
            // As a server that is told to stop: its clients hear first where to go.
            self.leave(now);
            if self.has_left(now) {
                self.fail(Fatal::Refused(self.removed()));
            }
        }
    }

    /// The server is to stop: hand over, finish what has begun, take on nothing new. Go on as
    /// before until `has_left`, then `stop`.
    pub fn leave(&mut self, now: Instant) {
        // Two election timeouts, less what the end of the process takes.
        let timeouts = self.options.election_timeout_ns.saturating_mul(2);
        let until = now.after_ns(timeouts.saturating_sub(self.options.heartbeat_ns));
        self.leaving.get_or_insert(Leaving { until });
    }

    /// Hands over if the server leaves. Before `settle`, which does the rest.
    pub(super) fn hand_over_to_leave(&mut self, now: Instant) {
        if self.leaving.is_some()
            && let Some(target) = self.hand_over(now)
        {
            log::info!("handing over node={} to={target}", self.identity.node);
        }
    }

    /// Begins a handover to the likeliest successor, unless one is under way; says to whom.
    pub(super) fn hand_over(&mut self, now: Instant) -> Option<NodeId> {
        let Stage::Member(raft) = &mut self.stage else { return None };
        if raft.transferring_to().is_some() {
            return None;
        }
        let target = raft.successor(now)?;
        raft.transfer(now, target).ok().map(|()| target)
    }

    /// Whether the log has no room for the largest request, and gets none.
    pub(super) fn is_cramped(&self) -> bool {
        let room = room_after_overhead(self.wal.room_bytes());
        self.is_short() && room < as_u64(self.limits.request_bytes_max)
    }

    /// A leader whose log has no room for the largest request, and gets none, lets another one
    /// lead: as long as a quorum has room, no client need hear of it. Before `settle`.
    pub(super) fn hand_over_for_space(&mut self, now: Instant) {
        if !self.is_cramped() {
            self.handover.cramped = None;
            return;
        }
        let timeout_ns = self.options.election_timeout_ns;
        let first = Cramped { try_at: now, wait_ns: timeout_ns };
        let cramped = self.handover.cramped.get_or_insert(first);
        let Stage::Member(raft) = &self.stage else { return };
        if !raft.is_leader() || now < cramped.try_at || raft.transferring_to().is_some() {
            return;
        }
        let longest_ns = timeout_ns.saturating_mul(CRAMPED_WAIT_ELECTION_TIMEOUTS_MAX);
        cramped.wait_ns = cramped.wait_ns.saturating_mul(2).min(longest_ns);
        cramped.try_at = now.after_ns(cramped.wait_ns);
        if let Some(target) = self.hand_over(now) {
            let node = self.identity.node;
            let why = match self.wal.shortage() {
                Some(Shortage::Space | Shortage::Descriptors) => "the log has no space here",
                None => "the log's next file is not ready, and the disk hangs",
            };
            log::warn!("handing over, for {why} node={node} to={target}");
        }
    }

    /// A leader that has waited for its disk for long lets another one lead as long as it can: that
    /// is over in moments, and an election is not. If nobody takes over it leaves office, and there
    /// is one (`raft`, durability). Heartbeats bring the turn. Before `settle`.
    pub(super) fn hand_over_for_disk(&mut self, now: Instant) {
        let Stage::Member(raft) = &self.stage else { return };
        if raft.disk_lags(now)
            && let Some(target) = self.hand_over(now)
        {
            let node = self.identity.node;
            log::warn!("handing over, for the disk does not answer node={node} to={target}");
        }
    }

    /// Whether a server that leaves has nothing left to do: nobody waits, and its clients have gone
    /// to the new leader. Or its time is up.
    pub fn has_left(&self, now: Instant) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        if leaving.until <= now {
            return true;
        }
        let (leads, succeeded) = match &self.stage {
            Stage::Member(raft) => (raft.is_leader(), raft.successor(now).is_some()),
            Stage::Alone(_) | Stage::Founding => (false, false),
        };
        if leads && !succeeded {
            // Nobody can take over: only what has begun is worth waiting for.
            self.connections.is_quiet()
        } else {
            !leads && !self.is_between_leaders(now) && self.connections.clients() == 0
        }
    }
}
