//! A node that was away receives a large snapshot and loads it: no turn of its loop is long.
//!
//! `RECEIVED_VALUES=600` measures, in a release build: 60 MB. A few values show that it works.

use super::filled::Filled;
use super::harness::{Cluster, PATIENCE, STEADFAST, Shape};
use super::patience::{eventually, now};
use super::turn_lengths::TurnsSeen;
use super::turns::Company;
use super::variable;

/// A piece of a snapshot holds two, a block of its file as well.
const VALUE_BYTES: usize = 100_000;

#[test]
fn a_follower_that_receives_a_large_snapshot_takes_short_turns() {
    let asked = variable("RECEIVED_VALUES");
    let values = asked.unwrap_or(40);
    // A snapshot is due whenever the log has grown by half of the last one.
    let flags = ["--segment-bytes", "8388608", "--snapshot-entries", "20"];
    let flags = flags.into_iter().chain(["--snapshot-interval", "0"]);
    // What was overwritten is in snapshots as well, and is to be little of them.
    let flags = flags.chain(["--history-bytes", "2000000"]);
    // A machine that does other things as well must not depose the leader.
    let patient = STEADFAST.into_iter().filter(|_| asked.is_none());
    let flags = flags.chain(patient).map(str::to_owned).collect();
    let company = if asked.is_some() { Company::Nobody } else { Company::Others };
    let _filled = asked.map(|_| Filled::touch());
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, company, ..Shape::default() });
    let leader = cluster.leader();
    let away = cluster.others(leader)[0];
    let others = cluster.others(away);
    let behind = cluster.server(away).says().last_index;
    cluster.server(away).kill();
    let mut client = cluster.client();
    let mut put = |number: u64| {
        let key = format!("key/{:06}", number % values);
        client.put(key.as_bytes(), &vec![b'v'; VALUE_BYTES]).unwrap();
    };
    // Until the log that it needs is gone, and the snapshot holds all of the keys.
    let whole = values * u64::try_from(VALUE_BYTES).unwrap();
    let mut numbers = 0..;
    eventually("snapshots hold all keys", PATIENCE, || {
        numbers.by_ref().take(8).for_each(&mut put);
        let holds = |id| {
            let status = cluster.server(id).status().ok()?;
            Some(status.log_base > behind && status.snapshot_bytes >= whole)
        };
        others.iter().copied().map(holds).all(|it| it == Some(true)).then_some(())
    });
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
    assert_eq!(status.keys, values);
    println!("received: {values} values of {VALUE_BYTES} bytes, installed within {took:?}");
    seen.report("received");
    if asked.is_some() {
        seen.assert_short();
    }
}
