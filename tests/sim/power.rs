//! How processes begin and end.

use crate::clock::Clock;
use crate::coverage::Point;
use crate::invariants::{broken, must};
use crate::machine::Ending;
use crate::options::{MS, SECOND};
use crate::queue::Event;
use crate::trace::{Who, say};
use crate::world::{World, id_of};
use raftd::config::MemberAddress;
use raftd::replica::{Node, NodeOptions};
use raftd::types::{ClusterId, DiskId};
use raftd::wal::{Disk, OpenError, Options as LogOptions};
use std::sync::Arc;

/// Where a machine is.
pub(crate) fn address(machine: usize) -> String {
    format!("sim:{}", machine + 1)
}

impl World {
    /// Starts the process of a machine.
    pub(crate) fn boot(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        if it.node.is_some() || it.dead.is_some() {
            return;
        }
        it.boot += 1;
        it.restless_turns = 0;
        it.disk.forgive();
        if let Some(changes) = it.fuse_at_start.take() {
            it.disk.light_fuse(changes);
        }
        if let Some(failure) = it.fails_at_start.take() {
            it.disk.fail_next(failure);
        }
        let options = self.node_options(machine);
        let torn = std::mem::take(&mut self.machines[machine].torn);
        let sampled = (torn || self.process.one_in(16)) && !self.disks[machine].has_fuse();
        if sampled {
            self.check_idempotence(machine, &options);
        }
        let it = &mut self.machines[machine];
        it.clock = Clock::start(self.now, self.options.clock_ppm, &mut it.chance);
        let local = it.clock.read(self.now);
        let disk: Arc<dyn Disk> = Arc::new(it.disk.clone());
        match Node::open(disk, options, local) {
            Ok(node) => self.started(machine, Box::new(node)),
            Err(error) => self.on_start_failed(machine, &error),
        }
    }

    fn started(&mut self, machine: usize, node: Box<Node>) {
        let it = &mut self.machines[machine];
        if it.disk.is_blown() {
            // The very last change of its recovery did not reach the disk, and it did not notice.
            self.coverage.hit(Point::CrashInRecovery);
            it.node = Some(node);
            self.proof.after_failed_start(machine);
            return self.end_start(machine);
        }
        it.disk.read_platters(it.damaged);
        let healed = std::mem::take(&mut it.copy_damaged);
        self.coverage.hit_if(healed, Point::DamageHealed);
        let header_damaged = std::mem::take(&mut it.header_damaged);
        must!(
            !(header_damaged && it.disk.header_is_rotten()),
            "Mended",
            "n{} starts, and the platters hold a header page that is damaged",
            machine + 1
        );
        self.coverage.hit_if(header_damaged, Point::HeaderDamaged);
        say!(self, Who::Node(machine), "start", "last={}", node.inspect().wal.last());
        let disk = &self.disks[machine];
        self.proof.on_start(machine, &node.inspect(), disk, &mut self.coverage);
        it.node = Some(node);
        it.busy_until = self.now;
        it.turn_at = u64::MAX;
        self.wake(machine, self.now);
    }

    fn end_start(&mut self, machine: usize) {
        self.machines[machine].node = None;
        self.lose_power(machine);
        let wait = self.process.scaled(MS, 200 * MS);
        self.queue.at(self.now + wait, Event::Boot { machine });
    }

    fn on_start_failed(&mut self, machine: usize, error: &OpenError) {
        say!(self, Who::Node(machine), "no start", "{error}");
        let it = &mut self.machines[machine];
        if it.disk.is_blown() {
            self.coverage.hit(Point::CrashInRecovery);
            self.proof.after_failed_start(machine);
            return self.end_start(machine);
        }
        match error {
            OpenError::Damaged(_) if it.disk.log_is_rotten() => {
                self.coverage.hit(Point::DamageFound);
                it.dead = Some("damaged");
            }
            OpenError::SnapshotDamaged { .. } if it.disk.snapshot_is_rotten() => {
                self.coverage.hit(Point::SnapshotDamageFound);
                it.dead = Some("damaged");
            }
            OpenError::Io { .. } if it.disk.failed().is_some() => {
                self.coverage.hit(Point::StartFailed);
                self.end_start(machine);
            }
            OpenError::Io { .. } if self.note_refusals(machine) => {
                self.coverage.hit(Point::StartFailed);
                self.queue.at(self.now + 300 * MS, Event::Boot { machine });
            }
            OpenError::Damaged(_)
            | OpenError::HardStateLost { .. }
            | OpenError::Stray { .. }
            | OpenError::Io { .. }
            | OpenError::InUse { .. }
            | OpenError::WrongNode { .. }
            | OpenError::WrongCluster { .. }
            | OpenError::NotADataDirectory { .. }
            | OpenError::NetworkFileSystem { .. }
            | OpenError::Incomplete { .. }
            | OpenError::HalfRestored { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::IdentityDamaged { .. }
            | OpenError::OtherDisk { .. }
            | OpenError::SnapshotDamaged { .. }
            | OpenError::Version { .. } => {
                broken("RecoveryKeeps", format!("{} does not start: {error}", id_of(machine)))
            }
        }
    }

    fn node_options(&mut self, machine: usize) -> NodeOptions {
        // Who is none of the first members joins: it knows nobody, and waits to be made one.
        let first = if machine < self.options.nodes { self.options.nodes } else { 0 };
        let members = (0..first).map(|nth| MemberAddress { id: id_of(nth), address: address(nth) });
        let members = members.collect();
        let options = &self.options;
        let it = &mut self.machines[machine];
        // Wall clocks jump; nothing may depend on them. A node hears of its own when it starts and
        // never again, so a jump while it runs shows at its next start or not at all.
        let unix_ms = 1_700_000_000_000 + it.chance.below(7_200_000);
        NodeOptions {
            id: id_of(machine),
            members,
            cluster_id: ClusterId(7),
            token_hash: 0,
            disk_id_if_new: DiskId(u128::from(it.chance.draw())),
            boot_nonce: it.chance.draw(),
            seed: it.chance.draw(),
            login_secret: [7; 32],
            unix_ms,
            election_timeout_ns: options.election_timeout_ns,
            heartbeat_ns: options.heartbeat_ns,
            segment_bytes: options.segment_bytes,
            history_bytes_max: options.history_bytes_max,
            history_age_ns: options.history_age_ns,
            quota_bytes: options.quota_bytes,
            lease_drift_ppm: options.lease_drift_ppm(),
            start: raftd::replica::Start::AsItIs,
            clients_max: 1000,
            working: options.working,
            snapshots: options.snapshots,
        }
    }

    /// A process ends. What it was writing may be there in part.
    pub(crate) fn end_process(&mut self, machine: usize, ending: Ending) {
        let disk = self.disks[machine].clone();
        self.proof.before_end(machine, &disk);
        let it = &mut self.machines[machine];
        if !disk.is_blown() {
            if let Some((job, done)) = it.job.take()
                && it.chance.one_in(2)
                && let Some(operation) = job.operations.get(done)
            {
                let _under_way = operation.run();
            }
            if let Some(step) = it.background.take()
                && it.chance.one_in(2)
            {
                disk.light_fuse(it.chance.below(6));
                let _under_way = step.run();
            }
        }
        it.node = None;
        // What the file system does not take any more is gone when it is mounted again; so may be
        // what was under way (seed 1695).
        let ending = if disk.is_frozen() { Ending::PowerLost } else { ending };
        match ending {
            Ending::Killed => {
                say!(self, Who::Node(machine), "killed", "");
                self.coverage.hit(Point::Killed);
                self.drop_sockets(machine, ending);
            }
            Ending::PowerLost => self.lose_power(machine),
        }
        self.note_ending(machine);
        let wait = self.downtime();
        self.queue.at(self.now + wait, Event::Boot { machine });
    }

    fn downtime(&mut self) -> u64 {
        let most = if self.options.power_losses.is_some() { 20 * MS } else { 900 * MS };
        if self.faults.calm { MS } else { self.process.scaled(MS, most) }
    }

    fn note_ending(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        it.endings.push_back(self.now);
        while it.endings.front().is_some_and(|at| at + SECOND < self.now) {
            it.endings.pop_front();
        }
        self.coverage.hit_if(it.endings.len() >= 3, Point::CrashLoop);
    }

    /// The power of a machine goes: its process, what its disk had not synced, its connections.
    fn lose_power(&mut self, machine: usize) {
        let tearing = self.options.disk.tearing;
        let losses = self.machines[machine].disk.lose_power(tearing);
        say!(self, Who::Node(machine), "power lost", "{losses:?}");
        self.losses += 1;
        self.machines[machine].torn = losses.torn > 0;
        self.coverage.hit(Point::PowerLost);
        self.coverage.hit_if(losses.lost > 0, Point::PageLost);
        self.coverage.hit_if(losses.torn > 0, Point::PageTorn);
        self.coverage.hit_if(losses.kept > 0, Point::PageKept);
        self.coverage.hit_if(losses.names > 0, Point::NameLost);
        self.drop_sockets(machine, Ending::PowerLost);
    }

    fn drop_sockets(&mut self, machine: usize, ending: Ending) {
        let it = &mut self.machines[machine];
        it.inbox.clear();
        it.job = None;
        it.background = None;
        it.turn_at = u64::MAX;
        it.paused_until = 0;
        it.operation_waits = false;
        it.background_waits = false;
        it.ends_after = None;
        let sockets = std::mem::take(&mut it.sockets);
        for socket in sockets.into_iter().flatten() {
            match ending {
                Ending::Killed => self.hang_up(socket.pipe, socket.side),
                Ending::PowerLost => self.vanish(socket.pipe, socket.side),
            }
        }
    }

    /// RecoveryIdempotent, on copies of the disk.
    fn check_idempotence(&mut self, machine: usize, options: &NodeOptions) {
        let log_options = LogOptions {
            cluster_id: Some(options.cluster_id),
            token_hash: options.token_hash,
            node: options.id,
            disk_id_if_new: options.disk_id_if_new,
            boot_nonce: options.boot_nonce,
            segment_bytes: options.segment_bytes,
            salt_seed: options.seed,
            created_unix_ms: options.unix_ms,
            entry_cache_bytes: options.working.entry_cache_bytes,
        };
        let copy = Arc::new(self.disks[machine].copy());
        let open = || raftd::wal::open(copy.clone(), &log_options);
        let Ok((_, first)) = open() else { return };
        self.coverage.hit_if(first.report.torn_at.is_some(), Point::TornTailCut);
        self.coverage.hit_if(first.report.segments > 1, Point::SegmentClosed);
        match open() {
            Ok((_, mut second)) => {
                second.report = first.report.clone();
                must!(
                    first == second,
                    "RecoveryIdempotent",
                    "{}: {first:?} then {second:?}",
                    options.id
                );
            }
            Err(error) => broken("RecoveryIdempotent", format!("{}: {error}", options.id)),
        }
    }
}
