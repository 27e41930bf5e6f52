//! Which records travel in the next Apply: the oldest of those that are to go, in order, but for those that have
//! to wait and what depends on them. What they are built on goes with them, whosever it is; where that waits,
//! they do too.

use std::collections::{BTreeMap, HashSet};

use super::Entry;

/// How much one Apply carries.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes.
    pub bytes: usize,
    /// Bytes of contents, wherever they travel.
    pub contents: u64,
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Their places in the log.
    pub records: Vec<u64>,
    /// Some are left that could have gone, had there been room.
    pub more: bool,
}

/// So many records at most are looked at to find what one is built on. Where it is built on more, whoever made
/// those sends them.
const ALONG: usize = 256;

/// Chooses. `own`: the records that are to go, oldest first. `before`: of each object that a record touches, the
/// record right before it. `goes`: this one has not to wait. One record always fits.
pub fn chunk<'a>(
    own: impl Iterator<Item = &'a Entry>,
    before: impl Fn(&Entry) -> Vec<&'a Entry>,
    goes: impl Fn(&Entry) -> bool,
    limits: Limits,
) -> Chunk {
    let mut chosen: BTreeMap<u64, &Entry> = BTreeMap::new();
    let mut waits: HashSet<u64> = HashSet::new();
    let (mut bytes, mut contents) = (0, 0);
    for entry in own {
        let Some(group) = group(entry, &before, &goes, &chosen, &mut waits) else { continue };
        for (log, entry) in group {
            bytes += entry.size;
            contents += entry.contents;
            let full = chosen.len() >= limits.records || bytes > limits.bytes || contents > limits.contents;
            if full && !chosen.is_empty() {
                return Chunk { records: chosen.into_keys().collect(), more: true };
            }
            chosen.insert(log, entry);
        }
    }
    Chunk { records: chosen.into_keys().collect(), more: false }
}

/// A record and what has to go before it and is not chosen yet, oldest first. `None`: some of it waits.
fn group<'a>(
    entry: &'a Entry,
    before: impl Fn(&Entry) -> Vec<&'a Entry>,
    goes: impl Fn(&Entry) -> bool,
    chosen: &BTreeMap<u64, &Entry>,
    waits: &mut HashSet<u64>,
) -> Option<BTreeMap<u64, &'a Entry>> {
    let mut group = BTreeMap::new();
    let mut open = vec![entry];
    while let Some(next) = open.pop() {
        if group.contains_key(&next.log) || chosen.contains_key(&next.log) {
            continue;
        }
        if group.len() > ALONG || waits.contains(&next.log) || !goes(next) {
            waits.extend([entry.log, next.log]);
            return None;
        }
        group.insert(next.log, next);
        open.extend(before(next));
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot, Fid, VolumeId};

    use super::*;

    pub fn entry(log: u64, touches: &[u32], size: usize) -> Entry {
        let fid = |vnode: &u32| Fid { volume: VolumeId(1), vnode: *vnode, unique: 1 };
        Entry {
            log,
            uid: 1000,
            dot: Dot::new(Author(5), log),
            touches: touches.iter().map(fid).collect(),
            creates: None,
            size,
            contents: 0,
            time: 0,
            verb: "store",
        }
    }

    fn of(uid: u32, entry: Entry) -> Entry {
        Entry { uid, ..entry }
    }

    const AMPLE: Limits = Limits { records: 100, bytes: 1000, contents: u64::MAX };

    /// Chooses for a user.
    fn choose(log: &[Entry], uid: u32, goes: impl Fn(&Entry) -> bool, limits: Limits) -> Chunk {
        let before = |entry: &Entry| {
            let earlier = |fid: &Fid| {
                log.iter().rev().find(|other| other.log < entry.log && other.touches.contains(fid))
            };
            entry.touches.iter().filter_map(earlier).collect()
        };
        chunk(log.iter().filter(|entry| entry.uid == uid), before, goes, limits)
    }

    #[test]
    fn a_record_that_waits_holds_back_only_what_depends_on_it() {
        let log = [
            entry(1, &[1, 2], 1),
            entry(2, &[3, 4], 1),
            // Touches what the first touches.
            entry(3, &[2, 6], 1),
            // And this what that one touches.
            entry(4, &[6], 1),
            entry(5, &[3, 8], 1),
        ];
        let chosen = choose(&log, 1000, |entry| entry.log != 1, AMPLE);
        assert_eq!(chosen, Chunk { records: vec![2, 5], more: false });
        let chosen = choose(&log, 1000, |entry| entry.log != 4, AMPLE);
        assert_eq!(chosen.records, [1, 2, 3, 5]);
    }

    #[test]
    fn a_chunk_ends_where_it_is_full_and_holds_one_record_at_least() {
        let log: Vec<Entry> = (1..=5).map(|log| entry(log, &[1], 400)).collect();
        let chosen = choose(&log, 1000, |_| true, AMPLE);
        assert_eq!(chosen, Chunk { records: vec![1, 2], more: true });
        let chosen = choose(&log, 1000, |_| true, Limits { records: 1, ..AMPLE });
        assert_eq!(chosen, Chunk { records: vec![1], more: true });
        let huge = [entry(1, &[1], 5000)];
        assert_eq!(choose(&huge, 1000, |_| true, AMPLE).records, [1]);
    }

    #[test]
    fn what_a_users_records_are_built_on_goes_with_them_and_nothing_else_of_others() {
        let log = [
            of(7, entry(1, &[1, 2], 1)),
            of(7, entry(2, &[3], 1)),
            of(7, entry(3, &[2, 4], 1)),
            of(8, entry(4, &[4, 5], 1)),
            of(7, entry(5, &[5], 1)),
            of(8, entry(6, &[9], 1)),
        ];
        assert_eq!(choose(&log, 8, |_| true, AMPLE).records, [1, 3, 4, 6]);
        // Where some of that waits, so does what is built on it, and no more.
        assert_eq!(choose(&log, 8, |entry| entry.log != 1, AMPLE).records, [6]);
        assert_eq!(choose(&log, 8, |entry| entry.uid == 8, AMPLE).records, [6]);
        assert_eq!(choose(&log, 7, |entry| entry.uid == 7, AMPLE).records, [1, 2, 3]);
        // A chunk that is full holds the oldest of it.
        assert_eq!(choose(&log, 8, |_| true, Limits { records: 2, ..AMPLE }).records, [1, 3]);
    }

    #[test]
    fn what_is_built_on_very_many_records_of_others_waits_for_them() {
        let mut log: Vec<Entry> = (1..=1000).map(|log| of(7, entry(log, &[1], 0))).collect();
        log.push(of(8, entry(1001, &[1, 2], 0)));
        log.push(of(8, entry(1002, &[3], 0)));
        assert_eq!(choose(&log, 8, |_| true, AMPLE).records, [1002]);
    }
}
