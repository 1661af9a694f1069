//! From a failure to a smaller one: fewer kinds of faults, fewer nodes, fewer clients, a shorter
//! run. Because every kind of fault has its own timer and stream of chance, what is left is planned
//! as before; it may still come to something else, where the cluster stands otherwise. A run that
//! breaks another rule is not the failure that is looked for.

use crate::cli::HORIZON_MS_MIN;
use crate::invariants::Broken;
use crate::options::{CLASSES, Class, MS, Options, Overrides};
use crate::run::run;
use crate::trace::Tracing;

/// The smallest failing run that was found, and how it fails.
pub(crate) fn shrink(seed: u64, from: &Overrides, first: &Broken) -> (Overrides, Broken) {
    let mut best = (from.clone(), first.clone());
    let attempt = |best: &mut (Overrides, Broken), candidate: Overrides| match run(
        seed,
        &candidate,
        Tracing::Off,
    ) {
        Err(found) if found.is_like(first) => {
            *best = (candidate, found);
            true
        }
        Ok(_) | Err(_) => false,
    };
    for (class, _) in CLASSES {
        // Links are also cut together with other faults, and at the end.
        let options = Options::draw(seed, &best.0);
        if options.has(class) || (class == Class::Partitions && !options.forbids(class)) {
            let mut fewer = best.0.clone();
            fewer.without.push(class);
            attempt(&mut best, fewer);
        }
    }
    for nodes in 1..Options::draw(seed, &best.0).nodes {
        let smaller = Overrides { nodes: Some(nodes), ..best.0.clone() };
        if attempt(&mut best, smaller) {
            break;
        }
    }
    for clients in [1, 2] {
        let fewer = Overrides { clients: Some(clients), ..best.0.clone() };
        if attempt(&mut best, fewer) {
            break;
        }
    }
    // The run ends as soon as something is broken, so a shorter horizon only helps a failure of
    // the phases behind it. Whole milliseconds are what the command that repeats it can say.
    let half = |ns: u64| ns / 2 / MS * MS;
    let mut horizon = half(Options::draw(seed, &best.0).horizon_ns);
    while horizon >= HORIZON_MS_MIN * MS {
        let shorter = Overrides { horizon_ns: Some(horizon), ..best.0.clone() };
        if !attempt(&mut best, shorter) {
            break;
        }
        horizon = half(horizon);
    }
    best
}
