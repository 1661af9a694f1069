//! A queue in chunks that never move: growing costs one chunk. `std`'s copies everything to twice
//! the room, which with a million changes was one turn of tens of milliseconds.

use std::collections::VecDeque;

/// Values to a chunk, as a power of two.
const CHUNK_BITS: u32 = 12;
const CHUNK_LENGTH: usize = 1 << CHUNK_BITS;

/// First in, first out, and everything in it has a place, counted from the first.
pub(super) struct Queue<T> {
    /// All but the last are full.
    chunks: VecDeque<Vec<T>>,
    /// So many of the first chunk are taken: fewer than it holds.
    taken: usize,
    /// A chunk that was emptied waits to be the next: a queue that is as long as before allocates
    /// nothing.
    spare: Vec<T>,
}

impl<T: Copy> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue { chunks: VecDeque::new(), taken: 0, spare: Vec::new() }
    }

    #[inline]
    pub(super) fn push_back(&mut self, value: T) {
        if let Some(last) = self.chunks.back_mut().filter(|last| last.len() < CHUNK_LENGTH) {
            return last.push(value);
        }
        let mut chunk = std::mem::take(&mut self.spare);
        chunk.reserve_exact(CHUNK_LENGTH);
        chunk.push(value);
        self.chunks.push_back(chunk);
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<&T> {
        let place = self.taken + place;
        self.chunks.get(place >> CHUNK_BITS)?.get(place & (CHUNK_LENGTH - 1))
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&T> {
        self.get(0)
    }

    #[inline]
    pub(super) fn back(&self) -> Option<&T> {
        self.chunks.back()?.last()
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let first = self.front().copied()?;
        self.drop_front(1);
        Some(first)
    }

    /// Takes out the first `count`, or all if they are fewer.
    pub(super) fn drop_front(&mut self, count: usize) {
        self.taken += count.min(self.len());
        while let Some(first) = self.chunks.front_mut().filter(|first| first.len() <= self.taken) {
            self.taken -= first.len();
            self.spare = std::mem::take(first);
            self.spare.clear();
            self.chunks.pop_front();
        }
    }

    pub(super) fn len(&self) -> usize {
        let Some(last) = self.chunks.back() else { return 0 };
        ((self.chunks.len() - 1) << CHUNK_BITS) + last.len() - self.taken
    }

    /// The first place for which `before` does not hold. It holds for none behind that.
    pub(super) fn partition_point(&self, before: impl Fn(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_what_a_queue_of_std_does() {
        let (mut queue, mut model) = (Queue::new(), VecDeque::new());
        // Shorter than a chunk, as long as one and two, longer, and nothing, again and again.
        for (pushed, kept) in
            [(5000, 4096), (4096, 4095), (9000, 8192), (1, 1), (1, 0), (20_000, 0)]
        {
            for value in 0..pushed {
                queue.push_back(value);
                model.push_back(value);
            }
            assert_eq!(queue.pop_front(), model.pop_front());
            let gone = model.len().saturating_sub(kept);
            queue.drop_front(gone);
            model.drain(..gone);

            let ends = (model.len(), model.front(), model.back());
            assert_eq!((queue.len(), queue.front(), queue.back()), ends);
            assert!((0..=model.len()).all(|place| queue.get(place) == model.get(place)));
        }
        queue.drop_front(1);
        assert_eq!((queue.len(), queue.pop_front()), (0, None));
    }

    #[test]
    fn what_is_searched_is_found() {
        let mut queue = Queue::new();
        for value in 0..9000 {
            queue.push_back(value);
        }
        queue.drop_front(100);
        for bound in [0, 100, 101, 4096, 5000, 8999, 9000, 9001] {
            let found = queue.partition_point(|value| *value < bound);
            assert_eq!(found, bound.clamp(100, 9000) - 100);
        }
    }

    #[test]
    fn what_is_in_it_never_moves_and_a_chunk_is_used_again() {
        let mut queue = Queue::new();
        queue.push_back(0);
        let place = std::ptr::from_ref(queue.get(0).unwrap());
        for value in 1..10 * CHUNK_LENGTH {
            queue.push_back(value);
        }
        assert_eq!(std::ptr::from_ref(queue.get(0).unwrap()), place);

        let second = std::ptr::from_ref(queue.get(CHUNK_LENGTH).unwrap());
        queue.drop_front(2 * CHUNK_LENGTH);
        queue.push_back(0);
        assert_eq!(std::ptr::from_ref(queue.back().unwrap()), second, "the last one emptied");
    }
}
