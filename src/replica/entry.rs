//! The payload of a configuration entry: MessagePack `[version=1, [[id, disk_id, address], …]]`,
//! ascending. `disk_id` is 16 bytes, big-endian, as ids are in every message; the pages of the
//! log's own files are little-endian.

use crate::config::MemberAddress;
use crate::limits;
use crate::types::{DiskId, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its data directory: a member that comes back with another one has lost what it promised.
    pub disk_id: DiskId,
    /// Where it accepts connections: `host:port`.
    pub address: String,
}

impl Member {
    /// The address as `--peers` writes it.
    pub fn address(&self) -> MemberAddress {
        MemberAddress { id: self.id, address: self.address.clone() }
    }
}

#[derive(Serialize, Deserialize)]
struct Stored<'a>(u8, #[serde(borrow)] Vec<StoredMember<'a>>);

#[derive(Serialize, Deserialize)]
struct StoredMember<'a>(
    u64,
    #[serde(with = "serde_bytes", borrow)] &'a [u8],
    #[serde(borrow)] &'a str,
);

/// Why a configuration entry could not be read: it was written by a version we do not know, or is
/// damaged.
#[derive(Debug)]
pub struct ConfigurationError(&'static str);

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read a configuration entry: {}", self.0)
    }
}

impl std::error::Error for ConfigurationError {}

/// Encodes the members, ascending by id. Equal on all nodes for equal members.
pub fn encode_members(members: &[Member]) -> Vec<u8> {
    assert!(members.is_sorted(), "the bytes must not depend on who encodes them");
    let ids: Vec<[u8; 16]> = members.iter().map(|member| member.disk_id.0.to_be_bytes()).collect();
    let stored = members
        .iter()
        .zip(&ids)
        .map(|(member, disk)| StoredMember(member.id.get(), disk, &member.address))
        .collect();
    rmp_serde::to_vec(&Stored(VERSION, stored)).expect("writing to memory cannot fail")
}

/// Decodes a configuration entry's payload.
pub fn decode_members(payload: &[u8]) -> Result<Vec<Member>, ConfigurationError> {
    let Ok(Stored(version, stored)) = rmp_serde::from_slice::<Stored<'_>>(payload) else {
        return Err(ConfigurationError("its bytes are not a list of members"));
    };
    if version != VERSION {
        return Err(ConfigurationError("its version is newer than this raftd"));
    }
    if stored.is_empty() || stored.len() > limits::MEMBERS_MAX {
        return Err(ConfigurationError("it names no member or too many"));
    }
    let mut members = Vec::new();
    for StoredMember(id, disk, address) in stored {
        let id = NodeId::new(id).ok_or(ConfigurationError("a member's id is 0"))?;
        let disk = disk.try_into().map_err(|_| ConfigurationError("a disk id is not 16 bytes"))?;
        let disk_id = DiskId(u128::from_be_bytes(disk));
        members.push(Member { id, disk_id, address: address.to_owned() });
    }
    if members.is_sorted_by(|one, other| one.id < other.id) {
        Ok(members)
    } else {
        Err(ConfigurationError("its members are not in order"))
    }
}

/// Names a bootstrap configuration: its hash, never 0, which means "not bootstrapped".
pub fn genesis_of(payload: &[u8]) -> u64 {
    xxh3_64(payload).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        let id = NodeId::new(id).unwrap();
        Member { id, disk_id: DiskId(0x0107), address: "h:1".to_owned() }
    }

    #[test]
    fn the_stored_form_never_changes() {
        let bytes = encode_members(&[member(1), member(2)]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let one = "c41000000000000000000000000000000107a3683a31";
        assert_eq!(hex, format!("9201929301{one}9302{one}"));
        assert_eq!(decode_members(&bytes).unwrap(), [member(1), member(2)]);
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let bytes = encode_members(&[member(1), member(2)]);
        for end in 0..bytes.len() {
            assert!(decode_members(&bytes[..end]).is_err());
            let mut flipped = bytes.clone();
            flipped[end] ^= 0x91;
            let _ = decode_members(&flipped);
        }
        assert!(decode_members(&encode_members(&[])).is_err());
    }
}
