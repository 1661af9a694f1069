//! One lie a test, next to the truth it is told from.

use super::checker::txns::{Compare, Done, Got, Operand, Relation, Request, Txn};
use super::checker::{Answer, Command, LeaseChange, RangeArgs, Row, Rule};
use super::story::{Story, compact, delete, put, range, row, rows};

#[test]
fn a_read_may_be_as_old_as_its_request_and_no_older() {
    let (one, two) = (put("a", "1"), put("a", "2"));
    let story = |call| {
        Story::of(&[one.clone(), two.clone()])
            .put(0, 10, &one, 2)
            .put(20, 30, &two, 3)
            .read(call, 40, range("a", ""), rows(2, &["a=1 2 2 1"]))
            .at_node(2, 1)
    };
    story(25).acquit();
    story(31).convict(Rule::RealTime);
}

#[test]
fn a_stale_read_of_another_key_is_stale() {
    let (one, two) = (put("a", "1"), put("b", "2"));
    Story::of(&[one.clone(), two.clone()])
        .put(0, 10, &one, 2)
        .put(20, 30, &two, 3)
        .read(40, 50, range("c", ""), rows(2, &[]))
        .at_node(2, 1)
        .convict(Rule::RealTime);
}

#[test]
fn a_lost_update_is_missed() {
    let (one, two) = (put("a", "1"), put("a", "2"));
    Story::of(std::slice::from_ref(&two))
        .put(0, 10, &one, 2)
        .put(20, 30, &two, 3)
        .convict(Rule::NoAckedWriteLost);
}

#[test]
fn a_value_that_nobody_wrote_is_a_phantom() {
    Story::of(&[put("a", "?")]).convict(Rule::NoPhantom);
    let one = put("a", "1");
    let seen = rows(2, &["a=? 2 2 1"]);
    let story = Story::of(std::slice::from_ref(&one)).put(0, 10, &one, 2);
    story.read(20, 30, range("a", ""), seen).convict(Rule::Answer);
}

#[test]
fn a_change_that_took_place_twice_is_one_too_many() {
    let one = put("a", "1");
    Story::of(&[one.clone(), one.clone()]).put(0, 10, &one, 2).convict(Rule::NoPhantom);
    Story::of(&[one.clone(), one.clone()]).unknown(0, &one).convict(Rule::NoPhantom);
    Story::of(&[one.clone(), one.clone()]).put(0, 10, &one, 2).unknown(11, &one).acquit();
}

#[test]
fn keys_go_with_their_lease_in_one_revision_and_with_no_other_grant_of_it() {
    let hang = |key: &str| {
        let (key, value) = (key.into(), b"v".to_vec());
        Command::Lease(LeaseChange::Hang { lease: 1, key, value })
    };
    let other = put("c", "1");
    let story = |grant| {
        Story::of(&[
            Command::Lease(LeaseChange::Grant { lease: 0 }),
            hang("a"),
            hang("b"),
            other.clone(),
            Command::Lease(LeaseChange::Expire { lease: 1, grant }),
        ])
        .put(0, 10, &other, 4)
    };
    let (all, rest) = (["a=v 2 2 1", "b=v 3 3 1", "c=1 4 4 1"], &["c=1 4 4 1"]);
    let seen = |rows_seen: &[&str]| {
        story(1).read(20, 30, range("a", "x"), rows(5, rows_seen)).node(5, 0, rest)
    };
    seen(rest).acquit();
    seen(&all[1..]).convict(Rule::Answer);
    story(1).node(6, 0, rest).convict(Rule::FinalState);
    story(1).node(5, 0, &all).convict(Rule::FinalState);
    story(2).node(4, 0, &all).acquit();
}

#[test]
fn two_changes_do_not_share_a_revision() {
    let one = put("a", "1");
    Story::of(&[one.clone(), one.clone()])
        .put(0, 10, &one, 2)
        .put(0, 10, &one, 2)
        .convict(Rule::RevisionUnique);
    let two = put("b", "2");
    Story::of(&[one.clone(), two.clone()])
        .put(0, 10, &one, 2)
        .put(0, 10, &two, 2)
        .convict(Rule::NoAckedWriteLost);
}

#[test]
fn what_was_refused_is_not_there() {
    let one = put("a", "1");
    Story::of(&[]).refused(0, 10, &one).acquit();
    Story::of(std::slice::from_ref(&one)).refused(0, 10, &one).convict(Rule::RefusedIsAbsent);
}

#[test]
fn an_unknown_change_may_be_there_or_not_but_not_before_it_was_asked_for() {
    let (one, two) = (put("a", "1"), put("b", "2"));
    let found = Story::of(std::slice::from_ref(&one)).unknown(0, &one).acquit();
    assert_eq!((found.unknown_done, found.unknown_dropped), (1, 0));
    let lost = Story::of(&[]).unknown(0, &one).acquit();
    assert_eq!((lost.unknown_done, lost.unknown_dropped), (0, 1));
    let story =
        |call| Story::of(&[one.clone(), two.clone()]).unknown(call, &one).put(0, 10, &two, 3);
    story(10).acquit();
    story(11).convict(Rule::RealTime);
}

#[test]
fn equal_unknown_changes_share_their_places() {
    let (gone, one, two) = (delete("a", ""), put("a", "1"), put("a", "2"));
    let log = [one.clone(), gone.clone(), two.clone(), gone.clone()];
    let story = Story::of(&log).put(0, 10, &one, 2).put(20, 30, &two, 4);
    let summary = story.unknown(40, &gone).unknown(5, &gone).unknown(50, &gone).acquit();
    assert_eq!((summary.unknown_done, summary.unknown_dropped), (2, 1));
    let story = Story::of(&log).put(0, 10, &one, 2).put(20, 30, &two, 4);
    story.unknown(40, &gone).unknown(50, &gone).convict(Rule::RealTime);
}

#[test]
fn a_change_is_later_than_whatever_was_over_before() {
    let (one, two) = (put("a", "1"), put("b", "2"));
    let story = |call| {
        Story::of(&[one.clone(), two.clone()])
            .put(call, 50, &one, 2)
            .put(10, 20, &two, 3)
            .at_node(2, 1)
    };
    story(20).acquit();
    story(21).convict(Rule::RealTime);
}

#[test]
fn every_field_of_a_row_is_read() {
    let log = [put("a", "1"), put("b", "2"), put("a", "3")];
    let story = |seen: &str| {
        Story::of(&log).put(0, 10, &log[0], 2).put(20, 30, &log[1], 3).put(40, 50, &log[2], 4).read(
            60,
            70,
            range("a", ""),
            rows(4, &[seen]),
        )
    };
    story("a=3 2 4 2").acquit();
    for lie in ["a=1 2 4 2", "a=3 4 4 2", "a=3 2 3 2", "a=3 2 4 1", "b=3 2 4 2"] {
        story(lie).convict(Rule::Answer);
    }
}

#[test]
fn count_more_limit_and_the_rows_fit_each_other() {
    let log = [put("a", "1"), put("b", "2"), put("c", "3")];
    let story = |args: RangeArgs, sent: &[&str], more: bool, count: u64| {
        let Answer::Range { rows, .. } = rows(0, sent) else { panic!("rows answers a range") };
        let story = Story::of(&log).put(0, 1, &log[0], 2).put(2, 3, &log[1], 3);
        let answer = Answer::Range { revision: 4, rows, more, count };
        story.put(4, 5, &log[2], 4).read(6, 7, args, answer)
    };
    let two = RangeArgs { limit: 2, ..range("a", "\0") };
    let sent = ["a=1 2 2 1", "b=2 3 3 1", "c=3 4 4 1"];
    story(two.clone(), &sent[..2], true, 3).acquit();
    story(two.clone(), &sent[..2], false, 3).convict(Rule::Answer);
    story(two.clone(), &sent[..2], true, 2).convict(Rule::Answer);
    story(two.clone(), &sent[..1], true, 3).convict(Rule::Answer);
    story(two.clone(), &sent, false, 3).convict(Rule::Answer);
    story(two.clone(), &sent[1..], true, 3).convict(Rule::Answer);
    let part = range("a", "c");
    story(part.clone(), &sent[..2], false, 2).acquit();
    story(part.clone(), &sent, false, 3).convict(Rule::Answer);
    story(part, &sent[..1], false, 1).convict(Rule::Answer);
    let counted = RangeArgs { count_only: true, ..two };
    story(counted.clone(), &[], false, 3).acquit();
    story(counted.clone(), &[], true, 3).convict(Rule::Answer);
    story(counted, &sent[..1], false, 3).convict(Rule::Answer);
    let names = RangeArgs { keys_only: true, ..range("b", "") };
    story(names.clone(), &["b= 3 3 1"], false, 1).acquit();
    story(names, &sent[1..2], false, 1).convict(Rule::Answer);
}

#[test]
fn a_delete_counts_what_it_deletes_and_a_new_key_starts_anew() {
    let log = [put("a", "1"), put("b", "2"), delete("a", "c"), put("a", "3"), delete("x", "")];
    let story = |deleted, idle_revision, seen: &str| {
        Story::of(&log)
            .put(0, 10, &log[0], 2)
            .put(0, 10, &log[1], 3)
            .delete((20, 30), &log[2], 4, deleted)
            .put(40, 50, &log[3], 5)
            .delete((60, 70), &log[4], idle_revision, 0)
            .read(80, 90, range("a", "\0"), rows(5, &[seen]))
    };
    story(2, 5, "a=3 5 5 1").acquit();
    story(1, 5, "a=3 5 5 1").convict(Rule::Answer);
    story(0, 5, "a=3 5 5 1").convict(Rule::NoAckedWriteLost);
    story(2, 4, "a=3 5 5 1").convict(Rule::NoAckedWriteLost);
    story(2, 5, "a=3 2 5 2").convict(Rule::Answer);
}

#[test]
fn a_nodes_own_state_may_be_old_but_does_not_go_back_while_it_runs() {
    let (one, two) = (put("a", "1"), put("a", "2"));
    let (old, new) = (rows(2, &["a=1 2 2 1"]), rows(3, &["a=2 2 3 2"]));
    let story = |node, boot| {
        Story::of(&[one.clone(), two.clone()])
            .put(0, 10, &one, 2)
            .put(20, 30, &two, 3)
            .look(40, 50, range("a", ""), new.clone())
            .at_node(3, 1)
            .look(60, 70, range("a", ""), old.clone())
            .at_node(node, boot)
    };
    let summary = story(2, 1).acquit();
    assert_eq!(summary.serializable, 2);
    story(3, 2).acquit();
    story(3, 1).convict(Rule::NodeMonotonic);
}

#[test]
fn a_read_by_a_lease_may_be_old_once_clocks_break_their_bound_and_is_still_one_that_there_was() {
    let (one, two) = (put("a", "1"), put("a", "2"));
    let story = |found: &str| {
        Story::of(&[one.clone(), two.clone()]).put(0, 10, &one, 2).put(20, 30, &two, 3).trust(
            40,
            50,
            range("a", ""),
            rows(2, &[found]),
        )
    };
    story("a=1 2 2 1").at_node(2, 1).acquit();
    story("a=2 2 2 1").at_node(2, 1).convict(Rule::Answer);
    let fresh = Story::of(&[one.clone(), two.clone()])
        .put(0, 10, &one, 2)
        .put(20, 30, &two, 3)
        .read(40, 50, range("a", ""), rows(2, &["a=1 2 2 1"]));
    fresh.at_node(2, 1).convict(Rule::RealTime);
}

#[test]
fn a_nodes_own_state_is_one_that_there_was() {
    let (one, two) = (put("a", "1"), put("b", "2"));
    let story = |answer| {
        Story::of(&[one.clone(), two.clone()])
            .put(0, 10, &one, 2)
            .put(0, 10, &two, 3)
            .look(20, 30, range("a", "\0"), answer)
            .at_node(2, 1)
    };
    story(rows(1, &[])).acquit();
    story(rows(2, &["a=1 2 2 1"])).acquit();
    story(rows(2, &["b=2 3 3 1"])).convict(Rule::Answer);
    story(rows(4, &["a=1 2 2 1", "b=2 3 3 1"])).convict(Rule::Answer);
}

#[test]
fn what_a_nodes_own_state_showed_is_there_for_everyone_after() {
    let one = put("a", "1");
    Story::of(std::slice::from_ref(&one))
        .unknown(0, &one)
        .look(10, 20, range("a", ""), rows(2, &["a=1 2 2 1"]))
        .read(30, 40, range("a", ""), rows(1, &[]))
        .at_node(2, 1)
        .convict(Rule::RealTime);
}

#[test]
fn an_earlier_revision_is_read_as_it_was_unless_it_is_compacted() {
    let log = [put("a", "1"), put("a", "2"), compact(3), put("a", "3")];
    let story = |revision, answer| {
        Story::of(&log).put(0, 10, &log[0], 2).put(20, 30, &log[1], 3).put(40, 50, &log[3], 4).read(
            25,
            70,
            RangeArgs { revision, ..range("a", "") },
            answer,
        )
    };
    story(2, rows(3, &["a=1 2 2 1"])).acquit();
    story(2, rows(4, &["a=1 2 2 1"])).convict(Rule::Compaction);
    story(3, rows(4, &["a=2 2 3 2"])).acquit();
    story(3, rows(4, &["a=3 2 4 3"])).convict(Rule::Answer);
    story(2, Answer::Compacted { compact_revision: 3 }).acquit();
    story(3, Answer::Compacted { compact_revision: 3 }).convict(Rule::Compaction);
    story(1, Answer::Compacted { compact_revision: 2 }).convict(Rule::Compaction);
    story(0, Answer::Compacted { compact_revision: 3 }).convict(Rule::Compaction);
    story(5, Answer::Future { revision: 4 }).acquit();
    story(4, Answer::Future { revision: 4 }).convict(Rule::Answer);
    story(9, Answer::Future { revision: 8 }).convict(Rule::Answer);
    story(4, Answer::Future { revision: 1 }).convict(Rule::RealTime);
    story(4, rows(3, &["a=3 2 4 3"])).convict(Rule::Answer);
}

#[test]
fn the_nodes_end_as_the_log_says() {
    let log = [put("a", "1"), put("b", "2"), compact(3), delete("b", "")];
    let story = || {
        let story = Story::of(&log).put(0, 10, &log[0], 2).put(0, 10, &log[1], 3);
        story.delete((20, 30), &log[3], 4, 1)
    };
    story().node(4, 3, &["a=1 2 2 1"]).acquit();
    story().node(3, 3, &["a=1 2 2 1"]).convict(Rule::FinalState);
    story().node(4, 2, &["a=1 2 2 1"]).convict(Rule::FinalState);
    story().node(4, 3, &[]).convict(Rule::FinalState);
    story().node(4, 3, &["a=1 2 2 2"]).convict(Rule::FinalState);
    story().node(4, 3, &["a=1 2 2 1", "b=2 3 3 1"]).convict(Rule::FinalState);
}

#[test]
fn an_answer_fits_its_question() {
    let one = put("a", "1");
    let story = Story::of(std::slice::from_ref(&one)).put(0, 10, &one, 2);
    story.read(20, 30, range("a", ""), Answer::Put { revision: 2 }).convict(Rule::WellFormed);
    let story = Story::of(std::slice::from_ref(&one));
    story.put(10, 10, &one, 2).convict(Rule::WellFormed);
}

/// Puts `a` and `b` if `a` is of a revision; else reads both.
fn both(of: u64, values: &str) -> Txn {
    let put = |key: &str| Request::Put { key: key.into(), value: values.into() };
    let (key, end) = (b"a".to_vec(), Vec::new());
    let compare = Compare { key, end, relation: Relation::Equal, operand: Operand::Mod(of) };
    let look = Request::Range { key: b"a".to_vec(), end: b"c".to_vec(), limit: 0 };
    let then = vec![put("a"), look.clone(), put("b")];
    Txn { compares: vec![compare.clone(), compare], then, otherwise: vec![look] }
}

fn got(succeeded: bool, results: Vec<Got>) -> Done {
    Done { succeeded, results }
}

fn saw(texts: &[&str]) -> Got {
    let rows: Vec<Row> = texts.iter().copied().map(row).collect();
    let count = rows.len().try_into().unwrap();
    Got::Range { rows, more: false, count }
}

#[test]
fn a_transaction_is_one_revision_and_reads_what_it_has_done() {
    let txn = both(0, "1");
    let was = |text: Option<&str>| Got::Put { before: text.map(row) };
    let story = |revision, results| {
        Story::of(&[Command::Txn(txn.clone())]).txn((0, 10), &txn, revision, got(true, results))
    };
    let whole = vec![was(None), saw(&["a=1 2 2 1"]), was(None)];
    story(2, whole.clone()).acquit();
    story(3, whole.clone()).convict(Rule::NoAckedWriteLost);
    story(2, vec![was(None), saw(&[]), was(None)]).convict(Rule::Answer);
    story(2, vec![was(None), saw(&["a=1 2 2 1", "b=1 2 2 1"]), was(None)]).convict(Rule::Answer);
    story(2, vec![was(None), saw(&["a=1 2 2 1"])]).convict(Rule::WellFormed);
    let half = rows(2, &["a=1 2 2 1"]);
    let all = rows(2, &["a=1 2 2 1", "b=1 2 2 1"]);
    story(2, whole.clone()).read(11, 12, range("a", "c"), all).acquit();
    story(2, whole.clone()).read(11, 12, range("a", "c"), half).convict(Rule::Answer);
    let twice = rows(3, &["a=1 2 2 1", "b=1 3 3 1"]);
    story(2, whole).read(11, 12, range("a", "c"), twice).convict(Rule::Answer);
}

#[test]
fn a_transaction_takes_the_branch_that_its_compares_say() {
    let (one, txn) = (put("a", "1"), both(0, "2"));
    let story = |done| {
        Story::of(&[one.clone(), Command::Txn(txn.clone())]).put(0, 10, &one, 2).txn(
            (20, 30),
            &txn,
            2,
            done,
        )
    };
    story(got(false, vec![saw(&["a=1 2 2 1"])])).acquit();
    story(got(false, vec![saw(&[])])).convict(Rule::Answer);
    let was = || Got::Put { before: None };
    story(got(true, vec![was(), saw(&["a=2 2 3 2"]), was()])).convict(Rule::NoAckedWriteLost);
}

#[test]
fn a_transaction_without_an_answer_took_place_as_a_whole_or_not_at_all() {
    let txn = both(0, "1");
    let log = [Command::Txn(txn.clone())];
    let none = range("a", "c");
    Story::of(&log).unknown(0, &log[0]).acquit();
    Story::of(&[]).unknown(0, &log[0]).read(5, 6, none.clone(), rows(1, &[])).acquit();
    let half = rows(2, &["a=1 2 2 1"]);
    Story::of(&log).unknown(0, &log[0]).read(5, 6, none, half).convict(Rule::Answer);
    Story::of(&[put("a", "1")]).unknown(0, &log[0]).convict(Rule::NoPhantom);
}
