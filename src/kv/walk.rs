//! A range in slices: however many keys it has, a turn looks at a few of them.
//!
//! ```text
//! looking     entry by entry, from either end of the range: counts, filters; answers at once, or
//!             notes in a ranking what is to be sorted
//! ordering    the ranking is put into order
//! answering   its keys, one after the other
//! ```
//!
//! All of it is of one revision, which the store keeps for it between two slices (`pin_walk`): the
//! version that a reader at that revision sees is superseded above it, and what is due above the
//! lowest pinned revision is not freed. So a version's id stays good from one slice to the next. A
//! key's place is its name, for the key itself may be gone.
//!
//! Why not page by page, as a client could: every page counts the whole range, and compaction takes
//! the revision away between two of them.

use std::ops::{Bound, ControlFlow};

use crate::types::Revision;

use super::Store;
use super::answer::bytes_of;
use super::checkpoint::{SliceLimits, Sliced};
use super::command::RangeEnd;
use super::keys::{KeyEntry, KeyId};
use super::range::{KeyValueRef, RangeError, RangeRequest, RangeSummary, key_value};
use super::ranking::Ranking;
use super::versions::{Version, VersionId};

/// A version lies elsewhere than its key, and its value elsewhere again. Steps.
const VERSION_STEPS: usize = 3;

/// What is copied, or held against as much, in the time that a step takes. Bytes.
const STEP_BYTES: usize = 256;

/// A range under way.
#[derive(Debug)]
pub struct RangeWalk {
    /// What it reads.
    at: Revision,
    /// The store's revision when it began.
    revision: Revision,
    phase: Phase,
    ranking: Ranking,
    count: u64,
    /// Of those counted, how many the filters leave out.
    filtered: u64,
    taken: u64,
    /// The visitor wants no more.
    stopped: bool,
}

/// How far a walk is.
#[derive(Debug)]
enum Phase {
    Looking(Place),
    /// So many of the ranking are in no order yet.
    Ordering(usize),
    /// From this one of the ranking on.
    Answering(usize),
    Done,
}

/// Where the look goes on.
#[derive(Debug)]
enum Place {
    Start,
    /// Behind this key, in the direction of the walk.
    Behind(Box<[u8]>),
    /// In the chain of this key.
    Within {
        key: Box<[u8]>,
        version: VersionId,
    },
}

/// What became of the look at a key.
enum Look {
    Passed,
    /// The slice ends in its chain.
    Unfinished(VersionId),
    /// It is to be answered in the next slice.
    NoRoom,
}

/// What is left of a slice.
pub(super) struct Slice<'l> {
    left: &'l mut SliceLimits,
    /// Nothing is answered yet: whatever comes first fits.
    empty: bool,
    full: bool,
}

impl Slice<'_> {
    pub(super) fn goes_on(&self) -> bool {
        self.left.steps > 0 && !self.full
    }

    pub(super) fn spend(&mut self, steps: usize) {
        self.left.steps = self.left.steps.saturating_sub(steps);
    }

    /// So many bytes were looked at, or copied.
    pub(super) fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / STEP_BYTES);
    }

    /// Whether a key of so many bytes still fits.
    fn takes(&mut self, bytes: usize) -> bool {
        if bytes > self.left.bytes && !self.empty {
            self.full = true;
            return false;
        }
        self.left.bytes = self.left.bytes.saturating_sub(bytes);
        self.spend_bytes(bytes);
        self.empty = false;
        true
    }
}

impl RangeWalk {
    /// The store's revision when it began.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision that it reads.
    pub fn at(&self) -> Revision {
        self.at
    }

    /// What it found. Whole once it is done.
    pub fn summary(&self, request: &RangeRequest<'_>) -> RangeSummary {
        let RangeWalk { revision, count, filtered, taken, .. } = *self;
        RangeSummary { revision, count, more: !request.count_only && taken + filtered < count }
    }

    /// What it holds from one slice to the next. Bytes.
    pub fn bytes(&self) -> usize {
        let place = match &self.phase {
            Phase::Looking(Place::Behind(key) | Place::Within { key, .. }) => key.len(),
            Phase::Looking(Place::Start)
            | Phase::Ordering(_)
            | Phase::Answering(_)
            | Phase::Done => 0,
        };
        place + self.ranking.bytes()
    }
}

impl Store {
    /// Begins a range. Nothing of it is looked at yet, and nothing is kept for it.
    pub fn begin_walk(&self, request: &RangeRequest<'_>) -> Result<RangeWalk, RangeError> {
        let at = self.readable(request.revision)?;
        Ok(RangeWalk {
            at,
            revision: self.revision,
            phase: Phase::Looking(Place::Start),
            ranking: Ranking::new(request),
            count: 0,
            filtered: 0,
            taken: 0,
            stopped: false,
        })
    }

    /// Keeps what a walk reads until `unpin_walk`. To be called before anything else changes.
    pub fn pin_walk(&mut self, walk: &RangeWalk) {
        *self.walks.entry(walk.at).or_default() += 1;
    }

    /// Lets go of what was kept for a walk.
    pub fn unpin_walk(&mut self, walk: &RangeWalk) {
        let count = self.walks.get_mut(&walk.at).expect("it was pinned in this store");
        *count -= 1;
        if *count == 0 {
            self.walks.remove(&walk.at);
        }
    }

    /// The lowest revision that is kept for walks, and how many bytes of what is compacted.
    pub fn kept_for_walks(&self) -> Option<(Revision, u64)> {
        let (lowest, _) = self.walks.first_key_value()?;
        Some((*lowest, self.history.compacted_after(*lowest)))
    }

    /// Walks on with a range until the slice is used up, which `left` says, and visits what is to
    /// be answered. Bytes are those of what is visited; one key always fits. Panics if the walk was
    /// not pinned and the store has changed meanwhile.
    pub fn walk(
        &self,
        request: &RangeRequest<'_>,
        walk: &mut RangeWalk,
        left: &mut SliceLimits,
        visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
    ) -> Sliced {
        let kept = walk.revision == self.revision || self.walks.contains_key(&walk.at);
        assert!(kept, "what a walk reads is kept for it");
        let mut slice = Slice { left, empty: true, full: false };
        while slice.goes_on() {
            let phase = std::mem::replace(&mut walk.phase, Phase::Done);
            walk.phase = match phase {
                Phase::Looking(place) => self.look(request, walk, &mut slice, place, visit),
                Phase::Ordering(unordered) => {
                    match walk.ranking.order(self, unordered, &mut slice) {
                        0 => Phase::Answering(0),
                        unordered => Phase::Ordering(unordered),
                    }
                }
                Phase::Answering(next) => self.answer(request, walk, &mut slice, next, visit),
                Phase::Done => return Sliced::Done,
            };
        }
        match walk.phase {
            Phase::Done => Sliced::Done,
            Phase::Looking(_) | Phase::Ordering(_) | Phase::Answering(_) => Sliced::More,
        }
    }

    fn look(
        &self,
        request: &RangeRequest<'_>,
        walk: &mut RangeWalk,
        slice: &mut Slice<'_>,
        place: Place,
        visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
    ) -> Phase {
        let mut within = match &place {
            Place::Within { version, .. } => Some(*version),
            Place::Start | Place::Behind(_) => None,
        };
        let mut entries = self.entries_from(request, &place);
        let mut last: Option<&[u8]> = None;
        while slice.goes_on() {
            let Some((name, id)) = entries() else {
                let sorts = request.selection.sorts() && !request.count_only;
                return if sorts { Phase::Ordering(walk.ranking.len()) } else { Phase::Done };
            };
            slice.spend(1);
            match self.look_at(request, walk, slice, (id, within.take()), visit) {
                Look::Passed => last = Some(name),
                Look::Unfinished(version) => {
                    return Phase::Looking(Place::Within { key: name.into(), version });
                }
                Look::NoRoom => {}
            }
        }
        Phase::Looking(last.map_or(place, |key| Place::Behind(key.into())))
    }

    /// The keys of a range that have versions, from a place on, in the order of the walk.
    fn entries_from<'s>(
        &'s self,
        request: &RangeRequest<'_>,
        place: &Place,
    ) -> impl FnMut() -> Option<(&'s [u8], KeyId)> + use<'s> {
        let (key, backwards) = (request.key, request.selection.is_backwards());
        let (mut alone, mut many) = (None, None);
        if request.end == RangeEnd::Key {
            let found = self.find(self.index.hash(key), key);
            let found = found.filter(|_| !matches!(place, Place::Behind(_)));
            alone = found.map(|id| (self.keys.at(id).name(), id));
        } else {
            let mut first = Bound::Included(key);
            let mut last = match request.end {
                // The map panics if a range ends before it starts; ours is then empty.
                RangeEnd::Before(end) => Bound::Excluded(end.max(key)),
                RangeEnd::Key | RangeEnd::Unbounded => Bound::Unbounded,
            };
            let next = if backwards { &mut last } else { &mut first };
            match place {
                Place::Start => {}
                Place::Behind(key) => *next = Bound::Excluded(key),
                Place::Within { key, .. } => *next = Bound::Included(key),
            }
            many = Some(self.ordered.range::<[u8], _>((first, last)));
        }
        move || {
            let next = many.as_mut().and_then(|many| {
                let found = if backwards { many.next_back() } else { many.next() };
                found.map(|(name, id)| (&**name, *id))
            });
            next.or_else(|| alone.take())
        }
    }

    /// Looks at one key: from a version of it on, if an earlier slice ended there.
    fn look_at(
        &self,
        request: &RangeRequest<'_>,
        walk: &mut RangeWalk,
        slice: &mut Slice<'_>,
        (id, within): (KeyId, Option<VersionId>),
        visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
    ) -> Look {
        let entry = self.keys.at(id);
        let (limit, sorts) = (request.limit, request.selection.sorts());
        let enough = walk.stopped || (!sorts && limit > 0 && walk.taken >= limit);
        let only_counts = request.count_only || enough;
        let present = walk.at == self.revision && !self.is_halfway();
        if only_counts && present && !request.selection.filters() {
            // Counting the present needs no version. Half of a delete is not the present.
            walk.count += u64::from(entry.is_live());
            return Look::Passed;
        }
        let mut at = within.unwrap_or(entry.newest);
        let version = loop {
            slice.spend(VERSION_STEPS);
            let version = self.versions.at(at);
            if version.mod_revision <= walk.at.0 {
                break version;
            }
            if version.older == VersionId::NONE {
                return Look::Passed;
            }
            at = version.older;
            if !slice.goes_on() {
                return Look::Unfinished(at);
            }
        };
        if version.is_tombstone() {
            return Look::Passed;
        }
        if !request.selection.takes(&version) {
            walk.filtered += 1;
        } else if !only_counts && sorts {
            walk.ranking.consider(self, (id, at), slice);
        } else if !only_counts && !show(request, walk, slice, (entry, version), visit) {
            return Look::NoRoom;
        }
        walk.count += 1;
        Look::Passed
    }

    fn answer(
        &self,
        request: &RangeRequest<'_>,
        walk: &mut RangeWalk,
        slice: &mut Slice<'_>,
        mut next: usize,
        visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
    ) -> Phase {
        while slice.goes_on() {
            let Some((key, version)) = walk.ranking.at(next).filter(|_| !walk.stopped) else {
                return Phase::Done;
            };
            slice.spend(1 + VERSION_STEPS);
            let found = (self.keys.at(key), self.versions.at(version));
            next += usize::from(show(request, walk, slice, found, visit));
        }
        Phase::Answering(next)
    }
}

/// Visits a key, if the slice has room for it.
fn show(
    request: &RangeRequest<'_>,
    walk: &mut RangeWalk,
    slice: &mut Slice<'_>,
    (entry, version): (&KeyEntry, Version<'_>),
    visit: &mut dyn FnMut(KeyValueRef<'_>) -> ControlFlow<()>,
) -> bool {
    let mut found = key_value(entry, version);
    if request.keys_only {
        found.value = &[];
    }
    if !slice.takes(bytes_of(&found)) {
        return false;
    }
    match visit(found) {
        ControlFlow::Continue(()) => walk.taken += 1,
        ControlFlow::Break(()) => walk.stopped = true,
    }
    true
}
