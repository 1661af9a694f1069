//! What the healed cluster holds, for the check of the history.

mod calls;

use crate::chance::usize_of;
use crate::coverage::Point;
use crate::history::product::{owned, row_of};
use crate::history::{Command, FinalState, NodeState, Row};
use crate::invariants::{Proof, broken, must};
use crate::machine::Machine;
use crate::rights::{Rights, allows, follow};
use crate::world::{World, id_of};
use calls::Calls;
use raftd::codec::msgpack::Reader;
use raftd::kv::command::{Issued, decode_header, decode_issued};
use raftd::kv::{self, RangeEnd, RangeRequest, Selection};
use raftd::replica::Inspection;
use raftd::types::{EntryKind, LogIndex, Revision};
use std::ops::ControlFlow;

impl World {
    /// The commands of the log, and what each node that runs says of itself.
    pub(crate) fn finals(&mut self) -> FinalState {
        // A damaged log need not be readable; what the node has applied still counts.
        let settled = self.proof.settled_configuration().expect("they agree");
        let members: Vec<bool> =
            (0..self.machines.len()).map(|nth| settled.is_member(id_of(nth))).collect();
        let sound = |(nth, it): (usize, &Machine)| it.node.is_some() && !it.damaged && members[nth];
        let source = self.machines.iter().enumerate().position(sound);
        let source = source.expect("the atlas leaves a majority sound");
        let mut finals = FinalState::default();
        let node = self.machines[source].node.as_ref().expect("it runs");
        let found = commands_of(&node.inspect(), &self.proof);
        finals.commands = found.commands;
        self.coverage.hit_if(found.shared, Point::MultiCommandEntry);
        self.coverage.hit_if(found.repeated, Point::CallRepeated);
        for (machine, it) in self.machines.iter().enumerate() {
            let Some(node) = it.node.as_ref().filter(|_| members[machine]) else { continue };
            let node = node.inspect();
            let closed = node.wal.log_bytes() > self.options.segment_bytes;
            self.coverage.hit_if(closed, Point::SegmentClosed);
            let replaced = it.disk.snapshot_was_replaced();
            self.coverage.hit_if(replaced, Point::SnapshotDamageReplaced);
            let used = usize_of(node.wal.log_bytes() / self.options.segment_bytes);
            let made = it.disk.segments();
            // A snapshot that has just come into force leaves the one before for a moment, and the
            // segments that go with that (seed 716).
            let settled = it.disk.snapshots() <= 1;
            must!(
                made <= used + 3 || !settled,
                "ResourceBounds",
                "{made} segments for a log of {used}"
            );
            let differ = found.rights.differ(node.store);
            must!(
                !differ,
                "FinalState",
                "n{} has other users or roles than the log says",
                machine + 1
            );
            finals.nodes.push(NodeState {
                node: u32::try_from(machine + 1).expect("few nodes"),
                revision: node.store.revision().0,
                compact_revision: node.store.compact_revision().0,
                rows: rows_of(&node),
            });
        }
        finals
    }
}

/// What the applied entries hold.
#[derive(Default)]
struct Found {
    /// The commands that were to be done: of copies of a call, the first.
    commands: Vec<Command>,
    /// Whether one entry held several.
    shared: bool,
    /// Whether a call was there twice.
    repeated: bool,
    /// Users and roles in the end.
    rights: Rights,
}

/// A sound log reads as what was committed.
fn commands_of(node: &Inspection<'_>, proof: &Proof) -> Found {
    let (mut found, mut calls) = (Found::default(), Calls::default());
    let mut scratch = Vec::new();
    let mut index = LogIndex::ZERO;
    while index < node.store.applied() {
        let noted = proof.payloads[usize_of(index.get())].as_deref();
        let term = proof.committed[usize_of(index.get())].link.term;
        index = index.next();
        let read = node.wal.meta(index).map(|meta| match meta.kind {
            EntryKind::Commands => node.wal.payload(index, &mut scratch),
            EntryKind::NoOp | EntryKind::Configuration => Ok(&[][..]),
        });
        let read = read.transpose().unwrap_or_else(|it| broken("Detection", it.to_string()));
        let differs = matches!((noted, read), (Some(noted), Some(read)) if noted != read);
        must!(!differs, "Detection", "entry {index} is read as another one");
        let Some(payload) = noted.or(read) else {
            broken("Detection", format!("nobody could read entry {index}"))
        };
        if payload.is_empty() {
            continue;
        }
        let mut reader = Reader::new(payload);
        decode_header(&mut reader).expect("an applied entry has a header");
        let before = found.commands.len();
        while !reader.rest().is_empty() {
            let next = decode_issued(&mut reader);
            let issued = next.expect("an applied entry holds commands");
            if !allows(&found.rights, &issued) {
                continue;
            }
            let Issued { asker, call, command } = issued;
            if command == kv::Command::OpenSession {
                calls.open(asker.login);
            }
            follow(&mut found.rights, &command);
            let Some(command) = owned(command, term) else { continue };
            let owner = Some(asker.login).filter(|_| found.rights.enabled);
            if call.is_none_or(|call| calls.is_new(call, owner)) {
                found.commands.push(command);
            } else {
                found.repeated = true;
            }
        }
        found.shared |= found.commands.len() > before + 1;
    }
    found
}

fn rows_of(node: &Inspection<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    let request = RangeRequest {
        key: &[0],
        end: RangeEnd::Unbounded,
        limit: 0,
        revision: Revision(0),
        keys_only: false,
        count_only: false,
        selection: Selection::ALL,
    };
    let found = node.store.range(&request, &mut |found| {
        rows.push(row_of(&found));
        ControlFlow::Continue(())
    });
    found.unwrap_or_else(|_| broken("MVCC", "the newest revision is compacted".to_owned()));
    rows
}
