//! What comes of a refusal: whose fault it is, and whether the request may be sent again.
//!
//! ```text
//! for want of our login     the link logs in, and it is sent again
//! our user is not root      one that came by itself is forgotten, and whoever has a token hears
//!                           that its login has ended: the next root that logs in takes its place.
//!                           One of the flags is said to lack the role
//! a name is not known       it is asked for, and the request is sent again: named.rs
//! else                      it is the client's own
//! ```

use std::sync::Arc;

use crate::gateway::calls::{Cluster, error_of};
use crate::gateway::failure::Failure;
use crate::gateway::link::Link;
use crate::wire::auth::{AuthRefusal, AuthRequest, Denial, auth_request};
use crate::wire::error::{Advice, Error as WireError};

use super::identity::Who;
use super::login::{Login, LoginError};

/// What a node thinks of the gateway itself.
enum Standing {
    /// It may act for others.
    Root,
    /// It has logged in as a user who may not.
    NotRoot,
    /// It has not logged in, or not any more.
    Nobody,
}

impl Who {
    /// What it hears where the gateway has no login of its own and so nobody is known: whoever has
    /// a token has it from a time before, and is to log in again.
    pub(in crate::gateway) fn hears(&self, failure: Failure) -> Failure {
        let Failure::Refused(WireError::Denied { .. }) = failure else { return failure };
        match self {
            Who::Bearer(_) => denied(Denial::LoginEnded),
            Who::Named(_) => Failure::NoUser,
            Who::Nobody => denied(Denial::NoUser),
            Who::Gateway => failure,
        }
    }
}

impl Cluster {
    /// A request was denied, which had been sent when the link had logged in so often. Whether that
    /// was for want of something that the gateway has seen to, and it may be sent again.
    pub(in crate::gateway) async fn may_ask_again(
        &self,
        link: &Link,
        logins: u64,
        who: &Who,
        why: Denial,
    ) -> Result<bool, Failure> {
        let Some(own) = self.identity.own() else {
            let refused = denied(why);
            let heard = who.hears(refused.clone());
            return if heard == refused { Ok(false) } else { Err(heard) };
        };
        match (why, who) {
            (Denial::NotPermitted, Who::Gateway)
            | (Denial::NotPermitted | Denial::NoUser | Denial::LoginEnded, Who::Nobody) => {
                return Ok(false);
            }
            (Denial::NoUser, Who::Gateway | Who::Bearer(_) | Who::Named(_))
            | (Denial::LoginEnded, Who::Gateway) => {}
            // Its own right or login, or ours.
            (Denial::NotPermitted | Denial::LoginEnded, Who::Bearer(_) | Who::Named(_)) => {
                match standing(link).await {
                    Ok(Standing::Root) if link.logins() == logins => {
                        return match (why, who) {
                            (Denial::LoginEnded, Who::Named(name)) => {
                                self.find_named(link, &own, name).await
                            }
                            (
                                Denial::NotPermitted | Denial::NoUser | Denial::LoginEnded,
                                Who::Gateway | Who::Nobody | Who::Bearer(_) | Who::Named(_),
                            ) => Ok(false),
                        };
                    }
                    Ok(Standing::NotRoot) if link.is_logged_in_by(&own) => {
                        return Err(who.hears(self.lacks_the_role(&own)));
                    }
                    Ok(Standing::Root | Standing::NotRoot | Standing::Nobody) => {}
                    Err(_) => return Ok(true),
                }
            }
        }
        self.log_in(link, logins, &own).await.map_err(|why| who.hears(why))?;
        Ok(true)
    }

    /// Logs in again, or finds that it is worth trying again later.
    pub(super) async fn log_in(
        &self,
        link: &Link,
        logins: u64,
        own: &Arc<Login>,
    ) -> Result<(), Failure> {
        match link.log_in(own, logins).await {
            Ok(true) => match standing(link).await {
                Ok(Standing::NotRoot) => Err(self.lacks_the_role(own)),
                Ok(Standing::Root | Standing::Nobody) | Err(_) => {
                    self.identity.is_well();
                    Ok(())
                }
            },
            Ok(false) | Err(LoginError::NotNeeded | LoginError::Lost) => Ok(()),
            Err(LoginError::Refused(why)) if why.advice() == Advice::AskAgain => Ok(()),
            Err(why) => {
                self.identity.complain(own, &why);
                let wrong = WireError::Auth { why: AuthRefusal::AuthFailed };
                if !self.identity.is_given
                    && matches!(&why, LoginError::Refused(it) if *it == wrong)
                {
                    self.identity.forget(own);
                    return Err(denied(Denial::LoginEnded));
                }
                Err(Failure::NoLogin)
            }
        }
    }

    /// The gateway's user may not act for others, by what a node knows. Unless the flags name it,
    /// another one may take its place.
    pub(super) fn lacks_the_role(&self, own: &Arc<Login>) -> Failure {
        self.identity.complain(own, "the user has not the role root");
        if self.identity.is_given {
            return Failure::NoRole;
        }
        self.identity.forget(own);
        denied(Denial::LoginEnded)
    }
}

pub(super) fn denied(why: Denial) -> Failure {
    Failure::Refused(WireError::Denied { why })
}

/// Asks what only `root` may ask, while rights count.
async fn standing(link: &Link) -> Result<Standing, LoginError> {
    let encode = |out: &mut Vec<u8>, id| auth_request(out, id, &AuthRequest::Status);
    match error_of(&link.ask_ourselves(encode).await?) {
        Some(WireError::Denied { why: Denial::NoUser | Denial::LoginEnded }) => {
            Ok(Standing::Nobody)
        }
        Some(WireError::Denied { why: Denial::NotPermitted }) => Ok(Standing::NotRoot),
        Some(why) if why.advice() == Advice::AskAgain => Err(LoginError::Refused(why)),
        Some(_) | None => Ok(Standing::Root),
    }
}
