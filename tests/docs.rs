//! protocol.md is run: its examples decode and encode to themselves, its tables hold the numbers of
//! the sources, and no message goes without an example. README.md is run: what its console blocks
//! show is what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use raftd::limits;
use raftd::types::{LogPosition, NodeId};
use raftd::wire::error::Error;
use raftd::wire::{fields, hello, peer};

use super::cluster::script::{Script, binaries};
use super::wire::samples::{Kind, body_of, decode_and_encode, errors, samples};

const README: &str = include_str!("../README.md");
const PROTOCOL: &str = include_str!("../protocol.md");

/// A fenced block "```hex KIND NAME": an example, with comments after `#`.
struct Example {
    title: String,
    kind: Kind,
    bytes: Vec<u8>,
}

fn examples() -> Vec<Example> {
    let mut examples = Vec::new();
    let mut lines = PROTOCOL.lines();
    while let Some(line) = lines.next() {
        let Some(title) = line.strip_prefix("```hex ") else { continue };
        let kind = title.split(' ').next().and_then(Kind::from_name);
        let kind = kind.unwrap_or_else(|| panic!("no kind of message: {title}"));
        let mut bytes = Vec::new();
        for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
            let (digits, _) = line.split_once('#').unwrap_or((line, ""));
            for byte in digits.split_whitespace() {
                let byte = u8::from_str_radix(byte, 16);
                bytes.push(byte.unwrap_or_else(|_| panic!("not hex in {title}: {line}")));
            }
        }
        examples.push(Example { title: title.to_owned(), kind, bytes });
    }
    examples
}

#[test]
fn the_examples_of_the_protocol_encode_to_themselves() {
    for Example { title, kind, bytes } in examples() {
        let again = decode_and_encode(kind, body_of(kind, &bytes));
        assert_eq!(again.as_deref(), Ok(&bytes[..]), "{title}");
    }
}

#[test]
fn every_message_has_its_example_and_has_not_changed() {
    let shown: BTreeMap<String, Vec<u8>> =
        examples().into_iter().map(|example| (example.title, example.bytes)).collect();
    let mut missing = String::new();
    for sample in samples() {
        let title = format!("{:?} {}", sample.kind, sample.name).to_lowercase();
        if shown.get(&title) != Some(&sample.bytes) {
            let hex: Vec<_> = sample.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(missing, "```hex {title}\n{}\n```", hex.join(" ")).unwrap();
        }
    }
    assert!(missing.is_empty(), "protocol.md does not show these as they are now:\n{missing}");
}

/// The cells of every table row whose first cell is in backquotes, without them.
fn rows() -> BTreeMap<&'static str, Vec<&'static str>> {
    PROTOCOL
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once("` |"))
        .map(|(name, cells)| {
            let cells = cells.trim_end().trim_end_matches('|');
            (name, cells.split('|').map(str::trim).collect())
        })
        .collect()
}

#[test]
fn the_limits_are_the_ones_in_the_sources() {
    let limits = [
        ("REQUEST_BYTES_MAX", limits::REQUEST_BYTES_MAX),
        ("CLIENT_FRAME_BYTES_MAX", limits::CLIENT_FRAME_BYTES_MAX),
        ("HELLO_BYTES_MAX", limits::HELLO_BYTES_MAX),
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX),
        ("RANGE_REPLY_BYTES_MAX", limits::RANGE_REPLY_BYTES_MAX),
        ("RANGE_PART_BYTES", limits::RANGE_PART_BYTES),
        ("RANGE_OUT_HIGH_WATER", limits::RANGE_OUT_HIGH_WATER),
        ("RANGES_MAX", limits::RANGES_MAX),
        ("CONNECTION_RANGES_MAX", limits::CONNECTION_RANGES_MAX),
        ("RANGES_BYTES_MAX", limits::RANGES_BYTES_MAX),
        ("SORTED_KEYS_MAX", limits::SORTED_KEYS_MAX),
        ("CLIENT_INPUT_LARGE_BYTES_MAX", limits::CLIENT_INPUT_LARGE_BYTES_MAX),
        ("CONNECTION_REQUESTS_MAX", limits::CONNECTION_REQUESTS_MAX),
        ("CONNECTION_OUT_HIGH_WATER", limits::CONNECTION_OUT_HIGH_WATER),
        ("CONNECTION_OUT_MAX", limits::CONNECTION_OUT_MAX),
        ("WATCH_OUT_HIGH_WATER", limits::WATCH_OUT_HIGH_WATER),
        ("WATCH_BATCH_BYTES", limits::WATCH_BATCH_BYTES),
        ("WATCHES_BYTES_MAX", limits::WATCHES_BYTES_MAX),
        ("WATCH_KEYS_BYTES_MAX", limits::WATCH_KEYS_BYTES_MAX),
        ("CLIENT_OUT_BYTES_MAX", limits::CLIENT_OUT_BYTES_MAX),
        ("WAITING_READ_BYTES_MAX", limits::WAITING_READ_BYTES_MAX),
        ("CONNECTIONS_MAX", limits::CONNECTIONS_MAX),
        ("ENTRY_BYTES_MAX", limits::ENTRY_BYTES_MAX),
        ("MEMBERS_MAX", limits::MEMBERS_MAX),
        ("SESSIONS_MAX", limits::SESSIONS_MAX),
        ("SESSION_WINDOW", usize::try_from(limits::SESSION_WINDOW).unwrap()),
        ("SESSION_IDLE_MS", usize::try_from(limits::SESSION_IDLE_MS).unwrap()),
        ("KEPT_ANSWER_BYTES_MAX", limits::KEPT_ANSWER_BYTES_MAX),
        ("KEPT_ANSWERS_BYTES_MAX", limits::KEPT_ANSWERS_BYTES_MAX),
        ("KEPT_ANSWER_OVERHEAD_BYTES", limits::KEPT_ANSWER_OVERHEAD_BYTES),
        ("TXN_OPS_MAX", limits::TXN_OPS_MAX),
        ("TXN_OPS_TOTAL_MAX", limits::TXN_OPS_TOTAL_MAX),
        ("TXN_DEPTH_MAX", limits::TXN_DEPTH_MAX),
        ("LEASE_TTL_S_MAX", usize::try_from(limits::LEASE_TTL_S_MAX).unwrap()),
        ("LEASES_MAX", limits::LEASES_MAX),
        ("AUTH_NAME_BYTES_MAX", limits::AUTH_NAME_BYTES_MAX),
        ("AUTH_BYTES_MAX", limits::AUTH_BYTES_MAX),
        ("USER_ROLES_MAX", limits::USER_ROLES_MAX),
        ("ROLE_PERMISSIONS_MAX", limits::ROLE_PERMISSIONS_MAX),
        ("SALT_BYTES_MAX", limits::SALT_BYTES_MAX),
        ("NONCE_BYTES_MIN", limits::NONCE_BYTES_MIN),
        ("NONCE_BYTES_MAX", limits::NONCE_BYTES_MAX),
        ("PASSWORD_ROUNDS_MIN", usize::try_from(limits::PASSWORD_ROUNDS_MIN).unwrap()),
        ("PASSWORD_ROUNDS_MAX", usize::try_from(limits::PASSWORD_ROUNDS_MAX).unwrap()),
        ("SNAPSHOT_SAVES_MAX", limits::SNAPSHOT_SAVES_MAX),
        ("SNAPSHOT_PIECE_BYTES_MAX", limits::SNAPSHOT_PIECE_BYTES_MAX),
        ("ENTRIES_MAX", peer::ENTRIES_MAX),
        ("TERM_JUMP_MAX", usize::try_from(limits::TERM_JUMP_MAX).unwrap()),
        ("NUMBER_MAX", usize::try_from(fields::NUMBER_MAX).unwrap()),
    ];
    let rows = rows();
    for (name, value) in limits {
        let cells = rows.get(name).unwrap_or_else(|| panic!("protocol.md does not state {name}"));
        let stated: String = cells[0].chars().filter(|letter| *letter != ' ').collect();
        assert_eq!(stated, value.to_string(), "{name}");
    }
}

#[test]
fn the_errors_are_the_ones_in_the_sources() {
    let rows = rows();
    let mut codes = BTreeSet::new();
    for (name, error) in errors() {
        let cells = rows.get(name).unwrap_or_else(|| panic!("protocol.md does not list {name}"));
        assert_eq!(cells[0], error.code().to_string(), "the code of {name}");
        assert_eq!(cells[1], error.advice().code().to_string(), "the advice of {name}");
        codes.insert(error.code());
    }
    assert_eq!(codes, (1..=25).collect(), "an error of every code");
    // The forms without details that the samples do not show.
    assert_eq!(Error::NotLeader { leader: None }.code(), 1);
}

#[test]
fn the_numbers_in_the_text_are_the_ones_in_the_sources() {
    for stated in [
        format!("version {}", hello::VERSION),
        format!("op {}", hello::OP_HELLO),
        format!("{} and {}", NodeId::new(1).unwrap().get(), u64::MAX - 1),
    ] {
        assert!(PROTOCOL.contains(&stated), "protocol.md does not say \"{stated}\"");
    }
    assert_eq!(LogPosition::ZERO.index.get(), 0, "0 is the place before the first entry");
}

/// The console blocks of README.md.
fn sessions() -> Vec<&'static str> {
    let blocks = README.split("```console\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("a block ends").0).collect()
}

/// A line without what differs from run to run: numbers, hashes, who leads, how wide a column is.
fn shape_of(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let hash = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hash(word.trim_start_matches("hash=")) {
            return "HASH".to_owned();
        }
        let word = if word == "leader" { "follower" } else { word };
        let mut shape = String::new();
        for letter in word.chars() {
            let letter = if letter.is_ascii_digit() { '0' } else { letter };
            if letter != '0' || !shape.ends_with('0') {
                shape.push(letter);
            }
        }
        shape
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether `said` is what is shown: a line `…` is any lines, a `…` within a line anything.
fn matches(shown: &[String], said: &[String]) -> bool {
    let Some((first, rest)) = shown.split_first() else { return said.is_empty() };
    if first == "…" {
        return (0..=said.len()).any(|skipped| matches(rest, &said[skipped..]));
    }
    let Some((line, others)) = said.split_first() else { return false };
    let same = match first.split_once('…') {
        None => line == first,
        Some((before, after)) => line.starts_with(before) && line.ends_with(after),
    };
    same && matches(rest, others)
}

#[test]
fn what_the_readme_shows_is_what_happens() {
    const MARK: &str = "--- next ---";
    let script = Script::new(3);
    let directory = env!("CARGO_MANIFEST_DIR");
    for session in sessions() {
        let parts: Vec<&str> =
            session.split("$ ").skip(1).filter(|part| part.contains('\n')).collect();
        let mut lines = format!("cd '{directory}'\n");
        for part in &parts {
            let (command, _) = part.split_once('\n').unwrap();
            let mut command = command.replace("$PWD/target/release", &binaries());
            for node in 1..=3 {
                let port = format!(":{}", script.port + node - 1);
                command = command.replace(&format!(":710{node}"), &port);
            }
            writeln!(lines, "{command}\necho '{MARK}'").unwrap();
        }
        let endpoints: Vec<String> =
            (0..3).map(|node| format!("127.0.0.1:{}", script.port + node)).collect();
        let output = script
            .command("bash")
            .args(["-c", &lines])
            .env("CLUSTER_DIR", script.directory().join("target/cluster"))
            .env("RAFTCTL_ENDPOINTS", endpoints.join(","))
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = out.split(&format!("{MARK}\n")).collect();
        for (part, said) in parts.iter().zip(&said) {
            let (command, shown) = part.split_once('\n').unwrap();
            let shown: Vec<String> = shown.lines().map(shape_of).collect();
            let said: Vec<String> = said.lines().map(shape_of).collect();
            assert!(
                matches(&shown, &said),
                "{command}\nshown {shown:#?}\nsaid {said:#?}\n{errors}"
            );
        }
    }
    assert!(sessions().len() >= 2, "the readme shows something");
}
