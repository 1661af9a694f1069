//! One integration binary: the rules, the record, the meaning, the wires, whole clusters, the
//! documents.
mod addresses;
mod cluster;
mod dice;
mod docs;
mod history;
mod kv;
mod mutants;
mod raft;
mod tidy;
mod untested;
mod wal;
mod wire;
