//! What is woven into one program is what can be, and a program is run within its bounds.

use super::list::{Mutant, parse};
use super::suite::{End, Suite, failed_assertion, now, run};
use super::weave::weave;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SOURCE: &str = "const ONE: u32 = 1;\n\npub fn f(a: u32) -> u32 {\n    let b = a + ONE;\n    \
                      b * 2\n}\n\npub fn g() -> u32 {\n    7\n}\n";

/// A package of a few sources.
fn package() -> TempDir {
    let package = tempfile::tempdir().unwrap();
    for folder in ["src/bin", "tests"] {
        fs::create_dir_all(package.path().join(folder)).unwrap();
    }
    fs::write(package.path().join("src/lib.rs"), "pub mod m;\n").unwrap();
    fs::write(package.path().join("src/m.rs"), SOURCE).unwrap();
    fs::write(package.path().join("src/bin/p.rs"), SOURCE).unwrap();
    fs::write(package.path().join("tests/t.rs"), SOURCE).unwrap();
    package
}

fn bug(name: &str, file: &str, edits: &[(&str, &str)]) -> Mutant {
    let edits = edits.iter().map(|(find, replace)| format!("find: {find}\nreplace: {replace}\n"));
    let block = format!("name: {name}\nfile: {file}\n{}", edits.collect::<String>());
    parse(&block).mutants.remove(0)
}

#[test]
fn only_what_can_be_woven_is() {
    let package = package();
    let bugs = [
        bug("in a body", "src/m.rs", &[("a + ONE", "a")]),
        bug("twice in it", "src/m.rs", &[("a + ONE", "a"), ("b * 2", "b")]),
        bug("in another", "src/m.rs", &[("7", "8")]),
        bug("outside", "src/m.rs", &[("ONE: u32 = 1", "ONE: u32 = 2")]),
        bug("a brace too few", "src/m.rs", &[("b * 2", "if b > 1 { b")]),
        bug("a brace too many", "src/m.rs", &[("b * 2", "b }")]),
        bug("in a program", "src/bin/p.rs", &[("a + ONE", "a")]),
        bug("no part of the library", "tests/t.rs", &[("a + ONE", "a")]),
        bug("one in the other", "src/m.rs", &[("a + ONE", "a + TWO"), ("TWO", "3")]),
        bug(
            "one over the other",
            "src/m.rs",
            &[("let b = a + ONE;", "let b = a;"), ("= a", "= 1")],
        ),
    ];
    let weave = weave(package.path(), &bugs, &BTreeSet::new()).unwrap();
    let woven: Vec<&str> =
        bugs.iter().filter(|bug| weave.number(bug).is_some()).map(|bug| &*bug.name).collect();
    assert_eq!(woven, ["in a body", "twice in it", "in another", "in a program"]);
    assert!(weave.files["src/bin/p.rs"].contains("match raftd::planted() {"));
    assert!(!weave.files.contains_key("tests/t.rs"));
    assert!(weave.files["src/m.rs"].contains("_ => {\n    let b = a + ONE;\n    b * 2\n}"));
}

/// What becomes of a line of shell.
fn shell(line: &str, limit: Duration) -> End {
    let arguments = vec!["-c".to_owned(), line.to_owned()];
    let suite = Suite { name: "sh", build: &[], arguments, planted: 7 };
    run(Path::new("/"), Path::new("/bin/sh"), &suite, limit).unwrap().0
}

#[test]
fn a_program_is_run_within_bounds_of_time_and_memory() {
    let minute = Duration::from_secs(60);
    assert!(matches!(shell("exit 0", minute), End::Passed));
    let End::Failed { said, how } = shell("echo $RAFTD_PLANTED; echo so >&2; exit 3", minute)
    else {
        panic!("it passes");
    };
    assert_eq!((said.as_str(), how.code()), ("7\nso\n", Some(3)));
    let End::Failed { how, .. } = shell("kill -ABRT $$", minute) else { panic!("it passes") };
    assert_eq!((how.code(), how.signal()), (None, Some(6)));
    assert!(matches!(shell("while :; do :; done", Duration::from_millis(50)), End::Hung));
    // What it has started ends as well, before it holds its ends of the pipes for a minute.
    let started = now();
    assert!(matches!(shell("sleep 60; :", Duration::from_millis(500)), End::Hung));
    assert!(started.elapsed() < minute);
    // What the bound was set to may be seen a moment after the start.
    let bounded = "until [ $(ulimit -d) != unlimited ]; do :; done; [ $(ulimit -c) = 0 ]";
    assert!(matches!(shell(bounded, minute), End::Passed));
}

#[test]
fn an_assertion_that_the_compiler_evaluates_is_told_from_what_does_not_compile() {
    let assertion =
        "error[E0080]: evaluation panicked: assertion failed: A == 1\n  --> src/a.rs:1:1\n";
    let other = "error[E0425]: cannot find value `A` in this scope\n";
    let end = "error: could not compile `raftd` (lib) due to 1 previous error\n";
    let found = failed_assertion(&[assertion, end].concat()).map(str::to_owned);
    assert_eq!(found.as_deref(), Some("assertion failed: A == 1"));
    for said in [[other, end].concat(), [assertion, other, end].concat(), end.to_owned()] {
        assert_eq!(failed_assertion(&said), None, "{said}");
    }
}
