//! What to do about a logged record that the servers do not take. It is somebody's work: what can wait
//! waits, and is tried again.

use std::time::Duration;

use coda_proto::{
    Code,
    planted::{Bug, planted},
};

/// Why a record waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The volume's quota.
    Quota,
    /// The servers' disks.
    Space,
    /// The rights of whoever made it.
    Rights,
    /// Its contents are being written, or could not be read.
    Contents,
    /// The servers have yet to come to agree on what it is based on.
    Resolution,
    /// The servers are busy.
    Busy,
    /// Members are missing that might know better.
    Members,
    /// Members hold it, and that could not be noted here.
    Here,
    /// It would remove so much that somebody has to approve.
    Approval,
    /// The line costs money.
    Metered,
}

impl Why {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Why::Quota => "the volume's quota is used up",
            Why::Space => "the servers' disks are full",
            Why::Rights => "access is denied by the directory's access list",
            Why::Contents => "its file is open for writing",
            Why::Resolution => "the servers have yet to come to agree",
            Why::Busy => "the servers are busy",
            Why::Members => "some servers that may know better cannot be reached",
            Why::Here => "the servers have it, and that could not be noted here",
            Why::Approval => "it would remove much: `cfs approve` lets it go",
            Why::Metered => "the line is metered: `cfs forcereintegrate` sends it",
        }
    }

    /// Whether this goes away by itself in time.
    pub fn passes(self) -> bool {
        matches!(self, Why::Contents | Why::Resolution | Why::Busy | Why::Members | Why::Here)
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again later.
    Wait(Why),
    /// There is nothing left that it could change: its contents are kept aside.
    GiveUp,
    /// Its author is retired: another one is to issue it.
    Reissue,
}

/// Decides by why it was refused. `all`: every member of the group has answered, and said no; so none can
/// hold it.
pub fn remedy(code: Code, all: bool) -> Remedy {
    match code {
        _ if planted(Bug::GivesUpAtOnce) => Remedy::GiveUp,
        Code::Quota => Remedy::Wait(Why::Quota),
        Code::NoSpace => Remedy::Wait(Why::Space),
        Code::Access => Remedy::Wait(Why::Rights),
        Code::Upload => Remedy::Wait(Why::Contents),
        Code::NeedsResolve => Remedy::Wait(Why::Resolution),
        Code::Busy
        | Code::NotJoined
        | Code::Offline
        | Code::UnknownSession
        | Code::StaleEpoch
        | Code::NoVolume
        | Code::Internal
        | Code::Ok => Remedy::Wait(Why::Busy),
        Code::Retired if all && !planted(Bug::GivesUpRetired) => Remedy::Reissue,
        _ if all => Remedy::GiveUp,
        _ => Remedy::Wait(Why::Members),
    }
}

/// How long to wait before the next attempt.
pub fn pause(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.min(6)).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_retired_author_wrote_is_issued_again_once_no_member_can_hold_it() {
        assert_eq!(remedy(Code::Retired, true), Remedy::Reissue);
        assert_eq!(remedy(Code::Retired, false), Remedy::Wait(Why::Members));
    }

    #[test]
    fn nothing_is_given_up_that_some_member_may_hold_or_that_can_still_be_taken() {
        for code in [Code::Gone, Code::NoEntry, Code::Invalid, Code::CrossDirectory, Code::TooBig] {
            assert_eq!(remedy(code, true), Remedy::GiveUp);
            assert_eq!(remedy(code, false), Remedy::Wait(Why::Members));
        }
        for code in [Code::Quota, Code::NoSpace, Code::Access, Code::NeedsResolve, Code::Busy, Code::Internal]
        {
            assert!(matches!(remedy(code, true), Remedy::Wait(_)), "{code:?}");
        }
    }

    #[test]
    fn attempts_become_rarer_and_never_cease() {
        assert_eq!(pause(0), Duration::from_secs(1));
        assert_eq!(pause(3), Duration::from_secs(8));
        assert_eq!(pause(60), Duration::from_secs(60));
    }
}
