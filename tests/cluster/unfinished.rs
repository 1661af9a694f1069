//! Clients that begin requests and do not end them.

use super::harness::{Cluster, PATIENCE};
use super::patience::{breathe, now};
use raftd::limits::HELLO_BYTES_MAX;
use raftd::types::ClusterId;
use raftd::wire::client::put_request;
use raftd::wire::frame::next_frame;
use raftd::wire::hello::{Hello, HelloReply, Sender, VERSION, decode_hello_reply, encode_hello};
use raftd::wire::reply::{ReplyBody, decode_reply};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that says hello and then exactly what it is told to.
struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    fn greet(address: &str) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw { stream, input: Vec::new() };
        let (version_min, version_max) = (VERSION, VERSION);
        let (cluster_id, sender) = (ClusterId(0), Sender::Client);
        let mut hello = Vec::new();
        encode_hello(
            &mut hello,
            &Hello { version_min, version_max, cluster_id, sender, auth: Vec::new() },
        );
        raw.stream.write_all(&hello).unwrap();
        let body = raw.frame();
        assert!(matches!(decode_hello_reply(&body), Ok(HelloReply::Welcome(_))));
        raw
    }

    /// The body of the next frame.
    fn frame(&mut self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = next_frame(&self.input, HELLO_BYTES_MAX).unwrap() {
                let (body, consumed) = (frame.body.to_vec(), frame.consumed);
                self.input.drain(..consumed);
                return body;
            }
            let count = self.stream.read(&mut buffer).expect("the node answers in time");
            assert!(count > 0, "the node hung up");
            self.input.extend_from_slice(&buffer[..count]);
        }
    }
}

/// It was taken for one frame that never ends, and closed after ten seconds.
#[test]
fn a_client_with_the_beginning_of_the_next_request_always_under_way_is_served() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut raw = Raw::greet(cluster.server(1).listen());
    let request = |id| {
        let mut frame = Vec::new();
        put_request(&mut frame, id, b"key", b"a value to be cut in two");
        frame
    };
    let mut rest = request(1);
    let started = now();
    for id in 1.. {
        // What a node waits for at most is ten seconds.
        if started.elapsed() > Duration::from_secs(13) {
            break;
        }
        let next = request(id + 1);
        let (begin, end) = next.split_at(next.len() / 2);
        raw.stream.write_all(&[&rest, begin].concat()).unwrap();
        rest = end.to_vec();
        let body = raw.frame();
        let reply = decode_reply(&body).unwrap();
        assert_eq!(reply.id, id);
        assert!(matches!(reply.body, ReplyBody::Put { .. }), "{:?}", reply.body);
        breathe(Duration::from_millis(50));
    }
}
