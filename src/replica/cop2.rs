//! COP2: telling members which mutations every member holds.
//!
//! Serves receipts and the collection of tombstones only: lost, late or repeated it changes no version,
//! so nothing here is durable and nothing is retried.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Dot, VolumeId, wire};

/// What found no call to ride on is sent by itself after so long.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Dots that ride along on one call.
const RIDE_LIMIT: usize = 200;
/// Dots kept for one server; more are forgotten, oldest volume first.
const QUEUE_LIMIT: usize = 10_000;

/// Dots still to be told to one server.
#[derive(Debug, Default)]
pub struct Queue {
    dots: BTreeMap<(VolumeId, u64), BTreeSet<Dot>>,
    count: usize,
    attended: bool,
}

impl Queue {
    /// Every member of `epoch` holds these. True: nobody sees to the queue yet, and the caller does now.
    pub fn push(&mut self, volume: VolumeId, epoch: u64, dots: &[Dot]) -> bool {
        for dot in dots {
            if self.count < QUEUE_LIMIT && self.dots.entry((volume, epoch)).or_default().insert(*dot) {
                self.count += 1;
            }
        }
        self.count > 0 && !std::mem::replace(&mut self.attended, true)
    }

    /// True if nothing is left; then nobody needs to see to the queue.
    pub fn is_done(&mut self) -> bool {
        self.attended = self.count > 0;
        !self.attended
    }

    /// What may ride on the next call.
    pub fn ride(&mut self) -> Vec<wire::Cop2> {
        let mut riders = Vec::new();
        let mut room = RIDE_LIMIT;
        while room > 0 {
            let Some(mut entry) = self.dots.first_entry() else { break };
            let (volume, epoch) = *entry.key();
            let rest = entry.get().iter().nth(room).copied().map(|dot| entry.get_mut().split_off(&dot));
            let taken = match rest {
                Some(rest) => std::mem::replace(entry.get_mut(), rest),
                None => entry.remove(),
            };
            room -= taken.len();
            self.count -= taken.len();
            let dots = taken.into_iter().map(wire::Dot::from).collect();
            riders.push(wire::Cop2 { volume: volume.0, epoch, dots });
        }
        riders
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coda_proto::Author;

    #[test]
    fn everything_queued_rides_once_and_not_too_much_at_a_time() {
        let mut queue = Queue::default();
        let dots: Vec<_> = (1..=250).map(|seq| Dot::new(Author(7), seq)).collect();
        assert!(queue.push(VolumeId(1), 3, &dots));
        assert!(!queue.push(VolumeId(2), 1, &dots[..5]));
        assert!(!queue.push(VolumeId(2), 1, &dots[..5]), "repeated");
        let lengths =
            |riders: Vec<wire::Cop2>| riders.iter().map(|r| (r.volume, r.dots.len())).collect::<Vec<_>>();
        assert_eq!(lengths(queue.ride()), [(1, 200)]);
        assert_eq!(lengths(queue.ride()), [(1, 50), (2, 5)]);
        assert!(queue.is_empty() && queue.ride().is_empty());
        assert!(!queue.push(VolumeId(1), 3, &dots[..1]), "somebody still sees to it");
        queue.ride();
        assert!(queue.is_done());
        assert!(queue.push(VolumeId(1), 3, &dots[..1]), "anew");
        assert!(!queue.is_done());
    }
}
