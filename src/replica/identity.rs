//! Who asks: logins, and whether whoever asks may.
//!
//! ```text
//! Login       a read like others, so that a user that was just made, or a password that was just
//!             changed, is known: answered by a challenge
//! LoginProof  at once: whoever proves the password has its credential until the connection ends
//! As          a request for somebody, by a gateway that has logged in as `root` may
//! ```
//!
//! A right is asked for twice. At the door, by a leader that certainly knows what anybody was told
//! of rights, so that nobody fills the log or the queues with what is refused anyway; and where the
//! request is done: a command in the store as it is applied, a read where it is answered, a watch
//! whenever rights have changed. Only the latter counts. What a leader does at once, the removal of
//! a member say, is asked for once, and only a leader that has applied what those before it
//! committed answers; to add one takes longer, and it is asked for again before that is proposed.
//!
//! While rights do not count and nobody has logged in, all of this is one comparison.

use super::connections::ConnectionId;
use super::reads::Asked;
use super::{Node, Stage};
use crate::kv::{
    Asker, AuthRefusal, Command, Denial, PasswordProof, PasswordShape, RangeEnd, Rights,
};
use crate::types::{Credential, Instant};
use crate::wire::auth::{
    AuthAnswer, AuthRequest, GrantedPermission, LoginChallenge, LoginDone, auth_read_reply,
    decode_as, decode_login_proof, login_proof_reply, login_reply,
};
use crate::wire::client::{Op, Request};
use crate::wire::error::Error;
use crate::wire::leases::LeaseRequest;
use crate::wire::reply::error_reply;
use crate::wire::scram::{Exchange, Key, hmac};

/// What a node knows that nobody can guess.
pub(super) struct Secret {
    key: Key,
    nonces: u64,
}

impl Secret {
    pub(super) fn new(key: Key) -> Secret {
        Secret { key, nonces: 0 }
    }

    /// Chance that no other login of this server gets.
    fn nonce(&mut self, boot_nonce: u64) -> Key {
        self.nonces += 1;
        hmac(&self.key, &[b"nonce", &boot_nonce.to_be_bytes(), &self.nonces.to_be_bytes()])
    }
}

/// A login that waits for its proof.
#[derive(Debug)]
pub(super) struct Proving {
    user: Box<str>,
    client_nonce: Box<[u8]>,
    server_nonce: Key,
    kept: Kept,
}

/// What a proof is held against. That of a user that there is not has all of it too, so that as
/// much is done for it and it takes as long.
#[derive(Debug)]
struct Kept {
    /// Whose it is; `None`: whatever comes proves nothing.
    credential: Option<Credential>,
    salt: Box<[u8]>,
    rounds: u64,
    stored_key: Key,
    server_key: Key,
}

impl Kept {
    fn of(credential: Credential, proof: &PasswordProof<'_>) -> Kept {
        Kept {
            credential: Some(credential),
            salt: proof.salt.into(),
            rounds: proof.rounds,
            stored_key: *proof.stored_key,
            server_key: *proof.server_key,
        }
    }
}

impl Proving {
    /// Who has logged in, if this proves it. Nothing is left out for who cannot.
    fn judge(&self, proof: &Key) -> Option<LoginDone> {
        let Kept { credential, salt, rounds, stored_key, server_key } = &self.kept;
        let exchange = Exchange {
            user: &self.user,
            client_nonce: &self.client_nonce,
            server_nonce: &self.server_nonce,
            salt,
            rounds: *rounds,
        };
        let proves = exchange.proves(stored_key, proof);
        let signature = exchange.signed_by(server_key);
        let credential = credential.filter(|_| proves)?;
        Some(LoginDone { signature, credential })
    }
}

pub(super) fn denied(why: Denial) -> Error {
    Error::Denied { why }
}

impl Node {
    /// Whether it makes a difference who asks.
    #[inline]
    fn minds_who_asks(&self) -> bool {
        self.store.auth().is_enabled() || self.connections.has_logins()
    }

    /// Who asks, and for what.
    #[inline]
    pub(super) fn identify<'a>(
        &self,
        id: ConnectionId,
        request: Request<'a>,
    ) -> Result<(Asker, Request<'a>), Error> {
        if request.op != Op::As && !self.minds_who_asks() {
            return Ok((Asker::NOBODY, request));
        }
        let login = self.connections.get(id).map_or(Credential::NONE, |it| it.login);
        if request.op != Op::As {
            return Ok((Asker { login, acting: Credential::NONE }, request));
        }
        let (acting, inner) = decode_as(&request)
            .map_err(|error| Error::BadRequest { why: error.to_string().into() })?;
        // Whoever acts for nobody has no right of its own either.
        let asker = if acting.is_some() { Asker { login, acting } } else { Asker::NOBODY };
        Ok((asker, inner))
    }

    /// Whether this is a leader that has applied all that those before it committed, and nobody
    /// leads in its place: what clients were told since, it has told them. A leader that was
    /// replaced would refuse what somebody may do by now.
    pub(super) fn knows_rights(&self, now: Instant) -> bool {
        let Stage::Member(raft) = &self.stage else { return false };
        self.sets_the_time() && raft.holds_lease(now)
    }

    /// At the door: whether a command need not enter the log.
    #[inline]
    pub(super) fn check_command(
        &self,
        asker: Asker,
        command: &Command<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        if !self.store.auth().is_enabled() || !self.knows_rights(now) {
            return Ok(());
        }
        self.store.judge(asker, command).map_err(denied)
    }

    /// At the door: whether a read need not wait.
    #[inline]
    pub(super) fn check_read(
        &self,
        asker: Asker,
        asked: &Asked<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        if !self.store.auth().is_enabled() || !self.knows_rights(now) {
            return Ok(());
        }
        self.judge_read(asker, asked)
    }

    /// Whether whoever asks may read that from the store as it is.
    #[inline]
    pub(super) fn may_read(&self, asker: Asker, asked: &Asked<'_>) -> Result<(), Error> {
        if self.store.auth().is_enabled() { self.judge_read(asker, asked) } else { Ok(()) }
    }

    fn judge_read(&self, asker: Asker, asked: &Asked<'_>) -> Result<(), Error> {
        let rights = || self.store.auth().rights(asker);
        let judged = match asked {
            Asked::Range(args) => {
                rights().and_then(|it| it.read(args.key, RangeEnd::from_bytes(args.end)))
            }
            Asked::Txn(txn) => self.store.judge_read_txn(asker, *txn),
            // Its keys are judged as they are listed.
            Asked::Lease(
                LeaseRequest::KeepAlive { .. }
                | LeaseRequest::TimeToLive { .. }
                | LeaseRequest::List { .. },
            ) => rights().map(|_| ()),
            Asked::Auth(request) => self.judge_auth_read(asker, request),
        };
        judged.map_err(denied)
    }

    /// A user may see itself and its roles, and `root` may see all.
    fn judge_auth_read(&self, asker: Asker, request: &AuthRequest<'_>) -> Result<(), Denial> {
        let auth = self.store.auth();
        // Whoever wants to log in need not have.
        if let AuthRequest::Login { .. } = request {
            return Ok(());
        }
        let Err(why) = auth.rights(asker)?.administer() else { return Ok(()) };
        let own = if asker.acting.is_some() { asker.acting } else { asker.login };
        let own = auth.name_of(own);
        let sees = match request {
            AuthRequest::User { name } => own == Some(name),
            AuthRequest::Role { name } => {
                let user = own.and_then(|own| auth.user(own));
                user.is_some_and(|user| user.roles().any(|role| role == *name))
            }
            AuthRequest::Login { .. }
            | AuthRequest::Status
            | AuthRequest::Users
            | AuthRequest::Roles => false,
        };
        if sees { Ok(()) } else { Err(why) }
    }

    /// Whether whoever asks may watch a range, as far as this server knows.
    pub(super) fn may_watch(
        &self,
        asker: Asker,
        key: &[u8],
        end: RangeEnd<'_>,
    ) -> Result<(), Denial> {
        let auth = self.store.auth();
        if auth.is_enabled() { auth.rights(asker)?.read(key, end) } else { Ok(()) }
    }

    /// Whether whoever asks may have all of the store, as far as this server knows.
    pub(super) fn may_save(&self, asker: Asker) -> Result<(), Denial> {
        let auth = self.store.auth();
        if auth.is_enabled() { auth.rights(asker)?.administer() } else { Ok(()) }
    }

    /// Whether a leader may do at once what is asked: `judge` says whether the rights suffice.
    pub(super) fn check_rights(
        &self,
        asker: Asker,
        judge: impl FnOnce(Rights<'_>) -> Result<(), Denial>,
    ) -> Result<(), Error> {
        if !self.sets_the_time() {
            let why = "this leader has just begun".into();
            return Err(Error::NotReady { why });
        }
        let auth = self.store.auth();
        if !auth.is_enabled() {
            return Ok(());
        }
        auth.rights(asker).and_then(judge).map_err(denied)
    }

    /// Answers what was asked about users and roles, or how a password is to be proved.
    pub(super) fn answer_auth(&mut self, id: ConnectionId, request: u64, asked: AuthRequest<'_>) {
        let mut reply = Vec::new();
        let answered = match asked {
            AuthRequest::Login { user, nonce } => {
                self.challenge(id, request, (user, nonce), &mut reply)
            }
            AuthRequest::Status
            | AuthRequest::User { .. }
            | AuthRequest::Users
            | AuthRequest::Role { .. }
            | AuthRequest::Roles => {
                self.auth_answer(&asked).map(|it| auth_read_reply(&mut reply, request, &it))
            }
        };
        if let Err(error) = answered {
            error_reply(&mut reply, request, &error);
        }
        self.connections.answer(id, |out| out.extend_from_slice(&reply));
    }

    fn auth_answer(&self, asked: &AuthRequest<'_>) -> Result<AuthAnswer, Error> {
        let auth = self.store.auth();
        let mut answer = AuthAnswer {
            revision: self.store.revision(),
            auth_revision: auth.revision(),
            enabled: auth.is_enabled(),
            ..AuthAnswer::default()
        };
        match asked {
            AuthRequest::User { name } => {
                let user = auth.user(name).ok_or(Error::Auth { why: AuthRefusal::UserNotFound })?;
                answer.credential = user.credential();
                answer.has_password = user.password().is_some();
                answer.names = user.roles().map(str::to_owned).collect();
            }
            AuthRequest::Users => {
                answer.names = auth.users().map(|(name, _)| name.to_owned()).collect();
            }
            AuthRequest::Role { name } => {
                let role = auth.role(name).ok_or(Error::Auth { why: AuthRefusal::RoleNotFound })?;
                answer.permissions =
                    role.permissions().map(|it| GrantedPermission::of(&it)).collect();
            }
            AuthRequest::Roles => {
                answer.names = auth.roles().map(|(name, _)| name.to_owned()).collect();
            }
            AuthRequest::Status | AuthRequest::Login { .. } => {}
        }
        Ok(answer)
    }

    /// Asks whoever wants to log in for a proof. Whether there is such a user it does not say: one
    /// that there is not, or that has no password, is asked as any other, and what it is asked
    /// with is made for all.
    fn challenge(
        &mut self,
        id: ConnectionId,
        request: u64,
        (user, client_nonce): (&str, &[u8]),
        reply: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let auth = self.store.auth();
        if !auth.is_enabled() {
            return Err(Error::Auth { why: AuthRefusal::AuthNotEnabled });
        }
        let server_nonce = self.secret.nonce(self.boot_nonce);
        let decoy = self.decoy(user);
        let found = auth.user(user).and_then(|it| Some((it.credential(), it.password()?)));
        let kept = match found {
            Some((credential, proof)) => Kept::of(credential, &proof),
            None => decoy,
        };
        let (salt, rounds) = (&*kept.salt, kept.rounds);
        login_reply(reply, request, &LoginChallenge { nonce: &server_nonce, salt, rounds });
        let (user, client_nonce) = (user.into(), client_nonce.into());
        self.connections.set_proving(id, Proving { user, client_nonce, server_nonce, kept });
        Ok(())
    }

    /// What a user that there is not is asked with. The same on all servers and for ever, as that
    /// of a user that there is, and nobody can tell it from one: it is made of what nobody knows,
    /// and of no password. It looks like what users have, whatever their clients made of it; if
    /// that changes, its salt is another one too, as with a password that is set anew.
    fn decoy(&self, user: &str) -> Kept {
        let auth = self.store.auth();
        let secret = auth.numbers().secret;
        let secret = secret.expect("rights count, and the first time that they did brought it");
        let name = user.as_bytes();
        let place = hmac(&secret, &[b"place", name]);
        let place = u64::from_be_bytes(*place.first_chunk().expect("a key has eight bytes"));
        let PasswordShape { rounds, salt_bytes } = auth.shape_at(place);
        let number = rounds.to_be_bytes();
        let halves = [&b"salt"[..], b"rest"].map(|half| hmac(&secret, &[half, &number, name]));
        let key = hmac(&secret, &[b"keys", name]);
        Kept {
            credential: None,
            salt: halves.concat()[..salt_bytes].into(),
            rounds,
            stored_key: key,
            server_key: key,
        }
    }

    /// Judges a proof: the connection has the rights of its user from then on.
    pub(super) fn prove_login(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<(), Error> {
        let proof = decode_login_proof(request.args)
            .map_err(|error| Error::BadRequest { why: error.to_string().into() })?;
        let Some(proving) = self.connections.take_proving(id) else {
            return Err(Error::BadRequest { why: "a proof of what was not asked for".into() });
        };
        let auth = self.store.auth();
        // Another password may have been set since.
        let done = proving.judge(&proof).filter(|done| auth.name_of(done.credential).is_some());
        let Some(done) = done else {
            log::debug!("refused a login node={} user={:?}", self.identity.node, proving.user);
            return Err(Error::Auth { why: AuthRefusal::AuthFailed });
        };
        self.connections.set_login(id, done.credential);
        self.connections.write(id, |out| login_proof_reply(out, request.id, &done));
        Ok(())
    }

    /// Ends the watches of those who may read no more what they watch. Before they hear of anything
    /// that was done since. However many watches there are, it looks at all of them: some 5 ms for
    /// as many as there may be, once for each turn in which rights have changed.
    pub(super) fn judge_watches(&mut self) {
        let auth = self.store.auth();
        if !self.watches.must_judge(auth.changes()) || !auth.is_enabled() {
            return;
        }
        for (name, why) in self.watches.denied(&self.store) {
            self.end_watch(name, &denied(why));
        }
    }

    /// Who the cluster itself is to the store.
    pub(super) fn cluster_asker(&self) -> Asker {
        if self.store.auth().is_enabled() { Asker::CLUSTER } else { Asker::NOBODY }
    }
}
