//! A door in front of one node for one client: it stops the client's first write, so that something
//! can happen between the moment it is sent and the moment it arrives.

use super::harness::free_address;
use raftd::limits::CLIENT_FRAME_BYTES_MAX;
use raftd::wire::client::{Op, decode_request};
use raftd::wire::frame::next_frame;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// The door, closed.
pub(super) struct Gate {
    /// Where the client is to go.
    pub(super) address: String,
    listener: TcpListener,
}

/// A write on its way: sent by the client, not seen by the node.
pub(super) struct Caught {
    client: TcpStream,
    node: TcpStream,
    write: Vec<u8>,
}

impl Gate {
    pub(super) fn open() -> Gate {
        let address = free_address();
        let listener = TcpListener::bind(&address).unwrap();
        Gate { address, listener }
    }

    /// Carries one connection to `node` until a call of a session comes along. Nobody is let in
    /// after that one.
    pub(super) fn catch_write(self, node: &str) -> Caught {
        let (mut client, _) = self.listener.accept().unwrap();
        drop(self.listener);
        let mut node = TcpStream::connect(node).unwrap();
        let (mut back_from, mut back_to) = (node.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            // Ends when either side does.
            let _ended = std::io::copy(&mut back_from, &mut back_to);
        });
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = next_frame(&bytes, CLIENT_FRAME_BYTES_MAX).unwrap() {
                let request = decode_request(frame.body);
                if request.is_ok_and(|request| request.op == Op::InSession) {
                    return Caught { client, node, write: bytes };
                }
                let consumed = frame.consumed;
                node.write_all(&bytes[..consumed]).unwrap();
                bytes.drain(..consumed);
            }
            let count = client.read(&mut buffer).unwrap();
            assert!(count > 0, "the client left before it wrote");
            bytes.extend_from_slice(&buffer[..count]);
        }
    }
}

impl Caught {
    /// Lets the write and its answer pass.
    pub(super) fn pass(mut self) {
        self.node.write_all(&self.write).unwrap();
        thread::spawn(move || {
            let _ended = std::io::copy(&mut self.client, &mut self.node);
        });
    }

    /// Lets the write pass; the client hears nothing any more.
    pub(super) fn pass_and_hang_up(mut self) {
        self.client.shutdown(Shutdown::Both).unwrap();
        self.node.write_all(&self.write).unwrap();
    }
}
