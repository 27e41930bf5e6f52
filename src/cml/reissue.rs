//! Records whose author the servers have retired, before any member took them: they are issued again, in the
//! name of an author that nobody knows yet.
//!
//! The numbers stay, so that the order does. Where a past names one of these records as the author's last update
//! of an object, it names the new author for it, and the old one for what members took of it before.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use coda_proto::{Author, Dot, Fid, Past, Record};

use super::Entry;

/// Whether some member may hold one of an author's records. `entries`: all of the log, oldest first, and whether
/// somebody may hold each, as far as is known of it alone.
///
/// What was built on a record that no member holds is held by none either: it touches an object of which every member
/// lacks what it names. It waits behind that record and is never asked about by itself.
pub fn any_may_be_held<'a>(author: Author, entries: impl Iterator<Item = (&'a Entry, bool)>) -> bool {
    let mut lacking: HashSet<Fid> = HashSet::new();
    for (entry, maybe) in entries {
        if maybe && !entry.touches.iter().any(|fid| lacking.contains(fid)) {
            if entry.dot.author == author {
                return true;
            }
            continue;
        }
        lacking.extend(entry.touches.iter());
    }
    false
}

/// What becomes of an author's records.
#[derive(Clone, Debug)]
pub struct Reissue {
    from: Author,
    to: Author,
    /// Those that no member took.
    waiting: BTreeSet<u64>,
    /// The last one of each object that members took.
    taken: BTreeMap<Fid, u64>,
}

impl Reissue {
    /// The records of `from` with the numbers `waiting` become those of `to`.
    pub fn new(from: Author, to: Author, waiting: BTreeSet<u64>) -> Reissue {
        Reissue { from, to, waiting, taken: BTreeMap::new() }
    }

    /// The numbers of those that no member took.
    pub fn waiting(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.iter().copied()
    }

    /// What the name of a mutation becomes.
    pub fn dot(&self, dot: Dot) -> Dot {
        match dot.author == self.from && self.waiting.contains(&dot.seq) {
            true => Dot::new(self.to, dot.seq),
            false => dot,
        }
    }

    /// What a past of an object becomes; `None`: it stays. Records first, in the order of the log.
    pub fn past(&mut self, fid: Fid, past: &Past) -> Option<Past> {
        let seq = past.seq(self.from);
        if !self.waiting.contains(&seq) {
            if seq > 0 {
                self.taken.insert(fid, seq);
            }
            return None;
        }
        let taken = self.taken.get(&fid).map(|seq| Dot::new(self.from, *seq));
        let others = past.entries().filter(|dot| dot.author != self.from);
        Some(others.chain(taken).chain([Dot::new(self.to, seq)]).collect())
    }

    /// What a record becomes; `None`: it stays.
    pub fn record(&mut self, record: &Record) -> Option<Record> {
        let mut new = Record { dot: self.dot(record.dot), ..record.clone() };
        for base in &mut new.bases {
            if let Some(past) = self.past(base.fid, &base.past) {
                base.past = past;
            }
        }
        (new != *record).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Base, Op, VolumeId};

    use super::*;

    const OLD: Author = Author(7);
    const NEW: Author = Author(8);

    fn fid(vnode: u32) -> Fid {
        Fid { volume: VolumeId(1), vnode, unique: 7 }
    }

    fn past(dots: &[(u64, u64)]) -> Past {
        dots.iter().map(|(author, seq)| Dot::new(Author(*author), *seq)).collect()
    }

    fn record(author: u64, seq: u64, base: &[(u64, u64)]) -> Record {
        Record {
            dot: Dot::new(Author(author), seq),
            lamport: seq,
            time: 0,
            changed: 0,
            bases: vec![Base { fid: fid(2), past: past(base) }],
            logged: true,
            host: String::new(),
            op: Op::SetAttr {
                fid: fid(2),
                mode: Some(1),
                owner: None,
                group: None,
                mtime: None,
                atime: None,
            },
        }
    }

    #[test]
    fn what_members_took_keeps_its_name_and_what_they_did_not_has_another() {
        let mut reissue = Reissue::new(OLD, NEW, BTreeSet::from([3, 5]));
        let first = reissue.record(&record(7, 3, &[(1, 1), (7, 2)])).unwrap();
        assert_eq!((first.dot, first.base(fid(2))), (Dot::new(NEW, 3), past(&[(1, 1), (7, 2)])));
        let second = reissue.record(&record(7, 5, &[(1, 1), (7, 3)])).unwrap();
        assert_eq!((second.dot, second.base(fid(2))), (Dot::new(NEW, 5), past(&[(1, 1), (7, 2), (8, 3)])));
        // Somebody else's, built on it.
        let other = reissue.record(&record(9, 1, &[(7, 5), (1, 1)])).unwrap();
        assert_eq!(
            (other.dot, other.base(fid(2))),
            (Dot::new(Author(9), 1), past(&[(1, 1), (7, 2), (8, 5)]))
        );
        let cached = reissue.past(fid(2), &past(&[(1, 1), (7, 5), (9, 1)]));
        assert_eq!(cached, Some(past(&[(1, 1), (7, 2), (8, 5), (9, 1)])));
        assert_eq!(reissue.record(&record(9, 2, &[(1, 1), (9, 1)])), None);
        assert_eq!(reissue.past(fid(4), &past(&[(7, 2)])), None);
        // One that was made by a record that nobody took has no other past.
        assert_eq!(reissue.past(fid(6), &past(&[(7, 3)])), Some(past(&[(8, 3)])));
    }

    fn entry(author: u64, seq: u64, touches: &[u32]) -> Entry {
        Entry {
            log: seq,
            uid: 0,
            dot: Dot::new(Author(author), seq),
            touches: touches.iter().map(|vnode| fid(*vnode)).collect(),
            creates: None,
            size: 1,
            contents: 0,
            time: 0,
            verb: "store",
        }
    }

    #[test]
    fn what_was_built_on_what_nobody_holds_is_held_by_nobody() {
        let log = [entry(7, 1, &[2]), entry(7, 2, &[4, 6]), entry(7, 3, &[2, 8]), entry(7, 4, &[8])];
        let held = |maybe: [bool; 4]| any_may_be_held(OLD, log.iter().zip(maybe));
        // The first is known to be nowhere; the last was built on one that was built on it.
        assert!(!held([false, false, true, true]));
        assert!(held([false, true, true, true]), "the second was built on nothing of it");
        assert!(held([true, false, false, false]));
        // Somebody else's counts for what was built on it, and for nothing else.
        let other = [entry(9, 1, &[2]), entry(7, 2, &[2])];
        assert!(!any_may_be_held(OLD, other.iter().zip([false, true])));
        assert!(any_may_be_held(OLD, other.iter().zip([true, true])));
        assert!(!any_may_be_held(OLD, other[..1].iter().zip([true])));
    }
}
