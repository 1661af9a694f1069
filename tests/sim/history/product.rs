//! The product's words in the history's: the only place here that knows the product.

use super::{Command, Row};
use raftd::kv::{self, RangeEnd};
use raftd::types::Revision;
use raftd::wire::results::KeyValue;

/// The command as the history knows it; `None`: it opens a session.
pub(crate) fn owned(command: kv::Command<'_>) -> Option<Command> {
    Some(match command {
        kv::Command::Put { key, value } => {
            Command::Put { key: key.to_vec(), value: value.to_vec() }
        }
        kv::Command::PutIf { key, value, mod_revision } => Command::PutIf {
            key: key.to_vec(),
            value: value.to_vec(),
            mod_revision: mod_revision.0,
        },
        kv::Command::DeleteRange { key, end } => {
            let end = match end {
                RangeEnd::Key => Vec::new(),
                RangeEnd::Unbounded => vec![0],
                RangeEnd::Before(end) => end.to_vec(),
            };
            Command::Delete { key: key.to_vec(), end }
        }
        kv::Command::Compact { revision } => Command::Compact { revision: revision.0 },
        kv::Command::OpenSession => return None,
        kv::Command::PutWith(_) | kv::Command::DeleteRangeWith(_) | kv::Command::Txn(_) => {
            unreachable!("no client here asks for it")
        }
    })
}

/// The command as a client sends it.
pub(crate) fn of_the_store(command: &Command) -> kv::Command<'_> {
    match command {
        Command::Put { key, value } => kv::Command::Put { key, value },
        Command::Delete { key, end } => {
            kv::Command::DeleteRange { key, end: RangeEnd::from_bytes(end) }
        }
        Command::PutIf { key, value, mod_revision } => {
            kv::Command::PutIf { key, value, mod_revision: Revision(*mod_revision) }
        }
        Command::Compact { .. } => unreachable!("not for clients"),
    }
}

/// A key as a reply has it.
pub(crate) fn row_of(kv: &KeyValue<'_>) -> Row {
    Row {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
    }
}
