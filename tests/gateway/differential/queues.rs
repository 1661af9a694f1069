//! Locks and elections: the same story to both.

use super::{Answer, Asked, answer, get_all, with_both};
use crate::program::Clients;
use bytes::Bytes;
use raftd::gateway::proto::etcdserverpb::LeaseGrantRequest;
use raftd::gateway::proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use raftd::gateway::proto::v3lockpb::{LockRequest, UnlockRequest};

/// A lease that is granted, and one that is not.
const LEASE: i64 = 7;
const NO_LEASE: i64 = 99;

#[derive(Clone, Debug)]
enum Step {
    Plain(Asked),
    Lock(LockRequest),
    Unlock(UnlockRequest),
    Campaign(CampaignRequest),
    Proclaim(ProclaimRequest),
    Leader(LeaderRequest),
    Resign(ResignRequest),
}

fn lock(lease: i64) -> Step {
    Step::Lock(LockRequest { name: "l".into(), lease })
}

fn unlock(key: &'static str) -> Step {
    Step::Unlock(UnlockRequest { key: key.into() })
}

fn campaign(lease: i64) -> Step {
    Step::Campaign(CampaignRequest { name: "e".into(), lease, value: "1".into() })
}

fn leader() -> Step {
    Step::Leader(LeaderRequest { name: "e".into() })
}

fn key(rev: i64) -> Option<LeaderKey> {
    let (name, key) = (Bytes::from("e"), Bytes::from("e/7"));
    Some(LeaderKey { name, key, rev, lease: LEASE })
}

fn proclaim(leader: Option<LeaderKey>) -> Step {
    Step::Proclaim(ProclaimRequest { leader, value: "2".into() })
}

fn resign(leader: Option<LeaderKey>) -> Step {
    Step::Resign(ResignRequest { leader })
}

fn story() -> Vec<Step> {
    let nameless = key(1).map(|key| LeaderKey { key: Bytes::new(), ..key });
    // The lock is put at revision 2 and deleted at 3; whoever leads does so from 4 on.
    vec![
        Step::Plain(Asked::Grant(LeaseGrantRequest { ttl: 600, id: LEASE })),
        leader(),
        lock(NO_LEASE),
        lock(LEASE),
        Step::Plain(Asked::Range(get_all())),
        unlock("l/7"),
        unlock("l/7"),
        unlock(""),
        campaign(NO_LEASE),
        campaign(LEASE),
        leader(),
        proclaim(None),
        proclaim(nameless.clone()),
        proclaim(key(3)),
        proclaim(key(4)),
        leader(),
        resign(None),
        resign(nameless),
        resign(key(3)),
        leader(),
        resign(key(4)),
        leader(),
        Step::Plain(Asked::Range(get_all())),
    ]
}

impl Clients {
    async fn hear_step(&self, step: Step) -> Answer {
        let (mut locks, mut elections) = (self.locks(), self.elections());
        match step {
            Step::Plain(asked) => self.hear(asked).await,
            Step::Lock(it) => answer(locks.lock(it).await, |it| &mut it.header),
            Step::Unlock(it) => answer(locks.unlock(it).await, |it| &mut it.header),
            Step::Campaign(it) => answer(elections.campaign(it).await, |it| &mut it.header),
            Step::Proclaim(it) => answer(elections.proclaim(it).await, |it| &mut it.header),
            Step::Leader(it) => answer(elections.leader(it).await, |it| &mut it.header),
            Step::Resign(it) => answer(elections.resign(it).await, |it| &mut it.header),
        }
    }
}

#[test]
fn locks_and_elections_have_the_answers_of_a_real_etcd() {
    with_both(|pair| async move {
        for step in story() {
            let ours = pair.ours.hear_step(step.clone()).await.text;
            let expected = pair.etcds.hear_step(step.clone()).await.text;
            assert_eq!(ours, expected, "ours, and etcd's, to {step:?}");
        }
    });
}
