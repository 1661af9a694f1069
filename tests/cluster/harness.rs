//! Clusters of real `raftd` processes on loopback, each node with its own directory and log file.
//!
//! Dropping a cluster kills exactly its processes and removes exactly its directories; if the test
//! is failing, the ends of the logs are printed first. `turns` says how many run at a time.

use super::links::Links;
pub(super) use super::patience::PATIENCE;
use super::patience::eventually;
use super::turns::{Company, Turn};
pub(super) use crate::addresses::free_address;
use raftd::client::{Client, ClientOptions, Connection, ConnectionError, Deadline};
use raftd::types::{ClusterId, NodeId};
use raftd::wire::reply::ReplyBody;
use raftd::wire::status::Status;
use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// For one look at a node, which may be stopped: whoever needs an answer looks again.
const LOOK: Duration = Duration::from_secs(1);

/// How long a client asks. A node that takes its request and says nothing has a third of it.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Ten times the usual patience with a leader: for a test that loads a cluster and talks to the
/// leader alone, or wants it to stay. So a slow disk or a busy machine does not elect another one.
pub(super) const STEADFAST: [&str; 4] = ["--election-timeout", "3000", "--heartbeat", "60"];

/// The log keeps everything.
pub(super) const NO_SNAPSHOTS: [&str; 4] =
    ["--snapshot-entries", "1000000000", "--snapshot-log-bytes", "1000000000000"];

/// Small segments, so that they rotate in a test and are quickly prepared.
const SEGMENT_BYTES: &str = "1048576";

/// How a cluster is made.
#[derive(Clone, Default)]
pub(super) struct Shape {
    /// More flags for every node.
    pub(super) flags: Vec<String>,
    /// Whether the nodes reach each other through proxies that can be cut.
    pub(super) cuttable: bool,
    /// Whether other clusters may run meanwhile.
    pub(super) company: Company,
}

/// A node and its process, if it runs.
pub(super) struct Server {
    pub(super) id: u64,
    /// What `--peers` says of it.
    pub(super) address: String,
    pub(super) directory: PathBuf,
    /// In front of raftd: strace, unshare.
    pub(super) wrapper: Vec<String>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// It was a member and is none any more.
    pub(super) retired: bool,
}

/// A cluster of nodes 1 to n.
pub(super) struct Cluster {
    pub(super) servers: Vec<Server>,
    pub(super) links: Option<Links>,
    folder: TempDir,
    _turn: Option<Turn>,
}

impl Cluster {
    /// Starts `count` fresh nodes.
    pub(super) fn start(count: u64) -> Cluster {
        Cluster::start_shaped(count, &Shape::default())
    }

    /// Starts `count` fresh nodes while no other cluster runs.
    pub(super) fn start_alone(count: u64) -> Cluster {
        Cluster::start_shaped(count, &Shape { company: Company::Nobody, ..Shape::default() })
    }

    /// Starts `count` fresh nodes of this shape.
    pub(super) fn start_shaped(count: u64, shape: &Shape) -> Cluster {
        let mut cluster = Cluster::plan(count, shape);
        cluster.start_all();
        cluster
    }

    /// Starts three fresh nodes, of which the first leads, and goes on leading for half a minute
    /// without a quorum: so long has whoever stops the others to do what must be done meanwhile.
    pub(super) fn start_with_a_lasting_leader(flags: &[&str]) -> Cluster {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Cluster::plan(3, &Shape { flags, ..Shape::default() });
        // Its alone is so long, or nobody would be elected for half a minute either.
        for word in ["--election-timeout", "30000", "--heartbeat", "60"] {
            cluster.server(1).add_flag(word);
        }
        cluster.start_all();
        cluster.let_lead(1);
        cluster
    }

    /// A cluster whose nodes are not started yet.
    pub(super) fn plan(count: u64, shape: &Shape) -> Cluster {
        Cluster::plan_in(Some(Turn::take(shape.company)), count, shape)
    }

    /// Another cluster of fresh nodes, to be measured in turns with this one.
    pub(super) fn start_beside(&self, count: u64) -> Cluster {
        let mut cluster = Cluster::plan_in(None, count, &Shape::default());
        cluster.start_all();
        cluster
    }

    /// Another cluster, not started yet, while this one runs.
    pub(super) fn plan_beside(&self, count: u64) -> Cluster {
        Cluster::plan_in(None, count, &Shape::default())
    }

    fn plan_in(turn: Option<Turn>, count: u64, shape: &Shape) -> Cluster {
        let place = std::env::var_os("CLUSTER_DIRECTORY");
        let place = place.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let folder = tempfile::tempdir_in(place).unwrap();
        let listen: Vec<String> = (0..count).map(|_| free_address()).collect();
        let links = shape.cuttable.then(|| Links::open(&listen));
        let addresses = links.as_ref().map_or(&listen, |links| &links.addresses);
        let peers: Vec<String> =
            (1..).zip(addresses).map(|(id, address)| format!("{id}={address}")).collect();
        let peers = peers.join(",");
        let servers = (1..).zip(addresses.iter().zip(&listen)).map(|(id, (address, listen))| {
            let mut arguments = vec!["--peers".to_owned(), peers.clone()];
            arguments.extend(["--listen".to_owned(), listen.clone()]);
            if !shape.flags.iter().any(|flag| flag == "--segment-bytes") {
                arguments.extend(["--segment-bytes".to_owned(), SEGMENT_BYTES.to_owned()]);
            }
            arguments.extend(shape.flags.iter().cloned());
            Server::new(id, address.clone(), folder.path(), arguments)
        });
        let servers = servers.collect();
        Cluster { servers, links, folder, _turn: turn }
    }

    /// Starts every node that is down.
    pub(super) fn start_all(&mut self) {
        let down = |server: &&mut Server| server.child.is_none() && !server.retired;
        for server in self.servers.iter_mut().filter(down) {
            server.start();
        }
    }

    /// Starts one more node with an empty directory, which waits to be made a member. Returns its
    /// number once it listens.
    pub(super) fn start_joiner(&mut self) -> u64 {
        let id = u64::try_from(self.servers.len()).unwrap() + 1;
        let listen = free_address();
        let peers = self.servers.iter().filter(|server| !server.retired);
        let peers: Vec<String> =
            peers.map(|server| format!("{}={}", server.id, server.listen())).collect();
        let words = ["--join", "--peers", &peers.join(","), "--listen", &listen, "--segment-bytes"];
        let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
        arguments.push(SEGMENT_BYTES.to_owned());
        let mut server = Server::new(id, listen, self.folder.path(), arguments);
        server.start();
        // Whoever adds it asks it who it is, for two seconds.
        let listens = || TcpStream::connect(server.listen()).ok();
        eventually("the joiner listens", PATIENCE, listens);
        self.servers.push(server);
        id
    }

    /// The node with this number.
    pub(super) fn server(&mut self, id: u64) -> &mut Server {
        let at = usize::try_from(id - 1).unwrap();
        &mut self.servers[at]
    }

    /// Where files of the test can lie.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The numbers of the nodes that are not `id`.
    pub(super) fn others(&self, id: u64) -> Vec<u64> {
        self.servers.iter().map(|server| server.id).filter(|other| *other != id).collect()
    }

    /// The leader that a majority follows.
    pub(super) fn leader(&mut self) -> u64 {
        eventually("a majority follows a leader", PATIENCE, || self.leader_now())
    }

    /// The leader that a majority follows now, if there is one.
    pub(super) fn leader_now(&self) -> Option<u64> {
        let running = self.servers.iter().filter(|server| server.child.is_some());
        let statuses: Vec<Status> = running.filter_map(|server| server.status().ok()).collect();
        let leader = statuses.iter().filter(|status| status.role == "leader");
        let leader = leader.max_by_key(|status| status.term)?;
        let followed = statuses
            .iter()
            .filter(|status| status.leader == Some(leader.node) && status.term == leader.term);
        let members = self.servers.iter().filter(|server| !server.retired);
        (followed.count() * 2 > members.count()).then(|| leader.node.get())
    }

    /// Lets node `id` lead. Asks again: whoever leads may not have heard yet that it has
    /// everything, it may not take over in time, and another one may.
    pub(super) fn let_lead(&mut self, id: u64) {
        let mut client = self.client();
        eventually("it leads", PATIENCE, || {
            let _refused = client.transfer_leader(NodeId::new(id));
            (self.leader() == id).then_some(())
        });
    }

    /// A client that knows every node.
    pub(super) fn client(&self) -> Client {
        self.client_of(&self.servers.iter().map(|server| server.id).collect::<Vec<_>>())
    }

    /// A client that knows these nodes. It never goes through proxies unless it is redirected.
    pub(super) fn client_of(&self, ids: &[u64]) -> Client {
        self.client_within(CLIENT_TIMEOUT, ids)
    }

    /// The same with another time for a call.
    pub(super) fn client_within(&self, timeout: Duration, ids: &[u64]) -> Client {
        let known = self.servers.iter().filter(|server| ids.contains(&server.id));
        let endpoints = known.map(|server| server.listen().to_owned()).collect();
        let cluster_id = ClusterId(0);
        Client::new(ClientOptions { endpoints, timeout, cluster_id, login: None })
    }

    /// Waits until all running nodes have applied all of the same log; asserts that their states
    /// are equal. Returns the state hash.
    pub(super) fn wait_until_equal(&self) -> u64 {
        let running: Vec<&Server> =
            self.servers.iter().filter(|server| server.child.is_some()).collect();
        eventually("all nodes have applied the same log", PATIENCE, || {
            let statuses: Vec<Status> =
                running.iter().map(|server| server.status().ok()).collect::<Option<_>>()?;
            let first = statuses.first()?;
            let same = statuses.iter().all(|status| {
                status.applied_index == first.applied_index
                    && status.last_index == first.applied_index
            });
            if !same {
                return None;
            }
            for status in &statuses {
                assert_eq!(status.state_hash, first.state_hash, "states differ: {statuses:?}");
            }
            Some(first.state_hash)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill();
            if std::thread::panicking() {
                let log = server.log_text();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(15)..].join("\n  ");
                eprintln!("--- node {} said last:\n  {last}", server.id);
            }
        }
    }
}

impl Server {
    /// A node that is not started.
    pub(super) fn new(id: u64, address: String, folder: &Path, arguments: Vec<String>) -> Server {
        Server {
            id,
            address,
            directory: folder.join(id.to_string()),
            wrapper: Vec::new(),
            arguments,
            log: folder.join(format!("{id}.log")),
            child: None,
            retired: false,
        }
    }

    /// The same server on a copy of its directory, which lies in `folder`; it listens elsewhere.
    pub(super) fn on_a_copy(&self, folder: &Path) -> Server {
        let mut arguments = self.arguments.clone();
        let at = arguments.iter().position(|argument| argument == "--listen");
        arguments[at.expect("tests always say so") + 1] = free_address();
        let clone = Server::new(self.id, self.address.clone(), folder, arguments);
        for part in ["", "log"] {
            fs::create_dir_all(clone.directory.join(part)).unwrap();
            for file in fs::read_dir(self.directory.join(part)).unwrap() {
                let (path, name) = file.map(|file| (file.path(), file.file_name())).unwrap();
                if path.is_file() {
                    fs::copy(&path, clone.directory.join(part).join(name)).unwrap();
                }
            }
        }
        clone
    }

    /// What a flag says that it has.
    pub(super) fn flag(&self, flag: &str) -> &str {
        let at = self.arguments.iter().position(|argument| argument == flag);
        &self.arguments[at.expect("it has this flag") + 1]
    }

    /// One more flag from its next start on.
    pub(super) fn add_flag(&mut self, flag: &str) {
        self.arguments.push(flag.to_owned());
    }

    /// Takes a flag away that `add_flag` gave.
    pub(super) fn take_flag(&mut self, flag: &str) {
        self.arguments.retain(|argument| argument != flag);
    }

    /// Gives a flag that it has another value from its next start on.
    pub(super) fn change_flag(&mut self, flag: &str, value: &str) {
        let at = self.arguments.iter().position(|argument| argument == flag);
        self.arguments[at.expect("it has this flag") + 1] = value.to_owned();
    }

    /// Where it really listens.
    pub(super) fn listen(&self) -> &str {
        let at = self.arguments.iter().position(|argument| argument == "--listen");
        at.map_or(&self.address, |at| &self.arguments[at + 1])
    }

    /// Starts its process.
    pub(super) fn start(&mut self) {
        assert!(self.child.is_none(), "node {} is already running", self.id);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut words = self.wrapper.clone();
        words.push(env!("CARGO_BIN_EXE_raftd").to_owned());
        words.extend(["--id".to_owned(), self.id.to_string()]);
        words.extend(["--data-dir".to_owned(), self.directory.to_string_lossy().into_owned()]);
        words.extend(self.arguments.iter().cloned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("cannot run {words:?}: {error}")));
    }

    /// Kills it as SIGKILL does, and waits for its end.
    pub(super) fn kill(&mut self) {
        if self.child.is_none() {
            return;
        }
        // With a wrapper, what it runs; it ends with that.
        self.signal("KILL");
        let mut child = self.child.take().unwrap();
        if self.wrapper.is_empty() {
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            eventually("the wrapper ends", PATIENCE, || child.try_wait().unwrap());
        }
    }

    /// Stops it in mid-air.
    pub(super) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal to the node's own process.
    pub(super) fn signal(&self, name: &str) {
        let Some(pid) = self.pid() else { return };
        // It may be gone; then nothing is owed to it.
        let _gone = Command::new("kill")
            .args([&format!("-{name}"), &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .unwrap();
    }

    /// The node's own process: the wrapper's child if there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        let pid = self.child.as_ref()?.id();
        if self.wrapper.is_empty() || !self.wrapper[0].contains("strace") {
            return Some(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// Whether its process has not ended.
    pub(super) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Waits until it ends by itself.
    pub(super) fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let id = self.id;
        let child = self.child.as_mut().expect("it was started");
        let what = format!("node {id} ends by itself");
        let status = eventually(&what, limit, || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// How it sees itself, once it says so.
    pub(super) fn says(&self) -> Status {
        eventually("the node says how it is", PATIENCE, || self.status().ok())
    }

    /// How it sees itself, if it says so at once.
    pub(super) fn status(&self) -> Result<Status, ConnectionError> {
        let mut connection = self.connect()?;
        let deadline = Deadline::after(LOOK);
        connection.status();
        connection.flush(deadline)?;
        match connection.receive(deadline)?.body {
            ReplyBody::Status(status) => Ok(*status),
            other => panic!("asked for a status, got {other:?}"),
        }
    }

    /// A connection to this node and no other, which repeats nothing; once it takes one.
    pub(super) fn connection(&self) -> Connection {
        eventually("the node takes a client", PATIENCE, || self.connect().ok())
    }

    /// The same, if it takes one at once.
    pub(super) fn connect(&self) -> Result<Connection, ConnectionError> {
        Connection::open(self.listen(), ClusterId(0), Deadline::after(LOOK))
    }

    /// Everything it has said since the cluster began.
    pub(super) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resident memory of a node, in bytes.
pub(super) fn resident(cluster: &mut Cluster, id: u64) -> u64 {
    let pid = cluster.server(id).pid().expect("the node runs");
    resident_of(pid)
}

/// The same without the pages of its log, of which the more are mapped the further a follower lags,
/// and which the system takes back when it wants to. Bytes.
pub(super) fn anonymous(cluster: &mut Cluster, id: u64) -> u64 {
    memory_of(cluster.server(id).pid().expect("the node runs"), "RssAnon:")
}

/// What a process keeps in memory. Bytes.
pub(super) fn resident_of(pid: u32) -> u64 {
    memory_of(pid, "VmRSS:")
}

/// A line of /proc/PID/status. Bytes.
pub(super) fn memory_of(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How many descriptors a node has open.
pub(super) fn descriptors(cluster: &mut Cluster, id: u64) -> usize {
    let pid = cluster.server(id).pid().expect("the node runs");
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
