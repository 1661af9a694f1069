//! What a leader knows of one follower, and how it sends to it.
//!
//! `Probe` looks for the last common entry with one message at a time; `Replicate` streams;
//! `Snapshot` waits until a snapshot has brought the follower to where the log begins. A leader
//! sends only over a live connection, whose number (the replication session) the answers repeat: an
//! answer of an older session proves nothing about this one.

use crate::types::{Instant, LogIndex, NodeId};
use std::collections::VecDeque;

/// How entries go to a follower.
#[derive(Debug)]
pub(super) enum Progress {
    /// Looking for the last common entry. At most one message is out; it is repeated every
    /// heartbeat.
    Probe(Probe),
    /// The logs agree up to `match_index`; entries are sent without waiting.
    Replicate(Replicate),
    /// It needs entries that the log no longer holds: a snapshot is on its way, on a connection of
    /// its own, and only heartbeats are sent here.
    Snapshot,
}

/// The state of `Progress::Probe`.
#[derive(Debug)]
pub(super) struct Probe {
    /// The `prev` to try.
    pub(super) prev: LogIndex,
    /// The probe that is out; `None` if one is to be sent.
    pub(super) sent: Option<InFlight>,
    /// Send at most one entry: an earlier probe was lost, or its entries found no room.
    pub(super) cautious: bool,
    /// Send nothing before the next heartbeat: the follower has no room.
    pub(super) paused: bool,
}

/// The state of `Progress::Replicate`.
#[derive(Debug)]
pub(super) struct Replicate {
    /// The last entry sent: `next_index` of Figure 2, less one.
    pub(super) sent: LogIndex,
    /// The messages sent and not yet answered, oldest first.
    in_flight: VecDeque<InFlight>,
    /// The sum of their bytes: kept here and nowhere else, so that it cannot drift.
    in_flight_bytes: u64,
}

/// A message with entries up to `last` that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) last: LogIndex,
    pub(super) bytes: u64,
    pub(super) sent_at: Instant,
}

impl Replicate {
    fn new(sent: LogIndex) -> Replicate {
        Replicate { sent, in_flight: VecDeque::new(), in_flight_bytes: 0 }
    }

    /// Whether another message may be sent, given the bounds.
    pub(super) fn has_room(&self, messages_max: usize, bytes_max: u64) -> bool {
        let idle = self.in_flight.is_empty();
        idle || (self.in_flight.len() < messages_max && self.in_flight_bytes < bytes_max)
    }

    /// A message leaves.
    pub(super) fn record(&mut self, message: InFlight) {
        let last = message.last;
        assert!(last > self.sent, "the pipeline moves forward: {last} after {}", self.sent);
        self.sent = last;
        self.in_flight.push_back(message);
        self.in_flight_bytes += message.bytes;
    }

    fn answered(&mut self, match_index: LogIndex) {
        while self.in_flight.front().is_some_and(|message| message.last <= match_index) {
            let message = self.in_flight.pop_front().expect("just looked at");
            self.in_flight_bytes -= message.bytes;
        }
        assert!(!self.in_flight.is_empty() || self.in_flight_bytes == 0, "bytes leaked");
        self.sent = self.sent.max(match_index);
    }

    fn waits_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|message| message.sent_at)
    }
}

/// One other server, as the leader sees it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// Figure 2: the highest entry known to be replicated (and durable) there, in this session.
    pub(super) match_index: LogIndex,
    /// Our live connection to it.
    pub(super) session: Option<u64>,
    pub(super) progress: Progress,
    /// When it last answered us in this term; at first, when we were elected.
    pub(super) heard_at: Instant,
    /// The newest ReadIndex round it confirmed.
    pub(super) round_heard: u64,
    /// The newest round we sent it.
    pub(super) round_sent: u64,
    /// It must hear from us in this turn, entries or not.
    pub(super) heartbeat_due: bool,
}

impl Peer {
    /// A follower about which we know nothing, to be probed after `prev`.
    pub(super) fn new(id: NodeId, session: Option<u64>, prev: LogIndex, now: Instant) -> Peer {
        Peer {
            id,
            match_index: LogIndex::ZERO,
            session,
            progress: probe(prev),
            heard_at: now,
            round_heard: 0,
            round_sent: 0,
            heartbeat_due: true,
        }
    }

    /// The connection is up: probe from where the logs agreed, but hold nothing for proven. The
    /// server behind it may have restarted, with damage found.
    pub(super) fn connected(&mut self, session: u64) {
        let prev = match &self.progress {
            Progress::Probe(probe) => Some(probe.prev),
            Progress::Replicate(_) => Some(self.match_index),
            // Its answers to heartbeats say when the snapshot is installed, or was not needed.
            Progress::Snapshot => None,
        };
        self.session = Some(session);
        self.match_index = LogIndex::ZERO;
        self.progress = prev.map_or(Progress::Snapshot, probe);
        self.heartbeat_due = true;
    }

    /// The connection is down: nothing is sent until there is another.
    pub(super) fn disconnected(&mut self, session: u64) {
        if self.session == Some(session) {
            self.session = None;
        }
    }

    /// The follower holds everything up to `index`, durably.
    pub(super) fn matched(&mut self, index: LogIndex) {
        self.match_index = self.match_index.max(index);
        match &mut self.progress {
            Progress::Replicate(replicate) => replicate.answered(self.match_index),
            Progress::Snapshot => {} // `leave_snapshot` knows where the log begins
            Progress::Probe(probe) if self.match_index < probe.prev => {} // not durable yet
            // There is room again, or this answer does not know yet that there was none.
            Progress::Probe(probe) if probe.paused => {
                (probe.prev, probe.paused) = (self.match_index, false);
            }
            Progress::Probe(probe) => {
                let mut replicate = Replicate::new(self.match_index);
                // What the probe carried is on its way, or lost: it was perhaps not the probe that
                // was answered, but a heartbeat.
                if let Some(message) = probe.sent.filter(|sent| sent.last > self.match_index) {
                    replicate.record(message);
                }
                self.progress = Progress::Replicate(replicate);
            }
        }
    }

    /// Whether a refusal of the probe after `prev` is news: a stale or repeated one must not move
    /// us.
    pub(super) fn awaits_refusal_of(&self, prev: LogIndex) -> bool {
        match &self.progress {
            Progress::Probe(probe) => probe.sent.is_some() && probe.prev == prev,
            Progress::Replicate(replicate) => self.match_index < prev && prev <= replicate.sent,
            Progress::Snapshot => false,
        }
    }

    /// The last entry before those that would be sent next; `None` if none would be.
    fn sent(&self) -> Option<LogIndex> {
        match &self.progress {
            Progress::Probe(probe) => Some(probe.prev),
            Progress::Replicate(replicate) => Some(replicate.sent),
            Progress::Snapshot => None,
        }
    }

    /// The log begins behind `base`: whoever needs more than that needs a snapshot. Says whether
    /// this follower newly does.
    pub(super) fn enter_snapshot(&mut self, base: LogIndex) -> bool {
        let behind = self.sent().is_some_and(|sent| sent < base);
        if behind {
            self.progress = Progress::Snapshot;
        }
        behind
    }

    /// The follower is proven to have what the log, which begins behind `base`, goes on from.
    pub(super) fn leave_snapshot(&mut self, base: LogIndex) {
        if matches!(self.progress, Progress::Snapshot) && self.match_index >= base {
            self.progress = Progress::Replicate(Replicate::new(self.match_index));
        }
    }

    /// The follower says that it has everything up to `index` from a snapshot: look whether it
    /// goes on from there.
    pub(super) fn snapshot_installed(&mut self, index: LogIndex) {
        if matches!(self.progress, Progress::Snapshot) {
            self.progress = probe(index);
        }
    }

    /// Probe after `prev` next, but not below what is proven. `None`: nobody can look there any
    /// more.
    pub(super) fn probe_after(&mut self, prev: Option<LogIndex>) {
        let proven = Some(self.match_index).filter(|index| *index > LogIndex::ZERO);
        self.progress = prev.max(proven).map_or(Progress::Snapshot, probe);
    }

    /// Whether entries found no room there, the last time some were sent.
    pub(super) fn lacks_room(&self) -> bool {
        matches!(&self.progress, Progress::Probe(probe) if probe.cautious && probe.paused)
    }

    /// The follower had no room: wait until it says that it has, or for the next heartbeat; then
    /// try one entry.
    pub(super) fn pause(&mut self) {
        let prev = match &self.progress {
            // What it has may not be durable there yet, as just after a snapshot: it had the entry
            // before those that found no room.
            Progress::Probe(probe) => probe.prev.max(self.match_index),
            Progress::Replicate(_) => self.match_index,
            Progress::Snapshot => return,
        };
        self.progress = Progress::Probe(Probe { prev, sent: None, cautious: true, paused: true });
    }

    /// The follower found damage at `faulty`: what we held for proven from there on is not. Commit
    /// never goes back. Spec §6 rule 19.
    pub(super) fn found_faulty(&mut self, faulty: LogIndex) {
        let sound = faulty.prev();
        if sound < self.match_index {
            self.match_index = sound;
            self.progress = probe(sound);
        }
    }

    /// A heartbeat is due: repeat what may have been lost. Says whether a pipeline was given up,
    /// because its oldest message was sent before `lost_before` and is still unanswered.
    pub(super) fn on_heartbeat_due(&mut self, lost_before: Instant) -> bool {
        self.heartbeat_due = true;
        match &mut self.progress {
            Progress::Probe(probe) => {
                probe.cautious = probe.cautious || probe.sent.is_some();
                probe.sent = None;
                probe.paused = false;
                false
            }
            Progress::Replicate(replicate) => {
                let lost = replicate.waits_since().is_some_and(|since| since < lost_before);
                if lost {
                    self.progress = probe(self.match_index);
                }
                lost
            }
            Progress::Snapshot => false,
        }
    }
}

fn probe(prev: LogIndex) -> Progress {
    Progress::Probe(Probe { prev, sent: None, cautious: false, paused: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Instant = Instant::from_ns(1_000_000_000);

    fn at(index: u64) -> LogIndex {
        LogIndex::new(index)
    }

    fn message(last: u64, sent_at: Instant) -> InFlight {
        InFlight { last: at(last), bytes: 100, sent_at }
    }

    fn peer(prev: u64) -> Peer {
        let id = NodeId::new(2).expect("not zero");
        let mut peer = Peer::new(id, Some(1), at(prev), Instant::ZERO);
        if let Progress::Probe(probe) = &mut peer.progress {
            probe.sent = Some(message(prev + 3, SECOND));
        }
        peer
    }

    fn sent(peer: &Peer) -> Option<LogIndex> {
        match &peer.progress {
            Progress::Probe(_) | Progress::Snapshot => None,
            Progress::Replicate(replicate) => Some(replicate.sent),
        }
    }

    #[test]
    fn who_needs_what_the_log_no_longer_holds_gets_a_snapshot_and_goes_on_behind_it() {
        let mut peer = peer(10);
        assert!(!peer.enter_snapshot(at(10)));
        assert!(peer.enter_snapshot(at(11)), "entry 11 is gone");
        assert!(!peer.enter_snapshot(at(11)), "said once");
        peer.matched(at(4));
        peer.leave_snapshot(at(11));
        assert!(matches!(peer.progress, Progress::Snapshot), "4 is not where the log begins");
        peer.connected(2);
        assert!(matches!(peer.progress, Progress::Snapshot), "a connection brings no entries");
        peer.matched(at(20));
        peer.leave_snapshot(at(11));
        assert_eq!(sent(&peer), Some(at(20)));
        peer.probe_after(None);
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(20)));
    }

    #[test]
    fn who_has_all_up_to_where_the_log_begins_needs_no_snapshot() {
        let mut peer = peer(10);
        peer.enter_snapshot(at(11));
        peer.matched(at(11));
        peer.leave_snapshot(at(11));
        assert_eq!(sent(&peer), Some(at(11)));
    }

    #[test]
    fn no_room_just_after_a_snapshot_asks_for_no_other_one() {
        let mut peer = peer(3);
        peer.enter_snapshot(at(11));
        peer.pause();
        assert!(matches!(peer.progress, Progress::Snapshot), "an answer from before");
        peer.snapshot_installed(at(15));
        peer.matched(at(3));
        peer.pause();
        assert!(!peer.enter_snapshot(at(11)));
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(15)));
    }

    #[test]
    fn an_installed_snapshot_is_probed_not_believed() {
        let mut peer = peer(3);
        peer.enter_snapshot(at(11));
        peer.snapshot_installed(at(15));
        assert_eq!(peer.match_index, LogIndex::ZERO);
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(15)));
    }

    #[test]
    fn a_probe_succeeds_when_its_prev_is_proven_and_not_before() {
        let mut peer = peer(10);
        peer.matched(at(9));
        assert_eq!(sent(&peer), None, "9 may be an answer to something older");
        peer.matched(at(10));
        assert_eq!(sent(&peer), Some(at(13)), "what the probe carried is on its way");
    }

    #[test]
    fn a_refusal_counts_only_if_it_names_the_probe_that_is_out() {
        let mut peer = peer(10);
        assert!(peer.awaits_refusal_of(at(10)));
        assert!(!peer.awaits_refusal_of(at(9)));
        peer.probe_after(Some(at(5)));
        assert!(!peer.awaits_refusal_of(at(5)), "not sent yet");
        peer.matched(at(7));
        assert!(!peer.awaits_refusal_of(at(7)), "proven: the refusal is older");
    }

    #[test]
    fn a_pipeline_is_bounded_in_messages_and_in_bytes_and_never_by_one_large_entry() {
        let mut replicate = Replicate::new(at(0));
        assert!(replicate.has_room(2, 0), "one message is always allowed");
        replicate.record(message(1, SECOND));
        assert!(replicate.has_room(2, 101));
        assert!(!replicate.has_room(2, 100));
        assert!(!replicate.has_room(1, 1000));
        replicate.record(message(2, SECOND));
        replicate.answered(at(1));
        assert_eq!(replicate.in_flight_bytes, 100);
        replicate.answered(at(2));
        assert!(replicate.has_room(1, 1));
    }

    #[test]
    fn a_new_session_proves_nothing_but_is_probed_where_the_logs_agreed() {
        let mut peer = peer(10);
        peer.matched(at(12));
        peer.connected(2);
        assert_eq!(peer.match_index, LogIndex::ZERO);
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(12)));
        peer.disconnected(1);
        assert_eq!(peer.session, Some(2), "an old connection's end is no news");
    }

    #[test]
    fn a_probe_that_was_lost_is_given_up_like_any_message_when_a_heartbeat_was_answered() {
        let mut peer = peer(10);
        peer.matched(at(10));
        assert_eq!(sent(&peer), Some(at(13)));
        assert!(!peer.on_heartbeat_due(SECOND));
        assert!(peer.on_heartbeat_due(SECOND.after_ns(1)));
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(10)));
    }

    #[test]
    fn damage_lowers_what_is_proven() {
        let mut peer = peer(10);
        peer.matched(at(12));
        peer.found_faulty(at(13));
        assert_eq!(peer.match_index, at(12));
        peer.found_faulty(at(5));
        assert_eq!(peer.match_index, at(4));
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(4)));
    }

    #[test]
    fn no_room_waits_for_room_or_the_heartbeat_and_then_tries_one_entry() {
        for says_so in [false, true] {
            let mut peer = peer(10);
            peer.matched(at(12));
            peer.pause();
            peer.matched(at(13));
            peer.pause();
            assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.paused));
            if says_so {
                peer.matched(at(13));
            } else {
                assert!(!peer.on_heartbeat_due(Instant::ZERO));
            }
            let Progress::Probe(probe) = &peer.progress else { panic!("still looking") };
            assert!(!probe.paused);
            assert!(probe.cautious);
            assert_eq!(probe.prev, at(13));
        }
    }

    #[test]
    fn an_unanswered_pipeline_is_given_up_after_its_patience() {
        let mut peer = peer(10);
        peer.matched(at(10));
        let Progress::Replicate(replicate) = &mut peer.progress else { panic!("matched") };
        replicate.record(message(14, SECOND));
        assert!(!peer.on_heartbeat_due(SECOND));
        assert!(peer.on_heartbeat_due(SECOND.after_ns(1)));
        assert!(matches!(&peer.progress, Progress::Probe(probe) if probe.prev == at(10)));
    }
}
