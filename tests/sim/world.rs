//! Everything there is, and the loop: the next event happens, its consequences are asked for.

use crate::chain::Ground;
use crate::chance::Chance;
use crate::clients::Crowd;
use crate::coverage::Coverage;
use crate::disk::SimDisk;
use crate::faults::Faults;
use crate::invariants::Proof;
use crate::machine::Machine;
use crate::network::{End, Item, Network, PipeKey};
use crate::options::Options;
use crate::queue::{Event, Queue};
use crate::trace::{Trace, Tracing, Who, say};
use raftd::types::NodeId;

pub(crate) struct World {
    pub(crate) options: Options,
    /// True time. Nanoseconds.
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) machines: Vec<Machine>,
    /// The machines' disks again, where all of them are looked at.
    pub(crate) disks: Vec<SimDisk>,
    pub(crate) network: Network,
    pub(crate) crowd: Crowd,
    pub(crate) faults: Faults,
    pub(crate) proof: Proof,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    pub(crate) process: Chance,
    pub(crate) losses: u64,
    pub(crate) turn: crate::turn::Scratch,
}

pub(crate) fn id_of(machine: usize) -> NodeId {
    let number = u64::try_from(machine + 1).expect("few machines");
    NodeId::new(number).expect("not zero")
}

pub(crate) fn machine_of(id: NodeId) -> usize {
    usize::try_from(id.get()).expect("few machines") - 1
}

impl World {
    pub(crate) fn new(options: Options, tracing: Tracing) -> World {
        let seed = options.seed;
        let ground = Ground::default();
        let machines: Vec<Machine> =
            (0..options.machines()).map(|nth| Machine::new(nth, seed, &ground)).collect();
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            disks: machines.iter().map(|machine| machine.disk.clone()).collect(),
            network: Network::new(seed, options.network.clone(), options.machines()),
            crowd: Crowd::new(seed, &options),
            faults: Faults::new(&options),
            proof: Proof::new(&options, ground),
            coverage: Coverage::default(),
            trace: Trace::new(tracing),
            process: Chance::of(seed, "processes"),
            losses: 0,
            turn: crate::turn::Scratch::default(),
            machines,
            options,
        };
        for machine in 0..world.machines.len() {
            let at = world.process.below(world.options.election_timeout_ns);
            world.queue.at(at, Event::Boot { machine });
        }
        world.start_clients();
        world.start_faults();
        world
    }

    /// Lets everything happen up to `until`.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.queue.next_at().is_some_and(|at| at <= until) {
            let (at, event) = self.queue.pop().expect("there is a next one");
            assert!(at >= self.now, "time goes on");
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        self.trace.events += 1;
        match event {
            Event::Turn { machine } => self.on_turn(machine),
            Event::Deliver { pipe, side } => self.on_deliver(pipe, side),
            Event::Expire { pipe, side, since } => self.on_expire(pipe, side, since),
            Event::Reset { pipe, side } => self.end_side(pipe, side),
            Event::Dial { machine, boot, peer } => self.on_dial(machine, boot, peer),
            Event::DialFailed { machine, boot, peer } => self.on_dial_failed(machine, boot, peer),
            Event::Operation { machine, boot } => self.on_operation(machine, boot),
            Event::Background { machine, boot } => self.on_background(machine, boot),
            Event::Boot { machine } => self.boot(machine),
            Event::Resume { machine } => self.on_resume(machine),
            Event::Ask { client } => self.on_ask(client),
            Event::Watch { client } => self.on_watch(client),
            Event::Timeout { client, request } => self.on_timeout(client, request),
            Event::Retry { client, op } => self.attempt(client, op),
            Event::Frame { held } => self.on_frame_due(held),
            Event::Break { class } => self.on_break(class),
            Event::Begin { prepared, lasts_ns } => self.on_begin(prepared, lasts_ns),
            Event::LosePower => self.on_lose_power(),
            Event::Relieve => self.on_relieve(),
            Event::Mend { fault } => self.mend(fault),
            Event::Rot { machine } => self.on_rot(machine),
            Event::EndSilent { machine } => self.on_end_silent(machine),
            Event::Flap { fault } => self.on_flap(fault),
        }
    }

    /// Sees to it that a node takes a turn at `at`, or before.
    pub(crate) fn wake(&mut self, machine: usize, at: u64) {
        let it = &mut self.machines[machine];
        let at = at.max(it.busy_until).max(it.paused_until).max(self.now);
        if it.node.is_some() && at < it.turn_at {
            it.turn_at = at;
            self.queue.at(at, Event::Turn { machine });
        }
    }

    /// What has arrived at one side of a pipe.
    pub(crate) fn arrive(&mut self, pipe: PipeKey, side: usize, item: Item) {
        let Some(it) = self.network.pipes.get(pipe) else { return };
        if !it.open[side] {
            return;
        }
        match (it.ends[side], item) {
            (End::Node { machine, connection }, Item::Bytes(bytes)) => {
                if let Some(socket) = self.machines[machine].socket(connection) {
                    socket.input.extend_from_slice(&bytes);
                    if !socket.readable && !socket.paused {
                        socket.readable = true;
                        let input = crate::machine::Input::Readable(connection);
                        self.machines[machine].inbox.push_back(input);
                    }
                    self.wake(machine, self.now);
                }
            }
            (End::Client { client }, Item::Bytes(bytes)) => self.client_hears(client, pipe, &bytes),
            (_, Item::End) => self.end_side(pipe, side),
        }
    }

    /// The owner of a side learns that the connection is over.
    pub(crate) fn end_side(&mut self, pipe: PipeKey, side: usize) {
        let Some(it) = self.network.pipes.get_mut(pipe) else { return };
        if !std::mem::replace(&mut it.open[side], false) {
            return;
        }
        it.lanes[side].queue.clear();
        match it.ends[side] {
            End::Node { machine, connection } => {
                let input = crate::machine::Input::Closed(connection);
                self.machines[machine].inbox.push_back(input);
                self.wake(machine, self.now);
                say!(self, Who::Node(machine), "closed", "{pipe:?}");
            }
            End::Client { client } => self.client_lost(client, pipe),
        }
        self.network.pipes.forget_if_closed(pipe);
    }
}
