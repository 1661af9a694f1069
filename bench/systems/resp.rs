//! Redis's protocol, as far as loads need it. Answers come in the order of the requests.
//!
//! ```text
//! request  *3\r\n $3\r\nSET\r\n $16\r\nkey\r\n $256\r\nvalue\r\n
//! answer   +OK\r\n   or   $256\r\nvalue\r\n   or   $-1\r\n (no such key)   or   -ERR why\r\n
//! ```

use raftd::client::load::{Answer, Asked, Found, Greeting, Heard, Refusal, Said, Speaker};
use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;

/// One side of one connection.
#[derive(Debug, Default)]
pub(crate) struct RespSpeaker {
    /// The numbers of the requests in flight, the oldest first.
    asked: VecDeque<u64>,
}

impl Speaker for RespSpeaker {
    fn greet(&mut self, _out: &mut Vec<u8>) -> Greeting {
        self.asked.clear();
        Greeting::Over
    }

    fn ask(&mut self, out: &mut Vec<u8>, id: u64, asked: Asked<'_>) {
        self.asked.push_back(id);
        match asked {
            Asked::Put { key, value } => words(out, &[b"SET", key, value]),
            Asked::Get { key } => words(out, &[b"GET", key]),
            Asked::Scan { .. } => unreachable!("no row scans Redis, whose keys have no order"),
        }
    }

    fn hear<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<Option<Heard<'b>>, Box<dyn Error + Send + Sync>> {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let (line, mut consumed) = (&bytes[..end], end + 2);
        let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
        let answer = match line.first() {
            Some(b'+') => Answer::Put { revision: 0 },
            Some(b'-') => {
                Answer::Refused(Refusal::NotDone { why: text.into_owned(), again: false })
            }
            Some(b'$') if &*text == "-1" => Answer::Missing,
            Some(b'$') => {
                let length: usize = text.parse()?;
                let Some(value) = bytes.get(consumed..consumed + length + 2) else {
                    return Ok(None);
                };
                consumed += length + 2;
                Answer::Found(Found { value: &value[..length], revision: 0 })
            }
            Some(_) | None => return Err(format!("no answer begins with {text:?}").into()),
        };
        let id = self.asked.pop_front().ok_or("an answer to nothing")?;
        Ok(Some(Heard { consumed, said: Said::Answer { id, answer } }))
    }
}

fn words(out: &mut Vec<u8>, words: &[&[u8]]) {
    let into_memory = "memory takes everything";
    write!(out, "*{}\r\n", words.len()).expect(into_memory);
    for word in words {
        write!(out, "${}\r\n", word.len()).expect(into_memory);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
