//! Flags to [`Config`]: parsing is validation, so inside the program a value is right because it
//! exists.

use crate::limits;
use crate::program::{Parsed, UsageError, read_flags, refuse};
use crate::types::{ClusterId, NodeId, is_address};
use std::path::PathBuf;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// What `raftd` was told to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's number. `--id`.
    pub id: NodeId,
    /// The first members of the cluster, this server included, ascending by id; with `--join`,
    /// members of the cluster to join, without this server. `--peers`.
    pub members: Vec<MemberAddress>,
    /// Whether the server waits to be made a member of a cluster that serves. `--join`.
    pub join: bool,
    /// Whether this server begins a new cluster by itself: the others are lost.
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// Whether `--peers` was given; without it the server is a cluster of one.
    pub peers_given: bool,
    /// Where everything durable lives. `--data-dir`.
    pub data_dir: PathBuf,
    /// The address to accept connections on, `host:port`. `--listen`.
    pub listen: String,
    /// Separates clusters that share hosts. `--cluster-token`.
    pub cluster_token: Option<String>,
    /// Time without word from a leader before a campaign, drawn from [t, 2t). Nanoseconds. Thesis
    /// §3.4.
    pub election_timeout_ns: u64,
    /// Time between heartbeats of an idle leader. Nanoseconds.
    pub heartbeat_ns: u64,
    /// Size of a log segment. Bytes.
    pub segment_bytes: u64,
    /// Superseded versions kept before automatic compaction. Bytes.
    pub history_bytes_max: u64,
    /// How old they may be besides; `None`: that does not matter. Nanoseconds.
    pub history_age_ns: Option<u64>,
    /// What the live keys may take; `None`: no bound. Bytes.
    pub quota_bytes: Option<u64>,
    /// Client connections at once.
    pub connections_max: usize,
    /// `--huge-pages`.
    pub huge_pages: bool,
    /// By how much any two servers' clocks may differ in rate, in millionths; `None`: no leases.
    pub lease_drift_ppm: Option<u32>,
    /// When snapshots are made, and how fast they are sent.
    pub snapshots: SnapshotFlags,
}

/// What the command line says of snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotFlags {
    /// More entries than so many since the last one make one due.
    pub entries: u64,
    /// Or so much log since then. Bytes.
    pub log_bytes: u64,
    /// At least so long from one to the next. Nanoseconds.
    pub interval_ns: u64,
    /// Bytes of one a second to one follower.
    pub rate: u64,
}

/// A member as `--peers` names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemberAddress {
    /// The member's number.
    pub id: NodeId,
    /// Where it accepts connections: `host:port`.
    pub address: String,
}

fn flags() -> getopts::Options {
    let mut flags = getopts::Options::new();
    flags.optopt("", "id", "this server's number, 1 or more, never reused (required)", "N");
    flags.optopt(
        "",
        "peers",
        "the first members, this one included; without it a cluster of one",
        "1=HOST:PORT,2=HOST:PORT,…",
    );
    flags.optflag(
        "",
        "join",
        "wait to be made a member of the cluster of --peers, see raftctl member add",
    );
    flags.optflag(
        "",
        "force-new-cluster",
        "the other members are lost for good: go on alone as a new cluster, with all that is here; \
         give it once",
    );
    flags.optopt("", "data-dir", "where the log and the state live (required)", "DIR");
    flags.optopt(
        "",
        "listen",
        "address to accept on (default: own address in --peers, else 127.0.0.1:7101)",
        "HOST:PORT",
    );
    flags.optopt(
        "",
        "advertise",
        "address others reach this server at (default: --listen)",
        "HOST:PORT",
    );
    flags.optopt("", "cluster-token", "a name that separates clusters on the same hosts", "TEXT");
    flags.optopt(
        "",
        "election-timeout",
        "milliseconds without a leader before a campaign, drawn from [t, 2t) (default 300)",
        "MS",
    );
    flags.optopt(
        "",
        "heartbeat",
        "milliseconds between heartbeats (default a fifth of that)",
        "MS",
    );
    flags.optopt("", "segment-bytes", "size of a log segment (default 64 MiB)", "BYTES");
    bounds_flags(&mut flags);
    snapshot_flags(&mut flags);
    memory_flags(&mut flags);
    flags.optopt("", "max-connections", "clients served at once (default 8192)", "N");
    flags.optopt(
        "",
        "lease-reads",
        "answer reads by lease; any two servers' clocks run alike within DRIFT (default: off)",
        "DRIFT",
    );
    flags
}

fn bounds_flags(flags: &mut getopts::Options) {
    flags.optopt(
        "",
        "history-bytes",
        "superseded versions kept before automatic compaction (default 64 MiB)",
        "BYTES",
    );
    flags.optopt(
        "",
        "history-age",
        "seconds after which superseded versions go, however few (default: never for their age)",
        "SECONDS",
    );
    flags.optopt(
        "",
        "quota-bytes",
        "what the live keys may take before writes that grow them are refused; what is under way \
         still comes in (default: no bound)",
        "BYTES",
    );
}

fn snapshot_flags(flags: &mut getopts::Options) {
    flags.optopt(
        "",
        "snapshot-entries",
        "entries since the last snapshot that make a new one due (default 1000)",
        "N",
    );
    flags.optopt(
        "",
        "snapshot-log-bytes",
        "or what the log has grown by since then, however few the entries (default 16 MiB)",
        "BYTES",
    );
    flags.optopt(
        "",
        "snapshot-interval",
        "milliseconds from one snapshot to the next at least (default 10000)",
        "MS",
    );
    flags.optopt(
        "",
        "snapshot-rate",
        "bytes of a snapshot sent to a follower in a second (default 100 MiB)",
        "BYTES",
    );
}

fn memory_flags(flags: &mut getopts::Options) {
    flags.optflag(
        "",
        "huge-pages",
        "keep memory in pages of 2 MiB: less CPU above all on virtual machines, and a pause of a \
         millisecond or more whenever memory grows by one",
    );
}

impl Config {
    /// Parses the arguments after the program's name.
    pub fn parse(args: &[String]) -> Result<Parsed<Box<Config>>, UsageError> {
        let brief = "raftd: a small, provable, distributed key-value store.\n\n\
                     Usage: raftd --id N --data-dir DIR [--peers LIST] [options]";
        let matches = match read_flags("raftd", brief, flags(), args)? {
            Parsed::Serve(matches) => matches,
            Parsed::Print(text) => return Ok(Parsed::Print(text)),
        };
        if matches.opt_present("force-new-cluster") && matches.opt_present("join") {
            return refuse("--force-new-cluster goes on alone: take --join away");
        }
        let id = parse_id(matches.opt_str("id"))?;
        let Some(data_dir) = matches.opt_str("data-dir").filter(|dir| !dir.is_empty()) else {
            return refuse("--data-dir DIR is missing: say where the log shall live");
        };
        let (members, listen) = parse_members(id, &matches)?;
        let election_ms =
            number(&matches, "election-timeout", limits::ELECTION_TIMEOUT_MS_DEFAULT, 10..=60_000)?;
        let heartbeat_ms =
            number(&matches, "heartbeat", (election_ms / 5).max(1), 1..=election_ms / 2)?;
        let segments = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
        let segment_bytes =
            number(&matches, "segment-bytes", limits::SEGMENT_BYTES_DEFAULT, segments)?;
        if !segment_bytes.is_multiple_of(4096) {
            return refuse("--segment-bytes must be a multiple of 4096");
        }
        let age_seconds = number(&matches, "history-age", 0, 1..=10 * 365 * 86_400)?;
        let quota = number(&matches, "quota-bytes", 0, 4096..=1 << 50)?;
        let connections = number(&matches, "max-connections", 8192, 1..=1_000_000)?;
        Ok(Parsed::Serve(Box::new(Config {
            id,
            members,
            join: matches.opt_present("join"),
            force_new_cluster: matches.opt_present("force-new-cluster"),
            peers_given: matches.opt_present("peers"),
            data_dir: PathBuf::from(data_dir),
            listen,
            cluster_token: matches.opt_str("cluster-token"),
            election_timeout_ns: election_ms * 1_000_000,
            heartbeat_ns: heartbeat_ms * 1_000_000,
            segment_bytes,
            history_bytes_max: number(
                &matches,
                "history-bytes",
                limits::HISTORY_BYTES_DEFAULT,
                4096..=1 << 40,
            )?,
            history_age_ns: Some(age_seconds * 1_000_000_000).filter(|age| *age > 0),
            quota_bytes: Some(quota).filter(|quota| *quota > 0),
            snapshots: parse_snapshots(&matches)?,
            connections_max: usize::try_from(connections).unwrap_or(limits::CONNECTIONS_MAX),
            huge_pages: matches.opt_present("huge-pages"),
            lease_drift_ppm: matches
                .opt_str("lease-reads")
                .map(|it| parse_drift(&it))
                .transpose()?,
        })))
    }

    /// Names the cluster that these flags describe: its token and its first members. Design §7.
    pub fn cluster_id(&self) -> ClusterId {
        let mut text = self.cluster_token.clone().unwrap_or_default();
        for member in &self.members {
            // A cluster of one may move to another port; its id alone names it.
            let address = if self.peers_given { member.address.as_str() } else { "" };
            text.push_str(&format!("\n{}={address}", member.id.get()));
        }
        ClusterId(xxh3_128(text.as_bytes()))
    }

    /// A hash of the token alone, so that a wrong token is told from a changed member list. 0:
    /// none given.
    pub fn token_hash(&self) -> u64 {
        self.cluster_token.as_ref().map_or(0, |token| xxh3_64(token.as_bytes()).max(1))
    }
}

fn parse_snapshots(matches: &getopts::Matches) -> Result<SnapshotFlags, UsageError> {
    let entries = limits::SNAPSHOT_ENTRIES_DEFAULT;
    let log_bytes = limits::SNAPSHOT_LOG_BYTES_DEFAULT;
    let interval_ms = limits::SNAPSHOT_INTERVAL_MS_DEFAULT;
    Ok(SnapshotFlags {
        entries: number(matches, "snapshot-entries", entries, 1..=1 << 40)?,
        log_bytes: number(matches, "snapshot-log-bytes", log_bytes, 1..=1 << 50)?,
        interval_ns: 1_000_000 * number(matches, "snapshot-interval", interval_ms, 0..=86_400_000)?,
        rate: number(matches, "snapshot-rate", limits::SNAPSHOT_RATE_DEFAULT, 1..=1 << 40)?,
    })
}

fn parse_id(text: Option<String>) -> Result<NodeId, UsageError> {
    let Some(text) = text else {
        return refuse("--id N is missing: say which member this server is, 1 or more");
    };
    match text.parse::<u64>().ok().and_then(NodeId::new) {
        Some(id) => Ok(id),
        None => refuse(format!("--id '{text}' is not a number from 1 on")),
    }
}

fn number(
    matches: &getopts::Matches,
    name: &str,
    default: u64,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<u64, UsageError> {
    let Some(text) = matches.opt_str(name) else { return Ok(default) };
    match text.parse::<u64>() {
        Ok(value) if bounds.contains(&value) => Ok(value),
        Ok(_) | Err(_) => refuse(format!(
            "--{name} '{text}' is not a whole number from {} to {}",
            bounds.start(),
            bounds.end()
        )),
    }
}

/// A share of one: `500ppm`, `1%`, `0.05%`. More than a half is no bound, and 0 is no clock.
fn parse_drift(text: &str) -> Result<u32, UsageError> {
    let ppm = match (text.strip_suffix("ppm"), text.strip_suffix('%')) {
        (Some(number), _) => number.parse().ok(),
        (None, Some(number)) => {
            let (whole, part) = number.split_once('.').unwrap_or((number, ""));
            let digits = format!("{whole}{part:0<4}");
            if part.len() <= 4 { digits.parse().ok() } else { None }
        }
        (None, None) => None,
    };
    match ppm {
        Some(ppm @ 1..=500_000) => Ok(ppm),
        Some(_) | None => refuse(format!(
            "--lease-reads '{text}' is not a drift from 1ppm to 50%, as in 500ppm or 0.05%"
        )),
    }
}

fn parse_members(
    id: NodeId,
    matches: &getopts::Matches,
) -> Result<(Vec<MemberAddress>, String), UsageError> {
    let listen =
        matches.opt_str("listen").map(|text| check_address("--listen", &text)).transpose()?;
    let advertise = matches
        .opt_str("advertise")
        .map(|text| check_reachable("--advertise", &text))
        .transpose()?;
    let Some(list) = matches.opt_str("peers") else {
        if matches.opt_present("join") {
            return refuse("--join needs --peers: name one or more members of the cluster");
        }
        let listen = listen.unwrap_or_else(|| "127.0.0.1:7101".to_owned());
        let address = advertise.unwrap_or_else(|| listen.clone());
        return Ok((vec![MemberAddress { id, address }], listen));
    };
    let mut members = parse_peers(&list)?;
    if matches.opt_present("join") {
        let own = members.iter().position(|member| member.id == id);
        let own = own.map(|at| members.remove(at).address);
        if members.is_empty() {
            return refuse("--join needs members to join: name at least one in --peers");
        }
        let listen = listen.or(own).unwrap_or_else(|| "127.0.0.1:7101".to_owned());
        return Ok((members, listen));
    }
    let Some(own) = members.iter().find(|member| member.id == id) else {
        return refuse(format!(
            "--peers '{list}' does not name this server: add {}=HOST:PORT or correct --id",
            id.get()
        ));
    };
    if let Some(advertise) = advertise.filter(|advertise| *advertise != own.address) {
        return refuse(format!(
            "--advertise {advertise} contradicts --peers, which says {}: make them equal",
            own.address
        ));
    }
    let listen = listen.unwrap_or_else(|| own.address.clone());
    Ok((members, listen))
}

fn parse_peers(list: &str) -> Result<Vec<MemberAddress>, UsageError> {
    let mut members = Vec::new();
    for item in list.split(',') {
        let Some((id, address)) = item.split_once('=') else {
            return refuse(format!(
                "--peers has '{item}' where ID=HOST:PORT is expected, as in 1=10.0.0.1:7101"
            ));
        };
        let Some(id) = id.trim().parse::<u64>().ok().and_then(NodeId::new) else {
            return refuse(format!("--peers has '{item}': '{id}' is not a number from 1 on"));
        };
        let address = check_reachable("--peers", address.trim())?;
        members.push(MemberAddress { id, address });
    }
    members.sort();
    for pair in members.windows(2) {
        if let [one, other] = pair
            && one.id == other.id
        {
            return refuse(format!("--peers names server {} twice", one.id.get()));
        }
    }
    let mut addresses: Vec<&str> = members.iter().map(|member| member.address.as_str()).collect();
    addresses.sort_unstable();
    if let Some([one, _]) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("--peers gives the address {one} to two servers"));
    }
    if members.len() > limits::MEMBERS_MAX {
        return refuse(format!("--peers names more than {} servers", limits::MEMBERS_MAX));
    }
    Ok(members)
}

fn check_address(flag: &str, text: &str) -> Result<String, UsageError> {
    if is_address(text) {
        return Ok(text.to_owned());
    }
    refuse(format!(
        "{flag} has '{text}' where HOST:PORT is expected and nothing else, as in 10.0.0.1:7101 or \
         [::1]:7101"
    ))
}

/// An address that others dial: not the one that stands for all of a machine's.
fn check_reachable(flag: &str, text: &str) -> Result<String, UsageError> {
    let address = check_address(flag, text)?;
    if ["0.0.0.0:", "[::]:"].iter().any(|all| address.starts_with(all)) {
        return refuse(format!(
            "{flag} has '{address}', which leads nowhere: name one of this server as HOST:PORT, \
             and accept on all with --listen {address}"
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Parsed<Box<Config>>, UsageError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Config::parse(&args)
    }

    #[test]
    fn every_malformed_line_is_refused_with_what_to_write() {
        let cases = [
            ("", "--id"),
            ("--id 1", "--data-dir"),
            ("--id 0 --data-dir d", "from 1 on"),
            ("--id x --data-dir d", "from 1 on"),
            ("--id 1 --data-dir d --peers 1", "ID=HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=a", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=a:99999", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=a:0", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1==a:1", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=http://a:1", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=::1:7101", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=[::1:7101", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=[a]:7101", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=\u{e9}:1", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=a:1;2=b:1", "HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=0.0.0.0:1", "--listen 0.0.0.0:1"),
            ("--id 1 --data-dir d --advertise [::]:1", "--listen [::]:1"),
            ("--id 1 --data-dir d --peers 1=a:1,", "ID=HOST:PORT"),
            ("--id 1 --data-dir d --peers 1=a:1,1=b:1", "twice"),
            ("--id 1 --data-dir d --peers 1=a:1,2=a:1", "two servers"),
            ("--id 1 --data-dir d --peers 2=a:1", "does not name this server"),
            ("--id 1 --data-dir d --segment-bytes 5", "--segment-bytes"),
            ("--id 1 --data-dir d --election-timeout 300 --heartbeat 299", "--heartbeat"),
            ("--id 1 --data-dir d --join", "--peers"),
            ("--id 1 --data-dir d --join --peers 1=a:1", "at least one"),
            ("--id 1 --data-dir d --join --peers 2=a:1 --force-new-cluster", "--join away"),
            ("--id 1 --data-dir d --lease-reads 1", "1ppm to 50%"),
            ("--id 1 --data-dir d --lease-reads 0%", "1ppm to 50%"),
            ("--id 1 --data-dir d --lease-reads 51%", "1ppm to 50%"),
            ("--id 1 --data-dir d --lease-reads 0.00001%", "1ppm to 50%"),
            ("--id 1 --data-dir d --lease-reads -1ppm", "1ppm to 50%"),
            ("--id 1 --data-dir d stray", "stray"),
            ("--id 1 --data-dir d --nonsense", "nonsense"),
        ];
        for (line, expected) in cases {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn a_drift_is_a_share_in_millionths_or_hundredths() {
        let cases = [("1ppm", 1), ("500ppm", 500), ("1%", 10_000), ("0.05%", 500)];
        for (text, ppm) in cases {
            assert_eq!(parse_drift(text).expect(text), ppm);
        }
        assert_eq!(parse_drift("50%").expect("the largest"), 500_000);
    }

    #[test]
    fn the_order_of_peers_does_not_change_the_cluster() {
        let id = |line: &str| match parse(line).expect(line) {
            Parsed::Serve(config) => config.cluster_id(),
            Parsed::Print(text) => panic!("{text}"),
        };
        let one = id("--id 1 --data-dir d --peers 1=a:1,2=b:2");
        assert_eq!(one, id("--id 2 --data-dir d --peers 2=b:2,1=a:1"));
        assert_ne!(one, id("--id 1 --data-dir d --peers 1=a:1,2=b:3"));
        assert_ne!(one, id("--id 1 --data-dir d --peers 1=a:1,2=b:2 --cluster-token t"));
    }
}
