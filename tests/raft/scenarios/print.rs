//! How a transcript says what happened.

use crate::raft::server::Packet;
use raftd::raft::Notice;
use raftd::raft::message::{AppendOutcome, Message};
use raftd::types::{LogRange, Vote};

/// The kind of a message, as scripts name it.
pub(super) fn kind(message: &Message) -> &'static str {
    match message {
        Message::PreVote { .. } => "PreVote",
        Message::PreVoteReply { .. } => "PreVoteReply",
        Message::Vote { .. } => "Vote",
        Message::VoteReply { .. } => "VoteReply",
        Message::Append { .. } => "Append",
        Message::Heartbeat { .. } => "Heartbeat",
        Message::AppendReply { .. } => "AppendReply",
        Message::TimeoutNow { .. } => "TimeoutNow",
        Message::ReadIndex { .. } => "ReadIndex",
        Message::ReadIndexReply { .. } => "ReadIndexReply",
        Message::InstallSnapshot { .. } => "InstallSnapshot",
        Message::InstallSnapshotReply { .. } => "InstallSnapshotReply",
    }
}

fn granted(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

fn rounds(round: u64) -> String {
    if round == 0 { String::new() } else { format!(" round={round}") }
}

/// `n1@2 -> n2 Vote last=1@1`, and what became of it.
pub(super) fn leaving(packet: &Packet, fate: Option<&str>) -> String {
    describe(packet, Some(fate.unwrap_or_default()))
}

/// The same; without the receiver if there is no `fate` to tell.
pub(super) fn describe(packet: &Packet, fate: Option<&str>) -> String {
    let body = match &packet.message {
        Message::PreVote { campaign_term, last } => format!("for={campaign_term} last={last}"),
        Message::PreVoteReply { term: _, campaign_term, granted: yes } => {
            format!("for={campaign_term} {}", granted(*yes))
        }
        Message::Vote { term: _, last, asked_by: None } => format!("last={last}"),
        Message::Vote { term: _, last, asked_by: Some(leader) } => {
            format!("last={last} asked_by={leader}")
        }
        Message::TimeoutNow { term: _, last } => format!("last={last}"),
        Message::VoteReply { term: _, granted: yes } => granted(*yes).to_owned(),
        Message::Append { term: _, session: _, round, prev, entries, commit } => {
            let count = u64::try_from(entries.len()).expect("small");
            let range = LogRange::new(prev.index, prev.index.advanced_by(count));
            format!("prev={prev} {range} commit={commit}{}", rounds(*round))
        }
        Message::Heartbeat { term: _, session: _, round, commit } => {
            format!("commit={commit}{}", rounds(*round))
        }
        Message::AppendReply { term: _, session: _, round, outcome, first_faulty: _ } => {
            format!("{}{}", self::outcome(*outcome), rounds(*round))
        }
        // Questions are numbered from a random start.
        Message::ReadIndex { .. } => "?".to_owned(),
        Message::ReadIndexReply { term: _, sequence: _, index } => format!("index={index}"),
        Message::InstallSnapshot { term: _, snapshot, offset, bytes } => {
            format!("last={} offset={offset} bytes={bytes}", snapshot.position)
        }
        Message::InstallSnapshotReply { term: _, snapshot, outcome } => {
            format!("last={} {outcome:?}", snapshot.position)
        }
    };
    let kind = kind(&packet.message);
    let from = match packet.message.term() {
        Some(term) => format!("{}@{term}", packet.from),
        None => packet.from.to_string(),
    };
    match fate {
        None => format!("{from} {kind} {body}"),
        Some("") => format!("{from} -> {} {kind} {body}", packet.to),
        Some(fate) => format!("{from} -> {} {kind} {body} ({fate})", packet.to),
    }
}

fn outcome(outcome: AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Matched { index } => format!("matched={index}"),
        AppendOutcome::Conflict { probe, hint } => format!("conflict={probe} hint={hint}"),
        AppendOutcome::NoRoom { index } => format!("no room, matched={index}"),
    }
}

pub(super) fn vote(vote: Vote) -> String {
    match vote {
        Vote::None => "none".to_owned(),
        Vote::For(candidate) => candidate.to_string(),
        Vote::Abstain => "abstain".to_owned(),
    }
}

pub(super) fn notice(notice: &Notice) -> String {
    match notice {
        Notice::AskingForPreVotes { .. } => "asks for pre-votes".to_owned(),
        Notice::Campaigning { .. } => "campaigns".to_owned(),
        Notice::BecameLeader { .. } => "leads".to_owned(),
        Notice::BecameFollower { leader: Some(leader), .. } => format!("gives way to {leader}"),
        Notice::BecameFollower { leader: None, .. } => "gives way".to_owned(),
        Notice::LeaderChanged { leader, .. } => format!("follows {leader}"),
        Notice::LostQuorum { .. } => "has lost its quorum".to_owned(),
        Notice::TransferFailed { target, .. } => format!("leads on, {target} did not take over"),
        Notice::DiskStalled { .. } => "waits for its disk for too long".to_owned(),
        Notice::SnapshotInstalled { position, .. } => format!("installs a snapshot {position}"),
        Notice::SafetyViolated { from, ours, theirs } => {
            format!("says that {from} contradicts {ours} with term {theirs}")
        }
    }
}
