//! member list, add, promote, remove, replace; transfer-leader.

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
    let mut nearest = Lag { entries: u64::MAX, sent: 0, of: 0 };
    let mut looks = 0_u32;
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
        let lag = Lag::of(client, &list, member);
        if lag.of != nearest.of {
            // Another snapshot, or none: what was sent of the last one says nothing of it, and to
            // begin is no progress.
            nearest = Lag { sent: 0, of: lag.of, ..nearest };
        }
        if lag.is_less_than(&nearest) {
            nearest = lag;
            looks = 0;
            // Nobody is left to hear that standard error is closed.
            let _ = writeln!(std::io::stderr(), "{id} is {lag}");
        }
        looks += 1;
        if looks > if lag.loads() { LOADING_LOOKS_MAX } else { LOOKS_MAX } {
            let state = if member.alive { "connected" } else { "not connected" };
            let why = anyhow!(
                "{id} does not catch up: it is {state} and {lag}; it stays a learner and will vote \
                 once it has caught up"
            );
            return Err(Failure { end: End::Refused, why });
        }
        client.pause();
    }
}

/// About ten seconds without progress.
const LOOKS_MAX: u32 = 300;

/// About ten minutes: a server says nothing while it loads a snapshot, and 1,000,000 keys take it
/// twenty seconds.
const LOADING_LOOKS_MAX: u32 = 60 * LOOKS_MAX;

/// What a member lacks. While it is sent a snapshot it gets nearer, and no index shows it.
#[derive(Clone, Copy)]
struct Lag {
    entries: u64,
    /// Of the snapshot: how much it has, and the size.
    sent: u64,
    of: u64,
}

impl Lag {
    fn of(client: &Client, list: &MemberList, member: &MemberStatus) -> Lag {
        let leader = list.members.iter().find(|it| it.node == list.leader);
        let status = leader.and_then(|leader| client.status(&leader.address).ok());
        let mut peers = status.into_iter().flat_map(|status| status.peers);
        let peer = peers.find(|peer| peer.node == member.node);
        let (sent, of) = peer.map_or((0, 0), |peer| (peer.snapshot_sent, peer.snapshot_bytes));
        Lag { entries: behind_by(list, member), sent, of }
    }

    fn is_less_than(&self, before: &Lag) -> bool {
        self.entries < before.entries || self.sent > before.sent
    }

    fn loads(&self) -> bool {
        self.of > 0 && self.sent == self.of
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "behind by {} entries", self.entries)?;
        if self.of > 0 {
            write!(f, ", and has {} of a snapshot", percent(self.sent, self.of))?;
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
