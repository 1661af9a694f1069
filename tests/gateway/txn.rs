//! Transactions.

use super::program::{Clients, get, get_prefix, line, put, refused, with_gateway};
use raftd::gateway::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use raftd::gateway::proto::etcdserverpb::request_op::Request;
use raftd::gateway::proto::etcdserverpb::response_op::Response;
use raftd::gateway::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use tonic::{Code, Status};

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(crate) fn put_op(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn get_op(key: &str) -> RequestOp {
    op(Request::RequestRange(get(key)))
}

fn delete_op(key: &str) -> RequestOp {
    let key = key.to_owned().into();
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() }))
}

fn compare(key: &str, result: CompareResult, union: TargetUnion) -> Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: i32::from(result),
        target: i32::from(target),
        key: key.to_owned().into(),
        target_union: Some(union),
        ..Compare::default()
    }
}

impl Clients {
    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.kv().txn(request).await.map(tonic::Response::into_inner)
    }

    /// Whether a compare holds.
    async fn holds(&self, compare: Compare) -> bool {
        let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        self.txn(request).await.unwrap().succeeded
    }
}

/// The revision in a response's own header.
fn revision(response: &Response) -> i64 {
    let header = match response {
        Response::ResponseRange(it) => it.header,
        Response::ResponsePut(it) => it.header,
        Response::ResponseDeleteRange(it) => it.header,
        Response::ResponseTxn(it) => it.header,
    };
    header.unwrap().revision
}

#[test]
fn one_branch_is_done_at_one_revision() {
    with_gateway(3, |clients, _gateway| async move {
        clients.put_key("a", "1").await;
        let request = TxnRequest {
            compare: vec![compare("a", CompareResult::Equal, TargetUnion::ModRevision(2))],
            success: vec![
                get_op("a"),
                put_op("a", "2"),
                get_op("a"),
                delete_op("nothing"),
                put_op("b", "1"),
                op(Request::RequestRange(get_prefix("a"))),
            ],
            failure: vec![get_op("a")],
        };
        let done = clients.txn(request.clone()).await.unwrap();
        assert!(done.succeeded);
        assert_eq!(done.header.unwrap().revision, 3);
        let responses: Vec<_> = done.responses.into_iter().map(|it| it.response.unwrap()).collect();
        let revisions: Vec<i64> = responses.iter().map(revision).collect();
        assert_eq!(revisions, [2, 3, 3, 3, 3, 3], "a read before a write sees what was there");
        let Response::ResponseRange(first) = &responses[0] else { panic!("{responses:?}") };
        let Response::ResponseRange(third) = &responses[2] else { panic!("{responses:?}") };
        assert_eq!((line(first), line(third)), ("a=1".to_owned(), "a=2".to_owned()));
        let undone = clients.txn(request).await.unwrap();
        assert!(!undone.succeeded);
        assert_eq!(undone.header.unwrap().revision, 3, "nothing was changed");
        let Some(Response::ResponseRange(found)) = &undone.responses[0].response else {
            panic!("{undone:?}")
        };
        assert_eq!(line(found), "a=2");
    });
}

#[test]
fn compares_hold_as_etcds_do() {
    with_gateway(1, |clients, _gateway| async move {
        clients.put_key("a", "m").await;
        clients.put_key("a", "m").await;
        use CompareResult::{Equal, Greater, Less, NotEqual};
        let value = |text: &str| TargetUnion::Value(text.to_owned().into());
        let cases = [
            ("a", Equal, TargetUnion::Version(2), true),
            ("a", Greater, TargetUnion::Version(-1), true),
            ("a", Less, TargetUnion::Version(-1), false),
            ("a", NotEqual, TargetUnion::Version(-1), true),
            ("a", Equal, TargetUnion::Version(-1), false),
            ("a", Equal, TargetUnion::CreateRevision(2), true),
            ("a", Less, TargetUnion::ModRevision(3), false),
            ("a", Greater, value("l"), true),
            ("a", Less, value("l"), false),
            ("a", Equal, TargetUnion::Lease(0), true),
            // A key that does not exist has 0 of everything, and no value.
            ("none", Equal, TargetUnion::Version(0), true),
            ("none", Equal, TargetUnion::CreateRevision(0), true),
            ("none", Equal, value(""), false),
            ("none", NotEqual, value("x"), false),
        ];
        for (key, result, union, holds) in cases {
            let asked = compare(key, result, union.clone());
            assert_eq!(clients.holds(asked).await, holds, "{key} {result:?} {union:?}");
        }
        // Every key of a range has to.
        clients.put_key("b", "m").await;
        let range = Compare { range_end: "c".into(), ..compare("a", Equal, value("m")) };
        assert!(clients.holds(range.clone()).await);
        clients.put_key("b", "n").await;
        assert!(!clients.holds(range).await);
        // With what it is compared may be left out.
        let bare =
            Compare { target_union: None, ..compare("none", Equal, TargetUnion::Version(7)) };
        assert!(clients.holds(bare).await);
    });
}

#[test]
fn transactions_are_done_inside_each_other() {
    with_gateway(1, |clients, _gateway| async move {
        clients.put_key("a", "1").await;
        let inner = TxnRequest {
            compare: vec![compare("a", CompareResult::Equal, TargetUnion::Version(1))],
            success: vec![put_op("inner", "yes")],
            failure: vec![put_op("inner", "no")],
        };
        // Its compares are judged before anything is done.
        let outer = TxnRequest {
            success: vec![put_op("a", "2"), op(Request::RequestTxn(inner)), get_op("inner")],
            ..TxnRequest::default()
        };
        let done = clients.txn(outer).await.unwrap();
        let Some(Response::ResponseTxn(inner)) = &done.responses[1].response else {
            panic!("{done:?}")
        };
        assert!(inner.succeeded);
        assert!(matches!(inner.responses[0].response, Some(Response::ResponsePut(_))));
        assert_eq!(clients.value("inner").await.as_deref(), Some("yes"));
    });
}

/// All of it was made before it was counted, a tenth of a second of the gateway's one thread.
#[test]
fn a_transaction_of_far_too_many_requests_costs_little() {
    with_gateway(1, |clients, gateway| async move {
        let many = || vec![RequestOp::default(); 1_000_000];
        let text = "etcdserver: too many operations in txn request";
        let before = gateway.processor_time();
        for _ in 0..3 {
            let plain = TxnRequest { failure: many(), ..TxnRequest::default() };
            let inside = op(Request::RequestTxn(plain.clone()));
            let deep = TxnRequest { success: vec![inside], ..TxnRequest::default() };
            for txn in [plain, deep] {
                refused(clients.txn(txn).await, Code::InvalidArgument, text);
            }
        }
        let took = gateway.processor_time() - before;
        assert!(took < 25, "hundredths of a second for six: {took}");
    });
}

#[test]
fn what_is_wrong_with_a_transaction_is_said_in_etcds_words() {
    with_gateway(1, |clients, _gateway| async move {
        let invalid = Code::InvalidArgument;
        let of = |success| TxnRequest { success, ..TxnRequest::default() };
        let twice = of(vec![put_op("a", "1"), put_op("a", "2")]);
        let text = "etcdserver: duplicate key given in txn request";
        refused(clients.txn(twice).await, invalid, text);
        let deleted = of(vec![delete_op("a"), put_op("a", "2")]);
        refused(clients.txn(deleted).await, invalid, text);
        let inside =
            of(vec![put_op("a", "1"), op(Request::RequestTxn(of(vec![put_op("a", "2")])))]);
        refused(clients.txn(inside).await, invalid, text);
        assert!(clients.txn(of(vec![delete_op("a"), delete_op("a")])).await.is_ok());
        let many = of((0..129).map(|number| get_op(&number.to_string())).collect());
        let text = "etcdserver: too many operations in txn request";
        refused(clients.txn(many).await, invalid, text);
        // What is inside has what the outer one leaves.
        let half = |count: usize| (0..count).map(|_| get_op("a")).collect::<Vec<_>>();
        let mut outer = half(64);
        outer.push(op(Request::RequestTxn(of(half(63)))));
        assert!(clients.txn(of(outer.clone())).await.is_ok());
        outer.push(op(Request::RequestTxn(of(half(63)))));
        refused(clients.txn(of(outer)).await, invalid, text);
        let text = "etcdserver: key is not provided";
        refused(clients.txn(of(vec![get_op("")])).await, invalid, text);
        let bare = compare("", CompareResult::Equal, TargetUnion::Version(0));
        let bare = TxnRequest { compare: vec![bare], ..TxnRequest::default() };
        refused(clients.txn(bare).await, invalid, text);
        let empty = of(vec![RequestOp { request: None }]);
        refused(clients.txn(empty).await, invalid, "etcdserver: key not found");
        // The branch that is not taken is looked at as well.
        let failure = vec![put_op("", "1")];
        refused(clients.txn(TxnRequest { failure, ..of(vec![]) }).await, invalid, text);
        // What is found only in the doing undoes all of it.
        let future = op(Request::RequestRange(RangeRequest { revision: 100, ..get("a") }));
        let half_done = of(vec![put_op("a", "1"), future]);
        let text = "etcdserver: mvcc: required revision is a future revision";
        refused(clients.txn(half_done).await, Code::OutOfRange, text);
        assert_eq!(clients.value("a").await, None);
    });
}
