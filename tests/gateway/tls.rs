//! TLS: who is served, who is not, and files that change.

use super::certificates::{Authority, Files, Pair};
use super::harness::{Cluster, PATIENCE};
use super::http::number;
use super::patience::eventually;
use super::program::{Clients, Gateway, block_on, get, refused};
use super::untested::not_tested;
use super::users::Verb;
use super::watch::Watches;
use super::web::{Page, base64};
use raftd::gateway::proto::etcdserverpb::WatchCreateRequest;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// A gateway that serves by TLS, before one node.
struct Secured {
    /// Gives out all certificates.
    authority: Authority,
    /// Of the gateway, at first.
    pair: Pair,
    files: Files,
    gateway: Gateway,
    cluster: Cluster,
}

impl Secured {
    /// With the flags that `flags` makes of the files.
    fn start(flags: impl Fn(&Files) -> Vec<&str>) -> Secured {
        let mut cluster = Cluster::start(1);
        cluster.leader();
        let (authority, files) = (Authority::new(), Files::within(cluster.folder()));
        let pair = authority.server();
        files.write_pair(&pair);
        files.write_trusted(&authority);
        let node = cluster.servers[0].listen().to_owned();
        let before = "export RUST_LOG=raftd=debug";
        let gateway = Gateway::start_after(before, &cluster, &[&node], &flags(&files));
        eventually("it listens", PATIENCE, || TcpStream::connect(&gateway.address).ok());
        Secured { authority, pair, files, gateway, cluster }
    }

    /// The way of gRPC to it, for a client with this certificate.
    fn endpoint(&self, who: Option<&Pair>) -> Endpoint {
        endpoint(&self.gateway, &self.authority, who)
    }

    fn config(&self, who: Option<&Pair>, alpn: &[&str]) -> Arc<ClientConfig> {
        config(&self.authority, who, alpn)
    }

    fn connect(&self, config: Arc<ClientConfig>) -> Line {
        connect(&self.gateway.address, config).expect("a handshake comes to its end")
    }

    /// The certificate that somebody is shown who connects now.
    fn shown(&self, who: Option<&Pair>) -> Vec<u8> {
        let line = self.connect(self.config(who, &ALPN));
        line.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Waits until the log has these words.
    fn wait_for(&self, words: &str) {
        eventually(words, PATIENCE, || self.gateway.log_text().contains(words).then_some(()));
    }
}

/// A connection by TLS.
type Line = StreamOwned<ClientConnection, TcpStream>;

fn endpoint(gateway: &Gateway, trusted: &Authority, who: Option<&Pair>) -> Endpoint {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trusted.pem));
    let tls = match who {
        Some(pair) => tls.identity(Identity::from_pem(&pair.cert, &pair.key)),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", gateway.address)).unwrap();
    endpoint.tls_config(tls).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn config(trusted: &Authority, who: Option<&Pair>, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&trusted.pem)).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match who {
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![der(&pair.cert)], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Connects, and does a client's part of the handshake.
fn connect(address: &str, config: Arc<ClientConfig>) -> io::Result<Line> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// Sends a request, and reads the answer to the end, which TLS says is the end.
fn page(line: &mut Line, what: &str, body: &str) -> Page {
    let length = body.len();
    let head = format!("{what} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    write!(line, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    Page::read(&answer)
}

#[test]
fn grpc_and_json_are_served_by_tls_on_one_port() {
    let secured = Secured::start(Files::flags);
    block_on(async {
        let clients = Gateway::clients_by(&secured.endpoint(None)).await;
        assert_eq!(clients.put_key("a", "1").await, 2);
        assert_eq!(clients.value("a").await.as_deref(), Some("1"));
    });
    // What is spoken is what the client likes best of what it knows.
    for (known, chosen) in [(0..2, Some("h2")), (1..2, Some("http/1.1")), (0..0, None)] {
        let line = secured.connect(secured.config(None, &ALPN[known]));
        assert_eq!(line.conn.alpn_protocol(), chosen.map(str::as_bytes));
    }
    let ask = |what: &str, body: &str| {
        page(&mut secured.connect(secured.config(None, &["http/1.1"])), what, body)
    };
    let found = ask("POST /v3/kv/range", &json!({"key": base64(b"a")}).to_string());
    assert_eq!((found.status, &found.json()["kvs"][0]["value"]), (200, &json!("MQ==")));
    assert_eq!(ask("GET /health", "").json(), json!({"health": "true", "reason": ""}));
    // A client that does not know the gateway's authority does not talk to it.
    let stranger = Authority::new();
    let config = config(&stranger, None, &ALPN);
    let why = connect(&secured.gateway.address, config).expect_err("it is not trusted");
    assert!(why.to_string().contains("UnknownIssuer"), "{why}");
    secured.wait_for("received fatal alert");
    block_on(async {
        let refused = endpoint(&secured.gateway, &stranger, None).connect().await;
        refused.expect_err("it is not trusted by gRPC either");
    });
}

#[test]
fn clients_are_who_their_certificates_say_and_others_are_refused() {
    let secured = Secured::start(Files::flags_with_clients);
    let [alice, bob] = ["alice", "bob \"the\nbuilder\""].map(|name| secured.authority.client(name));
    block_on(async {
        let clients = Gateway::clients_by(&secured.endpoint(Some(&alice))).await;
        assert_eq!(clients.put_key("a", "1").await, 2);
    });
    let http = secured.config(Some(&bob), &["http/1.1"]);
    let found = page(&mut secured.connect(http), "POST /v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!((found.status, &found.json()["count"]), (200, &json!("1")));
    // The name has come as far as to the services, whichever way a request was made.
    secured.wait_for(r#"a call rpc=/etcdserverpb.KV/Put user="alice""#);
    secured.wait_for(r#"a call rpc=/etcdserverpb.KV/Range user="bob \"the\nbuilder\"""#);
    let foreign = Authority::new().client("alice");
    let server = secured.authority.server();
    let others = [
        (None, "peer sent no certificates"),
        (Some(&foreign), "invalid peer certificate: UnknownIssuer"),
        // It is of the right authority, and for something else.
        (Some(&server), "invalid peer certificate: "),
    ];
    for (who, why) in others {
        let said = secured.gateway.log_text().len();
        block_on(is_refused(&secured.endpoint(who)));
        let told = || secured.gateway.log_text()[said..].contains(why).then_some(());
        eventually(why, PATIENCE, told);
        let http = secured.config(who, &["http/1.1"]);
        assert!(is_hung_up(connect(&secured.gateway.address, http)), "{why}");
    }
}

/// As with etcd: without a password, and only by gRPC.
#[test]
fn a_certificate_names_the_user_of_who_shows_no_token() {
    let secured = Secured::start(Files::flags_with_clients);
    let names = ["root", "alice", "mallory"];
    let [root_pair, alice_pair, mallory_pair] = names.map(|name| secured.authority.client(name));
    block_on(async {
        let root = Gateway::clients_by(&secured.endpoint(Some(&root_pair))).await;
        let alice = Gateway::clients_by(&secured.endpoint(Some(&alice_pair))).await;
        let mallory = Gateway::clients_by(&secured.endpoint(Some(&mallory_pair))).await;
        // While rights do not count nobody is asked.
        mallory.put_key("free", "1").await;
        root.guard().await;
        let text = "raftd: the gateway has no user to act for others by: start it with --user, or \
                    log in as a user with the role root once";
        refused(alice.put_by(None, "a/1").await, Code::FailedPrecondition, text);
        let by_root = alice.log_in("root", "top").await.unwrap();
        alice.put_by(None, "a/1").await.unwrap();
        let denied = (Code::PermissionDenied, "etcdserver: permission denied");
        for clients in [&alice, &mallory] {
            refused(clients.put_by(None, "b").await, denied.0, denied.1);
        }
        // A token is worth more than a name, whatever it is worth.
        alice.put_by(Some(&by_root), "b").await.unwrap();
        let nobody = "etcdserver: invalid auth token";
        refused(root.put_by(Some("17.00"), "b").await, Code::Unauthenticated, nobody);
        root.put_by(None, "b").await.unwrap();
        // A name stays the same user's, whatever becomes of its password.
        root.auth_by(None, Verb::UserChange("alice", "another")).await.unwrap();
        alice.put_by(None, "a/1").await.unwrap();
        let mut kv = alice.kv();
        let mut pieces = kv.range_stream(get("a/1")).await.unwrap().into_inner();
        let piece = pieces.message().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!(piece.count, 1);
        let mut pieces = kv.range_stream(get("b")).await.unwrap().into_inner();
        refused(pieces.message().await, denied.0, denied.1);
        let watch = WatchCreateRequest { key: "a/1".into(), ..WatchCreateRequest::default() };
        let mut watches = Watches::open_with(&alice, watch).await;
        root.put_by(None, "a/1").await.unwrap();
        assert_eq!(watches.next().await.events.len(), 1);
        root.auth_by(None, Verb::UserDelete("alice")).await.unwrap();
        refused(alice.put_by(None, "a/1").await, denied.0, denied.1);
    });
    let http = secured.config(Some(&root_pair), &["http/1.1"]);
    let found = page(&mut secured.connect(http), "POST /v3/kv/range", r#"{"key":"Yg=="}"#);
    assert_eq!(
        (found.status, &found.json()["message"]),
        (400, &json!("etcdserver: user name is empty"))
    );
}

/// The client may have come to believe that the handshake is done before it hears that it is not.
async fn is_refused(endpoint: &Endpoint) {
    if let Ok(channel) = endpoint.connect().await {
        Clients::over(channel).range(get("a")).await.expect_err("it is refused");
    }
}

fn is_hung_up(line: io::Result<Line>) -> bool {
    let Ok(mut line) = line else { return true };
    // It may have been hung up already.
    let _sent = line.write_all(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n");
    line.read_exact(&mut [0]).is_err()
}

#[test]
fn new_files_serve_new_connections_and_old_ones_live_on() {
    let secured = Secured::start(Files::flags_with_clients);
    let alice = secured.authority.client("alice");
    assert_eq!(secured.shown(Some(&alice)), der(&secured.pair.cert).to_vec());
    let renew = || {
        let pair = secured.authority.server();
        secured.files.write_pair(&pair);
        der(&pair.cert).to_vec()
    };
    let wait_until_shown = |fresh: &[u8]| {
        let shown = || (secured.shown(Some(&alice)) == fresh).then_some(());
        eventually("the new certificate is shown", PATIENCE, shown);
    };
    block_on(async {
        let old = Gateway::clients_by(&secured.endpoint(Some(&alice))).await;
        let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
        let mut watches = Watches::open_with(&old, create).await;
        let at_once = renew();
        secured.gateway.signal("HUP");
        secured.wait_for("read the TLS files again at=SIGHUP");
        wait_until_shown(&at_once);
        wait_until_shown(&renew());
        secured.wait_for("read the TLS files again at=change");
        // What is wrong is said, and changes nothing.
        let good = secured.shown(Some(&alice));
        secured.files.spoil();
        secured.wait_for("the TLS files are refused, the old ones serve on at=change why=--cert-f");
        secured.gateway.signal("HUP");
        secured.wait_for("the TLS files are refused, the old ones serve on at=SIGHUP why=--cert-f");
        assert_eq!(secured.shown(Some(&alice)), good);
        wait_until_shown(&renew());
        // Those that are trusted change as well.
        let others = Authority::new();
        secured.files.write_trusted(&others);
        let carol = others.client("carol");
        let config = || secured.config(Some(&carol), &["http/1.1"]);
        eventually("the new authority is trusted", PATIENCE, || {
            let mut line = connect(&secured.gateway.address, config()).ok()?;
            write!(line, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
            line.read_exact(&mut [0]).ok()
        });
        is_refused(&secured.endpoint(Some(&alice))).await;
        // A stream that was begun before all of that has not been cut, and its client still is one.
        old.put_key("a", "1").await;
        assert_eq!(watches.next().await.events.len(), 1);
    });
}

#[test]
fn who_does_not_speak_tls_is_told_so() {
    let secured = Secured::start(Files::flags);
    let said = |words: &[u8]| {
        let mut stream = TcpStream::connect(&secured.gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(words).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        Page::read(&answer)
    };
    let large = [&b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[b'x'; 20_000]].concat();
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let http1 = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    for words in [&http1[..], &http2[..], &large[..], &b"nonsense"[..]] {
        let page = said(words);
        assert_eq!((page.status, &*page.text), (400, "this port speaks TLS: ask https://\n"));
        assert!(page.head.contains("connection: close"), "{page:?}");
    }
    block_on(async {
        let plain = Endpoint::from_shared(format!("http://{}", secured.gateway.address)).unwrap();
        is_refused(&plain).await;
    });
    // And the other way round.
    let plain = Gateway::start(&secured.cluster);
    block_on(async { plain.clients().await.put_key("a", "1").await });
    let why = connect(&plain.address, secured.config(None, &ALPN)).err();
    assert!(why.is_some(), "it does not speak TLS");
}

/// More than have a place at once.
const HALF_OPEN: usize = 300;

#[test]
fn handshakes_that_are_left_half_open_are_ended_and_keep_nobody_from_being_served() {
    let secured = Secured::start(Files::flags);
    let mut open = Vec::new();
    for number in 0..HALF_OPEN {
        let mut stream = TcpStream::connect(&secured.gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Some say nothing, some begin.
        if number % 2 == 0 {
            stream.write_all(b"\x16\x03\x01\x02\0\x01\0").unwrap();
        }
        open.push(stream);
    }
    block_on(async {
        let clients = Gateway::clients_by(&secured.endpoint(None)).await;
        assert_eq!(clients.put_key("a", "1").await, 2);
    });
    for mut stream in open {
        match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(why) => assert_eq!(why.kind(), io::ErrorKind::ConnectionReset, "it is ended"),
        }
    }
    let text =
        page(&mut secured.connect(secured.config(None, &["http/1.1"])), "GET /metrics", "").text;
    let outcome = |outcome| {
        number(&text, &format!("raftd_gateway_tls_handshakes_total{{outcome=\"{outcome}\"}}"))
    };
    let ended = outcome("late").unwrap() + outcome("displaced").unwrap();
    assert_eq!(ended, u64::try_from(HALF_OPEN).unwrap(), "{text}");
    assert!(outcome("displaced").unwrap() > 0, "places are handed on: {text}");
    assert!(outcome("done").unwrap() >= 2, "{text}");
}

#[test]
fn a_gateway_whose_files_are_wrong_says_which_and_what_to_do() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let (authority, files) = (Authority::new(), Files::within(cluster.folder()));
    let last_line = |flags: &[&str], code: i32| {
        let mut gateway = Gateway::start_with(&cluster, flags);
        assert_eq!(gateway.wait_for_end(), Some(code), "{flags:?}");
        gateway.log_text().lines().last().unwrap().to_owned()
    };
    let cert = files.cert.display();
    let missing = last_line(&files.flags(), 3);
    let advice = format!("cannot read --cert-file {cert} (name a file that is there)");
    let start = format!("raftd-gateway: cannot serve by TLS: {advice}: ");
    assert!(missing.starts_with(&start), "{missing}");
    files.write_pair(&Pair { key: authority.server().key, ..authority.server() });
    let odd = last_line(&files.flags(), 3);
    let key = files.key.display();
    let pair = format!("--cert-file {cert} and --key-file {key} do not go together: ");
    assert!(odd.starts_with(&format!("raftd-gateway: cannot serve by TLS: {pair}")), "{odd}");
    let alone = last_line(&files.flags()[..2], 2);
    let why = "--cert-file needs the certificate's key: add --key-file";
    assert_eq!(alone, format!("raftd-gateway: {why}"));
}

#[test]
fn etcdctl_is_a_client_by_tls() {
    let found = Command::new("etcdctl").arg("version").output();
    if found.is_err() {
        return not_tested("etcdctl (Debian: etcd-client) cannot be started");
    }
    let secured = Secured::start(Files::flags_with_clients);
    let alice = secured.authority.client("alice");
    let theirs = Files::within(&secured.cluster.folder().join("alice"));
    std::fs::create_dir(secured.cluster.folder().join("alice")).unwrap();
    theirs.write_pair(&alice);
    let etcdctl = |more: &[&str]| {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("https://{}", secured.gateway.address)])
            .arg("--cacert")
            .arg(&secured.files.trusted_ca)
            .args(more)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let [cert, key] = [&theirs.cert, &theirs.key].map(|path| path.to_str().unwrap());
    let identity = ["--cert", cert, "--key", key];
    let put = etcdctl(&[&identity[..], &["put", "a", "1"]].concat());
    assert_eq!(put, (true, "OK\n".to_owned()));
    let found = etcdctl(&[&identity[..], &["get", "a"]].concat());
    assert_eq!(found, (true, "a\n1\n".to_owned()));
    let nobody = etcdctl(&["--dial-timeout=2s", "--command-timeout=2s", "get", "a"]);
    assert!(!nobody.0, "it shows no certificate");
}
