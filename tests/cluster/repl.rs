//! raftctl without a verb: a conversation on a terminal, and an error without one.

use super::harness::{Cluster, PATIENCE, Server};
use super::patience::eventually;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// raftctl on a terminal of its own, which sends it Ctrl-C as a signal.
struct Conversation {
    keyboard: File,
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Conversation {
    fn begin(endpoints: &str) -> Conversation {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs =
            || -> Stdio { OpenOptions::new().read(true).write(true).open(&name).unwrap().into() };
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_raftctl"), "--endpoints", endpoints])
            .env("TERM", "xterm")
            .stdin(theirs())
            .stdout(theirs())
            .stderr(theirs())
            .spawn()
            .unwrap();
        let keyboard = File::from(ours);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut shown, seen) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails once nobody has the terminal open.
            while let Ok(count @ 1..) = shown.read(&mut bytes) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Conversation { keyboard, child, screen }
    }

    /// Types a line, and waits until the screen shows `answer` behind it.
    fn say(&mut self, line: impl AsRef<[u8]>, answer: &str) {
        let before = self.screen.lock().unwrap().len();
        self.keyboard.write_all(line.as_ref()).unwrap();
        let line = line.as_ref().escape_ascii();
        let what = format!("{answer:?} after {line}");
        eventually(&what, PATIENCE, || {
            self.screen.lock().unwrap()[before..].contains(answer).then_some(())
        });
    }
}

#[test]
fn without_a_verb_there_is_a_conversation_until_it_is_ended() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let all: Vec<&str> = cluster.servers.iter().map(Server::listen).collect();
    let mut talk = Conversation::begin(&all.join(","));
    talk.say("", "raftd> ");
    talk.say("put \"a key\" value\r", "OK");
    talk.say("get \"a key\"\r", "a key\r\nvalue\r\n");
    talk.say("put k v -o json\r", "{\"revision\":3}");
    // One that fails does not end it.
    talk.say("pit\r", "put");
    talk.say("get k --rev 99\r", "future");
    // A line that is given up is not done.
    talk.say("put k other\x03", "raftd> ");
    talk.say("get k\r", "k\r\nv\r\n");
    talk.say("sta\t-o json\r", "\"commit_index\"");
    talk.say("exit\r", "");
    let ended = eventually("it ends", PATIENCE, || talk.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

/// A conversation with a cluster of one, whose key `k` has the value `v`.
fn with_a_key() -> (Cluster, Conversation) {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut talk = Conversation::begin(cluster.server(1).listen());
    talk.say("", "raftd> ");
    talk.say("put k v\r", "OK");
    (cluster, talk)
}

/// The editor catches Ctrl-C, also while it does not edit: who had begun to watch could neither
/// stop nor go on, and had to kill raftctl from another terminal.
#[test]
fn ctrl_c_ends_what_goes_on_for_ever_and_not_the_conversation() {
    let (_cluster, mut talk) = with_a_key();
    talk.say("watch k --rev 2\r", "PUT\r\nk\r\nv\r\n");
    talk.say("\x03", "raftd> ");
    talk.say("lease grant 60 --id 7\r", "lease 7 granted");
    talk.say("lease keep-alive 7 -o json\r", "\"ttl_s\":60");
    talk.say("\x03", "raftd> ");
    talk.say("txn\r", "compares:");
    talk.say("\x03", "raftd> ");
    talk.say("txn\r", "compares:");
    talk.say("\rget k\r\r\r", "SUCCESS\r\n\r\nk\r\nv\r\n");
    talk.say("get k\r", "k\r\nv\r\n");
}

/// What was typed next became the value, or the password.
#[test]
fn ctrl_c_gives_up_a_verb_that_reads_the_terminal() {
    let (_cluster, mut talk) = with_a_key();
    talk.say("put k -\r", "put k -");
    talk.say("half\r", "half\r\n");
    talk.say("\x03", "raftd> ");
    talk.say("get k\r", "k\r\nv\r\n");
    talk.say("user add bob\r", "Password of bob: ");
    talk.say("\x03", "raftd> ");
    talk.say("user list -o json\r", "[]");
    // What is typed is shown again.
    talk.say("put k -\r", "put k -");
    talk.say("shown\r", "shown\r\n");
    talk.say("\x03", "raftd> ");
    talk.say("get k\r", "k\r\nv\r\n");
}

/// A byte from a terminal that speaks Latin-1 ended the conversation.
#[test]
fn what_is_no_text_is_not_read_and_ends_nothing() {
    let mut talk = Conversation::begin("127.0.0.1:1");
    talk.say("", "raftd> ");
    talk.say(b"put k \xe9\r", "not UTF-8");
    talk.say("pit\r", "put");
}

#[test]
fn the_end_of_the_terminals_input_ends_the_conversation() {
    let mut talk = Conversation::begin("127.0.0.1:1");
    talk.say("", "raftd> ");
    talk.say("\x04", "");
    let ended = eventually("it ends", PATIENCE, || talk.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn without_a_terminal_a_verb_is_required() {
    let output = Command::new(env!("CARGO_BIN_EXE_raftctl")).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: raftctl"));
}
