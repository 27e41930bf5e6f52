//! The hoard: what people want to have here, and which objects that makes.

use coda_proto::VolumeId;
use rusqlite::params;

use super::{Result, Store, broken, malformed};
use crate::{
    fid::{from_key, key},
    venus::face::ObjectId,
};

/// Tables that older versions of venus do without, so they are made whenever they are missing.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS hoard (
        realm INTEGER NOT NULL, volume INTEGER NOT NULL, path BLOB NOT NULL, uid INTEGER NOT NULL,
        priority INTEGER NOT NULL, reach INTEGER NOT NULL, PRIMARY KEY (realm, volume, path)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS hoard_most (
        realm INTEGER NOT NULL, volume INTEGER NOT NULL, path BLOB NOT NULL, bytes INTEGER NOT NULL,
        PRIMARY KEY (realm, volume, path)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS hoarded (id BLOB PRIMARY KEY, priority INTEGER NOT NULL) WITHOUT ROWID;
";

/// How far an entry reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The object alone.
    Itself = 0,
    /// What is in it, now and in future.
    Children = 1,
    /// All that is below it, now and in future.
    Descendants = 2,
    /// The path is a pattern: what it matches, and all that is below that, now and in future.
    Matching = 3,
}

/// One thing that somebody wants to have here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The realm of its volume.
    pub realm: u32,
    /// Its volume.
    pub volume: VolumeId,
    /// Names from the volume's root, with `/` between them; empty: the root.
    pub path: Vec<u8>,
    /// Who wants it.
    pub uid: u32,
    /// How much, 1 to 1,000.
    pub priority: u32,
    /// How far it reaches.
    pub reach: Reach,
    /// No more bytes than this, the newest files first.
    pub most: Option<u64>,
}

impl Store {
    /// Keeps a wish, instead of an earlier one about the same path.
    pub fn wish(&self, wish: &Wish) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO hoard (realm, volume, path, uid, priority, reach)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .and_then(|mut put| {
                put.execute(params![
                    wish.realm,
                    wish.volume.0,
                    wish.path,
                    wish.uid,
                    wish.priority,
                    wish.reach as i32
                ])
            })
            .and_then(|_| {
                let key = params![wish.realm, wish.volume.0, wish.path];
                self.db
                    .prepare_cached("DELETE FROM hoard_most WHERE realm = ? AND volume = ? AND path = ?")?
                    .execute(key)?;
                let Some(most) = wish.most else { return Ok(0) };
                self.db
                    .prepare_cached(
                        "INSERT INTO hoard_most (realm, volume, path, bytes) VALUES (?, ?, ?, ?)",
                    )?
                    .execute(params![
                        wish.realm,
                        wish.volume.0,
                        wish.path,
                        i64::try_from(most).unwrap_or(i64::MAX)
                    ])
            })
            .map_err(broken)?;
        Ok(())
    }

    /// All wishes, the most urgent first, then in order of paths.
    pub fn wishes(&self) -> Result<Vec<Wish>> {
        let mut ask = self
            .db
            .prepare_cached(
                "SELECT realm, volume, path, uid, priority, reach, bytes FROM hoard
                 LEFT JOIN hoard_most USING (realm, volume, path)
                 ORDER BY priority DESC, realm, volume, path",
            )
            .map_err(broken)?;
        let rows = ask
            .query_map([], |row| {
                Ok(Wish {
                    realm: row.get(0)?,
                    volume: VolumeId(row.get(1)?),
                    path: row.get(2)?,
                    uid: row.get(3)?,
                    priority: row.get(4)?,
                    reach: match row.get::<_, i32>(5)? {
                        0 => Reach::Itself,
                        1 => Reach::Children,
                        2 => Reach::Descendants,
                        _ => Reach::Matching,
                    },
                    most: row.get::<_, Option<i64>>(6)?.map(|most| most.max(0) as u64),
                })
            })
            .map_err(broken)?;
        rows.collect::<rusqlite::Result<_>>().map_err(broken)
    }

    /// Forgets a wish. Answers whether there was one.
    pub fn unwish(&self, realm: u32, volume: VolumeId, path: &[u8]) -> Result<bool> {
        let gone = self
            .db
            .prepare_cached("DELETE FROM hoard WHERE realm = ? AND volume = ? AND path = ?")
            .and_then(|mut gone| {
                let key = params![realm, volume.0, path];
                self.db
                    .prepare_cached("DELETE FROM hoard_most WHERE realm = ? AND volume = ? AND path = ?")?
                    .execute(key)?;
                gone.execute(key)
            })
            .map_err(broken)?;
        Ok(gone > 0)
    }

    /// Says which objects the wishes make: those are evicted for nothing else.
    pub fn set_hoarded(&mut self, objects: &[(ObjectId, u32)]) -> Result<()> {
        let tx = self.db.transaction().map_err(broken)?;
        tx.execute("DELETE FROM hoarded", []).map_err(broken)?;
        {
            let mut put =
                tx.prepare_cached("INSERT INTO hoarded (id, priority) VALUES (?, ?)").map_err(broken)?;
            for (id, priority) in objects {
                put.execute(params![&key(*id)[..], priority]).map_err(broken)?;
            }
        }
        tx.commit().map_err(broken)
    }

    /// Whether an object is hoarded.
    pub fn is_hoarded(&self, id: ObjectId) -> Result<bool> {
        let mut ask = self.db.prepare_cached("SELECT 1 FROM hoarded WHERE id = ?").map_err(broken)?;
        ask.exists([&key(id)[..]]).map_err(broken)
    }

    /// Bytes of contents that are here of hoarded objects.
    pub fn hoarded_bytes(&self) -> Result<u64> {
        self.db
            .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM hoarded JOIN object USING (id)")
            .and_then(|mut ask| ask.query_row([], |row| row.get::<_, i64>(0)))
            .map(|bytes| bytes as u64)
            .map_err(broken)
    }

    /// The hoarded objects.
    pub fn hoarded(&self) -> Result<Vec<ObjectId>> {
        let mut ask = self.db.prepare_cached("SELECT id FROM hoarded").map_err(broken)?;
        let rows = ask.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(broken)?;
        rows.map(|row| from_key(&row.map_err(broken)?).ok_or_else(|| malformed("an object's key"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use coda_proto::Fid;

    use super::*;

    #[test]
    fn a_wish_about_the_same_path_replaces_the_earlier_one() {
        let store = Store::open(None).unwrap();
        let wish = |path: &str, priority| Wish {
            realm: 1,
            volume: VolumeId(7),
            path: path.into(),
            uid: 5,
            priority,
            reach: Reach::Children,
            most: (priority > 10).then_some(1 << 40),
        };
        for (path, priority) in [("a", 10), ("b", 20), ("a", 30)] {
            store.wish(&wish(path, priority)).unwrap();
        }
        assert_eq!(store.wishes().unwrap(), [wish("a", 30), wish("b", 20)]);
        assert!(store.unwish(1, VolumeId(7), b"a").unwrap());
        assert!(!store.unwish(1, VolumeId(7), b"a").unwrap());
    }

    #[test]
    fn what_is_hoarded_is_replaced_as_a_whole() {
        let mut store = Store::open(None).unwrap();
        let id = |vnode| ObjectId { realm: 1, fid: Fid { volume: VolumeId(7), vnode, unique: 1 } };
        store.set_hoarded(&[(id(2), 1), (id(4), 1)]).unwrap();
        store.set_hoarded(&[(id(4), 9)]).unwrap();
        assert!(store.is_hoarded(id(4)).unwrap() && !store.is_hoarded(id(2)).unwrap());
        assert_eq!(store.hoarded().unwrap(), [id(4)]);
    }
}
