//! Reads of many keys at once: a transaction that changes nothing, and how fresh.

use std::fmt;

use crate::codec::msgpack::{self, Reader};
use crate::kv::command::{CommandError, Txn};

use super::client::{Consistency, Op, begin_request};
use super::fields::{self, DecodeError};
use super::frame;

/// Reads the args of a request with `Op::ReadTxn`. The transaction is judged as strictly as in the
/// log.
pub fn decode_read_txn(args: &[u8]) -> Result<(Consistency, Txn<'_>), ReadTxnError> {
    let (consistency, later, mut reader) = read_txn_args(args).map_err(ReadTxnError::Args)?;
    let txn = Txn::decode(&mut reader).map_err(ReadTxnError::Txn)?;
    for _ in 0..later {
        fields::skip(&mut reader).map_err(ReadTxnError::Args)?;
    }
    fields::expect_end(&reader).map_err(ReadTxnError::Args)?;
    if txn.is_read_only() { Ok((consistency, txn)) } else { Err(ReadTxnError::Changes) }
}

/// Reads what stands before the transaction: how fresh, and how many args of versions to come
/// follow it.
fn read_txn_args(args: &[u8]) -> Result<(Consistency, usize, Reader<'_>), DecodeError> {
    let mut reader = Reader::new(args);
    let later = reader.array()?.checked_sub(2).ok_or(DecodeError::Missing)?;
    let found = reader.uint()?;
    let consistency =
        Consistency::from_code(found).ok_or(DecodeError::Range { what: "a consistency", found })?;
    Ok((consistency, later, reader))
}

/// Why bytes are not the args of a ReadTxn.
#[derive(Debug)]
pub enum ReadTxnError {
    /// Not its args.
    Args(DecodeError),
    /// Not a transaction.
    Txn(CommandError),
    /// A transaction that puts or deletes.
    Changes,
}

impl fmt::Display for ReadTxnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadTxnError::Args(_) => f.write_str("cannot decode a read of many"),
            ReadTxnError::Txn(why) => write!(f, "{why}"),
            ReadTxnError::Changes => f.write_str("the transaction puts or deletes: it is a Txn"),
        }
    }
}

impl std::error::Error for ReadTxnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadTxnError::Args(why) => Some(why),
            ReadTxnError::Txn(why) => why.source(),
            ReadTxnError::Changes => None,
        }
    }
}

/// Appends a ReadTxn, as a whole frame.
pub fn read_txn_request(out: &mut Vec<u8>, id: u64, consistency: Consistency, txn: Txn<'_>) {
    let start = begin_request(out, id, Op::ReadTxn);
    msgpack::write_array(out, 2);
    msgpack::write_uint(out, consistency.code());
    out.extend_from_slice(txn.args());
    frame::finish(out, start);
}
