//! A store that does not lie, asked by many clients at once: one that takes changes, and nodes that
//! follow it, each as far as it likes. It is the product's store, so that the checker's model is
//! compared with something that it does not know.

use super::checker::product::{is_sound, request_of, row_of, txn_answer_of, with_options};
use super::checker::txns::{Compare, Operand, Relation, Request, Txn};
use super::checker::{
    Answer, Command, Consistency, History, NodeState, Op, OpKind, Outcome, RangeArgs,
};
use crate::dice::Dice;
use raftd::kv::command::{EntryHeader, encode_command, encode_header};
use raftd::kv::{self, CommandReply, RangeEnd, RangeError, Store, StoreOptions};
use raftd::types::{LogPosition, Revision, Term};
use raftd::wire::client as wire;
use raftd::wire::frame::next_frame;
use raftd::wire::reply::{TxnOutcome, decode_reply, txn_reply};
use std::ops::ControlFlow;

/// How a history is made.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) ops: usize,
    pub(super) clients: usize,
    pub(super) keys: usize,
    /// One op in this many is not a put or a get of one key.
    pub(super) oddities: usize,
}

/// An op under way.
struct Open {
    client: usize,
    op: Op,
    happened: bool,
}

struct World {
    plan: Plan,
    random: Dice,
    now: u64,
    /// The first is the leader; the others follow its log.
    nodes: Vec<(Store, usize)>,
    history: History,
}

/// Plays until `plan.ops` ops were asked for and all are over.
pub(super) fn play(plan: Plan) -> History {
    let options = |seed| StoreOptions { index_seed: seed, history_bytes_max: u64::MAX };
    let mut world = World {
        plan,
        random: Dice(plan.seed),
        now: 0,
        nodes: (0..3).map(|seed| (Store::new(options(seed)), 0)).collect(),
        history: History::default(),
    };
    let mut open: Vec<Open> = Vec::new();
    let mut asked = 0;
    while asked < plan.ops || !open.is_empty() {
        world.now += 1;
        let client = world.random.index(plan.clients);
        match open.iter().position(|open| open.client == client) {
            None if asked < plan.ops => {
                asked += 1;
                open.push(world.ask(client));
            }
            None => {}
            Some(at) if open[at].happened || world.random.index(40) == 0 => {
                let over = open.swap_remove(at);
                world.end(over);
            }
            Some(at) => world.happen(&mut open[at]),
        }
    }
    world.finish()
}

impl World {
    fn ask(&mut self, client: usize) -> Open {
        let kind = self.some_kind();
        let serializable =
            matches!(kind, OpKind::Range(RangeArgs { consistency: Consistency::Serializable, .. }));
        let node = if serializable { self.random.index(3) } else { 0 };
        let op = Op {
            client: client.try_into().unwrap(),
            node: node.try_into().unwrap(),
            boot: 1,
            call: self.now,
            ret: None,
            kind,
            outcome: Outcome::Unknown,
            saw: None,
        };
        Open { client, op, happened: false }
    }

    fn some_key(&mut self) -> Vec<u8> {
        format!("key-{}", self.random.index(self.plan.keys)).into_bytes()
    }

    fn some_kind(&mut self) -> OpKind {
        let key = self.some_key();
        let odd = self.random.index(self.plan.oddities) == 0;
        let end = match self.random.index(4) {
            0 if odd => vec![0],
            1 | 2 if odd => self.some_key(),
            _ => Vec::new(),
        };
        match self.random.index(if odd { 6 } else { 2 }) {
            0 if odd && self.random.index(2) == 0 => OpKind::Change(Command::Txn(self.some_txn())),
            0 => {
                let value = self.now.to_string().into_bytes();
                if self.random.index(4) != 0 {
                    return OpKind::Change(Command::Put { key, value });
                }
                let newest = usize::try_from(self.nodes[0].0.revision().0).unwrap();
                let mod_revision = self.random.index(newest + 1).try_into().unwrap();
                OpKind::Change(Command::PutIf { key, value, mod_revision })
            }
            1 => OpKind::Range(RangeArgs { key, ..RangeArgs::default() }),
            2 => OpKind::Change(Command::Delete { key, end }),
            _ => {
                let newest = usize::try_from(self.nodes[0].0.revision().0).unwrap();
                let revision =
                    if self.random.index(3) == 0 { 1 + self.random.index(newest + 1) } else { 0 };
                OpKind::Range(RangeArgs {
                    key,
                    end,
                    limit: self.random.index(4).try_into().unwrap(),
                    revision: revision.try_into().unwrap(),
                    consistency: match self.random.index(2) {
                        0 => Consistency::Linearizable,
                        _ => Consistency::Serializable,
                    },
                    keys_only: self.random.index(4) == 0,
                    count_only: self.random.index(4) == 0,
                })
            }
        }
    }

    /// Compares of which none or few hold, and requests that may meet.
    fn some_txn(&mut self) -> Txn {
        loop {
            let count = self.random.index(3);
            let compares = (0..count).map(|_| self.some_compare()).collect();
            let mut branch = |requests| (0..requests).map(|_| self.some_request()).collect();
            let inner = Txn { then: branch(2), otherwise: branch(1), ..Txn::default() };
            let (mut then, otherwise): (Vec<_>, _) = (branch(2), branch(1));
            then.push(Request::Txn(Txn { compares: vec![self.some_compare()], ..inner }));
            let txn = Txn { compares, then, otherwise };
            if is_sound(&txn) {
                return txn;
            }
        }
    }

    fn some_compare(&mut self) -> Compare {
        let key = self.some_key();
        let end = if self.random.index(3) == 0 { vec![0] } else { Vec::new() };
        let relations = [Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual];
        let newest = usize::try_from(self.nodes[0].0.revision().0).unwrap();
        let number = u64::try_from(self.random.index(newest + 1)).unwrap();
        let operand = match self.random.index(4) {
            0 => Operand::Version(number % 4),
            1 => Operand::Create(number),
            2 => Operand::Mod(number),
            _ => Operand::Value(number.to_string().into_bytes()),
        };
        Compare { key, end, relation: relations[self.random.index(4)], operand }
    }

    fn some_request(&mut self) -> Request {
        let key = self.some_key();
        let end = if self.random.index(3) == 0 { self.some_key() } else { Vec::new() };
        match self.random.index(4) {
            0 | 1 => {
                self.now += 1;
                Request::Put { key, value: self.now.to_string().into_bytes() }
            }
            2 => Request::Delete { key, end },
            _ => Request::Range { key, end, limit: self.random.index(3).try_into().unwrap() },
        }
    }

    fn happen(&mut self, open: &mut Open) {
        let node = usize::try_from(open.op.node).unwrap();
        if node > 0 && self.random.index(2) == 0 {
            self.follow(node);
        }
        if self.plan.oddities < 10 && self.random.index(50) == 0 {
            let newest = usize::try_from(self.nodes[0].0.revision().0).unwrap();
            let revision = u64::try_from(self.random.index(newest + 2)).unwrap();
            self.log(Command::Compact { revision });
        }
        let answer = match &open.op.kind {
            OpKind::Change(_) if self.random.index(30) == 0 => {
                open.op.outcome = Outcome::Refused;
                open.happened = true;
                return;
            }
            OpKind::Change(command) => self.log(command.clone()).expect("a client's command"),
            OpKind::Range(args) => read(&self.nodes[node].0, args),
        };
        open.op.outcome = Outcome::Answered(answer);
        open.happened = true;
    }

    fn log(&mut self, command: Command) -> Option<Answer> {
        let answer = apply(&mut self.nodes[0].0, &command);
        self.nodes[0].1 += 1;
        self.history.finals.commands.push(command);
        answer
    }

    fn follow(&mut self, node: usize) {
        let (store, applied) = &mut self.nodes[node];
        let behind = self.history.finals.commands.len() - *applied;
        for command in self.history.finals.commands.iter().skip(*applied).take(1 + behind / 2) {
            apply(store, command);
            *applied += 1;
        }
    }

    /// The answer arrives, unless it is lost.
    fn end(&mut self, over: Open) {
        let Open { mut op, happened, .. } = over;
        if happened && self.random.index(20) != 0 {
            op.ret = Some(self.now);
        } else {
            op.outcome = Outcome::Unknown;
        }
        self.history.ops.push(op);
    }

    fn finish(mut self) -> History {
        for node in 0..3 {
            while self.nodes[node].1 < self.history.finals.commands.len() {
                self.follow(node);
            }
            let store = &self.nodes[node].0;
            let all = RangeArgs { key: vec![0], end: vec![0], ..RangeArgs::default() };
            let Answer::Range { revision, rows, .. } = read(store, &all) else {
                panic!("the present can be read")
            };
            let compact_revision = store.compact_revision().0;
            let node = node.try_into().unwrap();
            self.history.finals.nodes.push(NodeState { node, revision, compact_revision, rows });
        }
        self.history
    }
}

fn apply(store: &mut Store, command: &Command) -> Option<Answer> {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 0 });
    let mut room = Vec::new();
    let theirs = match command {
        Command::Put { key, value } => kv::Command::Put { key, value },
        Command::Delete { key, end } => {
            kv::Command::DeleteRange { key, end: RangeEnd::from_bytes(end) }
        }
        Command::PutIf { key, value, mod_revision } => {
            kv::Command::PutIf { key, value, mod_revision: Revision(*mod_revision) }
        }
        Command::Compact { revision } => kv::Command::Compact { revision: Revision(*revision) },
        Command::Txn(_) => with_options(command, &mut room),
        Command::Lease(_) => unreachable!("no story here has leases"),
    };
    encode_command(&mut payload, theirs);
    let mut answer = None;
    let index = store.applied().next();
    let mut reply = |reply: kv::Answer<'_>| {
        answer = match reply.outline {
            CommandReply::Put { revision } => Some(Answer::Put { revision: revision.0 }),
            CommandReply::DeleteRange { revision, deleted } => {
                Some(Answer::Delete { revision: revision.0, deleted })
            }
            CommandReply::PutIf { revision, refused } => {
                Some(Answer::PutIf { revision: revision.0, refused: refused.map(|found| found.0) })
            }
            CommandReply::Txn { revision, succeeded } => {
                let outcome = TxnOutcome { revision, succeeded, results: reply.body };
                let mut frame = Vec::new();
                txn_reply(&mut frame, 1, wire::Op::Txn, &outcome);
                let frame = next_frame(&frame, frame.len()).unwrap().unwrap();
                txn_answer_of(&decode_reply(frame.body).unwrap().body)
            }
            CommandReply::Compact { .. }
            | CommandReply::OpenSession { .. }
            | CommandReply::PutWith { .. }
            | CommandReply::DeleteRangeWith { .. }
            | CommandReply::LeaseGrant { .. }
            | CommandReply::LeaseRevoke { .. }
            | CommandReply::LeaseExpire { .. }
            | CommandReply::LeaseCheckpoint { .. }
            | CommandReply::Auth { .. }
            | CommandReply::Void { .. }
            | CommandReply::Refused { .. }
            | CommandReply::SessionExpired
            | CommandReply::CallAcknowledged
            | CommandReply::AnswerNotKept { .. } => None,
        };
    };
    store.apply(LogPosition::new(Term::new(1), index), &payload, &mut reply).unwrap();
    store.tidy(8);
    answer
}

fn read(store: &Store, args: &RangeArgs) -> Answer {
    let mut rows = Vec::new();
    let summary = store.range(&request_of(args), &mut |found| {
        rows.push(row_of(&found));
        ControlFlow::Continue(())
    });
    match summary {
        Ok(summary) => Answer::Range {
            revision: summary.revision.0,
            rows,
            more: summary.more,
            count: summary.count,
        },
        Err(RangeError::Compacted { compact_revision }) => {
            Answer::Compacted { compact_revision: compact_revision.0 }
        }
        Err(RangeError::Future { revision }) => Answer::Future { revision: revision.0 },
    }
}
