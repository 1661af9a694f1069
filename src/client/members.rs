//! Who the members are, and requests to change them or their leader.

use super::clock::{Deadline, back_off};
use super::cluster::{Client, Intent};
use super::connection::Connection;
use super::error::{ConnectionError, Error};
use crate::types::{ClusterId, LogIndex, NodeId};
use crate::wire::members::{MemberList, MemberRequest};
use crate::wire::reply::ReplyBody;
use std::time::Duration;

/// The cluster that one of `endpoints` serves. Asks for as long as it takes: a server that is to
/// join can do nothing else.
pub fn find_cluster(endpoints: &[String], mut complain: impl FnMut(&ConnectionError)) -> ClusterId {
    loop {
        for endpoint in endpoints {
            let patience = Deadline::after(Duration::from_secs(1));
            match Connection::open(endpoint, ClusterId(0), patience) {
                Ok(connection) if connection.welcome().genesis != 0 => {
                    return connection.welcome().cluster_id;
                }
                Ok(_) => {} // waits for its cluster to begin
                Err(error) => complain(&error),
            }
        }
        back_off(Deadline::after(Duration::from_secs(1)));
    }
}

impl Client {
    /// Waits a little, as between two attempts: for whoever looks again and again.
    pub fn pause(&self) {
        back_off(Deadline::after(Duration::from_secs(1)));
    }

    /// The members as their leader sees them.
    pub fn member_list(&mut self) -> Result<MemberList, Error> {
        let deadline = self.deadline();
        self.call(Intent::Read, deadline, Connection::member_list, |body| {
            if let ReplyBody::MemberList(list) = body { Some(*list) } else { None }
        })
    }

    /// Changes the members; answers once the new configuration is committed, with the index of its
    /// entry. A new member is a learner by then, and becomes a voter once it has caught up.
    ///
    /// Panics for a transfer, which changes no configuration.
    pub fn change_members(&mut self, request: &MemberRequest<'_>) -> Result<LogIndex, Error> {
        assert!(!matches!(request, MemberRequest::Transfer { .. }), "see transfer_leader");
        let deadline = self.deadline();
        self.call(
            Intent::Write,
            deadline,
            |it| it.member_request(request),
            |body| {
                if let ReplyBody::MemberChange { index, .. } = body { Some(index) } else { None }
            },
        )
    }

    /// Lets another voter lead: `target`, or whoever's log is furthest. Answers who leads.
    pub fn transfer_leader(&mut self, target: Option<NodeId>) -> Result<NodeId, Error> {
        let request = MemberRequest::Transfer { node: target };
        // Repeating it is harmless if it names somebody: who leads has nothing to take over.
        let intent = if target.is_some() { Intent::Read } else { Intent::Write };
        let deadline = self.deadline();
        self.call(
            intent,
            deadline,
            |it| it.member_request(&request),
            |body| {
                if let ReplyBody::Transfer { leader } = body { Some(leader) } else { None }
            },
        )
    }
}
