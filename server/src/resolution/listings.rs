//! What a replica that is filled in many transactions did to the listings of directories.
//!
//! A directory whose listing changed although its past did not gets a new version (`Joined::relisted`). In one
//! transaction a directory comes with its children; in many they come one after the other, and until all of them are
//! in, nobody can tell which of the two it is. Nobody is served by such a replica meanwhile.

use std::collections::BTreeSet;

use coda_proto::{Fid, merge::Joined};

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
