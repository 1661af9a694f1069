//! The rules. Values are tested beside their code; here are the sentences of Figure 2, the
//! scenarios that broke other implementations, and a chaos simulator that is itself tested by
//! planted bugs.
mod chaos;
mod election;
mod figure2;
mod followers;
mod forwarded_reads;
mod leaders;
mod leases;
mod membership;
mod oracles;
mod reads;
mod restarts;
mod scenarios;
mod server;
mod snapshots;
mod stalls;
mod town;
mod transfer;
mod weather;
