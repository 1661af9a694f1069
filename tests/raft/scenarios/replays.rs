//! What clients and leaders try twice, or in vain, with whole nodes.

use super::nodes::{Answer, Nodes, Tuning};
use raftd::kv::PutWith;
use raftd::types::SessionId;
use raftd::wire::client::{Command, SessionCall};

const MS: u64 = 1_000_000;

fn open_session(nodes: &mut Nodes, nth: usize) {
    let opened = nodes.command(nth, None, Command::OpenSession);
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&opened), Some(&Answer::Done));
}

/// I3 (etcd 14890 and 18424, jetcd 1444): a put is on a majority of the disks, and its leader is
/// gone before it can say so. The client sends it again, to the next leader, which commits the
/// first one with an entry of its own. Done twice, it would look like a lost update.
#[test]
fn a_call_that_is_sent_again_to_another_leader_is_done_once() {
    let (mut nodes, old, others) = Nodes::cluster();
    open_session(&mut nodes, old);
    let before = nodes.status_of(old);
    let call = SessionCall { session: SessionId(1), sequence: 1, acknowledged: 0 };
    let put = Command::PutWith(PutWith { key: b"k", value: b"v", ..PutWith::default() });
    others.iter().for_each(|nth| nodes.hold_sync(*nth));
    let sent = nodes.command(old, Some(call), put);
    nodes.pass(10 * MS);
    let entry = before.last_index.next();
    assert!(others.iter().all(|nth| nodes.status_of(*nth).last_index == entry), "all have it");
    nodes.freeze(old);
    others.iter().for_each(|nth| nodes.release_sync(*nth));
    assert!(others.iter().all(|nth| nodes.status_of(*nth).durable_index == entry));
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.pass(100 * MS);
    assert_eq!(nodes.answers.get(&sent), None);
    let new = nodes.leader().expect("just seen");
    let revision = nodes.status_of(new).revision;
    assert_eq!(revision.0, before.revision.0 + 1, "the new leader has committed it");
    for _ in 0..2 {
        let again = nodes.command(new, Some(call), put);
        nodes.pass(100 * MS);
        assert_eq!(nodes.answers.get(&again), Some(&Answer::Done), "what it was answered first");
        assert_eq!(nodes.status_of(new).revision, revision, "and nothing is done");
    }
    nodes.thaw(old);
    nodes.pass(300 * MS);
    let hash = nodes.status_of(new).state_hash;
    assert!((1..=3).all(|nth| nodes.status_of(nth).state_hash == hash));
}

/// D9 (aeron 1739): a leader numbered sessions when it proposed them, and the others when they
/// applied them, so that their snapshots differed. Here a leader proposes some that another one's
/// entries replace; no snapshot knows of them.
#[test]
fn what_a_leader_proposed_in_vain_is_in_no_snapshot() {
    let mut nodes = Nodes::tuned(3, Tuning { snapshot_entries: 5, ..Tuning::default() });
    nodes.pass(200 * MS);
    let old = nodes.leader().expect("elected");
    open_session(&mut nodes, old);
    let last = nodes.status_of(old).last_index;
    nodes.command(old, None, Command::OpenSession);
    nodes.command(old, None, Command::LeaseGrant { lease: 0, ttl_s: 1_000 });
    nodes.turn_and_freeze(old);
    assert!(nodes.status_of(old).last_index > last, "it has proposed them");
    nodes.pass_until(|nodes| nodes.leader().is_some());
    nodes.pass(100 * MS);
    let new = nodes.leader().expect("just seen");
    open_session(&mut nodes, new);
    let granted = nodes.command(new, None, Command::LeaseGrant { lease: 0, ttl_s: 1_000 });
    nodes.pass(100 * MS);
    let Some(Answer::Term(term)) = nodes.answers.get(&granted) else { panic!("it is answered") };
    let lease = term.lease;
    nodes.thaw(old);
    for key in 0..30 {
        let put = nodes.put(new, &format!("{key}"));
        nodes.pass(20 * MS);
        assert_eq!(nodes.answers.get(&put), Some(&Answer::Done));
    }
    nodes.pass(300 * MS);
    let agreed = nodes.status_of(new);
    for nth in 1..=3 {
        assert!(nodes.status_of(nth).snapshot_index > last, "{nth} has made one since");
        nodes.crash(nth);
        nodes.boot(nth).expect("its disk is well");
        nodes.pass(1_500 * MS);
        let status = nodes.status_of(nth);
        assert_eq!(status.sessions, 2, "{nth}");
        assert_eq!((status.revision, status.keys), (agreed.revision, agreed.keys), "{nth}");
        assert!(nodes.lease_of(nth, lease).is_some(), "{nth}");
    }
    let hash = nodes.status_of(1).state_hash;
    assert!((1..=3).all(|nth| nodes.status_of(nth).state_hash == hash));
}
