//! Whether somebody may do what it asks. Asked twice: before a request enters the log or begins to
//! wait, so that nobody fills the log with what is refused anyway; and where it is done, by the
//! rights of then, which counts.
//!
//! ```text
//! put                        write of the key; read, to hear what was there before
//! onto a lease               write of all keys that hang on it: who may hang another one there
//!                            may not make it impossible to revoke
//! conditional put            read and write of the key
//! delete                     write of the range; read, to hear what was there before
//! transaction                all of its compares (read) and all requests of both branches
//! grant, keep-alive          any user
//! revoke a lease             write of all keys that hang on it
//! keys of a lease            read of all of them
//! compaction, users, roles   the role root
//! what a leader says         the leader
//! ```

use super::super::Store;
use super::super::command::{Command, PutWith, RangeEnd};
use super::super::txn::{Request, Txn};
use super::{Asker, Denial, Rights};

impl Store {
    /// Whether somebody may do a command as things are.
    #[inline]
    pub fn judge(&self, asker: Asker, command: &Command<'_>) -> Result<(), Denial> {
        if self.auth.is_enabled() { self.judge_enabled(asker, command) } else { Ok(()) }
    }

    fn judge_enabled(&self, asker: Asker, command: &Command<'_>) -> Result<(), Denial> {
        // No client's request becomes one.
        if command.is_leaders() {
            return Ok(());
        }
        let rights = self.auth.rights(asker)?;
        match *command {
            Command::Put { key, .. } => rights.write(key, RangeEnd::Key),
            Command::PutIf { key, .. } => {
                rights.read(key, RangeEnd::Key)?;
                rights.write(key, RangeEnd::Key)
            }
            Command::PutWith(put) => self.judge_put(&rights, &put),
            Command::DeleteRange { key, end } => rights.write(key, end),
            Command::DeleteRangeWith(delete) => {
                if delete.prev_kv {
                    rights.read(delete.key, delete.end)?;
                }
                rights.write(delete.key, delete.end)
            }
            Command::Txn(txn) => self.judge_txn(&rights, txn),
            Command::LeaseRevoke { lease } => self.judge_revocation(&rights, lease),
            Command::Compact { .. } | Command::Auth(_) => rights.administer(),
            // Whoever is a user.
            Command::OpenSession
            | Command::LeaseGrant { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. } => Ok(()),
        }
    }

    /// Whether somebody may do a transaction that changes nothing.
    pub fn judge_read_txn(&self, asker: Asker, txn: Txn<'_>) -> Result<(), Denial> {
        self.judge_txn(&self.auth.rights(asker)?, txn)
    }

    /// Whether somebody may hear that these keys hang on a lease.
    pub fn judge_lease_keys(&self, asker: Asker, keys: &[&[u8]]) -> Result<(), Denial> {
        if !self.auth.is_enabled() {
            return Ok(());
        }
        let rights = self.auth.rights(asker)?;
        match rights {
            Rights::All => Ok(()),
            Rights::Of(_) => keys.iter().try_for_each(|key| rights.read(key, RangeEnd::Key)),
        }
    }

    /// Whether somebody may delete all keys that hang on a lease.
    fn judge_revocation(&self, rights: &Rights<'_>, lease: u64) -> Result<(), Denial> {
        match rights {
            Rights::All => Ok(()),
            Rights::Of(_) => {
                self.lease_keys(lease, 0).try_for_each(|(_, key)| rights.write(key, RangeEnd::Key))
            }
        }
    }

    fn judge_put(&self, rights: &Rights<'_>, put: &PutWith<'_>) -> Result<(), Denial> {
        rights.write(put.key, RangeEnd::Key)?;
        if put.prev_kv {
            rights.read(put.key, RangeEnd::Key)?;
        }
        if put.lease == 0 { Ok(()) } else { self.judge_revocation(rights, put.lease) }
    }

    fn judge_txn(&self, rights: &Rights<'_>, txn: Txn<'_>) -> Result<(), Denial> {
        if let Rights::All = rights {
            return Ok(());
        }
        for compare in txn.compares() {
            rights.read(compare.key, compare.end)?;
        }
        for request in txn.branch(true).chain(txn.branch(false)) {
            match request {
                Request::Put(put) => self.judge_put(rights, &put)?,
                Request::Delete(delete) => {
                    if delete.prev_kv {
                        rights.read(delete.key, delete.end)?;
                    }
                    rights.write(delete.key, delete.end)?;
                }
                Request::Range(range) => rights.read(range.key, range.end)?,
                Request::Txn(inner) => self.judge_txn(rights, inner)?,
            }
        }
        Ok(())
    }
}
