//! The house rules, as tests that read the sources. What a compiler lint can check is in
//! Cargo.toml, what needs judgement is the reader's, the rest is here. A failure names the rule,
//! the file and the line.

mod source;

use source::{Source, read};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The top level is the user's; dot files, `target` and these.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "protocol.md",
    "src",
    "scripts",
    "tests",
    "bench",
];

/// Who may know whom, beside itself. A path such as `raft::message` allows no more than that.
const MAY_KNOW: [(&str, &[&str]); 18] = [
    ("types", &[]),
    ("limits", &[]),
    ("program", &[]),
    ("huge_pages", &[]),
    ("config", &["types", "limits", "program"]),
    ("codec", &["types", "limits"]),
    ("raft", &["types", "limits"]),
    ("wal", &["types", "limits", "codec"]),
    ("kv", &["types", "limits", "codec"]),
    (
        "wire",
        &[
            "types",
            "limits",
            "codec",
            "raft::message",
            "kv::command",
            "kv::answer",
            "kv::KeyValueRef",
        ],
    ),
    ("net", &["types", "limits"]),
    ("replica", &["types", "limits", "config", "codec", "raft", "wal", "kv", "wire"]),
    ("server", &["types", "limits", "wal", "wire", "net", "replica"]),
    ("client", &["types", "limits", "wire"]),
    // It speaks the protocol as any client could; the blocking client is of no use to it.
    ("gateway", &["types", "limits", "program", "wire", "kv::command"]),
    ("bin/raftd-gateway", &["program", "gateway"]),
    (
        "bin/raftctl",
        &[
            "types",
            "limits",
            "program",
            "config",
            "wire",
            "client",
            "wal",
            "kv::StoreOptions",
            "replica",
        ],
    ),
    (
        "bin/raftd",
        &[
            "types",
            "limits",
            "program",
            "huge_pages",
            "config",
            "wal",
            "replica",
            "server",
            "client",
        ],
    ),
];

/// Where the world comes in.
const WORLD: [&str; 12] = [
    "std::io",
    "std::net",
    "std::fs",
    "std::time",
    "std::thread",
    "std::env",
    "std::process",
    "std::sync",
    "std::os",
    "mio",
    "rustix",
    "socket2",
];

/// What must be absent: where, which paths, where all the same, and why.
const ABSENT: [(&str, &[&str], &[&str], &str); 6] = [
    ("src/raft/", &WORLD, &[], "the rules decide; they have no IO, clock or randomness"),
    ("src/raft/", &["serde", "rmp", "rmp_serde"], &[], "how a message is written is wire's secret"),
    ("src/kv/", &WORLD, &[], "the meaning is a function of the log and of nothing else"),
    (
        "src/replica/",
        &["std::net", "std::fs", "std::time", "std::thread", "std::env", "mio", "rustix"],
        &[],
        "the node has no sockets, clock or threads, so that a simulator runs all of it",
    ),
    (
        "src/",
        &["std::time::Instant", "std::time::SystemTime", "std::time::*"],
        &["src/server/clock.rs", "src/client/clock.rs"],
        "time enters once",
    ),
    (
        "src/",
        &["rustix::rand", "getrandom", "rand", "fastrand", "std::hash::RandomState"],
        &[
            "src/bin/raftd.rs",
            "src/bin/raftctl/restore.rs",
            "src/client/login.rs",
            "src/gateway/auth/login.rs",
        ],
        "chance enters once, as a seed that is logged, or where a secret is made",
    ),
];

/// The files of `src/raft` that hold rules. Rules do not call rules: `settle` orders consequences.
const RULES: [&str; 7] =
    ["election", "replication", "following", "snapshot", "membership", "reads", "transfer"];

const NUMBERS: [&str; 15] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32",
    "f64", "char",
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Fails with every place where `rule` is broken.
fn judge(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}

fn at(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", source.path)
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_sources() -> Vec<Source> {
    ["src", "tests", "bench"].into_iter().flat_map(|folder| read(folder, &[".rs"])).collect()
}

/// Whether `path` is `prefix` or lies below it.
fn within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn the_top_level_is_the_users() {
    let mut broken = Vec::new();
    for entry in fs::read_dir(package()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != "target" && !TOP_LEVEL.contains(&name.as_str()) {
            broken.push(format!("{name}: belongs below one of {}", TOP_LEVEL.join(" ")));
        }
    }
    let missing = TOP_LEVEL.iter().filter(|name| !package().join(name).exists());
    broken.extend(missing.map(|name| format!("{name}: is missing")));
    judge("the top level is the user's", broken);
}

#[test]
fn nobody_knows_whom_they_should_not_know() {
    let mut broken = Vec::new();
    for source in read("src", &[".rs"]).iter().filter(|source| source.path != "src/lib.rs") {
        let module = module_of(&source.path);
        let Some((_, may)) = MAY_KNOW.iter().find(|(name, _)| *name == module) else {
            broken.push(at(source, 1, &format!("say in tests/tidy.rs whom {module} may know")));
            continue;
        };
        for found in source.paths() {
            let ours = found.text.strip_prefix("crate::").or(found.text.strip_prefix("raftd::"));
            let Some(path) = ours else { continue };
            let own =
                within(path, &module) || module.starts_with("bin/raftctl") && !is_module(path);
            if !own && !may.iter().any(|allowed| within(path, allowed)) {
                broken.push(at(source, found.line, &format!("{module} may not know {path}")));
            }
        }
    }
    judge("who may know whom", broken);
}

/// The first name below `src`, for programs with their folder.
fn module_of(path: &str) -> String {
    let below = path.strip_prefix("src/").expect("a source lies in src");
    let mut names = below.trim_end_matches(".rs").split('/');
    let first = names.next().expect("a path has a name");
    if first == "bin" {
        format!("bin/{}", names.next().expect("bin is a folder"))
    } else {
        first.to_owned()
    }
}

/// Whether a path of a program is one of the library's: its own modules are below `crate` too.
fn is_module(path: &str) -> bool {
    MAY_KNOW.iter().any(|(module, _)| within(path, module))
}

#[test]
fn what_must_be_absent_is_absent() {
    let mut broken = Vec::new();
    for source in read("src", &[".rs"]) {
        for (folder, paths, except, why) in ABSENT {
            if !source.path.starts_with(folder) || except.contains(&source.path.as_str()) {
                continue;
            }
            for found in source.paths() {
                if paths.iter().any(|path| within(&found.text, path)) {
                    broken.push(at(&source, found.line, &format!("{}: {why}", found.text)));
                }
            }
        }
        for found in source.words() {
            let unsafe_elsewhere = found.text == "unsafe" && source.path != "src/wal/os_disk.rs";
            let unordered = ["HashMap", "HashSet"].contains(&found.text.as_str());
            if unsafe_elsewhere || unordered {
                broken.push(at(&source, found.line, &found.text));
            }
        }
    }
    judge("absences: unsafe only in wal/os_disk.rs, no map without an order, and these", broken);
}

#[test]
fn rules_do_not_know_each_other() {
    let mut broken = Vec::new();
    for source in read("src/raft", &[".rs"]) {
        let name = source.path.trim_start_matches("src/raft/").trim_end_matches(".rs");
        if !RULES.contains(&name) {
            continue;
        }
        for found in source.paths() {
            let path = found.text.trim_start_matches("crate::raft::").trim_start_matches("super::");
            if RULES.iter().any(|rule| *rule != name && within(path, rule)) {
                broken.push(at(&source, found.line, &format!("{name} knows {path}")));
            }
        }
    }
    judge("rules do not know rules; a consequence is a line in settle", broken);
}

#[test]
fn files_functions_and_lines_fit_a_head() {
    let mut broken = Vec::new();
    for source in rust_sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(at(&source, lines, &format!("{lines} lines, at most {FILE_LINES_MAX}")));
        }
        for (line, text) in source.text.lines().enumerate() {
            let columns = text.chars().count();
            if columns > COLUMNS_MAX {
                broken.push(at(&source, line + 1, &format!("{columns} columns")));
            }
        }
        for function in source.functions() {
            if function.lines > FUNCTION_LINES_MAX {
                let what = format!("{} has {} lines", function.name, function.lines);
                broken.push(at(&source, function.line, &what));
            }
        }
    }
    let rule =
        format!("{FILE_LINES_MAX} lines a file, {FUNCTION_LINES_MAX} a function, 100 columns");
    judge(&rule, broken);
}

#[test]
fn nothing_is_left_to_do() {
    // Spelled so that this file does not break its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimplem", "ented!")];
    let marks = marks.into_iter().chain([concat!("to", "do!("), concat!("#[ign", "ore")]);
    let marks: Vec<&str> = marks.collect();
    let mut broken = Vec::new();
    for source in rust_sources().into_iter().chain(read("scripts", &[""])) {
        for (line, text) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| text.contains(mark)) {
                broken.push(at(&source, line + 1, text.trim()));
            }
        }
    }
    judge("nothing is left to do, no test is skipped", broken);
}

/// What a failing seed prints is looked up there.
#[test]
fn every_invariant_of_the_simulator_stands_in_its_table() {
    let sources = read("tests/sim", &[".rs"]);
    let table = sources.iter().find(|source| source.path == "tests/sim/invariants/mod.rs");
    let rows = table.expect("it has one").text.lines().filter_map(|it| it.strip_prefix("//! | "));
    let names = rows.filter_map(|row| row.split(" | ").next()).flat_map(|cell| cell.split(", "));
    let known: BTreeSet<&str> = names.collect();
    assert!(known.len() > 50, "{known:?}");
    let is_name = |literal: &&str| {
        let (upper, lower) = (char::is_ascii_uppercase, char::is_ascii_lowercase);
        let mut letters = literal.chars();
        let begins = letters.next().is_some_and(|it| upper(&it))
            && letters.next().is_some_and(|it| lower(&it));
        begins && letters.all(|it| it.is_ascii_alphabetic())
    };
    let mut broken = Vec::new();
    for source in &sources {
        for (line, text) in source.text.lines().enumerate() {
            let literals = text.split('"').skip(1).step_by(2);
            let unknown = literals.filter(is_name).filter(|name| !known.contains(name));
            broken.extend(unknown.map(|name| at(source, line + 1, name)));
        }
    }
    judge("an invariant has a row in tests/sim/invariants/mod.rs", broken);
}

#[test]
fn nothing_sleeps() {
    let mut broken = Vec::new();
    let folders = ["src", "tests", "bench", "scripts", ".ci"];
    for source in folders.into_iter().flat_map(|folder| read(folder, &[""])) {
        let script = !source.path.ends_with(".rs");
        for (line, text) in source.code.lines().enumerate() {
            let text = text.split('#').next().unwrap_or_default();
            let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let slept = if script {
                let next = text.split("sleep ").nth(1).and_then(|rest| rest.chars().next());
                next.is_some_and(|c| c.is_ascii_digit() || "$.\"".contains(c))
            } else {
                words.any(|word| word == "sleep")
            };
            if slept && !source.path.ends_with(".txt") {
                broken.push(at(&source, line + 1, text.trim()));
            }
        }
    }
    judge("nobody sleeps: wait for a condition, with a deadline", broken);
}

#[test]
fn numbers_are_converted_and_errors_have_types() {
    let mut broken = Vec::new();
    for source in read("src", &[".rs"]) {
        let path = source.path.as_str();
        let may_cast = path.starts_with("src/codec/")
            || path == "src/wal/record.rs"
            || path == "src/limits.rs";
        let words = source.words();
        for pair in words.windows(2) {
            if pair[0].text == "as" && NUMBERS.contains(&pair[1].text.as_str()) && !may_cast {
                broken.push(at(&source, pair[0].line, "as"));
            }
        }
        for (line, text) in source.code.lines().enumerate() {
            if text.contains("Result<") && text.contains(", String>") && !text.contains("(u8, S") {
                broken.push(at(&source, line + 1, text.trim()));
            }
        }
    }
    judge("no `as` outside codec, wal/record.rs and limits.rs; no Result<_, String>", broken);
}

#[test]
fn every_dependency_says_why_it_is_not_ours() {
    let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
    let (mut inside, mut broken) = (false, Vec::new());
    for (at, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && line.contains(" = ") && !line.starts_with('#') {
            let reason = line.split(" # ").nth(1).unwrap_or_default();
            if reason.len() < 8 {
                broken.push(format!("Cargo.toml:{}: {line}", at + 1));
            }
        }
    }
    judge("each dependency has a reason behind it: why it is not fifty lines of ours", broken);
}

#[test]
fn every_file_is_reached() {
    let roots = [
        "src/lib.rs",
        "src/gateway/build.rs",
        "src/bin/raftd.rs",
        "src/bin/raftctl/main.rs",
        "src/bin/raftd-gateway.rs",
        "bench/main.rs",
        "tests/main.rs",
        "tests/costs/main.rs",
        "tests/gateway/main.rs",
        // Built by scripts/clients, in a package of its own.
        "tests/gateway/clients/etcd_client.rs",
        "tests/mutants/main.rs",
        "tests/sim/main.rs",
    ];
    let mut reached = BTreeSet::new();
    for root in roots {
        reach(&package().join(root), Path::new(root).parent().unwrap(), &mut reached);
    }
    let broken = rust_sources()
        .iter()
        .filter(|source| !reached.contains(&package().join(&source.path)))
        .map(|source| at(source, 1, "no `mod` leads here"))
        .collect();
    judge("every source file is part of the build", broken);
}

/// Adds `file` and whatever its `mod name;` lines lead to. Its children lie in `folder`.
fn reach(file: &Path, folder: &Path, reached: &mut BTreeSet<PathBuf>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    reached.insert(file.to_owned());
    let mut elsewhere = None;
    for line in text.lines() {
        let line = ["pub ", "pub(crate) ", "pub(super) "]
            .iter()
            .find_map(|reach| line.strip_prefix(reach))
            .unwrap_or(line);
        if let Some(path) = line.strip_prefix("#[path = \"") {
            elsewhere = Some(path.trim_end_matches("\"]").to_owned());
        }
        let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) else {
            continue;
        };
        if let Some(path) = elsewhere.take() {
            let file = file.parent().expect("a file lies in a folder").join(path);
            let file = file.canonicalize().expect("`path` leads to a file");
            reach(&file, file.parent().expect("a file lies in a folder"), reached);
            continue;
        }
        let folder = package().join(folder);
        reach(&folder.join(format!("{name}.rs")), &folder.join(name), reached);
        reach(&folder.join(name).join("mod.rs"), &folder.join(name), reached);
    }
}

#[test]
fn scripts_can_be_run_and_stop_at_the_first_failure() {
    use std::os::unix::fs::PermissionsExt;
    let mut broken = Vec::new();
    for source in read("scripts", &[""]).into_iter().chain(read(".ci", &[""])) {
        if !source.text.starts_with("#!") {
            continue;
        }
        let mode = fs::metadata(package().join(&source.path)).unwrap().permissions().mode();
        if mode & 0o111 == 0 {
            broken.push(at(&source, 1, "has no run bit"));
        }
        if !source.text.contains("set -euo pipefail") {
            broken.push(at(&source, 1, "has no `set -euo pipefail`"));
        }
    }
    judge("scripts can be run and stop at the first failure", broken);
}
