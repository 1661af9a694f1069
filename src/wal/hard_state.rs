//! The hard state: term and vote, and what else must outlive a crash but is no entry.
//!
//! ```text
//! hs.0, hs.1: two slots of one page; version n is in slot n%2 of both files
//!  0 8 magic "RAFTDHST"   8 2 version 2
//! 10 1 flags: bit 0 clean shutdown, bit 1 UNCERTAIN, bit 2 forced, bit 3 diverged     11 5 zero
//! 16 8 hs_seq            24 8 term        32 8 vote: 0 none, u64::MAX abstain
//! 40 8 boot_nonce        48 8 last_durable term   56 8 last_durable index
//! 64 8 genesis           72 16 room for the bound of an UNCERTAIN tail, zero
//! 88 8 snapshot: last index   96 8 its term   104 8 its file's bytes   112 4 its file's crc
//! 116 4 first segment: those with lower numbers are dead; 0 as 1
//! 120 8 log base index   128 8 its term: the entry before what the first segment begins with
//! 136 16 disk_id: of IDENTITY
//! 152 16 cluster_id that the server speaks for since it was forced into a new one; 0: IDENTITY's
//! ...zero...             252 4 crc32 of bytes 0..252 (all within the slot's first sector)
//! version 1: no snapshot, no disk_id; all from 88 on is zero, 124 4 crc32 of bytes 0..124
//! ```
//!
//! Writing version n: hs.0, sync, hs.1, sync; only then may anyone hear of it. A crash leaves n in
//! both, in hs.0 alone or nowhere; n-1 stands untouched in the other slots. A slot is one sector,
//! so a slot that does not validate is damage, not a tear: two such slots of one parity may have
//! held the newest vote, and the server must not start. Both parities are written at creation, so
//! there is no slot that was never valid.
//!
//! `last_durable` is a lower bound of the last entry on disk: a log that ends before it has lost
//! what was acknowledged, even if nothing in the log shows it. It is raised when anything else
//! changes, and within a second after entries became durable; it is lowered before a truncation
//! goes below it.
//!
//! A slot of another disk, as whoever copies files between data directories leaves it, holds
//! another server's promises: it is refused by name, not taken for damage that the other copy
//! mends.
//!
//! **Which snapshot is in force stands here**, with where the log begins that goes on from it: one
//! sector, written like a vote. So a switch to another snapshot is atomic, is ordered with
//! everything else that is made durable, and survives the loss of one file. Why not a manifest of
//! its own: it would be a second truth about the end of the log (`last_durable`), and a second file
//! whose loss must be told from its absence.

use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::identity::Identity;
use super::job::Operation;
use super::record::{get_u16, get_u32, get_u64, get_u128, put_u16, put_u32, put_u64, put_u128};
use crate::codec::crc;
use crate::limits::PAGE_BYTES;
use crate::types::{
    ClusterId, DiskId, HardState, LogIndex, LogPosition, NodeId, SnapshotId, Term, Vote,
};
use std::io;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"RAFTDHST";
const VERSION: u16 = 2;
/// Without a snapshot.
const VERSION_BEFORE: u16 = 1;
const FLAG_CLEAN: u8 = 1;
const FLAG_UNCERTAIN: u8 = 2;
const FLAG_FORCED: u8 = 4;
const FLAG_DIVERGED: u8 = 8;
const CRC_AT: usize = 252;
const CRC_AT_BEFORE: usize = 124;
/// The names of the two files.
pub(super) const NAMES: [&str; 2] = ["hs.0", "hs.1"];

/// One version of what is kept.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Slot {
    /// Its number: the highest wins.
    pub(super) seq: u64,
    /// Term and vote.
    pub(super) hard_state: HardState,
    /// New at every start.
    pub(super) boot_nonce: u64,
    /// A lower bound of the last entry on disk.
    pub(super) last_durable: LogPosition,
    /// The hash of the bootstrap configuration; 0 before bootstrap.
    pub(super) genesis: u64,
    /// Whether the process said goodbye after this.
    pub(super) clean: bool,
    /// Whether the log's tail is in doubt. Nothing here sets it yet; a directory that has it is
    /// refused.
    pub(super) uncertain: bool,
    /// Whether the server was last started to be a new cluster of its own, and was one then.
    pub(super) forced: bool,
    /// Whether the state differed from the other members' and has not come anew since. The snapshot
    /// in force was perhaps made of it, so a start serves nobody until it has another one.
    pub(super) diverged: bool,
    /// The snapshot in force; all zero if there is none.
    pub(super) snapshot: SnapshotId,
    /// The entry before what the first segment begins with.
    pub(super) base: LogPosition,
    /// The number of the first segment of the log; 0 as 1.
    pub(super) first_segment: u32,
    /// The directory that it was written for; 0 in version 1, which does not say.
    pub(super) disk_id: DiskId,
    /// The cluster, if it is no longer that of IDENTITY; else 0. What was written before keeps the
    /// old one, and is read by it.
    pub(super) cluster_id: ClusterId,
}

impl Slot {
    /// The directory's identity as the server shows it.
    pub(super) fn identity_of(&self, identity: &Identity) -> Identity {
        let forced = self.cluster_id != ClusterId::default();
        let cluster_id = if forced { self.cluster_id } else { identity.cluster_id };
        Identity { cluster_id, ..*identity }
    }

    fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[..8].copy_from_slice(MAGIC);
        put_u16(&mut page, 8, VERSION);
        let flags = [
            (self.clean, FLAG_CLEAN),
            (self.uncertain, FLAG_UNCERTAIN),
            (self.forced, FLAG_FORCED),
            (self.diverged, FLAG_DIVERGED),
        ];
        page[10] = flags.iter().map(|(set, bit)| u8::from(*set) * bit).sum();
        put_u64(&mut page, 16, self.seq);
        put_u64(&mut page, 24, self.hard_state.term.get());
        let vote = match self.hard_state.vote {
            Vote::None => 0,
            Vote::For(node) => node.get(),
            Vote::Abstain => u64::MAX,
        };
        put_u64(&mut page, 32, vote);
        put_u64(&mut page, 40, self.boot_nonce);
        put_u64(&mut page, 48, self.last_durable.term.get());
        put_u64(&mut page, 56, self.last_durable.index.get());
        put_u64(&mut page, 64, self.genesis);
        put_u64(&mut page, 88, self.snapshot.position.index.get());
        put_u64(&mut page, 96, self.snapshot.position.term.get());
        put_u64(&mut page, 104, self.snapshot.bytes);
        put_u32(&mut page, 112, self.snapshot.crc);
        put_u32(&mut page, 116, self.first_segment);
        put_u64(&mut page, 120, self.base.index.get());
        put_u64(&mut page, 128, self.base.term.get());
        put_u128(&mut page, 136, self.disk_id.0);
        put_u128(&mut page, 152, self.cluster_id.0);
        let crc = crc::crc32(&[&page[..CRC_AT]]);
        put_u32(&mut page, CRC_AT, crc);
        page
    }

    /// `None` if the bytes do not validate; `Err` with the version if they do but are of a later
    /// raftd.
    fn decode(page: &[u8]) -> Result<Option<Slot>, u16> {
        if page.len() < PAGE_BYTES || &page[..8] != MAGIC {
            return Ok(None);
        }
        let version = get_u16(page, 8);
        let sound = |crc_at: usize| get_u32(page, crc_at) == crc::crc32(&[&page[..crc_at]]);
        let before = version == VERSION_BEFORE && sound(CRC_AT_BEFORE);
        if !before && !sound(CRC_AT) {
            return Ok(None);
        }
        if !before && version != VERSION {
            return Err(version);
        }
        let position = |index: usize, term: usize| {
            let index = LogIndex::new(get_u64(page, index));
            LogPosition::new(Term::new(get_u64(page, term)), index)
        };
        let vote = match get_u64(page, 32) {
            0 => Vote::None,
            u64::MAX => Vote::Abstain,
            id => NodeId::new(id).map_or(Vote::Abstain, Vote::For),
        };
        Ok(Some(Slot {
            seq: get_u64(page, 16),
            hard_state: HardState { term: Term::new(get_u64(page, 24)), vote },
            boot_nonce: get_u64(page, 40),
            last_durable: position(56, 48),
            genesis: get_u64(page, 64),
            clean: page[10] & FLAG_CLEAN != 0,
            uncertain: page[10] & FLAG_UNCERTAIN != 0,
            forced: page[10] & FLAG_FORCED != 0,
            diverged: page[10] & FLAG_DIVERGED != 0,
            snapshot: if before {
                SnapshotId::default()
            } else {
                let (bytes, crc) = (get_u64(page, 104), get_u32(page, 112));
                SnapshotId { position: position(88, 96), bytes, crc }
            },
            base: if before { LogPosition::ZERO } else { position(120, 128) },
            first_segment: if before { 0 } else { get_u32(page, 116) },
            disk_id: if before { DiskId::default() } else { DiskId(get_u128(page, 136)) },
            cluster_id: if before { ClusterId::default() } else { ClusterId(get_u128(page, 152)) },
        }))
    }
}

/// The two files, and what was last put into them.
pub(super) struct HardStateFiles {
    files: [Arc<dyn DiskFile>; 2],
    written: Slot,
}

/// What the two files held.
pub(super) struct Loaded {
    files: [Option<Arc<dyn DiskFile>>; 2],
    /// The newest version.
    pub(super) newest: Slot,
    /// Copies of a slot that do not validate, by file and offset: both parities should be written
    /// afresh.
    pub(super) bad_copies: Vec<(&'static str, u64)>,
}

impl Loaded {
    /// The files, a missing one made anew: the first write to the directory after `load`.
    pub(super) fn into_files(self, disk: &dyn Disk) -> Result<HardStateFiles, OpenError> {
        let mut created = false;
        let [first, second] = self.files;
        let mut make = |found: Option<Arc<dyn DiskFile>>, name: &'static str| match found {
            Some(file) => Ok(file),
            None => {
                created = true;
                disk.create_new(name).map_err(OpenError::io(disk, "create", name))
            }
        };
        let files = [make(first, NAMES[0])?, make(second, NAMES[1])?];
        if created {
            disk.sync_directory("").map_err(OpenError::io(disk, "sync", ""))?;
        }
        Ok(HardStateFiles { files, written: self.newest })
    }
}

impl HardStateFiles {
    /// Makes both files with versions 0 and 1 of nothing.
    pub(super) fn create(
        disk: &dyn Disk,
        disk_id: DiskId,
        boot_nonce: u64,
    ) -> Result<HardStateFiles, OpenError> {
        let make = |name: &'static str| -> io::Result<Arc<dyn DiskFile>> {
            let file = disk.create_new(name)?;
            for seq in 0..2 {
                let slot = Slot { seq, boot_nonce, disk_id, ..Slot::default() };
                file.write_at(slot_offset(seq), &slot.encode())?;
            }
            file.sync()?;
            Ok(file)
        };
        let made = |name| make(name).map_err(OpenError::io(disk, "create", name));
        let written = Slot { seq: 1, boot_nonce, disk_id, ..Slot::default() };
        Ok(HardStateFiles { files: [made(NAMES[0])?, made(NAMES[1])?], written })
    }

    /// Reads both files of the directory `disk_id`. The newest version wins; two bad slots of one
    /// parity are `HardStateLost`.
    pub(super) fn load(disk: &dyn Disk, disk_id: DiskId) -> Result<Loaded, OpenError> {
        let mut slots: [[Option<Slot>; 2]; 2] = [[None; 2]; 2];
        let lost = || OpenError::HardStateLost { path: disk.path("") };
        let mut files: [Option<Arc<dyn DiskFile>>; 2] = [None, None];
        for (copy, name) in NAMES.into_iter().enumerate() {
            let file = match disk.open(name) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(OpenError::io(disk, "open", name)(error)),
            };
            file.sync().map_err(OpenError::io(disk, "sync", name))?;
            for (parity, slot) in slots[copy].iter_mut().enumerate() {
                *slot = read_slot(disk, name, &*file, parity)?;
                let said = slot.map(|slot| slot.disk_id).filter(|said| *said != DiskId::default());
                if let Some(found) = said.filter(|said| *said != disk_id) {
                    return Err(OpenError::OtherDisk { path: disk.path(name), found, disk_id });
                }
            }
            files[copy] = Some(file);
        }
        for parity in 0..2 {
            if slots.iter().all(|copy| copy[parity].is_none()) {
                return Err(lost());
            }
        }
        let all = slots.iter().flatten().flatten();
        let newest = *all.max_by_key(|slot| slot.seq).ok_or_else(lost)?;
        let mut bad_copies = Vec::new();
        for (name, slots) in NAMES.iter().zip(&slots) {
            let offsets = [slot_offset(0), slot_offset(1)].into_iter().zip(slots);
            bad_copies.extend(offsets.filter(|(_, it)| it.is_none()).map(|(at, _)| (*name, at)));
        }
        Ok(Loaded { files, newest, bad_copies })
    }

    /// What is in the files, or will be when the job in flight is done.
    pub(super) fn written(&self) -> &Slot {
        &self.written
    }

    /// Puts `slot` behind what is written, with the next number. Returns the operations that make
    /// it durable.
    pub(super) fn stage(&mut self, slot: Slot, operations: &mut Vec<Operation>) {
        let seq = self.written.seq.checked_add(1).expect("2^64 hard states are never written");
        assert!(slot.hard_state.term >= self.written.hard_state.term, "a term never goes back");
        self.written = Slot { seq, ..slot };
        let bytes = Arc::new(self.written.encode());
        for file in &self.files {
            operations.push(Operation::Write {
                file: Arc::clone(file),
                offset: slot_offset(seq),
                bytes: Arc::clone(&bytes),
            });
            operations.push(Operation::Sync { file: Arc::clone(file) });
        }
    }
}

fn read_slot(
    disk: &dyn Disk,
    name: &str,
    file: &dyn DiskFile,
    parity: usize,
) -> Result<Option<Slot>, OpenError> {
    let offset = if parity == 0 { slot_offset(0) } else { slot_offset(1) };
    let page = match file.read_durable(offset, PAGE_BYTES) {
        Ok(page) => page,
        // A sector the device cannot read is a damaged slot: the other file has the other copy.
        Err(_) => return Ok(None),
    };
    let newer = |found| OpenError::Version { path: disk.path(name), found, known: VERSION };
    let slot = Slot::decode(&page).map_err(newer)?;
    // A copy of the other slot, as a misdirected write leaves it, is no slot of this parity.
    Ok(slot.filter(|slot| slot_offset(slot.seq) == offset))
}

fn slot_offset(seq: u64) -> u64 {
    if seq.is_multiple_of(2) { 0 } else { PAGE_OFFSET }
}

/// Where the odd slot begins.
const PAGE_OFFSET: u64 = 4096;
const _: () = assert!(PAGE_BYTES == 4096);

/// Whether the files, if any, hold nothing that a server has said: never more than `create` wrote.
pub(super) fn is_blank(disk: &dyn Disk) -> Result<bool, OpenError> {
    for name in NAMES {
        let file = match disk.open(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(OpenError::io(disk, "open", name)(error)),
        };
        for parity in 0..2 {
            let said = read_slot(disk, name, &*file, parity)?;
            if said.is_some_and(|slot| slot.seq > 1) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
