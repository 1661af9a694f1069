//! Those who are compared: raftd, raftd behind its gateway, and whoever else is found on PATH.

mod cluster;
mod crowd;
mod etcd;
mod grpc;
mod process;
mod redis;
mod resp;

use crate::Result;
use crate::scratch::Scratch;
use etcd::{Etcd, Gateway};
use raftd::client::Clock;
use raftd::client::load::{self, RaftdSpeaker, Script, Shape};
use raftd::wire::client::Consistency;
use redis::Redis;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) use cluster::Cluster;
pub(crate) use crowd::Crowd;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Who {
    /// raftd, by its own protocol.
    Raftd,
    /// raftd with so many servers, whatever its group has.
    Wide(usize),
    /// raftd with a hundred thousand keys, however many its group has.
    Few,
    /// raftd among a crowd that asks nothing.
    Crowded,
    /// raftd behind its gateway, by etcd's.
    Gateway,
    /// etcd.
    Etcd,
    /// One Redis with `appendfsync always`.
    RedisAlways,
    /// One Redis with `appendfsync no`: it writes, and the kernel syncs when it likes.
    RedisNo,
}

impl Who {
    /// How many servers it has in a group of so many.
    pub(crate) fn nodes(self, of_group: usize) -> usize {
        match self {
            Who::Wide(nodes) => nodes,
            Who::Raftd | Who::Few | Who::Crowded | Who::Gateway | Who::Etcd => of_group,
            Who::RedisAlways | Who::RedisNo => 1,
        }
    }

    /// The program it runs.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Who::Raftd | Who::Wide(_) | Who::Few | Who::Crowded => "raftd",
            Who::Gateway => "raftd-gateway",
            Who::Etcd => "etcd",
            Who::RedisAlways | Who::RedisNo => "redis-server",
        }
    }

    /// Whether it promises that what it answers has been synced.
    pub(crate) fn syncs(self) -> bool {
        match self {
            Who::Raftd | Who::Wide(_) | Who::Few | Who::Crowded => true,
            Who::Gateway | Who::Etcd | Who::RedisAlways => true,
            Who::RedisNo => false,
        }
    }

    /// Whether answers carry revisions, by which a read of everything can be judged exactly.
    pub(crate) fn has_revisions(self) -> bool {
        match self {
            Who::Raftd | Who::Wide(_) | Who::Few | Who::Crowded => true,
            Who::Gateway | Who::Etcd => true,
            Who::RedisAlways | Who::RedisNo => false,
        }
    }
}

/// Who is on PATH, and in which version.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    etcd: Option<String>,
    redis: Option<String>,
}

impl Found {
    /// Asks the programs for their versions.
    pub(crate) fn look() -> Found {
        Found {
            etcd: version("etcd", "etcd Version: "),
            redis: version("redis-server", "Redis server v="),
        }
    }

    /// Whether it can be measured.
    pub(crate) fn has(&self, who: Who) -> bool {
        match who {
            Who::Raftd | Who::Wide(_) | Who::Few | Who::Crowded | Who::Gateway => true,
            Who::Etcd => self.etcd.is_some(),
            Who::RedisAlways | Who::RedisNo => self.redis.is_some(),
        }
    }

    /// What it is called in tables.
    pub(crate) fn name(&self, who: Who) -> String {
        let version = |found: &Option<String>| found.clone().unwrap_or_default();
        match who {
            Who::Raftd => "raftd".to_owned(),
            Who::Wide(nodes) => format!("raftd, {nodes} servers"),
            Who::Few => "raftd, 100k keys".to_owned(),
            Who::Crowded => "raftd among a crowd".to_owned(),
            Who::Gateway => "raftd + gateway".to_owned(),
            Who::Etcd => format!("etcd {}", version(&self.etcd)),
            Who::RedisAlways => format!("redis {} always", version(&self.redis)),
            Who::RedisNo => format!("redis {} no sync", version(&self.redis)),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |name: &str, found: &Option<String>| match found {
            Some(version) => format!("{name} {version}"),
            None => format!("no {name} on PATH, nothing is compared with it"),
        };
        write!(f, "{} · {}", say("etcd", &self.etcd), say("redis-server", &self.redis))
    }
}

/// The word that follows `before` in what `program --version` says.
fn version(program: &str, before: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let rest = said.split_once(before)?.1;
    rest.split_whitespace().next().map(str::to_owned)
}

/// What a system says of itself.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counters {
    /// Syncs of all its servers since they started; `None`: it does not say.
    pub(crate) syncs: Option<u64>,
    /// Its term, which counts elections.
    pub(crate) term: u64,
    /// Up to where its servers' snapshots reach, added up; 0: it does not say.
    pub(crate) snapshots: u64,
}

/// Servers that run.
#[derive(Debug)]
pub(crate) enum System {
    /// raftd.
    Raftd(Cluster),
    /// raftd behind its gateway.
    Gateway(Gateway),
    /// etcd.
    Etcd(Etcd),
    /// Redis.
    Redis(Redis),
}

impl System {
    /// Starts it below `parent`, with `nodes` servers if it has more than one.
    pub(crate) fn start(who: Who, parent: &Path, nodes: usize) -> Result<System> {
        let directory = |name: &str| Scratch::make(parent, name);
        let nodes = who.nodes(nodes);
        Ok(match who {
            Who::Raftd | Who::Wide(_) | Who::Few | Who::Crowded => {
                System::Raftd(Cluster::start(directory("raftd")?, nodes, &[])?)
            }
            Who::Gateway => System::Gateway(Gateway::start(directory("gateway")?, nodes)?),
            Who::Etcd => System::Etcd(Etcd::start(directory("etcd")?, nodes)?),
            Who::RedisAlways => System::Redis(Redis::start(directory("redis")?, "always")?),
            Who::RedisNo => System::Redis(Redis::start(directory("redis")?, "no")?),
        })
    }

    /// The leader's place among the processes, once there is one.
    pub(crate) fn leader(&mut self) -> Result<usize> {
        match self {
            System::Raftd(cluster) => cluster.leader(),
            System::Gateway(gateway) => gateway.cluster.leader(),
            System::Etcd(etcd) => etcd.leader(),
            System::Redis(redis) => redis.process.check_alive().map(|()| 0),
        }
    }

    /// All processes that serve.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            System::Raftd(cluster) => cluster.pids(),
            System::Gateway(gateway) => {
                let mut pids = gateway.cluster.pids();
                pids.push(gateway.process.pid());
                pids
            }
            System::Etcd(etcd) => etcd.members.iter().map(process::Process::pid).collect(),
            System::Redis(redis) => vec![redis.process.pid()],
        }
    }

    /// What it says of itself.
    pub(crate) fn counters(&mut self) -> Result<Counters> {
        match self {
            System::Raftd(cluster) | System::Gateway(Gateway { cluster, .. }) => {
                let statuses = cluster.statuses()?;
                let syncs = statuses.iter().map(|status| status.syncs).sum();
                let term = statuses.iter().map(|status| status.term.get()).max();
                let snapshots = statuses.iter().map(|status| status.snapshot_index.get()).sum();
                Ok(Counters { syncs: Some(syncs), term: term.unwrap_or_default(), snapshots })
            }
            System::Etcd(etcd) => {
                let (syncs, term) = etcd.counters()?;
                Ok(Counters { syncs: Some(syncs), term, snapshots: 0 })
            }
            System::Redis(_) => Ok(Counters::default()),
        }
    }

    /// What a load needs to know of it, so that it can run beside whoever watches the system.
    pub(crate) fn door(&self, leader: usize) -> Door {
        match self {
            System::Raftd(cluster) => Door::Raftd(cluster.target(leader)),
            System::Gateway(gateway) => Door::Grpc(gateway.address),
            System::Etcd(etcd) => Door::Grpc(etcd.address(leader)),
            System::Redis(redis) => Door::Redis(redis.target()),
        }
    }

    /// The quickest way in, for what is not measured.
    pub(crate) fn back_door(&self, leader: usize) -> Door {
        match self {
            System::Gateway(gateway) => Door::Raftd(gateway.cluster.target(leader)),
            System::Raftd(_) | System::Etcd(_) | System::Redis(_) => self.door(leader),
        }
    }

    /// Those who come to it and ask nothing.
    pub(crate) fn gather_crowd(&mut self) -> Result<Crowd> {
        match self {
            System::Raftd(cluster) => Crowd::gather(cluster),
            System::Gateway(_) | System::Etcd(_) | System::Redis(_) => {
                Err("crowds come to raftd alone".into())
            }
        }
    }

    /// Compares its servers' states, if they can be compared.
    pub(crate) fn agree(&mut self) -> Result<()> {
        match self {
            System::Raftd(cluster) | System::Gateway(Gateway { cluster, .. }) => cluster.agree(),
            System::Etcd(_) | System::Redis(_) => Ok(()),
        }
    }
}

/// Where a load knocks.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// raftd's port.
    Raftd(load::Target),
    /// etcd's API.
    Grpc(std::net::SocketAddr),
    /// Redis's port.
    Redis(load::Target),
}

impl Door {
    /// Asks until the script is over, on this thread. Reads are linearizable wherever that means
    /// anything.
    pub(crate) fn run(&self, clock: Clock, shape: Shape, script: &mut Script<'_>) -> Result<()> {
        match self {
            Door::Raftd(target) => {
                let speak = || RaftdSpeaker::new(Consistency::Linearizable);
                load::run(clock, target, shape, script, speak)?;
            }
            Door::Grpc(address) => grpc::run(clock, *address, shape, script)?,
            Door::Redis(target) => {
                load::run(clock, target, shape, script, resp::RespSpeaker::default)?;
            }
        }
        Ok(())
    }
}
