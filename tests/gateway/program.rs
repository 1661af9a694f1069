//! The gateway's process, and clients of it.

use super::harness::{Cluster, PATIENCE, free_address};
use super::patience::eventually;
use raftd::gateway::proto::etcdserverpb::cluster_client::ClusterClient;
use raftd::gateway::proto::etcdserverpb::kv_client::KvClient;
use raftd::gateway::proto::etcdserverpb::lease_client::LeaseClient;
use raftd::gateway::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use raftd::gateway::proto::etcdserverpb::watch_client::WatchClient;
use raftd::gateway::proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use raftd::gateway::proto::health::HealthCheckRequest;
use raftd::gateway::proto::health::health_client::HealthClient;
use raftd::gateway::proto::raftd::admin_client::AdminClient;
use raftd::gateway::proto::raftd::kv_client::KvClient as OwnClient;
use raftd::gateway::proto::v3electionpb::election_client::ElectionClient;
use raftd::gateway::proto::v3lockpb::lock_client::LockClient;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Largest answer that a client takes. Bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A gateway before a cluster.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: String,
    log: PathBuf,
    /// What it was started by.
    words: Vec<String>,
}

impl Gateway {
    /// Starts one that knows every node.
    pub(crate) fn start(cluster: &Cluster) -> Gateway {
        Gateway::start_with(cluster, &[])
    }

    /// Starts one with more flags.
    pub(crate) fn start_with(cluster: &Cluster, flags: &[&str]) -> Gateway {
        let nodes: Vec<&str> = cluster.servers.iter().map(|server| server.listen()).collect();
        Gateway::start_after(":", cluster, &nodes, flags)
    }

    /// Starts one that knows these nodes, in a shell that does something before.
    pub(crate) fn start_after(
        before: &str,
        cluster: &Cluster,
        nodes: &[&str],
        flags: &[&str],
    ) -> Gateway {
        let address = free_address();
        let log = cluster.folder().join(format!("gateway-{}.log", address.replace(':', "-")));
        let shell = format!("{before} && exec \"$0\" \"$@\"");
        let program = env!("CARGO_BIN_EXE_raftd-gateway");
        let nodes = nodes.join(",");
        let words = ["-c", &shell, program, "--listen", &address, "--cluster", &nodes];
        let words: Vec<String> = words.iter().chain(flags).map(|word| (*word).to_owned()).collect();
        let child = spawn(&words, &log);
        Gateway { child, address, log, words }
    }

    /// Kills it as SIGKILL does, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it once more, at the same address.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.words, &self.log);
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Clients that share one connection, once the gateway serves.
    pub(crate) async fn clients(&self) -> Clients {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Gateway::clients_by(&endpoint).await
    }

    /// The same by another way to it.
    pub(crate) async fn clients_by(endpoint: &Endpoint) -> Clients {
        let channel = endpoint.connect_lazy();
        let health = HealthClient::new(channel.clone());
        let deadline = raftd::client::Deadline::after(PATIENCE);
        loop {
            let checked = health.clone().check(HealthCheckRequest::default()).await;
            if checked.is_ok_and(|it| it.get_ref().status == 1) {
                return Clients { channel };
            }
            assert!(!deadline.has_passed(), "the gateway serves");
            let pause = std::time::Duration::from_millis(10);
            let _over = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        }
    }

    /// Sends a signal to its process.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn wait_for_end(&mut self) -> Option<i32> {
        let status = eventually("the gateway ends", PATIENCE, || self.child.try_wait().unwrap());
        status.code()
    }

    /// What it has said.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The processor's time that it has taken, in hundredths of a second.
    pub(crate) fn processor_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may have spaces, is the third field; these are 14 and 15.
        let fields = stat.rsplit(") ").next().unwrap().split(' ');
        fields.skip(11).take(2).map(|time| time.parse::<u64>().unwrap()).sum()
    }

    /// Its resident memory. Bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// A gateway's process, by a shell that becomes it.
fn spawn(words: &[String], log: &Path) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut shell = Command::new("sh");
    shell.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    shell.spawn().unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
            eprintln!("--- the gateway said last:\n  {last}");
        }
    }
}

/// Clients of all services, over one connection.
#[derive(Clone)]
pub(crate) struct Clients {
    channel: Channel,
}

impl Clients {
    /// Of what serves at an address, over a connection that is made when it is needed.
    pub(crate) fn at(address: &str) -> Clients {
        Clients {
            channel: Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy(),
        }
    }

    /// Over a connection of one's own.
    pub(crate) fn over(channel: Channel) -> Clients {
        Clients { channel }
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) fn locks(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    pub(crate) fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    /// The connection, for a client that is made elsewhere.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn own(&self) -> OwnClient<Channel> {
        OwnClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    pub(crate) async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        self.kv().put(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.kv().range(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn delete(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        self.kv().delete_range(request).await.map(tonic::Response::into_inner)
    }

    /// Puts a key; returns the revision.
    pub(crate) async fn put_key(&self, key: &str, value: &str) -> i64 {
        self.put(put(key, value)).await.unwrap().header.unwrap().revision
    }

    /// A key's value.
    pub(crate) async fn value(&self, key: &str) -> Option<String> {
        let found = self.range(get(key)).await.unwrap();
        found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    PutRequest { key, value, ..PutRequest::default() }
}

pub(crate) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

/// A range of all keys that begin with `prefix`, which does not end with the last of all bytes.
pub(crate) fn get_prefix(prefix: &str) -> RangeRequest {
    RangeRequest { range_end: prefix_end(prefix), ..get(prefix) }
}

pub(crate) fn prefix_end(prefix: &str) -> bytes::Bytes {
    raftd::client::prefix_end(prefix.as_bytes()).into()
}

/// The keys of an answer with their values, on one line.
pub(crate) fn line(found: &RangeResponse) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = found.kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// That something was refused, and in which words.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let why = result.expect_err("it was done");
    assert_eq!((why.code(), why.message()), (code, text));
}

/// Runs a test before a cluster of `count` nodes.
pub(crate) fn with_gateway<F: Future<Output = ()>>(
    count: u64,
    test: impl FnOnce(Clients, Rc<Gateway>) -> F,
) {
    let mut cluster = Cluster::start(count);
    cluster.leader();
    // It ends with the test, also if that is not interested in it.
    let gateway = Rc::new(Gateway::start(&cluster));
    block_on(async {
        let clients = gateway.clients().await;
        test(clients, Rc::clone(&gateway)).await;
    });
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
