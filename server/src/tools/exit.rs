//! How commands end.

use std::{fmt, process::ExitCode};

use coda_proto::{Code, Refusal};

use crate::env::PeerError;

/// What the status of a command means. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing was to be done.
    Done = 0,
    /// It failed, and changed nothing.
    Failed = 1,
    /// The command line makes no sense, or the command is no more.
    Usage = 2,
    /// A server that is needed cannot be reached.
    Unreachable = 3,
    /// A person, or the lack of one, said no.
    Declined = 4,
    /// A server refuses: what is asked for contradicts what is there.
    Refused = 5,
    /// A file (a dump, a list) is damaged or malformed.
    Damaged = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failure that knows how the command ends.
#[derive(Debug)]
pub struct Failed(pub Exit, pub String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}
impl std::error::Error for Failed {}

/// Which status an error ends with.
pub fn of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(Failed(exit, _)) = cause.downcast_ref() {
            return *exit;
        }
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return match refusal.code {
                Code::Offline | Code::Busy => Exit::Unreachable,
                _ => Exit::Refused,
            };
        }
        if cause.downcast_ref::<PeerError>().is_some()
            || cause.downcast_ref::<coda_net::CallError>().is_some()
        {
            return Exit::Unreachable;
        }
    }
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_status_under_what_is_said_about_it() {
        let damaged = anyhow::Error::new(Failed(Exit::Damaged, "at offset 7".into())).context("d.dump");
        assert_eq!(of(&damaged), Exit::Damaged);
        let refused = anyhow::Error::new(Refusal::new(Code::Exists, "there")).context("create");
        assert_eq!(of(&refused), Exit::Refused);
        assert_eq!(of(&anyhow::anyhow!("else")), Exit::Failed);
    }
}
