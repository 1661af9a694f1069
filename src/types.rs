//! The words of the protocol as types. Positions are not numbers: nothing here has arithmetic
//! operators.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A Raft term. `ZERO` is the term before the first election. Paper §5.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Term(u64);

impl Term {
    /// The term before any election; no entry carries it.
    pub const ZERO: Term = Term(0);
    /// The term of the bootstrap configuration entry, in which nobody was leader.
    pub const BOOTSTRAP: Term = Term(1);

    /// Wraps a number read from the wire or the disk.
    pub const fn new(term: u64) -> Term {
        Term(term)
    }

    /// The bare number, for the wire, the disk and people.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The term after this one. Panics at `u64::MAX`, which no cluster reaches.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("2^64 elections do not happen"))
    }
}

/// The place of an entry in the log, counted from 1. `ZERO` is the place before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogIndex(u64);

impl LogIndex {
    /// The place before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);

    /// Wraps a number read from the wire or the disk.
    pub const fn new(index: u64) -> LogIndex {
        LogIndex(index)
    }

    /// The bare number, for the wire, the disk and people.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next place. Panics at `u64::MAX`, which no log reaches.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0.checked_add(1).expect("2^64 entries do not happen"))
    }

    /// The place before. Panics at `ZERO`, before which there is none.
    #[must_use]
    pub fn prev(self) -> LogIndex {
        LogIndex(self.0.checked_sub(1).expect("there is no place before LogIndex::ZERO"))
    }

    /// The place `count` entries further on.
    #[must_use]
    pub fn advanced_by(self, count: u64) -> LogIndex {
        LogIndex(self.0.checked_add(count).expect("2^64 entries do not happen"))
    }

    /// How many entries lie in `(base, self]`. Panics if `self` is before `base`.
    pub fn count_since(self, base: LogIndex) -> u64 {
        self.0.checked_sub(base.0).expect("count_since asks about an index at or after its base")
    }
}

/// An entry's identity: one leader makes one entry per (term, index). Ordered as §5.4.1 compares
/// logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogPosition {
    /// The term in which a leader made the entry. Compared first.
    pub term: Term,
    /// The entry's place in the log. Compared second.
    pub index: LogIndex,
}

impl LogPosition {
    /// The position before the first entry of any log.
    pub const ZERO: LogPosition = LogPosition { term: Term::ZERO, index: LogIndex::ZERO };

    /// Names the entry made in `term` at `index`.
    pub const fn new(term: Term, index: LogIndex) -> LogPosition {
        LogPosition { term, index }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A stretch of the log, `(after, last]`. Empty when both are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct LogRange {
    after: LogIndex,
    last: LogIndex,
}

impl LogRange {
    /// The stretch `(after, last]`. Panics if `last` lies before `after`.
    pub fn new(after: LogIndex, last: LogIndex) -> LogRange {
        assert!(after <= last, "a range ends at {last}, before its start {after}");
        LogRange { after, last }
    }

    /// The index just before the first one of the stretch.
    pub const fn after(self) -> LogIndex {
        self.after
    }

    /// The last index of the stretch; equal to `after()` when it is empty.
    pub const fn last(self) -> LogIndex {
        self.last
    }

    /// How many entries the stretch holds.
    pub fn count(self) -> u64 {
        self.last.count_since(self.after)
    }

    /// Whether the stretch holds no entry.
    pub fn is_empty(self) -> bool {
        self.after == self.last
    }

    /// Whether `index` lies in the stretch.
    pub fn contains(self, index: LogIndex) -> bool {
        self.after < index && index <= self.last
    }

    /// The indexes of the stretch, ascending.
    pub fn indexes(self) -> impl DoubleEndedIterator<Item = LogIndex> {
        (self.after.0..self.last.0).map(|before| LogIndex(before).next())
    }
}

impl fmt::Display for LogRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after, self.last)
    }
}

/// A server's number in its cluster: 1 or more, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(u64);

impl NodeId {
    /// `None` for 0, which means "nobody" on the wire and on disk, and for `u64::MAX`, "abstain".
    pub const fn new(id: u64) -> Option<NodeId> {
        if id == 0 || id == u64::MAX { None } else { Some(NodeId(id)) }
    }

    /// The bare number, for the wire, the disk and people.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A moment on the node's monotonic clock, in nanoseconds since an arbitrary start. Never wall
/// time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Instant = Instant(0);
    /// Later than every deadline.
    pub const FAR: Instant = Instant(u64::MAX);

    /// The moment `ns` nanoseconds after the clock's start.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// The moment `ns` nanoseconds later; saturates at `FAR`.
    #[must_use]
    pub const fn after_ns(self, ns: u64) -> Instant {
        Instant(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is later.
    pub const fn ns_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Which cluster: a hash of its token and its first members, and of chance if it was restored.
/// Nodes of different clusters do not talk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ClusterId(pub u128);

/// Which data directory: random, made with it, never changed. A node that lost its disk has
/// another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct DiskId(pub u128);

/// A revision of the store: how many modifying requests it had answered. etcd's word and meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one. Panics at `u64::MAX`, which no store reaches.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0.checked_add(1).expect("2^64 revisions do not happen"))
    }
}

/// A client session of the exactly-once table: 1 or more, given in the order of the log and never
/// twice. Thesis §6.3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SessionId(pub u64);

/// A user with a certain password, as the log names whoever asks for something: given in the order
/// of the log, with a user and with each new password, and never twice. So it is of no use any more
/// once the user is gone or has another password.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Credential(pub u64);

impl Credential {
    /// Nobody's.
    pub const NONE: Credential = Credential(0);
    /// The cluster's own: no client ever has it.
    pub const CLUSTER: Credential = Credential(1);

    /// Whether it is anybody's.
    pub const fn is_some(self) -> bool {
        self.0 != Credential::NONE.0
    }
}

/// What an entry holds, as the record on disk and the message on the wire number it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EntryKind {
    /// The client commands of one turn.
    Commands,
    /// The empty entry with which a leader starts its term. Paper §8.
    NoOp,
    /// A cluster configuration. Paper §6.
    Configuration,
}

impl EntryKind {
    /// The number in records and messages.
    pub const fn code(self) -> u8 {
        match self {
            EntryKind::Commands => 1,
            EntryKind::NoOp => 2,
            EntryKind::Configuration => 3,
        }
    }

    /// The kind of a number read from the wire or the disk.
    pub const fn from_code(code: u8) -> Option<EntryKind> {
        match code {
            1 => Some(EntryKind::Commands),
            2 => Some(EntryKind::NoOp),
            3 => Some(EntryKind::Configuration),
            _ => None,
        }
    }
}

/// Names a snapshot by its content: two files with this name have the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SnapshotId {
    /// The last entry it stands for: index and exact term.
    pub position: LogPosition,
    /// The length of its file. Bytes.
    pub bytes: u64,
    /// The CRC-32 over its file, as the file's own end states it.
    pub crc: u32,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:08x}", self.position, self.bytes, self.crc)
    }
}

/// What a server must remember before it speaks: paper Figure 2, "persistent state", less the log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HardState {
    /// The latest term this server has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Vote,
}

/// The vote of one term.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Vote {
    /// No vote given yet.
    #[default]
    None,
    /// Given to this candidate.
    For(NodeId),
    /// Given to nobody and never to be given in this term: the hard state was found stale. Storage
    /// §6.4.
    Abstain,
}

/// Numbers the sync jobs of one run of the process, from 1. A job's receipt carries its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct JobSeq(pub u64);

/// Proof that the sync job with this number, and all before it, is durable. Design §12.1.
#[derive(Debug)]
pub struct SyncReceipt {
    /// The job that has become durable.
    pub seq: JobSeq,
}

/// Longest address of a server, `host:port`. Bytes: DNS allows names of 253.
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Whether `text` is `host:port` and nothing else: a name, an IPv4 address, or an IPv6 address in
/// brackets; a port from 1 on. What the resolver would only refuse later is refused here.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(is_ipv6),
        None => is_name(host),
    };
    // One spelling of each port: addresses are compared as text.
    let is_port = port.bytes().all(|letter| letter.is_ascii_digit())
        && !port.starts_with('0')
        && port.parse::<u16>().is_ok();
    is_host && is_port && text.len() <= ADDRESS_BYTES_MAX
}

/// An IPv6 address, with the zone that a link-local one needs.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    address.parse::<Ipv6Addr>().is_ok() && zone.parse::<u32>().is_ok()
}

/// A host's name, or an IPv4 address: what ends in a number is no name (RFC 3696 §2). Names of
/// other scripts are written in their ASCII form (RFC 5890).
fn is_name(text: &str) -> bool {
    let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let ends_in_number =
        labels.clone().next_back().is_some_and(|last| last.bytes().all(|it| it.is_ascii_digit()));
    if ends_in_number { text.parse::<Ipv4Addr>().is_ok() } else { labels.all(is_label) }
}

macro_rules! display_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
display_number!(Term, LogIndex, Revision, JobSeq, SessionId, Credential);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for good in [
            "a:1",
            "node-1.example.org:65535",
            "node_1.example.org.:7101",
            "10.0.0.1:7101",
            "[::1]:1",
            "[fe80::1%2]:1",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "a:01",
            "a:-1",
            "a: 1",
            "a:1/",
            "http://a:1",
            "a/b:1",
            "a b:1",
            "a@b:1",
            "::1:7101",
            "[::1:7101",
            "::1]:7101",
            "[a]:1",
            "[::1%eth0]:1",
            "10.0.0:1",
            "10.0.0.256:1",
            "10.0.0.1.1:1",
            "7101:1",
            "a..b:1",
            ".a:1",
            "-a:1",
            "a-:1",
            "\u{e9}:1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(!is_address(&format!("{}:1", "a".repeat(64))));
        assert!(!is_address(&format!("{}a:1", "a.".repeat(130))));
    }
}
