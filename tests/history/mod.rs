//! The checker of client histories, itself checked: it acquits what a correct store says under any
//! concurrency, and convicts every kind of lie, naming the rule.
#![allow(clippy::unwrap_used, reason = "clippy's allowance for tests does not reach helpers")]

#[path = "../sim/history/mod.rs"]
#[allow(dead_code, reason = "the simulator asks more of it")]
pub(crate) mod checker;

mod convictions;
mod honest;
mod orders;
mod store;
mod story;
mod watching;
