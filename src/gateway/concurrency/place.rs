//! A place in the queue for a lock, or for leading.
//!
//! What if its client leaves: the place is given up, or it would stand in the way of all behind it
//! for as long as the client keeps its lease alive. A client that has left because it took too long
//! asks again by the same lease, and so for the same place. The new call puts the key anew, and it
//! is given up by whoever has put it last: a call that was left never takes away what a later one
//! has. (etcd deletes it all the same, and the later call believes that it has the lock.)

use bytes::Bytes;
use tokio::runtime::Handle;
use tonic::Status;

use crate::gateway::failure::{Failure, unexpected};
use crate::gateway::proto::etcdserverpb::range_request::SortOrder;
use crate::gateway::proto::etcdserverpb::response_op::Response;
use crate::gateway::proto::etcdserverpb::watch_create_request::FilterType;
use crate::gateway::proto::etcdserverpb::{
    PutRequest, RangeRequest, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
};
use crate::gateway::proto::mvccpb::KeyValue;

use super::caller::{Caller, Prefix, created_at, delete, get, put, put_at, revision};

/// So often a place is tried to be given up; each attempt has as long as a request. Beyond, it goes
/// with its lease.
const LEAVE_ATTEMPTS: u32 = 3;

/// A place. If it is dropped it is given up.
pub(super) struct Place {
    caller: Caller,
    prefix: Prefix,
    key: Bytes,
    /// When the key was created: its place in the order.
    since: i64,
    /// The response by which it was entered; its revision is when the key was put.
    entered: Option<ResponseHeader>,
    /// Whether it was the first one then.
    was_first: bool,
    kept: bool,
}

/// What became of a place.
pub(super) enum Turn {
    /// Nobody is before it, as this response shows.
    Ours(Option<ResponseHeader>),
    /// The key is gone: its lease has ended, or somebody deleted it.
    Gone,
}

impl Place {
    /// Takes a place by this lease, or that which it has already. Once it is begun it is done, and
    /// given up at once if nobody waits for it any more.
    pub(super) async fn take(
        caller: Caller,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Place, Status> {
        let prefix = Prefix::of(name);
        let taken = tokio::spawn(enter(caller, prefix, lease, value)).await;
        // It is not ended from outside.
        taken.unwrap_or_else(|_| Err(Failure::TimedOut.into()))
    }

    /// Its key.
    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    /// When that was created.
    pub(super) fn since(&self) -> i64 {
        self.since
    }

    /// What led the response by which it was taken.
    pub(super) fn entered(&self) -> Option<ResponseHeader> {
        self.entered
    }

    /// It is the client's from now on.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Waits until nobody is before it.
    pub(super) async fn wait(&self) -> Result<Turn, Status> {
        if self.was_first {
            return Ok(Turn::Ours(self.entered));
        }
        loop {
            // A client may create several keys at once: those of one revision are not before each
            // other. 0 would be no bound; nothing is created at 1.
            let before = RangeRequest {
                max_create_revision: (self.since - 1).max(1),
                keys_only: true,
                ..self.prefix.by_age(SortOrder::Descend, 1)
            };
            let own = RangeRequest { key: self.key.clone(), keys_only: true, ..Default::default() };
            let found = self
                .caller
                .txn(TxnRequest { success: vec![get(own), get(before)], ..TxnRequest::default() });
            let found = found.await?;
            let (own, before) = both(&found)?;
            if !own.first().is_some_and(|own| self.is(own)) {
                return Ok(Turn::Gone);
            }
            let Some(before) = before.first() else { return Ok(Turn::Ours(found.header)) };
            self.deleted(before.key.clone(), revision(found.header.as_ref()) + 1).await?;
        }
    }

    fn is(&self, kv: &KeyValue) -> bool {
        kv.create_revision == self.since && kv.key == self.key
    }

    /// Waits until a key is deleted, from `start_revision` on, or until it is to be looked at
    /// again.
    async fn deleted(&self, key: Bytes, start_revision: i64) -> Result<(), Status> {
        let filters = vec![i32::from(FilterType::Noput)];
        let create = WatchCreateRequest { key, start_revision, filters, ..Default::default() };
        let mut watch = self.caller.watch(create);
        while let Some(response) = watch.next().await? {
            if !response.events.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let leave = leave(self.caller.clone(), self.key.clone(), revision(self.entered.as_ref()));
        // Without a runtime the program ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(leave);
        }
    }
}

async fn enter(caller: Caller, prefix: Prefix, lease: i64, value: Bytes) -> Result<Place, Status> {
    let key = prefix.key(lease);
    let new = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    let again = PutRequest { prev_kv: true, ..new.clone() };
    let entered = caller.txn(TxnRequest {
        compare: vec![created_at(&key, 0)],
        success: vec![put(new), get(prefix.first())],
        failure: vec![put(again), get(prefix.first())],
    });
    let entered = entered.await?;
    let (since, first) = read(&entered)?;
    let mut place = Place {
        caller,
        prefix,
        key,
        since,
        entered: entered.header,
        was_first: false,
        kept: false,
    };
    place.was_first = place.is(first);
    Ok(place)
}

/// When the key was created, and the first one.
fn read(entered: &TxnResponse) -> Result<(i64, &KeyValue), Status> {
    let mut responses = entered.responses.iter().filter_map(|it| it.response.as_ref());
    let (put, found) = (responses.next(), responses.next());
    let (Some(Response::ResponsePut(put)), Some(Response::ResponseRange(found))) = (put, found)
    else {
        return Err(unexpected());
    };
    let before = put.prev_kv.as_ref().map(|before| before.create_revision);
    let since = before.unwrap_or_else(|| revision(entered.header.as_ref()));
    Ok((since, found.kvs.first().ok_or_else(unexpected)?))
}

/// What the two reads of a transaction have found.
fn both(found: &TxnResponse) -> Result<(&[KeyValue], &[KeyValue]), Status> {
    let mut responses = found.responses.iter().filter_map(|it| it.response.as_ref());
    let (own, before) = (responses.next(), responses.next());
    let (Some(Response::ResponseRange(own)), Some(Response::ResponseRange(before))) = (own, before)
    else {
        return Err(unexpected());
    };
    Ok((&own.kvs, &before.kvs))
}

/// Deletes a key, unless it was put since.
async fn leave(caller: Caller, key: Bytes, entered: i64) {
    let txn = TxnRequest {
        compare: vec![put_at(&key, entered)],
        success: vec![delete(&key)],
        failure: Vec::new(),
    };
    for _ in 0..LEAVE_ATTEMPTS {
        match caller.txn(txn.clone()).await {
            Ok(_) => return,
            Err(why) => log::warn!("cannot give up a place in a queue why={:?}", why.message()),
        }
    }
}
