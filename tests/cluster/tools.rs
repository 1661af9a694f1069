//! Tools for bad days: data directories that are looked at, snapshots that are saved and restored.

use super::harness::{Cluster, PATIENCE, Shape, resident};
use super::patience::eventually;
use raftd::client::Deadline;
use raftd::wire::reply::ReplyBody;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

/// With time for a busy machine.
fn raftctl<S: AsRef<OsStr>>(words: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
    command.args(["--timeout", "60s"]).args(words).output().unwrap()
}

/// What it printed, if it ended with `code`; and what it said beside.
pub(super) fn ends<S: AsRef<OsStr> + std::fmt::Debug>(code: i32, words: &[S]) -> (String, String) {
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
    client.put(b"last", b"v").unwrap();
    let status = cluster.server(1).says();
    let (last, term) = (status.last_index.get(), status.term);
    cluster.server(1).kill();
    let (text, _) = ends(0, &["log", "verify", &path]);
    assert!(text.contains(&format!("whole node=n1 term={term} base=")), "{text}");
    assert!(text.contains(" keys=") && text.contains(" hash="), "the snapshot is read too: {text}");
    let (text, _) = ends(0, &["log", "dump", &path, "--from", &last.to_string()]);
    assert!(text.starts_with("identity node=n1 cluster="), "{text}");
    let entry = text.lines().last().unwrap();
    assert!(entry.starts_with(&format!("{last}@{term} commands ")), "{text}");
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
    // Killed while it made another one, it has more than that.
    let in_force = format!("snap/{:020}-", all["snapshot_index"].as_u64().unwrap());
    let files = all["snapshot_files"].as_array().unwrap().iter();
    let mut names = files.map(|it| it["file"].as_str().unwrap());
    let is_it = |name: &&str| name.starts_with(&in_force) && name.ends_with(".snap");
    flip(&Path::new(&path).join(names.find(is_it).unwrap()), 1000);
    let (text, _) = ends(3, &["log", "verify", &path]);
    assert!(text.contains("the snapshot is damaged at byte "), "{text}");
    let (_, said) = ends(1, &["log", "verify", "/nonexistent"]);
    assert!(said.contains("/nonexistent is not a data directory of raftd"), "{said}");
}

/// Puts `count` keys of `bytes` each; answers the last revision.
pub(super) fn fill(cluster: &Cluster, count: usize, bytes: usize) -> u64 {
    let mut client = cluster.client();
    let mut put = |number: usize| {
        client.put(format!("key/{number:06}").as_bytes(), &vec![b'v'; bytes]).unwrap().0
    };
    (0..count).map(&mut put).last().unwrap()
}

/// Does `act` while somebody writes.
fn while_written<T>(cluster: &Cluster, act: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut client = cluster.client();
        let stop = &stop;
        let writer = scope.spawn(move || {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                client.put(b"busy", number.to_string().as_bytes()).unwrap();
            }
        });
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_snapshot_is_saved_under_load_from_any_member_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    fill(&cluster, 500, 1000);
    cluster.client().put(b"busy", b"0").unwrap();
    let file = cluster.folder().join("saved");
    let name = file.to_string_lossy().into_owned();
    let mut saved = Vec::new();
    while_written(&cluster, || {
        for id in 1..=3 {
            let acknowledged = fill(&cluster, 1, 10);
            let at = cluster.servers[id - 1].listen().to_owned();
            let words = ["snapshot", "save", &name, "--endpoints", &at, "--output", "json"];
            let (text, _) = ends(0, &words);
            let (verified, _) = ends(0, &["snapshot", "verify", &name, "--output", "json"]);
            let (text, verified) = (json(&text), json(&verified));
            assert!(verified["revision"].as_u64().unwrap() >= acknowledged, "{verified}");
            assert_eq!(verified["keys"], 501);
            assert_eq!(text["index"], verified["index"]);
            saved.push(verified["index"].as_u64().unwrap());
        }
    });
    assert!(saved.is_sorted_by(|one, next| one < next), "each is a fresh one: {saved:?}");
    assert!(!cluster.folder().join("saved.part").exists());
    // Nothing was written since: what is in force will do.
    cluster.wait_until_equal();
    let at = cluster.server(leader).listen().to_owned();
    let save = || ends(0, &["snapshot", "save", &name, "--endpoints", &at]).0;
    let first = save();
    assert!(first.starts_with(&format!("saved {name} index=")), "{first}");
    assert_eq!(save(), first);
    // Any byte of it, by its block.
    for at in [3, 70, 5000, fs::metadata(&file).unwrap().len() - 5] {
        flip(&file, at);
        let (_, said) = ends(3, &["snapshot", "verify", &name]);
        assert!(said.contains("the snapshot is damaged at byte "), "{said}");
        flip(&file, at);
    }
    let whole = fs::read(&file).unwrap();
    // As etcd's clients save it by the gateway: it was called damaged, and could not be restored.
    let mut padded = whole.clone();
    padded.resize(whole.len().next_multiple_of(512), 0);
    padded.extend([0xa5; 32]);
    fs::write(&file, &padded).unwrap();
    let verified = json(&ends(0, &["snapshot", "verify", &name, "--output", "json"]).0);
    assert_eq!(verified["bytes"], whole.len());
    let restored = cluster.folder().join("restored").to_string_lossy().into_owned();
    let member = ["--data-dir", &restored, "--id", "1", "--peers", "1=127.0.0.1:1"];
    ends(0, &[&["snapshot", "restore", &name][..], &member].concat());
    padded[whole.len() - 1] ^= 1;
    fs::write(&file, &padded).unwrap();
    ends(3, &["snapshot", "verify", &name]);
    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    let (_, said) = ends(3, &["snapshot", "verify", &name]);
    assert!(said.contains("it was cut short"), "{said}");
}

#[test]
fn a_client_that_saves_and_does_not_read_costs_little_and_stops_nobody() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    fill(&cluster, 400, 150_000);
    let patience = || Deadline::after(PATIENCE);
    let file = cluster.folder().join("saved").to_string_lossy().into_owned();
    let at = cluster.server(1).listen().to_owned();
    // So that the snapshot is made, and its memory counted.
    ends(0, &["snapshot", "save", &file, "--endpoints", &at]);
    let before = resident(&mut cluster, 1);
    let mut lazy: Vec<_> = (0..4).map(|_| cluster.server(1).connection()).collect();
    for connection in &mut lazy {
        connection.snapshot();
        connection.flush(patience()).unwrap();
    }
    let mut late = cluster.server(1).connection();
    late.snapshot();
    late.flush(patience()).unwrap();
    let refused = late.receive(patience()).unwrap().body;
    assert!(matches!(refused, ReplyBody::Error(_)), "one too many: {refused:?}");
    assert_eq!(cluster.client().get(b"key/000007").unwrap().unwrap().value.len(), 150_000);
    let grown = resident(&mut cluster, 1).saturating_sub(before);
    assert!(grown < 24 << 20, "the server holds {grown} bytes for four clients");
    // The rest comes when they read.
    let whole = fs::read(&file).unwrap();
    for mut connection in lazy {
        let mut bytes = Vec::new();
        while bytes.len() < whole.len() {
            match connection.receive(patience()).unwrap().body {
                ReplyBody::Snapshot(piece) => bytes.extend_from_slice(piece.bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(bytes == whole, "another file");
    }
}

/// Makes the directory of a member out of a file: of the restore of this id, or of a new one.
fn restore(cluster: &mut Cluster, id: u64, file: &str, restore_id: Option<&str>) -> Value {
    let server = cluster.server(id);
    let directory = server.directory.to_string_lossy().into_owned();
    let (id, peers) = (id.to_string(), server.flag("--peers").to_owned());
    let words = ["snapshot", "restore", file, "--data-dir", &directory, "--id", &id];
    let more = ["--peers", &peers, "--segment-bytes", "1048576", "--output", "json"];
    let of = restore_id.map(|id| ["--restore-id", id]);
    let of = of.as_ref().map_or(&[][..], |of| &of[..]);
    let (printed, said) = ends(0, &[&words[..], &more[..], of].concat());
    let (found, hint) = (json(&printed), "restore the other members with --restore-id ");
    let chosen = found["restore_id"].as_str().unwrap();
    match restore_id {
        Some(given) => assert!(chosen == given && !said.contains(hint), "{said}"),
        None => assert!(said.contains(&format!("{hint}{chosen}\n")), "{said}"),
    }
    found
}

/// All members of a new cluster, each out of the same file.
fn restore_all(cluster: &mut Cluster, file: &str) -> Vec<Value> {
    let first = restore(cluster, 1, file, None);
    let id = first["restore_id"].as_str().unwrap().to_owned();
    let others: Vec<Value> = (2..=3).map(|nth| restore(cluster, nth, file, Some(&id))).collect();
    [vec![first], others].concat()
}

#[test]
fn a_new_cluster_is_restored_from_a_save_with_a_higher_revision_and_talks_to_no_old_member() {
    let mut old = Cluster::start(3);
    old.leader();
    fill(&old, 300, 200);
    let file = old.folder().join("saved").to_string_lossy().into_owned();
    let at = old.servers[1].listen().to_owned();
    let acknowledged = while_written(&old, || {
        let acknowledged = fill(&old, 300, 100);
        ends(0, &["snapshot", "save", &file, "--endpoints", &at]);
        acknowledged
    });
    old.wait_until_equal();
    let before = old.server(1).says();
    let mut new = old.plan_beside(3);
    let restored = restore_all(&mut new, &file);
    assert!(restored.iter().all(|it| it["cluster_id"] == restored[0]["cluster_id"]));
    assert!(restored.iter().all(|it| it["state_hash"] == restored[0]["state_hash"]));
    let path = new.server(1).directory.to_string_lossy().into_owned();
    let again =
        ["snapshot", "restore", &file, "--data-dir", &path, "--id", "1", "--peers", "1=a:1"];
    let (_, said) = ends(1, &again);
    assert!(said.contains("is not empty"), "{said}");
    // Two do not make a cluster: the third may have been one before.
    new.server(1).start();
    new.server(2).start();
    eventually("they wait for the third", PATIENCE, || {
        (new.server(2).status().ok()?.role == "waiting").then_some(())
    });
    new.server(3).start();
    new.leader();
    new.client().put(b"after", b"restore").unwrap();
    new.wait_until_equal();
    let status = new.server(2).says();
    assert_eq!(restored[0]["cluster_id"], status.cluster_id.to_string());
    assert_ne!(status.cluster_id, before.cluster_id);
    assert!(status.revision.0 > before.revision.0.max(acknowledged) + 900_000_000);
    assert_eq!(status.sessions, 1, "those of the old cluster have ended");
    let mut client = new.client();
    for number in 0..300 {
        let key = format!("key/{number:06}");
        assert_eq!(client.get(key.as_bytes()).unwrap().unwrap().value.len(), 100, "{key}");
    }
    let at = new.server(1).listen().to_owned();
    let (_, said) = ends(1, &["get", "busy", "--rev", "300", "--endpoints", &at]);
    assert!(said.contains("compacted"), "{said}");
    grow(&mut new, 4);
    let restore_id = restored[0]["restore_id"].as_str().unwrap();
    an_old_member_and_a_second_restore_are_refused(&mut old, &mut new, (&file, restore_id));
}

/// What the first one gave, tokens of users say, was good in the second one too, where it stood
/// for somebody else.
#[test]
fn a_file_that_is_restored_twice_makes_two_clusters() {
    let mut old = Cluster::start(1);
    old.leader();
    fill(&old, 10, 10);
    let file = old.folder().join("saved").to_string_lossy().into_owned();
    ends(0, &["snapshot", "save", &file, "--endpoints", old.servers[0].listen()]);
    old.server(1).kill();
    let mut new = old.plan_beside(3);
    let restored = restore_all(&mut new, &file);
    for id in 1..=3 {
        fs::remove_dir_all(&new.server(id).directory).unwrap();
    }
    let again = restore_all(&mut new, &file);
    for (one, other) in restored.iter().zip(&again) {
        assert_ne!(one["restore_id"], other["restore_id"]);
        assert_ne!(one["cluster_id"], other["cluster_id"]);
        assert_eq!(one["state_hash"], other["state_hash"], "the same state all the same");
        assert_eq!(other["cluster_id"], again[0]["cluster_id"]);
    }
    let words = ["snapshot", "restore", &file, "--data-dir", "x", "--id", "1", "--peers", "1=a:1"];
    let (_, said) = ends(2, &[&words[..], &["--restore-id", "+1"]].concat());
    assert!(said.contains("32 hexadecimal digits"), "{said}");
}

fn an_old_member_and_a_second_restore_are_refused(
    old: &mut Cluster,
    new: &mut Cluster,
    (file, restore_id): (&str, &str),
) {
    let foreign = old.server(1).says().cluster_id;
    // An old member in the place of a new one.
    new.server(3).kill();
    let kept = new.folder().join("kept");
    fs::rename(&new.server(3).directory, &kept).unwrap();
    old.server(3).kill();
    fs::rename(&old.server(3).directory, &new.server(3).directory).unwrap();
    new.server(3).start();
    let refusal = format!("belongs to cluster {}", foreign);
    eventually("it is left alone", PATIENCE, || {
        let said = [1, 2, 4].map(|id| new.server(id).log_text());
        said.iter().any(|said| said.contains(&refusal)).then_some(())
    });
    new.client().put(b"after", b"all").unwrap();
    // Restored a second time it is nobody who may vote.
    new.server(3).kill();
    fs::remove_dir_all(&new.server(3).directory).unwrap();
    restore(new, 3, file, Some(restore_id));
    new.server(3).start();
    assert_eq!(new.server(3).wait_for_end(PATIENCE).code(), Some(3));
    assert!(new.server(3).log_text().contains("it is new or was emptied"));
    fs::remove_dir_all(&new.server(3).directory).unwrap();
    fs::rename(&kept, &new.server(3).directory).unwrap();
    new.server(3).start();
    new.leader();
    new.wait_until_equal();
}

/// A new server becomes a voter.
fn grow(cluster: &mut Cluster, expected: u64) {
    let id = cluster.start_joiner();
    assert_eq!(id, expected);
    let member = format!("{id}={}", cluster.server(id).listen());
    let known = cluster.servers.iter().filter(|server| !server.retired && server.id != id);
    let known: Vec<&str> = known.map(|server| server.listen()).collect();
    ends(0, &["member", "add", &member, "--endpoints", &known.join(",")]);
    cluster.wait_until_equal();
}

/// Starts the survivor alone, with the flag.
fn force(cluster: &mut Cluster, id: u64) {
    cluster.server(id).kill();
    cluster.server(id).take_flag("--force-new-cluster");
    cluster.server(id).add_flag("--force-new-cluster");
    cluster.server(id).start();
    assert_eq!(cluster.leader(), id);
}

#[test]
fn the_last_survivor_begins_a_new_cluster_with_all_it_has_and_the_lost_are_refused() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    fill(&cluster, 300, 100);
    // A snapshot of the old cluster is in force: nobody of the new one can take it.
    let file = cluster.folder().join("saved").to_string_lossy().into_owned();
    let at = cluster.server(3).listen().to_owned();
    ends(0, &["snapshot", "save", &file, "--endpoints", &at]);
    while_written(&cluster, || fill(&cluster, 400, 100));
    cluster.wait_until_equal();
    let before = cluster.server(3).says();
    let kept = cluster.folder().join("kept");
    for id in [1, 2] {
        cluster.server(id).kill();
        cluster.server(id).retired = true;
    }
    fs::rename(&cluster.server(1).directory, &kept).unwrap();
    fs::remove_dir_all(&cluster.server(2).directory).unwrap();
    force(&mut cluster, 3);
    let said = cluster.server(3).log_text();
    assert!(said.contains("forced a new cluster: writes that were acknowledged"), "{said}");
    assert!(said.contains(&format!("old_cluster={}", before.cluster_id)), "{said}");
    cluster.client().put(b"after", b"force").unwrap();
    let status = cluster.server(3).says();
    assert_ne!(status.cluster_id, before.cluster_id);
    assert!(status.commit_index > before.last_index && status.revision >= before.revision);
    let mut client = cluster.client();
    for number in 0..400 {
        let key = format!("key/{number:06}");
        assert!(client.get(key.as_bytes()).unwrap().is_some(), "{key} is gone");
    }
    // A flag that was left does no more harm than a line in the log.
    force(&mut cluster, 3);
    let said = cluster.server(3).log_text();
    assert!(said.contains("is a cluster of one already"), "{said}");
    assert_eq!(cluster.server(3).says().cluster_id, status.cluster_id);
    cluster.server(3).take_flag("--force-new-cluster");
    grow(&mut cluster, 4);
    grow(&mut cluster, 5);
    assert_eq!(cluster.server(5).says().cluster_id, status.cluster_id);
    // The lost come back: one with what it had, one with nothing.
    fs::rename(&kept, &cluster.server(1).directory).unwrap();
    cluster.server(1).start();
    let refusal = format!("this node belongs to cluster {}", status.cluster_id);
    eventually("it is refused by name", PATIENCE, || {
        let heard = cluster.server(1).log_text().contains(&refusal);
        let said = format!("from=n1 why=it belongs to cluster {}", before.cluster_id);
        (heard && cluster.server(3).log_text().contains(&said)).then_some(())
    });
    cluster.server(1).kill();
    cluster.server(2).start();
    assert_eq!(cluster.server(2).wait_for_end(PATIENCE).code(), Some(3));
    assert!(cluster.server(2).log_text().contains("answers for another cluster"));
    cluster.server(3).kill();
    cluster.server(3).start();
    cluster.leader();
    cluster.client().put(b"after", b"all").unwrap();
    cluster.wait_until_equal();
}

/// At the restart after others had joined, a flag that was left began one more cluster, and both
/// served.
#[test]
fn a_flag_that_was_left_does_not_part_a_server_from_those_that_joined_it() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    fill(&cluster, 10, 100);
    cluster.wait_until_equal();
    for id in [1, 2] {
        cluster.server(id).kill();
        cluster.server(id).retired = true;
    }
    force(&mut cluster, 3);
    grow(&mut cluster, 4);
    cluster.server(3).kill();
    cluster.server(3).start();
    assert_eq!(cluster.server(3).wait_for_end(PATIENCE).code(), Some(3));
    assert!(cluster.server(3).log_text().contains("began a new cluster already"));
    cluster.server(3).take_flag("--force-new-cluster");
    cluster.server(3).start();
    cluster.leader();
    cluster.client().put(b"after", b"all").unwrap();
    cluster.wait_until_equal();
    // And then the other one is lost as well.
    cluster.server(4).kill();
    cluster.server(4).retired = true;
    force(&mut cluster, 3);
    assert_eq!(cluster.client().get(b"after").unwrap().unwrap().value, b"all");
}

#[test]
fn what_is_no_member_or_is_damaged_is_not_forced() {
    let mut cluster = Cluster::plan(1, &Shape::default());
    cluster.server(1).add_flag("--force-new-cluster");
    cluster.server(1).start();
    assert_eq!(cluster.server(1).wait_for_end(PATIENCE).code(), Some(3));
    let said = cluster.server(1).log_text();
    assert!(said.contains("is not a data directory of raftd"), "{said}");
    let directory = cluster.server(1).directory.clone();
    assert!(!directory.join("IDENTITY").exists(), "nothing was made");
    cluster.server(1).take_flag("--force-new-cluster");
    cluster.server(1).start();
    cluster.leader();
    fill(&cluster, 20, 100);
    cluster.server(1).kill();
    let text = ends(0, &["log", "dump", &directory.to_string_lossy(), "--output", "json"]).0;
    let segment = json(&text)["segments"][0]["file"].as_str().unwrap().to_owned();
    flip(Path::new(&segment), 8192 + 64 + 5);
    cluster.server(1).add_flag("--force-new-cluster");
    cluster.server(1).start();
    assert_eq!(cluster.server(1).wait_for_end(PATIENCE).code(), Some(3));
    let said = cluster.server(1).log_text();
    assert!(said.contains("entry 1 is lost"), "{said}");
}

/// It slept, and said so only when a signal or a connection woke it.
#[test]
fn a_server_that_may_not_be_forced_ends_at_once() {
    let mut cluster = Cluster::plan(1, &Shape::default());
    cluster.server(1).start();
    cluster.leader();
    let joiner = cluster.start_joiner();
    eventually("its directory is made", PATIENCE, || {
        cluster.server(joiner).log_text().contains("recovered node=").then_some(())
    });
    cluster.server(joiner).kill();
    let alone = format!("{joiner}={}", cluster.server(joiner).listen());
    cluster.server(joiner).change_flag("--peers", &alone);
    cluster.server(joiner).take_flag("--join");
    cluster.server(joiner).add_flag("--force-new-cluster");
    cluster.server(joiner).start();
    assert_eq!(cluster.server(joiner).wait_for_end(PATIENCE).code(), Some(3));
    let said = cluster.server(joiner).log_text();
    assert!(said.contains("never was part of a cluster"), "{said}");
}
