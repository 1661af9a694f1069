//! Many puts on their way at once, on one connection.

use super::harness::PATIENCE;
use raftd::client::{Connection, Deadline};
use raftd::limits::CLIENT_INPUT_LARGE_BYTES_MAX;
use raftd::wire::reply::ReplyBody;

/// Puts on their way at once.
const WINDOW: usize = 2_000;
/// Their values together. Bytes.
const WINDOW_BYTES: usize = CLIENT_INPUT_LARGE_BYTES_MAX / 8;

/// Puts the same value under each of these keys. Tells `heard` how many more are acknowledged; all
/// are when it ends.
pub(super) fn put_all(
    connection: &mut Connection,
    keys: impl Iterator<Item = Vec<u8>>,
    value: &[u8],
    mut heard: impl FnMut(u64),
) {
    let window = WINDOW.min(WINDOW_BYTES / value.len().max(1)).max(2);
    let mut open = 0;
    for key in keys {
        connection.put(&key, value);
        open += 1;
        if open == window {
            hear(connection, window / 2, &mut heard);
            open -= window / 2;
        }
    }
    hear(connection, open, &mut heard);
}

/// Sends what is not sent, and hears of so many.
fn hear(connection: &mut Connection, count: usize, heard: &mut impl FnMut(u64)) {
    let deadline = || Deadline::after(PATIENCE);
    connection.flush(deadline()).unwrap();
    for _ in 0..count {
        match connection.receive(deadline()).unwrap().body {
            ReplyBody::Put { .. } => {}
            other => panic!("a put was answered with {other:?}"),
        }
    }
    heard(count.try_into().unwrap());
}
