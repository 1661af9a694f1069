//! Client sessions: done once, answered the same, forgotten by rule; against a model that keeps
//! everything in maps.

use std::collections::BTreeMap;

use raftd::kv::command::{EntryHeader, encode_call, encode_command, encode_header};
use raftd::kv::{
    Command, CommandReply, KeptReply, SessionCall, SessionCounters, SessionRow, Store,
};
use raftd::limits::{SESSION_IDLE_MS, SESSION_WINDOW, SESSIONS_MAX};
use raftd::types::{LogIndex, Revision, SessionId};

use super::model::{self, Model};
use super::support::{self, Owned, Random, put, put_if};

/// A command of an entry.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Open,
    Plain(Owned),
    Call(SessionCall, Owned),
}

pub(super) fn apply_at(store: &mut Store, stamp_ms: u64, items: &[Item]) -> Vec<CommandReply> {
    let mut payload = Vec::new();
    encode_header(&mut payload, EntryHeader { stamp_ms });
    for item in items {
        match item {
            Item::Open => encode_command(&mut payload, Command::OpenSession),
            Item::Plain(command) => encode_command(&mut payload, command.as_command()),
            Item::Call(call, command) => {
                encode_call(&mut payload, *call);
                encode_command(&mut payload, command.as_command());
            }
        }
    }
    let mut replies = Vec::new();
    let index: LogIndex = store.applied().next();
    store.apply(support::at(index), &payload, &mut |answer| replies.push(answer.outline)).unwrap();
    replies
}

fn apply(store: &mut Store, items: &[Item]) -> Vec<CommandReply> {
    apply_at(store, 1_000, items)
}

fn open_at(store: &mut Store, stamp_ms: u64) -> SessionId {
    match apply_at(store, stamp_ms, &[Item::Open])[..] {
        [CommandReply::OpenSession { session }] => session,
        ref other => panic!("opening a session was answered {other:?}"),
    }
}

pub(super) fn call(session: SessionId, sequence: u64, acknowledged: u64, command: Owned) -> Item {
    Item::Call(SessionCall { session, sequence, acknowledged }, command)
}

fn put_reply(revision: u64) -> CommandReply {
    CommandReply::Put { revision: Revision(revision) }
}

#[test]
fn a_call_that_comes_twice_is_done_once_and_answered_the_same() {
    let mut store = support::store_with(1, 1 << 20);
    let session = open_at(&mut store, 1);
    let first = call(session, 1, 0, put("k", "v"));
    assert_eq!(apply(&mut store, std::slice::from_ref(&first)), [put_reply(2)]);
    apply(&mut store, &[Item::Plain(put("k", "other"))]);
    // In an entry of its own, and twice in one.
    assert_eq!(apply(&mut store, std::slice::from_ref(&first)), [put_reply(2)]);
    let second = call(session, 2, 0, put_if("k", "w", 3));
    let done = CommandReply::PutIf { revision: Revision(4), refused: None };
    assert_eq!(apply(&mut store, &[second.clone(), first, second]), [done, put_reply(2), done]);
    assert_eq!(store.get(b"k").unwrap().value, b"w");
    assert_eq!(store.revision(), Revision(4));
}

#[test]
fn calls_are_done_in_whatever_order_they_come_within_the_window() {
    let mut store = support::store_with(1, 1 << 20);
    let session = open_at(&mut store, 1);
    let calls = |sequence| call(session, sequence, 0, put("k", &sequence.to_string()));
    for (revision, sequence) in (2..).zip((1..=SESSION_WINDOW).rev()) {
        assert_eq!(apply(&mut store, &[calls(sequence)]), [put_reply(revision)]);
    }
    let newest = store.revision();
    for sequence in 1..=SESSION_WINDOW {
        let first = put_reply(SESSION_WINDOW - sequence + 2);
        assert_eq!(apply(&mut store, &[calls(sequence)]), [first]);
    }
    assert_eq!(store.revision(), newest);
    check_loads(&mut store);
}

#[test]
fn a_late_copy_of_an_acknowledged_call_is_not_done() {
    let mut store = support::store_with(1, 1 << 20);
    let session = open_at(&mut store, 1);
    let late = call(session, 1, 0, put("k", "1"));
    // Call 2 gives call 1 up before it ever came.
    apply(&mut store, &[call(session, 2, 1, put("k", "2"))]);
    assert_eq!(apply(&mut store, &[late]), [CommandReply::CallAcknowledged]);
    assert_eq!(store.get(b"k").unwrap().value, b"2");
}

#[test]
fn a_call_of_no_session_is_not_done() {
    let mut store = support::store_with(1, 1 << 20);
    let session = open_at(&mut store, 1);
    // The next number, and one that has the same place.
    for id in [session.0 + 1, session.0 + 16_384] {
        let stray = call(SessionId(id), 1, 0, put("k", "v"));
        assert_eq!(apply(&mut store, &[stray]), [CommandReply::SessionExpired]);
    }
    assert_eq!(store.revision(), Revision(1));
}

#[test]
fn a_session_ends_an_hour_after_its_last_use_by_the_leaders_stamps() {
    let mut store = support::store_with(1, 1 << 20);
    let (idle, used) = (open_at(&mut store, 1_000), open_at(&mut store, 1_000));
    let last = SESSION_IDLE_MS + 999;
    apply_at(&mut store, last, &[call(used, 1, 0, put("k", "1"))]);
    assert_eq!(store.session_count(), 2);
    let replies = apply_at(&mut store, last + 1, &[call(idle, 1, 0, put("k", "2"))]);
    assert_eq!(replies, [CommandReply::SessionExpired]);
    let replies = apply_at(&mut store, last + 1, &[call(used, 1, 0, put("k", "1"))]);
    assert_eq!(replies, [put_reply(2)]);
    // Stamps that go back change nothing.
    apply_at(&mut store, 5, &[]);
    assert_eq!(store.session_count(), 1);
}

/// A new leader's first stamp may be older than the last one. A session used then would have been
/// used, by its note, long before: the next stamp that is right would end it at once.
#[test]
fn a_session_used_at_a_stamp_that_went_back_is_kept_as_long_as_any() {
    let mut store = support::store_with(1, 1 << 20);
    let late = 2 * SESSION_IDLE_MS;
    let session = open_at(&mut store, late);
    apply_at(&mut store, 5, &[call(session, 1, 0, put("k", "1"))]);
    assert_eq!(store.stamp_ms(), late);
    let second = call(session, 2, 0, put("k", "2"));
    assert_eq!(apply_at(&mut store, late + SESSION_IDLE_MS - 1, &[second]), [put_reply(3)]);
}

#[test]
fn one_session_too_many_ends_the_one_unused_for_longest_and_no_number_comes_twice() {
    let mut store = support::store_with(1, 1 << 20);
    let mut open: Vec<SessionId> = (0..SESSIONS_MAX).map(|_| open_at(&mut store, 1)).collect();
    check_loads(&mut store);
    assert_eq!(apply(&mut store, &[call(open[0], 1, 0, put("k", "v"))]), [put_reply(2)]);
    for next in 1..=SESSIONS_MAX * 3 {
        let session = open_at(&mut store, 1);
        assert!(session > *open.last().unwrap());
        open.push(session);
        assert_eq!(store.session_count(), SESSIONS_MAX);
        if next < 3 {
            let ended = call(open[next], 1, 0, put("k", "w"));
            assert_eq!(apply(&mut store, &[ended]), [CommandReply::SessionExpired]);
        }
        let kept = apply(&mut store, &[call(open[0], 1, 0, put("k", "v"))]);
        assert_eq!(kept, [put_reply(2)], "used all the time");
    }
}

#[test]
fn a_put_if_wants_exactly_the_last_change() {
    let mut store = support::store_with(1, 1 << 20);
    let mut ask = |command| support::apply(&mut store, &[command])[0];
    let done = |revision| CommandReply::PutIf { revision: Revision(revision), refused: None };
    let not = |revision, found| CommandReply::PutIf {
        revision: Revision(revision),
        refused: Some(Revision(found)),
    };
    assert_eq!(ask(put_if("k", "1", 1)), not(1, 0));
    assert_eq!(ask(put_if("k", "1", 0)), done(2));
    assert_eq!(ask(put_if("k", "2", 0)), not(2, 2));
    assert_eq!(ask(put("other", "x")), put_reply(3));
    assert_eq!(ask(put_if("k", "2", 2)), done(4));
    assert_eq!(ask(put_if("k", "3", 2)), not(4, 4));
    ask(support::delete("k", ""));
    assert_eq!(ask(put_if("k", "3", 4)), not(5, 0));
    assert_eq!(ask(put_if("k", "3", 5)), not(5, 0), "a tombstone is no key");
    assert_eq!(ask(put_if("k", "3", 0)), done(6));
}

/// What a session is, in maps.
#[derive(Default)]
struct ModelSession {
    acknowledged: u64,
    kept: BTreeMap<u64, CommandReply>,
    used: u64,
    used_ms: u64,
}

struct SessionModel {
    store: Model,
    sessions: BTreeMap<u64, ModelSession>,
    last: u64,
    uses: u64,
    stamp_ms: u64,
}

impl SessionModel {
    fn begin_entry(&mut self, stamp_ms: u64) {
        self.stamp_ms = self.stamp_ms.max(stamp_ms);
        for _ in 0..16 {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
            let Some((id, session)) = oldest else { return };
            if self.stamp_ms < session.used_ms + SESSION_IDLE_MS {
                return;
            }
            let id = *id;
            self.sessions.remove(&id);
        }
    }

    fn apply(&mut self, item: &Item) -> CommandReply {
        match item {
            Item::Plain(command) => self.store.apply(command),
            Item::Open => {
                self.uses += 1;
                self.last += 1;
                let (used, used_ms) = (self.uses, self.stamp_ms);
                let session = ModelSession { used, used_ms, ..ModelSession::default() };
                self.sessions.insert(self.last, session);
                CommandReply::OpenSession { session: SessionId(self.last) }
            }
            Item::Call(call, command) => {
                let Some(session) = self.sessions.get_mut(&call.session.0) else {
                    return CommandReply::SessionExpired;
                };
                self.uses += 1;
                (session.used, session.used_ms) = (self.uses, self.stamp_ms);
                session.acknowledged = session.acknowledged.max(call.acknowledged);
                session.kept.retain(|sequence, _| *sequence > session.acknowledged);
                if call.sequence <= session.acknowledged {
                    return CommandReply::CallAcknowledged;
                }
                if let Some(reply) = session.kept.get(&call.sequence) {
                    return *reply;
                }
                let reply = self.store.apply(command);
                session.kept.insert(call.sequence, reply);
                reply
            }
        }
    }

    fn state_hash(&self) -> u64 {
        let sessions = self.sessions.iter().map(|(id, session)| {
            let replies = session.kept.iter().map(|(sequence, reply)| match *reply {
                CommandReply::Put { revision } => [4, *sequence, 1, revision.0, 0, 0, 0],
                CommandReply::DeleteRange { revision, deleted } => {
                    [4, *sequence, 2, revision.0, deleted, 0, 0]
                }
                CommandReply::PutIf { revision, refused } => {
                    let found = refused.map_or(0, |found| found.0);
                    [4, *sequence, 6, revision.0, u64::from(refused.is_some()), found, 0]
                }
                CommandReply::Compact { .. }
                | CommandReply::OpenSession { .. }
                | CommandReply::PutWith { .. }
                | CommandReply::DeleteRangeWith { .. }
                | CommandReply::Txn { .. }
                | CommandReply::LeaseGrant { .. }
                | CommandReply::LeaseRevoke { .. }
                | CommandReply::LeaseExpire { .. }
                | CommandReply::LeaseCheckpoint { .. }
                | CommandReply::Auth { .. }
                | CommandReply::Void { .. }
                | CommandReply::Refused { .. }
                | CommandReply::SessionExpired
                | CommandReply::CallAcknowledged
                | CommandReply::AnswerNotKept { .. } => panic!("{reply:?} is not kept"),
            });
            let replies = replies.map(model::hash).fold(0, u64::wrapping_add);
            let ModelSession { acknowledged, used, used_ms, .. } = *session;
            model::hash([3, *id, acknowledged, used, used_ms, replies, 0])
        });
        let sessions = sessions.fold(self.store.live_hash(), u64::wrapping_add);
        sessions.wrapping_add(self.store.store_hash(self.last, self.uses))
    }
}

/// A client that sends calls ahead of their answers, and any of them again.
#[derive(Default)]
struct Caller {
    session: SessionId,
    sent: Vec<(SessionCall, Owned)>,
    acknowledged: u64,
}

impl Caller {
    fn next(&mut self, random: &mut Random, model: &SessionModel) -> Item {
        let newest = u64::try_from(self.sent.len()).unwrap();
        let full = newest - self.acknowledged >= SESSION_WINDOW.min(20);
        if self.session == SessionId(0) || random.one_in(400) {
            return Item::Open;
        }
        if newest > 0 && (full || random.one_in(3)) {
            self.acknowledged += random.below(newest - self.acknowledged + 1);
            let back = random.size_below(self.sent.len().min(40));
            let (call, command) = self.sent[self.sent.len() - 1 - back].clone();
            return Item::Call(call, command);
        }
        let command = loop {
            match model::some_command(random, &model.store, 40) {
                Owned::Compact { .. } => {}
                command @ (Owned::Put { .. } | Owned::PutIf { .. } | Owned::Delete { .. }) => {
                    break command;
                }
            }
        };
        let (session, acknowledged) = (self.session, self.acknowledged);
        let call = SessionCall { session, sequence: newest + 1, acknowledged };
        self.sent.push((call, command.clone()));
        Item::Call(call, command)
    }

    fn opened(&mut self, reply: CommandReply) {
        if let CommandReply::OpenSession { session } = reply {
            *self = Caller { session, ..Caller::default() };
        }
    }
}

/// What a store may hold a checkpoint may hold, up to the very bounds.
fn check_loads(store: &mut Store) {
    let copy = super::checkpoint::reloaded(store);
    assert_eq!(rows(&copy), rows(store));
    assert_eq!(copy.state_hash(), store.state_hash());
}

/// The same sessions in another store, as from a checkpoint.
fn check_restored(store: &Store) {
    let mut copy = support::store_with(9, 1 << 20);
    for (row, replies) in store.sessions() {
        copy.restore_session(row, replies);
    }
    copy.restore_session_counters(store.session_counters());
    assert_eq!(rows(&copy), rows(store));
    assert_eq!(copy.session_counters(), store.session_counters());
}

/// What `pin_sessions` keeps, in another store, as from a checkpoint.
fn pinned_copy(store: &Store, counters: SessionCounters) -> Store {
    let mut copy = support::store_with(9, 1 << 20);
    let mut place = 0;
    while let Some((at, row, replies)) = store.pinned_session(place) {
        copy.restore_session(row, replies);
        place = at + 1;
    }
    copy.restore_session_counters(counters);
    copy
}

type OwnedReply = (u64, CommandReply, Vec<u8>);

fn rows(store: &Store) -> Vec<(SessionRow, Vec<OwnedReply>)> {
    let owned = |kept: KeptReply<'_>| (kept.sequence, kept.outline, kept.body.to_vec());
    store.sessions().map(|(row, replies)| (row, replies.map(owned).collect())).collect()
}

#[test]
fn a_pinned_moment_stays_as_it_was_while_sessions_are_used_end_and_begin() {
    let mut random = Random(7);
    let mut store = support::store_with(1, 1 << 20);
    let mut stamp_ms = 1;
    for round in 0..60 {
        let (before, counters) = (rows(&store), store.session_counters());
        store.pin_sessions();
        for _ in 0..random.below(40) {
            stamp_ms += random.below(SESSION_IDLE_MS / 20);
            let id = random.below(counters.last.0 + 20) + 1;
            let sequence = random.below(5) + 1;
            let one = call(SessionId(id), sequence, random.below(sequence), put("k", "v"));
            let items = [if random.one_in(3) { Item::Open } else { one }];
            apply_at(&mut store, stamp_ms, &items);
        }
        let copy = pinned_copy(&store, counters);
        assert_eq!(rows(&copy), before, "round {round}");
        assert_eq!(copy.session_counters(), counters);
        store.unpin_sessions();
    }
    assert!(store.session_count() > 5, "{}", store.session_count());
}

#[test]
fn every_answer_and_hash_is_the_models_over_many_sessions_with_copies_in_any_order() {
    for seed in 1..=3 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut store = support::store_with(seed, u64::MAX);
        let mut model = SessionModel {
            store: Model::new(),
            sessions: BTreeMap::new(),
            last: 0,
            uses: 0,
            stamp_ms: 0,
        };
        let mut callers: Vec<Caller> = (0..30).map(|_| Caller::default()).collect();
        let mut stamp_ms = 1;
        for entry in 0..2_000 {
            stamp_ms += random.below(if entry % 200 < 20 { SESSION_IDLE_MS / 4 } else { 5_000 });
            model.begin_entry(stamp_ms);
            let (mut items, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..random.below(24) {
                let at = random.size_below(callers.len());
                let item = callers[at].next(&mut random, &model);
                let reply = model.apply(&item);
                callers[at].opened(reply);
                items.push(item);
                expected.push(reply);
            }
            assert_eq!(apply_at(&mut store, stamp_ms, &items), expected, "{items:?}");
            if entry % 20 == 0 {
                assert_eq!(store.state_hash(), model.state_hash());
                assert_eq!(store.session_count(), model.sessions.len());
                check_restored(&store);
            }
        }
        assert!(model.last > 40, "sessions ended and were opened anew: {}", model.last);
    }
}
