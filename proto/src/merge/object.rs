//! One object with all that its past governs: what members send each other, and the join of two of them.
//!
//! The join is commutative, associative and idempotent. Nothing that the tree rule derives takes part.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Binding, Head, Register, Replica, Tombstone,
    head::{decode_acl, is_derived, join_register},
};
use crate::{
    Author, Dot, Fid, Kind, Malformed, Sibling, check_name,
    id::required,
    planted::{Bug, planted},
    wire,
};

/// One object: its head, and its places past and present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectState {
    /// What it is, and what it includes.
    pub head: Head,
    /// Its places, in order of their keys, without what is derived.
    pub bindings: Vec<Binding>,
    /// Where it was unbound, in order of their keys.
    pub tombstones: Vec<Tombstone>,
}

/// An object as this replica holds it; `None` where it is unknown.
pub fn state_of<R: Replica>(replica: &R, fid: Fid) -> Result<Option<ObjectState>, R::Error> {
    let Some(head) = replica.head(fid)? else { return Ok(None) };
    Ok(Some(ObjectState::of_rows(head, replica.bindings_of(fid)?, replica.tombstones_of(fid)?)))
}

impl ObjectState {
    /// The rows of one object, without what is derived.
    pub fn of_rows(head: Head, bindings: Vec<Binding>, mut tombstones: Vec<Tombstone>) -> ObjectState {
        let mut head = Head { marked: false, ..head };
        head.registers.retain(|key, _| !is_derived(key));
        let bound = bindings.into_iter().map(|place| Binding { derived: false, shown: false, ..place });
        let mut bindings: Vec<Binding> = bound.filter(|place| !place.is_gone()).collect();
        bindings.sort();
        tombstones.sort();
        ObjectState { head, bindings, tombstones }
    }

    /// The join of two states of one object. `retired`: when an author was retired, if it was.
    pub fn join(&self, other: &ObjectState, retired: impl Fn(Author) -> Option<u64>) -> ObjectState {
        let (mine, theirs) = (&self.head.past, &other.head.past);
        let keeps = |dot: Dot, here: bool, there: bool| match (here, there) {
            (true, false) => !theirs.includes_dot(dot, retired(dot.author)),
            (false, true) => !mine.includes_dot(dot, retired(dot.author)),
            (both, _) => both,
        };
        let mut head = self.head.clone();
        if !planted(Bug::JoinForgetsPast) {
            head.past.join(theirs);
        }
        head.past.fold(&retired);
        head.siblings = join_siblings(&self.head.siblings, &other.head.siblings, keeps);
        head.target = self.head.target.clone().max(other.head.target.clone());
        if planted(Bug::JoinKeepsOne) {
            head.siblings.truncate(1);
        }
        for (key, register) in &other.head.registers {
            if planted(Bug::JoinPrefersMine) && head.registers.contains_key(key) {
                continue;
            }
            join_register(&mut head.registers, key.clone(), register.clone());
        }
        head.acls = join_acls(&self.head.acls, &other.head.acls, keeps);
        let theirs = if planted(Bug::JoinForgetsTombstones) { &[][..] } else { &other.tombstones };
        let tombstones: BTreeSet<&Tombstone> = self.tombstones.iter().chain(theirs).collect();
        let binds = |dot: Dot, here, there| planted(Bug::JoinKeepsRemoved) || keeps(dot, here, there);
        ObjectState {
            head,
            bindings: join_bindings(&self.bindings, &other.bindings, binds),
            tombstones: tombstones.into_iter().cloned().collect(),
        }
    }
}

fn join_siblings(
    here: &[Sibling],
    there: &[Sibling],
    keeps: impl Fn(Dot, bool, bool) -> bool,
) -> Vec<Sibling> {
    let has = |list: &[Sibling], dot: Dot| list.iter().any(|sibling| sibling.dot == dot);
    let all: BTreeMap<Dot, &Sibling> = here.iter().chain(there).map(|s| (s.dot, s)).collect();
    let kept = all.into_iter().filter(|(dot, _)| keeps(*dot, has(here, *dot), has(there, *dot)));
    kept.map(|(_, sibling)| sibling.clone()).collect()
}

/// Like siblings. A directory's first list is a copy of its parent's as the member had it, so two
/// members may hold different copies under one dot: what both allow is kept.
fn join_acls(
    here: &BTreeMap<Dot, Register>,
    there: &BTreeMap<Dot, Register>,
    keeps: impl Fn(Dot, bool, bool) -> bool,
) -> BTreeMap<Dot, Register> {
    let mut joined = BTreeMap::new();
    for (dot, list) in here.iter().chain(there) {
        if !keeps(*dot, here.contains_key(dot), there.contains_key(dot)) {
            continue;
        }
        joined
            .entry(*dot)
            .and_modify(|held: &mut Register| {
                let both = [&*held, list].map(|one| decode_acl(one.value.as_deref().unwrap_or_default()));
                if both[0] != both[1] {
                    held.value = Some(both[0].intersection(&both[1]).to_text().into_bytes());
                }
            })
            .or_insert_with(|| list.clone());
    }
    joined
}

fn join_bindings(
    here: &[Binding],
    there: &[Binding],
    keeps: impl Fn(Dot, bool, bool) -> bool,
) -> Vec<Binding> {
    type Key<'a> = (Fid, &'a [u8], Dot);
    fn keyed(list: &[Binding]) -> BTreeMap<Key<'_>, &Binding> {
        list.iter().map(|b| ((b.dir, b.name.as_slice(), b.origin), b)).collect()
    }
    let (mine, theirs) = (keyed(here), keyed(there));
    let keys: BTreeSet<&Key<'_>> = mine.keys().chain(theirs.keys()).collect();
    let mut joined = Vec::new();
    for key in keys {
        let sides = [mine.get(key), theirs.get(key)];
        let has = |side: usize, dot: &Dot| sides[side].is_some_and(|binding| binding.dots.contains_key(dot));
        let mut dots: BTreeMap<Dot, u64> = BTreeMap::new();
        for binding in sides.iter().flatten() {
            dots.extend(binding.dots.iter().map(|(dot, lamport)| (*dot, *lamport)));
        }
        dots.retain(|dot, _| keeps(*dot, has(0, dot), has(1, dot)));
        if let (Some(binding), false) = (sides.into_iter().flatten().next(), dots.is_empty()) {
            joined.push(Binding { dots, ..(*binding).clone() });
        }
    }
    joined.sort();
    joined
}

/// The directory of a place of `fid`, which is never the root.
fn directory_of(fid: Fid, dir: Option<wire::Fid>, name: &[u8]) -> Result<Fid, Malformed> {
    check_name(name).map_err(|refusal| Malformed::new("place", refusal.detail))?;
    let dir: Fid = required(dir, "directory of a place")?;
    match dir.is_directory() && dir.volume == fid.volume && !fid.is_root() {
        true => Ok(dir),
        false => Err(Malformed::new("place", format!("{fid} in {dir}"))),
    }
}

/// A Lamport time: 63 bits, as stores hold it.
fn time(lamport: u64) -> Result<u64, Malformed> {
    match lamport <= i64::MAX as u64 {
        true => Ok(lamport),
        false => Err(Malformed::new("Lamport time", lamport.to_string())),
    }
}

impl From<&Register> for wire::Register {
    fn from(register: &Register) -> wire::Register {
        wire::Register {
            value: register.value.clone().unwrap_or_default().into(),
            lamport: register.lamport,
            dot: Some(register.dot.into()),
        }
    }
}
impl TryFrom<wire::Register> for Register {
    type Error = Malformed;
    fn try_from(register: wire::Register) -> Result<Register, Malformed> {
        Ok(Register {
            value: Some(register.value.into()),
            lamport: time(register.lamport)?,
            dot: required(register.dot, "register's dot")?,
        })
    }
}

impl From<&Binding> for wire::Binding {
    fn from(binding: &Binding) -> wire::Binding {
        let made = |(dot, lamport): (&Dot, &u64)| wire::Made { dot: Some((*dot).into()), lamport: *lamport };
        wire::Binding {
            dir: Some(binding.dir.into()),
            name: binding.name.clone().into(),
            origin: Some(binding.origin.into()),
            made: binding.dots.iter().map(made).collect(),
        }
    }
}

/// A place of `fid`, as it travelled.
pub fn binding_of(fid: Fid, binding: wire::Binding) -> Result<Binding, Malformed> {
    let made =
        binding.made.into_iter().map(|made| Ok((required(made.dot, "binding's dot")?, time(made.lamport)?)));
    Ok(Binding {
        dir: directory_of(fid, binding.dir, &binding.name)?,
        name: binding.name.into(),
        fid,
        origin: required(binding.origin, "binding's origin")?,
        dots: made.collect::<Result<_, Malformed>>()?,
        derived: false,
        shown: false,
    })
}

impl From<&Tombstone> for wire::Tombstone {
    fn from(tombstone: &Tombstone) -> wire::Tombstone {
        wire::Tombstone {
            dir: Some(tombstone.dir.into()),
            name: tombstone.name.clone().into(),
            dot: Some(tombstone.dot.into()),
            lamport: tombstone.lamport,
            origin: Some(tombstone.origin.into()),
            seen: Some((&tombstone.seen).into()),
            rename: tombstone.rename,
        }
    }
}

/// A tombstone of `fid`, as it travelled.
pub fn tombstone_of(fid: Fid, tombstone: wire::Tombstone) -> Result<Tombstone, Malformed> {
    Ok(Tombstone {
        dir: directory_of(fid, tombstone.dir, &tombstone.name)?,
        name: tombstone.name.into(),
        fid,
        dot: required(tombstone.dot, "tombstone's dot")?,
        lamport: time(tombstone.lamport)?,
        origin: required(tombstone.origin, "tombstone's origin")?,
        seen: required(tombstone.seen, "tombstone's version")?,
        rename: tombstone.rename,
    })
}

impl From<&Head> for wire::ObjectState {
    fn from(head: &Head) -> wire::ObjectState {
        let registers = head.registers.iter().filter(|(key, _)| !is_derived(key));
        wire::ObjectState {
            fid: Some(head.fid.into()),
            kind: head.kind.into(),
            past: Some((&head.past).into()),
            siblings: head.siblings.iter().map(Into::into).collect(),
            target: head.target.clone().into(),
            registers: registers
                .map(|(name, register)| wire::NamedRegister {
                    name: name.clone().into(),
                    removed: register.value.is_none(),
                    register: Some(register.into()),
                })
                .collect(),
            bindings: Vec::new(),
            tombstones: Vec::new(),
            acls: head.acls.values().map(Into::into).collect(),
        }
    }
}

impl From<&ObjectState> for wire::ObjectState {
    fn from(state: &ObjectState) -> wire::ObjectState {
        wire::ObjectState {
            bindings: state.bindings.iter().map(Into::into).collect(),
            tombstones: state.tombstones.iter().map(Into::into).collect(),
            ..(&state.head).into()
        }
    }
}

impl TryFrom<wire::ObjectState> for ObjectState {
    type Error = Malformed;
    fn try_from(state: wire::ObjectState) -> Result<ObjectState, Malformed> {
        let fid: Fid = required(state.fid, "object")?;
        let kind = Kind::try_from(state.kind)?;
        if (kind == Kind::Directory) != fid.is_directory() {
            return Err(Malformed::new("object", format!("{fid} is no {kind:?}")));
        }
        let mut head = Head::runt(fid, kind);
        head.past = required(state.past, "object's past")?;
        head.siblings = state.siblings.into_iter().map(Sibling::try_from).collect::<Result<_, _>>()?;
        head.siblings.sort();
        head.siblings.dedup_by_key(|sibling| sibling.dot);
        head.target = state.target.into();
        for named in state.registers {
            let mut register: Register = required(named.register, "register")?;
            if named.removed {
                register.value = None;
            }
            if !is_derived(&named.name) {
                head.registers.insert(named.name.into(), register);
            }
        }
        for list in state.acls {
            let list = Register::try_from(list)?;
            head.acls.insert(list.dot, list);
        }
        let bindings = state.bindings.into_iter().map(|binding| binding_of(fid, binding));
        let mut bindings: Vec<Binding> = bindings.collect::<Result<_, _>>()?;
        bindings.retain(|binding| !binding.is_gone());
        bindings.sort();
        let tombstones = state.tombstones.into_iter().map(|tombstone| tombstone_of(fid, tombstone));
        let mut tombstones: Vec<Tombstone> = tombstones.collect::<Result<_, _>>()?;
        tombstones.sort();
        Ok(ObjectState { head, bindings, tombstones })
    }
}
