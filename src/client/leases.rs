//! Leases: keys that go when nobody asks for them to stay.

use crate::types::Revision;
use crate::wire::client::{Command, Consistency};
use crate::wire::leases::{KeysFrom, LeaseList, LeaseRequest, LeaseTerm, LeaseTimes};
use crate::wire::reply::ReplyBody;

use super::cluster::{Client, Intent};
use super::connection::Connection;
use super::error::Error;

/// A lease, and the keys that hang on it, if they were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseFound {
    /// All but the keys.
    pub times: LeaseTimes,
    /// The keys, in no order, each once: all that hung on the lease all the while they were asked
    /// for, and perhaps some that did for a part of it.
    pub keys: Vec<Vec<u8>>,
}

impl Client {
    /// Makes a lease: of this number, or, if it is 0, of one that the cluster chooses. What it
    /// answers may live longer than asked: there is a shortest time.
    pub fn lease_grant(&mut self, lease: u64, ttl_s: u64) -> Result<LeaseTerm, Error> {
        self.write(Command::LeaseGrant { lease, ttl_s }, own_term)
    }

    /// Ends a lease and deletes the keys that hang on it. Answers the store's revision after that.
    pub fn lease_revoke(&mut self, lease: u64) -> Result<Revision, Error> {
        self.write(Command::LeaseRevoke { lease }, |body| {
            if let ReplyBody::LeaseRevoke { revision } = body { Some(revision) } else { None }
        })
    }

    /// Lets a lease live for its whole time again; `ttl_s` 0: there is no such lease.
    pub fn lease_keep_alive(&mut self, lease: u64) -> Result<LeaseTerm, Error> {
        self.ask_lease(LeaseRequest::KeepAlive { lease }, own_term)
    }

    /// How long a lease has left, and with `keys` which keys hang on it, in as many requests as
    /// they take; `ttl_s` 0: there is no such lease. The times are those of the last reply.
    pub fn lease_time_to_live(&mut self, lease: u64, keys: bool) -> Result<LeaseFound, Error> {
        let (mut all, mut from, mut requests) = (Vec::new(), KeysFrom::START, 0);
        loop {
            let request = LeaseRequest::TimeToLive { lease, keys, from };
            let found = self.ask_lease(request, |body| {
                let ReplyBody::LeaseTimes(times, names) = body else { return None };
                Some(LeaseFound { times, keys: names.iter().map(<[u8]>::to_vec).collect() })
            })?;
            requests += 1;
            let (times, next) = (found.times, found.times.next);
            if next.list != from.list {
                all.clear();
            }
            let ends = next.after == 0 || found.keys.is_empty();
            all.extend(found.keys);
            if ends {
                // One that was deleted meanwhile, and put again, may have got another place.
                if requests > 1 {
                    all.sort_unstable();
                    all.dedup();
                }
                return Ok(LeaseFound { times, keys: all });
            }
            from = next;
        }
    }

    /// All leases, ascending, in as many requests as the replies' bound makes necessary.
    pub fn lease_list(&mut self) -> Result<LeaseList, Error> {
        let mut all = LeaseList { revision: Revision(0), more: true, leases: Vec::new() };
        while all.more {
            let after = all.leases.last().copied().unwrap_or(0);
            let request = LeaseRequest::List { after, consistency: Consistency::Linearizable };
            let next = self.ask_lease(request, |body| {
                if let ReplyBody::LeaseList(list) = body { Some(list) } else { None }
            })?;
            (all.revision, all.more) = (next.revision, next.more && !next.leases.is_empty());
            all.leases.extend(next.leases);
        }
        Ok(all)
    }

    fn ask_lease<T>(
        &mut self,
        request: LeaseRequest,
        take: impl Fn(ReplyBody<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let send = |connection: &mut Connection| connection.lease(&request);
        self.call(Intent::Read, deadline, send, take)
    }
}

fn own_term(body: ReplyBody<'_>) -> Option<LeaseTerm> {
    if let ReplyBody::LeaseTerm { term, .. } = body { Some(term) } else { None }
}
