//! Why a question brought no answer that could be used.

use coda_proto::{Code, Refusal};

use crate::{env::CallError, error::Error, replica::liveness::Fact};

/// Why a server, or a group, did not do what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    /// It said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It is dead, or became so while we waited.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No member of the group lives: a state rather than an error.
    #[error("disconnected")]
    Disconnected,
    /// It answered nonsense.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// It does not prove to be the realm's.
    #[error("not trusted: {0}")]
    Untrusted(String),
}

impl From<CallError> for AskError {
    fn from(error: CallError) -> AskError {
        match error {
            CallError::Unreachable(why) => AskError::Unreachable(why),
            CallError::Silent => AskError::Unreachable("silent".into()),
            CallError::Untrusted(why) => AskError::Untrusted(why),
            CallError::Malformed(why) => AskError::Malformed(why),
        }
    }
}

impl AskError {
    /// What this means for an operation on `what`.
    pub fn about(&self, what: &str) -> Error {
        match self {
            // It is no member any more; who is will be asked for before the next question.
            AskError::Refused(refusal) if refusal.code == Code::NoVolume => Error::Disconnected(what.into()),
            AskError::Refused(refusal) => Error::refused(what, refusal),
            AskError::Unreachable(_) | AskError::Disconnected => Error::Disconnected(what.into()),
            AskError::Malformed(why) => Error::BadAnswer(what.into(), why.clone()),
            AskError::Untrusted(why) => Error::Io(what.into(), format!("not trusted: {why}")),
        }
    }

    /// Whether another member might answer better: this one is away, confused, or behind.
    ///
    /// `Gone` is among them. A member that missed the creation knows nothing of an object that others
    /// hold, and to believe it alone would lose the object for the user.
    pub fn try_another(&self) -> bool {
        match self {
            AskError::Refused(refusal) => matches!(
                refusal.code,
                Code::Gone
                    | Code::NoVolume
                    | Code::Offline
                    | Code::NotJoined
                    | Code::Busy
                    | Code::Internal
                    | Code::StaleEpoch
                    | Code::UnknownSession
            ),
            _ => true,
        }
    }

    /// Of several members' failures, the one that says most is shown: larger is better.
    fn weight(&self) -> u8 {
        match self {
            AskError::Disconnected => 0,
            AskError::Unreachable(_) => 1,
            AskError::Untrusted(_) => 2,
            AskError::Malformed(_) => 3,
            AskError::Refused(refusal) => match refusal.code {
                Code::UnknownSession | Code::Internal | Code::NoVolume => 4,
                Code::Gone => 5,
                _ => 6,
            },
        }
    }

    /// The failure that says most. None at all: nobody was there to be asked.
    pub fn most_telling(failures: Vec<AskError>) -> AskError {
        // The first of equals, so that the preferred member's words are shown.
        failures.into_iter().rev().max_by_key(AskError::weight).unwrap_or(AskError::Disconnected)
    }
}

/// What a call's end says about the server's life. Nonsense says that somebody is there.
pub fn fact<T>(outcome: &Result<T, CallError>) -> Fact {
    match outcome {
        Ok(_) | Err(CallError::Malformed(_)) => Fact::Answered,
        Err(CallError::Silent) => Fact::Silent,
        Err(CallError::Unreachable(_)) => Fact::Unreachable,
        Err(CallError::Untrusted(_)) => Fact::Untrusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_that_says_most_is_shown() {
        let refused = |code| AskError::Refused(Refusal::new(code, "x"));
        let away = AskError::Unreachable("x".into());
        assert_eq!(AskError::most_telling(vec![]), AskError::Disconnected);
        assert_eq!(AskError::most_telling(vec![away.clone(), AskError::Disconnected]), away);
        let failures = vec![refused(Code::Internal), refused(Code::Gone), away.clone()];
        assert_eq!(AskError::most_telling(failures), refused(Code::Gone));
        let failures = vec![away, refused(Code::Gone), refused(Code::Busy)];
        assert_eq!(AskError::most_telling(failures), refused(Code::Busy));
    }

    #[test]
    fn a_member_that_knows_better_is_not_asked_twice() {
        let refused = |code| AskError::Refused(Refusal::new(code, "x")).try_another();
        assert!(refused(Code::Gone) && refused(Code::NotJoined) && refused(Code::Offline));
        assert!(!refused(Code::Access) && !refused(Code::Quota) && !refused(Code::NoEntry));
        assert!(AskError::Malformed("x".into()).try_another());
    }
}
