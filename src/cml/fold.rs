//! What a [`Plan`] does to the log: records that go, records that change, and what they leave behind in the
//! versions of objects.
//!
//! A record that was never sent and never will be is in no state. So whoever names it in a base names what it
//! was based on instead, and so does the cache.

use std::collections::BTreeMap;

use coda_proto::{
    Dot, Fid, Past, Record,
    planted::{Bug, planted},
};

use super::{Plan, Step};

/// An update of an object that never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The object.
    pub fid: Fid,
    /// The update.
    pub dot: Dot,
    /// The same author's update of it before that; 0: none.
    pub before: u64,
}

impl Forgotten {
    fn of(record: &Record, fid: Fid) -> Forgotten {
        Forgotten { fid, dot: record.dot, before: record.base(fid).seq(record.dot.author) }
    }

    /// What a past of the object is without it.
    pub fn out_of(&self, past: &Past) -> Option<Past> {
        let Dot { author, seq } = self.dot;
        if past.seq(author) != seq {
            return None;
        }
        let before = (self.before > 0).then_some(Dot::new(author, self.before));
        Some(past.entries().filter(|dot| dot.author != author).chain(before).collect())
    }

    /// Takes it out of a record's bases; answers whether it was there.
    pub fn out_of_record(&self, record: &mut Record) -> bool {
        let base = record.bases.iter_mut().find(|base| base.fid == self.fid);
        let Some(base) = base.filter(|_| !planted(Bug::FoldKeepsBases)) else { return false };
        let Some(past) = self.out_of(&base.past) else { return false };
        base.past = past;
        true
    }
}

/// What is left when a plan was followed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// Records that go.
    pub gone: Vec<u64>,
    /// Records that changed.
    pub changed: BTreeMap<u64, Record>,
    /// What is left of the new record.
    pub new: Option<Record>,
    /// In the order in which they have to be forgotten.
    pub forgotten: Vec<Forgotten>,
}

/// Follows a plan. `read` reads a record of the log; `next` names the records behind one that touch an object,
/// oldest first.
pub fn fold<E>(
    plan: Plan,
    new: &Record,
    read: impl Fn(u64) -> Result<Record, E>,
    next: impl Fn(Fid, u64) -> Vec<u64>,
) -> Result<Folded, E> {
    let mut folded = Folded::default();
    let mut left = new.clone();
    match plan.new {
        Some(op) => {
            lose(&mut folded, &mut left, new, op);
            folded.new = Some(left);
        }
        None => folded.forgotten.extend(new.op.touches().iter().map(|fid| Forgotten::of(new, *fid))),
    }
    for step in plan.steps {
        let (Step::Drop(log) | Step::Become(log, _)) = step;
        let record = match folded.changed.remove(&log) {
            Some(record) => record,
            None => read(log)?,
        };
        let from = folded.forgotten.len();
        match step {
            Step::Drop(_) => {
                folded.gone.push(log);
                let all = record.op.touches().into_iter().map(|fid| Forgotten::of(&record, fid));
                folded.forgotten.extend(all);
            }
            Step::Become(_, op) => {
                let mut left = record.clone();
                lose(&mut folded, &mut left, &record, op);
                folded.changed.insert(log, left);
            }
        }
        let lost: Vec<Forgotten> = folded.forgotten[from..].to_vec();
        for forgotten in lost {
            if let Some(new) = &mut folded.new {
                forgotten.out_of_record(new);
            }
            for later in next(forgotten.fid, log) {
                if folded.gone.contains(&later) {
                    continue;
                }
                let mut record = match folded.changed.get(&later) {
                    Some(record) => record.clone(),
                    None => read(later)?,
                };
                if !record.op.touches().contains(&forgotten.fid) {
                    continue;
                }
                let same_author = record.dot.author == forgotten.dot.author;
                if forgotten.out_of_record(&mut record) {
                    folded.changed.insert(later, record);
                }
                // What comes behind it names this one, or later ones, of that author.
                if same_author {
                    break;
                }
            }
        }
    }
    Ok(folded)
}

/// What is left when one record is given up: no member holds it, and none will.
pub fn without<E>(
    log: u64,
    record: &Record,
    read: impl Fn(u64) -> Result<Record, E>,
    next: impl Fn(Fid, u64) -> Vec<u64>,
) -> Result<Folded, E> {
    let plan = Plan { steps: vec![Step::Drop(log)], new: Some(record.op.clone()) };
    let folded = fold(plan, record, read, next)?;
    Ok(Folded { new: None, ..folded })
}

/// A record does less than it did: it no longer updates some objects.
fn lose(folded: &mut Folded, left: &mut Record, was: &Record, op: coda_proto::Op) {
    let touches = op.touches();
    let lost = was.op.touches().into_iter().filter(|fid| !touches.contains(fid));
    folded.forgotten.extend(lost.map(|fid| Forgotten::of(was, fid)));
    left.bases.retain(|base| touches.contains(&base.fid));
    left.op = op;
}
