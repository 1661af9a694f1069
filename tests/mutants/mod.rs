//! The list of planted bugs fits the sources; and its format is what its top says. The bugs
//! themselves are run by `scripts/mutants`.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

mod list;

use list::{Edit, LEFT_OUT, parse};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LIST: &str = include_str!("../mutants.txt");

#[test]
fn every_planted_bug_finds_its_place() {
    let mutants = parse(LIST).unwrap_or_else(|error| panic!("tests/mutants.txt, {error}"));
    assert!(mutants.len() >= 75, "{} bugs are few", mutants.len());
    let mut effects = BTreeSet::new();
    for mutant in &mutants {
        for edit in &mutant.edits {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&edit.file);
            let source = fs::read_to_string(path).unwrap();
            let changed = edit.apply(&source);
            let changed = changed.unwrap_or_else(|error| {
                panic!("tests/mutants.txt, {error}, in `{}`", mutant.name);
            });
            assert_ne!(changed, source, "`{}` changes nothing", mutant.name);
            assert!(effects.insert(changed), "`{}` does what another does", mutant.name);
        }
        let (name, caught_by) = (&mutant.name, &mutant.caught_by);
        assert!(!caught_by.is_empty(), "who notices `{name}`?");
        // They would take too long, and are left out.
        assert!(!caught_by.starts_with("cluster::"), "`{name}` counts on real processes");
    }
}

/// The tests that are run would not compile without what they use.
#[test]
fn what_is_run_for_planted_bugs_does_without_what_is_left_out() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = fs::read_to_string(tests.join("main.rs")).unwrap();
    let modules = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let (mut left, mut found) = (Vec::new(), Vec::new());
    left.extend(modules.filter(|module| !LEFT_OUT.contains(module)));
    assert!(left.len() >= 5, "{left:?}");
    let mut paths: Vec<_> = left
        .iter()
        .flat_map(|module| [tests.join(format!("{module}.rs")), tests.join(module)])
        .filter(|path| path.exists())
        .collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let uses = |module: &&&str| text.contains(&format!("crate::{module}::"));
        found.extend(LEFT_OUT.iter().filter(uses).map(|module| (path.clone(), *module)));
    }
    assert!(found.is_empty(), "{found:?}");
}

fn only_edit(text: &str) -> Edit {
    parse(text).unwrap().remove(0).edits.remove(0)
}

#[test]
fn values_stand_on_the_line_of_their_key_or_below_it() {
    let inline = "name: a b\nfile: src/x.rs\nfind: one\nreplace: two\ncaught by: sim\n";
    let below = "# so\n---\nname:\na b\nfile:\nsrc/x.rs\nfind:\n    one\n\nreplace:\n\ttwo\n\
                 caught by:\nsim\n  \n---\n# end\n";
    let fenced = "Name: a b\nFile: src/x.rs\nFind:\n```rust\none\n```\nReplace:\n```\ntwo\n```\n\
                  Caught by: sim";
    for text in [inline, below, fenced] {
        let mutants = parse(text).unwrap();
        assert_eq!(mutants.len(), 1);
        assert_eq!((&*mutants[0].name, &*mutants[0].caught_by), ("a b", "sim"));
        assert_eq!(only_edit(text).apply("say one;").unwrap(), "say two;");
    }
}

#[test]
fn indentation_does_not_count_and_everything_else_does() {
    let edit = only_edit("name: n\nfile: f\nfind:\nif it {\nname: x,\n  go();\n}\nreplace:\n{ }\n");
    assert_eq!(edit.apply("\tif it {\n\n\t\tname: x,\n\t\tgo();\n\t}\n").unwrap(), "\t{ }\n");
    for other in ["if it { name: x,\ngo();\n}", "if it {\nname:  x,\ngo();\n}", "if it {\n}"] {
        edit.apply(other).unwrap_err();
    }
}

#[test]
fn a_block_may_take_something_out_or_change_two_places() {
    let text = "name: n\nfile: f\nfind: a;\nreplace:\nfind: b;\nreplace: c;\n\nname: m\n\
                file: g\nfind: x\nreplace: y\ncaught by: sim";
    let mutants = parse(text).unwrap();
    assert_eq!(mutants.len(), 2);
    let edits = &mutants[0].edits;
    assert_eq!(edits[1].apply(&edits[0].apply("a; b;").unwrap()).unwrap(), " c;");
    assert_eq!((&*edits[1].file, &*mutants[1].edits[0].file), ("f", "g"));
}

#[test]
fn what_is_wrong_with_a_list_is_said_with_its_line() {
    let block = "name: n\nfile: f\nfind: x\nreplace: y\ncaught by: sim\n";
    for (text, line, why) in [
        ("find: x\n", 1, "begins with `name:`"),
        ("stray\n", 1, "not `stray`"),
        (&format!("{block}stray\n"), 6, "not `stray`"),
        (&format!("{block}{block}"), 6, "another name than `n`"),
        ("name: n\nfile: ../f\nfind: x\nreplace:\n", 2, "no path below"),
        ("name: n\nfile: f\nfind:\nreplace: y\n", 3, "needs a text"),
        ("name: n\nfile: f\nfind: x\n", 3, "ends early"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.line == line && error.why.contains(why), "{text:?}: {error}");
    }
}

#[test]
fn a_place_that_is_not_the_only_one_is_an_error() {
    let edit = only_edit("name: n\nfile: f\nfind:\none\ntwo\nreplace: x\n");
    let twice = edit.apply("one\ntwo\none\n  two\n").unwrap_err();
    assert!(twice.to_string().contains("line 3: found 2 times in f: lines 1, 3"), "{twice}");
    let half = edit.apply("one\nthree\n").unwrap_err();
    assert!(half.to_string().contains("this does not follow: `two`"), "{half}");
    let none = edit.apply("three\n").unwrap_err();
    assert!(none.to_string().contains("there is no `one`"), "{none}");
}
