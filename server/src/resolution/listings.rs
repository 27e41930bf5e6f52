//! A directory whose listing changed although its past did not gets a new version: by a join (`Joined::relisted`), or by
//! a record that brings back what was removed.
//!
//! In one transaction a directory comes with its children. Where a replica is filled in many they come one after the
//! other, and until all of them are in, nobody can tell which of the two it is. Nobody is served by such a replica
//! meanwhile.

use std::collections::BTreeSet;

use coda_proto::{
    Base, Code, Fid, Op, Record, Refusal,
    merge::{self, ApplyError, Joined, Replica as _},
};

use crate::{store::Txn, volume::Volume};

/// Directories, so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Listings {
    relisted: BTreeSet<Fid>,
    renewed: BTreeSet<Fid>,
}

impl Listings {
    /// One more transaction.
    pub(super) fn add(&mut self, joined: &Joined) {
        for fid in joined.changed.iter().filter(|fid| fid.is_directory()) {
            match joined.relisted.binary_search(fid) {
                Ok(_) => self.relisted.insert(*fid),
                Err(_) => self.renewed.insert(*fid),
            };
        }
    }

    /// Which of them need a new version, as far as is known.
    pub(super) fn relisted(&self) -> Vec<Fid> {
        self.relisted.difference(&self.renewed).copied().collect()
    }
}

/// Gives a directory a new version: its listing changed by what happened to objects elsewhere, and a client
/// that was away could not tell.
pub(crate) fn renew(txn: &mut Txn<'_>, volume: &Volume, dir: Fid) -> Result<(), Refusal> {
    let Some(head) = txn.head(dir)? else { return Ok(()) };
    if head.past.is_empty() {
        return Ok(());
    }
    let own = volume.meetings.author();
    let retired = txn.retired(own)?.is_some();
    let dot = volume.meetings.next_dot(|author| retired && author == own, || volume.env().random());
    let record = Record {
        dot,
        lamport: head.lamport().max(txn.listing_lamport(dir)?) + 1,
        time: head.mtime(),
        changed: head.ctime().saturating_add(1),
        bases: vec![Base { fid: dir, past: head.past }],
        logged: true,
        host: String::new(),
        op: Op::SetAttr { fid: dir, mode: None, owner: None, group: None, mtime: None, atime: None },
    };
    match merge::apply(txn, &record) {
        Ok(_) => {
            volume.meetings.changed([record.dot]);
            Ok(())
        }
        // A directory that does not show needs no version.
        Err(ApplyError::Refused(Refusal { code: Code::Gone, .. })) => Ok(()),
        Err(ApplyError::Refused(refusal)) => Err(refusal),
        Err(ApplyError::Store(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, VolumeId};

    use super::*;

    #[test]
    fn a_directory_that_came_in_another_transaction_than_its_children_needs_no_version_of_its_own() {
        let dir = |number| Fid::directory(VolumeId(1), Author(7), number);
        let joined = |changed: &[Fid], relisted: &[Fid]| Joined {
            changed: changed.to_vec(),
            relisted: relisted.to_vec(),
            contents_wanted: Vec::new(),
        };
        let mut listings = Listings::default();
        listings.add(&joined(&[dir(1)], &[]));
        listings.add(&joined(&[dir(1), dir(2), dir(3)], &[dir(1), dir(2), dir(3)]));
        listings.add(&joined(&[dir(3), Fid::file(VolumeId(1), Author(7), 4)], &[]));
        assert_eq!(listings.relisted(), [dir(2)]);
    }
}
