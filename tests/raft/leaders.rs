//! leaders.
