//! Stewards: over its usual connections a client changes users, roles, and whether rights count.
//! What comes of it stands in the log, and must be what it is told.

use super::guests::{USERS, some_place};
use super::logins::{PASSWORDS, ROOT_PASSWORD, comes_and_goes, with_kept};
use crate::chance::Chance;
use crate::coverage::Point;
use crate::invariants::must;
use crate::rights::{Changed, Needs, ROOT, Rights};
use crate::trace::{Who, say};
use crate::world::World;
use raftd::kv::{Access, Asker, AuthChange, AuthVerb, Command, Permission};
use raftd::types::Credential;
use raftd::wire::client::command_request;
use raftd::wire::error::Error;
use raftd::wire::reply::ReplyBody;

/// Roles beside root.
pub(super) const ROLES: [&str; 3] = ["r0", "r1", "r2"];

/// A change under way.
#[derive(Debug)]
pub(super) struct Change {
    args: Vec<u8>,
    /// What was committed when it was asked for.
    after: u64,
    /// Who asks, if the client knows what the server knows of that.
    asker: Option<Asker>,
    /// The earliest moment that it can be judged by.
    floor: usize,
}

/// A change that makes sense, or at times does not. While there is no root, that first.
fn some_change(chance: &mut Chance, rights: &Rights) -> Vec<u8> {
    let mut args = Vec::new();
    let root = rights.users.get(ROOT);
    let verb = match root {
        None => {
            add_user(&mut args, ROOT, Some(ROOT_PASSWORD));
            return args;
        }
        Some(root) if !root.roles.contains(ROOT) => {
            AuthVerb::UserGrantRole { user: ROOT, role: ROOT }
        }
        Some(_) if !rights.enabled && chance.one_in(3) => AuthVerb::Enable { secret: &[5; 32] },
        Some(_) if chance.one_in(3) => return some_permission(chance, rights),
        Some(_) => return change_of_users(chance),
    };
    verb.encode(&mut args);
    args
}

fn add_user(args: &mut Vec<u8>, name: &str, password: Option<usize>) {
    match password {
        None => AuthVerb::UserAdd { name, password: None }.encode(args),
        Some(password) => with_kept(password, |proof| {
            AuthVerb::UserAdd { name, password: Some(proof) }.encode(args);
        }),
    }
}

fn change_of_users(chance: &mut Chance) -> Vec<u8> {
    let mut args = Vec::new();
    let (user, role) = (chance.pick(&USERS), chance.pick(&ROLES));
    let password = chance.index(PASSWORDS);
    let verb = match chance.below(40) {
        0..=9 => {
            // At times one that cannot log in, and that there is already.
            add_user(&mut args, user, Some(password).filter(|_| !chance.one_in(6)));
            return args;
        }
        10 | 11 => AuthVerb::UserDelete { name: user },
        // Only while rights do not count.
        12 => AuthVerb::UserDelete { name: ROOT },
        13 => AuthVerb::UserRevokeRole { user: ROOT, role: ROOT },
        14 => AuthVerb::RoleDelete { name: ROOT },
        15 => AuthVerb::Disable,
        16 => AuthVerb::Enable { secret: &[5; 32] },
        17..=19 => {
            // Root keeps its password, and its logins end all the same.
            let root = chance.one_in(8);
            let (name, password) = if root { (ROOT, ROOT_PASSWORD) } else { (user, password) };
            with_kept(password, |password| {
                AuthVerb::UserChangePassword { name, password }.encode(&mut args);
            });
            return args;
        }
        20 => AuthVerb::UserGrantRole { user, role: ROOT },
        21 | 22 => AuthVerb::UserRevokeRole { user, role: ROOT },
        23..=30 => AuthVerb::UserGrantRole { user, role },
        31..=33 => AuthVerb::UserRevokeRole { user, role },
        34..=37 => AuthVerb::RoleAdd { name: role },
        38 => AuthVerb::RoleAdd { name: "" },
        _ => AuthVerb::RoleDelete { name: role },
    };
    verb.encode(&mut args);
    args
}

fn some_permission(chance: &mut Chance, rights: &Rights) -> Vec<u8> {
    let mut args = Vec::new();
    let role = chance.pick(&ROLES);
    let (mut key, mut end) = some_place(chance);
    let access = chance.pick(&[Access::Read, Access::Write, Access::ReadWrite]);
    if chance.one_in(3) {
        // Mostly one that there is.
        let there = rights.roles.get(role).into_iter().flatten().map(|(place, _)| place);
        let there: Vec<_> = there.collect();
        if !there.is_empty() && !chance.one_in(4) {
            (key, end) = there[chance.index(there.len())].clone();
        }
        AuthVerb::RoleRevokePermission { role, key: &key, end: &end }.encode(&mut args);
        return args;
    }
    let permission = Permission { key: &key, end: &end, access };
    AuthVerb::RoleGrantPermission { role, permission }.encode(&mut args);
    args
}

impl World {
    pub(crate) fn change_rights(&mut self, client: usize) {
        let node = self.crowd.clients[client].prefers;
        if !self.has_line(client, node) {
            return;
        }
        let asker = self.usual_asker(client, node);
        let it = &mut self.crowd.clients[client];
        let args = some_change(&mut it.guest.chance, self.crowd.ledger.newest());
        let change = AuthChange::from_args(&args).expect("it was just made");
        let pipe = it.lines[node].as_ref().expect("it was just made sure of").pipe;
        let mut bytes = Vec::new();
        command_request(&mut bytes, it.requests + 1, None, Command::Auth(change));
        let verb = change.verb();
        say!(self, Who::Client(client), "ask", "n{} {asker:?} {verb:?}", node + 1);
        let request = self.send_request(client, pipe, bytes);
        let ledger = &self.crowd.ledger;
        let (after, floor) = (ledger.length(), ledger.floor());
        let changes = &mut self.crowd.clients[client].guest.changes;
        changes.insert(request, Change { args, after, asker, floor });
    }

    /// Who a client is to a node, on its usual connection; `None`: a proof is on its way.
    pub(super) fn usual_asker(&self, client: usize, node: usize) -> Option<Asker> {
        let line = self.crowd.clients[client].lines[node].as_ref()?;
        let unsure = line.proving.as_ref().is_some_and(|proving| proving.is_sent());
        let asker = Asker { login: line.login, acting: Credential::NONE };
        Some(asker).filter(|_| !unsure)
    }

    /// A change was not done, or nobody knows.
    fn change_unheard(&mut self, change: &Change, body: &ReplyBody<'_>) {
        if let ReplyBody::Error(Error::Denied { why }) = body {
            let needs = Needs { root: true, keys: Vec::new() };
            let asker = change.asker.into_iter();
            asker.for_each(|asker| self.must_fit((asker, &needs), change.floor, Err(*why)));
            return;
        }
        let unknown = matches!(body, ReplyBody::Error(Error::OutcomeUnknown));
        let passes = matches!(body, ReplyBody::Error(error) if comes_and_goes(error));
        must!(unknown || passes, "Answer", "{change:?} was answered {body:?}");
    }

    /// Whether an answer is for a change; then it is judged.
    pub(super) fn on_change(&mut self, client: usize, request: u64, body: &ReplyBody<'_>) -> bool {
        let changes = &mut self.crowd.clients[client].guest.changes;
        let Some(change) = changes.remove(&request) else { return false };
        say!(self, Who::Client(client), "hear", "#{request} {body:?}");
        let changed: Changed = if let ReplyBody::Auth { revision, auth_revision } = body {
            self.crowd.told = self.crowd.told.max(revision.0);
            Ok(*auth_revision)
        } else if let ReplyBody::Error(Error::Auth { why }) = body {
            self.coverage.hit(Point::ChangeOfRightsRefused);
            Err(*why)
        } else {
            self.change_unheard(&change, body);
            return true;
        };
        let told = self.crowd.ledger.tell(&change.args, change.after, changed);
        must!(told, "Answer", "{change:?} came to {changed:?}, and not by the log");
        true
    }
}
