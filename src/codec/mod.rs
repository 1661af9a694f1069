//! codec.
pub mod crc;
