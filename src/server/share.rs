//! How the descriptors of the process are shared out: the log and the process come first, then
//! peers, then clients.

use crate::limits;

/// Descriptors that are no connections: three standard ones, the lock, two files of hard state, the
/// segment in use, two spares and one in the making, each with its directory for a moment; the
/// poll, the waker, the signals, the listener; a connection that is about to be turned away; the
/// resolver's. About 25, and the first closed segments.
const FILES: usize = 64;

/// One descriptor in so many is no connection: each closed segment of the log keeps one.
const FILES_OF: usize = 4;

/// Sockets beyond the clients' bound: for peers, which must get in however many clients there are,
/// for whoever dials them, and for strangers until they have said who they are. A client among
/// them is turned away by the node.
const SPARE_SOCKETS: usize = 4 * limits::MEMBERS_MAX + 256;

/// Fewer sockets than this serve nobody: two per peer of a large cluster, and some clients.
const SOCKETS_MIN: usize = 32;

/// Who may have how many sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketShare {
    /// Clients at once.
    pub clients_max: usize,
    /// All sockets at once.
    pub sockets_max: usize,
}

impl SocketShare {
    /// The share that `descriptors` allow, for at most `clients_wanted`. `Err`: how many
    /// descriptors a server needs at least.
    pub fn of(descriptors: usize, clients_wanted: usize) -> Result<SocketShare, usize> {
        let left = descriptors - FILES.max(descriptors / FILES_OF).min(descriptors);
        if left < SOCKETS_MIN {
            return Err(FILES + SOCKETS_MIN);
        }
        let sockets_max = left.min(clients_wanted.saturating_add(SPARE_SOCKETS));
        // With few descriptors clients leave half of the sockets to peers and strangers.
        let clients_max = clients_wanted.min(sockets_max - SPARE_SOCKETS.min(sockets_max / 2));
        Ok(SocketShare { clients_max, sockets_max })
    }

    /// How many descriptors `clients` need.
    pub fn wanted(clients: usize) -> usize {
        let sockets = clients.saturating_add(SPARE_SOCKETS);
        sockets.saturating_add(FILES.max(sockets / (FILES_OF - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_sockets_and_peers_before_clients() {
        let share = |descriptors, clients| {
            let share = SocketShare::of(descriptors, clients)?;
            Ok((share.clients_max, share.sockets_max))
        };
        assert_eq!(share(usize::MAX, 8192), Ok((8192, 8572)));
        assert_eq!(share(SocketShare::wanted(8192), 8192), Ok((8192, 8572)));
        assert_eq!(share(SocketShare::wanted(8192) - 1, 8192), Ok((8191, 8571)));
        assert_eq!(share(SocketShare::wanted(1), 1), Ok((1, 381)));
        assert_eq!(share(1024, 8192), Ok((388, 768)));
        assert_eq!(share(128, 8192), Ok((32, 64)));
        assert_eq!(share(96, 1), Ok((1, 32)));
        assert_eq!(share(95, 1), Err(96));
    }
}
