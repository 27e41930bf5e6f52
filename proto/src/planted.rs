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
}

impl Bug {
    /// Each of them.
    pub const ALL: [Bug; 6] = [
        Bug::AppliesWithoutBase,
        Bug::WritesWithoutOwn,
        Bug::RepliesBeforeCommit,
        Bug::BelievesBrokenPromise,
        Bug::ReusesStoreIds,
        Bug::LosesBreak,
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
