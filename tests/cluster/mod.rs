//! Whole clusters: real processes, real sockets, real disks. Few, and few at a time.
//!
//! | file | what |
//! |---|---|
//! | `harness` | processes: start, kill -9, pause, restart; the only user of the client library |
//! | `turns` | which of them run side by side, and which alone |
//! | `links` | TCP proxies between the nodes, to cut links for real |
//! | `gate` | a proxy that stops a client's write on its way |
//! | `patience` | waiting for a condition, with a deadline |
//! | `starting` | a node alone; every way not to start |
//! | `clones` | two processes on copies of one directory |
//! | `survival` | elections, kills, restarts, lost disks |
//! | `partition` | a leader cut off |
//! | `failover` | how long nobody can write when the leader dies |
//! | `steady` | nobody is elected under steady load |
//! | `grown` | many keys: snapshots under load, the disk, the length of turns |
//! | `received` | a large snapshot for a node that was away, of a few values or many: its turns |
//! | `turn_lengths` | how long the turns of a loop were, and whether the host did it |
//! | `filled` | memory that the host of a virtual machine has filled |
//! | `grey` | a leader whose disk hangs, a follower that does not read |
//! | `ranges` | ranges of a million keys: the length of turns, the memory; who does not read one |
//! | `resident` | the memory of 20 million puts, and of a million keys |
//! | `reads` | linearizable reads on followers, lease reads |
//! | `leases` | never ended early though leaders die and sleep; many that are idle |
//! | `auth` | users and rights: who is refused where, what outlives restarts and restores |
//! | `exactly_once` | increments under leader kills, raftctl across a leader's death |
//! | `hostile` | clients that send garbage, and clients that do not read |
//! | `unfinished` | clients that begin requests and do not end them |
//! | `introductions` | servers that are met where another was expected |
//! | `watches` | listeners under faults, slow ones, many of them |
//! | `refusals` | what was refused is not done |
//! | `raftctl` | output, exit codes, bytes of any kind |
//! | `loads` | raftctl bench |
//! | `script` | scripts/cluster.sh |
//! | `disk` | a full disk, a failing sync |
//! | `descriptors` | servers that run out of them |
//! | `traced` | what strace sees of a leader |
//! | `pipelined` | many puts on their way at once |
//! | `load`, `mixed` | clients who put, and who do all the rest, while something is done |
//! | `members` | members come, go and are replaced; handovers |
//! | `tools` | log dump and verify, snapshot save, verify and restore, a forced new cluster |
//! | `finals` | what a cluster and its log hold in the end |
//! | `linearizable`, `witnesses` | every answer of a faulty time, judged by the checker |
//! | `chaos`, `chaos_ledger` | random kills under load; every answer is checked |
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]
#![expect(clippy::unwrap_used, reason = "whatever fails here fails the test")]
#![expect(clippy::print_stdout, reason = "measured figures are for whoever runs the test")]
#![expect(clippy::wildcard_enum_match_arm, reason = "any other answer fails the test")]

mod auth;
mod catching_up;
mod chaos;
mod chaos_ledger;
mod clones;
mod descriptors;
mod disk;
mod exactly_once;
mod failover;
mod filled;
mod finals;
mod gate;
mod grey;
mod grown;
mod harness;
mod hostile;
mod introductions;
mod large_writers;
mod leases;
mod linearizable;
mod links;
mod load;
mod loads;
mod members;
mod mixed;
mod partition;
mod patience;
mod pipelined;
mod raftctl;
mod ranges;
mod reads;
mod received;
mod refusals;
mod repl;
mod resident;
mod saves;
pub(crate) mod script;
mod starting;
mod steady;
mod survival;
mod tools;
mod traced;
mod turn_lengths;
mod turns;
mod unfinished;
mod watches;
mod witnesses;

/// What an environment variable says, which makes a test longer or repeats its choices.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
