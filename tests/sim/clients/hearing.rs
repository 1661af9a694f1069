//! What clients hear.

use super::{Attempt, GUEST_OP, Line};
use crate::coverage::{Coverage, Point};
use crate::history::product::{answer_of, read_of, row_of, txn_answer_of};
use crate::history::txns::{Done, Got, Txn};
use crate::history::{Answer, Command, Consistency, OpKind, Outcome};
use crate::invariants::must;
use crate::network::PipeKey;
use crate::options::Class;
use crate::trace::{Who, say};
use crate::world::{World, machine_of};
use raftd::wire::error::Error;
use raftd::wire::frame::next_frame;
use raftd::wire::reply::{Reply, ReplyBody, decode_reply};

/// What an answer means for the op.
enum Meaning {
    Done(Answer),
    Refused,
    Unknown,
    /// It was done, and nobody will ever know what it saw.
    Forgotten,
    /// Whether it was done nobody will ever know: its session is another login's.
    SessionLost,
}

impl World {
    /// Bytes arrive at a client.
    pub(crate) fn client_hears(&mut self, client: usize, pipe: PipeKey, bytes: &[u8]) {
        let it = &mut self.crowd.clients[client];
        if it.nonsense.as_ref().is_some_and(|line| line.pipe == pipe) {
            return self.nonsense_answered(client, bytes);
        }
        let usual = it.lines.iter().position(|line| is(line.as_ref(), pipe));
        let node = usual.unwrap_or(it.guest.node);
        let Some(line) = it.line_mut(pipe) else { return };
        line.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut line.input);
        let mut greeted = line.greeted;
        let mut taken = 0;
        while let Ok(Some(frame)) = next_frame(&input[taken..], usize::MAX >> 1) {
            taken += frame.consumed;
            if std::mem::replace(&mut greeted, true) {
                self.answer(client, node, pipe, frame.body);
            }
        }
        input.drain(..taken);
        if let Some(line) = self.crowd.clients[client].line_mut(pipe) {
            line.input = input;
            line.greeted = greeted;
        }
    }

    fn nonsense_answered(&mut self, client: usize, bytes: &[u8]) {
        let line = self.crowd.clients[client].nonsense.as_mut().expect("it was just found");
        line.input.extend_from_slice(bytes);
        let mut taken = 0;
        while let Ok(Some(frame)) = next_frame(&line.input[taken..], usize::MAX >> 1) {
            taken += frame.consumed;
            if let Ok(reply) = decode_reply(frame.body)
                && matches!(reply.body, ReplyBody::Error(Error::BadRequest { .. }))
            {
                self.coverage.hit(Point::BadRequest);
            }
        }
        line.input.drain(..taken);
    }

    fn answer(&mut self, client: usize, node: usize, pipe: PipeKey, body: &[u8]) {
        let reply = decode_reply(body).expect("a node says what clients can read");
        if self.is_saving(client, reply.id) && !self.on_save(client, node, &reply) {
            return;
        }
        if self.is_part(client, &reply) {
            return;
        }
        let line = self.crowd.clients[client].line_mut(pipe);
        let awaited = line.is_none_or(|line| line.unanswered.remove(&reply.id));
        must!(
            awaited || self.is_watching(client, reply.id),
            "Answered",
            "c{client} hears {} for #{} of n{}, which it did not ask, or has heard",
            Shown(&reply.body),
            reply.id,
            node + 1
        );
        if self.on_login(client, pipe, &reply) {
            return;
        }
        if let ReplyBody::Error(Error::Denied { why }) = reply.body
            && !self.crowd.clients[client].guest.is_on(pipe)
        {
            self.on_denied(client, pipe, why);
        }
        if self.crowd.clients[client].opening == Some(reply.id) {
            return self.on_session(client, &reply.body);
        }
        if self.hear_watch(client, reply.id, &reply.body)
            || self.hear_guest(client, reply.id, &reply.body)
            || self.on_look(client, reply.id, &reply.body)
            || self.on_change(client, reply.id, &reply.body)
        {
            return;
        }
        self.crowd.clients[client].leaving.remove(&reply.id);
        self.crowd.clients[client].rising.remove(&reply.id);
        self.crowd.clients[client].handovers.remove(&reply.id);
        if let Some(asked) = self.crowd.clients[client].errands.remove(&reply.id) {
            return self.on_errand(client, asked, &reply.body);
        }
        if self.on_lease(client, reply.id, &reply.body) {
            return;
        }
        let Some(attempt) = self.crowd.clients[client].attempts.remove(&reply.id) else { return };
        must!(attempt.node == node, "NoPhantom", "n{} answers for another", node + 1);
        let shown = Shown(&reply.body);
        say!(self, Who::Client(client), "hear", "n{} #{} {shown}", node + 1, reply.id);
        self.judge_right(&attempt, &reply.body);
        if attempt.of_call && self.knows_answer(client, &attempt, &reply.body) {
            return;
        }
        let meaning = self.meaning(client, &attempt, &reply.body);
        self.take_meaning(client, &attempt, meaning);
    }

    fn take_meaning(&mut self, client: usize, attempt: &Attempt, meaning: Meaning) {
        let row = &mut self.crowd.history.ops[attempt.row];
        match meaning {
            Meaning::Done(answer) => {
                row.ret = Some(self.now);
                row.outcome = Outcome::Answered(answer);
                (row.node, row.boot) = (u32_of(attempt.node + 1), attempt.boot);
                if attempt.op != GUEST_OP {
                    self.count_as_done(client, attempt.op);
                    self.no_longer_wanted(client, attempt.op);
                    self.crowd.clients[client].prefers = attempt.node;
                }
                self.look_at_answer(client, attempt);
            }
            // Another copy of the call may be under way.
            Meaning::Refused if attempt.of_call => self.retry(client, attempt.op),
            Meaning::Refused => {
                row.ret = Some(self.now);
                row.outcome = Outcome::Refused;
                self.retry(client, attempt.op);
            }
            Meaning::Unknown => {
                self.coverage.hit(Point::OutcomeUnknown);
                self.retry_unknown(client, attempt.op);
            }
            Meaning::Forgotten => {
                self.count_as_done(client, attempt.op);
                self.no_longer_wanted(client, attempt.op);
            }
            Meaning::SessionLost => self.lose_session(client, attempt.op),
        }
    }

    /// An op has been answered as asked. Of two answers, one of them to a call of a session that
    /// was lost meanwhile, the first counts as a change that was done.
    fn count_as_done(&mut self, client: usize, op: u64) {
        self.crowd.committed += 1;
        let wanted = self.crowd.clients[client].wanted.get(&op);
        if let Some(wanted) = wanted.filter(|it| matches!(it.kind, OpKind::Change(_))) {
            self.crowd.changes.done += 1;
            self.crowd.changes.over_quota -= u64::from(wanted.over_quota);
        }
    }

    /// The store has no room for it.
    fn count_as_over_quota(&mut self, client: usize, op: u64) {
        self.coverage.hit(Point::OverQuota);
        if let Some(wanted) = self.crowd.clients[client].wanted.get_mut(&op) {
            let before = std::mem::replace(&mut wanted.over_quota, true);
            self.crowd.changes.over_quota += u64::from(!before);
        }
    }

    /// Whether others follow to the same request. What a part says is kept until then.
    fn is_part(&mut self, client: usize, reply: &Reply<'_>) -> bool {
        let ReplyBody::Range(range) = &reply.body else { return false };
        let sizes = range.kvs().map(|kv| kv.key.len() + kv.value.len());
        check_frame("a range", sizes, self.options.working.range_part_bytes);
        if !range.goes_on {
            return false;
        }
        must!(!range.is_empty(), "Parts", "c{client} hears a part of #{} without a key", reply.id);
        self.coverage.hit(Point::RangeInParts);
        if let Some(attempt) = self.crowd.clients[client].attempts.get_mut(&reply.id) {
            attempt.rows.extend(range.kvs().map(|kv| row_of(&kv)));
        }
        true
    }

    fn meaning(&mut self, client: usize, attempt: &Attempt, body: &ReplyBody<'_>) -> Meaning {
        match body {
            ReplyBody::Put { revision } => Meaning::Done(Answer::Put { revision: revision.0 }),
            ReplyBody::DeleteRange { revision, deleted } => {
                Meaning::Done(Answer::Delete { revision: revision.0, deleted: *deleted })
            }
            ReplyBody::Range(range) => {
                let rows = range.kvs().map(|kv| row_of(&kv));
                Meaning::Done(Answer::Range {
                    revision: range.revision.0,
                    rows: attempt.rows.iter().cloned().chain(rows).collect(),
                    more: range.more,
                    count: range.count,
                })
            }
            ReplyBody::PutIf { revision, refused } => {
                let refused = refused.map(|found| found.0);
                Meaning::Done(Answer::PutIf { revision: revision.0, refused })
            }
            ReplyBody::PutWith { .. }
            | ReplyBody::DeleteRangeWith { .. }
            | ReplyBody::Txn { .. } => {
                if let Some(answer) = read_of(body) {
                    return Meaning::Done(answer);
                }
                if self.asks_for_txn(attempt)
                    && let Some(answer) = txn_answer_of(body)
                {
                    return Meaning::Done(answer);
                }
                let (answer, rows) = answer_of(body).unwrap_or_else(|| {
                    let why = format!("c{client} cannot have asked for {body:?}");
                    crate::invariants::broken("Answer", why)
                });
                self.crowd.history.ops[attempt.row].saw = Some(rows);
                Meaning::Done(answer)
            }
            ReplyBody::OpenSession { .. }
            | ReplyBody::Compact { .. }
            | ReplyBody::LeaseTerm { .. }
            | ReplyBody::LeaseRevoke { .. }
            | ReplyBody::LeaseTimes(..)
            | ReplyBody::LeaseList(_)
            | ReplyBody::Status(_)
            | ReplyBody::Watch(_)
            | ReplyBody::WatchCancel { .. }
            | ReplyBody::WatchProgress { .. }
            | ReplyBody::Auth { .. }
            | ReplyBody::Login(_)
            | ReplyBody::LoginProof(_)
            | ReplyBody::AuthRead(_)
            | ReplyBody::Snapshot(_)
            | ReplyBody::MemberList(_)
            | ReplyBody::MemberChange { .. }
            | ReplyBody::Transfer { .. } => unreachable!("nobody asks for it"),
            ReplyBody::Error(error) => self.meaning_of_error(client, attempt, error),
        }
    }

    pub(super) fn asks_for_txn(&self, attempt: &Attempt) -> bool {
        let kind = &self.crowd.history.ops[attempt.row].kind;
        matches!(kind, OpKind::Change(Command::Txn(_)))
    }

    fn meaning_of_error(&mut self, client: usize, attempt: &Attempt, error: &Error) -> Meaning {
        let it = &mut self.crowd.clients[client];
        match error {
            // It was under way, and its revision was the newest when it began.
            Error::Compacted { .. } if attempt.reads_now => {
                self.coverage.hit(Point::RangeOvertaken);
            }
            Error::Compacted { compact_revision } => {
                self.coverage.hit(Point::ReadCompacted);
                return Meaning::Done(Answer::Compacted { compact_revision: compact_revision.0 });
            }
            Error::FutureRevision { revision } => {
                self.coverage.hit(Point::ReadFuture);
                return Meaning::Done(Answer::Future { revision: revision.0 });
            }
            // A copy of a call whose answer was large. Who asks again hears the same: seed 11586.
            Error::AnswerNotKept { .. } if attempt.of_call => {
                self.coverage.hit(Point::AnswerNotKept);
                return Meaning::Forgotten;
            }
            Error::OutcomeUnknown => return Meaning::Unknown,
            // It was opened before rights counted, or before root got the same password anew.
            Error::SessionExpired if attempt.of_call && self.options.has(Class::Rights) => {
                self.coverage.hit(Point::SessionLost);
                return Meaning::SessionLost;
            }
            // What it takes to be served was judged before.
            Error::Denied { .. } => {}
            Error::NotLeader { leader } => {
                let read = matches!(self.crowd.history.ops[attempt.row].kind, OpKind::Range(_));
                self.coverage.hit_if(read && attempt.led, Point::ReadDropped);
                it.prefers = match leader {
                    Some((leader, _)) if !it.chance.one_in(8) => {
                        self.coverage.hit(Point::Redirected);
                        machine_of(*leader)
                    }
                    Some(_) | None => it.chance.pick(&self.crowd.reach),
                };
            }
            Error::Busy { .. } => self.coverage.hit(Point::Busy),
            Error::NoSpace => self.coverage.hit(Point::NoSpace),
            Error::OverQuota { bytes, max } => {
                must!(bytes >= max, "Quota", "refused with {bytes} of {max} bytes");
                self.count_as_over_quota(client, attempt.op);
            }
            // A server that was removed says so, and one that has not joined yet is not ready.
            Error::NotReady { .. } | Error::Removed { .. } => {
                it.prefers = it.chance.pick(&self.crowd.reach)
            }
            Error::BadRequest { .. }
            | Error::TooLarge { .. }
            | Error::WrongCluster { .. }
            | Error::WrongNode { .. }
            | Error::Unsupported { .. }
            | Error::Refused { .. }
            | Error::SessionExpired
            | Error::CallAcknowledged
            | Error::KeyNotFound
            | Error::LeaseNotFound
            | Error::LeaseExists
            | Error::TooManyLeases { .. }
            | Error::AnswerNotKept { .. }
            | Error::AnswerTooLarge { .. }
            | Error::Auth { .. }
            | Error::Other { .. } => {
                crate::invariants::broken("Answer", format!("a sound request got: {error}"))
            }
        }
        Meaning::Refused
    }

    /// ReadFreshness at once, so that the trace ends where it is broken; the history is checked as
    /// a whole in the end.
    fn look_at_answer(&mut self, client: usize, attempt: &Attempt) {
        let op = &self.crowd.history.ops[attempt.row];
        let Outcome::Answered(answer) = &op.outcome else { return };
        let floor = attempt.floor;
        let told = match (answer, &op.kind) {
            (Answer::Put { revision }, _) => {
                must!(*revision > floor, "ReadFreshness", "c{client} put at {revision} <= {floor}");
                *revision
            }
            (Answer::PutIf { revision, refused }, _) => {
                self.coverage.hit_if(refused.is_none(), Point::ConditionHeld);
                self.coverage.hit_if(refused.is_some(), Point::ConditionFailed);
                must!(
                    *revision > floor || (refused.is_some() && *revision == floor),
                    "ReadFreshness",
                    "c{client} put at {revision}, {floor} was known"
                );
                *revision
            }
            (Answer::Txn { revision, done }, OpKind::Change(Command::Txn(txn))) => {
                let keys = done.keys();
                must!(
                    *revision > floor || (keys == 0 && *revision == floor),
                    "ReadFreshness",
                    "c{client} changed {keys} keys at {revision}, {floor} was known"
                );
                note_txn(&mut self.coverage, txn, done);
                *revision
            }
            (Answer::Delete { revision, deleted }, OpKind::Change(Command::Delete { .. })) => {
                must!(
                    *revision > floor || (*deleted == 0 && *revision == floor),
                    "ReadFreshness",
                    "c{client} deleted at {revision}, {floor} was known"
                );
                *revision
            }
            (Answer::Range { revision, .. }, OpKind::Range(args)) => {
                let unbound = args.consistency == Consistency::UnboundLease;
                let serializable = unbound || args.consistency == Consistency::Serializable;
                self.coverage.hit_if(unbound && *revision < floor, Point::LeaseReadStale);
                let old = args.revision > 0;
                self.coverage.hit_if(old, Point::ReadAtRevision);
                self.coverage.hit_if(serializable && *revision < floor, Point::SerializableStale);
                must!(
                    serializable || *revision >= floor,
                    "ReadFreshness",
                    "c{client} read at {revision} from n{}, {floor} was known",
                    attempt.node + 1
                );
                *revision
            }
            (_, _) => 0,
        };
        self.crowd.told = self.crowd.told.max(told);
        self.crowd.note_changes(attempt.row);
    }

    /// A client's patience with a request has ended.
    pub(crate) fn on_timeout(&mut self, client: usize, request: u64) {
        let opening = &mut self.crowd.clients[client].opening;
        opening.take_if(|asked| *asked == request);
        self.crowd.clients[client].errands.remove(&request);
        self.crowd.clients[client].holder.give_up(request);
        self.crowd.clients[client].guest.give_up(request);
        let Some(attempt) = self.crowd.clients[client].attempts.remove(&request) else { return };
        self.coverage.hit(Point::TimedOut);
        let it = &mut self.crowd.clients[client];
        it.prefers = it.chance.pick(&self.crowd.reach);
        if it.chance.one_in(2) {
            if attempt.op == GUEST_OP {
                self.leave_as_guest(client);
            } else {
                self.drop_line(client, attempt.node);
            }
        }
        self.retry_unknown(client, attempt.op);
    }

    fn drop_line(&mut self, client: usize, node: usize) {
        if let Some(line) = self.crowd.clients[client].lines[node].take() {
            self.hang_up(line.pipe, 0);
            self.forget_attempts(client, line.pipe);
        }
    }

    /// The connection is over: whatever waited on it has an unknown outcome.
    pub(crate) fn client_lost(&mut self, client: usize, pipe: PipeKey) {
        let it = &mut self.crowd.clients[client];
        let guests = it.guest.is_on(pipe);
        for line in it.lines.iter_mut().chain([&mut it.nonsense, &mut it.guest.line]) {
            if is(line.as_ref(), pipe) {
                *line = None;
            }
        }
        it.prefers = it.chance.pick(&self.crowd.reach);
        self.forget_attempts(client, pipe);
        if guests {
            self.forget_guest(client);
        }
    }

    pub(super) fn forget_attempts(&mut self, client: usize, pipe: PipeKey) {
        self.crowd.clients[client].saves.retain(|_, save| save.pipe != pipe);
        self.lose_watches(client, pipe);
        let attempts = &mut self.crowd.clients[client].attempts;
        let lost: Vec<u64> = attempts
            .iter()
            .filter(|(_, attempt)| attempt.pipe == pipe)
            .map(|(request, _)| *request)
            .collect();
        for request in lost {
            let attempt = self.crowd.clients[client].attempts.remove(&request);
            self.retry_unknown(client, attempt.expect("it was just found").op);
        }
    }
}

/// A frame is full with the key that reaches the bound.
pub(super) fn check_frame(what: &str, sizes: impl Iterator<Item = usize>, most: usize) {
    let sizes: Vec<usize> = sizes.collect();
    let bytes: usize = sizes.iter().rev().skip(1).sum();
    must!(
        bytes <= most,
        "ResourceBounds",
        "{} keys in a frame of {what}, {bytes} bytes before the last, of at most {most}",
        sizes.len()
    );
}

fn note_txn(coverage: &mut Coverage, txn: &Txn, done: &Done) {
    let changed = done.keys() > 0;
    coverage.hit_if(changed && done.results.len() > 1, Point::TxnDone);
    coverage.hit_if(changed && !done.succeeded, Point::TxnElse);
    coverage.hit_if(done.keys() > 1 && txn.compares.len() > 1, Point::TxnCompared);
    let inner = |got: &Got| matches!(got, Got::Txn(inner) if inner.keys() > 0);
    coverage.hit_if(done.results.iter().any(inner), Point::TxnInside);
}

fn u32_of(number: usize) -> u32 {
    u32::try_from(number).expect("few nodes")
}

fn is(line: Option<&Line>, pipe: PipeKey) -> bool {
    line.is_some_and(|line| line.pipe == pipe)
}

/// A reply for the trace.
struct Shown<'a, 'b>(&'a ReplyBody<'b>);

impl std::fmt::Display for Shown<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ReplyBody::Put { revision } => write!(f, "put rev={revision}"),
            ReplyBody::DeleteRange { revision, deleted } => {
                write!(f, "deleted {deleted} rev={revision}")
            }
            ReplyBody::Range(range) => {
                write!(f, "range of {} rev={}", range.len(), range.revision)
            }
            ReplyBody::OpenSession { session } => write!(f, "session {session}"),
            ReplyBody::PutIf { revision, .. } => write!(f, "put-if rev={revision}"),
            ReplyBody::Compact { revision } => write!(f, "compacted rev={revision}"),
            ReplyBody::PutWith { revision, .. } => write!(f, "put-with rev={revision}"),
            ReplyBody::DeleteRangeWith { revision, deleted, .. } => {
                write!(f, "deleted-with {deleted} rev={revision}")
            }
            ReplyBody::Txn { revision, succeeded, .. } => {
                write!(f, "txn {succeeded} rev={revision}")
            }
            ReplyBody::LeaseTerm { term, .. } => write!(f, "lease {}", term.lease),
            ReplyBody::LeaseRevoke { revision } => write!(f, "revoked rev={revision}"),
            ReplyBody::LeaseTimes(times, _) => write!(f, "lease {}", times.lease),
            ReplyBody::LeaseList(list) => write!(f, "{} leases", list.leases.len()),
            ReplyBody::Status(_) => f.write_str("status"),
            ReplyBody::Snapshot(piece) => write!(f, "{} bytes of a snapshot", piece.bytes.len()),
            ReplyBody::Watch(_)
            | ReplyBody::WatchCancel { .. }
            | ReplyBody::WatchProgress { .. } => f.write_str("watch"),
            ReplyBody::Auth { auth_revision, .. } => write!(f, "auth at {auth_revision}"),
            ReplyBody::Login(_) | ReplyBody::LoginProof(_) => f.write_str("login"),
            ReplyBody::AuthRead(_) => f.write_str("users and roles"),
            ReplyBody::MemberList(_) => f.write_str("members"),
            ReplyBody::MemberChange { index, .. } => write!(f, "members changed at {index}"),
            ReplyBody::Transfer { leader } => write!(f, "{leader} leads"),
            ReplyBody::Error(error) => write!(f, "error: {error}"),
        }
    }
}
