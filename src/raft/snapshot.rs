//! Snapshots. Paper §7.
//!
//! Their place in the core: `progress::Progress` has a third state for a follower whose next entry
//! the leader no longer holds, `term_runs` starts at the snapshot's position instead of
//! `LogPosition::ZERO`, and `fill_pipelines` sends chunks where it sends entries now. Today the log
//! begins at its first entry on every server, so "the leader cannot send it" does not occur, and
//! each index has a term.
