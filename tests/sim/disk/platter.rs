//! What the platters are known to hold: read from the bytes that a sync covered, by a reader of our
//! own, never from what the node says. The formats are drawn in `wal/record.rs` and
//! `wal/hard_state.rs`.

use super::content::{Content, PAGE};
use crate::chain::{Chain, Ground, own_hash};
use crate::chance::usize_of;
use crate::invariants::broken;
use raftd::codec::crc::{crc32, payload_crc};
use raftd::types::{LogIndex, LogPosition, Term};

const DATA_START: usize = 2 * PAGE;
const HEADER: usize = 64;
const RECORD_MAGIC: [u8; 4] = *b"RFR1";
const HARD_STATE_MAGIC: &[u8; 8] = b"RAFTDHST";

/// What one slot of a hard state file says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct HardCopy {
    pub(crate) version: u64,
    pub(crate) term: u64,
    /// As stored: 0 none, the largest number abstains.
    pub(crate) vote: u64,
    /// Index, term, bytes and checksum of the snapshot in force; zeros if there is none.
    pub(crate) snapshot: [u64; 4],
    /// Number of the log's first segment, index and term of the entry before it.
    base: [u64; 3],
}

/// The promises on a disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct Platter {
    /// The newest version that a sync covered in each of the two files.
    pub(crate) hard_state: [Option<HardCopy>; 2],
    /// What is compacted is in it: the snapshot holds it.
    pub(crate) log: Chain,
    ground: Ground,
    /// Where the log begins that `log` is read from, as in `HardCopy`.
    base: [u64; 3],
    /// How far each segment is read, by its number.
    read_up_to: Vec<usize>,
    /// What each segment's records are salted with, by its number.
    salts: Vec<Option<u64>>,
    /// Pass over pages that hold no record, as recovery does over damage that held nothing: what
    /// is written later stands behind them.
    pub(super) bridges: bool,
    scratch: Vec<u8>,
}

impl Platter {
    pub(super) fn new(ground: Ground) -> Platter {
        Platter { ground, ..Platter::default() }
    }

    pub(super) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The hard state that the damage of either file cannot take away.
    pub(crate) fn twice_kept(&self) -> HardCopy {
        match self.hard_state {
            [Some(one), Some(other)] => one.min(other),
            [_, _] => HardCopy::default(),
        }
    }

    /// How far the records of a segment reach.
    pub(super) fn filled(&self, segment: usize) -> usize {
        self.read_up_to.get(segment).copied().unwrap_or(0).max(DATA_START)
    }

    /// Whether the newest hard state on the platters wants this segment, and records are in it.
    pub(super) fn needs_segment(&self, segment: usize) -> bool {
        let first = self.newest().base[0];
        wide(segment) >= first && self.filled(segment) > DATA_START
    }

    /// What the newest sound copy says, whichever it is.
    pub(super) fn newest(&self) -> HardCopy {
        self.hard_state.into_iter().flatten().max().unwrap_or_default()
    }

    pub(super) fn forget_log(&mut self) {
        self.log = Chain::default();
        self.hard_state = [None; 2];
        self.base = [0; 3];
        self.read_up_to.clear();
        self.salts.clear();
    }

    /// A hard state file was synced.
    pub(super) fn see_hard_state(&mut self, copy: usize, content: &Content) {
        let mut newest = None;
        for slot in 0..2 {
            let mut page = Vec::with_capacity(PAGE);
            content.read_platter(slot * PAGE, PAGE, &mut page);
            newest = newest.max(hard_copy(&page));
        }
        self.hard_state[copy] = newest;
        let base = self.twice_kept().base;
        if base != self.base {
            self.base = base;
            self.stand_on_base();
        }
    }

    /// The log begins elsewhere now. What is before is in a snapshot, and is committed; if the log
    /// did not hold it, nothing of it counts any more.
    fn stand_on_base(&mut self) {
        let [first, index, term] = self.base;
        let base = LogPosition::new(Term::new(term), LogIndex::new(index));
        let held = self.log.at(base.index).is_some_and(|link| link.term == base.term);
        let read = self.read_up_to.iter().skip(usize_of(first));
        if !held {
            let none = || broken("SnapshotCommitted", format!("a log begins behind {base}"));
            self.log = self.ground.up_to(base).unwrap_or_else(none);
        } else if read.max().is_none_or(|end| *end <= DATA_START) {
            self.log.truncate(base.index);
        }
    }

    /// A segment was synced: reads the records behind those read before.
    pub(super) fn see_segment(&mut self, segment: usize, content: &Content) {
        if wide(segment) < self.base[0] {
            return;
        }
        if self.read_up_to.len() <= segment {
            self.read_up_to.resize(segment + 1, DATA_START);
            self.salts.resize(segment + 1, None);
        }
        if self.salts[segment].is_none() {
            self.salts[segment] = salt(content);
        }
        let mut at = self.read_up_to[segment];
        loop {
            if let Some(extent) = self.record(segment, at, content) {
                at += extent;
                self.read_up_to[segment] = at;
            } else if self.bridges && at + PAGE < content.len() {
                at = (at / PAGE + 1) * PAGE;
            } else {
                break;
            }
        }
    }

    /// Takes the record at `at`; returns the bytes that it takes.
    fn record(&mut self, segment: usize, at: usize, content: &Content) -> Option<usize> {
        if at + HEADER > content.len() || !content.has_platter_page(at / PAGE) {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        content.read_platter(at, HEADER, &mut bytes);
        let belongs = self.belongs(segment, at, &bytes);
        let taken = if belongs { self.judge(at, &mut bytes, content) } else { None };
        self.scratch = bytes;
        taken
    }

    /// Whether a header was written for this very place. A sector of elsewhere may lie here.
    fn belongs(&self, segment: usize, at: usize, header: &[u8]) -> bool {
        let Some(salt) = self.salts[segment] else { return false };
        let place = [salt, wide(segment), wide(at)].map(u64::to_le_bytes);
        let crc = crc32(&[&place[0], &place[1], &place[2], &header[8..]]);
        number(header, 4, 4) == u64::from(crc)
    }

    fn judge(&mut self, at: usize, bytes: &mut Vec<u8>, content: &Content) -> Option<usize> {
        if bytes[..4] != RECORD_MAGIC {
            return None;
        }
        let index = LogIndex::new(number(bytes, 8, 8));
        let term = Term::new(number(bytes, 16, 8));
        let prev_term = Term::new(number(bytes, 24, 8));
        let payload_len = usize::try_from(number(bytes, 32, 4)).ok()?;
        let crc = u32::try_from(number(bytes, 36, 4)).ok()?;
        let kind = bytes[60];
        let extent = HEADER + payload_len.next_multiple_of(HEADER);
        if at + extent > content.len() {
            return None;
        }
        match kind {
            1..=3 => {
                content.read_platter(at + HEADER, payload_len, bytes);
                let position = LogPosition::new(term, index);
                if payload_crc(position, prev_term, &bytes[HEADER..]) != crc {
                    return None;
                }
                if index > LogIndex::ZERO && index <= self.log.last() {
                    self.log.truncate(index.prev());
                }
                if index == self.log.last().next() {
                    let bytes = u32::try_from(payload_len).expect("a record is small");
                    self.log.push(term, own_hash(kind, bytes, crc));
                }
            }
            4 => self.log.truncate(index),
            _ => {}
        }
        Some(extent)
    }
}

/// From whichever copy of a segment's header is sound.
fn salt(content: &Content) -> Option<u64> {
    [0, PAGE].into_iter().find_map(|at| {
        let mut page = Vec::with_capacity(PAGE);
        content.read_platter(at, PAGE, &mut page);
        let sound = page.len() == PAGE
            && number(&page, PAGE - 4, 4) == u64::from(crc32(&[&page[..PAGE - 4]]));
        sound.then(|| number(&page, 48, 8))
    })
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).expect("64 bits")
}

fn hard_copy(page: &[u8]) -> Option<HardCopy> {
    let sound = page.len() == PAGE
        && &page[..8] == HARD_STATE_MAGIC
        && number(page, 252, 4) == u64::from(crc32(&[&page[..252]]));
    sound.then(|| HardCopy {
        version: number(page, 16, 8),
        term: number(page, 24, 8),
        vote: number(page, 32, 8),
        snapshot: [(88, 8), (96, 8), (104, 8), (112, 4)].map(|(at, len)| number(page, at, len)),
        base: [(116, 4), (120, 8), (128, 8)].map(|(at, len)| number(page, at, len)),
    })
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut value = [0; 8];
    value[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(value)
}
