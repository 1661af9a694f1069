//! One message of every kind, as bytes: what protocol.md shows, what the hostile tests damage. And
//! the way back: any frame to the value it means to the bytes of that value.

use raftd::codec::crc::payload_crc;
use raftd::codec::msgpack;
use raftd::kv::KeyValueRef;
use raftd::kv::command::{self, Command, EntryHeader, RangeEnd, SessionCall};
use raftd::raft::message::{AppendOutcome, EntryMeta, Message, SnapshotOutcome};
use raftd::types::{
    ClusterId, DiskId, EntryKind, LogIndex, LogPosition, NodeId, Revision, SessionId, SnapshotId,
    Term,
};
use raftd::wire::auth::{AuthRefusal, Denial};
use raftd::wire::client::{self, Consistency, Op, RangeArgs, Selection};
use raftd::wire::error::Error;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{self, Hello, HelloReply, PeerHello, Purpose, Sender, Welcome};
use raftd::wire::leases::{self, LeaseRequest};
use raftd::wire::members::{self, MemberList, MemberRequest, MemberStatus};
use raftd::wire::peer::{self, AppendHead};
use raftd::wire::reply::{self, RangeReplyWriter, ReplyBody, SnapshotPiece, TxnOutcome};
use raftd::wire::status::{PeerStatus, Status, TurnBucket, TurnTimes};
use raftd::wire::watch;

use super::{auth, ranges, transactions, watches};

/// Where a message stands in a conversation: the same bytes mean different things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Hello,
    Welcome,
    Request,
    Reply,
    Peer,
    /// Not a frame: an entry's payload.
    Entry,
}

impl Kind {
    pub(crate) fn from_name(name: &str) -> Option<Kind> {
        Some(match name {
            "hello" => Kind::Hello,
            "welcome" => Kind::Welcome,
            "request" => Kind::Request,
            "reply" => Kind::Reply,
            "peer" => Kind::Peer,
            "entry" => Kind::Entry,
            _ => return None,
        })
    }
}

pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term::new(term), LogIndex::new(index))
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |kind, name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        samples.push(Sample { kind, name: name.to_owned(), bytes });
    };
    for (name, hello) in hellos() {
        add(Kind::Hello, name, &|out| hello::encode_hello(out, &hello));
    }
    for (name, answer) in welcomes() {
        add(Kind::Welcome, name, &|out| hello::encode_hello_reply(out, &answer));
    }
    add(Kind::Request, "put", &|out| client::put_request(out, 7, b"a", b"1"));
    add(Kind::Request, "delete", &|out| client::delete_request(out, 8, b"a", b"b"));
    add(Kind::Request, "range", &|out| client::range_request(out, 9, &range_args()));
    add(Kind::Request, "open-session", &|out| {
        client::command_request(out, 11, None, Command::OpenSession);
    });
    let put_if = Command::PutIf { key: b"a", value: b"2", mod_revision: Revision(2) };
    add(Kind::Request, "put-if", &|out| client::command_request(out, 12, None, put_if));
    let put = Command::Put { key: b"a", value: b"1" };
    add(Kind::Request, "put-in-session", &|out| {
        client::command_request(out, 13, Some(session_call()), put);
    });
    add(Kind::Reply, "open-session", &|out| reply::session_reply(out, 11, SessionId(5)));
    add(Kind::Request, "status", &|out| client::status_request(out, 10));
    for (kind, name, write) in all_written() {
        add(kind, name, &write);
    }
    add(Kind::Request, "member-list", &|out| members::member_list_request(out, 11));
    for (name, request) in member_requests() {
        add(Kind::Request, name, &|out| request.encode(out, 12));
    }
    add(Kind::Reply, "member-list", &|out| members::member_list_reply(out, 11, &member_list()));
    let index = LogIndex::new(914);
    add(Kind::Reply, "member-change", &|out| {
        members::member_change_reply(out, 12, Op::MemberAdd, index);
    });
    add(Kind::Reply, "transfer-leader", &|out| members::transfer_reply(out, 12, node(2)));
    add(Kind::Reply, "put", &|out| reply::put_reply(out, 7, Revision(2)));
    add(Kind::Reply, "delete", &|out| reply::delete_reply(out, 8, Revision(300), 41));
    add(Kind::Reply, "range", &ranges::range_reply);
    add(Kind::Reply, "range-part", &ranges::range_part);
    add(Kind::Reply, "status", &|out| reply::status_reply(out, 10, &status()));
    for (name, error) in errors() {
        add(Kind::Reply, name, &|out| reply::error_reply(out, 7, &error));
    }
    for (name, message) in peer_messages() {
        add(Kind::Peer, name, &|out| peer::encode_message(out, &message));
    }
    add(Kind::Peer, "append", &append);
    add(Kind::Peer, "piece", &|out| {
        peer::encode_piece(out, Term::new(7), snapshot(), 262_144, b"bytes");
    });
    add(Kind::Entry, "commands", &|out| {
        command::encode_header(out, EntryHeader { stamp_ms: 1_700_000_000_000 });
        command::encode_command(out, Command::Put { key: b"a", value: b"1" });
        let end = RangeEnd::from_bytes(b"c");
        command::encode_command(out, Command::DeleteRange { key: b"b", end });
        command::encode_command(out, Command::Compact { revision: Revision(5) });
    });
    add(Kind::Entry, "session", &|out| {
        command::encode_header(out, EntryHeader { stamp_ms: 1_700_000_000_000 });
        command::encode_command(out, Command::OpenSession);
        command::encode_call(out, session_call());
        command::encode_command(out, put_if);
    });
    samples
}

fn all_written() -> impl Iterator<Item = Written> {
    let more = more_messages().into_iter().chain(transactions::samples());
    let more = more.chain(super::leases::samples()).chain(watches::samples());
    more.chain(super::states::samples()).chain(auth::samples())
}

pub(super) type Written = (Kind, &'static str, fn(&mut Vec<u8>));

fn more_messages() -> [Written; 5] {
    let piece = |out: &mut Vec<u8>| {
        let piece = SnapshotPiece { snapshot: snapshot(), offset: 262_144, bytes: b"bytes" };
        reply::snapshot_reply(out, 11, &piece);
    };
    [
        (Kind::Reply, "put-if-done", |out| reply::put_if_reply(out, 12, Revision(3), None)),
        (Kind::Reply, "put-if-refused", |out| {
            reply::put_if_reply(out, 12, Revision(300), Some(Revision(7)));
        }),
        (Kind::Request, "snapshot", |out| client::snapshot_request(out, 11)),
        (Kind::Reply, "snapshot", piece),
        (Kind::Reply, "snapshot-not-yet", |out| {
            reply::snapshot_reply(out, 11, &SnapshotPiece::default());
        }),
    ]
}

fn session_call() -> SessionCall {
    SessionCall { session: SessionId(5), sequence: 9, acknowledged: 8 }
}

fn member_requests() -> Vec<(&'static str, MemberRequest<'static>)> {
    let address = "127.0.0.1:7104";
    vec![
        ("member-add", MemberRequest::Add { node: node(4), address, stay: false }),
        ("member-remove", MemberRequest::Remove { node: node(3) }),
        ("member-promote", MemberRequest::Promote { node: node(4) }),
        ("member-replace", MemberRequest::Replace { old: node(3), node: node(4), address }),
        ("transfer-leader", MemberRequest::Transfer { node: Some(node(2)) }),
    ]
}

fn member_list() -> MemberList {
    let member = |id, role: &str, match_index| MemberStatus {
        node: node(id),
        address: format!("127.0.0.1:710{id}"),
        disk_id: DiskId(u128::from(id) * 0x11),
        role: role.to_owned(),
        replaces: None,
        alive: true,
        match_index: LogIndex::new(match_index),
    };
    MemberList {
        index: LogIndex::new(914),
        committed: true,
        highest: node(4),
        leader: node(1),
        last_index: LogIndex::new(920),
        members: vec![
            member(1, "voter", 920),
            MemberStatus { replaces: Some(node(1)), ..member(4, "joining", 700) },
        ],
    }
}

fn members() -> Vec<(NodeId, DiskId)> {
    vec![(node(1), DiskId(0x11)), (node(2), DiskId(0x22)), (node(3), DiskId(0x33))]
}

fn hellos() -> [(&'static str, Hello); 2] {
    let client = Hello {
        version_min: 1,
        version_max: 1,
        cluster_id: ClusterId(0),
        sender: Sender::Client,
        auth: Vec::new(),
    };
    let peer = PeerHello {
        node: node(1),
        to: node(2),
        disk_id: DiskId(0x11),
        boot_nonce: 0x0123_4567_89ab_cdef,
        genesis: 77,
        members: members(),
        purpose: Purpose::Replication,
    };
    let cluster_id = ClusterId(0x1e71_2b94_92f8_02b5_4721_e02d_f531_afb0);
    [
        ("client", client.clone()),
        ("peer", Hello { cluster_id, sender: Sender::Peer(peer), ..client }),
    ]
}

fn welcomes() -> [(&'static str, HelloReply); 2] {
    let welcome = Welcome {
        version: 1,
        cluster_id: ClusterId(0x1e71_2b94_92f8_02b5_4721_e02d_f531_afb0),
        node: node(2),
        disk_id: DiskId(0x22),
        boot_nonce: 99,
        genesis: 77,
        members: members(),
        request_bytes_max: 1_572_864,
        feature_level: 1,
    };
    let ours = ClusterId(0x1e71_2b94_92f8_02b5_4721_e02d_f531_afb0);
    [
        ("accepted", HelloReply::Welcome(welcome)),
        ("refused", HelloReply::Refused(Error::WrongCluster { ours })),
    ]
}

pub(super) fn range_args() -> RangeArgs<'static> {
    RangeArgs {
        key: b"a",
        end: b"b",
        limit: 10,
        revision: Revision(0),
        consistency: Consistency::Serializable,
        keys_only: false,
        count_only: false,
        selection: Selection::ALL,
    }
}

/// A kv; the numbers are its create and mod revisions and its version.
pub(super) fn kv<'a>(key: &'a [u8], value: &'a [u8], numbers: [u64; 3]) -> KeyValueRef<'a> {
    let [create_revision, mod_revision, version] = numbers;
    let (create_revision, mod_revision) = (Revision(create_revision), Revision(mod_revision));
    KeyValueRef { key, value, create_revision, mod_revision, version, lease: 0 }
}

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        cluster_id: ClusterId(0x1e71_2b94_92f8_02b5_4721_e02d_f531_afb0),
        node: node(2),
        role: "follower".to_owned(),
        term: Term::new(3),
        leader: Some(node(1)),
        leader_address: Some("127.0.0.1:7101".to_owned()),
        commit_index: LogIndex::new(912),
        applied_index: LogIndex::new(912),
        last_index: LogIndex::new(913),
        durable_index: LogIndex::new(913),
        revision: Revision(700),
        compact_revision: Revision(100),
        state_hash: 0x107b_c70f_c8d9_6370,
        keys: 50,
        history_bytes: 4096,
        log_bytes: 67_108_864,
        connections: 3,
        peers: vec![PeerStatus {
            node: node(1),
            address: "127.0.0.1:7101".to_owned(),
            connected: true,
            match_index: LogIndex::ZERO,
            snapshot_sent: 0,
            snapshot_bytes: 0,
        }],
        out_of_space: false,
        syncs: 1000,
        lease_drift_ppm: 500,
        sessions: 12,
        log_base: LogIndex::new(400),
        snapshot_index: LogIndex::new(500),
        snapshot_bytes: 300_000,
        snapshot_received: 0,
        snapshot_expected: 0,
        turn_times: TurnTimes {
            longest_cpu_us: 790,
            longest_wall_us: 1200,
            buckets: vec![
                TurnBucket { at_most_us: Some(1000), cpu: 5000, wall: 4990 },
                TurnBucket { at_most_us: None, cpu: 0, wall: 10 },
            ],
        },
        state: "sound".to_owned(),
        state_agreed_index: LogIndex::new(768),
        state_reloads: 0,
        lease_reads: 96,
    }
}

pub(crate) fn errors() -> Vec<(&'static str, Error)> {
    vec![
        ("not-leader", Error::NotLeader { leader: Some((node(2), "127.0.0.1:7102".to_owned())) }),
        ("busy", Error::Busy { what: "entries not committed yet".into() }),
        ("no-space", Error::NoSpace),
        ("not-ready", Error::NotReady { why: "starting".into() }),
        ("bad-request", Error::BadRequest { why: "the key is empty".into() }),
        ("too-large", Error::TooLarge { bytes: 2_000_000, max: 1_572_864 }),
        ("compacted", Error::Compacted { compact_revision: Revision(100) }),
        ("future-revision", Error::FutureRevision { revision: Revision(700) }),
        ("outcome-unknown", Error::OutcomeUnknown),
        ("wrong-cluster", Error::WrongCluster { ours: ClusterId(0xc0ffee) }),
        ("wrong-node", Error::WrongNode { ours: node(2) }),
        ("unsupported", Error::Unsupported { version_min: 1, version_max: 1 }),
        ("refused", Error::Refused { why: "server n9 is not a member".into() }),
        ("session-expired", Error::SessionExpired),
        ("call-acknowledged", Error::CallAcknowledged),
        ("removed", Error::Removed { node: node(3) }),
        ("key-not-found", Error::KeyNotFound),
        ("lease-not-found", Error::LeaseNotFound),
        ("answer-not-kept", Error::AnswerNotKept { revision: Revision(300) }),
        ("lease-exists", Error::LeaseExists),
        ("too-many-leases", Error::TooManyLeases { max: 1_048_576 }),
        ("answer-too-large", Error::AnswerTooLarge { max: 4_194_304 }),
        ("over-quota", Error::OverQuota { bytes: 9_000, max: 8_192 }),
        ("denied", Error::Denied { why: Denial::NotPermitted }),
        ("auth-refused", Error::Auth { why: AuthRefusal::RoleNotFound }),
    ]
}

pub(crate) fn peer_messages() -> Vec<(&'static str, Message)> {
    let (term, campaign_term, session, round) = (Term::new(7), Term::new(8), 40, 5);
    let reply = |outcome, first_faulty| Message::AppendReply {
        term,
        session,
        round,
        outcome,
        first_faulty,
    };
    let index = LogIndex::new(913);
    let conflict = AppendOutcome::Conflict { probe: index, hint: position(5, 900) };
    let (prev, commit, entries) = (position(6, 912), LogIndex::new(900), Vec::new());
    let snapshot = snapshot();
    let piece_reply = |outcome| Message::InstallSnapshotReply { term, snapshot, outcome };
    let wanted = SnapshotOutcome::Wanted { offset: 262_149 };
    vec![
        ("pre-vote", Message::PreVote { campaign_term, last: position(7, 913) }),
        ("pre-vote-reply", Message::PreVoteReply { term, campaign_term, granted: true }),
        ("vote", Message::Vote { term: campaign_term, last: position(7, 913), asked_by: None }),
        (
            "vote-handover",
            Message::Vote { term: campaign_term, last: position(7, 913), asked_by: Some(node(1)) },
        ),
        ("timeout-now", Message::TimeoutNow { term, last: position(7, 913) }),
        ("vote-reply", Message::VoteReply { term: campaign_term, granted: false }),
        ("probe", Message::Append { term, session, round, prev, entries, commit }),
        ("heartbeat", Message::Heartbeat { term, session, round, commit: index }),
        ("matched", reply(AppendOutcome::Matched { index }, None)),
        ("conflict", reply(conflict, None)),
        ("read-index", Message::ReadIndex { term, sequence: 77 }),
        ("read-index-reply", Message::ReadIndexReply { term, sequence: 77, index }),
        ("no-room", reply(AppendOutcome::NoRoom { index }, Some(LogIndex::new(950)))),
        ("offer", Message::InstallSnapshot { term, snapshot, offset: 0, bytes: 0 }),
        ("wanted", piece_reply(wanted)),
        ("installed", piece_reply(SnapshotOutcome::Installed)),
        ("not-now", piece_reply(SnapshotOutcome::Refused)),
    ]
}

fn snapshot() -> SnapshotId {
    SnapshotId { position: position(6, 900), bytes: 300_000, crc: 0x64a2_6a91 }
}

fn append(out: &mut Vec<u8>) {
    let meta = |term, kind, bytes| EntryMeta { term: Term::new(term), kind, bytes };
    let mut payload = Vec::new();
    command::encode_header(&mut payload, EntryHeader { stamp_ms: 1_700_000_000_000 });
    command::encode_command(&mut payload, Command::Put { key: b"a", value: b"1" });
    let bytes = u32::try_from(payload.len()).unwrap();
    let head = AppendHead {
        term: Term::new(7),
        session: 40,
        round: 5,
        prev: position(6, 912),
        commit: LogIndex::new(912),
        count: 2,
    };
    let crc = |at, before, payload: &[u8]| payload_crc(at, Term::new(before), payload);
    let entries: [(EntryMeta, u32, &[u8]); 2] = [
        (meta(7, EntryKind::NoOp, 0), crc(position(7, 913), 6, &[]), &[]),
        (meta(7, EntryKind::Commands, bytes), crc(position(7, 914), 7, &payload), &payload),
    ];
    peer::encode_append(out, &head, entries.into_iter());
}

/// The body of a whole frame; an entry is its own body.
pub(crate) fn body_of(kind: Kind, bytes: &[u8]) -> &[u8] {
    if kind == Kind::Entry {
        return bytes;
    }
    let frame = next_frame(bytes, bytes.len()).unwrap().expect("a whole frame");
    assert_eq!(frame.consumed, bytes.len(), "one frame and nothing after it");
    frame.body
}

/// Reads all of a body, and writes what it said. The error is for the reader of a failed test.
pub(crate) fn decode_and_encode(kind: Kind, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match kind {
        Kind::Hello => hello::encode_hello(&mut out, &hello::decode_hello(body).map_err(text)?),
        Kind::Welcome => {
            let reply = hello::decode_hello_reply(body).map_err(text)?;
            hello::encode_hello_reply(&mut out, &reply);
        }
        Kind::Request => request_again(&mut out, body)?,
        Kind::Reply => reply_again(&mut out, body)?,
        Kind::Peer => super::states::peer_again(&mut out, body)?,
        Kind::Entry => entry_again(&mut out, body)?,
    }
    Ok(out)
}

pub(super) fn request_again(out: &mut Vec<u8>, body: &[u8]) -> Result<(), String> {
    let request = client::decode_request(body).map_err(text)?;
    match request.op {
        Op::Put
        | Op::DeleteRange
        | Op::Compact
        | Op::InSession
        | Op::OpenSession
        | Op::PutIf
        | Op::PutWith
        | Op::DeleteRangeWith
        | Op::Txn
        | Op::LeaseGrant
        | Op::LeaseRevoke
        | Op::Auth => {
            command::validate_command(request.command, 1_572_864).map_err(text)?;
            let mut reader = msgpack::Reader::new(request.command);
            let (call, command) = command::decode_next(&mut reader).map_err(text)?;
            client::command_request(out, request.id, call, command);
        }
        Op::Range => {
            let args = RangeArgs::decode(request.args).map_err(text)?;
            client::range_request(out, request.id, &args);
        }
        Op::ReadTxn => {
            let (consistency, txn) = client::decode_read_txn(request.args).map_err(text)?;
            client::read_txn_request(out, request.id, consistency, txn);
        }
        Op::LeaseKeepAlive | Op::LeaseTimeToLive | Op::LeaseList => {
            let asked = LeaseRequest::decode(request.op, request.args).map_err(text)?;
            leases::lease_request(out, request.id, &asked.expect("the op says so"));
        }
        Op::Status => {
            client::decode_status_args(request.args).map_err(text)?;
            client::status_request(out, request.id);
        }
        Op::Snapshot => {
            client::decode_status_args(request.args).map_err(text)?;
            client::snapshot_request(out, request.id);
        }
        Op::Watch | Op::WatchCancel | Op::WatchProgress => {
            watches::request_again(out, &request).map_err(text)?;
        }
        Op::Login | Op::LoginProof | Op::AuthRead | Op::As => {
            auth::auth_request_again(out, &request)?;
        }
        Op::MemberList => {
            client::decode_status_args(request.args).map_err(text)?;
            members::member_list_request(out, request.id);
        }
        Op::MemberAdd
        | Op::MemberRemove
        | Op::MemberPromote
        | Op::MemberReplace
        | Op::TransferLeader => {
            let asked = MemberRequest::decode(request.op, request.args).map_err(text)?;
            asked.expect("one of these ops").encode(out, request.id);
        }
    }
    Ok(())
}

fn reply_again(out: &mut Vec<u8>, body: &[u8]) -> Result<(), String> {
    let reply = reply::decode_reply(body).map_err(text)?;
    match reply.body {
        ReplyBody::Error(error) => reply::error_reply(out, reply.id, &error),
        ReplyBody::Put { revision } => reply::put_reply(out, reply.id, revision),
        ReplyBody::DeleteRange { revision, deleted } => {
            reply::delete_reply(out, reply.id, revision, deleted);
        }
        ReplyBody::OpenSession { session } => reply::session_reply(out, reply.id, session),
        ReplyBody::PutIf { revision, refused } => {
            reply::put_if_reply(out, reply.id, revision, refused);
        }
        ReplyBody::Range(range) => {
            let mut writer = RangeReplyWriter::begin(out, reply.id, range.revision);
            for kv in range.kvs() {
                writer.push(out, &kv);
            }
            if range.goes_on {
                writer.finish_part(out);
            } else {
                writer.finish(out, range.more, range.count);
            }
        }
        ReplyBody::Compact { revision } => reply::compact_reply(out, reply.id, revision),
        ReplyBody::PutWith { revision, before } => {
            let mut body = Vec::new();
            transactions::kvs_again(&mut body, before.into_iter());
            reply::put_with_reply(out, reply.id, revision, &body);
        }
        ReplyBody::DeleteRangeWith { revision, deleted, before } => {
            let mut body = Vec::new();
            transactions::kvs_again(&mut body, before.iter());
            reply::delete_with_reply(out, reply.id, revision, deleted, &body);
        }
        ReplyBody::Txn { op, revision, succeeded, results } => {
            let mut body = Vec::new();
            transactions::results_again(&mut body, &results);
            let outcome = TxnOutcome { revision, succeeded, results: &body };
            reply::txn_reply(out, reply.id, op, &outcome);
        }
        ReplyBody::LeaseTerm { op, term } => leases::lease_term_reply(out, reply.id, op, &term),
        ReplyBody::LeaseRevoke { revision } => {
            leases::lease_revoke_reply(out, reply.id, revision);
        }
        ReplyBody::LeaseTimes(times, names) => {
            let names: Vec<&[u8]> = names.iter().collect();
            leases::lease_times_reply(out, reply.id, &times, &names);
        }
        ReplyBody::LeaseList(list) => leases::lease_list_reply(out, reply.id, &list),
        ReplyBody::Status(status) => reply::status_reply(out, reply.id, &status),
        ReplyBody::Snapshot(piece) => reply::snapshot_reply(out, reply.id, &piece),
        ReplyBody::Watch(events) => watches::reply_again(out, reply.id, &events),
        ReplyBody::WatchCancel { was_open } => {
            watch::watch_cancel_reply(out, reply.id, was_open);
        }
        ReplyBody::WatchProgress { revision } => {
            watch::watch_progress_reply(out, reply.id, revision);
        }
        body @ (ReplyBody::Auth { .. }
        | ReplyBody::Login(_)
        | ReplyBody::LoginProof(_)
        | ReplyBody::AuthRead(_)) => auth::auth_reply_again(out, reply.id, &body),
        ReplyBody::MemberList(list) => members::member_list_reply(out, reply.id, &list),
        ReplyBody::MemberChange { op, index } => {
            members::member_change_reply(out, reply.id, op, index);
        }
        ReplyBody::Transfer { leader } => members::transfer_reply(out, reply.id, leader),
    }
    Ok(())
}

fn entry_again(out: &mut Vec<u8>, payload: &[u8]) -> Result<(), String> {
    let mut reader = msgpack::Reader::new(payload);
    command::encode_header(out, command::decode_header(&mut reader).map_err(text)?);
    while !reader.is_empty() {
        let issued = command::decode_issued(&mut reader).map_err(text)?;
        command::encode_asker(out, issued.asker);
        if let Some(call) = issued.call {
            command::encode_call(out, call);
        }
        command::encode_command(out, issued.command);
    }
    Ok(())
}

/// The error and its cause.
pub(super) fn text(error: impl std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
