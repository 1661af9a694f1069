//! The body of a request: whole, or one value of JSON after the other while it comes.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost_reflect::MessageDescriptor;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as _;

use crate::gateway::MESSAGE_BYTES_MAX;

use super::codec::read;

/// Largest body of one request, and largest value of many: base64 is a third longer than what it
/// stands for, and what is too large for the service is to be refused in its words. Bytes.
const BODY_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// How long the body of one request may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body.
pub(super) async fn gather(body: Body) -> Result<Bytes, Status> {
    // Whoever says before how much comes need not send it.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(why)) if why.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(why)) => Err(broken(&*why)),
        Err(_) => Err(Status::cancelled("raftd: the body does not come")),
    }
}

fn too_large() -> Status {
    Status::resource_exhausted(format!("raftd: a body has more than {BODY_BYTES_MAX} bytes"))
}

/// A body that does not come to its end. Whatever is around the first error only names it again.
fn broken(why: &(dyn Error + 'static)) -> Status {
    let mut first = why;
    while let Some(source) = first.source() {
        first = source;
    }
    Status::invalid_argument(format!("raftd: the body is broken: {first}"))
}

/// The values of a body.
pub(super) struct Values {
    body: Body,
    request: MessageDescriptor,
    /// What has come, from the next value on.
    waiting: BytesMut,
    scan: Scan,
}

impl Values {
    /// Of these messages.
    pub(super) fn of(body: Body, request: MessageDescriptor) -> Values {
        Values { body, request, waiting: BytesMut::new(), scan: Scan::default() }
    }

    /// The message of the next one, once all of it is there; `None`: there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(end) = self.scan.end(&self.waiting)? {
                let json = self.waiting.split_to(end).freeze();
                self.scan = Scan::default();
                return read(&self.request, json).await.map(Some);
            }
            if self.waiting.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            match self.body.frame().await {
                Some(frame) => {
                    // What is no data is behind it.
                    let data = frame.map_err(|why| broken(&why))?.into_data().unwrap_or_default();
                    self.waiting.extend_from_slice(&data);
                }
                None if self.waiting.trim_ascii().is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("unexpected end of JSON")),
            }
        }
    }
}

/// How far a value has been looked at: every byte once, however the body is cut.
#[derive(Default)]
struct Scan {
    at: usize,
    /// Braces and brackets that are open.
    depth: usize,
    in_text: bool,
    /// The byte before makes this one a part of the text.
    escaped: bool,
}

impl Scan {
    /// Where the first value ends, if its end is there. Only an object can be a message.
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            if self.in_text {
                self.in_text = self.escaped || *byte != b'"';
                self.escaped = !self.escaped && *byte == b'\\';
                continue;
            }
            match byte {
                b'{' => self.depth += 1,
                b'[' if self.depth > 0 => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' if self.depth == 1 => return Ok(Some(self.at)),
                b'"' if self.depth > 0 => self.in_text = true,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth > 0 => {}
                _ => return Err(Status::invalid_argument("a message is an object of JSON")),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of a text that comes byte by byte.
    fn values(text: &str) -> Result<Vec<String>, Status> {
        let mut found = Vec::new();
        let (mut waiting, mut scan) = (Vec::new(), Scan::default());
        for byte in text.bytes() {
            waiting.push(byte);
            if let Some(end) = scan.end(&waiting)? {
                let value: Vec<u8> = waiting.drain(..end).collect();
                found.push(String::from_utf8(value).unwrap().trim().to_owned());
                scan = Scan::default();
            }
        }
        Ok(found)
    }

    #[test]
    fn values_are_told_apart_wherever_the_body_is_cut() {
        for (text, expected) in [
            ("", &[][..]),
            (" \n", &[]),
            ("{}", &["{}"]),
            ("{} {\"a\":[1,{}]}\n{\"b\":2}", &["{}", "{\"a\":[1,{}]}", "{\"b\":2}"]),
            (r#"{"}\"}{":"\\"}{}"#, &[r#"{"}\"}{":"\\"}"#, "{}"]),
            ("{\"a\":", &[]),
        ] {
            assert_eq!(values(text).unwrap(), expected, "{text}");
        }
        for text in ["nonsense", "[]", "5", "{} x", "}"] {
            let why = values(text).unwrap_err();
            assert_eq!(why.message(), "a message is an object of JSON", "{text}");
        }
    }
}
