//! What files were before is for nobody who could not read it then.
//!
//! A file's directory says who may read it, what it was included. So where another directory comes to govern a file,
//! or the list of its directory lets in somebody who was kept out, what it was is forgotten. (Who may read what is
//! asked of the present list alone: that of each former time would have to be kept with each former version.)

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Acl, Fid, Kind, Rights, merge::Head};
use rusqlite::params;

use super::{
    StoreError, Txn, View,
    rows::{fid, signed},
};
use crate::rights::governor;

/// What a transaction did to who may read.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    /// Files whose places it changed, and what governed them before.
    governed: BTreeMap<Fid, Fid>,
    /// Directories whose lists let in somebody.
    opened: BTreeSet<Fid>,
}

impl View<'_> {
    /// Whether a file has contents, present or former.
    fn has_bytes(&self, file: Fid) -> Result<bool, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT 1 FROM content WHERE vnode = ?1 AND uniq = ?2
             UNION ALL SELECT 1 FROM former WHERE vnode = ?1 AND uniq = ?2",
        )?;
        Ok(query.exists(params![file.vnode, signed(file.unique)])?)
    }

    /// Files of which former contents are kept, and that are or were in a directory.
    fn with_formers_in(&self, dir: Fid) -> Result<Vec<Fid>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT vnode, uniq FROM binding JOIN former USING (vnode, uniq) WHERE dir_vnode = ?1 AND dir_uniq = ?2
             UNION SELECT vnode, uniq FROM tombstone JOIN former USING (vnode, uniq)
             WHERE dir_vnode = ?1 AND dir_uniq = ?2",
        )?;
        let found = query.query_map(params![dir.vnode, signed(dir.unique)], |row| {
            Ok(fid(self.volume, row.get(0)?, row.get(1)?))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}

impl Txn<'_> {
    /// The places of an object are about to change.
    pub(super) fn moves(&mut self, child: Fid) -> Result<(), StoreError> {
        if !child.is_directory() && !self.exposed.governed.contains_key(&child) && self.has_bytes(child)? {
            let before = governor(self, child)?;
            self.exposed.governed.insert(child, before);
        }
        Ok(())
    }

    /// A directory's head is about to be written.
    pub(super) fn opens(&mut self, head: &Head) -> Result<(), StoreError> {
        if head.kind != Kind::Directory {
            return Ok(());
        }
        // Where nothing was known of a directory nobody was let in.
        let before = self.head(head.fid)?.filter(|before| !before.past.is_empty());
        if lets_in(&before.map(|before| before.acl()).unwrap_or_default(), &head.acl()) {
            self.exposed.opened.insert(head.fid);
        }
        Ok(())
    }

    /// Forgets what more may read now than could then.
    pub(super) fn forget_exposed(&mut self) -> Result<(), StoreError> {
        let exposed = std::mem::take(&mut self.exposed);
        for (file, before) in exposed.governed {
            if governor(self, file)? != before {
                self.forget_formers_of(file)?;
            }
        }
        for dir in exposed.opened {
            for file in self.with_formers_in(dir)? {
                self.forget_formers_of(file)?;
            }
        }
        Ok(())
    }
}

/// Whether a list lets somebody read, whoever that is, whom another kept out.
fn lets_in(before: &Acl, now: &Acl) -> bool {
    let reads = |rights: Option<&Rights>| rights.is_some_and(|rights| rights.has(Rights::READ));
    let given = |who: &String| reads(now.positive.get(who)) && !reads(before.positive.get(who));
    let freed = |who: &String| reads(before.negative.get(who)) && !reads(now.negative.get(who));
    now.positive.keys().any(given) || before.negative.keys().any(freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_lets_in_whoever_is_given_to_read_or_no_longer_denied_it() {
        let list = |positive: &[(&str, Rights)], negative: &[(&str, Rights)]| {
            let entries =
                |of: &[(&str, Rights)]| of.iter().map(|(who, may)| ((*who).to_owned(), *may)).collect();
            Acl { positive: entries(positive), negative: entries(negative) }
        };
        let (a, ab) = (&[("a", Rights::ALL)][..], &[("a", Rights::ALL), ("b", Rights::READ)][..]);
        assert!(lets_in(&list(a, &[]), &list(ab, &[])));
        assert!(!lets_in(&list(ab, &[]), &list(a, &[])));
        assert!(!lets_in(&list(a, &[]), &list(&[("a", Rights::READ), ("b", Rights::INSERT)], &[])));
        let denied = &[("b", Rights::READ)][..];
        assert!(lets_in(&list(ab, denied), &list(ab, &[])));
        assert!(!lets_in(&list(ab, &[]), &list(ab, denied)));
    }
}
