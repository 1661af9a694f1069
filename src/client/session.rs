//! Writes as calls of a session: sent as often as it takes, done once. protocol.md, InSession.

use crate::types::{ClusterId, SessionId};
use crate::wire::client::{Command, SessionCall};
use crate::wire::error::Error as WireError;
use crate::wire::reply::ReplyBody;

use super::clock::Deadline;
use super::cluster::{Client, Intent};
use super::connection::Connection;
use super::error::Error;

/// Whether a client writes in a session.
#[derive(Debug)]
pub(super) enum Sessions {
    /// It does not.
    Never,
    /// It will: one is opened at the next write.
    Wanted,
    /// It does.
    Open(Session),
}

/// An open session. One call at a time, so each call acknowledges all before it.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    cluster_id: ClusterId,
    calls: u64,
}

impl Sessions {
    /// The cluster that knows the session.
    pub(super) fn cluster_id(&self) -> Option<ClusterId> {
        match self {
            Sessions::Never | Sessions::Wanted => None,
            Sessions::Open(session) => Some(session.cluster_id),
        }
    }

    /// A call that was never made before; `None` if there is no session to make it in.
    fn next_call(&mut self) -> Option<SessionCall> {
        match self {
            Sessions::Never | Sessions::Wanted => None,
            Sessions::Open(session) => {
                session.calls += 1;
                let (session, sequence) = (session.id, session.calls);
                Some(SessionCall { session, sequence, acknowledged: sequence - 1 })
            }
        }
    }
}

impl Client {
    /// Does a command: once if sessions are wanted, else at most once.
    pub(super) fn write<T>(
        &mut self,
        command: Command<'_>,
        take: impl Fn(ReplyBody<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        if matches!(self.sessions, Sessions::Never) {
            let send = |connection: &mut Connection| connection.command(None, command);
            return self.call(Intent::Write, deadline, send, take);
        }
        loop {
            let Some(call) = self.sessions.next_call() else {
                self.open_session(deadline)?;
                continue;
            };
            let send = |connection: &mut Connection| connection.command(Some(call), command);
            match self.call(Intent::Call, deadline, send, &take) {
                // Unused for so long that it has ended; this call was certainly not done.
                Err(Error::Refused { source: WireError::SessionExpired, .. })
                    if !deadline.has_passed() =>
                {
                    self.sessions = Sessions::Wanted;
                }
                done @ (Ok(_) | Err(_)) => return done,
            }
        }
    }

    /// Opens a session. If the answer is lost another one is opened; the first ends unused.
    fn open_session(&mut self, deadline: Deadline) -> Result<(), Error> {
        let send = |connection: &mut Connection| connection.command(None, Command::OpenSession);
        let id = self.call(Intent::Read, deadline, send, |body| {
            if let ReplyBody::OpenSession { session } = body { Some(session) } else { None }
        })?;
        let cluster_id = self.connected_cluster().expect("the answer came over a connection");
        self.sessions = Sessions::Open(Session { id, cluster_id, calls: 0 });
        Ok(())
    }
}
