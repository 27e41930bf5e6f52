//! What two replicas make of each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Binding, ObjectState, Replica, shown::settle, state_of};
use crate::{Author, Fid, Sibling};

/// What joining changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Objects that are no longer what they were, and directories whose listings are not, in order of fid.
    pub changed: Vec<Fid>,
    /// Of these, directories whose listings changed although their pasts did not. A client that was away
    /// cannot tell: give them a new version.
    pub relisted: Vec<Fid>,
    /// Contents that became part of this replica and whose bytes it may lack.
    pub contents_wanted: Vec<(Fid, Sibling)>,
}

/// Joins what a peer sent, as one change. Each state is understood alone, in any order; the listings are
/// complete when all are in.
pub fn join_objects<R: Replica>(replica: &mut R, theirs: Vec<ObjectState>) -> Result<Joined, R::Error> {
    let mut joined = Joined::default();
    let mut changed = BTreeSet::new();
    let mut moved = BTreeSet::new();
    let mut listings = BTreeSet::new();
    for their in theirs {
        let fid = their.head.fid;
        let mine = state_of(replica, fid)?;
        let both = match &mine {
            Some(mine) => {
                let retired = retired_among(replica, mine, &their)?;
                mine.join(&their, |author| retired.get(&author).copied())
            }
            None => their,
        };
        if mine.as_ref() == Some(&both) {
            continue;
        }
        changed.insert(fid);
        let had = mine.as_ref().map_or(&[][..], |mine| &mine.head.siblings);
        let new = both.head.siblings.iter().filter(|sibling| !had.contains(sibling));
        joined.contents_wanted.extend(new.map(|sibling| (fid, sibling.clone())));
        let places = |state: &ObjectState| (state.bindings.clone(), state.tombstones.clone());
        if mine.as_ref().map(places) != Some(places(&both)) {
            moved.insert(fid);
        }
        listings.extend(write(replica, mine, both)?);
    }
    let pasts_changed = changed.clone();
    changed.extend(listings);
    changed.extend(settle(replica, &moved, &changed)?);
    let relisted = changed.iter().filter(|fid| fid.is_directory() && !pasts_changed.contains(fid));
    joined.relisted = relisted.copied().collect();
    joined.changed = changed.into_iter().collect();
    Ok(joined)
}

/// Writes the rows of `both` over those of `mine`. Answers the directories concerned.
fn write<R: Replica>(
    replica: &mut R,
    mine: Option<ObjectState>,
    both: ObjectState,
) -> Result<BTreeSet<Fid>, R::Error> {
    let key = |b: &Binding| (b.dir, b.name.clone(), b.origin);
    let held: Vec<Binding> = replica.bindings_of(both.head.fid)?;
    let mut listings = BTreeSet::new();
    for row in &held {
        if !row.dots.is_empty() && !both.bindings.iter().any(|binding| key(binding) == key(row)) {
            listings.insert(row.dir);
            replica.put_binding(Binding { dots: Default::default(), ..row.clone() })?;
        }
    }
    for binding in both.bindings {
        let row = held.iter().find(|row| key(row) == key(&binding));
        if row.is_some_and(|row| row.dots == binding.dots) {
            continue;
        }
        listings.insert(binding.dir);
        // How it stands is worked out afterwards; until then it stands as it did.
        let (derived, shown) = row.map_or((false, false), |row| (row.derived, row.shown));
        replica.put_binding(Binding { derived, shown, ..binding })?;
    }
    let had = mine.map(|mine| mine.tombstones).unwrap_or_default();
    for tombstone in both.tombstones.into_iter().filter(|tombstone| !had.contains(tombstone)) {
        replica.put_tombstone(tombstone)?;
    }
    let mut head = both.head;
    head.marked = head.acls.len() > 1;
    head.settle_acl();
    replica.put_head(head)?;
    Ok(listings)
}

/// When authors were retired that two states name. Only asked for where a past has them folded into one entry:
/// nothing else depends on it.
fn retired_among<R: Replica>(
    replica: &R,
    mine: &ObjectState,
    theirs: &ObjectState,
) -> Result<BTreeMap<Author, u64>, R::Error> {
    let mut stamps = BTreeMap::new();
    if !mine.head.past.is_folded() && !theirs.head.past.is_folded() {
        return Ok(stamps);
    }
    let mut authors = BTreeSet::new();
    for state in [mine, theirs] {
        let bound = state.bindings.iter().flat_map(|binding| binding.dots.keys().copied());
        let made = state.head.siblings.iter().map(|sibling| sibling.dot);
        let all = bound.chain(made).chain(state.head.acls.keys().copied()).chain(state.head.past.entries());
        authors.extend(all.map(|dot| dot.author));
    }
    for author in authors {
        stamps.extend(replica.retired(author)?.map(|stamp| (author, stamp)));
    }
    Ok(stamps)
}
