//! Users and rights before both: the same requests in the name of the same users.

use super::{Answer, answer, before_both};
use crate::program::{Clients, block_on, get, put};
use crate::users::{Verb, by};
use crate::watch::Watches;
use raftd::gateway::proto::authpb::permission::Type;
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use std::collections::BTreeMap;

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Of the Auth service.
    Auth(Verb),
    /// For a token, by a password.
    LogIn(&'static str, &'static str),
    Put(&'static str),
    /// To put, and to hear what was there before.
    PutAndHear(&'static str),
    /// A range.
    Get(&'static str, &'static str),
    Delete(&'static str, &'static str),
    DeleteAndHear(&'static str),
    /// To put the first, and to read the second.
    Txn(&'static str, &'static str),
    Watch(&'static str, &'static str),
}

/// In whose name, and what. A name whose user has not logged in stands for a token that is none.
type Step = (&'static str, Asked);

const NOBODY: &str = "";

/// Before rights count. What 3.4 does otherwise than 3.5 is not here: ranges that hold nothing,
/// users without a password, `AuthStatus`, what nobody hears of watches and of users, and a token
/// that is shown while no rights count: 3.5 does not look at it, and neither do we.
const BEFORE: &[Step] = &[
    (NOBODY, Asked::LogIn("root", "top")),
    (NOBODY, Asked::Auth(Verb::Enable)),
    (NOBODY, Asked::Auth(Verb::UserList)),
    (NOBODY, Asked::Auth(Verb::UserAdd("root", Some("top")))),
    (NOBODY, Asked::Auth(Verb::UserAdd("root", Some("top")))),
    (NOBODY, Asked::Auth(Verb::UserAdd("", Some("top")))),
    (NOBODY, Asked::Auth(Verb::Enable)),
    (NOBODY, Asked::Auth(Verb::UserGrant("root", "nothing"))),
    (NOBODY, Asked::Auth(Verb::UserGrant("nobody", "root"))),
    (NOBODY, Asked::Auth(Verb::UserRevoke("root", "root"))),
    (NOBODY, Asked::Auth(Verb::UserGrant("root", "root"))),
    (NOBODY, Asked::Auth(Verb::UserGrant("root", "root"))),
    (NOBODY, Asked::Auth(Verb::UserGet("root"))),
    (NOBODY, Asked::Auth(Verb::UserGet("nobody"))),
    (NOBODY, Asked::Auth(Verb::UserDelete("nobody"))),
    (NOBODY, Asked::Auth(Verb::RoleAdd(""))),
    (NOBODY, Asked::Auth(Verb::RoleAdd("app"))),
    (NOBODY, Asked::Auth(Verb::RoleAdd("app"))),
    (NOBODY, Asked::Auth(Verb::RoleGrant("nothing", Type::Read, "a", "b"))),
    (NOBODY, Asked::Auth(Verb::RoleGrant("app", Type::Readwrite, "b", "d"))),
    (NOBODY, Asked::Auth(Verb::RoleGrant("app", Type::Read, "a", "c"))),
    (NOBODY, Asked::Auth(Verb::RoleGrant("app", Type::Write, "x", ""))),
    (NOBODY, Asked::Auth(Verb::RoleRevoke("app", "y", ""))),
    (NOBODY, Asked::Auth(Verb::RoleGet("app"))),
    (NOBODY, Asked::Auth(Verb::UserAdd("alice", Some("secret")))),
    (NOBODY, Asked::Auth(Verb::UserGrant("alice", "app"))),
    (NOBODY, Asked::Put("free")),
];

/// While they do.
const WHILE: &[Step] = &[
    (NOBODY, Asked::Auth(Verb::Enable)),
    (NOBODY, Asked::Put("b")),
    (NOBODY, Asked::Get("b", "")),
    ("alice", Asked::Put("b")),
    (NOBODY, Asked::LogIn("root", "wrong")),
    (NOBODY, Asked::LogIn("nobody", "top")),
    (NOBODY, Asked::LogIn("", "")),
    (NOBODY, Asked::LogIn("root", "top")),
    (NOBODY, Asked::LogIn("alice", "secret")),
    ("root", Asked::Put("z")),
    ("root", Asked::Put("a")),
    ("alice", Asked::Put("a")),
    ("alice", Asked::Put("b")),
    ("alice", Asked::Put("d")),
    ("alice", Asked::PutAndHear("b")),
    ("alice", Asked::PutAndHear("x")),
    ("alice", Asked::Put("x")),
    ("alice", Asked::Get("a", "d")),
    ("alice", Asked::Get("a", "d\0")),
    ("alice", Asked::Get("x", "")),
    ("alice", Asked::Get("z", "")),
    ("alice", Asked::Get("b", "\0")),
    ("alice", Asked::Txn("b", "a")),
    ("alice", Asked::Txn("b", "z")),
    ("alice", Asked::Txn("a", "b")),
    ("alice", Asked::Delete("b", "d")),
    ("alice", Asked::Delete("b", "e")),
    ("alice", Asked::DeleteAndHear("x")),
    ("alice", Asked::Delete("x", "")),
    ("alice", Asked::Watch("a", "c")),
    ("alice", Asked::Watch("z", "")),
    ("alice", Asked::Auth(Verb::UserList)),
    ("alice", Asked::Auth(Verb::RoleList)),
    ("alice", Asked::Auth(Verb::UserGet("alice"))),
    ("alice", Asked::Auth(Verb::UserGet("root"))),
    ("alice", Asked::Auth(Verb::RoleGet("app"))),
    ("alice", Asked::Auth(Verb::RoleAdd("other"))),
    ("alice", Asked::Auth(Verb::UserDelete("alice"))),
    ("alice", Asked::Auth(Verb::Disable)),
    ("root", Asked::Auth(Verb::UserDelete("root"))),
    ("root", Asked::Auth(Verb::UserRevoke("root", "root"))),
    ("root", Asked::Auth(Verb::RoleDelete("root"))),
    ("root", Asked::Auth(Verb::RoleRevoke("app", "b", "d"))),
    ("alice", Asked::Put("b")),
    ("root", Asked::Auth(Verb::RoleDelete("app"))),
    ("alice", Asked::Get("a", "")),
    ("root", Asked::Auth(Verb::UserGet("alice"))),
];

/// And when users go.
const BEHIND: &[Step] = &[
    ("root", Asked::Auth(Verb::UserChange("alice", "other"))),
    ("alice", Asked::Put("b")),
    (NOBODY, Asked::LogIn("alice", "secret")),
    (NOBODY, Asked::LogIn("alice", "other")),
    ("alice", Asked::Get("a", "")),
    ("root", Asked::Auth(Verb::UserDelete("alice"))),
    ("alice", Asked::Get("a", "")),
    ("root", Asked::Auth(Verb::UserList)),
    ("root", Asked::Auth(Verb::Disable)),
    (NOBODY, Asked::Put("b")),
];

/// One of both, and who has logged in there.
struct Side {
    clients: Clients,
    tokens: BTreeMap<&'static str, String>,
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { range_end: end.to_owned().into(), ..get(key) }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    DeleteRangeRequest { key, range_end, prev_kv: false }
}

impl Side {
    fn of(clients: Clients) -> Side {
        Side { clients, tokens: BTreeMap::new() }
    }

    /// What it answers, as it is compared.
    async fn hear(&mut self, (who, asked): Step) -> String {
        let token = match who {
            NOBODY => None,
            name => Some(self.tokens.get(name).map_or("nobody.1", |token| token)),
        };
        let mut kv = self.clients.kv();
        let told: Answer = match asked {
            Asked::Auth(verb) => {
                let told = self.clients.auth_by(token, verb).await;
                return told.unwrap_or_else(|why| format!("{:?}: {}", why.code(), why.message()));
            }
            Asked::LogIn(name, password) => match self.clients.log_in(name, password).await {
                Ok(token) => {
                    self.tokens.insert(name, token);
                    return "a token".to_owned();
                }
                Err(why) => return format!("{:?}: {}", why.code(), why.message()),
            },
            Asked::Watch(key, end) => {
                let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
                let create = WatchCreateRequest { key, range_end, ..Default::default() };
                let (_watches, said) = Watches::begin(&self.clients, token, create).await;
                // By which number it says so differs between 3.4 and 3.5.
                return format!("{} {} {}", said.created, said.canceled, said.cancel_reason);
            }
            Asked::Put(key) => answer(kv.put(by(token, put(key, "v"))).await, |it| &mut it.header),
            Asked::PutAndHear(key) => {
                let put = PutRequest { prev_kv: true, ..put(key, "v") };
                answer(kv.put(by(token, put)).await, |it| &mut it.header)
            }
            Asked::Get(key, end) => {
                answer(kv.range(by(token, range(key, end))).await, |it| &mut it.header)
            }
            Asked::Delete(key, end) => {
                answer(kv.delete_range(by(token, delete(key, end))).await, |it| &mut it.header)
            }
            Asked::DeleteAndHear(key) => {
                let delete = DeleteRangeRequest { prev_kv: true, ..delete(key, "") };
                answer(kv.delete_range(by(token, delete)).await, |it| &mut it.header)
            }
            Asked::Txn(one, other) => {
                let both = [Request::RequestPut(put(one, "t")), Request::RequestRange(get(other))];
                let success = both.map(|it| RequestOp { request: Some(it) }).to_vec();
                let txn = TxnRequest { success, ..TxnRequest::default() };
                answer(kv.txn(by(token, txn)).await, |it| {
                    super::strip_txn(it);
                    &mut it.header
                })
            }
        };
        told.text
    }
}

#[test]
fn users_and_rights_have_the_answers_of_a_real_etcd() {
    before_both(|gateway, etcd| {
        block_on(async {
            let mut ours = Side::of(gateway.clients().await);
            let mut etcds = Side::of(etcd.clients());
            for step in BEFORE.iter().chain(WHILE).chain(BEHIND) {
                let expected = etcds.hear(*step).await;
                assert_eq!(ours.hear(*step).await, expected, "{step:?}");
            }
        });
    });
}
