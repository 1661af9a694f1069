//! The checks of a script: what the scenario is about, said once more, and true whatever the
//! transcript says.

use super::script::{is_node, node, number, position, vote_of};
use super::world::{Lane, Read, World, last_of};
use crate::raft::server::{Entry, length};
use raftd::types::{LogPosition, NodeId};

/// Fails unless `what` holds now.
pub(super) fn expect(world: &mut World, what: &[&str]) {
    let said = what.join(" ");
    let holds = match what {
        ["refused"] => world.refused,
        ["accepted"] => !world.refused,
        ["said", words @ ..] => since_command(world, &words.join(" ")),
        ["not", "said", words @ ..] => !since_command(world, &words.join(" ")),
        ["no", "leader"] => leaders(world).is_empty(),
        ["one", "leader"] => leaders(world).len() == 1,
        ["committed", place] => committed(world, position(place)),
        ["committed", place, "everywhere"] => everywhere(world, position(place)),
        ["nothing", "committed", "after", index] => {
            world.oracle.commit_index().get() == number(index)
        }
        ["held", count, link, kind] => held(world, link, kind) == number(count),
        [who, rest @ ..] if is_node(who) => of_server(world, node(who), rest),
        [word, rest @ ..] if world.reads.contains_key(*word) => of_read(world, word, rest),
        [word, "committed"] => is_committed(world, word),
        [word, "not", "committed"] => !is_committed(world, word),
        [word, "nowhere"] => !anywhere(world, word),
        other => panic!("cannot expect {}", other.join(" ")),
    };
    assert!(holds, "expected: {said}\nbut {}", standing(world));
}

fn held(world: &World, link: &str, kind: &str) -> u64 {
    let (from, to) = link.split_once("->").unwrap_or_else(|| panic!("{link} is no link"));
    let kind = Some(kind.to_owned());
    let lane = Lane { from: node(from), to: node(to), kind };
    let held = world.held.iter().filter(|packet| lane.carries(packet)).count();
    u64::try_from(held).expect("small")
}

/// Whether a line that the last command brought about contains `text`.
fn since_command(world: &World, text: &str) -> bool {
    let is_command = |line: &&String| line.starts_with("> ") && !line.starts_with("> expect ");
    let lines = world.transcript.iter().rev().take_while(|line| !is_command(line));
    lines.filter(|line| !line.starts_with("> ")).any(|line| line.contains(text))
}

fn of_server(world: &mut World, who: NodeId, what: &[&str]) -> bool {
    if let ["disk", terms @ ..] = what {
        return terms_of(world.machine(who).disk()) == parse(terms);
    }
    if let ["down"] = what {
        return !world.is_up(who);
    }
    if let Some(holds) = super::members::holds(world, who, what) {
        return holds;
    }
    let server = world.server(who);
    let raft = &server.raft;
    match what {
        ["leads"] => raft.is_leader(),
        ["leads", term] => raft.is_leader() && raft.term().get() == number(term),
        ["follows", leader] => raft.leader() == Some(node(leader)) && !raft.is_leader(),
        ["knows", "no", "leader"] => raft.leader().is_none(),
        ["is", role] => raft.role_name() == *role,
        ["is", "not", role] => raft.role_name() != *role,
        ["term", term] => raft.term().get() == number(term),
        ["vote", vote] => vote_of(raft.hard_state()) == *vote,
        ["log", terms @ ..] => terms_of(&server.log) == parse(terms),
        ["commit", index] => raft.commit_index().get() == number(index),
        ["durable", index] => raft.durable().get() == number(index),
        ["knows", peer, "at", index] => {
            raft.match_index(node(peer)).is_some_and(|it| it.get() == number(index))
        }
        other => panic!("cannot expect {who} {}", other.join(" ")),
    }
}

fn of_read(world: &World, name: &str, what: &[&str]) -> bool {
    let (_, read) = world.reads[name];
    match what {
        ["waits"] => read == Read::Waits,
        ["dropped"] => matches!(read, Read::Answered(Err(_))),
        ["at", index] => {
            matches!(read, Read::Answered(Ok(it)) if it.get() == number(index))
        }
        other => panic!("cannot expect {name} {}", other.join(" ")),
    }
}

fn parse(terms: &[&str]) -> Vec<u64> {
    terms.iter().map(|term| number(term)).collect()
}

fn terms_of(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.meta.term.get()).collect()
}

fn leaders(world: &World) -> Vec<NodeId> {
    let servers = world.machines.iter().filter_map(|machine| machine.server.as_ref());
    servers.filter(|server| server.raft.is_leader()).map(|server| server.id).collect()
}

fn committed(world: &World, place: LogPosition) -> bool {
    let upto = world.oracle.commit_index().min(place.index);
    let slot = usize::try_from(upto.get()).expect("small");
    last_of(&world.oracle.committed[..slot]) == place
}

fn everywhere(world: &World, place: LogPosition) -> bool {
    let mut servers = world.machines.iter().filter_map(|machine| machine.server.as_ref());
    committed(world, place) && servers.all(|server| server.raft.commit_index() >= place.index)
}

fn value_of(world: &World, word: &str) -> u64 {
    let found = world.words.iter().find(|(_, known)| *known == word);
    *found.unwrap_or_else(|| panic!("nobody put {word}")).0
}

fn is_committed(world: &World, word: &str) -> bool {
    let value = value_of(world, word);
    world.oracle.committed.iter().any(|entry| entry.value == value)
}

fn anywhere(world: &World, word: &str) -> bool {
    let value = value_of(world, word);
    let has = |entries: &[Entry]| entries.iter().any(|entry| entry.value == value);
    world.machines.iter().any(|machine| {
        has(machine.disk()) || machine.server.as_ref().is_some_and(|server| has(&server.log))
    })
}

/// One line per machine, for whoever reads a failure.
fn standing(world: &World) -> String {
    let mut lines = format!("commit={}", world.oracle.commit_index());
    for (machine, node) in world.machines.iter().zip(world.ids()) {
        lines += &match &machine.server {
            None => format!("\n  {node} is down, disk {:?}", terms_of(machine.disk())),
            Some(server) => format!(
                "\n  {node} {} {:?} leader={:?} commit={} durable={} log {:?} disk {:?}",
                server.raft.role_name(),
                server.raft.hard_state(),
                server.raft.leader(),
                server.raft.commit_index(),
                length(&server.disk.entries),
                terms_of(&server.log),
                terms_of(machine.disk()),
            ),
        };
    }
    lines
}
