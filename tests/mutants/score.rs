//! What became of each bug, and how many were noticed. A results file holds it, so that a run that
//! was interrupted goes on where it was:
//!
//! ```text
//! fingerprint of the edits  kind      number                       what noticed   the bug's name
//! 01ab…                     seed      the seed that failed         an invariant   vote: …
//! 01ab…                     test      0                            a test's name  vote: …
//! 01ab…                     hung      0                            a program      vote: …
//! 01ab…                     died      0                            a program, how vote: …
//! 01ab…                     survived  how many seeds were tried    -              vote: …
//! ```
//!
//! Tabs stand between the columns. A bug whose edits are the same is not judged again; a survivor
//! is when there are more seeds to try.

use super::list::Mutant;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// What noticed a bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A seed failed, and which invariant.
    Seed {
        seed: u64,
        what: String,
    },
    /// A test failed.
    Test {
        what: String,
    },
    /// Something ran far longer than without the bug.
    Hung {
        what: String,
    },
    /// A program ended without a word of what failed.
    Died {
        what: String,
    },
    Survived {
        seeds: u64,
    },
}

pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

impl Judged {
    /// What is printed of a bug.
    pub(crate) fn line(&self, mutant: &Mutant) -> String {
        let Mutant { name, caught_by, .. } = mutant;
        let took = self.took.as_secs();
        match &self.verdict {
            Verdict::Seed { what, seed } => {
                format!("killed {name} by seed {seed} in {took} s: {what}")
            }
            Verdict::Test { what } => format!("killed {name} by test {what} in {took} s"),
            Verdict::Hung { what } => format!("killed {name} in {took} s: {what} did not end"),
            Verdict::Died { what } => format!("killed {name} in {took} s: {what}"),
            Verdict::Survived { seeds } => {
                let by = if caught_by.is_empty() { "whoever notices" } else { caught_by };
                format!(
                    "SURVIVED {name} for {seeds} seeds in {took} s; expected to be caught by {by}"
                )
            }
        }
    }
}

/// Of the edits, and of nothing else.
fn fingerprint(mutant: &Mutant) -> u64 {
    let mut hasher = DefaultHasher::new();
    mutant.edits.iter().for_each(|edit| edit.hash(&mut hasher));
    hasher.finish()
}

/// A line of the results file.
pub(crate) fn write_result(mutant: &Mutant, verdict: &Verdict) -> String {
    let (kind, number, what) = match verdict {
        Verdict::Seed { seed, what } => ("seed", *seed, what.as_str()),
        Verdict::Test { what } => ("test", 0, what.as_str()),
        Verdict::Hung { what } => ("hung", 0, what.as_str()),
        Verdict::Died { what } => ("died", 0, what.as_str()),
        Verdict::Survived { seeds } => ("survived", *seeds, "-"),
    };
    let (fingerprint, what) = (fingerprint(mutant), what.replace(['\t', '\n'], " "));
    format!("{fingerprint:016x}\t{kind}\t{number}\t{what}\t{}\n", mutant.name)
}

/// The verdicts of a results file, by fingerprint; the last one counts.
#[derive(Default)]
pub(crate) struct Results(BTreeMap<u64, Verdict>);

impl Results {
    pub(crate) fn read(text: &str) -> Result<Results, String> {
        let mut verdicts = BTreeMap::new();
        for line in text.lines() {
            let (fingerprint, verdict) =
                read_result(line).ok_or_else(|| format!("this is no result: `{line}`"))?;
            verdicts.insert(fingerprint, verdict);
        }
        Ok(Results(verdicts))
    }

    /// The verdict, unless there are more seeds to try.
    pub(crate) fn of(&self, mutant: &Mutant, seeds: u64) -> Option<&Verdict> {
        let stands = |verdict: &&Verdict| match verdict {
            Verdict::Survived { seeds: tried } => *tried >= seeds,
            Verdict::Seed { .. }
            | Verdict::Test { .. }
            | Verdict::Hung { .. }
            | Verdict::Died { .. } => true,
        };
        self.0.get(&fingerprint(mutant)).filter(stands)
    }
}

fn read_result(line: &str) -> Option<(u64, Verdict)> {
    let mut columns = line.split('\t');
    let fingerprint = u64::from_str_radix(columns.next()?, 16).ok()?;
    let kind = columns.next()?;
    let number = columns.next()?.parse().ok()?;
    let what = columns.next()?.to_owned();
    let verdict = match kind {
        "seed" => Verdict::Seed { seed: number, what },
        "test" => Verdict::Test { what },
        "hung" => Verdict::Hung { what },
        "died" => Verdict::Died { what },
        "survived" => Verdict::Survived { seeds: number },
        _ => return None,
    };
    Some((fingerprint, verdict))
}

/// How many of the bugs were noticed, and by what.
#[derive(Default)]
pub(crate) struct Score {
    seeds: Vec<u64>,
    tests: usize,
    hung: usize,
    died: usize,
    survivors: Vec<String>,
    /// Bugs that could not be judged.
    errors: Vec<String>,
}

impl Score {
    pub(crate) fn add(&mut self, mutant: &Mutant, verdict: &Verdict) {
        match verdict {
            Verdict::Seed { seed, .. } => self.seeds.push(*seed),
            Verdict::Test { .. } => self.tests += 1,
            Verdict::Hung { .. } => self.hung += 1,
            Verdict::Died { .. } => self.died += 1,
            Verdict::Survived { .. } => self.survivors.push(mutant.name.clone()),
        }
    }

    /// A bug could not be judged.
    pub(crate) fn fail(&mut self, name: &str) {
        self.errors.push(name.to_owned());
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match (self.errors.len(), self.survivors.len()) {
            (0, 0) => 0,
            (0, _) => 1,
            (_, _) => 2,
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Score { seeds, tests, hung, died, survivors, errors } = self;
        survivors.iter().try_for_each(|name| writeln!(f, "SURVIVED {name}"))?;
        errors.iter().try_for_each(|name| writeln!(f, "ERROR {name}"))?;
        let killed = seeds.len() + tests + hung + died;
        let all = killed + survivors.len() + errors.len();
        let tenths = 1000 * killed / all.max(1);
        writeln!(
            f,
            "score {killed} of {all} ({}.{} %): {} killed by seeds, {tests} by directed tests, \
             {hung} hung, {died} ended early, {} survived, {} could not be judged",
            tenths / 10,
            tenths % 10,
            seeds.len(),
            survivors.len(),
            errors.len(),
        )?;
        let within = |most: u64| seeds.iter().filter(|seed| **seed <= most).count();
        let most = seeds.iter().max().copied().unwrap_or(0);
        write!(
            f,
            "killed by seeds: {} within 10, {} within 100, {} within 300, {} within {most}",
            within(10),
            within(100),
            within(300),
            within(most)
        )
    }
}
