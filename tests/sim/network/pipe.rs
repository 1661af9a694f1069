//! A connection: two ends, and bytes in order on their way to each.

use raftd::replica::ConnectionId;
use std::collections::VecDeque;

/// A pipe's name: a slot, and which use of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PipeKey {
    slot: usize,
    generation: u64,
}

/// Who holds an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Node { machine: usize, connection: ConnectionId },
    Client { client: usize },
}

/// What is under way.
#[derive(Debug)]
pub(crate) enum Item {
    Bytes(Vec<u8>),
    End,
}

/// The way to one end.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<(u64, Item)>,
    pub(crate) last_at: u64,
    /// Since when a cut holds it up.
    pub(crate) stalled_since: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    /// The dialer's first.
    pub(crate) ends: [End; 2],
    /// To each end.
    pub(crate) lanes: [Lane; 2],
    pub(crate) open: [bool; 2],
    /// Frames that each end has said.
    pub(crate) said: [u64; 2],
    /// An end is about to hear that the other is gone.
    pub(crate) resetting: [bool; 2],
    /// Both ends are members.
    pub(crate) members: bool,
}

impl Pipe {
    /// Where an end is; clients are behind the last machine.
    pub(crate) fn place(&self, side: usize, machines: usize) -> usize {
        match self.ends[side] {
            End::Node { machine, .. } => machine,
            End::Client { .. } => machines,
        }
    }

    pub(crate) fn machine(&self, side: usize) -> Option<usize> {
        match self.ends[side] {
            End::Node { machine, .. } => Some(machine),
            End::Client { .. } => None,
        }
    }
}

/// All pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    slots: Vec<Option<(u64, Pipe)>>,
    generation: u64,
}

impl Pipes {
    pub(crate) fn add(&mut self, ends: [End; 2]) -> PipeKey {
        self.generation += 1;
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        let members = ends.iter().all(|end| matches!(end, End::Node { .. }));
        let pipe = Pipe {
            ends,
            lanes: Default::default(),
            open: [true; 2],
            said: [0; 2],
            resetting: [false; 2],
            members,
        };
        self.slots[slot] = Some((self.generation, pipe));
        PipeKey { slot, generation: self.generation }
    }

    pub(crate) fn get(&self, key: PipeKey) -> Option<&Pipe> {
        let (generation, pipe) = self.slots.get(key.slot)?.as_ref()?;
        (*generation == key.generation).then_some(pipe)
    }

    pub(crate) fn get_mut(&mut self, key: PipeKey) -> Option<&mut Pipe> {
        let (generation, pipe) = self.slots.get_mut(key.slot)?.as_mut()?;
        (*generation == key.generation).then_some(pipe)
    }

    /// Forgets a pipe of which nobody holds an end.
    pub(crate) fn forget_if_closed(&mut self, key: PipeKey) {
        if self.get(key).is_some_and(|pipe| pipe.open == [false; 2]) {
            self.slots[key.slot] = None;
        }
    }

    pub(crate) fn keys(&self) -> Vec<PipeKey> {
        let all = self.slots.iter().enumerate();
        all.filter_map(|(slot, pipe)| {
            pipe.as_ref().map(|(generation, _)| PipeKey { slot, generation: *generation })
        })
        .collect()
    }

    /// The newest pipe that `dialer` dialed to `accepter` and that both hold.
    pub(crate) fn between(&self, dialer: usize, accepter: usize) -> Option<PipeKey> {
        let newest = self.slots.iter().enumerate().filter_map(|(slot, pipe)| {
            let (generation, pipe) = pipe.as_ref()?;
            let ends = (pipe.machine(0), pipe.machine(1));
            let fits = ends == (Some(dialer), Some(accepter)) && pipe.open == [true; 2];
            fits.then_some(PipeKey { slot, generation: *generation })
        });
        newest.max_by_key(|key| key.generation)
    }
}
