//! What is asked: kinds of operations and their shares.

use std::fmt;

use super::popularity::Popularity;

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// One key is read.
    Read,
    /// A key that exists is put.
    Update,
    /// A new key is put.
    Insert,
    /// Up to 100 keys in a row are read.
    Scan,
    /// A key is read, and put when the answer is there; its latency is that of both.
    Modify,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Read, Kind::Update, Kind::Insert, Kind::Scan, Kind::Modify];

    /// Its place in tables by kind.
    pub(super) const fn slot(self) -> usize {
        match self {
            Kind::Read => 0,
            Kind::Update => 1,
            Kind::Insert => 2,
            Kind::Scan => 3,
            Kind::Modify => 4,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Read => "read",
            Kind::Update => "update",
            Kind::Insert => "insert",
            Kind::Scan => "scan",
            Kind::Modify => "read-modify-write",
        })
    }
}

/// Shares of the kinds, in parts of their sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    shares: [u32; 5],
}

impl Mix {
    /// Puts of keys that exist.
    pub const PUTS: Mix = Mix { shares: [0, 1, 0, 0, 0] };

    /// Reads of one key.
    pub const GETS: Mix = Mix { shares: [1, 0, 0, 0, 0] };

    /// Puts of new keys.
    pub const INSERTS: Mix = Mix { shares: [0, 0, 1, 0, 0] };

    /// So many per cent reads of one key, the rest puts.
    pub const fn reads(percent: u32) -> Mix {
        assert!(percent <= 100, "a share of a hundred");
        Mix { shares: [percent, 100 - percent, 0, 0, 0] }
    }

    /// A draw: `number` is below `total`.
    pub(super) fn pick(&self, number: u32) -> Kind {
        let mut rest = number;
        for kind in Kind::ALL {
            let share = self.shares[kind.slot()];
            if rest < share {
                return kind;
            }
            rest -= share;
        }
        unreachable!("the number is below the sum of all shares")
    }

    /// The sum of the shares.
    pub(super) fn total(&self) -> u32 {
        self.shares.iter().sum()
    }

    /// Whether anything is put.
    pub fn writes(&self) -> bool {
        [Kind::Update, Kind::Insert, Kind::Modify].iter().any(|kind| self.shares[kind.slot()] > 0)
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Put every key once, ascending.
    Fill,
    /// Read every key once; each must be exactly what was acknowledged last.
    Check,
    /// Draw operations until told to stop.
    Mixed(Mix),
}

/// What is to be done, to which keys most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// What.
    pub work: Work,
    /// Of which keys.
    pub popularity: Popularity,
}

impl Workload {
    /// Every key once, in order.
    pub const fn of_all(work: Work) -> Workload {
        Workload { work, popularity: Popularity::Even }
    }

    /// Operations on keys drawn evenly.
    pub const fn even(mix: Mix) -> Workload {
        Workload { work: Work::Mixed(mix), popularity: Popularity::Even }
    }

    /// A core workload of YCSB, by its letter from A to F (Cooper et al. 2010, table 2).
    pub const fn ycsb(letter: char) -> Option<Workload> {
        let (shares, popularity) = match letter.to_ascii_uppercase() {
            'A' => ([50, 50, 0, 0, 0], Popularity::Zipfian),
            'B' => ([95, 5, 0, 0, 0], Popularity::Zipfian),
            'C' => ([100, 0, 0, 0, 0], Popularity::Zipfian),
            'D' => ([95, 0, 5, 0, 0], Popularity::Latest),
            'E' => ([0, 0, 5, 95, 0], Popularity::Zipfian),
            'F' => ([50, 0, 0, 0, 50], Popularity::Zipfian),
            _ => return None,
        };
        Some(Workload { work: Work::Mixed(Mix { shares }), popularity })
    }

    /// Whether anything is put.
    pub fn writes(&self) -> bool {
        match self.work {
            Work::Fill => true,
            Work::Check => false,
            Work::Mixed(mix) => mix.writes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_drawn_by_its_shares() {
        let mix = Mix::reads(70);
        let reads = (0..mix.total()).filter(|number| mix.pick(*number) == Kind::Read).count();
        assert_eq!((mix.total(), reads), (100, 70));
        assert!(mix.writes() && !Mix::GETS.writes() && Mix::reads(0).writes());
    }

    #[test]
    fn ycsb_has_six_workloads() {
        for letter in ['A', 'b', 'C', 'd', 'E', 'F'] {
            let workload = Workload::ycsb(letter).unwrap();
            let Work::Mixed(mix) = workload.work else { panic!("{letter} is drawn") };
            assert_eq!(mix.total(), 100, "{letter}");
            assert_eq!(workload.writes(), letter != 'C', "{letter}");
        }
        assert_eq!(Workload::ycsb('G'), None);
    }
}
