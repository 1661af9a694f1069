//! The rules of etcd's model that are easy to get wrong, one by one.

use std::ops::ControlFlow;

use raftd::kv::{CommandReply, RangeEnd, RangeError, RangeRequest};
use raftd::types::{LogIndex, Revision};

use super::sessions::{Item, apply_at, call};
use super::support::{apply, compact, delete, entry, everything, put, read, store_with};

#[test]
fn the_empty_store_has_revision_one_and_the_first_put_makes_two() {
    let mut store = store_with(1, 1 << 20);
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(apply(&mut store, &[put("a", "1")]), [CommandReply::Put { revision: Revision(2) }]);
}

#[test]
fn deleting_many_keys_makes_one_revision_and_deleting_none_makes_none() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("b", "2"), put("c", "3")]);
    let replies = apply(&mut store, &[delete("a", "c"), delete("a", "c"), delete("x", "")]);
    let reply = |deleted| CommandReply::DeleteRange { revision: Revision(5), deleted };
    assert_eq!(replies, [reply(2), reply(0), reply(0)]);
    assert_eq!(read(&store, &everything(0)).unwrap().0.len(), 1);
    assert_eq!(read(&store, &everything(4)).unwrap().0.len(), 3);
}

#[test]
fn the_version_starts_again_after_a_deletion() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("a", "2"), delete("a", ""), put("a", "3")]);
    let found = store.get(b"a").unwrap();
    assert_eq!((found.create_revision, found.mod_revision), (Revision(5), Revision(5)));
    assert_eq!(found.version, 1);
}

#[test]
fn the_compaction_revision_itself_stays_readable() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("a", "2"), put("a", "3"), compact(3)]);
    store.tidy(100);
    assert_eq!(read(&store, &everything(3)).unwrap().0[0].1, b"2");
    let compacted = RangeError::Compacted { compact_revision: Revision(3) };
    assert_eq!(read(&store, &everything(2)).unwrap_err(), compacted);
    assert_eq!(
        read(&store, &everything(5)).unwrap_err(),
        RangeError::Future { revision: Revision(4) }
    );
    let refused = Some(compacted);
    assert_eq!(
        apply(&mut store, &[compact(3)]),
        [CommandReply::Compact { revision: Revision(4), refused }]
    );
}

#[test]
fn a_compaction_frees_superseded_versions_and_forgotten_keys() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("a", "2"), delete("a", ""), put("b", "1"), compact(5)]);
    // The change at the compaction revision itself can still be watched.
    assert_eq!(store.history_bytes(), 24);
    assert_eq!(store.footprint().uncompacted, 3);
    store.tidy(100);
    assert_eq!(store.footprint().uncompacted, 0);
    assert_eq!(store.get(b"a"), None);
    apply(&mut store, &[put("a", "3")]);
    assert_eq!(store.get(b"a").unwrap().value, b"3");
}

#[test]
fn a_visitor_that_breaks_leaves_the_rest_out_but_all_are_counted() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("b", "2"), put("c", "3")]);
    let mut seen = Vec::new();
    let summary = store
        .range(&everything(0), &mut |found| {
            if found.key == b"b" {
                return ControlFlow::Break(());
            }
            seen.push(found.key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, [b"a"]);
    assert_eq!((summary.count, summary.more), (3, true));
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("b", "2")]);
    let request = RangeRequest { key: b"b", end: RangeEnd::Before(b"a"), ..everything(0) };
    let (rows, summary) = read(&store, &request).unwrap();
    assert_eq!((rows.len(), summary.count, summary.more), (0, 0, false));
}

#[test]
fn an_entry_of_another_version_or_with_a_damaged_command_is_an_error() {
    let mut store = store_with(1, 1 << 20);
    for payload in [&[][..], &[0x92, 2, 0], &[0x93, 1, 0, 0], &[0x92, 1, 0, 99, 0x90]] {
        let error =
            store.apply(super::support::at(LogIndex::new(1)), payload, &mut |_| ()).unwrap_err();
        assert_eq!(error.index, LogIndex::new(1), "{payload:?}");
        assert_eq!(error.to_string(), "cannot apply entry 1");
    }
}

#[test]
#[should_panic(expected = "in order")]
fn an_entry_out_of_order_panics() {
    let mut store = store_with(1, 1 << 20);
    store.apply_other(LogIndex::new(1));
    let _ = store.apply(super::support::at(LogIndex::new(3)), &entry(&[]), &mut |_| ());
}

#[test]
fn the_stamp_never_goes_back() {
    let mut store = store_with(1, 1 << 20);
    assert_eq!(store.stamp_ms(), 0);
    apply(&mut store, &[]);
    assert_eq!(store.stamp_ms(), 1_700_000_000_000);
    store.apply(super::support::at(LogIndex::new(2)), &[0x92, 1, 5], &mut |_| ()).unwrap();
    assert_eq!(store.stamp_ms(), 1_700_000_000_000);
    assert_eq!(store.applied(), LogIndex::new(2));
}

/// Its clients may have followed the old cluster beyond the state that it begins with.
#[test]
fn a_new_cluster_begins_above_all_that_the_old_one_can_have_said() {
    let mut store = store_with(1, 1 << 20);
    apply(&mut store, &[put("a", "1"), put("a", "2"), delete("a", ""), put("b", "1")]);
    let open = [Item::Open];
    let [CommandReply::OpenSession { session }] = apply_at(&mut store, 1, &open)[..] else {
        panic!("a session is opened");
    };
    store.begin_anew(1000);
    let begun = Revision(5 + 1000);
    assert_eq!((store.revision(), store.compact_revision()), (begun, begun));
    assert_eq!(store.history_bytes(), 0, "nothing of before can be watched or read");
    store.tidy(100);
    assert_eq!(store.footprint().uncompacted, 0);
    let compacted = RangeError::Compacted { compact_revision: begun };
    assert_eq!(read(&store, &everything(5)).unwrap_err(), compacted);
    assert_eq!(read(&store, &everything(0)).unwrap().0.len(), 1);
    let reply = CommandReply::Put { revision: begun.next() };
    assert_eq!(apply(&mut store, &[put("a", "3")]), [reply]);
    let late = call(session, 1, 0, put("b", "again"));
    assert_eq!(apply_at(&mut store, 1, &[late]), [CommandReply::SessionExpired]);
    let [CommandReply::OpenSession { session: next }] = apply_at(&mut store, 1, &open)[..] else {
        panic!("a session is opened");
    };
    assert!(next > session, "its number is not given again");
    let copy = super::checkpoint::reloaded(&mut store);
    assert_eq!(copy.state_hash(), store.state_hash());
}
