//! A node that was away receives a large snapshot and loads it: no turn of its loop is long.
//!
//! | variable | meaning |
//! |---|---|
//! | `RECEIVED_VALUES` | 600 measure, in a release build: 60 MB; a few show that it works |
//! | `RECEIVED_KEYS` | the same for small values: 1000000 measure |

use super::filled::Filled;
use super::harness::{Cluster, PATIENCE, STEADFAST, Shape};
use super::patience::{eventually, now};
use super::pipelined::put_all;
use super::turn_lengths::TurnsSeen;
use super::turns::Company;
use super::variable;
use raftd::client::Connection;
use raftd::types::LogIndex;
use std::iter;

/// A piece of a snapshot holds two, a block of its file as well.
const LARGE_BYTES: usize = 100_000;
/// What a turn loads of these is bounded by its steps, long before its bytes.
const SMALL_BYTES: usize = 64;
/// Between two looks at the snapshots at most so much is put. Bytes.
const ROUND_BYTES: u64 = 1_000_000;

/// What is in the snapshot.
struct Load {
    keys: u64,
    value_bytes: usize,
    /// It is measured, with nobody beside.
    measures: bool,
}

impl Load {
    fn asked(name: &str, otherwise: u64, value_bytes: usize) -> Load {
        let asked = variable(name);
        Load { keys: asked.unwrap_or(otherwise), value_bytes, measures: asked.is_some() }
    }

    fn start(&self) -> Cluster {
        // A snapshot is due whenever the log has grown by half of the last one.
        let flags = ["--segment-bytes", "8388608", "--snapshot-entries", "20"];
        let flags = flags.into_iter().chain(["--snapshot-interval", "0"]);
        // What was overwritten is in snapshots as well, and is to be little of them.
        let flags = flags.chain(["--history-bytes", "2000000"]);
        // A machine that does other things as well must not depose the leader.
        let patient = STEADFAST.into_iter().filter(|_| !self.measures);
        let flags = flags.chain(patient).map(str::to_owned).collect();
        let company = if self.measures { Company::Nobody } else { Company::Others };
        Cluster::start_shaped(3, &Shape { flags, company, ..Shape::default() })
    }

    fn put(&self, connection: &mut Connection, numbers: impl Iterator<Item = u64>) {
        let mut keys = numbers.map(|number| format!("key/{:09}", number % self.keys).into_bytes());
        let value = vec![b'v'; self.value_bytes];
        if self.value_bytes == LARGE_BYTES {
            // One at a time: a turn takes all that has come, and megabytes of the log at once are
            // not what is measured here.
            keys.for_each(|key| put_all(connection, iter::once(key), &value, |_| {}));
        } else {
            put_all(connection, &mut keys, &value, |_| {});
        }
    }

    /// Until snapshots of `others` hold all of the keys, and the log that whoever is `behind` needs
    /// is gone.
    fn fill(&self, cluster: &mut Cluster, others: &[u64], behind: LogIndex) {
        let leader = cluster.leader();
        let mut connection = cluster.server(leader).connection();
        self.put(&mut connection, 0..self.keys);
        let whole = cluster.server(leader).says().last_index;
        let round = ROUND_BYTES / u64::try_from(self.value_bytes).unwrap();
        let mut from = 0;
        eventually("snapshots hold all keys", PATIENCE, || {
            self.put(&mut connection, from..from + round);
            from += round;
            let holds = |id| {
                let status = cluster.server(id).status().ok()?;
                Some(status.log_base > behind && status.snapshot_index >= whole)
            };
            others.iter().copied().map(holds).all(|it| it == Some(true)).then_some(())
        });
    }
}

/// Keeps a node away while a cluster is filled, and looks at its turns when it is back.
fn returns_in_short_turns(load: &Load) {
    let _filled = load.measures.then(Filled::touch);
    let mut cluster = load.start();
    let leader = cluster.leader();
    let away = cluster.others(leader)[0];
    let others = cluster.others(away);
    let behind = cluster.server(away).says().last_index;
    cluster.server(away).kill();
    load.fill(&mut cluster, &others, behind);
    let bytes = cluster.server(leader).says().snapshot_bytes;
    cluster.server(away).start();
    let began = now();
    let mut status = cluster.server(away).says();
    let mut seen = TurnsSeen::start(&status);
    eventually("it has installed the snapshot", PATIENCE, || {
        status = cluster.server(away).status().ok()?;
        seen.look(&status);
        cluster.server(away).log_text().contains("installed a snapshot").then_some(())
    });
    let took = began.elapsed();
    cluster.wait_until_equal();
    status = cluster.server(away).says();
    seen.look(&status);
    let Load { keys, value_bytes, .. } = *load;
    assert_eq!(status.keys, keys);
    println!(
        "received: {keys} values of {value_bytes} bytes, a snapshot of {bytes} bytes, installed \
         within {took:?}"
    );
    seen.report("received");
    if load.measures {
        seen.assert_short();
    }
}

#[test]
fn a_follower_that_receives_a_large_snapshot_takes_short_turns() {
    returns_in_short_turns(&Load::asked("RECEIVED_VALUES", 40, LARGE_BYTES));
}

#[test]
fn a_follower_that_receives_a_snapshot_of_many_small_keys_takes_short_turns() {
    returns_in_short_turns(&Load::asked("RECEIVED_KEYS", 20_000, SMALL_BYTES));
}
