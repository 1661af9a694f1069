//! A node alone, and every way not to start: one line that says what to do, and an exit code.

use super::harness::{Cluster, PATIENCE, Server, Shape, free_address};
use super::patience::{breathe, eventually};
use raftd::client::{Client, ClientOptions, Deadline};
use raftd::types::ClusterId;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What came of a `raftd` that must not start.
struct Refusal {
    code: Option<i32>,
    text: String,
}

/// Runs `raftd` with these flags until it ends; one that goes on is killed and has no exit code.
fn refused(flags: &[impl AsRef<OsStr>]) -> Refusal {
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
        login: None,
    });
    put_and_get(&mut client, "alone", "1");
    server.kill();
    server.start();
    let found = client.get(b"alone").unwrap().expect("it was acknowledged");
    assert_eq!(found.value, b"1");
    put_and_get(&mut client, "alone", "2");
}

/// It once slept, with its first job ready, until somebody connected.
#[test]
fn a_cluster_of_one_is_founded_before_anybody_connects() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let address = free_address();
    let flags = vec!["--listen".to_owned(), address.clone()];
    let mut server = Server::new(1, address, folder.path(), flags);
    server.start();
    eventually("it leads itself", PATIENCE, || {
        server.log_text().contains("became leader").then_some(())
    });
}

/// What is refused before anything is touched: flags, and words of the line that says what to do.
const MALFORMED: &[(&str, &[&str])] = &[
    ("", &["--id N", "missing"]),
    ("--id 0", &["--id", "from 1 on"]),
    ("--id -1", &["--id", "from 1 on"]),
    ("--id one", &["--id", "from 1 on"]),
    ("--id 18446744073709551615", &["--id"]),
    ("--id 1 --id 2", &["id", "more than once"]),
    ("--id 1 --peers 127.0.0.1:7101", &["--peers", "ID=HOST:PORT"]),
    ("--id 1 --peers 1", &["--peers", "ID=HOST:PORT"]),
    ("--id 1 --peers 1=", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=127.0.0.1", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=:7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:0", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:65536", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1==a:1", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=http://a:1", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=::1:7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=10.0.0:7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=10.0.0.300:7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:+7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:07101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a..b:7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=0.0.0.0:7101", &["--peers", "HOST:PORT", "--listen 0.0.0.0:7101"]),
    ("--id 1 --listen http://127.0.0.1:7101", &["--listen", "HOST:PORT"]),
    ("--id 1 --listen 127.0.0.1:0", &["--listen", "HOST:PORT"]),
    ("--id 1 --listen 127.0.0.1:+7101", &["--listen", "HOST:PORT"]),
    ("--id 1 --advertise 127.0.0.1:0", &["--advertise", "HOST:PORT"]),
    ("--id 1 --peers 1=[::1:7101", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:1;2=b:1", &["--peers", "HOST:PORT"]),
    ("--id 1 --peers 1=a:1,", &["--peers", "ID=HOST:PORT"]),
    ("--id 1 --peers 1=a:1,,2=b:1", &["--peers", "ID=HOST:PORT"]),
    ("--id 1 --peers 0=a:1", &["--peers", "from 1 on"]),
    ("--id 1 --peers one=a:1", &["--peers", "from 1 on"]),
    ("--id 1 --peers 1=a:1,1=b:2", &["--peers", "twice"]),
    ("--id 1 --peers 1=a:1,2=a:1", &["--peers", "two servers"]),
    ("--id 4 --peers 1=a:1,2=b:2", &["does not name this server", "add 4=HOST:PORT"]),
    ("--id 1 --listen nowhere", &["--listen", "HOST:PORT"]),
    ("--id 1 --segment-bytes 4096", &["--segment-bytes", "65536"]),
    ("--id 1 --segment-bytes 65537", &["--segment-bytes", "4096"]),
    ("--id 1 --segment-bytes many", &["--segment-bytes", "65536"]),
    ("--id 1 --election-timeout 0", &["--election-timeout", "10"]),
    ("--id 1 --heartbeat 299", &["--heartbeat", "150"]),
    ("--id 1 --max-connections 0", &["--max-connections", "1"]),
    ("--id 1 --history-bytes 1", &["--history-bytes", "4096"]),
    ("--id 1 --history-age 0", &["--history-age", "1"]),
    ("--id 1 --history-age 5m", &["--history-age", "whole number"]),
    ("--id 1 --quota-bytes 1", &["--quota-bytes", "4096"]),
    ("--id 1 --nonsense", &["nonsense", "--help"]),
    ("--id 1 stray", &["stray", "--help"]),
];

#[test]
fn malformed_flags_are_refused_with_what_to_write() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = folder.path().join("1");
    for (flags, words) in MALFORMED {
        let mut all: Vec<&str> = flags.split_whitespace().collect();
        all.extend(["--data-dir", text(&directory)]);
        refused(&all).says(2, words);
    }
    refused(&["--id", "1"]).says(2, &["--data-dir"]);
    refused(&["--id", "1", "--data-dir", ""]).says(2, &["--data-dir"]);
    refused(&["--id", "1", "--peers", "", "--data-dir", "d"]).says(2, &["ID=HOST:PORT"]);
    assert!(!directory.exists(), "a refused command line leaves nothing behind");
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let address = free_address();
    let refuse = |directory: &Path, words: &[&str]| {
        let flags = ["--id", "1", "--listen", &address, "--data-dir", text(directory)];
        refused(&flags).says(3, words);
    };
    let file = folder.path().join("a file");
    fs::write(&file, "of somebody").unwrap();
    refuse(&file, &["cannot create", "--data-dir"]);
    refuse(&file.join("below"), &["cannot create", "Not a directory", "--data-dir"]);
    // Not even root may write there.
    refuse(Path::new("/proc/raftd"), &["cannot create /proc/raftd", "--data-dir"]);

    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter"), "not ours").unwrap();
    refuse(&foreign, &["not a data directory of raftd", "--data-dir"]);
    let left: Vec<_> = fs::read_dir(&foreign).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "the directory of others is as it was: {left:?}");
}

#[test]
fn an_address_that_is_not_this_machines_is_refused() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = folder.path().join("1");
    // Names and numbers that are reserved, so that nobody has them (RFC 6761, RFC 5737).
    for address in ["no-such-host.invalid:7101", "192.0.2.1:7101"] {
        let flags = ["--id", "1", "--data-dir", text(&directory), "--listen", address];
        refused(&flags).says(3, &["cannot listen on", address, "--listen"]);
    }
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

/// It once cost as much memory as its number is large.
#[test]
fn a_stray_file_in_the_log_is_refused() {
    let mut cluster = a_used_directory(None);
    let directory = cluster.server(1).directory.clone();
    let stray = directory.join("log/00000000004294967295.seg");
    fs::write(&stray, "").unwrap();
    let address = free_address();
    let refusal = refused(&["--id", "1", "--data-dir", text(&directory), "--listen", &address]);
    refusal.says(3, &[text(&stray), "remove it"]);
    assert!(stray.exists());
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

#[test]
fn a_node_told_to_stop_notes_that_it_ended_well() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    put_and_get(&mut cluster.client(), "k", "v");
    for server in &mut cluster.servers {
        assert!(server.log_text().contains("clean=false"), "a first start follows nothing");
        server.signal("TERM");
        assert_eq!(server.wait_for_end(PATIENCE).code(), Some(0));
        let log = server.log_text();
        let last = log.trim_end().lines().last().unwrap_or_default();
        assert!(last.contains("stopped") && last.contains("clean=true"), "{log}");
    }
    cluster.start_all();
    let mut client = cluster.client();
    assert_eq!(client.get(b"k").unwrap().unwrap().value, b"v");
    let recovered = |log: &str| -> Vec<String> {
        log.lines().filter(|line| line.contains("recovered ")).map(str::to_owned).collect()
    };
    for server in &mut cluster.servers {
        let lines = recovered(&server.log_text());
        assert!(lines[1].contains("clean=true"), "{lines:?}");
        assert!(lines[1].contains("records=") && lines[1].contains("last="), "{lines:?}");
        server.kill();
    }
    cluster.start_all();
    cluster.leader();
    for server in &cluster.servers {
        let lines = recovered(&server.log_text());
        assert!(lines[2].contains("clean=false"), "kill -9 says no farewell: {lines:?}");
    }
}

/// A node whose others are gone cannot commit, and yet ends at once.
#[test]
fn a_node_without_a_majority_stops_when_told() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    for other in cluster.others(leader) {
        cluster.server(other).kill();
    }
    let mut connection = cluster.server(leader).connection();
    connection.put(b"k", b"v");
    connection.flush(Deadline::after(PATIENCE)).unwrap();
    cluster.server(leader).signal("INT");
    assert_eq!(cluster.server(leader).wait_for_end(PATIENCE).code(), Some(0));
    assert!(cluster.server(leader).log_text().contains("clean=true"));
}

/// It panicked, before it had said what a panic is to do.
#[test]
fn an_argument_that_is_no_text_is_a_wrong_flag() {
    let directory = OsStr::from_bytes(b"data\xff");
    let flags = ["--id", "1", "--data-dir"].map(OsStr::new);
    refused(&[&flags[..], &[directory]].concat()).says(2, &["UTF-8", r"data\xFF"]);
}

/// With the flag it executes itself once, as the same process, so that its memory is in huge pages
/// where the system gives them to who asks; and not where somebody has decided that.
#[test]
fn it_asks_for_huge_pages_with_the_flag_unless_somebody_has_decided() {
    let modes = "/sys/kernel/mm/transparent_hugepage/enabled";
    let given = fs::read_to_string(modes).is_ok_and(|modes| modes.contains("[madvise]"));
    let asks = given && cfg!(target_env = "gnu");
    for (flag, decided) in [
        (Some("--huge-pages"), None),
        (Some("--huge-pages"), Some("glibc.malloc.hugetlb=0")),
        (None, None),
    ] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (directory, log) = (folder.path().join("data"), folder.path().join("log"));
        let address = free_address();
        let mut flags = vec!["--id", "1", "--listen", &address, "--data-dir", text(&directory)];
        flags.extend(flag);
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftd"));
        command.args(&flags).env("RUST_LOG", "info").stderr(fs::File::create(&log).unwrap());
        command.env_remove("GLIBC_TUNABLES");
        command.envs(decided.map(|value| ("GLIBC_TUNABLES", value)));
        let mut child = command.spawn().unwrap();
        let said = eventually("it starts", PATIENCE, || {
            let said = fs::read_to_string(&log).unwrap();
            said.lines().find(|line| line.contains("huge_pages=")).map(str::to_owned)
        });
        let of = |file: &str| fs::read(format!("/proc/{}/{file}", child.id())).unwrap();
        let (arguments, environment) = (of("cmdline"), of("environ"));
        child.kill().unwrap();
        child.wait().unwrap();
        let texts = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "\n");
        assert!(texts(&arguments).trim_end().ends_with(&flags.join("\n")), "as they were given");
        let environment = texts(&environment);
        let set = environment.lines().find_map(|line| line.strip_prefix("GLIBC_TUNABLES="));
        let asked = set.is_some_and(|set| set.contains("glibc.malloc.hugetlb=1"));
        match (flag, decided) {
            (Some(_), None) => assert_eq!(asked, asks, "{environment}"),
            (_, decided) => assert_eq!(set, decided),
        }
        if given {
            assert!(said.ends_with(&format!("huge_pages={asked}")), "{said}");
        }
    }
}
