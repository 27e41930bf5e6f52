//! Which records travel in the next Apply: the oldest, in order, but for those that have to wait and what
//! depends on them.

use std::collections::HashSet;

use coda_proto::Fid;

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

/// Chooses among the entries of a log. `held`: this one has to wait. One record always fits.
pub fn chunk<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    held: impl Fn(&Entry) -> bool,
    limits: Limits,
) -> Chunk {
    let mut chunk = Chunk::default();
    let mut blocked: HashSet<Fid> = HashSet::new();
    let (mut bytes, mut contents) = (0, 0);
    for entry in entries {
        if held(entry) || entry.touches.iter().any(|fid| blocked.contains(fid)) {
            blocked.extend(entry.touches.iter());
            continue;
        }
        bytes += entry.size;
        contents += entry.contents;
        let full =
            chunk.records.len() >= limits.records || bytes > limits.bytes || contents > limits.contents;
        if full && !chunk.records.is_empty() {
            return Chunk { more: true, ..chunk };
        }
        chunk.records.push(entry.log);
    }
    chunk
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot, VolumeId};

    use super::*;

    pub fn entry(log: u64, touches: &[u32], size: usize) -> Entry {
        let fid = |vnode: &u32| Fid { volume: VolumeId(1), vnode: *vnode, unique: 1 };
        Entry {
            log,
            dot: Dot::new(Author(5), log),
            touches: touches.iter().map(fid).collect(),
            creates: None,
            size,
            contents: 0,
            time: 0,
            verb: "store",
        }
    }

    const AMPLE: Limits = Limits { records: 100, bytes: 1000, contents: u64::MAX };

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
        let chosen = chunk(log.iter(), |entry| entry.log == 1, AMPLE);
        assert_eq!(chosen, Chunk { records: vec![2, 5], more: false });
        let chosen = chunk(log.iter(), |entry| entry.log == 4, AMPLE);
        assert_eq!(chosen.records, [1, 2, 3, 5]);
    }

    #[test]
    fn a_chunk_ends_where_it_is_full_and_holds_one_record_at_least() {
        let log: Vec<Entry> = (1..=5).map(|log| entry(log, &[1], 400)).collect();
        let chosen = chunk(log.iter(), |_| false, AMPLE);
        assert_eq!(chosen, Chunk { records: vec![1, 2], more: true });
        let chosen = chunk(log.iter(), |_| false, Limits { records: 1, ..AMPLE });
        assert_eq!(chosen, Chunk { records: vec![1], more: true });
        let huge = [entry(1, &[1], 5000)];
        assert_eq!(chunk(huge.iter(), |_| false, AMPLE).records, [1]);
    }
}
