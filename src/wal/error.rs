//! Why a data directory cannot be opened, and what the operator can do about it.

use super::disk::Disk;
use super::snapshot_file::SnapshotDamage;
use crate::types::{DiskId, LogIndex, NodeId};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why `open` refused. Each is one line that says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the directory.
    InUse {
        /// Its LOCK file.
        path: PathBuf,
    },
    /// The directory belongs to another server.
    WrongNode {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        asked: NodeId,
    },
    /// The directory belongs to a cluster with another token.
    WrongCluster {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds files, but not those of raftd; or is empty, and was to be opened as it
    /// is.
    NotADataDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is on a file system of another machine.
    NetworkFileSystem {
        /// The directory.
        path: PathBuf,
        /// Which.
        name: &'static str,
    },
    /// There are log or hard state files with content, but no IDENTITY.
    Incomplete {
        /// The directory.
        path: PathBuf,
    },
    /// A restore into the directory was cut short.
    HalfRestored {
        /// The directory.
        path: PathBuf,
    },
    /// A restore wants an empty directory.
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// IDENTITY does not validate.
    IdentityDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of raftd.
    Version {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u16,
        /// What this program reads.
        known: u16,
    },
    /// Both copies of the term and vote are gone: the server could vote twice.
    HardStateLost {
        /// The directory.
        path: PathBuf,
    },
    /// A file with the name of a segment is none, and does not follow the others.
    Stray {
        /// The file.
        path: PathBuf,
        /// What would have to lie before it, and does not.
        missing: PathBuf,
    },
    /// A file with the term and vote was written for another data directory.
    OtherDisk {
        /// The file.
        path: PathBuf,
        /// Whose it says it is.
        found: DiskId,
        /// Whose directory this is.
        disk_id: DiskId,
    },
    /// A part of the log that may have been acknowledged is damaged.
    Damaged(Damage),
    /// The snapshot in force is damaged, and with it the state that the log goes on from.
    SnapshotDamaged {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        damage: SnapshotDamage,
    },
    /// An operation failed.
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Damage to the log that recovery did not cut away, because it may have been acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where the first of it was found.
    pub file: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Which entries, or from where on.
    pub extent: DamageExtent,
}

/// How much is known of what was lost. Spec §6 rules 1–4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageExtent {
    /// FAULTY: the identity of each lost entry is known.
    Entries {
        /// The lowest.
        first: LogIndex,
        /// The highest; entries between may be whole.
        last: LogIndex,
    },
    /// UNCERTAIN: what stood from here on cannot be told.
    From(LogIndex),
}

impl DamageExtent {
    /// The lowest index that is lost or in doubt.
    pub fn first(&self) -> LogIndex {
        match self {
            DamageExtent::Entries { first, .. } => *first,
            DamageExtent::From(first) => *first,
        }
    }
}

impl OpenError {
    /// For `map_err`: `doing` on the file `name` failed.
    pub(super) fn io<'a>(
        disk: &'a dyn Disk,
        doing: &'static str,
        name: &'a str,
    ) -> impl FnOnce(io::Error) -> OpenError + 'a {
        move |source| OpenError::Io { doing, path: disk.path(name), source }
    }
}

/// What is left to do when a directory has lost something that only it had.
const REPLACE: &str = "empty the directory and replace the member";

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { path } => at(f, path, "is locked by a running raftd: stop it first"),
            OpenError::WrongNode { found, asked } => write!(
                f,
                "the data directory belongs to {found}, not to {asked}: correct --id or --data-dir"
            ),
            OpenError::WrongCluster { path } => at(
                f,
                path,
                "belongs to a cluster with another token: correct --cluster-token or --data-dir",
            ),
            OpenError::NotADataDirectory { path } => at(
                f,
                path,
                "is not a data directory of raftd: name one with --data-dir, or, for a new \
                 server, an empty or missing directory",
            ),
            OpenError::NetworkFileSystem { path, name } => write!(
                f,
                "{} is on {name}, where a lock and a sync do not hold what they promise: \
                 name a directory on a local ext4 or xfs with --data-dir",
                path.display()
            ),
            OpenError::Incomplete { path } => {
                at(f, path, &format!("holds log files but no IDENTITY: {REPLACE}"))
            }
            OpenError::HalfRestored { path } => {
                at(f, path, "holds a restore cut short: run `raftctl snapshot restore` again")
            }
            OpenError::NotEmpty { path } => {
                at(f, path, "is not empty: name an empty or missing directory with --data-dir")
            }
            OpenError::IdentityDamaged { path } => at(f, path, &format!("is damaged: {REPLACE}")),
            OpenError::Version { path, found, known } => write!(
                f,
                "{} has format version {found} and this raftd reads {known}: \
                 start the version of raftd that wrote it",
                path.display()
            ),
            OpenError::HardStateLost { path } => write!(
                f,
                "both copies of the term and vote in {} are damaged, so this server \
                 could vote twice: {REPLACE}",
                path.display()
            ),
            OpenError::Stray { path, missing } => write!(
                f,
                "{} is no segment of this log, and {} before it is missing; nothing was changed: \
                 if you put the file there, remove it; else {REPLACE}",
                path.display(),
                missing.display()
            ),
            OpenError::OtherDisk { path, found, disk_id } => write!(
                f,
                "{} was written for data directory {found}, and this is {disk_id}: {REPLACE}",
                path.display()
            ),
            OpenError::Damaged(damage) => damage.fmt(f),
            OpenError::SnapshotDamaged { path, damage } => write!(
                f,
                "{damage} ({}): restore the file from a copy, or {REPLACE}",
                path.display()
            ),
            OpenError::Io { doing, path, source } => {
                let advice = advice_on(source.kind());
                write!(f, "cannot {doing} {} ({advice})", path.display())
            }
        }
    }
}

fn at(f: &mut fmt::Formatter<'_>, path: &Path, what: &str) -> fmt::Result {
    write!(f, "{} {what}", path.display())
}

fn advice_on(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, QuotaExceeded};
    use io::ErrorKind::{ReadOnlyFilesystem, StorageFull};
    if matches!(kind, PermissionDenied | ReadOnlyFilesystem) {
        "make it writable for this user, or name another --data-dir"
    } else if matches!(kind, StorageFull | QuotaExceeded) {
        "free some space, or choose smaller --segment-bytes"
    } else if matches!(kind, NotADirectory | NotFound | io::ErrorKind::AlreadyExists) {
        "name another directory with --data-dir"
    } else {
        "check the disk"
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::InUse { .. }
            | OpenError::WrongNode { .. }
            | OpenError::WrongCluster { .. }
            | OpenError::NotADataDirectory { .. }
            | OpenError::NetworkFileSystem { .. }
            | OpenError::Incomplete { .. }
            | OpenError::HalfRestored { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::IdentityDamaged { .. }
            | OpenError::Version { .. }
            | OpenError::HardStateLost { .. }
            | OpenError::Stray { .. }
            | OpenError::OtherDisk { .. }
            | OpenError::Damaged(_)
            | OpenError::SnapshotDamaged { .. } => None,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the log is damaged in {} at byte {}: ", self.file.display(), self.offset)?;
        match self.extent {
            DamageExtent::Entries { first, last } if first == last => {
                write!(f, "entry {first} is lost")?
            }
            DamageExtent::Entries { first, last } => {
                write!(f, "entries within {first} to {last} are lost")?;
            }
            DamageExtent::From(first) => write!(f, "nothing from entry {first} on is certain")?,
        }
        // Never "restore a copy": an older copy lacks what was acknowledged since, and does not
        // show it.
        f.write_str("; nothing was changed: empty the directory and replace the member")
    }
}

impl std::error::Error for Damage {}

/// The payload that came with an entry is not the one its leader sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadDamaged {
    /// Which entry.
    pub index: LogIndex,
}

impl fmt::Display for PayloadDamaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} arrived with a payload that does not match its checksum", self.index)
    }
}

impl std::error::Error for PayloadDamaged {}
