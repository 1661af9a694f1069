//! A blocking client: what raftctl, the tests and the bench speak to a cluster with.
//!
//! `Client` is for one request at a time: it finds the leader, follows redirects and repeats what
//! is safe to repeat until its timeout. `Connection` is one TCP connection with as many requests in
//! flight as the caller likes, and no opinion about failures. `Watch` hears of changes, and goes on
//! at another node when its own is gone. `load` asks as much as a cluster can take, and measures;
//! it comes with the feature `ctl`.
//!
//! What is repeated: every read; a request that certainly was not done (nobody reached, refused
//! with `Advice::AskAgain`, or not wholly sent); and a write whose answer did not come, because it
//! is a call of a session and is done once (`session`). A client made by `at_most_once` has no
//! session: then a write whose answer did not come is `Error::OutcomeUnknown`, and only the caller
//! knows whether twice is fine.
mod clock;
mod cluster;
mod connection;
mod error;
mod leases;
#[cfg(feature = "ctl")]
pub mod load;
mod members;
mod ranges;
mod requests;
mod session;
mod snapshot;
mod watch;

pub use crate::wire::client::{
    Command, Compare, DeleteWith, Operand, Order, PutWith, RangeArgs, RangeEnd, RangeRequest,
    Relation, RevisionSpan, Selection, SessionCall, SortBy, Txn, TxnParts, TxnRequest,
};
pub use crate::wire::leases::{KeysFrom, LeaseList, LeaseTerm, LeaseTimes};
pub use clock::{Clock, Deadline, process_cpu_ns, unix_ms};
pub use cluster::{CONTENT_BYTES_MAX, Client, ClientOptions, Deleted, KeyValue, PutIf, Range};
pub use connection::Connection;
pub use error::{Attempt, ConnectionError, Error, Why};
pub use leases::LeaseFound;
pub use members::find_cluster;
pub use ranges::RangeDone;
pub use requests::{DeletedKeys, Put, TxnDone, TxnResult};
pub use snapshot::{Goes, Piece};
pub use watch::{KeyEvent, Watch, WatchBatch, WatchOptions};

/// The end of the range of all keys that begin with `prefix`, in the wire's form.
///
/// An empty prefix is in no key's way: begin that range at a single zero byte, the smallest key.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Nothing sorts after a row of 0xff but what begins with it: from the key on.
    vec![0]
}
