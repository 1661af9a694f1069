//! A user and its password, proved to a node and sent to none. protocol.md, Login, says how; here
//! it is cut into steps, since links and lines send and hear in ways of their own.
//!
//! ```text
//! begin    chance of ours               request  → the node: who wants to log in
//! prove    the node's salt and chance   proof    → the node, once the password is hashed
//! finish   whether the node knows what belongs to the password, and the credential
//! ```
//!
//! To hash a password takes some 20 to 80 ms by design. It has threads of its own, few at once:
//! whoever likes may have the gateway do it. So what the gateway needs to serve anybody, its own
//! login, waits in another queue than what anybody may ask for.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use crate::gateway::link::LinkError;
use crate::limits::{
    NONCE_BYTES_MIN, PASSWORD_ROUNDS_DEFAULT, PASSWORD_ROUNDS_MAX, PASSWORD_ROUNDS_MIN,
};
use crate::types::Credential;
use crate::wire::auth::{AuthRefusal, AuthRequest, LoginChallenge, LoginDone};
use crate::wire::client::PasswordProof;
use crate::wire::error::Error as WireError;
use crate::wire::reply::{ReplyBody, decode_reply};
use crate::wire::scram::{Exchange, Key, PasswordKeys, are_equal};

/// Passwords of whoever comes that are hashed at once; whoever comes later waits.
const HASHED_AT_ONCE: usize = 2;

static OWN: Semaphore = Semaphore::const_new(1);
static TO_SET: Semaphore = Semaphore::const_new(1);
static SHOWN: Semaphore = Semaphore::const_new(HASHED_AT_ONCE);

/// For what a password is hashed: one waits for those of its kind alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    /// The gateway logs in, for all of its clients.
    Own,
    /// Somebody sets it who may.
    ToSet,
    /// Somebody shows it, who may be anybody.
    Shown,
}

impl Lane {
    /// Waits for its turn.
    async fn turn(self) -> Result<SemaphorePermit<'static>, LoginError> {
        let turns = match self {
            Lane::Own => &OWN,
            Lane::ToSet => &TO_SET,
            Lane::Shown => &SHOWN,
        };
        // Nobody closes it.
        turns.acquire().await.map_err(|why| LoginError::System(io::Error::other(why)))
    }
}

/// Why nobody has logged in.
#[derive(Debug)]
pub(in crate::gateway) enum LoginError {
    /// Rights do not count there: nobody needs to.
    NotNeeded,
    /// The node refused.
    Refused(WireError),
    /// The node does not know what belongs to the password, or wants it to be hashed too often or
    /// too seldom.
    Impostor,
    /// The connection was lost.
    Lost,
    /// The node has answered something else.
    Odd,
    /// The system has no chance to give, or no thread.
    System(io::Error),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoginError::NotNeeded => f.write_str("rights do not count there"),
            LoginError::Refused(why) => write!(f, "the node refused: {why}"),
            LoginError::Impostor => f.write_str("the node does not know the password's keys"),
            LoginError::Lost => f.write_str("the connection was lost"),
            LoginError::Odd => f.write_str("the node answered something else"),
            LoginError::System(why) => write!(f, "{why}"),
        }
    }
}

impl From<LinkError> for LoginError {
    fn from(why: LinkError) -> LoginError {
        match why {
            LinkError::Refused(why) => LoginError::Refused(why),
            LinkError::Frame(_) | LinkError::Reply(_) => LoginError::Odd,
            LinkError::Io(_) | LinkError::Closed | LinkError::Silent | LinkError::CutOff => {
                LoginError::Lost
            }
        }
    }
}

/// Chance of ours, for one login.
pub(in crate::gateway) type Nonce = [u8; NONCE_BYTES_MIN];

/// A user and its password.
pub(in crate::gateway) struct Login {
    user: String,
    password: String,
    lane: Lane,
    /// What the password came to last, and with what it was hashed: another connection need not
    /// hash it again.
    derived: Mutex<Option<Derived>>,
    /// The same of the last time that somebody has logged in by it.
    proved: Mutex<Option<PasswordKeys>>,
}

struct Derived {
    salt: Vec<u8>,
    rounds: u64,
    keys: PasswordKeys,
}

/// A password that is to be shown to be known.
pub(in crate::gateway) struct Proving {
    proof: Key,
    /// What the node has to answer.
    signature: Key,
    keys: PasswordKeys,
}

impl Proving {
    /// What shows it.
    pub(in crate::gateway) fn proof(&self) -> &Key {
        &self.proof
    }
}

impl Login {
    /// What whoever comes says to be its user and its password.
    pub(in crate::gateway) fn shown(user: &str, password: &str) -> Login {
        Login {
            user: user.to_owned(),
            password: password.to_owned(),
            lane: Lane::Shown,
            derived: Mutex::default(),
            proved: Mutex::default(),
        }
    }

    /// From now on the gateway itself logs in by it.
    pub(in crate::gateway) fn into_own(self) -> Login {
        Login { lane: Lane::Own, ..self }
    }

    /// The user.
    pub(in crate::gateway) fn user(&self) -> &str {
        &self.user
    }

    /// The keys of the password, if somebody has logged in by it.
    pub(super) fn proved(&self) -> Option<PasswordKeys> {
        *lock(&self.proved)
    }

    /// Chance for one login.
    pub(in crate::gateway) fn begin(&self) -> Result<Nonce, LoginError> {
        random().map_err(LoginError::System)
    }

    /// What to ask.
    pub(in crate::gateway) fn request<'a>(&'a self, nonce: &'a Nonce) -> AuthRequest<'a> {
        AuthRequest::Login { user: &self.user, nonce }
    }

    /// Makes a proof of what was answered to that.
    pub(in crate::gateway) async fn prove(
        &self,
        nonce: &Nonce,
        answer: &Bytes,
    ) -> Result<Proving, LoginError> {
        let ReplyBody::Login(challenge) = body_of(answer)? else { return Err(LoginError::Odd) };
        let LoginChallenge { nonce: server_nonce, salt, rounds } = challenge;
        // A node that is none may ask for a century of work.
        if !(PASSWORD_ROUNDS_MIN..=PASSWORD_ROUNDS_MAX).contains(&rounds) {
            return Err(LoginError::Impostor);
        }
        let keys = self.keys(salt, rounds).await?;
        let (user, client_nonce) = (&*self.user, &nonce[..]);
        let exchange = Exchange { user, client_nonce, server_nonce, salt, rounds };
        Ok(Proving { proof: keys.proof(&exchange), signature: keys.signature(&exchange), keys })
    }

    async fn keys(&self, salt: &[u8], rounds: u64) -> Result<PasswordKeys, LoginError> {
        if let Some(keys) = self.known(salt, rounds) {
            return Ok(keys);
        }
        let turn = self.lane.turn().await?;
        // Another connection may have had it hashed meanwhile.
        if let Some(keys) = self.known(salt, rounds) {
            return Ok(keys);
        }
        let keys = hash(turn, &self.password, salt, rounds).await?;
        *lock(&self.derived) = Some(Derived { salt: salt.to_vec(), rounds, keys });
        Ok(keys)
    }

    fn known(&self, salt: &[u8], rounds: u64) -> Option<PasswordKeys> {
        lock(&self.derived).as_ref().and_then(|it| it.keys_of(salt, rounds))
    }

    /// Judges what was answered to the proof: the credential, if the node knows the keys of the
    /// password.
    pub(in crate::gateway) fn finish(
        &self,
        proving: &Proving,
        answer: &Bytes,
    ) -> Result<Credential, LoginError> {
        let ReplyBody::LoginProof(done) = body_of(answer)? else { return Err(LoginError::Odd) };
        let LoginDone { signature, credential } = done;
        if !are_equal(&signature, &proving.signature) {
            return Err(LoginError::Impostor);
        }
        *lock(&self.proved) = Some(proving.keys);
        Ok(credential)
    }
}

impl Derived {
    fn keys_of(&self, salt: &[u8], rounds: u64) -> Option<PasswordKeys> {
        (self.salt == salt && self.rounds == rounds).then_some(self.keys)
    }
}

/// What a node answered, unless it refused.
fn body_of(answer: &Bytes) -> Result<ReplyBody<'_>, LoginError> {
    match decode_reply(answer).map(|reply| reply.body) {
        Ok(ReplyBody::Error(WireError::Auth { why: AuthRefusal::AuthNotEnabled })) => {
            Err(LoginError::NotNeeded)
        }
        Ok(ReplyBody::Error(why)) => Err(LoginError::Refused(why)),
        Ok(body) => Ok(body),
        Err(_) => Err(LoginError::Odd),
    }
}

/// A password that is to be set: what nodes keep of it.
pub(super) struct NewPassword {
    salt: [u8; NONCE_BYTES_MIN],
    keys: PasswordKeys,
}

impl NewPassword {
    /// Hashes a password with a salt of its own.
    pub(super) async fn of(password: &str) -> Result<NewPassword, LoginError> {
        let salt: [u8; NONCE_BYTES_MIN] = random().map_err(LoginError::System)?;
        let turn = Lane::ToSet.turn().await?;
        let keys = hash(turn, password, &salt, PASSWORD_ROUNDS_DEFAULT).await?;
        Ok(NewPassword { salt, keys })
    }

    /// What a change of users carries.
    pub(super) fn proof(&self) -> PasswordProof<'_> {
        self.keys.to_keep(&self.salt, PASSWORD_ROUNDS_DEFAULT)
    }
}

/// Hashes a password on a thread of its own. The turn ends with the hashing, whether anybody waits
/// for it or not.
async fn hash(
    turn: SemaphorePermit<'static>,
    password: &str,
    salt: &[u8],
    rounds: u64,
) -> Result<PasswordKeys, LoginError> {
    let (password, salt) = (password.to_owned(), salt.to_owned());
    let hashed = spawn_blocking(move || {
        let _turn = turn;
        PasswordKeys::derive(password.as_bytes(), &salt, rounds)
    });
    hashed.await.map_err(|why| LoginError::System(why.into()))
}

/// A secret takes its chance from the system. Linux getrandom(2).
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(filled) if filled == N => Ok(bytes),
        Ok(_) => Err(io::Error::other("the system gave too few random bytes")),
        Err(why) => Err(why.into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    const SALT: &[u8] = &[1; NONCE_BYTES_MIN];

    /// Whoever liked could fill the queue that the gateway's own login waited in.
    #[test]
    fn the_gateways_own_login_waits_for_nobody_elses() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let taken: [_; HASHED_AT_ONCE] =
                [Lane::Shown.turn().await.unwrap(), Lane::Shown.turn().await.unwrap()];
            let shown = Login::shown("root", "top");
            let mut waits = pin!(shown.keys(SALT, PASSWORD_ROUNDS_MIN));
            let polled = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "all turns are taken");
            let own = Login::shown("root", "top").into_own();
            let keys = own.keys(SALT, PASSWORD_ROUNDS_MIN).await.unwrap();
            NewPassword::of("another").await.unwrap();
            drop(taken);
            assert!(waits.await.unwrap() == keys, "its turn has come");
        });
    }
}
