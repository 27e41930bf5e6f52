//! What a record does to a replica.
//!
//! The effect of a record is a function of the record and of what its bases include, never of anything
//! else that the replica happens to hold: then applying it and joining with somebody who applied it come
//! to the same. (One exception: a new directory copies its parent's list as it is here; the join keeps
//! what two copies agree on.)
//!
//! What a record may be refused for depends on how it was made. A connected call is a question, and gets the errors of
//! POSIX. A logged record is a fact that others may never have heard of when it was made: where it
//! meets their facts it adds to them, and the directory shows both.
//!
//! An object whose last name goes stays as a dead head with its tombstones, so that an update made apart
//! is recognised (and revives it) when it comes. Nothing but a Store or a new name revives a dead object
//! here: its contents may be gone.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Binding, Head, Replica, Tombstone,
    check::{Facts, check_form, check_state},
    head::Stamped,
    shown::settle,
};
use crate::{
    Author, Code, Dot, Fid, Kind, Name, Op, Past, Record, Refusal, Sibling,
    planted::{Bug, planted},
};

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied. These objects, or listings of these directories, are no longer what they were.
    Applied {
        /// In order of fid.
        touched: Vec<Fid>,
    },
    /// It had been applied before, here or where this state came from.
    Repeated,
}

/// Why a record was not applied.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ApplyError<E> {
    /// The record cannot be applied to this state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The replica failed.
    #[error("{0}")]
    Store(E),
}

/// Applies one record: all of it or, where it answers an error, nothing. (An error of the replica itself
/// may leave half of it: roll the transaction back.)
///
/// Only rows of the objects that the record touches are read, however large their directories are.
pub fn apply<R: Replica>(replica: &mut R, record: &Record) -> Result<Outcome, ApplyError<R::Error>> {
    check_form(record)?;
    let mut heads = BTreeMap::new();
    for fid in record.op.touches() {
        if let Some(head) = replica.head(fid).map_err(ApplyError::Store)? {
            heads.insert(fid, head);
        }
    }
    if heads.values().any(|head| head.past.covers(record.dot)) && !planted(Bug::AppliesTwice) {
        return Ok(Outcome::Repeated);
    }
    let retired = replica.retired(record.dot.author).map_err(ApplyError::Store)?;
    if retired.is_some() && !planted(Bug::TakesRetired) {
        let why = format!("author {} is retired", record.dot.author);
        return Err(Refusal::new(Code::Retired, why).into());
    }
    check_bases(replica, record, &heads)?;
    check_state(&Facts { replica, record, heads: &heads })?;
    let change = Change { replica, record, heads, moved: BTreeSet::new(), relisted: BTreeSet::new() };
    change.run().map_err(ApplyError::Store)
}

/// Whether this state includes what the author saw, for every object that the record touches.
fn check_bases<R: Replica>(
    replica: &R,
    record: &Record,
    heads: &BTreeMap<Fid, Head>,
) -> Result<(), ApplyError<R::Error>> {
    let made = record.op.creates();
    for fid in record.op.touches() {
        let base = record.base(fid);
        match heads.get(&fid) {
            Some(head) if Some(fid) == made && head.past.is_empty() => {
                return Err(Refusal::about(Code::NeedsResolve, fid, "known here by name only").into());
            }
            Some(_) if Some(fid) == made => {
                return Err(Refusal::about(Code::Invalid, fid, "another record made this object").into());
            }
            None if Some(fid) == made => {}
            Some(head) => {
                for entry in base.entries() {
                    if !holds(replica, head, entry).map_err(ApplyError::Store)?
                        && !planted(Bug::AppliesWithoutBase)
                    {
                        let why = format!("this member lacks {entry} of it");
                        return Err(Refusal::about(Code::NeedsResolve, fid, why).into());
                    }
                }
                if base.is_empty() {
                    let why = format!("a {} names the version it saw of all it touches", record.op.verb());
                    return Err(Refusal::about(Code::Invalid, fid, why).into());
                }
            }
            None => {
                let known = !replica.tombstones_of(fid).map_err(ApplyError::Store)?.is_empty();
                return Err(match base.is_empty() || known {
                    true => Refusal::about(Code::Gone, fid, "no such object"),
                    false => Refusal::about(Code::NeedsResolve, fid, "this member never heard of it"),
                }
                .into());
            }
        }
    }
    Ok(())
}

/// Whether an object here includes what an entry of a base stands for.
fn holds<R: Replica>(replica: &R, head: &Head, entry: Dot) -> Result<bool, R::Error> {
    if head.past.covers(entry) {
        return Ok(true);
    }
    let stamp = match entry.author {
        Author::ELDERS => Some(entry.seq).filter(|seq| *seq >= Past::STAMPS),
        author => replica.retired(author)?,
    };
    match stamp {
        Some(stamp) => Ok(stamp <= head.past.elders().max(replica.elders()?)),
        None => Ok(false),
    }
}

struct Change<'a, R> {
    replica: &'a mut R,
    record: &'a Record,
    heads: BTreeMap<Fid, Head>,
    /// Objects whose places or tombstones changed.
    moved: BTreeSet<Fid>,
    /// Directories in which they changed.
    relisted: BTreeSet<Fid>,
}

impl<R: Replica> Change<'_, R> {
    fn run(mut self) -> Result<Outcome, R::Error> {
        let record = self.record;
        let by = Stamped { lamport: record.lamport, dot: record.dot };
        match &record.op {
            Op::Create { parent, name, fid, mode, owner } => {
                self.make(Kind::File, *parent, name, *fid, *mode, *owner)?;
            }
            Op::MakeDir { parent, name, fid, mode, owner } => {
                let acl = self.heads.get(parent).filter(|head| !head.acls.is_empty()).map(Head::acl);
                let head = self.make(Kind::Directory, *parent, name, *fid, *mode, *owner)?;
                if let Some(acl) = acl {
                    head.set_acl(&acl, &BTreeSet::new(), by);
                }
            }
            Op::Symlink { parent, name, fid, target, mode, owner } => {
                let head = self.make(Kind::Symlink, *parent, name, *fid, *mode, *owner)?;
                head.target = target.clone();
            }
            Op::Link { parent, name, fid } => self.bind(*parent, name, *fid, record.dot)?,
            Op::Remove { parent, name, fid } | Op::RemoveDir { parent, name, fid } => {
                self.unbind(*parent, name, *fid, false)?;
            }
            Op::Rename { from, from_name, to, to_name, fid, replaced } => {
                if let Some(replaced) = replaced {
                    self.unbind(*to, to_name, *replaced, false)?;
                }
                for origin in self.unbind(*from, from_name, *fid, true)? {
                    self.bind(*to, to_name, *fid, origin)?;
                }
            }
            Op::Store { fid, length, hash, mtime, mode, .. } => {
                let made = Sibling {
                    dot: record.dot,
                    length: *length,
                    hash: *hash,
                    mtime: *mtime,
                    host: record.host.clone(),
                };
                let replaced = self.seen(*fid, self.heads[fid].siblings.iter().map(|s| s.dot))?;
                let head = self.head(*fid);
                head.siblings
                    .retain(|sibling| !replaced.contains(&sibling.dot) && !planted(Bug::StoreReplacesAll));
                head.siblings.push(made);
                head.siblings.sort();
                head.set_mtime(*mtime, by);
                if let Some(mode) = mode {
                    head.set_mode(*mode, by);
                }
            }
            Op::SetAttr { fid, mode, owner, group, mtime, atime } => {
                let head = self.head(*fid);
                mode.iter().for_each(|mode| head.set_mode(*mode, by));
                owner.iter().for_each(|owner| head.set_owner(*owner, by));
                group.iter().for_each(|group| head.set_group(*group, by));
                mtime.iter().for_each(|mtime| head.set_mtime(*mtime, by));
                atime.iter().for_each(|atime| head.set_atime(*atime, by));
            }
            Op::SetXattr { fid, name, value } => self.head(*fid).set_xattr(name, value.as_deref(), by),
            Op::SetAcl { fid, acl } => {
                let replaced = self.seen(*fid, self.heads[fid].acls.keys().copied())?;
                self.head(*fid).set_acl(acl, &replaced, by);
            }
            Op::SetQuota { fid, min, max } => self.head(*fid).set_quota(*min, *max, by),
        }
        for parent in parents(&record.op) {
            self.head(parent).set_mtime(record.time, by);
        }
        self.finish()
    }

    fn finish(self) -> Result<Outcome, R::Error> {
        let mut touched: BTreeSet<Fid> = self.heads.keys().copied().collect();
        let by = Stamped { lamport: self.record.lamport, dot: self.record.dot };
        for (fid, mut head) in self.heads {
            head.past.add(self.record.dot);
            head.set_ctime(self.record.changed, by);
            let base = self.record.base(fid);
            if base.is_folded() && base.elders() > head.past.elders() {
                // What its author saw folded is included here entry by entry: then it is folded here too.
                fold(self.replica, &mut head, base.elders())?;
            }
            head.marked = head.acls.len() > 1;
            self.replica.put_head(head)?;
        }
        touched.extend(&self.relisted);
        touched.extend(settle(self.replica, &self.moved, &touched)?);
        Ok(Outcome::Applied { touched: touched.into_iter().collect() })
    }

    fn head(&mut self, fid: Fid) -> &mut Head {
        self.heads.get_mut(&fid).expect("check_bases found every touched object, and make() adds its own")
    }

    /// Those of `dots` that the author's state of `fid` included.
    fn seen(&self, fid: Fid, dots: impl IntoIterator<Item = Dot>) -> Result<BTreeSet<Dot>, R::Error> {
        let base = self.record.base(fid);
        let mut seen = BTreeSet::new();
        for dot in dots {
            if base.covers(dot)
                || (base.is_folded() && base.includes_dot(dot, self.replica.retired(dot.author)?))
            {
                seen.insert(dot);
            }
        }
        Ok(seen)
    }

    fn make(
        &mut self,
        kind: Kind,
        parent: Fid,
        name: &Name,
        fid: Fid,
        mode: u32,
        owner: u32,
    ) -> Result<&mut Head, R::Error> {
        let by = Stamped { lamport: self.record.lamport, dot: self.record.dot };
        let mut head = Head::runt(fid, kind);
        head.set_mode(mode, by);
        head.set_owner(owner, by);
        head.set_mtime(self.record.time, by);
        head.set_made(&self.record.host, self.record.time, by);
        self.heads.insert(fid, head);
        self.bind(parent, name, fid, self.record.dot)?;
        Ok(self.head(fid))
    }

    fn bind(&mut self, dir: Fid, name: &Name, fid: Fid, origin: Dot) -> Result<(), R::Error> {
        let held = self.replica.bindings_of(fid)?.into_iter();
        let mut held = held.filter(|b| b.dir == dir && b.name == *name && b.origin == origin);
        let mut binding = held.next().unwrap_or_else(|| Binding {
            dir,
            name: name.clone(),
            fid,
            origin,
            dots: BTreeMap::new(),
            derived: false,
            shown: false,
        });
        binding.dots.insert(self.record.dot, self.record.lamport);
        self.replica.put_binding(binding)?;
        self.moved.insert(fid);
        self.relisted.insert(dir);
        Ok(())
    }

    /// Takes away every place of the origin (or origins) that the author saw at this name, as far as the
    /// author knew of them. Answers the origins.
    fn unbind(&mut self, dir: Fid, name: &Name, fid: Fid, rename: bool) -> Result<BTreeSet<Dot>, R::Error> {
        let bindings = self.replica.bindings_of(fid)?;
        let tombstones = self.replica.tombstones_of(fid)?;
        let named = bindings.iter().flat_map(|b| b.dots.keys().copied().chain([b.origin]));
        let known = self.seen(fid, named.chain(tombstones.iter().flat_map(|t| [t.dot, t.origin])))?;
        let origins = origins_seen(&bindings, &tombstones, dir, name, &known);
        for mut binding in bindings.into_iter().filter(|binding| origins.contains(&binding.origin)) {
            let before = binding.dots.len();
            binding.dots.retain(|dot, _| !known.contains(dot));
            if binding.dots.len() != before {
                self.relisted.insert(binding.dir);
                self.replica.put_binding(binding)?;
            }
        }
        let mut seen = self.record.base(fid);
        seen.add(self.record.dot);
        for origin in &origins {
            self.replica.put_tombstone(Tombstone {
                dir,
                name: name.clone(),
                fid,
                dot: self.record.dot,
                lamport: self.record.lamport,
                origin: *origin,
                seen: seen.clone(),
                rename,
            })?;
        }
        self.relisted.insert(dir);
        self.moved.insert(fid);
        Ok(origins)
    }
}

/// Lets one entry of an object's past stand for everybody who was retired up to `stamp`. Only where the object
/// includes all that they did.
pub fn fold<R: Replica>(replica: &R, head: &mut Head, stamp: u64) -> Result<(), R::Error> {
    let mut stamps = BTreeMap::new();
    for entry in head.past.entries() {
        stamps.extend(replica.retired(entry.author)?.map(|stamp| (entry.author, stamp)));
    }
    head.past.add(Dot::new(Author::ELDERS, stamp));
    head.past.fold(|author| stamps.get(&author).copied());
    Ok(())
}

/// Directories whose entries a record changes.
fn parents(op: &Op) -> Vec<Fid> {
    match op {
        Op::Create { parent, .. }
        | Op::MakeDir { parent, .. }
        | Op::Symlink { parent, .. }
        | Op::Link { parent, .. }
        | Op::Remove { parent, .. }
        | Op::RemoveDir { parent, .. } => vec![*parent],
        Op::Rename { from, to, .. } => vec![*from, *to],
        _ => Vec::new(),
    }
}

/// Which origins the author saw at a name, `known` being the dots that its state included. The same
/// answer in every state that includes the author's: a place that somebody else has taken away since is
/// recognised by its tombstone.
fn origins_seen(
    bindings: &[Binding],
    tombstones: &[Tombstone],
    dir: Fid,
    name: &[u8],
    known: &BTreeSet<Dot>,
) -> BTreeSet<Dot> {
    let mut origins = BTreeSet::new();
    for binding in bindings.iter().filter(|b| b.dir == dir && b.name == name) {
        if binding.dots.keys().any(|dot| known.contains(dot)) {
            origins.insert(binding.origin);
        }
    }
    let here = tombstones.iter().filter(|t| t.dir == dir && t.name == name && known.contains(&t.origin));
    origins.extend(here.clone().filter(|t| !known.contains(&t.dot)).map(|t| t.origin));
    if origins.is_empty() {
        // It showed here by the tree rule: where the latest tombstone says.
        let latest = here.filter(|t| known.contains(&t.dot)).max_by_key(|t| (t.lamport, t.dot));
        origins.extend(latest.map(|t| t.origin));
    }
    if origins.is_empty() && bindings.iter().any(|b| b.fid.is_directory()) {
        // A directory has one origin, wherever the tree rule put it.
        origins.extend(bindings.iter().map(|b| b.origin));
    }
    origins
}
