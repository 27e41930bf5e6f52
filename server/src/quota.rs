//! What counts against a volume's quota, in blocks of 1 KiB.

use coda_proto::{Kind, merge::Head};

/// Blocks of contents this long; nothing is free.
pub fn blocks(length: u64) -> u64 {
    length.div_ceil(1024).max(1)
}

/// Blocks of an object: two for a directory, every version of a file's contents.
pub fn blocks_of(head: &Head) -> u64 {
    match head.kind {
        Kind::Directory => 2,
        Kind::Symlink => 1,
        Kind::File => head.siblings.iter().map(|sibling| blocks(sibling.length)).sum::<u64>().max(1),
    }
}

/// Whether a volume that uses `used` of `limit` blocks may grow. A volume below its limit may overshoot it
/// once: the next growth is refused.
pub fn may_grow(used: u64, limit: u64) -> bool {
    limit == 0 || used < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_counts_one_block() {
        assert_eq!([0, 1, 1024, 1025].map(blocks), [1, 1, 1, 2]);
    }

    #[test]
    fn growth_is_refused_only_once_the_limit_is_reached() {
        assert!(may_grow(10, 0) && may_grow(9, 10) && !may_grow(10, 10) && !may_grow(11, 10));
    }
}
