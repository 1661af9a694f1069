//! Mending what a crash left: the end of the log, so that the next batch stands on clean ground,
//! and a header page of two.
//!
//! Only what no sync covered is written to, and what is bad. Each step leaves, if a crash cuts it
//! short, what a crash could have left before: the next start judges it the same and repeats the
//! step.

use super::disk::DiskFile;
use super::identity::Identity;
use super::record::{
    FooterRow, HEADER_BYTES, PAD_BYTE, PAGE, Place, RecordKind, RecordLinks, lay, page_up,
    put_head, trailer_page, usize_of,
};
use super::replay::Replay;
use super::scan::SegmentScan;
use super::segment::{DATA_START, Segment, SegmentHeader};
use super::staging::marker;
use crate::limits::PAGE_BYTES;
use std::io;

/// Where a log goes on.
pub(super) struct Resume {
    /// The next batch's place.
    pub(super) place: Place,
    /// The header CRC of the record before it in its segment.
    pub(super) chain: u32,
    /// The rows of that segment so far.
    pub(super) rows: Vec<FooterRow>,
}

/// Mends the segment in which the log ends.
pub(super) fn tail(scan: &SegmentScan, segment: &Segment, replay: &Replay) -> io::Result<Resume> {
    match replay.footer {
        Some(footer) => closed(scan, segment, replay, footer),
        None => open(scan, segment, replay),
    }
}

/// Writes the header page of number `bad` anew, by the other one: when that rots, this one must do.
pub(super) fn header(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    bad: usize,
    identity: &Identity,
) -> io::Result<()> {
    let pages = header.encode(identity);
    let at = bad * PAGE_BYTES;
    file.write_at(header_offset(bad), &pages[at..at + PAGE_BYTES])?;
    file.sync()
}

/// Where a header page begins. Bytes.
pub(super) fn header_offset(page: usize) -> u64 {
    u64::try_from(page * PAGE_BYTES).expect("there are two")
}

/// Zeroes what a torn batch left behind the last record, then pads that record's page.
fn open(scan: &SegmentScan, segment: &Segment, replay: &Replay) -> io::Result<Resume> {
    let cut = replay.torn_at.unwrap_or(replay.end);
    // Behind a hole that held nothing a PAD must stand, or the next start finds nobody to vouch for
    // the hole.
    let resume = if cut == replay.end { page_up(cut.offset) } else { page_up(cut.offset + 1) };
    if scan.zero_from > resume {
        let zeros = vec![0; usize_of(scan.zero_from - resume)];
        segment.file.write_at(u64::from(resume), &zeros)?;
        segment.file.sync()?;
    }
    let chain = write_pad(segment, cut, resume, replay)?;
    let place = Place { segment: segment.seq, offset: resume };
    Ok(Resume { place, chain, rows: replay.rows.clone() })
}

/// Completes a segment whose FOOTER stands: what follows it is padding and the trailer.
fn closed(
    scan: &SegmentScan,
    segment: &Segment,
    replay: &Replay,
    (footer_offset, footer_crc): (u32, u32),
) -> io::Result<Resume> {
    if let Some(cut) = replay.torn_at {
        write_pad(segment, cut, page_up(cut.offset), replay)?;
    }
    if scan.zero_from < segment.file_len {
        let page = Place { segment: segment.seq, offset: segment.file_len - PAGE };
        let trailer = trailer_page(segment.salt, page, footer_offset, footer_crc);
        segment.file.write_at(u64::from(page.offset), &trailer)?;
        segment.file.sync()?;
    }
    let place = Place { segment: segment.seq + 1, offset: DATA_START };
    Ok(Resume { place, chain: 0, rows: Vec::new() })
}

/// Fills `cut..until`, a page at most, with a PAD. Returns the CRC of the last header then. The
/// records before the cut share the page; they are not rewritten, and a sector is written whole or
/// not at all. A PAD that tears is no loss.
fn write_pad(segment: &Segment, cut: Place, until: u32, replay: &Replay) -> io::Result<u32> {
    if until == cut.offset {
        return Ok(replay.chain);
    }
    let mut pad = vec![PAD_BYTE; usize_of(until - cut.offset)];
    let (header, payload) = pad.split_at_mut(usize_of(HEADER_BYTES));
    let last = replay.last();
    put_head(header, &marker(RecordKind::Pad, last, payload));
    let links = RecordLinks {
        // Everything before was read from the medium.
        synced: cut,
        commit: replay.commit.min(last.index),
        prev_crc: replay.chain,
        first: false,
        last: true,
    };
    let crc = lay(header, segment.salt, cut, &links);
    segment.file.write_at(u64::from(cut.offset), &pad)?;
    segment.file.sync()?;
    Ok(crc)
}
