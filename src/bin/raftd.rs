//! `raftd`: one server. Parses, builds, runs, and maps errors to exit codes.
//!
//! 0 stopped by a signal · 2 wrong flags · 3 must not start or go on (the line says why) · 74 the
//! disk failed

use raftd::client::find_cluster;
use raftd::config::Config;
use raftd::huge_pages;
use raftd::limits::WorkingLimits;
use raftd::program::{Parsed, arguments, print, raise_descriptor_limit, whole_story};
use raftd::replica::{Fatal, NodeOptions, SnapshotOptions, Start};
use raftd::server::{
    Ended, Farewell, Server, ServerOptions, SocketShare, StartError, start_logger, unix_ms,
};
use raftd::types::{ClusterId, DiskId};
use raftd::wal::{OpenError, OsDisk};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

const USAGE: u8 = 2;
const REFUSED: u8 = 3;
const DISK_FAILED: u8 = 74;

/// The system's word for a device that could not read or write. The same on every Linux.
const EIO: i32 = 5;

fn main() -> ExitCode {
    let config = match arguments().and_then(|arguments| Config::parse(&arguments)) {
        Ok(Parsed::Serve(config)) => config,
        Ok(Parsed::Print(text)) => return print(&text),
        Err(error) => return say(USAGE, &error.to_string()),
    };
    if config.huge_pages {
        huge_pages::take();
    }
    stop_at_panics();
    let descriptors = raise_descriptor_limit();
    match serve(&config, descriptors) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => say(code, &why),
    }
}

fn say(code: u8, why: &str) -> ExitCode {
    let _closed = writeln!(io::stderr(), "raftd: {why}");
    ExitCode::from(code)
}

/// A helper thread must not die alone: whatever breaks an assertion ends the process.
fn stop_at_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        std::process::abort();
    }));
}

/// How many sockets there may be, so that the log always gets its descriptors.
fn share_sockets(descriptors: usize, clients: usize) -> Result<SocketShare, (u8, String)> {
    SocketShare::of(descriptors, clients).map_err(|least| {
        let advice = "raise the limit, see ulimit -n";
        (REFUSED, format!("{descriptors} descriptors are too few, {least} are the least: {advice}"))
    })
}

fn warn_of_few(descriptors: usize, config: &Config, share: SocketShare) {
    let wanted = config.connections_max;
    if share.clients_max < wanted {
        log::warn!(
            "few descriptors, so fewer clients than --max-connections node={} \
             descriptors={descriptors} sockets_max={} clients_max={} wanted={wanted} \
             descriptors_wanted={}",
            config.id,
            share.sockets_max,
            share.clients_max,
            SocketShare::wanted(wanted),
        );
    }
}

fn serve(config: &Config, descriptors: usize) -> Result<(), (u8, String)> {
    let logger = start_logger().map_err(|error| (REFUSED, format!("cannot start: {error}")))?;
    let share = share_sockets(descriptors, config.connections_max)?;
    let opened = OsDisk::open(&config.data_dir);
    let disk = opened.map_err(|error| (open_code(&error), whole_story(&error)))?;
    let seed = random_u64()?;
    let options = node_options(config, cluster_id(config), seed, share.clients_max)?;
    log::info!(
        "starting version={} node={} seed={seed} data_dir={} listen={} cluster={} segment_bytes={} \
         huge_pages={}",
        env!("CARGO_PKG_VERSION"),
        config.id,
        config.data_dir.display(),
        config.listen,
        options.cluster_id,
        config.segment_bytes,
        huge_pages::taken(),
    );
    warn_of_few(descriptors, config, share);
    if let Some(warning) = disk.file_system_warning() {
        log::warn!("{warning} node={} data_dir={}", config.id, config.data_dir.display());
    }
    let server_options =
        ServerOptions { listen: config.listen.clone(), sockets_max: share.sockets_max };
    let started = Server::start(Arc::new(disk), options, &server_options);
    let mut server = started.map_err(|error| (start_code(&error), whole_story(&error)))?;
    let ended = server.run();
    let result = match ended {
        Ended::Stopped(farewell) => {
            let noted = farewell == Farewell::Noted;
            log::info!("stopped node={} reason=signal clean={noted}", config.id);
            Ok(())
        }
        Ended::Fatal(fatal) => Err((fatal_code(&fatal), fatal.to_string())),
        Ended::Poll(error) => Err((REFUSED, format!("cannot wait for events: {error}"))),
    };
    logger.flush();
    result
}

/// The cluster that the flags describe. Who joins one asks its members; once it has a data
/// directory, that knows.
fn cluster_id(config: &Config) -> ClusterId {
    if !config.join {
        return config.cluster_id();
    }
    if config.data_dir.join("IDENTITY").exists() {
        return ClusterId(0);
    }
    let endpoints: Vec<String> = config.members.iter().map(|it| it.address.clone()).collect();
    let mut complained = false;
    find_cluster(&endpoints, |error| {
        if !std::mem::replace(&mut complained, true) {
            log::warn!("cannot ask the members for their cluster, trying on error={error}");
        }
    })
}

fn node_options(
    config: &Config,
    cluster_id: ClusterId,
    seed: u64,
    clients_max: usize,
) -> Result<NodeOptions, (u8, String)> {
    let (high, low) = (random_u64()?, random_u64()?);
    Ok(NodeOptions {
        id: config.id,
        members: config.members.clone(),
        cluster_id,
        token_hash: config.token_hash(),
        disk_id_if_new: DiskId((u128::from(high) << 64) | u128::from(low)),
        boot_nonce: random_u64()?,
        seed,
        login_secret: random_key()?,
        unix_ms: unix_ms(),
        election_timeout_ns: config.election_timeout_ns,
        heartbeat_ns: config.heartbeat_ns,
        segment_bytes: config.segment_bytes,
        history_bytes_max: config.history_bytes_max,
        history_age_ns: config.history_age_ns,
        quota_bytes: config.quota_bytes,
        clients_max,
        working: WorkingLimits::default(),
        lease_drift_ppm: config.lease_drift_ppm,
        start: if config.force_new_cluster { Start::NewCluster } else { Start::AsItIs },
        snapshots: SnapshotOptions {
            entries: config.snapshots.entries,
            log_bytes: config.snapshots.log_bytes,
            interval_ns: config.snapshots.interval_ns,
            rate: Some(config.snapshots.rate),
            ..SnapshotOptions::default()
        },
    })
}

fn random_key() -> Result<[u8; 32], (u8, String)> {
    let mut key = [0; 32];
    for part in key.chunks_exact_mut(8) {
        part.copy_from_slice(&random_u64()?.to_le_bytes());
    }
    Ok(key)
}

/// All chance of the process enters here. Linux getrandom(2).
fn random_u64() -> Result<u64, (u8, String)> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(8) => Ok(u64::from_le_bytes(bytes)),
        Ok(_) => Err((REFUSED, "the system gave too few random bytes".to_owned())),
        Err(error) => Err((REFUSED, format!("the system gave no random bytes: {error}"))),
    }
}

fn start_code(error: &StartError) -> u8 {
    match error {
        StartError::Open(error) => open_code(error),
        StartError::Listen { .. } | StartError::System(_) => REFUSED,
    }
}

/// A medium that fails is told from a directory that was named or prepared wrongly.
fn open_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Io { source, .. } if source.raw_os_error() == Some(EIO) => DISK_FAILED,
        OpenError::Io { .. }
        | OpenError::InUse { .. }
        | OpenError::WrongNode { .. }
        | OpenError::WrongCluster { .. }
        | OpenError::NotADataDirectory { .. }
        | OpenError::NetworkFileSystem { .. }
        | OpenError::Incomplete { .. }
        | OpenError::HalfRestored { .. }
        | OpenError::NotEmpty { .. }
        | OpenError::IdentityDamaged { .. }
        | OpenError::Version { .. }
        | OpenError::HardStateLost { .. }
        | OpenError::Stray { .. }
        | OpenError::OtherDisk { .. }
        | OpenError::Damaged(_)
        | OpenError::SnapshotDamaged { .. } => REFUSED,
    }
}

fn fatal_code(fatal: &Fatal) -> u8 {
    match fatal {
        Fatal::Disk(_) => DISK_FAILED,
        Fatal::Entry { .. } | Fatal::Refused(_) => REFUSED,
    }
}
