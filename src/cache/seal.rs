//! Seals: what makes the promises of a whole volume worth one question.
//!
//! A volume's *seal* names a stamp of each member. An object is *sealed* by a member that was found to hold
//! what is cached of it, at that stamp or later. Where promises were lost, one question to each member tells
//! what changed since its stamp; every other object that all of them sealed is as it was, and the members
//! promise again to tell of changes, of the volume as a whole.
//!
//! ```text
//!  stamp of a member    T ───────────── object found equal ─── promises lost ─── what changed since T?
//!  an object that changed   \_ is listed, also if we learnt of the change and hold the new version
//! ```
//!
//! What a newcomer would get wrong: a stamp may be older than what it seals, never younger. So it must come
//! with, or before, the answers that it vouches for.
//!
//! Seals outlast a restart. What is kept of them may be behind what is known here, since a seal with older stamps is
//! no less true. A stamp that a member's answer moved is kept at once, together with what that answer says of objects;
//! one that our own mutations moved is kept when there is time, as is what else was learnt of objects.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Fid, ServerId, VolumeId, wire};

use super::{Cache, Ground, Node, Result, validity::Mark};
use crate::{
    store::{KeptSeal, Row, Sealed},
    venus::face::ObjectId,
};

/// A moment in the life of each member's replica.
pub type Stamps = BTreeMap<ServerId, wire::Stamp>;

/// The last bit that a number of a database has room for.
const LAST_BIT: u64 = 1 << 62;

/// So many changes behind, a seal is renewed before what changed no longer fits into one answer.
const BEHIND: u64 = 256;

/// The seal of one volume.
#[derive(Debug, Default)]
pub(super) struct Seal {
    members: BTreeMap<ServerId, Member>,
    /// The members promise to tell of any change of the volume.
    held: bool,
    /// Promises were lost: ask what changed before asking about objects.
    doubted: bool,
    /// A member's replica has changed so often since its stamp.
    behind: u64,
    /// The members whose promise it is, while it is held.
    vouching: u64,
    /// The number under which it is kept; 0: it was not yet.
    generation: i64,
}

/// What is not kept yet.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    /// Seals of which a stamp moved.
    pub seals: BTreeSet<(u32, VolumeId)>,
    /// Objects of which something else is known than is kept.
    pub objects: BTreeSet<ObjectId>,
}

/// How many objects one transaction tells of: nobody waits long for it.
const KEPT_AT_ONCE: usize = 1000;

#[derive(Clone, Copy, Debug)]
struct Member {
    /// Its place in the set of members that sealed an object.
    bit: u64,
    stamp: wire::Stamp,
}

/// A question about a seal, and what it was asked with.
#[derive(Clone, Debug, PartialEq)]
pub struct Doubt {
    /// The stamps to ask about.
    pub stamps: Stamps,
    mark: Mark,
}

/// What one member answers: its stamp now, and what changed since the one that it was asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Since {
    /// Now.
    pub stamp: wire::Stamp,
    /// Digests of the objects' pasts; none: gone.
    pub changed: BTreeMap<Fid, Option<[u8; 16]>>,
}

impl Seal {
    /// Members were found to hold the same at these stamps. Answers the set of those that seal it.
    pub fn cover(&mut self, seen: &Stamps) -> u64 {
        let mut sealed = 0;
        self.behind = 0;
        for (server, stamp) in seen {
            let next = self.members.values().map(|member| member.bit).fold(1, |bit, used| bit.max(used << 1));
            if next > LAST_BIT && !self.members.contains_key(server) {
                // More members came and went than there are bits: it seals nothing, and is asked for each object.
                continue;
            }
            let member = self.members.entry(*server).or_insert(Member { bit: next, stamp: *stamp });
            // In another life of the member its numbers mean something else, until it says that it knows ours.
            let same = member.stamp.incarnation == stamp.incarnation;
            if same && member.stamp.change_seq <= stamp.change_seq {
                sealed |= member.bit;
                self.behind = self.behind.max(stamp.change_seq - member.stamp.change_seq);
            }
        }
        sealed
    }

    /// A member's replica went from one stamp to the other by our own doing. Answers whether this one is that member's
    /// stamp now.
    fn advance(&mut self, server: ServerId, before: wire::Stamp, after: wire::Stamp) -> bool {
        match self.members.get_mut(&server) {
            Some(member) if member.stamp == before => {
                member.stamp = after;
                true
            }
            _ => false,
        }
    }

    /// Whether objects that these members sealed may be believed.
    fn believes(&self, sealed: u64) -> bool {
        self.held && self.vouching != 0 && sealed & self.vouching == self.vouching
    }

    /// The members that sealed an object, as far as what is kept of it is about the version cached.
    fn recalls(&self, sealed: &Sealed, row: &Row) -> u64 {
        let same = sealed.generation == self.generation && sealed.digest == row.status.past.digest();
        if same { sealed.members } else { 0 }
    }

    fn to_keep(&self, (realm, volume): (u32, VolumeId)) -> KeptSeal {
        let members = self.members.iter().map(|(server, member)| (*server, member.bit, member.stamp));
        KeptSeal { realm, volume, generation: self.generation, members: members.collect() }
    }

    /// Promises are lost.
    pub fn doubt(&mut self) {
        (self.held, self.doubted) = (false, true);
    }

    /// The volume changed. Answers whether something was believed because it would not.
    pub fn lapse(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        self.doubted |= held;
        held
    }

    fn question(&self, mark: Mark) -> Doubt {
        Doubt { stamps: self.members.iter().map(|(server, member)| (*server, member.stamp)).collect(), mark }
    }
}

impl From<KeptSeal> for Seal {
    /// After a restart nobody promises anything.
    fn from(kept: KeptSeal) -> Seal {
        let member = |(server, bit, stamp)| (server, Member { bit, stamp });
        Seal {
            members: kept.members.into_iter().map(member).collect(),
            doubted: true,
            generation: kept.generation,
            ..Seal::default()
        }
    }
}

/// Who has sealed an object after a member told what changed since its stamp: the change may be one that we know of.
fn after(sealed: u64, row: &Row, fid: Fid, bit: u64, since: &Since) -> u64 {
    match since.changed.get(&fid) {
        None => sealed,
        Some(digest) if *digest == Some(row.status.past.digest()) => sealed | bit,
        Some(_) => sealed & !bit,
    }
}

impl Node {
    /// Takes a member's word of what changed since its stamp. Answers whether it leaves this object as it is
    /// cached.
    fn stands(&mut self, fid: Fid, bit: u64, since: &Since) -> bool {
        self.sealed = after(self.sealed, &self.row, fid, bit, since);
        self.sealed & bit != 0
    }
}

impl Ground {
    /// What is kept of an object that comes into memory.
    pub(super) fn recall(&self, id: ObjectId, node: &mut Node) -> Result<()> {
        let Some(seal) = self.seals.get(&(id.realm, id.fid.volume)).filter(|seal| seal.generation != 0)
        else {
            return Ok(());
        };
        if let Some(sealed) = self.store.sealed(id)? {
            node.sealed = seal.recalls(&sealed, &node.row);
            node.by_volume = seal.believes(node.sealed);
        }
        Ok(())
    }

    /// Keeps what is not kept yet, of so many objects at most. Answers whether there is more.
    pub(super) fn keep_seals(&mut self, objects: usize) -> Result<bool> {
        let ids: Vec<ObjectId> = self.unkept.objects.iter().take(objects).copied().collect();
        let of = |id: &ObjectId| (id.realm, id.fid.volume);
        for volume in ids.iter().map(of) {
            if let Some(seal) = self.seals.get_mut(&volume).filter(|seal| seal.generation == 0) {
                seal.generation = self.store.next_generation()?;
                self.unkept.seals.insert(volume);
            }
        }
        let seals = self.unkept.seals.iter().filter_map(|id| Some((*id, self.seals.get(id)?)));
        let seals = seals.filter(|(_, seal)| seal.generation != 0).map(|(id, seal)| seal.to_keep(id));
        let said = ids.iter().filter_map(|id| {
            let node = self.table.get(id).filter(|node| !node.gone)?;
            let generation = self.seals.get(&of(id))?.generation;
            let digest = node.row.status.past.digest();
            Some(Sealed { id: *id, generation, members: node.sealed, digest })
        });
        let (seals, said): (Vec<_>, Vec<_>) = (seals.collect(), said.collect());
        if !seals.is_empty() || !said.is_empty() {
            self.store.keep_seals(&seals, &said)?;
        }
        self.unkept.seals.clear();
        for id in &ids {
            self.unkept.objects.remove(id);
        }
        Ok(!self.unkept.objects.is_empty())
    }

    /// Keeps the stamps that the members' answers moved, and with them what these say of objects, wherever they are.
    fn keep_resealed(&mut self, of: (u32, VolumeId), said: &[(u64, &Since)]) -> Result<()> {
        let Some(seal) = self.seals.get(&of).filter(|seal| seal.generation != 0) else { return Ok(()) };
        let listed: BTreeSet<Fid> =
            said.iter().flat_map(|(_, since)| since.changed.keys().copied()).collect();
        let mut objects = Vec::new();
        for fid in listed {
            let id = ObjectId { realm: of.0, fid };
            let (members, row) = match self.table.get(&id) {
                Some(node) => (node.sealed, node.row.clone()),
                None => {
                    let (Some(kept), Some(row)) = (self.store.sealed(id)?, self.store.row(id)?) else {
                        continue;
                    };
                    let mut members = seal.recalls(&kept, &row);
                    for (bit, since) in said {
                        members = after(members, &row, fid, *bit, since);
                    }
                    (members, row.into())
                }
            };
            let digest = row.status.past.digest();
            objects.push(Sealed { id, generation: seal.generation, members, digest });
        }
        let seal = seal.to_keep(of);
        self.store.keep_seals(std::slice::from_ref(&seal), &objects)
    }
}

impl Cache {
    /// What to ask about a volume whose promises were lost, before anything is asked about its objects.
    pub fn doubt(&self, realm: u32, volume: VolumeId) -> Option<Doubt> {
        let ground = &mut *self.ground();
        let seal = ground.seals.get(&(realm, volume)).filter(|seal| seal.doubted)?;
        let mark = ground.promises.entry((realm, volume)).or_default().mark();
        (!seal.members.is_empty()).then(|| seal.question(mark))
    }

    /// The same for a seal that has fallen behind. Asked for once, whatever comes of it.
    pub fn behind(&self, realm: u32, volume: VolumeId) -> Option<Doubt> {
        let ground = &mut *self.ground();
        let seal = ground.seals.get_mut(&(realm, volume)).filter(|seal| seal.behind >= BEHIND)?;
        seal.behind = 0;
        let mark = ground.promises.entry((realm, volume)).or_default().mark();
        Some(seal.question(mark))
    }

    /// Members tell what changed since the stamps asked about: all else that they sealed may be believed.
    pub fn reseal(&self, id: (u32, VolumeId), doubt: &Doubt, answers: &BTreeMap<ServerId, Since>) {
        let ground = &mut *self.ground();
        let broken = ground.promises.entry(id).or_default().any_since(doubt.mark);
        let Some(seal) = ground.seals.get_mut(&id) else { return };
        let asked =
            |server| seal.members.get(server).is_some_and(|m| doubt.stamps.get(server) == Some(&m.stamp));
        if broken || !answers.keys().all(asked) {
            return;
        }
        (seal.held, seal.doubted, seal.behind) = (true, false, 0);
        let mut said = Vec::new();
        for (server, since) in answers {
            let member = seal.members.get_mut(server).expect("just looked at");
            member.stamp = since.stamp;
            said.push((member.bit, since));
        }
        seal.vouching = said.iter().fold(0, |all, (bit, _)| all | bit);
        for (other, node) in &mut ground.table {
            if (other.realm, other.fid.volume) != id || node.gone {
                continue;
            }
            // Each member is heard, whatever another said.
            let stand = said.iter().filter(|(bit, since)| node.stands(other.fid, *bit, since)).count();
            // What is under way here will learn for itself.
            node.by_volume |= stand == said.len() && node.pins == 0;
        }
        if let Err(error) = ground.keep_resealed(id, &said) {
            tracing::warn!(%error, "what servers hold could not be noted");
            // What is kept speaks of older stamps. It begins anew under another number.
            if let Some(seal) = ground.seals.get_mut(&id) {
                seal.generation = 0;
            }
        }
    }

    /// Keeps a part of what is known of seals and not kept yet. Answers whether there is more.
    pub fn keep_seals(&self) -> Result<bool> {
        self.ground().keep_seals(KEPT_AT_ONCE)
    }

    /// A member cannot tell what changed: everything of the volume is asked about one by one.
    pub fn break_seal(&self, realm: u32, volume: VolumeId) {
        let ground = &mut *self.ground();
        ground.seals.remove(&(realm, volume));
        for (id, node) in &mut ground.table {
            if id.realm == realm && id.fid.volume == volume {
                node.sealed = 0;
            }
        }
    }

    /// Our own mutation took a member's replica from one stamp to the next.
    pub fn advance(&self, id: (u32, VolumeId), server: ServerId, change: (wire::Stamp, wire::Stamp)) {
        let ground = &mut *self.ground();
        if ground.seals.get_mut(&id).is_some_and(|seal| seal.advance(server, change.0, change.1)) {
            ground.unkept.seals.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(incarnation: u64, change_seq: u64) -> wire::Stamp {
        wire::Stamp { incarnation, change_seq }
    }

    fn stamps(of: &[(u8, u64, u64)]) -> Stamps {
        of.iter().map(|(id, incarnation, seq)| (ServerId(*id), stamp(*incarnation, *seq))).collect()
    }

    #[test]
    fn a_stamp_may_be_older_than_what_it_seals_but_not_younger() {
        let mut seal = Seal::default();
        assert_eq!(seal.cover(&stamps(&[(1, 7, 5), (2, 8, 9)])), 0b11);
        assert_eq!(seal.cover(&stamps(&[(1, 7, 6), (2, 8, 9)])), 0b11);
        assert_eq!(seal.members[&ServerId(1)].stamp, stamp(7, 5), "it stays where it was");
        assert_eq!(seal.cover(&stamps(&[(1, 7, 4), (2, 8, 9)])), 0b10, "an old answer");
        assert_eq!(seal.cover(&Stamps::new()), 0, "nobody vouches");
    }

    #[test]
    fn a_member_that_is_away_or_lives_another_life_seals_nothing() {
        let mut seal = Seal::default();
        seal.cover(&stamps(&[(1, 7, 5), (2, 8, 9)]));
        assert_eq!(seal.cover(&stamps(&[(2, 8, 10)])), 0b10);
        assert_eq!(seal.cover(&stamps(&[(1, 99, 5), (2, 8, 10)])), 0b10);
        assert_eq!(seal.cover(&stamps(&[(3, 1, 1)])), 0b100, "a new member");
    }

    #[test]
    fn our_own_mutations_keep_a_stamp_that_nobody_else_has_passed() {
        let mut seal = Seal::default();
        seal.cover(&stamps(&[(1, 7, 5)]));
        seal.advance(ServerId(1), stamp(7, 5), stamp(7, 6));
        seal.advance(ServerId(1), stamp(7, 7), stamp(7, 8));
        assert_eq!(seal.members[&ServerId(1)].stamp, stamp(7, 6), "somebody else's lies in between");
        seal.cover(&stamps(&[(1, 7, 6 + BEHIND)]));
        assert_eq!(seal.behind, BEHIND);
    }
}
