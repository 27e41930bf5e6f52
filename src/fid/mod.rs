//! Objects of all realms, and the one that venus makes up: `/coda` itself.
//!
//! A fid names an object within its realm for ever. Locally the realm's number stands in front of it; the
//! 20 bytes of both, big endian, are the key under which the store keeps the object, so that the objects
//! of one volume lie side by side.

use coda_proto::{Fid, VolumeId};

use crate::venus::face::ObjectId;

/// The volume that exists on this machine only.
pub const LOCAL_VOLUME: VolumeId = VolumeId(0xff00_0001);

/// The volume of the versions that venus shows beside a name in conflict.
pub const VERSIONS: VolumeId = VolumeId(0xff00_0002);

/// What `/coda` is.
pub const CODA: ObjectId = ObjectId { realm: 0, fid: Fid { volume: LOCAL_VOLUME, vnode: 1, unique: 1 } };

/// Bytes of an object's key.
pub const KEY: usize = 20;

/// The key of an object.
pub fn key(id: ObjectId) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[0..4].copy_from_slice(&id.realm.to_be_bytes());
    key[4..8].copy_from_slice(&id.fid.volume.0.to_be_bytes());
    key[8..12].copy_from_slice(&id.fid.vnode.to_be_bytes());
    key[12..20].copy_from_slice(&id.fid.unique.to_be_bytes());
    key
}

/// The object of a key; `None` where the bytes are no key.
pub fn from_key(key: &[u8]) -> Option<ObjectId> {
    let number = |range: std::ops::Range<usize>| Some(u32::from_be_bytes(key.get(range)?.try_into().ok()?));
    let unique = u64::from_be_bytes(key.get(12..20)?.try_into().ok()?);
    let fid = Fid { volume: VolumeId(number(4..8)?), vnode: number(8..12)?, unique };
    (key.len() == KEY).then_some(ObjectId { realm: number(0..4)?, fid })
}

/// The first and the last key that objects of a volume can have.
pub fn volume_keys(realm: u32, volume: VolumeId) -> ([u8; KEY], [u8; KEY]) {
    let end = |vnode, unique| key(ObjectId { realm, fid: Fid { volume, vnode, unique } });
    (end(0, 0), end(u32::MAX, u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_object() {
        let id =
            ObjectId { realm: 3, fid: Fid { volume: VolumeId(0x7f00_0001), vnode: 5, unique: u64::MAX } };
        assert_eq!(from_key(&key(id)), Some(id));
        assert_eq!(from_key(&key(id)[1..]), None);
        let (first, last) = volume_keys(3, id.fid.volume);
        assert!(first < key(id) && key(id) < last);
    }
}
