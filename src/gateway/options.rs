//! The flags of `raftd-gateway`.

use std::fmt;
use std::fs;
use std::time::Duration;

use crate::program::{Parsed, UsageError, read_flags, refuse};
use crate::types::is_address;

/// What `raftd-gateway` was told to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The address to accept clients on, `host:port`. `--listen`.
    pub listen: String,
    /// Where the nodes of the cluster accept connections; some are enough. `--cluster`.
    pub cluster: Vec<String>,
    /// Where clients reach this gateway, as a URL. `--advertise`.
    pub advertise: String,
    /// How often a watch says that nothing happens, if its client asks for that.
    /// `--watch-progress-interval`.
    pub watch_progress: Duration,
    /// As whom it logs in to the cluster, if rights count there. `--user`, `--password-file`.
    pub user: Option<User>,
}

/// A user of the cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User {{ name: {:?}, .. }}", self.name)
    }
}

fn flags() -> getopts::Options {
    let mut flags = getopts::Options::new();
    flags.optopt(
        "",
        "listen",
        "address to accept clients on (default 127.0.0.1:2379)",
        "HOST:PORT",
    );
    flags.optopt(
        "",
        "cluster",
        "where the nodes listen, some are enough; the first is asked for what any node can answer \
         (default 127.0.0.1:7101)",
        "HOST:PORT,…",
    );
    flags.optopt(
        "",
        "advertise",
        "where clients reach this gateway, shown as the members' client URL (default: --listen)",
        "http://HOST:PORT",
    );
    flags.optopt(
        "",
        "watch-progress-interval",
        "seconds after which a watch says that nothing happens, if asked to (default 600)",
        "SECONDS",
    );
    flags.optopt(
        "",
        "user",
        "user with the role root, by whose login the gateway acts for its clients where rights \
         count (default: the first such user that logs in here)",
        "NAME",
    );
    flags.optopt("", "password-file", "file whose first line is that user's password", "PATH");
    flags
}

impl Options {
    /// Reads the command line, without the program's name.
    pub fn parse(arguments: &[String]) -> Result<Parsed<Options>, UsageError> {
        let brief = "raftd-gateway: etcd's version 3 API in front of a raftd cluster";
        let matches = match read_flags("raftd-gateway", brief, flags(), arguments)? {
            Parsed::Serve(matches) => matches,
            Parsed::Print(text) => return Ok(Parsed::Print(text)),
        };
        let text =
            |flag, default: &str| matches.opt_str(flag).unwrap_or_else(|| default.to_owned());
        let listen = text("listen", "127.0.0.1:2379");
        if !is_address(&listen) {
            return refuse(format!("--listen {listen:?} is not HOST:PORT"));
        }
        let cluster: Vec<String> =
            text("cluster", "127.0.0.1:7101").split(',').map(str::to_owned).collect();
        if let Some(wrong) = cluster.iter().find(|address| !is_address(address)) {
            return refuse(format!("--cluster has {wrong:?}, which is not HOST:PORT"));
        }
        let advertise = text("advertise", &format!("http://{listen}"));
        if !advertise.starts_with("http://") && !advertise.starts_with("https://") {
            return refuse(format!("--advertise {advertise:?} is not http://HOST:PORT"));
        }
        let seconds = text("watch-progress-interval", "600");
        let watch_progress = match seconds.parse() {
            Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
            Ok(_) | Err(_) => {
                return refuse(format!(
                    "--watch-progress-interval {seconds:?} is not a number from 1 to 86400"
                ));
            }
        };
        let user = user(matches.opt_str("user"), matches.opt_str("password-file"))?;
        Ok(Parsed::Serve(Options { listen, cluster, advertise, watch_progress, user }))
    }
}

/// A password is no flag: others of the machine see those.
fn user(name: Option<String>, file: Option<String>) -> Result<Option<User>, UsageError> {
    let (name, file) = match (name, file) {
        (None, None) => return Ok(None),
        (Some(name), Some(file)) if !name.is_empty() => (name, file),
        (Some(_), Some(_)) => return refuse("--user has no name"),
        (Some(_), None) => return refuse("--user needs --password-file"),
        (None, Some(_)) => return refuse("--password-file needs --user"),
    };
    match fs::read_to_string(&file) {
        Ok(text) => {
            let password = text.lines().next().unwrap_or_default().to_owned();
            Ok(Some(User { name, password }))
        }
        Err(why) => refuse(format!("--password-file {file:?} cannot be read: {why}")),
    }
}
