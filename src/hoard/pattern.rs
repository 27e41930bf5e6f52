//! Patterns of paths: `docs/*.odt`, `photos/**/2026-*`.
//!
//! `*` and `?` stand for characters of one name; a part `**` for any number of directories, none among them.

pub(crate) use crate::conflict::merge::matches;

/// Any number of directories.
pub(crate) const DEEP: &[u8] = b"**";

/// Whether a part of a path stands for more than itself.
pub(crate) fn is_pattern(part: &[u8]) -> bool {
    part.iter().any(|byte| matches!(byte, b'*' | b'?'))
}
