//! A request until it is answered: find who can do it, repeat what is safe, say what came of it.
//!
//! A write is a call of a session and so is done once, however often it has to be sent
//! (`sessions`). Its client hears that it was not done only if that is certain; else it hears
//! `request timed out`, which etcd's clients take for "perhaps". A read is repeated until the time
//! is up. What is neither (changes of the members) is sent again only if it was certainly not done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::{Request, Response};

use crate::limits::REQUEST_BYTES_MAX;
use crate::types::{NodeId, Revision, SessionId};
use crate::wire::client::{Command, RangeArgs, command_request, range_request};
use crate::wire::error::{Advice, Error as WireError, KIND_ERROR};
use crate::wire::reply::{ReplyBody, decode_reply, reply_head};

use super::auth::{Identity, Who};
use super::failure::{
    CONNECTION_LOST, Failure, NO_LEADER, TOO_LARGE, TOO_MANY_REQUESTS, known, unreadable,
};
use super::link::{Link, Lost, Replies};
use super::nodes::Nodes;
use super::options::User;
use super::proto::etcdserverpb::ResponseHeader;
use super::room::{Room, cost};
use super::sessions::{Call, Sessions};
use super::source::Sources;

/// How long a request may take: what etcd's do with its default timeouts, 5 s and two elections.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// Redirects followed at once; after that two nodes probably name each other, and we wait as well.
const REDIRECTS_AT_ONCE: u32 = 3;

/// Keys and values of one request: what a node takes, less 96 bytes for whom it is for, the op, the
/// call of a session, and lengths. Bytes.
const CONTENT_BYTES_MAX: usize = REQUEST_BYTES_MAX - 96;

/// Keys and values of writes that are not done, of all clients: they stay in memory while there is
/// no leader, or while the disks are slower than those who write. Bytes.
const WRITES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a write takes beside them. Bytes.
const WRITE_BYTES: usize = 1024;

/// The cluster, as all services know it.
pub(super) struct Cluster {
    /// Whom to ask.
    pub(super) nodes: Arc<Nodes>,
    /// Who this gateway is there.
    pub(super) identity: Identity,
    pub(super) sources: Sources,
    /// What large answers take until their clients have read them.
    pub(super) answers: Arc<Room>,
    /// What writes take that wait for a session, a leader or their turn.
    writes: Arc<Room>,
    sessions: Arc<Sessions>,
}

/// Who is to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whom {
    /// The leader.
    Leader,
    /// Any node, the home node first.
    Home,
}

/// Whether a request that was sent may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// It is harmless.
    Freely,
    /// Not if it was perhaps done.
    IfNotDone,
}

/// What a node answered.
pub(super) struct Answer {
    /// The reply's body.
    pub(super) body: Bytes,
    /// Who answered.
    pub(super) node: NodeId,
}

/// The answer to a range, which comes in as many replies as it takes, all of one revision.
pub(super) struct Parts {
    node: NodeId,
    first: Option<Bytes>,
    others: Replies,
}

/// Who is asked, and for whom.
struct Asked<'a> {
    link: Link,
    /// How often the link had logged in before.
    logins: u64,
    who: &'a Who,
}

impl Asked<'_> {
    fn of(link: Link, who: &Who) -> Asked<'_> {
        Asked { logins: link.logins(), link, who }
    }
}

/// What is to be done about an error.
enum Then {
    /// It is the answer.
    Refuse(WireError),
    /// Ask again: the leader that was named, or after a while.
    AtOnce,
    Later,
    /// Perhaps it was done.
    Doubt,
}

impl Answer {
    /// Reads the reply.
    pub(super) fn reply(&self) -> Result<ReplyBody<'_>, tonic::Status> {
        decode_reply(&self.body).map(|reply| reply.body).map_err(|why| unreadable(&why))
    }
}

impl Parts {
    /// The next reply. Each has its time, however many there are. The last one says that it is.
    pub(super) async fn next(&mut self) -> Result<Answer, tonic::Status> {
        let node = self.node;
        if let Some(body) = self.first.take() {
            return Ok(Answer { body, node });
        }
        let Ok(next) = timeout(REQUEST_TIMEOUT, self.others.next()).await else {
            return Err(Failure::TimedOut.into());
        };
        let body = next.map_err(|_| known(CONNECTION_LOST))?;
        match error_of(&body) {
            Some(why) => Err(Failure::Refused(why).into()),
            None => Ok(Answer { body, node }),
        }
    }
}

impl Cluster {
    /// The cluster that is reached at these addresses. `user`: as whom the gateway logs in there.
    /// Its large answers take so many bytes.
    pub(super) fn start(
        addresses: &[String],
        user: Option<&User>,
        answers_bytes: usize,
    ) -> Cluster {
        let (nodes, identity) = (Nodes::start(addresses), Identity::of(user));
        let (answers, writes) = (Room::of(answers_bytes), Room::of(WRITES_BYTES_MAX));
        let (sources, sessions) = (Sources::default(), Arc::default());
        Cluster { nodes, identity, sources, answers, writes, sessions }
    }

    /// What a client hears for whose answer there is no room.
    pub(super) fn no_room(&self) -> tonic::Status {
        let bytes_max = self.answers.bytes_max();
        tonic::Status::resource_exhausted(format!(
            "raftd: answers that their clients have not read take {bytes_max} bytes: ask for fewer \
             keys at a time, or by RangeStream; or see raftd-gateway --answers-bytes"
        ))
    }

    /// An answer that reads so many bytes, with what it takes, if there is room for it.
    pub(super) fn try_hold<T>(
        &self,
        bytes: usize,
        answer: T,
    ) -> Result<Response<T>, tonic::Status> {
        let mut share = self.answers.share();
        share.set(cost(bytes, 0)).map_err(|_| self.no_room())?;
        Ok(share.hold(answer))
    }

    /// The same of what has changed something: its client is to know, whatever room there is.
    pub(super) fn hold<T>(&self, bytes: usize, answer: T) -> Response<T> {
        let mut share = self.answers.share();
        share.force(cost(bytes, 0));
        share.hold(answer)
    }

    /// Refuses a request that is to be refused while nobody is known to lead.
    pub(super) fn check_leader<T>(&self, request: &Request<T>) -> Result<(), tonic::Status> {
        if wants_leader(request) && self.nodes.leader_now().is_none() {
            return Err(known(NO_LEADER));
        }
        Ok(())
    }

    /// What leads an answer that shows the store at `revision`.
    pub(super) fn header(&self, node: NodeId, revision: Revision) -> ResponseHeader {
        self.nodes.note_revision(revision);
        ResponseHeader { revision: number(revision.0), ..self.bare_header(node.get()) }
    }

    /// The same in the name of the home node.
    pub(super) fn header_of_home(&self, revision: Revision) -> ResponseHeader {
        self.nodes.note_revision(revision);
        ResponseHeader { revision: number(revision.0), ..self.bare_header(self.nodes.home_id()) }
    }

    /// What leads an answer that shows nothing of the store.
    pub(super) fn bare_header(&self, member_id: u64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.nodes.short_cluster_id(),
            member_id,
            revision: 0,
            raft_term: self.nodes.term(),
        }
    }

    /// Does a command once, for `who`. `bytes`: its keys and values.
    pub(super) async fn write(
        &self,
        who: &Who,
        bytes: usize,
        command: Command<'_>,
    ) -> Result<Answer, tonic::Status> {
        check_size(bytes)?;
        let mut share = self.writes.share();
        share.set(bytes + WRITE_BYTES).map_err(|_| known(TOO_MANY_REQUESTS))?;
        let done = timeout(REQUEST_TIMEOUT, self.write_until_done(who, bytes, command)).await;
        done.unwrap_or(Err(Failure::TimedOut)).map_err(Into::into)
    }

    async fn write_until_done(
        &self,
        who: &Who,
        bytes: usize,
        command: Command<'_>,
    ) -> Result<Answer, Failure> {
        let mut call = self.begin(who).await?;
        let mut doubt = false;
        let mut redirects = 0;
        loop {
            let asked = Asked::of(self.nodes.leader().await, who);
            let encode = |out: &mut Vec<u8>, id| {
                let number = Some(call.number());
                self.write_for(who, out, |out| command_request(out, id, number, command));
            };
            let body = match asked.link.ask(bytes, encode).await {
                Ok(body) => body,
                Err(lost) => {
                    doubt |= lost == Lost::Unanswered;
                    continue;
                }
            };
            let Some(error) = error_of(&body) else {
                return Ok(Answer { body, node: asked.link.node() });
            };
            if error == WireError::SessionExpired {
                call.session_is_over();
                // Unused for so long that it has ended; or an earlier copy may have been done.
                if doubt {
                    return Err(Failure::TimedOut);
                }
                call = self.begin(who).await?;
                continue;
            }
            let judged = self.judge(&asked, error).await;
            // A copy that was refused says nothing of those before it.
            match judged.map_err(|why| if doubt { Failure::TimedOut } else { why })? {
                Then::Refuse(why) if doubt && !why.is_of_the_store() => {
                    return Err(Failure::TimedOut);
                }
                Then::Refuse(why) => return Err(Failure::Refused(why)),
                Then::AtOnce if redirects < REDIRECTS_AT_ONCE => redirects += 1,
                Then::AtOnce | Then::Later => self.nodes.pause().await,
                Then::Doubt => doubt = true,
            }
        }
    }

    /// A call that was never made before, in a session that is opened for it if need be.
    async fn begin(&self, who: &Who) -> Result<Call, Failure> {
        loop {
            if let Some(call) = self.sessions.try_begin() {
                return Ok(call);
            }
            if self.sessions.are_all_open() {
                self.sessions.room().await;
                continue;
            }
            let _turn = self.sessions.turn_to_open().await;
            // Another one may have opened it meanwhile.
            if let Some(call) = self.sessions.try_begin() {
                return Ok(call);
            }
            let session = self.open_session().await.map_err(|why| who.hears(why))?;
            self.sessions.add(session);
        }
    }

    /// Opens a session. If the answer is lost another one is opened; the first ends unused.
    async fn open_session(&self) -> Result<SessionId, Failure> {
        let encode = |out: &mut Vec<u8>, id| command_request(out, id, None, Command::OpenSession);
        let ask = |link| ask_once(link, 0, &encode);
        // It is the gateway's, whoever is to make calls in it.
        let (whom, repeat) = (Whom::Leader, Repeat::Freely);
        let (answer, ()) = self.until_answered(&Who::Gateway, whom, repeat, ask).await?;
        match decode_reply(&answer.body).map(|reply| reply.body) {
            Ok(ReplyBody::OpenSession { session }) => Ok(session),
            Ok(_) | Err(_) => Err(Failure::TimedOut),
        }
    }

    /// Asks for `who` until somebody answers. `bytes`: the request's keys and values.
    pub(super) async fn ask(
        &self,
        who: &Who,
        whom: Whom,
        repeat: Repeat,
        bytes: usize,
        encode: impl Fn(&mut Vec<u8>, u64),
    ) -> Result<Answer, tonic::Status> {
        check_size(bytes)?;
        self.try_ask(who, whom, repeat, bytes, encode).await.map_err(Into::into)
    }

    /// The same for who says why not in words of its own.
    pub(super) async fn try_ask(
        &self,
        who: &Who,
        whom: Whom,
        repeat: Repeat,
        bytes: usize,
        encode: impl Fn(&mut Vec<u8>, u64),
    ) -> Result<Answer, Failure> {
        let encode = |out: &mut Vec<u8>, id| self.write_for(who, out, |out| encode(out, id));
        let ask = |link| ask_once(link, bytes, &encode);
        let asked = timeout(REQUEST_TIMEOUT, self.until_answered(who, whom, repeat, ask)).await;
        asked.unwrap_or(Err(Failure::TimedOut)).map(|(answer, ())| answer)
    }

    /// Asks for a range, for `who`, until somebody begins to answer.
    pub(super) async fn range(
        &self,
        who: &Who,
        whom: Whom,
        args: &RangeArgs<'_>,
    ) -> Result<Parts, tonic::Status> {
        let bytes = args.key.len() + args.end.len();
        check_size(bytes)?;
        let ask = |link: Link| async move {
            let encode = |out: &mut Vec<u8>, id| {
                self.write_for(who, out, |out| range_request(out, id, args));
            };
            let mut others = link.ask_for_replies(bytes, encode).await?;
            Ok((others.next().await?, others))
        };
        let asked = self.until_answered(who, whom, Repeat::Freely, ask);
        let begun = timeout(REQUEST_TIMEOUT, asked).await.unwrap_or(Err(Failure::TimedOut));
        let (Answer { body, node }, others) = begun?;
        Ok(Parts { node, first: Some(body), others })
    }

    /// Asks until somebody answers. `ask` does so once, and may bring more than the reply.
    pub(super) async fn until_answered<T, F>(
        &self,
        who: &Who,
        whom: Whom,
        repeat: Repeat,
        ask: impl Fn(Link) -> F,
    ) -> Result<(Answer, T), Failure>
    where
        F: Future<Output = Result<(Bytes, T), Lost>>,
    {
        let mut attempts = 0;
        let mut redirects = 0;
        loop {
            let link = match whom {
                Whom::Leader => self.nodes.leader().await,
                Whom::Home => self.nodes.home(attempts).await,
            };
            attempts += 1;
            let asked = Asked::of(link, who);
            let (body, more) = match ask(asked.link.clone()).await {
                Ok(answered) => answered,
                Err(Lost::Unanswered) if repeat == Repeat::IfNotDone => {
                    return Err(Failure::TimedOut);
                }
                Err(Lost::Unanswered | Lost::Unsent) => continue,
            };
            let Some(error) = error_of(&body) else {
                return Ok((Answer { body, node: asked.link.node() }, more));
            };
            match self.judge(&asked, error).await? {
                Then::Refuse(why) => return Err(Failure::Refused(why)),
                Then::AtOnce if redirects < REDIRECTS_AT_ONCE => redirects += 1,
                Then::Doubt if repeat == Repeat::IfNotDone => return Err(Failure::TimedOut),
                Then::AtOnce | Then::Later | Then::Doubt => self.nodes.pause().await,
            }
        }
    }

    /// What an error means, beside what it means for the request: who leads, and who knows us.
    async fn judge(&self, asked: &Asked<'_>, error: WireError) -> Result<Then, Failure> {
        let Asked { link, logins, who } = asked;
        if let WireError::NotLeader { leader } = error {
            self.nodes.redirect(link, leader);
            return Ok(Then::AtOnce);
        }
        if let WireError::Denied { why } = error
            && self.may_ask_again(link, *logins, who, why).await?
        {
            return Ok(Then::AtOnce);
        }
        // Its copy was done, or will never be: no copy that follows knows more.
        let settled =
            matches!(error, WireError::CallAcknowledged | WireError::AnswerNotKept { .. });
        Ok(match error.advice() {
            // Somebody has to free space first.
            Advice::AskAgain if error == WireError::NoSpace => Then::Refuse(error),
            Advice::AskAgain => Then::Later,
            Advice::GiveUp => Then::Refuse(error),
            Advice::Unknown if settled => Then::Refuse(error),
            Advice::Unknown => Then::Doubt,
        })
    }
}

async fn ask_once(
    link: Link,
    bytes: usize,
    encode: &impl Fn(&mut Vec<u8>, u64),
) -> Result<(Bytes, ()), Lost> {
    link.ask(bytes, encode).await.map(|body| (body, ()))
}

/// The error in a reply's body, if it is one.
pub(super) fn error_of(body: &Bytes) -> Option<WireError> {
    let (_, kind) = reply_head(body).ok()?;
    if kind != KIND_ERROR {
        return None;
    }
    match decode_reply(body).map(|reply| reply.body) {
        Ok(ReplyBody::Error(error)) => Some(error),
        // What cannot be read promises nothing.
        Ok(_) | Err(_) => Some(WireError::OutcomeUnknown),
    }
}

/// A request beyond the protocol's bound would only make the node hang up.
pub(super) fn check_size(bytes: usize) -> Result<(), tonic::Status> {
    if bytes <= CONTENT_BYTES_MAX { Ok(()) } else { Err(known(TOO_LARGE)) }
}

/// Whether a client asks to hear when nobody leads, instead of waiting.
pub(super) fn wants_leader<T>(request: &Request<T>) -> bool {
    request.metadata().get("hasleader").is_some_and(|value| value == "true")
}

/// A number of ours as one of etcd's, which have a sign.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
