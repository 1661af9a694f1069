//! The client against servers that behave as scripted: what it repeats, and what it must not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use raftd::client::{
    Client, ClientOptions, Connection, Deadline, Error, Order, Selection, SortBy, prefix_end,
};
use raftd::types::{ClusterId, DiskId, Revision, SessionId};
use raftd::wire::client::{Consistency, Op, RangeArgs, Request, decode_request};
use raftd::wire::error::Error as WireError;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{HelloReply, Welcome, decode_hello, encode_hello_reply};
use raftd::wire::leases::KeysFrom;
use raftd::wire::reply::{self, ReplyBody};

use super::leases::keys_of_lease;
use super::ranges::{Then, range_in_parts, range_of};
use super::samples::node;
use crate::addresses::free_address;

/// What a scripted server does with a request, or with a hello.
pub(super) enum Act {
    /// Instead of a welcome; the connection ends.
    RefuseHello(WireError),
    /// Takes the connection and never says a word.
    NoWelcome,
    Put(u64),
    /// Opens a session.
    Open(u64),
    Error(WireError),
    /// Keys, and whether there are more.
    Range(&'static [&'static str], bool),
    /// Keys in parts; and then the end, or the connection ends.
    Parts(&'static [&'static [&'static str]], Then),
    /// Keys of a lease, and where the next ones are.
    Keys(&'static [&'static str], KeysFrom),
    HangUp,
    /// Reads the request and keeps quiet until the client goes away.
    Silence,
}

/// One request as it came: its op and the key of its args; of a call in a session, the call, and of
/// a question about a lease, all args.
pub(super) type Seen = (Op, Vec<u8>);

pub(super) struct Server {
    pub(super) address: String,
    thread: JoinHandle<Vec<Seen>>,
}

impl Server {
    /// Serves one connection after another by these scripts, then is gone.
    pub(super) fn start(scripts: Vec<Vec<Act>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = spawn(move || {
            let mut seen = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().unwrap();
                serve(stream, script, &mut seen);
            }
            seen
        });
        Server { address, thread }
    }

    /// Whether it has served all its scripts.
    pub(super) fn is_gone(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn seen(self) -> Vec<Seen> {
        self.thread.join().unwrap()
    }
}

fn serve(mut stream: TcpStream, script: Vec<Act>, seen: &mut Vec<Seen>) {
    let mut input = Vec::new();
    decode_hello(&read_frame(&mut stream, &mut input).unwrap()).unwrap();
    let mut out = Vec::new();
    match script.first() {
        Some(Act::RefuseHello(error)) => {
            encode_hello_reply(&mut out, &HelloReply::Refused(error.clone()));
            stream.write_all(&out).unwrap();
            return;
        }
        Some(Act::NoWelcome) => return drop(read_frame(&mut stream, &mut input)),
        _ => encode_hello_reply(&mut out, &HelloReply::Welcome(welcome())),
    }
    stream.write_all(&out).unwrap();
    for act in script {
        let Some(body) = read_frame(&mut stream, &mut input) else { return };
        let request = decode_request(&body).unwrap();
        seen.push((request.op, key_of(&request)));
        let mut out = Vec::new();
        match act {
            Act::Put(revision) => reply::put_reply(&mut out, request.id, Revision(revision)),
            Act::Open(session) => reply::session_reply(&mut out, request.id, SessionId(session)),
            Act::Error(error) => reply::error_reply(&mut out, request.id, &error),
            Act::Range(keys, more) => {
                range_of(&mut out, request.id, keys).finish(&mut out, more, 4);
            }
            Act::Parts(parts, then) if range_in_parts(&mut out, request.id, parts, &then) => {
                return stream.write_all(&out).unwrap();
            }
            Act::Parts(..) => {}
            Act::Keys(keys, next) => keys_of_lease(&mut out, request.id, keys, next),
            Act::HangUp => return,
            Act::Silence => return drop(read_frame(&mut stream, &mut input)),
            Act::RefuseHello(_) | Act::NoWelcome => unreachable!("only a script's first act"),
        }
        stream.write_all(&out).unwrap();
    }
}

/// What of a request is noted.
fn key_of(request: &Request<'_>) -> Vec<u8> {
    let mut reader = raftd::codec::msgpack::Reader::new(request.args);
    match request.op {
        Op::Status
        | Op::Snapshot
        | Op::Watch
        | Op::WatchCancel
        | Op::WatchProgress
        | Op::Auth
        | Op::Login
        | Op::LoginProof
        | Op::AuthRead
        | Op::As
        | Op::OpenSession
        | Op::Compact
        | Op::Txn
        | Op::ReadTxn
        | Op::LeaseGrant
        | Op::LeaseRevoke
        | Op::LeaseKeepAlive
        | Op::LeaseList
        | Op::MemberList
        | Op::MemberAdd
        | Op::MemberRemove
        | Op::MemberPromote
        | Op::MemberReplace
        | Op::TransferLeader => Vec::new(),
        Op::InSession => request.args[1..4].to_vec(),
        Op::LeaseTimeToLive => request.args.to_vec(),
        Op::Put | Op::DeleteRange | Op::PutIf | Op::PutWith | Op::DeleteRangeWith | Op::Range => {
            reader.array().unwrap();
            reader.bin().unwrap().to_vec()
        }
    }
}

/// The body of the next frame; `None` when the client has hung up.
pub(super) fn read_frame(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(frame) = next_frame(input, 1 << 24).unwrap() {
            let (body, consumed) = (frame.body.to_vec(), frame.consumed);
            input.drain(..consumed);
            return Some(body);
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => input.extend_from_slice(&chunk[..count]),
        }
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        cluster_id: ClusterId(5),
        node: node(1),
        disk_id: DiskId(1),
        boot_nonce: 1,
        genesis: 1,
        members: Vec::new(),
        request_bytes_max: 1_572_864,
        feature_level: 1,
    }
}

/// Long enough for a slow machine: only tests of the timeout itself wait for one.
pub(super) const PATIENT: Duration = Duration::from_secs(30);

pub(super) fn options(timeout: Duration, endpoints: &[&str]) -> ClientOptions {
    let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
    ClientOptions { endpoints, timeout, cluster_id: ClusterId(0), login: None }
}

pub(super) fn client(timeout: Duration, endpoints: &[&str]) -> Client {
    Client::at_most_once(options(timeout, endpoints))
}

fn not_leader(address: &str) -> Act {
    Act::Error(WireError::NotLeader { leader: Some((node(2), address.to_owned())) })
}

#[test]
fn a_redirect_is_followed_and_the_leader_remembered() {
    let leader = Server::start(vec![vec![Act::Put(2), Act::Put(3)]]);
    let follower = Server::start(vec![vec![not_leader(&leader.address)]]);
    let mut client = client(PATIENT, &[&follower.address]);
    assert_eq!(client.put(b"a", b"1").unwrap(), Revision(2));
    assert_eq!(client.put(b"b", b"1").unwrap(), Revision(3));
    drop(client);
    assert_eq!(follower.seen().len(), 1);
    assert_eq!(leader.seen(), [(Op::Put, b"a".to_vec()), (Op::Put, b"b".to_vec())]);
}

#[test]
fn a_write_without_an_answer_is_not_repeated() {
    let server = Server::start(vec![vec![Act::HangUp]]);
    let result = client(PATIENT, &[&server.address]).put(b"a", b"1");
    assert!(matches!(result, Err(Error::OutcomeUnknown { .. })), "{result:?}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_write_that_waits_too_long_has_an_unknown_outcome() {
    let server = Server::start(vec![vec![Act::Silence]]);
    let mut client = client(Duration::from_millis(100), &[&server.address]);
    let result = client.put(b"a", b"1");
    assert!(matches!(result, Err(Error::OutcomeUnknown { .. })), "{result:?}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_write_that_the_server_lost_sight_of_has_an_unknown_outcome() {
    let server = Server::start(vec![vec![Act::Error(WireError::OutcomeUnknown)]]);
    let result = client(PATIENT, &[&server.address]).put(b"a", b"1");
    assert!(matches!(result, Err(Error::OutcomeUnknown { .. })), "{result:?}");
}

#[test]
fn a_read_without_an_answer_is_repeated() {
    let server = Server::start(vec![vec![Act::HangUp], vec![Act::Range(&["a"], false)]]);
    let found = client(PATIENT, &[&server.address]).get(b"a").unwrap().unwrap();
    assert_eq!((&found.key[..], &found.value[..]), (&b"a"[..], &b"v"[..]));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_refusal_for_now_is_repeated() {
    let busy = || vec![Act::Error(WireError::Busy { what: "log".into() })];
    let electing = vec![Act::Error(WireError::NotLeader { leader: None })];
    let server = Server::start(vec![busy(), electing, busy(), vec![Act::Put(2)]]);
    assert_eq!(client(PATIENT, &[&server.address]).put(b"a", b"1").unwrap(), Revision(2));
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_refusal_for_good_is_not_repeated() {
    let compacted = WireError::Compacted { compact_revision: Revision(7) };
    let server = Server::start(vec![vec![Act::Error(compacted.clone()), Act::Put(2)]]);
    let mut client = client(PATIENT, &[&server.address]);
    let past = RangeArgs { revision: Revision(3), ..RangeArgs::of_key(b"a") };
    let result = client.range(&past);
    assert!(matches!(&result, Err(Error::Refused { source, .. }) if *source == compacted));
    // And the connection is as good as before.
    assert_eq!(client.put(b"a", b"1").unwrap(), Revision(2));
}

#[test]
fn a_connection_that_died_between_requests_costs_nothing() {
    let server = Server::start(vec![vec![Act::Put(2)], vec![Act::Put(3)]]);
    let mut client = client(PATIENT, &[&server.address]);
    assert_eq!(client.put(b"a", b"1").unwrap(), Revision(2));
    // The server hangs up after its script, and accepts again: the second put goes there.
    let mut result = client.put(b"a", b"2");
    if matches!(result, Err(Error::OutcomeUnknown { .. })) {
        // The hang-up had not arrived yet; then unknown is the honest answer.
        result = client.put(b"a", b"2");
    }
    assert_eq!(result.unwrap(), Revision(3));
}

#[test]
fn the_next_endpoint_is_asked_when_one_is_dead_or_refuses_us() {
    let gone = free_address();
    let full = WireError::Busy { what: "connections".into() };
    let refusing = Server::start(vec![vec![Act::RefuseHello(full)]]);
    let silent = Server::start(vec![vec![Act::NoWelcome]]);
    let serving = Server::start(vec![vec![Act::Put(2)]]);
    let endpoints = [&gone[..], &refusing.address, &silent.address, &serving.address];
    assert_eq!(client(PATIENT, &endpoints).put(b"a", b"1").unwrap(), Revision(2));
    assert_eq!(silent.seen().len(), 0);
}

#[test]
fn nobody_reachable_says_who_was_tried() {
    let gone = free_address();
    let result = client(Duration::from_millis(100), &[&gone]).put(b"a", b"1");
    let Err(error @ Error::Unavailable { .. }) = result else { panic!("{result:?}") };
    let text = error.to_string();
    assert!(text.contains(&format!("cannot connect to {gone}")), "{text}");
}

#[test]
fn a_serializable_read_stays_where_it_was_sent() {
    let other = Server::start(vec![vec![]]);
    let asked =
        Server::start(vec![vec![not_leader(&other.address)], vec![Act::Range(&["a"], false)]]);
    let consistency = Consistency::Serializable;
    let args = RangeArgs { consistency, ..RangeArgs::of_key(b"a") };
    let range = client(PATIENT, &[&asked.address]).range(&args).unwrap();
    assert_eq!(range.kvs.len(), 1);
    assert_eq!(asked.seen().len(), 2);
    // Let the other one's thread end.
    drop(TcpStream::connect(&other.address));
}

fn keys_of(range: &raftd::client::Range) -> Vec<&[u8]> {
    range.kvs.iter().map(|kv| &kv.key[..]).collect()
}

fn asked_of(server: Server) -> Vec<Vec<u8>> {
    server.seen().into_iter().map(|(_, key)| key).collect()
}

#[test]
fn a_range_in_parts_is_put_together() {
    let server = Server::start(vec![vec![Act::Parts(&[&["a", "b"], &["c"], &["d"]], Then::End)]]);
    let args = RangeArgs { end: b"z", ..RangeArgs::of_key(b"a") };
    let range = client(PATIENT, &[&server.address]).range(&args).unwrap();
    assert_eq!(keys_of(&range), [b"a", b"b", b"c", b"d"]);
    assert_eq!((range.revision, range.count, range.more), (Revision(9), 4, false));
    assert_eq!(asked_of(server), [b"a"]);
}

/// The rest is asked for behind the last key; what each piece counts is its own, so all are counted
/// in the end.
#[test]
fn a_range_that_is_cut_off_goes_on_behind_the_last_key() {
    let busy = Then::Error(WireError::Busy { what: "too many ranges are under way".into() });
    let server = Server::start(vec![
        vec![Act::Parts(&[&["a"], &["b"]], Then::HangUp)],
        vec![Act::Parts(&[&["c"]], busy), Act::HangUp],
        vec![Act::Range(&["d"], false), Act::Range(&[], false)],
    ]);
    let args = RangeArgs { end: b"z", ..RangeArgs::of_key(b"a") };
    let range = client(PATIENT, &[&server.address]).range(&args).unwrap();
    assert_eq!(keys_of(&range), [b"a", b"b", b"c", b"d"]);
    assert_eq!((range.revision, range.count, range.more), (Revision(9), 4, false));
    assert_eq!(asked_of(server), [&b"a"[..], b"b\0", b"c\0", b"c\0", b"a"]);
}

/// What a server is asked that had not applied the revision which another one had answered from: it
/// refused that, and the range failed in the middle.
#[test]
fn a_range_that_goes_on_at_a_server_that_lags_waits_until_one_does_not() {
    let lags = || WireError::FutureRevision { revision: Revision(8) };
    let server = Server::start(vec![
        vec![Act::Parts(&[&["a"]], Then::HangUp)],
        vec![Act::Error(lags())],
        vec![Act::Range(&["b"], false)],
        vec![Act::Error(lags())],
        vec![Act::Range(&[], false), Act::Error(lags())],
    ]);
    let consistency = Consistency::Serializable;
    let args = RangeArgs { end: b"z", consistency, ..RangeArgs::of_key(b"a") };
    let mut client = client(PATIENT, &[&server.address]);
    let range = client.range(&args).unwrap();
    assert_eq!(keys_of(&range), [b"a", b"b"]);
    let future = client.range(&RangeArgs { revision: Revision(10), ..args });
    assert!(matches!(&future, Err(Error::Refused { source, .. }) if *source == lags()));
    assert_eq!(asked_of(server), [&b"a"[..], b"a\0", b"a\0", b"a", b"a", b"a"]);
}

#[test]
fn a_range_that_is_cut_off_at_its_limit_asks_whether_there_is_more() {
    let server = Server::start(vec![
        vec![Act::Parts(&[&["a", "b"]], Then::HangUp)],
        vec![Act::Range(&["c"], false), Act::Range(&[], false)],
    ]);
    let args = RangeArgs { end: b"z", limit: 2, ..RangeArgs::of_key(b"a") };
    let range = client(PATIENT, &[&server.address]).range(&args).unwrap();
    assert_eq!(keys_of(&range), [b"a", b"b"]);
    assert_eq!((range.count, range.more), (4, true));
    assert_eq!(asked_of(server), [&b"a"[..], b"b\0", b"a"]);
}

#[test]
fn a_range_that_compaction_overtook_ends_unless_nothing_of_it_came() {
    let compacted = || WireError::Compacted { compact_revision: Revision(12) };
    let server = Server::start(vec![vec![
        Act::Error(compacted()),
        Act::Parts(&[&["a"]], Then::Error(compacted())),
    ]]);
    let args = RangeArgs { end: b"z", ..RangeArgs::of_key(b"a") };
    let mut seen = Vec::new();
    let done = client(PATIENT, &[&server.address]).range_each(&args, &mut |kv| {
        seen.push(kv.key);
        ControlFlow::Continue(())
    });
    let Err(Error::Refused { source: WireError::Compacted { .. }, .. }) = done else {
        panic!("{done:?}");
    };
    assert_eq!(seen, [b"a"]);
    assert_eq!(asked_of(server), [b"a", b"a"]);
}

#[test]
fn who_wants_no_more_of_a_range_leaves_the_rest_of_it_behind() {
    let server =
        Server::start(vec![vec![Act::Parts(&[&["a", "b"], &["c"]], Then::End)], vec![Act::Put(3)]]);
    let args = RangeArgs { end: b"z", ..RangeArgs::of_key(b"a") };
    let mut client = Client::at_most_once(ClientOptions {
        endpoints: vec![server.address.clone()],
        timeout: PATIENT,
        cluster_id: ClusterId(0),
        login: None,
    });
    let done = client.range_each(&args, &mut |_| ControlFlow::Break(())).unwrap();
    assert!(done.more);
    assert_eq!(client.put(b"x", b"1").unwrap(), Revision(3));
}

#[test]
fn a_sorted_range_that_no_answer_holds_is_read_by_key_and_sorted_here() {
    let replies =
        vec![Act::Range(&["d"], true), Act::Parts(&[&["a", "b"], &["c", "d"]], Then::End)];
    let server = Server::start(vec![replies]);
    let selection = Selection { by: SortBy::Version, order: Order::Descend, ..Selection::ALL };
    let args = RangeArgs { end: b"z", limit: 3, selection, ..RangeArgs::of_key(b"a") };
    let range = client(PATIENT, &[&server.address]).range(&args).unwrap();
    assert_eq!(keys_of(&range), [b"d", b"c", b"b"]);
    assert_eq!((range.revision, range.count, range.more), (Revision(9), 4, true));
    assert_eq!(asked_of(server), [b"a", b"a"]);
}

#[test]
fn hundreds_of_requests_fly_at_once() {
    let acts = (0..500).map(Act::Put).collect();
    let server = Server::start(vec![acts]);
    let deadline = Deadline::after(PATIENT);
    let mut connection = Connection::open(&server.address, ClusterId(0), deadline).unwrap();
    assert_eq!(connection.welcome().node, node(1));
    let ids: Vec<u64> = (0..500).map(|_| connection.put(b"a", b"1")).collect();
    connection.flush(deadline).unwrap();
    for (id, revision) in ids.into_iter().zip(0..) {
        let reply = connection.receive(deadline).unwrap();
        assert_eq!(reply.id, id);
        assert!(matches!(reply.body, ReplyBody::Put { revision: Revision(r) } if r == revision));
    }
    assert!(!connection.has_reply());
}

#[test]
fn a_value_beyond_the_bound_is_refused_at_home() {
    let gone = free_address();
    let result = client(PATIENT, &[&gone]).put(b"a", &vec![0; 1_572_864]);
    assert!(matches!(result, Err(Error::Refused { source: WireError::TooLarge { .. }, .. })));
}

#[test]
fn a_prefix_ends_before_the_first_key_without_it() {
    let cases: [(&[u8], &[u8]); 5] =
        [(b"a", b"b"), (b"ab", b"ac"), (b"a\xff\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")];
    for (prefix, end) in cases {
        assert_eq!(prefix_end(prefix), end, "{prefix:?}");
    }
}
