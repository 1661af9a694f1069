//! What is going to happen, in order of true time; what is due at the same time in the order in
//! which it was asked for.

use crate::network::PipeKey;
use crate::options::Class;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens. Numbers of machines and clients count from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    /// A node takes a turn.
    Turn {
        machine: usize,
    },
    /// Bytes, or the end, arrive at this side of a pipe.
    Deliver {
        pipe: PipeKey,
        side: usize,
    },
    /// A connection that got nothing through is given up.
    Expire {
        pipe: PipeKey,
        side: usize,
        since: u64,
    },
    /// One side of a pipe learns that the other is gone.
    Reset {
        pipe: PipeKey,
        side: usize,
    },
    /// A dial reaches its target, or fails.
    Dial {
        machine: usize,
        boot: u32,
        peer: usize,
    },
    DialFailed {
        machine: usize,
        boot: u32,
        peer: usize,
    },
    /// The next operation of the sync job.
    Operation {
        machine: usize,
        boot: u32,
    },
    /// The background step.
    Background {
        machine: usize,
        boot: u32,
    },
    /// Power is back, or the process is started again.
    Boot {
        machine: usize,
    },
    /// A pause ends.
    Resume {
        machine: usize,
    },
    /// A client has something to ask.
    Ask {
        client: usize,
    },
    /// A client's patience with a request ends.
    Timeout {
        client: usize,
        request: u64,
    },
    /// A client sees to its watches.
    Watch {
        client: usize,
    },
    /// A client tries an op again.
    Retry {
        client: usize,
        op: u64,
    },
    /// A frame that was held back or copied is said now.
    Frame {
        held: usize,
    },
    /// Something of a kind breaks.
    Break {
        class: Class,
    },
    /// The next step of a fault that has several.
    Begin {
        prepared: usize,
        lasts_ns: u64,
    },
    /// Somebody loses power, where nothing else breaks.
    LosePower,
    /// All is mended, if that was too much.
    Relieve,
    /// A fault ends.
    Mend {
        fault: usize,
    },
    /// The end of a leader's log rots, while a follower waits for it.
    Rot {
        machine: usize,
    },
    /// A server whose state is wrong is killed, once it knows that.
    EndSilent {
        machine: usize,
    },
    /// A flapping link changes.
    Flap {
        fault: usize,
    },
}

#[derive(Default, Debug)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    asked: u64,
}

impl Queue {
    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.asked += 1;
        self.heap.push(Reverse((time, self.asked, event)));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse((time, _, event))| (time, event))
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((time, ..))| *time)
    }
}
