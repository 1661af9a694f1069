//! A watch as one thing: when the node that served it is gone, or says nothing for long, it goes on
//! at the next one, with the revision after the last that was handed out. protocol.md, Watch.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{ClusterId, Revision};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::reply::ReplyBody;
use crate::wire::watch::{WatchArgs, WatchReply};

use super::clock::{Deadline, back_off};
use super::cluster::{ClientOptions, HELLO_TIMEOUT_MAX, KeyValue};
use super::connection::Connection;
use super::error::{Attempt, ConnectionError, Error, Why};
use super::requests::own;

/// A node says at least so often that nothing happened.
const PROGRESS: Duration = Duration::from_secs(2);

/// A node that has said nothing for so long is cut off, or stopped in mid-air.
const SILENCE_MAX: Duration = Duration::from_secs(6);

/// What a watch is to hear of.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WatchOptions {
    /// The first key. Not empty.
    pub key: Vec<u8>,
    /// Where the range ends, in the wire's form.
    pub end: Vec<u8>,
    /// From this revision on; 0: from now on.
    pub start: Revision,
    /// With what was there before.
    pub prev_kv: bool,
    /// Not of puts.
    pub no_put: bool,
    /// Not of deletes.
    pub no_delete: bool,
}

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyEvent {
    /// The key as it was from then on; of a deleted one, its name and the revision.
    pub kv: KeyValue,
    /// The key before, if that was asked for, there was one, and it is not compacted.
    pub before: Option<KeyValue>,
}

impl KeyEvent {
    /// Whether the key was deleted.
    pub fn is_delete(&self) -> bool {
        self.kv.version == 0
    }
}

/// What a watch has heard: all events of some revisions, and none of others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchBatch {
    /// With this batch nothing up to this revision is missing.
    pub revision: Revision,
    /// In the order of their revisions; none: nothing has happened up to there.
    pub events: Vec<KeyEvent>,
}

/// A watch that outlives its connections. See [`Watch::next`].
#[derive(Debug)]
pub struct Watch {
    options: ClientOptions,
    wanted: WatchOptions,
    line: Option<Line>,
    /// Which endpoint is asked next.
    turn: usize,
    /// For how long we have listened in vain.
    waited: Duration,
    /// Events whose revision is not whole yet.
    part: Vec<KeyEvent>,
    /// The cluster that the revisions are of, once it is known.
    cluster_id: ClusterId,
    last_words: BTreeMap<String, Why>,
}

/// An open watch.
#[derive(Debug)]
struct Line {
    connection: Connection,
    id: u64,
}

/// What listening came to.
enum Word {
    Batch(WatchBatch),
    /// Something that is no batch yet.
    Part,
    /// Nothing, in the time that there was.
    Nothing,
    /// Another node may go on.
    Lost(Why),
    Over(Error),
}

impl Watch {
    /// A watch at the first of the endpoints that serves it. Connects with the first `next`. Panics
    /// without endpoints.
    pub fn new(options: ClientOptions, wanted: WatchOptions) -> Watch {
        assert!(!options.endpoints.is_empty(), "a watch needs an endpoint");
        Watch {
            cluster_id: options.cluster_id,
            options,
            wanted,
            line: None,
            turn: 0,
            waited: Duration::ZERO,
            part: Vec::new(),
            last_words: BTreeMap::new(),
        }
    }

    /// What has happened since the last call. The first batch says, without events, from where on
    /// the watch hears. `None`: nothing until the deadline; call again. An error is the watch's
    /// end: most often `Compacted`, if it asks for a revision that is not there any more.
    pub fn next(&mut self, deadline: Deadline) -> Result<Option<WatchBatch>, Error> {
        loop {
            let Some(mut line) = self.line.take() else {
                if let Err(attempt) = self.open(deadline) {
                    if let Why::Connection(why) = &attempt.why
                        && let Some((endpoint, source)) = why.login_refusal()
                    {
                        return Err(Error::Refused { endpoint, source });
                    }
                    self.last_words.insert(attempt.endpoint, attempt.why);
                    self.rest(deadline);
                }
                if self.line.is_none() && deadline.has_passed() {
                    return Ok(None);
                }
                continue;
            };
            match self.listen(&mut line, deadline) {
                Word::Batch(batch) => {
                    self.line = Some(line);
                    return Ok(Some(batch));
                }
                Word::Part => self.line = Some(line),
                Word::Nothing => {
                    self.line = Some(line);
                    return Ok(None);
                }
                Word::Lost(why) => {
                    self.part.clear();
                    self.last_words.insert(line.connection.endpoint().to_owned(), why);
                    self.rest(deadline);
                }
                Word::Over(error) => return Err(error),
            }
        }
    }

    /// Once all have been asked, also those who answer and refuse: they have enough to do.
    fn rest(&self, deadline: Deadline) {
        if self.turn.is_multiple_of(self.options.endpoints.len()) {
            back_off(deadline);
        }
    }

    /// Why `next` has had nothing for so long: what every endpoint that did not serve said last.
    pub fn unavailable(&mut self, within: Duration) -> Error {
        let attempts = std::mem::take(&mut self.last_words).into_iter();
        let attempts = attempts.map(|(endpoint, why)| Attempt { endpoint, why }).collect();
        Error::Unavailable { within, attempts }
    }

    /// Asks the next endpoint.
    fn open(&mut self, deadline: Deadline) -> Result<(), Attempt> {
        let endpoint = &self.options.endpoints[self.turn % self.options.endpoints.len()];
        self.turn += 1;
        let failed = |why| Attempt { endpoint: endpoint.clone(), why: Why::Connection(why) };
        let patience = deadline.at_most(HELLO_TIMEOUT_MAX);
        let login = self.options.login.as_ref();
        let opened = Connection::open_as(endpoint, self.cluster_id, login, patience);
        let mut connection = opened.map_err(failed)?;
        let WatchOptions { key, end, start, prev_kv, no_put, no_delete } = &self.wanted;
        let id = connection.watch(&WatchArgs {
            key,
            end,
            start: *start,
            prev_kv: *prev_kv,
            no_put: *no_put,
            no_delete: *no_delete,
            progress_ms: u64::try_from(PROGRESS.as_millis()).unwrap_or(u64::MAX),
        });
        connection.flush(patience).map_err(failed)?;
        // What a revision means is known in this cluster and in no other.
        self.cluster_id = connection.welcome().cluster_id;
        self.waited = Duration::ZERO;
        self.line = Some(Line { connection, id });
        Ok(())
    }

    fn listen(&mut self, line: &mut Line, deadline: Deadline) -> Word {
        let silent_for = SILENCE_MAX.saturating_sub(self.waited);
        let patience = deadline.remaining().unwrap_or_default().min(silent_for);
        let endpoint = line.connection.endpoint().to_owned();
        let reply = match line.connection.receive(Deadline::after(patience)) {
            Ok(reply) => reply,
            Err(why @ ConnectionError::TimedOut { .. }) => {
                self.waited += patience;
                let gone = self.waited >= SILENCE_MAX;
                return if gone { Word::Lost(Why::Connection(why)) } else { Word::Nothing };
            }
            Err(why) => return Word::Lost(Why::Connection(why)),
        };
        self.waited = Duration::ZERO;
        let unasked = |endpoint| {
            Word::Lost(Why::Connection(ConnectionError::Reply { endpoint, source: None }))
        };
        if reply.id != line.id {
            return unasked(endpoint);
        }
        if let ReplyBody::Watch(heard) = reply.body {
            return self.take(&heard);
        }
        let ReplyBody::Error(source) = reply.body else { return unasked(endpoint) };
        // Who was removed knows no better than who has stopped: the others go on.
        if matches!(source, WireError::Removed { .. }) || self.options.must_log_in(&source) {
            return Word::Lost(Why::Answer(source));
        }
        match source.advice() {
            Advice::AskAgain | Advice::Unknown => Word::Lost(Why::Answer(source)),
            Advice::GiveUp => Word::Over(Error::Refused { endpoint, source }),
        }
    }

    fn take(&mut self, heard: &WatchReply<'_>) -> Word {
        self.part.extend(
            heard
                .events()
                .map(|event| KeyEvent { kv: own(event.kv), before: event.before.map(own) }),
        );
        if heard.more {
            return Word::Part;
        }
        // A node that lags says how far it is itself, when we ask it to go on.
        let next = heard.revision.next().max(self.wanted.start);
        self.wanted.start = next;
        self.last_words.clear();
        Word::Batch(WatchBatch {
            revision: Revision(next.0 - 1),
            events: std::mem::take(&mut self.part),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::next_frame;
    use crate::wire::reply::decode_reply;
    use crate::wire::watch::{WatchHead, watch_reply};

    /// Or what was handed out would come again when another node goes on.
    #[test]
    fn the_next_revision_that_is_asked_for_is_behind_all_that_were_handed_out() {
        let endpoints = vec!["sim:1".to_owned()];
        let timeout = Duration::from_secs(1);
        let options = ClientOptions { endpoints, timeout, cluster_id: ClusterId(0), login: None };
        let wanted = WatchOptions { start: Revision(4), ..WatchOptions::default() };
        let mut watch = Watch::new(options, wanted);
        // A node that lags has heard less than what is asked for, and than what another said.
        for (said, handed_out) in [(2, 3), (7, 7), (5, 7), (8, 8)] {
            let mut bytes = Vec::new();
            let head = WatchHead { revision: Revision(said), more: false };
            watch_reply(&mut bytes, 1, head, [].into_iter());
            let frame = next_frame(&bytes, usize::MAX >> 1).unwrap().unwrap();
            let ReplyBody::Watch(reply) = decode_reply(frame.body).unwrap().body else {
                panic!("it is the reply to a watch");
            };
            let Word::Batch(batch) = watch.take(&reply) else { panic!("the batch is whole") };
            assert_eq!(batch.revision, Revision(handed_out), "after {said}");
            assert_eq!(watch.wanted.start, Revision(handed_out + 1), "after {said}");
        }
    }
}
