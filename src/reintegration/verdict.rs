//! What the members' answers to a mutation mean: a decision.

use coda_proto::{
    Code, Refusal, ServerId, Status,
    planted::{Bug, planted},
    wire,
};

use crate::replica::AskError;

/// One member's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It holds the records, and the touched objects are now so. With the replica's stamps before and after.
    Applied(Vec<Status>, Option<(wire::Stamp, wire::Stamp)>),
    /// It does not, for this reason.
    Refused(Refusal),
    /// Nobody knows: it was asked and did not answer.
    Silent,
}

/// What a mutation's fate is.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// At least one member applied it: it is done. Members that refused it need resolution.
    Done {
        /// Who refused, or did not answer.
        missed: Vec<ServerId>,
        /// Every member that was asked applied it.
        everywhere: bool,
    },
    /// The membership is another: learn it and send the same again.
    NewGroup,
    /// Not now: send the same again later.
    Later,
    /// Its base is not what the members have: look again and decide anew.
    Stale(Refusal),
    /// No.
    Refused(Refusal),
    /// The contents were not there: upload them again.
    NoUpload,
    /// Nobody answered.
    Away,
}

/// Decides over all members' answers.
pub fn verdict(answers: &[(ServerId, Said)]) -> Verdict {
    let agrees = |said: &Said| *said == Said::Silent && planted(Bug::SilenceIsConsent);
    let applied = |said: &Said| matches!(said, Said::Applied(..)) || agrees(said);
    if answers.iter().any(|(_, said)| applied(said)) {
        let missed: Vec<_> =
            answers.iter().filter(|(_, said)| !applied(said)).map(|(server, _)| *server).collect();
        return Verdict::Done { everywhere: missed.is_empty(), missed };
    }
    let refusals: Vec<&Refusal> = answers
        .iter()
        .filter_map(|(_, said)| match said {
            Said::Refused(refusal) => Some(refusal),
            _ => None,
        })
        .collect();
    let with = |codes: &[Code]| refusals.iter().find(|refusal| codes.contains(&refusal.code));
    let definite = refusals.iter().find(|refusal| !is_passing(refusal.code));
    match definite {
        _ if refusals.is_empty() => Verdict::Away,
        _ if with(&[Code::StaleEpoch, Code::NoVolume]).is_some() => Verdict::NewGroup,
        Some(refusal) => Verdict::Refused((*refusal).clone()),
        None if with(&[Code::Upload]).is_some() => Verdict::NoUpload,
        None => match with(&[Code::NeedsResolve, Code::Gone, Code::Retired]) {
            Some(refusal) => Verdict::Stale((*refusal).clone()),
            None => Verdict::Later,
        },
    }
}

/// Whether a refusal says something of the member rather than of the mutation.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Busy
            | Code::NotJoined
            | Code::Offline
            | Code::UnknownSession
            | Code::StaleEpoch
            | Code::NoVolume
            | Code::NeedsResolve
            | Code::Gone
            | Code::Retired
            | Code::Upload
    )
}

/// One member's answer to an Apply.
pub fn said(outcome: Result<crate::env::Answer, AskError>) -> Said {
    let unclear = |why: String| Said::Refused(Refusal::new(Code::Internal, why));
    match outcome {
        Ok(answer) => match answer.response.body {
            Some(coda_proto::wire::response::Body::Applied(applied)) => {
                let statuses = applied.statuses.into_iter().map(Status::try_from).collect::<Result<_, _>>();
                // It said yes. Statuses that make no sense are asked for again.
                Said::Applied(statuses.unwrap_or_default(), applied.before.zip(applied.after))
            }
            _ => unclear("the answer is to another question".into()),
        },
        Err(AskError::Refused(refusal)) => Said::Refused(refusal),
        Err(AskError::Unreachable(_) | AskError::Disconnected) => Said::Silent,
        // What it did is unknown, as if it had not answered.
        Err(AskError::Malformed(_) | AskError::Untrusted(_)) => Said::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Said {
        Said::Refused(Refusal::new(code, "x"))
    }

    fn decide(said: &[Said]) -> Verdict {
        let answers: Vec<_> =
            said.iter().enumerate().map(|(i, said)| (ServerId(i as u8 + 1), said.clone())).collect();
        verdict(&answers)
    }

    #[test]
    fn what_one_member_applied_is_done_whatever_the_others_say() {
        for other in
            [Said::Silent, refused(Code::NeedsResolve), refused(Code::Access), refused(Code::StaleEpoch)]
        {
            let missed = vec![ServerId(2)];
            let done = Verdict::Done { missed, everywhere: false };
            assert_eq!(decide(&[Said::Applied(vec![], None), other]), done);
        }
        let everywhere = Verdict::Done { missed: vec![], everywhere: true };
        assert_eq!(decide(&[Said::Applied(vec![], None), Said::Applied(vec![], None)]), everywhere);
    }

    #[test]
    fn nobody_there_is_not_a_refusal() {
        assert_eq!(decide(&[]), Verdict::Away);
        assert_eq!(decide(&[Said::Silent, Said::Silent]), Verdict::Away);
    }

    #[test]
    fn a_clear_no_wins_over_a_member_that_lags() {
        let no = Refusal::new(Code::Exists, "x");
        assert_eq!(decide(&[refused(Code::NeedsResolve), refused(Code::Exists)]), Verdict::Refused(no));
        let stale = Refusal::new(Code::NeedsResolve, "x");
        assert_eq!(decide(&[refused(Code::NeedsResolve), refused(Code::Busy)]), Verdict::Stale(stale));
        assert_eq!(decide(&[refused(Code::Busy), Said::Silent]), Verdict::Later);
        assert_eq!(decide(&[refused(Code::StaleEpoch), refused(Code::Access)]), Verdict::NewGroup);
        assert_eq!(decide(&[refused(Code::Upload), Said::Silent]), Verdict::NoUpload);
    }
}
