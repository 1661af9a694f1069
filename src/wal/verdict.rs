//! Torn or damaged? The rules L1–L4, and rules 1–4 of the model-checked repair protocol.
//!
//! One sync job is in flight at a time, and the writes of a batch begin only when the sync of the
//! one before has returned. So whatever lies before the watermark (the largest W in a valid header,
//! or the place of the last record that is first of its batch) was synced, and may have been
//! acknowledged.
//!
//! ```text
//!                                        before the watermark   behind it, all in the last batch
//! payload bad, a zero sector in it       FAULTY (L1)            torn: cut here (L2)
//! payload bad, no zero sector            FAULTY (L1)            FAULTY (L3)
//! header bad, its sector zero            by the neighbours      torn: cut here (L2)
//! header bad, its sector not zero        by the neighbours      by the neighbours (L4)
//! PAD, SYNCMARK, FOOTER: payload bad     nothing is lost        zero sector: torn, else nothing
//! ```
//!
//! By the neighbours: the FOOTER's rows name what stood in the hole; else the record behind the
//! hole names the entry before it, and if that has the term of the last entry before the hole, all
//! entries between have it too, and no truncation can hide there (one leader made them). Those
//! entries are FAULTY: lost, but known. Otherwise nothing can be told: UNCERTAIN.

use super::record::{Place, RecordHead, RecordKind};
use super::scan::{PayloadState, Trace};
use crate::types::{LogIndex, LogPosition, Term};

/// Whether what stood at a place may have been acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    /// The place lies before the watermark: it was synced.
    Synced,
    /// It lies in the last batch, whose sync nothing proves.
    Unproven,
}

impl Proof {
    /// Judges by file position, never by index: after a truncation the index of W names newer
    /// records.
    pub(super) fn of(place: Place, watermark: Place) -> Proof {
        if place < watermark { Proof::Synced } else { Proof::Unproven }
    }
}

/// What is to be done about a record with a valid header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordVerdict {
    /// Take it.
    Whole,
    /// Never acknowledged: the log ends before it.
    Torn,
    /// Its payload is lost, its identity known.
    Faulty,
    /// Its payload is lost, and held nothing.
    Harmless,
}

/// L1, L2 and L3 for a record whose header is valid.
pub(super) fn judge_record(kind: RecordKind, payload: PayloadState, proof: Proof) -> RecordVerdict {
    match (payload, proof) {
        (PayloadState::Whole, _) => RecordVerdict::Whole,
        (PayloadState::Bad(Trace::ZeroSector), Proof::Unproven) => RecordVerdict::Torn,
        (PayloadState::Bad(_), _) => match kind {
            RecordKind::Entry(_) => RecordVerdict::Faulty,
            RecordKind::Trunc | RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => {
                RecordVerdict::Harmless
            }
        },
    }
}

/// L2 for a hole: whether it is a tear.
pub(super) fn is_torn(trace: Trace, proof: Proof) -> bool {
    match proof {
        Proof::Synced => false,
        Proof::Unproven => trace == Trace::ZeroSector,
    }
}

/// What the record behind a hole says of the hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HoleVerdict {
    /// No entry and no truncation that mattered stood in it.
    Nothing,
    /// It held the entries above the last one before it, up to this one, all of one term.
    Entries {
        /// The last of them.
        last: LogIndex,
        /// Their term.
        term: Term,
    },
    /// It cannot be told.
    Unknown,
}

/// Rule 3. `last` is the last entry before the hole, `term_at` the terms of the log up to there.
pub(super) fn judge_hole(
    last: LogPosition,
    successor: &RecordHead,
    term_at: impl Fn(LogIndex) -> Option<Term>,
) -> HoleVerdict {
    let before = match successor.kind {
        RecordKind::Entry(_) => match successor.position.index.get().checked_sub(1) {
            Some(index) => LogPosition::new(successor.prev_term, LogIndex::new(index)),
            None => return HoleVerdict::Unknown,
        },
        // These name the last entry, or the one that becomes the last.
        RecordKind::Trunc | RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => {
            successor.position
        }
    };
    let pinned = term_at(before.index.min(last.index)) == Some(before.term);
    if !pinned {
        HoleVerdict::Unknown
    } else if before.index <= last.index {
        HoleVerdict::Nothing
    } else {
        HoleVerdict::Entries { last: before.index, term: before.term }
    }
}
