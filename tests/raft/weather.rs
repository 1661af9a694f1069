//! Chance and misfortune for the chaos test, drawn from its seed.

pub(super) use crate::dice::Dice;

pub(super) const MS: u64 = 1_000_000;

/// How bad it is; drawn per seed, so that each seed tries something else. "Once in so many turns";
/// 0: never.
#[derive(Debug)]
pub(super) struct Weather {
    pub(super) servers: usize,
    pub(super) loss: u64,
    pub(super) double: u64,
    pub(super) latency_ns: u64,
    pub(super) sync_ns: u64,
    pub(super) crash: u64,
    pub(super) cut: u64,
    pub(super) mend: u64,
    pub(super) freeze: u64,
    pub(super) reconnect: u64,
    pub(super) tight: u64,
    pub(super) compact: u64,
    pub(super) entries_max: usize,
    pub(super) in_flight_max: usize,
    pub(super) propose: u64,
    /// Changes of the configuration asked of a leader, and handovers.
    pub(super) change: u64,
    pub(super) transfer: u64,
    /// The bound of the clocks' drift that leases count on; `None`: no leases.
    pub(super) lease_drift_ppm: Option<u32>,
}

impl Weather {
    pub(super) fn draw(dice: &mut Dice) -> Weather {
        let servers = [1, 2, 3, 3, 3, 4, 5, 5][dice.index(8)];
        let lease_drift_ppm = [None, Some(10), Some(20_000), Some(200_000)][dice.index(4)];
        Weather {
            lease_drift_ppm,
            servers,
            loss: [0, 0, 50, 10][dice.index(4)],
            double: [0, 0, 40, 10][dice.index(4)],
            latency_ns: [1, 5, 20, 60][dice.index(4)] * MS,
            sync_ns: [1, 4, 30, 120][dice.index(4)] * MS,
            crash: [0, 1500, 500, 250][dice.index(4)],
            cut: [0, 1500, 500, 250][dice.index(4)],
            mend: [400, 150][dice.index(2)],
            freeze: [0, 1500, 400][dice.index(3)],
            reconnect: [0, 1000, 200][dice.index(3)],
            tight: [0, 0, 10][dice.index(3)],
            compact: [0, 200, 40][dice.index(3)],
            entries_max: [1, 2, 20][dice.index(3)],
            in_flight_max: [1, 3, 8][dice.index(3)],
            propose: [2, 8, 30][dice.index(3)],
            change: [0, 400, 100][dice.index(3)],
            transfer: [0, 800, 150][dice.index(3)],
        }
    }
}
