//! The examples of what members say of their states in protocol.md; whatever members say, there and
//! back.

use raftd::raft::message::Message;
use raftd::types::LogIndex;
use raftd::wire::peer::{self, AppendHead};
use raftd::wire::state::{StateWord, decode_state_word, encode_state_word};

use super::samples::{Kind, Written, text};

pub(super) fn samples() -> Vec<Written> {
    vec![
        (Kind::Peer, "state-hash", |out| {
            let (index, hash) = (LogIndex::new(768), 0x107b_c70f);
            encode_state_word(out, StateWord::Hash { formula: 1, index, hash });
        }),
        (Kind::Peer, "state-wanted", |out| {
            encode_state_word(out, StateWord::Wanted { at_least: LogIndex::new(1024) });
        }),
    ]
}

/// Decodes what a member says, and encodes it again.
pub(super) fn peer_again(out: &mut Vec<u8>, body: &[u8]) -> Result<(), String> {
    if let Some(word) = decode_state_word(body).map_err(text)? {
        encode_state_word(out, word);
        return Ok(());
    }
    let frame = peer::decode_peer(body, peer::Room::default()).map_err(text)?;
    if let Message::Append { term, session, round, prev, entries, commit } = frame.message {
        assert_eq!(entries.len(), frame.payloads.len(), "a payload for every entry");
        let head = AppendHead { term, session, round, prev, commit, count: entries.len() };
        let payloads = frame.payloads.iter().map(|payload| (payload.crc, payload.bytes));
        let entries = entries.into_iter().zip(payloads);
        peer::encode_append(out, &head, entries.map(|(meta, (crc, bytes))| (meta, crc, bytes)));
    } else if let Message::InstallSnapshot { term, snapshot, offset, bytes: _ } = frame.message {
        let [piece] = frame.payloads.as_slice() else { panic!("one piece") };
        peer::encode_piece(out, term, snapshot, offset, piece.bytes);
    } else {
        peer::encode_message(out, &frame.message);
    }
    Ok(())
}
