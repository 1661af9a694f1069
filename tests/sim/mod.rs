//! Whole nodes (`replica::Node`, bytes on the wire, disk jobs operation by operation) under one
//! virtual clock, from one seed: power is lost at any moment, at one node or at all, and every
//! acknowledged put must be there afterwards.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

mod disk;
mod world;

use world::World;

/// Power losses over all seeds; `SIM_POWER_LOSSES` asks for another number.
const POWER_LOSSES: u64 = 10_000;
/// Power losses in one run of a cluster.
const LOSSES_PER_SEED: u64 = 40;

fn losses_wanted() -> u64 {
    let asked = std::env::var("SIM_POWER_LOSSES").ok();
    asked.map_or(POWER_LOSSES, |text| text.parse().expect("SIM_POWER_LOSSES is a number"))
}

#[test]
fn ten_thousand_power_losses_lose_nothing_that_was_acknowledged() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run(seed.parse().expect("SIM_SEED is a number"));
        return;
    }
    let (mut losses, mut acknowledged, mut seed) = (0, 0, 1);
    while losses < losses_wanted() {
        let world = std::panic::catch_unwind(|| run(seed));
        let Ok(world) = world else { panic!("repeat with SIM_SEED={seed} cargo test sim::") };
        losses += world.losses;
        acknowledged += world.acknowledged();
        seed += 1;
    }
    println!("{losses} power losses over {seed} seeds, {acknowledged} acknowledged puts checked");
    assert!(acknowledged > losses, "a run that acknowledged too little proves nothing");
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    while world.losses < LOSSES_PER_SEED {
        world.step();
    }
    world.heal();
    world.check();
    world
}
