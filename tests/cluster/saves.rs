//! snapshot save: to a file that is whole or not there, one at a time, and to nothing but a file.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use super::tools::{ends, fill};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn an_interrupted_save_leaves_no_file() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    fill(&cluster, 400, 150_000);
    let file = cluster.folder().join("saved");
    let part = cluster.folder().join("saved.part");
    // A server that makes a snapshot says so every second: a deadline of one would often pass, and
    // on a busy machine one of a few.
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", cluster.server(1).listen(), "--timeout", "10s"])
        .args([OsStr::new("snapshot"), OsStr::new("save"), file.as_os_str()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("some of it has come", PATIENCE, || {
        fs::metadata(&part).is_ok_and(|part| part.len() > 0).then_some(())
    });
    cluster.server(1).pause();
    let status = eventually("it gives up", PATIENCE, || child.try_wait().unwrap());
    cluster.server(1).resume();
    assert_eq!(status.code(), Some(3));
    assert!(!file.exists() && part.exists());
    let (_, said) = ends(1, &["snapshot", "save", "/nonexistent/saved"]);
    assert!(said.contains("cannot create /nonexistent/saved.part"), "{said}");
}

/// A save that was held up went on writing into the file that another one had finished meanwhile.
#[test]
fn a_file_is_saved_to_by_one_at_a_time() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    fill(&cluster, 100, 100);
    cluster.wait_until_equal();
    let file = cluster.folder().join("saved");
    let part = cluster.folder().join("saved.part");
    let name = file.to_string_lossy().into_owned();
    cluster.server(1).pause();
    let mut held_up = Command::new(env!("CARGO_BIN_EXE_raftctl"))
        .args(["--endpoints", cluster.server(1).listen(), "--timeout", "60s"])
        .args([OsStr::new("snapshot"), OsStr::new("save"), file.as_os_str()])
        .spawn()
        .unwrap();
    eventually("it has begun", PATIENCE, || part.exists().then_some(()));
    let at = cluster.server(2).listen().to_owned();
    let save = ["snapshot", "save", &name, "--endpoints", &at];
    let (_, said) = ends(1, &save);
    assert!(said.contains("another save writes") && said.contains("saved.part"), "{said}");
    held_up.kill().unwrap();
    held_up.wait().unwrap();
    cluster.server(1).resume();
    ends(0, &save);
    ends(0, &["snapshot", "verify", &name]);
    assert!(!part.exists());
}

/// It was renamed over whatever stood there: a device became a file.
#[test]
fn a_save_replaces_nothing_but_a_file() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let folder = cluster.folder().to_owned();
    let at = cluster.server(1).listen().to_owned();
    let save = |file: &Path| {
        let words = [OsStr::new("snapshot"), OsStr::new("save"), file.as_os_str()];
        ends(1, &[&words[..], &[OsStr::new("--endpoints"), OsStr::new(&at)]].concat()).1
    };
    let link = folder.join("link");
    std::os::unix::fs::symlink(folder.join("nothing"), &link).unwrap();
    let socket = folder.join("socket");
    let _listens = UnixListener::bind(&socket).unwrap();
    assert!(save(&link).contains("is a symbolic link"));
    assert!(save(&socket).contains("is no regular file"));
    assert!(save(&folder).contains("is a directory"));
    // Nor is anything written through a link in the place of the unfinished file.
    let saved = folder.join("saved");
    std::os::unix::fs::symlink(folder.join("nothing"), folder.join("saved.part")).unwrap();
    assert!(save(&saved).contains("saved.part is a symbolic link"));
    assert!(!folder.join("nothing").exists() && !saved.exists());
    assert!(!folder.join("link.part").exists() && !folder.join("socket.part").exists());
}
