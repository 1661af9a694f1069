//! Clients by gRPC whose every question and answer is written down, for the checker of histories.

use super::patience::now;
use super::program::Clients;
use crate::dice::Dice;
use crate::history::checker::{Answer, Command, Consistency, Op, OpKind, Outcome, RangeArgs, Row};
use raftd::gateway::proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::response_op::Response;
use raftd::gateway::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
    TxnResponse,
};
use raftd::gateway::proto::mvccpb::KeyValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::{Code, Status};

/// A client's pause between questions.
const PACE: Duration = Duration::from_millis(5);

/// What all clients know.
pub(super) struct Scene {
    /// Where the gateways are.
    addresses: Vec<String>,
    /// How often each node was started.
    pub(super) boots: Vec<AtomicU32>,
    pub(super) began: Instant,
    /// After so long without an answer nobody knows.
    pub(super) patience: Duration,
    /// Clients are to end.
    pub(super) stop: AtomicBool,
    /// The test has ended, or failed.
    pub(super) is_over: AtomicBool,
}

/// When a question was asked, and what ran then.
pub(super) struct Begun {
    call: u64,
    boots: Vec<u32>,
}

/// What came back.
pub(super) struct Told {
    pub(super) outcome: Outcome,
    /// The keys that a change was told of.
    pub(super) saw: Option<Vec<Row>>,
    /// Who answered; 0: that is not known.
    pub(super) node: u64,
}

impl Scene {
    pub(super) fn new(addresses: Vec<String>, patience: Duration) -> Scene {
        Scene {
            addresses,
            boots: (0..3).map(|_| AtomicU32::new(1)).collect(),
            began: now(),
            patience,
            stop: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// Clients of each gateway, by connections of their own.
    pub(super) fn clients(&self) -> Vec<Clients> {
        self.addresses.iter().map(|address| Clients::at(address)).collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(now().duration_since(self.began).as_nanos()).unwrap()
    }

    fn boots(&self) -> Vec<u32> {
        self.boots.iter().map(|boot| boot.load(Ordering::SeqCst)).collect()
    }

    pub(super) fn begin(&self) -> Begun {
        let boots = self.boots();
        Begun { call: self.now(), boots }
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.is_over.load(Ordering::Relaxed)
    }
}

/// What one client has asked and was told.
pub(super) struct Notes {
    client: u32,
    pub(super) ops: Vec<Op>,
}

impl Notes {
    pub(super) fn of(client: u32) -> Notes {
        Notes { client, ops: Vec::new() }
    }

    /// Writes down a question and what came of it.
    pub(super) fn note(&mut self, scene: &Scene, begun: Begun, kind: OpKind, told: Told) {
        let Begun { call, boots } = begun;
        let ret = scene.now().max(call + 1);
        let Told { outcome, saw, node } = told;
        // Which start of the node answered is known if it was not started meanwhile. If not, nobody
        // else is said to have asked it.
        let known = usize::try_from(node).ok().and_then(|node| node.checked_sub(1));
        let boot = known.and_then(|at| Some((*boots.get(at)?, *scene.boots().get(at)?)));
        let (node, boot) = match boot {
            Some((then, now)) if then == now => (u32::try_from(node).unwrap(), now),
            Some(_) | None => (u32::MAX - self.client, u32::try_from(self.ops.len()).unwrap()),
        };
        let ret = (outcome != Outcome::Unknown).then_some(ret);
        self.ops.push(Op { client: self.client, node, boot, call, ret, kind, outcome, saw });
    }
}

/// Lets others work for about `pause`.
pub(super) async fn pause(pause: Duration) {
    let _over = timeout(pause, std::future::pending::<()>()).await;
}

/// A key and all about it, as the checker has it.
pub(super) fn row_of(kv: &KeyValue) -> Row {
    let number = |number: i64| u64::try_from(number).unwrap();
    Row {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create_revision: number(kv.create_revision),
        mod_revision: number(kv.mod_revision),
        version: number(kv.version),
    }
}

/// That a key's last change is this one.
pub(super) fn changed_at(key: &[u8], mod_revision: u64) -> Compare {
    let union = TargetUnion::ModRevision(mod_revision.try_into().unwrap());
    let (target, key) = (CompareTarget::Mod.into(), key.to_vec().into());
    Compare { result: 0, target, key, target_union: Some(union), range_end: Default::default() }
}

pub(super) fn get(key: &[u8]) -> RangeRequest {
    RangeRequest { key: key.to_vec().into(), ..RangeRequest::default() }
}

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Who answered, and the store's revision then.
pub(super) fn place(header: Option<ResponseHeader>) -> (u64, u64) {
    let header = header.expect("every answer has one");
    (header.member_id, header.revision.try_into().unwrap())
}

/// The rows of the range that a failed transaction read.
pub(super) fn rows_read(answer: &TxnResponse) -> Vec<Row> {
    match answer.responses.first().and_then(|it| it.response.as_ref()) {
        Some(Response::ResponseRange(found)) => found.kvs.iter().map(row_of).collect(),
        other => panic!("that is not what a range answers: {other:?}"),
    }
}

/// What a client knows of a request that failed so. Panics if it should not have.
pub(super) fn outcome_of(why: &Status) -> Outcome {
    let words = why.message();
    let is_etcds = words.starts_with("etcdserver: ") || words.starts_with("raftd: ");
    match (why.code(), words) {
        (Code::ResourceExhausted, "etcdserver: too many requests")
        | (Code::Unavailable, "etcdserver: no leader") => Outcome::Refused,
        (Code::Unavailable, text) if text.starts_with("etcdserver: request timed out") => {
            Outcome::Unknown
        }
        // The gateway died, or hung up. These are tonic's own words.
        (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, _) if !is_etcds => {
            Outcome::Unknown
        }
        _ => panic!("nothing here is wrong for good: {why:?}"),
    }
}

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// One question and its answer; `None`: what it asks for is compacted, and the answer does not say
/// up to where. The coin decides whether a change asks what was there.
pub(super) async fn ask(
    clients: &Clients,
    patience: Duration,
    kind: &OpKind,
    coin: bool,
) -> Option<Told> {
    let asked = async {
        match kind {
            OpKind::Change(command) => change(clients, command, coin).await,
            OpKind::Range(args) => range(clients, args).await,
        }
    };
    let unknown = |outcome| Told { outcome, saw: None, node: 0 };
    Some(match timeout(patience, asked).await {
        Err(_) => unknown(Outcome::Unknown),
        Ok(Ok(told)) => told,
        Ok(Err(why)) if why.message() == COMPACTED => {
            assert_eq!(why.code(), Code::OutOfRange);
            return None;
        }
        Ok(Err(why)) => unknown(outcome_of(&why)),
    })
}

async fn change(clients: &Clients, command: &Command, prev_kv: bool) -> Result<Told, Status> {
    let bytes = |bytes: &[u8]| bytes.to_vec().into();
    let put = |key: &[u8], value: &[u8]| PutRequest {
        key: bytes(key),
        value: bytes(value),
        prev_kv,
        ..PutRequest::default()
    };
    let (header, answer, saw): (_, _, Vec<Row>) = match command {
        Command::Put { key, value } => {
            let answer = clients.put(put(key, value)).await?;
            let revision = place(answer.header).1;
            let saw = answer.prev_kv.iter().map(row_of).collect();
            (answer.header, Answer::Put { revision }, saw)
        }
        Command::Delete { key, end } => {
            let (key, range_end) = (bytes(key), bytes(end));
            let answer = clients.delete(DeleteRangeRequest { key, range_end, prev_kv }).await?;
            let revision = place(answer.header).1;
            let saw = answer.prev_kvs.iter().map(row_of).collect();
            let deleted = answer.deleted.try_into().unwrap();
            (answer.header, Answer::Delete { revision, deleted }, saw)
        }
        Command::PutIf { key, value, mod_revision } => {
            let request = TxnRequest {
                compare: vec![changed_at(key, *mod_revision)],
                success: vec![op(Request::RequestPut(put(key, value)))],
                failure: vec![op(Request::RequestRange(get(key)))],
            };
            let answer = clients.kv().txn(request).await?.into_inner();
            let (answered, saw) = put_if(&answer);
            let saw = saw.filter(|_| prev_kv || !answer.succeeded);
            return Ok(told(answer.header, answered, saw));
        }
        Command::Txn(_) | Command::Compact { .. } | Command::Lease(_) => {
            unreachable!("not for these clients")
        }
    };
    Ok(told(header, answer, Some(saw).filter(|_| prev_kv)))
}

/// What a put that had a condition was answered, and the key as it was, or is.
pub(super) fn put_if(answer: &TxnResponse) -> (Answer, Option<Vec<Row>>) {
    let revision = place(answer.header).1;
    if !answer.succeeded {
        let rows = rows_read(answer);
        let refused = Some(rows.first().map_or(0, |row| row.mod_revision));
        return (Answer::PutIf { revision, refused }, Some(rows));
    }
    match answer.responses.first().and_then(|it| it.response.as_ref()) {
        Some(Response::ResponsePut(put)) => {
            let saw = put.prev_kv.iter().map(row_of).collect();
            (Answer::PutIf { revision, refused: None }, Some(saw))
        }
        other => panic!("that is not what a put answers: {other:?}"),
    }
}

pub(super) fn told(header: Option<ResponseHeader>, answer: Answer, saw: Option<Vec<Row>>) -> Told {
    Told { outcome: Outcome::Answered(answer), saw, node: place(header).0 }
}

async fn range(clients: &Clients, args: &RangeArgs) -> Result<Told, Status> {
    let found = clients.range(RangeRequest {
        key: args.key.clone().into(),
        range_end: args.end.clone().into(),
        limit: args.limit.try_into().unwrap(),
        revision: args.revision.try_into().unwrap(),
        serializable: args.consistency == Consistency::Serializable,
        keys_only: args.keys_only,
        count_only: args.count_only,
        ..RangeRequest::default()
    });
    let found = found.await?;
    let answer = Answer::Range {
        revision: place(found.header).1,
        rows: found.kvs.iter().map(row_of).collect(),
        more: found.more,
        count: found.count.try_into().unwrap(),
    };
    Ok(told(found.header, answer, None))
}

/// One client: asks by any gateway, one question after the other, and repeats nothing.
pub(super) struct Witness<'a> {
    scene: &'a Scene,
    notes: Notes,
    keys: u64,
    dice: Dice,
    clients: Vec<Clients>,
    /// Which of them it asks.
    gateway: usize,
    /// The last change of keys as far as it was told.
    known: BTreeMap<Vec<u8>, u64>,
    /// A revision that it was told of.
    then: u64,
    values: u64,
}

impl<'a> Witness<'a> {
    pub(super) fn new(scene: &'a Scene, client: u32, keys: u64, seed: u64) -> Witness<'a> {
        let mut dice = Dice(seed ^ (u64::from(client) << 32));
        let clients = scene.clients();
        let gateway = dice.index(clients.len());
        let (notes, known) = (Notes::of(client), BTreeMap::new());
        Witness { scene, notes, keys, dice, clients, gateway, known, then: 0, values: 0 }
    }

    /// Asks until told to stop. Returns everything asked and answered.
    pub(super) async fn testify(mut self) -> Vec<Op> {
        while !self.scene.is_to_stop() {
            let kind = self.choose();
            let coin = self.dice.once_in(2);
            let begun = self.scene.begin();
            let clients = &self.clients[self.gateway];
            if let Some(told) = ask(clients, self.scene.patience, &kind, coin).await {
                match &told.outcome {
                    Outcome::Answered(answer) => self.learn(&kind, answer),
                    Outcome::Refused | Outcome::Unknown => {
                        self.gateway = self.dice.index(self.clients.len());
                    }
                }
                self.notes.note(self.scene, begun, kind, told);
            }
            pause(PACE).await;
        }
        self.notes.ops
    }

    fn key(&mut self) -> Vec<u8> {
        // The smaller of two draws: low keys are hot.
        let (one, other) = (self.dice.below(self.keys), self.dice.below(self.keys));
        format!("k{:05}", one.min(other)).into_bytes()
    }

    fn choose(&mut self) -> OpKind {
        let key = self.key();
        self.values += 1;
        let value = format!("{}/{}", self.notes.client, self.values).into_bytes();
        match self.dice.below(20) {
            0..6 => OpKind::Change(Command::Put { key, value }),
            6..10 => {
                let mod_revision = self.known.get(&key).copied().unwrap_or(0);
                OpKind::Change(Command::PutIf { key, value, mod_revision })
            }
            10 => OpKind::Change(Command::Delete { key, end: Vec::new() }),
            drawn => {
                let consistency =
                    if drawn == 19 { Consistency::Serializable } else { Consistency::Linearizable };
                let (end, limit) = match drawn {
                    17 | 18 => (self.key(), self.dice.below(8)),
                    _ => (Vec::new(), 0),
                };
                let revision = if drawn == 18 { self.then } else { 0 };
                let args =
                    RangeArgs { key, end, limit, revision, consistency, ..Default::default() };
                OpKind::Range(args)
            }
        }
    }

    fn learn(&mut self, kind: &OpKind, answer: &Answer) {
        match (kind, answer) {
            (OpKind::Change(Command::Put { key, .. }), Answer::Put { revision }) => {
                self.known.insert(key.clone(), *revision);
                self.then = *revision;
            }
            (OpKind::Change(Command::PutIf { key, .. }), Answer::PutIf { revision, refused }) => {
                self.known.insert(key.clone(), refused.unwrap_or(*revision));
            }
            (OpKind::Range(_), Answer::Range { rows, .. }) => {
                let rows = rows.iter().map(|row| (row.key.clone(), row.mod_revision));
                self.known.extend(rows);
            }
            _ => {}
        }
    }
}
