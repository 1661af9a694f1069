//! Entries, random commands, and a store that is easy to ask.

use std::ops::ControlFlow;

use raftd::kv::command::{EntryHeader, encode_command, encode_header};
use raftd::kv::{
    Command, CommandReply, RangeEnd, RangeError, RangeRequest, RangeSummary, Selection, Store,
    StoreOptions,
};
use raftd::types::{LogIndex, LogPosition, Revision, Term};

/// splitmix64: one number of state, printed when a test fails.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn size_below(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A command that owns its bytes.
#[derive(Clone, Debug)]
pub(super) enum Owned {
    Put { key: Vec<u8>, value: Vec<u8> },
    PutIf { key: Vec<u8>, value: Vec<u8>, mod_revision: Revision },
    Delete { key: Vec<u8>, end: Vec<u8> },
    Compact { revision: Revision },
}

impl Owned {
    pub(super) fn as_command(&self) -> Command<'_> {
        match self {
            Owned::Put { key, value } => Command::Put { key, value },
            Owned::PutIf { key, value, mod_revision } => {
                Command::PutIf { key, value, mod_revision: *mod_revision }
            }
            Owned::Delete { key, end } => {
                Command::DeleteRange { key, end: RangeEnd::from_bytes(end) }
            }
            Owned::Compact { revision } => Command::Compact { revision: *revision },
        }
    }
}

pub(super) fn put(key: &str, value: &str) -> Owned {
    Owned::Put { key: key.into(), value: value.into() }
}

pub(super) fn delete(key: &str, end: &str) -> Owned {
    Owned::Delete { key: key.into(), end: end.into() }
}

pub(super) fn put_if(key: &str, value: &str, mod_revision: u64) -> Owned {
    let mod_revision = Revision(mod_revision);
    Owned::PutIf { key: key.into(), value: value.into(), mod_revision }
}

pub(super) fn compact(revision: u64) -> Owned {
    Owned::Compact { revision: Revision(revision) }
}

/// One of `keys` names, of every length around the bound of inline keys, with common prefixes.
pub(super) fn some_key(random: &mut Random, keys: u64) -> Vec<u8> {
    let number = random.below(keys);
    let mut key = format!("k{:03}/", number % 1000).into_bytes();
    key.resize(key.len() + usize::try_from(number % 40).unwrap(), b'x');
    key.extend_from_slice(number.to_string().as_bytes());
    key
}

/// An `end` for a range that starts at `key`: every form, the empty range included.
pub(super) fn some_end(random: &mut Random, key: &[u8], keys: u64) -> Vec<u8> {
    match random.below(6) {
        0 => vec![],
        1 => vec![0],
        2 => key.to_vec(),
        3 => [key, b"\xff"].concat(),
        _ => some_key(random, keys),
    }
}

pub(super) fn entry(commands: &[Owned]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms: 1_700_000_000_000 });
    for command in commands {
        encode_command(&mut payload, command.as_command());
    }
    payload
}

/// The place of an entry of the first term.
pub(super) fn at(index: LogIndex) -> LogPosition {
    LogPosition::new(Term::new(1), index)
}

pub(super) fn store_with(index_seed: u64, history_bytes_max: u64) -> Store {
    Store::new(StoreOptions { index_seed, history_bytes_max })
}

pub(super) fn apply(store: &mut Store, commands: &[Owned]) -> Vec<CommandReply> {
    let mut replies = Vec::new();
    let index: LogIndex = store.applied().next();
    store.apply(at(index), &entry(commands), &mut |answer| replies.push(answer.outline)).unwrap();
    replies
}

/// A key as answered: name, value, create and mod revision, version.
pub(super) type Row = (Vec<u8>, Vec<u8>, u64, u64, u64);

pub(super) fn read(
    store: &Store,
    request: &RangeRequest<'_>,
) -> Result<(Vec<Row>, RangeSummary), RangeError> {
    let mut rows = Vec::new();
    let summary = store.range(request, &mut |found| {
        assert_eq!(found.lease, 0);
        let (create, modified) = (found.create_revision.0, found.mod_revision.0);
        rows.push((found.key.to_vec(), found.value.to_vec(), create, modified, found.version));
        ControlFlow::Continue(())
    })?;
    Ok((rows, summary))
}

pub(super) fn everything(revision: u64) -> RangeRequest<'static> {
    RangeRequest {
        key: b"\0",
        end: RangeEnd::Unbounded,
        limit: 0,
        revision: Revision(revision),
        keys_only: false,
        count_only: false,
        selection: Selection::ALL,
    }
}
