//! Messages of gRPC whose content is JSON on our side, by the descriptors of the messages: numbers
//! of 64 bits are texts, bytes are base64, fields have the names of the .proto file and are left
//! out if they have their default.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::names;

/// What is written.
const WRITTEN: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// What is read. etcd overlooks fields that it does not know; `names` finds what it does not
/// overlook.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// Requests go as messages, responses come as JSON.
#[derive(Clone)]
pub(super) struct JsonCodec {
    response: MessageDescriptor,
    before: &'static str,
    behind: &'static str,
}

/// The half that requests go through.
pub(super) struct Asking;

impl JsonCodec {
    /// For a method with one response.
    pub(super) fn one(response: MessageDescriptor) -> JsonCodec {
        JsonCodec { response, before: "", behind: "" }
    }

    /// For a method with many: a line each.
    pub(super) fn many(response: MessageDescriptor) -> JsonCodec {
        JsonCodec { response, before: r#"{"result":"#, behind: "}\n" }
    }
}

impl Codec for JsonCodec {
    type Encode = DynamicMessage;
    type Decode = Bytes;
    type Encoder = Asking;
    type Decoder = JsonCodec;

    fn encoder(&mut self) -> Asking {
        Asking
    }

    fn decoder(&mut self) -> JsonCodec {
        self.clone()
    }
}

impl Encoder for Asking {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, request: DynamicMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request.encode(out).map_err(|why| internal(&why))
    }
}

impl Decoder for JsonCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, response: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let message = DynamicMessage::decode(self.response.clone(), response);
        let message = message.map_err(|why| internal(&why))?;
        let mut json = self.before.as_bytes().to_vec();
        let mut serializer = serde_json::Serializer::new(&mut json);
        let written = message.serialize_with_options(&mut serializer, &WRITTEN);
        written.map_err(|why| internal(&why))?;
        json.extend_from_slice(self.behind.as_bytes());
        Ok(Some(json.into()))
    }
}

fn internal(why: &dyn std::error::Error) -> Status {
    Status::internal(format!("raftd: {why}"))
}

/// Reads a request. One that is empty says nothing of anything.
pub(super) fn read(request: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Status> {
    if json.trim_ascii().is_empty() {
        return Ok(DynamicMessage::new(request.clone()));
    }
    names::check(request, json)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let message =
        DynamicMessage::deserialize_with_options(request.clone(), &mut deserializer, &READ);
    let message = message.and_then(|message| deserializer.end().map(|()| message));
    message.map_err(|why| Status::invalid_argument(why.to_string()))
}
