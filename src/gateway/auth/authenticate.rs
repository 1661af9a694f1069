//! A password for a token: the gateway logs in as that user, over a connection of its own which
//! ends with that, and so the cluster judges whether the password is right.

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;

use crate::gateway::calls::{Cluster, REQUEST_TIMEOUT};
use crate::gateway::failure::{Failure, TOO_MANY_REQUESTS, known, known_auth};
use crate::gateway::link::{Line, Link};
use crate::limits::AUTH_NAME_BYTES_MAX;
use crate::types::Credential;
use crate::wire::auth::{AuthRefusal, AuthRequest, auth_request};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::reply::{ReplyBody, decode_reply};

use super::login::{Login, LoginError};
use super::token;

/// Passwords proved at once, with those that wait to be hashed: 64 take less than 3 s where one
/// takes 80 ms and two are hashed at once, so whoever waits is answered in time. Whoever comes
/// beyond that is refused at once.
const PROVED_AT_ONCE: usize = 64;

static PLACES: Semaphore = Semaphore::const_new(PROVED_AT_ONCE);

/// The token of a user whose password this is.
pub(super) async fn authenticate(
    cluster: &Cluster,
    name: &str,
    password: &str,
) -> Result<String, Status> {
    if name.len() > AUTH_NAME_BYTES_MAX {
        return Err(known(known_auth(AuthRefusal::AuthFailed)));
    }
    // Before anything is done for it: each holds a connection to a node.
    let Ok(_place) = PLACES.try_acquire() else { return Err(known(TOO_MANY_REQUESTS)) };
    let login = Login::shown(name, password);
    let proved = timeout(REQUEST_TIMEOUT, prove(cluster, login)).await;
    let credential = proved.unwrap_or(Err(Failure::TimedOut))?;
    let key = timeout(REQUEST_TIMEOUT, key(cluster)).await;
    let key = key.unwrap_or(Err(Failure::TimedOut))?;
    Ok(token::token(&key, cluster.nodes.cluster_id(), credential))
}

/// Logs in once, at any node that can tell. A user who may act for others is remembered.
async fn prove(cluster: &Cluster, login: Login) -> Result<Credential, Failure> {
    let mut attempts = 0;
    loop {
        let home = cluster.nodes.home(attempts).await;
        attempts += 1;
        match log_in(&home, &login).await {
            Ok((credential, may_act)) => {
                if may_act {
                    cluster.identity.adopt(login);
                }
                return Ok(credential);
            }
            Err(LoginError::NotNeeded) => return Err(refused(AuthRefusal::AuthNotEnabled)),
            Err(LoginError::Refused(why)) if why.advice() != Advice::AskAgain => {
                return Err(Failure::Refused(why));
            }
            Err(LoginError::Impostor) => return Err(refused(AuthRefusal::AuthFailed)),
            Err(why) => {
                log::debug!("cannot ask for a login node={} why={why}", home.node());
                cluster.nodes.pause().await;
            }
        }
    }
}

/// Whose credential it is, and whether that user has the role `root`: nobody else may ask whether
/// rights count.
async fn log_in(home: &Link, login: &Login) -> Result<(Credential, bool), LoginError> {
    let mut line = Line::open(home.address(), home.welcome().cluster_id).await?;
    let credential = line.log_in(login).await?;
    line.say(|out, id| auth_request(out, id, &AuthRequest::Status)).await?;
    let answer = line.next().await?;
    let body = decode_reply(&answer).map_err(|_| LoginError::Odd)?.body;
    if let ReplyBody::Error(why) = body {
        let later = why.advice() == Advice::AskAgain;
        return if later { Err(LoginError::Refused(why)) } else { Ok((credential, false)) };
    }
    let ReplyBody::AuthRead(found) = body else { return Err(LoginError::Odd) };
    // Everybody may ask where rights do not count, by now.
    Ok((credential, found.enabled))
}

/// What signs tokens. It may take a login of the gateway's own to know it.
async fn key(cluster: &Cluster) -> Result<[u8; 32], Failure> {
    loop {
        let own = cluster.identity.own().ok_or(Failure::NoUser)?;
        if let Some(key) = cluster.identity.token_key() {
            return Ok(key);
        }
        let home = cluster.nodes.home(0).await;
        cluster.log_in(&home, home.logins(), &own).await?;
        if cluster.identity.token_key().is_none() {
            cluster.nodes.pause().await;
        }
    }
}

fn refused(why: AuthRefusal) -> Failure {
    Failure::Refused(WireError::Auth { why })
}
