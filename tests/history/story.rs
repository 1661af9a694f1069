//! Short words for histories written by hand.

use super::checker::txns::{Done, Txn};
use super::checker::watches::Heard;
use super::checker::{
    Answer, Command, Consistency, FinalState, History, NodeState, Op, OpKind, Outcome, RangeArgs,
    Row, Rule, Summary, check,
};

pub(super) fn put(key: &str, value: &str) -> Command {
    Command::Put { key: key.into(), value: value.into() }
}

pub(super) fn delete(key: &str, end: &str) -> Command {
    Command::Delete { key: key.into(), end: end.into() }
}

pub(super) fn compact(revision: u64) -> Command {
    Command::Compact { revision }
}

/// A read of the keys in `[key, end)` now; of the one key, if `end` is empty.
pub(super) fn range(key: &str, end: &str) -> RangeArgs {
    RangeArgs { key: key.into(), end: end.into(), ..RangeArgs::default() }
}

/// `key=value create mod version`
pub(super) fn row(text: &str) -> Row {
    let words: Vec<&str> = text.split([' ', '=']).collect();
    let number = |nth: usize| words[nth].parse().unwrap();
    Row {
        key: words[0].into(),
        value: words[1].into(),
        create_revision: number(2),
        mod_revision: number(3),
        version: number(4),
    }
}

/// All there is about the range, or so the answer says.
pub(super) fn rows(revision: u64, rows: &[&str]) -> Answer {
    let rows: Vec<Row> = rows.iter().copied().map(row).collect();
    let count = rows.len().try_into().unwrap();
    Answer::Range { revision, rows, more: false, count }
}

/// A history under construction.
pub(super) struct Story(History);

impl Story {
    /// What the log holds in the end.
    pub(super) fn of(log: &[Command]) -> Story {
        let finals = FinalState { commands: log.to_vec(), nodes: Vec::new() };
        Story(History { finals, ..History::default() })
    }

    fn with(mut self, (call, ret): (u64, Option<u64>), kind: OpKind, outcome: Outcome) -> Story {
        let client = self.0.ops.len().try_into().unwrap();
        self.0.ops.push(Op { client, node: 1, boot: 1, call, ret, kind, outcome, saw: None });
        self
    }

    pub(super) fn put(self, call: u64, ret: u64, put: &Command, revision: u64) -> Story {
        let answer = Outcome::Answered(Answer::Put { revision });
        self.with((call, Some(ret)), OpKind::Change(put.clone()), answer)
    }

    pub(super) fn delete(
        self,
        (call, ret): (u64, u64),
        delete: &Command,
        revision: u64,
        deleted: u64,
    ) -> Story {
        let answer = Outcome::Answered(Answer::Delete { revision, deleted });
        self.with((call, Some(ret)), OpKind::Change(delete.clone()), answer)
    }

    pub(super) fn txn(
        self,
        (call, ret): (u64, u64),
        txn: &Txn,
        revision: u64,
        done: Done,
    ) -> Story {
        let answer = Outcome::Answered(Answer::Txn { revision, done });
        self.with((call, Some(ret)), OpKind::Change(Command::Txn(txn.clone())), answer)
    }

    pub(super) fn read(self, call: u64, ret: u64, args: RangeArgs, answer: Answer) -> Story {
        self.with((call, Some(ret)), OpKind::Range(args), Outcome::Answered(answer))
    }

    /// A read of the asked node's own state.
    pub(super) fn look(self, call: u64, ret: u64, args: RangeArgs, answer: Answer) -> Story {
        let args = RangeArgs { consistency: Consistency::Serializable, ..args };
        self.read(call, ret, args, answer)
    }

    /// A read by a lease, where clocks break the bound that it rests on.
    pub(super) fn trust(self, call: u64, ret: u64, args: RangeArgs, answer: Answer) -> Story {
        let args = RangeArgs { consistency: Consistency::UnboundLease, ..args };
        self.read(call, ret, args, answer)
    }

    pub(super) fn unknown(self, call: u64, command: &Command) -> Story {
        self.with((call, None), OpKind::Change(command.clone()), Outcome::Unknown)
    }

    pub(super) fn refused(self, call: u64, ret: u64, command: &Command) -> Story {
        self.with((call, Some(ret)), OpKind::Change(command.clone()), Outcome::Refused)
    }

    /// Moves the last op to another node.
    pub(super) fn at_node(mut self, node: u32, boot: u32) -> Story {
        let op = self.0.ops.last_mut().unwrap();
        (op.node, op.boot) = (node, boot);
        self
    }

    /// What a node says of itself in the end.
    pub(super) fn node(mut self, revision: u64, compact_revision: u64, rows: &[&str]) -> Story {
        let rows = rows.iter().copied().map(row).collect();
        self.0.finals.nodes.push(NodeState { node: 2, revision, compact_revision, rows });
        self
    }

    pub(super) fn heard(mut self, heard: Heard) -> Story {
        self.0.watched.heard.push(heard);
        self
    }

    /// A watch that needed a revision heard that all before another one is compacted.
    pub(super) fn compacted(mut self, needed: u64, compact_revision: u64) -> Story {
        self.0.watched.compacted.push((needed, compact_revision));
        self
    }

    #[track_caller]
    pub(super) fn acquit(self) -> Summary {
        check(&self.0).unwrap_or_else(|violation| panic!("{violation}"))
    }

    #[track_caller]
    pub(super) fn convict(self, rule: Rule) {
        let violation = check(&self.0).expect_err("this history is a lie");
        assert_eq!(violation.rule, rule, "{violation}");
    }
}
