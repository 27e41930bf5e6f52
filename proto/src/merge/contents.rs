//! Which of a file's contents show.
//!
//! Like the tree, this is a function of the joined rows and never changes them: a name that a rename made
//! apart may arrive later and say that the file was never meant to go, and then all contents are wanted.

use super::{Binding, Head, Tombstone};
use crate::{Past, Sibling};

/// What the removes of an object saw, together. (What a rename saw is kept apart: it removed nothing.)
pub(super) fn seen_by_removers(tombstones: &[Tombstone]) -> Past {
    let mut seen = Past::default();
    tombstones.iter().filter(|tombstone| !tombstone.rename).for_each(|tombstone| seen.join(&tombstone.seen));
    seen
}

/// The contents that show, in order of dot. All of a file's siblings, unless it has no name but the one at
/// which it came back: then what its removers saw stays removed, and members may have dropped those bytes.
/// Where something else than contents brought it back there is nothing else to show, so they do.
pub fn contents_shown(head: &Head, bindings: &[Binding], tombstones: &[Tombstone]) -> Vec<Sibling> {
    if head.siblings.len() < 2 || bindings.iter().any(|place| !place.dots.is_empty()) {
        return head.siblings.clone();
    }
    let seen = seen_by_removers(tombstones);
    let unseen: Vec<Sibling> = head.siblings.iter().filter(|one| !seen.covers(one.dot)).cloned().collect();
    match unseen.is_empty() {
        true => head.siblings.clone(),
        false => unseen,
    }
}
