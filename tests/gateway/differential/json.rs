//! The same requests as JSON to both.

use super::before_both;
use crate::program::block_on;
use crate::web::{Lines, Page, get, post};
use serde_json::Value;

/// Requests, in this order. What 3.4 answers otherwise than 3.5 is not here: the `reason` of
/// `/health`, and the status of FAILED_PRECONDITION.
const ASKED: [(&str, &str); 44] = [
    ("/v3/kv/put", r#"{"key":"YQ==","value":"YmFy"}"#),
    ("/v3/kv/put", r#"{"key":"YQ==","value":"Zm9v","prev_kv":true}"#),
    ("/v3/kv/put", r#"{"key":"YQ==","value":"Zm9v","prevKv":true,"lease":"0"}"#),
    ("/v3/kv/put", r#"{"key":"YQ==","lease":7}"#),
    ("/v3/kv/put", r#"{"key":"YQ==","ignore_value":true,"value":"Zm9v"}"#),
    ("/v3/kv/put", r#"{"value":"Zm9v"}"#),
    ("/v3/kv/put", r#"{"key":null}"#),
    ("/v3/kv/put", "{}"),
    ("/v3/kv/put", ""),
    ("/v3/kv/put", "null"),
    ("/v3/lease/leases", " null\n"),
    ("/v3/kv/put", r#"{"key":"Yg==","value":"","unknown":{"a":[1]}}"#),
    ("/v3/kv/range", r#"{"key":"YQ=="}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","limit":"1"}"#),
    ("/v3/kv/range", r#"{"key":"AA==","rangeEnd":"AA==","countOnly":true}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","sort_order":"DESCEND"}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","sort_order":2,"sort_target":"MOD"}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","sort_order":"DOWN"}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","revision":2}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","revision":"100"}"#),
    ("/v3/kv/range", r#"{"key":"bm9uZQ=="}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","keys_only":true,"serializable":true}"#),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"target":"VALUE","key":"YQ==","value":"Zm9v"}],
        "success":[{"request_put":{"key":"Yw==","value":"MQ=="}},
                   {"requestRange":{"key":"Yw=="}}]}"#,
    ),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"result":"GREATER","target":"CREATE","key":"YQ==",
                                   "create_revision":"9"}],
        "failure":[{"request_delete_range":{"key":"Yw=="}}]}"#,
    ),
    ("/v3/kv/txn", r#"{"compare":[{"result":"NOTEQUAL","key":"YQ=="}]}"#),
    ("/v3/kv/txn", r#"{"success":[{}]}"#),
    (
        "/v3/kv/txn",
        r#"{"success":[{"request_put":{"key":"Yw=="}},{"request_put":{"key":"Yw=="}}]}"#,
    ),
    ("/v3/kv/deleterange", r#"{"key":"Yg==","prev_kv":true}"#),
    ("/v3/kv/deleterange", r#"{"key":"Yg=="}"#),
    ("/v3/kv/compaction", r#"{"revision":"1000"}"#),
    ("/v3/kv/compaction", r#"{"revision":3}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","revision":2}"#),
    ("/v3/lease/grant", r#"{"TTL":"100","ID":"7"}"#),
    ("/v3/lease/leases", "{}"),
    ("/v3/kv/lease/leases", ""),
    ("/v3/lease/revoke", r#"{"ID":99}"#),
    ("/v3/lock/lock", r#"{"name":"bA==","lease":7}"#),
    ("/v3/lock/unlock", r#"{"key":"bC83"}"#),
    ("/v3/election/leader", r#"{"name":"ZQ=="}"#),
    ("/v3/election/campaign", r#"{"name":"ZQ==","lease":"7","value":"MQ=="}"#),
    ("/v3/election/leader", r#"{"name":"ZQ=="}"#),
    ("/v3/election/proclaim", r#"{"value":"MQ=="}"#),
    ("/v3/kv/lease/revoke", r#"{"ID":"7"}"#),
    ("/v3/nothing", "{}"),
];

/// Without what names the cluster, wherever it stands.
pub(super) fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["cluster_id", "member_id", "raft_term"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Status and content, as they are compared.
fn shown(page: &Page) -> (u16, String) {
    let content = serde_json::from_str(&page.text).map(|mut value| {
        strip(&mut value);
        value.to_string()
    });
    // What is no JSON has other words.
    (page.status, content.unwrap_or_default())
}

#[test]
fn json_has_the_answers_of_a_real_etcd() {
    before_both(|gateway, etcd| {
        block_on(gateway.clients());
        let (ours, etcds) = (&*gateway.address, etcd.address());
        for (path, body) in ASKED {
            let expected = shown(&post(etcds, path, body));
            assert_eq!(shown(&post(ours, path, body)), expected, "to {path} {body}");
        }
        let watch = r#"{"create_request":{"key":"AA==","range_end":"AA==","start_revision":"4"}}"#;
        let oldest =
            r#"{"create_request":{"key":"AA==","range_end":"AA==","start_revision":"-1"}}"#;
        for (path, body, lines) in [
            ("/v3/watch", oldest, 2),
            // How many responses the events come in is not said.
            ("/v3/watch", watch, 1),
            ("/v3/watch", r#"{"createRequest":{"key":"Yg==","rangeEnd":"YQ=="}}"#, 1),
            ("/v3/lease/keepalive", r#"{"ID":"99"}{"ID":98}"#, 2),
        ] {
            let hear = |address| {
                let mut heard = Lines::post(address, path, body);
                let mut next = || {
                    let mut line = heard.next().unwrap();
                    strip(&mut line);
                    line
                };
                (0..lines).map(|_| next()).collect::<Vec<Value>>()
            };
            assert_eq!(hear(ours), hear(etcds), "to {path} {body}");
        }
        for path in ["/v3/kv/range", "/health?serializable=true", "/version", "/", "/metrics"] {
            assert_eq!(get(ours, path).status, get(etcds, path).status, "{path}");
        }
    });
}
