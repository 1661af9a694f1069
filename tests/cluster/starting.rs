//! A node alone, and every way not to start: one line that says what to do, and an exit code.

use super::harness::{Cluster, PATIENCE, Server, Shape, free_address};
use super::patience::{breathe, eventually};
use raftd::client::{Client, ClientOptions, Deadline};
use raftd::types::ClusterId;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What came of a `raftd` that must not start.
struct Refusal {
    code: Option<i32>,
    text: String,
}

/// Runs `raftd` with these flags until it ends; one that goes on is killed and has no exit code.
fn refused(flags: &[&str]) -> Refusal {
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftd"))
        .args(flags)
        .env("RUST_LOG", "off")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Deadline::after(PATIENCE);
    while child.try_wait().unwrap().is_none() && !deadline.has_passed() {
        breathe(Duration::from_millis(5));
    }
    // It has ended, or has had its time.
    let _ended = child.kill();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    Refusal { code: output.status.code(), text }
}

impl Refusal {
    /// One line with these words, this code.
    fn says(&self, code: i32, words: &[&str]) {
        let text = &self.text;
        assert_eq!(self.code, Some(code), "{text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
}

fn put_and_get(client: &mut Client, key: &str, value: &str) {
    client.put(key.as_bytes(), value.as_bytes()).unwrap();
    let found = client.get(key.as_bytes()).unwrap().expect("it was just put");
    assert_eq!(found.value, value.as_bytes());
}

/// A node started without --peers, then killed: what it leaves in its directory.
fn a_used_directory(token: Option<&str>) -> Cluster {
    let mut shape = Shape::default();
    if let Some(token) = token {
        shape.flags = vec!["--cluster-token".to_owned(), token.to_owned()];
    }
    let mut cluster = Cluster::start_shaped(1, &shape);
    put_and_get(&mut cluster.client(), "k", "v");
    cluster.server(1).kill();
    cluster
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the target directory is text")
}

#[test]
fn a_lone_node_serves_as_a_cluster_of_one() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let address = free_address();
    let flags = vec!["--listen".to_owned(), address.clone()];
    // As a person would: no --peers, nothing but an address to tell it from other tests.
    let mut server = Server::new(1, address.clone(), folder.path(), flags);
    server.start();
    eventually("the node leads itself", PATIENCE, || {
        server.status().ok().filter(|status| status.role == "leader")
    });
    let mut client = Client::new(ClientOptions {
        endpoints: vec![address],
        timeout: PATIENCE,
        cluster_id: ClusterId(0),
    });
    put_and_get(&mut client, "alone", "1");
    server.kill();
    server.start();
    let found = client.get(b"alone").unwrap().expect("it was acknowledged");
    assert_eq!(found.value, b"1");
    put_and_get(&mut client, "alone", "2");
}

#[test]
fn malformed_flags_are_refused_with_what_to_write() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = folder.path().join("1");
    let with = |flags: &[&str]| {
        let mut all = vec!["--data-dir", text(&directory)];
        all.extend(flags);
        refused(&all)
    };
    with(&["--id", "1", "--peers", "127.0.0.1:7101"]).says(2, &["--peers", "ID=HOST:PORT"]);
    with(&["--id", "1", "--peers", "1=127.0.0.1"]).says(2, &["--peers", "HOST:PORT"]);
    with(&["--id", "1", "--peers", "1=a:1,1=b:2"]).says(2, &["--peers", "twice"]);
    with(&["--id", "4", "--peers", "1=a:1,2=b:2"]).says(2, &["does not name this server"]);
    with(&["--id", "0"]).says(2, &["--id"]);
    refused(&["--id", "1"]).says(2, &["--data-dir"]);
    assert!(!directory.exists(), "a refused command line leaves nothing behind");
}

#[test]
fn a_directory_in_use_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let directory = cluster.server(1).directory.clone();
    let address = free_address();
    let refusal = refused(&["--id", "1", "--data-dir", text(&directory), "--listen", &address]);
    refusal.says(3, &[text(&directory), "running raftd"]);
    put_and_get(&mut cluster.client(), "still", "serving");
}

#[test]
fn the_directory_of_another_node_is_refused() {
    let mut cluster = a_used_directory(None);
    let directory = cluster.server(1).directory.clone();
    let address = free_address();
    let refusal = refused(&["--id", "2", "--data-dir", text(&directory), "--listen", &address]);
    refusal.says(3, &["--id", "--data-dir"]);
}

#[test]
fn the_directory_of_another_cluster_is_refused() {
    let mut cluster = a_used_directory(Some("blue"));
    let directory = cluster.server(1).directory.clone();
    let address = free_address();
    let flags = ["--id", "1", "--data-dir", text(&directory), "--listen", &address];
    let refusal = refused(&[&flags[..], &["--cluster-token", "red"]].concat());
    refusal.says(3, &["--cluster-token"]);
}

#[test]
fn a_taken_address_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let address = cluster.server(1).address.clone();
    let directory = cluster.folder().join("other");
    let refusal = refused(&["--id", "1", "--data-dir", text(&directory), "--listen", &address]);
    refusal.says(3, &[&address, "--listen"]);
}

#[test]
fn a_node_of_another_cluster_is_turned_away_and_says_what_to_do() {
    let mut cluster = Cluster::start(2);
    cluster.leader();
    let directory = cluster.folder().join("stranger");
    let (address, known) = (free_address(), cluster.server(1).address.clone());
    let other_members = format!("1={known},3={address}");
    let flags = ["--id", "3", "--data-dir", text(&directory), "--peers", &other_members];
    refused(&flags).says(3, &["another cluster", "--peers", "--cluster-token"]);
    put_and_get(&mut cluster.client(), "undisturbed", "yes");
}
