//! raftctl bench: what it leaves behind, what it refuses, and that its latencies hold all waiting.

use super::harness::{Cluster, PATIENCE, Server};
use super::patience::eventually;
use super::raftctl::{Run, endpoints, raftctl};
use raftd::client::Deadline;
use serde_json::Value;
use std::thread;
use std::time::Duration;

/// A load of so long, measured for JSON.
fn bench(at: &str, duration: &str, flags: &str) -> Run {
    let line = format!("bench --keys 500 --warm-up 200ms --duration {duration} -o json {flags}");
    raftctl(at, &line)
}

/// What a run says that went well.
fn figures(run: &Run) -> Value {
    let found: Value = serde_json::from_str(run.succeeded()).unwrap();
    assert_eq!(found["wrong_answers"], 0, "{found}");
    assert!(found["ops"].as_u64().unwrap() > 0, "{found}");
    found
}

/// How many keys begin with the prefix.
fn keys(at: &str, prefix: &str) -> u64 {
    let found = raftctl(at, &format!("get {prefix} --prefix --count-only -o json"));
    let found: Value = serde_json::from_str(found.succeeded()).unwrap();
    found["count"].as_u64().unwrap()
}

fn microseconds(found: &Value, quantile: &str) -> f64 {
    found["latency_us"][quantile].as_f64().unwrap()
}

#[test]
fn a_load_is_measured_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let at = endpoints(&cluster);
    raftctl(&at, "put benchmark mine").succeeded();
    let found = figures(&bench(&at, "1s", "--reads 50"));
    assert!(found["latency_us_by_kind"]["read"]["count"].as_u64().unwrap() > 0, "{found}");
    assert!(found["latency_us_by_kind"]["update"]["count"].as_u64().unwrap() > 0, "{found}");
    assert!(found["syncs_per_op"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["raftctl_cpu_us_per_op"].as_f64().unwrap() > 0.0, "{found}");
    assert!(microseconds(&found, "p50") <= microseconds(&found, "p99_9"), "{found}");
    assert_eq!(keys(&at, "bench/"), 0);
    assert_eq!(keys(&at, "bench"), 1, "what is not its own it does not touch");

    // One endpoint is enough, also one that does not lead.
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let one = cluster.server(follower).listen().to_owned();
    figures(&bench(&one, "1s", "--ycsb d"));
    assert_eq!(keys(&at, "bench/"), 0, "the new keys are deleted too");
    let scanned = figures(&bench(&at, "1s", "--ycsb E --value-size 4000"));
    assert!(scanned["latency_us_by_kind"]["scan"]["count"].as_u64().unwrap() > 0, "{scanned}");
    let run = raftctl(&at, "bench --prefix x/ --keys 1500 --warm-up 1ms --duration 1s");
    for word in ["a second", "p50", "p99.9"] {
        assert!(run.succeeded().contains(word), "{}", run.succeeded());
    }
    assert_eq!(keys(&at, "x/"), 0);
}

#[test]
fn keys_that_are_there_are_not_put_over_unless_it_is_said() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let at = endpoints(&cluster);
    figures(&bench(&at, "1s", "--keep"));
    assert_eq!(keys(&at, "bench/"), 500);
    bench(&at, "1s", "").fails(1, &["500 keys begin with", "--overwrite"]);
    assert_eq!(keys(&at, "bench/"), 500);
    figures(&bench(&at, "1s", "--overwrite"));
    assert_eq!(keys(&at, "bench/"), 0);
    bench(&at, "1s", "--consistency serializable").fails(2, &["linearizable or lease"]);
    bench("127.0.0.1:1", "1s", "--timeout 300ms").fails(3, &["127.0.0.1:1"]);
}

/// While the leader is stopped, operations go on being due. A closed loop would notice it once a
/// connection: 16 times in hundreds, which no 90th percentile sees.
#[test]
fn latencies_of_an_open_loop_hold_the_waiting_for_a_leader_that_stood_still() {
    let mut cluster = Cluster::start_alone(3);
    let leader = cluster.leader();
    let at = endpoints(&cluster);
    let found = beside(&mut cluster, &at, "5s", "--rate 300", |server| {
        server.pause();
        // About as long as a fifth of the load.
        Deadline::after(Duration::from_millis(1100)).wait();
        server.resume();
    });
    assert_eq!(found["rate"], 300);
    let (p50, p90) = (microseconds(&found, "p50"), microseconds(&found, "p90"));
    assert!(p90 > 100_000.0, "a fifth of all was due while node {leader} stood still: {found}");
    assert!(p50 < p90, "and most was not: {found}");
}

#[test]
fn a_load_outlives_its_leader_and_counts_the_waiting() {
    let mut cluster = Cluster::start_alone(3);
    cluster.leader();
    let at = endpoints(&cluster);
    let found = beside(&mut cluster, &at, "4s", "--rate 300", |server| server.kill());
    assert!(found["repeated"].as_u64().unwrap() > 0, "what was in flight is asked again: {found}");
    // Nobody is elected before 300 ms.
    assert!(microseconds(&found, "max") > 200_000.0, "{found}");
    assert_eq!(found["never_asked"], 0, "{found}");
    assert_eq!(keys(&at, "bench/"), 0);
}

/// Does something to the leader in the middle of a load; once more if a busy machine took so long
/// that the load was over by then.
fn beside(
    cluster: &mut Cluster,
    at: &str,
    duration: &str,
    flags: &str,
    harm: impl Fn(&mut Server),
) -> Value {
    eventually("there is harm during a load", PATIENCE, || {
        cluster.start_all();
        let leader = cluster.leader();
        let before = cluster.server(leader).says().revision.0;
        let (run, in_time) = thread::scope(|scope| {
            let loading = scope.spawn(|| bench(at, duration, flags));
            // Behind its 500 keys half a second of what it asks: more than it warms up for.
            eventually("the load is measured", PATIENCE, || {
                let leader = cluster.leader_now()?;
                let status = cluster.server(leader).status().ok()?;
                (status.revision.0 > before + 500 + 150).then_some(())
            });
            let leader = cluster.leader();
            harm(cluster.server(leader));
            let in_time = !loading.is_finished();
            (loading.join().unwrap(), in_time)
        });
        in_time.then(|| figures(&run))
    })
}
