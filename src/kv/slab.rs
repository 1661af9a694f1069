//! Values by small integer, in chunks that never move: growing costs one chunk, never a copy of
//! them all.

/// Values to a chunk, as a power of two. 4096 of 64 bytes: 256 KiB, which the kernel hands out page
/// by page as they are first used.
const CHUNK_BITS: u32 = 12;
const CHUNK_LENGTH: usize = 1 << CHUNK_BITS;

pub(super) struct Slab<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { chunks: Vec::new() }
    }

    /// Adds a value and says where. Panics at 2^32 - 1 values, whose entries alone are 256 GiB.
    pub(super) fn push(&mut self, value: T) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LENGTH) {
            self.chunks.push(Vec::with_capacity(CHUNK_LENGTH));
        }
        let before = (self.chunks.len() - 1) << CHUNK_BITS;
        let chunk = self.chunks.last_mut().expect("a chunk with room was pushed above");
        let at = u32::try_from(before + chunk.len()).expect("fewer than 2^32 values fit memory");
        assert!(at < u32::MAX, "u32::MAX stands for none");
        chunk.push(value);
        at
    }

    #[inline]
    pub(super) fn at(&self, at: u32) -> &T {
        let (chunk, within) = place(at);
        &self.chunks[chunk][within]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, at: u32) -> &mut T {
        let (chunk, within) = place(at);
        &mut self.chunks[chunk][within]
    }
}

#[inline]
fn place(at: u32) -> (usize, usize) {
    let at = usize::try_from(at).expect("raftd runs on 64 bits");
    (at >> CHUNK_BITS, at & (CHUNK_LENGTH - 1))
}
