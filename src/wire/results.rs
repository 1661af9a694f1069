//! Keys in replies, and what the requests of a transaction came to.
//!
//! ```text
//! result    array(2) [op, args]
//!    7      [before: array kv*]                             PutWith: none or one
//!    8      [deleted: uint, before: array kv*]              DeleteRangeWith
//!    9      [succeeded: bool, results: array result*]       Txn
//!   16      [kvs: array kv*, more: bool, count: uint]       Range
//! ```

use crate::codec::msgpack::Reader;
use crate::limits::TXN_DEPTH_MAX;

use super::client::Op;
use super::fields::{DecodeError, Fields};

pub use crate::kv::KeyValueRef as KeyValue;

/// Keys, borrowed from a reply.
#[derive(Clone, Copy, Debug)]
pub struct Kvs<'a> {
    count: usize,
    reader: Reader<'a>,
}

/// What the requests of a transaction came to, borrowed from its reply.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    count: usize,
    reader: Reader<'a>,
}

/// What one of them came to.
#[derive(Clone, Copy, Debug)]
pub enum TxnResult<'a> {
    /// A key was put.
    Put {
        /// What it was before, if that was asked for and there was one.
        before: Option<KeyValue<'a>>,
    },
    /// Keys were deleted.
    Delete {
        /// How many.
        deleted: u64,
        /// They, if that was asked for.
        before: Kvs<'a>,
    },
    /// Keys were read.
    Range {
        /// They.
        kvs: Kvs<'a>,
        /// Whether keys were left out, by the limit or because the reply was full.
        more: bool,
        /// How many keys the range has in all.
        count: u64,
    },
    /// A transaction inside was done.
    Txn {
        /// Whether its compares held.
        succeeded: bool,
        /// What its requests came to.
        results: Results<'a>,
    },
}

impl<'a> Kvs<'a> {
    /// How many keys.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = KeyValue<'a>> + use<'a> {
        let mut reader = self.reader;
        (0..self.count).map(move |_| decode_kv(&mut reader).expect("every kv was read once"))
    }

    /// Reads every kv once, so that iterating over them later cannot fail.
    pub(super) fn decode(fields: &mut Fields<'_, 'a>) -> Result<Kvs<'a>, DecodeError> {
        let (count, mut reader) = fields.items()?;
        let kvs = Kvs { count, reader };
        for _ in 0..count {
            decode_kv(&mut reader)?;
        }
        fields.resume(reader);
        Ok(kvs)
    }
}

impl<'a> Results<'a> {
    /// How many requests the branch had.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether the branch had none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The results, in the order of the requests.
    pub fn iter(&self) -> impl Iterator<Item = TxnResult<'a>> + use<'a> {
        let mut reader = self.reader;
        (0..self.count).map(move |_| {
            decode_result(&mut reader, TXN_DEPTH_MAX).expect("every result was read once")
        })
    }

    /// Reads every result once, so that iterating over them later cannot fail.
    pub(super) fn decode(fields: &mut Fields<'_, 'a>) -> Result<Results<'a>, DecodeError> {
        Results::decode_within(fields, TXN_DEPTH_MAX)
    }

    fn decode_within(
        fields: &mut Fields<'_, 'a>,
        depth: usize,
    ) -> Result<Results<'a>, DecodeError> {
        let what = "results inside each other deeper than transactions";
        let depth = depth.checked_sub(1).ok_or(DecodeError::Inconsistent { what })?;
        let (count, mut reader) = fields.items()?;
        let results = Results { count, reader };
        for _ in 0..count {
            decode_result(&mut reader, depth)?;
        }
        fields.resume(reader);
        Ok(results)
    }
}

fn decode_result<'a>(reader: &mut Reader<'a>, depth: usize) -> Result<TxnResult<'a>, DecodeError> {
    let mut outer = Fields::open(reader)?;
    let found = outer.uint()?;
    let mut fields = outer.nested()?;
    let result = match Op::from_code(found) {
        Some(Op::PutWith) => TxnResult::Put { before: Kvs::decode(&mut fields)?.iter().next() },
        Some(Op::DeleteRangeWith) => {
            TxnResult::Delete { deleted: fields.uint()?, before: Kvs::decode(&mut fields)? }
        }
        Some(Op::Range) => {
            let kvs = Kvs::decode(&mut fields)?;
            TxnResult::Range { kvs, more: fields.flag()?, count: fields.uint()? }
        }
        Some(Op::Txn) => {
            let succeeded = fields.flag()?;
            TxnResult::Txn { succeeded, results: Results::decode_within(&mut fields, depth)? }
        }
        Some(_) | None => return Err(DecodeError::Range { what: "the op of a result", found }),
    };
    fields.close()?;
    outer.close()?;
    Ok(result)
}

fn decode_kv<'a>(reader: &mut Reader<'a>) -> Result<KeyValue<'a>, DecodeError> {
    kv_of(Fields::open(reader)?)
}

pub(super) fn kv_of<'a>(mut fields: Fields<'_, 'a>) -> Result<KeyValue<'a>, DecodeError> {
    let kv = KeyValue {
        key: fields.bin()?,
        value: fields.bin()?,
        create_revision: fields.revision()?,
        mod_revision: fields.revision()?,
        version: fields.uint()?,
        lease: fields.uint()?,
    };
    fields.close()?;
    Ok(kv)
}
