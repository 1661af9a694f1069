//! Errands: what somebody asks of the cluster itself, over a client's connection.

use crate::coverage::Point;
use crate::invariants::must;
use crate::trace::{Who, say};
use crate::world::{World, id_of, machine_of};
use raftd::wire::error::Error;
use raftd::wire::members::MemberRequest;
use raftd::wire::reply::ReplyBody;

impl World {
    /// Somebody wants another to lead: who is furthest, or anyone, able or not.
    pub(crate) fn ask_for_transfer(&mut self) {
        let machines = self.machines.len();
        let chance = &mut self.faults.chance;
        let client = chance.index(self.crowd.clients.len());
        let any = chance.index(machines);
        let to = (!chance.one_in(3)).then(|| id_of(chance.index(machines)));
        let astray = chance.one_in(8);
        let node = self.proof.leader().filter(|_| !astray).unwrap_or(any);
        if !self.has_line(client, node) {
            return;
        }
        let it = &mut self.crowd.clients[client];
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let mut bytes = Vec::new();
        MemberRequest::Transfer { node: to }.encode(&mut bytes, it.requests + 1);
        say!(self, Who::Client(client), "ask", "n{} to hand over to {to:?}", node + 1);
        let request = self.send_request(client, pipe, bytes);
        self.crowd.clients[client].errands.insert(request);
    }

    /// What came of an errand.
    pub(super) fn on_errand(&mut self, body: &ReplyBody<'_>) {
        if let ReplyBody::Transfer { leader } = body {
            self.coverage.hit(Point::HandedOver);
            let led = self.proof.leaders.values().any(|it| *it == machine_of(*leader));
            must!(led, "NoPhantom", "{leader} is said to lead, and never did");
            return;
        }
        let refused = matches!(
            body,
            ReplyBody::Error(
                Error::NotLeader { .. }
                    | Error::Busy { .. }
                    | Error::Refused { .. }
                    | Error::NotReady { .. }
                    | Error::OutcomeUnknown,
            )
        );
        must!(refused, "Answer", "a handover was answered: {body:?}");
        self.coverage.hit(Point::HandoverRefused);
    }
}
