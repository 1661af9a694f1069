//! One API server's requests: Kubernetes' shapes, and no others. Every answer is written down.

use super::Told as AllTold;
use crate::asking::{
    Begun, Notes, Scene, Told, ask, changed_at, get, op, outcome_of, place, rows_read,
};
use crate::history::checker::{Answer, Command, OpKind, Outcome, RangeArgs, Row};
use crate::program::{Clients, prefix_end};
use raftd::gateway::proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RequestOp,
    TxnRequest, TxnResponse,
};
use std::sync::Arc;
use tokio::time::timeout;
use tonic::{Code, Status};

/// Who may compact is decided by the version of this key.
const COMPACT_KEY: &str = "compact_rev_key";

/// One connection of an API server.
pub(super) struct Store {
    pub(super) scene: Arc<Scene>,
    clients: Clients,
    notes: Notes,
}

/// What became of an optimistic write.
pub(super) enum Written {
    /// It was done, at this revision.
    Done(u64),
    /// The object is another one, or gone.
    Conflict(Option<Row>),
    /// Nobody knows, or it was refused: it has to be looked at.
    Unsure,
}

/// A list of one revision.
pub(super) struct Listed {
    pub(super) revision: u64,
    pub(super) rows: Vec<Row>,
}

impl Store {
    /// By the gateway of this API server. `client` is nobody else's number.
    pub(super) fn new(scene: Arc<Scene>, server: usize, client: usize) -> Store {
        let clients = scene.clients().swap_remove(server);
        let client = u32::try_from(100 * server + client).unwrap();
        Store { scene, clients, notes: Notes::of(client) }
    }

    /// What was asked and answered.
    pub(super) fn ended(self) -> AllTold {
        AllTold { ops: self.notes.ops, events: Vec::new() }
    }

    /// A request, until its API server gives it up.
    async fn within<T>(
        &self,
        asked: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let asked = timeout(self.scene.patience, asked).await;
        asked.unwrap_or_else(|_| Err(Status::unknown("given up"))).map(tonic::Response::into_inner)
    }

    fn note(&mut self, begun: Begun, kind: OpKind, told: Told) {
        let scene = Arc::clone(&self.scene);
        self.notes.note(&scene, begun, kind, told);
    }

    /// Puts an object whose last change is `expected`; 0: creates it. Reads it if it is another.
    pub(super) async fn put(&mut self, key: &[u8], value: Vec<u8>, expected: u64) -> Written {
        let (key, begun) = (key.to_vec(), self.scene.begin());
        let kind = OpKind::Change(Command::PutIf { key, value, mod_revision: expected });
        let told = ask(&self.clients, self.scene.patience, &kind, false).await;
        let told = told.expect("what is now is never compacted");
        let written = match &told.outcome {
            Outcome::Answered(Answer::PutIf { revision, refused: None }) => {
                Written::Done(*revision)
            }
            Outcome::Answered(_) => {
                let row = told.saw.as_ref().and_then(|rows| rows.first().cloned());
                let at = row.as_ref().map_or(0, |row| row.mod_revision);
                assert_ne!(at, expected, "it was refused because it is what it should be");
                Written::Conflict(row)
            }
            Outcome::Refused | Outcome::Unknown => Written::Unsure,
        };
        self.note(begun, kind, told);
        written
    }

    /// Creates an object, and reads nothing if it is there.
    pub(super) async fn create(&mut self, key: &[u8], value: Vec<u8>) -> Written {
        let begun = self.scene.begin();
        let request = TxnRequest {
            compare: vec![changed_at(key, 0)],
            success: vec![put_op(key, &value, 0)],
            failure: Vec::new(),
        };
        let mut kv = self.clients.kv();
        let answer = self.within(kv.txn(request)).await;
        let (told, written) = match answer {
            Ok(answer) if answer.succeeded => {
                let (node, revision) = place(answer.header);
                let answer = Outcome::Answered(Answer::PutIf { revision, refused: None });
                (Told { outcome: answer, saw: None, node }, Written::Done(revision))
            }
            // What is there instead is not said, which the checker would like to know.
            Ok(_) => (unsaid(Outcome::Unknown), Written::Conflict(None)),
            Err(why) => (unsaid(outcome_of(&why)), Written::Unsure),
        };
        let (key, mod_revision) = (key.to_vec(), 0);
        self.note(begun, OpKind::Change(Command::PutIf { key, value, mod_revision }), told);
        written
    }

    /// Deletes an object whose last change is `expected`. Reads it if it is another one.
    pub(super) async fn delete(&mut self, key: &[u8], expected: u64) -> Written {
        let begun = self.scene.begin();
        let delete = DeleteRangeRequest { key: key.to_vec().into(), ..Default::default() };
        let request = TxnRequest {
            compare: vec![changed_at(key, expected)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: vec![op(Request::RequestRange(get(key)))],
        };
        let mut kv = self.clients.kv();
        let answer = self.within(kv.txn(request)).await;
        let change = OpKind::Change(Command::Delete { key: key.to_vec(), end: Vec::new() });
        match answer {
            Ok(answer) if answer.succeeded => {
                let (node, revision) = place(answer.header);
                let answer = Outcome::Answered(Answer::Delete { revision, deleted: 1 });
                self.note(begun, change, Told { outcome: answer, saw: None, node });
                Written::Done(revision)
            }
            Ok(answer) => {
                let row = self.note_read(begun, key, &answer);
                let at = row.as_ref().map_or(0, |row| row.mod_revision);
                assert_ne!(at, expected, "it was refused because it is what it should be");
                Written::Conflict(row)
            }
            Err(why) => {
                self.note(begun, change, unsaid(outcome_of(&why)));
                Written::Unsure
            }
        }
    }

    /// A transaction that did nothing but read a key is a read of that key.
    fn note_read(&mut self, begun: Begun, key: &[u8], answer: &TxnResponse) -> Option<Row> {
        let (node, revision) = place(answer.header);
        let rows = rows_read(answer);
        let (row, count) = (rows.first().cloned(), rows.len().try_into().unwrap());
        let answer = Answer::Range { revision, rows, more: false, count };
        let args = RangeArgs { key: key.to_vec(), ..RangeArgs::default() };
        let told = Told { outcome: Outcome::Answered(answer), saw: None, node };
        self.note(begun, OpKind::Range(args), told);
        row
    }

    /// Reads; `None`: it was not answered, or is compacted.
    async fn range(&mut self, args: RangeArgs) -> Option<(u64, Vec<Row>, bool)> {
        let begun = self.scene.begin();
        let kind = OpKind::Range(args);
        let told = ask(&self.clients, self.scene.patience, &kind, false).await?;
        let answer = match &told.outcome {
            Outcome::Answered(Answer::Range { revision, rows, more, .. }) => {
                Some((*revision, rows.clone(), *more))
            }
            Outcome::Answered(_) | Outcome::Refused | Outcome::Unknown => None,
        };
        self.note(begun, kind, told);
        answer
    }

    /// Reads an object. `Some(None)`: there is none.
    pub(super) async fn get(&mut self, key: &[u8]) -> Option<Option<Row>> {
        let args = RangeArgs { key: key.to_vec(), ..RangeArgs::default() };
        let (_, mut rows, _) = self.range(args).await?;
        Some(rows.pop())
    }

    /// How many objects there are, as API servers ask for their numbers.
    pub(super) async fn count(&mut self, prefix: &str) {
        let (key, end) = (prefix.as_bytes().to_vec(), prefix_end(prefix).to_vec());
        self.range(RangeArgs { key, end, count_only: true, ..RangeArgs::default() }).await;
    }

    /// Lists in pages, all of the revision of the first; `None`: a page was not answered, or the
    /// list took so long that its revision is compacted.
    pub(super) async fn list(&mut self, prefix: &str, limit: u64) -> Option<Listed> {
        let end = prefix_end(prefix).to_vec();
        let mut args =
            RangeArgs { key: prefix.as_bytes().to_vec(), end, limit, ..RangeArgs::default() };
        let mut listed = Listed { revision: 0, rows: Vec::new() };
        loop {
            let (revision, rows, more) = self.range(args.clone()).await?;
            if args.revision == 0 {
                listed.revision = revision;
            }
            assert!(
                rows.len() <= usize::try_from(limit).unwrap(),
                "a page is no longer than asked"
            );
            // The next page begins behind the last key of this one: what a continue token holds.
            let last = rows.last().map(|row| row.key.clone());
            listed.rows.extend(rows);
            let Some(mut next) = last.filter(|_| more) else { return Some(listed) };
            next.push(0);
            args = RangeArgs { key: next, revision: listed.revision, ..args };
        }
    }

    /// A lease for events.
    pub(super) async fn grant(&mut self, ttl: i64) -> Option<i64> {
        let mut lease = self.clients.lease();
        let granted = self.within(lease.lease_grant(LeaseGrantRequest { ttl, id: 0 })).await;
        granted.inspect_err(|why| drop(outcome_of(why))).ok().map(|granted| granted.id)
    }

    /// Creates an event under a lease; its revision. `Err`: the lease has ended meanwhile.
    pub(super) async fn create_event(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
    ) -> Result<Option<u64>, ()> {
        let request = TxnRequest {
            compare: vec![changed_at(key, 0)],
            success: vec![put_op(key, value, lease)],
            failure: Vec::new(),
        };
        let mut kv = self.clients.kv();
        match self.within(kv.txn(request)).await {
            Ok(answer) => {
                assert!(answer.succeeded, "nobody else has this name");
                Ok(Some(place(answer.header).1))
            }
            Err(why) if why.message() == "etcdserver: requested lease not found" => {
                assert_eq!(why.code(), Code::NotFound);
                Err(())
            }
            Err(why) => {
                outcome_of(&why);
                Ok(None)
            }
        }
    }

    /// Compacts to `revision`, unless another API server has since the key's version was
    /// `version`. Answers its version, and the store's revision; `None`: that is not known.
    pub(super) async fn compact(&mut self, version: i64, revision: u64) -> Option<(i64, u64)> {
        let (key, value) = (COMPACT_KEY.as_bytes(), revision.to_string().into_bytes());
        let begun = self.scene.begin();
        let union = TargetUnion::Version(version);
        let compare = Compare {
            target: CompareTarget::Version.into(),
            key: COMPACT_KEY.into(),
            target_union: Some(union),
            ..Compare::default()
        };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![put_op(key, &value, 0)],
            failure: vec![op(Request::RequestRange(get(key)))],
        };
        let mut kv = self.clients.kv();
        let answer = self.within(kv.txn(request)).await;
        let change = OpKind::Change(Command::Put { key: key.to_vec(), value });
        let answer = match answer {
            Ok(answer) if answer.succeeded => answer,
            Ok(answer) => {
                let row = self.note_read(begun, key, &answer).expect("it is never deleted");
                return Some((row.version.try_into().unwrap(), place(answer.header).1));
            }
            Err(why) => {
                self.note(begun, change, unsaid(outcome_of(&why)));
                return None;
            }
        };
        let (node, now) = place(answer.header);
        let outcome = Outcome::Answered(Answer::Put { revision: now });
        self.note(begun, change, Told { outcome, saw: None, node });
        if revision > 0 {
            let revision = revision.try_into().unwrap();
            let request = CompactionRequest { revision, physical: false };
            if let Err(why) = self.within(kv.compact(request)).await
                && why.message() != "etcdserver: mvcc: required revision has been compacted"
            {
                outcome_of(&why);
            }
        }
        Some((version + 1, now))
    }
}

fn unsaid(outcome: Outcome) -> Told {
    Told { outcome, saw: None, node: 0 }
}

fn put_op(key: &[u8], value: &[u8], lease: i64) -> RequestOp {
    let (key, value) = (key.to_vec().into(), value.to_vec().into());
    op(Request::RequestPut(PutRequest { key, value, lease, ..PutRequest::default() }))
}
