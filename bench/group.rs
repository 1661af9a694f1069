//! Rows that share their systems: starts them, fills them, measures, reads everything back.

use crate::contest::{self, Outcome, Stage};
use crate::floor::Floor;
use crate::measure::{self, Contestant};
use crate::memory::Reserve;
use crate::options::Plan;
use crate::parts::Figures;
use crate::proc::{self, Device};
use crate::report::{self, Facts};
use crate::rows::{Group, Medium};
use crate::systems::{System, Who};
use crate::{Result, directory_of, say, wait};
use raftd::client::Clock;
use raftd::client::load::{Layout, Ledger, Work, float};
use std::time::Duration;

/// How long the disk may take to recover from the filling before the first row.
const REST: Duration = Duration::from_secs(20);

/// Measures a group, and prints it. What was measured is in `outcomes`, also if it fails.
pub(crate) fn measure(
    clock: Clock,
    plan: &Plan,
    group: &Group,
    facts: &Facts,
    figures: &Figures,
    outcomes: &mut Vec<Outcome>,
) -> Result<()> {
    let parent = directory_of(group.medium);
    let mut floor = Floor::prepare(clock, &parent)?;
    let rested_ns = floor.sync_p50_ns()?;
    let mut contestants = Vec::new();
    for who in group.whos().into_iter().filter(|who| facts.peers.has(*who)) {
        contestants.push(start(clock, group, facts.peers.name(who), who)?);
    }
    let reserve = Reserve::make()?;
    rest(group, &mut floor, rested_ns)?;
    let may_trace = facts.may_trace;
    let mut stage = Stage { clock, plan, contestants, floor, reserve, parent, may_trace, again: 0 };
    for row in &group.rows {
        let outcome = contest::row(&mut stage, row)?;
        say(&report::lines(group, &outcome, figures))?;
        outcomes.push(outcome);
    }
    for side in &mut stage.contestants {
        check(clock, side)?;
    }
    Ok(())
}

/// Starts a system and puts every key.
pub(crate) fn start(clock: Clock, group: &Group, name: String, who: Who) -> Result<Contestant> {
    let parent = directory_of(group.medium);
    let system = System::start(who, &parent, group.nodes)?;
    let layout = Layout::new(b"key-", 16, group.value_bytes).ok_or("values are too small")?;
    let ledger = Ledger::new(layout, group.keys_of(who));
    let device = Device::below(&parent)?;
    let peaks = Vec::new();
    let (crowd, used_ns) = (None, None);
    let mut side = Contestant { name, who, crowd, system, ledger, device, used_ns, peaks };
    let filled = measure::every_key(clock, &mut side, Work::Fill)?;
    if filled.refusals() > 0 {
        return Err(format!("{}: while filling: {:?}", side.name, filled.errors).into());
    }
    let mut resident = 0;
    for pid in side.system.pids() {
        resident += proc::resident_bytes(pid)?;
    }
    if who == Who::Crowded {
        side.crowd = Some(side.system.gather_crowd()?);
    }
    let (keys, bytes) = (side.ledger.keys(), group.value_bytes);
    let each = float(resident) / 1e6 / f64::from(u32::try_from(side.system.pids().len())?);
    say(&format!(
        "    {}: {keys} keys with values of {bytes} bytes put; {each:.0} MB resident a server",
        side.name
    ))?;
    Ok(side)
}

/// Reads everything back, and compares the servers.
pub(crate) fn check(clock: Clock, side: &mut Contestant) -> Result<()> {
    if !side.who.has_revisions() {
        return Ok(());
    }
    let checked = measure::every_key(clock, side, Work::Check)?;
    if checked.refusals() + checked.wrong > 0 {
        let (wrong, errors) = (checked.wrong, &checked.errors);
        let name = &side.name;
        return Err(format!("{name}: reading back: {wrong} keys wrong, errors {errors:?}").into());
    }
    side.system.agree()?;
    say(&format!("    {}: read back: all {} keys as acknowledged", side.name, side.ledger.keys()))
}

/// After a bulk write a disk syncs slowly for a while: waits until it syncs as it did before.
fn rest(group: &Group, floor: &mut Floor, rested_ns: u64) -> Result<()> {
    if group.medium == Medium::Memory {
        return Ok(());
    }
    if !floor.is_pinned() {
        say("    one core only: the floor's echoes share it")?;
    }
    let rested = wait::until(REST, || {
        let now_ns = floor.sync_p50_ns()?;
        Ok((now_ns <= rested_ns + rested_ns / 4).then_some(()))
    })?;
    match rested {
        Some(()) => Ok(()),
        None => say("    the disk has not recovered from the filling: its syncs are still slow"),
    }
}
