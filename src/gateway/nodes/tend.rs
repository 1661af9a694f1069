//! The tasks that keep links to the nodes and find out who leads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use crate::gateway::link::{Link, LinkError};
use crate::gateway::pause::pause;
use crate::types::Term;
use crate::wire::client::status_request;
use crate::wire::reply::{ReplyBody, decode_reply};
use crate::wire::status::Status;

use super::Nodes;

/// From one look at a node to the next; and while nobody is known to lead: less than an election.
const PROBE: Duration = Duration::from_millis(500);
const PROBE_LEADERLESS: Duration = Duration::from_millis(20);

/// A node that has not answered for so long is cut off, or stopped in mid-air: whoever waits for it
/// asks another one.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// A node that hears no leader at so many looks in a row, while another node does, is cut off from
/// the others: what watches there would wait for ever.
const DEAF_LOOKS_MAX: u32 = 3;

/// Longest time for a connection and its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// So many attempts in vain, and a node is given up that neither the flags name nor a node that can
/// be asked: it has left.
const ATTEMPTS_MAX: u32 = 20;

/// Without a leader for so long, who asked to hear of it hears of it: three election timeouts.
const LEADERLESS_AFTER: Duration = Duration::from_secs(1);

impl Nodes {
    /// Keeps a link to a node for as long as it is known.
    pub(super) async fn tend(self: Arc<Nodes>, address: String) {
        let mut attempts = 0;
        while attempts < ATTEMPTS_MAX || self.is_wanted(&address) {
            match timeout(CONNECT_TIMEOUT, Link::open(&address, self.cluster_id())).await {
                Ok(Ok(link)) => {
                    log::info!("connected node={} address={address}", link.node());
                    attempts = 0;
                    let why = self.keep(&link).await;
                    log::warn!("connection lost node={} address={address} why={why}", link.node());
                    link.close();
                    self.forget(&link);
                }
                Ok(Err(why)) => complain(attempts, &address, &why),
                Err(_) => complain(attempts, &address, &"it does not answer"),
            }
            attempts = attempts.saturating_add(1);
            self.pause().await;
        }
        self.known().nodes.retain(|node| node.address != address);
        log::info!("given up address={address}");
    }

    /// Whether the flags name it, or a node does that can be asked.
    fn is_wanted(&self, address: &str) -> bool {
        self.known().nodes.iter().any(|node| {
            let mut peers = node.status.iter().flat_map(|status| &status.peers);
            node.named && node.address == address || peers.any(|peer| peer.address == address)
        })
    }

    /// Looks at a node again and again, until it is lost. Answers why it is.
    async fn keep(self: &Arc<Nodes>, link: &Link) -> LinkError {
        let mut deaf_looks = 0;
        loop {
            let Ok(answer) = link.ask_at_once(status_request) else { return LinkError::Closed };
            match timeout(SILENCE_MAX, answer).await {
                Ok(Ok(body)) => match decode_reply(&body).map(|reply| reply.body) {
                    Ok(ReplyBody::Status(status)) => {
                        let hears = status.leader.is_some();
                        self.note(link, status);
                        let is_deaf = !hears && self.leader_now().is_some();
                        deaf_looks = if is_deaf { deaf_looks + 1 } else { 0 };
                    }
                    Ok(ReplyBody::Error(why)) => return LinkError::Refused(why),
                    Ok(_) => return LinkError::Closed,
                    Err(why) => return LinkError::Reply(why),
                },
                Ok(Err(_)) => return LinkError::Closed,
                Err(_) => return LinkError::Silent,
            }
            if deaf_looks >= DEAF_LOOKS_MAX && link.has_watches() {
                return LinkError::CutOff;
            }
            let leaderless = self.known().standing().leader.is_none();
            let interval = if leaderless { PROBE_LEADERLESS } else { PROBE };
            tokio::select! {
                () = link.gone() => return LinkError::Closed,
                () = self.urgent.notified(), if !leaderless => {}
                _ = pause(interval) => {}
            }
        }
    }

    /// Takes what a node says of itself.
    fn note(self: &Arc<Nodes>, link: &Link, status: Box<Status>) {
        let status = Arc::new(*status);
        self.note_revision(status.revision);
        let before = Term::new(self.term.fetch_max(status.term.get(), Ordering::Relaxed));
        let mut known = self.known();
        known.cluster_id = link.welcome().cluster_id;
        let [short @ .., _, _, _, _, _, _, _, _] = known.cluster_id.0.to_be_bytes();
        self.cluster.store(u64::from_be_bytes(short), Ordering::Relaxed);
        if let Some(node) = known.nodes.iter_mut().find(|node| node.address == link.address()) {
            node.link = Some(link.clone());
            node.status = Some(Arc::clone(&status));
        }
        if status.role == "leader" && status.term >= before {
            known.leader = Some(status.node);
        } else if known.leader == Some(status.node) {
            known.leader = None;
        }
        if status.term >= before && known.leader.is_none() {
            known.leader = status.leader.filter(|leader| *leader != status.node);
        }
        let stranger =
            |address: &&String| !known.nodes.iter().any(|node| node.address == **address);
        let peers = status.peers.iter().filter(|peer| !known.reaches(peer.node));
        let strangers: Vec<String> =
            peers.map(|peer| &peer.address).filter(stranger).cloned().collect();
        drop(known);
        for address in strangers {
            self.enter(&address, false);
        }
        self.tell();
    }

    fn forget(&self, link: &Link) {
        let mut known = self.known();
        for node in &mut known.nodes {
            if node.link.as_ref().is_some_and(|it| it.is(link)) {
                (node.link, node.status) = (None, None);
            }
        }
        if known.leader == Some(link.node()) {
            known.leader = None;
        }
        drop(known);
        self.tell();
    }

    /// Notices that nobody leads.
    pub(super) async fn mind_the_leader(self: Arc<Nodes>) {
        let mut standing = self.standing.subscribe();
        loop {
            if standing.wait_for(|standing| standing.leader.is_none()).await.is_err() {
                return;
            }
            let led = standing.wait_for(|standing| standing.leader.is_some());
            if timeout(LEADERLESS_AFTER, led).await.is_ok() {
                continue;
            }
            log::warn!("no leader for={LEADERLESS_AFTER:?}");
            self.known().leaderless = true;
            self.tell();
            if standing.wait_for(|standing| standing.leader.is_some()).await.is_err() {
                return;
            }
            self.known().leaderless = false;
            self.tell();
        }
    }
}

/// Says why a node is not reached: once, not at every attempt.
fn complain(attempts: u32, address: &str, why: &impl fmt::Display) {
    if attempts == 0 {
        log::warn!("cannot connect address={address} why={why}");
    } else {
        log::debug!("cannot connect address={address} why={why}");
    }
}
