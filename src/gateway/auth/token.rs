//! What clients show instead of a password: whose it is, and what only a gateway can have written.
//!
//! ```text
//! 17.3f0c…    the credential in decimal, a dot, and HMAC-SHA-256 of it in hexadecimal
//! ```
//!
//! Nothing is kept of a token. It is good for as long as its credential is, which the nodes know:
//! until its user is deleted or gets another password.

use std::fmt::Write;

use crate::types::{ClusterId, Credential};
use crate::wire::scram::{KEY_BYTES, Key, are_equal, hmac};

/// The token of a credential.
pub(super) fn token(key: &Key, cluster: ClusterId, credential: Credential) -> String {
    let mut token = format!("{}.", credential.0);
    for byte in seal(key, cluster, credential) {
        // A text takes whatever is written.
        let _never = write!(token, "{byte:02x}");
    }
    token
}

/// Whose a token is, if it was written with this key for this cluster.
pub(super) fn credential(key: &Key, cluster: ClusterId, token: &str) -> Option<Credential> {
    let (number, shown) = token.split_once('.')?;
    let credential = Credential(number.parse().ok()?);
    let expected = seal(key, cluster, credential);
    are_equal(&read(shown)?, &expected).then_some(credential)
}

/// A credential is the cluster's: another one may have given it to somebody else.
fn seal(key: &Key, cluster: ClusterId, credential: Credential) -> Key {
    hmac(key, &[b"token", &cluster.0.to_be_bytes(), &credential.0.to_be_bytes()])
}

fn read(text: &str) -> Option<Key> {
    let mut key = [0; KEY_BYTES];
    // Two digits a byte, and nothing that is a number with a sign.
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_no_other_is() {
        let (key, cluster, whose) = ([7; KEY_BYTES], ClusterId(5), Credential(17));
        let good = token(&key, cluster, whose);
        assert_eq!(credential(&key, cluster, &good), Some(whose));
        assert_eq!(credential(&[8; KEY_BYTES], cluster, &good), None, "another gateway's");
        assert_eq!(credential(&key, ClusterId(6), &good), None, "another cluster's");
        let (number, seal) = good.split_once('.').unwrap();
        for bad in [
            String::new(),
            ".".to_owned(),
            number.to_owned(),
            format!("{number}."),
            format!("18.{seal}"),
            format!("1.{seal}"),
            format!("{number}.{}", &seal[2..]),
            format!("{number}.{seal}00"),
            format!("{number}.{}", "é".repeat(KEY_BYTES)),
            format!("{number}.+{}", &seal[1..]),
            format!("{number}.{}", "0".repeat(2 * KEY_BYTES)),
        ] {
            assert_eq!(credential(&key, cluster, &bad), None, "{bad}");
        }
    }
}
