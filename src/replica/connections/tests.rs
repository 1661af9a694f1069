//! Clients that read too little, and those whom they keep waiting.

use super::*;

#[test]
fn who_does_not_read_makes_room_for_those_whose_events_wait() {
    let mut connections = Connections::default();
    let id = |slot| ConnectionId::new(slot, 1);
    let (quick, fill) = (id(0), 100 * 1024);
    connections.open(quick, Party::Client);
    let mut slow = Vec::new();
    while connections.has_room_for_large() {
        slow.push(id(u32::try_from(slow.len() + 1).expect("some hundreds")));
        connections.open(slow[slow.len() - 1], Party::Client);
        connections.write(slow[slow.len() - 1], |out| out.resize(fill, 0));
    }
    assert!(connections.takes_events(quick));
    assert!(slow.iter().all(|id| !connections.takes_events(*id)));
    let (begin, end) = (Instant::from_ns(0), Instant::from_ns(PACE_NS));
    let mut closing = Vec::new();
    connections.cut_off_slow(begin);
    connections.cut_off_slow(end);
    connections.take_closing(&mut closing);
    assert!(closing.is_empty(), "they are in nobody's way");
    connections.events_wait = true;
    connections.cut_off_slow(begin);
    // One of them reads, if not much at a time.
    connections.sent(slow[0], fill - 1);
    connections.cut_off_slow(end);
    connections.take_closing(&mut closing);
    assert_eq!(closing, slow[1..]);
    assert!(connections.has_room_for_large());
}

#[test]
fn who_does_not_read_what_it_asked_for_holds_no_reads_of_others_back() {
    let mut connections = Connections::default();
    let id = |slot| ConnectionId::new(slot, 1);
    let (reads, stuck) = (id(0), id(1));
    for id in [reads, stuck] {
        connections.open(id, Party::Client);
        connections.write(id, |out| out.resize(2 * 64 * 1024, 0));
    }
    let (begin, end) = (Instant::from_ns(0), Instant::from_ns(PACE_NS));
    let mut closing = Vec::new();
    for bytes in [0, DEFERRED_BYTES_BELOW] {
        let args = vec![0; bytes];
        let deferred = Deferred { request: 1, op: Op::Range, asker: Asker::NOBODY, args };
        connections.defer(stuck, deferred);
        connections.cut_off_slow(begin);
        connections.sent(reads, 64 * 1024);
        connections.cut_off_slow(end);
        connections.take_closing(&mut closing);
        let expected = if bytes == 0 { Vec::new() } else { vec![stuck] };
        assert_eq!(closing, expected, "{bytes} bytes of reads are held back");
    }
}

/// None of them has more than its share, and together they would have more than there is.
#[test]
fn who_does_not_read_is_closed_when_all_together_leave_too_much_unread() {
    let mut connections = Connections::default();
    let id = |slot| ConnectionId::new(slot, 1);
    let share = limits::CONNECTION_OUT_HIGH_WATER;
    let (mut slot, mut closing) = (0, Vec::new());
    while closing.is_empty() {
        slot += 1;
        connections.open(id(slot), Party::Client);
        connections.write(id(slot), |out| out.resize(share, 0));
        connections.take_closing(&mut closing);
        assert!(connections.client_out_bytes <= limits::CLIENT_OUT_BYTES_MAX, "{slot} clients");
    }
    assert_eq!(closing, [id(slot)], "whoever came last");
    assert_eq!(connections.client_out_bytes, limits::CLIENT_OUT_BYTES_MAX);
    // Who has next to nothing unread is answered all the same.
    let modest = id(slot + 1);
    connections.open(modest, Party::Client);
    connections.write(modest, |out| out.resize(limits::CLIENT_OUT_FLOOR, 0));
    assert_eq!(connections.unsent(modest).len(), limits::CLIENT_OUT_FLOOR);
}

/// Nothing is sent within a turn. Sixty clients who read everything had asked for three hundred
/// values each, and the last of them were closed as if they did not read.
#[test]
fn whoever_reads_is_not_closed_for_what_one_turn_answers_to_all() {
    let mut connections = Connections::default();
    let ids: Vec<ConnectionId> = (0..400).map(|slot| ConnectionId::new(slot, 1)).collect();
    ids.iter().for_each(|id| connections.open(*id, Party::Client));
    let mut left = vec![300; ids.len()];
    let mut turns = 0;
    while left.iter().any(|left| *left > 0) {
        for (id, left) in ids.iter().zip(&mut left) {
            while *left > 0
                && connections.answer_if_read(*id, |out| {
                    out.resize(out.len() + 1_100, 0);
                    Written::Whole
                }) == Written::Whole
            {
                *left -= 1;
            }
        }
        let mut closing = Vec::new();
        connections.take_closing(&mut closing);
        assert_eq!(closing, [], "they read everything");
        for id in &ids {
            connections.sent(*id, connections.get(*id).expect("it is open").out.unsent_bytes());
        }
        turns += 1;
        assert!(turns < 300, "{left:?}");
    }
}
