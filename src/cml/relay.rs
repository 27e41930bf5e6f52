//! Who gets a chunk of the log: every member, or, where the line is weak, one that passes it on.

use std::time::Duration;

use coda_proto::ServerId;

/// To whom a chunk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To every member that can be reached.
    All,
    /// To this one; the others get it when the members meet.
    One(ServerId),
}

/// Decides. `last` got the chunk before: the next one is built on it, and the others may not have it yet. `live`:
/// members that can be reached, and how long they take to answer, as far as is known.
pub fn to(weak: bool, last: Option<ServerId>, live: &[(ServerId, Option<Duration>)]) -> To {
    if !weak || live.len() < 2 {
        return To::All;
    }
    let again = last.filter(|last| live.iter().any(|(server, _)| server == last));
    let nearest = || live.iter().min_by_key(|(server, took)| (took.unwrap_or(Duration::MAX), *server));
    again.or_else(|| nearest().map(|(server, _)| *server)).map_or(To::All, To::One)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_weak_line_the_nearest_passes_on_and_stays_the_one() {
        let took = |ms| Some(Duration::from_millis(ms));
        let (a, b, c) = (ServerId(1), ServerId(2), ServerId(3));
        let live = [(a, took(300)), (b, took(100)), (c, None)];
        assert_eq!(to(false, None, &live), To::All);
        assert_eq!(to(false, Some(a), &live), To::All);
        assert_eq!(to(true, None, &live), To::One(b));
        assert_eq!(to(true, Some(a), &live), To::One(a), "what it got is not elsewhere yet");
        assert_eq!(to(true, Some(ServerId(9)), &live), To::One(b), "it is gone");
        assert_eq!(to(true, None, &live[2..]), To::All, "there is nobody to pass it on to");
        assert_eq!(to(true, None, &[(c, None), (a, None)]), To::One(a));
    }
}
