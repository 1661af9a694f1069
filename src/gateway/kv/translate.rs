//! etcd's words into ours, and back.
//!
//! etcd's numbers have a sign. Below 0 they are below every number there is: that is what the words
//! here make of them. Lease ids are numbers without a meaning, and go through bit by bit.

use bytes::Bytes;
use tonic::Status;

use crate::gateway::calls::number;
use crate::gateway::failure::{INVALID_SORT, KEY_MISSING, LEASE_GIVEN, VALUE_GIVEN, known};
use crate::gateway::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, range_request,
};
use crate::gateway::proto::mvccpb;
use crate::types::Revision;
use crate::wire::client::{
    DeleteWith, Order, PutWith, RangeEnd, RangeRequest as Range, RevisionSpan, Selection, SortBy,
};
use crate::wire::fields::NUMBER_MAX;
use crate::wire::results;

/// A put, if it can be done.
pub(super) fn put(request: &PutRequest) -> Result<PutWith<'_>, Status> {
    let PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = request;
    if key.is_empty() {
        return Err(known(KEY_MISSING));
    }
    if *ignore_value && !value.is_empty() {
        return Err(known(VALUE_GIVEN));
    }
    if *ignore_lease && *lease != 0 {
        return Err(known(LEASE_GIVEN));
    }
    Ok(PutWith {
        key,
        value,
        lease: lease.cast_unsigned(),
        prev_kv: *prev_kv,
        ignore_value: *ignore_value,
        ignore_lease: *ignore_lease,
    })
}

/// A delete, if it can be done.
pub(super) fn delete(request: &DeleteRangeRequest) -> Result<DeleteWith<'_>, Status> {
    let DeleteRangeRequest { key, range_end, prev_kv } = request;
    if key.is_empty() {
        return Err(known(KEY_MISSING));
    }
    Ok(DeleteWith { key, end: RangeEnd::from_bytes(range_end), prev_kv: *prev_kv })
}

/// A read, if it can be done.
pub(super) fn range(request: &RangeRequest) -> Result<Range<'_>, Status> {
    if request.key.is_empty() {
        return Err(known(KEY_MISSING));
    }
    let order = range_request::SortOrder::try_from(request.sort_order);
    let order = match order.map_err(|_| known(INVALID_SORT))? {
        range_request::SortOrder::None => Order::Unsorted,
        range_request::SortOrder::Ascend => Order::Ascend,
        range_request::SortOrder::Descend => Order::Descend,
    };
    let by = range_request::SortTarget::try_from(request.sort_target);
    let by = match by.map_err(|_| known(INVALID_SORT))? {
        range_request::SortTarget::Key => SortBy::Key,
        range_request::SortTarget::Version => SortBy::Version,
        range_request::SortTarget::Create => SortBy::Create,
        range_request::SortTarget::Mod => SortBy::Mod,
        range_request::SortTarget::Value => SortBy::Value,
    };
    let selection = Selection {
        by,
        order,
        mod_revision: span(request.min_mod_revision, request.max_mod_revision),
        create_revision: span(request.min_create_revision, request.max_create_revision),
    };
    Ok(Range {
        key: &request.key,
        end: RangeEnd::from_bytes(&request.range_end),
        limit: u64::try_from(request.limit).unwrap_or(0),
        revision: revision(request.revision),
        keys_only: request.keys_only,
        count_only: request.count_only,
        selection,
    })
}

/// A revision as our protocol has it; below 0 is 0. No store has one above `NUMBER_MAX`.
pub(in crate::gateway) fn revision(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0).min(NUMBER_MAX))
}

fn span(min: i64, max: i64) -> RevisionSpan {
    if max < 0 {
        // Nothing is as old as that.
        return RevisionSpan { min: Revision(NUMBER_MAX), max: Revision(1) };
    }
    RevisionSpan { min: revision(min), max: revision(max) }
}

/// A key of a reply, by slices of it.
pub(in crate::gateway) fn key_value(reply: &Bytes, kv: &results::KeyValue<'_>) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: slice(reply, kv.key),
        create_revision: number(kv.create_revision.0),
        mod_revision: number(kv.mod_revision.0),
        version: number(kv.version),
        value: slice(reply, kv.value),
        lease: kv.lease.cast_signed(),
    }
}

/// A piece of a reply, without a copy.
pub(in crate::gateway) fn slice(reply: &Bytes, piece: &[u8]) -> Bytes {
    // Of an empty piece it does not matter where it lies.
    if piece.is_empty() { Bytes::new() } else { reply.slice_ref(piece) }
}
