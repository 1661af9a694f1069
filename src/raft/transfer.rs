//! Leadership transfer. Thesis §3.10.
//!
//! Its place in `settle` is after `release_reads` and before `fill_pipelines`: a leader that hands
//! over takes no proposals, waits until the target's match index is its own last entry, and tells
//! it to campaign at once. The transfer's state belongs to `role::Leader`, with a deadline of one
//! election timeout, so that it cannot outlive the leadership. Today no message of the protocol
//! asks for a transfer, and a leader that is stopped is replaced by an election.
