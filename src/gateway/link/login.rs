//! A link that logs in: by the connection that everybody uses, while everybody uses it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::gateway::auth::{Login, LoginError};
use crate::wire::auth::{auth_request, login_proof_request};

use super::Link;

impl Link {
    /// How often it has logged in.
    pub(in crate::gateway) fn logins(&self) -> u64 {
        self.shared.logins.load(Ordering::Relaxed)
    }

    /// Logs in, unless that was done since `logins` was asked for: of all who are refused at once
    /// the first one does it, and the others wait for that. Answers whether this one has done it.
    pub(in crate::gateway) async fn log_in(
        &self,
        login: &Arc<Login>,
        logins: u64,
    ) -> Result<bool, LoginError> {
        let _turn = self.shared.logging_in.lock().await;
        if self.logins() != logins {
            return Ok(false);
        }
        let nonce = login.begin()?;
        let asked = login.request(&nonce);
        let challenge = self.ask_ourselves(|out, id| auth_request(out, id, &asked)).await?;
        let proving = login.prove(&nonce, &challenge).await?;
        let done =
            self.ask_ourselves(|out, id| login_proof_request(out, id, proving.proof())).await?;
        let credential = login.finish(&proving, &done)?;
        let before = self.login().replace(Arc::clone(login));
        drop(before);
        self.shared.logins.fetch_add(1, Ordering::Relaxed);
        log::info!(
            "logged in node={} user={:?} credential={}",
            self.node(),
            login.user(),
            credential.0
        );
        Ok(true)
    }

    fn login(&self) -> MutexGuard<'_, Option<Arc<Login>>> {
        self.shared.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has logged in last by this.
    pub(in crate::gateway) fn is_logged_in_by(&self, login: &Arc<Login>) -> bool {
        self.login().as_ref().is_some_and(|it| Arc::ptr_eq(it, login))
    }

    /// Asks as whoever has logged in, past those that wait for room.
    pub(in crate::gateway) async fn ask_ourselves(
        &self,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<Bytes, LoginError> {
        let answer = self.ask_at_once(encode).map_err(|_| LoginError::Lost)?;
        answer.await.map_err(|_| LoginError::Lost)
    }
}
