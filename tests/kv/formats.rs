//! The stored formats: golden bytes, and arbitrary ones.

use proptest::prelude::*;

use raftd::codec::msgpack::{self, DecodeError, Reader};
use raftd::kv::command::{
    Command, CommandError, Compare, DeleteWith, EntryHeader, Operand, Order, PutWith, RangeEnd,
    RangeRequest, Relation, Request, RevisionSpan, Selection, SessionCall, SortBy, Txn, TxnParts,
    decode_command, decode_header, decode_next, encode_call, encode_command, encode_header,
    validate_command,
};
use raftd::types::{LogIndex, Revision, SessionId};

use super::support;

/// One line per form: `name: hex`. Committed: what an old log holds must be read for ever.
const GOLDEN: &str = include_str!("golden/entry-1.hex");

/// The forms that came with client sessions.
const GOLDEN_SESSIONS: &str = include_str!("golden/entry-1-sessions.hex");

/// The forms that came with etcd's options and transactions.
const GOLDEN_TRANSACTIONS: &str = include_str!("golden/entry-1-transactions.hex");

fn golden_forms() -> Vec<(&'static str, Command<'static>)> {
    vec![
        ("put", Command::Put { key: b"key", value: b"value" }),
        ("put empty value", Command::Put { key: b"k", value: b"" }),
        ("put long", Command::Put { key: &[b'k'; 300], value: &[0xff; 300] }),
        ("delete key", Command::DeleteRange { key: b"key", end: RangeEnd::Key }),
        ("delete from key on", Command::DeleteRange { key: b"key", end: RangeEnd::Unbounded }),
        ("delete range", Command::DeleteRange { key: b"a", end: RangeEnd::Before(b"b") }),
        ("compact", Command::Compact { revision: Revision(3) }),
        ("compact large", Command::Compact { revision: Revision(u64::MAX) }),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_form_is_read_and_written_as_the_golden_file_has_it() {
    let mut written = String::new();
    let mut entry = Vec::new();
    encode_header(&mut entry, EntryHeader { stamp_ms: 1_700_000_000_123 });
    written += &format!("header: {}\n", hex(&entry));
    for (name, command) in golden_forms() {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, command);
        written += &format!("{name}: {}\n", hex(&bytes));
        entry.extend_from_slice(&bytes);
    }
    written += &format!("entry: {}\n", hex(&entry));
    assert_eq!(written, GOLDEN);

    let mut read = Vec::new();
    for line in GOLDEN.lines() {
        let (name, bytes) = line.split_once(": ").unwrap();
        let bytes = unhex(bytes);
        let mut reader = Reader::new(&bytes);
        if name == "header" || name == "entry" {
            let header = decode_header(&mut reader).unwrap();
            assert_eq!(header, EntryHeader { stamp_ms: 1_700_000_000_123 });
        }
        while !reader.is_empty() {
            read.push(format!("{:?}", decode_command(&mut reader).unwrap()));
        }
    }
    let forms: Vec<String> = golden_forms().iter().map(|(_, form)| format!("{form:?}")).collect();
    assert_eq!(read, [forms.clone(), forms].concat(), "each alone, then all in the entry");
}

fn golden_calls() -> Vec<(&'static str, Option<SessionCall>, Command<'static>)> {
    let call = |session, sequence, acknowledged| {
        Some(SessionCall { session: SessionId(session), sequence, acknowledged })
    };
    let put = Command::Put { key: b"key", value: b"value" };
    let delete = Command::DeleteRange { key: b"a", end: RangeEnd::Before(b"b") };
    let put_if = |revision| {
        let mod_revision = Revision(revision);
        Command::PutIf { key: b"key", value: b"value", mod_revision }
    };
    vec![
        ("open session", None, Command::OpenSession),
        ("put if", None, put_if(7)),
        ("put if absent", None, put_if(0)),
        ("put if large", None, put_if(u64::MAX)),
        ("put in session", call(1, 1, 0), put),
        ("delete in session", call(300, 256, 0), delete),
        ("put if in session", call(1 << 40, 1 << 62, (1 << 62) - 256), put_if(7)),
    ]
}

#[test]
fn every_form_of_sessions_is_read_and_written_as_the_golden_file_has_it() {
    let (mut written, mut read) = (String::new(), Vec::new());
    for (name, call, command) in golden_calls() {
        let mut bytes = Vec::new();
        if let Some(call) = call {
            encode_call(&mut bytes, call);
        }
        encode_command(&mut bytes, command);
        assert_eq!(validate_command(&bytes, 1000), Ok(()), "{name}");
        written += &format!("{name}: {}\n", hex(&bytes));
    }
    assert_eq!(written, GOLDEN_SESSIONS);
    for line in GOLDEN_SESSIONS.lines() {
        let bytes = unhex(line.split_once(": ").unwrap().1);
        let mut reader = Reader::new(&bytes);
        read.push(format!("{:?}", decode_next(&mut reader).unwrap()));
        assert!(reader.is_empty());
    }
    let calls = golden_calls().into_iter();
    let forms: Vec<String> = calls.map(|(_, call, form)| format!("{:?}", (call, form))).collect();
    assert_eq!(read, forms);
}

fn golden_transaction() -> Vec<u8> {
    let compare = |key, end, relation, operand| Compare { key, end, relation, operand };
    let compares = [
        compare(b"a", RangeEnd::Key, Relation::Equal, Operand::Version(0)),
        compare(b"a", RangeEnd::Unbounded, Relation::Greater, Operand::Create(Revision(3))),
        compare(b"a", RangeEnd::Before(b"b"), Relation::Less, Operand::Mod(Revision(300))),
        compare(b"a", RangeEnd::Key, Relation::NotEqual, Operand::Value(b"v")),
        compare(b"a", RangeEnd::Key, Relation::Equal, Operand::Lease(7)),
    ];
    let (min, max) = (Revision(2), Revision(9));
    let span = |min, max| RevisionSpan { min, max };
    let range = RangeRequest {
        key: b"a",
        end: RangeEnd::Before(b"c"),
        limit: 5,
        revision: Revision(4),
        keys_only: true,
        count_only: false,
        selection: Selection {
            by: SortBy::Value,
            order: Order::Descend,
            mod_revision: span(min, max),
            create_revision: span(Revision(1), Revision(0)),
        },
    };
    let delete = DeleteWith { key: b"d", end: RangeEnd::Unbounded, prev_kv: false };
    let mut inner = Vec::new();
    let otherwise = &[Request::Delete(delete)];
    TxnParts { then: &[Request::Range(range)], otherwise, ..TxnParts::default() }
        .encode(&mut inner);
    let put = PutWith { key: b"a", value: b"w", lease: 7, ..PutWith::default() };
    let then = &[Request::Put(put), Request::Txn(Txn::from_args(&inner).unwrap())];
    let mut args = Vec::new();
    TxnParts { compares: &compares, then, otherwise: &[] }.encode(&mut args);
    args
}

#[test]
fn every_form_of_transactions_is_read_and_written_as_the_golden_file_has_it() {
    let put = PutWith { key: b"key", prev_kv: true, ignore_value: true, ..PutWith::default() };
    let leased = PutWith { value: b"value", lease: u64::MAX, ..put };
    let leased = PutWith { ignore_value: false, ..leased };
    let delete = DeleteWith { key: b"a", end: RangeEnd::Before(b"b"), prev_kv: true };
    let args = golden_transaction();
    let forms = [
        ("put with", Command::PutWith(put)),
        ("put with lease", Command::PutWith(leased)),
        ("put with kept lease", Command::PutWith(PutWith { ignore_lease: true, ..put })),
        ("delete with", Command::DeleteRangeWith(delete)),
        ("txn empty", Command::Txn(Txn::from_args(&[0x93, 0x90, 0x90, 0x90]).unwrap())),
        ("txn", Command::Txn(Txn::from_args(&args).unwrap())),
    ];
    let (mut written, mut read) = (String::new(), Vec::new());
    for (name, command) in forms {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, command);
        assert_eq!(validate_command(&bytes, 1000), Ok(()), "{name}");
        for cut in 0..bytes.len() {
            assert!(validate_command(&bytes[..cut], 1000).is_err(), "{name} cut at {cut}");
        }
        written += &format!("{name}: {}\n", hex(&bytes));
    }
    if std::env::var_os("UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kv/golden/entry-1-transactions.hex");
        std::fs::write(path, &written).unwrap();
    }
    assert_eq!(written, GOLDEN_TRANSACTIONS);
    for line in GOLDEN_TRANSACTIONS.lines() {
        let bytes = unhex(line.split_once(": ").unwrap().1);
        let mut reader = Reader::new(&bytes);
        read.push(format!("{:?}", decode_next(&mut reader).unwrap().1));
        assert!(reader.is_empty());
    }
    let forms: Vec<String> = forms.iter().map(|(_, form)| format!("{form:?}")).collect();
    assert_eq!(read, forms);
}

#[test]
fn what_is_not_exactly_a_clients_call_is_refused() {
    let check = |bytes: &[u8], error| assert_eq!(validate_command(bytes, 100), Err(error));
    let in_session = |session: u8, sequence: u8, acknowledged: u8, rest: &[u8]| {
        [&[4, 0x95, session, sequence, acknowledged], rest].concat()
    };
    let put = [1, 0x92, 0xc4, 1, b'k', 0xc4, 0];
    let refuse = |session: u8, sequence: u8, acknowledged: u8| {
        let (number, id) = (u64::from, SessionId(u64::from(session)));
        let (sequence_64, acknowledged_64) = (number(sequence), number(acknowledged));
        let call =
            SessionCall { session: id, sequence: sequence_64, acknowledged: acknowledged_64 };
        check(&in_session(session, sequence, acknowledged, &put), CommandError::Call { call });
    };
    assert_eq!(validate_command(&in_session(1, 1, 0, &put), 100), Ok(()));
    refuse(0, 1, 0);
    refuse(1, 0, 0);
    refuse(1, 5, 5);
    refuse(1, 5, 6);
    let far = [&[4, 0x95, 1, 0xcd, 1, 1, 0], &put[..]].concat();
    let call = SessionCall { session: SessionId(1), sequence: 257, acknowledged: 0 };
    check(&far, CommandError::Call { call });
    let sequence = u64::MAX;
    let last = [&[4, 0x95, 1, 0xcf], &[0xff; 8][..], &[0xcf], &[0xff; 7], &[0xfe], &put].concat();
    let call = SessionCall { session: SessionId(1), sequence, acknowledged: sequence - 1 };
    check(&last, CommandError::Call { call });
    check(
        &[4, 0x94, 1],
        CommandError::Arity { of: "a command in a session", expected: 5, found: 4 },
    );
    check(&in_session(1, 1, 0, &[5, 0x90]), CommandError::Operation { op: 5 });
    check(&in_session(1, 1, 0, &in_session(1, 1, 0, &put)), CommandError::Operation { op: 4 });
    check(
        &[5, 0x91, 0],
        CommandError::Arity { of: "an opening of a session", expected: 0, found: 1 },
    );
    check(&[6, 0x92], CommandError::Arity { of: "a conditional put", expected: 3, found: 2 });
    check(&[6, 0x93, 0xc4, 0], CommandError::EmptyKey);
}

#[test]
fn what_is_not_exactly_a_clients_command_is_refused() {
    let check = |bytes: &[u8], error| assert_eq!(validate_command(bytes, 100), Err(error));
    check(&[], CommandError::Malformed(DecodeError::Truncated));
    check(&[0], CommandError::Operation { op: 0 });
    check(&[16, 0x90], CommandError::Operation { op: 16 });
    let wanted = "an integer below 128";
    let marker = 0xcc;
    check(&[0xcc, 1], CommandError::Malformed(DecodeError::Unexpected { wanted, marker }));
    check(&[1, 0x92, 0xc4, 0, 0xc4, 0], CommandError::EmptyKey);
    check(&[2, 0x92, 0xc4, 0, 0xc4, 0], CommandError::EmptyKey);
    check(&[1, 0x93], CommandError::Arity { of: "a put", expected: 2, found: 3 });
    check(&[2, 0x91], CommandError::Arity { of: "a delete", expected: 2, found: 1 });
    check(&[1, 0x92, 0xc4, 1, b'k', 0xc4, 0, 7], CommandError::Trailing { bytes: 1 });
    check(&[1, 0x92, 0xc6, 0xff, 0xff, 0xff, 0xff], DecodeError::Truncated.into());
    check(&[1; 101], CommandError::TooLarge { bytes: 101, bytes_max: 100 });
    assert_eq!(validate_command(&[1, 0x92, 0xc4, 1, b'k', 0xc4, 0], 7), Ok(()));
    // Longer forms than needed are MessagePack as well.
    assert_eq!(validate_command(&[2, 0xdc, 0, 2, 0xc5, 0, 1, b'k', 0xc6, 0, 0, 0, 0], 99), Ok(()));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..64)
}

/// Bytes that get past the first checks more often than arbitrary ones do.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(vec![0x92, 1, 0]),
        Just(vec![1, 0x92, 0xc4, 1, b'k', 0xc4, 2, 1, 2]),
        Just(vec![2, 0x92, 0xc4, 1, b'k', 0xc4, 1, 0]),
        Just(vec![3, 0x91, 2]),
        Just(vec![5, 0x90]),
        Just(vec![6, 0x93, 0xc4, 1, b'k', 0xc4, 0, 2]),
        Just(vec![7, 0x96, 0xc4, 1, b'k', 0xc4, 0, 0, 0xc3, 0xc2, 0xc2]),
        Just(vec![8, 0x93, 0xc4, 1, b'k', 0xc4, 0, 0xc3]),
        Just(vec![9, 0x93]),
        (0..4u8).prop_map(|count| vec![0x90 + count]),
        Just(vec![0x95, 2, 1, 0xc4, 1, b'k', 0xc4, 1, 0, 9]),
        Just(vec![0x92, 7, 0x96, 0xc4, 1, b'k', 0xc4, 0, 0, 0xc2, 0xc2, 0xc2]),
        Just(vec![0x92, 9, 0x93]),
        (1..3u8, 1..9u8, 0..9u8).prop_map(|(id, call, known)| vec![4, 0x95, id, call, known]),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(noise in prop_oneof![bytes(), likely_bytes()]) {
        let _ = validate_command(&noise, 1000);
        let mut reader = Reader::new(&noise);
        let _ = decode_header(&mut reader);
        while decode_command(&mut reader).is_ok() {}
        let mut store = support::store_with(1, 1000);
        let _ = store.apply(support::at(LogIndex::new(1)), &noise, &mut |_| ());
        let mut payload = vec![0x92, 1, 0];
        payload.extend_from_slice(&noise);
        let mut store = support::store_with(1, 1000);
        let _ = store.apply(support::at(LogIndex::new(1)), &payload, &mut |_| ());
    }

    #[test]
    fn commands_come_back_as_they_were_written(
        key in prop::collection::vec(any::<u8>(), 1..300),
        value in prop::collection::vec(any::<u8>(), 0..70_000),
        revision in any::<u64>(),
    ) {
        let end = RangeEnd::from_bytes(&value);
        let commands = [
            Command::Put { key: &key, value: &value },
            Command::DeleteRange { key: &key, end },
            Command::Compact { revision: Revision(revision) },
        ];
        for command in commands {
            let mut bytes = Vec::new();
            encode_command(&mut bytes, command);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(decode_command(&mut reader), Ok(command));
            prop_assert!(reader.is_empty());
            for cut in [1, bytes.len() / 2, bytes.len() - 1] {
                prop_assert!(decode_command(&mut Reader::new(&bytes[..cut])).is_err());
            }
        }
    }

    #[test]
    fn numbers_and_lengths_come_back_as_they_were_written(number in any::<u64>(), cut in 0..64u32) {
        let number = number >> cut;
        let length = u32::try_from(number >> 32).unwrap();
        let mut bytes = Vec::new();
        msgpack::write_uint(&mut bytes, number);
        msgpack::write_array(&mut bytes, length);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.uint(), Ok(number));
        prop_assert_eq!(reader.array(), Ok(usize::try_from(length).unwrap()));
        prop_assert!(reader.is_empty());
    }
}
