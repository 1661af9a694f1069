//! How long nobody can write when the leader is killed.
//!
//! `FAILOVER_KILLS=50 cargo test --release` measures; a few kills show that it works.

use super::harness::{Cluster, PATIENCE};
use super::load::{kill_and_restart, under_load};
use super::patience::{ELECTION_TIMEOUT_UPPER, eventually};
use super::variable;

#[test]
fn after_a_leaders_death_puts_go_on_within_an_election() {
    let asked = variable("FAILOVER_KILLS");
    let mut cluster = Cluster::start_alone(3);
    let mut gaps = Vec::new();
    let load = under_load(&mut cluster, |cluster, service, _| {
        for _ in 0..asked.unwrap_or(4) {
            let leader = cluster.leader();
            let began = service.now_us();
            kill_and_restart(cluster, leader, service);
            gaps.push(service.longest_gap(began, service.now_us()));
            eventually("it follows", PATIENCE, || {
                let status = cluster.server(leader).status().ok()?;
                (status.leader.is_some() && status.applied_index == status.commit_index)
                    .then_some(())
            });
        }
    });
    gaps.sort();
    let (p50, max) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!("failover: {} kills; without service p50 {p50:?}, max {max:?}; {load:?}", gaps.len());
    if asked.is_some() {
        assert!(p50 <= ELECTION_TIMEOUT_UPPER, "p50 {p50:?}");
        assert!(max <= ELECTION_TIMEOUT_UPPER * 2, "max {max:?}");
    }
}
