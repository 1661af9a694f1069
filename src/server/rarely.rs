//! Lines of the log that strangers can cause: at most one a second of a kind, with a count.

use crate::types::Instant;

const APART_NS: u64 = 1_000_000_000;

/// One kind of line.
#[derive(Debug)]
pub(super) struct Rarely {
    /// What has not been said yet.
    count: u64,
    /// When the next line may come.
    next: Instant,
}

impl Rarely {
    /// The first line may come at once.
    pub(super) fn new() -> Rarely {
        Rarely { count: 0, next: Instant::ZERO }
    }

    /// It has happened `times` more. Returns how often since the last line, if one is due.
    pub(super) fn count(&mut self, times: u64, now: Instant) -> Option<u64> {
        self.count += times;
        if now < self.next {
            return None;
        }
        self.next = now.after_ns(APART_NS);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_second_counts_what_came_between() {
        let mut rarely = Rarely::new();
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        assert_eq!(rarely.count(1, at(500)), Some(1));
        assert_eq!(rarely.count(2, at(600)), None);
        assert_eq!(rarely.count(1, at(1499)), None);
        assert_eq!(rarely.count(1, at(1500)), Some(4));
    }
}
