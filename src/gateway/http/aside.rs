//! Large JSON is read and written beside the one thread that serves everybody: all others would
//! wait for it, a second for the worst that a request may have.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::Status;

/// What is no larger takes less than to hand it over. Bytes.
const SMALL_BYTES: usize = 64 * 1024;

/// One at a time: what it takes meanwhile is many times its size, and the other processors are
/// somebody else's.
static TURN: Semaphore = Semaphore::const_new(1);

/// Does what so many bytes are to be looked at for. Work that has begun goes on to its end, also
/// if nobody waits for it any more.
pub(super) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    if bytes <= SMALL_BYTES {
        return work();
    }
    let turn = TURN.acquire().await.expect("it is never closed");
    let done = spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await.map_err(|why| Status::internal(format!("raftd: {why}")))?
}
