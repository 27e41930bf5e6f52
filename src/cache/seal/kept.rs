//! What is kept of seals, so that they outlast a restart.
//!
//! What is kept may be behind what is known here, since a seal with older stamps is
//! no less true. A stamp that a member's answer moved is kept at once, together with what that answer says of objects;
//! one that our own mutations moved is kept when there is time, as is what else was learnt of objects. A younger stamp
//! is never kept ahead of what is known of objects by then, and no member's bit ahead of the member: another one that is
//! met after a restart would get the same bit, and vouch for what it was never asked about.

use std::{collections::BTreeSet, ops::Bound};

use coda_proto::{Fid, VolumeId};

use super::{Member, Seal, Since, after};
use crate::{
    cache::{Cache, Ground, Node, Result},
    store::{KeptSeal, Row, Sealed},
    venus::face::ObjectId,
};

/// How many objects one transaction tells of: nobody waits long for it.
pub(super) const KEPT_AT_ONCE: usize = 1000;

/// What is not kept yet.
#[derive(Debug, Default)]
pub(in crate::cache) struct Unkept {
    /// Seals of which a stamp moved.
    pub seals: BTreeSet<(u32, VolumeId)>,
    /// Objects of which something else is known than is kept.
    pub objects: BTreeSet<ObjectId>,
}

impl Seal {
    /// The members that sealed an object, as far as what is kept of it is about the version cached.
    fn recalls(&self, sealed: &Sealed, row: &Row) -> u64 {
        let same = sealed.generation == self.generation && sealed.digest == row.status.past.digest();
        if same { sealed.members } else { 0 }
    }

    /// Members of which nothing is kept.
    pub fn has_new(&self) -> bool {
        self.members.values().any(|member| member.kept.is_none())
    }

    /// What is to be kept. `whole`: with all that is known of objects by now; else stamps stay where they are kept.
    fn to_keep(&self, (realm, volume): (u32, VolumeId), whole: bool) -> KeptSeal {
        let stamp = |member: &Member| member.kept.filter(|_| !whole).unwrap_or(member.stamp);
        let members = self.members.iter().map(|(server, member)| (*server, member.bit, stamp(member)));
        KeptSeal { realm, volume, generation: self.generation, members: members.collect() }
    }

    fn note_kept(&mut self, kept: &KeptSeal) {
        for (server, _, stamp) in &kept.members {
            if let Some(member) = self.members.get_mut(server) {
                member.kept = Some(*stamp);
            }
        }
    }

    /// What is kept is of no use. It begins anew, under another number.
    pub(super) fn forget_kept(&mut self) {
        self.generation = 0;
        self.members.values_mut().for_each(|member| member.kept = None);
    }
}

impl From<KeptSeal> for Seal {
    /// After a restart nobody promises anything.
    fn from(kept: KeptSeal) -> Seal {
        let member = |(server, bit, stamp)| (server, Member { bit, stamp, kept: Some(stamp) });
        Seal {
            members: kept.members.into_iter().map(member).collect(),
            doubted: true,
            generation: kept.generation,
            ..Seal::default()
        }
    }
}

impl Ground {
    /// What is kept of an object that comes into memory.
    pub(in crate::cache) fn recall(&self, id: ObjectId, node: &mut Node) -> Result<()> {
        let Some(seal) = self.seals.get(&(id.realm, id.fid.volume)).filter(|seal| seal.generation != 0)
        else {
            return Ok(());
        };
        if let Some(sealed) = self.kept_of(id)? {
            node.sealed = seal.recalls(&sealed, &node.row);
            node.by_volume = seal.believes(node.sealed);
        }
        Ok(())
    }

    /// What is kept of an object, unless something else was known of it since.
    fn kept_of(&self, id: ObjectId) -> Result<Option<Sealed>> {
        if self.unkept.objects.contains(&id) { Ok(None) } else { self.store.sealed(id) }
    }

    /// What is known of an object. Where it left the memory before that was kept, nothing.
    fn said_of(&self, id: ObjectId) -> Option<Sealed> {
        let generation = self.seals.get(&volume_of(&id))?.generation;
        let node = self.table.get(&id).filter(|node| !node.gone);
        let (members, digest) =
            node.map_or((0, [0; 16]), |node| (node.sealed, node.row.status.past.digest()));
        Some(Sealed { id, generation, members, digest })
    }

    /// Keeps what is not kept yet, of so many objects at most. Answers whether there is more.
    pub(in crate::cache) fn keep_seals(&mut self, objects: usize) -> Result<bool> {
        let ids: Vec<ObjectId> = self.unkept.objects.iter().take(objects).copied().collect();
        let next = self.unkept.objects.iter().nth(objects).copied();
        for volume in ids.iter().map(volume_of) {
            if let Some(seal) = self.seals.get_mut(&volume).filter(|seal| seal.generation == 0) {
                seal.generation = self.store.next_generation()?;
                self.unkept.seals.insert(volume);
            }
        }
        let waits = |of: (u32, VolumeId)| next.is_some_and(|next| self.unkept.first_of(of, next).is_some());
        let seals = self.unkept.seals.iter().filter_map(|of| Some((*of, self.seals.get(of)?)));
        let seals = seals.filter(|(_, seal)| seal.generation != 0);
        let seals: Vec<KeptSeal> = seals.map(|(of, seal)| seal.to_keep(of, !waits(of))).collect();
        let said: Vec<Sealed> = ids.iter().filter_map(|id| self.said_of(*id)).collect();
        if !seals.is_empty() || !said.is_empty() {
            self.store.keep_seals(&seals, &said)?;
        }
        let left: BTreeSet<(u32, VolumeId)> =
            self.unkept.seals.iter().copied().filter(|of| waits(*of)).collect();
        self.unkept.seals = left;
        for kept in &seals {
            if let Some(seal) = self.seals.get_mut(&(kept.realm, kept.volume)) {
                seal.note_kept(kept);
            }
        }
        for id in &ids {
            self.unkept.objects.remove(id);
        }
        Ok(!self.unkept.objects.is_empty())
    }

    /// Keeps the stamps that the members' answers moved, and with them what these say of objects, wherever they are,
    /// and whatever else is known of objects and not kept yet.
    pub(super) fn keep_resealed(&mut self, of: (u32, VolumeId), said: &[(u64, &Since)]) -> Result<()> {
        let Some(seal) = self.seals.get(&of).filter(|seal| seal.generation != 0) else { return Ok(()) };
        let listed: BTreeSet<Fid> =
            said.iter().flat_map(|(_, since)| since.changed.keys().copied()).collect();
        let unkept: Vec<ObjectId> = self.unkept.of(of).copied().collect();
        let mut objects: Vec<Sealed> = unkept.iter().filter_map(|id| self.said_of(*id)).collect();
        for fid in listed {
            let id = ObjectId { realm: of.0, fid };
            if self.table.contains_key(&id) {
                objects.extend(self.said_of(id));
                continue;
            }
            let (Some(kept), Some(row)) = (self.kept_of(id)?, self.store.row(id)?) else { continue };
            let mut members = seal.recalls(&kept, &row);
            for (bit, since) in said {
                members = after(members, &row, fid, *bit, since);
            }
            let digest = row.status.past.digest();
            objects.push(Sealed { id, generation: seal.generation, members, digest });
        }
        let kept = seal.to_keep(of, true);
        self.store.keep_seals(std::slice::from_ref(&kept), &objects)?;
        if let Some(seal) = self.seals.get_mut(&of) {
            seal.note_kept(&kept);
        }
        self.unkept.seals.remove(&of);
        for id in &unkept {
            self.unkept.objects.remove(id);
        }
        Ok(())
    }
}

impl Unkept {
    /// The first object of a volume, from `least` on.
    fn first_of(&self, (realm, volume): (u32, VolumeId), least: ObjectId) -> Option<&ObjectId> {
        let first = ObjectId { realm, fid: Fid { volume, vnode: 0, unique: 0 } };
        let found = self.objects.range((Bound::Included(first.max(least)), Bound::Unbounded)).next();
        found.filter(|id| volume_of(id) == (realm, volume))
    }

    /// The objects of a volume.
    fn of(&self, (realm, volume): (u32, VolumeId)) -> impl Iterator<Item = &ObjectId> {
        let first = ObjectId { realm, fid: Fid { volume, vnode: 0, unique: 0 } };
        self.objects.range(first..).take_while(move |id| volume_of(id) == (realm, volume))
    }
}

fn volume_of(id: &ObjectId) -> (u32, VolumeId) {
    (id.realm, id.fid.volume)
}

impl Cache {
    /// Keeps a part of what is known of seals and not kept yet. Answers whether there is more.
    pub fn keep_seals(&self) -> Result<bool> {
        self.ground().keep_seals(KEPT_AT_ONCE)
    }
}
