//! Whom to ask: a connection to every node, and who of them leads.
//!
//! Each node has a task that keeps a link to it, and asks it every now and then how it sees itself:
//! that finds the leader, other members, how far the store is, and nodes that take connections and
//! answer nothing. While nobody is known to lead it asks often.
//!
//! What a leader does is asked of the leader, because every other way is longer. What any node does
//! is asked of the **home** node: the first of `--cluster` that has a connection and hears a
//! leader, so that a gateway beside a node asks that one.

mod tend;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::types::{ClusterId, NodeId, Revision};
use crate::wire::status::Status;

use super::link::Link;

/// From one attempt to the next.
const RECONNECT: Duration = Duration::from_millis(50);

/// How the cluster is to be reached just now. Whoever waits for something looks again when it
/// changes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Standing {
    /// Who leads, if that is known and there is a connection.
    pub(super) leader: Option<NodeId>,
    /// How many nodes have a connection.
    pub(super) connected: usize,
    /// Nobody has led for longer than elections take.
    pub(super) leaderless: bool,
}

/// Over once nobody has led for long.
pub(super) type Leaderless = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All nodes, as they are known here.
pub(super) struct Nodes {
    known: Mutex<Known>,
    standing: watch::Sender<Standing>,
    /// Looks are to be taken now.
    urgent: Notify,
    term: AtomicU64,
    revision: AtomicU64,
    home: AtomicU64,
    cluster: AtomicU64,
}

struct Known {
    nodes: Vec<Node>,
    leader: Option<NodeId>,
    /// 0 until a node has said which.
    cluster_id: ClusterId,
    leaderless: bool,
}

struct Node {
    address: String,
    /// The flags name it.
    named: bool,
    link: Option<Link>,
    /// How it saw itself when it was asked last.
    status: Option<Arc<Status>>,
}

impl Nodes {
    /// Begins to connect to these addresses, and to those that they lead to.
    pub(super) fn start(addresses: &[String]) -> Arc<Nodes> {
        let known =
            Known { nodes: Vec::new(), leader: None, cluster_id: ClusterId(0), leaderless: false };
        let nodes = Arc::new(Nodes {
            known: Mutex::new(known),
            standing: watch::Sender::default(),
            urgent: Notify::new(),
            term: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            home: AtomicU64::new(0),
            cluster: AtomicU64::new(0),
        });
        for address in addresses {
            nodes.enter(address, true);
        }
        tokio::spawn(Arc::clone(&nodes).mind_the_leader());
        nodes
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest term that was heard of.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// The highest revision that was heard of: what is new from now on is above it.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Relaxed))
    }

    /// Notes that the store is at least so far.
    pub(super) fn note_revision(&self, revision: Revision) {
        self.revision.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// The home node's number; 0 if there is none.
    pub(super) fn home_id(&self) -> u64 {
        self.home.load(Ordering::Relaxed)
    }

    /// The cluster's number, which in etcd has half as many bits.
    pub(super) fn short_cluster_id(&self) -> u64 {
        self.cluster.load(Ordering::Relaxed)
    }

    /// The cluster; 0 until a node has been reached.
    pub(super) fn cluster_id(&self) -> ClusterId {
        self.known().cluster_id
    }

    /// How the cluster is to be reached, and when that changes.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// A connection to the leader, as soon as there is one.
    pub(super) async fn leader(&self) -> Link {
        self.wait_for(Nodes::leader_now).await
    }

    /// A connection to the home node, as soon as there is one. After `attempts` in vain, to another
    /// one.
    pub(super) async fn home(&self, attempts: usize) -> Link {
        self.wait_for(|nodes| nodes.home_now(attempts)).await
    }

    async fn wait_for(&self, find: impl Fn(&Nodes) -> Option<Link>) -> Link {
        if let Some(link) = find(self) {
            return link;
        }
        // From before the next look on, so that no change is missed.
        let mut standing = self.standing.subscribe();
        loop {
            if let Some(link) = find(self) {
                return link;
            }
            // A link may be lost a moment before that is noted: then nothing is sent to it.
            let _either = timeout(RECONNECT, standing.changed()).await;
        }
    }

    /// Waits as between two attempts: until something has changed, but not for long.
    pub(super) async fn pause(&self) {
        self.pause_for(RECONNECT).await;
    }

    /// Waits until something has changed, but not for longer than this.
    pub(super) async fn pause_for(&self, pause: Duration) {
        let _either = timeout(pause, self.standing.subscribe().changed()).await;
    }

    /// Waits until nobody has led for longer than elections take.
    pub(super) fn leaderless(self: &Arc<Nodes>) -> Leaderless {
        let nodes = Arc::clone(self);
        Box::pin(async move {
            let mut standing = nodes.standing.subscribe();
            // It cannot be over: we hold the other end.
            let _over = standing.wait_for(|standing| standing.leaderless).await;
        })
    }

    /// A connection to the leader, if there is one.
    pub(super) fn leader_now(&self) -> Option<Link> {
        let known = self.known();
        known.link_to(known.leader?).cloned()
    }

    /// A connection to the home node, if there is one.
    pub(super) fn home_now(&self, attempts: usize) -> Option<Link> {
        let known = self.known();
        let hears = |node: &&Node| {
            let status = node.status.as_ref();
            node.is_connected() && status.is_some_and(|status| status.leader.is_some())
        };
        let mut usable: Vec<&Node> = known.nodes.iter().filter(hears).collect();
        if usable.is_empty() {
            usable = known.nodes.iter().filter(|node| node.is_connected()).collect();
        }
        let at = attempts.checked_rem(usable.len())?;
        usable[at].link.clone()
    }

    /// How the nodes with a connection saw themselves when they were asked last.
    pub(super) fn statuses(&self) -> Vec<Arc<Status>> {
        let known = self.known();
        let connected = known.nodes.iter().filter(|node| node.is_connected());
        connected.filter_map(|node| node.status.clone()).collect()
    }

    /// `link` leads to a node that does not lead. It may have named who does.
    pub(super) fn redirect(self: &Arc<Nodes>, link: &Link, leader: Option<(NodeId, String)>) {
        let mut known = self.known();
        match leader {
            Some((leader, address)) if leader != link.node() => {
                known.leader = Some(leader);
                let reached = known.reaches(leader);
                drop(known);
                if !reached {
                    self.enter(&address, false);
                }
            }
            Some(_) | None => {
                if known.leader == Some(link.node()) {
                    known.leader = None;
                }
                drop(known);
            }
        }
        self.tell();
    }

    /// Keeps a link to this address from now on.
    fn enter(self: &Arc<Nodes>, address: &str, named: bool) {
        let mut known = self.known();
        if known.nodes.iter().any(|node| node.address == address) {
            return;
        }
        let address = address.to_owned();
        known.nodes.push(Node { address: address.clone(), named, link: None, status: None });
        drop(known);
        tokio::spawn(Arc::clone(self).tend(address));
    }

    /// Lets everybody know how the cluster is to be reached.
    fn tell(&self) {
        let standing = self.known().standing();
        let home = self.home_now(0).map_or(0, |link| link.node().get());
        self.home.store(home, Ordering::Relaxed);
        if standing.leader.is_none() {
            self.urgent.notify_waiters();
        }
        self.standing.send_if_modified(|before| std::mem::replace(before, standing) != standing);
    }
}

#[cfg(test)]
impl Nodes {
    /// Takes it that this link leads to the leader.
    pub(super) fn take_for_leader(&self, link: &Link) {
        let (address, named) = (String::new(), true);
        let mut known = self.known();
        known.nodes.push(Node { address, named, link: Some(link.clone()), status: None });
        known.leader = Some(link.node());
    }
}

impl Known {
    fn links(&self) -> impl Iterator<Item = &Link> {
        self.nodes.iter().filter_map(|node| node.link.as_ref()).filter(|link| link.is_open())
    }

    fn link_to(&self, node: NodeId) -> Option<&Link> {
        let links = self.nodes.iter().filter_map(|node| node.link.as_ref());
        links.filter(|link| link.node() == node).find(|link| link.is_open())
    }

    fn reaches(&self, node: NodeId) -> bool {
        self.link_to(node).is_some()
    }

    fn standing(&self) -> Standing {
        let leader = self.leader.filter(|leader| self.reaches(*leader));
        Standing { leader, connected: self.links().count(), leaderless: self.leaderless }
    }
}

impl Node {
    fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_open)
    }
}
