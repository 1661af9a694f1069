//! Who a client is, and what it asks about users and roles beside the commands.
//!
//! ```text
//! request
//!   14      see kv/auth/change.rs                             Auth, a command
//!   26      [user: text, nonce: bin]                          Login
//!   27      [proof: bin 32]                                   LoginProof
//!   28      [what: uint, name: text]                          AuthRead
//!   29      [acting: uint, op, args]                          As: any but 26, 27, 29
//! reply
//!   14      [revision: uint, auth_revision: uint]             Auth
//!   26      [nonce: bin, salt: bin, rounds: uint]             Login
//!   27      [signature: bin 32, credential: uint]             LoginProof
//!   28      [revision: uint, auth_revision: uint, enabled: bool, credential: uint,
//!            has_password: bool, names: array text,
//!            permissions: array array(3) [access: uint, key: bin, end: bin]]      AuthRead
//! what      0 whether rights count · 1 a user · 2 all users · 3 a role · 4 all roles
//! ```
//!
//! `scram.rs` says what is proved. An As is answered as the request inside it.

use crate::codec::msgpack::{self, Reader};
use crate::kv::answer::{Access, Permission};
pub use crate::kv::answer::{AuthRefusal, Denial};
use crate::limits::{AUTH_NAME_BYTES_MAX, NONCE_BYTES_MAX, NONCE_BYTES_MIN, SALT_BYTES_MAX};
use crate::types::{Credential, Revision};

use super::client::{Op, Request, begin_request};
use super::fields::{self, DecodeError, Fields};
use super::frame::{self, LENGTH_BYTES};
use super::reply::begin_reply;
use super::scram::Key;

/// What is asked about users and roles, or of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthRequest<'a> {
    /// Who has this name and a password that it can prove.
    Login {
        /// The name.
        user: &'a str,
        /// Chance, for this time only.
        nonce: &'a [u8],
    },
    /// Whether rights count.
    Status,
    /// A user.
    User {
        /// Its name.
        name: &'a str,
    },
    /// All users.
    Users,
    /// A role.
    Role {
        /// Its name.
        name: &'a str,
    },
    /// All roles.
    Roles,
}

impl<'a> AuthRequest<'a> {
    /// Its op.
    pub const fn op(&self) -> Op {
        match self {
            AuthRequest::Login { .. } => Op::Login,
            AuthRequest::Status
            | AuthRequest::User { .. }
            | AuthRequest::Users
            | AuthRequest::Role { .. }
            | AuthRequest::Roles => Op::AuthRead,
        }
    }

    /// Reads the args of one of these ops; `None` of another one.
    pub fn decode(op: Op, args: &'a [u8]) -> Result<Option<AuthRequest<'a>>, DecodeError> {
        let mut reader = Reader::new(args);
        let mut fields = Fields::open(&mut reader)?;
        let request = if op == Op::Login {
            let (user, nonce) = (name(&mut fields)?, fields.bin()?);
            check_length("the length of a nonce", nonce, NONCE_BYTES_MAX)?;
            AuthRequest::Login { user, nonce }
        } else if op == Op::AuthRead {
            let (found, name) = (fields.uint()?, name(&mut fields)?);
            match found {
                0 => AuthRequest::Status,
                1 => AuthRequest::User { name },
                2 => AuthRequest::Users,
                3 => AuthRequest::Role { name },
                4 => AuthRequest::Roles,
                found => return Err(DecodeError::Range { what: "what is asked", found }),
            }
        } else {
            return Ok(None);
        };
        fields.close()?;
        fields::expect_end(&reader)?;
        Ok(Some(request))
    }

    /// Appends the args.
    pub fn encode(&self, out: &mut Vec<u8>) {
        msgpack::write_array(out, 2);
        let (what, name) = match *self {
            AuthRequest::Login { user, nonce } => {
                fields::write_text(out, user);
                return msgpack::write_bin(out, nonce);
            }
            AuthRequest::Status => (0, ""),
            AuthRequest::User { name } => (1, name),
            AuthRequest::Users => (2, ""),
            AuthRequest::Role { name } => (3, name),
            AuthRequest::Roles => (4, ""),
        };
        msgpack::write_uint(out, what);
        fields::write_text(out, name);
    }
}

fn name<'a>(fields: &mut Fields<'_, 'a>) -> Result<&'a str, DecodeError> {
    let name = fields.text()?;
    if name.len() <= AUTH_NAME_BYTES_MAX {
        return Ok(name);
    }
    let found = u64::try_from(name.len()).unwrap_or(u64::MAX);
    Err(DecodeError::Range { what: "the length of a name", found })
}

fn check_length(what: &'static str, bytes: &[u8], max: usize) -> Result<(), DecodeError> {
    if (NONCE_BYTES_MIN..=max).contains(&bytes.len()) {
        return Ok(());
    }
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Err(DecodeError::Range { what, found })
}

/// Appends such a request, as a whole frame.
pub fn auth_request(out: &mut Vec<u8>, id: u64, request: &AuthRequest<'_>) {
    let start = begin_request(out, id, request.op());
    request.encode(out);
    frame::finish(out, start);
}

/// Appends a LoginProof, as a whole frame.
pub fn login_proof_request(out: &mut Vec<u8>, id: u64, proof: &Key) {
    let start = begin_request(out, id, Op::LoginProof);
    msgpack::write_array(out, 1);
    msgpack::write_bin(out, proof);
    frame::finish(out, start);
}

/// Reads the args of a request with `Op::LoginProof`.
pub fn decode_login_proof(args: &[u8]) -> Result<Key, DecodeError> {
    let mut reader = Reader::new(args);
    let mut fields = Fields::open(&mut reader)?;
    let proof = key(&mut fields)?;
    fields.close()?;
    fields::expect_end(&reader)?;
    Ok(proof)
}

fn key(fields: &mut Fields<'_, '_>) -> Result<Key, DecodeError> {
    let bytes = fields.bin()?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    bytes.try_into().map_err(|_| DecodeError::Range { what: "the length of a key", found })
}

/// Makes a request for somebody of the one that was appended as a whole frame at `from`, and with
/// which the buffer ends. `NONE`: it is for nobody, who has no rights.
pub fn in_name_of(out: &mut Vec<u8>, from: usize, acting: Credential) {
    const OURS: &str = "a whole frame was appended";
    let body_at = from + LENGTH_BYTES;
    let mut reader = Reader::new(&out[body_at..]);
    reader.array().expect(OURS);
    reader.uint().expect(OURS);
    let op_at = out.len() - reader.rest().len();
    let mut before = vec![Op::As.code()];
    msgpack::write_array(&mut before, 3);
    msgpack::write_uint(&mut before, acting.0);
    out.splice(op_at..op_at, before);
    let bytes = u32::try_from(out.len() - body_at).expect("limits.rs bounds every message");
    out[from..body_at].copy_from_slice(&bytes.to_le_bytes());
}

/// Reads an As: for whom it is, and the request inside. The latter ends where the former does.
pub fn decode_as<'a>(request: &Request<'a>) -> Result<(Credential, Request<'a>), DecodeError> {
    let mut reader = Reader::new(request.args);
    if reader.array()? != 3 {
        return Err(DecodeError::Inconsistent { what: "a request for somebody has three parts" });
    }
    let acting = Credential(reader.uint()?);
    let command = reader.rest();
    let found = reader.uint()?;
    match Op::from_code(found) {
        Some(Op::Login | Op::LoginProof | Op::As) | None => {
            Err(DecodeError::Range { what: "the op of a request for somebody", found })
        }
        Some(op) => Ok((acting, Request { id: request.id, op, command, args: reader.rest() })),
    }
}

/// What a server answers whoever wants to log in, borrowed from the reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginChallenge<'a> {
    /// Chance, for this time only.
    pub nonce: &'a [u8],
    /// What the password is hashed with.
    pub salt: &'a [u8],
    /// How often.
    pub rounds: u64,
}

/// Appends the reply to a Login, as a whole frame.
pub fn login_reply(out: &mut Vec<u8>, id: u64, challenge: &LoginChallenge<'_>) {
    let start = begin_reply(out, id, Op::Login);
    msgpack::write_array(out, 3);
    msgpack::write_bin(out, challenge.nonce);
    msgpack::write_bin(out, challenge.salt);
    msgpack::write_uint(out, challenge.rounds);
    frame::finish(out, start);
}

/// Who has logged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginDone {
    /// What proves that the server knows the password as well as it can.
    pub signature: Key,
    /// What others may act with for this user, until it is gone or has another password.
    pub credential: Credential,
}

/// Appends the reply to a LoginProof, as a whole frame.
pub fn login_proof_reply(out: &mut Vec<u8>, id: u64, done: &LoginDone) {
    let start = begin_reply(out, id, Op::LoginProof);
    msgpack::write_array(out, 2);
    msgpack::write_bin(out, &done.signature);
    msgpack::write_uint(out, done.credential.0);
    frame::finish(out, start);
}

/// Appends the reply to an Auth, as a whole frame.
pub fn auth_reply(out: &mut Vec<u8>, id: u64, revision: Revision, auth_revision: u64) {
    let start = begin_reply(out, id, Op::Auth);
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, revision.0);
    msgpack::write_uint(out, auth_revision);
    frame::finish(out, start);
}

/// A permission that outlives its reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantedPermission {
    /// What is allowed.
    pub access: Access,
    /// The first key.
    pub key: Vec<u8>,
    /// Where the range ends, in the wire's form.
    pub end: Vec<u8>,
}

impl GrantedPermission {
    /// A copy of one.
    pub fn of(permission: &Permission<'_>) -> GrantedPermission {
        let Permission { key, end, access } = *permission;
        GrantedPermission { access, key: key.to_vec(), end: end.to_vec() }
    }
}

/// What there is to say about users and roles. What is not asked for is empty.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AuthAnswer {
    /// The store's revision.
    pub revision: Revision,
    /// How often users and roles were changed.
    pub auth_revision: u64,
    /// Whether rights count.
    pub enabled: bool,
    /// The user's.
    pub credential: Credential,
    /// Whether the user has a password.
    pub has_password: bool,
    /// The user's roles; all users; or all roles. Ascending.
    pub names: Vec<String>,
    /// The role's.
    pub permissions: Vec<GrantedPermission>,
}

/// Appends the reply to an AuthRead, as a whole frame.
pub fn auth_read_reply(out: &mut Vec<u8>, id: u64, answer: &AuthAnswer) {
    let length = |length: usize| u32::try_from(length).expect("limits.rs bounds users and roles");
    let start = begin_reply(out, id, Op::AuthRead);
    msgpack::write_array(out, 7);
    msgpack::write_uint(out, answer.revision.0);
    msgpack::write_uint(out, answer.auth_revision);
    fields::write_flag(out, answer.enabled);
    msgpack::write_uint(out, answer.credential.0);
    fields::write_flag(out, answer.has_password);
    msgpack::write_array(out, length(answer.names.len()));
    answer.names.iter().for_each(|name| fields::write_text(out, name));
    msgpack::write_array(out, length(answer.permissions.len()));
    for GrantedPermission { access, key, end } in &answer.permissions {
        msgpack::write_array(out, 3);
        msgpack::write_uint(out, access.code());
        msgpack::write_bin(out, key);
        msgpack::write_bin(out, end);
    }
    frame::finish(out, start);
}

pub(super) fn decode_challenge<'a>(
    fields: &mut Fields<'_, 'a>,
) -> Result<LoginChallenge<'a>, DecodeError> {
    let (nonce, salt, rounds) = (fields.bin()?, fields.bin()?, fields.uint()?);
    check_length("the length of a nonce", nonce, NONCE_BYTES_MAX)?;
    check_length("the length of a salt", salt, SALT_BYTES_MAX)?;
    Ok(LoginChallenge { nonce, salt, rounds })
}

pub(super) fn decode_login_done(fields: &mut Fields<'_, '_>) -> Result<LoginDone, DecodeError> {
    Ok(LoginDone { signature: key(fields)?, credential: Credential(fields.uint()?) })
}

pub(super) fn decode_answer(fields: &mut Fields<'_, '_>) -> Result<AuthAnswer, DecodeError> {
    let mut answer = AuthAnswer {
        revision: fields.revision()?,
        auth_revision: fields.uint()?,
        enabled: fields.flag()?,
        credential: Credential(fields.uint()?),
        has_password: fields.flag()?,
        ..AuthAnswer::default()
    };
    let mut names = fields.nested()?;
    while !names.is_empty() {
        answer.names.push(names.text()?.to_owned());
    }
    names.close()?;
    let mut permissions = fields.nested()?;
    while !permissions.is_empty() {
        let mut permission = permissions.nested()?;
        let found = permission.uint()?;
        let access = Access::from_code(found);
        let access = access.ok_or(DecodeError::Range { what: "a kind of permission", found })?;
        let (key, end) = (permission.bin()?.to_vec(), permission.bin()?.to_vec());
        permission.close()?;
        answer.permissions.push(GrantedPermission { access, key, end });
    }
    permissions.close()?;
    Ok(answer)
}
