//! TLS for clients: the files, what is made of them, and that they are read again when they change.
//!
//! ```text
//! files    three files in PEM into what a handshake needs, and what is wrong with them
//! name     the common name of a client's certificate
//! ```
//!
//! Who connects is met with what the files say then. What they say is read again at SIGHUP, and
//! when they have changed, which is looked at every second or so; connections that there are go on
//! as they began. Files that are wrong change nothing but the log: what was read before stays in
//! use. A change is taken up once the files have been the same at two looks, because a certificate
//! and its key are hardly ever written in the same moment, and a SIGHUP is for whoever knows that
//! they are whole.
//!
//! Why not tonic's own TLS: it keeps the first configuration for ever, and any number of handshakes
//! that do not come to an end. Both are made of rustls.
mod files;
mod name;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use super::identity::PeerIdentity;
use super::options::TlsFiles;
use crate::program::whole_story;

pub use files::TlsError;

/// From one look at the files to the next.
const LOOKS_APART: Duration = Duration::from_secs(1);

/// What clients are met with.
pub(super) struct Tls {
    files: TlsFiles,
    /// As the files were before they were read for the first time.
    first: Stamps,
    current: Mutex<Arc<ServerConfig>>,
}

/// What tells a file from the one that was there before: its device and number, its size, and when
/// it was written, in seconds and nanoseconds. `None`: it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

type Stamps = [Stamp; 3];

impl Tls {
    /// Reads the files.
    pub(super) fn load(files: &TlsFiles) -> Result<Arc<Tls>, TlsError> {
        let first = stamps(files);
        let current = Mutex::new(files::read(files)?);
        Ok(Arc::new(Tls { files: files.clone(), first, current }))
    }

    /// Whether clients have to show certificates.
    pub(super) fn asks_for_certificates(&self) -> bool {
        self.files.trusted_ca.is_some()
    }

    /// What the next connection is met with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current()))
    }

    fn current(&self) -> MutexGuard<'_, Arc<ServerConfig>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again whenever `hangups` come, and when they have changed.
    pub(super) async fn keep_fresh(self: Arc<Tls>, mut hangups: Signal) {
        let mut changes = Changes::from(self.first);
        loop {
            match timeout(LOOKS_APART, hangups.recv()).await {
                Ok(Some(())) => {
                    // Whatever is changed from here on is seen at the next looks.
                    changes = Changes::from(stamps(&self.files));
                    self.reload("SIGHUP");
                }
                // No signal can come any more: the program ends.
                Ok(None) => return,
                Err(_) => {
                    if changes.are_settled(stamps(&self.files)) {
                        self.reload("change");
                    }
                }
            }
        }
    }

    fn reload(&self, why: &str) {
        match files::read(&self.files) {
            Ok(fresh) => {
                *self.current() = fresh;
                log::info!("read the TLS files again at={why}");
            }
            Err(wrong) => {
                let wrong = whole_story(&wrong);
                log::warn!("the TLS files are refused, the old ones serve on at={why} why={wrong}");
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let TlsFiles { cert, key, trusted_ca } = files;
    [stamp(cert), stamp(key), trusted_ca.as_deref().and_then(stamp)]
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Finds changes that have come to rest.
struct Changes<S> {
    /// When they were read last, and when they were looked at last.
    read: S,
    seen: S,
}

impl<S: PartialEq + Clone> Changes<S> {
    fn from(now: S) -> Changes<S> {
        Changes { read: now.clone(), seen: now }
    }

    /// Whether they are to be read: they are not what was read, and have been so at the look before
    /// already.
    fn are_settled(&mut self, now: S) -> bool {
        let settled = now != self.read && now == self.seen;
        self.seen = now;
        if settled {
            self.read = self.seen.clone();
        }
        settled
    }
}

/// Who has made this connection. A certificate that is here has been checked.
pub(super) fn identity(connection: &ServerConnection) -> PeerIdentity {
    let certificates = connection.peer_certificates().unwrap_or_default();
    PeerIdentity::new(certificates.first().and_then(|first| name::common_name(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_up_once_it_has_come_to_rest() {
        let mut changes = Changes::from(1);
        for (now, settled) in
            [(1, false), (2, false), (2, true), (2, false), (3, false), (4, false), (4, true)]
        {
            assert_eq!(changes.are_settled(now), settled, "{now}");
        }
        // What comes back to what was read is no change.
        assert!(!changes.are_settled(5) && !changes.are_settled(4) && !changes.are_settled(4));
    }
}
