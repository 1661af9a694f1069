//! Which connection is which member, and when to dial again.
//!
//! Every pair of members has two connections: each dials the other, sends its requests there and
//! gets its answers there. So an answer can never be taken for one of an older connection.

use super::boots::Boots;
use super::connections::ConnectionId;
use super::entry::Member;
use crate::config::MemberAddress;
use crate::types::{DiskId, Instant, NodeId};

/// First wait after a failed attempt; doubles up to the maximum. A refused connection costs
/// microseconds.
const BACKOFF_MIN_NS: u64 = 10_000_000;
/// Longest wait between attempts: well below the election timeout, so that a member that is back
/// is heard.
const BACKOFF_MAX_NS: u64 = 160_000_000;

/// A handshake is one exchange. A server that loses its power before it answers says nothing, and
/// we have nothing more to say that would tell us: begin anew.
pub(super) const HANDSHAKE_NS: u64 = 1_000_000_000;

/// A request to the shell: connect to `address` and hand the connection over as dialed to `peer`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial {
    /// Whom to reach.
    pub peer: NodeId,
    /// `host:port`; resolve it anew.
    pub address: String,
    /// Counts the attempts. A name may have several addresses, such as `localhost`'s two, and the
    /// peer need not listen on the first: each attempt takes the next one.
    pub attempt: usize,
}

/// The connection that we dialed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outbound {
    /// None; dial at this moment.
    Waiting { until: Instant },
    /// The shell is resolving or connecting.
    Dialing,
    /// Connected; our hello is under way, and answered by this moment or given up.
    Shaking { connection: ConnectionId, until: Instant },
    /// Requests may be sent.
    Up { connection: ConnectionId, session: u64 },
}

/// Another member.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) address: String,
    /// Its data directory, once known.
    pub(super) disk_id: Option<DiskId>,
    /// The connection it dialed.
    pub(super) inbound: Option<ConnectionId>,
    /// The connection it dialed to bring a snapshot.
    pub(super) snapshot_inbound: Option<ConnectionId>,
    pub(super) outbound: Outbound,
    /// Its starts that have spoken to us.
    pub(super) boots: Boots,
    /// Which of them answers at `outbound`, if that is up.
    pub(super) answers_as: u64,
    /// Whether the last attempt failed in a way worth saying once.
    pub(super) complained: bool,
    /// Asked about on behalf of somebody who wants it to be a member.
    pub(super) applies: bool,
    /// When it is forgotten, because it is no member any more.
    forget_at: Instant,
    backoff_ns: u64,
    attempt: usize,
}

/// The other members, ascending by id.
#[derive(Debug)]
pub(super) struct Peers {
    list: Vec<Peer>,
    chance: u64,
    sessions: u64,
}

impl Peers {
    /// Everyone in `members` but `own`; `seed` is for the jitter.
    pub(super) fn new(members: &[MemberAddress], own: NodeId, seed: u64) -> Peers {
        let list = members
            .iter()
            .filter(|member| member.id != own)
            .map(|member| Peer::new(member.id, &member.address))
            .collect();
        Peers { list, chance: seed, sessions: 0 }
    }

    /// Takes over what the configuration in force says of a member. Returns the connection
    /// that leads to where it is no more, or was made to ask about it.
    pub(super) fn learn(&mut self, member: &Member, now: Instant) -> Option<ConnectionId> {
        self.enter(member.id, &member.address);
        let peer = self.get_mut(member.id).expect("just entered");
        peer.disk_id = Some(member.disk_id);
        peer.forget_at = Instant::FAR;
        let applied = std::mem::replace(&mut peer.applies, false);
        let moved = peer.address != member.address;
        if !applied && !moved {
            return None;
        }
        peer.address.clone_from(&member.address);
        let stale = peer.dialed();
        peer.outbound = Outbound::Waiting { until: now };
        stale
    }

    /// Enters a peer of whom only this is known, unless it is known. Without an address it is not
    /// dialed.
    pub(super) fn enter(&mut self, id: NodeId, address: &str) {
        if let Err(at) = self.list.binary_search_by_key(&id, |peer| peer.id) {
            self.list.insert(at, Peer::new(id, address));
        }
    }

    /// `connection`, which `id` made, is gone. Of whom no address is known, that is all there was.
    pub(super) fn lost_inbound(&mut self, id: NodeId, connection: ConnectionId) {
        let Some(peer) = self.get_mut(id) else { return };
        peer.inbound.take_if(|inbound| *inbound == connection);
        peer.snapshot_inbound.take_if(|inbound| *inbound == connection);
        if !peer.speaks() && peer.address.is_empty() {
            self.forget(id);
        }
    }

    /// Dials `id` no more, but goes on to answer it: as if only its own connections were known.
    /// Returns the one that we dialed.
    pub(super) fn only_answer(&mut self, id: NodeId) -> Option<ConnectionId> {
        let peer = self.get_mut(id)?;
        let dialed = peer.dialed();
        peer.address.clear();
        peer.disk_id = None;
        peer.applies = false;
        peer.outbound = Outbound::Waiting { until: Instant::ZERO };
        dialed
    }

    /// Forgets `id` at `at`: it is no member any more.
    pub(super) fn forget_later(&mut self, id: NodeId, at: Instant) {
        if let Some(peer) = self.get_mut(id) {
            peer.forget_at = peer.forget_at.min(at);
        }
    }

    /// Forgets `id` now; returns its connections.
    pub(super) fn forget(&mut self, id: NodeId) -> Vec<ConnectionId> {
        let at = self.list.iter().position(|peer| peer.id == id);
        at.map_or_else(Vec::new, |at| self.list.remove(at).connections().collect())
    }

    /// Whose time to be forgotten has come.
    pub(super) fn due_to_forget(&self, now: Instant) -> Option<NodeId> {
        self.list.iter().find(|peer| peer.forget_at <= now).map(|peer| peer.id)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }

    /// The member with this id.
    pub(super) fn get(&self, id: NodeId) -> Option<&Peer> {
        self.list.iter().find(|peer| peer.id == id)
    }

    /// The member with this id.
    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.list.iter_mut().find(|peer| peer.id == id)
    }

    /// Where requests to `id` go.
    pub(super) fn outbound(&self, id: NodeId) -> Option<ConnectionId> {
        match self.get(id)?.outbound {
            Outbound::Up { connection, .. } => Some(connection),
            Outbound::Waiting { .. } | Outbound::Dialing | Outbound::Shaking { .. } => None,
        }
    }

    /// Where answers to `id` go.
    pub(super) fn inbound(&self, id: NodeId) -> Option<ConnectionId> {
        self.get(id)?.inbound
    }

    /// Where answers to pieces of a snapshot of `id` go.
    pub(super) fn snapshot_inbound(&self, id: NodeId) -> Option<ConnectionId> {
        self.get(id)?.snapshot_inbound
    }

    /// Starts the attempts that are due.
    pub(super) fn dial_due(&mut self, now: Instant, dials: &mut Vec<Dial>) {
        for peer in &mut self.list {
            if let Outbound::Waiting { until } = peer.outbound
                && until <= now
                && !peer.address.is_empty()
            {
                peer.outbound = Outbound::Dialing;
                dials.push(peer.dial());
            }
        }
    }

    /// Notes that `connection` leads to `id` and that our hello is on its way. Says no if we do not
    /// want to reach `id` any more.
    pub(super) fn shaking(&mut self, id: NodeId, connection: ConnectionId, now: Instant) -> bool {
        let wanted = |peer: &&mut Peer| !peer.address.is_empty();
        let Some(peer) = self.get_mut(id).filter(wanted) else { return false };
        peer.outbound = Outbound::Shaking { connection, until: now.after_ns(HANDSHAKE_NS) };
        true
    }

    /// Gives up a handshake that takes too long; the caller ends its connection.
    pub(super) fn give_up_handshake(&mut self, now: Instant) -> Option<ConnectionId> {
        let overdue = |peer: &Peer| match peer.outbound {
            Outbound::Shaking { connection, until } if until <= now => Some((peer.id, connection)),
            Outbound::Shaking { .. }
            | Outbound::Waiting { .. }
            | Outbound::Dialing
            | Outbound::Up { .. } => None,
        };
        let (id, connection) = self.list.iter().find_map(overdue)?;
        self.lost_outbound(id, now);
        Some(connection)
    }

    /// When the next attempt is due, or a handshake overdue.
    pub(super) fn wake_at(&self) -> Instant {
        let due = self.list.iter().map(|peer| match peer.outbound {
            Outbound::Waiting { until } if !peer.address.is_empty() => until.min(peer.forget_at),
            Outbound::Shaking { until, .. } => until.min(peer.forget_at),
            Outbound::Waiting { .. } | Outbound::Dialing | Outbound::Up { .. } => peer.forget_at,
        });
        due.min().unwrap_or(Instant::FAR)
    }

    /// Notes that an attempt, a handshake or a connection to `id` has ended; the next attempt waits
    /// with jitter, so that two members that find each other gone do not stay in step.
    pub(super) fn lost_outbound(&mut self, id: NodeId, now: Instant) {
        let chance = self.draw();
        let Some(peer) = self.get_mut(id) else { return };
        let wait_ns = peer.backoff_ns / 2 + chance % (peer.backoff_ns / 2);
        peer.backoff_ns = (peer.backoff_ns * 2).min(BACKOFF_MAX_NS);
        peer.attempt = peer.attempt.wrapping_add(1);
        peer.outbound = Outbound::Waiting { until: now.after_ns(wait_ns) };
    }

    /// Notes that requests can be sent to `id`; returns the session's number, never used before.
    pub(super) fn up(&mut self, id: NodeId, connection: ConnectionId, boot_nonce: u64) -> u64 {
        self.sessions += 1;
        let session = self.sessions;
        let peer = self.get_mut(id).expect("the handshake knew this member");
        peer.outbound = Outbound::Up { connection, session };
        peer.answers_as = boot_nonce;
        peer.backoff_ns = BACKOFF_MIN_NS;
        peer.complained = false;
        session
    }

    /// A member that has dialed us is alive: do not wait any longer before dialing it.
    pub(super) fn heard_from(&mut self, id: NodeId, now: Instant) {
        if let Some(peer) = self.get_mut(id)
            && let Outbound::Waiting { until } = peer.outbound
        {
            peer.outbound = Outbound::Waiting { until: until.min(now) };
            peer.backoff_ns = BACKOFF_MIN_NS;
        }
    }

    /// A step of splitmix64 (Steele, Lea, Flood 2014): good enough to spread attempts.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Peer {
    fn new(id: NodeId, address: &str) -> Peer {
        Peer {
            id,
            address: address.to_owned(),
            disk_id: None,
            inbound: None,
            snapshot_inbound: None,
            outbound: Outbound::Waiting { until: Instant::ZERO },
            boots: Boots::default(),
            answers_as: 0,
            complained: false,
            applies: false,
            forget_at: Instant::FAR,
            backoff_ns: BACKOFF_MIN_NS,
            attempt: 0,
        }
    }

    /// One more connection to where the last attempt went.
    pub(super) fn dial(&self) -> Dial {
        Dial { peer: self.id, address: self.address.clone(), attempt: self.attempt }
    }

    /// Whether it has a connection to us.
    pub(super) fn speaks(&self) -> bool {
        self.inbound.is_some() || self.snapshot_inbound.is_some()
    }

    /// Every connection with it.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        [self.inbound, self.snapshot_inbound, self.dialed()].into_iter().flatten()
    }

    /// The connection that we made, for replication.
    pub(super) fn dialed(&self) -> Option<ConnectionId> {
        match self.outbound {
            Outbound::Shaking { connection, .. } | Outbound::Up { connection, .. } => {
                Some(connection)
            }
            Outbound::Waiting { .. } | Outbound::Dialing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_its_number_and_waits_longer() {
        let [own, other] = [1, 2].map(|id| NodeId::new(id).unwrap());
        let member = |id| MemberAddress { id, address: "localhost:1".to_owned() };
        let mut peers = Peers::new(&[member(own), member(other)], own, 7);
        let mut now = Instant::ZERO;
        let mut waited = Vec::new();
        for attempt in 0..6 {
            let mut dials = Vec::new();
            peers.dial_due(now, &mut dials);
            assert_eq!(dials.len(), 1, "this server is not dialed, the other once");
            assert_eq!(dials[0].attempt, attempt);
            peers.lost_outbound(other, now);
            waited.push(peers.wake_at().ns_since(now));
            now = peers.wake_at();
        }
        assert!(waited[0] < BACKOFF_MIN_NS, "{waited:?}");
        assert!(waited[5] >= BACKOFF_MAX_NS / 2, "{waited:?}");
        assert!(waited[5] < BACKOFF_MAX_NS, "{waited:?}");
    }
}
