//! Whether some course of things explains what was seen of a name. Pure, and without a word about how it was seen.

use std::{collections::BTreeSet, fmt};

/// What a step showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A client shows these contents under a name, and no others.
    Shows(usize, &'static str, BTreeSet<usize>),
    /// A client wrote this; `certain`: it was told so.
    Wrote(usize, &'static str, usize, bool),
    /// A client removed it; `certain`: it was told so.
    Removed(usize, &'static str, bool),
    /// All is exchanged.
    Settled,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One client as it may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Client {
    /// What it shows.
    shows: BTreeSet<usize>,
    /// What it has ever known.
    knows: BTreeSet<usize>,
    /// It has something to send.
    dirty: bool,
}

/// How things may be, as far as one name goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Course {
    there: BTreeSet<usize>,
    clients: Vec<Client>,
}

impl Course {
    fn up(&self, at: usize) -> Option<Course> {
        let mut next = self.clone();
        let client = &mut next.clients[at];
        if !std::mem::replace(&mut client.dirty, false) {
            return None;
        }
        next.there.retain(|id| !client.knows.contains(id));
        next.there.extend(&client.shows);
        client.knows.extend(&client.shows);
        Some(next)
    }

    fn down(&self, at: usize) -> Option<Course> {
        let mut next = self.clone();
        let client = &mut next.clients[at];
        if client.dirty || client.shows == next.there {
            return None;
        }
        client.shows.clone_from(&next.there);
        client.knows.extend(&next.there);
        Some(next)
    }

    fn does(&self, at: usize, shows: BTreeSet<usize>) -> Course {
        let mut next = self.clone();
        let client = &mut next.clients[at];
        client.knows.extend(&shows);
        (client.shows, client.dirty) = (shows, true);
        next
    }

    fn is_settled(&self) -> bool {
        self.clients.iter().all(|client| !client.dirty && client.shows == self.there)
    }
}

/// All that may come of these by exchanges that nobody sees.
fn closure(courses: BTreeSet<Course>) -> BTreeSet<Course> {
    let mut all = courses.clone();
    let mut left: Vec<Course> = courses.into_iter().collect();
    while let Some(course) = left.pop() {
        for at in 0..course.clients.len() {
            for next in [course.up(at), course.down(at)].into_iter().flatten() {
                if all.insert(next.clone()) {
                    left.push(next);
                }
            }
        }
    }
    all
}

/// Whether some course of things explains what was seen of a name; if not, what it could not explain.
pub fn explain(name: &str, clients: usize, seen: &[Seen]) -> Result<(), String> {
    let start = Course { there: BTreeSet::new(), clients: vec![Client::default(); clients] };
    let mut courses = BTreeSet::from([start]);
    for (at, one) in seen.iter().enumerate() {
        let before = closure(courses);
        courses = match one {
            Seen::Shows(client, of, shown) if *of == name => {
                before.into_iter().filter(|course| course.clients[*client].shows == *shown).collect()
            }
            Seen::Wrote(client, of, id, certain) if *of == name => {
                let after = before.iter().map(|course| course.does(*client, BTreeSet::from([*id])));
                let after: BTreeSet<Course> = after.collect();
                if *certain { after } else { before.into_iter().chain(after).collect() }
            }
            Seen::Removed(client, of, certain) if *of == name => {
                let after = before.iter().map(|course| course.does(*client, BTreeSet::new()));
                let after: BTreeSet<Course> = after.collect();
                if *certain { after } else { before.into_iter().chain(after).collect() }
            }
            Seen::Settled => before.into_iter().filter(Course::is_settled).collect(),
            _ => before,
        };
        if courses.is_empty() {
            let story: Vec<String> = seen[..=at].iter().map(Seen::to_string).collect();
            return Err(format!("nothing explains what {name} showed in the end: {}", story.join("; ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(client: usize, ids: &[usize]) -> Seen {
        Seen::Shows(client, "x", ids.iter().copied().collect())
    }

    fn wrote(client: usize, id: usize) -> Seen {
        Seen::Wrote(client, "x", id, true)
    }

    #[test]
    fn what_two_wrote_apart_is_both_there_and_neither_replaces_the_other() {
        let apart = [wrote(0, 1), wrote(1, 2), Seen::Settled];
        let with = |last: &[Seen]| explain("x", 2, &[&apart[..], last].concat());
        assert_eq!(with(&[shows(0, &[1, 2]), shows(1, &[1, 2])]), Ok(()));
        // The second may have seen the first, although it did not look.
        assert_eq!(with(&[shows(0, &[2]), shows(1, &[2])]), Ok(()));
        for wrong in [&[][..], &[3], &[1, 2, 3]] {
            assert!(with(&[shows(0, wrong)]).is_err(), "{wrong:?}");
        }
        assert!(with(&[shows(0, &[1, 2]), shows(1, &[1])]).is_err(), "all show the same");
    }

    #[test]
    fn what_somebody_saw_and_replaced_is_gone_and_no_conflict() {
        let seen = [wrote(0, 1), shows(1, &[1]), wrote(1, 2), Seen::Settled];
        let with = |last: Seen| explain("x", 2, &[&seen[..], &[last]].concat());
        assert_eq!(with(shows(0, &[2])), Ok(()));
        assert!(with(shows(0, &[1, 2])).is_err(), "a conflict without concurrency");
        assert!(with(shows(0, &[1])).is_err(), "the old one back");
    }

    #[test]
    fn a_removal_takes_away_what_was_seen_and_nothing_else() {
        let removed = Seen::Removed(0, "x", true);
        let seen = [wrote(0, 1), shows(1, &[1]), removed, wrote(1, 2), shows(0, &[]), Seen::Settled];
        let with = |last: Seen| explain("x", 2, &[&seen[..], &[last]].concat());
        assert_eq!(with(shows(1, &[2])), Ok(()));
        assert!(with(shows(1, &[])).is_err(), "what was written apart is lost");
        assert!(with(shows(1, &[1, 2])).is_err(), "what was removed is back");
        // Who was told nothing certain may have done it, or not.
        let unclear = [wrote(0, 1), Seen::Removed(0, "x", false), Seen::Settled];
        for end in [&[][..], &[1]] {
            assert_eq!(explain("x", 1, &[&unclear[..], &[shows(0, end)]].concat()), Ok(()));
        }
    }
}
