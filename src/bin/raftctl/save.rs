//! snapshot save: from any server to a file.
//!
//! ```text
//! FILE.part   locked, so that one at a time writes it
//!             written piece by piece: an interrupted save leaves it, and the next begins anew
//!             synced, read back and checked, block by block
//! FILE        renamed, the folder synced; an older FILE stands until then
//! ```
//!
//! Why a lock: a save that was held up would go on writing into the file that another one has
//! finished and renamed meanwhile.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use raftd::client::{Client, Deadline, Goes, Piece};
use raftd::types::SnapshotId;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde_json::json;

use super::args::Format;
use super::exit::{End, Failure};
use super::output::{json_line, table};
use super::snapshot;

pub(crate) fn save(
    client: &mut Client,
    format: Format,
    file: &Path,
) -> Result<(Vec<u8>, End), Failure> {
    let part = part_of(file);
    check_target(file)?;
    check_target(&part)?;
    let mut out = open(&part)?;
    let mut progress = Progress::begin();
    let mut failed = None;
    let saved = client.snapshot(&mut |piece| match piece {
        Piece::NotYet { endpoint } => {
            progress.show(&format!("{endpoint} makes a snapshot"));
            Goes::On
        }
        Piece::Bytes(piece) => {
            // At offset 0 it begins, perhaps anew with another server.
            let begun = if piece.offset == 0 { out.set_len(0).and(out.rewind()) } else { Ok(()) };
            let written = begun.and_then(|()| out.write_all(piece.bytes));
            let done = piece.offset + u64::try_from(piece.bytes.len()).unwrap_or(0);
            progress.show(&percent(done, piece.snapshot.bytes));
            failed = written.err();
            if failed.is_none() { Goes::On } else { Goes::Nowhere }
        }
    });
    progress.end();
    let written = |why: io::Error| Failure {
        end: End::Refused,
        why: anyhow::Error::new(why).context(format!("cannot write {}", part.display())),
    };
    if let Some(why) = failed {
        return Err(written(why));
    }
    if saved.is_err() && out.metadata().is_ok_and(|it| it.len() == 0) {
        // Nothing came. Who waits for the lock makes a new one.
        let _left = std::fs::remove_file(&part);
    }
    let Some(id) = saved? else {
        return Err(Failure::refused("the save was given up".to_owned()));
    };
    out.sync_all().map_err(written)?;
    publish(&part, file, id)?;
    Ok((said(format, file, id), End::Done))
}

/// The name while it is not whole.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Renaming would put the snapshot in the place of whatever stands there.
fn check_target(file: &Path) -> Result<(), Failure> {
    let kind = match std::fs::symlink_metadata(file) {
        Ok(found) => found.file_type(),
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(unusable(file, why)),
    };
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "no regular file"
    };
    Err(Failure::refused(format!("{} is {what}: name the file to save to", file.display())))
}

/// Opens what is written to, alone.
fn open(part: &Path) -> Result<File, Failure> {
    let alone = || -> io::Result<Option<File>> {
        let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag of open(2)");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).custom_flags(no_link);
        loop {
            let file = options.open(part)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                // A file system without locks: then whoever saves sees to it.
                Err(_) => {}
            }
            // Whoever had it before may have renamed or removed it since we opened it.
            let ours = file.metadata()?;
            let is_it = |there: &Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
            if std::fs::symlink_metadata(part).is_ok_and(|there| is_it(&there)) {
                file.set_len(0)?;
                return Ok(Some(file));
            }
        }
    };
    alone().map_err(|why| unusable(part, why))?.ok_or_else(|| {
        let name = part.display();
        Failure::refused(format!("another save writes {name}: wait for it, or name another file"))
    })
}

fn unusable(part: &Path, why: io::Error) -> Failure {
    let why = anyhow::Error::new(why).context(format!("cannot create {}", part.display()));
    Failure { end: End::Refused, why }
}

/// Reads all of it back; only what is whole gets the name.
fn publish(part: &Path, file: &Path, id: SnapshotId) -> Result<(), Failure> {
    let source = snapshot::open(part)?;
    let read = source.read(&mut |_| Ok(())).map_err(|why| source.unreadable(why));
    read.and_then(|sound| sound.map_err(|damage| source.damaged(damage)))
        .map_err(Failure::of_snapshot)?;
    if source.id != id {
        let what = format!("{} is {}, and {id} was sent", part.display(), source.id);
        return Err(Failure::refused(what));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::rename(part, file)
        .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all())
        .with_context(|| format!("cannot rename {} to {}", part.display(), file.display()))
        .map_err(|why| Failure { end: End::Refused, why })
}

fn said(format: Format, file: &Path, id: SnapshotId) -> Vec<u8> {
    let SnapshotId { position, bytes, crc } = id;
    match format {
        Format::Simple => {
            let file = file.display();
            format!("saved {file} index={} term={} bytes={bytes}\n", position.index, position.term)
                .into_bytes()
        }
        Format::Json => json_line(&json!({
            "file": file.to_string_lossy(),
            "index": position.index.get(),
            "term": position.term.get(),
            "bytes": bytes,
            "crc": format!("{crc:08x}"),
        })),
        Format::Table => table(
            &["FILE", "INDEX", "TERM", "BYTES"],
            &[vec![
                file.display().to_string(),
                position.index.to_string(),
                position.term.to_string(),
                bytes.to_string(),
            ]],
        ),
    }
}

pub(crate) fn percent(done: u64, all: u64) -> String {
    format!("{} % of {all} bytes", share(done, all))
}

/// Of a hundred.
pub(crate) fn share(done: u64, all: u64) -> u128 {
    u128::from(done) * 100 / u128::from(all.max(1))
}

/// What is said on the way, on standard error: a line that changes on a terminal, else one in five
/// seconds.
pub(crate) struct Progress {
    terminal: bool,
    next: Deadline,
}

const LINE_EVERY: Duration = Duration::from_secs(5);
const REDRAW_EVERY: Duration = Duration::from_millis(100);

impl Progress {
    pub(crate) fn begin() -> Progress {
        let terminal = io::stderr().is_terminal();
        let first = if terminal { Duration::ZERO } else { LINE_EVERY };
        Progress { terminal, next: Deadline::after(first) }
    }

    pub(crate) fn show(&mut self, text: &str) {
        if !self.next.has_passed() {
            return;
        }
        let (begin, end) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        // Nobody is left to hear that standard error is closed.
        let _closed = write!(io::stderr(), "{begin}{text}{end}");
        self.next = Deadline::after(if self.terminal { REDRAW_EVERY } else { LINE_EVERY });
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        if self.terminal {
            let _closed = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
