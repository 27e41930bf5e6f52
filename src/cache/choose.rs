//! Which of the members' versions to use: a decision over pasts.

use coda_proto::{Past, Relation, ServerId};

/// What the members' answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// These hold the newest version, which includes the cached one; those lack some of it.
    Newest {
        /// In the order asked.
        at: Vec<ServerId>,
        /// Resolution's work.
        stale: Vec<ServerId>,
    },
    /// No version includes all others.
    Concurrent,
    /// Every member lacks something that the cached version includes.
    Behind,
    /// Nobody answered with a version.
    Nothing,
}

/// Chooses among `answers`, given what is cached.
pub fn choose(cached: Option<&Past>, answers: &[(ServerId, &Past)]) -> Choice {
    let served: Vec<_> = answers.iter().filter(|(_, past)| !past.is_empty()).collect();
    if served.is_empty() {
        return Choice::Nothing;
    }
    let Some((_, newest)) =
        served.iter().find(|(_, past)| served.iter().all(|(_, other)| past.includes(other)))
    else {
        return Choice::Concurrent;
    };
    if cached.is_some_and(|cached| !newest.includes(cached)) {
        return Choice::Behind;
    }
    let holds = |past: &Past| past.relation(newest) == Relation::Equal;
    let servers = |held: bool| {
        let which = answers.iter().filter(move |(_, past)| holds(past) == held);
        which.map(|(server, _)| *server).collect()
    };
    Choice::Newest { at: servers(true), stale: servers(false) }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot};

    use super::*;

    fn past(dots: &[(u64, u64)]) -> Past {
        dots.iter().map(|(author, seq)| Dot::new(Author(*author), *seq)).collect()
    }

    fn decide(cached: Option<&[(u64, u64)]>, answers: &[&[(u64, u64)]]) -> Choice {
        let pasts: Vec<Past> = answers.iter().map(|dots| past(dots)).collect();
        let answers: Vec<_> =
            pasts.iter().enumerate().map(|(i, past)| (ServerId(i as u8 + 1), past)).collect();
        choose(cached.map(past).as_ref(), &answers)
    }

    fn newest(at: &[u8], stale: &[u8]) -> Choice {
        let servers = |ids: &[u8]| ids.iter().map(|id| ServerId(*id)).collect();
        Choice::Newest { at: servers(at), stale: servers(stale) }
    }

    #[test]
    fn fetches_from_the_newest_and_names_the_stale() {
        assert_eq!(decide(None, &[&[(1, 1)], &[(1, 2)], &[(1, 1)]]), newest(&[2], &[1, 3]));
        assert_eq!(decide(Some(&[(1, 2)]), &[&[(1, 2)], &[(1, 2)]]), newest(&[1, 2], &[]));
    }

    #[test]
    fn a_runt_is_never_served_and_is_stale() {
        assert_eq!(decide(None, &[&[], &[(1, 1)]]), newest(&[2], &[1]));
        assert_eq!(decide(None, &[&[], &[]]), Choice::Nothing);
    }

    #[test]
    fn versions_that_include_each_other_not_are_concurrent() {
        assert_eq!(decide(None, &[&[(1, 1)], &[(2, 1)]]), Choice::Concurrent);
        assert_eq!(decide(None, &[&[(1, 1)], &[(2, 1)], &[(1, 1), (2, 1)]]), newest(&[3], &[1, 2]));
    }

    #[test]
    fn a_cached_version_is_not_replaced_by_one_that_lacks_some_of_it() {
        assert_eq!(decide(Some(&[(1, 2)]), &[&[(1, 1)]]), Choice::Behind);
        assert_eq!(decide(Some(&[(2, 1)]), &[&[(1, 1)]]), Choice::Behind);
    }
}
