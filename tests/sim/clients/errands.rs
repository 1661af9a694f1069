//! Errands: what somebody asks of the cluster itself, over a client's connection.

use crate::chance::u64_of;
use crate::coverage::Point;
use crate::invariants::{broken, must};
use crate::power::address;
use crate::trace::{Who, say};
use crate::world::{World, id_of, machine_of};
use raftd::types::NodeId;
use raftd::wire::client::Op;
use raftd::wire::error::Error;
use raftd::wire::members::MemberRequest;
use raftd::wire::reply::ReplyBody;
use std::collections::BTreeSet;

impl World {
    /// Somebody wants another to lead: who is furthest, or anyone, able or not.
    pub(crate) fn ask_for_transfer(&mut self) {
        let machines = self.machines.len();
        let chance = &mut self.faults.chance;
        let node = (!chance.one_in(3)).then(|| id_of(chance.index(machines)));
        self.send_errand(&MemberRequest::Transfer { node });
    }

    /// Somebody wants other members, whatever they are now.
    pub(crate) fn ask_for_change(&mut self) {
        let (first, machines) = (self.options.nodes, self.machines.len());
        let highest = self.proof.highest_member();
        let newest = self.proof.possible_configurations().pop().cloned();
        let Some(newest) = newest else { return };
        let chance = &mut self.faults.chance;
        let any = chance.pick(&newest.members());
        // Numbers are never used again: those below the highest would be refused.
        let fresh = (first.max(highest + 1)..machines).next();
        let spare = fresh.unwrap_or(first + chance.index(machines - first));
        let (node, address) = (id_of(spare), address(spare));
        let asked = match chance.below(10) {
            0..=2 => MemberRequest::Add { node, address: &address, stay: chance.one_in(2) },
            3 | 4 => {
                let learner = newest.learners().first().map_or(any, |learner| learner.id);
                MemberRequest::Promote { node: learner }
            }
            5..=7 => MemberRequest::Replace { old: any, node, address: &address },
            _ => MemberRequest::Remove { node: any },
        };
        self.send_errand(&asked);
    }

    /// Mostly the leader is asked.
    fn send_errand(&mut self, asked: &MemberRequest<'_>) {
        let chance = &mut self.faults.chance;
        let client = chance.index(self.crowd.clients.len());
        let any = chance.index(self.machines.len());
        let astray = chance.one_in(8);
        let node = self.proof.leader().filter(|_| !astray).unwrap_or(any);
        if !self.has_line(client, node) {
            return;
        }
        let it = &mut self.crowd.clients[client];
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let mut bytes = Vec::new();
        asked.encode(&mut bytes, it.requests + 1);
        say!(self, Who::Client(client), "ask", "n{} {asked:?}", node + 1);
        let request = self.send_request(client, pipe, bytes);
        let it = &mut self.crowd.clients[client];
        it.errands.insert(request, asked.op());
        match asked {
            MemberRequest::Remove { node } => {
                it.leaving.insert(request, *node);
            }
            MemberRequest::Add { node, .. }
            | MemberRequest::Promote { node }
            | MemberRequest::Replace { node, .. } => {
                it.rising.insert(request, *node);
            }
            MemberRequest::Transfer { .. } => {
                it.handovers.insert(request, pipe);
            }
        }
    }

    /// Who may be removed by requests that are still on their way.
    pub(crate) fn leaving(&self) -> BTreeSet<NodeId> {
        self.crowd.clients.iter().flat_map(|it| it.leaving.values().copied()).collect()
    }

    /// Who may become a voter by requests that are still on their way.
    pub(crate) fn rising(&self) -> BTreeSet<NodeId> {
        self.crowd.clients.iter().flat_map(|it| it.rising.values().copied()).collect()
    }

    /// Whether a server may yet hear that another one is to lead: whoever asked may have given up.
    pub(crate) fn handover_is_asked(&self) -> bool {
        let mut pipes = self.crowd.clients.iter().flat_map(|it| it.handovers.values());
        pipes.any(|pipe| self.network.pipes.get(*pipe).is_some())
    }

    /// What came of an errand.
    pub(super) fn on_errand(&mut self, client: usize, asked: Op, body: &ReplyBody<'_>) {
        say!(self, Who::Client(client), "hear", "{asked:?}: {body:?}");
        match body {
            ReplyBody::Transfer { leader } if asked == Op::TransferLeader => {
                self.coverage.hit(Point::HandedOver);
                let led = self.proof.leaders.values().any(|it| *it == machine_of(*leader));
                must!(led, "NoPhantom", "{leader} is said to lead, and never did");
            }
            ReplyBody::MemberChange { op, index } if *op == asked => {
                let done = [
                    (Op::MemberAdd, Point::MemberAdded),
                    (Op::MemberPromote, Point::MemberPromoted),
                    (Op::MemberRemove, Point::MemberRemoved),
                    (Op::MemberReplace, Point::MemberReplaced),
                ];
                let found = done.iter().find(|(op, _)| *op == asked);
                self.coverage.hit(found.expect("these are the changes").1);
                let end = u64_of(self.proof.committed.len());
                must!(index.get() <= end, "NoPhantom", "{index} is said to be committed");
            }
            ReplyBody::Error(
                Error::NotLeader { .. }
                | Error::Busy { .. }
                | Error::Refused { .. }
                | Error::NotReady { .. }
                | Error::NoSpace
                | Error::Removed { .. }
                | Error::Denied { .. }
                | Error::OutcomeUnknown,
            ) => {
                let handover = asked == Op::TransferLeader;
                let point = if handover { Point::HandoverRefused } else { Point::ChangeRefused };
                self.coverage.hit(point);
            }
            ReplyBody::Error(_)
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
            | ReplyBody::Status(_)
            | ReplyBody::Watch(_)
            | ReplyBody::WatchCancel { .. }
            | ReplyBody::WatchProgress { .. }
            | ReplyBody::Auth { .. }
            | ReplyBody::Login(_)
            | ReplyBody::LoginProof(_)
            | ReplyBody::AuthRead(_)
            | ReplyBody::Snapshot(_)
            | ReplyBody::MemberList(_)
            | ReplyBody::MemberChange { .. }
            | ReplyBody::Transfer { .. } => {
                broken("Answer", format!("{asked:?} was answered: {body:?}"));
            }
        }
    }
}
