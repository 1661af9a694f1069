//! What is true at the end of every turn, and what never goes back between two. Asserted in release
//! builds: a server whose memory contradicts the proof must stop before it speaks.

use super::Raft;
use super::durability::Durable;
use super::progress::Progress;
use super::role::Role;
use crate::types::{HardState, LogIndex, LogPosition, Term, Vote};

/// What the next check compares with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    hard_state: HardState,
    commit_index: LogIndex,
    /// The term we led and the end of our log then.
    led: Option<(Term, LogPosition)>,
    /// Whether leases had ended for that term.
    leases_over: bool,
}

impl Moment {
    /// Before the first turn.
    pub(super) fn start(hard_state: HardState, commit_index: LogIndex) -> Moment {
        Moment { hard_state, commit_index, led: None, leases_over: false }
    }
}

impl Raft {
    pub(super) fn check_invariants(&mut self) {
        self.check_now();
        let last = self.log.last();
        let led = self.is_leader().then_some((self.hard_state.term, last));
        let (hard_state, commit_index) = (self.hard_state, self.commit_index);
        let leases_over = match &self.role {
            Role::Leader(leader) => leader.reads.leases_are_over(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        let now = Moment { hard_state, commit_index, led, leases_over };
        check_between(&self.moment, &now);
        self.moment = now;
    }

    fn check_now(&self) {
        let last = self.log.last();
        let durable = self.durability.last();
        let base = self.log.base();
        assert!(base.index <= self.commit_index, "a snapshot {base} of what is not committed");
        assert!(self.commit_index <= last.index, "commit {} beyond {last}", self.commit_index);
        assert!(durable <= last.index, "durable {durable} beyond {last}");
        assert!(last.term <= self.hard_state.term, "{last} beyond {:?}", self.hard_state);
        assert!(self.log.configuration_index() <= last.index, "configuration beyond {last}");
        match &self.role {
            Role::Follower(follower) => {
                let Some(following) = &follower.following else { return };
                let verified = following.verified;
                assert!(following.leader != self.settings.id, "we do not follow ourselves");
                assert!(verified <= last.index, "verified {verified} beyond {last}");
                assert!(following.acked <= verified, "told more than verified {verified}");
                assert!(following.acked <= durable, "told more than durable {durable}");
                assert!(self.commit_index <= verified, "committed more than verified {verified}");
            }
            Role::PreCandidate(candidate) => {
                assert!(candidate.granted.contains(&self.settings.id), "we would vote for us");
            }
            Role::Candidate(_) => self.check_own_vote(),
            Role::Leader(leader) => {
                self.check_own_vote();
                // Others act on what we say in it: a crash must not let us lead it a second time.
                let durable = self.durability.of(self.hard_state);
                assert_eq!(durable, Durable::Now, "leads {:?}", self.hard_state);
                let leases = leader.transfer.is_none() || leader.reads.leases_are_over();
                assert!(leases, "hands over with leases");
                assert_eq!(leader.noop.term, self.hard_state.term, "a leader's term is its own");
                assert_eq!(last.term, self.hard_state.term, "a leader's last entry is its own");
                for peer in &leader.peers {
                    assert!(peer.id != self.settings.id, "we are not our own peer");
                    assert!(peer.match_index <= last.index, "{peer:?} beyond {last}");
                    assert!(peer.round_heard <= leader.reads.round(), "{peer:?} confirms too much");
                    match &peer.progress {
                        Progress::Probe(probe) => assert!(probe.prev <= last.index, "{probe:?}"),
                        Progress::Replicate(stream) => {
                            assert!(peer.match_index <= stream.sent, "{peer:?}");
                            assert!(stream.sent <= last.index, "{peer:?} beyond {last}");
                        }
                        Progress::Snapshot => {
                            assert!(base.index > LogIndex::ZERO, "{peer:?} without a snapshot");
                        }
                    }
                }
            }
        }
    }

    fn check_own_vote(&self) {
        let own = Vote::For(self.settings.id);
        assert_eq!(self.hard_state.vote, own, "who campaigns or leads has voted for itself");
    }
}

fn check_between(before: &Moment, now: &Moment) {
    assert!(before.hard_state.term <= now.hard_state.term, "term back: {before:?} {now:?}");
    assert!(before.commit_index <= now.commit_index, "commit back: {before:?} {now:?}");
    let same_term = before.hard_state.term == now.hard_state.term;
    if same_term && before.hard_state.vote != Vote::None {
        // Election Safety rests on it: one vote per term.
        assert_eq!(before.hard_state.vote, now.hard_state.vote, "voted twice");
    }
    if let (Some((term_before, last_before)), Some((term_now, last_now))) = (before.led, now.led) {
        // Leader Append-Only (Figure 3).
        assert!(term_before != term_now || last_before <= last_now, "{before:?} {now:?}");
        // Whom we told to campaign may do so whenever it hears it, as long as we lead this term.
        let back = before.leases_over && !now.leases_over;
        assert!(term_before != term_now || !back, "leases are back: {before:?} {now:?}");
    }
    if let (None, Some((term, _))) = (before.led, now.led) {
        let led_before = same_term && before.hard_state.vote == Vote::None;
        assert!(!led_before, "leads term {term} in which it had not campaigned");
    }
}
