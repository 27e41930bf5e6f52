//! Dump levels: a dump of level N holds what differs from the newest dump of a lower level, which is found among
//! the files of a directory. So one of level 0 a month, of level 1 a week and of level 2 a day are restored from
//! three files.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{Exit, Failed, dump, stream::Header};

/// The highest level.
pub const HIGHEST: u8 = 9;
/// Kind, length, hash and checksum of a dump's last frame.
const END: i64 = 1 + 4 + 32 + 8;

/// A dump file, as far as it can be told without reading all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// What the next dump names to follow it.
    pub end: String,
}

/// The dumps among the files of a directory.
pub fn among(dir: &Path) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        // Whatever else is there is no concern of ours.
        let Ok((_, header)) = dump::open(&path) else { continue };
        if let Some(end) = end(&path).with_context(|| path.display().to_string())? {
            found.push(Found { path, header, end });
        }
    }
    found.sort_by(|one, other| (one.header.time, &one.path).cmp(&(other.header.time, &other.path)));
    Ok(found)
}

/// What a dump's last frame vouches for; `None` where it has none.
fn end(path: &Path) -> anyhow::Result<Option<String>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < END as u64 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-END))?;
    let mut frame = [0; END as usize];
    file.read_exact(&mut frame)?;
    let is_end = frame[0] == b'E' && frame[1..5] == 32u32.to_le_bytes();
    Ok(is_end.then(|| frame[5..37].iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The dumps that one of this level follows, oldest first: none for level 0.
pub fn before(found: &[Found], realm: &str, volume: &str, level: u8) -> anyhow::Result<Vec<PathBuf>> {
    if level == 0 {
        return Ok(Vec::new());
    }
    let of = |found: &&Found| found.header.realm == realm && found.header.volume == volume;
    let lower = found.iter().filter(of).filter(|found| found.header.level < level);
    let Some(mut last) = lower.max_by_key(|found| found.header.time) else {
        let why =
            format!("there is no dump of volume {volume} of a level below {level}: begin with --level 0");
        return Err(Failed(Exit::Refused, why).into());
    };
    let mut chain = vec![last.path.clone()];
    while let Some(follows) = &last.header.follows {
        let Some(former) = found.iter().filter(of).find(|found| found.end == *follows) else {
            let why = format!("{}: the dump that it follows is not among the others", last.path.display());
            return Err(Failed(Exit::Refused, why).into());
        };
        anyhow::ensure!(!chain.contains(&former.path), "{}: it follows itself", last.path.display());
        chain.push(former.path.clone());
        last = former;
    }
    chain.reverse();
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(name: &str, volume: &str, level: u8, time: i64, follows: Option<&str>) -> Found {
        let header = Header {
            realm: "r".into(),
            volume: volume.into(),
            name: "src".into(),
            server: "one".into(),
            time,
            level,
            follows: follows.map(str::to_owned),
        };
        Found { path: name.into(), header, end: format!("end of {name}") }
    }

    fn chosen(found: &[Found], level: u8) -> Result<Vec<String>, String> {
        let chain = before(found, "r", "7f000002", level).map_err(|error| error.to_string())?;
        Ok(chain.iter().map(|path| path.display().to_string()).collect())
    }

    #[test]
    fn a_dump_follows_the_newest_of_a_lower_level_and_what_that_follows() {
        let all = [
            dumped("full", "7f000002", 0, 1, None),
            dumped("week", "7f000002", 1, 2, Some("end of full")),
            dumped("day", "7f000002", 2, 3, Some("end of week")),
            dumped("later week", "7f000002", 1, 4, Some("end of full")),
            dumped("other", "7f000009", 0, 5, None),
        ];
        assert_eq!(chosen(&all, 0).unwrap(), Vec::<String>::new());
        assert_eq!(chosen(&all, 1).unwrap(), ["full"]);
        assert_eq!(chosen(&all, 2).unwrap(), ["full", "later week"]);
        assert_eq!(chosen(&all[..3], 9).unwrap(), ["full", "week", "day"]);
        assert_eq!(chosen(&all[..3], 2).unwrap(), ["full", "week"]);
    }

    #[test]
    fn a_level_that_nothing_comes_before_and_a_missing_link_are_refused() {
        let alone = [dumped("day", "7f000002", 2, 3, Some("end of week"))];
        assert!(chosen(&alone, 2).unwrap_err().contains("begin with --level 0"));
        assert!(chosen(&alone, 3).unwrap_err().contains("day: the dump that it follows"));
        let circle = [
            dumped("a", "7f000002", 1, 1, Some("end of b")),
            dumped("b", "7f000002", 1, 2, Some("end of a")),
        ];
        assert!(chosen(&circle, 3).unwrap_err().contains("follows itself"));
    }
}
