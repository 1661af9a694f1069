//! A leader cut off from the others, for real: its bytes go nowhere, and arrive late.

use super::harness::{Cluster, PATIENCE, Shape};
use super::patience::eventually;
use raftd::client::Deadline;
use raftd::types::Revision;
use raftd::wire::client::{Consistency, RangeArgs};
use raftd::wire::reply::ReplyBody;

#[test]
fn a_cut_off_leader_steps_down_and_the_majority_goes_on() {
    let mut cluster = Cluster::start_shaped(3, &Shape { cuttable: true, ..Shape::default() });
    let old = cluster.leader();
    let others = cluster.others(old);
    cluster.client_of(&[old]).put(b"k", b"before").unwrap();

    let links = cluster.links.take().expect("the cluster is cuttable");
    links.cut(old, &others);
    // A write that the old leader takes while it still believes in itself.
    let mut stuck = cluster.server(old).connection();
    let deadline = Deadline::after(PATIENCE);
    stuck.put(b"k", b"of the minority");
    stuck.flush(deadline).unwrap();

    let mut client = cluster.client_of(&others);
    eventually("the majority serves", PATIENCE, || client.put(b"k", b"of the majority").ok());
    eventually("the cut-off leader steps down", PATIENCE, || {
        let status = cluster.server(old).says();
        (status.role != "leader").then_some(())
    });
    assert_eq!(read_own_state(&mut cluster, old), b"before", "nothing unconfirmed is served");

    links.heal();
    cluster.links = Some(links);
    cluster.wait_until_equal();
    assert_eq!(client.get(b"k").unwrap().unwrap().value, b"of the majority");
    let answer = stuck.receive(deadline).map(|reply| format!("{:?}", reply.body));
    assert!(!matches!(&answer, Ok(text) if text.starts_with("Put")), "acknowledged: {answer:?}");
}

#[test]
fn a_follower_that_was_cut_off_disturbs_nobody_when_it_returns() {
    // A busy machine must not look like a node that disturbs.
    let flags = ["--election-timeout", "1500", "--heartbeat", "60"].map(str::to_owned).to_vec();
    let shape = Shape { flags, cuttable: true, ..Shape::default() };
    let mut cluster = Cluster::start_shaped(3, &shape);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let (lost, kept) = (others[0], others[1]);
    let term = cluster.server(leader).says().term;
    let links = cluster.links.take().expect("the cluster is cuttable");
    links.cut(lost, &[leader, kept]);
    eventually("the lost node misses its leader", PATIENCE, || {
        let status = cluster.server(lost).says();
        status.leader.is_none().then_some(())
    });
    let mut client = cluster.client_of(&[leader, kept]);
    for number in 0..50 {
        client.put(format!("k{number}").as_bytes(), b"v").unwrap();
    }
    links.heal();
    cluster.links = Some(links);
    cluster.wait_until_equal();
    let status = cluster.server(leader).says();
    // Pre-vote: who cannot win does not raise the term.
    assert_eq!((status.role.as_str(), status.term), ("leader", term));
}

/// The value of `k` in the node's own state.
fn read_own_state(cluster: &mut Cluster, id: u64) -> Vec<u8> {
    let mut connection = cluster.server(id).connection();
    let deadline = Deadline::after(PATIENCE);
    connection.range(&RangeArgs {
        consistency: Consistency::Serializable,
        revision: Revision(0),
        ..RangeArgs::of_key(b"k")
    });
    connection.flush(deadline).unwrap();
    match connection.receive(deadline).unwrap().body {
        ReplyBody::Range(range) => {
            range.kvs().map(|kv| kv.value.to_vec()).next().expect("k is there")
        }
        other => panic!("asked for a range, got {other:?}"),
    }
}
