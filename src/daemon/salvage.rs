//! `venus salvage CACHEDIR DIR`: gets what no server has out of a cache that no venus runs on any more.
//!
//! It works on a copy of the database and changes nothing in the cache. Where the database cannot be read,
//! it takes every container, by number.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use coda_proto::{Contents, Fid, Op};

use crate::{cache::disk, store::Store, venus::face::ObjectId};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Files with contents that no server has.
    pub files: u64,
    /// Of these, such as cannot be read or are not what they should be.
    pub damaged: u64,
    /// Changes of other kinds; the list names them.
    pub others: u64,
}

/// Copies whatever is unsent in the cache at `cachedir` to `to`, which must not exist or be empty.
pub fn salvage(cachedir: &Path, to: &Path) -> anyhow::Result<Salvaged> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    if fs::read_dir(to)?.next().is_some() {
        bail!("{} is not empty", to.display());
    }
    if !cachedir.join("containers").is_dir() {
        bail!("{} is no cache directory: it has no containers", cachedir.display());
    }
    let copy = to.join(".venus.db");
    let opened = copy_database(cachedir, &copy).and_then(|()| Ok(Store::open(Some(&copy))?));
    let found = match opened {
        Ok(store) => unsent(cachedir, to, &store),
        Err(error) => {
            eprintln!("venus: {error:#}; taking every file of the cache instead");
            everything(cachedir, to)
        }
    };
    for end in ["", "-wal", "-shm"] {
        let mut name = copy.as_os_str().to_owned();
        name.push(end);
        let _ = fs::remove_file(name);
    }
    found
}

fn copy_database(cachedir: &Path, copy: &Path) -> anyhow::Result<()> {
    for end in ["", "-wal"] {
        let from = cachedir.join(format!("venus.db{end}"));
        let mut to = copy.as_os_str().to_owned();
        to.push(end);
        match fs::copy(&from, &to) {
            Err(error) if end.is_empty() || error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| from.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

fn unsent(cachedir: &Path, to: &Path, store: &Store) -> anyhow::Result<Salvaged> {
    let mut found = Salvaged::default();
    let realms: std::collections::BTreeMap<u32, String> = store.realms()?.into_iter().collect();
    let place = |id: ObjectId| {
        let realm = realms.get(&id.realm).cloned().unwrap_or_else(|| id.realm.to_string());
        to.join(realm).join(id.fid.volume.to_string()).join(path(store, id))
    };
    let mut list = fs::File::create(to.join("changes"))?;
    let mut seen = BTreeSet::new();
    // The last Store of a file counts.
    for row in store.log()?.into_iter().rev() {
        let id = ObjectId { realm: row.realm, fid: *row.record.op.touches().last().expect("at least one") };
        writeln!(list, "{} {}", row.record.op.verb(), place(id).display())?;
        let Op::Store { fid, length, hash, .. } = row.record.op else {
            found.others += 1;
            continue;
        };
        let id = ObjectId { fid, ..id };
        if !seen.insert(id) {
            continue;
        }
        found.files += 1;
        let contents = match (row.container, store.logged(row.id)?.map(|row| row.record.op)) {
            (Some(container), _) => disk::read(&cachedir.join("containers"), container).ok(),
            (None, Some(Op::Store { contents: Contents::Inline(bytes), .. })) => Some(bytes.to_vec()),
            _ => None,
        };
        let Some(contents) = contents else {
            found.damaged += 1;
            continue;
        };
        let whole = contents.len() as u64 == length && *blake3::hash(&contents).as_bytes() == hash;
        found.damaged += u64::from(!whole);
        put(&place(id), if whole { "" } else { ".damaged" }, &contents)?;
    }
    for (id, row) in store.writing()? {
        let contents =
            row.data.and_then(|data| disk::read(&cachedir.join("containers"), data.container).ok());
        if let Some(contents) = contents.filter(|contents| !contents.is_empty()) {
            found.files += 1;
            put(&place(id), ".being-written", &contents)?;
        }
    }
    Ok(found)
}

fn everything(cachedir: &Path, to: &Path) -> anyhow::Result<Salvaged> {
    let mut found = Salvaged::default();
    for name in disk::names(&cachedir.join("containers"))? {
        let contents = disk::read(&cachedir.join("containers"), name)?;
        if !contents.is_empty() {
            found.files += 1;
            put(&to.join("contents").join(name.to_string()), "", &contents)?;
        }
    }
    Ok(found)
}

fn put(place: &Path, end: &str, contents: &[u8]) -> anyhow::Result<()> {
    let mut name = place.as_os_str().to_owned();
    name.push(end);
    let place = PathBuf::from(name);
    fs::create_dir_all(place.parent().context("a place has a directory")?)?;
    fs::write(&place, contents).with_context(|| place.display().to_string())
}

/// Where an object is in its volume, as far as is known; else its fid.
fn path(store: &Store, id: ObjectId) -> PathBuf {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at: Fid = id.fid;
    while !at.is_root() && names.len() < 1000 {
        let here = ObjectId { realm: id.realm, fid: at };
        let row = store.row(here).ok().flatten();
        let dir = row.map(|row| ObjectId { realm: id.realm, fid: row.status.parent });
        let name = dir.and_then(|dir| Some((dir, store.name_in(dir, at).ok()??)));
        match name {
            // A name is one step of a path, whatever somebody made it.
            Some((dir, name)) if name != b".." && name != b"." && !name.contains(&b'/') => {
                names.push(name);
                at = dir.fid;
            }
            _ => {
                names.push(at.to_string().into_bytes());
                break;
            }
        }
    }
    names.iter().rev().map(|name| OsStr::from_bytes(name)).collect()
}
