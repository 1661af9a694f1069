//! One core with a disk of positions, for tests: what a node does around `Raft`, less sockets and
//! payloads.
//!
//! Its disk takes jobs as the real one does: hard state first, then the log. Everything that leaves
//! is held against the disk at that moment: an answer must never promise what a power loss could
//! take back.

use raftd::raft::message::{AppendOutcome, EntryMeta, Message};
use raftd::raft::{
    Body, Change, ChangeError, Configuration, Install, LogFate, LogOp, Notice, ProposeError, Raft,
    ReadReady, Restored, Settings, Voters,
};
use raftd::types::{
    EntryKind, HardState, Instant, JobSeq, LogIndex, LogPosition, NodeId, SyncReceipt, Term, Vote,
};

pub(super) const TIMEOUT_NS: u64 = 300_000_000;
pub(super) const HEARTBEAT_NS: u64 = 60_000_000;
pub(super) const ROOM: u64 = 1 << 40;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) meta: EntryMeta,
    /// Stands for the payload: unique, so that two entries at one position can be told apart.
    pub(super) value: u64,
    /// What a configuration entry holds. Kept for ever: tests are short.
    pub(super) configuration: Option<&'static Configuration>,
}

impl Entry {
    pub(super) fn of(meta: EntryMeta, value: u64) -> Entry {
        Entry { meta, value, configuration: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
    pub(super) entries: Vec<Entry>,
}

/// Keeps entries behind its base too, so that a test can look at them; the core does not see them.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) base: LogPosition,
    pub(super) entries: Vec<Entry>,
    pub(super) commit_index: LogIndex,
}

#[derive(Clone, Debug)]
enum Write {
    HardState(HardState),
    Truncate(LogIndex),
    Append(Entry),
    /// A snapshot of these entries takes the place of the log.
    Install(Vec<Entry>),
    /// The log begins behind this entry.
    Compact(LogPosition),
}

pub(super) struct Server {
    pub(super) id: NodeId,
    pub(super) raft: Raft,
    /// The log as the core thinks it is, synced or not.
    pub(super) log: Vec<Entry>,
    pub(super) disk: Disk,
    pub(super) sent: Vec<Packet>,
    pub(super) reads: Vec<ReadReady>,
    pub(super) notices: Vec<Notice>,
    pub(super) room: u64,
    staged: Vec<Write>,
    job: Option<(JobSeq, Vec<Write>, LogIndex)>,
    seq: u64,
    /// The last moment it heard of: when its next job begins.
    pub(super) now: Instant,
}

pub(super) fn id(number: u64) -> NodeId {
    NodeId::new(number).expect("not zero")
}

pub(super) fn at(index: u64) -> LogIndex {
    LogIndex::new(index)
}

pub(super) fn pos(index: u64, term: u64) -> LogPosition {
    LogPosition::new(Term::new(term), at(index))
}

pub(super) fn meta(term: u64) -> EntryMeta {
    EntryMeta { term: Term::new(term), kind: EntryKind::Commands, bytes: 10 }
}

pub(super) fn settings(number: u64) -> Settings {
    Settings {
        id: id(number),
        election_timeout_ns: TIMEOUT_NS,
        heartbeat_ns: HEARTBEAT_NS,
        seed: number,
        in_flight_messages_max: 8,
        in_flight_bytes_max: 1000,
        append_bytes_max: 500,
        append_entries_max: 20,
        uncommitted_bytes_max: 2000,
        lease_drift_ppm: None,
    }
}

/// A disk whose log has an entry of each of `terms`; the first is the bootstrap configuration's, of
/// term 1.
pub(super) fn disk(terms: &[u64]) -> Disk {
    let term = Term::new(*terms.last().expect("the bootstrap's entry"));
    let entries = terms.iter().map(|term| Entry::of(meta(*term), *term)).collect();
    let hard_state = HardState { term, vote: Vote::None };
    Disk { hard_state, base: LogPosition::ZERO, entries, commit_index: at(0) }
}

/// The disk of a server that is about to join.
pub(super) fn empty_disk() -> Disk {
    let hard_state = HardState::default();
    Disk { hard_state, base: LogPosition::ZERO, entries: Vec::new(), commit_index: at(0) }
}

pub(super) fn length(entries: &[Entry]) -> LogIndex {
    at(u64::try_from(entries.len()).expect("small"))
}

pub(super) fn upto(entries: &[Entry], index: LogIndex) -> &[Entry] {
    &entries[..usize::try_from(index.get()).expect("small")]
}

impl Server {
    pub(super) fn start(settings: Settings, voters: u64, disk: Disk, now: Instant) -> Server {
        let voters = Voters::new((1..=voters).map(id).collect()).expect("sound");
        let mut runs: Vec<(LogIndex, Term)> = Vec::new();
        let behind = upto(&disk.entries, disk.base.index).len();
        for (entry, index) in disk.entries.iter().zip(1..).skip(behind) {
            match runs.last_mut() {
                Some(run) if run.1 == entry.meta.term => run.0 = at(index),
                Some(_) | None => runs.push((at(index), entry.meta.term)),
            }
        }
        let held = disk.entries.iter().zip(1..).filter_map(|(entry, index)| {
            entry.configuration.map(|configuration| (at(index), configuration.clone()))
        });
        // A server that is about to join knows nobody: any configuration without it will do.
        let base = length(&disk.entries).min(at(1));
        let mut configurations = vec![(base, Configuration::of_voters(voters))];
        configurations.extend(held);
        let restored = Restored {
            hard_state: disk.hard_state,
            base: disk.base,
            log: runs,
            sizes: disk.entries[behind..].iter().map(|entry| entry.meta.bytes).collect(),
            commit_index: disk.commit_index.max(disk.base.index),
            configurations,
        };
        Server {
            id: settings.id,
            raft: Raft::new(settings, restored, now),
            log: disk.entries.clone(),
            disk,
            sent: Vec::new(),
            reads: Vec::new(),
            notices: Vec::new(),
            room: ROOM,
            staged: Vec::new(),
            job: None,
            seq: 0,
            now,
        }
    }

    /// Server `number` of `voters`, with a synced log of these terms.
    pub(super) fn new(number: u64, voters: u64, terms: &[u64]) -> Server {
        Server::start(settings(number), voters, disk(terms), Instant::ZERO)
    }

    pub(super) fn step(&mut self, now: Instant, packet: &Packet) {
        self.raft.step(now, packet.from, &packet.message, self.room);
        self.drain(&packet.entries);
    }

    /// The log begins behind `index`: a snapshot that is durable stands for what is before.
    pub(super) fn compact(&mut self, index: LogIndex) {
        self.raft.compact(index);
        self.staged.push(Write::Compact(self.raft.base()));
    }

    /// A snapshot of `entries`, all that the cluster has committed up to there, is ready.
    pub(super) fn install(&mut self, now: Instant, entries: &[Entry]) -> Install {
        let last = entries.last().expect("a snapshot stands for something");
        let position = LogPosition::new(last.meta.term, length(entries));
        let verdict = self.raft.may_install(position);
        if let Install::Now(fate) = verdict {
            let held = entries.iter().zip(1..).filter_map(|(entry, index)| {
                entry.configuration.map(|configuration| (at(index), configuration.clone()))
            });
            let newest = held.last();
            let configuration = newest.unwrap_or_else(|| {
                let (index, first) = self.raft.configuration_at(self.raft.base().index);
                (index, first.clone())
            });
            assert_eq!(self.raft.install_snapshot(now, position, configuration), fate);
            if fate == LogFate::Replaced {
                self.log = entries.to_vec();
                self.staged = vec![Write::Install(entries.to_vec())];
                self.staged.push(Write::Compact(position));
            }
            self.drain(&[]);
        }
        verdict
    }

    /// Takes one message and settles; returns what left.
    pub(super) fn receive(&mut self, now: Instant, from: u64, message: Message) -> Vec<Message> {
        let metas = if let Message::Append { entries, .. } = &message {
            entries.clone()
        } else {
            Vec::new()
        };
        let value = |meta: EntryMeta| Entry::of(meta, meta.term.get());
        let entries = metas.into_iter().map(value).collect();
        self.step(now, &Packet { from: id(from), to: self.id, message, entries });
        self.settle(now)
    }

    /// Settles and returns the messages that left since the last time.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Message> {
        self.now = now;
        self.raft.settle(now);
        self.drain(&[]);
        self.sent.drain(..).map(|packet| packet.message).collect()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.raft.tick(now);
        self.drain(&[]);
    }

    pub(super) fn propose(
        &mut self,
        now: Instant,
        value: u64,
    ) -> Result<LogPosition, ProposeError> {
        let position = self.raft.propose(now, EntryKind::Commands, 10)?;
        self.stage(Entry::of(meta(position.term.get()), value));
        assert_eq!(length(&self.log), position.index);
        Ok(position)
    }

    /// Proposes a configuration, as the node does with one that the core planned.
    pub(super) fn reconfigure(
        &mut self,
        now: Instant,
        configuration: Configuration,
    ) -> Result<LogPosition, ChangeError> {
        let position = self.raft.propose_configuration(now, configuration.clone(), 10)?;
        let kind = EntryKind::Configuration;
        let meta = EntryMeta { term: position.term, kind, bytes: 10 };
        let value = (position.term.get() << 32) + position.index.get();
        let configuration = Some(&*Box::leak(Box::new(configuration)));
        self.stage(Entry { meta, value, configuration });
        Ok(position)
    }

    /// Asks for a change, and proposes what it leads to.
    pub(super) fn change(
        &mut self,
        now: Instant,
        change: Change,
    ) -> Result<LogPosition, ChangeError> {
        let next = self.raft.plan(now, change)?;
        self.reconfigure(now, next)
    }

    /// Proposes the configuration that is due, if there is one.
    pub(super) fn continue_reconfiguration(&mut self, now: Instant) -> bool {
        let due = self.raft.output().configuration_due.take();
        due.is_some_and(|next| self.reconfigure(now, next).is_ok())
    }

    /// Forms a job if there is something to write and none is in flight.
    pub(super) fn begin_job(&mut self) -> bool {
        if self.job.is_some() || !self.raft.has_job() {
            return false;
        }
        self.seq += 1;
        let scope = self.raft.begin_job(self.now, JobSeq(self.seq));
        assert_eq!(scope.last.index, length(&self.log));
        let mut writes: Vec<Write> = scope.hard_state.map(Write::HardState).into_iter().collect();
        writes.append(&mut self.staged);
        self.job = Some((JobSeq(self.seq), writes, self.raft.commit_index()));
        true
    }

    pub(super) fn has_job_in_flight(&self) -> bool {
        self.job.is_some()
    }

    /// The job in flight becomes durable.
    pub(super) fn finish_job(&mut self, now: Instant) {
        let (seq, writes, commit) = self.job.take().expect("in flight");
        self.disk.apply(&writes);
        self.disk.commit_index = self.disk.commit_index.max(commit.min(length(&self.disk.entries)));
        self.raft.on_synced(now, SyncReceipt { seq });
        self.drain(&[]);
    }

    /// Syncs until nothing is left to sync; returns what left.
    pub(super) fn sync(&mut self, now: Instant) -> Vec<Message> {
        self.now = now;
        self.raft.settle(now);
        self.drain(&[]);
        while self.begin_job() {
            self.finish_job(now);
            self.raft.settle(now);
            self.drain(&[]);
        }
        self.sent.drain(..).map(|packet| packet.message).collect()
    }

    /// What a power loss leaves: all that was synced, and of the job in flight the first `survive`
    /// writes.
    pub(super) fn power_loss(mut self, survive: usize) -> Disk {
        if let Some((_, writes, _)) = self.job.take() {
            self.disk.apply(&writes[..survive.min(writes.len())]);
        }
        self.disk
    }

    /// Does what the core asked for outside a message.
    pub(super) fn step_output(&mut self) {
        self.drain(&[]);
    }

    fn stage(&mut self, entry: Entry) {
        self.log.push(entry);
        self.staged.push(Write::Append(entry));
    }

    /// Does what the core asks, and checks what it says.
    fn drain(&mut self, payloads: &[Entry]) {
        let output = self.raft.output();
        let ops: Vec<LogOp> = output.log_ops.drain(..).collect();
        let sends: Vec<_> = output.sends.drain(..).collect();
        self.reads.append(&mut output.reads);
        self.notices.append(&mut output.notices);
        for op in ops {
            match op {
                LogOp::Truncate { to } => {
                    self.log.truncate(usize::try_from(to.index.get()).expect("small"));
                    self.staged.push(Write::Truncate(to.index));
                }
                LogOp::Accept { skip, first, count } => {
                    assert_eq!(length(&self.log).next(), first.index);
                    assert_eq!(payloads[skip].meta.term, first.term);
                    for entry in &payloads[skip..skip + count] {
                        self.stage(*entry);
                        if let Some(configuration) = entry.configuration {
                            let index = length(&self.log);
                            self.raft.adopt_configuration(index, configuration.clone());
                        }
                    }
                }
                LogOp::NoOp { position } => {
                    let kind = EntryKind::NoOp;
                    let meta = EntryMeta { term: position.term, kind, bytes: 0 };
                    self.stage(Entry::of(meta, position.term.get() << 32));
                    assert_eq!(length(&self.log), position.index);
                }
            }
        }
        for send in sends {
            let (message, entries) = self.complete(send.body);
            self.assert_durable_enough(send.to, &message);
            self.sent.push(Packet { from: self.id, to: send.to, message, entries });
        }
    }

    /// Adds to an `Append` what only a node has.
    fn complete(&self, body: Body) -> (Message, Vec<Entry>) {
        match body {
            Body::Message(message) => (message, Vec::new()),
            Body::Append { term, session, round, prev, range, commit } => {
                let after = upto(&self.log, range.after()).len();
                let sent = upto(&self.log, range.last())[after..].to_vec();
                let entries = sent.iter().map(|entry| entry.meta).collect();
                (Message::Append { term, session, round, prev, entries, commit }, sent)
            }
        }
    }

    /// The table of `raft/output.rs`, checked from the other side.
    fn assert_durable_enough(&self, to: NodeId, message: &Message) {
        let disk = &self.disk;
        match message {
            Message::PreVote { .. } => {}
            Message::Vote { term, .. } => {
                let own = HardState { term: *term, vote: Vote::For(self.id) };
                assert_eq!(disk.hard_state, own, "a candidacy nobody would remember");
            }
            Message::VoteReply { term, granted } => {
                assert!(disk.hard_state.term >= *term, "an answer in a term not synced");
                if *granted {
                    let vote = HardState { term: *term, vote: Vote::For(to) };
                    assert_eq!(disk.hard_state, vote, "a vote nobody would remember");
                }
            }
            Message::PreVoteReply { term, .. } => assert!(disk.hard_state.term >= *term),
            Message::Append { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::TimeoutNow { term, .. } => {
                let own = HardState { term: *term, vote: Vote::For(self.id) };
                assert_eq!(disk.hard_state, own, "a leader by a vote nobody would remember");
            }
            Message::ReadIndex { term, .. } | Message::ReadIndexReply { term, .. } => {
                assert!(disk.hard_state.term >= *term, "speaks of a term not synced");
            }
            Message::AppendReply { term, outcome, .. } => {
                assert!(disk.hard_state.term >= *term, "an answer in a term not synced");
                match outcome {
                    AppendOutcome::Matched { index } | AppendOutcome::NoRoom { index } => {
                        assert!(length(&disk.entries) >= *index, "acknowledged, not synced");
                        let same = upto(&disk.entries, *index) == upto(&self.log, *index);
                        assert!(same, "acknowledged {index}, but the disk holds something else");
                    }
                    AppendOutcome::Conflict { .. } => {}
                }
            }
            Message::InstallSnapshot { .. } => panic!("the node sends pieces, not the core"),
            Message::InstallSnapshotReply { term, .. } => {
                assert!(disk.hard_state.term >= *term, "an answer in a term not synced");
            }
        }
    }
}

impl Disk {
    fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::HardState(hard_state) => self.hard_state = *hard_state,
                Write::Truncate(to) => {
                    self.entries.truncate(usize::try_from(to.get()).expect("small"));
                }
                Write::Append(entry) => self.entries.push(*entry),
                Write::Install(entries) => self.entries.clone_from(entries),
                Write::Compact(base) => self.base = *base,
            }
        }
    }
}
