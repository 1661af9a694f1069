//! What waits for a socket. The kernel takes from its front as much as it likes.

use crate::limits;

/// An empty buffer is kept for reuse up to this, while there is plenty of room. Bytes.
pub(super) const SPARE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that wait for the socket.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(super) bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// What is still to be written.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes that the kernel took `count` bytes; the buffer is reused once it is empty.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.bytes.len(), "the kernel cannot take more than it was offered");
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            if self.bytes.capacity() > 4 * limits::CONNECTION_OUT_HIGH_WATER {
                self.bytes.shrink_to(limits::CONNECTION_OUT_HIGH_WATER);
            }
        } else if self.sent >= SPARE_BYTES_MAX && self.sent >= self.bytes.len() / 2 {
            // Whoever is always a little behind would make it grow for ever.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is always a little behind, and never empty.
    #[test]
    fn every_byte_leaves_once_and_in_order_however_much_is_taken() {
        let byte = |at: usize| u8::try_from(at % 251).expect("below 251");
        for taken in [1_000, 50_000, 70_000, 150_000] {
            let mut out = Outbox::default();
            let (mut written, mut left) = (0, 0);
            while left < 1_000_000 {
                out.bytes.extend((written..left + 200_000).map(byte));
                written = left + 200_000;
                let unsent = out.unsent();
                assert_eq!(unsent.len(), written - left);
                assert!(unsent.iter().zip(left..).all(|(found, at)| *found == byte(at)));
                out.advance(taken);
                left += taken;
            }
        }
    }

    /// Nobody ever found it empty, and what had left long ago was kept.
    #[test]
    fn what_a_reader_who_is_never_done_has_read_takes_no_room() {
        let mut out = Outbox::default();
        for _ in 0..1_000 {
            out.bytes.resize(out.bytes.len() + 50_000, 7);
            out.advance(out.unsent_bytes() - 1);
            assert!(out.bytes.len() <= 2 * SPARE_BYTES_MAX, "{} bytes for one", out.bytes.len());
        }
    }
}
