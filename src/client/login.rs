//! Who a client is: a user and its password, proved to every server that it connects to, and sent
//! to none. protocol.md, Login.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::{
    NONCE_BYTES_MIN, PASSWORD_ROUNDS_DEFAULT, PASSWORD_ROUNDS_MAX, PASSWORD_ROUNDS_MIN,
};
use crate::types::Credential;
use crate::wire::auth::{AuthRefusal, AuthRequest, LoginChallenge, LoginDone};
use crate::wire::client::PasswordProof;
use crate::wire::error::Error as WireError;
use crate::wire::reply::{Reply, ReplyBody};
use crate::wire::scram::{Exchange, PasswordKeys, are_equal};

use super::clock::Deadline;
use super::connection::Connection;
use super::error::ConnectionError;

/// A user and its password.
#[derive(Clone)]
pub struct Login {
    user: String,
    password: String,
    /// What the password came to last, and with what it was hashed: another connection need not
    /// hash it again.
    derived: Arc<Mutex<Option<Derived>>>,
}

struct Derived {
    salt: Vec<u8>,
    rounds: u64,
    keys: PasswordKeys,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login {{ user: {:?}, .. }}", self.user)
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Login) -> bool {
        self.user == other.user && self.password == other.password
    }
}

impl Eq for Login {}

impl Login {
    /// A user and its password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Login {
        Login { user: user.into(), password: password.into(), derived: Arc::default() }
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password: for whoever has to hand it on to a program of its own.
    pub fn password(&self) -> &str {
        &self.password
    }

    fn keys(&self, salt: &[u8], rounds: u64) -> PasswordKeys {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = derived.as_ref().filter(|it| it.salt == salt && it.rounds == rounds) {
            return known.keys;
        }
        let keys = PasswordKeys::derive(self.password.as_bytes(), salt, rounds);
        *derived = Some(Derived { salt: salt.to_vec(), rounds, keys });
        keys
    }
}

/// A password that is to be set: what servers keep of it.
#[derive(Clone, Debug)]
pub struct NewPassword {
    salt: [u8; NONCE_BYTES_MIN],
    rounds: u64,
    keys: PasswordKeys,
}

impl NewPassword {
    /// Hashes a password with a salt of its own; some 20 to 80 ms. Fails if the system gives no
    /// random bytes.
    pub fn of(password: &str) -> io::Result<NewPassword> {
        let (salt, rounds) = (random()?, PASSWORD_ROUNDS_DEFAULT);
        let keys = PasswordKeys::derive(password.as_bytes(), &salt, rounds);
        Ok(NewPassword { salt, rounds, keys })
    }

    /// What a change of users carries.
    pub fn proof(&self) -> PasswordProof<'_> {
        self.keys.to_keep(&self.salt, self.rounds)
    }
}

/// What turning rights on takes. Fails if the system gives no random bytes.
pub fn new_secret() -> io::Result<[u8; 32]> {
    random()
}

/// A secret takes its chance from the system. Linux getrandom(2).
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(filled) if filled == N => Ok(bytes),
        Ok(_) => Err(io::Error::other("the system gave too few random bytes")),
        Err(why) => Err(why.into()),
    }
}

impl Connection {
    /// Logs in on a connection with nothing in flight. `None`: rights do not count there, and
    /// nobody needs to.
    pub fn log_in(
        &mut self,
        login: &Login,
        deadline: Deadline,
    ) -> Result<Option<Credential>, ConnectionError> {
        let endpoint = self.endpoint().to_owned();
        let nonce: [u8; NONCE_BYTES_MIN] = random().map_err(|source| ConnectionError::Io {
            endpoint: endpoint.clone(),
            doing: "log in at",
            source,
        })?;
        let id = self.auth(&AuthRequest::Login { user: &login.user, nonce: &nonce });
        self.flush(deadline)?;
        let reply = self.receive(deadline)?;
        let (server_nonce, salt, rounds) = match reply {
            Reply { id: of, body: ReplyBody::Login(challenge) } if of == id => {
                let LoginChallenge { nonce, salt, rounds } = challenge;
                (nonce.to_vec(), salt.to_vec(), rounds)
            }
            Reply { id: of, body: ReplyBody::Error(source) } if of == id => {
                let enabled = source != WireError::Auth { why: AuthRefusal::AuthNotEnabled };
                let refused = Err(ConnectionError::Refused { endpoint, source });
                return if enabled { refused } else { Ok(None) };
            }
            Reply { .. } => return Err(ConnectionError::Reply { endpoint, source: None }),
        };
        // A server that is none may ask for a century of work.
        if !(PASSWORD_ROUNDS_MIN..=PASSWORD_ROUNDS_MAX).contains(&rounds) {
            return Err(ConnectionError::Impostor { endpoint });
        }
        let keys = login.keys(&salt, rounds);
        let exchange = Exchange {
            user: &login.user,
            client_nonce: &nonce,
            server_nonce: &server_nonce,
            salt: &salt,
            rounds,
        };
        self.prove(&keys, &exchange, deadline).map(Some)
    }

    fn prove(
        &mut self,
        keys: &PasswordKeys,
        exchange: &Exchange<'_>,
        deadline: Deadline,
    ) -> Result<Credential, ConnectionError> {
        let endpoint = self.endpoint().to_owned();
        let id = self.login_proof(&keys.proof(exchange));
        self.flush(deadline)?;
        match self.receive(deadline)? {
            Reply { id: of, body: ReplyBody::LoginProof(done) } if of == id => {
                let LoginDone { signature, credential } = done;
                if are_equal(&signature, &keys.signature(exchange)) {
                    Ok(credential)
                } else {
                    Err(ConnectionError::Impostor { endpoint })
                }
            }
            Reply { id: of, body: ReplyBody::Error(source) } if of == id => {
                Err(ConnectionError::Refused { endpoint, source })
            }
            Reply { .. } => Err(ConnectionError::Reply { endpoint, source: None }),
        }
    }
}
