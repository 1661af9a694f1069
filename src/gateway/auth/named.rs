//! Users by the names in their certificates, as etcd has them: whoever shows a certificate and no
//! token is the user of its common name, without a password.
//!
//! The cluster knows users by their credentials. That of a name is asked for when a request is
//! refused because it is not known, or not any more: a user that is deleted, or gets another
//! password, loses it. So nothing is asked where rights do not count, and what is remembered here
//! may be old, but is never taken for another user's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::gateway::calls::Cluster;
use crate::gateway::failure::Failure;
use crate::gateway::link::Link;
use crate::limits::AUTH_NAME_BYTES_MAX;
use crate::types::Credential;
use crate::wire::auth::{AuthRefusal, AuthRequest, Denial, auth_request};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::reply::{ReplyBody, decode_reply};

use super::denied::denied;
use super::login::Login;

/// Names remembered; if there are more, all are asked for again.
const NAMES_MAX: usize = 4096;

/// The credentials of names.
#[derive(Default)]
pub(super) struct Names(Mutex<BTreeMap<Arc<str>, Credential>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Credential>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credential of a name, as far as it is known.
    pub(super) fn credential(&self, name: &str) -> Option<Credential> {
        self.lock().get(name).copied()
    }

    fn remember(&self, name: &Arc<str>, credential: Credential) {
        let mut names = self.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(Arc::clone(name), credential);
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
    }
}

impl Cluster {
    /// Asks whose credential a name stands for, in the gateway's own name. Whether the request that
    /// was refused may be sent again.
    pub(super) async fn find_named(
        &self,
        link: &Link,
        own: &Arc<Login>,
        name: &Arc<str>,
    ) -> Result<bool, Failure> {
        if name.len() > AUTH_NAME_BYTES_MAX {
            return Err(denied(Denial::NotPermitted));
        }
        let encode = |out: &mut Vec<u8>, id| auth_request(out, id, &AuthRequest::User { name });
        // Without an answer it is asked again, somewhere else.
        let Ok(answer) = link.ask_ourselves(encode).await else { return Ok(true) };
        match decode_reply(&answer).map(|reply| reply.body) {
            Ok(ReplyBody::AuthRead(found)) => {
                self.identity.names.remember(name, found.credential);
                Ok(true)
            }
            Ok(ReplyBody::Error(WireError::Auth { why: AuthRefusal::UserNotFound })) => {
                self.identity.names.forget(name);
                // As etcd says it.
                Err(denied(Denial::NotPermitted))
            }
            Ok(ReplyBody::Error(WireError::Denied { why: Denial::NotPermitted })) => {
                Err(self.lacks_the_role(own))
            }
            Ok(ReplyBody::Error(WireError::Denied {
                why: Denial::NoUser | Denial::LoginEnded,
            })) => Ok(true),
            Ok(ReplyBody::Error(why)) if why.advice() == Advice::AskAgain => Ok(true),
            Ok(ReplyBody::Error(why)) => Err(Failure::Refused(why)),
            Ok(_) | Err(_) => Err(Failure::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_are_remembered_and_no_more() {
        let names = Names::default();
        for number in 0..NAMES_MAX {
            names.remember(&number.to_string().into(), Credential(7));
        }
        assert_eq!(names.credential("0"), Some(Credential(7)));
        names.forget("0");
        assert_eq!(names.credential("0"), None);
        names.remember(&"0".into(), Credential(8));
        names.remember(&"one more".into(), Credential(9));
        assert_eq!(names.credential("one more"), Some(Credential(9)));
        assert_eq!(names.credential("0"), None, "there were too many");
    }
}
