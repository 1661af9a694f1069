//! One file: what readers see, what the platters hold, and what lies between.

use crate::chance::{Chance, MILLION, usize_of};
use std::sync::Arc;

pub(crate) const PAGE: usize = 4096;
pub(crate) const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

static ZEROS: [u8; PAGE] = [0; PAGE];

/// What a power loss does to pages that no sync covered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tearing {
    /// In a million: such a page is lost.
    pub(crate) lost: u64,
    /// In a million: it is torn, sector by sector; else it is there.
    pub(crate) torn: u64,
}

impl Default for Tearing {
    fn default() -> Tearing {
        Tearing { lost: MILLION / 3, torn: MILLION / 3 }
    }
}

/// What became of the pages at a power loss.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Losses {
    pub(crate) lost: u32,
    pub(crate) kept: u32,
    pub(crate) torn: u32,
    pub(crate) names: u32,
}

/// A file. Pages of zeros take no memory; a page that is clean is shared with the platters.
#[derive(Debug, Default)]
pub(super) struct Content {
    len: usize,
    durable_len: usize,
    cache: Vec<Option<Page>>,
    durable: Vec<Option<Page>>,
    /// Pages written since the last sync, ascending.
    dirty: Vec<usize>,
}

impl Content {
    /// The same, to be used by itself.
    pub(super) fn copy(&self) -> Content {
        Content {
            len: self.len,
            durable_len: self.durable_len,
            cache: self.cache.clone(),
            durable: self.durable.clone(),
            dirty: self.dirty.clone(),
        }
    }
}

fn grow(pages: &mut Vec<Option<Page>>, len: usize) {
    pages.resize(len.div_ceil(PAGE).max(pages.len()), None);
}

fn copy(pages: &[Option<Page>], from: usize, len: usize, out: &mut Vec<u8>) {
    let mut at = from;
    while at < from + len {
        let within = at % PAGE;
        let count = (PAGE - within).min(from + len - at);
        match pages.get(at / PAGE).and_then(Option::as_ref) {
            Some(page) => out.extend_from_slice(&page[within..within + count]),
            None => out.resize(out.len() + count, 0),
        }
        at += count;
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn allocate(&mut self, len: usize) {
        self.len = len;
        grow(&mut self.cache, len);
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.len = self.len.max(end);
        grow(&mut self.cache, end);
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE, at % PAGE);
            let count = (PAGE - within).min(end - at);
            let part = &bytes[at - offset..at - offset + count];
            at += count;
            let slot = &mut self.cache[page];
            let blank = slot.is_none() && self.durable.get(page).is_none_or(Option::is_none);
            if blank && part == &ZEROS[..count] {
                continue;
            }
            let target = slot.get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(target)[within..within + count].copy_from_slice(part);
            if let Err(place) = self.dirty.binary_search(&page) {
                self.dirty.insert(place, page);
            }
        }
    }

    /// Whether a sync would write anything.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.len != self.durable_len
    }

    pub(super) fn sync(&mut self) {
        grow(&mut self.durable, self.len);
        self.durable_len = self.len;
        for page in self.dirty.drain(..) {
            self.durable[page].clone_from(&self.cache[page]);
        }
    }

    /// A sync that failed: the pages count as clean and are on no platter.
    pub(super) fn forget_dirty(&mut self) {
        self.dirty.clear();
    }

    /// From memory, as a map shows it.
    pub(super) fn read_cached(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        assert!(offset + len <= self.len, "bytes {offset}+{len} of a map of {}", self.len);
        copy(&self.cache, offset, len, out);
    }

    /// Past the cache: what was written and not given up reaches the device first, though not its
    /// platters.
    pub(super) fn read_medium(&self, offset: usize, len: usize) -> Vec<u8> {
        let end = (offset + len).min(self.len).max(offset);
        let mut out = Vec::with_capacity(end - offset);
        let mut at = offset;
        while at < end {
            let count = (PAGE - at % PAGE).min(end - at);
            let dirty = self.dirty.binary_search(&(at / PAGE)).is_ok();
            let pages = if dirty { &self.cache } else { &self.durable };
            copy(pages, at, count, &mut out);
            at += count;
        }
        out
    }

    /// From the platters alone.
    pub(super) fn read_platter(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        copy(&self.durable, offset, len, out);
    }

    /// Whether the platters hold anything but zeros there.
    pub(super) fn has_platter_page(&self, page: usize) -> bool {
        self.durable.get(page).is_some_and(Option::is_some)
    }

    /// Changes bytes on the platters behind everybody's back; the cache has read them again.
    pub(super) fn corrupt(&mut self, offset: usize, change: impl Fn(&mut u8)) {
        let page = offset / PAGE;
        if let Some(Some(target)) = self.durable.get_mut(page) {
            change(&mut Arc::make_mut(target)[offset % PAGE]);
            if self.dirty.binary_search(&page).is_err() {
                self.cache[page].clone_from(&self.durable[page]);
            }
        }
    }

    /// The power goes: each page that no sync covered is there, lost, or torn between sectors.
    pub(super) fn lose_power(&mut self, chance: &mut Chance, tearing: Tearing) -> Losses {
        let mut losses = Losses::default();
        if self.len != self.durable_len && chance.one_in(2) {
            self.durable_len = self.len;
        }
        grow(&mut self.durable, self.len.max(self.durable_len));
        for page in std::mem::take(&mut self.dirty) {
            let Some(new) = self.cache[page].clone() else { continue };
            let fate = chance.below(MILLION);
            if fate < tearing.lost {
                losses.lost += 1;
            } else if fate < tearing.lost + tearing.torn {
                losses.torn += 1;
                let old = self.durable[page].get_or_insert_with(|| Arc::new([0; PAGE]));
                let old = Arc::make_mut(old);
                let torn = chance.draw();
                for (nth, sector) in new.chunks(SECTOR).enumerate() {
                    if torn >> nth & 1 == 1 {
                        old[nth * SECTOR..(nth + 1) * SECTOR].copy_from_slice(sector);
                    }
                }
            } else {
                losses.kept += 1;
                self.durable[page] = Some(new);
            }
        }
        self.len = self.durable_len;
        self.durable.truncate(self.len.div_ceil(PAGE));
        self.cache.clone_from(&self.durable);
        losses
    }
}

/// Where a thing on disk begins.
pub(super) fn offset_of(place: u64) -> usize {
    usize_of(place)
}
