//! The examples of logins, users and roles in protocol.md; whatever is said of them, there and
//! back.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use raftd::client::{Connection, ConnectionError, Deadline, Login};
use raftd::codec::msgpack::{self, Reader};
use raftd::kv::command::{self, Asker, EntryHeader};
use raftd::limits::{PASSWORD_ROUNDS_MAX, PASSWORD_ROUNDS_MIN};
use raftd::types::{ClusterId, Credential, Revision};
use raftd::wire::auth::{
    self, AuthAnswer, AuthRequest, GrantedPermission, LoginChallenge, LoginDone, decode_as,
    decode_login_proof, in_name_of,
};
use raftd::wire::client::{
    self, Access, AuthChange, AuthVerb, Command, Op, PasswordProof, Permission, Request,
};
use raftd::wire::hello::{HelloReply, encode_hello_reply};
use raftd::wire::reply::ReplyBody;

use super::client::{PATIENT, read_frame, welcome};
use super::samples::{Kind, Written, request_again, text};

const SALT: &[u8] = &[0x11; 16];
const NONCE: &[u8] = &[0x44; 16];
const KEY: [u8; 32] = [0x22; 32];

fn change(out: &mut Vec<u8>, id: u64, verb: &AuthVerb<'_>) {
    let mut args = Vec::new();
    verb.encode(&mut args);
    let change = AuthChange::from_args(&args).unwrap();
    client::command_request(out, id, None, Command::Auth(change));
}

pub(super) fn samples() -> Vec<Written> {
    vec![
        (Kind::Request, "auth-enable", |out| change(out, 19, &AuthVerb::Enable { secret: &KEY })),
        (Kind::Request, "user-add", |out| {
            let (stored_key, server_key) = (&KEY, &[0x33; 32]);
            let password = PasswordProof { salt: SALT, rounds: 100_000, stored_key, server_key };
            let name = "root";
            change(out, 20, &AuthVerb::UserAdd { name, password: Some(password) });
        }),
        (Kind::Request, "role-grant-permission", |out| {
            let permission = Permission { key: b"a", end: b"b", access: Access::ReadWrite };
            change(out, 21, &AuthVerb::RoleGrantPermission { role: "r", permission });
        }),
        (Kind::Reply, "auth", |out| auth::auth_reply(out, 21, Revision(2), 5)),
        (Kind::Request, "login", |out| {
            auth::auth_request(out, 1, &AuthRequest::Login { user: "root", nonce: NONCE });
        }),
        (Kind::Reply, "login", |out| {
            let challenge = LoginChallenge { nonce: NONCE, salt: SALT, rounds: 100_000 };
            auth::login_reply(out, 1, &challenge);
        }),
        (Kind::Request, "login-proof", |out| auth::login_proof_request(out, 2, &KEY)),
        (Kind::Reply, "login-proof", |out| {
            let done = LoginDone { signature: KEY, credential: Credential(2) };
            auth::login_proof_reply(out, 2, &done);
        }),
        (Kind::Request, "auth-read", |out| {
            auth::auth_request(out, 22, &AuthRequest::Role { name: "r" });
        }),
        (Kind::Reply, "auth-read", |out| {
            let (access, key, end) = (Access::ReadWrite, b"a".to_vec(), b"b".to_vec());
            let answer = AuthAnswer {
                revision: Revision(2),
                auth_revision: 5,
                enabled: true,
                permissions: vec![GrantedPermission { access, key, end }],
                ..AuthAnswer::default()
            };
            auth::auth_read_reply(out, 22, &answer);
        }),
        (Kind::Reply, "auth-read-user", |out| {
            let answer = AuthAnswer {
                revision: Revision(2),
                auth_revision: 5,
                enabled: true,
                credential: Credential(2),
                has_password: true,
                names: vec!["root".to_owned()],
                ..AuthAnswer::default()
            };
            auth::auth_read_reply(out, 23, &answer);
        }),
        (Kind::Request, "put-for-somebody", |out| {
            let from = out.len();
            client::put_request(out, 7, b"a", b"1");
            in_name_of(out, from, Credential(3));
        }),
        (Kind::Entry, "for-somebody", |out| {
            command::encode_header(out, EntryHeader { stamp_ms: 1_700_000_000_000 });
            let (login, acting) = (Credential(2), Credential(3));
            command::encode_asker(out, Asker { login, acting });
            command::encode_command(out, Command::Put { key: b"a", value: b"1" });
        }),
    ]
}

/// Reads a request about logins, users and roles, or for somebody, and writes what it said.
pub(super) fn auth_request_again(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), String> {
    if request.op == Op::LoginProof {
        let proof = decode_login_proof(request.args).map_err(text)?;
        auth::login_proof_request(out, request.id, &proof);
        return Ok(());
    }
    if request.op == Op::As {
        let (acting, inner) = decode_as(request).map_err(text)?;
        let mut body = Vec::new();
        msgpack::write_array(&mut body, 3);
        msgpack::write_uint(&mut body, inner.id);
        body.extend_from_slice(inner.command);
        let from = out.len();
        request_again(out, &body)?;
        in_name_of(out, from, acting);
        return Ok(());
    }
    let asked = AuthRequest::decode(request.op, request.args).map_err(text)?;
    auth::auth_request(out, request.id, &asked.expect("the op says so"));
    Ok(())
}

/// Writes what a reply about them said.
pub(super) fn auth_reply_again(out: &mut Vec<u8>, id: u64, body: &ReplyBody<'_>) {
    if let ReplyBody::Auth { revision, auth_revision } = body {
        auth::auth_reply(out, id, *revision, *auth_revision);
    } else if let ReplyBody::Login(challenge) = body {
        auth::login_reply(out, id, challenge);
    } else if let ReplyBody::LoginProof(done) = body {
        auth::login_proof_reply(out, id, done);
    } else if let ReplyBody::AuthRead(answer) = body {
        auth::auth_read_reply(out, id, answer);
    } else {
        panic!("{body:?} is about none of these");
    }
}

/// A request that a gateway makes for somebody must not be one that it makes for itself.
#[test]
fn nobody_logs_in_for_somebody_and_nobody_asks_for_somebody_for_somebody() {
    for op in [Op::Login, Op::LoginProof, Op::As] {
        let mut body = Vec::new();
        msgpack::write_array(&mut body, 3);
        msgpack::write_uint(&mut body, 7);
        body.push(Op::As.code());
        msgpack::write_array(&mut body, 3);
        msgpack::write_uint(&mut body, 2);
        body.push(op.code());
        msgpack::write_array(&mut body, 0);
        let request = client::decode_request(&body).unwrap();
        assert_eq!(request.op, Op::As);
        assert!(decode_as(&request).is_err(), "{op:?}");
    }
}

#[test]
fn a_request_for_somebody_is_the_request_itself_inside() {
    let mut plain = Vec::new();
    client::put_request(&mut plain, 300, b"key", &[7; 300]);
    let mut wrapped = plain.clone();
    wrapped.splice(0..0, *b"before");
    in_name_of(&mut wrapped, 6, Credential(1 << 40));
    let body = &wrapped[6 + 4..];
    let announced = u32::from_le_bytes(*wrapped[6..].first_chunk().unwrap());
    assert_eq!(usize::try_from(announced).unwrap(), body.len());
    let request = client::decode_request(body).unwrap();
    let (acting, inner) = decode_as(&request).unwrap();
    let itself = client::decode_request(&plain[4..]).unwrap();
    assert_eq!((acting, inner), (Credential(1 << 40), itself));
    assert_eq!(Reader::new(inner.args).array(), Ok(2));
}

/// A client logs in at a server that asks for so many rounds and signs anything with `KEY`.
fn logs_in_at_an_impostor(rounds: u64) -> Result<Option<Credential>, ConnectionError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let impostor = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut input = Vec::new();
        read_frame(&mut stream, &mut input).unwrap();
        let mut out = Vec::new();
        encode_hello_reply(&mut out, &HelloReply::Welcome(welcome()));
        stream.write_all(&out).unwrap();
        let asked = read_frame(&mut stream, &mut input).unwrap();
        let id = client::decode_request(&asked).unwrap().id;
        out.clear();
        auth::login_reply(&mut out, id, &LoginChallenge { nonce: NONCE, salt: SALT, rounds });
        stream.write_all(&out).unwrap();
        // Whoever sees through it sends no proof.
        let proof = read_frame(&mut stream, &mut input)?;
        let request = client::decode_request(&proof).unwrap();
        assert!(!request.args.windows(6).any(|bytes| bytes == b"secret"));
        out.clear();
        let done = LoginDone { signature: KEY, credential: Credential(2) };
        auth::login_proof_reply(&mut out, request.id, &done);
        stream.write_all(&out).unwrap();
        Some(())
    });
    let deadline = Deadline::after(PATIENT);
    let mut connection = Connection::open(&address, ClusterId(0), deadline).unwrap();
    let logged_in = connection.log_in(&Login::new("root", "secret"), deadline);
    drop(connection);
    let proved = impostor.join().unwrap().is_some();
    assert_eq!(proved, rounds <= PASSWORD_ROUNDS_MAX);
    logged_in
}

/// A server that does not know what belongs to the password is none of the cluster's.
#[test]
fn a_client_believes_no_server_that_does_not_know_its_password() {
    for rounds in [PASSWORD_ROUNDS_MIN, PASSWORD_ROUNDS_MAX + 1] {
        let logged_in = logs_in_at_an_impostor(rounds);
        assert!(matches!(logged_in, Err(ConnectionError::Impostor { .. })), "{logged_in:?}");
    }
}
