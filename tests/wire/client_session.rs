//! The client's sessions against servers that behave as scripted: what is sent again, under which
//! number, and when the outcome is unknown all the same.

use std::time::Duration;

use raftd::client::{Client, Error};
use raftd::types::Revision;
use raftd::wire::client::Op;
use raftd::wire::error::Error as WireError;

use super::client::{Act, PATIENT, Seen, Server, options};

fn client(timeout: Duration, server: &Server) -> Client {
    Client::new(options(timeout, &[&server.address]))
}

fn open() -> Seen {
    (Op::OpenSession, Vec::new())
}

/// Call `sequence` of `session`, acknowledging all before it.
fn call(session: u8, sequence: u8) -> Seen {
    (Op::InSession, vec![session, sequence, sequence - 1])
}

#[test]
fn a_write_whose_answer_is_lost_is_sent_again_as_the_same_call() {
    let lost = Act::Error(WireError::OutcomeUnknown);
    let server = Server::start(vec![
        vec![Act::Open(5), Act::Put(2), Act::HangUp],
        vec![lost],
        vec![Act::Put(3), Act::Put(4)],
    ]);
    let mut client = client(PATIENT, &server);
    for revision in 2..=4 {
        assert_eq!(client.put(b"a", b"1").unwrap(), Revision(revision));
    }
    let seen = [open(), call(5, 1), call(5, 2), call(5, 2), call(5, 2), call(5, 3)];
    assert_eq!(server.seen(), seen);
}

#[test]
fn a_server_that_keeps_quiet_is_left_and_the_call_is_made_elsewhere() {
    let server = Server::start(vec![vec![Act::Open(5), Act::Silence], vec![Act::Put(2)]]);
    let mut client = client(Duration::from_secs(3), &server);
    assert_eq!(client.put(b"a", b"1").unwrap(), Revision(2));
    assert_eq!(server.seen(), [open(), call(5, 1), call(5, 1)]);
}

#[test]
fn an_opening_whose_answer_is_lost_is_repeated() {
    let server = Server::start(vec![vec![Act::HangUp], vec![Act::Open(6), Act::Put(2)]]);
    assert_eq!(client(PATIENT, &server).put(b"a", b"1").unwrap(), Revision(2));
    assert_eq!(server.seen(), [open(), open(), call(6, 1)]);
}

#[test]
fn a_session_that_ended_while_it_was_idle_is_replaced() {
    let expired = || Act::Error(WireError::SessionExpired);
    let server = Server::start(vec![
        vec![Act::Open(5), Act::Put(2), expired()],
        vec![Act::Open(6), Act::Put(3)],
    ]);
    let mut client = client(PATIENT, &server);
    assert_eq!(client.put(b"a", b"1").unwrap(), Revision(2));
    assert_eq!(client.put(b"a", b"1").unwrap(), Revision(3));
    assert_eq!(server.seen(), [open(), call(5, 1), call(5, 2), open(), call(6, 1)]);
}

#[test]
fn a_session_that_ended_after_a_lost_answer_leaves_the_outcome_unknown() {
    let expired = Act::Error(WireError::SessionExpired);
    let server = Server::start(vec![vec![Act::Open(5), Act::HangUp], vec![expired]]);
    let result = client(PATIENT, &server).put(b"a", b"1");
    assert!(matches!(result, Err(Error::OutcomeUnknown { .. })), "{result:?}");
    assert_eq!(server.seen(), [open(), call(5, 1), call(5, 1)]);
}

#[test]
fn a_refusal_after_a_lost_answer_does_not_claim_that_nothing_was_done() {
    let refusal = Act::Error(WireError::TooLarge { bytes: 9, max: 8 });
    let server = Server::start(vec![vec![Act::Open(5), Act::HangUp], vec![refusal]]);
    let result = client(PATIENT, &server).put(b"a", b"1");
    assert!(matches!(result, Err(Error::OutcomeUnknown { .. })), "{result:?}");
}

#[test]
fn what_the_store_says_after_a_lost_answer_is_the_answer() {
    let after = |error| {
        let server = Server::start(vec![vec![Act::Open(5), Act::HangUp], vec![Act::Error(error)]]);
        let result = client(PATIENT, &server).put(b"a", b"1");
        assert_eq!(server.seen(), [open(), call(5, 1), call(5, 1)]);
        result
    };
    let revision = Revision(7);
    let result = after(WireError::AnswerNotKept { revision });
    assert!(matches!(result, Err(Error::AnswerNotKept { revision: Revision(7) })), "{result:?}");
    let result = after(WireError::KeyNotFound);
    let refused = matches!(result, Err(Error::Refused { source: WireError::KeyNotFound, .. }));
    assert!(refused, "{result:?}");
}

#[test]
fn after_an_unknown_outcome_the_next_call_gives_the_lost_one_up() {
    let server = Server::start(vec![
        vec![Act::Open(5), Act::Silence],
        vec![Act::Silence],
        vec![Act::Silence],
        vec![Act::Silence],
        vec![Act::Put(2)],
    ]);
    let mut client = client(Duration::from_millis(300), &server);
    let result = client.put(b"a", b"1");
    assert!(matches!(result, Err(Error::OutcomeUnknown { .. })), "{result:?}");
    let mut calls = 2;
    while client.put(b"a", b"1").is_err() {
        calls += 1;
    }
    assert_eq!(server.seen().last(), Some(&call(5, calls)));
}
