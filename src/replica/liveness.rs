//! Whether a server lives, as far as we know.
//!
//! ```text
//!             answered                 silent, unreachable, untrusted
//!   Unknown ───────────► Up ─────────────────────────────────────────► Dead
//!      ▲ └────────────────────────────────────────────────────────────► │
//!      │ reconnect       ▲                     answered                 │
//!   Disconnected ◄─ disconnect, from any      ◄─────────────────────────┘
//! ```
//!
//! A server never heard of counts as alive: the first call tells. Coming back is an event, because the
//! server may hold updates from another partition; whoever asks waits for one that was never heard of, so
//! nothing was believed without it.

/// What we believe of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Never talked to in this run.
    Unknown,
    /// Answered last time.
    Up,
    /// Silent for the limit, or unreachable. Probed in the background.
    Dead,
    /// People said not to talk to it.
    Disconnected,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It answered something, be it a refusal.
    Answered,
    /// A call brought no sign of life for the silence limit.
    Silent,
    /// Its port is closed or its host unreachable, also at a second try.
    Unreachable,
    /// It does not prove to be the realm's.
    Untrusted,
    /// `cfs disconnect`.
    Disconnect,
    /// `cfs reconnect`.
    Reconnect,
}

/// What others must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It answers for the first time.
    Met,
    /// It may hold what we have not seen: validate again.
    Up,
    /// The same, before it has answered anything.
    Asked,
    /// Its promises are void, and calls to it end now.
    Down,
}

impl Liveness {
    /// Whether calls may be sent.
    pub fn callable(self) -> bool {
        matches!(self, Liveness::Unknown | Liveness::Up)
    }
}

/// What to believe after a fact.
pub fn step(before: Liveness, fact: Fact) -> (Liveness, Change) {
    use Liveness::*;
    match (before, fact) {
        (_, Fact::Disconnect) if before.callable() => (Disconnected, Change::Down),
        (_, Fact::Disconnect) => (Disconnected, Change::None),
        (Disconnected, Fact::Reconnect) => (Unknown, Change::Asked),
        (Disconnected, _) => (Disconnected, Change::None),
        (_, Fact::Reconnect) => (before, Change::None),
        (Up, Fact::Answered) => (Up, Change::None),
        (Unknown, Fact::Answered) => (Up, Change::Met),
        (Dead, Fact::Answered) => (Up, Change::Up),
        (Unknown | Up, Fact::Silent | Fact::Unreachable | Fact::Untrusted) => (Dead, Change::Down),
        (Dead, Fact::Silent | Fact::Unreachable | Fact::Untrusted) => (Dead, Change::None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Change as C, Fact::*, Liveness::*, *};

    const STATES: [Liveness; 4] = [Unknown, Up, Dead, Disconnected];
    const FACTS: [Fact; 6] = [Answered, Silent, Unreachable, Untrusted, Disconnect, Reconnect];

    #[test]
    fn every_fact_in_every_state() {
        let expected = [
            // Answered, Silent, Unreachable, Untrusted, Disconnect, Reconnect
            [Up, Dead, Dead, Dead, Disconnected, Unknown],
            [Up, Dead, Dead, Dead, Disconnected, Up],
            [Up, Dead, Dead, Dead, Disconnected, Dead],
            [Disconnected, Disconnected, Disconnected, Disconnected, Disconnected, Unknown],
        ];
        for (before, row) in STATES.into_iter().zip(expected) {
            for (fact, after) in FACTS.into_iter().zip(row) {
                assert_eq!(step(before, fact).0, after, "{before:?} {fact:?}");
            }
        }
    }

    #[test]
    fn whoever_turns_from_callable_to_not_is_announced_and_back() {
        for before in STATES {
            for fact in FACTS {
                let (after, change) = step(before, fact);
                let expected = match (before, after) {
                    (Unknown | Up, Dead | Disconnected) => C::Down,
                    (Unknown, Up) => C::Met,
                    (Dead, Up) => C::Up,
                    (Disconnected, Unknown) => C::Asked,
                    _ => C::None,
                };
                assert_eq!(change, expected, "{before:?} {fact:?}");
            }
        }
    }

    #[test]
    fn only_people_end_a_disconnection_by_command() {
        for fact in FACTS {
            assert_eq!(step(Disconnected, fact).0 == Disconnected, fact != Reconnect);
        }
    }
}
