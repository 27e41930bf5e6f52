//! Every record that ever reached a server, and which of them some server said it holds. What an object must be at
//! the end follows from that alone: the current contents are those of the stores that no other store's base includes,
//! a register is what the latest record wrote, and a removed file is back only where somebody changed it unknown to
//! those who removed it.
//!
//! A record that was sent and never acknowledged may or may not be there; what hangs on it is not judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use coda_proto::{
    Author, Dot, Fid, Op, Past, Record,
    merge::{Binding, Head},
    wire,
};
use coda_server::Server;

/// The records of a world. Clones share it.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    records: BTreeMap<Dot, Record>,
    held: BTreeSet<Dot>,
    /// Names that were given to two mutations.
    twice: BTreeSet<Dot>,
    /// What else must not be.
    wrong: Vec<String>,
}

impl Inner {
    /// What a record was built on, of its own author's, that was never sent to anybody.
    fn missing(&self, record: &Record) -> Option<Dot> {
        let own = |base: &coda_proto::Base| Dot::new(record.dot.author, base.past.seq(record.dot.author));
        let mut before = record.bases.iter().map(own).filter(|dot| dot.seq > 0);
        before.find(|dot| !self.records.contains_key(dot))
    }
}

/// One object as the ledger has it.
struct Account<'a> {
    fid: Fid,
    records: Vec<&'a Record>,
    held: Vec<&'a Record>,
    /// When authors were retired.
    retired: &'a BTreeMap<Author, u64>,
}

impl Ledger {
    /// A server is asked to apply these.
    pub fn asked(&self, apply: &wire::Apply) {
        let records = apply.records.iter().filter_map(|record| Record::try_from(record.clone()).ok());
        let mut inner = self.inner();
        for record in records {
            if let Some(before) = inner.missing(&record) {
                let what = format!("{} is sent before {before}, on which it was built", record.dot);
                inner.wrong.push(what);
            }
            let is_another = inner.records.get(&record.dot).is_some_and(|known| !is_same(known, &record));
            if is_another {
                inner.twice.insert(record.dot);
            } else if !inner.held.contains(&record.dot) {
                // A record that no member took may come again on another base: without one that was given up.
                inner.records.insert(record.dot, record);
            }
        }
    }

    /// Something must not be.
    pub fn complain(&self, what: String) {
        self.inner().wrong.push(what);
    }

    /// What was not said yet of what must not be.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().wrong)
    }

    /// Names that were given to two mutations.
    pub fn given_twice(&self) -> Vec<Dot> {
        self.inner().twice.iter().copied().collect()
    }

    /// How many records were issued again by another author.
    pub fn issued_again(&self) -> usize {
        let mut authors: BTreeMap<(u64, u64, i64, Vec<Fid>), BTreeSet<Author>> = BTreeMap::new();
        for record in self.inner().records.values() {
            let what = (record.dot.seq, record.lamport, record.time, record.op.touches());
            authors.entry(what).or_default().insert(record.dot.author);
        }
        authors.values().filter(|authors| authors.len() > 1).count()
    }

    /// A server says that it holds them.
    pub fn applied(&self, apply: &wire::Apply) {
        let dots = apply.records.iter().filter_map(|record| Dot::try_from(record.dot?).ok());
        self.inner().held.extend(dots);
    }

    /// What a server that is to hold everything holds otherwise than it must.
    pub fn judge(&self, server: &Server) -> Result<Vec<String>, String> {
        let inner = self.inner();
        let retired = retired(server, inner.records.keys().map(|dot| dot.author))?;
        let mut accounts: BTreeMap<Fid, Account<'_>> = BTreeMap::new();
        for record in inner.records.values() {
            for fid in record.op.touches() {
                let new = || Account { fid, records: Vec::new(), held: Vec::new(), retired: &retired };
                let account = accounts.entry(fid).or_insert_with(new);
                account.records.push(record);
                if inner.held.contains(&record.dot) {
                    account.held.push(record);
                }
            }
        }
        let mut wrong = Vec::new();
        for account in accounts.values() {
            let Some(volume) = server.volumes().get(&account.fid.volume).cloned() else { continue };
            let found = volume.read(|view| Ok((view.head(account.fid)?, view.bindings_of(account.fid)?)));
            let (head, bindings) = found.map_err(|refusal| format!("server {}: {refusal}", server.id()))?;
            wrong.extend(account.judge(head.as_ref(), &bindings));
        }
        Ok(wrong.into_iter().map(|what| format!("server {}: {what}", server.id())).collect())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder panics")
    }
}

impl Account<'_> {
    /// Whether a past includes a mutation, be it folded.
    fn includes(&self, past: &Past, dot: Dot) -> bool {
        past.includes_dot(dot, self.retired.get(&dot.author).copied())
    }

    fn judge(&self, head: Option<&Head>, bindings: &[Binding]) -> Vec<String> {
        let Some(head) = head else {
            let removed = self.records.iter().any(|record| removes(record, self.fid));
            return match self.held.is_empty() || removed {
                true => Vec::new(),
                false => vec![format!("{} is unknown, and {} is of it", self.fid, self.held[0].dot)],
            };
        };
        if self.is_reborn(&head.past) {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        for record in &self.held {
            if !self.includes(&head.past, record.dot) {
                let verb = record.op.verb();
                wrong.push(format!(
                    "{}: {} ({verb}) was acknowledged, and is not in its past",
                    self.fid, record.dot
                ));
            }
        }
        let siblings = head.siblings.iter().map(|sibling| sibling.dot).collect();
        wrong.extend(self.current("contents", &siblings, |op| matches!(op, Op::Store { .. })));
        let lists = head.acls.keys().copied().collect();
        wrong.extend(self.current("access list", &lists, |op| matches!(op, Op::SetAcl { .. })));
        wrong.extend(self.mode(head));
        wrong.extend(self.place(&head.past, bindings));
        wrong
    }

    /// What replaces others of its kind as far as its author knew them: `shown` are those that none replaced.
    fn current(&self, what: &str, shown: &BTreeSet<Dot>, of_kind: impl Fn(&Op) -> bool) -> Vec<String> {
        let replaced_by = |dot: Dot, by: &[&Record]| {
            by.iter()
                .find(|other| {
                    other.dot != dot && of_kind(&other.op) && self.includes(&other.base(self.fid), dot)
                })
                .map(|by| by.dot)
        };
        let mut wrong = Vec::new();
        for record in self.held.iter().filter(|record| of_kind(&record.op)) {
            if !shown.contains(&record.dot) && replaced_by(record.dot, &self.records).is_none() {
                wrong
                    .push(format!("{}: the {what} of {} is lost: nothing replaced it", self.fid, record.dot));
            }
        }
        for dot in shown {
            if let Some(by) = replaced_by(*dot, &self.held) {
                wrong.push(format!("{}: the {what} of {dot} is there, and {by} replaced it", self.fid));
            }
        }
        wrong
    }

    fn mode(&self, head: &Head) -> Option<String> {
        let sets = |record: &&&Record| match &record.op {
            Op::Create { fid, mode, .. } | Op::MakeDir { fid, mode, .. } if *fid == self.fid => Some(*mode),
            Op::SetAttr { mode, .. } | Op::Store { mode, .. } => *mode,
            _ => None,
        };
        let rank = |record: &&&Record| (record.lamport, record.dot);
        let latest = self.records.iter().filter(|record| sets(record).is_some()).max_by_key(rank)?;
        let held = self.held.iter().any(|record| record.dot == latest.dot);
        let mode = sets(&latest)? & 0o7777;
        (held && head.mode() != mode).then(|| {
            format!("{}: its mode is {:o}, and {} set {mode:o} last", self.fid, head.mode(), latest.dot)
        })
    }

    /// Whether it was removed and forgotten whole, and made again by somebody who had never heard that it was made and
    /// issued that anew. Nothing follows then from what was before.
    fn is_reborn(&self, past: &Past) -> bool {
        let makes = |record: &&Record| record.op.creates() == Some(self.fid);
        let (mut again, mut before) = (false, false);
        for record in self.records.iter().filter(|record| makes(record)) {
            match self.includes(past, record.dot) {
                true => again = true,
                false => before = true,
            }
        }
        again && before && self.records.iter().any(|record| removes(record, self.fid))
    }

    /// Whether a file has a name, for files that were never renamed or linked.
    fn place(&self, past: &Past, bindings: &[Binding]) -> Option<String> {
        let moves = |record: &&&Record| match &record.op {
            Op::Rename { fid, .. } | Op::Link { fid, .. } => *fid == self.fid,
            _ => false,
        };
        let made = |record: &&&Record| record.op.creates() == Some(self.fid);
        if self.fid.is_directory()
            || self.records.iter().any(|record| moves(&record))
            || !self.held.iter().any(|record| made(&record))
        {
            return None;
        }
        let removes: Vec<&&Record> = self.records.iter().filter(|record| removes(record, self.fid)).collect();
        let seen = removes.iter().fold(Past::default(), |mut seen, record| {
            seen.join(&record.base(self.fid));
            seen.add(record.dot);
            seen
        });
        let is_held = |record: &Record| self.held.iter().any(|held| held.dot == record.dot);
        let unseen = |record: &&&Record| !self.includes(&seen, record.dot);
        let has_name = bindings.iter().any(|binding| !binding.is_gone());
        // What some say and nobody confirmed decides nothing.
        let certain = removes.iter().all(|record| is_held(record))
            && self
                .records
                .iter()
                .filter(unseen)
                .all(|record| is_held(record) || !self.includes(past, record.dot));
        // Whoever removes what was folded meanwhile, and did not see that, sees it come back.
        let folded = past.entries().any(|entry| entry.author == Author::ELDERS && entry.seq > 1);
        let expected =
            removes.is_empty() || (has_name && folded) || self.held.iter().any(|record| unseen(&record));
        (certain && has_name != expected).then(|| match expected {
            true => format!("{}: has no name, and nobody who knew its last change removed it", self.fid),
            false => format!("{}: has a name, and all who removed it knew its last change", self.fid),
        })
    }
}

/// When authors were retired, as a server has it.
fn retired(server: &Server, authors: impl Iterator<Item = Author>) -> Result<BTreeMap<Author, u64>, String> {
    let authors: BTreeSet<Author> = authors.collect();
    let mut retired = BTreeMap::new();
    for volume in server.volumes().values() {
        let found = volume.read(|view| {
            for author in &authors {
                retired.extend(view.retired(*author)?.map(|stamp| (*author, stamp)));
            }
            Ok(())
        });
        found.map_err(|refusal| format!("server {}: {refusal}", server.id()))?;
    }
    Ok(retired)
}

/// Whether two records are one. Contents may have been uploaded again.
fn is_same(one: &Record, other: &Record) -> bool {
    match (&one.op, &other.op) {
        (Op::Store { fid, hash, .. }, Op::Store { fid: other, hash: bytes, .. }) => {
            fid == other && hash == bytes
        }
        (one, other) => one == other,
    }
}

/// Whether a record takes this object's name away.
fn removes(record: &Record, fid: Fid) -> bool {
    match &record.op {
        Op::Remove { fid: removed, .. } | Op::RemoveDir { fid: removed, .. } => *removed == fid,
        Op::Rename { replaced, .. } => *replaced == Some(fid),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coda_proto::{Base, Contents, Kind, Sibling, VolumeId};

    const FILE: Fid = Fid { volume: VolumeId(1), vnode: 2, unique: 7 };

    fn dot(author: u64, seq: u64) -> Dot {
        Dot::new(Author(author), seq)
    }

    fn store(made: Dot, base: &[Dot]) -> Record {
        Record {
            dot: made,
            lamport: made.seq,
            time: 0,
            changed: 0,
            host: String::new(),
            bases: vec![Base { fid: FILE, past: base.iter().copied().collect() }],
            logged: false,
            op: Op::Store {
                fid: FILE,
                length: 0,
                hash: [0; 32],
                mtime: 0,
                contents: Contents::Inline(Default::default()),
                mode: None,
            },
        }
    }

    fn head(past: &[Dot], siblings: &[Dot]) -> Head {
        let mut head = Head::runt(FILE, Kind::File);
        head.past = past.iter().copied().collect();
        let sibling =
            |dot: &Dot| Sibling { dot: *dot, length: 0, hash: [0; 32], mtime: 0, host: String::new() };
        head.siblings = siblings.iter().map(sibling).collect();
        head
    }

    fn judged(records: &[Record], held: &[Dot], head: &Head) -> usize {
        let records: Vec<&Record> = records.iter().collect();
        let held = records.iter().copied().filter(|record| held.contains(&record.dot)).collect();
        Account { fid: FILE, records, held, retired: &BTreeMap::new() }.judge(Some(head), &[]).len()
    }

    #[test]
    fn contents_stay_until_somebody_who_knew_them_replaces_them() {
        let (a, b) = (dot(1, 1), dot(2, 2));
        let apart = [store(a, &[]), store(b, &[])];
        assert_eq!(judged(&apart, &[a, b], &head(&[a, b], &[a, b])), 0);
        assert_eq!(judged(&apart, &[a, b], &head(&[a, b], &[a])), 1);
        let after = [store(a, &[]), store(b, &[a])];
        assert_eq!(judged(&after, &[a, b], &head(&[a, b], &[b])), 0);
        assert_eq!(judged(&after, &[a, b], &head(&[a, b], &[a, b])), 1);
        // What nobody acknowledged may have happened, or not.
        assert_eq!(judged(&after, &[a], &head(&[a, b], &[b])), 0);
        assert_eq!(judged(&after, &[a], &head(&[a], &[a])), 0);
        assert_eq!(judged(&after, &[a, b], &head(&[a], &[a])), 3);
    }
}
