//! Bugs on purpose, so that the simulator can show that it would find them. Without the feature `planted` (which
//! only the simulator asks for) there are none, and [`planted`] is a constant.

/// A mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A member applies a record whose base it lacks.
    AppliesWithoutBase,
    /// An author writes on a base that lacks its own last update.
    WritesWithoutOwn,
    /// A server answers before the change is committed.
    RepliesBeforeCommit,
    /// A client believes a promise that was broken while the answer travelled.
    BelievesBrokenPromise,
    /// A client that starts again gives its mutations names that it has given before.
    ReusesStoreIds,
    /// A server sometimes forgets to break a promise.
    LosesBreak,
    /// A join brings names back that the other side knew and took away.
    JoinKeepsRemoved,
    /// A join leaves attributes as they are here.
    JoinPrefersMine,
    /// A join keeps one of several concurrent contents.
    JoinKeepsOne,
    /// A join does not take over what the other side knows of removed names.
    JoinForgetsTombstones,
    /// A meeting loses the last object that it heard of, and counts it as heard.
    MeetingLosesOne,
    /// A mutation that comes again is applied again.
    AppliesTwice,
    /// Which of two values of an attribute is the later one is told by the names of their records alone.
    IgnoresLamport,
    /// A peer is told what changed since a number, whatever store it had that number from.
    MeetsByNumberAlone,
    /// What somebody removed stays removed, also where another changed it apart.
    RemovalsWin,
    /// A join takes the rows of the other side and not what they include.
    JoinForgetsPast,
    /// A meeting takes over what a peer's files are, and not their bytes.
    MeetingLeavesContents,
    /// What a folded log no longer sends stays in the bases of what it does send.
    FoldKeepsBases,
    /// The last record of the log is forgotten at a restart.
    RestartForgetsPending,
    /// A record that the servers do not take now is given up.
    GivesUpAtOnce,
    /// Promises outlive the session that they were given in.
    KeepsPromises,
    /// A member that did not answer is taken to have agreed.
    SilenceIsConsent,
    /// What was acknowledged and logged is sent as if it were a question.
    AsksFromLog,
    /// A Store takes away all contents, whether its author knew them or not.
    StoreReplacesAll,
    /// What a retired author left in the log is given up.
    GivesUpRetired,
    /// A member takes records of an author that it has retired.
    TakesRetired,
    /// A tombstone is forgotten although another member does not know of it yet.
    CollectsEarly,
    /// A server becomes the SCM without what the others know of the log.
    PromotesWithoutNewest,
    /// A server becomes the SCM however few others it could ask.
    PromotesUnasked,
    /// A server that starts again has promised itself to nobody.
    ForgetsPromise,
    /// Of two logs of the configuration the longer one holds, in whichever term it ends.
    LongerLogHolds,
    /// Group epochs are counted without the term in which they are given.
    EpochsForgetTerm,
    /// A member takes the records of a call but the last, and says yes to all of them.
    SaysYesToSome,
}

impl Bug {
    /// Each of them.
    pub const ALL: [Bug; 33] = [
        Bug::AppliesWithoutBase,
        Bug::WritesWithoutOwn,
        Bug::RepliesBeforeCommit,
        Bug::BelievesBrokenPromise,
        Bug::ReusesStoreIds,
        Bug::LosesBreak,
        Bug::JoinKeepsRemoved,
        Bug::JoinPrefersMine,
        Bug::JoinKeepsOne,
        Bug::JoinForgetsTombstones,
        Bug::MeetingLosesOne,
        Bug::AppliesTwice,
        Bug::IgnoresLamport,
        Bug::MeetsByNumberAlone,
        Bug::RemovalsWin,
        Bug::JoinForgetsPast,
        Bug::MeetingLeavesContents,
        Bug::FoldKeepsBases,
        Bug::RestartForgetsPending,
        Bug::GivesUpAtOnce,
        Bug::KeepsPromises,
        Bug::SilenceIsConsent,
        Bug::AsksFromLog,
        Bug::StoreReplacesAll,
        Bug::GivesUpRetired,
        Bug::TakesRetired,
        Bug::CollectsEarly,
        Bug::PromotesWithoutNewest,
        Bug::PromotesUnasked,
        Bug::ForgetsPromise,
        Bug::LongerLogHolds,
        Bug::EpochsForgetTerm,
        Bug::SaysYesToSome,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in everything that runs on this thread, or takes it out.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is to be made.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is to be made: never.
#[cfg(not(feature = "planted"))]
pub const fn planted(_bug: Bug) -> bool {
    false
}
