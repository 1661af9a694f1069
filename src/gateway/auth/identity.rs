//! In whose name the cluster is asked.
//!
//! The gateway logs in as a user with the role `root`, which may act for others: each request goes
//! out with the credential of whoever asked for it (protocol.md, As), and is judged by its rights
//! where it is done. Here nothing is judged, and nothing is known of rights: whether they count at
//! all is noticed by what is refused.
//!
//! ```text
//! a client's token        the credential in it
//! none                    nobody's: refused while rights count
//! no token of ours        a credential that nobody has: refused while rights count, as etcd does
//! the gateway itself      as it has logged in: sessions, health
//! ```
//!
//! Whose login that is the flags say; if they do not, it is the first user with the role `root`
//! that proves its password here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Request;

use crate::gateway::calls::{Cluster, error_of};
use crate::gateway::failure::Failure;
use crate::gateway::link::Link;
use crate::gateway::options::User;
use crate::types::Credential;
use crate::wire::auth::{AuthRefusal, AuthRequest, Denial, auth_request, in_name_of};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::scram::Key;

use super::login::{Login, LoginError, random};
use super::token;

/// Where clients of gRPC say who they are, and where those of HTTP may.
const TOKEN_NAMES: [&str; 2] = ["token", "authorization"];

/// What nobody has: credentials are given from small to large.
const UNKNOWN: Credential = Credential(u64::MAX);

/// What the key of tokens is made for.
const TOKENS: &[u8] = b"raftd-gateway tokens";

/// In whose name something is asked.
#[derive(Clone, Debug)]
pub(in crate::gateway) enum Who {
    /// The gateway's own.
    Gateway,
    /// A client's that has not said who it is.
    Nobody,
    /// Whose token this is.
    Bearer(Arc<str>),
}

impl Who {
    /// Whoever sent a request.
    pub(in crate::gateway) fn of<T>(request: &Request<T>) -> Who {
        let metadata = request.metadata();
        let Some(token) = TOKEN_NAMES.iter().find_map(|name| metadata.get(*name)) else {
            return Who::Nobody;
        };
        // What is no text is nobody's token.
        Who::Bearer(token.to_str().unwrap_or_default().into())
    }

    /// What it hears where the gateway has no login of its own and so nobody is known: whoever has
    /// a token has it from a time before, and is to log in again.
    pub(in crate::gateway) fn hears(&self, failure: Failure) -> Failure {
        let no_user = Failure::Refused(WireError::Denied { why: Denial::NoUser });
        let is_bearer = matches!(self, Who::Bearer(_));
        if is_bearer && failure == no_user { login_ended() } else { failure }
    }
}

/// Who the gateway is to the cluster.
pub(in crate::gateway) struct Identity {
    own: Mutex<Option<Arc<Login>>>,
    /// Whether the flags say so.
    is_given: bool,
    /// What signs tokens if they do not.
    chance: Option<Key>,
    /// Whether it was said that nobody can log in.
    complained: AtomicBool,
}

impl Identity {
    /// That of the flags, or that of whoever comes.
    pub(in crate::gateway) fn of(user: Option<&User>) -> Identity {
        let own = user.map(|user| Arc::new(Login::new(&user.name, &user.password)));
        Identity {
            is_given: own.is_some(),
            own: Mutex::new(own),
            // Without chance there are no tokens.
            chance: random().ok(),
            complained: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Login>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As whom it logs in.
    pub(in crate::gateway) fn own(&self) -> Option<Arc<Login>> {
        self.lock().clone()
    }

    /// Takes the login of a user with the role `root`, if there is none, or if that user's password
    /// is another one by now.
    pub(super) fn adopt(&self, login: Login) {
        let mut own = self.lock();
        let is_newer = own.as_ref().is_none_or(|it| it.user() == login.user());
        if is_newer && !self.is_given {
            log::info!("acts for others by the login of user={}", login.user());
            *own = Some(Arc::new(login));
        }
    }

    /// A login that was taken is of no use any more.
    fn forget(&self, login: &Arc<Login>) {
        let mut own = self.lock();
        if own.as_ref().is_some_and(|it| Arc::ptr_eq(it, login)) {
            *own = None;
        }
    }

    /// What signs tokens. A key that is made of a password is the same for all gateways that were
    /// given it, and after a restart. Nobody else's password is put to that use: whoever has a
    /// token can try passwords against it.
    pub(super) fn token_key(&self) -> Option<Key> {
        if self.is_given {
            self.own()?.proved().map(|keys| keys.secret(TOKENS))
        } else {
            self.chance
        }
    }

    fn complain(&self, login: &Login, why: &LoginError) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            log::error!("cannot log in user={} why={why}", login.user());
        }
    }
}

impl Cluster {
    /// Appends a request that is for `who`.
    pub(in crate::gateway) fn write_for(
        &self,
        who: &Who,
        out: &mut Vec<u8>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let from = out.len();
        encode(out);
        if let Some(acting) = self.acting(who) {
            in_name_of(out, from, acting);
        }
    }

    /// For whom a request has to be said to be. `None`: it is said as it is.
    fn acting(&self, who: &Who) -> Option<Credential> {
        match who {
            Who::Gateway => None,
            // Without a login of its own whatever it says is said by nobody.
            Who::Nobody | Who::Bearer(_) if self.identity.own().is_none() => None,
            Who::Nobody => Some(Credential::NONE),
            Who::Bearer(shown) => Some(self.credential_of(shown).unwrap_or(UNKNOWN)),
        }
    }

    fn credential_of(&self, shown: &str) -> Option<Credential> {
        token::credential(&self.identity.token_key()?, self.nodes.cluster_id(), shown)
    }

    /// A request was denied, which had been sent when the link had logged in so often. Whether that
    /// was for want of a login of the gateway's own, and it may be sent again.
    pub(in crate::gateway) async fn may_ask_again(
        &self,
        link: &Link,
        logins: u64,
        who: &Who,
        why: Denial,
    ) -> Result<bool, Failure> {
        let Some(own) = self.identity.own() else {
            let denied = Failure::Refused(WireError::Denied { why });
            let heard = who.hears(denied.clone());
            return if heard == denied { Ok(false) } else { Err(heard) };
        };
        let is_ours = match (why, who) {
            (Denial::NotPermitted, _) | (Denial::NoUser | Denial::LoginEnded, Who::Nobody) => false,
            (Denial::NoUser, Who::Gateway | Who::Bearer(_))
            | (Denial::LoginEnded, Who::Gateway) => true,
            // Its login has ended, or ours.
            (Denial::LoginEnded, Who::Bearer(_)) => match knows_us(link).await {
                Ok(known) => !known || link.logins() != logins,
                Err(_) => return Ok(true),
            },
        };
        if is_ours {
            self.log_in(link, logins, &own).await?;
        }
        Ok(is_ours)
    }

    /// Logs in again, or finds that it is worth trying again later.
    pub(super) async fn log_in(
        &self,
        link: &Link,
        logins: u64,
        own: &Arc<Login>,
    ) -> Result<(), Failure> {
        match link.log_in(own, logins).await {
            Ok(true) => {
                self.identity.complained.store(false, Ordering::Relaxed);
                mind_the_role(link, own).await;
                Ok(())
            }
            Ok(false) | Err(LoginError::NotNeeded | LoginError::Lost) => Ok(()),
            Err(LoginError::Refused(why)) if why.advice() == Advice::AskAgain => Ok(()),
            Err(why) => {
                self.identity.complain(own, &why);
                let wrong = WireError::Auth { why: AuthRefusal::AuthFailed };
                if !self.identity.is_given
                    && matches!(&why, LoginError::Refused(it) if *it == wrong)
                {
                    self.identity.forget(own);
                    return Err(login_ended());
                }
                Err(Failure::NoLogin)
            }
        }
    }
}

fn login_ended() -> Failure {
    Failure::Refused(WireError::Denied { why: Denial::LoginEnded })
}

/// Whether a node knows who we are.
async fn knows_us(link: &Link) -> Result<bool, LoginError> {
    let encode = |out: &mut Vec<u8>, id| auth_request(out, id, &AuthRequest::Status);
    match error_of(&link.ask_ourselves(encode).await?) {
        Some(WireError::Denied { why: Denial::NoUser | Denial::LoginEnded }) => Ok(false),
        Some(why) if why.advice() == Advice::AskAgain => Err(LoginError::Refused(why)),
        Some(_) | None => Ok(true),
    }
}

/// Says so if the gateway has logged in as a user who may not act for others.
async fn mind_the_role(link: &Link, own: &Login) {
    let encode = |out: &mut Vec<u8>, id| auth_request(out, id, &AuthRequest::Status);
    let Ok(answer) = link.ask_ourselves(encode).await else { return };
    if let Some(WireError::Denied { why: Denial::NotPermitted }) = error_of(&answer) {
        let user = own.user();
        log::error!("the user may not act for others: it has not the role root user={user}");
    }
}
