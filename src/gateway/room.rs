//! Memory that many share: what each has of it is counted, and given back once it is let go.
//!
//! Who answers a client lets go when the client's connection has taken the last byte, which may be
//! late: so the share goes with the bytes themselves, behind the last that knows the answer.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tonic::Response;

use super::proto::mvccpb::KeyValue;

/// An answer up to this is not counted, so that nobody who asks for little is refused. Bytes.
const FREE_BYTES: usize = 64 * 1024;

/// So much, for all.
pub(super) struct Room {
    bytes_max: usize,
    taken: AtomicUsize,
    /// Somebody may have more than there is.
    favours: AtomicBool,
}

/// What one has of it, until it is dropped.
pub(super) struct Share {
    room: Arc<Room>,
    bytes: usize,
    is_favoured: bool,
}

/// There is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// What an answer has of it, for whoever hands the answer on.
#[derive(Clone)]
pub(super) struct Held(Arc<Share>);

/// Bytes that have a share.
struct Charged {
    bytes: Bytes,
    #[expect(dead_code, reason = "it is held, not looked at")]
    share: Share,
}

impl Room {
    /// Of so many bytes.
    pub(super) fn of(bytes_max: usize) -> Arc<Room> {
        let (taken, favours) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Room { bytes_max, taken, favours })
    }

    /// How much of it is taken. Bytes.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How much there is. Bytes.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A share that has nothing yet.
    pub(super) fn share(self: &Arc<Room>) -> Share {
        Share { room: Arc::clone(self), bytes: 0, is_favoured: false }
    }
}

impl Share {
    /// Has so many bytes from now on, if there are so many.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Full> {
        let more = bytes.saturating_sub(self.bytes);
        if more > self.room.bytes_max.saturating_sub(self.room.taken()) {
            return Err(Full);
        }
        self.force(bytes);
        Ok(())
    }

    /// The same, but of those for whom there is no more one has it all the same, until it has
    /// nothing: else many that have a part of what they need wait for each other.
    pub(super) fn set_in_turn(&mut self, bytes: usize) -> Result<(), Full> {
        if self.set(bytes).is_ok() {
            return Ok(());
        }
        if !self.is_favoured && self.room.favours.swap(true, Ordering::Relaxed) {
            return Err(Full);
        }
        self.is_favoured = true;
        self.force(bytes);
        Ok(())
    }

    /// Has so many bytes from now on, whatever there is.
    pub(super) fn force(&mut self, bytes: usize) {
        self.room.taken.fetch_add(bytes, Ordering::Relaxed);
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Has nothing any more.
    pub(super) fn clear(&mut self) {
        self.force(0);
        if std::mem::take(&mut self.is_favoured) {
            self.room.favours.store(false, Ordering::Relaxed);
        }
    }

    /// The answer, with what it has.
    pub(super) fn hold<T>(self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        if self.bytes > 0 {
            response.extensions_mut().insert(Held(Arc::new(self)));
        }
        response
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Held {
    /// Whether more than half of the room is taken, so that others may soon find none.
    pub(super) fn room_is_scarce(&self) -> bool {
        let room = &self.0.room;
        room.taken() > room.bytes_max / 2
    }

    /// A piece of the answer, which has its own share of the same room from now on, whatever there
    /// is: it is sent when the rest may have been taken away.
    pub(super) fn charge(&self, bytes: Bytes) -> Bytes {
        let mut share = self.0.room.share();
        share.force(bytes.len());
        Bytes::from_owner(Charged { bytes, share })
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an answer counts: its bytes, and the tables of its keys.
pub(super) fn cost(bytes: usize, keys: usize) -> usize {
    (bytes + keys * size_of::<KeyValue>()).saturating_sub(FREE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_they_have_no_more_than_there_is() {
        let room = Room::of(100);
        let (mut one, mut other) = (room.share(), room.share());
        assert_eq!((one.set(60), other.set(41), room.taken()), (Ok(()), Err(Full), 60));
        assert_eq!((one.set(50), other.set(50), room.taken()), (Ok(()), Ok(()), 100));
        drop(one);
        assert_eq!((room.taken(), other.set(100)), (50, Ok(())));
        other.clear();
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn of_those_that_need_more_one_at_a_time_moves_on() {
        let room = Room::of(100);
        let (mut one, mut other) = (room.share(), room.share());
        assert_eq!((one.set_in_turn(50), other.set_in_turn(50)), (Ok(()), Ok(())));
        assert_eq!((one.set_in_turn(90), other.set_in_turn(60)), (Ok(()), Err(Full)));
        assert_eq!(one.set_in_turn(120), Ok(()));
        one.clear();
        assert_eq!((other.set_in_turn(101), room.taken()), (Ok(()), 101));
        drop(other);
        assert_eq!((one.set_in_turn(200), room.taken()), (Ok(()), 200));
    }

    #[test]
    fn small_answers_count_for_nothing() {
        assert_eq!(cost(FREE_BYTES, 0), 0);
        assert_eq!(cost(FREE_BYTES + 1, 0), 1);
        assert!(cost(FREE_BYTES, 1) >= 64, "a key takes more than its bytes");
    }
}
