//! The files of scenarios: finds a block, runs its script, compares or rewrites what is expected.

use super::script::execute;
use super::world::World;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// One reads or rewrites files at a time: tests run in parallel, with `UPDATE=1` too.
static FILES: Mutex<()> = Mutex::new(());

struct Block {
    name: String,
    /// What is before `---`: why, in lines that begin with `#`, then commands and more such lines.
    script: Vec<String>,
    expected: Vec<String>,
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/raft/scenarios").join(file)
}

fn read(file: &str) -> (Vec<String>, Vec<Block>) {
    let text = fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    parse(&text)
}

/// The heading of a file and its blocks.
fn parse(text: &str) -> (Vec<String>, Vec<Block>) {
    let (mut heading, mut blocks) = (Vec::new(), Vec::<Block>::new());
    let mut in_expected = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let name = name.to_owned();
            blocks.push(Block { name, script: Vec::new(), expected: Vec::new() });
            in_expected = false;
            continue;
        }
        let Some(block) = blocks.last_mut() else {
            heading.push(line.to_owned());
            continue;
        };
        if line == "---" {
            in_expected = true;
        } else if in_expected {
            block.expected.push(line.to_owned());
        } else {
            block.script.push(line.to_owned());
        }
    }
    for block in &mut blocks {
        while block.expected.last().is_some_and(|line| line.trim().is_empty()) {
            block.expected.pop();
        }
    }
    (heading, blocks)
}

fn print(heading: &[String], blocks: &[Block]) -> String {
    let mut text = heading.join("\n");
    text.push('\n');
    for (nth, block) in blocks.iter().enumerate() {
        if nth > 0 {
            text.push('\n');
        }
        text += &format!("== {}\n", block.name);
        for lines in [&block.script, &vec!["---".to_owned()], &block.expected] {
            for line in lines {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

/// Prints what a scenario has done so far if it ends in a panic.
struct Telling(World);

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n  ... and then:", self.0.transcript.join("\n"));
        }
    }
}

/// Runs the block of `file` with this name, underscores for spaces.
pub(super) fn check(file: &str, test: &str) {
    let name = test.replace('_', " ");
    let blocks = {
        let _one_at_a_time = FILES.lock().expect("files are parsed without panics");
        read(file).1
    };
    let block = blocks.iter().find(|block| block.name == name);
    let block = block.unwrap_or_else(|| panic!("{file} has no block `== {name}`"));
    let why = block.script.iter().take_while(|line| line.starts_with('#')).count();
    assert!(why > 0, "{name}: say why");
    let ends = block.script.last().is_some_and(|line| line.starts_with("expect "));
    assert!(ends, "{name}: end with what it is about, `expect …`");
    let mut telling = Telling(World::new());
    for line in &block.script[why..] {
        execute(&mut telling.0, line);
    }
    let found = std::mem::take(&mut telling.0.transcript);
    if found == block.expected {
        return;
    }
    if std::env::var_os("UPDATE").is_none() {
        let diff = diff(&block.expected, &found);
        panic!("{file}: {name}\n{diff}\nif that is right: UPDATE=1 cargo test scenarios");
    }
    let _one_at_a_time = FILES.lock().expect("files are parsed without panics");
    let (heading, mut blocks) = read(file);
    let block = blocks.iter_mut().find(|block| block.name == name).expect("it was there");
    block.expected = found;
    fs::write(path(file), print(&heading, &blocks)).expect("the file can be written");
}

/// Every block of `file` has a test, or it would be prose.
pub(super) fn check_all_are_run(file: &str, tests: &[&str]) {
    let blocks = {
        let _one_at_a_time = FILES.lock().expect("files are parsed without panics");
        read(file).1
    };
    for block in blocks {
        let test = block.name.replace(' ', "_");
        assert!(tests.contains(&test.as_str()), "{file}: no test runs `== {}`", block.name);
    }
}

/// The lines that differ, with three lines around them: `-` was expected, `+` was found.
fn diff(expected: &[String], found: &[String]) -> String {
    let (rows, columns) = (expected.len(), found.len());
    // The length of the longest common subsequence of what follows.
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if expected[row] == found[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, Vec::new());
    while row < rows || column < columns {
        if row < rows && column < columns && expected[row] == found[column] {
            lines.push(format!("  {}", expected[row]));
            (row, column) = (row + 1, column + 1);
        } else if column == columns
            || (row < rows && common[row + 1][column] >= common[row][column + 1])
        {
            lines.push(format!("- {}", expected[row]));
            row += 1;
        } else {
            lines.push(format!("+ {}", found[column]));
            column += 1;
        }
    }
    let changed = |at: &usize| !lines[*at].starts_with("  ");
    let near = |at: &usize| (at.saturating_sub(3)..lines.len().min(at + 4)).any(|at| changed(&at));
    let near: Vec<&str> = (0..lines.len()).filter(near).map(|at| lines[at].as_str()).collect();
    near.join("\n")
}

#[test]
fn a_difference_is_shown_by_lines() {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let shown = diff(&lines("a b c d e f g h"), &lines("a b c d x f g h y"));
    assert_eq!(shown, "  b\n  c\n  d\n- e\n+ x\n  f\n  g\n  h\n+ y");
}
