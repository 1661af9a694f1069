//! Frames, greetings, requests and replies, messages between servers: the bytes that `protocol.md` describes.
//!
//! Decoding borrows and never panics; a message comes out whole and within its limits, or not at all.

mod client;
mod error;
mod frame;
mod hello;
mod peer;
mod reply;
mod status;

pub use client::{
    Consistency, Op, RangeArgs, Request, RequestError, decode_request, encode_request,
    encode_status_request,
};
pub use error::{Error, Retry};
pub use frame::{Frame, FrameError, FrameStart, begin, finish, next_frame};
pub use hello::{
    Hello, HelloReply, PeerHello, Sender, VERSION, Welcome, decode_hello, decode_hello_reply,
    encode_hello, encode_hello_reply,
};
pub use peer::{
    AppendHead, AppendWriter, MessageError, PayloadRef, PeerFrame, decode_peer, encode_message,
};
pub use reply::{
    KeyValue, RangeReply, RangeReplyWriter, Reply, decode_reply, delete_reply, error_reply,
    put_reply, status_reply,
};
pub use status::{PeerStatus, Status};
