//! Throughput and latency of real clusters.
fn main() {}
