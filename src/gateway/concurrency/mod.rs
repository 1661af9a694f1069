//! The Lock and Election services: etcd's recipe for both, done here instead of by each client.
//!
//! Whoever wants a lock, or to lead, puts a key under its name, and waits until no older one is
//! there. The order is that of the keys' creation:
//!
//! ```text
//! name/            before all keys of those who wait
//! name/2f3c…       one of them, by its lease in hexadecimal; it goes when the lease does
//! ```
//!
//! Clients of etcd that follow the recipe themselves stand in the same queue.
mod caller;
mod election;
mod lock;
mod observe;
mod place;

use std::sync::Arc;

use super::calls::Cluster;
use super::kv::KvService;
use super::lease::LeaseService;
use super::watch::WatchService;

pub(super) use election::ElectionService;
pub(super) use lock::LockService;

/// What the recipe needs.
pub(super) struct Stores {
    kv: KvService,
    leases: LeaseService,
    watches: WatchService,
}

impl Stores {
    /// In front of this cluster. `watches` is what etcd's clients watch by, too.
    pub(super) fn new(cluster: &Arc<Cluster>, watches: WatchService) -> Arc<Stores> {
        let shared = || Arc::clone(cluster);
        Arc::new(Stores { kv: KvService(shared()), leases: LeaseService(shared()), watches })
    }
}
