//! A data directory for a member of a new cluster, out of a snapshot that was saved.
//!
//! Every member is restored from the same file with the same list of members: the new cluster's id
//! is a hash of both, so that those who differ do not talk. It is also a hash of chance: whoever
//! restores the same file again makes another cluster, which gives the same numbers to other
//! credentials and sessions; what the first one gave, the tokens of a gateway say, must be nothing
//! there. The members share nothing that is new before they meet, so the chance of the first one is
//! handed to the others (`--restore-id`). Why not take it from their data directories, once they
//! have met: a cluster would change its name while it is founded, and servers and clients that know
//! the one name would have to be told apart from those of another cluster.
//!
//! The snapshot in the new directory names the members without their data directories, which are
//! not known yet; the cluster begins as every cluster does (`bootstrap`): once all members have
//! said that they are new, they write the same first entry, which names the directories. So a
//! member that is restored a second time, after it has served, does not vote: its directory is
//! another one.
//!
//! The log goes on at the snapshot's index and term. The revision is raised, because the old
//! cluster went on after the save and its clients have seen revisions that the file does not know;
//! what was before is compacted, so that they hear it.

use super::entry::{Member, encode_members};
use super::snapshots::load_snapshot;
use crate::config::MemberAddress;
use crate::kv::{SliceLimits, Sliced, StoreOptions};
use crate::limits::SNAPSHOT_BLOCK_BYTES;
use crate::types::{ClusterId, DiskId, LogPosition, Revision};
use crate::wal::{self, Disk, OpenError, SnapshotHead, SnapshotSource};
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_128;

/// Which restore: random, made for the first member, equal on all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestoreId(pub u128);

impl fmt::Display for RestoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RestoreId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<RestoreId, &'static str> {
        let expected = "it is 32 hexadecimal digits, as the restore of another member said";
        // Digits alone: a sign would be taken too.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(expected);
        }
        u128::from_str_radix(text, 16).map(RestoreId).map_err(|_| expected)
    }
}

/// What the new cluster shall be.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Its members, ascending.
    pub members: Vec<MemberAddress>,
    /// How much higher its revision begins.
    pub bump: u64,
    /// Of which restore it is.
    pub restore_id: RestoreId,
    /// This member's directory; the cluster id in it means nothing.
    pub wal: wal::Options,
}

/// What a restored directory begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The new cluster.
    pub cluster_id: ClusterId,
    /// The last entry in the snapshot.
    pub position: LogPosition,
    /// The store's revision.
    pub revision: Revision,
    /// How many keys there are.
    pub keys: u64,
    /// A hash of the state, equal on all members.
    pub state_hash: u64,
}

/// Makes the directory behind `disk`; says after each block how many bytes were written.
pub fn restore_member(
    source: &SnapshotSource,
    new: &NewMember,
    disk: &dyn Disk,
    written: &mut dyn FnMut(u64),
) -> Result<Begun, OpenError> {
    let options = StoreOptions { index_seed: new.wal.salt_seed, history_bytes_max: u64::MAX };
    let (mut store, old) = load_snapshot(source, options)?;
    let cluster_id = cluster_id(source, old.cluster_id, new);
    store.begin_anew(new.bump);
    let nameless = |member: &MemberAddress| Member {
        id: member.id,
        disk_id: DiskId(0),
        address: member.address.clone(),
    };
    let members: Vec<Member> = new.members.iter().map(nameless).collect();
    let head = SnapshotHead {
        cluster_id,
        genesis: 0,
        position: old.position,
        configuration_index: old.position.index,
        configuration: encode_members(&members),
    };
    let mut checkpoint = store.begin_checkpoint();
    let limits = SliceLimits { steps: usize::MAX, bytes: SNAPSHOT_BLOCK_BYTES };
    let (mut done, mut ended) = (0, false);
    let restored = wal::restore(disk, &new.wal, &head, &mut || {
        let mut block = Vec::new();
        if !ended {
            ended = store.write_checkpoint(&mut checkpoint, &mut block, limits) == Sliced::Done;
        }
        done += u64::try_from(block.len()).expect("usize is at most 64 bits");
        written(done);
        (!block.is_empty()).then_some(block)
    });
    store.end_checkpoint(checkpoint);
    restored?;
    Ok(Begun {
        cluster_id,
        position: old.position,
        revision: store.revision(),
        keys: store.keys(),
        state_hash: store.state_hash(),
    })
}

/// The same for all members of one restore, if they are restored from the same file, for the same
/// members, in the same way; never that of another restore, or of a cluster that was founded.
fn cluster_id(source: &SnapshotSource, old: ClusterId, new: &NewMember) -> ClusterId {
    let (id, bump, token) = (source.id, new.bump, new.wal.token_hash);
    let chance = new.restore_id;
    let mut text = format!("restored\n{old}\n{id}\n{bump}\n{token}\n{chance}");
    for member in &new.members {
        text.push_str(&format!("\n{}={}", member.id.get(), member.address));
    }
    ClusterId(xxh3_128(text.as_bytes()))
}
