//! Records whose author the servers have retired, before any member took them: they are issued again, in the
//! name of an author that nobody knows yet.
//!
//! The numbers stay, so that the order does. Where a past names one of these records as the author's last update
//! of an object, it names the new author for it, and the old one for what members took of it before.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Author, Dot, Fid, Past, Record};

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
}
