//! Guests: every client has a connection beside its usual ones, on which it logs in as whoever it
//! likes, or not at all, and asks for what it may or may not: for itself, or for somebody else.
//! What it asks of keys are rows of the history like all others: what is denied was certainly not
//! done.

use super::asking::{encode, wants_to_know};
use super::logins::{Name, PASSWORDS, ROOT_PASSWORD, comes_and_goes, knows};
use super::looks::Look;
use super::stewards::Change;
use super::{Attempt, Client, GUEST_OP, Line};
use crate::chance::Chance;
use crate::coverage::Point;
use crate::history::product::row_of;
use crate::history::watches::{Event, Heard, Listener, Wish};
use crate::history::{Command, Consistency, OpKind, RangeArgs};
use crate::invariants::{broken, must};
use crate::network::PipeKey;
use crate::rights::{Needs, ROOT, Rights};
use crate::trace::{Who, say};
use crate::world::World;
use raftd::kv::{Access, Asker};
use raftd::types::{Credential, Revision};
use raftd::wire::auth::in_name_of;
use raftd::wire::error::Error;
use raftd::wire::reply::ReplyBody;
use raftd::wire::watch::{WatchArgs, WatchEvent, watch_request};
use std::collections::BTreeMap;

/// Users beside root.
pub(super) const USERS: [&str; 4] = ["u0", "u1", "u2", "u3"];
/// Keys that guests care for: so few that permissions meet and overlap.
const KEYS: u64 = 8;
/// How often a node says that nothing happened. Milliseconds.
const PROGRESS_MS: u64 = 100;

/// What a client does as a guest.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) chance: Chance,
    pub(super) line: Option<Line>,
    pub(super) node: usize,
    watch: Option<Watching>,
    pub(super) looks: BTreeMap<u64, Look>,
    pub(super) changes: BTreeMap<u64, Change>,
}

/// A watch of a guest.
#[derive(Debug)]
struct Watching {
    request: u64,
    asker: Asker,
    needs: Needs,
    /// The earliest moment that it can be judged by.
    moment: usize,
    begun: bool,
    listener: Listener,
}

impl Guest {
    pub(super) fn new(chance: Chance) -> Guest {
        let (looks, changes) = (BTreeMap::new(), BTreeMap::new());
        Guest { chance, line: None, node: 0, watch: None, looks, changes }
    }

    pub(super) fn is_on(&self, pipe: PipeKey) -> bool {
        self.line.as_ref().is_some_and(|line| line.pipe == pipe)
    }

    pub(super) fn is_watching(&self, request: u64) -> bool {
        self.watch.as_ref().is_some_and(|watching| watching.request == request)
    }

    pub(super) fn give_up(&mut self, request: u64) {
        self.looks.remove(&request);
        self.changes.remove(&request);
    }

    pub(super) fn stop(&mut self) {
        self.looks.clear();
        self.changes.clear();
    }

    /// What its watch has heard, which ends.
    pub(super) fn end_watch(&mut self) -> Option<Heard> {
        self.watch.take().map(|watching| watching.listener.heard)
    }
}

/// A key, and where a range of it ends: mostly right, and at times nowhere or before it.
pub(super) fn some_place(chance: &mut Chance) -> (Vec<u8>, Vec<u8>) {
    let key = |nth: u64| format!("g{nth}").into_bytes();
    let first = chance.below(KEYS);
    let end = match chance.below(8) {
        0..=2 => Vec::new(),
        3 => vec![0],
        4 => key(chance.below(KEYS)),
        _ => key(chance.between(first + 1, KEYS + 1)),
    };
    (key(first), end)
}

fn some_kind(chance: &mut Chance, told: &BTreeMap<Vec<u8>, u64>) -> OpKind {
    let (key, end) = some_place(chance);
    match chance.below(12) {
        0..=2 => OpKind::Change(Command::Put { key, value: Vec::new() }),
        3 | 4 => {
            let mod_revision = told.get(&key).copied().unwrap_or(0);
            OpKind::Change(Command::PutIf { key, value: Vec::new(), mod_revision })
        }
        // Not all there is: the others have keys too.
        5 if end != [0] => OpKind::Change(Command::Delete { key, end }),
        drawn => {
            let serializable = drawn > 9;
            let consistency =
                if serializable { Consistency::Serializable } else { Consistency::Linearizable };
            OpKind::Range(RangeArgs { key, end, consistency, ..RangeArgs::default() })
        }
    }
}

/// What a request takes, in the form in which it is sent.
fn needs_of(kind: &OpKind) -> Needs {
    let command = match kind {
        OpKind::Range(args) => return Needs::of(&args.key, &args.end, Access::Read),
        OpKind::Change(command) => command,
    };
    let access = if wants_to_know(command) { Access::ReadWrite } else { Access::Write };
    match command {
        Command::Put { key, .. } => Needs::of(key, &[], access),
        Command::Delete { key, end } => Needs::of(key, end, access),
        Command::PutIf { key, .. } => Needs::of(key, &[], Access::ReadWrite),
        Command::Txn(_) | Command::Compact { .. } | Command::Lease(_) => {
            unreachable!("no guest asks for it")
        }
    }
}

impl World {
    /// A client does something as a guest.
    pub(super) fn act_as_guest(&mut self, client: usize) {
        let guest = &mut self.crowd.clients[client].guest;
        match &guest.line {
            None => return self.enter_as_guest(client),
            Some(line) if line.proving.is_some() => return,
            Some(_) => {}
        }
        match guest.chance.below(40) {
            0 => self.leave_as_guest(client),
            1..=4 if guest.watch.is_none() => self.watch_as_guest(client),
            5..=8 => self.look_as_guest(client),
            _ => self.ask_as_guest(client),
        }
    }

    fn enter_as_guest(&mut self, client: usize) {
        let Client { guest, prefers, .. } = &mut self.crowd.clients[client];
        let chance = &mut guest.chance;
        let node = if chance.one_in(3) { chance.pick(&self.crowd.reach) } else { *prefers };
        let Some(line) = self.connect(client, node) else { return };
        let pipe = line.pipe;
        let guest = &mut self.crowd.clients[client].guest;
        (guest.line, guest.node) = (Some(line), node);
        let name = some_name(&mut guest.chance, self.crowd.ledger.newest());
        name.into_iter().for_each(|name| self.log_in(client, pipe, name));
    }

    pub(super) fn leave_as_guest(&mut self, client: usize) {
        if let Some(line) = self.crowd.clients[client].guest.line.take() {
            self.hang_up(line.pipe, 0);
            self.forget_attempts(client, line.pipe);
            self.forget_guest(client);
        }
    }

    /// Its connection is gone: the watch on it has heard what it has heard.
    pub(super) fn forget_guest(&mut self, client: usize) {
        let guest = &mut self.crowd.clients[client].guest;
        guest.looks.clear();
        self.crowd.history.watched.heard.extend(guest.end_watch());
    }

    /// For whom a guest asks next, and how it says so: in the name of whom, if of anybody.
    pub(super) fn some_asker(&mut self, client: usize) -> (Asker, Option<Credential>) {
        let guest = &mut self.crowd.clients[client].guest;
        let login = guest.line.as_ref().map_or(Credential::NONE, |line| line.login);
        let chance = &mut guest.chance;
        if chance.one_in(3) {
            return (Asker { login, acting: Credential::NONE }, None);
        }
        if chance.one_in(20) {
            // Nobody: then it has no rights of its own either.
            return (Asker::NOBODY, Some(Credential::NONE));
        }
        let users = &self.crowd.ledger.any(chance).users;
        let all: Vec<Credential> = users.values().map(|user| user.credential).collect();
        if all.is_empty() {
            return (Asker { login, acting: Credential::NONE }, None);
        }
        let acting = chance.pick(&all);
        (Asker { login, acting }, Some(acting))
    }

    fn ask_as_guest(&mut self, client: usize) {
        let (asker, acting) = self.some_asker(client);
        let mut kind = some_kind(&mut self.crowd.clients[client].guest.chance, &self.crowd.known);
        if let OpKind::Change(Command::Put { value, .. } | Command::PutIf { value, .. }) = &mut kind
        {
            self.crowd.values += 1;
            *value = format!("v{}", self.crowd.values).into_bytes();
        }
        let node = self.crowd.clients[client].guest.node;
        let row = self.new_row(client, node, kind.clone());
        let request = self.crowd.clients[client].requests + 1;
        self.weaken(&mut kind, row, request);
        let stale = matches!(&kind, OpKind::Range(args)
            if args.consistency != Consistency::Linearizable);
        let moment = self.rights_floor(node, !stale);
        let it = &mut self.crowd.clients[client];
        let pipe = it.guest.line.as_ref().expect("it has entered").pipe;
        let mut bytes = Vec::new();
        encode(&mut bytes, request, None, &kind);
        acting.into_iter().for_each(|acting| in_name_of(&mut bytes, 0, acting));
        say!(self, Who::Client(client), "ask", "n{} #{request} {asker:?} {kind:?}", node + 1);
        let attempt = Attempt {
            op: GUEST_OP,
            node,
            pipe,
            row,
            floor: self.crowd.told,
            led: self.proof.seen[node].leads.is_some(),
            boot: self.machines[node].boot,
            of_call: false,
            reads_now: matches!(kind, OpKind::Range(_)),
            rows: Vec::new(),
            asker: Some(asker),
            needs: needs_of(&kind),
            moment,
        };
        self.crowd.clients[client].attempts.insert(request, attempt);
        self.send_request(client, pipe, bytes);
    }

    /// Holds an answer against who asked, and for what.
    pub(super) fn judge_right(&mut self, attempt: &Attempt, body: &ReplyBody<'_>) {
        let Some(asker) = attempt.asker else { return };
        let judged = if let ReplyBody::Error(Error::Denied { why }) = body {
            Err(*why)
        } else if let ReplyBody::Error(_) = body {
            return;
        } else {
            Ok(())
        };
        self.must_fit((asker, &attempt.needs), attempt.moment, judged);
    }

    fn watch_as_guest(&mut self, client: usize) {
        let (asker, acting) = self.some_asker(client);
        let it = &mut self.crowd.clients[client];
        let (key, end) = some_place(&mut it.guest.chance);
        let node = it.guest.node;
        let pipe = it.guest.line.as_ref().expect("it has entered").pipe;
        let wish = Wish { key, end, prev_kv: it.guest.chance.one_in(2), ..Wish::default() };
        let args = WatchArgs {
            key: &wish.key,
            end: &wish.end,
            start: Revision(0),
            prev_kv: wish.prev_kv,
            no_put: false,
            no_delete: false,
            progress_ms: PROGRESS_MS,
        };
        let mut bytes = Vec::new();
        watch_request(&mut bytes, it.requests + 1, &args);
        acting.into_iter().for_each(|acting| in_name_of(&mut bytes, 0, acting));
        let needs = Needs::of(&wish.key, &wish.end, Access::Read);
        let request = self.send_request(client, pipe, bytes);
        say!(self, Who::Client(client), "watch", "n{} #{request} {asker:?} {needs:?}", node + 1);
        let moment = self.rights_floor(node, false);
        let listener = Listener::new(wish, 0);
        self.crowd.clients[client].guest.watch =
            Some(Watching { request, asker, needs, moment, begun: false, listener });
    }

    /// Whether an answer is for a guest's watch; then it is taken.
    pub(super) fn hear_guest(&mut self, client: usize, id: u64, body: &ReplyBody<'_>) -> bool {
        let guest = &mut self.crowd.clients[client].guest;
        let Some(mut watching) = guest.watch.take_if(|it| it.request == id) else { return false };
        if let ReplyBody::Watch(reply) = body {
            let change = |event: WatchEvent<'_>| Event {
                row: row_of(&event.kv),
                before: event.before.as_ref().map(row_of),
            };
            let events: Vec<Event> = reply.events().map(change).collect();
            events.iter().for_each(|event| self.judge_event(&watching, event));
            if let Err(why) = watching.listener.hear(reply.revision.0, reply.more, events) {
                broken("Watch", format!("guest {client} #{id}: {why}"));
            }
            watching.begun = true;
            self.crowd.clients[client].guest.watch = Some(watching);
            return true;
        }
        say!(self, Who::Client(client), "hear", "#{id} {body:?}");
        if let ReplyBody::Error(Error::Denied { why }) = body {
            self.coverage.hit_if(watching.begun, Point::WatchDenied);
            self.must_fit((watching.asker, &watching.needs), watching.moment, Err(*why));
        } else {
            let behind = matches!(body, ReplyBody::Error(Error::Compacted { .. }));
            let passes = matches!(body, ReplyBody::Error(error) if comes_and_goes(error));
            must!(behind || passes, "Answer", "a watch was answered: {body:?}");
        }
        self.crowd.history.watched.heard.push(watching.listener.heard);
        true
    }

    /// Whoever hears of a change may read it, as things are then, which is not before it was made.
    fn judge_event(&self, watching: &Watching, event: &Event) {
        let ledger = &self.crowd.ledger;
        let Some(index) = ledger.put_at(&event.row.value) else { return };
        let moment = ledger.moment_of(index);
        let may = ledger.since(moment).any(|it| it.judge(watching.asker, &watching.needs).is_ok());
        must!(
            may || !self.sees_rights(),
            "NoRightNoService",
            "{watching:?} hears of {} at entry {index}, and had no right to since moment {moment}",
            event.row
        );
    }
}

/// Who a guest says it is, mostly with the right password; `None`: it does not say.
fn some_name(chance: &mut Chance, rights: &Rights) -> Option<Name> {
    let user = match chance.below(10) {
        0 => return None,
        1..=4 => ROOT,
        _ => chance.pick(&USERS),
    };
    let any = chance.index(PASSWORDS);
    let wrong = chance.one_in(8);
    let right = (0..PASSWORDS).find(|password| knows(rights, Name { user, password: *password }));
    let right = right.unwrap_or(if user == ROOT { ROOT_PASSWORD } else { any });
    Some(Name { user, password: if wrong { any } else { right } })
}
