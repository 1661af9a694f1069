//! From the data directory to a running core: taking up an old log, or writing the first entry of
//! a new one.

use super::bootstrap::Verdict;
use super::entry::{
    ConfigurationError, Member, Membership, Memberships, encode_members, genesis_of,
};
use super::peers::Peers;
use super::snapshots::{Snapshots, Worth};
use super::{Fatal, Node, NodeOptions, Stage, Start};
use crate::config::MemberAddress;
use crate::raft::{Configuration, Raft, Restored, Settings, Voters};
use crate::types::{EntryKind, HardState, Instant, LogIndex, LogPosition, NodeId, Term, Vote};
use crate::wal;

impl Node {
    /// Takes up where the data directory left off.
    pub(super) fn begin(&mut self, now: Instant) {
        let recovered = self.recovered.take().expect("begin is called once, by open");
        say(self.identity.node, &recovered);
        let written = recovered.last != LogPosition::ZERO && !self.snapshots.unfounded;
        let founded = recovered.genesis != 0 && written;
        match self.options.start {
            Start::AsItIs if founded => return self.resume(recovered, now),
            Start::AsItIs => {}
            Start::NewCluster if founded => return self.force(recovered, now),
            Start::NewCluster => {
                let why = "the data directory never was part of a cluster: take \
                           --force-new-cluster away, and it becomes part of one as usual";
                return self.fail(Fatal::Refused(why.to_owned()));
            }
        }
        self.recovered = Some(recovered);
        let Stage::Alone(bootstrap) = &self.stage else { return };
        if let Verdict::Found(members) = bootstrap.start() {
            self.found(members);
        }
    }

    /// Writes the first entry: the first of all, or behind the snapshot of which a new cluster is
    /// made. All first members write the same bytes, so no election is needed for it.
    pub(super) fn found(&mut self, members: Vec<Member>) {
        let payload = encode_members(&members);
        self.genesis = genesis_of(&payload);
        let before = self.wal.last();
        let term = before.term.max(Term::BOOTSTRAP);
        let position = LogPosition::new(term, before.index.next());
        let restored = self.recovered.as_ref().and_then(first_membership);
        let first = (position.index, Membership::bootstrap(&members));
        self.memberships = Memberships::new(restored.into_iter().chain([first]).collect());
        self.snapshots.worth = Worth::foreign_if(self.snapshots.unfounded);
        // Who took part before with an empty log may have promised something since.
        let promised = self.recovered.as_ref().map_or(HardState::default(), |it| it.hard_state);
        let none_in_it = HardState { term, vote: Vote::None };
        let hard_state = if promised.term < term { none_in_it } else { promised };
        self.write_first(position, hard_state, &payload);
    }

    /// Writes the configuration with which a new cluster begins; `founded` goes on from there.
    pub(super) fn write_first(
        &mut self,
        position: LogPosition,
        hard_state: HardState,
        payload: &[u8],
    ) {
        let bytes = u32::try_from(payload.len()).expect("a configuration is small");
        let recovered = self.recovered.as_mut().expect("only a start writes a first entry");
        recovered.hard_state = hard_state;
        recovered.runs.push((position.index, position.term));
        recovered.sizes.push(bytes);
        self.wal.set_hard_state(hard_state, self.genesis);
        self.wal.append(position, EntryKind::Configuration, payload);
        let seq = self.next_job();
        self.stage = Stage::Founding;
        self.jobs.ready = self.wal.begin_job(seq, LogIndex::ZERO);
        assert!(self.jobs.ready.is_some(), "there is an entry to write");
        self.jobs.in_flight = true;
    }

    /// The first entry is durable: take part. Everyone shakes hands anew, now that we have a
    /// configuration.
    pub(super) fn founded(&mut self, now: Instant) {
        let recovered = self.recovered.take().expect("write_first left it");
        log::info!(
            "bootstrapped node={} cluster={} members={}",
            self.identity.node,
            self.identity.cluster_id,
            self.memberships.newest().iter().count()
        );
        self.take_part(recovered, now);
        for id in self.peers.iter().flat_map(|peer| peer.connections()) {
            self.connections.end(id);
        }
    }

    /// Takes part with an empty log: a member has shown a configuration that names this data
    /// directory. Until the first entry has come, nobody is known but that member, `introducer`;
    /// and since this server is no voter of that, it only listens.
    pub(super) fn enroll(&mut self, genesis: u64, introducer: NodeId, now: Instant) {
        let recovered = self.recovered.take().expect("begin kept it for whoever joins");
        self.genesis = genesis;
        self.snapshots.worth = Worth::foreign_if(self.snapshots.unfounded);
        let introducer = Voters::new(vec![introducer]).expect("one is not none");
        let restored = Restored {
            hard_state: recovered.hard_state,
            base: recovered.base,
            log: Vec::new(),
            sizes: Vec::new(),
            commit_index: recovered.base.index,
            configurations: vec![(recovered.base.index, Configuration::of_voters(introducer))],
        };
        log::info!("joining node={} cluster={}", self.identity.node, self.identity.cluster_id);
        // What we dialed, we dialed as nobody's member.
        for id in self.peers.iter().filter_map(|peer| peer.dialed()) {
            self.connections.end(id);
        }
        self.start_raft(restored, now);
    }

    pub(super) fn resume(&mut self, recovered: wal::Recovered, now: Instant) {
        if let Err(fatal) = self.take_memberships(&recovered) {
            return self.fail(fatal);
        }
        self.peers = Peers::new(&[], self.identity.node, self.options.seed);
        self.take_part(recovered, now);
    }

    /// With the log that the data directory holds.
    fn take_part(&mut self, recovered: wal::Recovered, now: Instant) {
        let restored = Restored {
            hard_state: recovered.hard_state,
            base: recovered.base,
            log: recovered.runs,
            sizes: recovered.sizes,
            commit_index: recovered.commit_index,
            configurations: self.configurations(),
        };
        self.start_raft(restored, now);
    }

    /// Reads the configurations that the log and its snapshot hold.
    pub(super) fn take_memberships(&mut self, recovered: &wal::Recovered) -> Result<(), Fatal> {
        let mut stack = Vec::new();
        for (index, payload) in &recovered.configurations {
            let unreadable = |error: ConfigurationError| {
                let why = error.to_string();
                Fatal::Entry { index: *index, why }
            };
            stack.push((*index, Membership::decode(payload).map_err(unreadable)?));
        }
        assert!(!stack.is_empty(), "the first entry of a bootstrapped log is a configuration");
        self.memberships = Memberships::new(stack);
        Ok(())
    }

    fn configurations(&self) -> Vec<(LogIndex, Configuration)> {
        let of = |(index, it): &(LogIndex, Membership)| (*index, it.configuration());
        self.memberships.iter().map(of).collect()
    }

    fn start_raft(&mut self, restored: Restored, now: Instant) {
        self.wal.set_forced(self.options.start == Start::NewCluster);
        let bytes = |bytes: usize| u64::try_from(bytes).expect("a bound fits");
        let working = &self.options.working;
        let settings = Settings {
            id: self.identity.node,
            election_timeout_ns: self.options.election_timeout_ns,
            heartbeat_ns: self.options.heartbeat_ns,
            seed: self.options.seed,
            in_flight_messages_max: working.in_flight_messages_max,
            in_flight_bytes_max: bytes(working.in_flight_bytes_max),
            append_bytes_max: bytes(working.append_bytes_max),
            append_entries_max: working.append_entries_max,
            uncommitted_bytes_max: bytes(working.uncommitted_bytes_max),
            lease_drift_ppm: self.options.lease_drift_ppm,
        };
        self.stage = Stage::Member(Box::new(Raft::new(settings, restored, now)));
        self.follow_members(now);
    }
}

/// Whose addresses a server without a configuration asks: what its flags say, or what was said when
/// its directory was restored.
pub(super) fn first_members(
    recovered: &wal::Recovered,
    snapshots: &Snapshots,
    options: &NodeOptions,
) -> Vec<MemberAddress> {
    match first_membership(recovered).filter(|_| snapshots.unfounded) {
        Some((_, membership)) => membership.iter().map(|(member, _)| member.address()).collect(),
        None => options.members.clone(),
    }
}

/// The configuration of a directory that was restored and has no other.
fn first_membership(recovered: &wal::Recovered) -> Option<(LogIndex, Membership)> {
    let (index, payload) = recovered.configurations.first()?;
    Membership::decode(payload).ok().map(|membership| (*index, membership))
}

/// One line of what the data directory held, and the alarms that it gives.
fn say(node: NodeId, recovered: &wal::Recovered) {
    let report = &recovered.report;
    let (last, commit) = (recovered.last, recovered.commit_index);
    log::info!(
        "recovered node={node} term={} last={last} commit={commit} records={} segments={} \
         spares={} clean={}",
        recovered.hard_state.term,
        report.records,
        report.segments,
        report.spares,
        report.clean,
    );
    if let Some((segment, offset)) = report.torn_at {
        log::info!("cut a torn tail node={node} segment={segment} offset={offset}");
    }
    if report.harmless > 0 {
        log::warn!("found damage that held nothing node={node} places={}", report.harmless);
    }
    if report.hard_state_stale {
        log::error!("the disk lost a write of the hard state node={node}: check the disk");
    }
}
