//! snapshot restore: from a saved file to the data directory of a member of a new cluster.

use std::io::{self, Write};
use std::path::Path;

use raftd::client::unix_ms;
use raftd::config::Config;
use raftd::limits::ENTRY_CACHE_BYTES;
use raftd::program::Parsed;
use raftd::replica::{Begun, NewMember, RestoreId, restore_member};
use raftd::types::DiskId;
use raftd::wal::{Options, OsDisk};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;

use super::args::{Format, RestoreArgs};
use super::exit::{End, Failure};
use super::output::{json_line, table};
use super::save::Progress;
use super::snapshot;

pub(crate) fn restore(format: Format, args: &RestoreArgs) -> Result<(Vec<u8>, End), Failure> {
    let config = parse(args)?;
    let source = snapshot::open(&args.file)?;
    let restore_id = match args.restore_id {
        Some(given) => given,
        None => RestoreId(random()?),
    };
    let new = NewMember {
        members: config.members.clone(),
        bump: args.bump_revision,
        restore_id,
        wal: Options {
            cluster_id: None,
            token_hash: config.token_hash(),
            node: config.id,
            disk_id_if_new: DiskId(random()?),
            boot_nonce: low(random()?),
            segment_bytes: config.segment_bytes,
            salt_seed: low(random()?),
            created_unix_ms: unix_ms(),
            entry_cache_bytes: ENTRY_CACHE_BYTES,
        },
    };
    let disk = OsDisk::open(&config.data_dir).map_err(Failure::of_directory)?;
    let mut progress = Progress::begin();
    let all = source.id.bytes;
    let begun = restore_member(&source, &new, &disk, &mut |done| {
        progress.show(&super::save::percent(done.min(all), all));
    });
    progress.end();
    let begun = begun.map_err(Failure::of_snapshot)?;
    let is_first = args.restore_id.is_none() && config.members.len() > 1;
    if is_first {
        let hint = format!("restore the other members with --restore-id {restore_id}\n");
        // Nobody is left to hear that standard error is closed; it is printed as well.
        let _closed = io::stderr().write_all(hint.as_bytes());
    }
    Ok((said(format, &config.data_dir, restore_id, &begun), End::Done))
}

/// The flags mean what they mean to raftd, and are refused as there.
fn parse(args: &RestoreArgs) -> Result<Box<Config>, Failure> {
    let mut words = vec!["--id", &args.id, "--data-dir", &args.data_dir, "--peers", &args.peers];
    if let Some(token) = &args.cluster_token {
        words.extend(["--cluster-token", token]);
    }
    if let Some(bytes) = &args.segment_bytes {
        words.extend(["--segment-bytes", bytes]);
    }
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    match Config::parse(&words) {
        Ok(Parsed::Serve(config)) => Ok(config),
        Ok(Parsed::Print(_)) => Err(Failure::usage("these flags name no member")),
        Err(error) => Err(Failure { end: End::Usage, why: error.into() }),
    }
}

/// All chance of the program enters here: the names of a data directory and of a cluster must be
/// nobody else's.
fn random() -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    match getrandom(&mut bytes[..], GetRandomFlags::empty()) {
        Ok(16) => Ok(u128::from_le_bytes(bytes)),
        Ok(_) | Err(_) => Err(Failure::refused("the system gave no random bytes".to_owned())),
    }
}

fn low(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).expect("half of the bits are left")
}

fn said(format: Format, dir: &Path, restore_id: RestoreId, begun: &Begun) -> Vec<u8> {
    let Begun { cluster_id, position, revision, keys, state_hash } = begun;
    match format {
        Format::Simple => format!(
            "restored {} cluster={cluster_id} index={} term={} revision={revision} keys={keys} \
             hash={state_hash:016x} restore-id={restore_id}\n",
            dir.display(),
            position.index,
            position.term,
        )
        .into_bytes(),
        Format::Json => json_line(&json!({
            "data_dir": dir.to_string_lossy(),
            "cluster_id": cluster_id.to_string(),
            "index": position.index.get(),
            "term": position.term.get(),
            "revision": revision.0,
            "keys": keys,
            "state_hash": format!("{state_hash:016x}"),
            "restore_id": restore_id.to_string(),
        })),
        Format::Table => table(
            &["DATA DIR", "CLUSTER", "INDEX", "REVISION", "KEYS", "RESTORE ID"],
            &[vec![
                dir.display().to_string(),
                cluster_id.to_string(),
                position.index.to_string(),
                revision.to_string(),
                keys.to_string(),
                restore_id.to_string(),
            ]],
        ),
    }
}
