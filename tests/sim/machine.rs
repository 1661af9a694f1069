//! A machine: a disk that outlives its node, a node when it runs, and what the shell of a server
//! keeps for it: sockets, the sync job in flight, the background step, a clock.

use crate::chain::Ground;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::disk::{Failure, Refusals, SimDisk};
use crate::network::PipeKey;
use raftd::replica::{ConnectionId, Node};
use raftd::types::{LogIndex, NodeId};
use raftd::wal::{BackgroundDone, BackgroundJob, Job};
use std::collections::VecDeque;
use std::io;

/// What waits for the node's next turn.
pub(crate) enum Input {
    Accepted(ConnectionId),
    Dialed(ConnectionId, NodeId),
    DialFailed(NodeId),
    Readable(ConnectionId),
    Closed(ConnectionId),
    Synced(Job, io::Result<()>),
    Background(BackgroundDone),
    /// SIGTERM.
    Leave,
}

/// One end of a pipe, with what has arrived and was not taken.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) id: ConnectionId,
    pub(crate) pipe: PipeKey,
    pub(crate) side: usize,
    pub(crate) input: Vec<u8>,
    /// It is among the inputs.
    pub(crate) readable: bool,
    /// The node did not want more of it.
    pub(crate) paused: bool,
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Killed: the cache of the operating system stays.
    Killed,
    /// Without power: what was not synced may be lost, and nobody says goodbye to the connections.
    PowerLost,
}

pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    /// Boxed: it is taken out for its turn.
    pub(crate) node: Option<Box<Node>>,
    /// Starts so far.
    pub(crate) boot: u32,
    pub(crate) clock: Clock,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) sockets: Vec<Option<Socket>>,
    generation: u32,
    /// The job in flight and how many of its operations have run.
    pub(crate) job: Option<(Job, usize)>,
    pub(crate) job_since: u64,
    pub(crate) background: Option<BackgroundJob>,
    /// Turns without an input, one after the other, after which it wanted another one at once.
    pub(crate) restless_turns: u32,
    /// What was applied after its last turn.
    pub(crate) applied: LogIndex,
    /// When its next turn is; `u64::MAX` if none is to come.
    pub(crate) turn_at: u64,
    pub(crate) busy_until: u64,
    pub(crate) paused_until: u64,
    /// Events of its disk that came during the pause.
    pub(crate) operation_waits: bool,
    pub(crate) background_waits: bool,
    /// How many times slower than others it is.
    pub(crate) slowness: u64,
    /// Syncs take this much longer.
    pub(crate) disk_slowness: u64,
    /// Ends after so many effects of its next turn.
    pub(crate) ends_after: Option<(u32, Ending)>,
    /// The power goes after so many changes of the disk in its next start.
    pub(crate) fuse_at_start: Option<u64>,
    /// An operation of its disk that fails in its next start.
    pub(crate) fails_at_start: Option<Failure>,
    /// Its log or its snapshot was damaged, for good: it counts as lost.
    pub(crate) damaged: bool,
    /// One copy of its hard state was: the other must do.
    pub(crate) copy_damaged: bool,
    /// One header of a segment was: the other must do.
    pub(crate) header_damaged: bool,
    /// The snapshot that it begins to send next rots.
    pub(crate) sent_rots: bool,
    /// The last power loss tore a page.
    pub(crate) torn: bool,
    /// It will not start again, and why.
    pub(crate) dead: Option<&'static str>,
    /// When it ended lately.
    pub(crate) endings: VecDeque<u64>,
    pub(crate) chance: Chance,
    /// Of the syncs that hang.
    pub(crate) hangs: Chance,
    /// What has found no space, when it was last asked.
    pub(crate) refusals: Refusals,
}

impl Machine {
    pub(crate) fn new(number: usize, seed: u64, ground: &Ground) -> Machine {
        let mut chance = Chance::of(seed, &format!("machine {number}"));
        let disk = SimDisk::new(chance.split(), ground.clone());
        let clock = Clock::start(0, 0, &mut chance);
        Machine {
            disk,
            node: None,
            boot: 0,
            clock,
            inbox: VecDeque::new(),
            sockets: Vec::new(),
            generation: 0,
            job: None,
            job_since: 0,
            background: None,
            restless_turns: 0,
            applied: LogIndex::ZERO,
            turn_at: u64::MAX,
            busy_until: 0,
            paused_until: 0,
            operation_waits: false,
            background_waits: false,
            slowness: 1,
            disk_slowness: 1,
            ends_after: None,
            fuse_at_start: None,
            fails_at_start: None,
            damaged: false,
            copy_damaged: false,
            header_damaged: false,
            sent_rots: false,
            torn: false,
            dead: None,
            endings: VecDeque::new(),
            chance,
            hangs: Chance::of(seed, &format!("hangs {number}")),
            refusals: Refusals::default(),
        }
    }

    /// Enters an end of a pipe into the table of sockets.
    pub(crate) fn open_socket(&mut self) -> ConnectionId {
        self.generation += 1;
        let free = self.sockets.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.sockets.len());
        if slot == self.sockets.len() {
            self.sockets.push(None);
        }
        let slot = u32::try_from(slot).expect("few sockets");
        ConnectionId::new(slot, self.generation)
    }

    pub(crate) fn enter(&mut self, id: ConnectionId, pipe: PipeKey, side: usize) {
        self.sockets[id.slot()] =
            Some(Socket { id, pipe, side, input: Vec::new(), readable: false, paused: false });
    }

    pub(crate) fn socket(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.slot())?.as_mut().filter(|socket| socket.id == id)
    }

    pub(crate) fn is_paused(&self, now: u64) -> bool {
        now < self.paused_until
    }

    /// How long a turn keeps it busy.
    pub(crate) fn turn_cost(&mut self, usual_ns: u64) -> u64 {
        self.slowness * (usual_ns / 2 + self.chance.below(usual_ns + 1))
    }
}
