//! Who a client is, as its connection has proved it: the seam between TLS and whoever decides what
//! a client may do.
//!
//! ```text
//! tls          checks a client's certificate, and takes the common name out of it
//! incoming     keeps it with the connection, as a `PeerIdentity`
//! tonic        puts a copy into the extensions of each request of the connection
//! http         notes that a call came by JSON, and leaves the name for the log
//! auth         takes the name for the user's if a request has no token, and did not come so
//! ```
//!
//! There is an identity only if the handshake has checked the certificate against
//! `--trusted-ca-file`. What a client says of itself in headers never becomes one.
//!
//! etcd does the same: there a call by JSON comes with the certificate of its own proxy, which says
//! nothing of the client. Here the client's is known, and such a call means what it means there.

use std::fmt;
use std::sync::Arc;

use tonic::Extensions;

/// Who a client is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PeerIdentity {
    common_name: Option<Arc<str>>,
    /// Whether the request came by JSON.
    by_json: bool,
}

impl PeerIdentity {
    /// A client whose certificate has this common name; `None`: it has shown none, or there is no
    /// name in it.
    pub(super) fn new(common_name: Option<String>) -> PeerIdentity {
        PeerIdentity { common_name: common_name.map(Arc::from), by_json: false }
    }

    /// The identity of the client that has made a request, whichever way it came.
    pub(super) fn of(extensions: &Extensions) -> PeerIdentity {
        extensions.get::<PeerIdentity>().cloned().unwrap_or_default()
    }

    /// Notes that a request came by JSON.
    pub(super) fn by_json(extensions: &mut Extensions) {
        if let Some(peer) = extensions.get_mut::<PeerIdentity>() {
            peer.by_json = true;
        }
    }

    /// The user whom the certificate names, if that is for it to say.
    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.common_name.as_ref().filter(|_| !self.by_json)
    }

    /// The common name of the client's certificate, never empty.
    pub(super) fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

/// For lines of the log: in quotes, because a name may hold anything.
impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.common_name() {
            Some(name) => write!(f, "{name:?}"),
            None => f.write_str("-"),
        }
    }
}
