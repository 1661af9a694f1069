//! The store as a file: one request, many replies.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::types::SnapshotId;
use crate::wire::error::Advice;
use crate::wire::reply::{ReplyBody, SnapshotPiece};

use super::clock::{Deadline, back_off};
use super::cluster::Client;
use super::connection::Connection;
use super::error::{Attempt, ConnectionError, Error, Why};

/// Attempts that broke off after something had come, after which we give up.
const BROKEN_MAX: usize = 5;

/// Whether the one who is handed pieces wants more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goes {
    /// It does.
    On,
    /// It has had enough: it cannot store them, say.
    Nowhere,
}

/// What comes while a snapshot is saved.
#[derive(Debug)]
pub enum Piece<'a> {
    /// The node is making one.
    NotYet {
        /// Which node.
        endpoint: &'a str,
    },
    /// Bytes that follow those before; at offset 0 the file begins, perhaps anew.
    Bytes(SnapshotPiece<'a>),
}

/// How one attempt ended.
enum End {
    Whole(SnapshotId),
    Unwanted,
    /// In vain, before anything came or after a word or a piece.
    Broke {
        heard: bool,
        attempt: Attempt,
    },
    Refused(Error),
}

impl Client {
    /// Hands the file of a snapshot to `take`, piece by piece: the store with every write that was
    /// acknowledged before. Any node serves. The timeout is how long nobody may say anything: it
    /// begins anew with each word and piece, so that others are asked when a node falls silent that
    /// was at it for long. `None`: `take` did not want more.
    pub fn snapshot(
        &mut self,
        take: &mut dyn FnMut(Piece<'_>) -> Goes,
    ) -> Result<Option<SnapshotId>, Error> {
        let options = self.options().clone();
        let mut last_words = BTreeMap::new();
        let mut broken = 0;
        let mut deadline = self.deadline();
        for turn in 0.. {
            let endpoint = &options.endpoints[turn % options.endpoints.len()];
            let patience = deadline.at_most(options.timeout);
            let (cluster_id, login) = (options.cluster_id, options.login.as_ref());
            let ended = match Connection::open_as(endpoint, cluster_id, login, patience) {
                Ok(connection) => receive(connection, &mut || self.deadline(), take),
                Err(why) => match why.login_refusal() {
                    Some((endpoint, source)) => End::Refused(Error::Refused { endpoint, source }),
                    None => {
                        let (endpoint, why) = (endpoint.clone(), Why::Connection(why));
                        End::Broke { heard: false, attempt: Attempt { endpoint, why } }
                    }
                },
            };
            match ended {
                End::Whole(id) => return Ok(Some(id)),
                End::Unwanted => return Ok(None),
                End::Refused(error) => return Err(error),
                End::Broke { heard, attempt } => {
                    // The time that was up tells less than what was heard before.
                    let timed_out =
                        matches!(attempt.why, Why::Connection(ConnectionError::TimedOut { .. }));
                    match last_words.entry(attempt.endpoint) {
                        Entry::Occupied(_) if timed_out => {}
                        Entry::Occupied(mut word) => *word.get_mut() = attempt.why,
                        Entry::Vacant(word) => {
                            word.insert(attempt.why);
                        }
                    }
                    if heard {
                        broken += 1;
                        deadline = self.deadline();
                    }
                }
            }
            if deadline.has_passed() || broken > BROKEN_MAX {
                break;
            }
            if (turn + 1) % options.endpoints.len() == 0 {
                back_off(deadline);
            }
        }
        let attempts = last_words.into_iter();
        let attempts = attempts.map(|(endpoint, why)| Attempt { endpoint, why }).collect();
        Err(Error::Unavailable { within: options.timeout, attempts })
    }
}

/// Asks one node, and hands on what comes until the file is whole.
fn receive(
    mut connection: Connection,
    patience: &mut dyn FnMut() -> Deadline,
    take: &mut dyn FnMut(Piece<'_>) -> Goes,
) -> End {
    let endpoint = connection.endpoint().to_owned();
    let (mut expected, mut heard) = (0, false);
    let broke = |heard, why| {
        let attempt = Attempt { endpoint: endpoint.clone(), why };
        End::Broke { heard, attempt }
    };
    let unasked =
        || Why::Connection(ConnectionError::Reply { endpoint: endpoint.clone(), source: None });
    let id = connection.snapshot();
    if let Err(why) = connection.flush(patience()) {
        return broke(heard, Why::Connection(why));
    }
    loop {
        let reply = match connection.receive(patience()) {
            Ok(reply) => reply,
            Err(why) => return broke(heard, Why::Connection(why)),
        };
        if let ReplyBody::Error(source) = reply.body {
            return match source.advice() {
                Advice::AskAgain => broke(heard, Why::Answer(source)),
                Advice::GiveUp | Advice::Unknown => {
                    End::Refused(Error::Refused { endpoint, source })
                }
            };
        }
        let (true, ReplyBody::Snapshot(piece)) = (reply.id == id, reply.body) else {
            return broke(heard, unasked());
        };
        heard = true;
        let goes = if piece.snapshot == SnapshotId::default() {
            take(Piece::NotYet { endpoint: &endpoint })
        } else if piece.offset == expected {
            expected += u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX);
            take(Piece::Bytes(piece))
        } else {
            return broke(heard, unasked());
        };
        match goes {
            Goes::Nowhere => return End::Unwanted,
            Goes::On if expected > 0 && expected >= piece.snapshot.bytes => {
                return End::Whole(piece.snapshot);
            }
            Goes::On => {}
        }
    }
}
