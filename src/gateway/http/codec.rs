//! Messages of gRPC whose content is JSON on our side, by the descriptors of the messages: numbers
//! of 64 bits are texts, bytes are base64, fields have the names of the .proto file and are left
//! out if they have their default.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::aside::aside;
use super::names;

/// What is written.
const WRITTEN: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// What is read. etcd overlooks fields that it does not know; `names` finds what it does not
/// overlook.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// Messages go and come as they are: `read` and `Writer` are where they are JSON.
#[derive(Clone, Copy)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(request);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, response: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(response.copy_to_bytes(response.remaining())))
    }
}

/// Makes JSON of responses.
#[derive(Clone)]
pub(super) struct Writer {
    response: MessageDescriptor,
    before: &'static str,
    behind: &'static str,
}

impl Writer {
    /// For a method with one response.
    pub(super) fn one(response: MessageDescriptor) -> Writer {
        Writer { response, before: "", behind: "" }
    }

    /// For a method with many: a line each.
    pub(super) fn many(response: MessageDescriptor) -> Writer {
        Writer { response, before: r#"{"result":"#, behind: "}\n" }
    }

    /// The JSON of one.
    pub(super) async fn write(self, message: Bytes) -> Result<Bytes, Status> {
        aside(message.len(), move || self.json(message)).await
    }

    fn json(&self, message: Bytes) -> Result<Bytes, Status> {
        let message = DynamicMessage::decode(self.response.clone(), message);
        let message = message.map_err(|why| internal(&why))?;
        let mut json = self.before.as_bytes().to_vec();
        let mut serializer = serde_json::Serializer::new(&mut json);
        let written = message.serialize_with_options(&mut serializer, &WRITTEN);
        written.map_err(|why| internal(&why))?;
        json.extend_from_slice(self.behind.as_bytes());
        Ok(json.into())
    }
}

fn internal(why: &dyn std::error::Error) -> Status {
    Status::internal(format!("raftd: {why}"))
}

/// Makes a message of the JSON of a request. One that is empty, or `null`, says nothing of
/// anything.
pub(super) async fn read(request: &MessageDescriptor, json: Bytes) -> Result<Bytes, Status> {
    let request = request.clone();
    aside(json.len(), move || message(&request, &json)).await
}

fn message(request: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    if matches!(json.trim_ascii(), b"" | b"null") {
        return Ok(Bytes::new());
    }
    names::check(request, json)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let message =
        DynamicMessage::deserialize_with_options(request.clone(), &mut deserializer, &READ);
    let message = message.and_then(|message| deserializer.end().map(|()| message));
    let message = message.map_err(|why| Status::invalid_argument(why.to_string()))?;
    Ok(message.encode_to_vec().into())
}
