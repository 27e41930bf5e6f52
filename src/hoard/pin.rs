//! Pins: the wishes of the highest priority. What they may take is theirs, and no more than that is promised:
//! one that cannot fit is refused when it is made.

use std::collections::BTreeSet;

use super::{
    bind::{Bound, From},
    walk::room_of,
    wish::HIGHEST,
};
use crate::{
    ops::{Core, Result},
    store::Wish,
    venus::face::ObjectId,
};

/// What a pin comes to, and what there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Objects that it means now.
    pub objects: u64,
    /// Bytes of them that no other pin keeps here already.
    pub needs: u64,
    /// Of these, bytes that are to be fetched.
    pub missing: u64,
    /// There are more than may be bound at all.
    pub too_many: bool,
    /// Bytes that pins may take.
    pub room: u64,
    /// Bytes that the other pins take.
    pub held: u64,
    /// Which those are, the largest first.
    pub holders: Vec<(Wish, u64)>,
    /// Bytes free on the disk underneath.
    pub disk: u64,
    /// Bytes that all pins are still to fetch, this one among them.
    pub owed: u64,
}

impl Core {
    /// What it would take to pin something more. Servers are asked what there is.
    pub(crate) async fn measure_pins(&self, wish: &Wish) -> Result<Measured> {
        let most = self.most_bound();
        let same =
            |other: &Wish| (other.realm, other.volume, &other.path) == (wish.realm, wish.volume, &wish.path);
        let mut measured = Measured {
            room: room_of(self.cache.space().total),
            disk: self.cache.containers.free().unwrap_or(u64::MAX),
            ..Measured::default()
        };
        let mut kept: BTreeSet<ObjectId> = BTreeSet::new();
        let others = self.cache.store(|store| store.wishes())?;
        for other in others.into_iter().filter(|other| other.priority == HIGHEST && !same(other)) {
            let bound = self.bind(std::slice::from_ref(&other), From::Cache, most).await?;
            let mut bytes = 0;
            for id in bound.objects.into_keys().filter(|id| kept.insert(*id)) {
                let (length, here) = self.length_here(id)?;
                bytes += length;
                measured.owed += if here { 0 } else { length };
            }
            measured.held += bytes;
            measured.holders.push((other, bytes));
        }
        measured.holders.retain(|(_, bytes)| *bytes > 0);
        measured.holders.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let Bound { objects, full, .. } = self.bind(std::slice::from_ref(wish), From::Servers, most).await?;
        measured.objects = objects.len() as u64;
        measured.too_many = full || kept.len() + objects.len() > most;
        for id in objects.into_keys().filter(|id| !kept.contains(id)) {
            let (length, here) = self.length_here(id)?;
            measured.needs += length;
            measured.missing += if here { 0 } else { length };
        }
        measured.owed += measured.missing;
        Ok(measured)
    }

    /// A file's bytes as far as its status is cached, and whether they are here.
    pub(super) fn length_here(&self, id: ObjectId) -> Result<(u64, bool)> {
        let row = self.cache.peek(id)?.filter(|row| row.status.kind == coda_proto::Kind::File);
        Ok(row.map_or((0, true), |row| {
            let here = row.has_contents() || row.status.siblings.is_empty();
            (row.status.length, here)
        }))
    }

    /// Notes how much the pins are still to fetch: nothing else takes that room.
    pub(super) async fn note_owed(&self) -> Result<()> {
        let pins = self.cache.store(|store| store.wishes())?;
        let pins: Vec<Wish> = pins.into_iter().filter(|wish| wish.priority == HIGHEST).collect();
        let bound = self.bind(&pins, From::Cache, self.most_bound()).await?;
        let room = room_of(self.cache.space().total);
        let (mut owed, mut taken) = (0, 0);
        for id in bound.objects.into_keys() {
            let (length, here) = self.length_here(id)?;
            // What grew beyond the room since it was pinned is not promised.
            if taken + length <= room {
                taken += length;
                owed += if here { 0 } else { length };
            }
        }
        self.cache.set_owed(owed);
        Ok(())
    }
}
