//! Applies an entry: its commands in order, in groups, so that memory is waited for once per group.
//!
//! With more keys than the cache holds, a put waits for two lines, and the second depends on the
//! first: bucket and key. Done one put at a time, the waits add up. So a group of commands is
//! decoded and hashed first, then all its buckets are loaded, then all its keys: loads that do not
//! depend on each other travel together. What was loaded is thrown away; the changes then find it
//! in the cache. Where its value goes a put need not look for: beside the last one (`versions`).

use std::error::Error;
use std::fmt;
use std::hint::black_box;

use crate::codec::msgpack::Reader;
use crate::types::{LogIndex, LogPosition, Revision, Term};

use super::Store;
use super::answer::{Answer, CommandReply, Refusal, revision_of_reply};
use super::auth::{Asker, AuthChange};
use super::checkpoint::Sliced;
use super::command::{self, Command, CommandError, DeleteWith, Issued, SessionCall};
use super::index::KeyHash;
use super::lease::{NewLease, Said};
use super::session::Standing;

/// Commands to a group: about as many misses as a core keeps in flight. 32 is no faster.
const GROUP: usize = 16;

/// What a group of puts takes of the steps of a slice: with less no entry is begun behind another.
pub const GROUP_STEPS: usize = GROUP * COMMAND_STEPS;

/// What a command takes of the steps of a slice, and each change of a transaction: a put waits for
/// memory where a step of a delete of a range finds it beside the one before.
const COMMAND_STEPS: usize = 8;

/// What the end of a key takes that hangs on a lease, or that a transaction deletes.
pub(super) const DELETE_STEPS: usize = 4;

/// What it takes to measure a user or a role.
const ROW_STEPS: usize = 4;

/// Bytes of an answer's buffer that are kept from one entry to the next.
const BODY_BYTES_KEPT: usize = 64 * 1024;

/// An entry this version cannot apply: written by a newer one, or damaged in memory. The node must
/// stop: the commands before it may have been applied, and going on without it would make another
/// state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyError {
    /// The entry.
    pub index: LogIndex,
    /// What is wrong with it.
    pub why: CommandError,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot apply entry {}", self.index)
    }
}

impl Error for ApplyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.why)
    }
}

impl Store {
    /// Applies an entry of kind `Commands`: calls `reply` once per command, in order, with what it
    /// answers for as long as that call lasts. Panics unless the entry follows the last one
    /// applied.
    pub fn apply(
        &mut self,
        position: LogPosition,
        payload: &[u8],
        reply: &mut dyn FnMut(Answer<'_>),
    ) -> Result<(), ApplyError> {
        let mut steps = usize::MAX;
        let sliced = self.apply_slice(position, payload, &mut steps, reply)?;
        assert_eq!(sliced, Sliced::Done, "a slice without an end holds everything");
        Ok(())
    }

    /// As `apply`, as far as `steps` go, but one command at least: an entry that takes more stops
    /// between two of them, or within a delete of a range, and the next call, with the same entry,
    /// goes on there (`kv/deletion.rs`).
    pub fn apply_slice(
        &mut self,
        position: LogPosition,
        payload: &[u8],
        steps: &mut usize,
        reply: &mut dyn FnMut(Answer<'_>),
    ) -> Result<Sliced, ApplyError> {
        let LogPosition { term, index } = position;
        assert_eq!(index, self.applied.next(), "entries are applied in order, each once");
        let failed = |why| ApplyError { index, why };
        let mut body = std::mem::take(&mut self.body);
        let from = std::mem::take(&mut self.progress.from);
        let mut reader = Reader::new(&payload[from..]);
        let mut is_first = !self.is_deleting();
        if self.is_deleting() {
            let issued = command::decode_issued(&mut reader).map_err(failed)?;
            let hash = self.hash_of(&issued.command);
            let Some(outline) = self.execute_new(hash, &issued, steps, &mut body) else {
                return Ok(self.pause(from, body));
            };
            reply(Answer { outline, body: &body });
        } else if from == 0 {
            self.begin_entry(term, &mut reader).map_err(failed)?;
        }
        let mut group = Group::new();
        while !reader.is_empty() {
            if *steps == 0 && !is_first {
                return Ok(self.pause(payload.len() - reader.rest().len(), body));
            }
            group.read(self, &mut reader, *steps).map_err(failed)?;
            group.touch(self);
            self.free_due(group.spent());
            self.free_more(group.count);
            for (at, issued) in group.issued.iter().enumerate().take(group.count) {
                let hash = group.hashes[at];
                if *steps == 0 && !is_first {
                    return Ok(self.pause(payload.len() - group.rests[at], body));
                }
                is_first = false;
                *steps = steps.saturating_sub(steps_of(&issued.command));
                body.clear();
                if let Some(revision) = self.put_plainly(hash, issued) {
                    reply(Answer { outline: CommandReply::Put { revision }, body: &body });
                    continue;
                }
                let Some(outline) = self.execute_issued(hash, issued, steps, &mut body) else {
                    return Ok(self.pause(payload.len() - group.rests[at], body));
                };
                *steps = steps.saturating_sub(std::mem::take(&mut self.walked));
                reply(Answer { outline, body: &body });
            }
        }
        body.clear();
        body.shrink_to(BODY_BYTES_KEPT);
        self.body = body;
        self.applied = index;
        Ok(Sliced::Done)
    }

    /// The next slice goes on at `from`. What was said so far of a delete waits in `body`.
    fn pause(&mut self, from: usize, body: Vec<u8>) -> Sliced {
        (self.progress.from, self.body) = (from, body);
        Sliced::More
    }

    fn begin_entry(&mut self, term: Term, reader: &mut Reader<'_>) -> Result<(), CommandError> {
        self.progress.hash_before = self.state_hash();
        self.progress.revision_before = self.revision;
        self.progress.compact_revision_before = self.compact_revision;
        self.term = term;
        let header = command::decode_header(reader)?;
        self.stamp_ms = self.stamp_ms.max(header.stamp_ms);
        self.sessions.expire(self.stamp_ms);
        Ok(())
    }

    /// Counts an entry of another kind, which changes nothing here. Panics unless `index` follows
    /// the last one applied.
    pub fn apply_other(&mut self, index: LogIndex) {
        assert_eq!(index, self.applied.next(), "entries are applied in order, each once");
        self.applied = index;
    }

    /// Executes a put that no session calls, if whoever asks may: `None` if it is none, or they may
    /// not. It does what `execute_issued` does, and its revision stays in a register: an outline is
    /// copied in pieces, and to read back a piece that was just written in two the processor waits
    /// until all it wrote before is in the cache, the value too.
    #[inline]
    fn put_plainly(&mut self, hash: KeyHash, issued: &Issued<'_>) -> Option<Revision> {
        let Issued { call: None, command: Command::Put { key, value }, .. } = issued else {
            return None;
        };
        self.judge(issued.asker, &issued.command).ok()?;
        Some(self.put(hash, key, value))
    }

    /// Executes a command if whoever asks may, by the rights that the command before it has left,
    /// and unless it is a call of a session that was before: then its first reply is all it makes.
    /// A command without the right changes nothing, and its session has never heard of it. `None`:
    /// it has begun, and is gone on with by `execute_new`.
    #[inline]
    fn execute_issued(
        &mut self,
        hash: KeyHash,
        issued: &Issued<'_>,
        steps: &mut usize,
        body: &mut Vec<u8>,
    ) -> Option<CommandReply> {
        if let Err(why) = self.judge(issued.asker, &issued.command) {
            return Some(CommandReply::Refused { why: Refusal::Denied(why) });
        }
        if let Some(call) = issued.call
            && let Some(reply) = self.reply_of_before(issued.asker, call, body)
        {
            return Some(reply);
        }
        self.execute_new(hash, issued, steps, body)
    }

    /// What a call of a session has made before, or what keeps it from being done. `None`: it is
    /// new. The test and the note that makes the next test fail (`execute_new`) have no other
    /// command between them.
    fn reply_of_before(
        &mut self,
        asker: Asker,
        call: SessionCall,
        body: &mut Vec<u8>,
    ) -> Option<CommandReply> {
        let owner = self.auth.is_enabled().then_some(asker.login);
        Some(match self.sessions.begin(call, self.stamp_ms, owner) {
            Standing::New => return None,
            Standing::Answered(reply) if reply.has_body() => {
                body.extend_from_slice(self.sessions.body_of(call));
                let revision = revision_of_reply(&reply);
                if body.is_empty() { CommandReply::AnswerNotKept { revision } } else { reply }
            }
            Standing::Answered(reply) => reply,
            Standing::Acknowledged => CommandReply::CallAcknowledged,
            Standing::Expired => CommandReply::SessionExpired,
        })
    }

    /// Executes a command that is to be done, or goes on with it, and keeps its reply for its
    /// session.
    #[inline]
    fn execute_new(
        &mut self,
        hash: KeyHash,
        issued: &Issued<'_>,
        steps: &mut usize,
        body: &mut Vec<u8>,
    ) -> Option<CommandReply> {
        let reply = self.execute(hash, issued, steps, body)?;
        if let Some(call) = issued.call {
            self.sessions.keep(call, reply, body);
        }
        Some(reply)
    }

    #[inline]
    fn execute(
        &mut self,
        hash: KeyHash,
        &Issued { asker, command, .. }: &Issued<'_>,
        steps: &mut usize,
        body: &mut Vec<u8>,
    ) -> Option<CommandReply> {
        Some(match command {
            Command::Put { key, value } => {
                CommandReply::Put { revision: self.put(hash, key, value) }
            }
            Command::DeleteRange { key, end } => {
                let delete = DeleteWith { key, end, prev_kv: false };
                match self.delete_slice(hash, &delete, steps, None)? {
                    Ok(deleted) => CommandReply::DeleteRange { revision: self.revision, deleted },
                    Err(why) => CommandReply::Refused { why },
                }
            }
            Command::Compact { revision } => {
                let refused = self.compact(revision).err();
                CommandReply::Compact { revision: self.revision, refused }
            }
            Command::OpenSession => {
                let session = self.sessions.open(self.stamp_ms, asker.login);
                CommandReply::OpenSession { session }
            }
            Command::PutIf { key, value, mod_revision } => {
                let refused = self.put_if(hash, key, value, mod_revision).err();
                CommandReply::PutIf { revision: self.revision, refused }
            }
            Command::PutWith(put) => match self.put_with(hash, &put, body) {
                Ok(revision) => CommandReply::PutWith { revision },
                Err(why) => CommandReply::Refused { why },
            },
            Command::DeleteRangeWith(delete) => {
                match self.delete_slice(hash, &delete, steps, Some(body))? {
                    Ok(deleted) => {
                        CommandReply::DeleteRangeWith { revision: self.revision, deleted }
                    }
                    Err(why) => CommandReply::Refused { why },
                }
            }
            Command::Txn(txn) => match self.transact(txn, body) {
                Ok(succeeded) => CommandReply::Txn { revision: self.revision, succeeded },
                Err(why) => CommandReply::Refused { why },
            },
            Command::LeaseGrant { lease, ttl_s } => self.grant(NewLease { id: lease, ttl_s }),
            Command::LeaseRevoke { lease } => {
                if self.end_lease(lease) {
                    CommandReply::LeaseRevoke { revision: self.revision }
                } else {
                    CommandReply::Refused { why: Refusal::LeaseNotFound }
                }
            }
            Command::LeaseExpire { term, lease, grant } if self.is_of(term) => {
                self.judge_lease(Said { lease, grant, due_ms: None })
            }
            Command::LeaseCheckpoint { term, lease, grant, due_ms } if self.is_of(term) => {
                self.judge_lease(Said { lease, grant, due_ms: Some(due_ms) })
            }
            Command::LeaseExpire { lease, .. } | Command::LeaseCheckpoint { lease, .. } => {
                CommandReply::Void { lease }
            }
            Command::Auth(change) => self.change_auth(change),
        })
    }

    fn change_auth(&mut self, change: AuthChange<'_>) -> CommandReply {
        let changed = self.auth.change(&change.verb());
        // All of them are measured anew.
        self.walked += ROW_STEPS * self.auth.rows();
        let (revision, auth_revision) = (self.revision, self.auth.revision());
        match changed {
            Ok(()) => CommandReply::Auth { revision, auth_revision },
            Err(why) => CommandReply::Refused { why: Refusal::Auth(why) },
        }
    }

    /// The hash of the key that a command is of, if it is of one.
    fn hash_of(&self, command: &Command<'_>) -> KeyHash {
        match command {
            Command::Put { key, .. }
            | Command::DeleteRange { key, .. }
            | Command::PutIf { key, .. } => self.index.hash(key),
            Command::PutWith(put) => self.index.hash(put.key),
            Command::DeleteRangeWith(delete) => self.index.hash(delete.key),
            Command::Compact { .. }
            | Command::OpenSession
            | Command::Txn(_)
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. }
            | Command::Auth(_) => KeyHash::default(),
        }
    }

    /// Whether the entry that is applied is of this term.
    fn is_of(&self, term: Term) -> bool {
        self.term == term
    }
}

/// What a command takes of a slice's steps, beside what deletes of ranges count themselves, and
/// what is known of it only when it is done (`Store::walked`).
fn steps_of(command: &Command<'_>) -> usize {
    let changes = if let Command::Txn(txn) = command { txn.changes() } else { 0 };
    COMMAND_STEPS * (1 + changes)
}

/// A few commands on their way into the store.
struct Group<'a> {
    issued: [Issued<'a>; GROUP],
    hashes: [KeyHash; GROUP],
    /// What of the entry begins with each of them. Bytes.
    rests: [usize; GROUP],
    count: usize,
}

impl<'a> Group<'a> {
    fn new() -> Group<'a> {
        let command = Command::Compact { revision: Revision(0) };
        let filler = Issued { asker: Asker::NOBODY, call: None, command };
        let (hashes, rests) = ([KeyHash::default(); GROUP], [0; GROUP]);
        Group { issued: [filler; GROUP], hashes, rests, count: 0 }
    }

    /// Reads commands for so many steps, and one at least: the slice ends behind them.
    fn read(
        &mut self,
        store: &Store,
        reader: &mut Reader<'a>,
        mut steps: usize,
    ) -> Result<(), CommandError> {
        self.count = 0;
        for (at, place) in self.issued.iter_mut().enumerate() {
            if reader.is_empty() || (steps == 0 && at > 0) {
                break;
            }
            self.rests[at] = reader.rest().len();
            *place = command::decode_issued(reader)?;
            self.hashes[at] = store.hash_of(&place.command);
            self.count += 1;
            steps = steps.saturating_sub(steps_of(&place.command));
        }
        Ok(())
    }

    /// How many versions to free before the commands: as many as they will queue, range deletes and
    /// ends of leases aside, so that a compacted history never grows; and before they need
    /// places, so that there are some. `tidy` frees the rest.
    fn spent(&self) -> usize {
        let issued = self.issued[..self.count].iter();
        let each = issued.map(|issued| match &issued.command {
            Command::Put { .. } | Command::PutIf { .. } | Command::PutWith(_) => 1,
            Command::DeleteRange { .. }
            | Command::DeleteRangeWith(_)
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. } => 2,
            Command::Txn(txn) => 2 * txn.changes(),
            Command::Compact { .. }
            | Command::OpenSession
            | Command::LeaseGrant { .. }
            | Command::LeaseCheckpoint { .. }
            | Command::Auth(_) => 0,
        });
        each.sum()
    }

    /// Loads the buckets and the sessions of the commands, then the keys.
    fn touch(&self, store: &Store) {
        let hashes = &self.hashes[..self.count];
        let mut seen = hashes.iter().fold(0, |seen, hash| seen ^ store.index.touch(*hash));
        for call in self.issued[..self.count].iter().filter_map(|issued| issued.call) {
            seen ^= store.sessions.touch(call.session);
        }
        black_box(seen);
        for hash in hashes {
            if let Some(id) = store.index.candidate(*hash) {
                seen ^= store.keys.at(id).version;
            }
        }
        black_box(seen);
    }
}
