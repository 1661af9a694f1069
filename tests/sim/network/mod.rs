//! Connections, and what becomes of the bytes in them.
//!
//! Two layers of faults. **Below**, what TCP does to a program: bytes arrive late, in pieces, all
//! or up to a reset; a connection whose other end is gone stays open until it is spoken into; a cut
//! link delays everything and may end the connection after a while. **Above**, between members
//! only and beyond what TCP does: whole frames are lost, come twice, come late, also on a later
//! connection between the same two; or those of some kinds are lost for a while, and no others
//! (`filter.rs`). What is lost of a snapshot on its way takes its connection with it. Raft asks for
//! no more of its network than that, and the sessions in the messages are there for it. Bytes are
//! never changed on the way: TCP's checksums see to that, and peers' payloads have their own;
//! clients may send garbage, though (`clients.rs`).

mod filter;
mod links;
mod pipe;

pub(crate) use filter::{Filter, Kind};
pub(crate) use links::Links;
pub(crate) use pipe::{End, Item, PipeKey, Pipes};

use crate::chance::Chance;
use crate::options::{Delay, Network as Weather};

/// A frame that will be said later, or again.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) dialer: usize,
    pub(crate) accepter: usize,
    /// Who says it: 0 the dialer.
    pub(crate) side: usize,
    pub(crate) bytes: Vec<u8>,
    /// The connection on which it was first said.
    pub(crate) pipe: PipeKey,
    /// The sender's term then.
    pub(crate) term: u64,
}

/// Everything between the machines.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) pipes: Pipes,
    pub(crate) links: Links,
    pub(crate) held: Vec<Option<Held>>,
    pub(crate) chance: Chance,
    pub(crate) frames: Chance,
    pub(crate) streams: Chance,
    /// In force. Faults overlap, so the same may be here twice.
    pub(crate) filters: Vec<Filter>,
    /// The cluster bears no more: no long delays.
    pub(crate) gentle: bool,
}

impl Network {
    pub(crate) fn new(seed: u64, weather: Weather, machines: usize) -> Network {
        Network {
            weather,
            pipes: Pipes::default(),
            links: Links::new(machines),
            held: Vec::new(),
            chance: Chance::of(seed, "delays"),
            frames: Chance::of(seed, "frame faults"),
            streams: Chance::of(seed, "stream faults"),
            filters: Vec::new(),
            gentle: false,
        }
    }

    /// How long something is under way.
    pub(crate) fn delay(&mut self) -> u64 {
        let mean = self.weather.delay_ns;
        let chance = &mut self.chance;
        1_000
            + match self.weather.delay {
                Delay::Constant => mean,
                Delay::Uniform => chance.between(mean / 4, 2 * mean),
                Delay::Exponential => {
                    // Without an end, now and then one alone would last an election timeout.
                    let most = if self.gentle { 3 * mean } else { u64::MAX };
                    mean / 8 + chance.exponential(mean).min(most)
                }
                Delay::Tail if !self.gentle && chance.one_in(60) => chance.between(mean, 60 * mean),
                Delay::Tail => chance.between(mean / 4, mean),
            }
    }

    /// Keeps a frame; returns its number.
    pub(crate) fn hold(&mut self, held: Held) -> usize {
        let free = self.held.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.held.len());
        if slot == self.held.len() {
            self.held.push(None);
        }
        self.held[slot] = Some(held);
        slot
    }
}
