//! The "sometimes" points: states that a run over enough seeds must have been in. A simulator that
//! never reaches a state says nothing about it.

macro_rules! points {
    ($($name:ident = $text:literal,)*) => {
        /// A state worth reaching.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Point { $($name),* }

        /// All of them with what they mean, in order.
        pub(crate) const POINTS: &[(Point, &str)] = &[$((Point::$name, $text)),*];
    };
}

points! {
    LeaderElected = "a leader was elected",
    LeaderReelected = "a node led a second term",
    VoteSplit = "a term ended without a leader",
    VoteRefused = "a vote was refused",
    VoteRepeated = "a vote was granted again to the same candidate",
    VoteRefusedForLog = "who had a longer but older log was refused a vote",
    PreVoteRefused = "a pre-vote was refused",
    PreVoteRefusedByFollower = "a pre-vote was refused by who hears a leader",
    SteppedDown = "a leader stepped down because of a later term",
    LostQuorum = "a leader fell silent: no quorum answered",
    TwoLeaders = "two nodes held themselves for leaders, of different terms",
    OldLeaderWrote = "a leader of an old term appended while a newer one led",
    Truncated = "a conflicting suffix was truncated",
    TruncatedTwoTerms = "entries of two terms were truncated at once",
    TruncatedAcknowledged = "an entry that was acknowledged, but not committed, was truncated",
    TruncatedDurable = "a durable entry was truncated",
    OldTermWaits = "an old term's entry was on a majority and not committed by counting (Fig. 8)",
    OldTermCommitted = "entries of an earlier term were committed by one of the own term",
    Conflict = "an append was refused: conflict",
    NoRoom = "an append was refused: no room",
    RoomAgain = "a leader was told that there is room again",
    Reprobed = "a pipeline was given up and probed anew",
    PipelineFull = "a second append left before the first was answered",
    FollowerFarBehind = "a follower was 100 entries behind",
    CommitWithoutLeaderDisk = "an entry was committed before the leader's own disk had it",
    AppliedBeforeDurable = "an entry was applied before the own disk had it",
    ReadRound = "a read was confirmed by a round of heartbeats",
    ReadDropped = "a linearizable read was refused because leadership was lost",
    ReadBeforeNoOp = "a read waited for the first commit of a term",
    SerializableStale = "a serializable read was older than an acknowledged write",
    ReadAtRevision = "a read at an old revision was answered",
    ReadCompacted = "a read at a compacted revision was refused",
    RangeInParts = "a range was answered in parts",
    HalfApplied = "a turn ended within the delete of a range",
    HalfBetween = "a turn ended between two commands of an entry",
    RangeOvertaken = "a range under way was overtaken by compaction",
    ReadFuture = "a read at a future revision was refused",
    Compacted = "the history was compacted",
    ConditionHeld = "a put whose condition held was done",
    ConditionFailed = "a put whose condition did not hold was not done",
    TxnDone = "a transaction of several requests was done",
    TxnElse = "the other branch of a transaction changed keys",
    TxnCompared = "a transaction with several compares changed several keys",
    TxnInside = "a transaction inside another changed keys",
    SessionOpened = "a session was opened",
    CallRepeated = "a call entered the log twice, and was done once",
    CallLate = "a copy of a call came after its reply was acknowledged",
    CallAnsweredTwice = "two copies of a call were answered, and alike",
    AnswerNotKept = "a copy of a call was told that it was done, and not what it answered",
    LeaseGranted = "a lease was granted",
    LeaseKept = "a lease was kept alive",
    LeaseRevoked = "a lease was revoked",
    LeaseGone = "somebody was told that a lease is gone",
    LeaseExpired = "a lease expired in the term in which it was granted, or who knows",
    LeaseExpiredLater = "a lease expired in a later term",
    LeaseNoted = "the log learned when a lease is due",
    LeaseTakenBack = "a keep-alive took that back",
    RightsEnabled = "rights began to count",
    RightsDisabled = "rights counted no more",
    RightsChanged = "users or roles were changed",
    ChangeOfRightsRefused = "a change of users or roles was refused",
    RightsSeen = "somebody was shown users or roles",
    LoggedIn = "somebody logged in",
    LoginRefused = "a login was refused",
    DeniedNobody = "who had not logged in was denied",
    DeniedEnded = "whose login had ended was denied",
    DeniedForRight = "who had no such right was denied",
    DeniedInLog = "a command in the log was not done, because whoever asked had no right to",
    ServedByRight = "who is not root was served for a permission",
    ActedFor = "somebody asked for somebody else and was served",
    WatchDenied = "a watch ended because its right had gone",
    SessionLost = "a session was another login's",
    CompactedByName = "a compaction was in the cluster's name",
    Redirected = "a client was sent to the leader",
    Busy = "a write was refused: too many bytes wait",
    NoSpace = "a write was refused: no space",
    OverQuota = "a write was refused: the keys take as much as they may",
    OutcomeUnknown = "a write's outcome was said to be unknown",
    OrderFound = "most ops of a history have an order, if nobody looks at revisions",
    OrderSkipped = "a key had too many ops at once to look for an order up to its end",
    UnknownDone = "a write that was given up is there",
    UnknownLost = "a write that was given up is not there",
    TimedOut = "a client gave up waiting",
    ClientPaused = "a client's bytes were not taken at once",
    WatchResumed = "a watch went on at another node",
    WatchWaits = "a watch waited for a revision to come",
    WatchProgress = "a watch was told that nothing happened",
    WatchSplit = "a revision came to a watch in several replies",
    WatchCompacted = "a watch ended because what it had not heard was compacted",
    BadRequest = "bytes that are no request were refused",
    MultiCommandEntry = "an entry held several commands",
    Partitioned = "the network was partitioned",
    OneWay = "a link was cut in one direction",
    Ring = "majorities overlapped in a ring",
    Bridge = "two groups met in one node only",
    Flapped = "a link flapped",
    Swizzled = "machines were cut off one by one, and came back in another order",
    Clogged = "a link was clogged",
    Filtered = "a message did not get through because of its kind",
    LeaderIsolated = "the leader was isolated",
    ConnectionExpired = "a connection that got nothing through was given up",
    ConnectionReset = "a connection was reset in the middle of a frame",
    HalfOpen = "a node spoke into a half-open connection",
    FrameLost = "a frame between members was lost",
    FrameTwice = "a frame between members came twice",
    FrameOldConnection = "a frame of an older connection came late",
    FrameOldTerm = "a frame came more than a term late",
    Resent = "a packet came after a retransmission",
    FrameSplit = "a frame arrived in pieces",
    Killed = "a process was killed",
    HandedOver = "a leader was asked to hand over, and did",
    HandoverRefused = "a leader was asked to hand over, and could not",
    HandoverVote = "a candidate named the leader that it takes over from",
    MemberAdded = "a member was added",
    MemberPromoted = "a learner was promoted by hand",
    MemberRemoved = "a member was removed",
    MemberReplaced = "a member was replaced",
    ChangeRefused = "a change of the members was refused",
    JointConfiguration = "a joint configuration was in force",
    ConfigurationTruncated = "a configuration was truncated",
    LeaderLeaves = "a leader appended a configuration without itself",
    RemovedStops = "a removed server heard of it and stopped",
    Left = "a leader was told to stop and handed over",
    PowerLost = "a machine lost power",
    AllPowerLost = "all machines lost power at once",
    CrashInTurn = "a node crashed between two effects of a turn",
    CrashInJob = "the power went between two operations of a sync job",
    CrashInBackground = "the power went inside background work",
    CrashInRecovery = "the power went inside recovery",
    CrashLoop = "a node crashed three times within a second",
    Paused = "a node was paused for longer than an election timeout",
    PausedLeader = "a leader was paused for longer than an election timeout",
    SlowNode = "a node was slow",
    ClockChanged = "a clock went another rate",
    ClocksBreakBound = "a clock was free to go beyond the bound that the members were told",
    LeaseReadUnbound = "a read by a lease was asked for where that holds for a clock",
    LeaseReadStale = "such a read was older than an acknowledged write",
    PageLost = "an un-synced page was lost",
    PageTorn = "an un-synced page was torn",
    PageKept = "an un-synced page survived",
    NameLost = "an un-synced name was lost",
    TornTailCut = "recovery cut a torn tail",
    SuffixSurvived = "recovery found entries that no sync covered",
    SegmentClosed = "a segment was closed",
    SnapshotMade = "a snapshot was made or installed, and is in force",
    LogDeleted = "the log before a snapshot was deleted",
    SnapshotSent = "a piece of a snapshot was sent",
    SnapshotResumed = "a snapshot was sent on from where it had broken off",
    SnapshotSaved = "a client saved a snapshot, and it was whole and new enough",
    SnapshotReplacedLog = "a snapshot took the place of a log",
    SnapshotStale = "a snapshot of what was committed already was dropped",
    StartedFromSnapshot = "a node started from a snapshot",
    StateSpoiled = "a state became another one than the log says",
    StateDiverged = "a server found that its state is another one than a majority's",
    StateDivergedLeader = "a leader found that",
    StateDisputed = "states differed, and no majority agreed",
    StateReloaded = "a server loaded its state anew",
    StartedDiverged = "a node started with a state that it had found to be another one",
    SyncHung = "a sync took longer than an election timeout",
    SyncFailed = "a sync failed and the node stopped",
    DirectoryFailed = "the sync of a directory failed and the node stopped",
    WriteFailed = "a write failed and the node stopped",
    StartFailed = "the disk failed a start, or had no space for it, and it came later",
    DiskFull = "a segment found no space",
    DiskFullDraft = "a snapshot that was made found no space",
    DiskFullPart = "a snapshot that was received found no space",
    DiskFullEnded = "a full disk got space again",
    DamageFound = "recovery refused a damaged log",
    SnapshotDamageFound = "recovery refused a damaged snapshot",
    SnapshotDamageSent = "a piece of a damaged snapshot was sent",
    SnapshotDamageReplaced = "a sound snapshot took the place of a damaged one",
    DamageServedNever = "a running node met damage and stopped",
    HeaderDamaged = "a node started with one of a segment's headers damaged",
    DamageHealed = "a damaged copy was mended from its twin",
    CoreServed = "a quorum served while the rest stayed broken for ever",
    FullLeaderLeft = "a leader whose disk stayed full made way for a quorum",
}

/// Hits of every point.
#[derive(Clone, Debug)]
pub(crate) struct Coverage(Vec<u64>);

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage(vec![0; POINTS.len()])
    }
}

impl Coverage {
    #[expect(clippy::as_conversions, reason = "a discriminant is its place in the list")]
    pub(crate) fn hit(&mut self, point: Point) {
        self.0[point as usize] += 1;
    }

    pub(crate) fn hit_if(&mut self, holds: bool, point: Point) {
        if holds {
            self.hit(point);
        }
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (one, other) in self.0.iter_mut().zip(&other.0) {
            *one += other;
        }
    }

    /// Points and hits, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Point, &'static str, u64)> {
        POINTS.iter().zip(&self.0).map(|((point, text), hits)| (*point, *text, *hits))
    }

    /// The points never reached.
    pub(crate) fn missing(&self) -> Vec<(Point, &'static str)> {
        self.rows().filter(|row| row.2 == 0).map(|row| (row.0, row.1)).collect()
    }
}
