//! What waits for a decision of people, with paths: a tool asks for it, nothing else does.

use std::collections::BTreeSet;

use coda_proto::{
    Fid, Refusal, Rights, Status, VolumeId,
    wire::{self, response::Body},
};

use super::{Answer, Caller, plain, read::served};
use crate::{
    rights::demand,
    server::Server,
    status::status,
    store::{StoreError, View},
};

/// Answered at once, unless the caller wants fewer.
const MANY: usize = 1000;
/// Directories above an object, at most: more than any path has.
const DEPTH: usize = 4096;

impl Server {
    pub(crate) fn list_conflicts(&self, caller: Caller, list: &wire::ListConflicts) -> Answer {
        let volume = self.volume(VolumeId(list.volume))?;
        let limit = match list.limit as usize {
            0 => MANY,
            limit => limit.min(MANY),
        };
        volume.read(|view| {
            served(view)?;
            let skip = list.skip as usize;
            let mut found = Found { view, caller, skip, limit, conflicts: Vec::new(), all: true };
            for fid in view.undecided()? {
                found.object(fid)?;
            }
            for (dir, name) in view.contested_names()? {
                found.name(dir, &name)?;
            }
            let (conflicts, all) = (found.conflicts, found.all);
            plain(Body::Conflicts(wire::Conflicts { conflicts, all }))
        })
    }
}

struct Found<'a, 'v> {
    view: &'a View<'v>,
    caller: Caller,
    /// Of those that would be told, so many are not: they were before.
    skip: usize,
    limit: usize,
    conflicts: Vec<wire::Conflict>,
    all: bool,
}

impl Found<'_, '_> {
    fn add(&mut self, dir: Fid, path: Option<Vec<u8>>, status: &Status, others: &[Status]) {
        let may = demand(self.view, dir, self.caller.who, Rights::LOOKUP).is_ok();
        let Some(path) = path.filter(|_| may) else { return };
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.conflicts.len() == self.limit {
            self.all = false;
            return;
        }
        self.conflicts.push(wire::Conflict {
            path: path.into(),
            status: Some(status.into()),
            others: others.iter().map(Into::into).collect(),
        });
    }

    /// A file with several contents, or an object that is marked.
    fn object(&mut self, fid: Fid) -> Result<(), Refusal> {
        let Some(status) = status(self.view, fid, self.caller.who)? else { return Ok(()) };
        if status.in_conflict() || status.marked {
            let dir = if fid.is_directory() { fid } else { status.parent };
            self.add(dir, path_of(self.view, fid)?, &status, &[]);
        }
        Ok(())
    }

    /// A name that several objects have.
    fn name(&mut self, dir: Fid, name: &[u8]) -> Result<(), Refusal> {
        let bindings = self.view.bindings_named(dir, name)?;
        let mut shown: Vec<_> = bindings.iter().filter(|binding| binding.shown).collect();
        shown.sort_by_key(|binding| (binding.dot(), binding.fid));
        let mut seen = BTreeSet::new();
        let mut statuses = Vec::new();
        for binding in shown.into_iter().filter(|binding| seen.insert(binding.fid)) {
            statuses.extend(status(self.view, binding.fid, self.caller.who)?);
        }
        if let [first, others @ ..] = &statuses[..]
            && !others.is_empty()
        {
            let path = path_of(self.view, dir)?.map(|above| joined(&above, name));
            self.add(dir, path, first, others);
        }
        Ok(())
    }
}

fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    match above {
        b"" => name.to_vec(),
        above => [above, b"/", name].concat(),
    }
}

/// Where an object shows within its volume; `None` where it does not.
fn path_of(view: &View<'_>, fid: Fid) -> Result<Option<Vec<u8>>, StoreError> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = fid;
    while !at.is_root() {
        let places = view.bindings_of(at)?;
        let shown = places.into_iter().filter(|binding| binding.shown);
        let Some(place) = shown.max_by_key(|binding| binding.rank()) else { return Ok(None) };
        names.push(place.name);
        at = place.dir;
        if names.len() > DEPTH {
            return Ok(None);
        }
    }
    names.reverse();
    Ok(Some(names.join(&b'/')))
}
