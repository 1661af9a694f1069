//! Guests look at users and roles: what they see was so at some moment, and was theirs to see.

use super::guests::USERS;
use super::logins::comes_and_goes;
use super::stewards::ROLES;
use crate::coverage::Point;
use crate::invariants::must;
use crate::rights::{Needs, ROOT, Rights};
use crate::trace::{Who, say};
use crate::world::World;
use raftd::kv::{Asker, AuthRefusal, Denial};
use raftd::wire::auth::{AuthAnswer, AuthRequest, GrantedPermission, auth_request, in_name_of};
use raftd::wire::error::Error;
use raftd::wire::reply::ReplyBody;

/// A look under way.
#[derive(Debug)]
pub(super) struct Look {
    what: AuthRequest<'static>,
    asker: Asker,
    /// The earliest moment that it can show.
    floor: usize,
}

/// What somebody is shown, or why not.
type Shown = Result<Result<AuthAnswer, AuthRefusal>, Denial>;

fn shown_by(body: &ReplyBody<'_>) -> Option<Shown> {
    if let ReplyBody::AuthRead(answer) = body {
        Some(Ok(Ok((**answer).clone())))
    } else if let ReplyBody::Error(Error::Auth { why }) = body {
        Some(Ok(Err(*why)))
    } else if let ReplyBody::Error(Error::Denied { why }) = body {
        Some(Err(*why))
    } else {
        None
    }
}

impl Look {
    /// Whether whoever asks may see that.
    fn allowed(&self, rights: &Rights) -> Result<(), Denial> {
        let Err(why) = rights.judge(self.asker, &Needs { root: true, keys: Vec::new() }) else {
            return Ok(());
        };
        // Everybody sees itself, and the roles that it has.
        let Asker { login, acting } = self.asker;
        let own = rights.name_of(if acting.is_some() { acting } else { login });
        let sees = match self.what {
            AuthRequest::User { name } => own == Some(name),
            AuthRequest::Role { name } => {
                own.is_some_and(|own| rights.users[own].roles.contains(name))
            }
            AuthRequest::Login { .. }
            | AuthRequest::Status
            | AuthRequest::Users
            | AuthRequest::Roles => false,
        };
        if why == Denial::NotPermitted && sees && self.acts(rights) { Ok(()) } else { Err(why) }
    }

    /// Whether it asks for itself, or as one who may ask for others.
    fn acts(&self, rights: &Rights) -> bool {
        let login = rights.name_of(self.asker.login);
        let is_root = login.is_some_and(|login| rights.users[login].roles.contains(ROOT));
        !self.asker.acting.is_some() || is_root
    }

    fn shown(&self, rights: &Rights) -> Shown {
        self.allowed(rights)?;
        let mut answer = AuthAnswer {
            auth_revision: rights.revision,
            enabled: rights.enabled,
            ..AuthAnswer::default()
        };
        match self.what {
            AuthRequest::User { name } => {
                let Some(user) = rights.users.get(name) else {
                    return Ok(Err(AuthRefusal::UserNotFound));
                };
                answer.credential = user.credential;
                answer.has_password = user.password.is_some();
                answer.names = user.roles.iter().cloned().collect();
            }
            AuthRequest::Role { name } => {
                let Some(permissions) = rights.roles.get(name) else {
                    return Ok(Err(AuthRefusal::RoleNotFound));
                };
                let all = permissions.iter().map(|((key, end), access)| GrantedPermission {
                    access: *access,
                    key: key.clone(),
                    end: end.clone(),
                });
                answer.permissions = all.collect();
            }
            AuthRequest::Users => answer.names = rights.users.keys().cloned().collect(),
            AuthRequest::Roles => answer.names = rights.roles.keys().cloned().collect(),
            AuthRequest::Status | AuthRequest::Login { .. } => {}
        }
        Ok(Ok(answer))
    }
}

impl World {
    pub(super) fn look_as_guest(&mut self, client: usize) {
        let (asker, acting) = self.some_asker(client);
        let it = &mut self.crowd.clients[client];
        let chance = &mut it.guest.chance;
        let what = match chance.below(8) {
            0 => AuthRequest::Status,
            1 => AuthRequest::Users,
            2 => AuthRequest::Roles,
            3..=5 => AuthRequest::User { name: chance.pick(&USERS) },
            _ => AuthRequest::Role { name: chance.pick(&ROLES) },
        };
        let pipe = it.guest.line.as_ref().expect("it has entered").pipe;
        let mut bytes = Vec::new();
        auth_request(&mut bytes, it.requests + 1, &what);
        acting.into_iter().for_each(|acting| in_name_of(&mut bytes, 0, acting));
        let request = self.send_request(client, pipe, bytes);
        say!(self, Who::Client(client), "look", "#{request} {asker:?} {what:?}");
        let floor = self.rights_floor_of_leaders();
        let looks = &mut self.crowd.clients[client].guest.looks;
        looks.insert(request, Look { what, asker, floor });
    }

    /// Whether an answer is for a look; then it is judged.
    pub(super) fn on_look(&mut self, client: usize, request: u64, body: &ReplyBody<'_>) -> bool {
        let looks = &mut self.crowd.clients[client].guest.looks;
        let Some(look) = looks.remove(&request) else { return false };
        let Some(shown) = shown_by(body) else {
            let passes = matches!(body, ReplyBody::Error(error) if comes_and_goes(error));
            must!(passes, "Answer", "{look:?} was answered {body:?}");
            return true;
        };
        self.coverage.hit_if(matches!(shown, Ok(Ok(_))), Point::RightsSeen);
        let same = |rights: &Rights| {
            let mut due = look.shown(rights);
            if let (Ok(Ok(due)), Ok(Ok(shown))) = (&mut due, &shown) {
                // The store's own revision is for others to judge.
                due.revision = shown.revision;
            }
            due == shown
        };
        must!(
            self.crowd.ledger.since(look.floor).any(same) || !self.sees_rights(),
            "NoRightNoService",
            "{look:?} was shown {shown:?}, which was so at no moment"
        );
        true
    }
}
