//! Collection: what every member includes, and nobody will ask about, is forgotten.
//!
//! A tombstone is there to notice that an object was changed here and removed there. It is kept for 400
//! days, or for less where there are too many, and never while a member is behind: a meeting says what the
//! peer includes of this replica, and a COP2 that all members hold a removal. What is forgotten is asked
//! for once more when a record about it comes after all; if no member knows it, the record is GONE. What files were
//! before they were written is forgotten after a week, by each member for itself.

use std::{sync::Arc, time::Duration};

use coda_proto::{
    Fid, Refusal, ServerId,
    merge::ObjectState,
    wire::{self, request, response},
};

use crate::{resolution::SILENCE, server::Server, store::Due, volume::Volume};

/// What a file was is kept for so long: it is for whoever was away meanwhile.
const FORMER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Where less of the disk is free than one of so many, nothing is kept of what was removed.
const SPARE: u64 = 20;
/// Tombstones looked at in one transaction: while it runs nobody else writes.
const AT_ONCE: u32 = 5000;

impl Server {
    /// Forgets what is due, if it was not done just now.
    pub(crate) async fn collect(&self, volume: &Arc<Volume>) -> Result<(), Refusal> {
        if !volume.meetings.is_collection_due(self.config().limits.round) {
            return Ok(());
        }
        // One does not wait for the other.
        if let Err(why) = self.retire_and_fold(volume).await {
            tracing::warn!(volume = %volume.id, %why, "nobody was retired, and nothing folded");
        }
        let (limits, now) = (self.config().limits, self.env().now());
        let before = now.saturating_sub(FORMER.as_nanos() as i64);
        while volume.write(move |txn| Ok(txn.forget_formers(before, now)?), |_| {}).await? {}
        let space = volume.store().space()?;
        let needed = space.free < space.size / SPARE;
        while volume.write(move |txn| Ok(txn.thin_remains(needed)?), |_| {}).await? {}
        let age = i64::try_from(limits.tombstone_age.as_nanos()).unwrap_or(i64::MAX);
        loop {
            let due = Due {
                before: now.saturating_sub(age),
                keep: limits.tombstones,
                included: self.included_by_all(volume)?,
                at_once: AT_ONCE,
            };
            let left = volume.write(move |txn| Ok(txn.forget_due(&due, now)?), |_| {}).await?;
            if left.tombstones > 0 {
                tracing::info!(volume = %volume.id, tombstones = left.tombstones, objects = left.heads, "forgotten");
            }
            if !left.more {
                return Ok(());
            }
        }
    }

    /// The disk is full: what removed files held goes, of all volumes.
    pub(crate) async fn give_up_remains(&self) -> Result<(), Refusal> {
        for volume in self.volumes().into_values() {
            while volume.write(|txn| Ok(txn.thin_remains(true)?), |_| {}).await? {}
        }
        Ok(())
    }

    /// Every other member includes this replica's state up to this change_seq.
    pub(crate) fn included_by_all(&self, volume: &Volume) -> Result<u64, Refusal> {
        let peers: Vec<ServerId> = self.peers_of(volume.id).into_keys().collect();
        volume.read(|view| {
            let mut least = view.volume_row()?.change_seq;
            for peer in peers {
                least = least.min(view.peer(peer)?.acked);
            }
            Ok(least)
        })
    }

    /// Whether an object that is unknown here is unknown at every other member too. One that is known
    /// somewhere is known here then. Who cannot be asked might know it.
    pub(crate) async fn is_gone(&self, volume: &Arc<Volume>, fid: Fid) -> Result<bool, Refusal> {
        if fid.volume != volume.id || volume.read(|view| Ok(view.past(fid)?))?.is_some() {
            return Ok(false);
        }
        let mut gone = true;
        for (server, peer) in self.peers_of(volume.id) {
            if volume.meetings.is_suspect(server) {
                gone = false;
                continue;
            }
            let only = vec![fid.into()];
            let body = request::Body::Meet(wire::Meet { volume: volume.id.0, only, ..Default::default() });
            let met = match self.ask_peer(&peer, body, SILENCE).await {
                Ok((response::Body::Met(met), _)) if met.joined => met,
                _ => {
                    gone = false;
                    continue;
                }
            };
            if met.objects.is_empty() {
                continue;
            }
            // New there, most likely. What is not new there was forgotten here.
            let mut joined = self.meet_with(volume, &peer, SILENCE).await;
            if joined.is_ok() && volume.read(|view| Ok(view.past(fid)?))?.is_none() {
                let states = met.objects.into_iter().map(ObjectState::try_from).collect::<Result<_, _>>()?;
                joined = self.join_only(volume, server, &peer, states).await;
            }
            if let Err(why) = joined {
                tracing::debug!(volume = %volume.id, %fid, %why, "known elsewhere, and not joined");
            }
            return Ok(false);
        }
        Ok(gone)
    }
}
