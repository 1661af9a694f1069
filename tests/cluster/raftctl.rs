//! raftctl as scripts use it: output, exit codes, bytes of any kind, pipes that close.

use super::gate::Gate;
use super::harness::{Cluster, PATIENCE, Server, Shape, free_address};
use super::patience::{at_best, eventually, now};
use raftd::client::{CONTENT_BYTES_MAX, Deadline};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a run of raftctl came to.
pub(super) struct Run {
    code: Option<i32>,
    out: Vec<u8>,
    said: String,
}

impl Run {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// What it printed, if it went well; whatever it said on the way.
    pub(super) fn succeeded(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.said);
        self.text()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap()
    }

    /// Nothing printed, one line that says why, this code.
    pub(super) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        assert!(self.out.is_empty(), "{}", self.text());
        assert_eq!(self.said.trim_end().lines().count(), 1, "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "{word:?} is not in: {}", self.said);
        }
    }
}

/// Runs raftctl against `endpoints` with `input` on its standard input; with time for a busy
/// machine, unless the words say how much.
pub(super) fn raftctl_with(endpoints: &str, words: &[&OsStr], input: &[u8]) -> Run {
    let limited = words.iter().any(|word| *word == "--timeout");
    let time: &[&str] = if limited { &[] } else { &["--timeout", "60s"] };
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", endpoints])
        .args(time)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // It need not read all of it, nor any.
        scope.spawn(move || stdin.write_all(input).is_ok());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        Run { code: output.status.code(), out: output.stdout, said }
    })
}

pub(super) fn raftctl(endpoints: &str, line: &str) -> Run {
    let words: Vec<&OsStr> = line.split_whitespace().map(OsStr::new).collect();
    raftctl_with(endpoints, &words, b"")
}

pub(super) fn endpoints(cluster: &Cluster) -> String {
    let all: Vec<&str> = cluster.servers.iter().map(Server::listen).collect();
    all.join(",")
}

pub(super) fn done(run: &Run) -> &str {
    assert_eq!(run.code, Some(0), "{}", run.said);
    assert!(run.said.is_empty(), "{}", run.said);
    run.text()
}

#[test]
fn leases_are_granted_kept_alive_looked_at_and_revoked() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let at = endpoints(&cluster);
    let granted = raftctl(&at, "lease grant 60 --id 7");
    assert_eq!(done(&granted), "lease 7 granted with TTL(60s)\n");
    raftctl(&at, "lease grant 60 --id 7").fails(1, &["there is such a lease already"]);
    raftctl(&at, "put a 1 --lease 9").fails(1, &["there is no such lease"]);
    assert_eq!(done(&raftctl(&at, "put a 1 --lease 7")), "OK\n");
    assert_eq!(done(&raftctl(&at, "put b 1 --lease 7")), "OK\n");
    let asked = now();
    let kept = raftctl(&at, "lease keep-alive 7 --once");
    assert_eq!(done(&kept), "lease 7 kept alive with TTL(60s)\n");
    let found = raftctl(&at, "lease ttl 7 --keys");
    assert!(
        done(&found).starts_with("lease 7 granted with TTL(60s), remaining("),
        "{}",
        found.text()
    );
    let found = raftctl(&at, "lease ttl 7 --keys -o json").json();
    assert_eq!((&found["ttl_s"], &found["key_count"]), (&60.into(), &2.into()));
    // Times are whole milliseconds.
    let since = u64::try_from(asked.elapsed().as_millis()).unwrap();
    let least = 60_000_u64.saturating_sub(since + 10);
    assert!((least..=60_000).contains(&found["left_ms"].as_u64().unwrap()), "{found}");
    let granted = raftctl(&at, "lease grant 5 --id 8 -o json").json();
    assert_eq!((&granted["lease"], &granted["ttl_s"]), (&8.into(), &5.into()));
    assert_eq!(done(&raftctl(&at, "lease list")), "found 2 leases\n7\n8\n");
    std::thread::scope(|scope| {
        let kept = scope.spawn(|| raftctl(&at, "lease keep-alive 8"));
        // Longer than it lives.
        Deadline::after(Duration::from_secs(7)).wait();
        assert_eq!(done(&raftctl(&at, "lease revoke 8")), "lease 8 revoked\n");
        let kept = kept.join().unwrap();
        assert_eq!(kept.code, Some(1), "{}", kept.said);
        assert!(kept.said.contains("there is no lease 8"), "{}", kept.said);
        assert!(kept.text().lines().count() >= 4, "{}", kept.text());
    });
    assert_eq!(done(&raftctl(&at, "lease revoke 7")), "lease 7 revoked\n");
    assert_eq!(done(&raftctl(&at, "get a --prefix")), "");
    raftctl(&at, "lease revoke 7").fails(1, &["there is no such lease"]);
    raftctl(&at, "lease keep-alive 7 --once").fails(1, &["there is no lease 7"]);
    raftctl(&at, "lease ttl 7").fails(1, &["there is no lease 7"]);
}

#[test]
fn verbs_print_what_etcdctl_prints_and_json_and_tables() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let at = endpoints(&cluster);
    assert_eq!(done(&raftctl(&at, "put a 1")), "OK\n");
    assert_eq!(done(&raftctl(&at, "put ab 2 --output json")), "{\"revision\":3}\n");
    assert_eq!(done(&raftctl(&at, "put b 3 -o table")), "REVISION\n4\n");
    assert_eq!(done(&raftctl(&at, "get a")), "a\n1\n");
    assert_eq!(done(&raftctl(&at, "get nothing")), "");
    assert_eq!(done(&raftctl(&at, "get a --prefix")), "a\n1\nab\n2\n");
    assert_eq!(done(&raftctl(&at, "get a --prefix --limit 1")), "a\n1\n");
    assert_eq!(done(&raftctl(&at, "get a --prefix --keys-only")), "a\nab\n");
    assert_eq!(done(&raftctl(&at, "get a --print-value-only")), "1\n");
    assert_eq!(done(&raftctl(&at, "get b --rev 3")), "");
    let found = raftctl(&at, "get a --prefix --output json").json();
    assert_eq!(found["count"], 2);
    assert_eq!(found["more"], false);
    assert_eq!(found["kvs"][1]["key"], "ab");
    assert_eq!(found["kvs"][1]["value"], "2");
    assert_eq!(found["kvs"][1]["mod_revision"], 3);
    let table = raftctl(&at, "get a -o table");
    assert_eq!(
        done(&table),
        "KEY  VALUE  CREATED  MODIFIED  VERSION\na    1      2        2         1\n"
    );
    assert_eq!(done(&raftctl(&at, "del nothing")), "0\n");
    assert_eq!(done(&raftctl(&at, "del a --prefix")), "2\n");
    let deleted = raftctl(&at, "del b -o json").json();
    assert_eq!((&deleted["revision"], &deleted["deleted"]), (&6.into(), &1.into()));
}

#[test]
fn options_and_transactions_are_etcdctls() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let at = endpoints(&cluster);
    assert_eq!(done(&raftctl(&at, "put a 1")), "OK\n");
    assert_eq!(done(&raftctl(&at, "put a 2 --prev-kv")), "OK\na\n1\n");
    assert_eq!(done(&raftctl(&at, "put a --ignore-value")), "OK\n");
    raftctl(&at, "put b --ignore-value").fails(1, &["no such key"]);
    raftctl(&at, "put b 1 --lease 7").fails(1, &["no such lease"]);
    assert_eq!(done(&raftctl(&at, "put b 1")), "OK\n");
    assert_eq!(done(&raftctl(&at, "put c 0")), "OK\n");
    assert_eq!(done(&raftctl(&at, "get b --from-key --keys-only")), "b\nc\n");
    assert_eq!(done(&raftctl(&at, "get a c --keys-only")), "a\nb\n");
    assert_eq!(done(&raftctl(&at, "del aa ab")), "0\n");
    raftctl(&at, "get b a").fails(2, &["the range is empty", "RANGE_END"]);
    raftctl(&at, "watch b b").fails(2, &["the range is empty"]);
    assert_eq!(done(&raftctl(&at, "get --prefix  a --count-only")), "1\n");
    let sorted = "get a --from-key --print-value-only --sort-by";
    assert_eq!(done(&raftctl(&at, &format!("{sorted} VALUE"))), "0\n1\n2\n");
    assert_eq!(done(&raftctl(&at, &format!("{sorted} modify --order descend"))), "0\n1\n2\n");
    assert_eq!(done(&raftctl(&at, "get a --from-key --keys-only --min-mod-rev 5")), "b\nc\n");
    assert_eq!(done(&raftctl(&at, "get a --from-key --keys-only --max-create-rev 2")), "a\n");
    let txn = |flags: &str, input: &str| {
        let words: Vec<&OsStr> =
            ["txn"].into_iter().chain(flags.split_whitespace()).map(OsStr::new).collect();
        raftctl_with(&at, &words, input.as_bytes())
    };
    let compares = "version(\"a\") = \"3\"\nvalue(\"a\") != \"9\"\n\n";
    let put = format!("{compares}put a 'a value' --prev-kv\nget a\ndel b\n\nget c\n\n");
    assert_eq!(done(&txn("", &put)), "SUCCESS\n\nOK\na\n2\n\na\na value\n\n1\n");
    assert_eq!(done(&txn("", &put)), "FAILURE\n\nc\n0\n");
    let found = txn("-o json", "mod(a) > 0\n\nget a\n\n\n").json();
    assert_eq!((&found["succeeded"], &found["revision"]), (&true.into(), &7.into()));
    assert_eq!(found["results"][0]["kvs"][0]["value"], "a value");
    txn("", "\nput a 1\nput a 2\n\n\n").fails(1, &["twice"]);
    for cut in
        ["", "mod(a) > 0\n", "\nput a 9", "\nput a 9\n", "\nput a 9\n\n", "\nput a 9\n\nget a\n"]
    {
        txn("", cut).fails(2, &["ends within a section", "nothing was done"]);
    }
    let table = "SUCCESS\n\nKEY  VALUE    CREATED  MODIFIED  VERSION\n";
    assert!(done(&txn("-o table", "\nget a\n\n\n")).starts_with(table));
    assert_eq!(done(&raftctl(&at, "del a --prev-kv")), "1\na\na value\n");
    assert_eq!(done(&raftctl(&at, "compact 7")), "compacted revision 7\n");
    raftctl(&at, "compact 7").fails(1, &["compacted", "7"]);
    raftctl(&at, "compact 99").fails(1, &["future", "8"]);
    raftctl(&at, "get a --rev 6").fails(1, &["compacted"]);
    assert_eq!(done(&raftctl(&at, "get a --rev 7")), "a\na value\n");
}

#[test]
fn a_status_says_all_of_every_node_and_its_code_says_whether_all_is_well() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.wait_until_equal();
    let at = endpoints(&cluster);
    let well = raftctl(&at, "status --output json");
    done(&well);
    let nodes = well.json();
    for (node, id) in nodes.as_array().unwrap().iter().zip(1..) {
        assert_eq!(node["id"], id);
        assert_eq!(node["leader"], leader);
        for name in ["term", "commit_index", "applied_index", "last_index", "revision"] {
            assert!(node[name].is_u64(), "{name} of {node}");
        }
        assert_eq!(node["state_hash"].as_str().unwrap().len(), 16);
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(node["role"] == "leader", id == leader);
    }
    assert_eq!(done(&raftctl(&at, "status")).lines().count(), 3);
    assert_eq!(done(&raftctl(&at, "status -o table")).lines().count(), 4);

    let down = cluster.others(leader)[0];
    cluster.server(down).kill();
    for (format, lines) in [("simple", 3), ("table", 4), ("json", 1)] {
        let run = raftctl(&at, &format!("status --output {format}"));
        assert_eq!((run.code, run.text().lines().count()), (Some(5), lines), "{}", run.text());
        assert!(run.text().contains("refused"), "it says why: {}", run.text());
    }
    for server in &mut cluster.servers {
        server.kill();
    }
    let dead = raftctl(&at, "status --output json");
    assert_eq!(dead.code, Some(3));
    assert!(dead.json().as_array().unwrap().iter().all(|node| node["error"].is_string()));
}

/// The numbers of a line of `status --turns`, by their names.
fn turns_of(line: &str) -> BTreeMap<&str, u64> {
    let pairs = line.split(' ').filter_map(|word| word.split_once('='));
    pairs.map(|(name, number)| (name, number.parse().unwrap())).collect()
}

#[test]
fn the_turns_of_every_server_are_shown_in_order_of_their_length() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let at = endpoints(&cluster);
    done(&raftctl(&at, "put a 1"));
    let shown = raftctl(&at, "status --turns");
    for (line, id) in done(&shown).lines().zip(1..) {
        assert!(line.contains(&format!(" n{id} ")), "{line}");
        let of = turns_of(line);
        assert!(of["turns"] > 0, "it has answered: {line}");
        assert!(of["cpu_above_5ms"] <= of["turns"], "{line}");
        for clock in ["cpu", "wall"] {
            let mark = |name| of[&*format!("{clock}_{name}_us")];
            let marks = ["p50", "p99", "p99.9", "max"].map(mark);
            assert!(marks.is_sorted(), "{line}");
            assert!(marks[3] > 0, "a turn takes time: {line}");
        }
        assert!(of["cpu_above_5ms"] == 0 || of["cpu_max_us"] >= 5_000, "{line}");
        assert!(of["cpu_above_5ms"] > 0 || of["cpu_max_us"] <= 5_000, "{line}");
    }
    assert_eq!(shown.text().lines().count(), 3);
    let table = raftctl(&at, "status --turns -o table");
    let heading = done(&table).lines().next().unwrap_or_default();
    assert!(heading.starts_with("ENDPOINT") && heading.contains("CPU > 5MS"), "{heading}");
    assert!(!heading.contains("LEADER"), "what the other table says would make it unreadable");
    assert_eq!(table.text().lines().count(), 4);
    let json = raftctl(&at, "status --turns -o json");
    done(&json);
    for node in json.json().as_array().unwrap() {
        let buckets = node["turn_times"]["buckets"].as_array().unwrap();
        assert!(buckets.iter().any(|bucket| bucket["cpu"].as_u64() > Some(0)), "{node}");
    }

    let down = cluster.others(leader)[0];
    cluster.server(down).kill();
    for (format, lines) in [("simple", 3), ("table", 4), ("json", 1)] {
        let run = raftctl(&at, &format!("status --turns --output {format}"));
        assert_eq!((run.code, run.text().lines().count()), (Some(5), lines), "{}", run.text());
        assert!(run.text().contains("refused"), "it says why: {}", run.text());
    }
}

#[test]
fn each_exit_code_means_what_the_help_says() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let at = endpoints(&cluster);
    done(&raftctl(&at, "put k v"));
    raftctl(&at, "get k --rev 999").fails(1, &["revision", "future"]);

    for (line, word) in [
        ("", "Usage"),
        ("put k", "VALUE"),
        ("fetch k", "fetch"),
        ("get k --limit many", "whole number from 0 on"),
        ("get k --rev -1", "whole number from 0 on"),
        ("put k v --if-mod-revision -1", "whole number from 0 on"),
        ("get k --timeout 5x", "as in 500ms"),
        ("get k --timeout 0s", "as in 500ms"),
        ("get k --output yaml", "yaml"),
        ("get k --endpoints nowhere", "host:port"),
        ("get k --endpoints http://127.0.0.1:7101", "host:port without a scheme"),
        ("get k --endpoints 127.0.0.1:7101/", "host:port"),
        ("get k --endpoints 127.0.0.1:0", "port from 1 on"),
        ("get k --endpoints 127.0.0.1:+1", "port from 1 on"),
        ("get k --endpoints 127.0.0:7101", "host:port"),
        ("get k --endpoints ::1:7101", "[::1]:7101"),
        ("get k --endpoints 127.0.0.1:7101,", "host:port"),
        ("member add 4=http://127.0.0.1:7104", "host:port"),
        ("member add 4=127.0.0.1:0", "port from 1 on"),
    ] {
        let run = raftctl(&at, line);
        assert_eq!(run.code, Some(2), "{line}: {}", run.said);
        assert!(run.said.contains(word), "{line}: {}", run.said);
    }
    raftctl_with(&at, &["get".as_ref(), "".as_ref()], b"")
        .fails(2, &["the key is empty", "--prefix"]);
    raftctl(&free_address(), "get k --timeout 1s").fails(3, &["refused"]);
    raftctl("no-such-host.invalid:7101", "get k --timeout 1s").fails(3, &["no-such-host"]);

    // The majority goes away: the session that the write needs cannot be opened, so the write was
    // never sent and is certainly not done. What is sent and not answered is below.
    for other in cluster.others(leader) {
        cluster.server(other).pause();
    }
    raftctl(cluster.server(leader).listen(), "put k w --timeout 3s")
        .fails(3, &["no node could do it"]);
    for other in cluster.others(leader) {
        cluster.server(other).kill();
    }
    eventually("the lone node leads no more", PATIENCE, || {
        cluster.server(leader).status().ok().filter(|status| status.leader.is_none())
    });
    raftctl(&at, "put k x --timeout 3s").fails(3, &["leader"]);
    assert_eq!(raftctl(&at, "status").code, Some(5));
    // Its own state it still shows.
    let own = cluster.server(leader).listen().to_owned();
    assert_eq!(done(&raftctl(&own, "get k --consistency serializable")), "k\nv\n");
}

/// A session is open, the put is sent, and then nobody is left who could tell.
#[test]
fn a_put_that_was_sent_and_not_answered_has_a_code_of_its_own() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let at = endpoints(&cluster);
    done(&raftctl(&at, "put k before"));
    let node = cluster.server(leader).listen().to_owned();

    // The leader has it, and cannot know whether it will ever be committed.
    let gate = Gate::open();
    let to = gate.address.clone();
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| raftctl(&to, "put k perhaps --timeout 6s"));
        let caught = gate.catch_write(&node);
        for other in cluster.others(leader) {
            cluster.server(other).pause();
        }
        caught.pass();
        run.join().unwrap()
    });
    run.fails(4, &["may or may not be done", &to]);
    for other in cluster.others(leader) {
        cluster.server(other).resume();
    }
    let found = eventually("the cluster serves again", PATIENCE, || {
        let found = raftctl(&at, "get k");
        (found.code == Some(0)).then(|| found.text().to_owned())
    });
    assert!(["k\nbefore\n", "k\nperhaps\n"].contains(&found.as_str()), "{found}");

    // Here it was done, and only the answer is lost.
    let leader = cluster.leader();
    let node = cluster.server(leader).listen().to_owned();
    let gate = Gate::open();
    let to = gate.address.clone();
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| raftctl(&to, "put k surely --timeout 6s"));
        gate.catch_write(&node).pass_and_hang_up();
        run.join().unwrap()
    });
    run.fails(4, &["may or may not be done", &to]);
    eventually("it was done all the same", PATIENCE, || {
        (raftctl(&at, "get k").text() == "k\nsurely\n").then_some(())
    });
    // What never left is another matter.
    raftctl(&to, "put k never --timeout 1s").fails(3, &["refused"]);
}

#[test]
fn a_put_right_after_the_leaders_death_needs_no_help() {
    let mut cluster = Cluster::start_alone(3);
    let at = endpoints(&cluster);
    at_best("it is put", Duration::from_secs(2), || {
        let leader = cluster.leader();
        done(&raftctl(&at, "put before 1"));
        cluster.server(leader).kill();
        let killed = now();
        assert_eq!(done(&raftctl(&at, "put after 2")), "OK\n");
        let without = killed.elapsed();
        assert_eq!(done(&raftctl(&at, "get before")), "before\n1\n");
        cluster.start_all();
        cluster.wait_until_equal();
        without
    });
}

#[test]
fn bytes_of_any_kind_go_in_and_come_out() {
    let flags = ["--segment-bytes", "16777216"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(1, &Shape { flags, ..Shape::default() });
    cluster.leader();
    let at = endpoints(&cluster);
    let put = |key: &[u8], value: &[u8]| {
        let words = [OsStr::new("put"), OsStr::from_bytes(key), OsStr::new("-")];
        raftctl_with(&at, &words, value)
    };
    let get = |key: &[u8], more: &[&str]| {
        let mut words = vec![OsStr::new("get"), OsStr::from_bytes(key)];
        words.extend(more.iter().map(OsStr::new));
        raftctl_with(&at, &words, b"")
    };
    let all: Vec<u8> = (0..=255).collect();
    // An argument of a program cannot hold a zero byte; a value can.
    done(&put(&all[1..], &all));
    assert_eq!(get(&all[1..], &["--print-value-only"]).out, [&all[..], b"\n"].concat());
    let json = get(&all[1..], &["-o", "json"]).json();
    assert_eq!(json["kvs"][0]["key_hex"].as_str().unwrap().len(), 510);
    assert!(json["kvs"][0]["value_hex"].as_str().unwrap().starts_with("000102"));

    done(&raftctl_with(&at, &["put", "empty", ""].map(OsStr::new), b""));
    assert_eq!(get(b"empty", &[]).out, b"empty\n\n");
    done(&raftctl_with(&at, &["put", "minus", "--", "-v"].map(OsStr::new), b""));
    done(&raftctl(&at, "put dash -1"));
    assert_eq!(get(b"dash", &[]).out, b"dash\n-1\n");

    // The request may have 1.5 MiB: the key, the value, and 64 bytes for the session around them.
    let largest = vec![b'x'; CONTENT_BYTES_MAX - 1];
    done(&put(b"k", &largest));
    assert_eq!(get(b"k", &["--print-value-only"]).out.len(), largest.len() + 1);
    for more in [1, 16, 17, 5_000_000] {
        let larger = vec![b'x'; largest.len() + more];
        put(b"k", &larger).fails(1, &["bytes", "more than 1572800"]);
    }
    assert_eq!(get(b"k", &["--print-value-only"]).out.len(), largest.len() + 1);
}

/// More than one reply holds: the parts are of one revision, and a reader may leave.
#[test]
fn a_prefix_of_many_keys_is_printed_whole_and_into_a_closing_pipe() {
    const KEYS: usize = 4000;
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let at = endpoints(&cluster);
    let deadline = Deadline::after(PATIENCE);
    let mut connection = cluster.server(1).connection();
    let value = "v".repeat(3000);
    for number in 0..KEYS {
        connection.put(format!("many/{number:05}").as_bytes(), value.as_bytes());
    }
    connection.flush(deadline).unwrap();
    for _ in 0..KEYS {
        connection.receive(deadline).unwrap();
    }
    let run = raftctl(&at, "get many/ --prefix");
    let lines: Vec<&str> = done(&run).lines().collect();
    assert_eq!(lines.len(), 2 * KEYS);
    for (number, pair) in lines.chunks(2).enumerate() {
        assert_eq!(pair, [&format!("many/{number:05}"), &value]);
    }

    let mut child = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", &at, "get", "many/", "--prefix"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "many/00000\n");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn endpoints_may_be_names_and_ipv6() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let port = free_address().rsplit_once(':').unwrap().1.to_owned();
    let mut addresses = vec![(format!("127.0.0.1:{port}"), format!("localhost:{port}"))];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push((format!("[::1]:{port}"), format!("[::1]:{port}")));
    } else {
        println!("not tested: this machine has no IPv6");
    }
    for ((listen, endpoint), number) in addresses.into_iter().zip(1..) {
        let flags = vec!["--peers".to_owned(), format!("{number}={listen}")];
        let mut server = Server::new(number, listen, folder.path(), flags);
        server.start();
        eventually("the node leads itself", PATIENCE, || {
            server.status().ok().filter(|status| status.role == "leader")
        });
        assert_eq!(done(&raftctl(&endpoint, "put k v")), "OK\n");
        let environment = Command::new(env!("CARGO_BIN_EXE_raftctl"))
            .env("RAFTCTL_ENDPOINTS", OsString::from(&endpoint))
            .args(["get", "k"])
            .output()
            .unwrap();
        assert_eq!(environment.stdout, b"k\nv\n");
    }
}

#[test]
fn a_full_store_says_what_to_do_and_takes_puts_again_once_keys_are_deleted() {
    let flags = ["--quota-bytes", "4096"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_shaped(3, &Shape { flags, ..Shape::default() });
    cluster.leader();
    let at = endpoints(&cluster);
    let value = "v".repeat(4000);
    done(&raftctl(&at, &format!("put large {value}")));
    raftctl(&at, "put small v").fails(1, &["4096", "--quota-bytes", "delete"]);
    done(&raftctl(&at, "put large less"));
    done(&raftctl(&at, "put small v"));
}
