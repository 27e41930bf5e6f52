//! Whether a new mutation asks the servers, or is written down as a fact for later.
//!
//! A record that asks may be refused, and then what was built on it is undone. A logged one is
//! acknowledged and never undone. So nothing is logged on top of a record that still asks, and nothing asks
//! on top of a logged one, whosever it is. Of what one user does, all goes the same way: nothing asks behind
//! the log, which goes first.

/// How a mutation wants to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Wherever it can be made.
    #[default]
    Plain,
    /// The same; while connected one member must agree before the others are asked.
    Exclusive,
    /// Only while connected: access lists and quotas.
    Connected,
}

impl From<bool> for Manner {
    fn from(exclusive: bool) -> Manner {
        if exclusive { Manner::Exclusive } else { Manner::Plain }
    }
}

/// What there is to know.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The user's records under way whose callers wait for what the servers say.
    pub asking: usize,
    /// The user's records in the log.
    pub logged: usize,
    /// Something that it is built on, whosever, is under way and asks.
    pub on_asking: bool,
    /// Something that it is built on, whosever, is in the log.
    pub on_logged: bool,
    /// Some member may be called.
    pub reachable: bool,
    /// Mutations are to be logged, whoever can be reached.
    pub write_disconnected: bool,
    /// Every mutation is to wait for the servers while there are any.
    pub strong: bool,
}

/// What becomes of a new mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The servers are asked, and the caller hears what they say.
    Ask,
    /// It is logged; the caller waits for as long as the log is being sent without a hitch.
    LogAndWait,
    /// It is logged, and that is all.
    Log,
    /// It cannot be made now: nobody can be asked.
    Away,
    /// It cannot be made now: the log is being sent first.
    Later,
    /// What it is built on is partly logged and partly asks: the latter is to end first, which is soon.
    Wait,
}

/// Of a log so short it is worth to wait for.
const SHORT: usize = 64;

/// Decides.
pub fn way(manner: Manner, facts: Facts) -> Way {
    let Facts { asking, logged, on_asking, on_logged, reachable, write_disconnected, strong } = facts;
    let waits = reachable && !write_disconnected;
    match manner {
        Manner::Connected if !reachable => Way::Away,
        _ if on_asking && on_logged => Way::Wait,
        Manner::Connected if logged > 0 || on_logged => Way::Later,
        Manner::Connected => Way::Ask,
        _ if on_asking => Way::Ask,
        _ if !on_logged && (asking > 0 || (logged == 0 && waits)) => Way::Ask,
        _ if waits && (logged < SHORT || strong) => Way::LogAndWait,
        _ => Way::Log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Facts = Facts {
        asking: 0,
        logged: 0,
        on_asking: false,
        on_logged: false,
        reachable: true,
        write_disconnected: false,
        strong: false,
    };

    #[test]
    fn the_servers_are_asked_while_there_are_any_and_the_log_is_empty() {
        assert_eq!(way(Manner::Plain, QUIET), Way::Ask);
        assert_eq!(way(Manner::Plain, Facts { reachable: false, ..QUIET }), Way::Log);
        assert_eq!(way(Manner::Exclusive, Facts { write_disconnected: true, ..QUIET }), Way::Log);
    }

    #[test]
    fn nothing_asks_behind_the_log_and_nothing_is_logged_behind_what_asks() {
        for logged in [1, 10_000] {
            for reachable in [true, false] {
                for write_disconnected in [true, false] {
                    let facts = Facts { logged, reachable, write_disconnected, ..QUIET };
                    assert_ne!(way(Manner::Plain, facts), Way::Ask);
                    let facts = Facts { asking: 1, logged: 0, ..facts };
                    assert_eq!(way(Manner::Plain, facts), Way::Ask);
                }
            }
        }
    }

    #[test]
    fn a_long_log_is_not_waited_for_unless_that_is_wanted() {
        assert_eq!(way(Manner::Plain, Facts { logged: 3, ..QUIET }), Way::LogAndWait);
        assert_eq!(way(Manner::Plain, Facts { logged: 3000, ..QUIET }), Way::Log);
        assert_eq!(way(Manner::Plain, Facts { logged: 3000, strong: true, ..QUIET }), Way::LogAndWait);
    }

    #[test]
    fn access_lists_are_changed_only_while_connected() {
        assert_eq!(way(Manner::Connected, QUIET), Way::Ask);
        assert_eq!(way(Manner::Connected, Facts { reachable: false, ..QUIET }), Way::Away);
        assert_eq!(way(Manner::Connected, Facts { logged: 1, ..QUIET }), Way::Later);
    }

    #[test]
    fn another_users_log_is_nobody_elses_matter_but_for_what_is_built_on_it() {
        for asking in [0, 1] {
            for logged in [0, 1, 10_000] {
                for reachable in [true, false] {
                    for write_disconnected in [true, false] {
                        let facts = Facts { asking, logged, reachable, write_disconnected, ..QUIET };
                        for manner in [Manner::Plain, Manner::Exclusive] {
                            let on = Facts { on_logged: true, ..facts };
                            assert!(matches!(way(manner, on), Way::Log | Way::LogAndWait), "{on:?}");
                            let on = Facts { on_asking: true, ..facts };
                            assert_eq!(way(manner, on), Way::Ask, "{on:?}");
                            let on = Facts { on_asking: true, on_logged: true, ..facts };
                            assert_eq!(way(manner, on), Way::Wait, "{on:?}");
                        }
                    }
                }
            }
        }
        assert_eq!(way(Manner::Connected, Facts { on_logged: true, ..QUIET }), Way::Later);
    }
}
