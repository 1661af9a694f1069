//! A connection for one request alone. A node answers some as fast as they are taken: what their
//! client does not take holds up nobody else then, and waits in the node.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::limits::REPLY_BYTES_MAX;
use crate::wire::frame::{LENGTH_BYTES, next_frame};

use super::dial::NodeStream;
use super::{Link, LinkError, READ_BYTES, greet};

/// The number of the request. There is no other.
const ID: u64 = 1;

/// The connection.
pub(in crate::gateway) struct Alone {
    stream: NodeStream,
    input: BytesMut,
}

impl Alone {
    /// Connects to the node that `link` leads to, and sends a request.
    pub(in crate::gateway) async fn ask(
        link: &Link,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<Alone, LinkError> {
        let (mut stream, input, _) = greet(link.address(), link.welcome().cluster_id).await?;
        let mut request = Vec::new();
        encode(&mut request, ID);
        stream.write_all(&request).await?;
        Ok(Alone { stream, input })
    }

    /// The body of the next reply. Whoever stops to wait for it loses nothing.
    pub(in crate::gateway) async fn next(&mut self) -> Result<Bytes, LinkError> {
        loop {
            let frame = next_frame(&self.input, REPLY_BYTES_MAX).map_err(LinkError::Frame)?;
            if let Some(consumed) = frame.map(|frame| frame.consumed) {
                return Ok(self.input.split_to(consumed).freeze().slice(LENGTH_BYTES..));
            }
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}
