//! member list, add, promote, remove, replace; transfer-leader.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use anyhow::anyhow;
use raftd::client::Client;
use raftd::types::NodeId;
use raftd::wire::members::{MemberList, MemberRequest, MemberStatus};
use serde_json::{Value, json};

use super::args::{Format, MemberVerb, Newcomer, NodeNumber};
use super::exit::{End, Failure};
use super::output::{json_line, table};
use super::save::percent;

/// Does the verb. A new voter is waited for until it votes: what it still lacks is shown on the
/// way.
pub(crate) fn member(
    client: &mut Client,
    format: Format,
    verb: MemberVerb,
) -> Result<Vec<u8>, Failure> {
    match verb {
        MemberVerb::List => {}
        MemberVerb::Add { member: Newcomer { id, address }, learner } => {
            let address = &address;
            client.change_members(&MemberRequest::Add { node: id, address, stay: learner })?;
            if !learner {
                wait_for_vote(client, id)?;
            }
        }
        MemberVerb::Promote { id: NodeNumber(node) } => {
            client.change_members(&MemberRequest::Promote { node })?;
            wait_for_vote(client, node)?;
        }
        MemberVerb::Remove { id: NodeNumber(node) } => {
            client.change_members(&MemberRequest::Remove { node })?;
        }
        MemberVerb::Replace { id: NodeNumber(old), member: Newcomer { id, address } } => {
            let address = &address;
            client.change_members(&MemberRequest::Replace { old, node: id, address })?;
            wait_for_vote(client, id)?;
        }
    }
    let list = client.member_list()?;
    Ok(match format {
        Format::Simple => list.members.iter().flat_map(|it| line(&list, it).into_bytes()).collect(),
        Format::Json => json_line(&object(&list)),
        Format::Table => {
            let rows: Vec<_> = list.members.iter().map(|member| row(&list, member)).collect();
            table(HEADINGS, &rows)
        }
    })
}

/// Lets another voter lead.
pub(crate) fn transfer_leader(
    client: &mut Client,
    format: Format,
    id: Option<NodeNumber>,
) -> Result<Vec<u8>, Failure> {
    let leader = client.transfer_leader(id.map(|id| id.0))?;
    Ok(match format {
        Format::Simple => format!("{leader} leads\n").into_bytes(),
        Format::Json => json_line(&json!({ "leader": leader.get() })),
        Format::Table => table(&["LEADER"], &[vec![leader.to_string()]]),
    })
}

/// Waits until `id` votes and the configuration is settled. Says how far it is when that has
/// changed, on standard error; a server that makes no progress is given up, and stays a learner
/// that becomes a voter when it can.
fn wait_for_vote(client: &mut Client, id: NodeId) -> Result<(), Failure> {
    let mut nearest = Nearest::default();
    loop {
        let list = client.member_list()?;
        let settled = list.committed && list.members.iter().all(|it| !is_between(it));
        let Some(member) = list.members.iter().find(|member| member.node == id) else {
            let why = anyhow!("{id} was removed before it voted");
            return Err(Failure { end: End::Refused, why });
        };
        if settled && member.role == "voter" {
            return Ok(());
        }
        let entries = behind_by(&list, member);
        match nearest.look(entries, sent_to(client, &list, member.node)) {
            // Nobody is left to hear that standard error is closed.
            Step::Nearer => drop(writeln!(std::io::stderr(), "{id} is {nearest}")),
            Step::Waits => {}
            Step::GivenUp => {
                let state = if member.alive { "connected" } else { "not connected" };
                let why = anyhow!(
                    "{id} does not catch up: it is {state} and {nearest}; it stays a learner and \
                     will vote once it has caught up"
                );
                return Err(Failure { end: End::Refused, why });
            }
        }
        client.pause();
    }
}

/// How much of its snapshot the leader has sent to `node`. `None`: the leader does not say.
fn sent_to(client: &Client, list: &MemberList, node: NodeId) -> Option<Sent> {
    let leader = list.members.iter().find(|it| it.node == list.leader)?;
    let status = client.status(&leader.address).ok()?;
    let peer = status.peers.iter().find(|peer| peer.node == node)?;
    Some(Sent { bytes: peer.snapshot_sent, of: peer.snapshot_bytes })
}

/// About ten seconds without progress.
const LOOKS_MAX: u32 = 300;

/// About ten minutes: a server says nothing while it loads a snapshot, and 1,000,000 keys take it
/// twenty seconds.
const LOADING_LOOKS_MAX: u32 = 60 * LOOKS_MAX;

/// Of a snapshot: how much the member has, and the size, which is 0 if it is sent none. Bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Sent {
    bytes: u64,
    of: u64,
}

impl Sent {
    fn is_whole(self) -> bool {
        self.of > 0 && self.bytes == self.of
    }
}

/// What came of a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Nearer,
    Waits,
    GivenUp,
}

/// The least that a member lacked so far. While it is sent a snapshot it gets nearer, and no index
/// shows it.
#[derive(Default)]
struct Nearest {
    entries: Option<u64>,
    /// The snapshot that it is sent, as far as the last look that was answered knew.
    sent: Sent,
    /// The most that it had of each snapshot, by size: one that is begun anew is no progress until
    /// there is more of it, and between two of them, or when a look fails, there is none.
    most: BTreeMap<u64, u64>,
    looks: u32,
}

impl Nearest {
    /// Takes in a look; of one that failed only what the member list said.
    fn look(&mut self, entries: u64, sent: Option<Sent>) -> Step {
        // The member list is older than the status: just after a snapshot was loaded it does not
        // show that yet.
        let loaded = self.sent.is_whole();
        self.sent = sent.unwrap_or(self.sent);
        let Sent { bytes, of } = self.sent;
        let most = self.most.entry(of).or_default();
        let nearer = self.entries.is_none_or(|least| entries < least) || bytes > *most;
        *most = bytes.max(*most);
        self.entries = Some(self.entries.map_or(entries, |least| least.min(entries)));
        self.looks = if nearer { 0 } else { self.looks + 1 };
        let loads = loaded || self.sent.is_whole();
        if nearer {
            Step::Nearer
        } else if self.looks < if loads { LOADING_LOOKS_MAX } else { LOOKS_MAX } {
            Step::Waits
        } else {
            Step::GivenUp
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "behind by {} entries", self.entries.unwrap_or_default())?;
        let Sent { bytes, of } = self.sent;
        if of > 0 {
            write!(f, ", and has {} of a snapshot", percent(bytes, of))?;
        }
        Ok(())
    }
}

fn is_between(member: &MemberStatus) -> bool {
    member.role == "incoming" || member.role == "outgoing"
}

fn behind_by(list: &MemberList, member: &MemberStatus) -> u64 {
    list.last_index.get().saturating_sub(member.match_index.get())
}

fn line(list: &MemberList, member: &MemberStatus) -> String {
    let behind = behind_by(list, member);
    let leads = if member.node == list.leader { " leader" } else { "" };
    let alive = if member.alive { "" } else { " unreachable" };
    format!("{} {} {}{leads}{alive} behind={behind}\n", member.node, member.address, member.role)
}

const HEADINGS: &[&str] = &["NODE", "ADDRESS", "ROLE", "LEADER", "ALIVE", "BEHIND", "DISK"];

fn row(list: &MemberList, member: &MemberStatus) -> Vec<String> {
    let tick = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    vec![
        member.node.to_string(),
        member.address.clone(),
        member.role.clone(),
        tick(member.node == list.leader),
        tick(member.alive),
        behind_by(list, member).to_string(),
        member.disk_id.to_string(),
    ]
}

fn object(list: &MemberList) -> Value {
    let member = |it: &MemberStatus| {
        json!({
            "id": it.node.get(),
            "address": it.address,
            "role": it.role,
            "replaces": it.replaces.map(NodeId::get),
            "alive": it.alive,
            "match_index": it.match_index.get(),
            "disk_id": it.disk_id.to_string(),
        })
    };
    json!({
        "index": list.index.get(),
        "committed": list.committed,
        "highest": list.highest.get(),
        "leader": list.leader.get(),
        "last_index": list.last_index.get(),
        "members": list.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::{LOADING_LOOKS_MAX, LOOKS_MAX, Nearest, Sent, Step};

    /// Looks until it is given up, at what `sent` says to each look.
    fn looks(nearest: &mut Nearest, sent: impl Fn(u32) -> Option<Sent>) -> u32 {
        let mut all = 0..2 * LOADING_LOOKS_MAX;
        let given_up = |look: &u32| nearest.look(100, sent(*look)) == Step::GivenUp;
        all.find(given_up).expect("nothing moves")
    }

    /// What failed looked like a snapshot that had ended, and the next look like another one that
    /// had begun: whoever was asked for its status in vain now and then was never given up.
    #[test]
    fn a_member_that_gets_no_nearer_is_given_up_whatever_the_looks_say() {
        let half = Some(Sent { bytes: 500, of: 1_000 });
        let less = Some(Sent { bytes: 100, of: 1_000 });
        let other = Some(Sent { bytes: 500, of: 2_000 });
        let none = Some(Sent::default());
        for seldom in [None, none, less, other] {
            let mut nearest = Nearest::default();
            let sent = |look| if look % 7 == 3 { seldom } else { half };
            let given_up = looks(&mut nearest, sent);
            assert!((LOOKS_MAX..LOOKS_MAX + 10).contains(&given_up), "{given_up}: {seldom:?}");
        }
    }

    #[test]
    fn a_member_that_gets_nearer_or_loads_is_waited_for() {
        let mut nearest = Nearest::default();
        assert_eq!(nearest.look(100, None), Step::Nearer);
        assert_eq!(nearest.look(100, None), Step::Waits);
        for bytes in 1..=10 {
            let sent = Some(Sent { bytes, of: 10 });
            assert_eq!(nearest.look(100, sent), Step::Nearer);
            assert_eq!(nearest.look(100, None), Step::Waits);
            assert_eq!(nearest.look(100, sent), Step::Waits);
        }
        assert_eq!(
            nearest.to_string(),
            "behind by 100 entries, and has 100 % of 10 bytes of a snapshot"
        );
        for _ in 0..LOOKS_MAX {
            assert_eq!(nearest.look(100, None), Step::Waits);
        }
        let ended = Some(Sent::default());
        assert_eq!(nearest.look(100, ended), Step::Waits, "the list may be older");
        assert_eq!(nearest.look(99, ended), Step::Nearer);
        let mut nearest = Nearest::default();
        let loads = |_| Some(Sent { bytes: 10, of: 10 });
        assert_eq!(looks(&mut nearest, loads), LOADING_LOOKS_MAX);
    }
}
