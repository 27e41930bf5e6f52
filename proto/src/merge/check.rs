//! Why a record is refused. Checked in the order of the spec, so that every member gives one answer.

use std::collections::BTreeMap;

use super::{Binding, Head, Replica, apply::ApplyError, shown::parent_of};
use crate::{Code, Fid, Kind, Name, Op, Record, Refusal, check_name};

/// Directories above a directory, at most.
const DEPTH_LIMIT: usize = 100_000;

/// Whether the record makes sense at all, wherever it is applied.
pub(super) fn check_form(record: &Record) -> Result<(), Refusal> {
    let largest = i64::MAX as u64;
    if record.lamport > largest || record.dot.seq > largest {
        return Err(Refusal::new(Code::Invalid, "a number of the record is out of range"));
    }
    let touched = record.op.touches();
    if touched.iter().any(|fid| fid.volume != touched[0].volume) {
        return Err(Refusal::about(Code::Invalid, touched[0], "a record touches one volume"));
    }
    match &record.op {
        Op::Create { parent, name, fid, .. } | Op::Symlink { parent, name, fid, .. } => {
            in_directory(*parent, name)?;
            no_directory(*fid)
        }
        Op::MakeDir { parent, name, fid, .. } => {
            in_directory(*parent, name)?;
            a_directory(*fid)?;
            not_the_root(*fid)
        }
        Op::Link { parent, name, fid } | Op::Remove { parent, name, fid } => {
            in_directory(*parent, name)?;
            no_directory(*fid)
        }
        Op::RemoveDir { parent, name, fid } => {
            in_directory(*parent, name)?;
            a_directory(*fid)?;
            not_the_root(*fid)?;
            match fid == parent {
                true => Err(Refusal::about(Code::Loop, *fid, "a directory is not in itself")),
                false => Ok(()),
            }
        }
        Op::Rename { from, from_name, to, to_name, fid, replaced } => {
            in_directory(*from, from_name)?;
            in_directory(*to, to_name)?;
            not_the_root(*fid)?;
            if (from, from_name) == (to, to_name) || *replaced == Some(*fid) {
                return Err(Refusal::about(Code::Invalid, *fid, "a rename to where it is"));
            }
            if *replaced == Some(*from) {
                return Err(Refusal::about(Code::NotEmpty, *from, "it holds what would replace it"));
            }
            if fid == from || fid == to || *replaced == Some(*to) {
                return Err(Refusal::about(Code::Loop, *fid, "a directory is not in itself"));
            }
            match replaced {
                Some(replaced) if fid.is_directory() => a_directory(*replaced),
                Some(replaced) => no_directory(*replaced),
                None => Ok(()),
            }
        }
        Op::Store { fid, .. } => no_directory(*fid),
        Op::SetAttr { .. } | Op::SetXattr { .. } => Ok(()),
        Op::SetAcl { fid, .. } => a_directory(*fid),
        Op::SetQuota { fid, .. } => match fid.is_root() {
            true => Ok(()),
            false => Err(Refusal::about(Code::Invalid, *fid, "a quota is set on a volume's root")),
        },
    }
}

fn in_directory(parent: Fid, name: &[u8]) -> Result<(), Refusal> {
    a_directory(parent)?;
    check_name(name).map_err(|refusal| Refusal { blame: Some(parent), ..refusal })
}
fn a_directory(fid: Fid) -> Result<(), Refusal> {
    match fid.is_directory() {
        true => Ok(()),
        false => Err(Refusal::about(Code::NotDirectory, fid, "not a directory")),
    }
}
fn no_directory(fid: Fid) -> Result<(), Refusal> {
    match fid.is_directory() {
        true => Err(Refusal::about(Code::IsDirectory, fid, "a directory")),
        false => Ok(()),
    }
}
fn not_the_root(fid: Fid) -> Result<(), Refusal> {
    match fid.is_root() {
        true => Err(Refusal::about(Code::Invalid, fid, "the root of the volume")),
        false => Ok(()),
    }
}

/// A replica, a record, and the heads that the record touches.
pub(super) struct Facts<'a, R> {
    pub replica: &'a R,
    pub record: &'a Record,
    pub heads: &'a BTreeMap<Fid, Head>,
}

/// Whether the record fits this state.
pub(super) fn check_state<R: Replica>(facts: &Facts<'_, R>) -> Result<(), ApplyError<R::Error>> {
    match &facts.record.op {
        Op::Create { parent, name, fid, .. }
        | Op::MakeDir { parent, name, fid, .. }
        | Op::Symlink { parent, name, fid, .. } => {
            facts.lives_if_connected(*parent)?;
            facts.name_is_free(*parent, name, *fid, None)
        }
        Op::Link { parent, name, fid } => {
            facts.lives_if_connected(*parent)?;
            facts.name_is_free(*parent, name, *fid, None)?;
            facts.lives_if_connected(*fid)?;
            facts.has_a_place_in(*parent, *fid)
        }
        Op::Remove { parent, name, fid } => facts.was_at(*parent, name, *fid),
        Op::RemoveDir { parent, name, fid } => {
            facts.was_at(*parent, name, *fid)?;
            facts.empty_if_connected(*fid)
        }
        Op::Rename { from, from_name, to, to_name, fid, replaced } => {
            facts.was_at(*from, from_name, *fid)?;
            facts.lives_if_connected(*to)?;
            facts.stays_among_its_links(*from, *to, *fid)?;
            facts.name_is_free(*to, to_name, *fid, *replaced)?;
            if let Some(replaced) = replaced.filter(|replaced| replaced.is_directory()) {
                facts.empty_if_connected(replaced)?;
            }
            facts.not_below_itself(*to, *fid)
        }
        Op::Store { fid, .. } => match facts.heads[fid].kind {
            Kind::File => Ok(()),
            _ => Err(Refusal::about(Code::Invalid, *fid, "only a file has contents").into()),
        },
        Op::SetAttr { fid, mode, .. } => {
            if facts.heads[fid].kind == Kind::Symlink && mode.is_some() {
                return Err(Refusal::about(Code::Access, *fid, "the mode of a link is fixed").into());
            }
            facts.lives(*fid)
        }
        Op::SetXattr { fid, .. } | Op::SetAcl { fid, .. } | Op::SetQuota { fid, .. } => facts.lives(*fid),
    }
}

type Checked<R> = Result<(), ApplyError<<R as Replica>::Error>>;

impl<R: Replica> Facts<'_, R> {
    fn places(&self, fid: Fid) -> Result<Vec<Binding>, ApplyError<R::Error>> {
        self.replica.bindings_of(fid).map_err(ApplyError::Store)
    }

    fn lives(&self, fid: Fid) -> Checked<R> {
        if fid.is_root() || self.places(fid)?.iter().any(|place| place.shown) {
            return Ok(());
        }
        Err(Refusal::about(Code::Gone, fid, "removed").into())
    }

    fn lives_if_connected(&self, fid: Fid) -> Checked<R> {
        match self.record.logged {
            true => Ok(()),
            false => self.lives(fid),
        }
    }

    /// That a name is bound to nothing but `fid`, or to what a rename says it replaces.
    fn name_is_free(&self, dir: Fid, name: &Name, fid: Fid, replaced: Option<Fid>) -> Checked<R> {
        if self.record.logged {
            return Ok(());
        }
        let bound = self.replica.bindings_named(dir, name).map_err(ApplyError::Store)?;
        let others: Vec<Fid> =
            bound.iter().filter(|place| place.shown && place.fid != fid).map(|place| place.fid).collect();
        match others.first() {
            Some(other) if replaced.is_none_or(|replaced| !others.contains(&replaced)) => {
                let why = format!("{:?} exists", String::from_utf8_lossy(name));
                Err(Refusal::about(Code::Exists, *other, why).into())
            }
            _ => Ok(()),
        }
    }

    /// That `fid` is, or for a logged record once was, bound to this name.
    fn was_at(&self, dir: Fid, name: &Name, fid: Fid) -> Checked<R> {
        let places = self.places(fid)?;
        let here = places.iter().any(|p| p.dir == dir && p.name == *name && (p.shown || self.record.logged));
        if here || (self.record.logged && self.left(dir, Some(name), fid)?) {
            return Ok(());
        }
        let why = format!("{:?} is not a name of it", String::from_utf8_lossy(name));
        Err(Refusal::about(Code::NoEntry, fid, why).into())
    }

    fn has_a_place_in(&self, dir: Fid, fid: Fid) -> Checked<R> {
        let logged = self.record.logged;
        let here = self.places(fid)?.iter().any(|place| place.dir == dir && (place.shown || logged));
        if here || (logged && self.left(dir, None, fid)?) {
            return Ok(());
        }
        Err(Refusal::about(Code::CrossDirectory, fid, "links stay within a directory").into())
    }

    fn left(&self, dir: Fid, name: Option<&Name>, fid: Fid) -> Result<bool, ApplyError<R::Error>> {
        let tombstones = self.replica.tombstones_of(fid).map_err(ApplyError::Store)?;
        Ok(tombstones.iter().any(|t| t.dir == dir && name.is_none_or(|name| t.name == *name)))
    }

    fn empty_if_connected(&self, fid: Fid) -> Checked<R> {
        if self.record.logged || self.replica.is_empty(fid).map_err(ApplyError::Store)? {
            return Ok(());
        }
        Err(Refusal::about(Code::NotEmpty, fid, "not empty").into())
    }

    fn stays_among_its_links(&self, from: Fid, to: Fid, fid: Fid) -> Checked<R> {
        if self.record.logged || from == to || self.places(fid)?.iter().filter(|p| p.shown).count() < 2 {
            return Ok(());
        }
        Err(Refusal::about(Code::CrossDirectory, fid, "links stay within a directory").into())
    }

    /// That a directory does not move below itself. What is logged may: the tree rule decides then.
    fn not_below_itself(&self, to: Fid, fid: Fid) -> Checked<R> {
        if self.record.logged || !fid.is_directory() {
            return Ok(());
        }
        let mut above = Some(to);
        for _ in 0..DEPTH_LIMIT {
            match above {
                Some(dir) if dir == fid => break,
                Some(dir) => above = parent_of(self.replica, dir).map_err(ApplyError::Store)?,
                None => return Ok(()),
            }
        }
        Err(Refusal::about(Code::Loop, fid, "a directory cannot move below itself").into())
    }
}
