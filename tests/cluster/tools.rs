//! Tools for bad days: data directories that are looked at, snapshots that are saved and restored.

use super::harness::{Cluster, PATIENCE, Shape};
use super::patience::eventually;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

fn raftctl<S: AsRef<OsStr>>(words: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftctl")).args(words).output().unwrap()
}

/// What it printed, if it ended with `code`; and what it said beside.
fn ends<S: AsRef<OsStr> + std::fmt::Debug>(code: i32, words: &[S]) -> (String, String) {
    let output = raftctl(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "raftctl {words:?}: {said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn small() -> Shape {
    let flags = ["--segment-bytes", "65536", "--snapshot-entries", "50"];
    let flags = flags.iter().chain(&["--snapshot-interval", "0"]);
    Shape { flags: flags.map(|flag| (*flag).to_owned()).collect(), ..Shape::default() }
}

fn flip(file: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn a_log_is_dumped_and_verified_once_its_server_is_stopped() {
    let mut cluster = Cluster::start_shaped(1, &small());
    cluster.leader();
    let mut client = cluster.client();
    for number in 0..300 {
        client.put(format!("key/{number}").as_bytes(), &[b'v'; 400]).unwrap();
    }
    let path = cluster.server(1).directory.to_string_lossy().into_owned();
    eventually("a snapshot is made and the log begins behind it", PATIENCE, || {
        (cluster.server(1).status().ok()?.log_base.get() > 0).then_some(())
    });
    for verb in ["dump", "verify"] {
        let (_, said) = ends(1, &["log", verb, &path]);
        assert!(said.contains("locked by a running raftd"), "{said}");
    }
    let last = cluster.server(1).status().unwrap().last_index.get();
    cluster.server(1).kill();
    let (text, _) = ends(0, &["log", "verify", &path]);
    assert!(text.contains("whole node=n1 term=2 base="), "{text}");
    assert!(text.contains(" keys=") && text.contains(" hash="), "the snapshot is read too: {text}");
    let (text, _) = ends(0, &["log", "dump", &path, "--from", &last.to_string()]);
    assert!(text.starts_with("identity node=n1 cluster="), "{text}");
    let entry = text.lines().last().unwrap();
    assert!(entry.starts_with(&format!("{last}@2 commands ")), "{text}");
    let (text, _) = ends(0, &["log", "dump", &path, "--limit", "3", "--output", "json"]);
    let all = json(&text);
    assert_eq!(all["last_index"], last);
    assert_eq!(all["entries"].as_array().unwrap().len(), 3);
    let first = all["log_base"].as_u64().unwrap() + 1;
    assert_eq!(all["entries"][0]["index"], first);
    let segment = &all["segments"][0];
    assert_eq!(segment["first"], first);
    // A byte of the first entry's payload: named, with what to do, and the code of raftd.
    flip(Path::new(segment["file"].as_str().unwrap()), 8192 + 64 + 50);
    let (text, _) = ends(3, &["log", "verify", &path]);
    let expected = format!("at byte 8192: entry {first} is lost");
    assert!(text.contains(&expected) && text.contains("replace the member"), "{text}");
    let (text, _) = ends(3, &["log", "verify", &path, "--output", "json"]);
    let verified = json(&text);
    assert_eq!(verified["whole"], false);
    assert_eq!(verified["findings"]["damages"][0]["first"], first);
    assert_eq!(verified["findings"]["damages"][0]["offset"], 8192);
    cluster.server(1).start();
    assert_eq!(cluster.server(1).wait_for_end(PATIENCE).code(), Some(3));
    assert!(cluster.server(1).log_text().contains(&expected), "raftd says the same");
    // A block of the snapshot in force.
    let name = all["snapshot_files"][0]["file"].as_str().unwrap();
    flip(&Path::new(&path).join(name), 1000);
    let (text, _) = ends(3, &["log", "verify", &path]);
    assert!(text.contains("the snapshot is damaged at byte "), "{text}");
    let (_, said) = ends(1, &["log", "verify", "/nonexistent"]);
    assert!(said.contains("/nonexistent is not a data directory of raftd"), "{said}");
}
