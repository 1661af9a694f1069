//! What a seed draws: sizes, speeds, and which faults there are, how often (swarm testing).
//!
//! Every concern draws from a stream of its own, and every kind of fault has a timer of its own
//! (`faults/schedule.rs`), so that `--without` takes one away and leaves what the others plan as it
//! was.

use crate::chance::{Chance, MILLION, u64_of, usize_of};
use crate::disk::Tearing;
use raftd::kv::SliceLimits;
use raftd::limits::WorkingLimits;
use raftd::replica::SnapshotOptions;
use std::fmt;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Kinds of faults, by the names of `--without`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    Partitions,
    Frames,
    Streams,
    Crashes,
    Pauses,
    SlowNodes,
    SlowDisks,
    DiskErrors,
    FullDisks,
    Damage,
    Clocks,
    Garbage,
    SmallWindows,
    Transfers,
    Members,
    Saves,
    States,
    Rights,
}

pub(crate) const CLASSES: [(Class, &str); 18] = [
    (Class::Partitions, "partitions"),
    (Class::Frames, "frames"),
    (Class::Streams, "streams"),
    (Class::Crashes, "crashes"),
    (Class::Pauses, "pauses"),
    (Class::SlowNodes, "slow-nodes"),
    (Class::SlowDisks, "slow-disks"),
    (Class::DiskErrors, "disk-errors"),
    (Class::FullDisks, "full-disks"),
    (Class::Damage, "damage"),
    (Class::Clocks, "clocks"),
    (Class::Garbage, "garbage"),
    (Class::SmallWindows, "small-windows"),
    (Class::Transfers, "transfers"),
    (Class::Members, "members"),
    (Class::Saves, "saves"),
    (Class::States, "states"),
    (Class::Rights, "rights"),
];

/// How far a run may differ from what its seed draws; found by shrinking, or given by hand.
#[derive(Clone, Default, Debug)]
pub(crate) struct Overrides {
    pub(crate) without: Vec<Class>,
    pub(crate) nodes: Option<usize>,
    pub(crate) horizon_ns: Option<u64>,
    pub(crate) clients: Option<u32>,
    /// Power is lost until so many losses have been, instead of all that breaks by chance; streams
    /// and small windows stay as drawn.
    pub(crate) power_losses: Option<u64>,
}

/// How long a frame is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delay {
    Constant,
    Uniform,
    Exponential,
    /// Mostly fast, sometimes a hundred times slower.
    Tail,
}

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) delay: Delay,
    pub(crate) delay_ns: u64,
    /// In a million chunks of bytes: cut in pieces that arrive apart.
    pub(crate) split: u64,
    /// In a million: a packet is lost and comes after a retransmission.
    pub(crate) resend: u64,
    pub(crate) resend_ns: u64,
    /// In a million: the connection is reset in the middle of it.
    pub(crate) reset: u64,
    /// In a million frames between members, beyond what TCP does: dropped, said twice, late.
    pub(crate) drop: u64,
    pub(crate) duplicate: u64,
    pub(crate) late: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) write_ns: u64,
    pub(crate) sync_ns: u64,
    /// In a million syncs: it hangs.
    pub(crate) hang: u64,
    pub(crate) hang_ns: u64,
    pub(crate) tearing: Tearing,
}

#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) count: u32,
    pub(crate) per_second: u64,
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
    pub(crate) timeout_ns: u64,
    /// In a hundred: puts, gets, ranges; the rest deletes.
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) ranges: u64,
    pub(crate) serializable: u64,
    /// Of the puts: with a condition. Of the changes: as calls of a session.
    pub(crate) conditions: u64,
    /// Of puts, transactions instead.
    pub(crate) txns: u64,
    pub(crate) calls: u64,
    /// Beside a hundred of these: about leases.
    pub(crate) leases: u64,
    /// And by guests, or about users and roles.
    pub(crate) rights: u64,
    pub(crate) garbage: u64,
    /// Watches of each.
    pub(crate) watches: usize,
}

/// Everything that a seed draws.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// The kinds of faults that there are.
    pub(crate) classes: Vec<Class>,
    /// And those that the seed drew, before some were left out.
    drawn: Vec<Class>,
    without: Vec<Class>,
    /// The first members.
    pub(crate) nodes: usize,
    /// Machines that may become members.
    pub(crate) spares: usize,
    pub(crate) horizon_ns: u64,
    pub(crate) election_timeout_ns: u64,
    pub(crate) heartbeat_ns: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) history_bytes_max: u64,
    pub(crate) history_age_ns: Option<u64>,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) working: WorkingLimits,
    pub(crate) turn_ns: u64,
    /// Inputs taken in one turn at most.
    pub(crate) turn_inputs: usize,
    pub(crate) network: Network,
    pub(crate) disk: Disk,
    pub(crate) clients: Clients,
    /// Between two faults, on average.
    pub(crate) fault_every_ns: u64,
    /// How wrong a clock's rate is at most. Millionths.
    pub(crate) clock_ppm: u64,
    /// How wrong the members are told that it is. If that is less, **an assumption is violated**,
    /// on which the answers to reads by a lease rest and nothing else: those may be stale then, two
    /// may hold the lease at once, and one of them may turn somebody down by rights that are old;
    /// all else is checked as ever.
    pub(crate) declared_ppm: u64,
    /// Whether the members read by leases.
    pub(crate) lease_reads: bool,
    pub(crate) power_losses: Option<u64>,
    pub(crate) snapshots: SnapshotOptions,
}

impl Options {
    /// By how much two clocks are said to differ in rate at most: the fastest from the slowest.
    /// Millionths.
    /// `None` where nobody reads by a lease, as by default.
    pub(crate) fn lease_drift_ppm(&self) -> Option<u32> {
        if !self.lease_reads {
            return None;
        }
        let apart = (2 * self.declared_ppm * MILLION).div_ceil(MILLION - self.declared_ppm);
        Some(u32::try_from(apart.max(1)).expect("clocks are at most a fifth wrong"))
    }

    /// All there are.
    pub(crate) fn machines(&self) -> usize {
        self.nodes + self.spares
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// Whether a kind of fault must not even come along with another one, or at the end.
    pub(crate) fn forbids(&self, class: Class) -> bool {
        self.without.contains(&class)
    }

    /// Whether clocks are no more wrong than the members are told.
    pub(crate) fn clocks_keep_bound(&self) -> bool {
        self.clock_ppm <= self.declared_ppm
    }

    /// From one fault of a kind to the next, on average: as if every `fault_every_ns` one of the
    /// kinds drawn was picked, damage more often than others, and a change of the members half of
    /// the time. What is left out leaves that as it was. Nanoseconds.
    pub(crate) fn fault_every_ns(&self, class: Class) -> u64 {
        let kinds = u64_of(self.drawn.len());
        let all_ns = kinds * self.fault_every_ns;
        let rarer = [Class::Damage, Class::Members].iter().any(|it| self.drawn.contains(it));
        match class {
            Class::Damage => 6 * all_ns / (kinds + 5),
            Class::Members => 2 * all_ns / (kinds + 1),
            // Rarely anybody reads while two hold the lease.
            Class::Clocks if !self.clocks_keep_bound() => all_ns / 5,
            Class::Partitions
            | Class::Frames
            | Class::Streams
            | Class::Crashes
            | Class::Pauses
            | Class::SlowNodes
            | Class::SlowDisks
            | Class::DiskErrors
            | Class::FullDisks
            | Class::Clocks
            | Class::Garbage
            | Class::SmallWindows
            | Class::Transfers
            | Class::Saves
            | Class::States
            | Class::Rights => {
                if rarer {
                    6 * all_ns / 5
                } else {
                    all_ns
                }
            }
        }
    }

    /// What `seed` draws, changed as asked.
    pub(crate) fn draw(seed: u64, overrides: &Overrides) -> Options {
        let drawn = draw_classes(seed, overrides);
        let without = overrides.without.clone();
        let classes: Vec<Class> =
            drawn.iter().copied().filter(|class| !without.contains(class)).collect();
        let mut sizes = Chance::of(seed, "sizes");
        let drawn_nodes = sizes.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5]);
        let nodes = overrides.nodes.unwrap_or(drawn_nodes);
        let has = |class| classes.contains(&class);
        let reads_by_leases = drawn.contains(&Class::Clocks);
        let network = draw_network(seed, &has);
        let disk = draw_disk(seed, &has);
        let slowest = 14 * (network.delay_ns + disk.sync_ns);
        let election_timeout_ns = sizes.scaled(30 * MS, 400 * MS).max(slowest);
        let heartbeat_ns = election_timeout_ns / sizes.between(3, 8);
        let horizon_ns = overrides.horizon_ns.unwrap_or(20 * SECOND + sizes.below(SECOND));
        let mut clients = draw_clients(seed, &has);
        // Shorter than some commits, but not than most: or the clients alone bring it down.
        let trip_ns = 3 * network.delay_ns + 2 * disk.sync_ns + 4 * MS;
        clients.timeout_ns = clients.timeout_ns.max(4 * trip_ns);
        clients.count = overrides.clients.unwrap_or(clients.count);
        // Drawn by who leaves members out as well, or the sizes behind it would be others.
        let spares = drawn.contains(&Class::Members).then(|| usize_of(sizes.between(2, 4)));
        let spares = spares.filter(|_| has(Class::Members)).unwrap_or(0);
        let (clock_ppm, declared_ppm) = draw_clocks(seed, &has);
        let mut faults = Chance::of(seed, "faults");
        let (history_age_ns, quota_bytes) = draw_bounds(seed, &clients);
        let working = draw_working(
            seed,
            &has,
            entries_under_way(&network, &disk, &clients),
            usize_of(clients.value_bytes) + 64,
        );
        let segment_bytes = sizes.pick(&[64, 64, 64, 128, 256]) * 1024;
        let history_bytes_max = sizes.scaled(1024, 64 * 1024);
        // Ranges that take long and a history that is short: compaction overtakes them.
        let brief = working.range_steps <= 8;
        let history_bytes_max = if brief { 1024 } else { history_bytes_max };
        Options {
            seed,
            nodes,
            spares,
            horizon_ns,
            election_timeout_ns,
            heartbeat_ns,
            segment_bytes,
            history_bytes_max,
            history_age_ns,
            quota_bytes,
            working: WorkingLimits {
                lease_checkpoint_ms: Chance::of(seed, "leases").pick(&[200, 1000, u64::MAX]),
                state_hash_every: Chance::of(seed, "hashes").pick(&[1, 2, 8, 16]),
                ..working
            },
            turn_ns: sizes.scaled(2 * US, 60 * US),
            turn_inputs: sizes.pick(&[1, 4, 64, 1024]),
            network,
            disk,
            clients,
            fault_every_ns: faults.scaled(150 * MS, 2 * SECOND),
            clock_ppm,
            declared_ppm,
            lease_reads: Chance::of(seed, "lease reads").one_in(2) || reads_by_leases,
            power_losses: overrides.power_losses,
            snapshots: draw_snapshots(seed),
            classes,
            drawn,
            without,
        }
    }
}

/// How wrong clocks are, and are said to be. Quartz is within 100 ppm. In a third of the clusters
/// with wrong clocks they are far beyond what is said.
fn draw_clocks(seed: u64, has: &impl Fn(Class) -> bool) -> (u64, u64) {
    let mut chance = Chance::of(seed, "clocks");
    let within = chance.pick(&[50, 500, 50_000, 200_000]);
    let (beyond, declared) = (chance.pick(&[200_000, 300_000, 400_000]), chance.pick(&[1, 500]));
    match (has(Class::Clocks), chance.one_in(3)) {
        (false, _) => (0, 0),
        (true, false) => (within, within),
        (true, true) => (beyond, declared),
    }
}

fn draw_classes(seed: u64, overrides: &Overrides) -> Vec<Class> {
    let mut chance = Chance::of(seed, "classes");
    let share = chance.between(2, 9);
    let mut classes = Vec::new();
    for (class, _) in CLASSES {
        if chance.below(10) < share {
            classes.push(class);
        }
    }
    if classes.contains(&Class::Damage) {
        // The fault atlas counts on who the members are.
        classes.retain(|class| *class != Class::Members);
    }
    if classes.contains(&Class::Damage) || classes.contains(&Class::Members) {
        // A wrong state is told from the right ones by a majority of those who are always there.
        classes.retain(|class| *class != Class::States);
    }
    if overrides.power_losses.is_some() {
        classes.retain(|class| matches!(class, Class::SmallWindows | Class::Streams));
    }
    classes
}

/// Snapshots every few entries or bytes, in blocks and pieces that their few bytes fill; or none.
fn draw_snapshots(seed: u64) -> SnapshotOptions {
    let mut chance = Chance::of(seed, "snapshots");
    let mut bytes = Chance::of(seed, "snapshot bytes");
    let mut loaded = Chance::of(seed, "snapshots loaded");
    SnapshotOptions {
        entries: chance.pick(&[3, 20, 20, 100, 100, 500, u64::MAX]),
        log_bytes: bytes.pick(&[10_000, 50_000, 200_000, u64::MAX, u64::MAX, u64::MAX]),
        interval_ns: chance.scaled(20 * MS, 2 * SECOND),
        block_bytes: chance.pick(&[1, 512, 8192]),
        piece_bytes: chance.pick(&[1000, 4000, 20_000]),
        rate: chance.pick(&[None, None, Some(200_000)]),
        slice: SliceLimits { steps: chance.pick(&[16, 96, 256]), bytes: 64 * 1024 },
        loaded_slice: SliceLimits { steps: loaded.pick(&[4, 96, 768]), bytes: 256 * 1024 },
    }
}

/// How old the history gets and how much the keys may take, in a third of the clusters each. At
/// least half of the keys fit, with values of half their size: deletes make room, and smaller
/// values. (Two of five left too little to do: seed 22006. So did one delete in a hundred: 20579.)
fn draw_bounds(seed: u64, clients: &Clients) -> (Option<u64>, Option<u64>) {
    let mut chance = Chance::of(seed, "bounds");
    let age_ns = chance.scaled(5 * MS, 4 * SECOND);
    let age_ns = Some(age_ns).filter(|_| chance.one_in(3));
    let quota =
        chance.between(clients.keys.div_ceil(2), clients.keys) * (270 + clients.value_bytes / 2);
    // What guests put takes nothing from the others.
    let quota = if clients.rights > 0 { quota + 8 * 320 } else { quota };
    let deletes = 100 - clients.puts - clients.gets - clients.ranges;
    (age_ns, Some(quota).filter(|_| chance.one_in(3) && deletes >= 5))
}

fn draw_network(seed: u64, has: &impl Fn(Class) -> bool) -> Network {
    let mut chance = Chance::of(seed, "network");
    let delay = chance.pick(&[Delay::Constant, Delay::Uniform, Delay::Exponential, Delay::Tail]);
    let delay_ns = chance.scaled(30 * US, 6 * MS);
    let mut streams = Chance::of(seed, "streams");
    let stream = |wanted: u64| if has(Class::Streams) { wanted } else { 0 };
    let (split, resend) = (streams.below(MILLION / 3), streams.scaled(100, 40_000));
    let reset = streams.scaled(10, 1_500);
    let resend_ns = streams.scaled(5 * MS, 250 * MS);
    let mut frames = Chance::of(seed, "frames");
    let frame = |wanted: u64| if has(Class::Frames) { wanted } else { 0 };
    let (drop, duplicate) = (frames.scaled(100, 300_000), frames.scaled(1_000, 150_000));
    let late = frames.scaled(1_000, 60_000);
    Network {
        delay,
        delay_ns,
        split: stream(split),
        resend: stream(resend),
        resend_ns,
        reset: stream(reset),
        drop: frame(drop),
        duplicate: frame(duplicate),
        late: frame(late),
    }
}

fn draw_disk(seed: u64, has: &impl Fn(Class) -> bool) -> Disk {
    let mut chance = Chance::of(seed, "disks");
    let lost = chance.below(MILLION + 1);
    let torn = chance.below(MILLION - lost + 1);
    let (hang, hang_ns) = (chance.scaled(50, 3_000), chance.scaled(20 * MS, 5 * SECOND));
    // Hangs take a tenth of the time at most.
    let hang = hang.min(400 * SECOND / hang_ns);
    Disk {
        write_ns: chance.scaled(2 * US, 30 * US),
        sync_ns: chance.scaled(40 * US, 5 * MS),
        hang: if has(Class::SlowDisks) { hang } else { 0 },
        hang_ns,
        tearing: Tearing { lost, torn },
    }
}

fn draw_clients(seed: u64, has: &impl Fn(Class) -> bool) -> Clients {
    let mut chance = Chance::of(seed, "clients");
    let count = u32::try_from(chance.between(2, 8)).expect("few");
    let puts = chance.between(25, 60);
    let gets = chance.between(15, 30);
    let rights = Chance::of(seed, "rights").pick(&[15, 30, 60]);
    Clients {
        count,
        per_second: chance.between(108, 140),
        keys: chance.scaled(2, 40),
        value_bytes: chance.scaled(8, 1_200),
        timeout_ns: chance.scaled(20 * MS, 2 * SECOND),
        puts,
        gets,
        ranges: chance.below(100 - puts - gets),
        serializable: chance.below(40),
        conditions: chance.pick(&[0, 10, 40]),
        txns: Chance::of(seed, "txns").pick(&[0, 10, 30]),
        calls: chance.pick(&[0, 40, 100]),
        leases: chance.pick(&[0, 10, 30]),
        rights: if has(Class::Rights) { rights } else { 0 },
        garbage: if has(Class::Garbage) { 5_000 } else { 0 },
        watches: Chance::of(seed, "watches").pick(&[0, 1, 2, 4]),
    }
}

/// Windows of one and caches of nothing make rare states common.
fn draw_working(
    seed: u64,
    has: &impl Fn(Class) -> bool,
    under_way: usize,
    entry_bytes: usize,
) -> WorkingLimits {
    let mut chance = Chance::of(seed, "windows");
    let usual = WorkingLimits::default();
    let mut small = WorkingLimits {
        in_flight_messages_max: chance.pick(&[1, 1, 2, 8]),
        in_flight_bytes_max: chance.pick(&[1, 4096, usual.in_flight_bytes_max]),
        append_bytes_max: chance.pick(&[1, 512, 8192]),
        append_entries_max: chance.pick(&[1, 2, 16]),
        uncommitted_bytes_max: chance.pick(&[1, 2048, 65_536]),
        entry_bytes_soft_max: chance.pick(&[1, 256, usual.entry_bytes_soft_max]),
        entry_cache_bytes: chance.pick(&[0, 8192, usual.entry_cache_bytes]),
        watch_batch_bytes: chance.pick(&[1, 512, usual.watch_batch_bytes]),
        range_steps: chance.pick(&[1, 1, 8, usual.range_steps]),
        range_part_bytes: chance.pick(&[1, 256, usual.range_part_bytes]),
        apply_steps: chance.pick(&[1, 2, 8, usual.apply_steps]),
        ..usual
    };
    // One message, and one entry in it, always go.
    let messages = small.in_flight_messages_max.min(small.in_flight_bytes_max / entry_bytes).max(1);
    let entries = small.append_entries_max.min(small.append_bytes_max / entry_bytes).max(1);
    if messages * entries < under_way {
        // Still one message at a time, but no slower than the clients ask.
        small.append_entries_max = small.append_entries_max.max(under_way);
        small.append_bytes_max = usual.append_bytes_max;
    }
    small.uncommitted_bytes_max = small.uncommitted_bytes_max.max(300 * under_way);
    // What is not in memory is read from the disk, and shows its damage.
    let cold = WorkingLimits { entry_cache_bytes: 0, ..usual };
    match (has(Class::SmallWindows), has(Class::Damage)) {
        (true, true) => WorkingLimits { entry_cache_bytes: 0, ..small },
        (true, false) => small,
        (false, true) => cold,
        (false, false) => usual,
    }
}

/// How many entries the clients ask for while one goes to a follower and is acknowledged, twelve
/// times over.
fn entries_under_way(network: &Network, disk: &Disk, clients: &Clients) -> usize {
    let trip_ns = 3 * network.delay_ns + 2 * disk.sync_ns + MS / 2;
    usize::try_from(12 * trip_ns * clients.per_second / SECOND).expect("few")
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            CLASSES.iter().filter(|(class, _)| self.has(*class)).map(|(_, name)| *name).collect();
        writeln!(
            f,
            "faults    {}",
            if names.is_empty() { "none".into() } else { names.join(" ") }
        )?;
        writeln!(
            f,
            "cluster   nodes={}+{} horizon={} election={} heartbeat={} segment={} history={} \
             age={:?} quota={:?}",
            self.nodes,
            self.spares,
            time(self.horizon_ns),
            time(self.election_timeout_ns),
            time(self.heartbeat_ns),
            self.segment_bytes,
            self.history_bytes_max,
            self.history_age_ns.map(time),
            self.quota_bytes,
        )?;
        writeln!(f, "windows   {:?}", self.working)?;
        writeln!(f, "turns     cost={} inputs={}", time(self.turn_ns), self.turn_inputs)?;
        writeln!(f, "network   {:?}", self.network)?;
        writeln!(f, "disk      {:?}", self.disk)?;
        writeln!(f, "clients   {:?}", self.clients)?;
        writeln!(f, "snapshots {:?}", self.snapshots)?;
        let (clock, declared) = (self.clock_ppm, self.declared_ppm);
        write!(f, "faults    every {} ", time(self.fault_every_ns))?;
        write!(f, "clock={clock}ppm declared={declared}ppm lease-reads={}", self.lease_reads)
    }
}

/// Nanoseconds for people.
pub(crate) fn time(ns: u64) -> String {
    format!("{}.{:03}ms", ns / MS, ns % MS / US)
}
