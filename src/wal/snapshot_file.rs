//! A snapshot's file: blocks, each with a checksum, and a checksum over all of them.
//!
//! ```text
//! snap/<index %020d>-<term %020d>-<bytes>-<crc %08x>.snap    in force, or garbage of a switch
//!                                                            that did not happen
//!      <the same>.part     being received; goes on after a restart
//!      <index>-<term>.tmp  being written; removed at the next start
//!
//! block  0 4 crc32 of the rest of the block    4 4 payload length
//!        8 4 number of the block, from 0      12 4 kind: 1 head, 2 data, 3 end
//!       16   payload
//! head   0 8 magic "RAFTDSNP"    8 4 version 1   12 4 zero
//!       16 16 cluster_id        32 8 genesis     40 8 last index   48 8 last term
//!       56 8 index of the configuration's entry  64   that entry's payload
//! data   values of the store's checkpoint, whole ones
//! end    0 8 bytes of the file before this block  8 4 crc32 of those bytes  12 4 zero
//! ```
//!
//! Little endian. The file says nothing of who wrote it: a leader sends the bytes as they stand,
//! and its follower keeps them. Cut short it has no end; a block that moved has another number.
//!
//! What a crash leaves: part of a `.tmp` or `.part`; or a `.snap` that the hard state does not
//! name, which is removed. The one it names was read back and found whole before.

use super::disk::DiskFile;
use super::record::{get_u32, get_u64, get_u128, u32_of, usize_of};
use crate::codec::crc;
use crate::limits::{PAGE_BYTES, REQUEST_BYTES_MAX, SNAPSHOT_BLOCK_BYTES};
use crate::types::{ClusterId, LogIndex, LogPosition, SnapshotId, Term};
use std::fmt;
use std::io;

/// Where snapshots are.
pub(super) const SNAP: &str = "snap";

const MAGIC: &[u8; 8] = b"RAFTDSNP";
const VERSION: u32 = 1;
const BLOCK_HEADER_BYTES: usize = 16;
const HEAD_BYTES: usize = 64;
const END_BYTES: usize = 16;
/// Largest payload of a block: a full one and one value of any size. Bytes.
const PAYLOAD_BYTES_MAX: usize = SNAPSHOT_BLOCK_BYTES + REQUEST_BYTES_MAX + 4096;

const HEAD: u32 = 1;
const DATA: u32 = 2;
const END: u32 = 3;

/// The file of a snapshot in force. Other bytes have another name: a file that is in force is never
/// replaced.
pub(super) fn snapshot_name(id: SnapshotId) -> String {
    format!("{}.snap", stem(id))
}

/// The file of a snapshot that is being written.
pub(super) fn unfinished_name(position: LogPosition) -> String {
    format!("{SNAP}/{:020}-{:020}.tmp", position.index.get(), position.term.get())
}

/// The file of a snapshot that is being received: it can be recognised after a restart.
pub(super) fn part_name(id: SnapshotId) -> String {
    format!("{}.part", stem(id))
}

/// Whether the file of that name is of a snapshot, or of a part of one, that ends at `index` or
/// before. Names begin with the index, in digits of one length: they are in its order.
pub(super) fn stands_for_at_most(name: &str, index: LogIndex) -> bool {
    let next = format!("{SNAP}/{:020}", index.next().get());
    name < next.as_str()
}

fn stem(id: SnapshotId) -> String {
    let SnapshotId { position: LogPosition { term, index }, bytes, crc } = id;
    format!("{SNAP}/{:020}-{:020}-{bytes}-{crc:08x}", index.get(), term.get())
}

/// What a snapshot stands for, beside the state of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Hash of its bootstrap configuration.
    pub genesis: u64,
    /// The last entry in it.
    pub position: LogPosition,
    /// The index of the newest configuration entry at or below that.
    pub configuration_index: LogIndex,
    /// Its payload.
    pub configuration: Vec<u8>,
}

impl SnapshotHead {
    fn encode(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_BYTES + self.configuration.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&self.cluster_id.0.to_le_bytes());
        let LogPosition { term, index } = self.position;
        for number in [self.genesis, index.get(), term.get(), self.configuration_index.get()] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        head.extend_from_slice(&self.configuration);
        head
    }

    fn decode(head: &[u8]) -> Result<SnapshotHead, SnapshotDamage> {
        if head.len() < HEAD_BYTES || &head[..8] != MAGIC {
            return Err(SnapshotDamage::of("its first block is not a head"));
        }
        if get_u32(head, 8) != VERSION {
            return Err(SnapshotDamage::of("it was written by another version of raftd"));
        }
        let number = |at| get_u64(head, at);
        Ok(SnapshotHead {
            cluster_id: ClusterId(get_u128(head, 16)),
            genesis: number(32),
            position: LogPosition::new(Term::new(number(48)), LogIndex::new(number(40))),
            configuration_index: LogIndex::new(number(56)),
            configuration: head[HEAD_BYTES..].to_vec(),
        })
    }
}

/// Why a snapshot's file cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotDamage {
    what: &'static str,
    /// Where the block begins that is damaged, if that is known.
    at: Option<u64>,
}

impl SnapshotDamage {
    /// `what` is wrong with it.
    pub const fn of(what: &'static str) -> SnapshotDamage {
        SnapshotDamage { what, at: None }
    }

    /// The same, in the block that begins at byte `at`.
    #[must_use]
    pub const fn at(self, at: u64) -> SnapshotDamage {
        SnapshotDamage { at: Some(at), ..self }
    }

    /// Where the block begins that is damaged, if that is known. Bytes from the start of the file.
    pub const fn offset(self) -> Option<u64> {
        self.at
    }
}

impl fmt::Display for SnapshotDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "the snapshot is damaged at byte {at}: {}", self.what),
            None => write!(f, "the snapshot is damaged: {}", self.what),
        }
    }
}

impl std::error::Error for SnapshotDamage {}

/// Puts blocks one after the other.
pub(super) struct BlockWriter {
    file_crc: crc::Crc32,
    bytes: u64,
    blocks: u32,
}

impl BlockWriter {
    /// An empty file.
    pub(super) fn new() -> BlockWriter {
        BlockWriter { file_crc: crc::Crc32::new(), bytes: 0, blocks: 0 }
    }

    /// The length of the blocks so far. Bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first block.
    pub(super) fn head(&mut self, head: &SnapshotHead) -> Vec<u8> {
        self.block(HEAD, &head.encode())
    }

    /// Writes a block of the checkpoint behind those before. It is large, and not copied behind its
    /// header. Blocks.
    pub(super) fn write_data(&mut self, payload: &[u8], file: &dyn DiskFile) -> io::Result<()> {
        let at = self.bytes;
        let header = self.header(DATA, payload);
        file.write_at(at, &header)?;
        file.write_at(at + u64::try_from(header.len()).expect("it is short"), payload)
    }

    /// The last block, and the length and checksum that name the file.
    pub(super) fn end(&mut self) -> (Vec<u8>, u64, u32) {
        let crc = self.file_crc.value();
        let mut end = self.bytes.to_le_bytes().to_vec();
        end.extend_from_slice(&crc.to_le_bytes());
        end.resize(END_BYTES, 0);
        let block = self.block(END, &end);
        (block, self.bytes, crc)
    }

    fn block(&mut self, kind: u32, payload: &[u8]) -> Vec<u8> {
        [&self.header(kind, payload)[..], payload].concat()
    }

    fn header(&mut self, kind: u32, payload: &[u8]) -> [u8; BLOCK_HEADER_BYTES] {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a block of {} bytes", payload.len());
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[4..8].copy_from_slice(&u32_of(payload.len()).to_le_bytes());
        header[8..12].copy_from_slice(&self.blocks.to_le_bytes());
        header[12..].copy_from_slice(&kind.to_le_bytes());
        let crc = crc::crc32(&[&header[4..], payload]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        self.file_crc.update(&header);
        self.file_crc.update(payload);
        let bytes = header.len() + payload.len();
        self.bytes += u64::try_from(bytes).expect("usize is at most 64 bits");
        self.blocks = self.blocks.checked_add(1).expect("2^32 blocks are never written");
        header
    }
}

/// A block, found whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Block {
    /// The first one.
    Head(SnapshotHead),
    /// Values of the checkpoint.
    Data(Vec<u8>),
    /// The last one: the file has this length and checksum.
    End {
        /// Of the whole file. Bytes.
        bytes: u64,
        /// Of all before the end.
        crc: u32,
    },
}

/// Finds the blocks in a file's bytes, given in order in pieces of any size, and checks them.
pub(super) struct BlockReader {
    waiting: Vec<u8>,
    /// Where the next block begins in `waiting`: what was found is taken away once a piece, and not
    /// once a block.
    next_at: usize,
    file_crc: crc::Crc32,
    /// Bytes of the blocks found.
    bytes: u64,
    blocks: u32,
    ended: bool,
}

impl BlockReader {
    /// Nothing read yet.
    pub(super) fn new() -> BlockReader {
        BlockReader {
            waiting: Vec::new(),
            next_at: 0,
            file_crc: crc::Crc32::new(),
            bytes: 0,
            blocks: 0,
            ended: false,
        }
    }

    /// The next bytes of the file.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.waiting.drain(..self.next_at);
        self.next_at = 0;
        self.waiting.extend_from_slice(piece);
    }

    /// How many bytes the blocks found so far take: up to here the file is whole.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets the bytes behind the last block found: they come again.
    pub(super) fn rewind(&mut self) {
        self.waiting.clear();
        self.next_at = 0;
    }

    /// Whether the end was found.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next block, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Block>, SnapshotDamage> {
        let waiting = &self.waiting[self.next_at..];
        if waiting.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        if self.ended {
            return Err(SnapshotDamage::of("bytes follow its end"));
        }
        let (length, number) = (usize_of(get_u32(waiting, 4)), get_u32(waiting, 8));
        if length > PAYLOAD_BYTES_MAX || number != self.blocks {
            return Err(SnapshotDamage::of("a block has a header that no block has"));
        }
        let all = BLOCK_HEADER_BYTES + length;
        if waiting.len() < all {
            return Ok(None);
        }
        let block = &waiting[..all];
        if get_u32(block, 0) != crc::crc32(&[&block[4..]]) {
            return Err(SnapshotDamage::of("a block fails its checksum"));
        }
        let found = self.decode(get_u32(block, 12), &block[BLOCK_HEADER_BYTES..])?;
        self.file_crc.update(block);
        self.bytes += u64::try_from(all).expect("usize is at most 64 bits");
        self.blocks += 1;
        self.ended = matches!(found, Block::End { .. });
        self.next_at += all;
        Ok(Some(found))
    }

    fn decode(&self, kind: u32, payload: &[u8]) -> Result<Block, SnapshotDamage> {
        match kind {
            HEAD if self.blocks == 0 => Ok(Block::Head(SnapshotHead::decode(payload)?)),
            DATA if self.blocks > 0 => Ok(Block::Data(payload.to_vec())),
            END if self.blocks > 0 && payload.len() == END_BYTES => {
                let (before, crc) = (get_u64(payload, 0), get_u32(payload, 8));
                if before != self.bytes || crc != self.file_crc.value() {
                    return Err(SnapshotDamage::of("its end does not fit what is before"));
                }
                let own = BLOCK_HEADER_BYTES + END_BYTES;
                let own = u64::try_from(own).expect("usize is at most 64 bits");
                Ok(Block::End { bytes: before + own, crc })
            }
            _ => Err(SnapshotDamage::of("a block is out of place")),
        }
    }
}

/// The checksum that the end of a file of `bytes` states; `None` if there is no end.
pub(super) fn stated_crc(file: &dyn DiskFile, bytes: u64) -> io::Result<Option<u32>> {
    let Some(at) = bytes.checked_sub(end_block_bytes()) else { return Ok(None) };
    // Reads begin at a page's boundary, for O_DIRECT.
    let page = at - at % u64::try_from(PAGE_BYTES).expect("usize is at most 64 bits");
    let skip = usize::try_from(at - page).expect("a page is small");
    let read = file.read_durable(page, skip + BLOCK_HEADER_BYTES + END_BYTES)?;
    Ok(read.get(skip..).and_then(|end| crc_in_end(end, at)))
}

/// The checksum that the block at the end of a file states, of all `before` it.
fn crc_in_end(end: &[u8], before: u64) -> Option<u32> {
    let sound = end.len() == BLOCK_HEADER_BYTES + END_BYTES
        && get_u32(end, 0) == crc::crc32(&[&end[4..]])
        && get_u32(end, 12) == END
        && get_u64(end, BLOCK_HEADER_BYTES) == before;
    sound.then(|| get_u32(end, BLOCK_HEADER_BYTES + 8))
}

fn end_block_bytes() -> u64 {
    u64::try_from(BLOCK_HEADER_BYTES + END_BYTES).expect("usize is at most 64 bits")
}

/// Looks at the bytes of a file that is read from its beginning, piece by piece, for somebody else:
/// whether they are what its name says.
#[derive(Clone, Debug)]
pub struct SnapshotCheck {
    id: SnapshotId,
    read: u64,
    before_end: crc::Crc32,
    end: Vec<u8>,
}

impl SnapshotCheck {
    /// Nothing read yet.
    pub fn begin(id: SnapshotId) -> SnapshotCheck {
        SnapshotCheck { id, read: 0, before_end: crc::Crc32::new(), end: Vec::new() }
    }

    /// Up to where the file was read. Bytes.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// The next piece.
    pub fn push(&mut self, piece: &[u8]) {
        let left = self.id.bytes.saturating_sub(end_block_bytes()).saturating_sub(self.read);
        let before = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        self.before_end.update(&piece[..before]);
        self.end.extend_from_slice(&piece[before..]);
        self.read += u64::try_from(piece.len()).expect("usize is at most 64 bits");
    }

    /// Whether all was read, and some of it is damaged.
    pub fn found_damage(&self) -> bool {
        let before = self.id.bytes.saturating_sub(end_block_bytes());
        let stated = crc_in_end(&self.end, before);
        let sound = stated == Some(self.id.crc) && self.before_end.value() == self.id.crc;
        self.read >= self.id.bytes && !sound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> SnapshotHead {
        SnapshotHead {
            cluster_id: ClusterId(5),
            genesis: 6,
            position: LogPosition::new(Term::new(3), LogIndex::new(900)),
            configuration_index: LogIndex::new(1),
            configuration: b"members".to_vec(),
        }
    }

    fn file() -> (Vec<u8>, u64, u32) {
        let mut writer = BlockWriter::new();
        let mut bytes = writer.head(&head());
        bytes.extend(writer.block(DATA, b"one"));
        bytes.extend(writer.block(DATA, &[7; 5000]));
        let (end, length, crc) = writer.end();
        bytes.extend(end);
        (bytes, length, crc)
    }

    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Block>, SnapshotDamage> {
        let mut reader = BlockReader::new();
        let mut blocks = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(block) = reader.next()? {
                blocks.push(block);
            }
        }
        if reader.ended() { Ok(blocks) } else { Err(SnapshotDamage::of("cut short")) }
    }

    #[test]
    fn what_is_written_is_read_in_pieces_of_any_size() {
        let (bytes, length, crc) = file();
        assert_eq!(u64::try_from(bytes.len()), Ok(length));
        for piece in [1, 7, 16, 100, 100_000] {
            let blocks = read(&bytes, piece).expect("whole");
            let data = [Block::Data(b"one".to_vec()), Block::Data(vec![7; 5000])];
            assert_eq!(blocks[0], Block::Head(head()));
            assert_eq!(blocks[1..3], data);
            assert_eq!(blocks[3], Block::End { bytes: length, crc });
        }
    }

    #[test]
    fn a_file_cut_anywhere_or_with_any_bit_flipped_is_damaged() {
        let (bytes, ..) = file();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end], 4096).is_err(), "cut at {end}");
        }
        for at in (0..bytes.len()).filter(|at| *at < 300 || at % 97 == 0) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read(&flipped, 4096).is_err(), "flipped at {at}");
        }
        let twice = [bytes.clone(), bytes].concat();
        assert!(read(&twice, 4096).is_err());
    }
}
