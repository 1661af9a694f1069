//! Ops and answers as people read them: keys and values are text, or nearly.

use super::txns::{Compare, Done, Got, Operand, Request, Txn};
use super::{Answer, Command, Consistency, Op, OpKind, Outcome, RangeArgs, Row, Violation};
use std::fmt::{self, Display, Formatter};

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "history: {:?}: {}", self.rule, self.why)?;
        self.ops.iter().try_for_each(|op| write!(f, "\n  {op}"))
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Op { client, node, boot, call, ret, kind, outcome, saw } = self;
        write!(f, "client {client} at node {node} (start {boot}) ")?;
        match ret {
            Some(ret) => write!(f, "[{call}, {ret}] ")?,
            None => write!(f, "[{call}, …) ")?,
        }
        match kind {
            OpKind::Change(command) => write!(f, "{command}")?,
            OpKind::Range(args) => write!(f, "{args}")?,
        }
        match outcome {
            Outcome::Answered(answer) => write!(f, " -> {answer}")?,
            Outcome::Refused => f.write_str(" -> refused")?,
            Outcome::Unknown => f.write_str(" -> unknown")?,
        }
        saw.iter().flatten().try_for_each(|row| write!(f, ", saw {row}"))
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Command::Put { key, value } => {
                write!(f, "put {}={}", key.escape_ascii(), value.escape_ascii())
            }
            Command::Delete { key, end } => {
                f.write_str("delete ")?;
                range(f, key, end)
            }
            Command::PutIf { key, value, mod_revision } => {
                let (key, value) = (key.escape_ascii(), value.escape_ascii());
                write!(f, "put {key}={value} if it is of {mod_revision}")
            }
            Command::Txn(txn) => write!(f, "{txn}"),
            Command::Compact { revision } => write!(f, "compact to {revision}"),
            Command::Lease(change) => write!(f, "{change:?}"),
        }
    }
}

impl Display for Txn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("txn if")?;
        for Compare { key, end, relation, operand } in &self.compares {
            f.write_str(" ")?;
            range(f, key, end)?;
            write!(f, " {relation:?} ")?;
            match operand {
                Operand::Version(version) => write!(f, "v{version}")?,
                Operand::Create(revision) => write!(f, "created {revision}")?,
                Operand::Mod(revision) => write!(f, "of {revision}")?,
                Operand::Value(value) => write!(f, "={}", value.escape_ascii())?,
            }
        }
        for (name, branch) in [(" then", &self.then), (" else", &self.otherwise)] {
            f.write_str(name)?;
            for request in branch {
                match request {
                    Request::Put { key, value } => {
                        write!(f, " put {}={}", key.escape_ascii(), value.escape_ascii())?;
                    }
                    Request::Delete { key, end } => {
                        f.write_str(" delete ")?;
                        range(f, key, end)?;
                    }
                    Request::Range { key, end, limit } => {
                        f.write_str(" get ")?;
                        range(f, key, end)?;
                        write!(f, " limit {limit}")?;
                    }
                    Request::Txn(inner) => write!(f, " ({inner})")?,
                }
            }
        }
        Ok(())
    }
}

impl Display for Done {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.succeeded { "then:" } else { "else:" })?;
        for got in &self.results {
            match got {
                Got::Put { before } => {
                    f.write_str(" put,")?;
                    before.iter().try_for_each(|row| write!(f, " was {row}"))?;
                }
                Got::Delete { deleted, before } => {
                    write!(f, " {deleted} deleted,")?;
                    before.iter().try_for_each(|row| write!(f, " was {row}"))?;
                }
                Got::Range { rows, more, count } => {
                    write!(f, " {count} keys, more={more}:")?;
                    rows.iter().try_for_each(|row| write!(f, " {row}"))?;
                }
                Got::Txn(inner) => write!(f, " ({inner})")?,
            }
        }
        Ok(())
    }
}

impl Display for RangeArgs {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("get ")?;
        range(f, &self.key, &self.end)?;
        if self.limit > 0 {
            write!(f, " limit {}", self.limit)?;
        }
        if self.revision > 0 {
            write!(f, " as of {}", self.revision)?;
        }
        let flags = [
            (self.consistency == Consistency::Serializable, " serializable"),
            (self.consistency == Consistency::UnboundLease, " by an unbound lease"),
            (self.keys_only, " keys only"),
            (self.count_only, " count only"),
        ];
        flags.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| f.write_str(name))
    }
}

fn range(f: &mut Formatter<'_>, key: &[u8], end: &[u8]) -> fmt::Result {
    match end {
        [] => write!(f, "{}", key.escape_ascii()),
        [0] => write!(f, "[{}, …)", key.escape_ascii()),
        end => write!(f, "[{}, {})", key.escape_ascii(), end.escape_ascii()),
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Put { revision } => write!(f, "revision {revision}"),
            Answer::Delete { revision, deleted } => {
                write!(f, "revision {revision}, {deleted} deleted")
            }
            Answer::PutIf { revision, refused: None } => write!(f, "revision {revision}"),
            Answer::PutIf { revision, refused: Some(found) } => {
                write!(f, "revision {revision}, not put: it is of {found}")
            }
            Answer::Txn { revision, done } => write!(f, "revision {revision}, {done}"),
            Answer::Range { revision, rows, more, count } => {
                write!(f, "revision {revision}, {count} keys, more={more}:")?;
                rows.iter().try_for_each(|row| write!(f, " {row}"))
            }
            Answer::Compacted { compact_revision } => {
                write!(f, "compacted to {compact_revision}")
            }
            Answer::Future { revision } => write!(f, "in the future of {revision}"),
        }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Row { key, value, create_revision, mod_revision, version } = self;
        let (key, value) = (key.escape_ascii(), value.escape_ascii());
        write!(f, "{key}={value} ({create_revision} {mod_revision} v{version})")
    }
}
