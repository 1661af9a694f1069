//! Clients log in, prove their passwords, and log in again when a login has ended. Connections of
//! the usual clients log in as root, so that what they do goes on while rights count.

use super::{Client, Line};
use crate::chance::u64_of;
use crate::coverage::Point;
use crate::invariants::{broken, must};
use crate::network::PipeKey;
use crate::options::Class;
use crate::rights::{ROOT, Rights};
use crate::trace::{Who, say};
use crate::world::World;
use raftd::kv::{AuthRefusal, Denial, PasswordProof};
use raftd::limits::PASSWORD_ROUNDS_MIN;
use raftd::types::Credential;
use raftd::wire::auth::{
    AuthRequest, LoginChallenge, LoginDone, auth_request, login_proof_request,
};
use raftd::wire::error::Error;
use raftd::wire::reply::{Reply, ReplyBody};
use raftd::wire::scram::{Exchange, Key, PasswordKeys};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Passwords there are; the first one is root's.
pub(super) const PASSWORDS: usize = 4;
/// Root's.
pub(super) const ROOT_PASSWORD: usize = 0;

/// Who somebody says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) user: &'static str,
    pub(super) password: usize,
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Proving {
    name: Name,
    /// The request that waits for an answer.
    request: u64,
    nonce: [u8; 16],
    /// The earliest moment that it can be answered from.
    floor: usize,
    /// What the server must sign with, once the proof is sent.
    signature: Option<Key>,
}

impl Proving {
    /// From now on the server may know who it is, and the client does not know whether it does.
    pub(super) fn is_sent(&self) -> bool {
        self.signature.is_some()
    }

    pub(super) fn waits_for(&self, request: u64) -> bool {
        self.request == request
    }
}

fn salt_of(password: usize) -> [u8; 16] {
    [u64_of(password).to_le_bytes()[0] + 1; 16]
}

/// What a password comes to. Hashed once for all runs: that takes long.
fn keys_of(password: usize) -> &'static PasswordKeys {
    static KEYS: OnceLock<Vec<PasswordKeys>> = OnceLock::new();
    let derive = |password: usize| {
        let text = format!("password {password}");
        PasswordKeys::derive(text.as_bytes(), &salt_of(password), PASSWORD_ROUNDS_MIN)
    };
    &KEYS.get_or_init(|| (0..PASSWORDS).map(derive).collect())[password]
}

/// Does something with what servers keep of a password.
pub(super) fn with_kept<T>(password: usize, act: impl FnOnce(PasswordProof<'_>) -> T) -> T {
    act(keys_of(password).to_keep(&salt_of(password), PASSWORD_ROUNDS_MIN))
}

/// The credential that a name proves, if it proves anything.
fn proved(rights: &Rights, name: Name) -> Option<Credential> {
    let user = rights.users.get(name.user)?;
    let kept = user.password?;
    with_kept(name.password, |proof| (*proof.stored_key == kept).then_some(user.credential))
}

/// Whether an error says only that this node, or any, cannot answer now.
pub(super) fn comes_and_goes(error: &Error) -> bool {
    matches!(
        error,
        Error::NotLeader { .. }
            | Error::Busy { .. }
            | Error::NoSpace
            | Error::NotReady { .. }
            | Error::Removed { .. }
    )
}

/// Whether a name comes with the right password.
pub(super) fn knows(rights: &Rights, name: Name) -> bool {
    proved(rights, name).is_some()
}

impl Client {
    /// One of its connections.
    pub(super) fn line_mut(&mut self, pipe: PipeKey) -> Option<&mut Line> {
        let guests = self.guest.line.iter_mut();
        self.lines.iter_mut().flatten().chain(guests).find(|line| line.pipe == pipe)
    }
}

impl World {
    /// Begins to log in on a connection.
    pub(super) fn log_in(&mut self, client: usize, pipe: PipeKey, name: Name) {
        let floor = self.rights_floor_of_leaders();
        let it = &mut self.crowd.clients[client];
        let mut nonce = [0; 16];
        let (front, back) = nonce.split_at_mut(8);
        front.copy_from_slice(&it.guest.chance.draw().to_le_bytes());
        back.copy_from_slice(&it.guest.chance.draw().to_le_bytes());
        let mut bytes = Vec::new();
        let asked = AuthRequest::Login { user: name.user, nonce: &nonce };
        auth_request(&mut bytes, it.requests + 1, &asked);
        say!(self, Who::Client(client), "log in", "{pipe:?} {name:?}");
        let request = self.send_request(client, pipe, bytes);
        let line = self.crowd.clients[client].line_mut(pipe).expect("it was asked on this one");
        line.proving = Some(Proving { name, request, nonce, floor, signature: None });
    }

    /// A new connection of a usual client logs in.
    pub(super) fn log_in_as_root(&mut self, client: usize, pipe: PipeKey) {
        if self.options.has(Class::Rights) {
            self.log_in(client, pipe, Name { user: ROOT, password: ROOT_PASSWORD });
        }
    }

    /// A usual client was denied something: it logs in, if it does not already.
    pub(super) fn on_denied(&mut self, client: usize, pipe: PipeKey, why: Denial) {
        let may_be = self.options.has(Class::Rights) && why != Denial::NotPermitted;
        must!(may_be, "NoRightNoService", "c{client} may do everything, and was denied: {why}");
        let line = self.crowd.clients[client].line_mut(pipe);
        if line.is_some_and(|line| line.proving.is_none()) {
            self.log_in_as_root(client, pipe);
        }
    }

    /// Whether an answer is for a login; then it is taken.
    pub(super) fn on_login(&mut self, client: usize, pipe: PipeKey, reply: &Reply<'_>) -> bool {
        let Some(line) = self.crowd.clients[client].line_mut(pipe) else { return false };
        let Some(proving) = line.proving.take_if(|it| it.waits_for(reply.id)) else { return false };
        match (proving.is_sent(), &reply.body) {
            (false, ReplyBody::Login(challenge)) => self.prove(client, pipe, proving, challenge),
            (true, ReplyBody::LoginProof(done)) => self.logged_in(client, pipe, &proving, done),
            (_, ReplyBody::Error(error)) => self.login_refused(&proving, error),
            (_, body) => broken("Answer", format!("{proving:?} was answered {body:?}")),
        }
        true
    }

    fn prove(
        &mut self,
        client: usize,
        pipe: PipeKey,
        proving: Proving,
        challenge: &LoginChallenge<'_>,
    ) {
        let exchange = Exchange {
            user: proving.name.user,
            client_nonce: &proving.nonce,
            server_nonce: challenge.nonce,
            salt: challenge.salt,
            rounds: challenge.rounds,
        };
        let keys = keys_of(proving.name.password);
        let (proof, signature) = (keys.proof(&exchange), Some(keys.signature(&exchange)));
        let mut bytes = Vec::new();
        let number = self.crowd.clients[client].requests + 1;
        login_proof_request(&mut bytes, number, &proof);
        let request = self.send_request(client, pipe, bytes);
        let line = self.crowd.clients[client].line_mut(pipe).expect("it was asked on this one");
        line.proving = Some(Proving { request, signature, ..proving });
    }

    fn logged_in(&mut self, client: usize, pipe: PipeKey, proving: &Proving, done: &LoginDone) {
        say!(self, Who::Client(client), "logged in", "{pipe:?} {:?}", done.credential);
        self.coverage.hit(Point::LoggedIn);
        let signed = proving.signature == Some(done.signature);
        let ledger = &self.crowd.ledger;
        let mut since = ledger.since(proving.floor);
        let known = since.any(|it| proved(it, proving.name) == Some(done.credential));
        must!(
            signed && (known || !self.sees_rights()),
            "NoRightNoService",
            "{proving:?} has logged in as {:?}, signed: {signed}",
            done.credential
        );
        let line = self.crowd.clients[client].line_mut(pipe).expect("it was asked on this one");
        line.login = done.credential;
    }

    fn login_refused(&mut self, proving: &Proving, error: &Error) {
        let since = || self.crowd.ledger.since(proving.floor);
        let why = if let Error::Auth { why } = error { Some(*why) } else { None };
        let fits = match why {
            Some(AuthRefusal::AuthNotEnabled) => since().any(|it| !it.enabled),
            // What it proves may have changed on the way.
            Some(AuthRefusal::AuthFailed) => {
                let proved: BTreeSet<_> = since().map(|it| proved(it, proving.name)).collect();
                self.coverage.hit(Point::LoginRefused);
                proved.len() > 1 || proved.contains(&None)
            }
            Some(_) => false,
            None => comes_and_goes(error),
        };
        must!(fits || !self.sees_rights(), "Answer", "{proving:?} was refused: {error}");
    }
}
