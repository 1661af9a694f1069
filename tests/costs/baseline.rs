//! What operations cost before, and whether they still do.
//!
//! `baseline.txt` has a line for each figure: its name, its value, and how far it may be from that.
//! Everything else in it is for people, and stays when figures are taken anew.

use crate::figures::{Allowed, Figure, Milli};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const PLACE: &str = "tests/costs/baseline.txt";

/// Tests run side by side, and each changes its own lines.
static FILE: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(PLACE)
}

/// A line of the file that holds a figure.
fn parse(line: &str) -> Option<Figure> {
    if line.trim().is_empty() || line.starts_with('#') {
        return None;
    }
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default().to_owned();
    let value = words.next().and_then(Milli::parse);
    let allowed = words.next().and_then(Allowed::parse);
    match (value, allowed, words.next()) {
        (Some(value), Some(allowed), None) => Some(Figure { name, value, allowed }),
        _other => panic!("{PLACE}: `{line}` is not a name, a value and a bound"),
    }
}

fn write(figure: &Figure) -> String {
    let Figure { name, value, allowed } = figure;
    format!("{name:<44} {value:>14}  {allowed}")
}

fn is_of(name: &str, operation: &str) -> bool {
    name.strip_prefix(operation).is_some_and(|rest| rest.starts_with('.'))
}

/// Compares an operation's figures with what they were, or takes them for what they are from now
/// on. Panics if they differ by more than they may, with a table.
pub(crate) fn judge(operation: &str, unit: &str, now: &[Figure]) {
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(path()).unwrap_or_default();
    if std::env::var_os("COSTS_ACCEPT").is_some() {
        let accepted = accepted(&text, operation, now);
        if accepted != text {
            fs::write(path(), accepted).unwrap();
        }
        return;
    }
    let then: Vec<Figure> = text.lines().filter_map(parse).collect();
    let then: Vec<&Figure> = then.iter().filter(|it| is_of(&it.name, operation)).collect();
    if let Err(table) = compare(&then, now) {
        panic!(
            "what {unit} of {operation} cost is not what {PLACE} says:\n{table}\
             if that is as it should be: COSTS_ACCEPT=1 cargo test --test costs\n"
        );
    }
}

/// `Err` is a table of all figures, if one differs by more than it may.
fn compare(then: &[&Figure], now: &[Figure]) -> Result<(), String> {
    let mut table = format!("{:<44} {:>14} {:>14}  {}\n", "figure", "then", "now", "may differ by");
    let mut differ = false;
    for figure in now {
        let before = then.iter().find(|it| it.name == figure.name);
        let Some(before) = before else {
            differ = true;
            let Figure { name, value, .. } = figure;
            writeln!(table, "{name:<44} {:>14} {value:>14}  new", "").unwrap();
            continue;
        };
        let holds = before.allowed.holds(before.value, figure.value);
        differ |= !holds;
        let verdict = match (holds, figure.value < before.value) {
            (true, _) => "",
            (false, true) => "  LESS",
            (false, false) => "  MORE",
        };
        let Figure { name, value, allowed } = before;
        writeln!(table, "{name:<44} {value:>14} {:>14}  {allowed}{verdict}", figure.value).unwrap();
    }
    for before in then.iter().filter(|it| now.iter().all(|figure| figure.name != it.name)) {
        differ = true;
        writeln!(table, "{:<44} {:>14} {:>14}  gone", before.name, before.value, "").unwrap();
    }
    if differ { Err(table) } else { Ok(()) }
}

/// The file with an operation's figures as they are now; a bound that was set stays. Of an
/// operation that is new, they come last.
fn accepted(text: &str, operation: &str, now: &[Figure]) -> String {
    let mut lines = Vec::new();
    let mut left: Vec<&Figure> = now.iter().collect();
    for line in text.lines() {
        let Some(before) = parse(line).filter(|it| is_of(&it.name, operation)) else {
            lines.push(line.to_owned());
            continue;
        };
        if let Some(at) = left.iter().position(|it| it.name == before.name) {
            let figure = left.remove(at);
            lines.push(write(&Figure { allowed: before.allowed, ..figure.clone() }));
        }
    }
    if !left.is_empty() && lines.last().is_some_and(|line| !line.is_empty()) {
        lines.push(String::new());
    }
    lines.extend(left.into_iter().map(write));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: u64, allowed: Allowed) -> Figure {
        Figure { name: name.to_owned(), value: Milli(value), allowed }
    }

    #[test]
    fn a_figure_may_differ_by_its_bound_and_no_more() {
        let then = figure("put.bytes", 1000, Allowed::Percent(2));
        for (now, holds) in [(1000, true), (1020, true), (1021, false), (980, true), (979, false)] {
            let now = figure("put.bytes", now, Allowed::Exact);
            assert_eq!(compare(&[&then], &[now]).is_ok(), holds);
        }
        let nothing = figure("put.bytes", 0, Allowed::Percent(2));
        compare(&[&nothing], &[then]).unwrap_err();
    }

    #[test]
    fn a_figure_that_is_new_or_gone_is_a_difference() {
        let one = figure("put.syncs", 3000, Allowed::Exact);
        let table = compare(&[&one], &[]).unwrap_err();
        assert!(table.contains("gone"), "{table}");
        let table = compare(&[], &[one]).unwrap_err();
        assert!(table.contains("new"), "{table}");
    }

    #[test]
    fn what_people_wrote_stays_when_figures_are_taken_anew() {
        let text = "# Why.\nput.a 1.000 exact\nput.b 2.000 5%\nputs.c 3.000 2%\n\n# More.\n";
        let exact = Allowed::Exact;
        let now = [figure("put.b", 2500, exact), figure("put.d", 4000, exact)];
        let after = accepted(text, "put", &now);
        let lines: Vec<Option<Figure>> = after.lines().map(parse).collect();
        let known = [
            None,
            Some(figure("put.b", 2500, Allowed::Percent(5))),
            Some(figure("puts.c", 3000, Allowed::Percent(2))),
            None,
            None,
            None,
            Some(figure("put.d", 4000, exact)),
        ];
        assert_eq!(lines, known, "{after}");
        assert!(after.starts_with("# Why.\n") && after.contains("\n\n# More.\n"), "{after}");
    }
}
