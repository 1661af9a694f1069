//! Who changes objects, lists them, compacts, and puts events.

use super::store::{Listed, Store, Written};
use super::{CONTROLLERS, Size, Told};
use crate::asking::{Scene, pause};
use crate::dice::Dice;
use crate::history::checker::Row;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Namespaces of pods.
pub(super) const NAMESPACES: u64 = 5;
/// Heartbeats of nodes: few objects that everybody updates.
pub(super) const HEARTBEATS: u64 = 4;

/// Between two requests.
const PACE: Duration = Duration::from_millis(3);
/// Attempts to update an object that others update, too.
const ATTEMPTS: u32 = 4;
/// What an object has beside its writer's mark: a small pod. Bytes.
const FILLING: usize = 300;
/// Events that share a lease, and how long it lives. Seconds.
const EVENTS_PER_LEASE: u32 = 20;
const EVENT_TTL: i64 = 2;
/// Kubernetes compacts every five minutes what was new five minutes ago.
const COMPACTION: Duration = Duration::from_millis(1500);

pub(super) fn pod(nth: u64) -> String {
    format!("/registry/pods/ns-{}/pod-{nth:05}", nth % NAMESPACES)
}

pub(super) fn heartbeat(nth: u64) -> String {
    format!("/registry/leases/kube-node-lease/node-{nth}")
}

/// One that creates, updates and deletes.
pub(super) struct Controller {
    store: Store,
    dice: Dice,
    size: Size,
    /// What it believes each object's last change to be.
    known: BTreeMap<String, u64>,
    /// Its share of the pods: every so manieth, from this one on.
    share: u64,
    mark: String,
    written: u64,
}

impl Controller {
    pub(super) fn new(scene: Arc<Scene>, server: usize, nth: usize, size: Size) -> Controller {
        let seed = u64::try_from(100 * server + nth).unwrap();
        let share = u64::try_from(nth).unwrap();
        Controller {
            store: Store::new(scene, server, nth),
            dice: Dice(size.seed ^ (seed << 32)),
            size,
            known: BTreeMap::new(),
            share,
            mark: format!("{server}.{nth}"),
            written: 0,
        }
    }

    /// Creates its share of the pods, and updates any of them from then on.
    pub(super) async fn work(mut self) -> Told {
        // The other API server wants to create the same: one of the two does.
        for nth in (self.share..self.size.pods).step_by(CONTROLLERS) {
            if self.store.scene.is_to_stop() {
                break;
            }
            let (key, value) = (pod(nth), self.value());
            if let Written::Done(revision) = self.store.create(key.as_bytes(), value).await {
                self.known.insert(key, revision);
            }
        }
        while !self.store.scene.is_to_stop() {
            let key = self.choose();
            if self.dice.once_in(12) {
                self.delete(&key).await
            } else {
                self.update(&key).await
            }
            pause(PACE).await;
        }
        self.store.ended()
    }

    fn choose(&mut self) -> String {
        if self.dice.once_in(4) {
            return heartbeat(self.dice.below(HEARTBEATS));
        }
        // The smaller of two draws: low numbers are hot.
        pod(self.dice.below(self.size.pods).min(self.dice.below(self.size.pods)))
    }

    fn value(&mut self) -> Vec<u8> {
        self.written += 1;
        let mut value = format!("{}/{}/", self.mark, self.written).into_bytes();
        value.resize(value.len() + FILLING, b'.');
        value
    }

    /// What it believes, or a look.
    async fn last_change(&mut self, key: &str) -> Option<u64> {
        if let Some(known) = self.known.get(key) {
            return Some(*known);
        }
        let found = self.store.get(key.as_bytes()).await?;
        Some(found.map_or(0, |row| row.mod_revision))
    }

    async fn update(&mut self, key: &str) {
        let Some(mut expected) = self.last_change(key).await else { return };
        for _ in 0..ATTEMPTS {
            let value = self.value();
            match self.store.put(key.as_bytes(), value, expected).await {
                Written::Done(revision) => {
                    self.known.insert(key.to_owned(), revision);
                    return;
                }
                Written::Conflict(row) => expected = row.map_or(0, |row| row.mod_revision),
                Written::Unsure => break,
            }
        }
        self.known.remove(key);
    }

    async fn delete(&mut self, key: &str) {
        let expected = self.last_change(key).await.unwrap_or(0);
        if expected > 0
            && let Written::Conflict(Some(Row { mod_revision, .. })) =
                self.store.delete(key.as_bytes(), expected).await
        {
            self.store.delete(key.as_bytes(), mod_revision).await;
        }
        self.known.remove(key);
    }
}

/// One that lists everything, in pages.
pub(super) struct Lister {
    store: Store,
    size: Size,
}

impl Lister {
    pub(super) fn new(scene: Arc<Scene>, server: usize, size: Size) -> Lister {
        Lister { store: Store::new(scene, server, 50), size }
    }

    pub(super) async fn work(mut self) -> Told {
        let (mut whole, limit) = (0, (self.size.pods / 10).max(1));
        while !self.store.scene.is_to_stop() {
            self.store.count("/registry/pods/").await;
            for (prefix, limit) in [("/registry/pods/", limit), ("/registry/", 500)] {
                if let Some(Listed { rows, .. }) = self.store.list(prefix, limit).await {
                    let ordered = rows.windows(2).all(|pair| pair[0].key < pair[1].key);
                    assert!(ordered, "a key comes once, in order");
                    whole += 1;
                }
            }
            pause(20 * PACE).await;
        }
        assert!(whole > 0, "no list was answered");
        self.store.ended()
    }
}

/// Compacts when it is this API server's turn.
pub(super) async fn compact_in_turns(scene: Arc<Scene>, server: usize) -> Told {
    let mut store = Store::new(scene, server, 51);
    let (mut version, mut revision) = (0, 0);
    while !store.scene.is_to_stop() {
        if let Some(known) = store.compact(version, revision).await {
            (version, revision) = known;
        }
        pause(COMPACTION).await;
    }
    store.ended()
}

/// Puts events, many under one lease; none of which is kept alive.
pub(super) async fn put_events(scene: Arc<Scene>, server: usize) -> Told {
    let mut store = Store::new(scene, server, 52);
    let (mut lease, mut used, mut events) = (None, 0, Vec::new());
    let mut nth: u64 = 0;
    while !store.scene.is_to_stop() {
        let granted = match lease {
            Some(granted) if used < EVENTS_PER_LEASE => Some(granted),
            Some(_) | None => {
                used = 0;
                store.grant(EVENT_TTL).await
            }
        };
        lease = granted;
        if let Some(granted) = granted {
            nth += 1;
            used += 1;
            let key = format!("/registry/events/default/{server}.{nth:06}").into_bytes();
            match store.create_event(&key, &[b'e'; FILLING], granted).await {
                Ok(Some(revision)) => events.push((key, revision)),
                Ok(None) => {}
                Err(()) => lease = None,
            }
        }
        pause(5 * PACE).await;
    }
    Told { events, ..store.ended() }
}
