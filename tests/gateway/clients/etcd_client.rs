//! The crate etcd-client of crates.io against whatever serves etcd's API at HOST:PORT.
//!
//! Every kind of request that the crate can make, each with what must come of it. It ends with 0 if
//! all of that is so. `scripts/clients` builds it, in a package of its own, and runs it before the
//! gateway: the crate's build needs `protoc`, which nobody shall need who builds raftd.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, KeyValue,
    LeaseGrantOptions, LockOptions, ProclaimOptions, PutOptions, ResignOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchStream,
};
use std::future::Future;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Last letters of keys with their values, on one line.
fn line(kvs: &[KeyValue]) -> String {
    let last = |kv: &KeyValue| kv.key_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let pairs = kvs.iter().map(|kv| format!("{}={}", last(kv), kv.value_str().unwrap()));
    pairs.collect::<Vec<_>>().join(" ")
}

fn message(result: Result<impl Sized, Error>) -> String {
    match result {
        Ok(_) => "it was done".to_owned(),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(other) => other.to_string(),
    }
}

async fn keys_and_values(client: &mut Client, name: &str) {
    let put = client.put(format!("{name}/a"), "1", None).await.unwrap();
    let first = put.header().unwrap().revision();
    let prev = || Some(PutOptions::new().with_prev_key());
    let put = client.put(format!("{name}/a"), "2", prev()).await.unwrap();
    assert_eq!(line(&[put.prev_key().unwrap().clone()]), "a=1");
    let got = client.get(format!("{name}/a"), None).await.unwrap();
    let kv = &got.kvs()[0];
    let numbers = (kv.create_revision(), kv.mod_revision(), kv.version());
    assert_eq!(numbers, (first, first + 1, 2));
    let then = GetOptions::new().with_revision(first);
    let got = client.get(format!("{name}/a"), Some(then)).await.unwrap();
    assert_eq!(line(got.kvs()), "a=1");
    for (key, value) in [("c", "3"), ("b", "4")] {
        client.put(format!("{name}/{key}"), value, None).await.unwrap();
    }
    let prefix = || GetOptions::new().with_prefix();
    let key = || format!("{name}/");
    let page = client.get(key(), Some(prefix().with_limit(2))).await.unwrap();
    assert_eq!((&*line(page.kvs()), page.more(), page.count()), ("a=2 b=4", true, 3));
    let order = prefix().with_sort(SortTarget::Create, SortOrder::Descend);
    assert_eq!(line(client.get(key(), Some(order)).await.unwrap().kvs()), "b=4 c=3 a=2");
    let newer = prefix().with_min_mod_revision(first + 2).with_serializable();
    assert_eq!(line(client.get(key(), Some(newer)).await.unwrap().kvs()), "b=4 c=3");
    let counted = client.get(key(), Some(prefix().with_count_only())).await.unwrap();
    assert_eq!((counted.count(), counted.kvs().len()), (3, 0));
    let future = GetOptions::new().with_revision(i64::MAX);
    assert_eq!(
        message(client.get(key(), Some(future)).await),
        "OutOfRange: etcdserver: mvcc: required revision is a future revision"
    );
    let gone = DeleteOptions::new().with_range(format!("{name}/c")).with_prev_key();
    let gone = client.delete(format!("{name}/b"), Some(gone)).await.unwrap();
    assert_eq!((gone.deleted(), &*line(gone.prev_kvs())), (1, "b=4"));
    let gone = client.delete(key(), Some(DeleteOptions::new().with_prefix())).await.unwrap();
    assert_eq!(gone.deleted(), 2);
    let refused = message(client.put("", "x", None).await);
    assert_eq!(refused, "InvalidArgument: etcdserver: key is not provided");
}

async fn transactions(client: &mut Client, name: &str) {
    let key = format!("{name}/txn");
    let create = |value: &str| {
        Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), value, None)])
            .or_else([TxnOp::get(key.clone(), None)])
    };
    assert!(client.txn(create("1")).await.unwrap().succeeded());
    let second = client.txn(create("2")).await.unwrap();
    let mut responses = second.op_responses();
    let Some(TxnOpResponse::Get(found)) = responses.pop() else { panic!("{second:?}") };
    assert!(!second.succeeded());
    assert_eq!(line(found.kvs()), "txn=1");
    let inner = Txn::new()
        .when([Compare::version(key.clone(), CompareOp::Greater, 0)])
        .and_then([TxnOp::put(format!("{key}/inner"), "x", None)]);
    let third = Txn::new()
        .when([
            Compare::mod_revision(key.clone(), CompareOp::Equal, found.kvs()[0].mod_revision()),
            Compare::value(key.clone(), CompareOp::NotEqual, "2"),
            Compare::lease(key.clone(), CompareOp::Equal, 0),
        ])
        .and_then([TxnOp::delete(key.clone(), None), TxnOp::txn(inner)]);
    assert!(client.txn(third).await.unwrap().succeeded());
    let all = Some(GetOptions::new().with_prefix());
    assert_eq!(line(client.get(key.clone(), all).await.unwrap().kvs()), "inner=x");
    let twice = [TxnOp::put(key.clone(), "1", None), TxnOp::put(key.clone(), "2", None)];
    assert_eq!(
        message(client.txn(Txn::new().and_then(twice)).await),
        "InvalidArgument: etcdserver: duplicate key given in txn request"
    );
}

async fn leases(client: &mut Client, name: &str) {
    let kept = client.lease_grant(2, None).await.unwrap().id();
    let left = client.lease_grant(2, None).await.unwrap().id();
    for (key, lease) in [("kept", kept), ("left", left)] {
        let under = PutOptions::new().with_lease(lease);
        client.put(format!("{name}/{key}"), "1", Some(under)).await.unwrap();
    }
    let only = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
    let mut watch = client.watch(format!("{name}/left"), Some(only)).await.unwrap();
    assert!(soon("a watch opens", watch.message()).await.unwrap().unwrap().created());
    let (mut keeper, mut answers) = client.lease_keep_alive(kept).await.unwrap();
    // The one is kept alive until the other, which is as old, has ended by itself.
    let ended = loop {
        let pause = Duration::from_millis(200);
        if let Ok(ended) = timeout(pause, watch.message()).await {
            break ended.unwrap().unwrap();
        }
        keeper.keep_alive().await.unwrap();
        let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
        assert_eq!((answer.id(), answer.ttl()), (kept, 2));
    };
    assert_eq!(ended.events()[0].event_type(), EventType::Delete);
    assert_eq!(client.lease_time_to_live(left, None).await.unwrap().ttl(), -1);
    let leases = client.leases().await.unwrap();
    let ids: Vec<i64> = leases.leases().iter().map(|lease| lease.id()).collect();
    assert!(ids.contains(&kept) && !ids.contains(&left), "{ids:?}");
    client.lease_revoke(kept).await.unwrap();
    assert_eq!(client.get(format!("{name}/kept"), None).await.unwrap().count(), 0);
    assert_eq!(
        message(client.lease_revoke(kept).await),
        "NotFound: etcdserver: requested lease not found"
    );
    let chosen = || Some(LeaseGrantOptions::new().with_id(4444));
    client.lease_grant(60, chosen()).await.unwrap();
    assert_eq!(
        message(client.lease_grant(60, chosen()).await),
        "FailedPrecondition: etcdserver: lease already exists"
    );
    client.lease_revoke(4444).await.unwrap();
}

/// So many events, as lines.
async fn events(watch: &mut WatchStream, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let response = soon("an event", watch.message()).await.unwrap().unwrap();
        assert!(!response.canceled(), "{response:?}");
        for event in response.events() {
            let before = event.prev_kv().map(|kv| format!(" before {}", line(&[kv.clone()])));
            let now = line(&[event.kv().unwrap().clone()]);
            let before = before.unwrap_or_default();
            lines.push(format!("{:?} {now}{before}", event.event_type()));
        }
    }
    lines
}

async fn watches(client: &mut Client, name: &str) {
    let put = client.put(format!("{name}/1"), "before", None).await.unwrap();
    let first = put.header().unwrap().revision();
    client.delete(format!("{name}/1"), None).await.unwrap();
    let then = WatchOptions::new().with_prefix().with_start_revision(first).with_prev_key();
    let mut watch = client.watch(format!("{name}/"), Some(then)).await.unwrap();
    let after = client.put(format!("{name}/2"), "after", None).await.unwrap();
    let after = after.header().unwrap().revision();
    assert_eq!(
        events(&mut watch, 3).await,
        ["Put 1=before", "Delete 1= before 1=before", "Put 2=after"]
    );
    // Progress is said of all watches of a stream, and says that nothing is missing.
    loop {
        watch.request_progress().await.unwrap();
        let said = soon("progress", watch.message()).await.unwrap().unwrap();
        assert!(said.events().is_empty());
        if said.header().unwrap().revision() >= after {
            break;
        }
    }
    watch.cancel(0).await.unwrap();
    loop {
        let said = soon("the end", watch.message()).await.unwrap().unwrap();
        if said.canceled() {
            break;
        }
    }
    client.compact(after, None).await.unwrap();
    let late = WatchOptions::new().with_start_revision(first);
    watch.watch(format!("{name}/1"), Some(late)).await.unwrap();
    let ended = loop {
        let said = soon("an answer", watch.message()).await.unwrap().unwrap();
        if said.canceled() {
            break said;
        }
    };
    assert_eq!(ended.compact_revision(), after);
}

async fn locks(client: &mut Client, name: &str) {
    let lease = client.lease_grant(60, None).await.unwrap().id();
    let by_lease = Some(LockOptions::new().with_lease(lease));
    let first = soon("a lock", client.lock(name, by_lease)).await.unwrap();
    assert_eq!(first.key(), format!("{name}/{lease:x}").as_bytes());
    let mut other = client.clone();
    let asked = name.to_owned();
    let mut second = tokio::spawn(async move { other.lock(asked, None).await });
    assert!(timeout(Duration::from_millis(300), &mut second).await.is_err(), "both have it");
    client.unlock(first.key()).await.unwrap();
    let second = soon("the second", second).await.unwrap().unwrap();
    client.unlock(second.key()).await.unwrap();
    client.lease_revoke(lease).await.unwrap();
}

async fn elections(client: &mut Client, name: &str) {
    assert_eq!(message(client.leader(name).await), "Unknown: election: no leader");
    let mut leases = Vec::new();
    for _ in 0..2 {
        leases.push(client.lease_grant(60, None).await.unwrap().id());
    }
    let first = soon("leading", client.campaign(name, "first", leases[0])).await.unwrap();
    let first = first.leader().unwrap().clone();
    let mut observed = client.observe(name).await.unwrap();
    let mut seen = async |what: &'static str| {
        let response = soon(what, observed.message()).await.unwrap().unwrap();
        response.kv().unwrap().value_str().unwrap().to_owned()
    };
    assert_eq!(seen("the first leader").await, "first");
    let (mut other, asked, lease) = (client.clone(), name.to_owned(), leases[1]);
    let second = tokio::spawn(async move { other.campaign(asked, "second", lease).await });
    let proclaim = ProclaimOptions::new().with_leader(first.clone());
    client.proclaim("again", Some(proclaim)).await.unwrap();
    assert_eq!(seen("a proclamation").await, "again");
    assert!(!second.is_finished());
    client.resign(Some(ResignOptions::new().with_leader(first))).await.unwrap();
    soon("the second leads", second).await.unwrap().unwrap();
    assert_eq!(seen("the second leader").await, "second");
    let leader = client.leader(name).await.unwrap();
    assert_eq!(leader.kv().unwrap().value_str().unwrap(), "second");
    for lease in leases {
        client.lease_revoke(lease).await.unwrap();
    }
}

async fn operators(client: &mut Client, _name: &str) {
    let status = client.status().await.unwrap();
    assert!(status.version().starts_with("3.") && status.db_size() > 0);
    let listed = client.member_list().await.unwrap();
    assert!(listed.members().iter().any(|member| member.id() == status.leader()));
    let hash = client.hash_kv(0).await.unwrap();
    assert_eq!(hash.hash(), client.hash_kv(0).await.unwrap().hash());
    client.defragment().await.unwrap();
    let mut pieces = client.snapshot().await.unwrap();
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes += piece.blob().len();
    }
    assert_eq!(bytes % 512, 32, "blocks, and a SHA-256");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let endpoint = std::env::args().nth(1).expect("HOST:PORT");
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let name = format!("rust/{}", since.as_nanos());
    let mut client = Client::connect([endpoint], None).await.unwrap();
    macro_rules! run {
        ($($part:ident)*) => {$(
            let place = format!("{name}/{}", stringify!($part));
            soon(stringify!($part), $part(&mut client, &place)).await;
            println!("  {}: as expected", stringify!($part));
        )*};
    }
    run!(keys_and_values transactions leases watches locks elections operators);
}
