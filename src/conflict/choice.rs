//! Which version a choice means: a decision.

use coda_proto::{Author, Dot, Sibling};

/// How people say which contents they want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What was made on this machine.
    Ours,
    /// What was made elsewhere.
    Theirs,
    /// What was made last, by the clocks of those who made it.
    Newest,
    /// What this Store made.
    Version(Dot),
}

/// Why a choice means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// None was made there.
    #[error("no version was made {0}; name one with --take, or use --newest")]
    None(&'static str),
    /// Several were.
    #[error("several versions were made {0}; name one with --take, or use --newest")]
    Several(&'static str),
    /// It is no longer among them.
    #[error("this version is no longer there")]
    Gone,
}

/// The version that is meant.
pub fn choose<'a>(
    versions: &[&'a Sibling],
    choice: &Choice,
    is_ours: impl Fn(Author) -> bool,
) -> Result<&'a Sibling, Unclear> {
    let side = |ours: bool, place: &'static str| {
        let mut made = versions.iter().filter(|version| is_ours(version.dot.author) == ours);
        match (made.next(), made.next()) {
            (Some(one), None) => Ok(*one),
            (Some(_), Some(_)) => Err(Unclear::Several(place)),
            (None, _) => Err(Unclear::None(place)),
        }
    };
    match choice {
        Choice::Ours => side(true, "on this machine"),
        Choice::Theirs => side(false, "elsewhere"),
        Choice::Newest => {
            let newest = versions.iter().max_by_key(|version| (version.mtime, version.dot));
            newest.copied().ok_or(Unclear::Gone)
        }
        Choice::Version(dot) => versions.iter().find(|v| v.dot == *dot).copied().ok_or(Unclear::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(author: u64, mtime: i64) -> Sibling {
        let dot = Dot::new(Author(author), 1);
        Sibling { dot, length: 0, hash: [author as u8; 32], mtime, host: String::new() }
    }

    #[test]
    fn ours_and_theirs_are_clear_only_where_one_version_is_meant() {
        let (a, b, c) = (version(1, 30), version(2, 20), version(3, 10));
        let ours = |author: Author| author.0 == 1;
        let chosen = |versions: &[&Sibling], choice| {
            choose(versions, &choice, ours).map(|version| version.dot.author.0)
        };
        assert_eq!(chosen(&[&a, &b], Choice::Ours), Ok(1));
        assert_eq!(chosen(&[&a, &b], Choice::Theirs), Ok(2));
        assert_eq!(chosen(&[&a, &b, &c], Choice::Theirs), Err(Unclear::Several("elsewhere")));
        assert_eq!(chosen(&[&b, &c], Choice::Ours), Err(Unclear::None("on this machine")));
        assert_eq!(chosen(&[&a], Choice::Theirs), Err(Unclear::None("elsewhere")));
    }

    #[test]
    fn the_newest_goes_by_time_and_between_equals_by_dot() {
        let (a, b, c) = (version(1, 30), version(2, 30), version(3, 10));
        assert_eq!(choose(&[&a, &b, &c], &Choice::Newest, |_| false).unwrap().dot, b.dot);
    }

    #[test]
    fn a_version_that_is_named_must_still_be_there() {
        let (a, b) = (version(1, 1), version(2, 2));
        assert_eq!(choose(&[&a], &Choice::Version(a.dot), |_| false).unwrap().dot, a.dot);
        assert_eq!(choose(&[&a], &Choice::Version(b.dot), |_| false), Err(Unclear::Gone));
    }
}
