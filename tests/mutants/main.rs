//! Plants the bugs of a list, one after the other, and says what notices them. Started by
//! `scripts/mutants`, with `--plant` in front; `cargo test` starts it too, and then it does
//! nothing: a test of the other binary looks whether the list fits, and how this judges.

mod arguments;
mod judge;
mod list;
mod run;
mod score;
mod suite;
mod tree;
mod weave;

use arguments::{Asked, USAGE, cores, from_caller, read_arguments, say};
use list::{BadBlock, Mutant, parse};
use run::Runner;
use score::{Results, Score, write_result};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("--plant") {
        return ExitCode::SUCCESS;
    }
    let asked = match read_arguments(words) {
        Ok(asked) => asked,
        Err(why) => {
            say(format!("error: {why}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    if asked.help {
        say(USAGE);
        return ExitCode::SUCCESS;
    }
    match carry_out(&asked) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            say(format!("error: {why}"));
            ExitCode::from(2)
        }
    }
}

fn carry_out(asked: &Asked) -> Result<u8, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mutants, bad) = read_list(package, asked)?;
    let mut score = Score::default();
    for BadBlock { name, error } in &bad {
        let name = if name.is_empty() { "a block without a name" } else { name };
        say(format!("ERROR {name}: {error}"));
        score.fail(name);
    }
    if asked.check {
        say(format!("{} bugs find their places, {} do not", mutants.len(), bad.len()));
        return Ok(score.exit_code());
    }
    let results_file = asked.results.as_deref().map(from_caller);
    let known = match &results_file {
        Some(file) if file.exists() => read_results(file)?,
        Some(_) | None => Results::default(),
    };
    let earlier = match &asked.first {
        Some(name) => read_results(&from_caller(name))?,
        None => Results::default(),
    };
    let mut runner = None;
    for mutant in &mutants {
        if let Some(verdict) = known.of(mutant, asked.seeds) {
            score.add(mutant, verdict);
            continue;
        }
        if runner.is_none() {
            runner = Some(start_runner(package, &mutants, asked)?);
        }
        let runner = runner.as_ref().expect("it was just started");
        match runner.judge(mutant, earlier.of(mutant, 0)) {
            Ok(judged) => {
                say(judged.line(mutant));
                score.add(mutant, &judged.verdict);
                if let Some(file) = &results_file {
                    append(file, &write_result(mutant, &judged.verdict))?;
                }
            }
            Err(why) => {
                say(format!("ERROR {}: {why}", mutant.name));
                score.fail(&mutant.name);
            }
        }
    }
    say(&score);
    Ok(score.exit_code())
}

fn start_runner(package: &Path, mutants: &[Mutant], asked: &Asked) -> Result<Runner, String> {
    let jobs = asked.jobs.unwrap_or_else(cores);
    Runner::start(
        package,
        mutants,
        judge::Asked { seeds: asked.seeds, jobs, sim_only: asked.sim_only },
    )
}

fn read_results(file: &Path) -> Result<Results, String> {
    let text = fs::read_to_string(file).map_err(|why| format!("cannot read {file:?}: {why}"))?;
    Results::read(&text).map_err(|why| format!("{file:?}: {why}"))
}

fn append(file: &Path, line: &str) -> Result<(), String> {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(|why| format!("cannot write {file:?}: {why}"))
}

/// The bugs asked for, and the blocks asked for that are wrong or do not fit the sources.
fn read_list(package: &Path, asked: &Asked) -> Result<(Vec<Mutant>, Vec<BadBlock>), String> {
    let path = match &asked.file {
        Some(name) if from_caller(name).exists() => from_caller(name),
        Some(name) => package.join(name),
        None => package.join("tests/mutants.txt"),
    };
    let bytes = fs::read(&path).map_err(|why| format!("cannot read {path:?}: {why}"))?;
    let text = String::from_utf8(bytes).map_err(|why| format!("{path:?} is no text: {why}"))?;
    let list = parse(&text);
    if list.mutants.is_empty() && list.bad.is_empty() {
        return Err(format!("{path:?} has no block in it"));
    }
    let is_asked = |name: &str| {
        asked.only.is_empty() || asked.only.iter().any(|part| name.contains(part.as_str()))
    };
    // A block without a name may be the one that is asked for.
    let of_list = list.bad.into_iter().filter(|bad| bad.name.is_empty() || is_asked(&bad.name));
    let mut bad: Vec<BadBlock> = of_list.collect();
    let mut mutants: Vec<Mutant> =
        list.mutants.into_iter().filter(|mutant| is_asked(&mutant.name)).collect();
    for part in &asked.only {
        let named = |name: &str| name.contains(part.as_str());
        let of_bugs = mutants.iter().any(|mutant| named(&mutant.name));
        if !of_bugs && !bad.iter().any(|block| named(&block.name)) {
            return Err(format!("no bug of {path:?} has `{part}` in its name"));
        }
    }
    mutants.retain(|mutant| match tree::changed_files(package, mutant) {
        Ok(_) => true,
        Err(error) => {
            bad.push(BadBlock { name: mutant.name.clone(), error });
            false
        }
    });
    bad.sort_by_key(|block| block.error.line);
    Ok((mutants, bad))
}
