//! Nodes that die, requests that are no requests.

use super::harness::{Cluster, PATIENCE};
use super::patience::{breathe, eventually, now};
use super::program::{Gateway, block_on, put, with_gateway};
use super::said::said;
use raftd::gateway::proto::etcdserverpb::RangeRequest;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tonic::Code;

#[test]
fn writes_go_on_when_the_leader_dies_and_each_is_done_once() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = gateway.clients().await;
        let writers: Vec<_> = (0..20)
            .map(|writer| {
                let clients = clients.clone();
                tokio::spawn(async move {
                    for number in 0..50 {
                        let key = format!("count/{writer}");
                        clients.put(put(&key, &number.to_string())).await.unwrap();
                    }
                })
            })
            .collect();
        clients.put_key("begun", "yes").await;
        cluster.server(leader).kill();
        for writer in writers {
            writer.await.unwrap();
        }
        for writer in 0..20 {
            let key = format!("count/{writer}");
            let found = clients.range(super::program::get(&key)).await.unwrap();
            let kv = &found.kvs[0];
            assert_eq!((&kv.value[..], kv.version), (&b"49"[..], 50), "{key}");
        }
    });
    let text = cluster.server(leader).log_text();
    assert!(!text.is_empty());
}

#[test]
fn without_a_majority_a_client_hears_so_if_it_wants_to() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = gateway.clients().await;
        clients.put_key("a", "1").await;
        let (_say, requests) = said();
        let mut requests = tonic::Request::new(requests);
        requests.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let kept = clients.lease().lease_keep_alive(requests).await.unwrap();
        let others = cluster.others(leader);
        for other in others {
            cluster.server(other).kill();
        }
        let deadline = raftd::client::Deadline::after(PATIENCE);
        loop {
            let mut request = tonic::Request::new(put("a", "2"));
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
            let why = clients.kv().put(request).await.unwrap_err();
            if (why.code(), why.message()) == (Code::Unavailable, "etcdserver: no leader") {
                break;
            }
            assert!(!deadline.has_passed(), "{why:?}");
        }
        // Who keeps leases alive by a stream hears it there, though it asks for nothing.
        let why = kept.into_inner().message().await.unwrap_err();
        let no_leader = (Code::Unavailable, "etcdserver: no leader");
        assert_eq!((why.code(), why.message()), no_leader);
        // What one node has it still shows to whoever is content with that.
        let here = RangeRequest { serializable: true, ..super::program::get("a") };
        assert_eq!(clients.range(here).await.unwrap().count, 1);
        let why = clients.put(put("a", "2")).await.unwrap_err();
        assert_eq!(
            (why.code(), why.message()),
            (Code::Unavailable, "etcdserver: request timed out")
        );
    });
}

/// What is written while nobody answers waits in the gateway's memory, and nothing bounded that.
#[test]
fn writes_that_are_not_done_take_so_much_memory_and_no_more() {
    let mut cluster = Cluster::start(1);
    let gateway = Gateway::start(&cluster);
    block_on(async {
        let clients = gateway.clients().await;
        clients.put_key("a", "1").await;
        cluster.server(1).pause();
        let value = "v".repeat(1024 * 1024);
        let puts: Vec<_> = (0..300)
            .map(|_| {
                let (clients, put) = (clients.clone(), put("a", &value));
                tokio::spawn(async move { clients.put(put).await })
            })
            .collect();
        let (mut refused, mut late) = (0, 0);
        for put in puts {
            let why = put.await.unwrap().unwrap_err();
            match (why.code(), why.message()) {
                (Code::ResourceExhausted, "etcdserver: too many requests") => refused += 1,
                (Code::Unavailable, "etcdserver: request timed out") => late += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((refused, late), (45, 255), "255 of 1 MiB and 1 KiB each are 256 MiB");
        cluster.server(1).resume();
        assert!(clients.value("a").await.is_some());
    });
}

#[test]
fn what_is_no_request_harms_nobody() {
    with_gateway(1, |clients, gateway| async move {
        for garbage in [&b"\0\0\0\0\0\0\0\0\0"[..], b"NONSENSE\r\n\r\n", &[0xff; 5000]] {
            let mut stream = TcpStream::connect(&gateway.address).unwrap();
            // It may hang up in the middle.
            let _sent = stream.write_all(garbage);
            let _ended = stream.read_to_end(&mut Vec::new());
        }
        // Half a request, left open.
        let half = TcpStream::connect(&gateway.address).unwrap();
        (&half).write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        assert_eq!(clients.put_key("a", "1").await, 2);
        let large = put("a", &"v".repeat(3 * 1024 * 1024));
        let why = clients.put(large).await.unwrap_err();
        assert_eq!(why.code(), Code::ResourceExhausted);
        let text = "grpc: received message larger than max (3145736 vs. 2097152)";
        assert_eq!(why.message(), text);
        assert_eq!(clients.value("a").await.as_deref(), Some("1"));
    });
}

/// Without a descriptor for a client it asked the system again at once, for ever.
#[test]
fn clients_wait_while_there_is_no_descriptor_for_them() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let node = cluster.servers[0].listen().to_owned();
    let gateway = Gateway::start_after("ulimit -n 40", &cluster, &[&node], &[]);
    block_on(async {
        let clients = gateway.clients().await;
        let crowd: Vec<_> =
            (0..60).map(|_| TcpStream::connect(&gateway.address).unwrap()).collect();
        let said = || gateway.log_text().matches("cannot accept").count();
        eventually("it says so", PATIENCE, || (said() > 0).then_some(()));
        let (begun_at, before) = (now(), gateway.processor_time());
        breathe(Duration::from_millis(500));
        let (taken, hundredths) =
            (gateway.processor_time() - before, begun_at.elapsed().as_millis() / 10);
        assert!(u128::from(taken) < hundredths / 2, "{taken} of {hundredths} hundredths");
        // Who is served goes on.
        assert_eq!(clients.put_key("a", "1").await, 2);
        drop(crowd);
        assert_eq!(gateway.clients().await.put_key("a", "2").await, 3);
        assert_eq!(said(), 1);
    });
}

#[test]
fn there_are_as_many_descriptors_as_the_system_allows() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let node = cluster.servers[0].listen().to_owned();
    let gateway = Gateway::start_after("ulimit -Sn 40", &cluster, &[&node], &[]);
    block_on(async {
        gateway.clients().await.put_key("a", "1").await;
        let _crowd: Vec<_> =
            (0..60).map(|_| TcpStream::connect(&gateway.address).unwrap()).collect();
        assert_eq!(gateway.clients().await.put_key("a", "2").await, 3);
        assert!(!gateway.log_text().contains("cannot accept"));
    });
}

/// It was given up and found anew every second, and each time in two lines.
#[test]
fn a_member_that_is_down_is_not_given_up() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    let [node, down] = [0, 2].map(|at: usize| cluster.servers[at].listen().to_owned());
    let gateway = Gateway::start_after("export RUST_LOG=raftd=debug", &cluster, &[&node], &[]);
    let said = |words: &str| {
        let text = gateway.log_text();
        text.lines().filter(|line| line.contains(words) && line.contains(&down)).count()
    };
    eventually("it is found", PATIENCE, || (said("connected node=n3") > 0).then_some(()));
    cluster.server(3).kill();
    // Three times as often as it takes to give up.
    eventually("it is tried", PATIENCE, || (said("cannot connect") > 60).then_some(()));
    assert_eq!(said("given up"), 0);
}

#[test]
fn a_gateway_that_cannot_listen_says_what_to_do() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let taken = Gateway::start(&cluster);
    block_on(async {
        taken.clients().await.put_key("a", "1").await;
    });
    let before = format!("set -- --listen {}", taken.address);
    let mut second = Gateway::start_after(&before, &cluster, &[], &[]);
    assert_eq!(second.wait_for_end(), Some(3));
    let advice = "(stop what uses it, or choose another --listen)";
    let line = format!("raftd-gateway: cannot listen on {} {advice}", taken.address);
    assert_eq!(second.log_text().lines().last(), Some(&*line));
}

#[test]
fn a_gateway_ends_when_it_is_told_to() {
    let mut cluster = Cluster::start(1);
    cluster.leader();
    let mut gateway = Gateway::start(&cluster);
    block_on(async {
        gateway.clients().await.put_key("a", "1").await;
    });
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_end(), Some(0));
}
