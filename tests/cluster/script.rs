//! scripts/cluster.sh from every state that people leave behind.

use super::harness::{PATIENCE, free_address};
use super::patience::{eventually, now};
use super::turns::{Company, Turn};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The script, with a directory and ports of its own. What it started ends with this.
pub(crate) struct Script {
    folder: TempDir,
    /// The first node's port.
    pub(crate) port: u16,
    turn: Option<Turn>,
}

impl Script {
    /// For up to `nodes` nodes, when it is their turn.
    pub(crate) fn new(nodes: u16) -> Script {
        let turn = Turn::take(Company::Others);
        let mut script = Script::beside(nodes);
        script.turn = Some(turn);
        script
    }

    fn beside(nodes: u16) -> Script {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Script { folder, port: free_ports(nodes), turn: None }
    }

    /// A directory whose name has a space in it.
    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("a cluster")
    }

    /// `program` with what the script needs to know in its environment, in another directory.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("CLUSTER_DIR", "a cluster")
            .env("CLUSTER_PORT_BASE", self.port.to_string())
            .env("CLUSTER_BIN", binaries())
            .env("RAFTD_FLAGS", "--segment-bytes 1048576")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Run {
        let output = self.command(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster.sh"));
        Run::of(spawn_and_wait(output, words))
    }

    fn works(&self, words: &[&str]) -> String {
        let run = self.run(words);
        assert_eq!(run.code, Some(0), "{words:?}: {}{}", run.out, run.said);
        run.out
    }

    fn fails(&self, words: &[&str], why: &[&str]) {
        let run = self.run(words);
        assert_eq!(run.code, Some(1), "{words:?}: {}{}", run.out, run.said);
        for word in why {
            assert!(run.said.contains(word), "{word:?} is not in: {}", run.said);
        }
    }

    fn raftctl(&self, words: &[&str]) -> Run {
        let ports = self.port..self.port + 3;
        let endpoints: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
        command.args(["--endpoints", &endpoints.join(",")]);
        if !words.contains(&"--timeout") {
            command.args(["--timeout", "60s"]);
        }
        Run::of(spawn_and_wait(command, words))
    }

    /// The servers that work in its directory. Not what else names a file there: the `rm` of an old
    /// note was once taken for the third of three nodes.
    fn running(&self) -> Vec<u32> {
        let inside = self.directory().to_string_lossy().into_owned() + "/";
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let works_here = |id: &u32| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let words: Vec<_> =
                line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            words.windows(2).any(|it| it[0] == "--data-dir" && it[1].starts_with(&inside))
        };
        ids.filter(works_here).collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _last = self.run(&["down"]);
        let left = self.running();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "still running: {left:?}");
        }
    }
}

struct Run {
    code: Option<i32>,
    out: String,
    said: String,
}

impl Run {
    fn of(output: Output) -> Run {
        Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            said: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn spawn_and_wait(mut command: Command, words: &[&str]) -> Output {
    command.args(words).output().unwrap()
}

/// Where cargo put the programs under test.
pub(crate) fn binaries() -> String {
    let (directory, _) = env!("CARGO_BIN_EXE_raftd").rsplit_once('/').unwrap();
    directory.to_owned()
}

/// The first of `count` ports in a row that nobody listens on, and that nobody else is given.
fn free_ports(count: u16) -> u16 {
    let port = || -> u16 { free_address().rsplit_once(':').unwrap().1.parse().unwrap() };
    let mut first = port();
    let mut last = first;
    while last + 1 < first + count {
        let next = port();
        if next != last + 1 {
            first = next;
        }
        last = next;
    }
    first
}

#[test]
fn the_demonstration_passes_and_leaves_nothing() {
    let script = Script::new(3);
    // It runs raftctl a thousand times and more, which depends on the machine; the rest is short.
    let started = now();
    for _ in 0..100 {
        let version = Command::new(env!("CARGO_BIN_EXE_raftctl")).arg("--version").output();
        assert!(version.unwrap().status.success());
    }
    let limit = Duration::from_secs(30).max(100 * started.elapsed());
    let started = now();
    let said = script.works(&[]);
    let took = started.elapsed();
    assert!(took < limit, "it took {took:?}, more than {limit:?}");
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("PASS"), "{said}");
    for words in ["nobody could write for", "holds all 1000 keys", "no process is left"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(script.running().is_empty());
}

#[test]
fn a_cluster_is_started_hurt_healed_and_ended() {
    let script = Script::new(3);
    script.fails(&["status"], &["no cluster", "up"]);
    script.fails(&["kill", "1"], &["no cluster", "up"]);
    assert!(script.works(&["up"]).contains("leader"));
    assert_eq!(script.running().len(), 3);
    script.works(&["up"]);
    assert_eq!(script.running().len(), 3, "what runs is left alone");
    script.fails(&["up", "5"], &["holds a cluster of 3"]);
    script.fails(&["kill", "4"], &["which node"]);
    script.fails(&["start", "1"], &["already running"]);

    assert_eq!(script.raftctl(&["put", "k", "v"]).out, "OK\n");
    assert_eq!(script.works(&["kill", "1"]), "node 1 is dead\n");
    script.fails(&["kill", "1"], &["not running", "start 1"]);
    assert_eq!(script.works(&["pause", "2"]), "node 2 is paused\n");
    assert_eq!(
        script.raftctl(&["put", "k", "w", "--timeout", "1s"]).code.map(|c| c >= 3),
        Some(true)
    );
    assert_eq!(script.works(&["resume", "2"]), "node 2 goes on\n");
    assert_eq!(script.raftctl(&["put", "k", "x"]).out, "OK\n");
    assert_eq!(script.works(&["start", "1"]), "node 1 is started\n");
    for node in ["1", "2", "3"] {
        script.works(&["kill", node]);
    }
    for node in ["3", "1", "2"] {
        script.works(&["start", node]);
    }
    assert_eq!(script.raftctl(&["get", "k"]).out, "k\nx\n");
    script.works(&["pause", "3"]);
    assert!(script.works(&["down"]).contains("all 3 nodes are down"));
    assert!(script.running().is_empty(), "a paused node ends as well");
    script.works(&["down"]);
    script.works(&["up"]);
    assert_eq!(script.raftctl(&["get", "k"]).out, "k\nx\n");
}

#[test]
fn two_clusters_stand_side_by_side_one_of_five() {
    let (five, three) = (Script::new(5), Script::beside(3));
    five.works(&["up", "5"]);
    three.works(&["up"]);
    assert_eq!((five.running().len(), three.running().len()), (5, 3));
    three.works(&["down"]);
    assert_eq!((five.running().len(), three.running().len()), (5, 0));
}

/// A process id is given to somebody else once its process has ended.
#[test]
fn a_process_that_it_did_not_start_is_left_alone() {
    let script = Script::new(3);
    script.works(&["up"]);
    script.works(&["down"]);
    let mut stranger = Stranger::start();
    let note = format!("{} 12345\n", stranger.0.id());
    fs::write(script.directory().join("1.pid"), note).unwrap();
    fs::write(script.directory().join("2.pid"), "").unwrap();
    fs::write(script.directory().join("3.pid"), "nonsense\n").unwrap();
    script.fails(&["kill", "1"], &["not running"]);
    script.fails(&["pause", "3"], &["not running"]);
    script.works(&["down"]);
    assert!(stranger.0.try_wait().unwrap().is_none(), "the stranger was hurt");
    script.works(&["up"]);
    assert_eq!(script.running().len(), 3);
}

/// A process that is not the script's.
struct Stranger(Child);

impl Stranger {
    fn start() -> Stranger {
        Stranger(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_taken_port_is_named_with_who_has_it() {
    let script = Script::new(3);
    let taken = TcpListener::bind(("127.0.0.1", script.port + 1)).unwrap();
    let (port, owner) = ((script.port + 1).to_string(), format!("process {}", std::process::id()));
    script.fails(&["up"], &["port", &port, &owner, "CLUSTER_PORT_BASE"]);
    assert!(script.running().is_empty());
    drop(taken);
    script.works(&["up"]);
    script.works(&["kill", "2"]);
    let bind = || TcpListener::bind(("127.0.0.1", script.port + 1)).ok();
    let taken = eventually("the port of the dead process is free", PATIENCE, bind);
    script.fails(&["start", "2"], &["port", &port, &owner]);
    drop(taken);
    script.works(&["start", "2"]);
}

#[test]
fn two_demonstrations_at_once_take_turns() {
    let script = Script::new(3);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| script.works(&[])));
        for said in both.map(|demo| demo.join().unwrap()) {
            assert!(said.contains("PASS"), "{said}");
        }
    });
    assert!(script.running().is_empty());
}

/// kill -9 gives the script no chance to tidy up: its nodes are noted all the same.
#[test]
fn what_a_killed_demonstration_left_is_found() {
    let script = Script::new(3);
    for _ in 0..2 {
        let mut command =
            script.command(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster.sh"));
        let mut demo = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("its nodes run", PATIENCE, || (script.running().len() == 3).then_some(()));
        demo.kill().unwrap();
        demo.wait().unwrap();
    }
    assert!(script.works(&[]).contains("PASS"), "a demonstration tidies up after another");
    assert!(script.running().is_empty());
}

/// `down` ended what a killed demonstration had left, and said that there was no cluster.
#[test]
fn what_a_killed_demonstration_left_is_ended_and_named_by_down() {
    let script = Script::new(3);
    let mut command = script.command(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster.sh"));
    let mut demo = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("its nodes run", PATIENCE, || (script.running().len() == 3).then_some(()));
    demo.kill().unwrap();
    demo.wait().unwrap();
    let said = script.works(&["down"]);
    assert!(script.running().is_empty(), "{said}");
    assert!(said.contains("3 nodes of a killed demonstration are down"), "{said}");
    assert!(!said.contains("no cluster"), "{said}");
    assert!(script.works(&["down"]).contains("there is no cluster"));
}

/// A node whose note is gone is not ended, because nobody knows that it is ours; but it is named.
#[test]
fn a_node_without_a_note_is_named_and_left_alone() {
    let script = Script::new(3);
    script.works(&["up", "1"]);
    let note = script.directory().join("1.pid");
    let noted = fs::read_to_string(&note).unwrap();
    fs::remove_file(&note).unwrap();
    let (pid, _) = noted.split_once(' ').unwrap();
    let (run, running) = (script.run(&["down"]), script.running());
    // Before anything can fail: the script must be able to end it.
    fs::write(&note, &noted).unwrap();
    assert_eq!((run.code, running.len()), (Some(1), 1), "{}{}", run.out, run.said);
    assert!(run.said.contains("without a note"), "{}", run.said);
    assert!(run.said.contains(pid), "{}", run.said);
    script.works(&["down"]);
}
