//! The Auth service, and who asks of all other services.
//!
//! ```text
//! mod            users, roles and their rights, by etcd's names
//! authenticate   a password for a token            token      what that is
//! identity       in whose name a node is asked     login      how a password is proved
//! named          users by their certificates       denied     what comes of a refusal
//! ```
//!
//! Users, roles and rights are raftd's, and so is every judgement. A password that is to be set is
//! hashed here, as every client of raftd does it: no node and no log has passwords.
mod authenticate;
mod denied;
mod identity;
mod login;
mod named;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use super::calls::{Cluster, Repeat, Whom};
use super::failure::{PERMISSION_NOT_GIVEN, known, known_auth, unexpected};
use super::proto::authpb;
use super::proto::authpb::permission::Type;
use super::proto::etcdserverpb as pb;
use super::proto::etcdserverpb::auth_server::Auth;
use crate::wire::auth::{AuthAnswer, AuthRefusal, AuthRequest, GrantedPermission, auth_request};
use crate::wire::client::{Access, AuthChange, AuthVerb, Command, Permission};
use crate::wire::reply::ReplyBody;

pub(super) use identity::{Identity, Who};
pub(super) use login::{Login, LoginError};
use login::{NewPassword, random};

/// The role that allows everything, whatever it was granted.
const ROOT: &str = "root";

/// Users and roles, by etcd's names.
pub(super) struct AuthService(pub(super) Arc<Cluster>);

type Header = Option<pb::ResponseHeader>;

/// What a node answered to a question.
struct Found {
    header: Header,
    answer: AuthAnswer,
    /// What that took. Bytes.
    bytes: usize,
}

impl AuthService {
    /// Does a change.
    async fn change(&self, who: &Who, verb: &AuthVerb<'_>) -> Result<Header, Status> {
        let mut args = Vec::new();
        verb.encode(&mut args);
        let change = AuthChange::from_args(&args);
        let change = change.map_err(|why| Status::invalid_argument(format!("raftd: {why}")))?;
        let answer = self.0.write(who, args.len(), Command::Auth(change)).await?;
        let ReplyBody::Auth { revision, .. } = answer.reply()? else { return Err(unexpected()) };
        Ok(Some(self.0.header(answer.node, revision)))
    }

    async fn read(&self, who: &Who, asked: &AuthRequest<'_>) -> Result<Found, Status> {
        let encode = |out: &mut Vec<u8>, id| auth_request(out, id, asked);
        let answer = self.0.ask(who, Whom::Leader, Repeat::Freely, 0, encode).await?;
        let ReplyBody::AuthRead(found) = answer.reply()? else { return Err(unexpected()) };
        let header = Some(self.0.header(answer.node, found.revision));
        Ok(Found { header, answer: *found, bytes: answer.body.len() })
    }

    /// Hashes a password that whoever asks may set: nobody else is worth the work.
    async fn new_password(&self, who: &Who, password: &str) -> Result<NewPassword, Status> {
        self.0.administer(who).await?;
        let hashed = NewPassword::of(password).await;
        hashed.map_err(|why| Status::unavailable(format!("raftd: {why}")))
    }
}

impl Cluster {
    /// Refuses whoever has not the role `root`, if rights count: nobody else may ask whether they
    /// do.
    pub(super) async fn administer(&self, who: &Who) -> Result<(), Status> {
        let encode = |out: &mut Vec<u8>, id| auth_request(out, id, &AuthRequest::Status);
        self.ask(who, Whom::Leader, Repeat::Freely, 0, encode).await.map(|_| ())
    }
}

/// Who asks, and what. Refuses it if it is to be refused while nobody is known to lead.
fn opened<T>(cluster: &Cluster, request: Request<T>) -> Result<(Who, T), Status> {
    cluster.check_leader(&request)?;
    Ok((Who::of(&request), request.into_inner()))
}

fn access(kind: i32) -> Result<Access, Status> {
    match Type::try_from(kind) {
        Ok(Type::Read) => Ok(Access::Read),
        Ok(Type::Write) => Ok(Access::Write),
        Ok(Type::Readwrite) => Ok(Access::ReadWrite),
        Err(_) => Err(known(known_auth(AuthRefusal::InvalidAuthMgmt))),
    }
}

fn permission(it: GrantedPermission) -> authpb::Permission {
    let kind = match it.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    let (key, range_end) = (it.key.into(), it.end.into());
    authpb::Permission { perm_type: i32::from(kind), key, range_end }
}

/// What etcd shows of the role that allows everything.
fn everything() -> authpb::Permission {
    let range_end = Bytes::from_static(&[0]);
    authpb::Permission { perm_type: i32::from(Type::Readwrite), key: Bytes::new(), range_end }
}

#[async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (who, pb::AuthEnableRequest {}) = opened(&self.0, request)?;
        let secret = random().map_err(|why| Status::unavailable(format!("raftd: {why}")))?;
        let header = self.change(&who, &AuthVerb::Enable { secret: &secret }).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (who, pb::AuthDisableRequest {}) = opened(&self.0, request)?;
        let header = self.change(&who, &AuthVerb::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (who, pb::AuthStatusRequest {}) = opened(&self.0, request)?;
        let Found { header, answer, .. } = self.read(&who, &AuthRequest::Status).await?;
        let (enabled, auth_revision) = (answer.enabled, answer.auth_revision);
        Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let (_, pb::AuthenticateRequest { name, password }) = opened(&self.0, request)?;
        let token = authenticate::authenticate(&self.0, &name, &password).await?;
        let header = Some(self.0.header_of_home(self.0.nodes.revision()));
        Ok(Response::new(pb::AuthenticateResponse { header, token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (who, asked) = opened(&self.0, request)?;
        let wants_none = asked.options.is_some_and(|options| options.no_password);
        let password =
            if wants_none { None } else { Some(self.new_password(&who, &asked.password).await?) };
        let password = password.as_ref().map(NewPassword::proof);
        let header = self.change(&who, &AuthVerb::UserAdd { name: &asked.name, password }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (who, pb::AuthUserGetRequest { name }) = opened(&self.0, request)?;
        let asked = AuthRequest::User { name: &name };
        let Found { header, answer, bytes } = self.read(&who, &asked).await?;
        self.0.try_hold(bytes, pb::AuthUserGetResponse { header, roles: answer.names })
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (who, pb::AuthUserListRequest {}) = opened(&self.0, request)?;
        let Found { header, answer, bytes } = self.read(&who, &AuthRequest::Users).await?;
        self.0.try_hold(bytes, pb::AuthUserListResponse { header, users: answer.names })
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let (who, pb::AuthUserDeleteRequest { name }) = opened(&self.0, request)?;
        let header = self.change(&who, &AuthVerb::UserDelete { name: &name }).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (who, asked) = opened(&self.0, request)?;
        let password = self.new_password(&who, &asked.password).await?;
        let (name, password) = (&*asked.name, password.proof());
        let header = self.change(&who, &AuthVerb::UserChangePassword { name, password }).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let (who, pb::AuthUserGrantRoleRequest { user, role }) = opened(&self.0, request)?;
        let grant = AuthVerb::UserGrantRole { user: &user, role: &role };
        let header = self.change(&who, &grant).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let (who, pb::AuthUserRevokeRoleRequest { name, role }) = opened(&self.0, request)?;
        let revoke = AuthVerb::UserRevokeRole { user: &name, role: &role };
        let header = self.change(&who, &revoke).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let (who, pb::AuthRoleAddRequest { name }) = opened(&self.0, request)?;
        let header = self.change(&who, &AuthVerb::RoleAdd { name: &name }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (who, pb::AuthRoleGetRequest { role }) = opened(&self.0, request)?;
        let asked = AuthRequest::Role { name: &role };
        let Found { header, answer, bytes } = self.read(&who, &asked).await?;
        let perm = if role == ROOT {
            vec![everything()]
        } else {
            answer.permissions.into_iter().map(permission).collect()
        };
        self.0.try_hold(bytes, pb::AuthRoleGetResponse { header, perm })
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (who, pb::AuthRoleListRequest {}) = opened(&self.0, request)?;
        let Found { header, answer, bytes } = self.read(&who, &AuthRequest::Roles).await?;
        self.0.try_hold(bytes, pb::AuthRoleListResponse { header, roles: answer.names })
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let (who, pb::AuthRoleDeleteRequest { role }) = opened(&self.0, request)?;
        let header = self.change(&who, &AuthVerb::RoleDelete { name: &role }).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let (who, asked) = opened(&self.0, request)?;
        let granted = asked.perm.ok_or_else(|| known(PERMISSION_NOT_GIVEN))?;
        let (key, end) = (&granted.key[..], &granted.range_end[..]);
        let permission = Permission { key, end, access: access(granted.perm_type)? };
        let grant = AuthVerb::RoleGrantPermission { role: &asked.name, permission };
        let header = self.change(&who, &grant).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let (who, asked) = opened(&self.0, request)?;
        let (role, key, end) = (&*asked.role, &asked.key[..], &asked.range_end[..]);
        let header = self.change(&who, &AuthVerb::RoleRevokePermission { role, key, end }).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
