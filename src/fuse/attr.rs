//! Attributes as the kernel wants them, and for how long it may believe them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::venus::face::{Attr, NodeKind};

/// How long the kernel believes what a callback guards; it is told when the promise breaks.
pub const LASTING: Duration = Duration::from_secs(24 * 3600);

/// What `stat` shows of an object under an inode number.
pub fn to_kernel(ino: u64, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: from_nanos(attr.atime),
        mtime: from_nanos(attr.mtime),
        ctime: from_nanos(attr.ctime),
        crtime: from_nanos(attr.mtime),
        kind: kind(attr.kind),
        perm: (attr.mode & 0o1777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The kernel's word for a kind.
pub fn kind(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
    }
}

/// A time from nanoseconds since 1970, also before it.
pub fn from_nanos(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// Nanoseconds since 1970 of a time that came from the kernel.
///
/// The library reads the kernel's (-1 s, +400 ms) as 1.4 s before 1970, where 0.6 s is meant; the seconds
/// are whole and the rest always counts upwards, so that is undone here.
pub fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let seconds = i128::from(before.as_secs()) * 1_000_000_000;
            i64::try_from(i128::from(before.subsec_nanos()) - seconds).unwrap_or(i64::MIN)
        }
    }
}

/// Nanoseconds since 1970 of a time asked for, where it is `now`.
pub fn asked(time: TimeOrNow, now: i64) -> i64 {
    match time {
        TimeOrNow::SpecificTime(time) => to_nanos(time),
        TimeOrNow::Now => now,
    }
}

/// The wall clock of this machine, which the kernel means; the shell may read it.
#[allow(clippy::disallowed_methods)]
pub fn now() -> i64 {
    to_nanos(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_way_to_the_kernel_and_back() {
        for nanos in [0, 1, 999_999_999, 1_700_000_000_123_456_789, -3_000_000_000] {
            assert_eq!(to_nanos(from_nanos(nanos)), nanos);
        }
    }

    #[test]
    fn the_part_of_a_second_before_1970_counts_upwards() {
        // What the library makes of (-2 s, 250 ms).
        let misread = UNIX_EPOCH - Duration::new(2, 250_000_000);
        assert_eq!(to_nanos(misread), -1_750_000_000);
    }
}
