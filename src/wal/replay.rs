//! From what stands in the segments to the log they mean.
//!
//! Records count in file order: an entry goes behind the last one, a TRUNC or an entry at or below
//! the last one cuts first. Damage is judged by `verdict.rs`; damaged entries that a later record
//! cut away are no loss.

use super::error::DamageExtent;
use super::record::{FooterRow, Place, RecordHead, RecordKind, extent};
use super::scan::{Found, Hole, Scanned, SegmentScan};
use super::segment::DATA_START;
use super::verdict::{HoleVerdict, Proof, RecordVerdict, is_torn, judge_hole, judge_record};
use crate::types::{EntryKind, LogIndex, LogPosition, Term};
use std::collections::{BTreeMap, VecDeque};

/// One entry of the log, and where its record is. The entry's index is its place in the queue,
/// counted from behind the log's base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Its term.
    pub(super) term: Term,
    /// Where its record begins.
    pub(super) place: Place,
    /// Bytes of payload.
    pub(super) payload_len: u32,
    /// `codec::crc::payload_crc`.
    pub(super) payload_crc: u32,
    /// What it holds.
    pub(super) kind: EntryKind,
}

/// The log the segments mean.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The entry before the first one: what stands before the first segment. `ZERO` in a log that
    /// was never compacted.
    pub(super) base: LogPosition,
    /// The entries behind the base.
    pub(super) entries: VecDeque<Entry>,
    /// How each segment's records stand to what is before them.
    pub(super) beginnings: BTreeMap<u32, Beginning>,
    /// The payloads of configuration entries.
    pub(super) configurations: BTreeMap<LogIndex, Vec<u8>>,
    /// C, the largest commit index in the headers up to where the log ends. May lie above the last
    /// entry.
    pub(super) commit: LogIndex,
    /// The largest term in the headers.
    pub(super) term_max: Term,
    /// Where the log ends in the files: behind the last record taken.
    pub(super) end: Place,
    /// The CRC of the last header taken in the segment of `end`.
    pub(super) chain: u32,
    /// The rows of the segment of `end`.
    pub(super) rows: Vec<FooterRow>,
    /// The FOOTER of the segment of `end`, if it is closed: its offset and the CRC of its header.
    pub(super) footer: Option<(u32, u32)>,
    /// Where a torn batch was cut.
    pub(super) torn_at: Option<Place>,
    /// W, as `Proof` takes it.
    pub(super) watermark: Place,
    /// Behind the last record that holds an entry or a truncation.
    pub(super) entries_end: Place,
    /// Valid headers seen.
    pub(super) records: u64,
    /// Damaged places that held nothing.
    pub(super) harmless: u64,
    /// FAULTY entries: where their damage was found.
    faulty: BTreeMap<LogIndex, Place>,
    /// UNCERTAIN, from this index on, found there.
    uncertain: Option<(LogIndex, Place)>,
}

/// How the records of a segment stand to those before it. A log can begin with a segment only if
/// no record of it, or of a later one, cuts into what was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Beginning {
    /// The last entry of the log when the segment was begun.
    pub(super) after: LogPosition,
    /// The lowest index that its truncations left standing.
    pub(super) lowest_kept: LogIndex,
}

/// Whether to go on with the next record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Continue,
    Stop,
}

/// Replays the segments, which are in order and without gaps; one that is lost is a hole. Before
/// the first one stands `base`.
pub(super) fn replay(base: LogPosition, scans: &[SegmentScan]) -> Replay {
    let mut replay = Replay { base, watermark: watermark(scans), ..Replay::default() };
    if let Some(first) = scans.first() {
        replay.enter(first.seq);
    }
    for (number, scan) in scans.iter().enumerate() {
        if replay.segment(scan, &scans[number + 1..]) == Flow::Stop {
            replay.check_nothing_behind(scan, &scans[number + 1..]);
            break;
        }
    }
    replay
}

/// What a header proves to have been synced: W, and everything before a record that is first of its
/// batch.
fn watermark(scans: &[SegmentScan]) -> Place {
    let records = scans.iter().flat_map(|scan| &scan.found).filter_map(as_record);
    let proofs = records.map(|record| {
        let links = &record.header.links;
        if links.first { links.synced.max(record.place) } else { links.synced }
    });
    proofs.max().unwrap_or_default()
}

fn as_record(found: &Found) -> Option<&Scanned> {
    match found {
        Found::Record(record) => Some(record),
        Found::Hole(_) => None,
    }
}

impl Replay {
    /// The last entry.
    pub(super) fn last(&self) -> LogPosition {
        let index = self.base.index.advanced_by(count(self.entries.len()));
        LogPosition::new(self.term_at(index).unwrap_or_default(), index)
    }

    /// The last index of each run of one term.
    pub(super) fn runs(&self) -> Vec<(LogIndex, Term)> {
        let mut runs: Vec<(LogIndex, Term)> = Vec::new();
        let mut index = self.base.index;
        for entry in &self.entries {
            index = index.next();
            match runs.last_mut() {
                Some((last, term)) if *term == entry.term => *last = index,
                Some(_) | None => runs.push((index, entry.term)),
            }
        }
        runs
    }

    /// What is damaged: its extent, and where the first of it was found.
    pub(super) fn damage(&self) -> Option<(DamageExtent, Place)> {
        let faulty = self.faulty.first_key_value().zip(self.faulty.last_key_value());
        match (faulty, self.uncertain) {
            (Some(((&first, &place), (&last, _))), None) => {
                Some((DamageExtent::Entries { first, last }, place))
            }
            (Some(((&first, &place), _)), Some((from, _))) if first < from => {
                Some((DamageExtent::From(first), place))
            }
            (_, Some((from, place))) => Some((DamageExtent::From(from), place)),
            (None, None) => None,
        }
    }

    /// All of what is damaged, each with its place: lost entries, those of one hole together; then
    /// from where on nothing is certain.
    pub(super) fn damages(&self) -> impl Iterator<Item = (DamageExtent, Place)> {
        let mut found: Vec<(LogIndex, LogIndex, Place)> = Vec::new();
        for (&index, &place) in &self.faulty {
            match found.last_mut() {
                Some((_, last, at)) if *at == place => *last = index,
                Some(_) | None => found.push((index, index, place)),
            }
        }
        let lost = |(first, last, place)| (DamageExtent::Entries { first, last }, place);
        let doubt = self.uncertain.map(|(from, place)| (DamageExtent::From(from), place));
        found.into_iter().map(lost).chain(doubt)
    }

    /// UNCERTAIN from `first` on, found at `place`.
    pub(super) fn doubt(&mut self, first: LogIndex, place: Place) {
        if self.uncertain.is_none() {
            self.uncertain = Some((first, place));
        }
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        let behind = index.get().checked_sub(self.base.index.get())?;
        match behind.checked_sub(1) {
            None => Some(self.base.term),
            Some(before) => {
                let slot = usize::try_from(before).ok()?;
                self.entries.get(slot).map(|entry| entry.term)
            }
        }
    }

    /// How the records of segment `seq` stand to those before it.
    pub(super) fn beginning_of(&self, seq: u32) -> Beginning {
        let last = self.last();
        let at_the_end = Beginning { after: last, lowest_kept: last.index };
        self.beginnings.get(&seq).copied().unwrap_or(at_the_end)
    }

    fn enter(&mut self, seq: u32) {
        self.end = Place { segment: seq, offset: DATA_START };
        let after = self.last();
        self.beginnings.insert(seq, Beginning { after, lowest_kept: after.index });
        self.chain = 0;
        self.rows.clear();
        self.footer = None;
    }

    fn segment(&mut self, scan: &SegmentScan, later: &[SegmentScan]) -> Flow {
        if scan.found.is_empty() && scan.header.is_some() {
            // A spare, or a segment whose every byte was lost. If records follow, the latter.
            let Some(successor) = first_record(later) else { return Flow::Continue };
            let from = Place { segment: scan.seq, offset: DATA_START };
            return self.lost(from, Some(successor));
        }
        if self.end.segment != scan.seq {
            if self.footer.is_none() && self.judge_end(scan, later) == Flow::Stop {
                return Flow::Stop;
            }
            self.enter(scan.seq);
        }
        for (at, found) in scan.found.iter().enumerate() {
            let flow = match found {
                Found::Record(record) => self.record(record),
                Found::Hole(hole) => {
                    let successor = scan.found[at + 1..].iter().find_map(as_record);
                    self.hole(hole, successor.or_else(|| first_record(later)), &scan.rows)
                }
            };
            if flow == Flow::Stop {
                return Flow::Stop;
            }
        }
        if scan.header.is_none() {
            let from = Place { segment: scan.seq, offset: 0 };
            return self.lost(from, first_record(later));
        }
        Flow::Continue
    }

    /// A segment with content follows one that was never closed: what closed it is lost, and more
    /// perhaps.
    fn judge_end(&mut self, scan: &SegmentScan, later: &[SegmentScan]) -> Flow {
        let successor = scan.found.iter().find_map(as_record).or_else(|| first_record(later));
        self.lost(self.end, successor)
    }

    fn record(&mut self, record: &Scanned) -> Flow {
        let head = &record.header.head;
        let proof = Proof::of(record.place, self.watermark);
        let verdict = judge_record(head.kind, record.payload, proof);
        if verdict == RecordVerdict::Torn {
            self.torn_at = Some(record.place);
            return Flow::Stop;
        }
        // What this header calls committed may be in its own batch: a truncation is judged by those
        // before it.
        let committed = self.committed();
        self.harmless += u64::from(verdict == RecordVerdict::Harmless);
        self.records += 1;
        self.commit = self.commit.max(record.header.links.commit);
        self.term_max = self.term_max.max(head.position.term);
        self.chain = record.header.crc;
        let offset = record.place.offset + extent(head.payload_len);
        self.end = Place { segment: record.place.segment, offset };
        match head.kind {
            RecordKind::Entry(kind) => {
                self.entries_end = self.end;
                let flow = self.entry(
                    &FooterRow::of(head, record.place),
                    kind,
                    Some(head.prev_term),
                    committed,
                );
                if kind == EntryKind::Configuration {
                    self.configurations.insert(head.position.index, record.configuration.clone());
                }
                if verdict == RecordVerdict::Faulty {
                    self.faulty.insert(head.position.index, record.place);
                }
                flow
            }
            RecordKind::Trunc => {
                self.entries_end = self.end;
                self.rows.push(FooterRow::of(head, record.place));
                self.cut_to(head.position, record.place, committed)
            }
            RecordKind::Footer => {
                self.footer = Some((record.place.offset, record.header.crc));
                self.marker(head, record.place, committed)
            }
            RecordKind::Pad | RecordKind::SyncMark => self.marker(head, record.place, committed),
        }
    }

    /// What is committed for certain, and in the log.
    fn committed(&self) -> LogIndex {
        self.commit.min(self.last().index)
    }

    /// Puts an entry behind the last one; one at or below the last one stands for the truncation
    /// before it.
    fn entry(
        &mut self,
        row: &FooterRow,
        kind: EntryKind,
        prev_term: Option<Term>,
        committed: LogIndex,
    ) -> Flow {
        let place = Place { segment: self.end.segment, offset: row.offset };
        self.rows.push(*row);
        let overrides = committed < row.position.index && row.position.index <= self.last().index;
        if overrides && row.position.index > self.base.index {
            self.keep(row.position.index.prev());
        }
        let last = self.last();
        let follows = row.position.index == last.index.next()
            && prev_term.is_none_or(|term| term == last.term)
            && row.position.term >= last.term;
        if follows {
            self.push(row.position.term, kind, place, row.payload_len, row.payload_crc);
            Flow::Continue
        } else {
            self.doubt(committed.next(), place);
            Flow::Stop
        }
    }

    fn push(&mut self, term: Term, kind: EntryKind, place: Place, len: u32, payload_crc: u32) {
        assert!(self.last().term <= term, "terms do not go back");
        self.entries.push_back(Entry { term, place, payload_len: len, payload_crc, kind });
    }

    fn cut_to(&mut self, to: LogPosition, place: Place, committed: LogIndex) -> Flow {
        let known = to.index <= self.last().index && self.term_at(to.index) == Some(to.term);
        if known && committed <= to.index {
            self.keep(to.index);
            Flow::Continue
        } else {
            self.doubt(committed.next(), place);
            Flow::Stop
        }
    }

    fn keep(&mut self, last: LogIndex) {
        let kept = usize::try_from(last.count_since(self.base.index));
        self.entries.truncate(kept.expect("an index at or below the last fits"));
        if let Some(beginning) = self.beginnings.get_mut(&self.end.segment) {
            beginning.lowest_kept = beginning.lowest_kept.min(last);
        }
        self.configurations.split_off(&last.next());
        self.faulty.split_off(&last.next());
    }

    /// PAD, SYNCMARK and FOOTER name the last entry. Behind a hole they may name an earlier one:
    /// then the hole held the TRUNC to it.
    fn marker(&mut self, head: &RecordHead, place: Place, committed: LogIndex) -> Flow {
        if head.position == self.last() {
            Flow::Continue
        } else {
            self.cut_to(head.position, place, committed)
        }
    }

    fn hole(&mut self, hole: &Hole, successor: Option<&Scanned>, rows: &[FooterRow]) -> Flow {
        if is_torn(hole.trace, Proof::of(hole.from, self.watermark)) {
            self.torn_at = Some(hole.from);
            return Flow::Stop;
        }
        let lost: Vec<FooterRow> = rows
            .iter()
            .filter(|row| hole.from.offset <= row.offset && row.offset < hole.until)
            .copied()
            .collect();
        if rows.is_empty() {
            self.lost(hole.from, successor)
        } else {
            self.harmless += u64::from(lost.is_empty());
            self.replay_rows(&lost)
        }
    }

    /// A hole that is no tear, with no FOOTER to say what stood there.
    fn lost(&mut self, from: Place, successor: Option<&Scanned>) -> Flow {
        let last = self.last();
        let Some(successor) = successor else {
            self.doubt(last.index.next(), from);
            return Flow::Stop;
        };
        let head = &successor.header.head;
        match judge_hole(last, head, |index| self.term_at(index)) {
            HoleVerdict::Nothing => {
                self.harmless += 1;
                Flow::Continue
            }
            HoleVerdict::Entries { last: until, term } => {
                while self.last().index < until {
                    self.faulty.insert(self.last().index.next(), from);
                    self.push(term, EntryKind::Commands, from, 0, 0);
                }
                Flow::Continue
            }
            HoleVerdict::Unknown => {
                // Rule 4: the hole may have held a TRUNC, so only what is committed is certain.
                self.doubt(self.committed().next(), from);
                Flow::Stop
            }
        }
    }

    /// The FOOTER says what stood in a hole: entries are FAULTY, truncations are as good as read.
    fn replay_rows(&mut self, rows: &[FooterRow]) -> Flow {
        for row in rows {
            let place = Place { segment: self.end.segment, offset: row.offset };
            let committed = self.committed();
            let flow = match row.kind {
                RecordKind::Entry(kind) => {
                    let flow = self.entry(row, kind, None, committed);
                    self.faulty.insert(row.position.index, place);
                    flow
                }
                RecordKind::Trunc => {
                    self.rows.push(*row);
                    self.cut_to(row.position, place, committed)
                }
                RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => Flow::Continue,
            };
            if flow == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    /// The log was cut in `scan`: later segments, written only after it was synced, must be spares.
    fn check_nothing_behind(&mut self, scan: &SegmentScan, later: &[SegmentScan]) {
        let used = later.iter().find(|scan| !scan.found.is_empty() || scan.header.is_none());
        if let (Some(_), Some(used)) = (self.torn_at, used) {
            assert!(used.seq > scan.seq);
            let place = Place { segment: used.seq, offset: DATA_START };
            self.doubt(self.last().index.next(), place);
        }
    }
}

fn first_record(scans: &[SegmentScan]) -> Option<&Scanned> {
    scans.iter().flat_map(|scan| &scan.found).find_map(as_record)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("usize is at most 64 bits")
}
