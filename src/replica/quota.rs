//! A bound on what the store holds, as back-pressure: while the live keys take as much as
//! `--quota-bytes`, this leader refuses what would grow them. Deletes, compactions and values that
//! get no larger go on, and the refusing ends by itself when there is room again.
//!
//! Only who admits requests looks: the quota is a flag, so no entry's outcome may depend on it.
//! What is under way when the bound is reached comes in: `limits::UNCOMMITTED_BYTES_MAX` of
//! commands at most, each of which may make a key that costs more to keep than the command is long.

use super::Node;
use crate::wire::error::Error;

impl Node {
    /// Refuses a command, which was validated, if it grows a store that is full.
    pub(super) fn check_quota(&self, command: &[u8]) -> Result<(), Error> {
        let Some(max) = self.options.quota_bytes else { return Ok(()) };
        if !self.is_over_quota() || !self.store.grows_by(command) {
            return Ok(());
        }
        Err(Error::OverQuota { bytes: self.store.logical_bytes(), max })
    }

    /// Whether the live keys take as much as they may, so that nothing comes that grows them.
    pub(super) fn is_over_quota(&self) -> bool {
        self.options.quota_bytes.is_some_and(|max| self.store.logical_bytes() >= max)
    }
}
