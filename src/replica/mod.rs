//! THE NODE: rules, record and meaning composed; bytes in, bytes out; no sockets, no clock, no
//! threads.
//!
//! The shell (`server/`, or a simulator) calls the inputs below in any order and then
//! [`Node::advance`] once a turn. Everything that a turn wants from the world is collected as data:
//! bytes per connection, [`wal::Job`]s for the sync thread, background jobs, dials, connections to
//! close, the next deadline.
//!
//! | file | what |
//! |---|---|
//! | `connections`, `outbox` | who is at the other end, what waits to be sent, bounds |
//! | `handshake`, `peers`, `bootstrap` | who may speak, when to dial, how a cluster begins |
//! | `boots` | two processes that run as one server |
//! | `admission` | frames to requests; what is refused at the door |
//! | `identity` | who asks, and whether it may |
//! | `complaints` | what was said of other servers lately, and is not said again |
//! | `pending`, `reads` | who waits for which entry, for which read round |
//! | `ranges` | answers of any size, a slice a turn |
//! | `drive` | the core's output against the log and the peers, in the one legal order |
//! | `apply` | committed entries to the store to replies |
//! | `compaction`, `quota` | when the history is given up; when a store takes nothing more |
//! | `leases`, `lease_clock` | what a leader says of leases; when they are due |
//! | `administration`, `handover` | changes of the members; transfers, SIGTERM |
//! | `snapshots`, `install`, `catch_up` | snapshots of our own, on their way in, on their way out |
//! | `watches` | who hears of changes, and up to where |
//! | `state_hashes`, `reload` | whether all members have the same state; what who has not does |
//! | `saves`, `restore` | snapshots for clients; a new cluster's directory out of one |
//! | `force` | the last survivor of an old cluster begins a new one |
//! | `entry`, `status` | the configuration's stored form; what the node says of itself |
//! | `wake` | when the node wants another turn |
//! | `turn_times` | how long the loop's turns take |
//! | `inspect` | what it holds, for whoever checks it from outside |
//!
//! Invariants kept here: a request refused with certainty never reached the log (`admission`); an
//! answer to a put follows its commit and apply (`apply`); nothing leaves that a lost page could
//! take back (`raft` tags it, `drive` hands receipts only for finished jobs).

mod administration;
mod admission;
mod apply;
mod boots;
mod bootstrap;
mod catch_up;
mod compaction;
mod complaints;
mod connections;
mod drive;
mod entry;
mod exchange;
mod force;
mod handover;
mod handshake;
mod identity;
mod inspect;
mod install;
mod lease_clock;
mod leases;
mod outbox;
mod peers;
mod pending;
mod quota;
mod ranges;
mod reads;
mod reload;
mod restore;
mod saves;
mod snapshots;
mod start;
mod state_hashes;
mod status;
mod turn_times;
mod wake;
mod watches;

pub use connections::{ConnectionId, Flow};
pub use entry::{
    ConfigurationError, Member, Membership, Standing, decode_members, encode_members, genesis_of,
};
pub use inspect::Inspection;
pub use outbox::Outbox;
pub use peers::Dial;
pub use restore::{Begun, NewMember, RestoreId, restore_member};
pub use snapshots::{SnapshotOptions, load_snapshot};

use crate::config::MemberAddress;
use crate::kv::{Store, StoreOptions};
use crate::limits::{EntryLimits, WorkingLimits};
use crate::raft::Raft;
use crate::types::{ClusterId, DiskId, Instant, LogIndex, NodeId};
use crate::wal::{
    self, BackgroundDone, BackgroundJob, Disk, Identity, Job, PieceFor, Recovered, SnapshotEvent,
    Wal,
};
use administration::Administration;
use admission::{OpenEntry, Stall};
use bootstrap::Bootstrap;
use catch_up::Transfers;
use compaction::Compaction;
use complaints::Complaints;
use connections::{Connections, Party, counts_as_client};
use entry::Memberships;
use handover::{Handover, Leaving};
use identity::Secret;
use install::Receiving;
use lease_clock::LeaseClock;
use peers::{Outbound, Peers};
use pending::Pending;
use ranges::Ranges;
use reads::Reads;
use reload::LostStates;
use saves::Saves;
use snapshots::Snapshots;
use state_hashes::StateHashes;
use std::fmt;
use std::io;
use std::sync::Arc;
use turn_times::Turns;
use watches::ClientWatches;

/// What a node is told at its start. Chance and wall time enter here, once.
#[derive(Clone)]
pub struct NodeOptions {
    /// This server.
    pub id: NodeId,
    /// The first members, this server included; if it is not, it joins a cluster that serves.
    /// After the first start the log wins.
    pub members: Vec<MemberAddress>,
    /// Which cluster the flags describe. After the first start the data directory wins.
    pub cluster_id: ClusterId,
    /// A hash of the cluster token; 0 if none was given.
    pub token_hash: u64,
    /// The name of a data directory that has none yet.
    pub disk_id_if_new: DiskId,
    /// New at every start; random.
    pub boot_nonce: u64,
    /// Seeds election timeouts, jitter, salts and the hash index.
    pub seed: u64,
    /// What logins are asked to sign is made of: random, and nobody may know it.
    pub login_secret: [u8; 32],
    /// Milliseconds since 1970 at the start: for people who look at a data directory.
    pub unix_ms: u64,
    /// Drawn from [t, 2t). Nanoseconds.
    pub election_timeout_ns: u64,
    /// Nanoseconds.
    pub heartbeat_ns: u64,
    /// Bytes.
    pub segment_bytes: u64,
    /// Bytes.
    pub history_bytes_max: u64,
    /// Superseded versions older than this are given up; `None`: however old they are. Nanoseconds.
    pub history_age_ns: Option<u64>,
    /// What the live keys may take before writes that grow them are refused; `None`: no bound. See
    /// [`Store::logical_bytes`].
    pub quota_bytes: Option<u64>,
    /// Clients at once; more are told so and turned away. Peers come on top.
    pub clients_max: usize,
    /// Windows, batches and caches.
    pub working: WorkingLimits,
    /// By how much the servers' clocks may differ in rate, in millionths, if that is known: then
    /// leases answer reads.
    pub lease_drift_ppm: Option<u32>,
    /// How snapshots are made and sent.
    pub snapshots: SnapshotOptions,
    /// What becomes of a data directory that is part of a cluster.
    pub start: Start,
}

/// What becomes of a data directory that is part of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Start {
    /// It goes on as it was.
    #[default]
    AsItIs,
    /// The other members are lost: it becomes the only one of a new cluster.
    NewCluster,
}

/// Why a node must stop at once. No retry: what the disk holds after a failed sync is unknown.
#[derive(Debug)]
pub enum Fatal {
    /// Writing or syncing the log or the hard state failed.
    Disk(io::Error),
    /// A committed entry cannot be read or applied here.
    Entry {
        /// Its place.
        index: LogIndex,
        /// What is wrong.
        why: String,
    },
    /// This server must not take part in the cluster: the reason and what to do.
    Refused(String),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Disk(error) => write!(
                f,
                "cannot write the log: {error}; stopped so that nothing is acknowledged that is \
                 not durable: check the disk, then start again"
            ),
            Fatal::Entry { index, why } => write!(f, "cannot apply entry {index}: {why}"),
            Fatal::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Fatal {}

/// How far the node is in becoming a member.
#[derive(Debug)]
enum Stage {
    /// No configuration: listens to the others.
    Alone(Bootstrap),
    /// The first entry is being written.
    Founding,
    /// Takes part.
    Member(Box<Raft>),
}

/// How far the node is in ending in good order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    /// It serves.
    None,
    /// What it has in memory goes to the disk first.
    Asked,
    /// The job that notes the end is on its way.
    Staged,
    /// The disk holds everything, and says so.
    Done,
}

/// How many input bytes the node took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Bytes consumed from the front of what was offered; keep the rest.
    pub bytes: usize,
    /// Whether more is welcome.
    pub flow: Flow,
}

/// The whole node without sockets.
pub struct Node {
    options: NodeOptions,
    identity: Identity,
    boot_nonce: u64,
    genesis: u64,
    memberships: Memberships,
    /// The configuration in force has changed in this turn.
    reconfigured: bool,
    administration: Administration,
    handover: Handover,
    leaving: Option<Leaving>,
    limits: EntryLimits,
    stage: Stage,
    wal: Wal,
    store: Store,
    connections: Connections,
    secret: Secret,
    peers: Peers,
    complaints: Complaints,
    open: OpenEntry,
    pending: Pending,
    reads: Reads,
    ranges: Ranges,
    /// Restored at start, handed to the core when it is made.
    recovered: Option<Recovered>,
    jobs: drive::Jobs,
    scratch: drive::Scratch,
    stamp: apply::Stamp,
    compaction: Compaction,
    leases: LeaseClock,
    snapshots: Snapshots,
    receiving: Option<Receiving>,
    transfers: Transfers,
    saves: Saves,
    watches: ClientWatches,
    state_hashes: StateHashes,
    lost_states: LostStates,
    turns: Turns,
    /// The last turn.
    now: Instant,
    dials: Vec<Dial>,
    stall: Stall,
    more_to_apply: bool,
    farewell: Farewell,
    fatal: Option<Fatal>,
}

impl Node {
    /// Opens the data directory behind `disk` and stands ready. Blocks: start-up only.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: NodeOptions,
        now: Instant,
    ) -> Result<Node, wal::OpenError> {
        let wal_options = wal::Options {
            // What is forced must be there.
            cluster_id: Some(options.cluster_id).filter(|_| options.start == Start::AsItIs),
            token_hash: options.token_hash,
            node: options.id,
            disk_id_if_new: options.disk_id_if_new,
            boot_nonce: options.boot_nonce,
            segment_bytes: options.segment_bytes,
            salt_seed: options.seed,
            created_unix_ms: options.unix_ms,
            entry_cache_bytes: options.working.entry_cache_bytes,
        };
        let (wal, mut recovered) = wal::open(disk, &wal_options)?;
        let own = (options.id, recovered.identity.disk_id);
        let mut limits = EntryLimits::for_segment(options.segment_bytes);
        limits.entry_bytes_soft_max =
            limits.entry_bytes_soft_max.min(options.working.entry_bytes_soft_max);
        let (store, snapshots) = snapshots::restore(&mut recovered, store_options(&options))?;
        let members = start::first_members(&recovered, &snapshots, &options);
        let mut node = Node {
            identity: recovered.identity,
            boot_nonce: boots::boot_nonce(wal.hard_state_version(), options.boot_nonce),
            genesis: recovered.genesis,
            memberships: Memberships::default(),
            reconfigured: false,
            administration: Administration::default(),
            handover: Handover::default(),
            leaving: None,
            limits,
            stage: Stage::Alone(Bootstrap::new(own, members.clone())),
            wal,
            store,
            connections: Connections::default(),
            secret: Secret::new(options.login_secret),
            peers: Peers::new(&members, options.id, options.seed),
            complaints: Complaints::default(),
            open: OpenEntry::default(),
            pending: Pending::default(),
            reads: Reads::default(),
            lost_states: LostStates::new(recovered.diverged),
            ranges: Ranges::default(),
            recovered: Some(recovered),
            jobs: drive::Jobs::default(),
            scratch: drive::Scratch::default(),
            stamp: apply::Stamp::new(now),
            compaction: Compaction::default(),
            leases: LeaseClock::default(),
            snapshots,
            receiving: None,
            transfers: Transfers::default(),
            saves: Saves::default(),
            watches: ClientWatches::new(options.seed, options.working.watch_batch_bytes),
            state_hashes: StateHashes::new(options.working.state_hash_every),
            turns: Turns::default(),
            now,
            dials: Vec::new(),
            stall: Stall::new(),
            more_to_apply: false,
            farewell: Farewell::None,
            fatal: None,
            options,
        };
        node.begin(now);
        Ok(node)
    }

    /// A connection was accepted.
    pub fn on_accepted(&mut self, id: ConnectionId) {
        self.connections.open(id, Party::Stranger);
    }

    /// Where an accepted connection comes from; for people.
    pub fn set_origin(&mut self, id: ConnectionId, origin: String) {
        self.connections.set_origin(id, origin);
    }

    /// A dial has succeeded.
    pub fn on_dialed(&mut self, id: ConnectionId, peer: NodeId, now: Instant) {
        if self.peers.get(peer).is_some_and(|known| known.outbound != Outbound::Dialing) {
            return self.on_transfer_dialed(id, peer, now);
        }
        self.connections.open(id, Party::Dialed(peer));
        if self.peers.shaking(peer, id, now) {
            self.send_hello(id, peer);
        } else {
            self.connections.end(id); // it was forgotten meanwhile
        }
    }

    /// A dial has failed; it is tried again later.
    pub fn on_dial_failed(&mut self, peer: NodeId, now: Instant, why: &str) {
        // Of a transfer, or begun before the peer was forgotten and came again.
        if self.peers.get(peer).is_some_and(|known| known.outbound != Outbound::Dialing) {
            return self.on_transfer_dial_failed(peer, now);
        }
        if self.peers.get(peer).is_some_and(|peer| peer.applies) {
            // It may be about to start: tried again until its time is up.
            self.note_applicant(peer, why);
            return self.peers.lost_outbound(peer, now);
        }
        let node = self.identity.node;
        if let Some(known) = self.peers.get_mut(peer)
            && !std::mem::replace(&mut known.complained, true)
        {
            let address = &known.address;
            log::info!("cannot reach peer node={node} peer={peer} address={address} why={why}");
        }
        self.peers.lost_outbound(peer, now);
    }

    /// The socket of `id` is gone.
    pub fn on_closed(&mut self, id: ConnectionId, now: Instant) {
        let Some(party) = self.connections.close(id) else { return };
        self.watches.on_closed(id);
        self.forget_ranges_of(id);
        match party {
            Party::Stranger | Party::Client => {}
            Party::PeerIn(peer) | Party::SnapshotIn(peer) => self.peers.lost_inbound(peer, id),
            Party::Dialed(peer) => {
                if self.is_shaking(peer, id) {
                    self.note_applicant(peer, "it hung up");
                    self.peers.lost_outbound(peer, now);
                }
                self.on_transfer_closed(id, now);
            }
            Party::SnapshotOut(_) => self.on_transfer_closed(id, now),
            Party::PeerOut(peer) => self.on_peer_lost(peer, id, now),
        }
    }

    fn on_peer_lost(&mut self, peer: NodeId, id: ConnectionId, now: Instant) {
        let Some(known) = self.peers.get(peer) else { return };
        if let Outbound::Up { connection, session } = known.outbound
            && connection == id
        {
            log::info!("lost peer node={} peer={peer}", self.identity.node);
            if let Stage::Member(raft) = &mut self.stage {
                raft.disconnected(peer, session);
            }
            self.peers.lost_outbound(peer, now);
        }
    }

    /// Whether more bytes of `id` are welcome.
    pub fn flow(&self, id: ConnectionId) -> Flow {
        self.party_if_open(id).err().unwrap_or(Flow::Open)
    }

    /// Whether `id` has said who it is.
    pub fn is_established(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| match connection.party {
            Party::Stranger | Party::Dialed(_) => false,
            Party::Client
            | Party::PeerIn(_)
            | Party::PeerOut(_)
            | Party::SnapshotIn(_)
            | Party::SnapshotOut(_) => true,
        })
    }

    /// Whether a member is at the other end.
    pub fn is_peer(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| !counts_as_client(connection.party))
    }

    /// What waits for the socket of `id`.
    pub fn unsent(&self, id: ConnectionId) -> &[u8] {
        self.connections.unsent(id)
    }

    /// The kernel took `count` bytes for `id`.
    pub fn sent(&mut self, id: ConnectionId, count: usize) {
        self.connections.sent(id, count);
        self.unpark_watches(id);
    }

    /// Moves the connections that have something new to send to `into`.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionId>) {
        self.connections.take_dirty(into);
    }

    /// Moves the connections to be closed, once what they have to say was offered, to `into`.
    pub fn take_closing(&mut self, into: &mut Vec<ConnectionId>) {
        self.connections.take_closing(into);
    }

    /// The connections to be dialed now.
    pub fn take_dials(&mut self, into: &mut Vec<Dial>) {
        into.append(&mut self.dials);
    }

    /// The job for the sync thread, if one is due. Jobs run strictly one after the other.
    pub fn take_job(&mut self) -> Option<Job> {
        self.jobs.ready.take()
    }

    /// A job for the background thread, if one is due.
    pub fn take_background_job(&mut self) -> Option<BackgroundJob> {
        if self.jobs.background.is_some() { None } else { self.next_background_job() }
    }

    fn next_background_job(&mut self) -> Option<BackgroundJob> {
        let job = self.wal.background_job()?;
        self.jobs.background = Some(self.now);
        Some(job)
    }

    /// A background job has ended.
    pub fn on_background_done(&mut self, done: BackgroundDone, now: Instant) {
        self.jobs.background = None;
        let before = self.wal.shortage();
        let why = done.error().map(io::Error::to_string);
        match self.wal.background_done(done) {
            Ok(Some(event)) => self.on_snapshot_event(event, now),
            Ok(None) => {}
            Err(error) => return self.fail(Fatal::Disk(error)),
        }
        let (node, shortage) = (self.identity.node, self.wal.shortage());
        match why {
            Some(why) if shortage != before => log::warn!(
                "cannot prepare a segment, writes are refused once the log is full node={node} \
                 error={why}"
            ),
            None if shortage.is_none() && before.is_some() => {
                log::info!("prepared a segment after a shortage node={node}");
            }
            Some(_) | None => {}
        }
        if shortage.is_some() {
            // Other jobs end meanwhile, and do not put it off.
            self.jobs.retry_at = self.jobs.retry_at.min(now.after_ns(drive::SPACE_RETRY_NS));
        }
    }

    /// Asks for an end in good order: what is staged becomes durable, then the hard state notes
    /// that and how long the log is, so that the next start can tell a log that went back. Keep
    /// calling `advance` and running jobs until `has_stopped`; hand over no more bytes.
    pub fn stop(&mut self) {
        if self.farewell == Farewell::None {
            self.farewell = Farewell::Asked;
        }
    }

    /// Whether nothing is left to be written. A node that knows no configuration has promised
    /// nothing, and ends at once.
    pub fn has_stopped(&self) -> bool {
        match self.stage {
            Stage::Alone(_) => self.farewell != Farewell::None,
            Stage::Founding | Stage::Member(_) => self.farewell == Farewell::Done,
        }
    }

    fn on_snapshot_event(&mut self, event: SnapshotEvent, now: Instant) {
        match event {
            SnapshotEvent::DraftStored => self.on_draft_stored(now),
            SnapshotEvent::DraftReady { id } => self.on_draft_ready(id),
            SnapshotEvent::DraftFailed { why } => self.on_draft_failed(&why, now),
            SnapshotEvent::PartStored { id, offset } => self.on_part_stored(id, offset, now),
            SnapshotEvent::PartRead { .. } => self.on_part_read(now),
            SnapshotEvent::PartReady { id } => self.on_part_ready(id),
            SnapshotEvent::PartFailed { id, why } => self.on_part_failed(id, &why),
            SnapshotEvent::Piece { to: PieceFor::Member(to), piece } => {
                self.on_piece_read(to, piece, now);
            }
            SnapshotEvent::Piece { to: PieceFor::Client(number), piece } => {
                self.on_save_read(number, &piece.bytes, now);
            }
        }
    }

    fn store_options(&self) -> StoreOptions {
        store_options(&self.options)
    }

    /// The reason to stop, once there is one.
    pub fn fatal(&mut self) -> Option<Fatal> {
        self.fatal.take()
    }

    fn fail(&mut self, fatal: Fatal) {
        // The first reason is the cause; what follows are its consequences.
        self.fatal.get_or_insert(fatal);
    }
}

fn store_options(options: &NodeOptions) -> StoreOptions {
    StoreOptions { index_seed: options.seed, history_bytes_max: options.history_bytes_max }
}
