//! What kind of file system holds the directory. The format was measured and its promises were
//! checked on ext4 and xfs; elsewhere an operator should know what differs. Storage §6.1.

use std::io;
use std::path::Path;

/// A file system, by what it means for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileSystem {
    /// Writes in place into space that was taken beforehand.
    Local,
    /// Every write goes to a new place: a full disk shows at a write, not at preparation.
    CopyOnWrite,
    /// In memory: gone with the machine.
    Memory,
    /// A container's layers: the first write copies, and the directory goes with the container.
    Overlay,
    /// Of another machine: locks and syncs are what a network makes of them. Its name.
    Network(&'static str),
}

/// Magic numbers of statfs(2). Linux include/uapi/linux/magic.h and the file systems' sources.
const KNOWN: [(u32, FileSystem); 14] = [
    (0x9123_683e, FileSystem::CopyOnWrite), // btrfs
    (0x2fc1_2fc1, FileSystem::CopyOnWrite), // zfs
    (0xca45_1a4e, FileSystem::CopyOnWrite), // bcachefs
    (0x0102_1994, FileSystem::Memory),      // tmpfs
    (0x8584_58f6, FileSystem::Memory),      // ramfs
    (0x794c_7630, FileSystem::Overlay),
    (0x0000_6969, FileSystem::Network("NFS")),
    (0x0000_517b, FileSystem::Network("SMB")),
    (0xff53_4d42, FileSystem::Network("CIFS")),
    (0xfe53_4d42, FileSystem::Network("SMB2")),
    (0x00c3_6400, FileSystem::Network("Ceph")),
    (0x5346_414f, FileSystem::Network("AFS")),
    (0x0bd0_0bd0, FileSystem::Network("Lustre")),
    (0x0116_1970, FileSystem::Network("GFS2")),
];

impl FileSystem {
    /// Of this directory. Fails as statfs(2) does.
    pub(super) fn of(directory: &Path) -> io::Result<FileSystem> {
        let magic = rustix::fs::statfs(directory)?.f_type;
        // The kernel's word is 32 bits; some systems hand it over with its sign.
        let [a, b, c, d, ..] = magic.to_le_bytes();
        Ok(FileSystem::of_magic(u32::from_le_bytes([a, b, c, d])))
    }

    fn of_magic(magic: u32) -> FileSystem {
        let known = KNOWN.iter().find(|(number, _)| *number == magic);
        known.map_or(FileSystem::Local, |(_, file_system)| *file_system)
    }

    /// What an operator should know, if there is anything.
    pub(super) fn warning(self) -> Option<&'static str> {
        match self {
            FileSystem::Local => None,
            FileSystem::CopyOnWrite => Some(
                "the file system copies on write: a full disk can stop this server instead of \
                 making it refuse writes; ext4 or xfs is better",
            ),
            FileSystem::Memory => {
                Some("the file system is in memory: nothing outlives this machine's power")
            }
            FileSystem::Overlay => Some(
                "the file system is a container's layers: mount a volume, or the data goes with \
                 the container",
            ),
            FileSystem::Network(_) => Some("the file system is of another machine"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_warning_is_known_by_its_number() {
        for (magic, expected) in [
            (0xef53, FileSystem::Local),      // ext4
            (0x5846_5342, FileSystem::Local), // xfs
            (0x9123_683e, FileSystem::CopyOnWrite),
            (0x0102_1994, FileSystem::Memory), // tmpfs
            (0x794c_7630, FileSystem::Overlay),
            (0x6969, FileSystem::Network("NFS")),
            (0x517b, FileSystem::Network("SMB")),
            (0xff53_4d42, FileSystem::Network("CIFS")),
            (0xfe53_4d42, FileSystem::Network("SMB2")),
        ] {
            let found = FileSystem::of_magic(magic);
            assert_eq!(found, expected, "{magic:#x}");
            assert_eq!(found.warning().is_none(), expected == FileSystem::Local);
        }
        let memory = Path::new("/dev/shm");
        if memory.exists() {
            assert_eq!(FileSystem::of(memory).unwrap(), FileSystem::Memory);
        }
    }
}
