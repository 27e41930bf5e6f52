//! The `VRList` file: one replicated volume a line.
//!
//! ```text
//!  NAME GROUP COUNT ID0 ID1 … ID7 [VSG]     ids hexadecimal, 0 where unused; the ninth is ignored
//! ```
//!
//! The position of an id is its slot and never changes meaning. Coda believed the count and dropped the
//! other replicas in silence; here a line that contradicts itself is refused.

use std::collections::BTreeMap;

use coda_proto::{ServerId, VolumeId, name::VOLUME_NAME_LIMIT, wire};

use super::lines::{FileError, words};

/// A line of the list: a name, a group id, and (slot, replica) pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it stands.
    pub number: usize,
    /// Name of the volume.
    pub name: String,
    /// Its group id.
    pub id: VolumeId,
    /// Slots and replica ids.
    pub replicas: Vec<(u32, u32)>,
}

/// Columns of replica ids.
const SLOTS: usize = 8;

/// Reads a `VRList` whose servers are `servers`.
pub fn parse(
    file: &str,
    text: &str,
    servers: &BTreeMap<ServerId, wire::ServerInfo>,
) -> Result<Vec<Line>, FileError> {
    let mut lines: Vec<Line> = Vec::new();
    let mut replicas: BTreeMap<u32, usize> = BTreeMap::new();
    for (number, words) in words(file, text)? {
        let line = read(&words, servers).map_err(|reason| FileError::new(file, number, reason))?;
        let wrong = |reason: String| FileError::new(file, number, reason);
        for other in &lines {
            if other.name == line.name {
                return Err(wrong(format!("volume {} is already there (line {})", line.name, other.number)));
            }
            if other.id == line.id {
                return Err(wrong(format!(
                    "group id {} is already that of {} (line {})",
                    line.id, other.name, other.number
                )));
            }
        }
        for (_, replica) in &line.replicas {
            if let Some(other) = replicas.insert(*replica, number) {
                return Err(wrong(match other == number {
                    true => format!("replica {replica:08x} stands there twice"),
                    false => format!("replica {replica:08x} is already there (line {other})"),
                }));
            }
        }
        lines.push(Line { number, ..line });
    }
    Ok(lines)
}

fn read(words: &[&str], servers: &BTreeMap<ServerId, wire::ServerInfo>) -> Result<Line, String> {
    let [name, id, count, ids @ ..] = words else {
        return Err(format!("{} words; a line is NAME GROUP COUNT ID0 … ID7", words.len()));
    };
    if name.len() > VOLUME_NAME_LIMIT {
        return Err(format!("the name has {} bytes; at most {VOLUME_NAME_LIMIT}", name.len()));
    }
    let id = VolumeId(hex(id)?);
    if !id.is_group() {
        return Err(format!("group id {id} does not begin with 7f"));
    }
    let count: usize = count.parse().map_err(|_| format!("{count:?} is not a decimal count"))?;
    if !(1..=SLOTS).contains(&count) {
        return Err(format!("{count} replicas; a volume has 1 to {SLOTS}"));
    }
    if ids.len() != SLOTS && ids.len() != SLOTS + 1 {
        return Err(format!("{} columns of ids; there are {SLOTS}, and a ninth that is ignored", ids.len()));
    }
    let mut replicas = Vec::new();
    let mut at: BTreeMap<u32, u32> = BTreeMap::new();
    for (slot, replica) in ids[..SLOTS].iter().enumerate() {
        let replica = hex(replica)?;
        if replica == 0 {
            continue;
        }
        let server = replica >> 24;
        let known = ServerId::new(server).ok().is_some_and(|server| servers.contains_key(&server));
        if !known {
            return Err(format!("replica {replica:08x} is on server {server}, which nobody knows"));
        }
        if replica & 0x00ff_ffff == 0 {
            return Err(format!("replica {replica:08x} has no number behind its server"));
        }
        if replicas.iter().any(|(_, other)| *other == replica) {
            return Err(format!("replica {replica:08x} stands there twice"));
        }
        if let Some(other) = at.insert(server, replica) {
            return Err(format!("{other:08x} and {replica:08x} are both on server {server}"));
        }
        replicas.push((slot as u32, replica));
    }
    if replicas.len() != count {
        return Err(format!("the count says {count} replicas, and {} ids follow", replicas.len()));
    }
    Ok(Line { number: 0, name: (*name).to_owned(), id, replicas })
}

fn hex(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 16).map_err(|_| format!("{text:?} is not a hexadecimal id"))
}

/// The list as a file.
pub fn text<'a>(volumes: impl IntoIterator<Item = &'a wire::VolumeInfo>) -> String {
    let mut text = String::new();
    for volume in volumes {
        let mut ids = [0; SLOTS];
        // Slots are never used again, so that one may lie beyond the columns: it takes the first that is free.
        let mut beyond = Vec::new();
        for member in &volume.members {
            match ids.get_mut(member.slot as usize) {
                Some(id) => *id = member.replica,
                None => beyond.push(member.replica),
            }
        }
        for replica in beyond {
            if let Some(id) = ids.iter_mut().find(|id| **id == 0) {
                *id = replica;
            }
        }
        text.push_str(&format!("{} {:08x} {}", volume.name, volume.id, volume.members.len()));
        ids.iter().for_each(|id| text.push_str(&format!(" {id:08x}")));
        text.push_str(" 0\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> BTreeMap<ServerId, wire::ServerInfo> {
        super::super::servers::parse("servers", "a 1\nb 2\nc 3\n").unwrap()
    }

    #[test]
    fn ids_are_read_with_and_without_leading_zeros_and_with_a_ninth_column() {
        for text in [
            "home 7f000001 2 01000001 02000001 0 0 0 0 0 0",
            "home 7F000001 2 1000001 2000001 0 0 0 0 0 0 E0000107",
            "# x\n\nhome 7f000001 2 1000001 02000001 00000000 0 0 0 0 0 0\n",
        ] {
            let lines = parse("VRList", text, &servers()).unwrap();
            assert_eq!(lines[0].replicas, [(0, 0x0100_0001), (1, 0x0200_0001)], "{text}");
            assert_eq!((lines[0].id, lines[0].name.as_str()), (VolumeId(0x7f00_0001), "home"));
        }
    }

    #[test]
    fn a_slot_may_stay_unused() {
        let lines = parse("VRList", "home 7f000001 2 0 01000001 0 02000001 0 0 0 0", &servers()).unwrap();
        assert_eq!(lines[0].replicas, [(1, 0x0100_0001), (3, 0x0200_0001)]);
    }

    #[test]
    fn each_fault_is_refused_with_its_line() {
        let long = format!("{} 7f000001 1 01000001 0 0 0 0 0 0 0", "n".repeat(32));
        for (text, line, reason) in [
            ("dir 7f000002 1 02000003 03000001 0 0 0 0 0 0 0", 1, "the count says 1 replicas, and 2 ids"),
            ("dir 7f000002 3 02000003 03000001 0 0 0 0 0 0 0", 1, "the count says 3 replicas, and 2 ids"),
            ("dir 7f000002 2 01000001 01000001 0 0 0 0 0 0", 1, "stands there twice"),
            ("dir 7f000002 2 01000001 01000002 0 0 0 0 0 0", 1, "both on server 1"),
            ("dir 7f000002 1 09000001 0 0 0 0 0 0 0", 1, "nobody knows"),
            ("dir 7f000002 1 7f000001 0 0 0 0 0 0 0", 1, "nobody knows"),
            ("dir 01000002 1 01000001 0 0 0 0 0 0 0", 1, "does not begin with 7f"),
            ("dir 7f000002 1 01000000 0 0 0 0 0 0 0", 1, "no number"),
            ("dir xyz 1 01000001 0 0 0 0 0 0 0", 1, "hexadecimal"),
            ("dir 7f000002 1 0100000g 0 0 0 0 0 0 0", 1, "hexadecimal"),
            ("dir 7f000002 0 0 0 0 0 0 0 0 0", 1, "1 to 8"),
            ("dir 7f000002 one 01000001 0 0 0 0 0 0 0", 1, "decimal count"),
            ("dir 7f000002 1 01000001 0 0", 1, "columns"),
            ("dir 7f000002 1 01000001 0 0 0 0 0 0 0 0 0", 1, "columns"),
            ("dir 7f000002", 1, "words"),
            (&long, 1, "at most 31"),
            (
                "a 7f000001 1 01000001 0 0 0 0 0 0 0\na 7f000002 1 01000002 0 0 0 0 0 0 0",
                2,
                "already there (line 1)",
            ),
            (
                "a 7f000001 1 01000001 0 0 0 0 0 0 0\nb 7f000001 1 01000002 0 0 0 0 0 0 0",
                2,
                "already that of a (line 1)",
            ),
            (
                "a 7f000001 1 01000001 0 0 0 0 0 0 0\nb 7f000002 1 01000001 0 0 0 0 0 0 0",
                2,
                "already there (line 1)",
            ),
        ] {
            let error = parse("VRList", text, &servers()).unwrap_err();
            assert_eq!((error.line, error.file.as_str()), (line, "VRList"), "{text:?}: {error}");
            assert!(error.reason.contains(reason), "{text:?}: {error}");
        }
    }
}
