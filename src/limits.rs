#![expect(
    clippy::as_conversions,
    reason = "constants: usize and u64 are the same width wherever raftd runs"
)]
//! Every bound of the system, each with the reason for its size. Reaching one has an answer, never
//! growth.

/// A page of the device: sync granularity, batch alignment, header size. Bytes. Storage §6.2.
pub const PAGE_BYTES: usize = 4096;

/// A log record's header, and the alignment of records. Bytes. Storage §6.3.
pub const RECORD_HEADER_BYTES: usize = 64;

/// What an entry takes in a log segment beside its payload, at most: its header, the padding behind
/// its payload and its row in the footer. Whoever asks whether entries fit counts it for each.
/// Bytes.
pub const ENTRY_OVERHEAD_BYTES: u64 = 160;

/// Smallest `--segment-bytes`: room for the two header pages, one batch of 16 KiB and the footer.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// Default `--segment-bytes`. 64 MiB as etcd: a rotation every few hundred thousand puts.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Largest `--segment-bytes`: positions within a segment are u32. Bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Largest request, key and value included: etcd's default of 1.5 MiB. Bytes.
pub const REQUEST_BYTES_MAX: usize = 1536 * 1024;

/// An entry closes when its payload reaches this; one larger command has an entry of its own. An
/// entry is one write to the log, and a turn shall be short: five hundred values of 256 B. Bytes.
pub const ENTRY_BYTES_SOFT_MAX: usize = 128 * 1024;

/// Largest entry payload that is taken: whoever makes entries may close them as late as at 1 MiB,
/// and one request is on top. Bytes.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024 + REQUEST_BYTES_MAX + 64;

/// A sync batch is at least one entry, else at most this. Bytes. Design §12.6.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Largest frame after its length prefix: one maximal entry in an AppendEntries, plus its
/// envelope. Bytes.
pub const FRAME_BYTES_MAX: usize = ENTRY_BYTES_MAX + APPEND_BYTES_MAX + 64 * 1024;

/// Largest frame accepted from a client: one request plus its envelope. Bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = REQUEST_BYTES_MAX + 1024;

/// Largest frame accepted before the handshake. Bytes: a hello is about 150.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Entry bytes in one AppendEntries, unless a single entry is larger. Bytes.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// Entries in one AppendEntries: a turn makes one entry, so this matters only for catching up.
pub const APPEND_ENTRIES_MAX: usize = 256;

/// AppendEntries in flight to one follower before it must answer. Performance §3.5 wants 2 at full
/// load; a slow link wants more.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 64;

/// Entry bytes in flight to one follower. Bytes.
pub const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entry bytes the leader holds that are not committed, or not durable here: two full windows.
/// Beyond, clients wait, unread, and hear Busy if nothing moves. Bytes.
pub const UNCOMMITTED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Synced entries kept in memory so that followers and apply need no map reads. Bytes.
pub const ENTRY_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Requests of one connection that may wait for an answer; beyond, it is not read. etcd's clients
/// use 1000s.
pub const CONNECTION_REQUESTS_MAX: usize = 4096;

/// Reads of all connections together that wait, with their arguments: beyond, they get Busy. Some
/// 80,000 reads of small keys. Bytes.
pub const WAITING_READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Out-buffer size at which a connection is no longer read. Bytes.
pub const CONNECTION_OUT_HIGH_WATER: usize = 256 * 1024;

/// Out-buffer size at which a connection is closed: it asked for more than it reads. Bytes.
pub const CONNECTION_OUT_MAX: usize = 8 * 1024 * 1024;

/// Out-buffer bytes of a peer connection beyond which appends wait. Bytes.
pub const PEER_OUT_MAX: usize = IN_FLIGHT_BYTES_MAX + FRAME_BYTES_MAX;

/// Room for large requests of all client connections together that have begun and not ended.
/// Beyond, connections wait for it, unread. Twenty of the largest. Bytes.
pub const CLIENT_INPUT_LARGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The same for requests that are not large. Bytes.
pub const CLIENT_INPUT_SMALL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest request that is not large: a hello is none. Bytes.
pub const SMALL_REQUEST_BYTES_MAX: usize = HELLO_BYTES_MAX + 4;

/// What is read from a client connection without setting room aside. Bytes.
pub const CLIENT_INPUT_FLOOR: usize = 1024;

/// Out-buffers of all client connections together, as they are allocated. Before, large replies
/// wait; beyond, who is answered and does not read is closed. Bytes.
pub const CLIENT_OUT_BYTES_MAX: usize = 24 * 1024 * 1024;

/// What a client may leave unread while the out-buffers together are over their bound. Bytes.
pub const CLIENT_OUT_FLOOR: usize = 1024;

/// Below this in all, a reply of any size is begun: a buffer that grows doubles. Bytes.
pub const CLIENT_OUT_LARGE_BELOW: usize =
    CLIENT_OUT_BYTES_MAX - 2 * (RANGE_REPLY_BYTES_MAX + CONNECTION_OUT_HIGH_WATER);

/// Largest reply to a range or a transaction while large ones wait. Bytes.
pub const RANGE_REPLY_BYTES_SMALL: usize = 16 * 1024;

/// Keys in one reply to a range, unless a single one is larger: others follow. Bytes.
pub const RANGE_PART_BYTES: usize = 64 * 1024;

/// What a turn looks at for ranges that it begins and for lists about leases, and again for ranges
/// under way: a step is to look at a key, or to copy or compare 256 bytes, and three more are to
/// read a version. With a million keys and cold memory some 60 ns each, so a quarter of a
/// millisecond. `scripts/prove ranges`
pub const RANGE_STEPS: usize = 4096;

/// Out-buffer size at which a range under way waits. Bytes.
pub const RANGE_OUT_HIGH_WATER: usize = 2 * RANGE_PART_BYTES;

/// What a turn applies, and one command at least: of a delete of a range, whose number of keys
/// nobody knows before, a step is to look at a key, to delete it, or to bury it, three for each; a
/// put is eight, and so is each change of a transaction beside the transaction itself. With a
/// million keys and cold memory a step takes some 60 to 130 ns, so a millisecond at most, and a
/// thousand puts.
pub const APPLY_STEPS: usize = 8 * 1024;

/// Ranges under way at once; one more gets Busy. Each is looked at in each turn.
pub const RANGES_MAX: usize = 1024;

/// The same of one connection: whoever does not read is to leave places to the others.
pub const CONNECTION_RANGES_MAX: usize = RANGES_MAX / 4;

/// What all ranges under way keep from turn to turn: which keys they are at, and what they have
/// sorted so far; what they ask besides is part of `WAITING_READ_BYTES_MAX`. Beyond, who wants more
/// gets Busy, unless it is alone. Five of the largest sorted ones, or one key of any size. Bytes.
pub const RANGES_BYTES_MAX: usize = 1536 * 1024;

/// Keys in the answer to a range that is sorted by anything but the key: it is known only at the
/// end, and until then each takes 16 bytes. `more` says that there are others.
pub const SORTED_KEYS_MAX: usize = 16 * 1024;

/// Client connections at once; more are refused with an error frame. Descriptors are the other
/// bound.
pub const CONNECTIONS_MAX: usize = 8192;

/// Largest reply to a transaction: its ranges are cut, with `more` set. What was there before and
/// would not fit is not cut: then nothing is done. Bytes.
pub const RANGE_REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest reply: a transaction's is cut when it reaches its bound, by a last key that may be
/// large. Bytes.
pub const REPLY_BYTES_MAX: usize = RANGE_REPLY_BYTES_MAX + REQUEST_BYTES_MAX + 64 * 1024;

/// All watches of a node's clients together, with their keys: 18,000 of small keys. More are told
/// to come back. Bytes.
pub const WATCHES_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The key of one watch and the end of its range together: some are not to take the room of all.
/// Nobody is known to watch keys of more than 1 KiB. Bytes.
pub const WATCH_KEYS_BYTES_MAX: usize = 16 * 1024;

/// Events in one frame of a watch, unless a single one is larger. A revision that is larger takes
/// several. Bytes.
pub const WATCH_BATCH_BYTES: usize = 64 * 1024;

/// Out-buffer size at which a connection gets no events: they wait in the history. With a frame
/// more, all that a client costs that watches and does not read. Bytes.
pub const WATCH_OUT_HIGH_WATER: usize = 64 * 1024;

/// All out-buffers of clients together beyond which a connection gets events only if it has read
/// everything: those who are slow leave room to those who are not. Bytes.
pub const WATCH_OUT_BELOW: usize = CLIENT_OUT_LARGE_BELOW / 2;

/// Bytes read from one connection in one turn, so that nobody starves the others. Bytes.
pub const TURN_READ_BYTES: usize = 256 * 1024;

/// Default `--history-bytes`: superseded versions kept before automatic compaction. Bytes.
pub const HISTORY_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Client sessions at once; opening one more ends the one unused for longest. With every reply kept
/// that may be, their table takes 70 MB.
pub const SESSIONS_MAX: usize = 8192;

/// How far a session's sequence may run ahead of what its client has acknowledged, and so how many
/// replies are kept for it.
pub const SESSION_WINDOW: u64 = 256;

/// Largest answer that is kept for a retried call beside its outline: what a transaction read, or
/// what was there before. A retry of a call with a larger one hears that it was done, and when.
/// Bytes.
pub const KEPT_ANSWER_BYTES_MAX: usize = 1024;

/// The same for all calls of a session together, each with what it costs to hold: room for small
/// ones of a whole window. The table of all sessions takes 128 MiB more at most. Bytes.
pub const KEPT_ANSWERS_BYTES_MAX: usize = 16 * 1024;

/// What it costs to hold such an answer: its place in a tree, and the allocator's rounding. Bytes.
pub const KEPT_ANSWER_OVERHEAD_BYTES: usize = 48;

/// Compares, requests of the one branch and requests of the other that a transaction has; one
/// inside another has what the outer one leaves. etcd's default.
pub const TXN_OPS_MAX: usize = 128;

/// Compares and requests of a transaction with all those inside it: each costs a check or two.
pub const TXN_OPS_TOTAL_MAX: usize = 1024;

/// Transactions inside each other, the outermost included. Nobody nests more than two.
pub const TXN_DEPTH_MAX: usize = 8;

/// A session unused for so long ends. Milliseconds of the leaders' stamps: an hour, as LogCabin.
pub const SESSION_IDLE_MS: u64 = 60 * 60 * 1000;

/// The longest time to live of a lease: etcd's, some 285 years. Seconds.
pub const LEASE_TTL_S_MAX: u64 = 9_000_000_000;

/// Leases at once; a grant of one more is refused. Ten times what is known of large clusters; their
/// table takes some 120 MB, and a leader's knowledge of when they are due as much again.
/// tests/cluster/leases.rs
pub const LEASES_MAX: usize = 1 << 20;

/// A lease that nobody has kept alive for so long is noted in the log as due when it is. Longer
/// than most are left alone that are kept alive at all: etcd's. Milliseconds of stamps.
pub const LEASE_CHECKPOINT_MS: u64 = 5 * 60 * 1000;

/// Longest name of a user or a role. Bytes: more than anybody types.
pub const AUTH_NAME_BYTES_MAX: usize = 255;

/// Roles of one user, and permissions of one role: each check looks at some of them.
pub const USER_ROLES_MAX: usize = 64;
/// See [`USER_ROLES_MAX`].
pub const ROLE_PERMISSIONS_MAX: usize = 1024;

/// All users and roles together, with what each costs to keep: a change of one of them walks over
/// all, in a millisecond at most. Some 4,000 users, or 10,000 permissions. Bytes.
pub const AUTH_BYTES_MAX: usize = 1024 * 1024;

/// Salt of a password, and nonce of a login: as RFC 5802's, from 16 on, so that none comes twice.
/// Bytes.
pub const SALT_BYTES_MAX: usize = 64;
/// See [`SALT_BYTES_MAX`].
pub const NONCE_BYTES_MIN: usize = 16;
/// See [`SALT_BYTES_MAX`].
pub const NONCE_BYTES_MAX: usize = 64;

/// Rounds that a password is hashed with, which whoever logs in spends, and nobody else: RFC 7677
/// asks for no fewer; more would let a false server keep a client busy for a minute.
pub const PASSWORD_ROUNDS_MIN: u64 = 4096;
/// See [`PASSWORD_ROUNDS_MIN`].
pub const PASSWORD_ROUNDS_MAX: u64 = 10_000_000;

/// Rounds for a password that is set: some 20 ms where the processor hashes by itself, 80 where
/// not.
pub const PASSWORD_ROUNDS_DEFAULT: u64 = 100_000;

/// A piece of a snapshot's file as the leader sends it: large enough that waiting for its sync
/// costs little (some 3 ms, 80 MB/s), small enough to be lost. Bytes.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;

/// Largest piece that is accepted: for a sender with a larger bound. Bytes.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Pieces sent and not yet answered. One: so a broken connection costs one piece and no more.
pub const SNAPSHOT_PIECES_IN_FLIGHT_MAX: u64 = 1;

/// Clients that save snapshots at once; more are told to come back. Each may ask for a fresh one.
pub const SNAPSHOT_SAVES_MAX: usize = 4;

/// Checkpoint bytes in one block of a snapshot's file, unless one value is larger. Bytes.
pub const SNAPSHOT_BLOCK_BYTES: usize = 256 * 1024;

/// Default `--snapshot-entries`: more than so many since the last snapshot make a new one due.
pub const SNAPSHOT_ENTRIES_DEFAULT: u64 = 1000;

/// Default `--snapshot-log-bytes`: fewer entries than those do as well once the log has grown by so
/// much since the last snapshot. Bytes.
pub const SNAPSHOT_LOG_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// At least so long from one snapshot to the next, unless disk space presses. Milliseconds. Design
/// §12.11.
pub const SNAPSHOT_INTERVAL_MS_DEFAULT: u64 = 10_000;

/// Default `--snapshot-rate`: a follower that is sent a snapshot leaves the rest of the network and
/// of the disk to everybody else. Bytes a second.
pub const SNAPSHOT_RATE_DEFAULT: u64 = 100 * 1024 * 1024;

/// Default `--election-timeout`. Milliseconds; drawn from [t, 2t). Design §7.
pub const ELECTION_TIMEOUT_MS_DEFAULT: u64 = 300;

/// All members compare their states at the entries whose index is a multiple of this: some ten
/// times a second under load, for a frame of 20 bytes to each. Design §12.12.
pub const STATE_HASH_EVERY: u64 = 256;

/// State hashes kept of each member: one that lags by fewer such entries is still compared with.
pub const STATE_HASHES_KEPT: usize = 16;

/// A term may exceed ours by this much at most in one message; more is a corrupt or hostile peer.
pub const TERM_JUMP_MAX: u64 = 1 << 32;

/// Members of a configuration. Raft's quorums are bit sets nowhere, so this only bounds frames.
pub const MEMBERS_MAX: usize = 31;

/// What all that clients do may add to an idle node's memory. Bytes.
pub const CLIENTS_COST_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Reads that wait are counted by length, in vectors that double, and are copied once if they are
/// held back.
const WAITING_READ_COST: usize = 3 * WAITING_READ_BYTES_MAX;

/// The bounds, and what is below the floor.
const CLIENT_INPUT_COST: usize = CLIENT_INPUT_LARGE_BYTES_MAX
    + CLIENT_INPUT_SMALL_BYTES_MAX
    + CONNECTIONS_MAX * CLIENT_INPUT_FLOOR;

/// The bound, and what is below the floor.
const CLIENT_OUT_COST: usize = CLIENT_OUT_BYTES_MAX + CONNECTIONS_MAX * CLIENT_OUT_FLOOR;

const _: () = assert!(
    CLIENT_INPUT_COST
        + CLIENT_OUT_COST
        + WAITING_READ_COST
        + WATCHES_BYTES_MAX
        + RANGES_BYTES_MAX
        + UNCOMMITTED_BYTES_MAX
        + ENTRY_CACHE_BYTES
        < CLIENTS_COST_BYTES_MAX
);
const _: () = assert!(SEGMENT_BYTES_MIN >= 16 * PAGE_BYTES as u64);
const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
const _: () = assert!(ENTRY_BYTES_MAX < SEGMENT_BYTES_DEFAULT as usize / 8);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(IN_FLIGHT_BYTES_MAX >= ENTRY_BYTES_MAX);
const _: () = assert!(SNAPSHOT_PIECE_BYTES <= SNAPSHOT_PIECE_BYTES_MAX);
const _: () = assert!(SNAPSHOT_PIECE_BYTES_MAX + 1024 <= FRAME_BYTES_MAX);

/// What one entry and one request may hold when segments are small: an entry must fit a fresh
/// segment with its header, its padding and the footer, and leave room for a TRUNC before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryLimits {
    /// Largest request, key and value and all. Bytes.
    pub request_bytes_max: usize,
    /// An entry closes when its payload reaches this. Bytes.
    pub entry_bytes_soft_max: usize,
}

impl EntryLimits {
    /// The bounds for segments of `segment_bytes`: the constants above, or a sixth of a smaller
    /// segment each.
    pub fn for_segment(segment_bytes: u64) -> EntryLimits {
        assert!(segment_bytes >= SEGMENT_BYTES_MIN, "config.rs refuses smaller segments");
        let sixth = usize::try_from(segment_bytes / 6).unwrap_or(usize::MAX);
        EntryLimits {
            request_bytes_max: REQUEST_BYTES_MAX.min(sixth),
            entry_bytes_soft_max: ENTRY_BYTES_SOFT_MAX.min(sixth),
        }
    }
}

/// The bounds above that a node is told at its start. Servers keep the defaults; a simulator makes
/// them small, so that full windows and cold caches are common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkingLimits {
    /// See [`IN_FLIGHT_MESSAGES_MAX`].
    pub in_flight_messages_max: usize,
    /// See [`IN_FLIGHT_BYTES_MAX`].
    pub in_flight_bytes_max: usize,
    /// See [`APPEND_BYTES_MAX`].
    pub append_bytes_max: usize,
    /// See [`APPEND_ENTRIES_MAX`].
    pub append_entries_max: usize,
    /// See [`UNCOMMITTED_BYTES_MAX`].
    pub uncommitted_bytes_max: usize,
    /// See [`ENTRY_BYTES_SOFT_MAX`]; small segments lower it further.
    pub entry_bytes_soft_max: usize,
    /// See [`ENTRY_CACHE_BYTES`].
    pub entry_cache_bytes: usize,
    /// See [`LEASE_CHECKPOINT_MS`].
    pub lease_checkpoint_ms: u64,
    /// See [`WATCH_BATCH_BYTES`].
    pub watch_batch_bytes: usize,
    /// See [`STATE_HASH_EVERY`]. The same on all members.
    pub state_hash_every: u64,
    /// See [`APPLY_STEPS`]. One at least.
    pub apply_steps: usize,
    /// See [`RANGE_STEPS`].
    pub range_steps: usize,
    /// See [`RANGE_PART_BYTES`].
    pub range_part_bytes: usize,
}

impl Default for WorkingLimits {
    fn default() -> WorkingLimits {
        WorkingLimits {
            in_flight_messages_max: IN_FLIGHT_MESSAGES_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            append_bytes_max: APPEND_BYTES_MAX,
            append_entries_max: APPEND_ENTRIES_MAX,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            entry_bytes_soft_max: ENTRY_BYTES_SOFT_MAX,
            entry_cache_bytes: ENTRY_CACHE_BYTES,
            lease_checkpoint_ms: LEASE_CHECKPOINT_MS,
            watch_batch_bytes: WATCH_BATCH_BYTES,
            state_hash_every: STATE_HASH_EVERY,
            apply_steps: APPLY_STEPS,
            range_steps: RANGE_STEPS,
            range_part_bytes: RANGE_PART_BYTES,
        }
    }
}
