//! What the owner of the record hears of snapshots.

use super::snapshot_file::SnapshotCheck;
use crate::types::{NodeId, SnapshotId};

/// What became of a job for a snapshot.
#[derive(Debug)]
pub enum SnapshotEvent {
    /// A block of ours is on the disk: there is room for more.
    DraftStored,
    /// Our snapshot is in place and whole: `adopt_draft` puts it in force.
    DraftReady {
        /// Its name.
        id: SnapshotId,
    },
    /// Our snapshot cannot be written; it is given up.
    DraftFailed {
        /// Why.
        why: String,
    },
    /// Everything before `offset` of a snapshot that is being received is durable.
    PartStored {
        /// Its name.
        id: SnapshotId,
        /// Bytes.
        offset: u64,
    },
    /// Blocks of it can be taken.
    PartRead {
        /// Its name.
        id: SnapshotId,
    },
    /// It is in place: it can be installed.
    PartReady {
        /// Its name.
        id: SnapshotId,
    },
    /// It is damaged, or cannot be stored; it is given up.
    PartFailed {
        /// Its name.
        id: SnapshotId,
        /// Why.
        why: String,
    },
    /// A piece of ours.
    Piece {
        /// For whom.
        to: PieceFor,
        /// What was read.
        piece: Piece,
    },
}

/// Who asks for a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceFor {
    /// Another server.
    Member(NodeId),
    /// A client, by the caller's number for it.
    Client(u64),
}

/// A piece of a snapshot's file.
#[derive(Debug)]
pub struct Piece {
    /// Of which snapshot.
    pub id: SnapshotId,
    /// Where in the file it begins. Bytes.
    pub offset: u64,
    /// The piece; nothing if it could not be read.
    pub bytes: Vec<u8>,
    /// What the caller gave along, with this piece looked at too.
    pub check: Option<SnapshotCheck>,
}
