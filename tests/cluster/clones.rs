//! A data directory that was copied while its server was down, and both put to use.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use std::fs;

/// Nobody noticed: the two took turns at being server 2. Now the others hear only the newer one,
/// say so once, and serve.
#[test]
fn two_processes_on_copies_of_one_directory_are_noticed() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.client().put(b"before", b"1").unwrap();
    let copied = leader % 3 + 1;
    cluster.server(copied).kill();
    let folder = cluster.folder().join("copy");
    let mut clone = cluster.server(copied).on_a_copy(&folder);
    cluster.server(copied).start();
    clone.start();
    let sound: Vec<u64> = cluster.others(copied);
    for id in &sound {
        let line = eventually("the others notice", PATIENCE, || {
            let text = cluster.server(*id).log_text();
            let line = text.lines().find(|line| line.contains("refused a clone"));
            line.map(str::to_owned)
        });
        assert!(line.contains("error"), "{line}");
        assert!(line.contains(&format!("two processes run as server n{copied}")), "{line}");
        assert!(line.contains(&format!("raftctl member replace {copied} ")), "{line}");
        assert_eq!(line.matches("127.0.0.1:").count(), 2, "where each of them is: {line}");
    }
    cluster.client_of(&sound).put(b"after", b"2").unwrap();
    clone.kill();
    for id in sound {
        let text = cluster.server(id).log_text();
        assert_eq!(text.matches("refused a clone").count(), 1, "once: {text}");
    }
}

/// Each of its starts once ended the connections of the real one.
#[test]
fn a_process_without_the_data_of_its_member_disturbs_nobody() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.client().put(b"before", b"1").unwrap();
    let lost = |cluster: &mut Cluster| {
        let texts = (1..=3).map(|id| cluster.server(id).log_text());
        texts.map(|text| text.matches("lost peer").count()).sum::<usize>()
    };
    cluster.wait_until_equal();
    let before = lost(&mut cluster);
    let folder = cluster.folder().join("empty");
    let mut empty = cluster.server(leader).on_a_copy(&folder);
    fs::remove_dir_all(&empty.directory).unwrap();
    empty.start();
    assert_eq!(empty.wait_for_end(PATIENCE).code(), Some(3));
    cluster.client().put(b"after", b"2").unwrap();
    cluster.wait_until_equal();
    assert_eq!(lost(&mut cluster), before, "connections of members were cut");
}
