//! The payload of a configuration entry, MessagePack.
//!
//! ```text
//! bootstrap  [version = 1, [[id, disk_id: bin 16, address], …]]                  all are voters
//! later      [version = 2, highest, [[id, disk_id: bin 16, address, standing, replaces], …]]
//! standing   0 voter · 1 learner · 2 learner that becomes a voter once it has caught up, in place
//!            of `replaces` if that is not 0 · 3 voter of the new half · 4 voter of the old half
//! ```
//!
//! `disk_id` is big-endian, as ids are in every message; the pages of the log's own files are
//! little-endian.
//!
//! Members ascend by id. A configuration with standings 3 or 4 is joint. `highest` is the highest
//! id that a member ever had: a new member's is higher, so that no id names two servers. An id
//! stands for promises, votes and acknowledgements, and those of a server that was removed, or that
//! lost its disk, may still be on their way. Why not a list of former ids: it would grow for ever.

use crate::codec::msgpack::Reader;
use crate::config::MemberAddress;
use crate::limits;
use crate::raft::{Configuration, Learner, Learners, Voters, Wish};
use crate::types::{DiskId, LogIndex, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

const VERSION_BOOTSTRAP: u8 = 1;
const VERSION: u8 = 2;

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

/// Encodes the members of a bootstrap configuration, ascending by id. Equal on all nodes for equal
/// members.
pub fn encode_members(members: &[Member]) -> Vec<u8> {
    assert!(members.is_sorted(), "the bytes must not depend on who encodes them");
    let ids: Vec<[u8; 16]> = members.iter().map(|member| member.disk_id.0.to_be_bytes()).collect();
    let stored = members
        .iter()
        .zip(&ids)
        .map(|(member, disk)| StoredMember(member.id.get(), disk, &member.address))
        .collect();
    rmp_serde::to_vec(&Stored(VERSION_BOOTSTRAP, stored)).expect("writing to memory cannot fail")
}

/// Decodes the payload of a bootstrap configuration.
pub fn decode_members(payload: &[u8]) -> Result<Vec<Member>, ConfigurationError> {
    let Ok(Stored(version, stored)) = rmp_serde::from_slice::<Stored<'_>>(payload) else {
        return Err(ConfigurationError("its bytes are not a list of members"));
    };
    if version != VERSION_BOOTSTRAP {
        return Err(ConfigurationError("its version is newer than this raftd"));
    }
    if stored.is_empty() || stored.len() > limits::MEMBERS_MAX {
        return Err(ConfigurationError("it names no member or too many"));
    }
    let members: Result<Vec<Member>, ConfigurationError> = stored
        .into_iter()
        .map(|StoredMember(id, disk, address)| member(id, disk, address))
        .collect();
    let members = members?;
    if members.is_sorted_by(|one, other| one.id < other.id) {
        Ok(members)
    } else {
        Err(ConfigurationError("its members are not in order"))
    }
}

fn member(id: u64, disk: &[u8], address: &str) -> Result<Member, ConfigurationError> {
    let id = NodeId::new(id).ok_or(ConfigurationError("a member's id is 0"))?;
    let disk = disk.try_into().map_err(|_| ConfigurationError("a disk id is not 16 bytes"))?;
    let disk_id = DiskId(u128::from_be_bytes(disk));
    Ok(Member { id, disk_id, address: address.to_owned() })
}

/// What a member is in a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It counts.
    Voter,
    /// It listens.
    Learner(Wish),
    /// It counts in the new half of a joint configuration.
    Incoming,
    /// It counts in the old half of a joint configuration.
    Outgoing,
}

impl Standing {
    fn code(self) -> (u8, u64) {
        match self {
            Standing::Voter => (0, 0),
            Standing::Learner(Wish::Stay) => (1, 0),
            Standing::Learner(Wish::Vote) => (2, 0),
            Standing::Learner(Wish::Replace(old)) => (2, old.get()),
            Standing::Incoming => (3, 0),
            Standing::Outgoing => (4, 0),
        }
    }

    fn from_code(code: u8, replaces: u64) -> Option<Standing> {
        Some(match (code, NodeId::new(replaces)) {
            (0, None) => Standing::Voter,
            (1, None) => Standing::Learner(Wish::Stay),
            (2, None) => Standing::Learner(Wish::Vote),
            (2, Some(old)) => Standing::Learner(Wish::Replace(old)),
            (3, None) => Standing::Incoming,
            (4, None) => Standing::Outgoing,
            (_, _) => return None,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredMembership<'a>(u8, u64, #[serde(borrow)] Vec<StoredStanding<'a>>);

#[derive(Serialize, Deserialize)]
struct StoredStanding<'a>(
    u64,
    #[serde(with = "serde_bytes", borrow)] &'a [u8],
    #[serde(borrow)] &'a str,
    u8,
    u64,
);

/// A configuration with all that the core does not need to know: addresses and data directories.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Membership {
    highest: u64,
    list: Vec<(Member, Standing)>,
}

impl Membership {
    /// The first configuration of a cluster.
    pub fn bootstrap(members: &[Member]) -> Membership {
        let list: Vec<_> = members.iter().map(|it| (it.clone(), Standing::Voter)).collect();
        Membership { highest: highest_of(&list), list }
    }

    /// Reads the payload of a configuration entry.
    pub fn decode(payload: &[u8]) -> Result<Membership, ConfigurationError> {
        let mut reader = Reader::new(payload);
        let bootstrap =
            reader.array().is_ok() && reader.uint().ok() == Some(u64::from(VERSION_BOOTSTRAP));
        if bootstrap {
            return decode_members(payload).map(|members| Membership::bootstrap(&members));
        }
        let Ok(StoredMembership(version, highest, stored)) = rmp_serde::from_slice(payload) else {
            return Err(ConfigurationError("its bytes are not a list of members"));
        };
        if version != VERSION {
            return Err(ConfigurationError("its version is newer than this raftd"));
        }
        let mut list = Vec::new();
        for StoredStanding(id, disk, address, code, replaces) in stored {
            let standing = Standing::from_code(code, replaces);
            let standing = standing.ok_or(ConfigurationError("a member's standing is unknown"))?;
            list.push((member(id, disk, address)?, standing));
        }
        if list.len() > limits::MEMBERS_MAX || highest < highest_of(&list) {
            return Err(ConfigurationError("it names too many members or too high ids"));
        }
        let sorted = list.is_sorted_by(|(one, _), (other, _)| one.id < other.id);
        let membership = Membership { highest, list };
        if sorted && membership.core().is_some() {
            Ok(membership)
        } else {
            Err(ConfigurationError("its members are not in order, or nobody votes"))
        }
    }

    /// The payload of this configuration's entry.
    pub fn encode(&self) -> Vec<u8> {
        let disks: Vec<_> = self.list.iter().map(|(it, _)| it.disk_id.0.to_be_bytes()).collect();
        let stored = self.list.iter().zip(&disks).map(|((member, standing), disk)| {
            let (code, replaces) = standing.code();
            StoredStanding(member.id.get(), disk, &member.address, code, replaces)
        });
        let stored = StoredMembership(VERSION, self.highest, stored.collect());
        rmp_serde::to_vec(&stored).expect("writing to memory cannot fail")
    }

    /// What the core needs to know of it. Panics for `Membership::default()`, which is nobody's.
    pub fn configuration(&self) -> Configuration {
        self.core().expect("decode and bootstrap made sure that somebody votes")
    }

    fn core(&self) -> Option<Configuration> {
        let half = |of: Standing| {
            let voters = self.list.iter().filter(|(_, it)| *it == Standing::Voter || *it == of);
            Voters::new(voters.map(|(member, _)| member.id).collect())
        };
        let learners = self.list.iter().filter_map(|(member, standing)| match standing {
            Standing::Learner(wish) => Some(Learner { id: member.id, wish: *wish }),
            Standing::Voter | Standing::Incoming | Standing::Outgoing => None,
        });
        let learners = Learners::new(learners.collect())?;
        let (old, new) = (half(Standing::Outgoing)?, half(Standing::Incoming)?);
        Some(if old == new {
            Configuration::Stable { voters: new, learners }
        } else {
            Configuration::Joint { old, new, learners }
        })
    }

    /// This configuration's successor `next`, which may name one `newcomer` that we do not know.
    pub fn successor(&self, next: &Configuration, newcomer: Option<&Member>) -> Membership {
        let standing = |id: NodeId| {
            let learner = next.learners().iter().find(|learner| learner.id == id);
            match (learner, next) {
                (Some(learner), _) => Standing::Learner(learner.wish),
                (None, Configuration::Stable { .. }) => Standing::Voter,
                (None, Configuration::Joint { old, new, .. }) => {
                    match (old.contains(id), new.contains(id)) {
                        (true, false) => Standing::Outgoing,
                        (false, _) => Standing::Incoming,
                        (true, true) => Standing::Voter,
                    }
                }
            }
        };
        let member = |id: NodeId| {
            let newcomer = newcomer.filter(|newcomer| newcomer.id == id);
            let known = self.get(id).or(newcomer).expect("a change names one newcomer at most");
            (known.clone(), standing(id))
        };
        let list: Vec<_> = next.members().into_iter().map(member).collect();
        Membership { highest: self.highest.max(highest_of(&list)), list }
    }

    /// The member `id` as the only one, a voter; `None` if it is no member. Numbers that were used
    /// stay used, those up to `used` too.
    pub fn alone(&self, id: NodeId, used: u64) -> Option<Membership> {
        let member = self.get(id)?.clone();
        Some(Membership { highest: self.highest.max(used), list: vec![(member, Standing::Voter)] })
    }

    /// The members and what they are, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Member, Standing)> {
        self.list.iter().map(|(member, standing)| (member, *standing))
    }

    /// The member with this id.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.iter().map(|(member, _)| member).find(|member| member.id == id)
    }

    /// The highest id that a member ever had; 0 if nothing is known.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `id` was a member before and is none any more. If this configuration is committed,
    /// that is for ever.
    pub fn has_removed(&self, id: NodeId) -> bool {
        id.get() <= self.highest && self.get(id).is_none()
    }
}

fn highest_of(list: &[(Member, Standing)]) -> u64 {
    list.iter().map(|(member, _)| member.id.get()).max().unwrap_or(0)
}

/// The configurations in the log, oldest first: what the core keeps, with addresses.
#[derive(Default, Debug)]
pub(super) struct Memberships {
    stack: Vec<(LogIndex, Membership)>,
}

/// Of a server that is in no configuration yet.
static NOBODY: Membership = Membership { highest: 0, list: Vec::new() };

impl Memberships {
    /// The configurations that recovery found, ascending.
    pub(super) fn new(stack: Vec<(LogIndex, Membership)>) -> Memberships {
        Memberships { stack }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(LogIndex, Membership)> {
        self.stack.iter()
    }

    /// The one in force.
    pub(super) fn newest(&self) -> &Membership {
        self.stack.last().map_or(&NOBODY, |(_, membership)| membership)
    }

    /// The newest at or below `index`.
    pub(super) fn at_or_below(&self, index: LogIndex) -> &Membership {
        let found = self.stack.iter().rev().find(|(at, _)| *at <= index);
        found.map_or(&NOBODY, |(_, membership)| membership)
    }

    /// The entry at `index`, just appended, holds this one.
    pub(super) fn push(&mut self, index: LogIndex, membership: Membership) {
        assert!(self.stack.last().is_none_or(|(last, _)| *last < index), "configurations ascend");
        self.stack.push((index, membership));
    }

    /// The entries up to `base` are gone, for which a snapshot stands.
    pub(super) fn compact(&mut self, base: LogIndex) {
        let upto = self.stack.partition_point(|(index, _)| *index <= base);
        self.stack.drain(..upto.saturating_sub(1));
    }

    /// The entries after `to` are gone.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        self.stack.retain(|(index, _)| *index <= to);
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

    fn grown() -> Membership {
        let standings = [
            Standing::Voter,
            Standing::Outgoing,
            Standing::Incoming,
            Standing::Learner(Wish::Stay),
            Standing::Learner(Wish::Vote),
            Standing::Learner(Wish::Replace(NodeId::new(1).unwrap())),
        ];
        let list = (1..).zip(standings).map(|(id, standing)| (member(id), standing)).collect();
        Membership { highest: 9, list }
    }

    #[test]
    fn later_configurations_have_a_stored_form_of_their_own() {
        let bytes = grown().encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let one = "c41000000000000000000000000000000107a3683a31";
        let members = ["010000", "020400", "030300", "040100", "050200", "060201"];
        let members: Vec<String> =
            members.iter().map(|it| format!("95{}{one}{}", &it[..2], &it[2..])).collect();
        assert_eq!(hex, format!("93020996{}", members.concat()));
        let again = Membership::decode(&bytes).unwrap();
        assert_eq!(again, grown());
        let configuration = again.configuration();
        assert!(configuration.is_joint());
        assert_eq!(again.successor(&configuration, None), again);
        let bootstrap = Membership::decode(&encode_members(&[member(1), member(2)])).unwrap();
        assert_eq!(bootstrap, Membership::bootstrap(&[member(1), member(2)]));
    }

    #[test]
    fn an_id_that_was_used_names_nobody_else() {
        let id = |id| NodeId::new(id).unwrap();
        assert!(grown().has_removed(id(8)));
        assert!(!grown().has_removed(id(3)));
        assert!(!grown().has_removed(id(10)), "it may yet come");
        let voters = Voters::new(vec![id(1)]).unwrap();
        let left = grown().successor(&Configuration::of_voters(voters), None);
        assert_eq!(left.highest(), 9);
        assert!(left.has_removed(id(2)));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_of_a_later_configuration_panics() {
        let bytes = grown().encode();
        for end in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..end]).is_err());
            for flip in [0x91, 0x01, 0xff] {
                let mut flipped = bytes.clone();
                flipped[end] ^= flip;
                if let Ok(membership) = Membership::decode(&flipped) {
                    let _sound = membership.configuration();
                }
            }
        }
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
