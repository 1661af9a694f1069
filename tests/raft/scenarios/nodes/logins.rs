//! Clients that log in, and ask more over their connection.

use super::{Answer, End, Nodes};
use raftd::replica::ConnectionId;
use raftd::types::Credential;
use raftd::wire::auth::{AuthRequest, auth_request, login_proof_request};
use raftd::wire::scram::{Exchange, PasswordKeys};

const NONCE: &[u8] = &[0x44; 16];
/// Longer than an answer takes.
const WAIT_NS: u64 = 100_000_000;

impl Nodes {
    /// Asks something more over a connection of a client to a server; the number of the request.
    pub(in crate::raft) fn ask_on(
        &mut self,
        connection: ConnectionId,
        request: impl FnOnce(&mut Vec<u8>, u64),
    ) -> u64 {
        self.requests += 1;
        let is_it = |end: End| matches!(end, End::Node(_, it) if it == connection);
        let mut pipes = self.pipes.iter_mut();
        let pipe = pipes.find(|pipe| is_it(pipe.ends[1])).expect("it is open");
        request(&mut pipe.bytes[1], self.requests);
        self.requests
    }

    /// Asks to log in; the connection, and how to prove the password.
    pub(in crate::raft) fn challenge(&mut self, nth: usize, user: &str) -> (ConnectionId, Answer) {
        let asked = AuthRequest::Login { user, nonce: NONCE };
        let (number, connection) =
            self.ask(nth, |bytes, number| auth_request(bytes, number, &asked));
        self.pass(WAIT_NS);
        (connection, self.answers.remove(&number).expect("it is answered"))
    }

    /// Proves a password; what the server says.
    pub(in crate::raft) fn prove(
        &mut self,
        user: &str,
        keys: &PasswordKeys,
        (connection, challenge): (ConnectionId, &Answer),
    ) -> Answer {
        let Answer::Challenge(nonce, salt, rounds) = challenge else { panic!("{challenge:?}") };
        let exchange =
            Exchange { user, client_nonce: NONCE, server_nonce: nonce, salt, rounds: *rounds };
        let proof = keys.proof(&exchange);
        let number =
            self.ask_on(connection, |bytes, number| login_proof_request(bytes, number, &proof));
        self.pass(WAIT_NS);
        self.answers.remove(&number).expect("it is answered")
    }

    /// Logs in at a server; the connection, and who that is.
    pub(in crate::raft) fn log_in(
        &mut self,
        nth: usize,
        user: &str,
        keys: &PasswordKeys,
    ) -> (ConnectionId, Credential) {
        let (connection, challenge) = self.challenge(nth, user);
        let proved = self.prove(user, keys, (connection, &challenge));
        let Answer::LoggedIn(credential) = proved else { panic!("{user}: {proved:?}") };
        (connection, credential)
    }
}
