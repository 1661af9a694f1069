//! The first start, and the amnesia guard. Design §7.
//!
//! A server whose data directory has no configuration may have voted before it lost its disk. So it
//! becomes a member only when
//! - **every** other server of `--peers` has said that it has no configuration either: together
//!   they write the same first entry, which names each one's data directory, or
//! - a member has shown a configuration that names **this** data directory: then this server
//!   stopped before it wrote the entry. What it has promised since, if it took part with an empty
//!   log, is in its hard state, and stays.
//!
//! A server that joins a cluster that serves (`--join`) is told by nobody to found one: it waits
//! until a member shows a configuration that names its data directory, and begins with an empty
//! log.
//!
//! If a member shows a configuration with another data directory under our id, our disk was lost:
//! refuse. Two servers may still see different data directories of a third that was wiped between
//! the two conversations. Their first entries then differ, so do the hashes in their handshakes,
//! and they do not talk: no majority can form on both sides.

use super::entry::{Member, encode_members, genesis_of};
use crate::config::MemberAddress;
use crate::types::{DiskId, NodeId};

/// What another server said of itself in the handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Introduction {
    pub(super) node: NodeId,
    pub(super) disk_id: DiskId,
    /// The hash of its first entry; 0 if it has none.
    pub(super) genesis: u64,
    /// The data directories that its newest configuration names.
    pub(super) members: Vec<(NodeId, DiskId)>,
}

/// A server that has no configuration yet.
#[derive(Debug)]
pub(super) struct Bootstrap {
    own: (NodeId, DiskId),
    members: Vec<MemberAddress>,
    fresh: Vec<(NodeId, DiskId)>,
}

/// What an introduction leads to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Not everybody has been heard.
    Wait,
    /// Write this first entry, then take part.
    Found(Vec<Member>),
    /// Take part with an empty log, in the cluster of this first entry's hash.
    Join(u64),
    /// Stop: the reason, for the operator.
    Refuse(String),
}

impl Bootstrap {
    /// A server `own` that knows only `--peers`: if that does not name it, it joins.
    pub(super) fn new(own: (NodeId, DiskId), members: Vec<MemberAddress>) -> Bootstrap {
        Bootstrap { own, members, fresh: vec![own] }
    }

    /// Whether it waits to become a member of a cluster that serves.
    pub(super) fn joins(&self) -> bool {
        !self.members.iter().any(|member| member.id == self.own.0)
    }

    /// Whether everybody is heard without hearing anyone: a cluster of one.
    pub(super) fn start(&self) -> Verdict {
        self.found_if_complete()
    }

    /// Weighs what another server said.
    pub(super) fn hear(&mut self, said: &Introduction) -> Verdict {
        if said.genesis == 0 {
            self.fresh.retain(|(id, _)| *id != said.node);
            self.fresh.push((said.node, said.disk_id));
            return self.found_if_complete();
        }
        let (id, disk_id) = self.own;
        match said.members.iter().find(|(member, _)| *member == id) {
            Some((_, known)) if *known == disk_id => self.adopt(said),
            Some((_, known)) => Verdict::Refuse(format!(
                "server {} already serves and knows server {} with data directory {known}, but \
                 this one is {disk_id}: it is new or was emptied. What it promised is lost, so it \
                 must not vote. Bring the old data directory back, or start this one with --join \
                 and a new --id and replace the member with `raftctl member replace {} \
                 NEW_ID=HOST:PORT`",
                said.node.get(),
                id.get(),
                id.get(),
            )),
            None if self.joins() => Verdict::Wait,
            None => Verdict::Refuse(format!(
                "server {} already serves a cluster that has no member {}: start this one with \
                 --join and add it with `raftctl member add {}=HOST:PORT`",
                said.node.get(),
                id.get(),
                id.get(),
            )),
        }
    }

    /// Takes over the first entry of a member that knows this very data directory.
    fn adopt(&self, said: &Introduction) -> Verdict {
        let members = self.name(&said.members);
        match members {
            Some(members) if genesis_of(&encode_members(&members)) == said.genesis => {
                Verdict::Found(members)
            }
            // The members have changed since: their first entry comes with the others.
            Some(_) | None => Verdict::Join(said.genesis),
        }
    }

    fn found_if_complete(&self) -> Verdict {
        match self.name(&self.fresh).filter(|_| !self.joins()) {
            Some(members) => Verdict::Found(members),
            None => Verdict::Wait,
        }
    }

    /// The members of `--peers` with their data directories, if exactly they are named.
    fn name(&self, disks: &[(NodeId, DiskId)]) -> Option<Vec<Member>> {
        if disks.len() != self.members.len() {
            return None;
        }
        let named = self.members.iter().map(|member| {
            let (id, disk_id) = *disks.iter().find(|(id, _)| *id == member.id)?;
            Some(Member { id, disk_id, address: member.address.clone() })
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn bootstrap() -> Bootstrap {
        let address = |n: u64| MemberAddress { id: id(n), address: format!("h:{n}") };
        Bootstrap::new((id(1), DiskId(11)), vec![address(1), address(2), address(3)])
    }

    fn fresh(node: u64, disk: u128) -> Introduction {
        Introduction { node: id(node), disk_id: DiskId(disk), genesis: 0, members: Vec::new() }
    }

    fn serving(node: u64, disks: [u128; 3]) -> Introduction {
        let disk = |n: u64| DiskId(disks[usize::try_from(n - 1).unwrap()]);
        let member = |n| Member { id: id(n), disk_id: disk(n), address: format!("h:{n}") };
        let payload = encode_members(&[member(1), member(2), member(3)]);
        Introduction {
            node: id(node),
            disk_id: disk(node),
            genesis: genesis_of(&payload),
            members: (1..=3).map(|n| (id(n), disk(n))).collect(),
        }
    }

    #[test]
    fn a_new_server_founds_only_when_all_others_are_new() {
        let mut bootstrap = bootstrap();
        assert!(matches!(bootstrap.start(), Verdict::Wait));
        assert!(matches!(bootstrap.hear(&fresh(2, 12)), Verdict::Wait));
        assert!(matches!(bootstrap.hear(&fresh(2, 13)), Verdict::Wait));
        let Verdict::Found(members) = bootstrap.hear(&fresh(3, 14)) else {
            panic!("all are heard")
        };
        let disks: Vec<u128> = members.iter().map(|member| member.disk_id.0).collect();
        assert_eq!(disks, [11, 13, 14]);
    }

    #[test]
    fn a_server_that_stopped_while_bootstrapping_takes_over_the_entry_that_names_its_disk() {
        let verdict = bootstrap().hear(&serving(2, [11, 12, 13]));
        assert!(matches!(verdict, Verdict::Found(members) if members.len() == 3));
    }

    #[test]
    fn a_server_that_lost_its_disk_refuses_to_start() {
        let verdict = bootstrap().hear(&serving(2, [99, 12, 13]));
        let Verdict::Refuse(why) = verdict else { panic!("the disk is another one") };
        assert!(why.contains("raftctl member replace 1"), "{why}");
    }
}
