//! Changes of the members: what somebody asks, what the core finds due, and what follows from it.
//!
//! A new server is asked who it is before anything is decided: its data directory belongs into the
//! configuration. So `member add` dials it first, as an *applicant*; what it cannot be reached for
//! is said at once, and the cluster is as before. Meanwhile whoever asked may lose the right to:
//! it is judged again when the applicant has answered.
//!
//! A server that lost its data directory comes back under a new id (`MemberReplace`), because an id
//! stands for promises: with the old id, a vote or an acknowledgement of the lost disk that is
//! still on its way would count for the empty one.

use super::connections::ConnectionId;
use super::drive::room_after_overhead;
use super::entry::{Member, Membership, Standing};
use super::peers::{Outbound, Peer};
use super::pending::Waiter;
use super::{Node, Stage};
use crate::kv::Asker;
use crate::raft::{Change, ChangeError, Configuration, Learner, Wish};
use crate::types::{EntryKind, Instant, LogIndex, LogPosition, NodeId};
use crate::wire::client::{Op, Request};
use crate::wire::error::Error;
use crate::wire::hello::Welcome;
use crate::wire::members::{
    MemberList, MemberRequest, MemberStatus, member_change_reply, member_list_reply,
};
use crate::wire::reply::error_reply;

/// How long a new server may take to say who it is. Below raftctl's timeout. Nanoseconds.
const APPLICANT_PATIENCE_NS: u64 = 2_000_000_000;

/// After this many election timeouts the connections with a removed member are closed: it knows, or
/// will be told when it comes back.
const FAREWELL_ELECTION_TIMEOUTS: u64 = 4;

/// Changes under way.
#[derive(Debug, Default)]
pub(super) struct Administration {
    applicant: Option<Applicant>,
    /// Who waits for the commit of which configuration.
    waiting: Vec<Asked>,
    /// The newest configuration that became committed in this turn.
    committed: Option<LogIndex>,
    /// Whether a committed configuration leaves us out.
    pub(super) removed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    position: LogPosition,
    waiter: Waiter,
    op: Op,
}

/// A server that is asked who it is.
#[derive(Debug)]
struct Applicant {
    id: NodeId,
    address: String,
    wish: Wish,
    waiter: Waiter,
    /// Whose rights are asked for again once it has answered.
    asker: Asker,
    op: Op,
    deadline: Instant,
    /// What came of the last attempt.
    why: String,
}

impl Administration {
    /// When it must be looked at.
    pub(super) fn wake_at(&self) -> Instant {
        self.applicant.as_ref().map_or(Instant::FAR, |applicant| applicant.deadline)
    }

    /// The leadership has ended: whether the configurations will be committed is not known here.
    pub(super) fn drop_all(&mut self, lost: &mut Vec<Waiter>) {
        lost.extend(self.waiting.drain(..).map(|asked| asked.waiter));
    }
}

impl Node {
    pub(super) fn admit_member_request(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        let asked = MemberRequest::decode(request.op, request.args)
            .map_err(|error| Error::BadRequest { why: error.to_string().into() })?
            .expect("admission sends these ops here");
        self.check_leader(now)?;
        self.check_rights(asker, |rights| rights.administer())?;
        let waiter = Waiter { connection: id, request: request.id };
        match asked {
            MemberRequest::Transfer { node } => self.begin_transfer(waiter, node, now)?,
            MemberRequest::Remove { node } => {
                self.change(Change::Remove(node), None, (waiter, request.op), now)?;
            }
            MemberRequest::Promote { node } => {
                self.change(Change::Promote(node), None, (waiter, request.op), now)?;
            }
            MemberRequest::Add { node, address, stay } => {
                let wish = if stay { Wish::Stay } else { Wish::Vote };
                let learner = Learner { id: node, wish };
                self.begin_application(learner, address, (asker, waiter, request.op), now)?;
            }
            MemberRequest::Replace { old, node, address } => {
                let membership = self.memberships.newest();
                if !membership.configuration().is_voter(old) {
                    return refuse(format!("server {} is not a voter", old.get()));
                }
                let learner = Learner { id: node, wish: Wish::Replace(old) };
                self.begin_application(learner, address, (asker, waiter, request.op), now)?;
            }
        }
        self.connections.wait(id);
        Ok(())
    }

    /// Asks a new server who it is; `on_applicant_welcome` goes on.
    fn begin_application(
        &mut self,
        learner: Learner,
        address: &str,
        (asker, waiter, op): (Asker, Waiter, Op),
        now: Instant,
    ) -> Result<(), Error> {
        let Learner { id, wish } = learner;
        if let Some(other) = &self.administration.applicant {
            let what = format!("server {} is being asked who it is", other.id.get());
            return Err(Error::Busy { what: what.into() });
        }
        let membership = self.memberships.newest();
        let highest = membership.highest();
        if membership.get(id).is_none() && id.get() <= highest {
            return refuse(format!(
                "ids are never reused, and {highest} is the highest so far: give the new server \
                 --id {} or higher",
                highest + 1
            ));
        }
        if let Some((other, _)) = membership.iter().find(|(it, _)| it.address == address) {
            return refuse(format!("{address} is the address of server {}", other.id.get()));
        }
        let Stage::Member(raft) = &self.stage else { unreachable!("check_leader saw a leader") };
        raft.plan(now, Change::Add(learner)).map_err(|error| self.refusal(error))?;
        self.forget_peer(id);
        self.peers.enter(id, address);
        let peer = self.peers.get_mut(id).expect("just entered");
        peer.applies = true;
        let address = address.to_owned();
        let deadline = now.after_ns(APPLICANT_PATIENCE_NS);
        let why = "it does not answer".to_owned();
        let applicant = Applicant { id, address, wish, waiter, asker, op, deadline, why };
        self.administration.applicant = Some(applicant);
        Ok(())
    }

    /// An applicant has said who it is: make it a member.
    pub(super) fn on_applicant_welcome(&mut self, id: NodeId, welcome: &Welcome, now: Instant) {
        let Some(applicant) = self.take_applicant(id) else { return };
        let Applicant { wish, waiter, asker, op, address, .. } = applicant;
        let elsewhere = welcome.genesis != 0 && welcome.genesis != self.genesis;
        let admitted = if let Err(why) = self.may_admit(asker) {
            Err(why)
        } else if welcome.node != id {
            refuse(format!("the server at {address} is {}, not {}", welcome.node.get(), id.get()))
        } else if elsewhere || welcome.cluster_id != self.identity.cluster_id {
            refuse(format!(
                "the server at {address} belongs to another cluster: start it with --join and an \
                 empty --data-dir"
            ))
        } else {
            let member = Member { id, disk_id: welcome.disk_id, address };
            let change = Change::Add(Learner { id, wish });
            self.change(change, Some(&member), (waiter, op), now)
        };
        if let Err(error) = admitted {
            self.forget_peer(id);
            self.answer_error(waiter, &error);
        }
    }

    /// Whether whoever asked for a new member still may: the right may have gone while the
    /// applicant was asked, and what is done after that was acknowledged must not need it.
    fn may_admit(&self, asker: Asker) -> Result<(), Error> {
        match &self.stage {
            Stage::Member(raft) if raft.is_leader() => {
                self.check_rights(asker, |rights| rights.administer())
            }
            Stage::Member(raft) => Err(self.not_leader(raft.leader())),
            Stage::Alone(_) | Stage::Founding => Err(self.not_leader(None)),
        }
    }

    /// An attempt to ask an applicant has failed.
    pub(super) fn note_applicant(&mut self, id: NodeId, why: &str) {
        if let Some(applicant) = &mut self.administration.applicant
            && applicant.id == id
        {
            why.clone_into(&mut applicant.why);
        }
    }

    /// An applicant cannot be asked.
    fn give_up_applicant(&mut self, id: NodeId, why: &str) {
        let number = id.get();
        self.refuse_applicant(id, |address| {
            format!(
                "server {number} is not reachable at {address}: {why}; start it there first, with \
                 `raftd --id {number} --join`"
            )
        });
    }

    /// Whoever was found at its address does not know us, or is another one.
    pub(super) fn on_applicant_refused(&mut self, id: NodeId, why: &str) {
        let number = id.get();
        self.refuse_applicant(id, |address| {
            format!(
                "the server at {address} cannot become server {number}: {why}; a new server is \
                 started with `raftd --id {number} --join`, the --peers of this cluster, its \
                 --cluster-token and an empty --data-dir"
            )
        });
    }

    fn refuse_applicant(&mut self, id: NodeId, why: impl FnOnce(&str) -> String) {
        let Some(applicant) = self.take_applicant(id) else { return };
        self.forget_peer(id);
        let why = why(&applicant.address).into();
        self.answer_error(applicant.waiter, &Error::Refused { why });
    }

    fn take_applicant(&mut self, id: NodeId) -> Option<Applicant> {
        self.administration.applicant.take_if(|applicant| applicant.id == id)
    }

    fn answer_error(&mut self, waiter: Waiter, error: &Error) {
        self.connections.answer(waiter.connection, |out| error_reply(out, waiter.request, error));
    }

    /// Proposes what `change` leads to; `asked` hears of its commit.
    fn change(
        &mut self,
        change: Change,
        newcomer: Option<&Member>,
        (waiter, op): (Waiter, Op),
        now: Instant,
    ) -> Result<(), Error> {
        // What clients sent before it comes before it in the log.
        self.close_entry(now);
        let Stage::Member(raft) = &self.stage else { return Err(self.not_leader(None)) };
        let next = raft.plan(now, change).map_err(|error| self.refusal(error))?;
        let position = self.propose_membership(next, newcomer, now)?;
        self.administration.waiting.push(Asked { position, waiter, op });
        Ok(())
    }

    fn propose_membership(
        &mut self,
        next: Configuration,
        newcomer: Option<&Member>,
        now: Instant,
    ) -> Result<LogPosition, Error> {
        self.carry_out_log();
        let membership = self.memberships.newest().successor(&next, newcomer);
        let payload = membership.encode();
        let bytes = u32::try_from(payload.len()).expect("a configuration is small");
        if u64::from(bytes) > room_after_overhead(self.wal.room_bytes()) {
            return Err(self.no_room());
        }
        let Stage::Member(raft) = &mut self.stage else { return Err(self.not_leader(None)) };
        let proposed = raft.propose_configuration(now, next, bytes);
        let position = proposed.map_err(|error| self.refusal(error))?;
        self.wal.append(position, EntryKind::Configuration, &payload);
        let node = self.identity.node;
        log::info!("proposed members node={node} at={position} members={}", say(&membership));
        self.memberships.push(position.index, membership);
        self.reconfigured = true;
        Ok(position)
    }

    /// Proposes what the core finds due, and follows the configuration in force.
    pub(super) fn continue_reconfiguration(&mut self, now: Instant) {
        let Stage::Member(raft) = &mut self.stage else { return };
        if let Some(next) = raft.output().configuration_due.take() {
            // If there is no room now, it is due again.
            let proposed = self.propose_membership(next, None, now).is_ok();
            if let Stage::Member(raft) = &mut self.stage
                && proposed
            {
                raft.settle(now);
                self.carry_out_log();
            }
        }
        if std::mem::take(&mut self.reconfigured) {
            self.follow_members(now);
        }
        self.look_at_applicant(now);
    }

    fn look_at_applicant(&mut self, now: Instant) {
        let Some(applicant) = &self.administration.applicant else { return };
        let Stage::Member(raft) = &self.stage else { return };
        let (id, leader) = (applicant.id, raft.leader());
        if applicant.deadline <= now {
            let why = applicant.why.clone();
            self.give_up_applicant(id, &why);
        } else if !raft.is_leader()
            && let Some(applicant) = self.take_applicant(id)
        {
            self.forget_peer(id);
            self.answer_error(applicant.waiter, &self.not_leader(leader));
        }
    }

    /// Peers are the members of the configuration in force, and of the one before while that may
    /// come back.
    pub(super) fn follow_members(&mut self, now: Instant) {
        let Stage::Member(raft) = &self.stage else { return };
        let before = self.memberships.at_or_below(raft.commit_index());
        let newest = self.memberships.newest();
        let members: Vec<Member> = before
            .iter()
            .chain(newest.iter())
            .map(|(member, _)| member.clone())
            .filter(|member| member.id != self.identity.node)
            .collect();
        // Of a configuration that came to nothing, or of --peers. The removed are told first.
        let applicant = self.administration.applicant.as_ref().map(|applicant| applicant.id);
        let stray = |peer: &&Peer| {
            let known = before.get(peer.id).or(newest.get(peer.id)).is_some();
            !known && applicant != Some(peer.id) && !newest.has_removed(peer.id)
        };
        let strays: Vec<(NodeId, bool)> =
            self.peers.iter().filter(stray).map(|peer| (peer.id, peer.speaks())).collect();
        for (id, speaks) in strays {
            if speaks {
                self.only_answer(id);
            } else {
                self.forget_peer(id);
            }
        }
        for member in members {
            if let Some(stale) = self.peers.learn(&member, now) {
                self.connections.end(stale);
            }
        }
    }

    /// The entry at `position`, just applied, holds a configuration.
    pub(super) fn configuration_committed(&mut self, position: LogPosition) {
        self.note_committed_members(position.index);
        let (lost, connections) = (&mut self.scratch.lost, &mut self.connections);
        self.administration.waiting.retain(|asked| {
            let Waiter { connection, request } = asked.waiter;
            if asked.position == position {
                connections.answer(connection, |out| {
                    member_change_reply(out, request, asked.op, position.index);
                });
            } else if asked.position.index <= position.index {
                lost.push(asked.waiter);
            }
            asked.position.index > position.index
        });
    }

    /// The configuration of the entry at `index` is committed: `follow_committed` looks at it.
    pub(super) fn note_committed_members(&mut self, index: LogIndex) {
        self.administration.committed = Some(index);
    }

    /// Draws the consequences of a configuration that became committed: who is removed is told for
    /// a while, then forgotten.
    pub(super) fn follow_committed(&mut self, now: Instant) {
        if let Some(index) = self.administration.committed.take() {
            let committed = self.memberships.at_or_below(index);
            self.administration.removed |= committed.has_removed(self.identity.node);
            let newest = self.memberships.newest();
            let gone = |id: &NodeId| committed.has_removed(*id) && newest.has_removed(*id);
            let gone: Vec<NodeId> = self.peers.iter().map(|peer| peer.id).filter(gone).collect();
            let timeout = self.options.election_timeout_ns;
            let at = now.after_ns(timeout.saturating_mul(FAREWELL_ELECTION_TIMEOUTS));
            for id in gone {
                self.peers.forget_later(id, at);
            }
        }
        while let Some(id) = self.peers.due_to_forget(now) {
            log::info!("forgot a removed member node={} member={id}", self.identity.node);
            self.forget_peer(id);
        }
    }

    /// It may know of a configuration that we do not. Once it does not speak to us any more, it is
    /// forgotten.
    fn only_answer(&mut self, id: NodeId) {
        self.disconnect(id);
        if let Some(dialed) = self.peers.only_answer(id) {
            self.connections.end(dialed);
        }
    }

    /// Tells the core that nothing can be sent to this peer any more.
    fn disconnect(&mut self, id: NodeId) {
        if let Some(peer) = self.peers.get(id)
            && let Outbound::Up { session, .. } = peer.outbound
            && let Stage::Member(raft) = &mut self.stage
        {
            raft.disconnected(id, session);
        }
    }

    fn forget_peer(&mut self, id: NodeId) {
        self.disconnect(id);
        for connection in self.peers.forget(id) {
            self.connections.end(connection);
        }
    }

    /// What a server says last that is no member, and cannot become one by its number. It may never
    /// have been one: then its addition came to nothing, and later ones took higher numbers.
    pub(super) fn removed(&self) -> String {
        let (node, number) = (self.identity.node, self.identity.node.get());
        let committed = match &self.stage {
            Stage::Member(raft) => raft.commit_index(),
            Stage::Alone(_) | Stage::Founding => LogIndex::ZERO,
        };
        // The first entry founds the cluster, and needs no commit that we would have to hear of.
        let certain = committed.max(LogIndex::new(1));
        let mut known = self.memberships.iter().filter(|(index, _)| *index <= certain);
        if known.any(|(_, membership)| membership.get(node).is_some()) {
            format!(
                "server {number} was removed from the cluster: its data directory can be deleted; \
                 to let this machine come back, start it with --join, a new --id and an empty \
                 --data-dir, and `raftctl member add` it"
            )
        } else {
            format!(
                "server {number} is not a member of the cluster, and its number cannot be added \
                 any more: start it with --join, an --id above all members' and an empty \
                 --data-dir, and `raftctl member add` it"
            )
        }
    }

    pub(super) fn answer_member_list(
        &mut self,
        id: ConnectionId,
        asker: Asker,
        request: u64,
        now: Instant,
    ) -> Result<(), Error> {
        self.check_leader(now)?;
        self.check_rights(asker, |_| Ok(()))?;
        let Stage::Member(raft) = &self.stage else { return Err(self.not_leader(None)) };
        let own = self.identity.node;
        let membership = self.memberships.newest();
        let status = |(member, standing): (&Member, Standing)| MemberStatus {
            node: member.id,
            address: member.address.clone(),
            disk_id: member.disk_id,
            role: role(standing).to_owned(),
            replaces: match standing {
                Standing::Learner(Wish::Replace(old)) => Some(old),
                Standing::Voter
                | Standing::Learner(Wish::Stay | Wish::Vote)
                | Standing::Incoming
                | Standing::Outgoing => None,
            },
            alive: raft.is_alive(now, member.id),
            match_index: raft.match_index(member.id).unwrap_or_default(),
        };
        let list = MemberList {
            index: raft.configuration_index(),
            committed: raft.configuration_index() <= raft.commit_index(),
            highest: NodeId::new(membership.highest()).unwrap_or(own),
            leader: own,
            last_index: raft.last().index,
            members: membership.iter().map(status).collect(),
        };
        self.connections.write(id, |out| member_list_reply(out, request, &list));
        Ok(())
    }

    fn refusal(&self, error: ChangeError) -> Error {
        match error {
            ChangeError::NotLeader { leader } => self.not_leader(leader),
            ChangeError::NotReady => Error::NotReady { why: error.to_string().into() },
            ChangeError::Underway | ChangeError::Transferring => {
                Error::Busy { what: error.to_string().into() }
            }
            ChangeError::Member { .. }
            | ChangeError::NoMember { .. }
            | ChangeError::NoLearner { .. }
            | ChangeError::TooMany
            | ChangeError::LastVoter
            | ChangeError::Unreachable { .. }
            | ChangeError::Behind { .. }
            | ChangeError::NoQuorum { .. } => Error::Refused { why: error.to_string().into() },
        }
    }
}

fn refuse<T>(why: String) -> Result<T, Error> {
    Err(Error::Refused { why: why.into() })
}

fn role(standing: Standing) -> &'static str {
    match standing {
        Standing::Voter => "voter",
        Standing::Learner(Wish::Stay) => "learner",
        Standing::Learner(Wish::Vote | Wish::Replace(_)) => "joining",
        Standing::Incoming => "incoming",
        Standing::Outgoing => "outgoing",
    }
}

/// The members on one line.
fn say(membership: &Membership) -> String {
    let members: Vec<String> = membership
        .iter()
        .map(|(member, standing)| format!("{}={}:{}", member.id, member.address, role(standing)))
        .collect();
    members.join(",")
}
