//! A cluster as one thing: find who can do a request, repeat what is safe, say what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::REQUEST_BYTES_MAX;
use crate::types::{ClusterId, Revision};
use crate::wire::auth::Denial;
use crate::wire::client::{Command, RangeArgs, RangeEnd};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::reply::ReplyBody;
use crate::wire::status::Status;

use super::clock::{Deadline, back_off};
use super::connection::Connection;
use super::error::{Attempt, ConnectionError, Error, Why};
use super::login::Login;
use super::session::Sessions;

/// One attempt to say hello takes at least and at most this, by the timeout's share of an endpoint:
/// a node that was stopped in mid-air takes connections and answers nothing, and there must be time
/// for the others.
const HELLO_TIMEOUT_MIN: Duration = Duration::from_millis(500);
pub(super) const HELLO_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// Redirects followed at once; after that two nodes probably name each other, and we wait as well.
const REDIRECTS_AT_ONCE: usize = 3;

/// So many leaders are remembered that the options do not name.
const LEARNED_MAX: usize = 8;

/// Largest key and value together, or both ends of a range: what a request may have, less 64 bytes
/// for the op, the call of a session, the lengths of two strings and a revision. Bytes.
pub const CONTENT_BYTES_MAX: usize = REQUEST_BYTES_MAX - 64;

/// How to reach a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// Where its nodes take clients, as host:port. One is enough: redirects name the leader.
    pub endpoints: Vec<String>,
    /// How long one call may take.
    pub timeout: Duration,
    /// The cluster it must be; 0 is any.
    pub cluster_id: ClusterId,
    /// As whom it logs in, if rights count there.
    pub login: Option<Login>,
}

impl ClientOptions {
    /// Whether an answer says that the login was of a time before, and another one may help.
    pub(super) fn must_log_in(&self, error: &WireError) -> bool {
        let stale = WireError::Denied { why: Denial::LoginEnded };
        let before = WireError::Denied { why: Denial::NoUser };
        self.login.is_some() && (*error == stale || *error == before)
    }
}

/// A client of a cluster. One request at a time; see `Connection` for more.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    pub(super) connection: Option<Connection>,
    /// Leaders that were named and are no endpoints, the latest last: when all endpoints have left
    /// the cluster, they lead back to it.
    learned: Vec<String>,
    /// Which endpoint, or learned one behind them, is asked next when nobody has named the leader.
    turn: usize,
    pub(super) sessions: Sessions,
    repeated: u64,
}

/// A key and all about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    /// Its name.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of the put that created it.
    pub create_revision: Revision,
    /// The revision of the last put.
    pub mod_revision: Revision,
    /// How many puts since its creation, that one included.
    pub version: u64,
    /// The lease it hangs on; 0 is none.
    pub lease: u64,
}

/// What a range read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The store's revision when the read began.
    pub revision: Revision,
    /// The keys, in order.
    pub kvs: Vec<KeyValue>,
    /// Whether the range has more keys than the limit.
    pub more: bool,
    /// How many keys the range has in all.
    pub count: u64,
}

/// What a delete did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// The store's revision after it.
    pub revision: Revision,
    /// How many keys there were.
    pub deleted: u64,
}

/// What a conditional put came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutIf {
    /// The key was put.
    Done {
        /// The revision the put made.
        revision: Revision,
    },
    /// Nothing was done: the key's last change is another one.
    Refused {
        /// The key's mod revision; 0: there is no such key.
        mod_revision: Revision,
    },
}

/// What a request's unanswered end means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intent {
    /// A write by itself: perhaps done, and only the caller knows whether twice is fine.
    Write,
    /// A write as a call of a session: perhaps done, and safe to send again.
    Call,
    /// A read, or a request that is harmless to repeat.
    Read,
    /// A read of the asked node's own state: never at a node that the options do not name.
    ReadHere,
}

/// Why one attempt brought no answer.
enum Failure {
    /// Certainly not done; somebody else or a later moment may do it.
    NotDone { attempt: Box<Attempt>, redirect: Option<String> },
    /// Certainly not done, and asking again is in vain.
    Refused { endpoint: String, source: WireError },
    /// Perhaps done.
    Unknown(Box<Attempt>),
    /// Not done now; and what the session's calls did before is forgotten.
    Expired { endpoint: String },
}

impl Client {
    /// A client whose writes are calls of a session, opened at the first one: done once, however
    /// often they have to be sent. Connects at the first request. Panics without endpoints.
    pub fn new(options: ClientOptions) -> Client {
        assert!(!options.endpoints.is_empty(), "a client needs an endpoint");
        let learned = Vec::new();
        let sessions = Sessions::Wanted;
        Client { options, connection: None, learned, turn: 0, sessions, repeated: 0 }
    }

    /// A client without sessions. It sends a write again only if it was certainly not done, so a
    /// write whose answer is lost is `Error::OutcomeUnknown`; but its first write is one round trip
    /// less.
    pub fn at_most_once(options: ClientOptions) -> Client {
        Client { sessions: Sessions::Never, ..Client::new(options) }
    }

    /// Sets a key's value. Answers the revision it made.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Revision, Error> {
        self.check_size(key.len().saturating_add(value.len()))?;
        self.write(Command::Put { key, value }, |body| {
            if let ReplyBody::Put { revision } = body { Some(revision) } else { None }
        })
    }

    /// Sets a key's value if the key's last change was `mod_revision`; 0: if there is no such key.
    pub fn put_if(
        &mut self,
        key: &[u8],
        value: &[u8],
        mod_revision: Revision,
    ) -> Result<PutIf, Error> {
        self.check_size(key.len().saturating_add(value.len()))?;
        self.write(Command::PutIf { key, value, mod_revision }, |body| {
            let ReplyBody::PutIf { revision, refused } = body else { return None };
            Some(match refused {
                None => PutIf::Done { revision },
                Some(mod_revision) => PutIf::Refused { mod_revision },
            })
        })
    }

    /// Deletes the key, or the keys of [key, end): `end` is the wire's form.
    pub fn delete_range(&mut self, key: &[u8], end: &[u8]) -> Result<Deleted, Error> {
        self.check_size(key.len().saturating_add(end.len()))?;
        let end = RangeEnd::from_bytes(end);
        self.write(Command::DeleteRange { key, end }, |body| {
            if let ReplyBody::DeleteRange { revision, deleted } = body {
                Some(Deleted { revision, deleted })
            } else {
                None
            }
        })
    }

    /// The key's newest value, linearizable.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let mut found = self.range(&RangeArgs::of_key(key))?;
        Ok(found.kvs.pop())
    }

    /// What the node at `endpoint` says of itself.
    pub fn status(&self, endpoint: &str) -> Result<Status, ConnectionError> {
        status(endpoint, &self.options)
    }

    /// What every endpoint says of itself, asked at once.
    pub fn status_all(&self) -> Vec<(String, Result<Status, ConnectionError>)> {
        let options = &self.options;
        std::thread::scope(|scope| {
            let asked: Vec<_> = options
                .endpoints
                .iter()
                .map(|endpoint| (endpoint, scope.spawn(move || status(endpoint, options))))
                .collect();
            asked
                .into_iter()
                .map(|(endpoint, thread)| {
                    let status = thread.join().expect("asking for a status does not panic");
                    (endpoint.clone(), status)
                })
                .collect()
        })
    }

    /// A request beyond the protocol's bound would only make the node hang up.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), Error> {
        if bytes <= CONTENT_BYTES_MAX {
            return Ok(());
        }
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Err(Error::Refused {
            endpoint: "the client".to_owned(),
            source: WireError::TooLarge { bytes: number(bytes), max: number(CONTENT_BYTES_MAX) },
        })
    }

    /// Asks until somebody answers, the answer is final, or the time is up.
    pub(super) fn call<T>(
        &mut self,
        intent: Intent,
        deadline: Deadline,
        send: impl Fn(&mut Connection) -> u64,
        take: impl Fn(ReplyBody<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut last_words = BTreeMap::new();
        // The last attempt that may have done it.
        let mut doubt = None;
        let mut redirect = None;
        let (mut redirects, mut failures) = (0, 0);
        loop {
            let named = redirect.take();
            let failure = match self.attempt(intent, named, deadline, &send, &take) {
                Ok(answer) => {
                    self.repeated += u64::from(doubt.is_some());
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Refused { endpoint, source } => {
                    return Err(refused(endpoint, source, doubt));
                }
                Failure::Unknown(attempt) if intent == Intent::Call => doubt = Some(*attempt),
                Failure::Unknown(attempt) => {
                    return Err(Error::OutcomeUnknown { attempt: *attempt });
                }
                Failure::Expired { endpoint } => {
                    return Err(refused(endpoint, WireError::SessionExpired, doubt));
                }
                Failure::NotDone { attempt, redirect: to } => {
                    last_words.insert(attempt.endpoint, attempt.why);
                    redirect = to.filter(|_| intent != Intent::ReadHere);
                }
            }
            if redirect.is_some() && redirects < REDIRECTS_AT_ONCE {
                redirects += 1;
                continue;
            }
            redirects = 0;
            failures += 1;
            if redirect.is_some() || failures % self.askable(intent) == 0 {
                back_off(deadline);
            }
            if deadline.has_passed() {
                return Err(self.out_of_time(last_words, doubt));
            }
        }
    }

    fn out_of_time(&self, last_words: BTreeMap<String, Why>, doubt: Option<Attempt>) -> Error {
        if let Some(attempt) = doubt {
            return Error::OutcomeUnknown { attempt };
        }
        let attempts = last_words.into_iter();
        let attempts = attempts.map(|(endpoint, why)| Attempt { endpoint, why }).collect();
        Error::Unavailable { within: self.options.timeout, attempts }
    }

    fn attempt<T>(
        &mut self,
        intent: Intent,
        redirect: Option<String>,
        deadline: Deadline,
        send: &impl Fn(&mut Connection) -> u64,
        take: &impl Fn(ReplyBody<'_>) -> Option<T>,
    ) -> Result<T, Failure> {
        let mut connection = self.connect(intent, redirect, deadline)?;
        let endpoint = connection.endpoint().to_owned();
        let id = send(&mut connection);
        // What hangs may be repeated elsewhere; a write by itself is stuck with whom it went to.
        let patience = match intent {
            Intent::Write => deadline,
            Intent::Call | Intent::Read | Intent::ReadHere => {
                deadline.at_most(self.options.timeout / 3)
            }
        };
        connection.flush(patience).map_err(|why| not_done(&endpoint, Why::Connection(why)))?;
        let reply = match connection.receive(patience) {
            Ok(reply) => reply,
            Err(why) => return Err(unanswered(intent, endpoint, Why::Connection(why))),
        };
        let unexpected = || {
            let why = ConnectionError::Reply { endpoint: endpoint.clone(), source: None };
            unanswered(intent, endpoint.clone(), Why::Connection(why))
        };
        if reply.id != id {
            return Err(unexpected());
        }
        if let ReplyBody::Error(error) = reply.body {
            if self.options.must_log_in(&error) {
                return Err(not_done(&endpoint, Why::Answer(error)));
            }
            let failure = judge(intent, endpoint, error);
            if let Failure::Refused { .. } = failure {
                self.connection = Some(connection);
            }
            return Err(failure);
        }
        let answer = take(reply.body).ok_or_else(unexpected)?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// The cluster that the connection in use leads to.
    pub(super) fn connected_cluster(&self) -> Option<ClusterId> {
        self.connection.as_ref().map(|connection| connection.welcome().cluster_id)
    }

    /// How many calls it sent again, until they were answered, though they may have been done when
    /// they were sent before.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How it reaches the cluster.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// When a call that begins now must have ended.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.options.timeout)
    }

    /// How many may be asked when nobody has named the leader. A node's own state is asked of those
    /// that the options name.
    fn askable(&self, intent: Intent) -> usize {
        let learned = if intent == Intent::ReadHere { 0 } else { self.learned.len() };
        self.options.endpoints.len() + learned
    }

    fn next_endpoint(&mut self, intent: Intent) -> String {
        let at = self.turn % self.askable(intent);
        self.turn = at + 1;
        self.options
            .endpoints
            .iter()
            .chain(&self.learned)
            .nth(at)
            .expect("it is below both")
            .clone()
    }

    fn learn(&mut self, leader: &str) {
        if self.options.endpoints.iter().any(|it| it == leader) {
            return;
        }
        self.learned.retain(|it| it != leader);
        if self.learned.len() == LEARNED_MAX {
            self.learned.remove(0);
        }
        self.learned.push(leader.to_owned());
    }

    /// The connection in use, one to where we were redirected, or one to the next endpoint.
    fn connect(
        &mut self,
        intent: Intent,
        redirect: Option<String>,
        deadline: Deadline,
    ) -> Result<Connection, Failure> {
        if let Some(connection) = self.connection.take() {
            let named = self.options.endpoints.iter().any(|known| known == connection.endpoint());
            if connection.is_alive() && (named || intent != Intent::ReadHere) {
                return Ok(connection);
            }
        }
        let endpoint = match redirect {
            Some(named) => {
                self.learn(&named);
                named
            }
            None => self.next_endpoint(intent),
        };
        let askings = u32::try_from(self.options.endpoints.len() + 1).unwrap_or(u32::MAX);
        let share = self.options.timeout / askings;
        let patience = deadline.at_most(share.clamp(HELLO_TIMEOUT_MIN, HELLO_TIMEOUT_MAX));
        // What a session's calls did is known in the cluster that opened it, and in no other.
        let cluster_id = self.sessions.cluster_id().unwrap_or(self.options.cluster_id);
        let login = self.options.login.as_ref();
        let opened = Connection::open_as(&endpoint, cluster_id, login, patience);
        opened.map_err(|why| match why.login_refusal() {
            Some((endpoint, source)) => Failure::Refused { endpoint, source },
            None => not_done(&endpoint, Why::Connection(why)),
        })
    }
}

fn not_done(endpoint: &str, why: Why) -> Failure {
    let attempt = Box::new(Attempt { endpoint: endpoint.to_owned(), why });
    Failure::NotDone { attempt, redirect: None }
}

fn unanswered(intent: Intent, endpoint: String, why: Why) -> Failure {
    match intent {
        Intent::Write | Intent::Call => Failure::Unknown(Box::new(Attempt { endpoint, why })),
        Intent::Read | Intent::ReadHere => not_done(&endpoint, why),
    }
}

/// The last word of a node that will not do it; what an earlier attempt came to it does not know.
fn refused(endpoint: String, source: WireError, doubt: Option<Attempt>) -> Error {
    if let WireError::AnswerNotKept { revision } = source {
        return Error::AnswerNotKept { revision };
    }
    match doubt {
        Some(attempt) if !source.is_of_the_store() => Error::OutcomeUnknown { attempt },
        Some(_) | None => Error::Refused { endpoint, source },
    }
}

/// What an error means for the request that it answers.
fn judge(intent: Intent, endpoint: String, error: WireError) -> Failure {
    match error.advice() {
        Advice::Unknown if error == WireError::SessionExpired => Failure::Expired { endpoint },
        Advice::Unknown if matches!(error, WireError::AnswerNotKept { .. }) => {
            Failure::Refused { endpoint, source: error }
        }
        Advice::AskAgain => {
            let redirect = error.leader_address().map(str::to_owned);
            let attempt = Box::new(Attempt { endpoint, why: Why::Answer(error) });
            Failure::NotDone { attempt, redirect }
        }
        Advice::GiveUp => Failure::Refused { endpoint, source: error },
        Advice::Unknown => unanswered(intent, endpoint, Why::Answer(error)),
    }
}

fn status(endpoint: &str, options: &ClientOptions) -> Result<Status, ConnectionError> {
    let deadline = Deadline::after(options.timeout);
    let mut connection = Connection::open(endpoint, options.cluster_id, deadline)?;
    let id = connection.status();
    connection.flush(deadline)?;
    let endpoint = endpoint.to_owned();
    let reply = connection.receive(deadline)?;
    if let ReplyBody::Error(source) = reply.body {
        return Err(ConnectionError::Refused { endpoint, source });
    }
    let (true, ReplyBody::Status(status)) = (reply.id == id, reply.body) else {
        return Err(ConnectionError::Reply { endpoint, source: None });
    };
    Ok(*status)
}
