//! Pins: what is kept here whatever happens, or refused where it cannot fit; and what was missed in a rehearsal.

use coda_proto::control::{Failure, FailureKind, Missed, Pinned, unescape};

use super::wrong;
use crate::{
    control::failure::failure,
    hoard::{Measured, pattern, wish::HIGHEST},
    store::{Reach, Wish},
    venus::{Venus, face::Caller},
};

impl Venus {
    /// Keeps a path here.
    pub(super) async fn pin(&self, who: Caller, path: &str, most: Option<u64>) -> Result<Pinned, Failure> {
        let wish = Wish { priority: HIGHEST, most, ..self.wish_to_pin(who, path).await? };
        let measured = self.core.measure_pins(&wish).await.map_err(|error| failure(path, &error))?;
        if let Some(refused) = self.too_much(path, &measured) {
            return Err(refused);
        }
        let kept = self.core.cache.store(|store| store.wish(&wish));
        kept.and_then(|()| self.core.keep_hoarding()).map_err(|error| failure(path, &error))?;
        // From now on nothing else takes the room, also before all of it is fetched.
        self.core.cache.set_owed(measured.owed);
        Ok(Pinned {
            objects: measured.objects,
            bytes: measured.needs,
            missing: measured.missing,
            left: measured.room.saturating_sub(measured.held + measured.needs),
        })
    }

    /// The wish for a path that is there, or for a pattern.
    pub(super) async fn wish_to_pin(&self, who: Caller, path: &str) -> Result<Wish, Failure> {
        let failed = match self.wish_for(who, path).await {
            Ok(wish) => return Ok(Wish { reach: Reach::Descendants, ..wish }),
            Err(failed) if failed.kind == FailureKind::NotFound => failed,
            Err(failed) => return Err(failed),
        };
        let bytes = unescape(path);
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'/').collect();
        let Some(first) = parts.iter().position(|part| pattern::is_pattern(part)) else { return Err(failed) };
        let (above, rest) = parts.split_at(first);
        let above = coda_proto::control::escape(&above.join(&b'/'));
        let wish = self.wish_for(who, &above).await?;
        let within = match &wish.path[..] {
            b"" => rest.join(&b'/'),
            within => [within, &rest.join(&b'/')[..]].join(&b'/'),
        };
        Ok(Wish { path: within, reach: Reach::Matching, ..wish })
    }

    /// Why a pin cannot be kept, with numbers; nothing where it can.
    fn too_much(&self, path: &str, measured: &Measured) -> Option<Failure> {
        let Measured { needs, held, room, disk, missing, .. } = *measured;
        let size = crate::config::units::people;
        let left = room.saturating_sub(held);
        let why = if measured.too_many {
            "has more objects than the cache may hold; a larger cachesize or cachefiles allows for more"
                .into()
        } else if needs > left {
            format!(
                "needs {} ({} objects), and pins have {} of {} left",
                size(needs),
                measured.objects,
                size(left),
                size(room)
            )
        } else if missing > disk {
            format!("needs {} more, and the disk under the cache has {} left", size(missing), size(disk))
        } else {
            return None;
        };
        let holds =
            |(wish, bytes): &(Wish, u64)| format!("{} holds {}", self.path_of_wish(wish), size(*bytes));
        let holders: Vec<String> = measured.holders.iter().take(5).map(holds).collect();
        let next = match holders.is_empty() {
            true => {
                "pin less of it (--most SIZE takes the newest files), or give venus a larger cachesize".into()
            }
            false => format!("{}; `cfs unpin` gives room back", holders.join(", ")),
        };
        Some(Failure { next, ..wrong(path, FailureKind::NoSpace, why) })
    }

    /// What the process that asks, and those that it started, have missed.
    pub(super) fn misses(&self, who: Caller) -> Vec<Missed> {
        let mountpoint = self.config().mountpoint.trim_end_matches('/').to_owned();
        let missed = self.core.rehearsed(who.pid).unwrap_or_default();
        let shown = |missed: crate::ops::Missed| Missed {
            path: format!("{mountpoint}/{}", missed.path),
            bytes: missed.bytes,
            times: missed.times,
        };
        missed.into_iter().map(shown).collect()
    }
}
