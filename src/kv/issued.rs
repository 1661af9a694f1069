//! A command of the log, with who asks for it in front.
//!
//! Without a login there is nothing in front, so a cluster whose rights do not count writes what it
//! always wrote, and reading it costs one comparison.

use crate::codec::msgpack::{self, Reader};
use crate::types::Credential;

use super::auth::Asker;
use super::command::{Command, CommandError, OP_AS, SessionCall, check_arity, decode_next};

/// The first bytes of a command of somebody: its op, and an array of four.
const AS: [u8; 2] = [OP_AS, 0x94];

/// What says who asks takes, at most. Bytes.
pub const ASKER_BYTES_MAX: usize = AS.len() + 2 * 9;

/// A command of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Issued<'a> {
    /// Who asks for it.
    pub asker: Asker,
    /// Which call of a session it is, if it is in one.
    pub call: Option<SessionCall>,
    /// It.
    pub command: Command<'a>,
}

/// Reads the next command of a payload.
#[inline]
pub fn decode_issued<'a>(reader: &mut Reader<'a>) -> Result<Issued<'a>, CommandError> {
    if reader.rest().first() == Some(&OP_AS) {
        return decode_as(reader);
    }
    let (call, command) = decode_next(reader)?;
    Ok(Issued { asker: Asker::NOBODY, call, command })
}

fn decode_as<'a>(reader: &mut Reader<'a>) -> Result<Issued<'a>, CommandError> {
    let of = "a command of somebody";
    reader.fixint()?;
    check_arity(of, 4, reader.array()?)?;
    let (login, acting) = (Credential(reader.uint()?), Credential(reader.uint()?));
    if !login.is_some() {
        return Err(CommandError::Number { of: "credential", found: login.0 });
    }
    let op = reader.rest().first().copied().unwrap_or(OP_AS);
    let (call, command) = decode_next(reader)?;
    // What a leader says of leases it says in nobody's name.
    if command.is_leaders() {
        return Err(CommandError::Operation { op });
    }
    Ok(Issued { asker: Asker { login, acting }, call, command })
}

/// Appends who asks for the command that follows; nothing, if it is nobody.
pub fn encode_asker(out: &mut Vec<u8>, asker: Asker) {
    if asker.login.is_some() {
        out.extend_from_slice(&AS);
        msgpack::write_uint(out, asker.login.0);
        msgpack::write_uint(out, asker.acting.0);
    }
}
