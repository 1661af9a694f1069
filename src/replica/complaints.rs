//! What was said of other servers lately, so that it is not said again at every attempt: once when
//! it is new, and then once a minute at most. Who is refused tries again six times a second.

use crate::limits;
use crate::types::{Instant, NodeId};

const APART_NS: u64 = 60_000_000_000;

/// The lines of the last minute. No more than there can be members: a stranger that gives itself
/// ever new numbers fills no log.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: Vec<(NodeId, String, Instant)>,
}

impl Complaints {
    /// Whether to say `text` of `about` now; if so it counts as said.
    pub(super) fn is_news(&mut self, about: NodeId, text: &str, now: Instant) -> bool {
        self.said.retain(|(_, _, at)| now.ns_since(*at) < APART_NS);
        let known = self.said.iter().any(|(node, said, _)| *node == about && said == text);
        if known || self.said.len() >= limits::MEMBERS_MAX {
            return false;
        }
        self.said.push((about, text.to_owned(), now));
        true
    }

    /// All is well with `about`: whatever comes next is news.
    pub(super) fn forget(&mut self, about: NodeId) {
        self.said.retain(|(node, _, _)| *node != about);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_what_has_changed_or_is_a_minute_old() {
        let mut complaints = Complaints::default();
        let [one, two] = [1, 2].map(|id| NodeId::new(id).unwrap());
        let at = |seconds: u64| Instant::from_ns(seconds * 1_000_000_000);
        assert!(complaints.is_news(one, "no", at(0)));
        assert!(!complaints.is_news(one, "no", at(59)));
        assert!(complaints.is_news(one, "never", at(59)), "another reason");
        assert!(complaints.is_news(two, "no", at(59)), "another server");
        assert!(complaints.is_news(one, "no", at(60)), "a minute later");
        complaints.forget(one);
        assert!(complaints.is_news(one, "no", at(61)), "all was well between");
        for id in 100..1000 {
            complaints.is_news(NodeId::new(id).unwrap(), "no", at(62));
        }
        assert_eq!(complaints.said.len(), limits::MEMBERS_MAX);
    }
}
