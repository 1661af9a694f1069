//! Every message there and back, and the rules of reading that protocol.md states.

use raftd::limits::{MEMBERS_MAX, REQUEST_BYTES_MAX};
use raftd::raft::message::{EntryMeta, Message};
use raftd::types::{DiskId, LogIndex, Term};
use raftd::wire::client::{self, RequestWhy};
use raftd::wire::error::{Advice, Error, decode_error};
use raftd::wire::frame::{self, FrameError, next_frame};
use raftd::wire::hello::{self, HelloReply};
use raftd::wire::peer::{self, AppendHead, PeerFrame, Room};
use raftd::wire::reply::{self, ReplyBody};

use super::samples::{
    Kind, Sample, body_of, decode_and_encode, errors, node, peer_messages, position, samples,
    status,
};

/// A value no version has: an array of a map with an extension inside, and a string.
const UNKNOWN: &[u8] = &[0x92, 0x81, 0x01, 0xd4, 0x05, 0x00, 0xa1, b'x'];

#[test]
fn every_message_comes_back_as_it_went() {
    for Sample { kind, name, bytes } in samples() {
        let again = decode_and_encode(kind, body_of(kind, &bytes));
        assert_eq!(again.as_deref(), Ok(&bytes[..]), "{kind:?} {name}");
    }
}

#[test]
fn values_survive_the_wire() {
    for (name, error) in errors() {
        let mut out = Vec::new();
        reply::error_reply(&mut out, 3, &error);
        let reply = reply::decode_reply(body_of(Kind::Reply, &out)).unwrap();
        assert_eq!(reply.id, 3);
        let ReplyBody::Error(again) = reply.body else { panic!("{name} is not an error") };
        assert_eq!(again, error, "{name}");
    }
    for (name, message) in peer_messages() {
        let mut out = Vec::new();
        peer::encode_message(&mut out, &message);
        let frame = peer::decode_peer(body_of(Kind::Peer, &out), Room::default()).unwrap();
        assert_eq!(frame.message, message, "{name}");
    }
    let mut out = Vec::new();
    reply::status_reply(&mut out, 3, &status());
    let reply = reply::decode_reply(body_of(Kind::Reply, &out)).unwrap();
    let ReplyBody::Status(again) = reply.body else { panic!("not a status") };
    assert_eq!(*again, status());
}

#[test]
fn fields_of_versions_to_come_are_ignored() {
    for Sample { kind, name, bytes } in samples() {
        let body = with_one_more_field(kind, body_of(kind, &bytes));
        let again = decode_and_encode(kind, &body);
        let commands = [
            "put",
            "delete",
            "put-if",
            "put-in-session",
            "open-session",
            "compact",
            "put-with",
            "delete-with",
            "txn",
            "lease-grant",
            "lease-revoke",
        ];
        let is_command = kind == Kind::Request && commands.contains(&name.as_str());
        if kind == Kind::Request && name == "range" {
            // What comes behind its fields is known by now: see range-sorted.
            continue;
        }
        if is_command || kind == Kind::Entry {
            assert!(again.is_err(), "{kind:?} {name}: what enters the log is exact");
        } else {
            assert_eq!(again.as_deref(), Ok(&bytes[..]), "{kind:?} {name}");
        }
    }
}

/// The body with its args array one field longer.
fn with_one_more_field(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut reader = raftd::codec::msgpack::Reader::new(body);
    if kind != Kind::Entry {
        let parts = reader.array().unwrap();
        for _ in 1..parts {
            reader.uint().unwrap();
        }
    }
    let at = body.len() - reader.rest().len();
    let mut longer = body.to_vec();
    match longer[at] {
        0x90..=0x9e => longer[at] += 1,
        // Fifteen in one byte, sixteen in three.
        0x9f => drop(longer.splice(at..=at, [0xdc, 0, 16])),
        0xdc => longer[at + 2] += 1,
        marker => panic!("args begin with {marker:#x}"),
    }
    longer.extend_from_slice(UNKNOWN);
    longer
}

#[test]
fn a_body_that_ends_early_is_refused() {
    for Sample { kind, name, bytes } in samples() {
        let body = body_of(kind, &bytes);
        for end in 0..body.len() {
            // An entry is a row of values without a count: only between two of them it may end.
            if kind == Kind::Entry && decode_and_encode(kind, &body[..end]).is_ok() {
                continue;
            }
            let again = decode_and_encode(kind, &body[..end]);
            assert!(again.is_err(), "{kind:?} {name} cut at {end} of {}", body.len());
        }
    }
}

#[test]
fn a_body_with_more_after_it_is_refused() {
    for Sample { kind, name, bytes } in samples() {
        let mut body = body_of(kind, &bytes).to_vec();
        body.push(0xc0);
        assert!(decode_and_encode(kind, &body).is_err(), "{kind:?} {name}");
    }
}

#[test]
fn a_frame_is_judged_by_its_length_first() {
    assert_eq!(next_frame(&[], 10), Ok(None));
    assert_eq!(next_frame(&[1, 0, 0], 10), Ok(None));
    assert_eq!(next_frame(&[2, 0, 0, 0, 9], 10), Ok(None));
    assert_eq!(next_frame(&[0, 0, 0, 0], 10), Err(FrameError::Empty));
    assert_eq!(next_frame(&[11, 0, 0, 0], 10), Err(FrameError::TooLarge { length: 11, max: 10 }));
    let four_gib = usize::try_from(u32::MAX).unwrap();
    assert_eq!(next_frame(&[0xff; 4], 10), Err(FrameError::TooLarge { length: four_gib, max: 10 }));
    // What a web browser says first.
    assert!(next_frame(b"GET / HTTP/1.1\r\n", 1 << 24).is_err());
    let frame = next_frame(&[1, 0, 0, 0, 9, 1], 10).unwrap().unwrap();
    assert_eq!((frame.body, frame.consumed), (&[9][..], 5));
    let largest = next_frame(&[10, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 10).unwrap().unwrap();
    assert_eq!(largest.consumed, 14);
}

#[test]
fn an_abandoned_frame_leaves_no_trace() {
    let mut out = vec![1, 2, 3];
    let start = frame::begin(&mut out);
    out.push(9);
    start.abandon(&mut out);
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn a_request_that_cannot_be_done_keeps_its_id() {
    let unknown = client::decode_request(&[0x93, 5, 99, 0x90]).unwrap_err();
    assert_eq!(unknown.id, Some(5));
    assert!(matches!(unknown.why, RequestWhy::UnknownOp { op: 99 }));
    let nameless = client::decode_request(&[0x92, 5, 1]).unwrap_err();
    assert_eq!(nameless.id, None);

    let mut out = Vec::new();
    client::put_request(&mut out, 6, b"k", &vec![0; REQUEST_BYTES_MAX]);
    let large = client::decode_request(&out[4..]).unwrap_err();
    assert_eq!(large.id, Some(6));
    assert!(matches!(large.to_error(), Error::TooLarge { max: 1_572_864, .. }));
}

#[test]
fn what_goes_into_the_log_is_the_request_after_its_id() {
    let mut out = Vec::new();
    client::put_request(&mut out, 1000, b"key", b"value");
    let request = client::decode_request(&out[4..]).unwrap();
    let mut command = Vec::new();
    let put = raftd::kv::command::Command::Put { key: b"key", value: b"value" };
    raftd::kv::command::encode_command(&mut command, put);
    assert_eq!(request.command, command);
    assert_eq!(request.args, &command[1..]);
}

#[test]
fn an_error_of_a_version_to_come_is_shown_and_its_advice_followed() {
    // [99, 1, "later", [true]], and an advice that we do not know either.
    let args = [0x94, 99, 1, 0xa5, b'l', b'a', b't', b'e', b'r', 0x91, 0xc3];
    let error = decode_error(&args).unwrap();
    let (code, advice, text) = (99, Advice::AskAgain, "later".to_owned());
    assert_eq!(error, Error::Other { code, advice, text });
    assert_eq!(error.to_string(), "error 99: later");
    let mut args = args;
    args[2] = 9;
    assert_eq!(decode_error(&args).unwrap().advice(), Advice::Unknown);
}

#[test]
fn a_hello_of_another_protocol_is_refused() {
    let samples = samples();
    let hello = samples.iter().find(|sample| sample.kind == Kind::Hello).unwrap();
    let body = body_of(Kind::Hello, &hello.bytes);
    let magic = body.windows(5).position(|window| window == b"raftd").unwrap();
    let mut other = body.to_vec();
    other[magic] = b'R';
    let why = hello::decode_hello(&other).unwrap_err().to_string();
    assert!(why.contains("does not say \"raftd\""), "{why}");
    // The versions follow the magic: from 2 to 1.
    let mut backwards = body.to_vec();
    backwards[magic + 5] = 2;
    assert!(hello::decode_hello(&backwards).is_err());
}

#[test]
fn a_welcome_names_a_bounded_number_of_members() {
    let samples = samples();
    let accepted = samples.iter().find(|sample| sample.name == "accepted").unwrap();
    let reply = hello::decode_hello_reply(body_of(Kind::Welcome, &accepted.bytes)).unwrap();
    let HelloReply::Welcome(mut welcome) = reply else { panic!("refused") };
    for (count, fits) in [(MEMBERS_MAX, true), (MEMBERS_MAX + 1, false)] {
        welcome.members = (1..).take(count).map(|id| (node(id), DiskId(1))).collect();
        let mut out = Vec::new();
        hello::encode_hello_reply(&mut out, &HelloReply::Welcome(welcome.clone()));
        assert_eq!(hello::decode_hello_reply(&out[4..]).is_ok(), fits, "{count} members");
    }
}

/// What one Append says, less what the test varies.
fn append_body(term: u64, prev: (u64, u64), commit: u64, terms: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let head = AppendHead {
        term: Term::new(term),
        session: 1,
        round: 1,
        prev: position(prev.0, prev.1),
        commit: LogIndex::new(commit),
        count: terms.len(),
    };
    let kind = raftd::types::EntryKind::NoOp;
    let meta = |term| EntryMeta { term: Term::new(term), kind, bytes: 0 };
    let entries = terms.iter().map(|&term| (meta(term), 0, &[][..]));
    peer::encode_append(&mut out, &head, entries);
    out.split_off(4)
}

#[test]
fn an_append_that_contradicts_itself_is_refused() {
    /// Term, prev, commit, the entries' terms, and whether that may be said.
    type Case<'a> = (u64, (u64, u64), u64, &'a [u64], bool);
    let cases: [Case<'_>; 10] = [
        (7, (5, 10), 12, &[5, 7], true),
        (7, (0, 0), 1, &[1], true),
        (7, (5, 10), 13, &[5, 7], false), // commits beyond its last entry
        (7, (5, 10), 11, &[4], false),    // the log's terms go back
        (7, (5, 10), 11, &[8], false),    // an entry of a later leader
        (7, (8, 10), 10, &[], false),     // a previous entry of a later leader
        (7, (0, 10), 10, &[], false),     // an index without a term
        (7, (5, 0), 0, &[], false),       // a term without an index
        (7, (0, 0), 1, &[0], false),      // an entry without a term
        (7, (5, u64::MAX), 0, &[], false), // an index nobody reaches
    ];
    for (term, prev, commit, terms, fits) in cases {
        let body = append_body(term, prev, commit, terms);
        let read = peer::decode_peer(&body, Room::default());
        assert_eq!(read.is_ok(), fits, "{term} {prev:?} {commit} {terms:?}");
    }
    let most = vec![7; peer::ENTRIES_MAX];
    assert!(peer::decode_peer(&append_body(7, (5, 10), 0, &most), Room::default()).is_ok());
}

#[test]
fn the_room_for_entries_is_used_again() {
    let append = append_body(7, (5, 10), 0, &[7; 100]);
    let mut heartbeat = Vec::new();
    let (term, session, round, commit) = (Term::new(7), 1, 0, LogIndex::ZERO);
    let message = Message::Heartbeat { term, session, round, commit };
    peer::encode_message(&mut heartbeat, &message);
    let place = |frame: &PeerFrame<'_>| {
        let Message::Append { entries, .. } = &frame.message else { panic!("an Append") };
        (entries.as_ptr(), frame.payloads.as_ptr().cast())
    };
    let frame = peer::decode_peer(&append, Room::default()).unwrap();
    let first: (*const EntryMeta, *const u8) = place(&frame);
    let room: Room<'static> = peer::recycle(frame);
    // Another message between two Appends gives back what it had no use for.
    let frame = peer::decode_peer(body_of(Kind::Peer, &heartbeat), room).unwrap();
    assert_eq!(frame.message, message);
    let frame = peer::decode_peer(&append, peer::recycle(frame)).unwrap();
    assert_eq!(frame.payloads.len(), 100);
    assert_eq!(place(&frame), first);
}
