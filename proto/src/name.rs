//! Names of directory entries: bytes, never text.

use crate::{Code, Refusal};

/// A name in a directory: 1 to 255 bytes without `/` and NUL, and neither `.` nor `..`.
pub type Name = Vec<u8>;

/// The longest name, in bytes.
pub const NAME_LIMIT: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const TARGET_LIMIT: usize = 4095;
/// The longest name of a volume, in bytes.
pub const VOLUME_NAME_LIMIT: usize = 31;
/// The longest name of an extended attribute, in bytes.
pub const XATTR_NAME_LIMIT: usize = 255;
/// The largest value of an extended attribute, in bytes.
pub const XATTR_VALUE_LIMIT: usize = 64 * 1024;

/// The longest name of a machine that a record carries, in bytes.
pub const HOST_LIMIT: usize = 64;

/// Whether a directory may hold this name.
pub fn check_name(name: &[u8]) -> Result<(), Refusal> {
    let wrong = name.is_empty()
        || name.len() > NAME_LIMIT
        || name == b"."
        || name == b".."
        || name.iter().any(|byte| matches!(byte, b'/' | 0));
    match wrong {
        true => {
            Err(Refusal::new(Code::Name, format!("{:?} cannot be a name", String::from_utf8_lossy(name))))
        }
        false => Ok(()),
    }
}
