//! An object's registers by name: the one place that knows how they are encoded.

use std::collections::{BTreeMap, BTreeSet};

use super::{Head, Register};
use crate::{
    Acl, Author, Dot, Fid, Kind, Past, VolumeId,
    acl::ACL_LIMIT,
    planted::{Bug, planted},
};

const MODE: &[u8] = b"mode";
const OWNER: &[u8] = b"owner";
const GROUP: &[u8] = b"group";
const MTIME: &[u8] = b"mtime";
const ATIME: &[u8] = b"atime";
const CTIME: &[u8] = b"ctime";
const QUOTA_MIN: &[u8] = b"quota.min";
const QUOTA_MAX: &[u8] = b"quota.max";
const ACL: &[u8] = b"acl";
const MADE: &[u8] = b"made";
const XATTR: &[u8] = b"x:";

/// Who wrote a value, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamped {
    /// Lamport time of the record.
    pub lamport: u64,
    /// The record.
    pub dot: Dot,
}

impl Head {
    /// An object of which nothing is known yet: a runt.
    pub fn runt(fid: Fid, kind: Kind) -> Head {
        Head {
            fid,
            kind,
            past: Past::default(),
            siblings: Vec::new(),
            target: Vec::new(),
            registers: BTreeMap::new(),
            acls: BTreeMap::new(),
            marked: false,
        }
    }

    /// The root of a new volume: the same at every member, with one dot from its creation.
    pub fn root(volume: VolumeId, acl: &Acl, mode: u32, owner: u32) -> Head {
        let mut head = Head::runt(Fid::root(volume), Kind::Directory);
        let birth = Stamped { lamport: 1, dot: Dot::new(Author(1), 1) };
        head.past = Past::of(birth.dot);
        head.set_mode(mode, birth);
        head.set_owner(owner, birth);
        head.set_mtime(0, birth);
        head.set_ctime(0, birth);
        head.set_acl(acl, &BTreeSet::new(), birth);
        head
    }

    /// Permission bits.
    pub fn mode(&self) -> u32 {
        self.number(MODE) as u32 & 0o7777
    }
    /// Local user number of the owner.
    pub fn owner(&self) -> u32 {
        self.number(OWNER) as u32
    }
    /// Local group number.
    pub fn group(&self) -> u32 {
        self.number(GROUP) as u32
    }
    /// Nanoseconds since 1970.
    pub fn mtime(&self) -> i64 {
        self.number(MTIME)
    }
    /// The access time that somebody set.
    pub fn atime(&self) -> Option<i64> {
        self.value(ATIME).map(|_| self.number(ATIME))
    }
    /// When it last changed in any way: the latest time of all records that it includes. Of an object that was last
    /// changed before this was kept, its modification time.
    pub fn ctime(&self) -> i64 {
        if self.value(CTIME).is_some() { self.number(CTIME) } else { self.mtime() }
    }
    /// Blocks of 1 KiB kept for the volume; 0: none.
    pub fn quota_min(&self) -> u64 {
        self.number(QUOTA_MIN) as u64
    }
    /// Blocks of 1 KiB the volume may use; 0: any number.
    pub fn quota_max(&self) -> u64 {
        self.number(QUOTA_MAX) as u64
    }
    /// The machine on which it was made, and when by that machine's clock.
    pub fn made(&self) -> (String, i64) {
        match self.value(MADE).and_then(|bytes| bytes.split_first_chunk()) {
            Some((time, host)) => (String::from_utf8_lossy(host).into_owned(), i64::from_le_bytes(*time)),
            None => (String::new(), 0),
        }
    }
    /// What every list set concurrently allows; nothing where none is set.
    pub fn acl(&self) -> Acl {
        decode_acl(self.value(ACL).unwrap_or_default())
    }
    /// Extended attributes, by name.
    pub fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named = self
            .registers
            .iter()
            .filter_map(|(key, register)| Some((key.strip_prefix(XATTR)?.to_vec(), register.value.clone()?)));
        named.collect()
    }
    /// The highest Lamport time that its registers hold. (Its bindings have their own.)
    pub fn lamport(&self) -> u64 {
        let registers = self.registers.values().chain(self.acls.values());
        registers.map(|register| register.lamport).max().unwrap_or(0)
    }

    /// Sets the permission bits, unless a later record did.
    pub fn set_mode(&mut self, mode: u32, by: Stamped) {
        self.set_number(MODE, Some((mode & 0o7777).into()), by);
    }
    /// Sets the owner, unless a later record did.
    pub fn set_owner(&mut self, owner: u32, by: Stamped) {
        self.set_number(OWNER, Some(owner.into()), by);
    }
    /// Sets the group, unless a later record did.
    pub fn set_group(&mut self, group: u32, by: Stamped) {
        self.set_number(GROUP, Some(group.into()), by);
    }
    /// Sets the modification time, unless a later record did.
    pub fn set_mtime(&mut self, mtime: i64, by: Stamped) {
        self.set_number(MTIME, Some(mtime), by);
    }
    /// Sets the access time, unless a later record did.
    pub fn set_atime(&mut self, atime: i64, by: Stamped) {
        self.set_number(ATIME, Some(atime), by);
    }
    /// A record changed it at this time.
    pub fn set_ctime(&mut self, ctime: i64, by: Stamped) {
        self.set_number(CTIME, Some(ctime), by);
    }
    /// Says who made it. Nothing ever changes that.
    pub(super) fn set_made(&mut self, host: &str, time: i64, by: Stamped) {
        let value = [&time.to_le_bytes(), host.as_bytes()].concat();
        self.set(MADE, Some(value), by);
    }
    /// Sets the quota, as far as given, unless a later record did.
    pub fn set_quota(&mut self, min: Option<u64>, max: Option<u64>, by: Stamped) {
        for (key, blocks) in [(QUOTA_MIN, min), (QUOTA_MAX, max)] {
            if let Some(blocks) = blocks {
                self.set_number(key, Some(blocks as i64), by);
            }
        }
    }
    /// Sets or removes an extended attribute, unless a later record did.
    pub fn set_xattr(&mut self, name: &[u8], value: Option<&[u8]>, by: Stamped) {
        self.set(&[XATTR, name].concat(), value.map(<[u8]>::to_vec), by);
    }
    /// Sets the list of a directory, instead of the lists that these records set.
    pub fn set_acl(&mut self, acl: &Acl, replaced: &BTreeSet<Dot>, by: Stamped) {
        self.acls.retain(|dot, _| !replaced.contains(dot));
        let value = Some(acl.to_text().into_bytes());
        self.acls.insert(by.dot, Register { value, lamport: by.lamport, dot: by.dot });
        self.settle_acl();
    }

    /// Works out `acl` and its mark from the lists set.
    pub(super) fn settle_acl(&mut self) {
        let allowed = self.acls.values().map(|list| decode_acl(list.value.as_deref().unwrap_or_default()));
        let latest = self.acls.values().map(|list| (list.lamport, list.dot)).max();
        match (allowed.reduce(|all, one| all.intersection(&one)), latest) {
            (Some(acl), Some((lamport, dot))) => {
                let value = Some(bounded(acl).to_text().into_bytes());
                self.registers.insert(ACL.to_vec(), Register { value, lamport, dot });
            }
            _ => {
                self.registers.remove(ACL);
            }
        }
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.registers.get(key)?.value.as_deref()
    }
    fn number(&self, key: &[u8]) -> i64 {
        self.value(key).map_or(0, number_in)
    }
    fn set_number(&mut self, key: &[u8], number: Option<i64>, by: Stamped) {
        self.set(key, number.map(|number| number.to_le_bytes().to_vec()), by);
    }
    fn set(&mut self, key: &[u8], value: Option<Vec<u8>>, by: Stamped) {
        let register = Register { value, lamport: by.lamport, dot: by.dot };
        join_register(&mut self.registers, key.to_vec(), register);
    }
}

/// Keeps the register with the larger (Lamport time, dot). One record writes one value, so equals are equal. Of change
/// times the latest is kept, whoever wrote it: it never goes back.
pub(super) fn join_register(registers: &mut BTreeMap<Vec<u8>, Register>, key: Vec<u8>, register: Register) {
    let time = |register: &Register| if planted(Bug::IgnoresLamport) { 0 } else { register.lamport };
    let latest = |register: &Register| match &register.value {
        Some(value) if key == CTIME => number_in(value),
        _ => 0,
    };
    let rank = |register: &Register| (latest(register), time(register), register.dot, register.value.clone());
    match registers.get(&key) {
        Some(held) if rank(held) >= rank(&register) => {}
        _ => {
            registers.insert(key, register);
        }
    }
}

fn number_in(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

/// Whether a register is worked out from others, and does not travel.
pub(super) fn is_derived(key: &[u8]) -> bool {
    key == ACL
}

pub(super) fn decode_acl(bytes: &[u8]) -> Acl {
    std::str::from_utf8(bytes).ok().and_then(|text| Acl::from_text(text).ok()).unwrap_or_default()
}

/// The intersection of many lists may have more entries than a list holds: it then gives less.
fn bounded(mut acl: Acl) -> Acl {
    while acl.positive.len() + acl.negative.len() > ACL_LIMIT && acl.positive.pop_last().is_some() {}
    while acl.negative.len() > ACL_LIMIT {
        acl.negative.pop_last();
    }
    acl
}
