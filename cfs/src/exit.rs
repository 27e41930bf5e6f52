//! Exit codes: stable, so that scripts may rely on them. `cfs help exit` lists them.

use coda_proto::control::{Failure, FailureKind};

/// How a command ended. With several objects, the first that failed decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    #[default]
    Done,
    /// Something was refused or not found.
    Failed,
    /// venus cannot be reached.
    NoVenus,
    /// No server of the object can be reached.
    Disconnected,
    /// Something uses it, or it must be tried again.
    Busy,
    /// Changes are not at the servers yet.
    Pending,
    /// The command line is wrong.
    Usage,
    /// As the command ended that was run.
    Command(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::NoVenus => 2,
            Exit::Disconnected => 3,
            Exit::Busy => 4,
            Exit::Pending => 5,
            Exit::Usage => 255,
            Exit::Command(code) => code,
        }
    }

    /// What a failure means.
    pub fn of(failure: &Failure) -> Exit {
        match failure.kind {
            FailureKind::Disconnected => Exit::Disconnected,
            FailureKind::Active | FailureKind::Busy => Exit::Busy,
            FailureKind::Io if failure.what == crate::socket::VENUS => Exit::NoVenus,
            _ => Exit::Failed,
        }
    }
}

/// What `cfs help exit` prints.
pub const HELP: &str = "\
Exit codes:
    0  done, for every object named (also when the answer to a question was no)
    1  refused, not found, or failed, for at least one object
    2  venus is not running or does not answer
    3  no server of the object can be reached
    4  something uses it, or venus is busy: try again
    5  changes are not at the servers yet (`cfs flush`, `cfs status`)
  255  the command line is wrong
With several objects, the first that failed decides. `cfs offline` ends as its command does.
";

/// Why a command stops before its end.
#[derive(Debug)]
pub enum Stop {
    /// Wrong arguments: the usage is shown.
    Usage,
    /// It failed as a whole.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::NoVenus,
            Exit::Disconnected,
            Exit::Busy,
            Exit::Pending,
            Exit::Usage,
        ] {
            let code = format!("{:>5}  ", exit.code());
            assert!(HELP.lines().any(|line| line.starts_with(&code)), "{exit:?}");
        }
    }
}
