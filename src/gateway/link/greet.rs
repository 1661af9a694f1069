//! The first words on a connection.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::limits::HELLO_BYTES_MAX;
use crate::types::ClusterId;
use crate::wire::frame::{self, LENGTH_BYTES};
use crate::wire::hello::{self, Hello, HelloReply, Sender, VERSION, Welcome};

use super::dial::{NodeStream, dial};
use super::{LinkError, READ_BYTES};

/// Connects and says hello. Answers the welcome, and what came behind it.
pub(super) async fn greet(
    address: &str,
    cluster_id: ClusterId,
) -> Result<(NodeStream, BytesMut, Welcome), LinkError> {
    let mut stream = dial(address).await?;
    let (version_min, version_max) = (VERSION, VERSION);
    let (sender, auth) = (Sender::Client, Vec::new());
    let mut out = Vec::new();
    hello::encode_hello(&mut out, &Hello { version_min, version_max, cluster_id, sender, auth });
    stream.write_all(&out).await?;
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let consumed = loop {
        let frame = frame::next_frame(&input, HELLO_BYTES_MAX).map_err(LinkError::Frame)?;
        if let Some(frame) = frame {
            break frame.consumed;
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(LinkError::Closed);
        }
    };
    let body = input.split_to(consumed);
    match hello::decode_hello_reply(&body[LENGTH_BYTES..]).map_err(LinkError::Reply)? {
        HelloReply::Welcome(welcome) => Ok((stream, input, welcome)),
        HelloReply::Refused(why) => Err(LinkError::Refused(why)),
    }
}
