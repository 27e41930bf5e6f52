//! Seals of volumes, as they outlast a restart: what members held when, and of which objects that is known.
//!
//! What is kept here was true once and stays so: *a member held what is cached under this digest, at its stamp or
//! later*. A break, a mutation or a crash makes nothing of it false; whether it is still of use the members are asked.
//! So rows may be missing or old, and an object that is something else by now has another digest. The one thing that
//! must never come apart is a younger stamp and what changed before it: both are one transaction.

use coda_proto::{ServerId, VolumeId, wire};
use rusqlite::{OptionalExtension, params};

use super::{Result, Store, broken, malformed};
use crate::{fid::key, venus::face::ObjectId};

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS seal (
        realm INTEGER NOT NULL, volume INTEGER NOT NULL, server INTEGER NOT NULL, generation INTEGER NOT NULL,
        bit INTEGER NOT NULL, incarnation INTEGER NOT NULL, change_seq INTEGER NOT NULL,
        PRIMARY KEY (realm, volume, server)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS sealed (
        id BLOB PRIMARY KEY, generation INTEGER NOT NULL, members INTEGER NOT NULL, digest BLOB NOT NULL
    ) WITHOUT ROWID;
";

/// The seal of a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSeal {
    /// The realm's number.
    pub realm: u32,
    /// The volume.
    pub volume: VolumeId,
    /// What is said of objects counts for the seal of the same generation only: another one's bits mean other members.
    pub generation: i64,
    /// Each member, its bit, and its stamp.
    pub members: Vec<(ServerId, u64, wire::Stamp)>,
}

/// Which members held what is cached of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// The object.
    pub id: ObjectId,
    /// Of the seal.
    pub generation: i64,
    /// The bits of those members; none: nothing is known any more.
    pub members: u64,
    /// Of the version that they held.
    pub digest: [u8; 16],
}

impl Store {
    /// All seals.
    pub fn seals(&self) -> Result<Vec<KeptSeal>> {
        let mut ask = self
            .db
            .prepare(
                "SELECT realm, volume, generation, server, bit, incarnation, change_seq FROM seal
                 ORDER BY realm, volume, server",
            )
            .map_err(broken)?;
        let columns = |row: &rusqlite::Row<'_>| {
            let of: (u32, u32, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let member: (u32, i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?);
            Ok((of, member))
        };
        let mut seals: Vec<KeptSeal> = Vec::new();
        for row in ask.query_map([], columns).map_err(broken)? {
            let ((realm, volume, generation), (server, bit, incarnation, seq)) = row.map_err(broken)?;
            let server = ServerId::new(server).map_err(malformed)?;
            let stamp = wire::Stamp { incarnation: incarnation as u64, change_seq: seq as u64 };
            let member = (server, bit as u64, stamp);
            let volume = VolumeId(volume);
            match seals.last_mut() {
                Some(last) if (last.realm, last.volume) == (realm, volume) => last.members.push(member),
                _ => seals.push(KeptSeal { realm, volume, generation, members: vec![member] }),
            }
        }
        Ok(seals)
    }

    /// A generation that no seal had before.
    pub fn next_generation(&self) -> Result<i64> {
        let last = self.kept("seals")?.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
        self.keep("seals", &(last + 1).to_le_bytes())?;
        Ok(last + 1)
    }

    /// Keeps seals, and what is said of objects, as one.
    pub fn keep_seals(&mut self, seals: &[KeptSeal], objects: &[Sealed]) -> Result<()> {
        let tx = self.db.transaction().map_err(broken)?;
        let written = (|| {
            let mut clear = tx.prepare_cached("DELETE FROM seal WHERE realm = ? AND volume = ?")?;
            let mut put = tx.prepare_cached(
                "INSERT INTO seal (realm, volume, server, generation, bit, incarnation, change_seq)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?;
            for seal in seals {
                clear.execute(params![seal.realm, seal.volume.0])?;
                for (server, bit, stamp) in &seal.members {
                    let (incarnation, seq) = (stamp.incarnation as i64, stamp.change_seq as i64);
                    let of = (seal.realm, seal.volume.0, server.0, seal.generation);
                    put.execute(params![of.0, of.1, of.2, of.3, *bit as i64, incarnation, seq])?;
                }
            }
            let mut say = tx.prepare_cached(
                "INSERT OR REPLACE INTO sealed (id, generation, members, digest)
                 SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM object WHERE id = ?1)",
            )?;
            for object in objects {
                say.execute(params![
                    &key(object.id)[..],
                    object.generation,
                    object.members as i64,
                    &object.digest[..]
                ])?;
            }
            Ok(())
        })();
        written.and_then(|()| tx.commit()).map_err(broken)
    }

    /// What is said of an object.
    pub fn sealed(&self, id: ObjectId) -> Result<Option<Sealed>> {
        let mut ask = self
            .db
            .prepare_cached("SELECT generation, members, digest FROM sealed WHERE id = ?")
            .map_err(broken)?;
        let found = ask
            .query_row([&key(id)[..]], |row| {
                let members: i64 = row.get(1)?;
                Ok(Sealed { id, generation: row.get(0)?, members: members as u64, digest: row.get(2)? })
            })
            .optional();
        found.map_err(broken)
    }

    /// Nothing is known of an object any more.
    pub fn unseal(&self, id: ObjectId) -> Result<()> {
        let mut gone = self.db.prepare_cached("DELETE FROM sealed WHERE id = ?").map_err(broken)?;
        gone.execute([&key(id)[..]]).map(drop).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coda_proto::{Fid, Kind};

    use super::*;
    use crate::store::{Change, Edit, Row};

    #[test]
    fn a_seal_and_what_it_says_of_objects_are_kept_until_the_object_goes() {
        let mut store = Store::open(None).unwrap();
        let id = ObjectId { realm: 1, fid: Fid { volume: VolumeId(7), vnode: 2, unique: u64::MAX } };
        let stamp = wire::Stamp { incarnation: u64::MAX, change_seq: 5 };
        let members = vec![(ServerId(1), 1, stamp), (ServerId(9), 2, stamp)];
        let seal = KeptSeal { realm: 1, volume: VolumeId(7), generation: 1, members };
        let sealed = Sealed { id, generation: 1, members: 3, digest: [4; 16] };
        assert_eq!((store.next_generation().unwrap(), store.next_generation().unwrap()), (1, 2));
        store.keep_seals(std::slice::from_ref(&seal), std::slice::from_ref(&sealed)).unwrap();
        assert_eq!(store.sealed(id).unwrap(), None, "nothing of it is cached");
        let status = wire::Status {
            fid: Some(id.fid.into()),
            kind: Kind::File.into(),
            parent: Some(Fid::root(VolumeId(7)).into()),
            past: Some(wire::Past::default()),
            ..Default::default()
        };
        let row = Arc::new(Row::new(status.try_into().unwrap()));
        store.apply(&Change::of(Edit::Put(id, row)), 0).unwrap();
        store.keep_seals(&[], std::slice::from_ref(&sealed)).unwrap();
        assert_eq!(store.sealed(id).unwrap(), Some(sealed));
        let later = KeptSeal { generation: 2, members: vec![(ServerId(9), 4, stamp)], ..seal };
        store.keep_seals(std::slice::from_ref(&later), &[]).unwrap();
        assert_eq!(store.seals().unwrap(), [later]);
        store.apply(&Change::of(Edit::Drop(id)), 0).unwrap();
        assert_eq!(store.sealed(id).unwrap(), None);
    }
}
