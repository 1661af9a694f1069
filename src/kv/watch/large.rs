//! Revisions of many changes, and those who have heard of everything before.
//!
//! ```text
//! look       at each change, a slice a turn: whom it is for → found
//! hand out   to each of those all that is for it, a slice a turn; then it is past the revision
//! ```
//!
//! Until the last of them has got its events, `fed` stands within the revision: nothing of it is
//! freed, and nobody is said to have heard of it who has not. Nobody who is synced hears of a later
//! one meanwhile.
//!
//! Who finds no room falls behind, as with any revision, and takes along what was found for it: one
//! connection may have ten thousand watches, and room for some hundred batches. Who is to hear of
//! more than a batch holds falls behind and reads the revision as history, in slices; so do those
//! for whom there is no place in `found`. Why not all: each of them looks at the whole revision.
//! When ten thousand keys were deleted under a watch of each, that was a hundred million looks, of
//! 7 to 8 s together.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::types::Revision;

use super::super::Store;
use super::super::changes::{ChangeCursor, Event};
use super::super::checkpoint::Sliced;
use super::super::outlet::{Batch, Outlet, Room};
use super::{FALL_STEPS, LARGE_REVISION, MATCHES_MAX, Standing, WatchId, Watches, index};

/// What it costs to write a batch, beside its events. Changes handed out.
const BATCH_STEPS: usize = 3;

/// Changes of a large revision for one watch beyond which it is not waited for that a batch may
/// hold them: nobody is to take the others' places in `found`.
const CHANGES_MAX: u32 = 1024;

/// A large revision on its way to those who are synced.
#[derive(Debug, Default)]
pub(super) struct Large {
    /// Whom a change is for, and which change: its place behind the revision's first. Up to
    /// `MATCHES_MAX`, of 16 bytes each.
    found: Vec<(WatchId, usize)>,
    /// How many are for the watch of a slot.
    counts: Vec<u32>,
    /// How many of those found are handed out; `None`: not all changes were looked at.
    handed: Option<usize>,
}

impl Large {
    /// Counts one more for the watch of a slot. Whether there is a place for it.
    fn takes(&mut self, slot: u32) -> bool {
        let at = index(slot);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.counts[at] <= CHANGES_MAX && self.found.len() < MATCHES_MAX
    }
}

/// What was found of a large revision for those who then found no room: of the one that they read
/// next. For as many changes as are held at once; who comes later reads all of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    of: BTreeMap<WatchId, Box<[usize]>>,
    changes: usize,
}

impl Known {
    fn keep(&mut self, id: WatchId, found: &[(WatchId, usize)]) {
        if self.changes + found.len() <= MATCHES_MAX {
            self.changes += found.len();
            let before = self.of.insert(id, found.iter().map(|(_, behind)| *behind).collect());
            assert!(before.is_none(), "who is behind is found nothing for");
        }
    }

    /// What was found for a watch, for once.
    pub(super) fn take(&mut self, id: WatchId) -> Option<Box<[usize]>> {
        let known = self.of.remove(&id)?;
        self.changes -= known.len();
        Some(known)
    }
}

impl<T: Copy> Watches<T> {
    /// Whether the revision that is to be fed next is large.
    pub(super) fn is_large_next(&self, store: &Store) -> bool {
        self.large.is_some() || self.is_large(store, store.changes.place_of(self.fed.revision))
    }

    /// Whether a revision is large whose first change is at a place: fewer changes make it so if
    /// there are so many synced that these could be more than so many to hand out.
    pub(super) fn is_large(&self, store: &Store, first: usize) -> bool {
        let most = (MATCHES_MAX / self.synced.max(1)).clamp(1, LARGE_REVISION);
        let revision = |place| store.changes.get(place).map(|change| change.revision);
        revision(first).is_some() && revision(first) == revision(first + most)
    }

    /// Goes on with the large revision that is next, as far as a turn goes. Breaks if that is so
    /// far.
    pub(super) fn feed_large(
        &mut self,
        store: &Store,
        outlet: &mut impl Outlet<T>,
        (steps, left): (&mut usize, &mut usize),
        bytes: &mut usize,
    ) -> ControlFlow<()> {
        let first = store.changes.place_of(self.fed.revision);
        let Some(change) = store.changes.get(first) else { return ControlFlow::Break(()) };
        self.fed.revision = change.revision;
        let mut large = self.large.take().unwrap_or_default();
        if large.handed.is_none() && self.look_on(store, first, &mut large, steps) == Sliced::Done {
            large.found.sort_unstable();
            large.handed = Some(0);
        }
        if let Some(handed) = &mut large.handed {
            *handed += self.hand_on(store, first, &large.found[*handed..], outlet, (left, bytes));
            if *handed == large.found.len() {
                self.fed = ChangeCursor::at(change.revision.next());
                return ControlFlow::Continue(());
            }
        }
        self.large = Some(large);
        ControlFlow::Break(())
    }

    /// Looks for those whom the next changes are for.
    fn look_on(
        &mut self,
        store: &Store,
        first: usize,
        large: &mut Large,
        steps: &mut usize,
    ) -> Sliced {
        while *steps > 0 {
            let place = first + self.fed.skip;
            let looked = self.find(store, place);
            let mut hits = std::mem::take(&mut self.hits);
            *steps = steps.saturating_sub(looked + hits.len());
            for slot in hits.drain(..) {
                if large.takes(slot) {
                    large.found.push((self.id_of(slot), self.fed.skip));
                } else {
                    self.fall_behind(slot, self.fed.revision);
                }
            }
            self.hits = hits;
            self.fed.skip += 1;
            if !store.changes.goes_on(place) {
                return Sliced::Done;
            }
        }
        Sliced::More
    }

    /// Hands out what was found, all of a watch at once. Says how much of it.
    fn hand_on(
        &mut self,
        store: &Store,
        first: usize,
        found: &[(WatchId, usize)],
        outlet: &mut impl Outlet<T>,
        (left, bytes): (&mut usize, &mut usize),
    ) -> usize {
        let (revision, oldest) = (self.fed.revision, store.given_up());
        let (mut handed, mut events) = (0, Vec::new());
        for run in found.chunk_by(|one, next| one.0 == next.0) {
            if *left == 0 || *bytes == 0 {
                break;
            }
            handed += run.len();
            *left = left.saturating_sub(run.len() + BATCH_STEPS);
            let id = run[0].0;
            if !self.waits_for(id, revision) {
                continue;
            }
            if outlet.room(self.at(id.slot).to) != Room::Open {
                self.fall_behind(id.slot, revision);
                self.known.keep(id, run);
                *left = left.saturating_sub(FALL_STEPS);
                continue;
            }
            events.clear();
            events.extend(run.iter().map(|(_, behind)| -> Event<'_> {
                let change = store.changes.get(first + behind);
                store.event(change.expect("what is not heard of is held"), oldest)
            }));
            self.at_mut(id.slot).spoke = true;
            match self.write_whole(id.slot, &events, revision.next(), outlet, bytes) {
                // Whatever befalls the others, it does not hear of it again.
                None => self.at_mut(id.slot).cursor = ChangeCursor::at(revision.next()),
                Some(missed) => {
                    self.fall_behind(id.slot, missed);
                    *left = left.saturating_sub(FALL_STEPS);
                }
            }
        }
        handed
    }

    /// Lets one that is behind read what was found for it, in one batch if that holds it. Says how
    /// many bytes it was; `None`: it reads all there is.
    pub(super) fn read_known(
        &mut self,
        store: &Store,
        id: WatchId,
        steps: &mut usize,
        outlet: &mut impl Outlet<T>,
    ) -> Option<usize> {
        let (known, batch_bytes) = (self.known.take(id)?, self.batch_bytes);
        let watcher = self.at_mut(id.slot);
        let revision = watcher.cursor.revision;
        if revision < store.first_change() {
            return None; // and hears that it is compacted
        }
        let (first, oldest) = (store.changes.place_of(revision), store.given_up());
        let changes = known.iter().filter_map(|behind| store.changes.get(first + behind));
        let events: Vec<Event<'_>> = changes.map(|it| store.event(it, oldest)).collect();
        let bytes = events.iter().map(|event| watcher.bytes_of(event)).sum();
        *steps = steps.saturating_sub(events.len() + BATCH_STEPS);
        if bytes > batch_bytes && events.len() > 1 {
            return None;
        }
        (watcher.cursor, watcher.spoke) = (ChangeCursor::at(revision.next()), true);
        let (more, prev_kv) = (false, watcher.prev_kv);
        outlet.write(watcher.to, &Batch { revision, more, events: &events, prev_kv });
        self.behind.short.push_back(id);
        Some(bytes)
    }

    /// Whether a watch for which something was found is still to hear of it: it may have ended, or
    /// have read it as history since.
    fn waits_for(&self, id: WatchId, revision: Revision) -> bool {
        self.get(id).is_some_and(|watcher| {
            watcher.standing == Standing::Synced && watcher.cursor.revision <= revision
        })
    }
}
