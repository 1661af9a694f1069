//! The first frame in each direction: who is there, of which cluster, with which data directory.

use super::boots::Boot;
use super::bootstrap::{Introduction, Verdict};
use super::connections::{ConnectionId, Party};
use super::peers::Outbound;
use super::{Fatal, Node, Stage};
use crate::types::{DiskId, Instant, NodeId};
use crate::wire::error::Error;
use crate::wire::hello::{
    Hello, HelloReply, PeerHello, Purpose, Sender, VERSION, Welcome, decode_hello,
    decode_hello_reply, encode_hello, encode_hello_reply,
};
use std::fmt;

/// Why a server may not speak to us as the member it says it is.
#[derive(Clone, Debug)]
enum Objection {
    /// The address is another server's.
    NotMe { ours: NodeId, asked: NodeId },
    /// It says that it has our number.
    OurNumber { ours: NodeId },
    /// The configuration does not name it.
    NoMember { node: NodeId },
    /// A committed configuration has left it out.
    Removed { node: NodeId },
    /// Its first entry is not ours.
    OtherBootstrap { ours: NodeId, node: NodeId },
    /// The configuration names another data directory for it.
    OtherDisk { node: NodeId, disk_id: DiskId },
    /// Another process that started later on the same data directory, or on a copy of it, has
    /// spoken.
    Cloned { node: NodeId, origin: String, newer: String },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objection::NotMe { ours, asked } => {
                write!(f, "this is server {ours}, not {asked}: correct its address")
            }
            Objection::OurNumber { ours } => {
                write!(f, "this is server {ours}: another one needs a number of its own")
            }
            Objection::NoMember { node } => write!(
                f,
                "server {node} is not a member of this cluster: `raftctl member add \
                 {}=HOST:PORT` makes it one",
                node.get()
            ),
            Objection::Removed { node } => {
                write!(f, "server {node} is no member, and its number is not given again")
            }
            Objection::OtherBootstrap { ours, node } => write!(
                f,
                "server {node} was bootstrapped with other members or data directories than \
                 server {ours}: one of the two must start over with an empty data directory"
            ),
            Objection::OtherDisk { node, disk_id } => write!(
                f,
                "server {node} has data directory {disk_id}, which this cluster does not know: \
                 replace the member with `raftctl member replace {} NEW_ID=HOST:PORT`",
                node.get()
            ),
            Objection::Cloned { node, origin, newer } => write!(
                f,
                "two processes run as server {node}, this one at {origin} and one that started \
                 later at {newer}: one of them runs on a copy or an older state of the data \
                 directory: stop both, empty the directory and replace the member with \
                 `raftctl member replace {} NEW_ID=HOST:PORT`",
                node.get()
            ),
        }
    }
}

impl Node {
    /// Introduces us on a connection that we dialed.
    pub(super) fn send_hello(&mut self, id: ConnectionId, peer: NodeId) {
        let (genesis, members) = self.standing();
        let purpose =
            if self.transfers.is_shaking(id) { Purpose::Snapshot } else { Purpose::Replication };
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            cluster_id: self.identity.cluster_id,
            sender: Sender::Peer(PeerHello {
                node: self.identity.node,
                to: peer,
                disk_id: self.identity.disk_id,
                boot_nonce: self.boot_nonce,
                genesis,
                members,
                purpose,
            }),
            auth: Vec::new(),
        };
        self.connections.write(id, |out| encode_hello(out, &hello));
    }

    /// What we say of our configuration: the hash of the first entry, and whom the newest names.
    fn standing(&self) -> (u64, Vec<(NodeId, DiskId)>) {
        match self.stage {
            Stage::Alone(_) | Stage::Founding => (0, Vec::new()),
            Stage::Member(_) => {
                let members = self.memberships.newest().iter();
                let members = members.map(|(member, _)| (member.id, member.disk_id));
                (self.genesis, members.collect())
            }
        }
    }

    /// Answers a stranger's first frame.
    pub(super) fn on_hello(&mut self, id: ConnectionId, body: &[u8], now: Instant) {
        let hello = match decode_hello(body) {
            Ok(hello) => hello,
            Err(error) => {
                let why = error.to_string().into();
                return self.turn_away(id, Error::BadRequest { why });
            }
        };
        if hello.version_min > VERSION || hello.version_max < VERSION {
            let ours = VERSION;
            let unsupported = Error::Unsupported { version_min: ours, version_max: ours };
            return self.turn_away(id, unsupported);
        }
        let ours = self.identity.cluster_id;
        let any = matches!(hello.sender, Sender::Client) && hello.cluster_id.0 == 0;
        if !any && hello.cluster_id != ours {
            if let Sender::Peer(peer) = &hello.sender {
                let why = format!("it belongs to cluster {}", hello.cluster_id);
                self.log_refusal(peer, &why, now);
            }
            return self.turn_away(id, Error::WrongCluster { ours });
        }
        match hello.sender {
            Sender::Client => {
                if self.connections.clients() >= self.options.clients_max {
                    return self.turn_away(id, Error::TOO_MANY_CLIENTS);
                }
                self.connections.set_party(id, Party::Client);
                self.welcome(id);
            }
            Sender::Peer(peer) => self.on_peer_hello(id, peer, now),
        }
    }

    fn on_peer_hello(&mut self, id: ConnectionId, hello: PeerHello, now: Instant) {
        if let Err(why) = self.check_peer(&hello) {
            self.log_refusal(&hello, &why.to_string(), now);
            let error = match why {
                Objection::Removed { node } => Error::Removed { node },
                Objection::NotMe { ours, .. } => Error::WrongNode { ours },
                Objection::OurNumber { .. }
                | Objection::NoMember { .. }
                | Objection::OtherBootstrap { .. }
                | Objection::OtherDisk { .. }
                | Objection::Cloned { .. } => Error::Refused { why: why.to_string().into() },
            };
            return self.turn_away(id, error);
        }
        let node = hello.node;
        if self.is_wiped(&hello) {
            // Our members, shown to it, make it refuse to start; the real one keeps its place.
            self.welcome(id);
            return self.connections.end(id);
        }

        // One that our configuration does not name yet gets an address when it does.
        self.peers.enter(node, "");
        let origin = self.connections.get(id).map_or_else(String::new, |it| it.origin.clone());
        let boot = Boot { disk_id: hello.disk_id, nonce: hello.boot_nonce, origin };
        if let Err(why) = self.check_boot(node, &boot, now) {
            return self.turn_away(id, Error::Refused { why: why.to_string().into() });
        }
        self.leave_older_boot(node, boot.nonce, now);
        self.complaints.forget(node);
        if hello.purpose == Purpose::Snapshot {
            return self.welcome_snapshot(id, node);
        }
        self.connections.set_party(id, Party::PeerIn(node));
        let peer = self.peers.get_mut(node).expect("just entered");
        if let Some(older) = peer.inbound.replace(id) {
            self.connections.end(older);
        }
        self.peers.heard_from(node, now);
        let said = Introduction {
            node,
            disk_id: hello.disk_id,
            genesis: hello.genesis,
            members: hello.members,
        };
        // First, because the welcome says who we are since.
        self.on_introduction(&said, now);
        self.welcome(id);
    }

    /// Whether the process that speaks for `peer` is the newest that we know of.
    fn check_boot(&mut self, peer: NodeId, boot: &Boot, now: Instant) -> Result<(), Objection> {
        let Some(known) = self.peers.get_mut(peer) else { return Ok(()) };
        let connected = known.inbound.is_some() || matches!(known.outbound, Outbound::Up { .. });
        let is_news = known.boots.is_news(boot);
        let Err(newer) = known.boots.hear(boot, connected, now) else {
            if is_news {
                // That state is gone. What it makes anew it says as soon as it is connected.
                self.state_hashes.forget(peer);
            }
            return Ok(());
        };
        let tell = known.boots.must_tell(boot.nonce, now);
        let (origin, newer) = (boot.origin.clone(), newer.origin);
        let why = Objection::Cloned { node: peer, origin, newer };
        let level = if tell { log::Level::Error } else { log::Level::Debug };
        log::log!(level, "refused a clone node={} peer={peer} why={why}", self.identity.node);
        Err(why)
    }

    /// A newer start has spoken: what answers us as an older one has ended, or shall not be heard.
    fn leave_older_boot(&mut self, peer: NodeId, nonce: u64, now: Instant) {
        self.leave_older_receiver(peer, nonce, now);
        if let Some(known) = self.peers.get(peer)
            && let Outbound::Up { connection, .. } = known.outbound
            && known.answers_as < nonce
        {
            self.connections.end(connection);
        }
    }

    /// Whether it speaks for a member from another, empty data directory.
    fn is_wiped(&self, hello: &PeerHello) -> bool {
        let known = self.memberships.newest().get(hello.node).map(|member| member.disk_id);
        matches!(self.stage, Stage::Member(_))
            && hello.genesis == 0
            && known.is_some_and(|known| known != hello.disk_id)
    }

    fn log_refusal(&mut self, hello: &PeerHello, why: &str, now: Instant) {
        // We have dialed ourselves: said where the answer arrives.
        if hello.node == self.identity.node && hello.boot_nonce == self.boot_nonce {
            return;
        }
        if self.complaints.is_news(hello.node, why, now) {
            log::warn!("refused a peer node={} from={} why={why}", self.identity.node, hello.node);
        }
    }

    /// A member brings a snapshot. A newer connection of it takes the place of an older one.
    fn welcome_snapshot(&mut self, id: ConnectionId, node: NodeId) {
        self.connections.set_party(id, Party::SnapshotIn(node));
        let peer = self.peers.get_mut(node).expect("just entered");
        if let Some(older) = peer.snapshot_inbound.replace(id) {
            self.connections.end(older);
        }
        self.welcome(id);
    }

    /// The one place that decides who may speak as a member.
    fn check_peer(&self, hello: &PeerHello) -> Result<(), Objection> {
        let ours = self.identity.node;
        if hello.to != ours {
            return Err(Objection::NotMe { ours, asked: hello.to });
        }
        let node = hello.node;
        if node == ours {
            return Err(Objection::OurNumber { ours });
        }
        let known = self.memberships.newest().get(node).map(|member| member.disk_id);
        match &self.stage {
            // Whoever serves may make us a member.
            Stage::Alone(bootstrap) if bootstrap.joins() => Ok(()),
            Stage::Alone(_) | Stage::Founding if self.peers.get(node).is_some() => Ok(()),
            Stage::Alone(_) | Stage::Founding => Err(Objection::NoMember { node }),
            Stage::Member(_) if known.is_some() => {
                self.check_standing(known, node, hello.disk_id, hello.genesis)
            }
            Stage::Member(raft) => {
                let committed = self.memberships.at_or_below(raft.commit_index());
                if committed.has_removed(node) {
                    return Err(Objection::Removed { node });
                }
                // Our log may be behind: whoever shows a configuration with us in it may be a
                // member that we have not heard of yet, or one that we think leaves.
                let own = (ours, self.identity.disk_id);
                let names_us = hello.members.contains(&own) || committed.get(node).is_some();
                if names_us && hello.genesis != 0 {
                    self.check_standing(known, node, hello.disk_id, hello.genesis)
                } else {
                    Err(Objection::NoMember { node })
                }
            }
        }
    }

    fn check_standing(
        &self,
        known: Option<DiskId>,
        node: NodeId,
        disk_id: DiskId,
        genesis: u64,
    ) -> Result<(), Objection> {
        let member = matches!(self.stage, Stage::Member(_));
        // A server without a configuration is let in: if it was wiped, it refuses to start when it
        // hears our members.
        if !member || genesis == 0 {
            Ok(())
        } else if genesis != self.genesis {
            Err(Objection::OtherBootstrap { ours: self.identity.node, node })
        } else if known.is_some_and(|known| known != disk_id) {
            Err(Objection::OtherDisk { node, disk_id })
        } else {
            Ok(())
        }
    }

    fn welcome(&mut self, id: ConnectionId) {
        let (genesis, members) = self.standing();
        let welcome = Welcome {
            version: VERSION,
            cluster_id: self.identity.cluster_id,
            node: self.identity.node,
            disk_id: self.identity.disk_id,
            boot_nonce: self.boot_nonce,
            genesis,
            members,
            request_bytes_max: u64::try_from(self.limits.request_bytes_max).expect("a bound fits"),
            feature_level: 1,
        };
        let reply = HelloReply::Welcome(welcome);
        self.connections.write(id, |out| encode_hello_reply(out, &reply));
    }

    fn turn_away(&mut self, id: ConnectionId, error: Error) {
        let reply = HelloReply::Refused(error);
        self.connections.write(id, |out| encode_hello_reply(out, &reply));
        self.connections.end(id);
    }

    /// The answer to our hello.
    pub(super) fn on_hello_reply(
        &mut self,
        id: ConnectionId,
        peer: NodeId,
        body: &[u8],
        now: Instant,
    ) {
        let welcome = match decode_hello_reply(body) {
            Ok(HelloReply::Welcome(welcome)) => welcome,
            Ok(HelloReply::Refused(error)) => return self.on_refused(id, peer, &error, now),
            Err(error) => {
                if self.complaints.is_news(peer, &error.to_string(), now) {
                    log::warn!(
                        "peer speaks another protocol node={} peer={peer} error={error}",
                        self.identity.node
                    );
                }
                return self.connections.end(id);
            }
        };
        if self.peers.get(peer).is_some_and(|peer| peer.applies) {
            self.connections.end(id);
            return self.on_applicant_welcome(peer, &welcome, now);
        }
        if !self.is_shaking(peer, id) && !self.transfers.is_shaking(id) {
            return self.connections.end(id); // nobody waits for it any more
        }
        let known = self.peers.get(peer).and_then(|peer| peer.disk_id);
        let checked = if welcome.node != peer || welcome.cluster_id != self.identity.cluster_id {
            Err(Objection::NotMe { ours: welcome.node, asked: peer })
        } else {
            self.check_standing(known, peer, welcome.disk_id, welcome.genesis)
        };
        if let Err(why) = checked {
            if self.complaints.is_news(peer, &why.to_string(), now) {
                log::warn!("left a peer node={} peer={peer} why={why}", self.identity.node);
            }
            return self.connections.end(id);
        }
        let origin = self.peers.get(peer).map_or_else(String::new, |it| it.address.clone());
        let boot = Boot { disk_id: welcome.disk_id, nonce: welcome.boot_nonce, origin };
        if self.check_boot(peer, &boot, now).is_err() {
            return self.connections.end(id);
        }
        self.complaints.forget(peer);
        if self.transfers.is_shaking(id) {
            return self.on_transfer_up(id, peer, boot.nonce, now);
        }
        self.leave_older_receiver(peer, boot.nonce, now);
        self.connections.set_party(id, Party::PeerOut(peer));
        let session = self.peers.up(peer, id, boot.nonce);
        // A server without a configuration has no log to replicate to; once it has one it shakes
        // hands anew.
        if let Stage::Member(raft) = &mut self.stage
            && welcome.genesis != 0
        {
            raft.connected(peer, session);
        }
        self.say_state_hashes(id);
        let said = Introduction {
            node: peer,
            disk_id: welcome.disk_id,
            genesis: welcome.genesis,
            members: welcome.members,
        };
        self.on_introduction(&said, now);
    }

    fn on_refused(&mut self, id: ConnectionId, peer: NodeId, error: &Error, now: Instant) {
        self.connections.end(id);
        let why = if let Error::WrongNode { ours } = *error {
            Objection::NotMe { ours, asked: peer }.to_string()
        } else {
            error.to_string()
        };
        if self.peers.get(peer).is_some_and(|peer| peer.applies) {
            return self.on_applicant_refused(peer, &why);
        }
        if matches!(error, Error::Removed { node } if *node == self.identity.node) {
            return self.fail(Fatal::Refused(self.removed()));
        }
        let alone = matches!(self.stage, Stage::Alone(_));
        if alone && matches!(error, Error::WrongCluster { .. }) {
            self.fail(Fatal::Refused(format!(
                "server {} answers for another cluster ({error}): make --peers and \
                 --cluster-token equal on all servers, and --restore-id when they are restored",
                peer.get(),
            )));
            return;
        }
        if !self.complaints.is_news(peer, &why, now) {
            return;
        }
        let node = self.identity.node;
        if matches!(*error, Error::WrongNode { ours } if ours == node) {
            let address = self.peers.get(peer).map_or("", |peer| &peer.address);
            log::error!(
                "the address of a peer leads to this server itself node={node} peer={peer} \
                 address={address} advice=correct --peers, or replace the member once the cluster \
                 is founded"
            );
        } else {
            log::warn!("peer refused us node={node} peer={peer} why={why:?}");
        }
    }

    fn on_introduction(&mut self, said: &Introduction, now: Instant) {
        let Stage::Alone(bootstrap) = &mut self.stage else { return };
        match bootstrap.hear(said) {
            Verdict::Wait => {}
            Verdict::Found(members) => self.found(members),
            Verdict::Join(genesis) => self.enroll(genesis, said.node, now),
            Verdict::Refuse(why) => self.fail(Fatal::Refused(why)),
        }
    }

    /// Whether a dialed connection still shakes hands.
    pub(super) fn is_shaking(&self, peer: NodeId, id: ConnectionId) -> bool {
        let Some(peer) = self.peers.get(peer) else { return false };
        matches!(peer.outbound, Outbound::Shaking { connection, .. } if connection == id)
    }

    /// Ends the handshakes that nobody answers.
    pub(super) fn end_overdue_handshakes(&mut self, now: Instant) {
        while let Some(connection) = self.peers.give_up_handshake(now) {
            self.connections.end(connection);
        }
    }
}
