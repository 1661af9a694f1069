//! What a watch says, and what gives away that it is not so: at once, or when the log is known.

use super::checker::Rule;
use super::checker::watches::{Event, Listener, Wish};
use super::story::{Story, compact, delete, put, row};

/// A change, and what was there before; `""`: nothing is said of it.
fn event(now: &str, before: &str) -> Event {
    Event { row: row(now), before: Some(before).filter(|it| !it.is_empty()).map(row) }
}

/// Of every key, with what was there before.
fn all() -> Wish {
    Wish { key: vec![0], end: vec![0], prev_kv: true, ..Wish::default() }
}

type Reply = (u64, bool, Vec<Event>);

/// Listens from a revision on; says what breaks a promise by itself.
fn listen(wish: Wish, start: u64, replies: &[Reply]) -> Result<Listener, String> {
    let mut listener = Listener::new(wish, start);
    for (revision, more, events) in replies.iter().cloned() {
        listener.hear(revision, more, events)?;
    }
    Ok(listener)
}

/// Two puts, a delete, a put of another key; and what was heard of it.
fn story(listener: Listener) -> Story {
    let log = [put("a", "1"), put("a", "2"), delete("a", ""), put("b", "3")];
    let story = Story::of(&log).put(0, 10, &log[0], 2).put(0, 10, &log[1], 3);
    story.delete((0, 10), &log[2], 4, 1).put(0, 10, &log[3], 5).heard(listener.heard)
}

fn whole() -> Vec<Event> {
    vec![
        event("a=1 2 2 1", ""),
        event("a=2 2 3 2", "a=1 2 2 1"),
        event("a= 0 4 0", "a=2 2 3 2"),
        event("b=3 5 5 1", ""),
    ]
}

fn judged(events: Vec<Event>) -> Story {
    story(listen(all(), 2, &[(1, false, vec![]), (5, false, events)]).unwrap())
}

#[test]
fn what_was_heard_is_what_happened() {
    judged(whole()).acquit();
    for nth in 0..4 {
        let mut without = whole();
        without.remove(nth);
        judged(without).convict(Rule::Watch);
        let mut twice = whole();
        twice.insert(nth, twice[nth].clone());
        judged(twice).convict(Rule::Watch);
    }
    let with = |nth: usize, other: Event| {
        let mut events = whole();
        events[nth] = other;
        judged(events)
    };
    with(1, event("a=9 2 3 2", "a=1 2 2 1")).convict(Rule::Watch);
    with(1, event("a=2 2 3 3", "a=1 2 2 1")).convict(Rule::Watch);
    with(1, event("a=2 2 3 2", "a=9 2 2 1")).convict(Rule::Watch);
    with(1, event("a=2 2 3 2", "")).convict(Rule::Watch);
    with(0, event("a=1 2 2 1", "a=0 1 1 1")).convict(Rule::Watch);
    with(3, event("c=3 5 5 1", "")).convict(Rule::Watch);
}

#[test]
fn a_wish_is_granted_and_no_more() {
    let one = Wish { key: b"b".to_vec(), end: Vec::new(), ..all() };
    let heard = |wish: &Wish, events: Vec<Event>| {
        story(listen(wish.clone(), 2, &[(1, false, vec![]), (5, false, events)]).unwrap())
    };
    heard(&one, vec![event("b=3 5 5 1", "")]).acquit();
    heard(&one, whole()).convict(Rule::Watch);
    let deletes = Wish { no_put: true, ..all() };
    heard(&deletes, vec![event("a= 0 4 0", "a=2 2 3 2")]).acquit();
    heard(&deletes, whole()).convict(Rule::Watch);
    let puts = Wish { no_delete: true, prev_kv: false, ..all() };
    let plain = |nth: usize| Event { before: None, ..whole()[nth].clone() };
    heard(&puts, vec![plain(0), plain(1), plain(3)]).acquit();
    heard(&puts, vec![plain(0), whole()[1].clone(), plain(3)]).convict(Rule::Watch);
}

#[test]
fn what_comes_late_twice_or_in_pieces_is_noticed_at_once() {
    let open = (1, false, vec![]);
    let fails = |replies: &[Reply]| listen(all(), 2, replies).is_err();
    let [one, two, gone, _] = <[Event; 4]>::try_from(whole()).unwrap();
    assert!(fails(&[(2, false, vec![one.clone()])]), "it does not say that it is open");
    assert!(fails(&[(2, false, vec![])]), "it begins too late");
    let first = (2, false, vec![one.clone()]);
    assert!(!fails(&[open.clone(), first.clone()]));
    assert!(fails(&[open.clone(), first.clone(), first.clone()]), "twice");
    assert!(fails(&[open.clone(), (3, false, vec![two.clone(), one.clone()])]), "out of order");
    assert!(fails(&[open.clone(), (3, false, vec![]), first.clone()]), "after it was denied");
    assert!(fails(&[open.clone(), (3, false, vec![]), (2, false, vec![])]), "back");
    assert!(fails(&[open.clone(), (2, false, vec![one.clone(), two.clone()])]), "a part");
    let part = (2, true, vec![one.clone(), two.clone()]);
    let rest = (3, false, vec![]);
    assert!(!fails(&[open.clone(), part.clone(), rest]));
    assert!(fails(&[open, part, (2, true, vec![gone])]), "two revisions in pieces");
}

#[test]
fn a_gap_needs_a_compaction() {
    let log = [put("a", "1"), put("a", "2"), compact(3), put("a", "3")];
    let told = |needed, compact_revision| {
        let story = Story::of(&log).put(0, 10, &log[0], 2).put(0, 10, &log[1], 3);
        story.put(0, 10, &log[3], 4).compacted(needed, compact_revision)
    };
    told(2, 3).acquit();
    told(3, 3).convict(Rule::Compaction);
    told(2, 4).convict(Rule::Compaction);
    let mut listener = listen(all(), 2, &[(1, false, vec![])]).unwrap();
    assert_eq!(listener.skip_to(3).up_to, 1);
    assert_eq!((listener.resume(), listener.heard.after), (3, 2));
}
