//! Users, roles and their rights.

use crate::types::Revision;
use crate::wire::auth::{AuthAnswer, AuthRequest};
use crate::wire::client::{AuthChange, AuthVerb, Command};
use crate::wire::reply::ReplyBody;

use super::cluster::{Client, Intent};
use super::connection::Connection;
use super::error::Error;

/// What a change of users or roles did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthChanged {
    /// The store's revision.
    pub revision: Revision,
    /// How often users and roles were changed.
    pub auth_revision: u64,
}

impl Client {
    /// Changes users or roles, or whether rights count.
    pub fn change_auth(&mut self, verb: &AuthVerb<'_>) -> Result<AuthChanged, Error> {
        let mut args = Vec::new();
        verb.encode(&mut args);
        self.check_size(args.len())?;
        let change = AuthChange::from_args(&args).map_err(|why| Error::Refused {
            endpoint: "the client".to_owned(),
            source: crate::wire::error::Error::BadRequest { why: why.to_string().into() },
        })?;
        self.write(Command::Auth(change), |body| {
            let ReplyBody::Auth { revision, auth_revision } = body else { return None };
            Some(AuthChanged { revision, auth_revision })
        })
    }

    /// What there is to say about users and roles. Panics for a login, which connections do.
    pub fn read_auth(&mut self, request: &AuthRequest<'_>) -> Result<AuthAnswer, Error> {
        assert!(!matches!(request, AuthRequest::Login { .. }), "see ClientOptions::login");
        let deadline = self.deadline();
        let send = |connection: &mut Connection| connection.auth(request);
        self.call(Intent::Read, deadline, send, |body| {
            if let ReplyBody::AuthRead(answer) = body { Some(*answer) } else { None }
        })
    }
}
