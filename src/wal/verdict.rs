//! Torn or damaged? The rules L1 to L4 (spec/README.md §6, rules 1–4), and the replay of what is
//! whole.
//!
//! A bad range is **torn**, and dropped with all that follows, only if it lies beyond the
//! watermark, in the last
//! batch, and shows a sector that was never written. Everything else is damage: something
//! acknowledged may be
//! gone, so nothing is dropped and nothing is written.

use super::Place;
use super::locations::{Locations, Meta};
use super::record::{FIRST, Header, RecordKind};
use super::recovery::{Found, Item};
use crate::types::{EntryKind, LogIndex, LogPosition, Term};

/// The log that a directory's records amount to.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) locations: Locations,
    /// Positions of the configuration entries in force.
    pub(super) configurations: Vec<LogIndex>,
    /// The largest commit index that any record knew.
    pub(super) commit: LogIndex,
    /// Where the torn tail begins, if there is one.
    pub(super) torn_at: Option<Place>,
    /// Whole records read.
    pub(super) records: u64,
}

/// What is damaged: the indexes `after` to `before`, both exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    pub(super) place: Place,
    pub(super) first: LogIndex,
    /// The last damaged index; `None` if nothing behind the range tells.
    pub(super) last: Option<LogIndex>,
    pub(super) rule: &'static str,
}

/// Weighs every bad range, then replays the records before the first torn one.
pub(super) fn judge(items: &[Item]) -> Result<Replayed, Damage> {
    let headers = || items.iter().filter_map(header_of);
    let watermark = headers().map(|header| header.synced).max().unwrap_or_default();
    let commit = headers().map(|header| header.commit).max().unwrap_or_default();
    let last_first = items
        .iter()
        .rposition(|item| header_of(item).is_some_and(|header| header.flags & FIRST != 0));
    let mut torn = None;
    for (nth, item) in items.iter().enumerate() {
        let shows_tear = match item.found {
            Found::Record(_) => continue,
            Found::BadPayload { torn, .. } | Found::BadHeader { torn, .. } => torn,
        };
        let in_last_batch = last_first.is_none_or(|first| nth >= first);
        if item.place < watermark || !in_last_batch {
            return Err(damage(items, nth, "L1: it was synced before what follows it"));
        }
        if !shows_tear {
            let rule = match item.found {
                Found::BadPayload { .. } => "L3: its header is whole and no sector is missing",
                Found::BadHeader { .. } | Found::Record(_) => "L4: its header is garbage",
            };
            return Err(damage(items, nth, rule));
        }
        torn = Some(nth);
        break;
    }
    let mut whole = &items[..torn.unwrap_or(items.len())];
    if torn.is_some() {
        // A TRUNC whose entries are torn was not acknowledged: the old suffix is back, as it may
        // be.
        while let Some((Item { found: Found::Record(header), .. }, before)) = whole.split_last()
            && header.kind == RecordKind::Truncate
            && header.position.index >= commit
        {
            whole = before;
        }
    }
    let mut replayed = replay(whole, commit)?;
    replayed.torn_at = items.get(whole.len()).filter(|_| torn.is_some()).map(|item| item.place);
    if replayed.locations.last().index < commit {
        let rule = "L1: a later record knew more entries to be committed";
        let first = replayed.locations.last().index.next();
        let place = replayed.torn_at.or(items.last().map(|item| item.place)).unwrap_or_default();
        return Err(Damage { place, first, last: Some(commit), rule });
    }
    Ok(replayed)
}

fn header_of(item: &Item) -> Option<&Header> {
    match &item.found {
        Found::Record(header) | Found::BadPayload { header, .. } => Some(header),
        Found::BadHeader { .. } => None,
    }
}

fn damage(items: &[Item], nth: usize, rule: &'static str) -> Damage {
    let place = items[nth].place;
    if let Found::BadPayload { header, .. } = items[nth].found {
        return Damage {
            place,
            first: header.position.index,
            last: Some(header.position.index),
            rule,
        };
    }
    let before = items[..nth].iter().rev().find_map(header_of);
    let after = items[nth..].iter().filter_map(header_of).next();
    let first = before.map_or(LogIndex::ZERO, |header| header.position.index).next();
    let last = after.map(|header| match header.kind {
        RecordKind::Entry(_) => header.position.index,
        RecordKind::Truncate | RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => {
            header.position.index.next()
        }
    });
    let last = last.filter(|last| *last > first).map(LogIndex::prev);
    Damage { place, first, last, rule }
}

/// Replays whole records in the order of the files: an entry at or below the end, like a TRUNC,
/// cuts what it
/// overrides.
fn replay(items: &[Item], commit: LogIndex) -> Result<Replayed, Damage> {
    let mut replayed = Replayed {
        locations: Locations::new(LogPosition::ZERO),
        configurations: Vec::new(),
        commit,
        torn_at: None,
        records: 0,
    };
    let mut known_commit = LogIndex::ZERO;
    for item in items {
        let Found::Record(header) = item.found else { continue };
        replayed.records += 1;
        let cut = match header.kind {
            RecordKind::Entry(kind) => {
                replay_entry(&mut replayed, item.place, &header, kind, known_commit)
            }
            RecordKind::Truncate => cut_to(&mut replayed, header.position, known_commit),
            RecordKind::Pad | RecordKind::Footer | RecordKind::SyncMark => Ok(()),
        };
        if let Err(rule) = cut {
            let index = header.position.index;
            return Err(Damage { place: item.place, first: index, last: Some(index), rule });
        }
        known_commit = known_commit.max(header.commit);
    }
    Ok(replayed)
}

fn replay_entry(
    replayed: &mut Replayed,
    place: Place,
    header: &Header,
    kind: EntryKind,
    commit: LogIndex,
) -> Result<(), &'static str> {
    let position = header.position;
    if position.index == LogIndex::ZERO {
        return Err("an entry at index 0");
    }
    let before = position.index.prev();
    let last = replayed.locations.last();
    if position.index > last.index.next() {
        return Err("the entries before it are missing");
    }
    if position.index <= last.index {
        let term = replayed.locations.term_at(before).unwrap_or(Term::ZERO);
        cut_to(replayed, LogPosition::new(term, before), commit)?;
    }
    if replayed.locations.last().term != header.prev_term || position.term < header.prev_term {
        return Err("it follows an entry that is not in the log");
    }
    let meta = Meta {
        term: position.term,
        kind,
        bytes: header.payload_len,
        payload_crc: header.payload_crc,
        place,
    };
    replayed.locations.push(position.index, meta);
    if kind == EntryKind::Configuration {
        replayed.configurations.push(position.index);
    }
    Ok(())
}

fn cut_to(replayed: &mut Replayed, to: LogPosition, commit: LogIndex) -> Result<(), &'static str> {
    if to.index < commit {
        return Err("it would cut committed entries");
    }
    if replayed.locations.term_at(to.index) != Some(to.term) {
        return Err("it names an entry that is not in the log");
    }
    replayed.locations.truncate(to.index);
    replayed.configurations.retain(|index| *index <= to.index);
    Ok(())
}
