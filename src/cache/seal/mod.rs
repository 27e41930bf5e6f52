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

mod kept;
#[cfg(all(test, feature = "daemon"))]
mod tests;

use std::collections::BTreeMap;

use coda_proto::{Fid, ServerId, VolumeId, wire};

use super::{Cache, Node, validity::Mark};
use crate::store::Row;
pub(super) use kept::Unkept;

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
