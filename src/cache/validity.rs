//! Promises: when what is cached may be believed.
//!
//! A break may overtake the answer that carries the promise. So whoever asks notes the time before (a
//! [`Mark`]), and a promise is only believed if its object was not broken since.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::mpsc;

use coda_proto::{
    Fid, Past, VolumeId,
    planted::{Bug, planted},
};

use super::{
    Cache, Ground, Node, Result,
    seal::{Seal, Stamps},
};
use crate::venus::face::{Forget, ObjectId};

/// How many breaks are remembered one by one.
const REMEMBERED: usize = 1024;

/// A moment in the order of a volume's breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The breaks of a volume.
#[derive(Debug, Default)]
pub(super) struct Breaks {
    now: u64,
    /// Promises from before are void altogether.
    floor: u64,
    recent: VecDeque<(u64, Fid)>,
}

impl Breaks {
    fn all(&mut self) {
        self.now += 1;
        self.floor = self.now;
        self.recent.clear();
    }

    fn one(&mut self, fid: Fid) {
        self.now += 1;
        self.recent.push_back((self.now, fid));
        if self.recent.len() > REMEMBERED
            && let Some((forgotten, _)) = self.recent.pop_front()
        {
            self.floor = forgotten;
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.now)
    }

    /// Whether anything of the volume was broken since.
    pub(super) fn any_since(&self, mark: Mark) -> bool {
        self.now > mark.0
    }

    fn since(&self, mark: Mark, fid: Fid) -> bool {
        mark.0 < self.floor || self.recent.iter().rev().take_while(|b| b.0 > mark.0).any(|b| b.1 == fid)
    }
}

impl Node {
    /// Whether what is cached may be believed.
    pub(super) fn is_valid(&self) -> bool {
        self.promised || self.by_volume
    }

    /// No promise covers it any more; the kernel is told.
    pub(super) fn doubt(&mut self, id: ObjectId, forgets: &mpsc::UnboundedSender<Forget>) {
        (self.promised, self.by_volume) = (false, false);
        self.doubt_unless_promised(id, forgets);
    }

    fn doubt_unless_promised(&mut self, id: ObjectId, forgets: &mpsc::UnboundedSender<Forget>) {
        if !self.is_valid() && std::mem::take(&mut self.told) {
            let _ = forgets.send(Forget::Object { id, data: true });
        }
    }
}

impl Cache {
    /// Now, in the order of a volume's breaks. Take it before asking.
    pub fn mark(&self, realm: u32, volume: VolumeId) -> Mark {
        self.ground().promises.entry((realm, volume)).or_default().mark()
    }

    /// Believes promises for the version `past` that were asked for at `mark` and given at these stamps of
    /// the members, unless one was broken since, or something else is cached by now: a mutation of ours may
    /// have come between.
    pub fn believe(&self, id: ObjectId, mark: Mark, past: &Past, stamps: &Stamps) -> Result<bool> {
        let mut ground = self.ground();
        let volume = (id.realm, id.fid.volume);
        let broken = ground.promises.entry(volume).or_default().since(mark, id.fid);
        if (broken && !planted(Bug::BelievesBrokenPromise)) || !ground.load(id)? {
            return Ok(false);
        }
        let ground = &mut *ground;
        let node = ground.table.get_mut(&id).expect("just loaded");
        let same = node.row.status.past == *past;
        if same {
            node.promised = true;
            let seal = ground.seals.entry(volume).or_default();
            node.sealed = seal.cover(stamps);
            if seal.has_new() {
                // What its bit stands for is kept with it.
                ground.unkept.seals.insert(volume);
            }
            ground.unkept.objects.insert(id);
            ground.doubtful.remove(&id);
        }
        Ok(same)
    }

    /// A promise is void: the next use asks again, and the kernel is told. With a directory go all its names,
    /// because the kernel keeps none of a directory that it was not told of.
    pub fn demote(&self, id: ObjectId) -> Result<()> {
        let ground = &mut *self.ground();
        self.doubt_one(ground, id);
        // Also where it is not in memory, or leaves it before it is asked about.
        let unsealed = ground.store.unseal(id);
        if unsealed.is_err() {
            ground.unkept.objects.insert(id);
        }
        unsealed
    }

    fn doubt_one(&self, ground: &mut Ground, id: ObjectId) {
        if let Some(node) = ground.table.get_mut(&id) {
            node.doubt(id, &self.forgets);
            node.sealed = 0;
            ground.doubtful.insert(id);
        }
    }

    /// A server broke these promises, and with them those about their volumes as a whole.
    pub fn broken(&self, realm: u32, fids: &[Fid]) {
        let ground = &mut *self.ground();
        for fid in fids {
            ground.promises.entry((realm, fid.volume)).or_default().one(*fid);
        }
        let volumes: BTreeSet<VolumeId> = fids.iter().map(|fid| fid.volume).collect();
        for volume in volumes {
            self.unseal(ground, realm, volume);
        }
        // What is kept of them on disk stays true: they are listed as changed since.
        fids.iter().for_each(|fid| self.doubt_one(ground, ObjectId { realm, fid: *fid }));
    }

    /// What is believed only because of a promise about the volume as a whole is doubted again.
    fn unseal(&self, ground: &mut Ground, realm: u32, volume: VolumeId) {
        let ground = &mut *ground;
        if !ground.seals.get_mut(&(realm, volume)).is_some_and(Seal::lapse) {
            return;
        }
        for (id, node) in &mut ground.table {
            if id.realm == realm && id.fid.volume == volume && std::mem::take(&mut node.by_volume) {
                node.doubt_unless_promised(*id, &self.forgets);
                ground.doubtful.insert(*id);
            }
        }
    }

    /// All promises about these volumes of a realm are void.
    pub fn void(&self, realm: u32, volumes: impl Fn(VolumeId) -> bool) {
        if planted(Bug::KeepsPromises) {
            return;
        }
        let ground = &mut *self.ground();
        let meant = |other: u32, volume: VolumeId| other == realm && volumes(volume);
        for ((of, volume), breaks) in &mut ground.promises {
            if meant(*of, *volume) {
                breaks.all();
            }
        }
        for ((of, volume), seal) in &mut ground.seals {
            if meant(*of, *volume) {
                seal.doubt();
            }
        }
        for (id, node) in &mut ground.table {
            if meant(id.realm, id.fid.volume) {
                node.doubt(*id, &self.forgets);
                ground.doubtful.insert(*id);
            }
        }
    }

    /// Whether a promise covers an object, and whether something holds it here: changes not sent yet, or an
    /// open file. Does not count as a use.
    pub fn held(&self, id: ObjectId) -> (bool, bool) {
        let ground = self.ground();
        let unsent = ground.unsent.contains_key(&id);
        ground.table.get(&id).map_or((false, unsent), |node| (node.is_valid(), node.pins > 0 || unsent))
    }

    /// Believes whatever is cached of an object.
    #[cfg(test)]
    pub fn believe_for_test(&self, id: ObjectId) {
        self.ground().table.get_mut(&id).expect("it is in memory").promised = true;
    }

    /// Objects of a volume in memory that no promise covers, at most `limit`: to be validated along. The next
    /// in order, from `of` on.
    pub fn suspects(&self, of: ObjectId, limit: usize) -> Vec<ObjectId> {
        let ground = self.ground();
        let same = |id: &&ObjectId| id.realm == of.realm && id.fid.volume == of.fid.volume;
        let behind = ground.doubtful.range(of..).take_while(same);
        let before = ground.doubtful.range(..of).rev().take_while(same);
        let suspect = |id: &&ObjectId| {
            let node = ground.table.get(id);
            let free = node.is_some_and(|node| !node.is_valid() && !node.gone && node.pins == 0);
            **id != of && free && !ground.unsent.contains_key(id)
        };
        behind.chain(before).filter(suspect).take(limit).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fid(vnode: u32) -> Fid {
        Fid { volume: VolumeId(1), vnode, unique: 1 }
    }

    #[test]
    fn a_break_that_overtakes_the_answer_wins() {
        let mut breaks = Breaks::default();
        let before = Mark(breaks.now);
        breaks.one(fid(2));
        let after = Mark(breaks.now);
        assert!(breaks.since(before, fid(2)));
        assert!(!breaks.since(before, fid(4)));
        assert!(!breaks.since(after, fid(2)));
        breaks.all();
        assert!(breaks.since(after, fid(4)));
    }

    #[test]
    fn breaks_that_are_no_longer_remembered_count_for_everything() {
        let mut breaks = Breaks::default();
        let before = Mark(breaks.now);
        (0..REMEMBERED as u32 + 1).for_each(|vnode| breaks.one(fid(vnode)));
        assert!(breaks.since(before, fid(u32::MAX)));
    }
}
