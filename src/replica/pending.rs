//! Who waits for which entry: a ring by index, because indexes are dense and entries resolve in
//! order.

use super::connections::ConnectionId;
use crate::types::{LogIndex, LogPosition};
use std::collections::VecDeque;

/// One request that waits for its command to be applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) request: u64,
}

#[derive(Debug)]
struct Entry {
    position: LogPosition,
    waiters: Vec<Waiter>,
}

/// The waiters of all entries proposed here and not applied yet, ascending by index.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    spare: Vec<Vec<Waiter>>,
}

impl Pending {
    /// Notes who waits for the entry at `position`, one waiter per command, in order; leaves
    /// `waiters` empty.
    pub(super) fn push(&mut self, position: LogPosition, waiters: &mut Vec<Waiter>) {
        if let Some(last) = self.entries.back() {
            assert!(last.position < position, "a leader proposes upwards");
        }
        let fresh = self.spare.pop().unwrap_or_default();
        let waiters = std::mem::replace(waiters, fresh);
        self.entries.push_back(Entry { position, waiters });
    }

    /// The waiters of the entry about to be applied, if this node proposed exactly that entry.
    /// Waiters of another entry at or below its index wait in vain: they come back through `lost`.
    pub(super) fn take(&mut self, position: LogPosition, lost: &mut Vec<Waiter>) -> Vec<Waiter> {
        while let Some(first) = self.entries.front() {
            if first.position.index > position.index {
                break;
            }
            let entry = self.entries.pop_front().expect("there is a first one");
            if entry.position == position {
                return entry.waiters;
            }
            lost.extend_from_slice(&entry.waiters);
        }
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back those of an entry that is half applied who are not answered yet. It is the first.
    pub(super) fn put_back(
        &mut self,
        position: LogPosition,
        mut waiters: Vec<Waiter>,
        done: usize,
    ) {
        waiters.drain(..done);
        if waiters.is_empty() {
            return self.recycle(waiters);
        }
        assert!(self.entries.front().is_none_or(|first| position < first.position));
        self.entries.push_front(Entry { position, waiters });
    }

    /// Hands back a list from `take`, so that it is reused.
    pub(super) fn recycle(&mut self, mut waiters: Vec<Waiter>) {
        waiters.clear();
        if self.spare.len() < 64 {
            self.spare.push(waiters);
        }
    }

    /// Moves every waiter above `index` to `lost`: leadership has ended, their outcome is unknown
    /// here.
    pub(super) fn drop_after(&mut self, index: LogIndex, lost: &mut Vec<Waiter>) {
        while let Some(last) = self.entries.back() {
            if last.position.index <= index {
                break;
            }
            let entry = self.entries.pop_back().expect("there is a last one");
            lost.extend_from_slice(&entry.waiters);
            self.recycle(entry.waiters);
        }
    }
}
