//! Many records that never were, at once: what is left of the pasts that name them.
//!
//! A record names the update that its author made before, of each object. So whoever names one that goes names the last
//! one before it that stays; that is found in one pass over those that go, however many stay behind them.

use std::collections::HashMap;

use coda_proto::{Author, Dot, Fid, Past, Record};

/// Updates of objects that never were.
#[derive(Debug, Default)]
pub struct Unmade {
    /// What is named instead of each; 0: nothing.
    instead: HashMap<(Fid, Dot), u64>,
}

impl Unmade {
    /// Of these records, oldest first.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Unmade {
        let mut unmade = Unmade::default();
        for record in records {
            let Dot { author, .. } = record.dot;
            for fid in record.op.touches() {
                let before = record.base(fid).seq(author);
                let before = unmade.last(fid, author, before);
                unmade.instead.insert((fid, record.dot), before);
            }
        }
        unmade
    }

    fn last(&self, fid: Fid, author: Author, seq: u64) -> u64 {
        if seq == 0 { 0 } else { self.instead.get(&(fid, Dot::new(author, seq))).copied().unwrap_or(seq) }
    }

    /// What a past of an object is without them, if it names any.
    pub fn past(&self, fid: Fid, past: &Past) -> Option<Past> {
        let without = |dot: Dot| match self.last(fid, dot.author, dot.seq) {
            0 => None,
            seq => Some(Dot::new(dot.author, seq)),
        };
        let left: Past = past.entries().filter_map(without).collect();
        (left != *past).then_some(left)
    }

    /// What a record is without them, if it names any.
    pub fn record(&self, record: &Record) -> Option<Record> {
        let mut left = record.clone();
        for base in &mut left.bases {
            if let Some(past) = self.past(base.fid, &base.past) {
                base.past = past;
            }
        }
        (left != *record).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coda_proto::{Base, Op, VolumeId};

    use super::*;
    use crate::cml::without;

    const DIR: Fid = Fid { volume: VolumeId(1), vnode: 1, unique: 1 };

    fn made(log: u64, author: u64, past: &Past) -> Record {
        let fid = Fid { vnode: 2 * log as u32, unique: author, ..DIR };
        let op = Op::MakeDir { parent: DIR, name: Vec::new(), fid, mode: 0, owner: 0 };
        Record {
            dot: Dot::new(Author(author), log),
            lamport: log,
            time: 0,
            changed: 0,
            bases: vec![Base { fid: DIR, past: past.clone() }],
            logged: true,
            host: String::new(),
            op,
        }
    }

    /// What many at once come to is what one after the other does, newest first.
    #[test]
    fn what_is_left_is_what_is_left_when_one_goes_after_the_other() {
        let mut past: Past = [Dot::new(Author(7), 100)].into_iter().collect();
        let mut log = BTreeMap::new();
        for at in 101..109 {
            let record = made(at, 7 + at % 2, &past);
            past.add(record.dot);
            log.insert(at, record);
        }
        for which in 0..256_u64 {
            let goes = |at: u64| which >> (at - 101) & 1 == 1;
            let gone: Vec<&Record> = log.iter().filter(|(at, _)| goes(**at)).map(|(_, r)| r).collect();
            let unmade = Unmade::of(gone.iter().copied());
            let mut one_by_one = log.clone();
            for record in gone.iter().rev() {
                let at = record.dot.seq;
                let read = |log| Ok::<_, ()>(one_by_one[&log].clone());
                let next = |_, at: u64| ((at + 1)..109).filter(|later| !goes(*later)).collect();
                let folded = without(at, record, read, next).unwrap();
                one_by_one.extend(folded.changed);
            }
            for (at, record) in log.iter().filter(|(at, _)| !goes(**at)) {
                let left = unmade.record(record).unwrap_or_else(|| record.clone());
                assert_eq!(left, one_by_one[at], "{at} of {which:b}");
            }
        }
        let unmade = Unmade::of(log.values());
        assert_eq!(unmade.past(DIR, &past), Some([Dot::new(Author(7), 100)].into_iter().collect()));
    }
}
