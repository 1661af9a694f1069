//! Requests of the Auth service, and of others in somebody's name.

use super::program::{Clients, put};
use raftd::gateway::proto::authpb::permission::Type;
use raftd::gateway::proto::authpb::{Permission, UserAddOptions};
use raftd::gateway::proto::etcdserverpb as pb;
use raftd::gateway::proto::etcdserverpb::ResponseHeader;
use tonic::{Request, Status};

/// A message of whoever has this token.
pub(crate) fn by<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

/// What can be asked of the Auth service, but for tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Enable,
    Disable,
    Status,
    /// A user, and its password; none if it is to have none.
    UserAdd(&'static str, Option<&'static str>),
    UserGet(&'static str),
    UserList,
    UserDelete(&'static str),
    /// A user, and another password.
    UserChange(&'static str, &'static str),
    /// A user, and a role.
    UserGrant(&'static str, &'static str),
    UserRevoke(&'static str, &'static str),
    RoleAdd(&'static str),
    RoleGet(&'static str),
    RoleList,
    RoleDelete(&'static str),
    /// A role; what it may do from one key to another.
    RoleGrant(&'static str, Type, &'static str, &'static str),
    RoleRevoke(&'static str, &'static str, &'static str),
}

/// An answer as a text, without what names the cluster.
macro_rules! told {
    ($answered:expr) => {{
        let mut answer = $answered.await?.into_inner();
        let revision = answer.header.expect("it has one").revision;
        answer.header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        Ok(format!("{answer:?}"))
    }};
}

impl Clients {
    /// Asks in the name of whoever has this token.
    pub(crate) async fn auth_by(&self, token: Option<&str>, verb: Verb) -> Result<String, Status> {
        let mut auth = self.auth();
        let name = str::to_owned;
        match verb {
            Verb::Enable => told!(auth.auth_enable(by(token, pb::AuthEnableRequest {}))),
            Verb::Disable => told!(auth.auth_disable(by(token, pb::AuthDisableRequest {}))),
            Verb::Status => told!(auth.auth_status(by(token, pb::AuthStatusRequest {}))),
            Verb::UserAdd(user, password) => {
                let options = Some(UserAddOptions { no_password: password.is_none() });
                let (name, password) = (name(user), name(password.unwrap_or_default()));
                let hashed_password = String::new();
                let add = pb::AuthUserAddRequest { name, password, options, hashed_password };
                told!(auth.user_add(by(token, add)))
            }
            Verb::UserGet(user) => {
                told!(auth.user_get(by(token, pb::AuthUserGetRequest { name: name(user) })))
            }
            Verb::UserList => told!(auth.user_list(by(token, pb::AuthUserListRequest {}))),
            Verb::UserDelete(user) => {
                told!(auth.user_delete(by(token, pb::AuthUserDeleteRequest { name: name(user) })))
            }
            Verb::UserChange(user, password) => {
                let (name, password) = (name(user), name(password));
                let hashed_password = String::new();
                let change = pb::AuthUserChangePasswordRequest { name, password, hashed_password };
                told!(auth.user_change_password(by(token, change)))
            }
            Verb::UserGrant(user, role) => {
                let grant = pb::AuthUserGrantRoleRequest { user: name(user), role: name(role) };
                told!(auth.user_grant_role(by(token, grant)))
            }
            Verb::UserRevoke(user, role) => {
                let revoke = pb::AuthUserRevokeRoleRequest { name: name(user), role: name(role) };
                told!(auth.user_revoke_role(by(token, revoke)))
            }
            Verb::RoleAdd(role) => {
                told!(auth.role_add(by(token, pb::AuthRoleAddRequest { name: name(role) })))
            }
            Verb::RoleGet(role) => {
                told!(auth.role_get(by(token, pb::AuthRoleGetRequest { role: name(role) })))
            }
            Verb::RoleList => told!(auth.role_list(by(token, pb::AuthRoleListRequest {}))),
            Verb::RoleDelete(role) => {
                told!(auth.role_delete(by(token, pb::AuthRoleDeleteRequest { role: name(role) })))
            }
            Verb::RoleGrant(role, kind, key, end) => {
                let (key, range_end) = (name(key).into(), name(end).into());
                let perm = Permission { perm_type: i32::from(kind), key, range_end };
                let name = name(role);
                let grant = pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) };
                told!(auth.role_grant_permission(by(token, grant)))
            }
            Verb::RoleRevoke(role, key, end) => {
                let (key, range_end) = (name(key).into(), name(end).into());
                let revoke =
                    pb::AuthRoleRevokePermissionRequest { role: name(role), key, range_end };
                told!(auth.role_revoke_permission(by(token, revoke)))
            }
        }
    }

    /// A password for a token.
    pub(crate) async fn log_in(&self, user: &str, password: &str) -> Result<String, Status> {
        let (name, password) = (user.to_owned(), password.to_owned());
        let asked = pb::AuthenticateRequest { name, password };
        Ok(self.auth().authenticate(asked).await?.into_inner().token)
    }

    /// Puts a key in the name of whoever has this token.
    pub(crate) async fn put_by(&self, token: Option<&str>, key: &str) -> Result<(), Status> {
        self.kv().put(by(token, put(key, "v"))).await.map(|_| ())
    }

    /// Makes `root`, and `alice` who may read and write what begins with `a/`; from then on rights
    /// count.
    pub(crate) async fn guard(&self) {
        for verb in [
            Verb::UserAdd("root", Some("top")),
            Verb::UserGrant("root", "root"),
            Verb::UserAdd("alice", Some("secret")),
            Verb::RoleAdd("app"),
            Verb::RoleGrant("app", Type::Readwrite, "a/", "a0"),
            Verb::UserGrant("alice", "app"),
            Verb::Enable,
        ] {
            self.auth_by(None, verb).await.unwrap_or_else(|why| panic!("{verb:?}: {why}"));
        }
    }
}
