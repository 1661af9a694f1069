//! A load generator: one thread, many connections, many requests in flight on each.
//!
//! ```text
//! Script  what is asked next, of which key, and whether an answer can be right    workload, ledger
//! Engine  who asks it: sockets, one read and one write for all that is ready      engine, link
//! Speaker how it is said: raftd's frames here, another store's in bench/          speaker
//! Tally   what came of it: latencies by kind, refusals, wrong answers             tally
//! ```
//!
//! **Closed loop** (`Pace::Closed`): every free place asks at once. It finds the peak and the cost
//! of an operation. While the server stands still nobody asks, so its latencies say little about
//! stalls.
//!
//! **Open loop** (`Pace::Open`): operations are due at fixed moments, whatever the server does, and
//! a latency counts from the moment an operation was due. What waits for a place, or for a server
//! that stands still, is counted in full: no coordinated omission.
//!
//! Values name their key and the put that wrote them, so that every answer is judged: a read that
//! is older than what was acknowledged before it began is counted as wrong.
//!
//! `raftctl bench` and `cargo bench` are this with a command line around it.
mod engine;
mod error;
mod ledger;
mod link;
mod numbers;
mod popularity;
mod script;
mod speaker;
mod tally;
mod task;
mod ticker;
mod workload;

pub use engine::{Shape, Target, run};
pub use error::LoadError;
pub use ledger::{Found, KeyNumber, Layout, Ledger, PutNumber};
pub use numbers::{float, whole};
pub use popularity::{Popularity, Random};
pub use script::Script;
pub use speaker::{Answer, Asked, Greeting, Heard, RaftdSpeaker, Refusal, Said, Speaker};
pub use tally::{Histogram, Tally, Timeline, histogram};
pub use task::{OnFailure, Pace, Signals, Step, Taken, Task};
pub use ticker::Ticker;
pub use workload::{Kind, Mix, Work, Workload};
