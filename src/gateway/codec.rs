//! tonic's codec of messages; but what has far too many parts is refused before it is made: a part
//! of two bytes takes some hundred once it is a part of a message, and two megabytes of them a
//! tenth of a second of the one thread.

use std::any::TypeId;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::failure::{TOO_MANY_OPS, known};
use super::proto::etcdserverpb::TxnRequest;
use super::proto::raftd::{BatchRequest, TxnRequest as OwnTxnRequest};
use crate::limits::{TXN_DEPTH_MAX, TXN_OPS_TOTAL_MAX};

/// What is deeper need not be made to be refused.
const DEPTH_MAX: usize = TXN_DEPTH_MAX + 1;

/// For messages `T` that go out, and `U` that come.
pub(super) struct OwnCodec<T, U>(ProstCodec<T, U>);

/// What reads them.
pub(super) struct OwnDecoder<U> {
    decoder: ProstDecoder<U>,
    parts: Option<Parts>,
}

/// Which fields of a message are its parts.
#[derive(Clone, Copy)]
struct Parts {
    /// Compares.
    plain: &'static [u64],
    /// Requests, each of which may be a transaction.
    requests: &'static [u64],
}

const TXN: Parts = Parts { plain: &[1], requests: &[2, 3] };
const BATCH: Parts = Parts { plain: &[], requests: &[1] };

/// Which field of a request is a transaction.
const REQUEST_TXN: u64 = 4;

impl<T, U> Default for OwnCodec<T, U> {
    fn default() -> OwnCodec<T, U> {
        OwnCodec(ProstCodec::default())
    }
}

impl<T, U> Codec for OwnCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = OwnDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        self.0.encoder()
    }

    fn decoder(&mut self) -> OwnDecoder<U> {
        OwnDecoder { decoder: self.0.decoder(), parts: Parts::of::<U>() }
    }
}

impl<U: Message + Default> Decoder for OwnDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if let Some(parts) = self.parts
            && parts.count(message.chunk(), DEPTH_MAX).is_none_or(|it| it > TXN_OPS_TOTAL_MAX)
        {
            return Err(known(TOO_MANY_OPS));
        }
        self.decoder.decode(message)
    }
}

impl Parts {
    /// Those of a message, if it is to be looked at.
    fn of<U: 'static>() -> Option<Parts> {
        let is = |id: TypeId| id == TypeId::of::<U>();
        if is(TypeId::of::<TxnRequest>()) || is(TypeId::of::<OwnTxnRequest>()) {
            return Some(TXN);
        }
        is(TypeId::of::<BatchRequest>()).then_some(BATCH)
    }

    /// How many a message has, with those of the transactions in it. `None`: it has transactions
    /// deeper than `depth_max`, or groups, which none of the messages has.
    fn count(self, message: &[u8], depth_max: usize) -> Option<usize> {
        let depth_max = depth_max.checked_sub(1)?;
        let mut count: usize = 0;
        for field in Fields(message) {
            let (field, content) = field?;
            if self.plain.contains(&field) {
                count += 1;
            } else if self.requests.contains(&field) {
                count += 1;
                for inside in Fields(content) {
                    let (field, txn) = inside?;
                    if field == REQUEST_TXN {
                        count += TXN.count(txn, depth_max)?;
                    }
                }
            }
        }
        Some(count)
    }
}

/// The fields of a message that has been written, as far as it can be read: each `number << 3 |
/// form`, and its content. `None` is a group.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, &'a [u8])>;

    fn next(&mut self) -> Option<Option<(u64, &'a [u8])>> {
        let key = varint(&mut self.0)?;
        let length = match key & 7 {
            0 => varint(&mut self.0).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(&mut self.0)?).ok()?,
            3 | 4 => return Some(None),
            5 => 4,
            _ => return None,
        };
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some((key >> 3, content)))
    }
}

/// A number: seven bits in each byte, the lowest first, and a bit that says that more come.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::proto::etcdserverpb::request_op::Request;
    use crate::gateway::proto::etcdserverpb::{Compare, PutRequest, RequestOp};

    #[test]
    fn parts_are_counted_however_deep_they_are() {
        let put = || RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: vec![34; 1000].into(),
                lease: i64::MAX,
                ..PutRequest::default()
            })),
        };
        let mut txn = TxnRequest { compare: vec![Compare::default(); 3], ..Default::default() };
        txn.success = vec![put(), put(), RequestOp::default()];
        assert_eq!(TXN.count(&txn.encode_to_vec(), 8), Some(6));
        let inside = |txn| RequestOp { request: Some(Request::RequestTxn(txn)) };
        let outer = TxnRequest { failure: vec![put(), inside(txn)], ..Default::default() };
        assert_eq!(TXN.count(&outer.encode_to_vec(), 8), Some(8));
        assert_eq!(TXN.count(&outer.encode_to_vec(), 2), Some(8));
        assert_eq!(TXN.count(&outer.encode_to_vec(), 1), None, "it is too deep");
        let whole = outer.encode_to_vec();
        for end in 0..whole.len() {
            assert!(TXN.count(&whole[..end], 8).unwrap() <= 8);
        }
        assert_eq!(TXN.count(&[0xff; 20], 8), Some(0));
        let group = [&[0x7b, 0x7c][..], &whole].concat();
        assert_eq!(TXN.count(&group, 8), None, "whoever reads it passes over a group");
    }
}
