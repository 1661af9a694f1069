//! What the core takes, the log must have room for: the two count an entry's overhead alike.

use super::sim_disk::SimDisk;
use super::support::Driver;
use raftd::raft::message::{EntryMeta, Message};
use raftd::raft::{Configuration, LogOp, Raft, Restored, Settings, Voters};
use raftd::types::{EntryKind, HardState, Instant, LogIndex, LogPosition, NodeId, Term, Vote};

/// A follower whose log holds `entries` entries of term 2, 1000 bytes each.
fn follower(entries: u64) -> Raft {
    let ids = [1, 2, 3].map(|id| NodeId::new(id).unwrap()).to_vec();
    let settings = Settings {
        id: NodeId::new(1).unwrap(),
        election_timeout_ns: 300_000_000,
        heartbeat_ns: 60_000_000,
        seed: 1,
        in_flight_messages_max: 64,
        in_flight_bytes_max: 1 << 20,
        append_bytes_max: 1 << 20,
        append_entries_max: 256,
        uncommitted_bytes_max: 1 << 20,
        lease_drift_ppm: None,
    };
    let restored = Restored {
        hard_state: HardState { term: Term::new(2), vote: Vote::None },

        base: LogPosition::ZERO,
        log: vec![(LogIndex::new(entries), Term::new(2))],
        sizes: vec![1000; usize::try_from(entries).unwrap()],
        commit_index: LogIndex::ZERO,
        configurations: vec![(
            LogIndex::new(1),
            Configuration::of_voters(Voters::new(ids).unwrap()),
        )],
    };
    Raft::new(settings, restored, Instant::ZERO)
}

/// The core counted 64 bytes an entry where a small segment needs 160: a message full of tiny
/// entries was taken whole and the append behind the last free byte ended the process.
#[test]
fn a_message_of_tiny_entries_is_taken_only_as_far_as_the_log_has_room() {
    for filled in 1..40 {
        let mut driver = Driver::open(&SimDisk::new(filled)).unwrap();
        for _ in 0..filled {
            if driver.wal.room_bytes() > 1160 {
                driver.append(2, 1000);
                driver.sync(0).unwrap();
            }
        }
        let last = driver.wal.last();
        let mut raft = follower(last.index.get());
        let tiny = EntryMeta { term: Term::new(2), kind: EntryKind::Commands, bytes: 8 };
        let message = Message::Append {
            term: Term::new(2),
            session: 1,
            round: 0,
            prev: last,
            entries: vec![tiny; 256],
            commit: LogIndex::ZERO,
        };
        let room = driver.wal.room_bytes();
        raft.step(Instant::ZERO, NodeId::new(2).unwrap(), &message, room);
        let mut index = last.index;
        for operation in std::mem::take(&mut raft.output().log_ops) {
            let LogOp::Accept { count, .. } = operation else { panic!("nothing conflicts") };
            for _ in 0..count {
                index = index.next();
                let position = LogPosition::new(Term::new(2), index);
                driver.wal.append(position, EntryKind::Commands, &[7; 8]);
            }
        }
        driver.sync(0).unwrap();
        assert_eq!(driver.wal.last(), raft.last());
    }
}
