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
//! one that our own mutations moved is kept when there is time, as is what else was learnt of objects. A younger stamp
//! is never kept ahead of what is known of objects by then, and no member's bit ahead of the member: another one that is
//! met after a restart would get the same bit, and vouch for what it was never asked about.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

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
    /// The stamp that is kept of it.
    kept: Option<wire::Stamp>,
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
            let member =
                self.members.entry(*server).or_insert(Member { bit: next, stamp: *stamp, kept: None });
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
    fn forget_kept(&mut self) {
        self.generation = 0;
        self.members.values_mut().for_each(|member| member.kept = None);
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
        let member = |(server, bit, stamp)| (server, Member { bit, stamp, kept: Some(stamp) });
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
    pub(super) fn keep_seals(&mut self, objects: usize) -> Result<bool> {
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
    fn keep_resealed(&mut self, of: (u32, VolumeId), said: &[(u64, &Since)]) -> Result<()> {
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
            // What is kept speaks of older stamps.
            if let Some(seal) = ground.seals.get_mut(&id) {
                seal.forget_kept();
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

#[cfg(all(test, feature = "daemon"))]
mod tests {
    use coda_proto::{Author, Dot, Kind, Past, Status};

    use super::*;
    use crate::{
        cache::{Limits, disk::DiskContainers},
        store::{Change, Edit, Store},
    };

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

    const VOLUME: (u32, VolumeId) = (1, VolumeId(7));
    const HERE: ServerId = ServerId(1);
    const THERE: ServerId = ServerId(2);

    fn cache(store: Store, dir: &std::path::Path) -> Cache {
        let containers = DiskContainers::open(&dir.join("containers"), &dir.join("spool")).unwrap();
        let limits = Limits { bytes: 1 << 20, objects: 1000, in_memory: 1000 };
        Cache::new(store, std::sync::Arc::new(containers), limits, tokio::sync::mpsc::unbounded_channel().0)
            .unwrap()
    }

    /// What a cache is after a crash.
    fn again(cache: &Cache, dir: &std::path::Path) -> Cache {
        let store = std::mem::replace(&mut cache.ground().store, Store::open(None).unwrap());
        self::cache(store, dir)
    }

    fn object(vnode: u32) -> ObjectId {
        ObjectId { realm: VOLUME.0, fid: Fid { volume: VOLUME.1, vnode, unique: 5 } }
    }

    fn past(seq: u64) -> Past {
        [Dot::new(Author(9), seq)].into_iter().collect()
    }

    fn version(vnode: u32, seq: u64) -> Status {
        let status = wire::Status {
            fid: Some(object(vnode).fid.into()),
            kind: Kind::File.into(),
            parent: Some(Fid::root(VOLUME.1).into()),
            past: Some((&past(seq)).into()),
            ..Default::default()
        };
        status.try_into().unwrap()
    }

    /// These members were found to hold a version of an object.
    fn found(cache: &Cache, vnode: u32, seq: u64, at: &[(ServerId, u64)]) {
        cache.learn(object(vnode), version(vnode, seq)).unwrap();
        let mark = cache.mark(VOLUME.0, VOLUME.1);
        let stamps = at.iter().map(|(server, seq)| (*server, stamp(server.0.into(), *seq))).collect();
        assert!(cache.believe(object(vnode), mark, &past(seq), &stamps).unwrap());
    }

    /// A member answers what changed, in the order of what changed.
    fn since(seq: u64, server: ServerId, changed: &[(u32, u64)]) -> Since {
        let changed = changed.iter().map(|(vnode, seq)| (object(*vnode).fid, Some(past(*seq).digest())));
        Since { stamp: stamp(server.0.into(), seq), changed: changed.collect() }
    }

    fn reseal(cache: &Cache, answers: &[(ServerId, Since)]) {
        cache.void(VOLUME.0, |_| true);
        let doubt = cache.doubt(VOLUME.0, VOLUME.1).unwrap();
        cache.reseal(VOLUME, &doubt, &answers.iter().cloned().collect());
    }

    fn is_believed(cache: &Cache, vnode: u32) -> bool {
        cache.view(object(vnode)).unwrap().unwrap().valid
    }

    #[test]
    fn a_member_that_came_late_vouches_after_a_crash_for_nothing_that_it_was_not_asked_about_since() {
        let dir = tempfile::tempdir().unwrap();
        let one = cache(Store::open(None).unwrap(), dir.path());
        found(&one, 2, 1, &[(HERE, 5)]);
        while one.keep_seals().unwrap() {}
        // The other member comes up, and holds it, too.
        found(&one, 2, 1, &[(HERE, 5), (THERE, 10)]);
        found(&one, 4, 1, &[(HERE, 5), (THERE, 10)]);
        while one.keep_seals().unwrap() {}
        let two = again(&one, dir.path());
        // At 20 the first object changed there, and nowhere else. It is met again later, over another object.
        found(&two, 4, 2, &[(HERE, 6), (THERE, 30)]);
        two.void(VOLUME.0, |_| true);
        let doubt = two.doubt(VOLUME.0, VOLUME.1).unwrap();
        let listed: &[(u32, u64)] =
            if doubt.stamps[&THERE].change_seq < 20 { &[(2, 8), (4, 2)] } else { &[] };
        two.reseal(VOLUME, &doubt, &[(THERE, since(30, THERE, listed))].into());
        assert!(!is_believed(&two, 2), "it changed at 20");
        assert!(is_believed(&two, 4));
    }

    #[test]
    fn what_is_ours_and_not_sent_is_sealed_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let one = cache(Store::open(None).unwrap(), dir.path());
        found(&one, 2, 1, &[(HERE, 5), (THERE, 10)]);
        while one.keep_seals().unwrap() {}
        // Written here, then off the log: what the members said of it was lost in a crash.
        let ours = crate::store::Row::new(version(2, 2));
        one.commit(&Change::of(Edit::Put(object(2), ours.into()))).unwrap();
        while one.keep_seals().unwrap() {}
        let two = again(&one, dir.path());
        assert!(!is_believed(&two, 2));
        reseal(&two, &[(HERE, since(6, HERE, &[])), (THERE, since(11, THERE, &[]))]);
        assert!(!is_believed(&two, 2), "nobody was asked about this version");
        let kept = two.store(|store| Ok(store.sealed(object(2)).unwrap().map(|kept| kept.members))).unwrap();
        assert_eq!(kept.unwrap_or(0), 0);
    }

    #[test]
    fn no_younger_stamp_is_kept_ahead_of_what_is_known_of_objects() {
        let dir = tempfile::tempdir().unwrap();
        let one = cache(Store::open(None).unwrap(), dir.path());
        let objects = KEPT_AT_ONCE as u32 + 10;
        let all = || (1..=objects).map(|n| 2 * n);
        all().for_each(|vnode| found(&one, vnode, 1, &[(HERE, 5)]));
        while one.keep_seals().unwrap() {}
        // Our own mutations moved its stamp; and what they made is known of each object.
        one.advance(VOLUME, HERE, (stamp(1, 5), stamp(1, 6)));
        all().for_each(|vnode| found(&one, vnode, 2, &[(HERE, 6)]));
        let kept = || one.store(|store| Ok(store.seals().unwrap()[0].members[0].2.change_seq)).unwrap();
        assert!(one.keep_seals().unwrap(), "there is more");
        assert_eq!(kept(), 5);
        assert!(!one.keep_seals().unwrap());
        assert_eq!(kept(), 6);
        // An answer moves it, too, and takes along what is known.
        found(&one, 2, 3, &[(HERE, 7)]);
        reseal(&one, &[(HERE, since(7, HERE, &[]))]);
        let said = one.store(|store| Ok(store.sealed(object(2)).unwrap().unwrap())).unwrap();
        assert_eq!((kept(), said.digest), (7, past(3).digest()));
    }

    #[test]
    fn what_comes_back_while_it_is_open_is_not_what_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let one = cache(Store::open(None).unwrap(), dir.path());
        found(&one, 2, 1, &[(HERE, 5)]);
        let container = one.containers.create(1).unwrap();
        let file = crate::cache::OpenFile::new(1, container, past(1)).unwrap();
        one.open(object(2), &std::sync::Arc::new(file)).unwrap();
        one.commit(&Change::of(Edit::Drop(object(2)))).unwrap();
        one.learn(object(2), version(2, 2)).unwrap();
        assert!(!is_believed(&one, 2));
        reseal(&one, &[(HERE, since(6, HERE, &[]))]);
        assert!(!is_believed(&one, 2));
    }
}
