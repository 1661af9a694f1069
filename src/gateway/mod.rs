//! `raftd-gateway`: etcd's version 3 API in front of a raftd cluster.
//!
//! It translates and holds no state of its own beyond open streams: everything that means something
//! lives in raftd, and any number of gateways may serve one cluster.
//!
//! ```text
//! kv lease watch members maintenance health     the services: etcd's words into ours, and back
//! concurrency                                   locks and elections, by means of those
//! v1                                            the same in fewer words of our own
//! http       the same as JSON, and what else is not gRPC
//! metrics    what was asked, in numbers
//! auth       users and roles, and in whose name everything is asked
//! calls      a request until it is answered     sessions   writes that are done once
//! source     ranges that are handed on          link       one connection, everybody's requests
//! nodes      whom to ask
//! failure    etcd's errors, word for word       exact      the one error that tonic makes itself
//! channel    a stream that a task feeds         incoming   clients that connect
//! tls        files, and what is made of them    identity   who a client is, for whoever decides
//! options    flags                              proto      etcd's messages
//! pause      time that passes                room       memory that is shared
//! delivery   large answers on their way      codec      what is refused before it is a message
//! ```
//!
//! One Put: `kv` checks it in etcd's words → `calls` gives it a number in a session → `link`
//! appends it to what goes to the leader with the next system call → the leader's reply is handed
//! to whoever waits → `kv` writes etcd's answer, whose keys and values are slices of that reply.
//!
//! One thread. What a request costs here is mostly HTTP/2; the runtime for it (tokio) is compiled
//! into nothing but this program. Whoever needs more than one core of it starts another gateway.
mod auth;
mod calls;
mod channel;
mod codec;
mod concurrency;
mod delivery;
mod errand;
mod exact;
mod failure;
mod health;
mod http;
mod identity;
mod incoming;
mod kv;
mod lease;
mod link;
mod maintenance;
mod members;
mod metrics;
mod nodes;
mod options;
mod pause;
pub mod proto;
mod room;
mod sessions;
mod source;
mod tls;
mod v1;
mod watch;

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::Server;

use auth::AuthService;
use calls::Cluster;
use concurrency::{ElectionService, LockService, Stores};
use exact::Exact;
use health::HealthService;
use http::{Http, Timed};
use incoming::Incoming;
use kv::KvService;
use lease::LeaseService;
use maintenance::MaintenanceService;
use members::MemberService;
use metrics::{Counted, Metrics};
use proto::DESCRIPTORS;
use proto::etcdserverpb::auth_server::AuthServer;
use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::kv_server::KvServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use proto::etcdserverpb::watch_server::WatchServer;
use proto::health::health_server::HealthServer;
use proto::raftd::admin_server::AdminServer;
use proto::raftd::kv_server::KvServer as V1Server;
use proto::v3electionpb::election_server::ElectionServer;
use proto::v3lockpb::lock_server::LockServer;
use tls::Tls;
use v1::AdminService;
use watch::WatchService;
use watch::inbox::Waiting;

pub use options::{Options, TlsFiles, User};
pub use tls::TlsError;

/// Largest message of a client: a request and half a mebibyte, as etcd's. Bytes.
const MESSAGE_BYTES_MAX: usize = crate::limits::REQUEST_BYTES_MAX + 512 * 1024;

/// Requests and streams of one client's connection at once. etcd's clients open thousands of
/// watches on one.
const STREAMS_MAX: u32 = 32 * 1024;

/// Streams of one connection that their client has ended before they were looked at; beyond, the
/// connection ends. Clients that end thousands of watches at once are no attack.
const RESETS_MAX: usize = 4096;

/// What may come of one stream, and of one connection, before it is taken: a request of middle
/// size. Bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// A connection whose client says nothing is asked whether it is there, and ends if it is not.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long requests that are under way may take when the gateway is to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Why the gateway cannot serve.
#[derive(Debug)]
pub enum ServeError {
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// There can be no TLS.
    Tls(TlsError),
    /// The server failed.
    Serve(tonic::transport::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen { address, source } => {
                let advice = if source.kind() == ErrorKind::AddrInUse {
                    "stop what uses it, or choose another --listen"
                } else if source.kind() == ErrorKind::PermissionDenied {
                    "choose a --listen port from 1024 on"
                } else {
                    "choose an address of this machine with --listen"
                };
                write!(f, "cannot listen on {address} ({advice})")
            }
            ServeError::Tls(_) => f.write_str("cannot serve by TLS"),
            ServeError::Serve(_) => f.write_str("cannot serve"),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // What stands in our own text is not said again.
            ServeError::Listen { .. } => None,
            ServeError::Tls(source) => Some(source),
            ServeError::Serve(source) => Some(source),
        }
    }
}

/// Serves until `stop` comes. The files of TLS are read again whenever one of `hangups` comes, and
/// when they have changed; without `hangups` they are read once.
pub async fn serve(
    options: &Options,
    stop: impl Future<Output = ()>,
    hangups: Option<Signal>,
) -> Result<(), ServeError> {
    let tls = options.tls.as_ref().map(Tls::load).transpose().map_err(ServeError::Tls)?;
    let listen = |source| ServeError::Listen { address: options.listen.clone(), source };
    let listener = TcpListener::bind(&options.listen).await.map_err(listen)?;
    let Options { cluster, user, answers_bytes, .. } = options;
    let cluster = Arc::new(Cluster::start(cluster, user.as_ref(), *answers_bytes));
    let clients = match &tls {
        None => "anybody",
        Some(tls) if tls.asks_for_certificates() => "tls,certificates",
        Some(_) => "tls",
    };
    let Options { listen, cluster: nodes, .. } = options;
    log::info!("listening address={listen} clients={clients} cluster={}", nodes.join(","));
    if options.advertises_no_machine() {
        let url = &options.advertise;
        log::warn!(
            "members are shown at an address of no machine, name one with --advertise url={url}"
        );
    }
    let metrics = metrics();
    let service = service(options, &cluster, &metrics);
    let incoming = Incoming::of(listener, tls.clone(), &metrics);
    if let Some((tls, hangups)) = tls.zip(hangups) {
        tokio::spawn(tls.keep_fresh(hangups));
    }
    let (stopping, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // Dropping the other end stops it as well.
        let _stop = stopped.await;
    };
    let server = server().serve_with_incoming_shutdown(service, incoming, stopped);
    let mut server = std::pin::pin!(server);
    tokio::select! {
        served = &mut server => return served.map_err(ServeError::Serve),
        () = stop => drop(stopping),
    }
    // Streams that would go on for ever are cut.
    timeout(GRACE, server).await.unwrap_or(Ok(())).map_err(ServeError::Serve)
}

fn server() -> Server {
    Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Whatever is asked, by gRPC or otherwise.
fn service(options: &Options, cluster: &Arc<Cluster>, metrics: &Arc<Metrics>) -> Timed<Routes> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect(OWN);
    let waiting: Arc<Waiting> = Arc::default();
    let routes = routes(options, cluster, metrics, &waiting);
    let (shared, counted) = (Arc::clone(cluster), Arc::clone(metrics));
    let http = Http::new(routes.clone().prepare(), &pool, shared, counted, waiting);
    let routes = Routes::from(routes.into_axum_router().fallback_service(http));
    Timed::new(routes.prepare())
}

/// Numbers of all methods that are served.
fn metrics() -> Arc<Metrics> {
    let reflection = [
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let [v1, v1alpha] = reflection.map(|set| DescriptorPool::decode(set).expect(THEIRS));
    Metrics::new(&[&DescriptorPool::decode(DESCRIPTORS).expect(OWN), &v1, &v1alpha])
}

/// All services of gRPC.
fn routes(
    options: &Options,
    cluster: &Arc<Cluster>,
    metrics: &Arc<Metrics>,
    waiting: &Arc<Waiting>,
) -> Routes {
    let max = MESSAGE_BYTES_MAX;
    let shared = || Arc::clone(cluster);
    let watch = WatchService {
        cluster: shared(),
        progress_ms: u64::try_from(options.watch_progress.as_millis()).unwrap_or(u64::MAX),
        waiting: Arc::clone(waiting),
    };
    let members = || MemberService { cluster: shared(), client_url: options.advertise.clone() };
    let admin = AdminService { cluster: shared(), members: members() };
    let v1 = v1::Service::new(cluster, watch.clone());
    let stores = Stores::new(cluster, watch.clone());
    let kv = KvServer::new(KvService(shared())).max_decoding_message_size(max);
    let watch = WatchServer::new(watch).max_decoding_message_size(max);
    let v1 = V1Server::new(v1).max_decoding_message_size(max);
    Routes::new(exact(kv, metrics))
        .add_service(exact(watch, metrics))
        .add_service(exact(LeaseServer::new(LeaseService(shared())), metrics))
        .add_service(exact(ClusterServer::new(members()), metrics))
        .add_service(exact(AuthServer::new(AuthService(shared())), metrics))
        .add_service(exact(MaintenanceServer::new(MaintenanceService(shared())), metrics))
        .add_service(exact(LockServer::new(LockService(Arc::clone(&stores))), metrics))
        .add_service(exact(ElectionServer::new(ElectionService(stores)), metrics))
        .add_service(exact(v1, metrics))
        .add_service(exact(AdminServer::new(admin), metrics))
        .add_service(exact(HealthServer::new(HealthService(shared())), metrics))
        .add_service(Counted::new(reflection().build_v1().expect(OWN), metrics))
        .add_service(Counted::new(reflection().build_v1alpha().expect(OWN), metrics))
}

/// A service as all of ours are served.
fn exact<S>(service: S, metrics: &Arc<Metrics>) -> Counted<Exact<S>> {
    Counted::new(Exact(service), metrics)
}

/// Why the descriptors can be read.
const OWN: &str = "they were written by the compiler of our own .proto files";
const THEIRS: &str = "they are a part of tonic-reflection, which reads them itself";

/// What tells clients which services there are, and of which messages.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS)
}
