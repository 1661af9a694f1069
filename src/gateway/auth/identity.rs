//! In whose name the cluster is asked.
//!
//! The gateway logs in as a user with the role `root`, which may act for others: each request goes
//! out with the credential of whoever asked for it (protocol.md, As), and is judged by its rights
//! where it is done. Here nothing is judged, and nothing is known of rights: whether they count at
//! all is noticed by what is refused.
//!
//! ```text
//! a client's token        the credential in it
//! none, a certificate     that of the user of its name, see named.rs
//! neither                 nobody's: refused while rights count
//! no token of ours        a credential that nobody has: refused while rights count, as etcd does
//! the gateway itself      as it has logged in: sessions, health
//! ```
//!
//! Whose login that is the flags say; if they do not, it is the first user with the role `root`
//! that proves its password here, for as long as it has that role.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Request;

use crate::gateway::calls::Cluster;
use crate::gateway::identity::PeerIdentity;
use crate::gateway::link::{Line, Link};
use crate::gateway::options::User;
use crate::types::Credential;
use crate::wire::auth::in_name_of;
use crate::wire::error::Advice;
use crate::wire::scram::Key;

use super::login::{Login, LoginError, random};
use super::named::Names;
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
    /// A client's whose certificate has this common name, and who shows no token.
    Named(Arc<str>),
}

impl Who {
    /// Whoever sent a request.
    pub(in crate::gateway) fn of<T>(request: &Request<T>) -> Who {
        let metadata = request.metadata();
        let Some(token) = TOKEN_NAMES.iter().find_map(|name| metadata.get(*name)) else {
            let peer = PeerIdentity::of(request.extensions());
            return peer.user().map_or(Who::Nobody, |name| Who::Named(Arc::clone(name)));
        };
        // What is no text is nobody's token.
        Who::Bearer(token.to_str().unwrap_or_default().into())
    }
}

/// Who the gateway is to the cluster.
pub(in crate::gateway) struct Identity {
    own: Mutex<Option<Arc<Login>>>,
    /// Whether the flags say so.
    pub(super) is_given: bool,
    /// Whether there ever was one: a link may have logged in by it.
    ever: AtomicBool,
    /// Users whom certificates name.
    pub(super) names: Names,
    /// What signs tokens if they do not.
    chance: Option<Key>,
    /// Whether it was said that nobody can log in.
    complained: AtomicBool,
}

impl Identity {
    /// That of the flags, or that of whoever comes.
    pub(in crate::gateway) fn of(user: Option<&User>) -> Identity {
        let own = user.map(|user| Arc::new(Login::shown(&user.name, &user.password).into_own()));
        Identity {
            is_given: own.is_some(),
            ever: AtomicBool::new(own.is_some()),
            names: Names::default(),
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
            log::info!("acts for others by the login of user={:?}", login.user());
            *own = Some(Arc::new(login.into_own()));
            self.ever.store(true, Ordering::Relaxed);
        }
    }

    /// A login that was taken is of no use any more.
    pub(super) fn forget(&self, login: &Arc<Login>) {
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

    /// Says once that the gateway can do nothing for its clients, and why.
    pub(super) fn complain(&self, login: &Login, why: impl fmt::Display) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            log::error!("cannot act for others user={:?} why={why}", login.user());
        }
    }

    /// It can again.
    pub(super) fn is_well(&self) {
        self.complained.store(false, Ordering::Relaxed);
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
            // Where no link has logged in whatever is said is said by nobody.
            Who::Nobody | Who::Bearer(_) | Who::Named(_)
                if !self.identity.ever.load(Ordering::Relaxed) =>
            {
                None
            }
            Who::Nobody => Some(Credential::NONE),
            Who::Bearer(shown) => Some(self.credential_of(shown).unwrap_or(UNKNOWN)),
            // Whom it names is asked for once that is refused.
            Who::Named(name) => Some(self.identity.names.credential(name).unwrap_or(UNKNOWN)),
        }
    }

    fn credential_of(&self, shown: &str) -> Option<Credential> {
        token::credential(&self.identity.token_key()?, self.nodes.cluster_id(), shown)
    }

    /// A connection for one request alone to the node that `link` leads to, by which the gateway
    /// has logged in if it can.
    pub(in crate::gateway) async fn line(&self, link: &Link) -> Result<Line, LoginError> {
        let mut line = Line::open(link.address(), link.welcome().cluster_id).await?;
        let Some(own) = self.identity.own() else { return Ok(line) };
        match line.log_in(&own).await {
            Ok(_) | Err(LoginError::NotNeeded) => Ok(line),
            // Then the request is refused, and what is to be done about that is done there.
            Err(LoginError::Refused(why)) if why.advice() != Advice::AskAgain => Ok(line),
            Err(why) => Err(why),
        }
    }
}
