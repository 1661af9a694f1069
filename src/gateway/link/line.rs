//! One connection to a node for one purpose: a word after the other, and nobody else's between
//! them. Links begin as one. A node answers some requests as fast as they are taken: what their
//! client does not take by a line holds up nobody else, and waits in the node.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::auth::{Login, LoginError};
use crate::limits::{HELLO_BYTES_MAX, REPLY_BYTES_MAX};
use crate::types::{ClusterId, Credential};
use crate::wire::auth::{auth_request, login_proof_request};
use crate::wire::frame::{self, LENGTH_BYTES};
use crate::wire::hello::{self, Hello, HelloReply, Sender, VERSION, Welcome};

use super::dial::{NodeStream, dial};
use super::{LinkError, READ_BYTES};

/// A connection whose node has said who it is.
pub(in crate::gateway) struct Line {
    pub(super) stream: NodeStream,
    /// What was read and not taken.
    pub(super) input: BytesMut,
    pub(super) welcome: Welcome,
    /// The number of the last request.
    last_id: u64,
}

impl Line {
    /// Connects and says hello. `cluster_id` 0 takes any cluster.
    pub(in crate::gateway) async fn open(
        address: &str,
        cluster_id: ClusterId,
    ) -> Result<Line, LinkError> {
        let mut stream = dial(address).await?;
        let (version_min, version_max) = (VERSION, VERSION);
        let (sender, auth) = (Sender::Client, Vec::new());
        let hello = Hello { version_min, version_max, cluster_id, sender, auth };
        let mut out = Vec::new();
        hello::encode_hello(&mut out, &hello);
        stream.write_all(&out).await?;
        let mut input = BytesMut::new();
        let body = read(&mut stream, &mut input, HELLO_BYTES_MAX).await?;
        match hello::decode_hello_reply(&body).map_err(LinkError::Reply)? {
            HelloReply::Welcome(welcome) => Ok(Line { stream, input, welcome, last_id: 0 }),
            HelloReply::Refused(why) => Err(LinkError::Refused(why)),
        }
    }

    /// Logs in: what is said from then on is said as that user. Answers its credential.
    pub(in crate::gateway) async fn log_in(
        &mut self,
        login: &Login,
    ) -> Result<Credential, LoginError> {
        let nonce = login.begin()?;
        self.say(|out, id| auth_request(out, id, &login.request(&nonce))).await?;
        let challenge = self.next().await?;
        let proving = login.prove(&nonce, &challenge).await?;
        self.say(|out, id| login_proof_request(out, id, proving.proof())).await?;
        let done = self.next().await?;
        login.finish(&proving, &done)
    }

    /// Sends a request.
    pub(in crate::gateway) async fn say(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<(), LinkError> {
        let mut out = Vec::new();
        self.last_id += 1;
        encode(&mut out, self.last_id);
        Ok(self.stream.write_all(&out).await?)
    }

    /// The body of the next reply. Whoever stops to wait for it loses nothing.
    pub(in crate::gateway) async fn next(&mut self) -> Result<Bytes, LinkError> {
        read(&mut self.stream, &mut self.input, REPLY_BYTES_MAX).await
    }
}

async fn read(
    stream: &mut NodeStream,
    input: &mut BytesMut,
    body_bytes_max: usize,
) -> Result<Bytes, LinkError> {
    loop {
        let frame = frame::next_frame(input, body_bytes_max).map_err(LinkError::Frame)?;
        if let Some(consumed) = frame.map(|frame| frame.consumed) {
            return Ok(input.split_to(consumed).freeze().slice(LENGTH_BYTES..));
        }
        input.reserve(READ_BYTES);
        if stream.read_buf(input).await? == 0 {
            return Err(LinkError::Closed);
        }
    }
}
