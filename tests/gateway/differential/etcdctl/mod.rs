//! etcdctl before both: the same words, and all that it prints compared.
//!
//! | verb | how |
//! |---|---|
//! | put, get, del, txn, compaction, alarm, defrag | all that is printed: simple, fields, JSON |
//! | lease grant, list, timetolive, keep-alive, revoke | all but the lease's number |
//! | watch, watch -i, watch -- command | all but how many responses the events come in |
//! | user, role, auth; put and get by who may and who may not | all that is printed |
//! | lock, elect, elect -l | two of each, in turn |
//! | member promote, remove; move-leader | refusals here; done in `operators` |
//! | endpoint health, status, hashkv; member list; snapshot save | the form |
//! | make-mirror | from the one to the other, and back |
//!
//! `check perf` and `check datascale` are run by `scripts/clients`. `snapshot status` and
//! `snapshot restore` ask no server. `migrate` is of version 2.

mod programs;

use super::before_both;
use super::etcd::Etcd;
use super::json::strip;
use crate::harness::{Cluster, PATIENCE};
use crate::patience::eventually;
use crate::program::{Gateway, block_on};
use crate::untested::not_tested;
use programs::{Endless, Run, etcdctl, is_here, run};
use serde_json::Value;

/// Words, and what etcdctl reads. `LEASE` is the last lease that was granted.
const STORY: [(&str, &str); 66] = [
    ("put a 1", ""),
    ("put a 2 --prev-kv", ""),
    ("put b 1 --prev-kv", ""),
    ("put in", "from stdin"),
    ("put '' x", ""),
    ("put a --ignore-value", ""),
    ("put a 3 --ignore-lease", ""),
    ("put none --ignore-value", ""),
    ("put a 4 --lease 12", ""),
    ("get a", ""),
    ("get a -w fields", ""),
    ("get a -w json", ""),
    ("get a --rev 2", ""),
    ("get a --rev 999", ""),
    ("get a --print-value-only", ""),
    ("get a --hex", ""),
    ("get a in", ""),
    ("get a --from-key", ""),
    ("get '' --prefix", ""),
    ("get '' --prefix --keys-only --limit 2 --order DESCEND --sort-by KEY", ""),
    ("get '' --prefix --sort-by MODIFY --order DESCEND -w json", ""),
    ("get '' --prefix --sort-by VERSION --order ASCEND", ""),
    ("get '' --prefix --consistency s", ""),
    ("get none -w json", ""),
    ("get ''", ""),
    ("txn", "value(\"a\") = \"3\"\n\nput c 1\nget c\n\nget a\n\n"),
    ("txn", "value(\"a\") = \"x\"\n\nput c 2\n\nget a\nget c\n\n"),
    ("txn -i", "mod(\"a\") > \"1\"\nver(\"c\") = \"1\"\n\nput d \"a b\"\ndel b\n\n\n"),
    ("txn -w json", "create(\"d\") != \"0\"\n\nget d\nput d 2\n\ndel d\n\n"),
    ("txn -w fields", "lease(\"d\") = \"0\"\n\nget '' --prefix\n\n\n"),
    ("txn", "\nput e 1\nput e 2\n\n\n"),
    ("txn", "nonsense(\"d\") = \"0\"\n\n\n\n"),
    ("del d --prev-kv", ""),
    ("del none", ""),
    ("del a c -w json", ""),
    ("del '' --prefix -w fields", ""),
    ("put a 5", ""),
    ("compaction 999", ""),
    ("compaction 5", ""),
    ("compaction 5", ""),
    ("compaction 6 --physical -w json", ""),
    ("get a --rev 2", ""),
    ("lease list", ""),
    ("lease grant 600", ""),
    ("lease grant 9000000001", ""),
    ("put leased x --lease LEASE", ""),
    ("get leased -w json", ""),
    ("lease list", ""),
    ("lease list -w json", ""),
    ("lease timetolive LEASE", ""),
    ("lease timetolive LEASE --keys", ""),
    ("lease timetolive 12 -w json", ""),
    ("lease keep-alive --once LEASE", ""),
    ("lease keep-alive --once 12", ""),
    ("lease keep-alive 12", ""),
    ("lease revoke LEASE -w json", ""),
    ("lease revoke LEASE", ""),
    ("get leased", ""),
    ("alarm list", ""),
    ("alarm disarm", ""),
    ("defrag", ""),
    ("member promote 12", ""),
    ("member remove 12", ""),
    ("move-leader 99", ""),
    ("lock l echo inside", ""),
    ("lock l false", ""),
];

/// One of the two, and the lease that was granted there last.
struct Side<'a> {
    endpoint: &'a str,
    lease: String,
}

impl Side<'_> {
    fn of(endpoint: &str) -> Side<'_> {
        Side { endpoint, lease: "LEASE".to_owned() }
    }

    /// Runs a verb; what came of it, as it is compared.
    fn tell(&mut self, words: &str, input: &str) -> (Option<i32>, Vec<String>) {
        let Run { code, lines } = run(self.endpoint, &words.replace("LEASE", &self.lease), input);
        if let Some(granted) =
            lines.iter().find_map(|line| line.strip_suffix(" granted with TTL(600s)"))
        {
            granted.trim_start_matches("lease ").clone_into(&mut self.lease);
        }
        (code, lines.iter().filter_map(|line| self.shown(line)).collect())
    }

    /// A line without what is no matter of the store's; `None`: there is nothing else on it.
    fn shown(&self, line: &str) -> Option<String> {
        if ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""].iter().any(|it| line.starts_with(it)) {
            return None;
        }
        let number = u64::from_str_radix(&self.lease, 16).ok().map(|it| it.to_string());
        if let Ok(mut value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(line) {
            strip(&mut value);
            let mut text = value.to_string();
            // A small number may be that of something else, too.
            for field in number.iter().flat_map(|_| ["lease", "ID", "id"]) {
                let number = number.as_deref().unwrap_or_default();
                for end in [',', '}'] {
                    let shown = format!("\"{field}\":{number}{end}");
                    text = text.replace(&shown, &format!("\"{field}\":LEASE{end}"));
                }
            }
            return Some(text);
        }
        let line = line.replace(self.endpoint, "ENDPOINT").replace(&self.lease, "LEASE");
        // What a clock says.
        let (before, behind) = line.split_once("remaining(").unwrap_or((&line, ""));
        let behind = behind.split_once(')').map_or("", |(_, behind)| behind);
        Some(format!("{}{behind}", before.split("took = ").next().unwrap_or_default()))
    }
}

/// Runs a test before both where there are an etcd and an etcdctl.
fn by_etcdctl(test: impl FnOnce(&Gateway, &Etcd)) {
    if !is_here() {
        return not_tested("etcdctl (Debian: etcd-client) cannot be run");
    }
    before_both(|gateway, etcd| {
        block_on(gateway.clients());
        test(gateway, etcd);
    });
}

/// Tells both a story, and asserts that they answer it alike.
fn prints_the_same(story: &[(&str, &str)]) {
    by_etcdctl(|gateway, etcd| {
        let (mut ours, mut etcds) = (Side::of(&gateway.address), Side::of(etcd.address()));
        for &(words, input) in story {
            let expected = etcds.tell(words, input);
            assert_eq!(ours.tell(words, input), expected, "etcdctl {words} <<< {input:?}");
        }
    });
}

#[test]
fn etcdctl_prints_before_the_gateway_what_it_prints_before_etcd() {
    prints_the_same(&STORY);
}

/// Users, roles and rights, before there are any, while they count, and behind that.
/// The gateway acts for others once somebody has logged in who may do all.
const RIGHTS: [(&str, &str); 43] = [
    ("user list", ""),
    ("user add root:secret", ""),
    ("user add root:secret", ""),
    ("user add ann --interactive=false", "sesame"),
    ("user add guest --no-password", ""),
    ("user list -w json", ""),
    ("role add reads", ""),
    ("role add reads", ""),
    ("role add root", ""),
    ("role grant-permission reads read a c", ""),
    ("role grant-permission reads readwrite own/ --prefix", ""),
    ("role grant-permission reads write one", ""),
    ("role grant-permission none read a", ""),
    ("role get reads", ""),
    ("role get none", ""),
    ("role list", ""),
    ("user grant-role ann reads", ""),
    ("user grant-role ann none", ""),
    ("user grant-role root root", ""),
    ("user get ann", ""),
    ("user get ann --detail", ""),
    ("user get nobody", ""),
    ("put a 1", ""),
    ("auth enable", ""),
    ("get a --user root:secret", ""),
    ("put a 2", ""),
    ("get a --user ann:sesame", ""),
    ("get a --user ann:wrong", ""),
    ("get a z --user ann:sesame", ""),
    ("put a 2 --user ann:sesame", ""),
    ("put own/1 2 --user ann:sesame", ""),
    ("get own/ --prefix --user ann:sesame", ""),
    ("put one 1 --user ann:sesame", ""),
    ("get one --user ann:sesame", ""),
    ("role list --user ann:sesame", ""),
    ("role list --user root:secret", ""),
    ("user passwd ann --interactive=false --user root:secret", "open"),
    ("get a --user ann:open", ""),
    ("role revoke-permission reads a c --user root:secret", ""),
    ("get a --user ann:open", ""),
    ("user revoke-role ann reads --user root:secret", ""),
    ("user delete ann --user root:secret", ""),
    ("auth disable --user root:secret", ""),
];

#[test]
fn users_roles_and_rights_of_etcdctl_print_the_same() {
    prints_the_same(&RIGHTS);
}

/// What a verb that does not end prints first, before either.
fn first_lines(endpoint: &str, words: &str, input: &str, count: usize) -> Vec<String> {
    let mut program = Endless::start(etcdctl(endpoint, words));
    program.say(input);
    (0..count).map(|_| program.next()).collect()
}

#[test]
fn watches_of_etcdctl_print_the_same() {
    by_etcdctl(|gateway, etcd| {
        let both = [&*gateway.address, etcd.address()];
        for endpoint in both {
            for words in ["put w/1 a", "put w/1 b", "del w/1", "put w/2 c"] {
                assert_eq!(run(endpoint, words, "").code, Some(0), "{words}");
            }
        }
        let event = "watch w/1 --rev 4 -- sh -c \
                     'echo heard $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE'";
        for (words, input, count) in [
            ("watch w/ --prefix --rev 2 --prev-kv", "", 14),
            ("watch w/1 w/3 --rev 3", "", 9),
            (event, "", 4),
            ("watch -i", "watch w/1 --rev 3\n", 6),
            ("watch -i", "watch --prefix --prev-kv w/ --rev 4\n", 8),
            // What it does not know it says elsewhere, and goes on.
            ("watch -i", "nonsense\nwatch\nwatch w/2 --rev 5\n", 3),
        ] {
            let [ours, expected] = both.map(|endpoint| first_lines(endpoint, words, input, count));
            assert_eq!(ours, expected, "etcdctl {words} <<< {input:?}");
        }
        // Now, and how far it is.
        let [ours, expected] = both.map(|endpoint| {
            let mut watch = Endless::start(etcdctl(endpoint, "watch -i"));
            watch.say("watch --prefix w/ --rev 5\n");
            let mut lines: Vec<String> = (0..3).map(|_| watch.next()).collect();
            assert_eq!(run(endpoint, "put w/3 d", "").code, Some(0));
            lines.extend((0..3).map(|_| watch.next()));
            watch.say("progress\n");
            lines.push(watch.next());
            lines
        });
        assert_eq!(ours, expected);
        assert_eq!(ours.last().map(String::as_str), Some("progress notify: 6"));
        // Of what is compacted.
        let [ours, expected] = both.map(|endpoint| {
            assert_eq!(run(endpoint, "compaction 5", "").code, Some(0));
            run(endpoint, "watch w/1 --rev 2", "")
        });
        assert_eq!((ours.code, ours.lines), (expected.code, expected.lines));
    });
}

/// A key's name, before the lease in it.
fn name_of(line: &str) -> &str {
    line.rsplit_once('/').map_or(line, |(name, _)| name)
}

#[test]
fn locks_and_elections_of_etcdctl_take_turns() {
    by_etcdctl(|gateway, etcd| {
        let both = [&*gateway.address, etcd.address()];
        let [ours, expected] = both.map(|endpoint| {
            let mut first = Endless::start(etcdctl(endpoint, "lock l"));
            let mut lines = vec![name_of(&first.next()).to_owned()];
            let mut second = Endless::start(etcdctl(endpoint, "lock l echo inside"));
            eventually("both wait", PATIENCE, || {
                let keys = run(endpoint, "get l/ --prefix --keys-only", "").lines;
                (keys.iter().filter(|line| !line.is_empty()).count() == 2).then_some(())
            });
            first.interrupt();
            lines.push(second.next());
            lines.push(format!("{:?} {:?}", first.end(), second.end()));
            lines
        });
        assert_eq!(ours, expected);
        assert_eq!(ours[..2], ["l", "inside"]);
        let [ours, expected] = both.map(|endpoint| {
            let mut first = Endless::start(etcdctl(endpoint, "elect e one"));
            let mut lines = vec![first.next(), first.next()];
            let mut observer = Endless::start(etcdctl(endpoint, "elect -l e"));
            lines.extend([observer.next(), observer.next()]);
            let mut second = Endless::start(etcdctl(endpoint, "elect e two"));
            eventually("both wait", PATIENCE, || {
                let keys = run(endpoint, "get e/ --prefix --keys-only", "").lines;
                (keys.iter().filter(|line| !line.is_empty()).count() == 2).then_some(())
            });
            first.interrupt();
            lines.extend([second.next(), second.next(), observer.next(), observer.next()]);
            lines.push(format!("{:?}", first.end()));
            lines.iter().map(|line| name_of(line).to_owned()).collect::<Vec<_>>()
        });
        assert_eq!(ours, expected);
        assert_eq!(ours[..4], ["e", "one", "e", "one"]);
    });
}

#[test]
fn leases_are_kept_alive_by_etcdctl_until_they_are_revoked() {
    by_etcdctl(|gateway, etcd| {
        let both = [&*gateway.address, etcd.address()];
        let [ours, expected] = both.map(|endpoint| {
            let granted = run(endpoint, "lease grant 3", "").lines;
            let lease = granted[0].split(' ').nth(1).unwrap().to_owned();
            assert_eq!(run(endpoint, &format!("put kept x --lease {lease}"), "").code, Some(0));
            let mut keeps = Endless::start(etcdctl(endpoint, &format!("lease keep-alive {lease}")));
            // Four times are longer than the lease lives by itself.
            let mut lines: Vec<String> = (0..4).map(|_| keeps.next()).collect();
            lines.extend(run(endpoint, "get kept", "").lines);
            lines.extend(run(endpoint, &format!("lease revoke {lease}"), "").lines);
            // It may have been kept alive once more before that.
            let mut rest = std::iter::repeat_with(|| keeps.next());
            lines.extend(rest.find(|line| !line.contains(" keepalived ")));
            lines.push(format!("{:?}", keeps.end()));
            lines.iter().map(|line| line.replace(&lease, "LEASE")).collect::<Vec<_>>()
        });
        assert_eq!(ours, expected);
        assert!(ours.iter().any(|line| line == "lease LEASE expired or revoked."), "{ours:?}");
    });
}

#[test]
fn what_operators_read_has_the_same_form() {
    by_etcdctl(|gateway, etcd| {
        let both = [&*gateway.address, etcd.address()];
        let folder = tempfile::tempdir().unwrap();
        // An empty state has a hash as well, and ours is 0, which is left out.
        for endpoint in both {
            assert_eq!(run(endpoint, "put a 1", "").code, Some(0));
        }
        let save = format!("snapshot save {}", folder.path().join("saved").display());
        for words in [
            "endpoint health",
            "endpoint health --cluster",
            "endpoint status",
            "endpoint hashkv",
            "member list",
            &save,
        ] {
            let [ours, expected] = both.map(|endpoint| {
                let told = run(endpoint, words, "");
                let columns = |line: &String| {
                    let count = line.matches(", ").count();
                    // The first is the endpoint, or a number; words of one letter case are words.
                    let yes =
                        line.split(", ").filter(|it| ["true", "false", "started"].contains(it));
                    format!("{count} {}", yes.collect::<Vec<_>>().join(" "))
                };
                (told.code, told.lines.iter().map(columns).collect::<Vec<_>>())
            });
            assert_eq!(ours, expected, "etcdctl {words}");
        }
        for words in ["endpoint status -w json", "endpoint hashkv -w json", "member list -w json"] {
            let [ours, expected] = both.map(|endpoint| {
                let text = run(endpoint, words, "").lines.concat();
                serde_json::from_str::<Value>(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
            });
            let missing = missing_in(&ours, &expected, "");
            assert!(missing.is_empty(), "etcdctl {words}: {missing:?} of {expected} not in {ours}");
        }
    });
}

/// The fields of the one that the other has not.
fn missing_in(ours: &Value, expected: &Value, path: &str) -> Vec<String> {
    match (ours, expected) {
        (Value::Object(ours), Value::Object(expected)) => {
            let inside = expected.iter().flat_map(|(name, value)| {
                let path = format!("{path}/{name}");
                ours.get(name).map_or(vec![path.clone()], |ours| missing_in(ours, value, &path))
            });
            inside.collect()
        }
        (Value::Array(ours), Value::Array(expected)) if !expected.is_empty() => {
            let first = ours.first().unwrap_or(&Value::Null);
            missing_in(first, &expected[0], &format!("{path}/0"))
        }
        (ours, expected) if std::mem::discriminant(ours) == std::mem::discriminant(expected) => {
            Vec::new()
        }
        _ => vec![path.to_owned()],
    }
}

#[test]
fn etcdctl_mirrors_the_one_to_the_other() {
    by_etcdctl(|gateway, etcd| {
        let (ours, etcds) = (&*gateway.address, etcd.address());
        for (from, to, mark) in [(ours, etcds, "there"), (etcds, ours, "back")] {
            assert_eq!(run(from, &format!("put {mark}/before 1"), "").code, Some(0));
            let words = format!("make-mirror --prefix {mark}/ --dest-prefix copy/ {to}");
            let _mirror = Endless::start(etcdctl(from, &words));
            let comes = |key: &str, value: &str| {
                let get = format!("get {key} --print-value-only");
                let what = format!("{key} is {value:?}");
                eventually(&what, PATIENCE, || {
                    let found = run(to, &get, "").lines;
                    (found.first().map_or("", String::as_str) == value).then_some(())
                });
            };
            comes("copy/before", "1");
            for number in ["2", "3"] {
                assert_eq!(run(from, &format!("put {mark}/now {number}"), "").code, Some(0));
                comes("copy/now", number);
            }
            assert_eq!(run(from, &format!("del {mark}/ --prefix"), "").code, Some(0));
            comes("copy/now", "");
            comes("copy/before", "");
        }
    });
}

#[test]
fn etcdctl_moves_the_leader() {
    if !is_here() {
        return not_tested("etcdctl (Debian: etcd-client) cannot be run");
    }
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(gateway.clients());
    let other = cluster.others(leader)[0];
    let moved = run(&gateway.address, &format!("move-leader {other:x}"), "");
    let expected = format!("Leadership transferred from {leader:x} to {other:x}");
    assert_eq!((moved.code, moved.lines), (Some(0), vec![expected]));
    assert_eq!(cluster.leader(), other);
}
