//! The command line: global flags, verbs and theirs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use raftd::replica::RestoreId;
use raftd::types::{NodeId, is_address};

use super::auth::{OfAuth, OfRole, OfUser};
use super::bench::args::BenchArgs;

const AFTER_HELP: &str = "\
Output: simple prints what etcdctl prints: put OK, get the key and the value on a line each, del the
number of keys. json is stable; `protocol.md` documents it. table is for reading.

Exit codes: 0 done · 1 refused, certainly not done · 2 usage · 3 nobody reachable, or no leader
            4 outcome unknown: the write may or may not be done · 5 unhealthy (status, bench)
            log and snapshot verify: 3 damaged, as raftd · 5 the next start mends it";

const TXN_HELP: &str = "\
Compares: version, create, mod, value or lease of a key; =, !=, < or >; a value.
Words with spaces are quoted; within double quotes \\n, \\t, \\\\, \\\" and \\xHH stand for bytes.

  value(\"key\") = \"old\"

  put key new
  get key

  get key --keys-only

An empty line ends the last section, too.
";

/// Talks to a raftd cluster.
#[derive(Parser, Debug)]
#[command(name = "raftctl", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Where the nodes take clients, as host:port. One is enough: redirects name the leader.
    #[arg(
        long,
        global = true,
        value_name = "A,B,C",
        value_delimiter = ',',
        env = "RAFTCTL_ENDPOINTS",
        default_value = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103",
        value_parser = endpoint
    )]
    pub(crate) endpoints: Vec<String>,
    /// How to print what comes back.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Simple)]
    pub(crate) output: Format,
    /// How long the command may take: 5s, 500ms, 2m.
    #[arg(long, global = true, default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Who asks; without a password behind a colon, and without --password, it is asked for on the
    /// terminal.
    // A name of its own: what verbs call USER is another one.
    #[arg(
        id = "asker",
        long = "user",
        global = true,
        value_name = "NAME[:PASSWORD]",
        env = "RAFTCTL_USER",
        hide_env_values = true
    )]
    pub(crate) user: Option<String>,
    /// Its password. Others of this machine may see it in the list of processes.
    #[arg(long, global = true)]
    pub(crate) password: Option<String>,
    /// What to do; without it, on a terminal, raftctl asks for one after the other.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// How to print what comes back.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Format {
    /// As etcdctl does.
    Simple,
    /// One JSON value.
    Json,
    /// Columns with headings.
    Table,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Set a key's value.
    Put(PutArgs),
    /// Print a key and its value, or all keys of a range.
    Get(GetArgs),
    /// Delete a key, or all keys of a range.
    Del(DelArgs),
    /// Do one of two lists of requests, at once. Three sections on standard input, each ended by an
    /// empty line: compares, as in `mod("key") > "0"`; the requests if all of them hold; the
    /// requests if not. Input that ends before the third does is refused, and nothing is done.
    /// Requests are put, get and del with their flags; the value `-` is a value there.
    #[command(after_help = TXN_HELP)]
    Txn {
        /// Ask for each section. So it is on a terminal.
        #[arg(long, short)]
        interactive: bool,
    },
    /// Print changes as they happen, until Ctrl-C. If the server that serves it is gone another one
    /// goes on, and nothing is left out or printed twice. --timeout is for the beginning.
    Watch(WatchArgs),
    /// Give up the history below a revision: it frees memory, and older revisions cannot be read.
    Compact {
        /// The oldest revision that stays readable.
        #[arg(allow_negative_numbers = true)]
        revision: Whole,
    },
    /// Leases: keys that hang on one go when nobody keeps it alive.
    #[command(subcommand)]
    Lease(LeaseVerb),
    /// Load the cluster and measure it: keys are put, asked for, read back and deleted. All the
    /// cluster's clients feel it. --timeout is for what comes before and after the load.
    Bench(BenchArgs),
    /// What every endpoint says of itself.
    Status {
        /// How long the turns of its loop were since it started: percentiles by CPU time and by the
        /// clock. While a turn lasts, everybody else waits. JSON has the counts always.
        #[arg(long)]
        turns: bool,
    },
    /// Show or change the members.
    #[command(subcommand)]
    Member(MemberVerb),
    /// Let another voter lead. Exit code 1 if it does not take over in time; one that was only slow
    /// may do so later.
    TransferLeader {
        /// Its number; without it, whoever's log is furthest.
        id: Option<NodeNumber>,
    },
    /// Whether whoever asks needs a right.
    #[command(subcommand)]
    Auth(OfAuth),
    /// Show or change users.
    #[command(subcommand)]
    User(OfUser),
    /// Show or change roles, which users have.
    #[command(subcommand)]
    Role(OfRole),
    /// Save the store to a file, check such a file, make a cluster from it.
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Read a data directory whose server does not run; nothing is changed.
    #[command(subcommand)]
    Log(LogVerb),
    /// Print a completion script: `source <(raftctl completions bash)`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

impl Verb {
    /// Whether it is for a server that runs.
    pub(crate) fn asks_the_cluster(&self) -> bool {
        match self {
            Verb::Put(_)
            | Verb::Get(_)
            | Verb::Del(_)
            | Verb::Txn { .. }
            | Verb::Watch(_)
            | Verb::Compact { .. }
            | Verb::Lease(_)
            | Verb::Bench(_)
            | Verb::Member(_)
            | Verb::TransferLeader { .. }
            | Verb::Auth(_)
            | Verb::User(_)
            | Verb::Role(_)
            | Verb::Snapshot(SnapshotVerb::Save { .. }) => true,
            Verb::Status { .. }
            | Verb::Snapshot(SnapshotVerb::Restore(_) | SnapshotVerb::Verify { .. })
            | Verb::Log(_)
            | Verb::Completions { .. } => false,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum LeaseVerb {
    /// Make a lease, and print its number.
    Grant {
        /// How long it lives without being kept alive, in seconds. There is a shortest time.
        ttl: Whole,
        /// Its number; 0: the cluster chooses one.
        #[arg(long, default_value = "0")]
        id: Whole,
    },
    /// End a lease, and delete the keys that hang on it.
    Revoke {
        /// Its number.
        id: Whole,
    },
    /// Keep a lease alive, until you end it with Ctrl-C or the lease is gone.
    KeepAlive {
        /// Its number.
        id: Whole,
        /// Once, and no more.
        #[arg(long)]
        once: bool,
    },
    /// All leases.
    List,
    /// How long a lease has left.
    Ttl {
        /// Its number.
        id: Whole,
        /// And which keys hang on it.
        #[arg(long)]
        keys: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum MemberVerb {
    /// Who the members are, and how far their logs.
    List,
    /// Add a server that was started with --join, and wait until it votes.
    Add {
        /// Its number, higher than any before, and where it listens.
        #[arg(value_name = "ID=HOST:PORT", value_parser = member)]
        member: Newcomer,
        /// Let it stay a learner: it gets everything and does not vote.
        #[arg(long)]
        learner: bool,
    },
    /// Make a learner a voter.
    Promote {
        /// Its number.
        id: NodeNumber,
    },
    /// Remove a voter or learner for good.
    Remove {
        /// Its number.
        id: NodeNumber,
    },
    /// Let a new server take the place of one that lost its data directory.
    Replace {
        /// The number of the old one.
        id: NodeNumber,
        /// The number of the new one, higher than any before, and where it listens.
        #[arg(value_name = "ID=HOST:PORT", value_parser = member)]
        member: Newcomer,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum LogVerb {
    /// What stands in it: identity, hard state, files, and the entries as INDEX@TERM KIND BYTES.
    Dump(DumpArgs),
    /// Check every record, both copies of the hard state and the snapshot in force. Exit code 3: a
    /// server refuses to start on it; 5: the next start mends it.
    Verify {
        /// The data directory.
        dir: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// The first entry to print.
    #[arg(long, value_name = "INDEX", default_value = "0", allow_negative_numbers = true)]
    pub(crate) from: Whole,
    /// At most so many entries; 0: all of them.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) limit: Whole,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The saved file.
    pub(crate) file: PathBuf,
    /// Where the log and the state shall live: an empty or missing directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: String,
    /// The member's number.
    #[arg(long, value_name = "N")]
    pub(crate) id: String,
    /// The members of the new cluster, this one included; equal on all.
    #[arg(long, value_name = "1=HOST:PORT,2=HOST:PORT,…")]
    pub(crate) peers: String,
    /// As raftd's, if the new cluster has one.
    #[arg(long, value_name = "TEXT")]
    pub(crate) cluster_token: Option<String>,
    /// What the restore of the first member said: equal on all. Without it this is the first
    /// member of a cluster that is like no other.
    #[arg(long, value_name = "ID")]
    pub(crate) restore_id: Option<RestoreId>,
    /// Size of a log segment, as raftd's.
    #[arg(long, value_name = "BYTES")]
    pub(crate) segment_bytes: Option<String>,
    /// How much higher the revision begins: more than the changes that the old cluster can have
    /// made since the save, so that no revision means two things.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000_000,
        value_parser = clap::value_parser!(u64).range(0..=1 << 60)
    )]
    pub(crate) bump_revision: u64,
}

#[derive(Subcommand, Debug)]
pub(crate) enum SnapshotVerb {
    /// Save the store, with every write that was acknowledged before, from any server. The file
    /// appears once it is whole; until then it is FILE.part. --timeout is how long the server may
    /// say nothing.
    Save {
        /// The file.
        file: PathBuf,
    },
    /// Make the data directory of a member of a NEW cluster from a saved file. Do it for every
    /// member, with the same file, --peers and flags, and with the --restore-id that the first one
    /// says; then start raftd on each as usual.
    Restore(RestoreArgs),
    /// Check a saved file and say what is in it. Exit code 3: it is damaged.
    Verify {
        /// The file.
        file: PathBuf,
    },
}

/// A server's number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeNumber(pub(crate) NodeId);

impl FromStr for NodeNumber {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<NodeNumber, &'static str> {
        let id = text.parse().ok().and_then(NodeId::new);
        id.map(NodeNumber).ok_or("a server's number is a whole number from 1 on")
    }
}

/// A whole number that may be 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole(pub(crate) u64);

impl FromStr for Whole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Whole, &'static str> {
        text.parse().map(Whole).map_err(|_| "it is a whole number from 0 on, as in 42")
    }
}

/// A server that is to be a member.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) id: NodeId,
    pub(crate) address: String,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The key.
    pub(crate) key: OsString,
    /// The value; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true, required_unless_present = "ignore_value")]
    pub(crate) value: Option<OsString>,
    /// Only if the key's last change is this revision; 0: only if there is no such key.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with_all = ["prev_kv", "ignore_value", "ignore_lease", "lease"]
    )]
    pub(crate) if_mod_revision: Option<Whole>,
    /// Print the key and the value that were there before.
    #[arg(long)]
    pub(crate) prev_kv: bool,
    /// Keep the value: the put counts, and the key must exist.
    #[arg(long, conflicts_with = "value")]
    pub(crate) ignore_value: bool,
    /// Keep the lease; the key must exist.
    #[arg(long, conflicts_with = "lease")]
    pub(crate) ignore_lease: bool,
    /// The lease that the key hangs on from now on; 0: none.
    #[arg(long, value_name = "ID", default_value = "0", allow_negative_numbers = true)]
    pub(crate) lease: Whole,
}

#[derive(Args, Debug)]
pub(crate) struct DelArgs {
    /// The key.
    pub(crate) key: OsString,
    /// The first key behind the range that begins with KEY.
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub(crate) range_end: Option<OsString>,
    /// Delete every key that begins with KEY; an empty KEY is all keys.
    #[arg(long, conflicts_with = "from_key")]
    pub(crate) prefix: bool,
    /// Delete every key from KEY on; an empty KEY is all keys.
    #[arg(long)]
    pub(crate) from_key: bool,
    /// Print the keys and the values that were there before.
    #[arg(long)]
    pub(crate) prev_kv: bool,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The key.
    pub(crate) key: OsString,
    /// The first key behind the range that begins with KEY.
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub(crate) range_end: Option<OsString>,
    /// Every key that begins with KEY; an empty KEY is all keys.
    #[arg(long, conflicts_with = "from_key")]
    pub(crate) prefix: bool,
    /// Every key from KEY on; an empty KEY is all keys.
    #[arg(long)]
    pub(crate) from_key: bool,
    /// From this revision on, as far as it is not compacted; 0: from now on.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) rev: Whole,
    /// Print the keys and the values that were there before, too.
    #[arg(long)]
    pub(crate) prev_kv: bool,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The key.
    pub(crate) key: OsString,
    /// The first key behind the range that begins with KEY.
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub(crate) range_end: Option<OsString>,
    /// Every key that begins with KEY; an empty KEY is all keys.
    #[arg(long, conflicts_with = "from_key")]
    pub(crate) prefix: bool,
    /// Every key from KEY on; an empty KEY is all keys.
    #[arg(long)]
    pub(crate) from_key: bool,
    /// As the store was at this revision; 0: as it is now.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) rev: Whole,
    /// At most this many keys; 0: all of them.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) limit: Whole,
    /// linearizable is not older than the moment of asking; lease is as fresh and faster, on
    /// servers with --lease-reads; serializable reads the first endpoint's own state.
    #[arg(long, value_enum, default_value_t = Freshness::Linearizable)]
    pub(crate) consistency: Freshness,
    /// Leave out the values.
    #[arg(long, conflicts_with = "print_value_only")]
    pub(crate) keys_only: bool,
    /// Only how many keys there are.
    #[arg(long, conflicts_with_all = ["keys_only", "print_value_only"])]
    pub(crate) count_only: bool,
    /// What to sort by.
    #[arg(long, value_enum, ignore_case = true, default_value_t = SortTarget::Key)]
    pub(crate) sort_by: SortTarget,
    /// Which way to sort.
    #[arg(long, value_enum, ignore_case = true, default_value_t = SortOrder::Ascend)]
    pub(crate) order: SortOrder,
    /// Only keys last put at this revision or later.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) min_mod_rev: Whole,
    /// Only keys last put at this revision or before; 0: any.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) max_mod_rev: Whole,
    /// Only keys created at this revision or later.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) min_create_rev: Whole,
    /// Only keys created at this revision or before; 0: any.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) max_create_rev: Whole,
    /// Leave out the keys (simple output).
    #[arg(long)]
    pub(crate) print_value_only: bool,
}

/// What keys are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum SortTarget {
    /// The key.
    Key,
    /// How many puts since its creation.
    Version,
    /// The revision that created it.
    Create,
    /// The revision of the last put.
    Modify,
    /// The value.
    Value,
}

/// Which way keys are sorted.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum SortOrder {
    /// The least first.
    Ascend,
    /// The greatest first.
    Descend,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Freshness {
    /// Not older than the moment of asking.
    Linearizable,
    /// As linearizable, if the servers' clocks keep the bound of --lease-reads.
    Lease,
    /// The asked node's own state, however old.
    Serializable,
}

/// The script that completes our command line in `shell`.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "raftctl", &mut script);
    script
}

/// What clap says if a verb is required, which it is where nobody can be asked for one.
pub(crate) fn a_verb_is_missing() -> clap::Error {
    let mut command = Cli::command().subcommand_required(true).arg_required_else_help(true);
    match command.try_get_matches_from_mut(["raftctl"]) {
        Err(why) => why,
        Ok(_) => command.error(ErrorKind::MissingSubcommand, "which verb? see raftctl --help"),
    }
}

fn member(text: &str) -> Result<Newcomer, &'static str> {
    let Some((id, address)) = text.split_once('=') else {
        return Err("a member is ID=HOST:PORT, as in 4=10.0.0.4:7101");
    };
    Ok(Newcomer { id: id.parse::<NodeNumber>()?.0, address: endpoint(address)? })
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if is_address(text) {
        Ok(text.to_owned())
    } else if text.contains("://") {
        Err("an endpoint is host:port without a scheme, as in 127.0.0.1:7101")
    } else {
        Err("an endpoint is host:port with a port from 1 on, as in 127.0.0.1:7101 or [::1]:7101")
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60 * 1000,
        _ => return Err("a duration is a number and ms, s or m, as in 500ms"),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(0) => Err("a timeout is more than nothing, as in 500ms or 5s"),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("a duration is a whole number and ms, s or m, as in 500ms"),
    }
}
