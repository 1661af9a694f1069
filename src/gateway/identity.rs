//! Who a client is, as its connection has proved it: the seam between TLS and whoever decides what
//! a client may do.
//!
//! ```text
//! tls          checks a client's certificate, and takes the common name out of it
//! incoming     keeps it with the connection, as a `PeerIdentity`
//! tonic        puts a copy into the extensions of each request of the connection
//! http         leaves it there: a call by JSON has the identity of the client that made it
//! a service    asks `PeerIdentity::of(request.extensions())`
//! ```
//!
//! There is an identity only if the handshake has checked the certificate against
//! `--trusted-ca-file`. What a client says of itself in headers never becomes one.
//!
//! etcd takes the common name as the user's name if a request has no token, and never in a request
//! by JSON, because its own proxy makes those with its own certificate. Here such a request comes
//! with its client's certificate, so that the name is right there as well.

use std::fmt;
use std::sync::Arc;

use tonic::Extensions;

/// Who a client is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PeerIdentity {
    common_name: Option<Arc<str>>,
}

impl PeerIdentity {
    /// A client whose certificate has this common name; `None`: it has shown none, or there is no
    /// name in it.
    pub(super) fn new(common_name: Option<String>) -> PeerIdentity {
        PeerIdentity { common_name: common_name.map(Arc::from) }
    }

    /// The identity of the client that has made a request, whichever way it came.
    pub(super) fn of(extensions: &Extensions) -> PeerIdentity {
        extensions.get::<PeerIdentity>().cloned().unwrap_or_default()
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
