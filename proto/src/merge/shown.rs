//! The tree shown: which of an object's places directories list.
//!
//! The rows say what records bound and unbound, and after concurrent renames and removes they need not be
//! a tree. What shows always is one. It is a function of the rows, worked out whenever they change and
//! kept in the rows (`shown`, `derived`, `marked`); it never changes what the records said.
//!
//! 1. Of the places of one origin the one with the larger (Lamport time, dot) shows; of a directory's
//!    places, one.
//! 2. A removed object **comes back**, marked, where its last remover saw it, if no place of it is left
//!    and it holds an update that none of its removers saw.
//! 3. A removed directory comes back likewise if something shows in it.
//! 4. Directories that renames made into a **cycle**: of those on it, the one whose move is youngest
//!    shows, marked, where that move took it from (and if that is on a cycle too, where it was before;
//!    in the end, at the root).
//!
//! Rules 2 to 4 are rare, and their rows are `derived`. All of them are worked out anew whenever a change
//! could concern one of them, so the result does not depend on the order of changes.
//!
//! A listing therefore depends on more than its directory's past: on the other places of a renamed
//! object, and on updates of a removed one. Whoever changes a listing without the directory's past
//! breaks the promises for it, and should give the directory a new version (`Joined::relisted`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Binding, Head, Replica, Tombstone, contents::seen_by_removers};
use crate::{
    Dot, Fid, Name, Past,
    planted::{Bug, planted},
};

/// A directory in which `fid` shows.
pub fn parent_of<R: Replica>(replica: &R, fid: Fid) -> Result<Option<Fid>, R::Error> {
    Ok(replica.bindings_of(fid)?.into_iter().find(|place| place.shown).map(|place| place.dir))
}

/// The number of links: its names for a file; for a directory 2 and one for each subdirectory shown.
pub fn nlink(fid: Fid, places_shown: u32, subdirectories: u32) -> u32 {
    match fid.is_directory() {
        true => 2 + subdirectories,
        false => places_shown,
    }
}

/// Which of several bindings of one name keeps it plain: the one with the smallest dot. The others are
/// shown beside it.
pub fn keeps_the_name(bindings: &[Binding]) -> Option<&Binding> {
    bindings.iter().filter(|binding| binding.shown).min_by_key(|binding| (binding.dot(), binding.fid))
}

/// Marks which of an object's bound places show (rule 1). A name that has it twice shows it once.
fn show_bound(bound: &mut [Binding]) {
    let mut best: BTreeMap<Option<Dot>, ((u64, Dot), usize)> = BTreeMap::new();
    for (index, place) in bound.iter().enumerate() {
        let origin = (!place.fid.is_directory()).then_some(place.origin);
        let candidate = (place.rank(), index);
        best.entry(origin).and_modify(|held| *held = (*held).max(candidate)).or_insert(candidate);
    }
    let winners: BTreeSet<usize> = best.into_values().map(|(_, index)| index).collect();
    let mut names: BTreeSet<(Fid, Name)> = BTreeSet::new();
    for (index, place) in bound.iter_mut().enumerate() {
        place.derived = false;
        place.shown = winners.contains(&index) && names.insert((place.dir, place.name.clone()));
    }
}

/// Whether an object that nothing binds holds an update that none of its removers saw (rule 2).
fn outlived(past: &Past, tombstones: &[Tombstone]) -> bool {
    let seen = seen_by_removers(tombstones);
    !seen.is_empty() && !seen.includes(past) && !planted(Bug::RemovalsWin)
}

/// Works out what shows after the rows of `moved` changed, and the pasts of `touched`. Answers the
/// objects that show elsewhere than before, and the directories whose listings changed by that.
pub(super) fn settle<R: Replica>(
    replica: &mut R,
    moved: &BTreeSet<Fid>,
    touched: &BTreeSet<Fid>,
) -> Result<BTreeSet<Fid>, R::Error> {
    let mut scope = BTreeSet::new();
    let mut changed = BTreeSet::new();
    for fid in moved.union(touched) {
        let mut places = replica.bindings_of(*fid)?;
        let stands = fid.is_root() || (!places.is_empty() && places.iter().all(|place| !place.derived));
        if stands && !moved.contains(fid) {
            continue;
        }
        if places.is_empty() && !fid.is_root() && stays_dead(replica, *fid)? {
            continue;
        }
        if !stands || !stays_simple(replica, *fid, &places)? {
            scope.insert(*fid);
            continue;
        }
        let before = places.clone();
        show_bound(&mut places);
        for (place, before) in places.into_iter().zip(before).filter(|(now, before)| now != before) {
            changed.extend([before.dir, place.fid]);
            replica.put_binding(place)?;
        }
    }
    if !scope.is_empty() {
        scope.extend(replica.derived_bindings()?.into_iter().map(|place| place.fid));
        let mut tree = Tree { replica, seats: BTreeMap::new(), changed: BTreeSet::new() };
        tree.work_out(&scope)?;
        changed.extend(tree.changed);
    }
    Ok(changed)
}

/// Whether rule 1 alone decides about a bound object: if it is a directory it was never moved and holds
/// nothing yet (its children may have arrived before it), and it is in directories that are bound themselves.
fn stays_simple<R: Replica>(replica: &R, fid: Fid, places: &[Binding]) -> Result<bool, R::Error> {
    if fid.is_directory() && !(replica.tombstones_of(fid)?.is_empty() && replica.is_empty(fid)?) {
        return Ok(false);
    }
    for place in places {
        // One that only came back may have done so for this very object.
        if !place.dir.is_root() && replica.bindings_of(place.dir)?.iter().all(|of_dir| of_dir.derived) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an object that nothing binds has no reason to come back.
fn stays_dead<R: Replica>(replica: &R, fid: Fid) -> Result<bool, R::Error> {
    if fid.is_directory() && !replica.is_empty(fid)? {
        return Ok(false);
    }
    let past = replica.head(fid)?.map(|head| head.past).unwrap_or_default();
    Ok(!outlived(&past, &replica.tombstones_of(fid)?))
}

/// An object whose place is being worked out.
struct Seat {
    head: Head,
    before: Vec<Binding>,
    bound: Vec<Binding>,
    /// Where it may be, best first.
    choices: Vec<Choice>,
    /// Which of them it takes; `None`: it is dead.
    choice: Option<usize>,
}

/// A place that an object may take.
#[derive(Clone, Debug)]
struct Choice {
    dir: Fid,
    name: Name,
    origin: Dot,
    /// (Lamport time, dot) of what bound it there, or took it from there.
    rank: (u64, Dot),
}

impl Seat {
    fn is_alive(&self) -> bool {
        self.head.fid.is_root() || self.choice.is_some()
    }

    fn dir(&self) -> Option<Fid> {
        Some(self.choices[self.choice?].dir)
    }

    /// Its rows as they are to be.
    fn rows(&self) -> Vec<Binding> {
        let mut rows = self.bound.clone();
        show_bound(&mut rows);
        let Some(choice) = self.choice.filter(|choice| *choice > 0 || rows.is_empty()) else { return rows };
        rows.iter_mut().for_each(|row| row.shown = false);
        let Choice { dir, name, origin, .. } = self.choices[choice].clone();
        match rows.iter_mut().find(|row| row.dir == dir && row.name == name && row.origin == origin) {
            Some(row) => (row.derived, row.shown) = (true, true),
            None => rows.push(Binding {
                dir,
                name,
                fid: self.head.fid,
                origin,
                dots: BTreeMap::new(),
                derived: true,
                shown: true,
            }),
        }
        rows
    }
}

/// Where an object may show: where it is bound, or was removed from; then where renames took it from,
/// the latest first; then the root.
fn choices(fid: Fid, bound: &[Binding], tombstones: &[Tombstone]) -> Vec<Choice> {
    let left = |t: &Tombstone| Choice {
        dir: t.dir,
        name: t.name.clone(),
        origin: t.origin,
        rank: (t.lamport, t.dot),
    };
    let held = |b: &Binding| Choice { dir: b.dir, name: b.name.clone(), origin: b.origin, rank: b.rank() };
    let first = match bound.is_empty() {
        false => bound.iter().map(held).max_by_key(|choice| choice.rank),
        true => tombstones.iter().filter(|t| !t.rename).map(left).max_by_key(|choice| choice.rank),
    };
    let Some(first) = first else { return Vec::new() };
    let mut all = vec![first.clone()];
    let mut earlier: Vec<Choice> = tombstones.iter().filter(|t| t.rename).map(left).collect();
    earlier.sort_by_key(|choice| std::cmp::Reverse(choice.rank));
    all.extend(earlier.into_iter().filter(|choice| (choice.dir, &choice.name) != (first.dir, &first.name)));
    all.push(Choice { dir: Fid::root(fid.volume), ..first });
    all
}

struct Tree<'a, R> {
    replica: &'a mut R,
    seats: BTreeMap<Fid, Seat>,
    changed: BTreeSet<Fid>,
}

impl<R: Replica> Tree<'_, R> {
    fn work_out(&mut self, scope: &BTreeSet<Fid>) -> Result<(), R::Error> {
        // First the rows as if nothing came back and nothing cycled, so that no two objects hold each
        // other in the tree; then what follows from them.
        for fid in scope {
            self.load(*fid)?;
        }
        let loaded: Vec<Fid> = self.seats.keys().copied().collect();
        for fid in &loaded {
            if !self.seats[fid].is_alive() && self.comes_back(*fid)? {
                self.seat(*fid, 0)?;
            }
        }
        for fid in &loaded {
            let dirs: Vec<Fid> = self.seats[fid].rows().iter().filter(|p| p.shown).map(|p| p.dir).collect();
            for dir in dirs {
                self.raise(dir)?;
            }
        }
        while let Some(cycle) = self.find_cycle()? {
            for fid in &cycle {
                self.load(*fid)?;
            }
            let rank = |fid: &Fid| {
                let seat = &self.seats[fid];
                seat.choice.map(|choice| seat.choices[choice].rank)
            };
            let youngest = cycle.into_iter().max_by_key(rank).expect("a cycle has members");
            let next = self.seats[&youngest].choice.map_or(0, |choice| choice + 1);
            self.seat(youngest, next)?;
            let dir = self.seats[&youngest].dir();
            self.raise(dir.expect("it was just seated"))?;
        }
        self.lower()?;
        self.finish()
    }

    fn load(&mut self, fid: Fid) -> Result<(), R::Error> {
        if self.seats.contains_key(&fid) {
            return Ok(());
        }
        let Some(head) = self.replica.head(fid)? else { return Ok(()) };
        let before = self.replica.bindings_of(fid)?;
        let tombstones = self.replica.tombstones_of(fid)?;
        let bound: Vec<Binding> = before.iter().filter(|place| !place.dots.is_empty()).cloned().collect();
        let choices = choices(fid, &bound, &tombstones);
        let choice = (!bound.is_empty()).then_some(0);
        self.seats.insert(fid, Seat { head, before, bound, choices, choice });
        self.write(fid)
    }

    fn comes_back(&self, fid: Fid) -> Result<bool, R::Error> {
        let seat = &self.seats[&fid];
        if seat.choices.is_empty() {
            return Ok(false);
        }
        if fid.is_directory() && !self.replica.is_empty(fid)? {
            return Ok(true);
        }
        Ok(outlived(&seat.head.past, &self.replica.tombstones_of(fid)?))
    }

    fn seat(&mut self, fid: Fid, choice: usize) -> Result<(), R::Error> {
        self.seats.get_mut(&fid).expect("loaded before").choice = Some(choice);
        self.write(fid)
    }

    /// Brings back removed directories, from `dir` upwards (rule 3).
    fn raise(&mut self, mut dir: Fid) -> Result<(), R::Error> {
        while !dir.is_root() {
            self.load(dir)?;
            match self.seats.get(&dir) {
                Some(seat) if !seat.is_alive() && !seat.choices.is_empty() => {}
                _ => return Ok(()),
            }
            self.seat(dir, 0)?;
            dir = self.seats[&dir].dir().expect("it was just seated");
        }
        Ok(())
    }

    /// Takes back what came back only to hold something that a cycle then put elsewhere.
    fn lower(&mut self) -> Result<(), R::Error> {
        loop {
            let mut idle = Vec::new();
            for (fid, seat) in &self.seats {
                let derived = seat.choice.is_some() && seat.bound.is_empty();
                if derived && fid.is_directory() && !self.comes_back(*fid)? {
                    idle.push(*fid);
                }
            }
            if idle.is_empty() {
                return Ok(());
            }
            for fid in idle {
                self.seats.get_mut(&fid).expect("found above").choice = None;
                self.write(fid)?;
            }
        }
    }

    /// Directories that are above each other. Every cycle has a member in the scope: what is on one shows
    /// by rule 4, or was moved just now.
    fn find_cycle(&self) -> Result<Option<Vec<Fid>>, R::Error> {
        let mut reaches_root = BTreeSet::new();
        for start in self.seats.keys().filter(|fid| fid.is_directory()) {
            let mut path = Vec::new();
            let mut at = Some(*start);
            while let Some(fid) = at.filter(|fid| !fid.is_root() && !reaches_root.contains(fid)) {
                if let Some(first) = path.iter().position(|seen| *seen == fid) {
                    return Ok(Some(path.split_off(first)));
                }
                path.push(fid);
                at = match self.seats.get(&fid) {
                    Some(seat) => seat.dir(),
                    None => parent_of(self.replica, fid)?,
                };
            }
            reaches_root.extend(path);
        }
        Ok(None)
    }

    fn write(&mut self, fid: Fid) -> Result<(), R::Error> {
        let rows = self.seats[&fid].rows();
        let key = |row: &Binding| (row.dir, row.name.clone(), row.origin);
        let kept: BTreeSet<_> = rows.iter().map(key).collect();
        for row in self.replica.bindings_of(fid)? {
            if !kept.contains(&key(&row)) {
                self.replica.put_binding(Binding { derived: false, dots: BTreeMap::new(), ..row })?;
            }
        }
        rows.into_iter().try_for_each(|row| self.replica.put_binding(row))
    }

    fn finish(&mut self) -> Result<(), R::Error> {
        for (fid, seat) in &self.seats {
            let rows = seat.rows();
            for row in seat.before.iter().filter(|row| !rows.contains(row)) {
                self.changed.extend([*fid, row.dir]);
            }
            for row in rows.iter().filter(|row| !seat.before.contains(row)) {
                self.changed.extend([*fid, row.dir]);
            }
            let marked = seat.head.acls.len() > 1 || rows.iter().any(|row| row.derived);
            if marked != seat.head.marked {
                self.replica.put_head(Head { marked, ..seat.head.clone() })?;
            }
        }
        Ok(())
    }
}
