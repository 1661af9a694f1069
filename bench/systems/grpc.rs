//! A load by gRPC, for etcd and for our gateway: one thread, tonic's client, as many connections
//! and requests in flight as any other load has.
//!
//! Each request is a task of its own, and one loop hands out the requests and takes the answers. So
//! this generator costs some ten times the CPU of a request that ours costs, nearly all of it
//! HTTP/2; the tables show it. It can be what bounds the throughput of a server, but not the CPU
//! that a server needs for an operation.

use crate::Result;
use bytes::Bytes;
use raftd::client::Clock;
use raftd::client::load::{
    Answer, Asked, Found, Pace, Refusal, Script, Shape, Taken, Task, Ticker,
};
use raftd::gateway::proto::etcdserverpb::kv_client::KvClient;
use raftd::gateway::proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// Without an answer for this long the load has failed. Nanoseconds.
const STALLED_NS: u64 = 10_000_000_000;

/// What became of a request.
enum Outcome {
    Put(std::result::Result<Response<PutResponse>, Status>),
    Range { scan: bool, found: std::result::Result<Response<RangeResponse>, Status> },
}

/// A request's place, what it was about, what became of it.
type Heard = (usize, Task, Outcome);

/// Asks until the script is over, on this thread.
pub(crate) fn run(
    clock: Clock,
    address: SocketAddr,
    shape: Shape,
    script: &mut Script<'_>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(shape.connections);
        for _ in 0..shape.connections {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            clients.push(KvClient::new(endpoint.tcp_nodelay(true).connect().await?));
        }
        let (heard, outcomes) = unbounded_channel();
        // Places in turn over the connections.
        let free = (0..shape.connections * shape.depth).rev().collect();
        let mut load = Load { clock, script, clients, free, in_flight: 0, heard };
        load.run(outcomes).await
    })
}

struct Load<'s, 'l> {
    clock: Clock,
    script: &'s mut Script<'l>,
    clients: Vec<KvClient<Channel>>,
    free: Vec<usize>,
    in_flight: usize,
    heard: UnboundedSender<Heard>,
}

impl Load<'_, '_> {
    async fn run(&mut self, mut outcomes: UnboundedReceiver<Heard>) -> Result<()> {
        let interval = match self.script.pace() {
            // Only so often it must be seen that the load is over.
            Pace::Closed => Duration::from_millis(20),
            Pace::Open { per_second } => {
                Duration::from_nanos((1_000_000_000 / per_second.max(1)).clamp(50_000, 1_000_000))
            }
        };
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, and a ticker keeps its descriptor"
        )]
        let ticker = AsyncFd::new(Ticker::every(interval)?)?;
        let mut progress = (0, self.clock.now_ns());
        self.ask_all();
        loop {
            let now_ns = self.clock.now_ns();
            if self.in_flight == 0 && self.script.is_over(now_ns) {
                return Ok(());
            }
            if self.script.done() != progress.0 || self.in_flight == 0 {
                progress = (self.script.done(), now_ns);
            } else if now_ns - progress.1 > STALLED_NS {
                return Err(format!("no answer for 10 s, {} in flight", self.in_flight).into());
            }
            tokio::select! {
                heard = outcomes.recv() => {
                    let (place, task, outcome) = heard.ok_or("we hold a sender ourselves")?;
                    self.take(place, &task, &outcome)?;
                    while let Ok((place, task, outcome)) = outcomes.try_recv() {
                        self.take(place, &task, &outcome)?;
                    }
                }
                ready = ticker.readable() => {
                    ticker.get_ref().take()?;
                    ready?.clear_ready();
                }
            }
            self.ask_all();
        }
    }

    /// Asks what is due, as long as there are free places.
    fn ask_all(&mut self) {
        let now_ns = self.clock.now_ns();
        while let Some(place) = self.free.last().copied() {
            let Some(task) = self.script.next(now_ns) else { return };
            self.free.pop();
            self.ask(place, task);
        }
    }

    fn ask(&mut self, place: usize, task: Task) {
        let mut client = self.clients[place % self.clients.len()].clone();
        let heard = self.heard.clone();
        self.in_flight += 1;
        match self.script.asked(&task) {
            Asked::Put { key, value } => {
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                let request = PutRequest { key, value, ..PutRequest::default() };
                tokio::spawn(async move {
                    let outcome = Outcome::Put(client.put(request).await);
                    // Nobody listens any more when the load has failed.
                    let _over = heard.send((place, task, outcome));
                });
            }
            Asked::Get { key } => {
                let key = Bytes::copy_from_slice(key);
                let request = RangeRequest { key, ..RangeRequest::default() };
                tokio::spawn(range(client, request, place, task, heard));
            }
            Asked::Scan { key, end, limit } => {
                let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
                let limit = limit.into();
                let request = RangeRequest { key, range_end, limit, ..RangeRequest::default() };
                tokio::spawn(range(client, request, place, task, heard));
            }
        }
    }

    fn take(&mut self, place: usize, task: &Task, outcome: &Outcome) -> Result<()> {
        self.in_flight -= 1;
        let answer = match outcome {
            Outcome::Put(Ok(done)) => {
                let header = done.get_ref().header.as_ref();
                Answer::Put { revision: number(header.map_or(0, |header| header.revision)) }
            }
            Outcome::Range { scan: false, found: Ok(found) } => {
                found.get_ref().kvs.first().map_or(Answer::Missing, |kv| {
                    Answer::Found(Found { value: &kv.value, revision: number(kv.mod_revision) })
                })
            }
            Outcome::Range { scan: true, found: Ok(found) } => {
                Answer::Scanned { keys: u64::try_from(found.get_ref().kvs.len())? }
            }
            Outcome::Put(Err(why)) | Outcome::Range { found: Err(why), .. } => {
                Answer::Refused(refusal_of(why))
            }
        };
        match self.script.take(task, &answer, self.clock.now_ns())? {
            Taken::Done => self.free.push(place),
            Taken::Then(next) | Taken::Again(next) => self.ask(place, next),
        }
        Ok(())
    }
}

async fn range(
    mut client: KvClient<Channel>,
    request: RangeRequest,
    place: usize,
    task: Task,
    heard: UnboundedSender<Heard>,
) {
    let scan = !request.range_end.is_empty();
    let outcome = Outcome::Range { scan, found: client.range(request).await };
    // Nobody listens any more when the load has failed.
    let _over = heard.send((place, task, outcome));
}

fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}

/// As etcd's clients see it: what was refused for a state of the store was not done.
fn refusal_of(status: &Status) -> Refusal {
    let why = format!("{:?}: {}", status.code(), status.message());
    let certain = [
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::NotFound,
        Code::Unimplemented,
    ];
    if certain.contains(&status.code()) {
        Refusal::NotDone { why, again: false }
    } else {
        Refusal::Unknown { why }
    }
}
