//! The lines of a script about members, snapshots and the leadership's handover.

use super::script::{is_node, node, number};
use super::world::{World, last_of, stretch};
use crate::raft::server::{Packet, at, empty_disk};
use raftd::raft::message::Message;
use raftd::raft::{Change, Configuration, Learner, Wish};
use raftd::types::{NodeId, SnapshotId};

/// Does one line. Panics if it is none.
pub(super) fn act(world: &mut World, words: &[&str]) {
    match words {
        [who, "joins"] => join(world, node(who)),
        [who, "adds", rest @ ..] => {
            let learner = learner(rest);
            change(world, node(who), Change::Add(learner));
        }
        [who, "promotes", learner] => change(world, node(who), Change::Promote(node(learner))),
        [who, "removes", member] => change(world, node(who), Change::Remove(node(member))),
        [who, "hands", "over", "to", target] => hand_over(world, node(who), node(target)),
        ["compact", who, "upto", index] => {
            world.server(node(who)).compact(at(number(index)));
        }
        ["snapshot", link, "upto", index] => {
            let (from, to) = link.split_once("->").unwrap_or_else(|| panic!("{link} is no link"));
            send_snapshot(world, (node(from), node(to)), number(index));
        }
        other => panic!("no such line: {}", other.join(" ")),
    }
}

/// A server that was told of the founders starts with an empty disk.
fn join(world: &mut World, node: NodeId) {
    world.add_machine(empty_disk());
    assert_eq!(world.ids().last(), Some(&node), "servers join in the order of their numbers");
    world.start(node);
    world.run();
}

/// `n4`, `n4 as voter`, `n4 for n3`.
fn learner(words: &[&str]) -> Learner {
    let (who, wish) = match words {
        [who] => (who, Wish::Stay),
        [who, "as", "voter"] => (who, Wish::Vote),
        [who, "for", old] => (who, Wish::Replace(node(old))),
        other => panic!("nobody is added as {}", other.join(" ")),
    };
    Learner { id: node(who), wish }
}

fn change(world: &mut World, node: NodeId, change: Change) {
    let (log, commit) = world.before(node);
    let now = world.now;
    let changed = world.server(node).change(now, change);
    world.refused = changed.is_err();
    if let Err(why) = changed {
        return world.say(format!("{node} refuses: {why}"));
    }
    world.end_turn(node, &log, commit);
    world.run();
}

fn hand_over(world: &mut World, node: NodeId, target: NodeId) {
    let (log, commit) = world.before(node);
    let now = world.now;
    let begun = world.server(node).raft.transfer(now, target);
    world.refused = begun.is_err();
    if let Err(why) = begun {
        return world.say(format!("{node} refuses: {why}"));
    }
    world.end_turn(node, &log, commit);
    world.run();
}

/// What `from` has committed up to `index` leaves as one piece.
fn send_snapshot(world: &mut World, (from, to): (NodeId, NodeId), index: u64) {
    let server = world.server(from);
    assert!(server.raft.commit_index() >= at(index), "a snapshot is of what is committed");
    let (term, entries) = (server.raft.term(), stretch(&server.log, 0, index));
    let snapshot = SnapshotId { position: last_of(&entries), bytes: 10, crc: 7 };
    let message = Message::InstallSnapshot { term, snapshot, offset: 0, bytes: 10 };
    world.send(Packet { from, to, message, entries });
    world.run();
}

/// `n1 n2 n3`, `n1 n2 n3 learner n4`, `n1 n2 n3 and n1 n2 n4`.
pub(super) fn print(configuration: &Configuration) -> String {
    let names = |ids: &[NodeId]| {
        let names: Vec<String> = ids.iter().map(NodeId::to_string).collect();
        names.join(" ")
    };
    let voters = match configuration {
        Configuration::Stable { voters, .. } => names(voters.ids()),
        Configuration::Joint { old, new, .. } => {
            format!("{} and {}", names(old.ids()), names(new.ids()))
        }
    };
    let learners: Vec<NodeId> = configuration.learners().iter().map(|it| it.id).collect();
    if learners.is_empty() { voters } else { format!("{voters} learner {}", names(&learners)) }
}

/// What a server is expected to be among the members, or to have of a snapshot. `None`: it is
/// about something else.
pub(super) fn holds(world: &mut World, who: NodeId, what: &[&str]) -> Option<bool> {
    let now = world.now;
    let raft = &world.server(who).raft;
    match what {
        ["members", first, ..] if is_node(first) => {
            Some(print(raft.configuration()) == what[1..].join(" "))
        }
        ["base", place] => Some(raft.base().to_string() == *place),
        ["awaits", "nobody"] => Some(raft.awaiting_snapshot().next().is_none()),
        ["awaits", peer] => Some(raft.needs_snapshot(node(peer))),
        ["holds", "a", "lease"] => Some(raft.holds_lease(now)),
        ["holds", "no", "lease"] => Some(!raft.holds_lease(now)),
        _other => None,
    }
}
