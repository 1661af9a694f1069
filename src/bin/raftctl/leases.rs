//! lease grant, revoke, keep-alive, list, ttl. In etcdctl's words, with whole numbers for leases.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use raftd::client::{Client, Deadline, Error, LeaseFound, LeaseTerm};
use serde_json::{Map, Value, json};

use super::args::{Format, LeaseVerb};
use super::exit::{End, Failure};
use super::output::{insert_bytes, json_line, table};

pub(crate) fn lease(
    client: &mut Client,
    format: Format,
    verb: LeaseVerb,
) -> Result<Vec<u8>, Failure> {
    match verb {
        LeaseVerb::Grant { ttl, id } => {
            let granted = client.lease_grant(id.0, ttl.0)?;
            Ok(term(format, "granted", &granted))
        }
        LeaseVerb::Revoke { id } => {
            let revision = client.lease_revoke(id.0)?;
            Ok(match format {
                Format::Simple => format!("lease {} revoked\n", id.0).into_bytes(),
                Format::Json => json_line(&json!({ "lease": id.0, "revision": revision.0 })),
                Format::Table => table(&["REVOKED"], &[vec![id.0.to_string()]]),
            })
        }
        LeaseVerb::KeepAlive { id, once: true } => keep_alive(client, format, id.0),
        LeaseVerb::KeepAlive { id, once: false } => keep_alive_for_ever(client, format, id.0),
        LeaseVerb::List => list(client, format),
        LeaseVerb::Ttl { id, keys } => {
            let found = client.lease_time_to_live(id.0, keys)?;
            if found.times.ttl_s == 0 {
                return Err(Failure::refused(gone(id.0)));
            }
            Ok(times(format, keys, &found))
        }
    }
}

fn gone(lease: u64) -> String {
    format!("there is no lease {lease}: it has expired, or was revoked")
}

fn keep_alive(client: &mut Client, format: Format, lease: u64) -> Result<Vec<u8>, Failure> {
    let kept = client.lease_keep_alive(lease)?;
    if kept.ttl_s == 0 {
        return Err(Failure::refused(gone(lease)));
    }
    Ok(term(format, "kept alive", &kept))
}

/// Until somebody ends it, or the lease. A cluster that is away for a while need not end it.
fn keep_alive_for_ever(
    client: &mut Client,
    format: Format,
    lease: u64,
) -> Result<Vec<u8>, Failure> {
    let mut lives_until = Deadline::after(Duration::ZERO);
    loop {
        let kept = match client.lease_keep_alive(lease) {
            Err(Error::Unavailable { .. }) if !lives_until.has_passed() => continue,
            kept => kept?,
        };
        if kept.ttl_s == 0 {
            return Err(Failure::refused(gone(lease)));
        }
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(&term(format, "kept alive", &kept))
            .and_then(|()| stdout.flush())
            .context("cannot write to standard output")
            .map_err(|why| Failure { end: End::Refused, why })?;
        drop(stdout);
        let whole = Duration::from_secs(kept.ttl_s);
        lives_until = Deadline::after(whole);
        // A third of its time, as etcd's clients: two may be lost.
        Deadline::after(whole / 3).wait();
    }
}

fn term(format: Format, what: &str, term: &LeaseTerm) -> Vec<u8> {
    let LeaseTerm { revision, lease, ttl_s } = *term;
    match format {
        Format::Simple => format!("lease {lease} {what} with TTL({ttl_s}s)\n").into_bytes(),
        Format::Json => {
            json_line(&json!({ "lease": lease, "ttl_s": ttl_s, "revision": revision.0 }))
        }
        Format::Table => table(&["LEASE", "TTL"], &[vec![lease.to_string(), format!("{ttl_s}s")]]),
    }
}

fn list(client: &mut Client, format: Format) -> Result<Vec<u8>, Failure> {
    let list = client.lease_list()?;
    let lines = || list.leases.iter().map(|lease| vec![lease.to_string()]);
    Ok(match format {
        Format::Simple => {
            let mut text = format!("found {} leases\n", list.leases.len());
            for lease in &list.leases {
                text += &format!("{lease}\n");
            }
            text.into_bytes()
        }
        Format::Json => json_line(&json!({ "leases": list.leases, "revision": list.revision.0 })),
        Format::Table => table(&["LEASE"], &lines().collect::<Vec<_>>()),
    })
}

fn times(format: Format, with_keys: bool, found: &LeaseFound) -> Vec<u8> {
    let times = found.times;
    let (lease, ttl_s, left_ms) = (times.lease, times.ttl_s, times.left_ms);
    match format {
        Format::Simple => {
            let left_s = left_ms / 1000;
            let mut text =
                format!("lease {lease} granted with TTL({ttl_s}s), remaining({left_s}s)");
            if with_keys {
                let keys = found.keys.iter().map(|key| key.escape_ascii().to_string());
                let keys: Vec<String> = keys.collect();
                text += &format!(", attached keys([{}])", keys.join(" "));
            }
            (text + "\n").into_bytes()
        }
        Format::Json => {
            let mut object = json!({
                "lease": lease,
                "ttl_s": ttl_s,
                "left_ms": left_ms,
                "revision": times.revision.0,
            });
            if with_keys && let Value::Object(fields) = &mut object {
                fields.insert("key_count".to_owned(), times.key_count.into());
                let keys = found.keys.iter().map(|key| {
                    let mut object = Map::new();
                    insert_bytes(&mut object, "key", key);
                    Value::Object(object)
                });
                fields.insert("keys".to_owned(), keys.collect());
            }
            json_line(&object)
        }
        Format::Table => {
            let row = vec![lease.to_string(), format!("{ttl_s}s"), format!("{left_ms}ms")];
            table(&["LEASE", "TTL", "LEFT"], &[row])
        }
    }
}
