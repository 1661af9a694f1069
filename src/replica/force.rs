//! A new cluster of the last survivor of an old one: `raftd --force-new-cluster`.
//!
//! The survivor keeps all that it has, the entries that it does not know to be committed too: any
//! of them may have been acknowledged by the majority that is lost. So what was refused or never
//! answered may be done now, and what only the others had is gone. Why not cut the log at what is
//! known to be committed, as etcd does: that would lose what was acknowledged and is here.
//!
//! One more entry ends the old cluster: the configuration of this server alone, in a new term. The
//! hard state names the new cluster in the same job, before the log; so a crash between leaves a
//! server that nobody of the old cluster talks to, and that leads nobody: forcing it again goes on.
//! Once it leads, the hard state notes that it was forced, until a start that is not: a flag that
//! was left would part the server from those that were added since.
//! The others can never come back with what they have: their cluster is another one, and their
//! numbers count as used.

use super::entry::{Membership, genesis_of};
use super::peers::Peers;
use super::snapshots::Worth;
use super::{Fatal, Node};
use crate::types::{ClusterId, HardState, Instant, LogIndex, LogPosition, Vote};
use crate::wal::Recovered;
use xxhash_rust::xxh3::xxh3_128;

impl Node {
    /// Makes this server the only member of a new cluster, with all that it has.
    pub(super) fn force(&mut self, recovered: Recovered, now: Instant) {
        if let Err(fatal) = self.take_memberships(&recovered) {
            return self.fail(fatal);
        }
        let node = self.identity.node;
        let Some((newest, alone)) = self.alone(recovered.commit_index) else {
            return self.fail(Fatal::Refused(format!(
                "server {} is no member of the cluster in its data directory: force a new cluster \
                 on one that is",
                node.get()
            )));
        };
        if newest.iter().count() == 1 {
            self.trust_what_is_left();
            log::warn!(
                "is a cluster of one already node={node} cluster={} advice=take \
                 --force-new-cluster away",
                self.identity.cluster_id
            );
            return self.resume(recovered, now);
        }
        if recovered.forced {
            return self.fail(Fatal::Refused(format!(
                "server {} began a new cluster already, which has other members now: take \
                 --force-new-cluster away; if they are lost too, start it once without, and then \
                 with it again",
                node.get()
            )));
        }
        let lost: Vec<String> = newest
            .iter()
            .filter(|(member, _)| member.id != node)
            .map(|(member, _)| format!("{}={}", member.id, member.address))
            .collect();
        let payload = alone.encode();
        if let Err(fatal) = self.make_room(payload.len()) {
            return self.fail(fatal);
        }
        let before = self.identity.cluster_id;
        let doubtful = recovered.last.index.count_since(recovered.commit_index);
        let seed = format!("forced\n{before}\n{}\n{}", self.identity.disk_id, self.boot_nonce);
        let cluster_id = ClusterId(xxh3_128(seed.as_bytes()));
        log::warn!(
            "forced a new cluster: writes that were acknowledged by the lost members and had not \
             reached this server are lost, and of its last {doubtful} entries, which are kept, \
             some may never have been acknowledged node={node} old_cluster={before} \
             cluster={cluster_id} last={} committed={} lost={} advice=take --force-new-cluster \
             away, and grow with --join and raftctl member add; never start the lost members again",
            recovered.last,
            recovered.commit_index,
            lost.join(","),
        );
        let term = recovered.hard_state.term.next();
        let position = LogPosition::new(term, recovered.last.index.next());
        self.identity.cluster_id = cluster_id;
        self.wal.set_cluster_id(cluster_id);
        self.genesis = genesis_of(&[&payload[..], &cluster_id.0.to_be_bytes()].concat());
        self.memberships.push(position.index, alone);
        self.trust_what_is_left();
        self.snapshots.worth = Worth::foreign_if(recovered.snapshot.is_some());
        self.peers = Peers::new(&[], node, self.options.seed);
        self.recovered = Some(recovered);
        self.write_first(position, HardState { term, vote: Vote::None }, &payload);
    }

    /// The newest members, of which this is one, and this one alone. The others may have decided to
    /// go on without it, and nobody is left who knows whether they did: then those before count.
    fn alone(&self, committed: LogIndex) -> Option<(&Membership, Membership)> {
        let (node, disk_id) = (self.identity.node, self.identity.disk_id);
        let newest = self.memberships.newest();
        let names_us = |it: &&Membership| it.get(node).is_some_and(|it| it.disk_id == disk_id);
        let mut known = [newest, self.memberships.at_or_below(committed)].into_iter();
        let ours = known.find(names_us)?;
        Some((ours, ours.alone(node, newest.highest())?))
    }

    /// The log may have ended with its segment full and no spare ready. Blocks: for the start.
    fn make_room(&mut self, bytes: usize) -> Result<(), Fatal> {
        while !self.has_room_for(bytes) {
            let Some(job) = self.wal.background_job() else {
                let why = "the log has no room for an entry: free some space, and start again";
                return Err(Fatal::Refused(why.to_owned()));
            };
            self.wal.background_done(job.run()).map_err(Fatal::Disk)?;
        }
        Ok(())
    }
}
