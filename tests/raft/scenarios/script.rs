//! The lines of a script. `mod.rs` lists them.

use super::expect::expect;
use super::world::{Lane, World, stretch};
use crate::raft::server::{Packet, at, disk, id, pos};
use raftd::raft::Raft;
use raftd::raft::message::Message;
use raftd::types::{HardState, LogPosition, NodeId, Term, Vote};
use std::collections::BTreeSet;

/// Does one line. Remarks go into the transcript, where they help as much.
pub(super) fn execute(world: &mut World, line: &str) {
    if line.starts_with('#') {
        return world.say(line.to_owned());
    }
    world.say(format!("> {line}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["quietly", rest @ ..] => {
            world.quiet = true;
            act(world, rest);
            world.quiet = false;
        }
        rest => act(world, rest),
    }
}

fn act(world: &mut World, words: &[&str]) {
    match words {
        ["cluster" | "machines", count, options @ ..] => {
            match options {
                [] => {}
                ["entries", entries] => world.entries_max = entries.parse().expect("a number"),
                ["leases"] => world.leases = true,
                other => panic!("no such cluster: {}", other.join(" ")),
            }
            world.build(number(count));
            if words[0] == "cluster" {
                start_all(world);
            }
        }
        ["disk", who, "log", rest @ ..] => write_disk(world, node(who), rest),
        ["start"] => start_all(world),
        ["put", who, word] => put(world, node(who), word),
        ["read", who, name] => world.refused = !world.read(node(who), name, Raft::read),
        ["read", who, name, "by", "lease"] => {
            world.refused = !world.read(node(who), name, Raft::read_by_lease);
        }
        [who, "times", "out"] => time_out(world, node(who)),
        [who, "beats"] => beat(world, node(who)),
        ["time", span] => world.pass(nanoseconds(span)),
        ["pause", span] => world.now = world.now.after_ns(nanoseconds(span)),
        ["expect", what @ ..] => expect(world, what),
        ["crash" | "restart", ..] => power(world, words),
        ["hold" | "sync" | "release", "sync" | "n1" | "n2" | "n3" | "n4" | "n5", ..] => {
            sync(world, words);
        }
        ["cut" | "mend" | "isolate" | "hold" | "forge" | "deliver", ..]
        | ["duplicate" | "drop" | "release", ..] => weather(world, words),
        other => super::members::act(world, other),
    }
}

fn start_all(world: &mut World) {
    for node in world.ids() {
        if !world.is_up(node) {
            world.start(node);
        }
    }
    world.run();
}

/// `disk n1 log 1 1 2 [term 3] [vote n2]`, before the start.
fn write_disk(world: &mut World, node_: NodeId, words: &[&str]) {
    let count = words.iter().take_while(|word| word.parse::<u64>().is_ok()).count();
    let terms: Vec<u64> = words[..count].iter().map(|word| number(word)).collect();
    let mut made = disk(&terms);
    for pair in words[count..].chunks(2) {
        match pair {
            ["term", term] => made.hard_state.term = Term::new(number(term)),
            ["vote", candidate] => made.hard_state.vote = Vote::For(node(candidate)),
            other => panic!("what is {other:?} on a disk?"),
        }
    }
    world.machine(node_).disk = Some(made);
}

fn put(world: &mut World, node: NodeId, word: &str) {
    let value = 1000 + u64::try_from(world.words.len()).expect("small");
    world.words.insert(value, word.to_owned());
    let (log, commit) = world.before(node);
    let now = world.now;
    match world.server(node).propose(now, value) {
        Ok(_) => {
            world.refused = false;
            world.end_turn(node, &log, commit);
            world.run();
        }
        Err(why) => {
            world.refused = true;
            world.say(format!("{node} refuses: {why}"));
        }
    }
}

/// Time goes on to the deadline of `node`, and it alone looks at its clock: a follower or candidate
/// asks for votes, a leader goes on until it has heard no quorum for too long.
fn time_out(world: &mut World, node: NodeId) {
    for _ in 0..50 {
        let led = world.server(node).raft.is_leader();
        world.now = world.now.max(world.server(node).raft.wake_at());
        world.tick(node);
        world.run();
        if !led || !world.server(node).raft.is_leader() {
            return;
        }
    }
    panic!("{node} hears its quorum");
}

fn beat(world: &mut World, node: NodeId) {
    assert!(world.server(node).raft.is_leader(), "{node} has no heart to beat");
    world.now = world.now.max(world.server(node).raft.wake_at());
    world.tick(node);
    world.run();
}

/// `crash n1 n2`, `crash n1 keeping 2` (writes of the job in flight), `restart n1 n2`.
fn power(world: &mut World, words: &[&str]) {
    let (who, survive) = match &words[1..] {
        [who @ .., "keeping", writes] => (who, number(writes)),
        who => (who, 0),
    };
    let survive = usize::try_from(survive).expect("small");
    for who in who {
        if words[0] == "crash" {
            world.crash(node(who), survive);
        } else {
            world.start(node(who));
        }
    }
    world.run();
}

/// `hold sync n1`, `sync n1` (the job in flight, and no other), `release sync n1`.
fn sync(world: &mut World, words: &[&str]) {
    match words {
        ["hold", "sync", who] => world.hold_sync(node(who)),
        ["sync", who] => {
            world.end_sync(node(who));
            world.run();
        }
        ["release", "sync", who] => world.release_sync(node(who)),
        other => panic!("no such line: {}", other.join(" ")),
    }
}

/// What the network does.
fn weather(world: &mut World, words: &[&str]) {
    match words {
        ["cut", link, kind @ ..] if link.contains("->") => {
            let lanes = lanes(world, link, kind.first().copied());
            world.cuts.extend(lanes);
        }
        ["cut", one, other] => {
            for (from, to) in [(one, other), (other, one)] {
                world.cuts.push(Lane { from: node(from), to: node(to), kind: None });
            }
        }
        ["isolate", who] => {
            for link in [format!("{who}->all"), format!("all->{who}")] {
                world.cuts.extend(lanes(world, &link, None));
            }
        }
        ["mend"] => mend(world, |_| true),
        ["mend", one, other] => {
            let ends = [node(one), node(other)];
            mend(world, |lane| ends.contains(&lane.from) && ends.contains(&lane.to));
        }
        ["hold", link, kind @ ..] => {
            let lanes = lanes(world, link, kind.first().copied());
            world.holds.extend(lanes);
        }
        ["forge", link, kind, rest @ ..] => {
            let packet = forge(world, link, kind, rest);
            world.deliver(&packet);
        }
        ["deliver" | "duplicate" | "drop", link, rest @ ..] => post(world, words[0], link, rest),
        ["release", link, kind @ ..] => release(world, link, kind),
        other => panic!("no such line: {}", other.join(" ")),
    }
}

/// What these cuts kept apart is connected anew.
fn mend(world: &mut World, of: impl Fn(&Lane) -> bool) {
    let cuts: Vec<Lane> = world.cuts.extract_if(.., |lane| of(lane)).collect();
    let ends = cuts.iter().flat_map(|it| [(it.from, it.to), (it.to, it.from)]);
    for (from, to) in ends.collect::<BTreeSet<_>>() {
        world.connect(from, to);
    }
    world.end_all_turns();
    world.run();
}

/// The oldest (or newest) message held on a link arrives, arrives and stays, or is lost.
fn post(world: &mut World, what: &str, link: &str, rest: &[&str]) {
    let newest = rest.last() == Some(&"newest");
    let kind = rest.first().filter(|kind| **kind != "newest");
    let wanted = lanes(world, link, kind.copied());
    let is = |packet: &Packet| wanted.iter().any(|lane| lane.carries(packet));
    let found =
        if newest { world.held.iter().rposition(is) } else { world.held.iter().position(is) };
    let found = found.unwrap_or_else(|| panic!("nothing is held on {link}"));
    match what {
        "duplicate" => {
            let packet = world.held[found].clone();
            world.deliver(&packet);
        }
        "deliver" => {
            let packet = world.held.remove(found);
            world.deliver(&packet);
        }
        _drop => {
            world.held.remove(found);
        }
    }
}

/// The link (or all) holds nothing any more, and what it held arrives in order.
fn release(world: &mut World, link: &str, kind: &[&str]) {
    let wanted = if link == "all" {
        std::mem::take(&mut world.holds)
    } else {
        lanes(world, link, kind.first().copied())
    };
    world.holds.retain(|lane| !wanted.contains(lane));
    let is = |packet: &mut Packet| wanted.iter().any(|lane| lane.carries(packet));
    let released: Vec<Packet> = world.held.extract_if(.., is).collect();
    for packet in released {
        world.enqueue(packet);
    }
    world.run();
}

/// `n1->n2`, `n1->all`, `all->n1`.
fn lanes(world: &World, link: &str, kind: Option<&str>) -> Vec<Lane> {
    let (from, to) = link.split_once("->").unwrap_or_else(|| panic!("{link} is no link"));
    let ends = |end: &str| if end == "all" { world.ids() } else { vec![node(end)] };
    let mut lanes = Vec::new();
    for from in ends(from) {
        for to in ends(to) {
            if from != to {
                lanes.push(Lane { from, to, kind: kind.map(str::to_owned) });
            }
        }
    }
    lanes
}

/// A message that this implementation would not send, or not now. Entries are those of the
/// sender's log, so that a forged message is wrong only in what it says of them.
fn forge(world: &mut World, link: &str, kind: &str, rest: &[&str]) -> Packet {
    let lane = lanes(world, link, None).remove(0);
    let session = world.session(lane.from, lane.to);
    let sender = world.server(lane.from);
    let term = field(rest, "term").map_or(sender.raft.term(), |term| Term::new(number(term)));
    let commit = at(field(rest, "commit").map_or(0, number));
    let last = field(rest, "last").map_or(sender.raft.last(), position);
    let granted = rest.contains(&"granted");
    let campaign_term = Term::new(field(rest, "for").map_or(0, number));
    let mut entries = Vec::new();
    let message = match kind {
        "Append" => {
            let after = number(field(rest, "after").expect("an Append has after="));
            let end = number(field(rest, "upto").expect("an Append has upto="));
            let before = stretch(&sender.log, 0, after);
            entries = stretch(&sender.log, after, end);
            let prev = super::world::last_of(&before);
            let metas = entries.iter().map(|entry| entry.meta).collect();
            Message::Append { term, session, round: 0, prev, entries: metas, commit }
        }
        "Heartbeat" => Message::Heartbeat { term, session, round: 0, commit },
        "Vote" => Message::Vote { term, last, asked_by: field(rest, "asked_by").map(node) },
        "TimeoutNow" => Message::TimeoutNow { term, last },
        "VoteReply" => Message::VoteReply { term, granted },
        "PreVote" => Message::PreVote { campaign_term, last },
        "PreVoteReply" => Message::PreVoteReply { term, campaign_term, granted },
        other => panic!("cannot forge {other}"),
    };
    Packet { from: lane.from, to: lane.to, message, entries }
}

fn field<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

pub(super) fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

pub(super) fn node(text: &str) -> NodeId {
    let found = text.strip_prefix('n').and_then(|rest| rest.parse().ok());
    id(found.unwrap_or_else(|| panic!("{text} is no server")))
}

pub(super) fn is_node(text: &str) -> bool {
    text.strip_prefix('n').is_some_and(|rest| rest.parse::<u64>().is_ok())
}

/// `5@3`.
pub(super) fn position(text: &str) -> LogPosition {
    let (index, term) = text.split_once('@').unwrap_or_else(|| panic!("{text} is no position"));
    pos(number(index), number(term))
}

fn nanoseconds(text: &str) -> u64 {
    let ms = text.strip_suffix("ms").unwrap_or_else(|| panic!("{text} is no time"));
    number(ms) * 1_000_000
}

/// What a disk says of term and vote, for `expect`.
pub(super) fn vote_of(hard_state: HardState) -> String {
    super::print::vote(hard_state.vote)
}
