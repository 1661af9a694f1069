//! The log of a cluster that gateways wrote to, in the words of the checker of histories.
//!
//! A gateway's writes are calls of sessions: a copy of one that was done is passed over, as the
//! store does. A transaction becomes the change that it makes, by conditions that the checker's own
//! model judges; one that puts a key if its last change is a certain one stays what it is, as its
//! refusals are answers too.

use super::finals::ended;
use super::harness::Cluster;
use crate::history::checker::model::Model;
use crate::history::checker::product::owned;
use crate::history::checker::{Command, FinalState, LeaseChange};
use raftd::kv::command::SessionCall;
use raftd::kv::{self, Operand, RangeEnd, Relation, Request, Txn};
use raftd::types::Term;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The commands so far.
struct Reading {
    model: Model,
    sessions: BTreeMap<u64, Calls>,
    commands: Vec<Command>,
}

/// The calls of one session.
#[derive(Default)]
struct Calls {
    /// All up to this one have ended: a copy of one of them changes nothing any more.
    acknowledged: u64,
    done: BTreeSet<u64>,
}

/// Ends the cluster, and says what it and its log hold. No gateway may be at work any more.
pub(super) fn finals(cluster: &mut Cluster) -> FinalState {
    let mut reading =
        Reading { model: Model::new(), sessions: BTreeMap::new(), commands: Vec::new() };
    let nodes = ended(cluster, |call, command, term| reading.take(call, command, term));
    FinalState { commands: reading.commands, nodes }
}

impl Calls {
    /// Whether the call is done now, which it is once.
    fn begin(&mut self, call: SessionCall) -> bool {
        self.acknowledged = self.acknowledged.max(call.acknowledged);
        call.sequence > self.acknowledged && self.done.insert(call.sequence)
    }
}

impl Reading {
    fn take(&mut self, call: Option<SessionCall>, command: kv::Command<'_>, term: Term) {
        if let Some(call) = call
            && !self.sessions.entry(call.session.0).or_default().begin(call)
        {
            return;
        }
        let kv::Command::Txn(txn) = command else {
            let command = owned(command, term);
            return command.into_iter().for_each(|command| self.add(command));
        };
        if is_put_if(txn) {
            let command = owned(command, term);
            return command.into_iter().for_each(|command| self.add(command));
        }
        let holds = txn.compares().all(|compare| self.holds(&compare));
        let mut changes = txn.branch(holds).filter_map(change);
        let change = changes.next();
        assert!(changes.next().is_none(), "no client here changes two keys at once");
        change.into_iter().for_each(|command| self.add(command));
    }

    fn add(&mut self, command: Command) {
        self.model.apply(&command);
        self.commands.push(command);
    }

    fn holds(&self, compare: &kv::Compare<'_>) -> bool {
        let kv::Compare { key, end, relation, operand } = *compare;
        assert_eq!(end, RangeEnd::Key, "no client here compares a range");
        let row = self.model.rows(key, &[], self.model.revision()).next();
        let order = match operand {
            Operand::Version(version) => row.map_or(0, |row| row.version).cmp(&version),
            Operand::Create(revision) => row.map_or(0, |row| row.create_revision).cmp(&revision.0),
            Operand::Mod(revision) => row.map_or(0, |row| row.mod_revision).cmp(&revision.0),
            Operand::Value(_) | Operand::Lease(_) => {
                unreachable!("no client here compares a value or a lease")
            }
        };
        match relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
            Relation::NotEqual => order != Ordering::Equal,
        }
    }
}

/// Whether it puts one key without a lease, if its last change is a certain one.
fn is_put_if(txn: Txn<'_>) -> bool {
    let mut compares = txn.compares();
    let (Some(compare), None) = (compares.next(), compares.next()) else { return false };
    let mut then = txn.branch(true);
    let (Some(Request::Put(put)), None) = (then.next(), then.next()) else { return false };
    let is_mod = matches!(compare.operand, Operand::Mod(_)) && compare.relation == Relation::Equal;
    is_mod && compare.key == put.key && put.lease == 0
}

/// What a request of a transaction changes.
fn change(request: Request<'_>) -> Option<Command> {
    match request {
        Request::Put(put) if put.lease == 0 => {
            Some(Command::Put { key: put.key.to_vec(), value: put.value.to_vec() })
        }
        Request::Put(put) => {
            let (key, value) = (put.key.to_vec(), put.value.to_vec());
            Some(Command::Lease(LeaseChange::Hang { lease: put.lease, key, value }))
        }
        Request::Delete(delete) => {
            assert_eq!(delete.end, RangeEnd::Key, "no client here deletes a range in one");
            Some(Command::Delete { key: delete.key.to_vec(), end: Vec::new() })
        }
        Request::Range(_) => None,
        Request::Txn(_) => unreachable!("no client here puts one into another"),
    }
}
