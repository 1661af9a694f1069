//! What a put should cost by counting, to be drawn beside what it does cost.
//!
//! ```text
//! C = client + leader + (n - 1) follower         work on an operation
//!   + bytes v (6 + 5 (n - 1))                     touches of each byte of a value of v
//!   + connection / b                              b operations to a connection and turn
//!   + (message (n - 1) + sync n) / B              B operations to a turn
//! rate = the least of:  cores x efficiency / C,   in flight / latency of one
//! ```
//! The figures were estimated before anything was built, from the operations that each step cannot
//! do without; where a run has measured a part (`parts/`), that figure takes the estimate's place.

use crate::parts::{Figures, Part};
use raftd::client::load::{Shape, float};

/// Nanoseconds of an operation, unless its name says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    client: f64,
    decode: f64,
    /// Sessions, pending requests, the reply.
    bookkeeping: f64,
    /// Into the log.
    append: f64,
    crc_per_byte: f64,
    /// What a follower does beside checksum and apply.
    follow: f64,
    /// Applying a put, by keys in the store, ascending.
    apply: Vec<(f64, f64)>,
    per_byte_touched: f64,
    /// A turn of one connection: its write, the server's read, and back.
    connection: f64,
    /// A message to a follower, and its answer.
    message: f64,
    /// A sync job; in memory it is a wake-up and little more.
    sync: f64,
    /// One operation alone.
    alone: f64,
    efficiency: f64,
    cores: f64,
}

/// What is asked of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Keys in the store.
    pub(crate) keys: u32,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Servers.
    pub(crate) nodes: usize,
    /// Connections and requests in flight.
    pub(crate) shape: Shape,
}

impl Model {
    /// With the estimates, and what `figures` knows better.
    pub(crate) fn new(figures: &Figures) -> Model {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let estimates = [(10_000_u32, 120.0), (100_000, 300.0), (1_000_000, 450.0)];
        let apply = estimates.map(|(keys, estimate)| {
            let measured = figures.ns(&format!("{}: put", Part::Store(keys).name()));
            (f64::from(keys), measured.unwrap_or(estimate))
        });
        let crc = figures.ns(&Part::Crc(65_536).name());
        Model {
            client: 200.0,
            decode: figures.ns("part decode: put").unwrap_or(70.0),
            bookkeeping: 100.0,
            append: 80.0,
            crc_per_byte: crc.map_or(0.12, |ns| ns / 65_536.0),
            follow: 150.0,
            apply: apply.to_vec(),
            per_byte_touched: 0.1,
            connection: 7_000.0,
            message: 15_000.0,
            sync: 5_000.0,
            alone: 100_000.0,
            efficiency: 0.65,
            cores: count(cores).min(2.0),
        }
    }

    /// CPU of a put, the client's included. Nanoseconds.
    pub(crate) fn put_ns(&self, scene: Scene) -> f64 {
        let Scene { keys, value_bytes, nodes, shape } = scene;
        let (value, followers) = (count(value_bytes), count(nodes) - 1.0);
        let crc = self.crc_per_byte * (value + 32.0);
        let apply = self.apply(f64::from(keys));
        let leader = self.decode + self.bookkeeping + self.append + crc + apply;
        let follower = self.follow + crc + apply;
        // Of what a connection may have in flight a turn finds most; of all in flight, half.
        let to_a_connection = (count(shape.depth) * 0.8).max(1.0);
        let to_a_turn = (count(shape.depth * shape.connections) / 2.0).max(1.0);
        self.client
            + leader
            + followers * follower
            + self.per_byte_touched * value * (6.0 + 5.0 * followers)
            + self.connection / to_a_connection
            + (self.message * followers + self.sync * count(nodes)) / to_a_turn
    }

    /// Puts a second.
    pub(crate) fn puts_per_s(&self, scene: Scene) -> f64 {
        let in_flight = count(scene.shape.depth * scene.shape.connections);
        let busy = self.cores * self.efficiency * 1e9 / self.put_ns(scene);
        busy.min(in_flight * 1e9 / self.alone)
    }

    /// Between two sizes that are known, by the logarithm; beyond them, as the nearer.
    fn apply(&self, keys: f64) -> f64 {
        let above = self.apply.iter().position(|(at, _)| *at >= keys);
        match above {
            Some(0) => self.apply[0].1,
            Some(above) => {
                let ((low, first), (high, last)) = (self.apply[above - 1], self.apply[above]);
                first + (last - first) * (keys / low).ln() / (high / low).ln()
            }
            None => self.apply.last().map_or(0.0, |(_, last)| *last),
        }
    }
}

fn count(number: usize) -> f64 {
    float(u64::try_from(number).unwrap_or(u64::MAX))
}
