//! A replica for tests of what a store keeps.

use coda_proto::{Acl, Rights, VolumeId};

use super::{NewReplica, Replica, StoreError, Txn};
use crate::config::Durability;

pub const VOLUME: VolumeId = VolumeId(0x7f00_0009);

/// A replica with a root directory, gone with the test.
pub struct Trying {
    _dir: tempfile::TempDir,
    pub replica: Replica,
}

impl Trying {
    pub fn new() -> Trying {
        let dir = tempfile::tempdir().unwrap();
        let new = NewReplica { volume: VOLUME, replica: 1, acl: Acl::root(Rights::ALL), joining: false };
        Replica::create(dir.path(), &new, Durability::Process, 0).unwrap();
        let replica = Replica::open(dir.path(), VOLUME, 1, 9, Durability::Process, 0).unwrap();
        Trying { _dir: dir, replica }
    }

    /// One job of the writer.
    pub fn job<T>(&self, job: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError>) -> T {
        let mut answer = None;
        self.replica
            .write(|batch| batch.job(|txn| job(txn).map(|value| answer = Some(value))), || Ok(()))
            .unwrap();
        answer.unwrap()
    }
}
