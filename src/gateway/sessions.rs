//! Writes as calls of client sessions: sent as often as it takes, done once. protocol.md,
//! InSession.
//!
//! A session numbers its calls and may have `SESSION_WINDOW` of them between the oldest that is not
//! answered and the newest. So that one slow call holds nobody up, and more may be in flight than
//! one window, there are several sessions, opened when those before them have no room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::SESSION_WINDOW;
use crate::types::SessionId;
use crate::wire::client::SessionCall;

/// Sessions at once: as many calls as a node reads on with.
const SESSIONS: usize = 16;

/// The sessions of this gateway.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<Vec<Session>>,
    /// Whoever holds it opens another one.
    opening: tokio::sync::Mutex<()>,
    /// A call has ended: there may be room.
    freed: Notify,
}

struct Session {
    id: SessionId,
    /// All calls up to this one have ended.
    acknowledged: u64,
    /// Of those above it, in order, whether they have.
    ended: VecDeque<bool>,
}

/// A call that is under way. It ends when this is dropped: no copy of it is sent any more.
pub(super) struct Call {
    sessions: Arc<Sessions>,
    session: SessionId,
    sequence: u64,
}

impl Session {
    fn has_room(&self) -> bool {
        u64::try_from(self.ended.len()).is_ok_and(|calls| calls < SESSION_WINDOW)
    }

    fn begin(&mut self) -> u64 {
        self.ended.push_back(false);
        self.acknowledged + u64::try_from(self.ended.len()).unwrap_or(SESSION_WINDOW)
    }

    fn end(&mut self, sequence: u64) {
        let at = usize::try_from(sequence - self.acknowledged - 1).unwrap_or(usize::MAX);
        if let Some(ended) = self.ended.get_mut(at) {
            *ended = true;
        }
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.acknowledged += 1;
        }
    }
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, Vec<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that was never made before, in the first session with room.
    pub(super) fn try_begin(self: &Arc<Sessions>) -> Option<Call> {
        let mut open = self.open();
        let session = open.iter_mut().find(|session| session.has_room())?;
        let (session, sequence) = (session.id, session.begin());
        Some(Call { sessions: Arc::clone(self), session, sequence })
    }

    /// Whether there are as many sessions as there may be.
    pub(super) fn are_all_open(&self) -> bool {
        self.open().len() >= SESSIONS
    }

    /// Waits until a call has ended.
    pub(super) async fn room(&self) {
        self.freed.notified().await;
        // There may be room for the next one who waits as well.
        if self.open().iter().any(Session::has_room) {
            self.freed.notify_one();
        }
    }

    /// The turn to open a session: one at a time.
    pub(super) async fn turn_to_open(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Adds a session that was opened.
    pub(super) fn add(&self, id: SessionId) {
        self.open().push(Session { id, acknowledged: 0, ended: VecDeque::new() });
    }
}

impl Call {
    /// What to send with the command: its number, and which calls have ended.
    pub(super) fn number(&self) -> SessionCall {
        let open = self.sessions.open();
        let session = open.iter().find(|session| session.id == self.session);
        // Of a session that is over nothing is known, and whoever is asked says so.
        let acknowledged = session.map_or(self.sequence - 1, |session| session.acknowledged);
        SessionCall { session: self.session, sequence: self.sequence, acknowledged }
    }

    /// The cluster does not know the session any more: nobody makes a call in it.
    pub(super) fn session_is_over(&self) {
        self.sessions.open().retain(|session| session.id != self.session);
        self.sessions.freed.notify_one();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut open = self.sessions.open();
        if let Some(session) = open.iter_mut().find(|session| session.id == self.session) {
            session.end(self.sequence);
        }
        drop(open);
        self.sessions.freed.notify_one();
    }
}
