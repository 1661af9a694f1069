//! Calls of sessions: sent as often as it takes, sometimes twice at once, and done once. All the
//! attempts of a call are one row of the history, from the first question to the first answer.

use super::asking::Asked;
use super::{Attempt, Crowd, Wanted};
use crate::coverage::Point;
use crate::history::product::{answer_of, txn_answer_of};
use crate::history::txns::{Got, Request};
use crate::history::{Answer, Command, OpKind, Outcome};
use crate::invariants::must;
use crate::world::World;
use raftd::limits::SESSION_WINDOW;
use raftd::types::SessionId;
use raftd::wire::client::{self as wire, SessionCall};
use raftd::wire::error::Error;
use raftd::wire::reply::ReplyBody;
use std::collections::BTreeSet;

/// A session that a client has opened.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    calls: u64,
    /// Calls that it still wants an answer to.
    open: BTreeSet<u64>,
    /// One that it does not want any more.
    over: Option<Over>,
    /// It is another login's: no more calls of it.
    lost: bool,
}

/// A call that is over: its op, the call, what it was.
type Over = (u64, Call, OpKind);

impl Session {
    /// Up to here it needs no answer any more.
    fn acknowledged(&self) -> u64 {
        self.open.first().map_or(self.calls, |first| first - 1)
    }

    /// It wants no answers any more.
    pub(super) fn give_up(&mut self) {
        self.open.clear();
    }
}

/// What makes an op a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    session: SessionId,
    sequence: u64,
    /// Its row and the largest revision known, once it was asked.
    asked: Option<(usize, u64)>,
}

impl World {
    /// Makes a call of what is wanted, if the client does so; and opens a session first, or another
    /// one at times.
    pub(super) fn make_call(&mut self, client: usize, wanted: &mut Wanted) {
        let share = self.options.clients.calls;
        let it = &mut self.crowd.clients[client];
        if matches!(wanted.kind, OpKind::Range(_)) || it.chance.below(100) >= share {
            return;
        }
        let none = it.sessions.last().is_none_or(|session| session.lost);
        if it.opening.is_none() && (none || it.chance.one_in(60)) {
            self.open_session(client);
        }
        let it = &mut self.crowd.clients[client];
        let Some(session) = it.sessions.last_mut().filter(|it| !it.lost) else { return };
        if session.calls - session.acknowledged() < SESSION_WINDOW {
            session.calls += 1;
            session.open.insert(session.calls);
            let (session, sequence) = (session.id, session.calls);
            wanted.call = Some(Call { session, sequence, asked: None });
            self.give_value(client, &mut wanted.kind);
        }
    }

    fn open_session(&mut self, client: usize) {
        let node = self.crowd.clients[client].prefers;
        if !self.has_line(client, node) {
            return;
        }
        let it = &mut self.crowd.clients[client];
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let mut bytes = Vec::new();
        wire::command_request(&mut bytes, it.requests + 1, None, wire::Command::OpenSession);
        let request = self.send_request(client, pipe, bytes);
        self.crowd.clients[client].opening = Some(request);
    }

    /// An answer to the request for a session.
    pub(super) fn on_session(&mut self, client: usize, body: &ReplyBody<'_>) {
        self.crowd.clients[client].opening = None;
        if let ReplyBody::OpenSession { session: id } = *body {
            self.coverage.hit(Point::SessionOpened);
            let mut known = self.crowd.clients.iter().flat_map(|it| &it.sessions);
            must!(known.all(|it| it.id != id), "ExactlyOnce", "session {id} was opened twice");
            let session = Session { id, calls: 0, open: BTreeSet::new(), over: None, lost: false };
            self.crowd.clients[client].sessions.push(session);
        }
    }

    /// Asks for a call, at times of two nodes at once.
    pub(super) fn ask_call(
        &mut self,
        client: usize,
        op: u64,
        node: usize,
        (call, kind): (Call, OpKind),
    ) {
        let (row, floor) = match call.asked {
            Some(asked) => asked,
            None => (self.new_row(client, node, kind.clone()), self.crowd.told),
        };
        let it = &mut self.crowd.clients[client];
        let wanted = it.wanted.get_mut(&op).and_then(|wanted| wanted.call.as_mut());
        wanted.expect("whoever asks wants it").asked = Some((row, floor));
        let session = it.sessions.iter().find(|session| session.id == call.session);
        let acknowledged = session.expect("it was opened").acknowledged();
        let Call { session, sequence, .. } = call;
        let call = Some(SessionCall { session, sequence, acknowledged });
        let twice = it.chance.one_in(10).then(|| it.chance.pick(&self.crowd.reach));
        let asked = || Asked { kind: kind.clone(), row, floor, call };
        self.ask(client, op, node, asked());
        if let Some(other) = twice
            && self.has_line(client, other)
        {
            self.ask(client, op, other, asked());
        }
        self.ask_again(client, node);
    }

    /// A copy of a call that is over comes very late.
    fn ask_again(&mut self, client: usize, node: usize) {
        let it = &mut self.crowd.clients[client];
        let late = it.chance.one_in(20);
        let Some(session) = it.sessions.last_mut() else { return };
        let known = session.acknowledged();
        let Some((op, call, kind)) = session.over.take_if(|_| late) else { return };
        let (row, floor) = call.asked.expect("it was asked before");
        let Call { session, sequence, .. } = call;
        let acknowledged = known.min(sequence - 1);
        let call = Some(SessionCall { session, sequence, acknowledged });
        self.ask(client, op, node, Asked { kind, row, floor, call });
    }

    /// Nobody waits for an op any more: it was answered, or given up.
    pub(super) fn no_longer_wanted(&mut self, client: usize, op: u64) {
        let it = &mut self.crowd.clients[client];
        if let Some(Wanted { call: Some(call), kind, .. }) = it.wanted.remove(&op) {
            let session = it.sessions.iter_mut().find(|session| session.id == call.session);
            let session = session.expect("it was opened");
            session.open.remove(&call.sequence);
            session.over = call.asked.map(|_| (op, call, kind));
        }
    }

    /// A session is gone, and what became of its calls nobody knows: what is still wanted is asked
    /// for anew.
    pub(super) fn lose_session(&mut self, client: usize, op: u64) {
        let it = &mut self.crowd.clients[client];
        let wanted = it.wanted.get_mut(&op);
        if let Some(call) = wanted.and_then(|wanted| wanted.call.take()) {
            let session = it.sessions.iter_mut().find(|session| session.id == call.session);
            let session = session.expect("it was opened");
            session.open.remove(&call.sequence);
            session.lost = true;
        }
        self.retry_unknown(client, op);
    }

    /// Whether an answer to a copy of a call tells nothing new: it must be the same answer.
    pub(super) fn knows_answer(
        &mut self,
        client: usize,
        attempt: &Attempt,
        body: &ReplyBody<'_>,
    ) -> bool {
        let open = self.crowd.clients[client].wanted.contains_key(&attempt.op);
        if let ReplyBody::Error(Error::CallAcknowledged) = body {
            // What is asked for anew is no call any more.
            let wanted = self.crowd.clients[client].wanted.get(&attempt.op);
            let calls = wanted.is_some_and(|wanted| wanted.call.is_some());
            must!(!calls, "ExactlyOnce", "c{client} acknowledged nothing of the kind");
            self.coverage.hit(Point::CallLate);
            return true;
        }
        if open || matches!(body, ReplyBody::Error(_)) {
            return !open;
        }
        let Outcome::Answered(known) = &self.crowd.history.ops[attempt.row].outcome else {
            // It was given up, and so stays unknown.
            return true;
        };
        let txn = txn_answer_of(body).filter(|_| self.asks_for_txn(attempt));
        let told = answer_of(body).filter(|_| txn.is_none()).map(|(answer, rows)| {
            let saw = &self.crowd.history.ops[attempt.row].saw;
            answer == *known && saw.as_ref() == Some(&rows)
        });
        let same = match (known, body) {
            (_, _) if txn.is_some() => txn.as_ref() == Some(known),
            (_, _) if told.is_some() => told == Some(true),
            (Answer::Put { revision }, ReplyBody::Put { revision: again }) => *revision == again.0,
            (
                Answer::Delete { revision, deleted },
                ReplyBody::DeleteRange { revision: again, deleted: count },
            ) => (*revision, deleted) == (again.0, count),
            (
                Answer::PutIf { revision, refused },
                ReplyBody::PutIf { revision: again, refused: found },
            ) => (*revision, *refused) == (again.0, found.map(|found| found.0)),
            (_, _) => false,
        };
        must!(same, "ExactlyOnce", "c{client} hears {known} for a call, and then {body:?}");
        self.coverage.hit(Point::CallAnsweredTwice);
        true
    }
}

impl Crowd {
    /// What an answer tells about the last changes of keys.
    pub(super) fn note_changes(&mut self, row: usize) {
        let op = &self.history.ops[row];
        let Outcome::Answered(answer) = &op.outcome else { return };
        let mut note = |key: &Vec<u8>, revision: u64| {
            let known = self.known.entry(key.clone()).or_insert(0);
            *known = revision.max(*known);
        };
        match (&op.kind, answer) {
            (OpKind::Change(Command::Put { key, .. }), Answer::Put { revision }) => {
                note(key, *revision);
            }
            (OpKind::Change(Command::PutIf { key, .. }), Answer::PutIf { revision, refused }) => {
                match refused {
                    Some(0) => drop(self.known.remove(key)),
                    Some(found) => note(key, *found),
                    None => note(key, *revision),
                }
            }
            (OpKind::Change(Command::Txn(txn)), Answer::Txn { revision, done }) => {
                done.each(txn, &mut |request, got| match (request, got) {
                    (Request::Put { key, .. }, _) => note(key, *revision),
                    (_, Got::Range { rows, .. }) => {
                        rows.iter().for_each(|row| note(&row.key, row.mod_revision));
                    }
                    (_, _) => {}
                });
            }
            (OpKind::Change(Command::Delete { key, .. }), _) => drop(self.known.remove(key)),
            (_, Answer::Range { rows, .. }) => {
                rows.iter().for_each(|row| note(&row.key, row.mod_revision));
            }
            (_, _) => {}
        }
    }
}
