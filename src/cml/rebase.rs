//! What is left of a record when one before it is given up.
//!
//! An update that no member ever applied is in no state: a past that leaves it out is exact. So a later
//! record need not wait for it, and names as its base what the one that is given up was based on.

use coda_proto::{Dot, Fid, Past, Record};

use super::Entry;

/// Whether `later` may name `given_up` in a base.
pub fn follows(given_up: &Entry, later: &Entry) -> bool {
    later.log > given_up.log && later.touches.iter().any(|fid| given_up.touches(*fid))
}

/// The record without the dot of `given_up` in its bases; `None` where they do not name it.
pub fn rebased(given_up: &Record, record: &Record) -> Option<Record> {
    let Dot { author, seq } = given_up.dot;
    let mut record = record.clone();
    let mut changed = false;
    for base in &mut record.bases {
        if given_up.op.touches().contains(&base.fid) && base.past.seq(author) == seq {
            let before = before(given_up, base.fid);
            base.past =
                base.past.entries().filter(|dot| dot.author != author).chain(before).collect::<Past>();
            changed = true;
        }
    }
    changed.then_some(record)
}

/// The last update of an object by the same author before this one.
fn before(record: &Record, fid: Fid) -> Option<Dot> {
    let seq = record.base(fid).seq(record.dot.author);
    (seq > 0).then_some(Dot::new(record.dot.author, seq))
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Base, Op, VolumeId};

    use super::*;

    fn setattr(seq: u64, base: &[(u64, u64)]) -> Record {
        let fid = Fid { volume: VolumeId(1), vnode: 2, unique: 1 };
        let past = base.iter().map(|(author, seq)| Dot::new(Author(*author), *seq)).collect();
        Record {
            dot: Dot::new(Author(5), seq),
            lamport: seq,
            time: 0,
            bases: vec![Base { fid, past }],
            logged: true,
            host: String::new(),
            op: Op::SetAttr { fid, mode: Some(0o600), owner: None, group: None, mtime: None },
        }
    }

    #[test]
    fn a_base_names_what_the_record_that_is_given_up_was_based_on() {
        let given_up = setattr(7, &[(1, 1), (5, 4)]);
        let fid = given_up.bases[0].fid;
        let later = rebased(&given_up, &setattr(8, &[(1, 1), (5, 7)])).unwrap();
        assert_eq!(later.base(fid), [Dot::new(Author(1), 1), Dot::new(Author(5), 4)].into_iter().collect());
        let first = setattr(7, &[(1, 1)]);
        let later = rebased(&first, &setattr(8, &[(1, 1), (5, 7)])).unwrap();
        assert_eq!(later.base(fid), Past::of(Dot::new(Author(1), 1)));
        assert_eq!(rebased(&given_up, &setattr(9, &[(1, 1), (5, 8)])), None);
    }
}
