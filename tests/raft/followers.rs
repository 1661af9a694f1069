//! followers.
