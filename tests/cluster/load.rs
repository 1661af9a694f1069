//! Clients who use a cluster all the while something is done to it, and what they were told.

use super::chaos_ledger::{Ledger, Service, Tally, Told, parse};
use super::harness::{Cluster, PATIENCE};
use super::mixed::{self, Mixed};
use super::patience::{breathe, eventually};
use raftd::client::{Client, ClientOptions, Error};
use raftd::types::ClusterId;
use raftd::wire::client::RangeArgs;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const WRITERS: usize = 8;

/// Those who do something else than put.
const OTHERS: usize = 4;

/// A client's pause between two requests.
pub(super) const PACE: Duration = Duration::from_millis(5);

/// How long raftctl tries where nobody says otherwise. "No request fails" means little for clients
/// of more patience, but a busy machine needs them.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What all clients were told.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) puts: Tally,
    pub(super) others: Mixed,
}

impl Load {
    /// Asserts that no request failed, of whatever kind.
    pub(super) fn all_succeeded(&self) {
        assert_eq!((self.puts.refused, self.puts.unknown), (0, 0), "{self:?}");
        self.others.all_succeeded();
    }
}

/// Puts until told to stop; keys are of one writer.
fn write(mut reader: Reader<'_>, stop: &AtomicBool, service: &Service) -> Ledger {
    let mut ledger = Ledger::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{}/{number}", reader.place());
        let told = match reader.client().put(key.as_bytes(), number.to_string().as_bytes()) {
            Ok(_) => Told::Done,
            Err(Error::Unavailable { .. } | Error::Refused { .. }) => Told::Refused,
            Err(Error::OutcomeUnknown { .. } | Error::AnswerNotKept { .. }) => Told::Nothing,
        };
        match told {
            Told::Done => service.acknowledged(),
            Told::Refused | Told::Nothing => {}
        }
        ledger.note(&key, number, told);
        breathe(PACE);
    }
    ledger
}

/// Where the members are, for those who ask all the while. Whoever writes down new addresses waits
/// until everybody has read them.
pub(super) struct Book {
    addresses: Mutex<Vec<String>>,
    /// How long each client tries.
    timeout: Duration,
    editions: AtomicU64,
    /// By client, the edition that it has read.
    read: [AtomicU64; WRITERS + OTHERS],
}

impl Book {
    fn of(cluster: &Cluster, timeout: Duration) -> Book {
        let read = [const { AtomicU64::new(0) }; WRITERS + OTHERS];
        let (addresses, editions) = (Mutex::default(), AtomicU64::new(0));
        let book = Book { addresses, timeout, editions, read };
        book.publish(cluster);
        book
    }

    /// Writes down who is there, and waits until every client knows.
    pub(super) fn update(&self, cluster: &Cluster) {
        self.publish(cluster);
        let edition = self.edition();
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed) == edition;
        let all = || self.read.iter().all(read).then_some(());
        eventually("every client knows the new addresses", PATIENCE, all);
    }

    fn publish(&self, cluster: &Cluster) {
        let members = cluster.servers.iter().filter(|server| !server.retired);
        let addresses = members.map(|server| server.listen().to_owned()).collect();
        *self.addresses.lock().unwrap() = addresses;
        self.editions.fetch_add(1, Ordering::Relaxed);
    }

    fn edition(&self) -> u64 {
        self.editions.load(Ordering::Relaxed)
    }

    fn client(&self) -> Client {
        let endpoints = self.addresses.lock().unwrap().clone();
        let (timeout, cluster_id) = (self.timeout, ClusterId(0));
        Client::new(ClientOptions { endpoints, timeout, cluster_id, login: None })
    }
}

/// A client that goes by the book.
pub(super) struct Reader<'a> {
    book: &'a Book,
    place: usize,
    edition: u64,
    client: Client,
}

impl<'a> Reader<'a> {
    fn of(book: &'a Book, place: usize) -> Reader<'a> {
        Reader { book, place, edition: book.edition(), client: book.client() }
    }

    /// Its number among all clients.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// A client that knows the newest addresses.
    pub(super) fn client(&mut self) -> &mut Client {
        if self.edition != self.book.edition() {
            (self.edition, self.client) = (self.book.edition(), self.book.client());
            self.book.read[self.place].store(self.edition, Ordering::Relaxed);
        }
        &mut self.client
    }
}

/// Does `act` while clients write and ask; then every acknowledged put must be there.
pub(super) fn under_load(
    cluster: &mut Cluster,
    act: impl FnOnce(&mut Cluster, &Service, &Book),
) -> Load {
    under_load_within(PATIENCE, cluster, act)
}

/// The same by clients of whom each request fails that is not answered within `timeout`.
pub(super) fn under_load_within(
    timeout: Duration,
    cluster: &mut Cluster,
    act: impl FnOnce(&mut Cluster, &Service, &Book),
) -> Load {
    cluster.leader();
    let book = Book::of(cluster, timeout);
    let (stop, service) = (AtomicBool::new(false), Service::start());
    let (ledgers, others) = thread::scope(|scope| {
        let (stop, service, book) = (&stop, &service, &book);
        let writers: Vec<_> = (0..WRITERS)
            .map(|place| scope.spawn(move || write(Reader::of(book, place), stop, service)))
            .collect();
        let others: Vec<_> = (WRITERS..WRITERS + OTHERS)
            .map(|place| scope.spawn(move || mixed::ask(Reader::of(book, place), stop)))
            .collect();
        let acted =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(cluster, service, book)));
        stop.store(true, Ordering::Relaxed);
        let ended = writers.into_iter().map(|writer| writer.join().expect("a writer ends"));
        let ledgers: Vec<Ledger> = ended.collect();
        let mut all = Mixed::default();
        for other in others {
            all.add(other.join().expect("a client ends"));
        }
        if let Err(panic) = acted {
            std::panic::resume_unwind(panic);
        }
        (ledgers, all)
    });
    cluster.wait_until_equal();
    let mut tally = Tally::default();
    let range = RangeArgs { end: &[0], ..RangeArgs::of_key(&[0]) };
    let kvs = cluster.client().range(&range).unwrap().kvs;
    let mut found: BTreeMap<String, u64> = kvs.iter().map(parse).collect();
    let mut broken = Vec::new();
    for ledger in &ledgers {
        ledger.count(&mut tally);
        ledger.compare(&mut found, &mut broken);
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    Load { puts: tally, others }
}

/// kill -9, wait until somebody writes again, restart.
pub(super) fn kill_and_restart(cluster: &mut Cluster, id: u64, service: &Service) {
    cluster.server(id).kill();
    let killed = service.now_us();
    eventually("a put is acknowledged", PATIENCE, || service.since(killed).then_some(()));
    cluster.server(id).start();
    cluster.leader();
}
