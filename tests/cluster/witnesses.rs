//! Clients whose every question and answer is written down, for the checker of histories.

use super::patience::{breathe, now};
use crate::dice::Dice;
use crate::history::checker::product::{
    answer_of, as_txn, of_the_store, read_of, row_of, with_options,
};
use crate::history::checker::{Answer, Command, Consistency, Op, OpKind, Outcome, RangeArgs, Row};
use raftd::client::{Connection, Deadline};
use raftd::types::{ClusterId, Revision};
use raftd::wire::client as wire;
use raftd::wire::error::{Advice, Error};
use raftd::wire::reply::ReplyBody;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A client's pause between questions.
const PACE: Duration = Duration::from_millis(5);
/// After so long without an answer nobody knows.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What all witnesses know.
pub(super) struct Scene {
    /// Where the nodes listen, and how often each was started.
    pub(super) nodes: Vec<(String, AtomicU32)>,
    pub(super) keys: u64,
    pub(super) stop: AtomicBool,
    /// Changes and linearizable reads that were answered so far.
    pub(super) answered: AtomicU64,
    began: Instant,
}

impl Scene {
    /// Begins now, with so many keys.
    pub(super) fn of(nodes: Vec<(String, AtomicU32)>, keys: u64) -> Scene {
        let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        Scene { nodes, keys, stop, answered, began: now() }
    }

    fn now(&self) -> u64 {
        u64::try_from(now().duration_since(self.began).as_nanos()).unwrap()
    }

    fn boot(&self, node: usize) -> u32 {
        self.nodes[node].1.load(Ordering::SeqCst)
    }
}

/// A connection and the start of the node at its other end.
struct Line {
    connection: Connection,
    boot: u32,
}

/// One client: asks any node, one question after the other, and repeats nothing.
pub(super) struct Witness<'a> {
    scene: &'a Scene,
    client: u32,
    dice: Dice,
    lines: Vec<Option<Line>>,
    /// Whom it takes for the leader.
    prefers: usize,
    /// The last change of keys as far as it was told.
    known: BTreeMap<Vec<u8>, u64>,
    values: u64,
    ops: Vec<Op>,
}

impl<'a> Witness<'a> {
    pub(super) fn new(scene: &'a Scene, client: u32, seed: u64) -> Witness<'a> {
        Witness {
            scene,
            client,
            dice: Dice(seed ^ (u64::from(client) << 32)),
            lines: scene.nodes.iter().map(|_| None).collect(),
            prefers: 0,
            known: BTreeMap::new(),
            values: 0,
            ops: Vec::new(),
        }
    }

    /// Asks until told to stop. Returns everything asked and answered.
    pub(super) fn testify(mut self) -> Vec<Op> {
        while !self.scene.stop.load(Ordering::Relaxed) {
            let kind = self.choose();
            let node = self.choose_node(&kind);
            match self.line(node) {
                Some(line) => self.ask(node, line, kind),
                None => self.prefers = self.any_node(),
            }
            breathe(PACE);
        }
        self.ops
    }

    fn any_node(&mut self) -> usize {
        self.dice.index(self.scene.nodes.len())
    }

    fn choose_node(&mut self, kind: &OpKind) -> usize {
        let strays = match kind {
            OpKind::Range(args) if args.consistency == Consistency::Serializable => 1,
            OpKind::Range(_) => 2,
            OpKind::Change(_) => 20,
        };
        if self.dice.below(strays) == 0 { self.any_node() } else { self.prefers }
    }

    fn key(&mut self) -> Vec<u8> {
        // The smaller of two draws: low keys are hot.
        let (one, other) = (self.dice.below(self.scene.keys), self.dice.below(self.scene.keys));
        format!("k{:05}", one.min(other)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        format!("{}/{}", self.client, self.values).into_bytes()
    }

    fn choose(&mut self) -> OpKind {
        let key = self.key();
        let change = match self.dice.below(20) {
            0..7 => Command::Put { key, value: self.value() },
            7..10 => {
                let mod_revision = self.known.get(&key).copied().unwrap_or(0);
                Command::PutIf { key, value: self.value(), mod_revision }
            }
            10 => Command::Delete { key, end: Vec::new() },
            drawn => {
                let serializable = drawn == 19;
                let consistency = if serializable {
                    Consistency::Serializable
                } else {
                    Consistency::Linearizable
                };
                let (end, limit) = match drawn {
                    18 => (self.key(), self.dice.below(8)),
                    _ => (Vec::new(), 0),
                };
                let args = RangeArgs { key, end, limit, consistency, ..RangeArgs::default() };
                return OpKind::Range(args);
            }
        };
        OpKind::Change(change)
    }

    /// A connection of which it is known which start of the node accepted it.
    fn line(&mut self, node: usize) -> Option<Line> {
        let kept = self.lines[node].take().filter(|line| line.connection.is_alive());
        if kept.is_some() {
            return kept;
        }
        let boot = self.scene.boot(node);
        let deadline = Deadline::after(TIMEOUT);
        let address = &self.scene.nodes[node].0;
        let connection = Connection::open(address, ClusterId(0), deadline).ok()?;
        (self.scene.boot(node) == boot).then_some(Line { connection, boot })
    }

    fn ask(&mut self, node: usize, mut line: Line, kind: OpKind) {
        let coin = self.dice.below(2) == 0;
        let call = self.scene.now();
        let told = converse(&mut line.connection, &kind, coin);
        let ret = self.scene.now();
        let Told { outcome, saw, leader } = told;
        if let Outcome::Answered(answer) = &outcome {
            self.learn(&kind, answer);
            self.scene.answered.fetch_add(u64::from(is_linearizable(&kind)), Ordering::Relaxed);
        }
        self.prefers = match (leader, &outcome) {
            (Some(leader), _) => leader,
            (None, Outcome::Answered(_)) => node,
            (None, Outcome::Refused | Outcome::Unknown) => self.any_node(),
        };
        let known = outcome != Outcome::Unknown;
        self.ops.push(Op {
            client: self.client,
            node: u32::try_from(node + 1).unwrap(),
            boot: line.boot,
            call,
            ret: known.then_some(ret),
            kind,
            outcome,
            saw,
        });
        // After silence an answer may still come: to nobody.
        self.lines[node] = Some(line).filter(|_| known);
    }

    fn learn(&mut self, kind: &OpKind, answer: &Answer) {
        match (kind, answer) {
            (OpKind::Change(Command::Put { key, .. }), Answer::Put { revision }) => {
                self.known.insert(key.clone(), *revision);
            }
            (OpKind::Change(Command::PutIf { key, .. }), Answer::PutIf { revision, refused }) => {
                self.known.insert(key.clone(), refused.unwrap_or(*revision));
            }
            (OpKind::Range(_), Answer::Range { rows, .. }) => {
                let rows = rows.iter().map(|row| (row.key.clone(), row.mod_revision));
                self.known.extend(rows);
            }
            _ => {}
        }
    }
}

fn is_linearizable(kind: &OpKind) -> bool {
    match kind {
        OpKind::Range(args) => args.consistency == Consistency::Linearizable,
        OpKind::Change(_) => true,
    }
}

/// What came back.
struct Told {
    outcome: Outcome,
    /// The keys that a change was told of.
    saw: Option<Vec<Row>>,
    /// Whom the node takes for the leader, counted from 0.
    leader: Option<usize>,
}

impl Told {
    /// Nothing came, and it may have been done.
    const NOTHING: Told = Told { outcome: Outcome::Unknown, saw: None, leader: None };
}

/// One question and its answer. The coin decides how a read is made fresh, and whether a change
/// asks what was there.
fn converse(connection: &mut Connection, kind: &OpKind, coin: bool) -> Told {
    let deadline = Deadline::after(TIMEOUT);
    match kind {
        OpKind::Change(command) if coin => {
            connection.command(None, with_options(command, &mut Vec::new()))
        }
        OpKind::Change(command) => connection.command(None, of_the_store(command)),
        OpKind::Range(args) if coin && args.limit > 0 => {
            let mut room = Vec::new();
            let txn = as_txn(args, &mut room);
            let consistency = match args.consistency {
                Consistency::Linearizable => wire::Consistency::Linearizable,
                Consistency::UnboundLease => wire::Consistency::Lease,
                Consistency::Serializable => wire::Consistency::Serializable,
            };
            connection.read_txn(consistency, txn)
        }
        OpKind::Range(args) => connection.range(&wire::RangeArgs {
            key: &args.key,
            end: &args.end,
            limit: args.limit,
            revision: Revision(args.revision),
            consistency: match args.consistency {
                Consistency::Linearizable if coin => wire::Consistency::Lease,
                Consistency::Linearizable => wire::Consistency::Linearizable,
                Consistency::UnboundLease => wire::Consistency::Lease,
                Consistency::Serializable => wire::Consistency::Serializable,
            },
            keys_only: false,
            count_only: false,
            selection: wire::Selection::ALL,
        }),
    };
    if connection.flush(deadline).is_err() {
        return Told::NOTHING;
    }
    let mut before = Vec::new();
    loop {
        let Ok(reply) = connection.receive(deadline) else { return Told::NOTHING };
        let goes_on = matches!(&reply.body, ReplyBody::Range(part) if part.goes_on);
        let mut told = meaning(&reply.body);
        if let Outcome::Answered(Answer::Range { rows, .. }) = &mut told.outcome {
            // A long range comes in parts; what it is in all stands in the last one.
            before.append(rows);
            if !goes_on {
                rows.append(&mut before);
            }
        }
        if !goes_on {
            return told;
        }
    }
}

fn meaning(body: &ReplyBody<'_>) -> Told {
    if let Some(answer) = read_of(body) {
        return Told { outcome: Outcome::Answered(answer), saw: None, leader: None };
    }
    if let Some((answer, saw)) = answer_of(body) {
        return Told { outcome: Outcome::Answered(answer), saw: Some(saw), leader: None };
    }
    let without = |outcome| Told { outcome, saw: None, leader: None };
    let answer = match body {
        ReplyBody::Put { revision } => Answer::Put { revision: revision.0 },
        ReplyBody::DeleteRange { revision, deleted } => {
            Answer::Delete { revision: revision.0, deleted: *deleted }
        }
        ReplyBody::PutIf { revision, refused } => {
            let refused = refused.map(|found| found.0);
            Answer::PutIf { revision: revision.0, refused }
        }
        ReplyBody::Range(range) => Answer::Range {
            revision: range.revision.0,
            rows: range.kvs().map(|kv| row_of(&kv)).collect(),
            more: range.more,
            count: range.count,
        },
        ReplyBody::Error(Error::NotLeader { leader }) => {
            let leader = leader.as_ref().map(|(leader, _)| leader.get() - 1);
            let leader = leader.map(|leader| usize::try_from(leader).unwrap());
            return Told { leader, ..without(Outcome::Refused) };
        }
        ReplyBody::Error(error) => match error.advice() {
            Advice::Unknown => return without(Outcome::Unknown),
            Advice::AskAgain => return without(Outcome::Refused),
            Advice::GiveUp => panic!("nothing here is wrong for good: {error:?}"),
        },
        other => panic!("that was not asked: {other:?}"),
    };
    without(Outcome::Answered(answer))
}
