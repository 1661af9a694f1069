//! The list of planted bugs fits the sources; its format is what its top says; and who is said to
//! have noticed a bug has. The bugs themselves are run by `scripts/mutants`.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]
#![allow(dead_code, reason = "the program that plants them needs more than its tests")]

mod arguments;
mod judge;
mod judged;
mod list;
mod score;
mod suite;
mod weave;
mod woven;

use arguments::read_arguments;
use list::{Edit, LEFT_OUT, Mutant, parse};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LIST: &str = include_str!("../mutants.txt");

#[test]
fn every_planted_bug_finds_its_place() {
    let mutants = sound(LIST);
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
        // They take long: only for what nothing else runs.
        let must = mutant.is_for_clusters_alone();
        assert!(must || !mutant.names_clusters(), "`{name}` counts on real processes");
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

/// The bugs of a list without a wrong block.
fn sound(text: &str) -> Vec<Mutant> {
    let list = parse(text);
    assert!(list.bad.is_empty(), "{:?}", list.bad);
    list.mutants
}

fn only_edit(text: &str) -> Edit {
    sound(text).remove(0).edits.remove(0)
}

#[test]
fn values_stand_on_the_line_of_their_key_or_below_it() {
    let inline = "name: a b\nfile: src/x.rs\nfind: one\nreplace: two\ncaught by: sim\n";
    let below = "# so\n---\nname:\na b\nfile:\nsrc/x.rs\nfind:\n    one\n\nreplace:\n\ttwo\n\
                 caught by:\nsim\n  \n---\n# end\n";
    let fenced = "Name: a b\nFile: src/x.rs\nFind:\n```rust\none\n```\nReplace:\n```\ntwo\n```\n\
                  Caught by: sim";
    for text in [inline, below, fenced] {
        let mutants = sound(text);
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
fn indentation_counts_where_nothing_else_tells_places_apart() {
    let source = "  go();\n    go();\n";
    let edit = only_edit("name: n\nfile: f\nfind:\n    go();\nreplace:\n    stop();\n");
    assert_eq!(edit.apply(source).unwrap(), "  go();\n    stop();\n");
    for anywhere in ["find: go();", "find:\n  go();", "find:\n\tgo();"] {
        let edit = only_edit(&format!("name: n\nfile: f\n{anywhere}\nreplace: stop();\n"));
        assert!(edit.apply(source).unwrap_err().why.contains("found 2 times"), "{anywhere}");
    }
}

#[test]
fn prose_may_follow_who_is_expected_to_notice() {
    let text = "name: n\nfile: f\nfind: x\nreplace: y\ncaught by: invariant 6\n(at a power loss)\n\
                note: rare\n\nname: m\nfile: f\nfind: z\nreplace: y\n";
    let mutants = sound(text);
    assert_eq!(mutants.len(), 2);
    assert_eq!(mutants[0].edits[0].apply("x").unwrap(), "y");
}

#[test]
fn a_block_may_take_something_out_or_change_two_places() {
    let text = "name: n\nfile: f\nfind: a;\nreplace:\nfind: b;\nreplace: c;\n\nname: m\n\
                file: g\nfind: x\nreplace: y\ncaught by: sim";
    let mutants = sound(text);
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
        ("# so\nstray\n", 2, "not with `stray`"),
        (&format!("{block}nmae: m\nfile: f\nfind: x\nreplace: y\n"), 6, "not `nmae: m`"),
        (&format!("{block}{block}"), 6, "another name than `n`"),
        ("name: n\nfile: ../f\nfind: x\nreplace:\n", 2, "no path below"),
        ("name: n\nfile: f\nfind:\nreplace: y\n", 3, "needs a text"),
        ("name: n\nfile: f\nfind: x\n", 3, "ends early"),
        ("name: n\nfind: x\nreplace: y\n", 2, "`file:` should stand here"),
        ("name: n\nfile: f\nreplace: y\n", 3, "`find:` should stand here"),
        ("name:\nfile: f\nfind: x\nreplace: y\n", 1, "needs a name"),
        ("name: n\nfile: f\nfind: x\nreplace: x\n", 4, "is what `find:` is"),
        ("name: n\nfile: f\nfind:\n  x\n  y\nreplace:\nx\n\ny\n", 6, "is what `find:` is"),
    ] {
        let bad = parse(text).bad;
        assert_eq!(bad.len(), 1, "{text:?}: {bad:?}");
        let error = &bad[0].error;
        assert!(error.line == line && error.why.contains(why), "{text:?}: {error}");
    }
    let empty = parse("# nothing yet\n\n---\n");
    assert!(empty.mutants.is_empty() && empty.bad.is_empty(), "{empty:?}");
}

/// What `name` is in a list of three blocks, of which the second is `middle`.
fn among_others(middle: &str) -> (Vec<String>, Vec<String>) {
    let block = |name: &str| format!("name: {name}\nfile: src/f.rs\nfind: {name}\nreplace: y\n");
    let list = parse(&[&block("first"), middle, &block("last")].concat());
    let names = list.mutants.iter().map(|mutant| mutant.name.clone()).collect();
    (names, list.bad.into_iter().map(|bad| bad.name).collect())
}

#[test]
fn a_wrong_block_is_named_and_the_others_stand() {
    for (middle, name) in [
        ("name: b\nfile: src/f.rs\nfind: x\n", "b"),
        ("name: b\nfile: src/f.rs\n\n", "b"),
        ("name: b\n", "b"),
        ("name: b\nfind: x\nreplace: y\n\n", "b"),
        ("name: b\nfile: /etc/f.rs\nfind: x\nreplace: y\n", "b"),
        ("name: b\nfile: src/f.rs\nfind: x\ncaught by: sim\n", "b"),
        ("name: b\nfile: src/f.rs\nfind: x\nreplace: y\ncaught by: sim\nnmae: c\nfind: z\n", "b"),
    ] {
        let (sound, bad) = among_others(middle);
        assert_eq!((sound, bad), (vec!["first".into(), "last".into()], vec![name.into()]));
    }
}

#[test]
fn blocks_are_told_apart_without_empty_lines_and_in_spite_of_comments() {
    let other = "name: b\nfile: src/f.rs\nfind: x\nreplace: z\n";
    for middle in [
        other.to_owned(),
        format!("\n# a comment\n\n{other}\n# another\n# of two lines\n---\n"),
        format!("# a comment\n{other}# another\n"),
        "name: b\n# why\nfile: src/f.rs\n# what\nfind: x\n# with\nreplace: z\n".to_owned(),
        "name:\nb\nfile:\nsrc/f.rs\nfind:\nx\nreplace:\nz\n".to_owned(),
        "name: b\ncaught by: sim\nfile: ./src/f.rs\nfind: x\nreplace: z\n".to_owned(),
        other.replace('\n', "\r\n"),
    ] {
        let (sound, bad) = among_others(&middle);
        assert!(bad.is_empty(), "{middle:?}: {bad:?}");
        assert_eq!(sound, ["first", "b", "last"], "{middle:?}");
        let b = only_edit(&middle);
        assert_eq!((b.file.as_str(), b.replacement()), ("src/f.rs", "z"), "{middle:?}");
        assert_eq!(b.apply("say x;").unwrap(), "say z;", "{middle:?}");
    }
}

#[test]
fn attributes_and_fields_of_sources_are_no_comments_and_no_blocks() {
    let text = "name: n\nfile: src/f.rs\nfind: x\nreplace:\n  y\n#[inline]\n";
    assert_eq!(only_edit(text).replacement(), "y\n#[inline]");
    let text = "name: n\nfile: f\nfind: x\nreplace:\nA {\nname: b,\n}\n";
    assert_eq!(only_edit(text).replacement(), "A {\nname: b,\n}");
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let read = |line: &str| read_arguments(line.split_whitespace().map(str::to_owned));
    for (line, why) in [
        ("--jobs 0", "from 1"),
        ("--jobs=x", "not x"),
        ("--seeds 0", "from 1"),
        ("--seeds", "needs a value"),
        ("--only", "needs a value"),
        ("a.txt b.txt", "two lists"),
        ("--nonsense", "no option"),
        ("--check=no", "no option"),
    ] {
        let said = read(line).unwrap_err();
        assert!(said.contains(why), "{line}: {said}");
    }
    let asked = read("../l.txt --seeds=7 --jobs 1 --only a --only b").unwrap();
    assert_eq!((asked.file.as_deref(), asked.seeds), (Some("../l.txt"), 7));
    assert_eq!((asked.jobs, asked.only.len()), (Some(1), 2));
}

#[test]
fn a_place_that_is_not_the_only_one_is_an_error() {
    let edit = only_edit("name: n\nfile: f\nfind:\none\ntwo\nreplace: x\n");
    let twice = edit.apply("one\ntwo\none\ntwo\n").unwrap_err();
    assert!(twice.to_string().contains("line 3: found 2 times in f: lines 1, 3"), "{twice}");
    let half = edit.apply("one\nthree\n").unwrap_err();
    assert!(half.to_string().contains("this does not follow: `two`"), "{half}");
    let none = edit.apply("three\n").unwrap_err();
    assert!(none.to_string().contains("there is no `one`"), "{none}");
}
