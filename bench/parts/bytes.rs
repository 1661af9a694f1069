//! Work on bytes: reading a put, and checksums.

use super::{Figure, timed};
use crate::Result;
use raftd::codec::crc::crc32;
use raftd::kv::command::read_command;
use raftd::limits::{CLIENT_FRAME_BYTES_MAX, REQUEST_BYTES_MAX};
use raftd::wire::client::{decode_request, put_request};
use raftd::wire::frame::next_frame;
use std::hint::black_box;

/// Puts of a turn at 1000 in flight.
const PUTS: u32 = 1000;
const TURNS: u32 = 200;

/// What a leader does to read a put from its connection's buffer.
pub(super) fn decode() -> Result<Vec<Figure>> {
    let mut bytes = Vec::new();
    for id in 0..PUTS {
        let key = format!("key-{id:012}");
        put_request(&mut bytes, id.into(), key.as_bytes(), &[0x5a; 256]);
    }
    let ns = timed(PUTS * TURNS, || {
        for _ in 0..TURNS {
            let mut rest = black_box(&bytes[..]);
            while let Some(frame) = next_frame(rest, CLIENT_FRAME_BYTES_MAX)? {
                let request = decode_request(frame.body)?;
                black_box(read_command(request.command, REQUEST_BYTES_MAX)?);
                rest = &rest[frame.consumed..];
            }
        }
        Ok(())
    })?;
    let figure = Figure::of("part decode: put", &ns)?;
    Ok(vec![figure.with("frame, request and command, 16 B key, 256 B value".to_owned())])
}

/// A CRC over so many bytes.
pub(super) fn crc(bytes: usize, name: &str) -> Result<Vec<Figure>> {
    let text = vec![0x5a; bytes];
    let count = u32::try_from((256 * 1024 * 1024 / bytes).min(1_000_000))?;
    let ns = timed(count, || {
        for _ in 0..count {
            black_box(crc32(&[black_box(&text)]));
        }
        Ok(())
    })?;
    let figure = Figure::of(name, &ns)?;
    let per_second = f64::from(u32::try_from(bytes)?) / figure.ns.median;
    Ok(vec![figure.with(format!("{per_second:.1} GB/s"))])
}
