//! The flags of `raftd-gateway`.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::program::{Parsed, UsageError, read_flags, refuse};
use crate::types::is_address;

/// `--answers-bytes`: two of the largest answers. Bytes.
const ANSWERS_BYTES_DEFAULT: usize = 512 * 1024 * 1024;

/// The least: the largest answer to a transaction. The most: what no machine has. Bytes.
const ANSWERS_BYTES_MIN: usize = 8 * 1024 * 1024;
const ANSWERS_BYTES_MAX: usize = 1 << 44;

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
    /// What the large answers to all clients may take together until those have read them. Bytes.
    /// `--answers-bytes`.
    pub answers_bytes: usize,
    /// What clients are met with by TLS; `None`: they are met without it. `--cert-file` and others.
    pub tls: Option<TlsFiles>,
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

/// The files of TLS, each in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The gateway's certificate, and those between it and the one that its clients trust.
    /// `--cert-file`.
    pub cert: PathBuf,
    /// The key of the first certificate. `--key-file`.
    pub key: PathBuf,
    /// Whose certificates clients have to show; `None`: they need none. `--trusted-ca-file`.
    pub trusted_ca: Option<PathBuf>,
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
        "where clients reach this gateway, http://HOST:PORT or https://HOST:PORT, shown as the \
         members' client URL (default: --listen)",
        "URL",
    );
    flags.optopt(
        "",
        "watch-progress-interval",
        "seconds after which a watch says that nothing happens, if asked to (default 600)",
        "SECONDS",
    );
    user_flags(&mut flags);
    flags.optopt(
        "",
        "answers-bytes",
        "memory for all large answers together until their clients have read them; beyond it who \
         asks for much is refused (default 536870912)",
        "BYTES",
    );
    tls_flags(&mut flags);
    flags
}

/// As whom the gateway logs in.
fn user_flags(flags: &mut getopts::Options) {
    flags.optopt(
        "",
        "user",
        "user with the role root, by whose login the gateway acts for its clients where rights \
         count (default: the first such user that logs in here)",
        "NAME",
    );
    flags.optopt("", "password-file", "file whose first line is that user's password", "PATH");
}

/// As etcd has them.
fn tls_flags(flags: &mut getopts::Options) {
    flags.optopt(
        "",
        "cert-file",
        "serve by TLS alone, with this certificate and those behind it in the file (PEM); read \
         again when it changes and at SIGHUP, as are the other two (default: no TLS)",
        "FILE",
    );
    flags.optopt("", "key-file", "the key of --cert-file (PEM, without a password)", "FILE");
    flags.optopt(
        "",
        "trusted-ca-file",
        "serve only clients with a certificate of one of these authorities (PEM); its common name \
         is the user's where rights count, unless a token is sent",
        "FILE",
    );
    flags.optflagopt(
        "",
        "client-cert-auth",
        "the same; with --trusted-ca-file, which alone means it already",
        "true|false",
    );
}

/// Reads the flags of TLS.
fn tls_files(matches: &getopts::Matches) -> Result<Option<TlsFiles>, UsageError> {
    let file = |flag| matches.opt_str(flag).map(PathBuf::from);
    let trusted_ca = file("trusted-ca-file");
    let auth = match matches.opt_str("client-cert-auth").as_deref() {
        None => matches.opt_present("client-cert-auth"),
        Some("true") => true,
        Some("false") => false,
        Some(other) => {
            return refuse(format!("--client-cert-auth={other} is neither true nor false"));
        }
    };
    match (file("cert-file"), file("key-file")) {
        (Some(_), Some(_)) if auth && trusted_ca.is_none() => {
            refuse("--client-cert-auth needs to know whose certificates: add --trusted-ca-file")
        }
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key, trusted_ca })),
        (Some(_), None) => refuse("--cert-file needs the certificate's key: add --key-file"),
        (None, Some(_)) => refuse("--key-file needs the key's certificate: add --cert-file"),
        (None, None) if auth || trusted_ca.is_some() => refuse(
            "--trusted-ca-file and --client-cert-auth need TLS: add --cert-file and --key-file",
        ),
        (None, None) => Ok(None),
    }
}

impl Options {
    /// Whether what members are shown with is the address of no machine.
    pub(super) fn advertises_no_machine(&self) -> bool {
        let address: Option<SocketAddr> =
            advertised_address(&self.advertise).and_then(|it| it.parse().ok());
        address.is_some_and(|address| address.ip().is_unspecified())
    }

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
        let tls = tls_files(&matches)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let advertise = text("advertise", &format!("{scheme}://{listen}"));
        if !advertised_address(&advertise).is_some_and(is_address) {
            return refuse(format!(
                "--advertise {advertise:?} is not http://HOST:PORT or https://HOST:PORT"
            ));
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
        let answers_bytes = answers_bytes(matches.opt_str("answers-bytes"))?;
        Ok(Parsed::Serve(Options {
            listen,
            cluster,
            advertise,
            watch_progress,
            user,
            answers_bytes,
            tls,
        }))
    }
}

/// The address of a URL.
fn advertised_address(url: &str) -> Option<&str> {
    url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))
}

fn answers_bytes(text: Option<String>) -> Result<usize, UsageError> {
    let Some(text) = text else { return Ok(ANSWERS_BYTES_DEFAULT) };
    match text.parse() {
        Ok(bytes @ ANSWERS_BYTES_MIN..=ANSWERS_BYTES_MAX) => Ok(bytes),
        Ok(_) | Err(_) => refuse(format!(
            "--answers-bytes {text:?} is not a number from {ANSWERS_BYTES_MIN} to \
             {ANSWERS_BYTES_MAX}"
        )),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments).map(|parsed| match parsed {
            Parsed::Serve(options) => options,
            Parsed::Print(text) => panic!("{text}"),
        })
    }

    #[test]
    fn a_certificate_alone_is_tls_and_an_authority_asks_for_the_clients() {
        assert_eq!(parse("").unwrap().tls, None);
        assert_eq!(parse("").unwrap().advertise, "http://127.0.0.1:2379");
        let options = parse("--cert-file c.pem --key-file k.pem").unwrap();
        assert_eq!(options.advertise, "https://127.0.0.1:2379");
        let [cert, key] = ["c.pem", "k.pem"].map(PathBuf::from);
        assert_eq!(options.tls, Some(TlsFiles { cert, key, trusted_ca: None }));
        let given = "--cert-file c.pem --key-file k.pem --trusted-ca-file ca.pem";
        // As etcd has it: who names an authority asks for certificates, whatever else is said.
        let auths =
            ["", "--client-cert-auth", "--client-cert-auth=true", "--client-cert-auth=false"];
        for auth in auths {
            let options = parse(&format!("{given} {auth}")).unwrap();
            let trusted_ca = options.tls.unwrap().trusted_ca;
            assert_eq!(trusted_ca.as_deref(), Some("ca.pem".as_ref()), "{auth}");
        }
    }

    #[test]
    fn what_is_advertised_is_a_url_of_an_address() {
        for wrong in ["", "http://", "https://", "http://host", "127.0.0.1:1", "ftp://a:1"] {
            let why = parse(&format!("--advertise={wrong}")).unwrap_err().to_string();
            let said =
                format!("--advertise {wrong:?} is not http://HOST:PORT or https://HOST:PORT");
            assert_eq!(why, said);
        }
        for (line, expected) in [
            ("", false),
            ("--listen 0.0.0.0:2379", true),
            ("--listen [::]:2379", true),
            ("--listen 0.0.0.0:2379 --advertise http://10.0.0.1:2379", false),
            ("--listen 0.0.0.0:2379 --advertise https://store.example:2379", false),
        ] {
            assert_eq!(parse(line).unwrap().advertises_no_machine(), expected, "{line}");
        }
    }

    #[test]
    fn room_for_answers_is_a_number_of_bytes_that_holds_one() {
        assert_eq!(parse("").unwrap().answers_bytes, 512 * 1024 * 1024);
        assert_eq!(parse("--answers-bytes 8388608").unwrap().answers_bytes, 8 * 1024 * 1024);
        for wrong in ["8388607", "1g", "-1"] {
            let why = parse(&format!("--answers-bytes={wrong}")).unwrap_err().to_string();
            let said = format!("--answers-bytes {wrong:?} is not a number from 8388608 to ");
            assert!(why.starts_with(&said), "{why}");
        }
    }

    #[test]
    fn flags_of_tls_that_lack_another_say_which() {
        let both = "--cert-file c.pem --key-file k.pem";
        let [bare, odd] = ["", "=yes"].map(|value| format!("{both} --client-cert-auth{value}"));
        let cases = [
            ("--cert-file c.pem", "--cert-file needs the certificate's key: add --key-file"),
            ("--key-file k.pem", "--key-file needs the key's certificate: add --cert-file"),
            (
                "--trusted-ca-file ca.pem",
                "--trusted-ca-file and --client-cert-auth need TLS: add --cert-file and --key-file",
            ),
            (
                "--client-cert-auth",
                "--trusted-ca-file and --client-cert-auth need TLS: add --cert-file and --key-file",
            ),
            (&*bare, "--client-cert-auth needs to know whose certificates: add --trusted-ca-file"),
            (&*odd, "--client-cert-auth=yes is neither true nor false"),
        ];
        for (line, why) in cases {
            assert_eq!(parse(line).unwrap_err().to_string(), why, "{line}");
        }
    }
}
