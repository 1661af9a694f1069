//! What is not gRPC: JSON, health, version, numbers.

use super::harness::{Cluster, PATIENCE};
use super::patience::eventually;
use super::program::{Gateway, block_on, with_gateway};
use super::web::{Lines, Page, base64, get, page, page_of, post, send};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;

/// A message without what names the cluster.
fn stripped(mut message: Value) -> Value {
    if let Some(header) = message.get_mut("header").and_then(Value::as_object_mut) {
        for name in ["cluster_id", "member_id", "raft_term"] {
            let value = header.remove(name).unwrap_or_default();
            assert!(value.as_str().is_some_and(|it| it.parse::<u64>().is_ok_and(|it| it > 0)));
        }
    }
    message
}

/// What a request that is done answers.
#[track_caller]
fn done(address: &str, path: &str, body: &str) -> Value {
    let page = post(address, path, body);
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.head.contains("content-type: application/json"), "{page:?}");
    stripped(page.json())
}

/// That a request is refused, how, and in which words.
#[track_caller]
fn refused(page: &Page, status: u16, code: i32, text: &str) {
    let expected = json!({ "error": text, "message": text, "code": code });
    assert_eq!((page.status, page.json()), (status, expected), "{page:?}");
}

#[test]
fn keys_are_put_read_and_deleted_by_json() {
    with_gateway(3, |_clients, gateway| async move {
        let done = |path, body: &str| done(&gateway.address, path, body);
        let put = done("/v3/kv/put", r#"{"key":"YQ==","value":"YmFy"}"#);
        assert_eq!(put, json!({"header": {"revision": "2"}}));
        // Both ways to write a name, and what is not known is overlooked.
        for name in ["prev_kv", "prevKv"] {
            let body = format!(r#"{{"key":"YQ==","value":"YmFy","{name}":true,"unknown":[{{}}]}}"#);
            let before = &done("/v3/kv/put", &body)["prev_kv"];
            assert_eq!(
                (&before["value"], &before["create_revision"]),
                (&json!("YmFy"), &json!("2"))
            );
        }
        // What has its default is left out; numbers are texts, and may be either.
        let found = done("/v3/kv/range", r#"{"key":"YQ==","limit":"1"}"#);
        let kv = json!({"key": "YQ==", "create_revision": "2", "mod_revision": "4",
                        "version": "3", "value": "YmFy"});
        let expected = json!({"header": {"revision": "4"}, "kvs": [kv], "count": "1"});
        assert_eq!(found, expected);
        assert_eq!(done("/v3/kv/range", r#"{"key":"YQ==","limit":1,"revision":4}"#), expected);
        let none = done("/v3/kv/range", r#"{"key":"Yg=="}"#);
        assert_eq!(none, json!({"header": {"revision": "4"}}));
        let sorted = r#"{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","sort_target":3}"#;
        assert_eq!(done("/v3/kv/range", sorted)["count"], "1");
        let swap = r#"{"compare":[{"target":"VALUE","key":"YQ==","value":"YmFy"}],
            "success":[{"requestPut":{"key":"Yg==","value":"MQ=="}},
                       {"request_range":{"key":"Yg=="}}],
            "failure":[{"request_delete_range":{"key":"YQ=="}}]}"#;
        let swapped = done("/v3/kv/txn", swap);
        assert_eq!(
            (&swapped["succeeded"], &swapped["header"]["revision"]),
            (&json!(true), &json!("5"))
        );
        let responses = swapped["responses"].as_array().unwrap();
        assert_eq!(responses[0], json!({"response_put": {"header": {"revision": "5"}}}));
        assert_eq!(responses[1]["response_range"]["kvs"][0]["value"], "MQ==");
        let gone = done("/v3/kv/deleterange", r#"{"key":"Yg==","prev_kv":true}"#);
        assert_eq!((&gone["deleted"], &gone["prev_kvs"][0]["key"]), (&json!("1"), &json!("Yg==")));
        assert_eq!(
            done("/v3/kv/compaction", r#"{"revision":"3"}"#),
            json!({"header": {"revision": "6"}})
        );
    });
}

#[test]
fn leases_members_and_the_cluster_have_etcds_names_by_json() {
    with_gateway(3, |_clients, gateway| async move {
        let done = |path, body: &str| done(&gateway.address, path, body);
        let granted = done("/v3/lease/grant", r#"{"TTL":"100","ID":7}"#);
        assert_eq!(granted, json!({"header": {"revision": "1"}, "ID": "7", "TTL": "100"}));
        done("/v3/kv/put", r#"{"key":"YQ==","lease":"7"}"#);
        for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
            let times = done(path, r#"{"ID":"7","keys":true}"#);
            assert_eq!((&times["grantedTTL"], &times["keys"]), (&json!("100"), &json!(["YQ=="])));
        }
        assert_eq!(done("/v3/lease/leases", "")["leases"], json!([{"ID": "7"}]));
        let members = done("/v3/cluster/member/list", "{}");
        assert_eq!(members["members"].as_array().unwrap().len(), 3);
        assert_eq!(members["members"][0]["ID"], "1");
        assert!(members["members"][0]["peerURLs"][0].as_str().unwrap().starts_with("http://"));
        let status = done("/v3/maintenance/status", "{}");
        assert!(status["dbSize"].as_str().unwrap().parse::<u64>().unwrap() > 0, "{status}");
        assert_eq!(status["version"], "3.5.13");
        assert!(done("/v3/maintenance/hashkv", "{}")["hash"].is_u64());
        assert_eq!(done("/v3/maintenance/defragment", "{}"), json!({}));
        let revoked = done("/v3/kv/lease/revoke", r#"{"ID":"7"}"#);
        assert_eq!(revoked, json!({"header": {"revision": "3"}}));
    });
}

#[test]
fn what_is_wrong_is_said_by_json_as_etcd_says_it() {
    with_gateway(1, |_clients, gateway| async move {
        let post = |path, body: &str| post(&gateway.address, path, body);
        let no_key = "etcdserver: key is not provided";
        for body in ["", "{}", "null", r#"{"key":""}"#, r#"{"key":null}"#] {
            refused(&post("/v3/kv/put", body), 400, 3, no_key);
        }
        let future = "etcdserver: mvcc: required revision is a future revision";
        refused(&post("/v3/kv/range", r#"{"key":"YQ==","revision":"100"}"#), 400, 11, future);
        let no_lease = "etcdserver: requested lease not found";
        refused(&post("/v3/lease/revoke", r#"{"ID":99}"#), 404, 5, no_lease);
        done(&gateway.address, "/v3/lease/grant", r#"{"ID":7,"TTL":60}"#);
        let exists = "etcdserver: lease already exists";
        refused(&post("/v3/lease/grant", r#"{"ID":7,"TTL":60}"#), 400, 9, exists);
        refused(&post("/v3/election/leader", r#"{"name":"ZQ=="}"#), 500, 2, "election: no leader");
        for body in ["{", "[]", "nonsense", r#"{"key":5}"#, r#"{"key":"*"}"#, r#"{"key":"YQ=="} x"#]
        {
            let page = post("/v3/kv/put", body);
            assert_eq!((page.status, &page.json()["code"]), (400, &json!(3)), "{body}: {page:?}");
        }
        let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(1000), "{}");
        assert_eq!(post("/v3/kv/txn", &deep).status, 400);
        for path in ["/v3/kv/range", "/v3/watch"] {
            let head = "Host: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
            let asked = format!("POST {path} HTTP/1.1\r\n{head}");
            let why = page_of(&gateway.address, asked.as_bytes());
            assert_eq!((why.status, &why.json()["code"]), (400, &json!(3)), "{why:?}");
            let text = why.json()["message"].to_string();
            assert!(text.starts_with("\"raftd: the body is broken: "), "{text}");
            assert!(text.len() < 100, "{text}");
        }
        for path in ["/v3/nothing", "/v3/kv/range/", "/nothing", "/", "/v3/maintenance/downgrade"] {
            assert_eq!(post(path, "{}").status, 404, "{path}");
        }
        let asked = get(&gateway.address, "/v3/kv/range");
        assert_eq!(asked.status, 405);
        assert!(asked.head.contains("allow: post"), "{asked:?}");
        // None of it was done.
        assert_eq!(
            done(&gateway.address, "/v3/kv/put", r#"{"key":"YQ=="}"#)["header"]["revision"],
            "2"
        );
    });
}

/// It was read as what is left out, whose number is 0: `NOTEQUAL` as `EQUAL`, `write` as `READ`.
#[test]
fn a_name_that_has_no_number_is_refused() {
    with_gateway(1, |clients, gateway| async move {
        clients.put_key("a", "1").await;
        for (path, body, name, of) in [
            (
                "/v3/kv/txn",
                r#"{"compare":[{"key":"YQ==","value":"MQ==","target":"VALUE"},
                               {"unknown":{"result":"NO"},"result":"NOTEQUAL","key":"YQ=="}],
                    "success":[{"request_delete_range":{"key":"YQ=="}}]}"#,
                "NOTEQUAL",
                "etcdserverpb.Compare_CompareResult",
            ),
            (
                "/v3/kv/txn",
                r#"{"failure":[{"requestTxn":{"success":[{"requestRange":
                    {"key":"YQ==","sortTarget":"key"}}]}}]}"#,
                "key",
                "etcdserverpb.RangeRequest_SortTarget",
            ),
            (
                "/v3/kv/range",
                r#"{"key":"YQ==","sort_order":"XX"}"#,
                "XX",
                "etcdserverpb.RangeRequest_SortOrder",
            ),
            (
                "/v3/kv/range",
                r#"{"key":"YQ==","sort_order":"1"}"#,
                "1",
                "etcdserverpb.RangeRequest_SortOrder",
            ),
            (
                "/v3/auth/role/grant",
                r#"{"name":"r","perm":{"permType":"write","key":"YQ=="}}"#,
                "write",
                "authpb.Permission_Type",
            ),
            (
                "/v3/watch",
                r#"{"create_request":{"key":"YQ==","filters":["NOPUT","NODEL"]}}"#,
                "NODEL",
                "etcdserverpb.WatchCreateRequest_FilterType",
            ),
        ] {
            let text = format!("unknown value \"{name}\" for enum {of}");
            refused(&post(&gateway.address, path, body), 400, 3, &text);
        }
        for order in ["true", "1.5", "{}", "[0]"] {
            let body = format!(r#"{{"key":"YQ==","sort_order":{order}}}"#);
            assert_eq!(post(&gateway.address, "/v3/kv/range", &body).status, 400, "{order}");
        }
        let names = r#"{"key":"YQ==","sort_order":null,"sort_target":"MOD","filters":["NODEL"]}"#;
        assert_eq!(done(&gateway.address, "/v3/kv/range", names)["count"], "1");
    });
}

#[test]
fn bodies_and_answers_have_a_bound() {
    with_gateway(1, |clients, gateway| async move {
        let put = |bytes: usize| {
            let body = format!(r#"{{"key":"YQ==","value":"{}"}}"#, base64(&vec![b'v'; bytes]));
            post(&gateway.address, "/v3/kv/put", &body)
        };
        refused(&put(1600 * 1024), 400, 3, "etcdserver: request is too large");
        let text = "grpc: received message larger than max (3000008 vs. 2097152)";
        refused(&put(3_000_000), 429, 8, text);
        let text = "raftd: a body has more than 4194304 bytes";
        let announced = b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
            Content-Length: 4194305\r\n\r\n";
        refused(&page_of(&gateway.address, announced), 429, 8, text);
        // No more than one byte too many, so that all of it is read before it is refused.
        for path in ["/v3/kv/put", "/v3/watch"] {
            let chunks = "Host: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                          400001\r\n{";
            let endless = format!("POST {path} HTTP/1.1\r\n{chunks}{}", " ".repeat(0x40_0000));
            refused(&page_of(&gateway.address, endless.as_bytes()), 429, 8, text);
        }
        // Of a size that the small segments of a test take.
        let value = "v".repeat(100_000);
        for number in 0..340 {
            clients.put_key(&format!("large/{number}"), &value).await;
        }
        let all = r#"{"key":"AA==","range_end":"AA=="}"#;
        let text = "raftd: the answer has more than 33554432 bytes: ask in parts";
        refused(&post(&gateway.address, "/v3/kv/range", all), 429, 8, text);
        let some = r#"{"key":"AA==","range_end":"AA==","limit":20}"#;
        let some = done(&gateway.address, "/v3/kv/range", some);
        assert_eq!((some["kvs"].as_array().unwrap().len(), &some["count"]), (20, &json!("340")));
    });
}

/// While it was read nobody else was answered, a second for each.
#[test]
fn large_json_holds_up_nobody() {
    with_gateway(1, |clients, gateway| async move {
        let many = format!(r#"{{"compare":[{}{{}}]}}"#, "{},".repeat(1_390_000));
        let mut meanwhile = 0;
        for _ in 0..2 {
            let (address, body) = (gateway.address.clone(), many.clone());
            let asks = std::thread::spawn(move || post(&address, "/v3/kv/txn", &body));
            while !asks.is_finished() {
                clients.put_key("a", "1").await;
                meanwhile += 1;
            }
            let text = "grpc: received message larger than max (2780002 vs. 2097152)";
            refused(&asks.join().unwrap(), 429, 8, text);
        }
        assert!(meanwhile > 50, "{meanwhile} puts beside two large requests");
        // What is large is written as it was.
        clients.put_key("large", &"v".repeat(100_000)).await;
        let body = json!({"key": base64(b"large")}).to_string();
        let found = done(&gateway.address, "/v3/kv/range", &body);
        assert_eq!(found["kvs"][0]["value"], base64(&[b'v'; 100_000]));
        let watch = json!({"create_request": {"key": base64(b"large"), "start_revision": "1"}});
        let mut heard = Lines::post(&gateway.address, "/v3/watch", &watch.to_string());
        assert_eq!(heard.next().unwrap()["result"]["created"], true);
        assert_eq!(heard.next().unwrap()["result"]["events"][0]["kv"], found["kvs"][0]);
    });
}

#[test]
fn a_watch_by_json_is_a_line_for_each_response() {
    with_gateway(3, |clients, gateway| async move {
        clients.put_key("w", "1").await;
        let body = format!(
            "{}\n{}",
            json!({"create_request": {"key": base64(b"w"), "start_revision": "1"}}),
            json!({"createRequest": {"key": base64(b"b"), "rangeEnd": base64(b"a")}})
        );
        let mut heard = Lines::post(&gateway.address, "/v3/watch", &body);
        assert_eq!(heard.status, 200);
        let mut next = || stripped(heard.next().unwrap()["result"].take());
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(next());
        }
        assert_eq!(seen.iter().filter(|it| it["created"] == true).count(), 2);
        let reason = json!("mvcc: watcher range is empty");
        assert!(seen.iter().any(|it| it["cancel_reason"] == reason && it["watch_id"] == "-1"));
        let kv = json!({"key": "dw==", "create_revision": "2", "mod_revision": "2",
                        "version": "1", "value": "MQ=="});
        assert!(seen.iter().any(|it| it["events"] == json!([{"kv": kv}])), "{seen:?}");
        done(&gateway.address, "/v3/kv/deleterange", r#"{"key":"dw=="}"#);
        let gone = json!([{"type": "DELETE", "kv": {"key": "dw==", "mod_revision": "3"}}]);
        assert_eq!(next(), json!({"header": {"revision": "3"}, "events": gone}));
    });
}

#[test]
fn streams_by_json_end_when_all_is_said_and_say_why_they_cannot_go_on() {
    with_gateway(1, |clients, gateway| async move {
        clients.grant(7, 60).await.unwrap();
        let path = "/v3/lease/keepalive";
        let mut heard = Lines::post(&gateway.address, path, r#"{"ID":7}{"ID":"99"}"#);
        let header = json!({"revision": "1"});
        let alive = stripped(heard.next().unwrap()["result"].take());
        assert_eq!(alive, json!({"header": header, "ID": "7", "TTL": "60"}));
        let none = stripped(heard.next().unwrap()["result"].take());
        assert_eq!(none, json!({"header": header, "ID": "99"}));
        assert!(heard.next().is_none());
        assert!(Lines::post(&gateway.address, path, "").next().is_none());
        let nonsense = post(&gateway.address, path, "nonsense");
        refused(&nonsense, 400, 3, "a message is an object of JSON");
        let create = r#"{"create_request":{"key":"YQ=="}}"#;
        let mut heard = Lines::post(&gateway.address, "/v3/watch", &format!("{create} nonsense"));
        let end = loop {
            let line = heard.next().unwrap();
            if line.get("result").is_none() {
                break line;
            }
        };
        let why = json!({"grpc_code": 3, "http_code": 400, "http_status": "Bad Request",
                         "message": "a message is an object of JSON"});
        assert_eq!((end, heard.next()), (json!({"error": why}), None));
        let observe = r#"{"name":"ZQ=="}"#;
        let mut seen = Lines::post(&gateway.address, "/v3/election/observe", observe);
        let campaign = r#"{"name":"ZQ==","lease":7,"value":"MQ=="}"#;
        let won = done(&gateway.address, "/v3/election/campaign", campaign);
        let leader = json!({"name": "ZQ==", "key": "ZS83", "rev": "2", "lease": "7"});
        assert_eq!(won["leader"], leader);
        assert_eq!(seen.next().unwrap()["result"]["kv"]["value"], "MQ==");
        let proclaim = json!({"leader": leader, "value": "Mg=="}).to_string();
        done(&gateway.address, "/v3/election/proclaim", &proclaim);
        assert_eq!(seen.next().unwrap()["result"]["kv"]["value"], "Mg==");
        let mut pieces = Lines::post(&gateway.address, "/v3/maintenance/snapshot", "{}");
        assert!(pieces.next().unwrap()["result"]["blob"].is_string());
    });
}

#[test]
fn a_client_that_hangs_up_waits_for_no_lock_any_more() {
    with_gateway(3, |clients, gateway| async move {
        for lease in [1, 2] {
            clients.grant(lease, 60).await.unwrap();
        }
        let held = done(&gateway.address, "/v3/lock/lock", r#"{"name":"bA==","lease":1}"#);
        assert_eq!(held["key"], base64(b"l/1"));
        let body = r#"{"name":"bA==","lease":2}"#;
        let waits = send(&gateway.address, "POST /v3/lock/lock", "", body.as_bytes());
        let waiting = |there| {
            let range = json!({"key": base64(b"l/2")}).to_string();
            let found = done(&gateway.address, "/v3/kv/range", &range);
            (found.get("count").is_some() == there).then_some(())
        };
        eventually("it waits", PATIENCE, || waiting(true));
        drop(waits);
        eventually("it has left", PATIENCE, || waiting(false));
        let unlock = json!({"key": held["key"]}).to_string();
        done(&gateway.address, "/v3/lock/unlock", &unlock);
    });
}

/// Nothing was to be written to it, and so it seemed to be there.
#[test]
fn a_watch_ends_when_its_client_hangs_up_in_the_middle_of_a_request() {
    with_gateway(1, |_clients, gateway| async move {
        let begun = "POST /v3/watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                     21\r\n{\"create_request\":{\"key\":\"YQ==\"}}\r\n";
        let mut stream = TcpStream::connect(&gateway.address).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        let mut heard = Lines::of(stream);
        assert_eq!(heard.next().unwrap()["result"]["created"], true);
        let ended = |code| {
            let text = get(&gateway.address, "/metrics").text;
            handled(&text, code, WATCH).unwrap_or(0)
        };
        assert_eq!(ended("Canceled"), 0);
        drop(heard);
        eventually("it has ended", PATIENCE, || (ended("Canceled") == 1).then_some(()));
    });
}

#[test]
fn health_is_told_and_why_it_is_bad() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let gateway = Gateway::start(&cluster);
    block_on(async {
        gateway.clients().await.put_key("a", "1").await;
    });
    let health = |query: &str| {
        let page = get(&gateway.address, &format!("/health{query}"));
        (page.status, page.json())
    };
    let good = (200, json!({"health": "true", "reason": ""}));
    for query in
        ["", "?serializable=true", "?exclude=NOSPACE", "?exclude=NOSPACE&serializable=true"]
    {
        assert_eq!(health(query), good, "{query}");
    }
    assert_eq!(page(&gateway.address, "POST /health", "", b"").status, 405);
    let version = get(&gateway.address, "/version").json();
    assert_eq!(version, json!({"etcdserver": "3.5.13", "etcdcluster": "3.5.0"}));
    for other in cluster.others(leader) {
        cluster.server(other).kill();
    }
    let bad = (503, json!({"health": "false", "reason": "RAFT NO LEADER"}));
    eventually("it is bad", PATIENCE, || (health("") == bad).then_some(()));
    // What one node has it still shows to whoever is content with that.
    assert_eq!(health("?serializable=true"), good);
}

const KEEP_ALIVE: &str = "grpc_method=\"LeaseKeepAlive\",grpc_service=\"etcdserverpb.Lease\",\
                          grpc_type=\"bidi_stream\"";
const WATCH: &str =
    r#"grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream""#;

pub(crate) fn handled(text: &str, code: &str, labels: &str) -> Option<u64> {
    number(text, &format!("grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}}"))
}

/// The number behind a name and its labels.
pub(crate) fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|number| number.parse().unwrap())
}

#[test]
fn calls_are_counted_whichever_way_they_come() {
    with_gateway(3, |clients, gateway| async move {
        for _ in 0..3 {
            clients.put_key("a", "1").await;
        }
        done(&gateway.address, "/v3/kv/put", r#"{"key":"YQ=="}"#);
        assert_eq!(post(&gateway.address, "/v3/kv/put", "{}").status, 400);
        drop(Lines::post(&gateway.address, "/v3/watch", ""));
        let path = "/v3/lease/keepalive";
        assert!(Lines::post(&gateway.address, path, "").next().is_none());
        let shown = get(&gateway.address, "/metrics");
        assert!(shown.head.contains("content-type: text/plain; version=0.0.4"), "{shown:?}");
        let text = shown.text;
        let put = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
        assert_eq!(number(&text, &format!("grpc_server_started_total{{{put}}}")), Some(5));
        assert_eq!(handled(&text, "OK", put), Some(4));
        assert_eq!(handled(&text, "InvalidArgument", put), Some(1));
        assert_eq!(handled(&text, "OK", KEEP_ALIVE), Some(1));
        assert_eq!(number(&text, "etcd_server_has_leader"), Some(1));
        eventually("it has found all nodes", PATIENCE, || {
            let text = get(&gateway.address, "/metrics").text;
            (number(&text, "raftd_gateway_nodes_connected") == Some(3)).then_some(())
        });
        assert_eq!(number(&text, "raftd_gateway_revision"), Some(5));
        let (resident, now) = (number(&text, "process_resident_memory_bytes"), gateway.resident());
        assert!(resident.is_some_and(|it| (now / 2..2 * now).contains(&it)), "{resident:?}");
        let (open, now) = (number(&text, "process_open_fds"), gateway.descriptors());
        assert!(open.is_some_and(|it| it.abs_diff(now.try_into().unwrap()) < 5), "{open:?}");
        eventually("the watch has ended", PATIENCE, || {
            let text = get(&gateway.address, "/metrics").text;
            (handled(&text, "Canceled", WATCH) == Some(1)).then_some(())
        });
    });
}

const EXPIRED: &str = "context deadline exceeded";

#[test]
fn a_request_may_take_as_long_as_its_header_says() {
    with_gateway(3, |clients, gateway| async move {
        for lease in [1, 2] {
            clients.grant(lease, 60).await.unwrap();
        }
        let ask = |path: &str, time: &str, body: &str| {
            let headers = format!("Grpc-Timeout: {time}\r\n");
            page(&gateway.address, &format!("POST {path}"), &headers, body.as_bytes())
        };
        let held = ask("/v3/lock/lock", "10S", r#"{"name":"bA==","lease":1}"#);
        assert_eq!((held.status, &held.json()["key"]), (200, &json!(base64(b"l/1"))));
        let waits = ask("/v3/lock/lock", "300m", r#"{"name":"bA==","lease":2}"#);
        refused(&waits, 504, 4, EXPIRED);
        assert!(waits.head.contains("content-type: application/json"), "{waits:?}");
        // Who has no time left waits for nothing any more.
        eventually("it has left", PATIENCE, || {
            let range = json!({"key": base64(b"l/2")}).to_string();
            let found = done(&gateway.address, "/v3/kv/range", &range);
            found.get("count").is_none().then_some(())
        });
        refused(&ask("/v3/lock/lock", "0n", r#"{"name":"bA==","lease":2}"#), 504, 4, EXPIRED);
        for odd in ["5", "5s", "-1S", "123456789S", "soon"] {
            let text = format!("invalid grpc-timeout: {odd}");
            refused(&ask("/v3/kv/put", odd, r#"{"key":"YQ=="}"#), 400, 3, &text);
            refused(&ask("/v3/watch", odd, r#"{"create_request":{"key":"YQ=="}}"#), 400, 3, &text);
        }
        assert_eq!(clients.value("a").await, None);
    });
}

#[test]
fn a_stream_ends_when_the_time_of_its_header_is_over() {
    with_gateway(1, |clients, gateway| async move {
        let body = r#"{"create_request":{"key":"YQ=="}}"#;
        let headers = "Grpc-Timeout: 3S\r\n";
        let begun = send(&gateway.address, "POST /v3/watch", headers, body.as_bytes());
        let mut heard = Lines::of(begun);
        assert_eq!(heard.next().unwrap()["result"]["created"], true);
        let end = heard.next().unwrap();
        let why = json!({"grpc_code": 4, "http_code": 504, "http_status": "Gateway Timeout",
                         "message": EXPIRED});
        assert_eq!((end, heard.next()), (json!({"error": why}), None));
        assert_eq!(clients.put_key("a", "1").await, 2);
    });
}

/// Any page that a browser shows may have it send such requests.
#[test]
fn pages_of_another_origin_are_refused() {
    with_gateway(1, |clients, gateway| async move {
        let body = br#"{"key":"YQ==","value":"MQ=="}"#;
        let asked = |origin: &str| {
            let headers = format!("Origin: {origin}\r\nContent-Type: text/plain\r\n");
            page(&gateway.address, "POST /v3/kv/put", &headers, body)
        };
        refused(&asked("http://elsewhere.example"), 403, 7, "raftd: a page of another origin asks");
        assert_eq!(clients.value("a").await, None);
        for scheme in ["http", "HTTP"] {
            assert_eq!(asked(&format!("{scheme}://{}", gateway.address)).status, 200);
        }
        assert_eq!(clients.value("a").await.as_deref(), Some("1"));
    });
}
