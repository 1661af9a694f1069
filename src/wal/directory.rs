//! The segments of a log: their names, the one in use, the spares.

use super::disk::Disk;
use super::error::OpenError;
use super::record::{OVERHEAD_BYTES, Place, u32_of, usize_of};
use super::replay::Beginning;
use super::segment::{Fill, Segment};
use crate::limits;
use crate::types::{LogIndex, LogPosition};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Where segments are.
pub(super) const LOG: &str = "log";

/// A segment that is not needed any more is spared if it is at most this part of the snapshot.
const SPARED_PART: u64 = 8;

/// The file of segment `seq`. The name says nothing else, and never changes.
pub(super) fn segment_name(seq: u32) -> String {
    format!("{LOG}/{seq:020}.seg")
}

/// The sequence numbers of the segments in the directory, ascending. Other names are not ours to
/// judge.
pub(super) fn list_segments(disk: &dyn Disk) -> Result<Vec<u32>, OpenError> {
    let names = match disk.list(LOG) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io(disk, "list", LOG)(error)),
    };
    let mut seqs: Vec<u32> = names.iter().filter_map(|name| parse_name(name)).collect();
    seqs.sort_unstable();
    Ok(seqs)
}

fn parse_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let canonical = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical)
}

/// The salt of segment `seq`: one step of splitmix64 over the seed and the number.
pub(super) fn salt(seed: u64, seq: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(seq).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The segments in use and the spares.
pub(super) struct Directory {
    /// In order; the last one is written to. Sequence numbers have no gaps.
    segments: Vec<Arc<Segment>>,
    /// One for each of them.
    beginnings: Vec<Beginning>,
    spares: VecDeque<Arc<Segment>>,
    fill: Fill,
}

impl Directory {
    /// `segments` ends with the one to go on writing to, filled as `fill` says.
    pub(super) fn new(
        segments: Vec<Arc<Segment>>,
        beginnings: Vec<Beginning>,
        spares: VecDeque<Arc<Segment>>,
        fill: Fill,
    ) -> Directory {
        assert!(!segments.is_empty());
        assert_eq!(segments.len(), beginnings.len());
        let all = || segments.iter().chain(&spares);
        assert!(all().zip(all().skip(1)).all(|(one, next)| one.seq + 1 == next.seq));
        Directory { segments, beginnings, spares, fill }
    }

    /// The segment that is written to.
    pub(super) fn active(&self) -> &Arc<Segment> {
        self.segments.last().expect("a log has a segment")
    }

    /// How far it is filled.
    pub(super) fn fill(&mut self) -> &mut Fill {
        &mut self.fill
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> Place {
        Place { segment: self.active().seq, offset: self.fill.end }
    }

    /// The segment with this number. Panics if the log has none such.
    pub(super) fn segment(&self, seq: u32) -> &Arc<Segment> {
        let first = self.segments[0].seq;
        &self.segments[usize_of(seq - first)]
    }

    /// How many segments hold the log.
    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// How many segments hold what follows `index`, and the bytes that the last one still takes.
    pub(super) fn behind(&self, index: LogIndex) -> (u64, u32) {
        let later = |beginning: &&Beginning| beginning.after.index > index;
        let later = self.beginnings.iter().skip(1).rev().take_while(later);
        (later.fold(1, |count, _| count + 1), self.fill.room(self.active().file_len))
    }

    /// The bytes of the segments in use.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.file_len)).sum()
    }

    /// The bytes of them that are written to.
    pub(super) fn used_bytes(&self) -> u64 {
        let full = self.bytes() - u64::from(self.active().file_len);
        full + u64::from(self.fill.end)
    }

    /// How many spares are ready.
    pub(super) fn spare_count(&self) -> usize {
        self.spares.len()
    }

    /// The number the next spare gets.
    pub(super) fn next_seq(&self) -> u32 {
        let newest = self.spares.back().unwrap_or_else(|| self.active());
        newest.seq.checked_add(1).expect("2^32 segments are never written")
    }

    /// A segment has been prepared.
    pub(super) fn add_spare(&mut self, spare: Segment) {
        assert_eq!(spare.seq, self.next_seq());
        self.spares.push_back(Arc::new(spare));
    }

    /// The first segment of the log.
    pub(super) fn first_seq(&self) -> u32 {
        self.segments[0].seq
    }

    /// A TRUNC in the segment that is written to leaves entries up to `kept` standing.
    pub(super) fn note_cut(&mut self, kept: LogIndex) {
        let beginning = self.beginnings.last_mut().expect("a log has a segment");
        beginning.lowest_kept = beginning.lowest_kept.min(kept);
    }

    /// With which segment the log may begin if everything up to `floor` can go, thanks to a
    /// snapshot of so many bytes: the number and what stands before it. `None` if it cannot go
    /// shorter.
    /// Beside a large snapshot one segment more than needed stays, so that a server which is a
    /// little behind gets entries and no snapshot; beside a small one it would be most of what the
    /// disk holds.
    pub(super) fn beginning_at(
        &self,
        floor: LogIndex,
        snapshot_bytes: u64,
    ) -> Option<(u32, LogPosition)> {
        let mut spared = snapshot_bytes / SPARED_PART >= u64::from(self.active().file_len);
        let mut lowest_kept = floor;
        let mut found = None;
        for (segment, beginning) in self.segments.iter().zip(&self.beginnings).rev() {
            lowest_kept = lowest_kept.min(beginning.lowest_kept);
            if beginning.after.index <= lowest_kept {
                if !spared {
                    found = Some((segment.seq, beginning.after));
                    break;
                }
                spared = false;
            }
        }
        found.filter(|(seq, _)| *seq > self.first_seq())
    }

    /// The log begins with segment `seq`: gives back those before.
    pub(super) fn begin_at(&mut self, seq: u32) -> Vec<Arc<Segment>> {
        let count = usize_of(seq - self.first_seq());
        assert!(count < self.segments.len(), "the segment in use stays");
        self.beginnings.drain(..count);
        self.segments.drain(..count).collect()
    }

    /// A log that begins behind `after`, in the next spare: gives back the segments of the old one.
    /// Panics if there is no spare.
    pub(super) fn replace(&mut self, after: LogPosition) -> Vec<Arc<Segment>> {
        self.rotate(after);
        let new = self.active().seq;
        self.begin_at(new)
    }

    /// The next spare becomes the segment that is written to, behind the entry `after`. Panics if
    /// there is none.
    pub(super) fn rotate(&mut self, after: LogPosition) {
        let spare = self.spares.pop_front().expect("room_bytes said there is a spare");
        self.segments.push(spare);
        self.beginnings.push(Beginning { after, lowest_kept: after.index });
        self.fill = Fill::empty();
    }

    /// Whether a record fits the segment that is written to.
    pub(super) fn takes(&self, payload_len: u32) -> bool {
        self.fill.takes(self.active().file_len, payload_len)
    }

    /// Payload bytes that fit for certain, if each entry counts `OVERHEAD_BYTES` more. Either all
    /// fit in the segment in use, or all fit in the spare: what is wasted where an entry did not
    /// fit needs no thought.
    pub(super) fn room_bytes(&self) -> u64 {
        let here = room_of(&self.fill, self.active());
        let there = self.spares.front().map_or(0, |spare| room_of(&Fill::empty(), spare));
        here.max(there)
    }

    /// The largest payload that the next segment holds.
    pub(super) fn entry_bytes_max(&self) -> u64 {
        let next = self.spares.front().unwrap_or_else(|| self.active());
        room_of(&Fill::empty(), next)
    }
}

/// The room of one segment. A message holds at most `APPEND_ENTRIES_MAX` entries; where segments
/// are large, their overhead is taken off beforehand, so that a caller who counts only payloads
/// cannot overrun.
fn room_of(fill: &Fill, segment: &Segment) -> u64 {
    let entries = u32_of(limits::APPEND_ENTRIES_MAX);
    let margin = if segment.file_len >= 1024 * 1024 { entries * OVERHEAD_BYTES } else { 0 };
    u64::from(fill.room(segment.file_len).saturating_sub(margin))
}
