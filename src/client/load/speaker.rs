//! How it is said to a server, and what it says back.

use std::error::Error;
use std::fmt;

use crate::limits::{HELLO_BYTES_MAX, REPLY_BYTES_MAX};
use crate::types::{ClusterId, Revision};
use crate::wire::client::{Consistency, RangeArgs, Selection, put_request, range_request};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::frame::next_frame;
use crate::wire::hello::{self, Hello, HelloReply, Sender, VERSION};
use crate::wire::reply::{ReplyBody, decode_reply};

use super::ledger::Found;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// To put a key.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// To read a key.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// To read keys in a row.
    Scan {
        /// The first.
        key: &'a [u8],
        /// The first key behind them, as ranges end.
        end: &'a [u8],
        /// At most so many.
        limit: u32,
    },
}

/// What was answered, borrowed, as far as a load asks.
#[derive(Debug)]
pub enum Answer<'a> {
    /// A put was done.
    Put {
        /// The revision it made; 0 if the store has none.
        revision: u64,
    },
    /// A key was read.
    Found(Found<'a>),
    /// The key is not there.
    Missing,
    /// Keys were read.
    Scanned {
        /// How many.
        keys: u64,
    },
    /// It was not done, or nobody knows.
    Refused(Refusal),
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another server leads.
    NotLeader {
        /// Where, if that is known.
        leader: Option<String>,
    },
    /// It was not done.
    NotDone {
        /// The server's words.
        why: String,
        /// It may be done if it is asked again.
        again: bool,
    },
    /// Nobody knows whether it was done.
    Unknown {
        /// The server's words.
        why: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotLeader { .. } => f.write_str("another server leads"),
            Refusal::NotDone { why, .. } | Refusal::Unknown { why } => f.write_str(why),
        }
    }
}

/// What a server said.
#[derive(Debug)]
pub enum Said<'a> {
    /// Requests may follow.
    Welcome,
    /// It will not speak with us.
    TurnedAway(String),
    /// A part of an answer; more follows.
    Part,
    /// An answer, or its last part.
    Answer {
        /// The number of the request.
        id: u64,
        /// What came of it.
        answer: Answer<'a>,
    },
}

/// A message, and how many bytes it took.
#[derive(Debug)]
pub struct Heard<'a> {
    /// Bytes of the message.
    pub consumed: usize,
    /// What it says.
    pub said: Said<'a>,
}

/// Whether requests may follow a greeting at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// They may.
    Over,
    /// `Said::Welcome` comes first.
    Awaited,
}

/// One side of one connection.
pub trait Speaker {
    /// Appends what a new connection begins with.
    fn greet(&mut self, out: &mut Vec<u8>) -> Greeting;

    /// Appends a request of this number.
    fn ask(&mut self, out: &mut Vec<u8>, id: u64, asked: Asked<'_>);

    /// The message at the front of `bytes`; `None` until all of it is there.
    fn hear<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<Option<Heard<'b>>, Box<dyn Error + Send + Sync>>;
}

/// raftd's protocol.
#[derive(Debug)]
pub struct RaftdSpeaker {
    consistency: Consistency,
    greeted: bool,
    /// Keys of the parts of scans that are not over: rarely more than one.
    parts: Vec<(u64, u64)>,
}

impl RaftdSpeaker {
    /// Reads are as fresh as this.
    pub fn new(consistency: Consistency) -> RaftdSpeaker {
        RaftdSpeaker { consistency, greeted: false, parts: Vec::new() }
    }

    fn take_parts(&mut self, id: u64) -> u64 {
        let at = self.parts.iter().position(|(of, _)| *of == id);
        at.map_or(0, |at| self.parts.swap_remove(at).1)
    }

    fn add_part(&mut self, id: u64, keys: u64) {
        match self.parts.iter_mut().find(|(of, _)| *of == id) {
            Some((_, sum)) => *sum += keys,
            None => self.parts.push((id, keys)),
        }
    }
}

impl Speaker for RaftdSpeaker {
    fn greet(&mut self, out: &mut Vec<u8>) -> Greeting {
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            cluster_id: ClusterId(0),
            sender: Sender::Client,
            auth: Vec::new(),
        };
        hello::encode_hello(out, &hello);
        self.greeted = false;
        self.parts.clear();
        Greeting::Awaited
    }

    fn ask(&mut self, out: &mut Vec<u8>, id: u64, asked: Asked<'_>) {
        let consistency = self.consistency;
        match asked {
            Asked::Put { key, value } => put_request(out, id, key, value),
            Asked::Get { key } => {
                range_request(out, id, &RangeArgs { consistency, ..RangeArgs::of_key(key) });
            }
            Asked::Scan { key, end, limit } => {
                let args = RangeArgs {
                    key,
                    end,
                    limit: limit.into(),
                    revision: Revision(0),
                    consistency,
                    keys_only: false,
                    count_only: false,
                    selection: Selection::ALL,
                };
                range_request(out, id, &args);
            }
        }
    }

    fn hear<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<Option<Heard<'b>>, Box<dyn Error + Send + Sync>> {
        let most = if self.greeted { REPLY_BYTES_MAX } else { HELLO_BYTES_MAX };
        let Some(frame) = next_frame(bytes, most)? else { return Ok(None) };
        let said = if self.greeted {
            self.read_answer(frame.body)?
        } else {
            match hello::decode_hello_reply(frame.body)? {
                HelloReply::Welcome(_) => {
                    self.greeted = true;
                    Said::Welcome
                }
                HelloReply::Refused(error) => Said::TurnedAway(error.to_string()),
            }
        };
        Ok(Some(Heard { consumed: frame.consumed, said }))
    }
}

impl RaftdSpeaker {
    fn read_answer<'b>(
        &mut self,
        body: &'b [u8],
    ) -> Result<Said<'b>, Box<dyn Error + Send + Sync>> {
        let reply = decode_reply(body)?;
        let id = reply.id;
        let answer = match reply.body {
            ReplyBody::Put { revision } => Answer::Put { revision: revision.0 },
            ReplyBody::Range(range) => {
                let keys = u64::try_from(range.len()).unwrap_or(u64::MAX);
                if range.goes_on {
                    self.add_part(id, keys);
                    return Ok(Said::Part);
                }
                let before = self.take_parts(id);
                match range.kvs().next() {
                    // A scan that finds a single key is told from a read by who asked.
                    Some(found) if before + keys == 1 => {
                        Answer::Found(Found { value: found.value, revision: found.mod_revision.0 })
                    }
                    None if before == 0 => Answer::Missing,
                    Some(_) | None => Answer::Scanned { keys: before + keys },
                }
            }
            ReplyBody::Error(error) => {
                self.take_parts(id);
                Answer::Refused(refusal_of(&error))
            }
            other @ (ReplyBody::DeleteRange { .. }
            | ReplyBody::OpenSession { .. }
            | ReplyBody::PutIf { .. }
            | ReplyBody::Compact { .. }
            | ReplyBody::PutWith { .. }
            | ReplyBody::DeleteRangeWith { .. }
            | ReplyBody::Txn { .. }
            | ReplyBody::LeaseTerm { .. }
            | ReplyBody::LeaseRevoke { .. }
            | ReplyBody::LeaseTimes(..)
            | ReplyBody::LeaseList(_)
            | ReplyBody::Status(_)
            | ReplyBody::Snapshot(_)
            | ReplyBody::Watch(_)
            | ReplyBody::WatchCancel { .. }
            | ReplyBody::WatchProgress { .. }
            | ReplyBody::Auth { .. }
            | ReplyBody::Login(_)
            | ReplyBody::LoginProof(_)
            | ReplyBody::AuthRead(_)
            | ReplyBody::MemberList(_)
            | ReplyBody::MemberChange { .. }
            | ReplyBody::Transfer { .. }) => {
                return Err(format!("an answer nobody asked for: {other:?}").into());
            }
        };
        Ok(Said::Answer { id, answer })
    }
}

fn refusal_of(error: &WireError) -> Refusal {
    if let WireError::NotLeader { .. } = error {
        let leader = error.leader_address().map(str::to_owned);
        return Refusal::NotLeader { leader };
    }
    let why = error.to_string();
    match error.advice() {
        Advice::AskAgain => Refusal::NotDone { why, again: true },
        Advice::GiveUp => Refusal::NotDone { why, again: false },
        Advice::Unknown => Refusal::Unknown { why },
    }
}
