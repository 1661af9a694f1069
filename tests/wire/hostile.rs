//! Bytes that nobody should send, through every decoder: none panics, and none makes more of a
//! message than its bytes are worth.

use proptest::prelude::*;
use raftd::codec::msgpack::Reader;
use raftd::wire::fields::skip;
use raftd::wire::frame::next_frame;
use raftd::wire::peer;

use super::samples::{Kind, Sample, body_of, decode_and_encode, samples};

const KINDS: [Kind; 6] =
    [Kind::Hello, Kind::Welcome, Kind::Request, Kind::Reply, Kind::Peer, Kind::Entry];

/// Whatever is accepted must say the same again when it is written and read again.
fn is_harmless(body: &[u8]) {
    for kind in KINDS {
        let Ok(once) = decode_and_encode(kind, body) else { continue };
        let twice = decode_and_encode(kind, body_of(kind, &once));
        assert_eq!(twice.as_deref(), Ok(&once[..]), "{kind:?} {body:02x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_harmless(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        is_harmless(&body);
    }

    #[test]
    fn arbitrary_streams_have_frames_or_an_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        max in 0_usize..1000,
    ) {
        if let Ok(Some(frame)) = next_frame(&bytes, max) {
            prop_assert!(!frame.body.is_empty());
            prop_assert!(frame.body.len() <= max);
            prop_assert_eq!(frame.consumed, frame.body.len() + 4);
        }
    }

    #[test]
    fn damaged_messages_are_harmless(
        which in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let samples = samples();
        let Sample { kind, bytes, .. } = &samples[which.index(samples.len())];
        let mut body = body_of(*kind, bytes).to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        is_harmless(&body);
        body.truncate(cut.index(body.len()));
        is_harmless(&body);
    }
}

#[test]
fn every_byte_of_every_message_may_be_anything() {
    for Sample { kind, bytes, .. } in samples() {
        let body = body_of(kind, &bytes);
        for at in 0..body.len() {
            for byte in [0x00, 0x7f, 0x80, 0x90, 0xc0, 0xc1, 0xc6, 0xc9, 0xdb, 0xdd, 0xdf, 0xff] {
                let mut damaged = body.to_vec();
                damaged[at] = byte;
                is_harmless(&damaged);
            }
        }
    }
}

#[test]
fn depth_costs_the_sender_bytes_and_us_nothing() {
    // An args array that is one array in another, a million deep.
    let mut deep = vec![0x93, 0x01, 17];
    deep.extend(std::iter::repeat_n(0x91, 1_000_000));
    deep.push(0xc0);
    is_harmless(&deep);
    let mut reader = Reader::new(&deep);
    assert!(skip(&mut reader).is_ok());
    assert!(reader.is_empty());
    // The same in the messages that serde reads.
    for head in [vec![0x93, 0x00, 32], vec![0x93, 0x00, 17]] {
        is_harmless(&[head, deep.clone()].concat());
    }
}

/// A field of a version to come may be of any type that MessagePack has: what stands behind it is
/// read next.
#[test]
fn a_value_of_any_type_is_passed_over_to_its_last_byte() {
    // How it begins, and how many bytes follow.
    let table: [(&[u8], usize); 37] = [
        (&[0x05], 0),
        (&[0xe0], 0),
        (&[0xc0], 0),
        (&[0xc2], 0),
        (&[0xc3], 0),
        (&[0x82, 1, 2, 3, 4], 0),
        (&[0x93, 1, 0xc0, 3], 0),
        (&[0xa3], 3),
        (&[0xc4, 3], 3),
        (&[0xc5, 0, 3], 3),
        (&[0xc6, 0, 0, 0, 3], 3),
        (&[0xc7, 3, 7], 3),
        (&[0xc8, 0, 3, 7], 3),
        (&[0xc9, 0, 0, 0, 3, 7], 3),
        (&[0xca], 4),
        (&[0xcb], 8),
        (&[0xcc], 1),
        (&[0xcd], 2),
        (&[0xce], 4),
        (&[0xcf], 8),
        (&[0xd0], 1),
        (&[0xd1], 2),
        (&[0xd2], 4),
        (&[0xd3], 8),
        (&[0xd4, 7], 1),
        (&[0xd5, 7], 2),
        (&[0xd6, 7], 4),
        (&[0xd7, 7], 8),
        (&[0xd8, 7], 16),
        (&[0xd9, 3], 3),
        (&[0xda, 0, 3], 3),
        (&[0xdb, 0, 0, 0, 3], 3),
        (&[0xdc, 0, 2, 1, 2], 0),
        (&[0xdd, 0, 0, 0, 2, 1, 2], 0),
        (&[0xde, 0, 1, 1, 2], 0),
        (&[0xdf, 0, 0, 0, 1, 1, 2], 0),
        (&[0x91, 0xd4, 7, 1], 0),
    ];
    for (head, follow) in table {
        // None of them would be a value of one byte.
        let bytes = [head, &vec![0xc1; follow], &[42]].concat();
        let mut reader = Reader::new(&bytes);
        skip(&mut reader).unwrap_or_else(|error| panic!("{head:02x?}: {error}"));
        assert_eq!(reader.rest(), [42], "{head:02x?}");
        assert!(skip(&mut Reader::new(&bytes[..head.len() + follow - 1])).is_err(), "{head:02x?}");
    }
}

#[test]
fn announced_lengths_make_no_room() {
    // Arrays, maps, strings and bytes of 4 GiB where args, entries, kvs and members begin.
    for marker in [0xdd, 0xdf, 0xdb, 0xc6, 0xc9] {
        for Sample { kind, bytes, .. } in samples() {
            let body = body_of(kind, &bytes);
            for at in 0..body.len() {
                let mut damaged = body[..at].to_vec();
                damaged.extend_from_slice(&[marker, 0xff, 0xff, 0xff, 0xff]);
                is_harmless(&damaged);
                damaged.extend_from_slice(&body[at..]);
                is_harmless(&damaged);
            }
        }
    }
    // More entries than there may be, announced and there.
    let mut many = vec![0x92, 5, 0x97, 7, 1, 1, 0, 0, 0, 0xdd, 0, 0, 2, 1];
    many.extend(std::iter::repeat_n([0x94, 7, 2, 0, 0xc4, 0], 513).flatten());
    assert!(peer::decode_peer(&many, peer::Room::default()).is_err());
    many[13] = 0;
    many.truncate(many.len() - 6);
    assert_eq!(peer::decode_peer(&many, peer::Room::default()).unwrap().payloads.len(), 512);
}
