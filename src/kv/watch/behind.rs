//! Those who are behind: who of them reads on, and how far.
//!
//! ```text
//! short     who has just come: reads one slice, and is mostly done with it
//! long      whoever was not: the first of them reads until it is done, then the next
//! ```
//!
//! Each line has half of a turn, and what the other leaves of its half. If all took turns, each
//! would have read a slice when as much as a slice has happened to all of them, and thousands with
//! a short way to go would get there never.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::types::Revision;

use super::super::Store;
use super::super::changes::Event;
use super::super::checkpoint::Sliced;
use super::super::outlet::{Batch, Outlet, Room, WatchEnd};
use super::{STEPS_PER_TURN, Standing, WatchId, Watches};

/// Changes that a watch reads at once.
const SLICE_STEPS: usize = 1024;

/// The names of those who are behind, and of some who are not any more.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) short: VecDeque<WatchId>,
    pub(super) long: VecDeque<WatchId>,
}

#[derive(Clone, Copy)]
enum Line {
    Short,
    Long,
}

impl Behind {
    pub(super) fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty()
    }

    pub(super) fn retain(&mut self, stays: impl Fn(WatchId) -> bool) {
        self.short.retain(|id| stays(*id));
        self.long.retain(|id| stays(*id));
    }

    fn line(&mut self, line: Line) -> &mut VecDeque<WatchId> {
        match line {
            Line::Short => &mut self.short,
            Line::Long => &mut self.long,
        }
    }
}

impl<T: Copy> Watches<T> {
    pub(super) fn queue(&mut self, slot: u32) {
        self.at_mut(slot).standing = Standing::Behind;
        self.behind.short.push_back(self.id_of(slot));
    }

    /// Lets them read on, as far as a turn goes.
    pub(super) fn catch_up(
        &mut self,
        store: &Store,
        outlet: &mut impl Outlet<T>,
        bytes: &mut usize,
    ) {
        let mut steps = STEPS_PER_TURN;
        let half = STEPS_PER_TURN / 2;
        for (line, left) in [(Line::Short, half), (Line::Long, 0), (Line::Short, 0)] {
            while steps > left
                && let Some(id) = self.behind.line(line).front().copied()
            {
                let Some(watcher) = self.get(id).filter(|it| it.standing == Standing::Behind)
                else {
                    self.behind.line(line).pop_front();
                    steps -= 1;
                    continue;
                };
                let room = outlet.room(watcher.to);
                if *bytes == 0 || room == Room::Full {
                    return;
                }
                self.behind.line(line).pop_front();
                if room == Room::Parked {
                    self.at_mut(id.slot).standing = Standing::Parked;
                    steps = steps.saturating_sub(1 + self.leave_index(id.slot));
                } else {
                    let written = self.read_on(store, id, &mut steps, outlet);
                    *bytes = bytes.saturating_sub(written);
                }
            }
        }
    }

    /// Lets one watch read a slice of history. Says how many bytes it was.
    fn read_on(
        &mut self,
        store: &Store,
        id: WatchId,
        steps: &mut usize,
        outlet: &mut impl Outlet<T>,
    ) -> usize {
        if let Some(bytes) = self.read_known(store, id, steps, outlet) {
            return bytes;
        }
        let (slice, batch_bytes) = (SLICE_STEPS.min(*steps), self.batch_bytes);
        let watcher = self.at_mut(id.slot);
        let (mut bytes, mut count) = (0, 0_usize);
        let mut events = Vec::new();
        let mut cursor = watcher.cursor;
        let read = store.read_changes(&mut cursor, slice, &mut |event| {
            count += 1;
            if watcher.wants(&event) {
                bytes += watcher.bytes_of(&event);
                events.push(event);
            }
            if bytes < batch_bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        // Even who finds nothing has taken a turn.
        *steps = steps.saturating_sub(count.max(1));
        let Ok(sliced) = read else {
            let compact_revision = store.compact_revision;
            outlet.end(watcher.to, WatchEnd::Compacted { compact_revision });
            self.close(id);
            return 0;
        };
        watcher.cursor = cursor;
        // Whoever stands within a revision and has got a part of it is owed the rest.
        let begun = events.last().map(Event::revision).or(watcher.owed);
        let owed = begun.filter(|begun| cursor.is_within() && *begun == cursor.revision);
        let ended = std::mem::replace(&mut watcher.owed, owed).is_some() && owed.is_none();
        if ended || !events.is_empty() {
            let revision = Revision(cursor.revision.0 - 1);
            let (more, prev_kv) = (owed.is_some(), watcher.prev_kv);
            watcher.spoke = true;
            outlet.write(watcher.to, &Batch { revision, more, events: &events, prev_kv });
        }
        let spent = match sliced {
            Sliced::Done => self.join(id.slot),
            Sliced::More => {
                self.behind.long.push_front(id);
                self.leave_index(id.slot)
            }
        };
        *steps = steps.saturating_sub(spent);
        bytes
    }
}
