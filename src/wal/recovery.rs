//! Reading a segment back: which records are whole, and which ranges are not.

use super::Place;
use super::record::{FIRST, Header, RecordKind, Site, padded, payload_crc, wide};
use super::segment::DATA_START;
use crate::limits::{PAGE_BYTES, RECORD_HEADER_BYTES};

/// A sector of the device: what it writes whole. Bytes.
const SECTOR_BYTES: usize = 512;

/// What lies at a place of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// A whole record.
    Record(Header),
    /// A valid header whose payload is not what was written.
    BadPayload {
        header: Header,
        /// Some sector of it is all zero, as un-synced pages leave it.
        torn: bool,
    },
    /// No valid header here; the range ends where the next batch begins, or with the file.
    BadHeader {
        /// Where the range ends.
        end: u32,
        /// The place of the header is all zero: its sector never reached the disk.
        torn: bool,
    },
}

/// One thing found, with its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) found: Found,
}

/// All that a segment holds, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) items: Vec<Item>,
    /// Behind the last record, where it is not zero. Bytes.
    pub(super) end: usize,
    /// The checksum of the last whole header; the next record repeats it.
    pub(super) prev_crc: u32,
    /// The footer was found.
    pub(super) sealed: bool,
}

/// Scans a segment's bytes.
pub(super) fn scan(bytes: &[u8], salt: u64, sequence: u32) -> Scan {
    let mut scan = Scan { end: DATA_START, ..Scan::default() };
    let mut offset = DATA_START;
    while offset < bytes.len() && !bytes[offset..].iter().all(|byte| *byte == 0) {
        let site = |offset: usize| Site { salt, segment: sequence, offset: narrow(offset) };
        let place = Place { segment: sequence, offset: narrow(offset) };
        match Header::decode(site(offset), &bytes[offset..]) {
            Some((header, crc)) => {
                let found = check_payload(bytes, offset, header);
                scan.items.push(Item { place, found });
                scan.prev_crc = crc;
                scan.sealed |= header.kind == RecordKind::Footer;
                offset += RECORD_HEADER_BYTES + padded(wide(header.payload_len));
                scan.end = offset;
            }
            None => {
                let next = next_batch(bytes, offset, site);
                let head = &bytes[offset..(offset + RECORD_HEADER_BYTES).min(bytes.len())];
                let torn = head.iter().all(|byte| *byte == 0);
                let found = Found::BadHeader { end: narrow(next.unwrap_or(bytes.len())), torn };
                scan.items.push(Item { place, found });
                offset = next.unwrap_or(bytes.len());
            }
        }
    }
    scan
}

fn narrow(offset: usize) -> u32 {
    super::record::narrow(offset)
}

/// The next page boundary behind `offset` at which a batch begins.
fn next_batch(bytes: &[u8], offset: usize, site: impl Fn(usize) -> Site) -> Option<usize> {
    let first = (offset + 1).next_multiple_of(PAGE_BYTES);
    (first..bytes.len()).step_by(PAGE_BYTES).find(|page| {
        Header::decode(site(*page), &bytes[*page..])
            .is_some_and(|(header, _)| header.flags & FIRST != 0)
    })
}

fn check_payload(bytes: &[u8], offset: usize, header: Header) -> Found {
    if header.kind == RecordKind::Pad || header.kind == RecordKind::SyncMark {
        return Found::Record(header);
    }
    let start = offset + RECORD_HEADER_BYTES;
    let end = start + wide(header.payload_len);
    let Some(payload) = bytes.get(start..end) else {
        return Found::BadPayload { header, torn: false };
    };
    if payload_crc(header.position, header.prev_term, payload) == header.payload_crc {
        Found::Record(header)
    } else {
        Found::BadPayload { header, torn: has_zero_sector(bytes, offset, end) }
    }
}

/// Whether some part of `[from, to)` that lies in one sector is all zero: a sector that was not
/// written.
/// Parts shorter than a header prove nothing but at the end, where a short rest of a payload may
/// be all there is.
fn has_zero_sector(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut start = from;
    while start < to {
        let end = (start + 1).next_multiple_of(SECTOR_BYTES).min(to);
        if bytes[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}
