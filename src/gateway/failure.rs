//! What clients hear when something is not done: etcd's codes and texts, which its clients compare.

use tonic::{Code, Status};

use crate::wire::auth::{AuthRefusal, Denial};
use crate::wire::error::Error as WireError;
use crate::wire::fields::DecodeError;

/// Why a request to the cluster has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// It was refused: certainly not done.
    Refused(WireError),
    /// Nobody answered in time, or nobody knows the end: perhaps done.
    TimedOut,
    /// The gateway cannot log in where rights count: not done.
    NoLogin,
    /// The gateway's user has not the role `root`: not done.
    NoRole,
    /// The gateway has no user by whose rights it could act for others: not done.
    NoUser,
}

/// An error that etcd's clients know: the text behind `etcdserver: `.
pub(super) type Known = (Code, &'static str);

pub(super) const KEY_MISSING: Known = (Code::InvalidArgument, "key is not provided");
pub(super) const KEY_NOT_FOUND: Known = (Code::InvalidArgument, "key not found");
pub(super) const VALUE_GIVEN: Known = (Code::InvalidArgument, "value is provided");
pub(super) const LEASE_GIVEN: Known = (Code::InvalidArgument, "lease is provided");
pub(super) const TOO_MANY_OPS: Known =
    (Code::InvalidArgument, "too many operations in txn request");
pub(super) const DUPLICATE_KEY: Known =
    (Code::InvalidArgument, "duplicate key given in txn request");
pub(super) const INVALID_SORT: Known = (Code::InvalidArgument, "invalid sort option");
pub(super) const BAD_URLS: Known = (Code::InvalidArgument, "given member URLs are invalid");
pub(super) const PERMISSION_NOT_GIVEN: Known = (Code::InvalidArgument, "permission not given");
pub(super) const TOO_LARGE: Known = (Code::InvalidArgument, "request is too large");
pub(super) const COMPACTED: Known =
    (Code::OutOfRange, "mvcc: required revision has been compacted");
pub(super) const FUTURE_REVISION: Known =
    (Code::OutOfRange, "mvcc: required revision is a future revision");
pub(super) const LEASE_TTL_TOO_LARGE: Known = (Code::OutOfRange, "too large lease TTL");
pub(super) const NO_SPACE: Known = (Code::ResourceExhausted, "mvcc: database space exceeded");
pub(super) const TOO_MANY_REQUESTS: Known = (Code::ResourceExhausted, "too many requests");
pub(super) const LEASE_NOT_FOUND: Known = (Code::NotFound, "requested lease not found");
pub(super) const MEMBER_NOT_FOUND: Known = (Code::NotFound, "member not found");
pub(super) const LEASE_EXISTS: Known = (Code::FailedPrecondition, "lease already exists");
pub(super) const PEER_URL_EXISTS: Known = (Code::FailedPrecondition, "Peer URLs already exists");
pub(super) const NOT_A_LEARNER: Known =
    (Code::FailedPrecondition, "can only promote a learner member");
pub(super) const LEARNER_NOT_READY: Known =
    (Code::FailedPrecondition, "can only promote a learner member which is in sync with leader");
pub(super) const CLUSTER_MISMATCH: Known = (Code::FailedPrecondition, "cluster ID mismatch");
pub(super) const BAD_TRANSFEREE: Known = (Code::FailedPrecondition, "bad leader transferee");
pub(super) const NO_LEADER: Known = (Code::Unavailable, "no leader");
pub(super) const TIMED_OUT: Known = (Code::Unavailable, "request timed out");
pub(super) const CONNECTION_LOST: Known =
    (Code::Unavailable, "request timed out, possibly due to connection lost");

/// The error as it goes out.
pub(super) fn known((code, text): Known) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

/// Whether it is this error.
pub(super) fn is_known(why: &Status, (code, text): Known) -> bool {
    why.code() == code && why.message().strip_prefix("etcdserver: ") == Some(text)
}

/// Why a watch has ended that may not be: etcd says it in the words that Go has for an error of
/// gRPC.
pub(super) fn cancel_reason(why: Denial) -> String {
    let why = known(known_denial(why));
    format!("rpc error: code = {:?} desc = {}", why.code(), why.message())
}

/// The error in such words; `None` if they are others.
pub(super) fn denial_in(cancel_reason: &str) -> Option<Status> {
    let denials = [Denial::NotPermitted, Denial::NoUser, Denial::LoginEnded];
    let said = denials.into_iter().find(|why| self::cancel_reason(*why) == cancel_reason);
    said.map(|why| known(known_denial(why)))
}

/// A node has answered what is no answer to what it was asked.
pub(super) fn unexpected() -> Status {
    Status::internal("raftd: a node answered something else")
}

/// A node has answered what cannot be read.
pub(super) fn unreadable(why: &DecodeError) -> Status {
    Status::internal(format!("raftd: a node answered what cannot be read: {why}"))
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        match failure {
            Failure::Refused(why) => refusal(&why),
            Failure::TimedOut => known(TIMED_OUT),
            Failure::NoLogin => Status::failed_precondition(
                "raftd: the gateway cannot log in to the cluster: its log says why",
            ),
            Failure::NoRole => Status::failed_precondition(
                "raftd: the gateway cannot act for others: grant its --user the role root",
            ),
            Failure::NoUser => Status::failed_precondition(
                "raftd: the gateway has no user to act for others by: start it with --user, or \
                 log in as a user with the role root once",
            ),
        }
    }
}

fn refusal(why: &WireError) -> Status {
    match why {
        WireError::KeyNotFound => known(KEY_NOT_FOUND),
        WireError::LeaseNotFound => known(LEASE_NOT_FOUND),
        WireError::LeaseExists => known(LEASE_EXISTS),
        WireError::Compacted { .. } => known(COMPACTED),
        WireError::FutureRevision { .. } => known(FUTURE_REVISION),
        WireError::TooLarge { .. } => known(TOO_LARGE),
        WireError::NoSpace | WireError::OverQuota { .. } => known(NO_SPACE),
        WireError::Busy { .. } | WireError::TooManyLeases { .. } => known(TOO_MANY_REQUESTS),
        WireError::WrongCluster { .. } => known(CLUSTER_MISMATCH),
        WireError::NotLeader { .. }
        | WireError::NotReady { .. }
        | WireError::OutcomeUnknown
        | WireError::SessionExpired
        | WireError::CallAcknowledged
        | WireError::AnswerNotKept { .. } => known(TIMED_OUT),
        WireError::Denied { why } => known(known_denial(*why)),
        WireError::Auth { why } => known(known_auth(*why)),
        WireError::AnswerTooLarge { .. } => Status::resource_exhausted(format!("raftd: {why}")),
        WireError::BadRequest { .. } => Status::invalid_argument(format!("raftd: {why}")),
        WireError::Refused { .. } | WireError::Removed { .. } => {
            Status::failed_precondition(format!("raftd: {why}"))
        }
        WireError::WrongNode { .. } | WireError::Unsupported { .. } | WireError::Other { .. } => {
            Status::unknown(format!("raftd: {why}"))
        }
    }
}

/// What whoever may not do something hears.
pub(super) const fn known_denial(why: Denial) -> Known {
    match why {
        Denial::NotPermitted => (Code::PermissionDenied, "permission denied"),
        Denial::NoUser => (Code::InvalidArgument, "user name is empty"),
        Denial::LoginEnded => (Code::Unauthenticated, "invalid auth token"),
    }
}

/// What whoever asks of users and roles what cannot be done hears.
pub(super) const fn known_auth(why: AuthRefusal) -> Known {
    let text = match why {
        AuthRefusal::UserEmpty => return (Code::InvalidArgument, "user name is empty"),
        AuthRefusal::RoleEmpty => return (Code::InvalidArgument, "role name is empty"),
        AuthRefusal::AuthFailed => {
            let text = "authentication failed, invalid user ID or password";
            return (Code::InvalidArgument, text);
        }
        AuthRefusal::InvalidAuthMgmt => {
            return (Code::InvalidArgument, "invalid auth management");
        }
        AuthRefusal::TooMuch => return TOO_MANY_REQUESTS,
        AuthRefusal::RootUserNotExist => "root user does not exist",
        AuthRefusal::RootRoleNotExist => "root user does not have root role",
        AuthRefusal::UserAlreadyExist => "user name already exists",
        AuthRefusal::UserNotFound => "user name not found",
        AuthRefusal::RoleAlreadyExist => "role name already exists",
        AuthRefusal::RoleNotFound => "role name not found",
        AuthRefusal::RoleNotGranted => "role is not granted to the user",
        AuthRefusal::PermissionNotGranted => "permission is not granted to the role",
        AuthRefusal::AuthNotEnabled => "authentication is not enabled",
    };
    (Code::FailedPrecondition, text)
}
