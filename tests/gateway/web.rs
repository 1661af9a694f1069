//! A client of HTTP as small as can be: one request on one connection.

use super::harness::PATIENCE;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    /// Head and all, in small letters.
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Page {
    /// An answer that has come whole, and not in chunks.
    pub(crate) fn read(answer: &str) -> Page {
        let (head, text) = answer.split_once("\r\n\r\n").expect("a head ends");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Page { status, head: head.to_lowercase(), text: text.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

/// Base64 of a text.
pub(crate) fn base64(text: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(text.len().div_ceil(3) * 4);
    for three in text.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[usize::try_from(bits >> (18 - 6 * at) & 63).unwrap()];
            out.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Sends a request, `what` being its method and path, with `headers` that have an end each.
pub(crate) fn send(address: &str, what: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let length = body.len();
    let head = [
        &format!("{what} HTTP/1.1\r\nHost: {address}\r\n{headers}"),
        &format!("Connection: close\r\nContent-Length: {length}\r\n\r\n"),
    ];
    stream.write_all(head.map(String::as_str).concat().as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request, and reads the whole answer.
pub(crate) fn page(address: &str, what: &str, headers: &str, body: &[u8]) -> Page {
    whole(send(address, what, headers, body))
}

/// Sends what is perhaps no whole request, and reads the whole answer.
pub(crate) fn page_of(address: &str, request: &[u8]) -> Page {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    whole(stream)
}

fn whole(stream: TcpStream) -> Page {
    let mut heard = Lines::of(stream);
    let mut text = String::new();
    while let Some(piece) = heard.piece() {
        text.push_str(&piece);
    }
    Page { status: heard.status, head: heard.head, text }
}

pub(crate) fn get(address: &str, path: &str) -> Page {
    page(address, &format!("GET {path}"), "", b"")
}

pub(crate) fn post(address: &str, path: &str, body: &str) -> Page {
    page(address, &format!("POST {path}"), "", body.as_bytes())
}

/// An answer that is read while it comes.
pub(crate) struct Lines {
    stream: BufReader<TcpStream>,
    pub(crate) status: u16,
    head: String,
    is_chunked: bool,
    ended: bool,
}

impl Lines {
    /// Sends a request, and reads as far as to the content of its answer.
    pub(crate) fn post(address: &str, path: &str, body: &str) -> Lines {
        Lines::of(send(address, &format!("POST {path}"), "", body.as_bytes()))
    }

    /// What comes by this connection.
    pub(crate) fn of(stream: TcpStream) -> Lines {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "a head ends: {head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head = head.to_lowercase();
        let is_chunked = head.contains("transfer-encoding: chunked");
        Lines { stream, status, head, is_chunked, ended: false }
    }

    /// The next piece of the content; `None`: that was all.
    fn piece(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        if !self.is_chunked {
            self.ended = true;
            let mut rest = String::new();
            self.stream.read_to_string(&mut rest).unwrap();
            return Some(rest);
        }
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut piece = vec![0; length + 2];
        self.stream.read_exact(&mut piece).unwrap();
        piece.truncate(length);
        self.ended = length == 0;
        (!self.ended).then(|| String::from_utf8(piece).unwrap())
    }

    /// Whether the connection ends before the content does, whose length was said.
    pub(crate) fn is_cut(&mut self) -> bool {
        let length = self.head.split("content-length: ").nth(1).unwrap();
        let length: u64 = length.lines().next().unwrap().parse().unwrap();
        // A reset is an end as well.
        let mut rest = Vec::new();
        let _end = self.stream.read_to_end(&mut rest);
        u64::try_from(rest.len()).unwrap() < length
    }

    /// The next line, which comes in one piece.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let piece = self.piece()?;
        assert!(piece.ends_with('\n'), "{piece}");
        Some(serde_json::from_str(&piece).unwrap())
    }
}
