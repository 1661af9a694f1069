//! What a watch asks for, and what comes out of it: the words between `watch` and whoever sends the
//! events.

use crate::types::Revision;

use super::changes::Event;
use super::command::RangeEnd;

/// What a watch is to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchSpec<'a> {
    /// The first key.
    pub key: &'a [u8],
    /// Where the range ends.
    pub end: RangeEnd<'a>,
    /// From this revision on; 0: from now on.
    pub start: Revision,
    /// With what was there before.
    pub prev_kv: bool,
    /// Not of puts.
    pub no_put: bool,
    /// Not of deletes.
    pub no_delete: bool,
}

/// Events on their way to a watch.
pub struct Batch<'b, 's> {
    /// Nothing up to this revision is missing, once the batch has come.
    pub revision: Revision,
    /// The revision behind has begun, and goes on in the next batch.
    pub more: bool,
    /// They, in order. None: the batch says how far the watch is.
    pub events: &'b [Event<'s>],
    /// With what was there before.
    pub prev_kv: bool,
}

/// Whether a batch may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It may.
    Open,
    /// Not to this one, until `unpark`.
    Parked,
    /// To nobody for now.
    Full,
}

/// Why a watch has ended without being asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchEnd {
    /// What it had not got yet is compacted.
    Compacted {
        /// The oldest revision that is still there.
        compact_revision: Revision,
    },
    /// Another state took the place of this one in the middle of a revision.
    Interrupted,
}

/// Where batches go.
pub trait Outlet<T> {
    /// Whether it takes a batch of any size.
    fn room(&mut self, to: T) -> Room;
    /// Takes one.
    fn write(&mut self, to: T, batch: &Batch<'_, '_>);
    /// The watch is no more.
    fn end(&mut self, to: T, why: WatchEnd);
}
