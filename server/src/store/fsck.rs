//! Whether a store is sound: a pure function over a directory. It changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use coda_proto::{Dot, Fid, Kind};
use rusqlite::Connection;

use super::{
    Containers, RealmStore, StoreError,
    replica::replica_dir,
    rows::{dot, fid},
    schema::open_for_reading,
    view::View,
};
use crate::{config::Durability, quota};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The replica.
    pub replica: u32,
    /// What, and where.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {:08x}: {}", self.replica, self.what)
    }
}

/// Looks at everything below `dir`, the store of a server that is not running.
pub fn check(dir: &Path) -> Result<Vec<Finding>, StoreError> {
    let (own, realm) = RealmStore::look(dir)?.load()?;
    let mut findings = Vec::new();
    for id in realm.volumes.keys() {
        let Some(member) = realm.replica_at(*id, own) else { continue };
        let path = replica_dir(dir, member.replica);
        let mut wrong = |what: String| findings.push(Finding { replica: member.replica, what });
        match open_for_reading(&path.join("meta.db")) {
            Ok(db) => {
                match (Check { db: &db, view: View { db: &db, volume: *id }, dir: &path }.run(&mut wrong)) {
                    Err(error) if error.is_damage() => wrong(format!("meta.db is damaged: {error}")),
                    checked => checked?,
                }
            }
            Err(error) => wrong(format!("meta.db cannot be read: {error}")),
        }
    }
    Ok(findings)
}

struct Check<'a> {
    db: &'a Connection,
    view: View<'a>,
    dir: &'a Path,
}

type Wrong<'a> = &'a mut dyn FnMut(String);

impl Check<'_> {
    fn run(&self, wrong: Wrong<'_>) -> Result<(), StoreError> {
        let sound: String = self.db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if sound != "ok" {
            wrong(format!("SQLite: {sound}"));
        }
        self.heads(wrong)?;
        self.bindings(wrong)?;
        self.contents(wrong)?;
        self.formers(wrong)?;
        self.containers(wrong)
    }

    /// Heads can be read, their blocks add up, and no file lacks the bytes of a sibling.
    fn heads(&self, wrong: Wrong<'_>) -> Result<(), StoreError> {
        let row = self.view.volume_row()?;
        let (mut used, mut newest) = (0, 0);
        for (head, blocks, change_seq) in self.all_heads()? {
            newest = newest.max(change_seq);
            used += blocks;
            let Some(head) = self.view.head(head)? else { continue };
            let shown = head.fid.is_root() || self.view.is_shown(head.fid)?;
            let expected = if shown { quota::blocks_of(&head) } else { 0 };
            if blocks != expected {
                wrong(format!("{}: accounted with {blocks} blocks instead of {expected}", head.fid));
            }
            if (head.kind == Kind::Directory) != head.fid.is_directory() {
                wrong(format!("{}: its fid denies that it is a {:?}", head.fid, head.kind));
            }
            if !head.past.is_empty() && shown && head.kind == Kind::File {
                for sibling in self.view.contents_shown(&head)? {
                    if sibling.length > 0 && self.view.content(head.fid, sibling.dot)?.is_none() {
                        wrong(format!("{}: the contents {} are missing", head.fid, sibling.dot));
                    }
                }
            }
        }
        if used != row.used {
            wrong(format!("{used} blocks are used, and the volume says {}", row.used));
        }
        if newest > row.change_seq {
            wrong(format!("an object changed at {newest}, and the volume stands at {}", row.change_seq));
        }
        if self.view.head(Fid::root(self.view.volume))?.is_none() {
            wrong("there is no root directory".to_owned());
        }
        Ok(())
    }

    fn all_heads(&self) -> Result<Vec<(Fid, u64, u64)>, StoreError> {
        let mut query = self.db.prepare("SELECT vnode, uniq, blocks, change_seq FROM head")?;
        let rows = query.query_map([], |row| {
            Ok((fid(self.view.volume, row.get(0)?, row.get(1)?), row.get(2)?, row.get(3)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What is bound exists, what binds is a directory that exists, and directories count right.
    fn bindings(&self, wrong: Wrong<'_>) -> Result<(), StoreError> {
        let mut query = self.db.prepare("SELECT DISTINCT vnode, uniq FROM binding")?;
        let mut counts: BTreeMap<Fid, (u64, u32)> = BTreeMap::new();
        let bound = query
            .query_map([], |row| Ok(fid(self.view.volume, row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        for child in bound {
            if self.view.head(child)?.is_none() {
                wrong(format!("{child} is bound and unknown"));
            }
            for binding in self.view.bindings_of(child)? {
                if binding.is_gone() {
                    wrong(format!("{child} is bound in {} by nothing", binding.dir));
                }
                if !binding.dir.is_directory() {
                    wrong(format!("{child} is bound in {}, which is no directory", binding.dir));
                }
                if self.view.head(binding.dir)?.is_none() {
                    wrong(format!("{child} is bound in {}, which is unknown", binding.dir));
                }
                if binding.shown {
                    let (entries, directories) = counts.entry(binding.dir).or_default();
                    *entries += 1;
                    *directories += u32::from(child.is_directory());
                }
            }
        }
        let mut query = self.db.prepare("SELECT vnode, uniq FROM directory")?;
        let counted = query
            .query_map([], |row| Ok(fid(self.view.volume, row.get(0)?, row.get(1)?)))?
            .collect::<Result<BTreeSet<_>, _>>()?;
        for dir in counted.iter().chain(counts.keys()) {
            let (says, is) = (self.view.counts(*dir)?, counts.get(dir).copied().unwrap_or_default());
            if says != is {
                wrong(format!("{dir} counts {says:?} entries and directories, and has {is:?}"));
            }
        }
        Ok(())
    }

    /// Contents belong to a sibling and are what their hash says.
    fn contents(&self, wrong: Wrong<'_>) -> Result<(), StoreError> {
        let containers = Containers::new(self.dir, Durability::Full)?;
        for (owner, made) in self.all_contents()? {
            let head = self.view.head(owner)?;
            let siblings = head.map(|head| head.siblings).unwrap_or_default();
            let Some(sibling) = siblings.iter().find(|sibling| sibling.dot == made) else {
                wrong(format!("{owner}: contents {made} belong to no version"));
                continue;
            };
            let Some(content) = self.view.content(owner, made)? else { continue };
            if content.length != sibling.length || content.hash != sibling.hash {
                wrong(format!("{owner}: contents {made} are not those of the version"));
            }
            let found = match &content.bytes {
                super::view::Bytes::Inline(bytes) => {
                    Ok((bytes.len() as u64, *blake3::hash(bytes).as_bytes()))
                }
                super::view::Bytes::Container(name) => hash_of(&containers.path(name)),
            };
            match found {
                Ok((length, hash)) if length == sibling.length && hash == sibling.hash => {}
                Ok((length, _)) => wrong(format!(
                    "{owner}: contents {made} hold {length} bytes that do not match their hash"
                )),
                Err(error) => wrong(format!("{owner}: contents {made} cannot be read: {error}")),
            }
        }
        Ok(())
    }

    /// What files were before they were written can be read, and is no more than is said.
    fn formers(&self, wrong: Wrong<'_>) -> Result<(), StoreError> {
        let containers = Containers::new(self.dir, Durability::Full)?;
        let mut query = self.db.prepare("SELECT vnode, uniq, length, hash, bytes, container FROM former")?;
        let mut rows = query.query([])?;
        let mut kept = 0;
        while let Some(row) = rows.next()? {
            let owner = fid(self.view.volume, row.get(0)?, row.get(1)?);
            let (length, hash): (u64, Vec<u8>) = (row.get(2)?, row.get(3)?);
            kept += length;
            let found = match row.get::<_, Option<String>>(5)? {
                Some(name) => hash_of(&containers.path(&name)),
                None => row.get::<_, Vec<u8>>(4).map_or(Ok((0, [0; 32])), |bytes| {
                    Ok((bytes.len() as u64, *blake3::hash(&bytes).as_bytes()))
                }),
            };
            if !found.is_ok_and(|(found, digest)| found == length && digest[..] == hash[..]) {
                wrong(format!("{owner}: what it was before cannot be read"));
            }
        }
        let says = self.view.former_bytes()?;
        if says != kept {
            wrong(format!("{kept} bytes of former contents are kept, and {says} are accounted for"));
        }
        let (remain, says): (u64, u64) = self.db.query_row(
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM remains), remains FROM kept",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if says != remain {
            wrong(format!("{remain} bytes of removed files are kept, and {says} are accounted for"));
        }
        Ok(())
    }

    fn all_contents(&self) -> Result<Vec<(Fid, Dot)>, StoreError> {
        let mut query = self.db.prepare("SELECT vnode, uniq, author, seq FROM content")?;
        let rows = query.query_map([], |row| {
            Ok((fid(self.view.volume, row.get(0)?, row.get(1)?), dot(row.get(2)?, row.get(3)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Every container is named by a row. (What a crash left is removed at the next start.)
    fn containers(&self, wrong: Wrong<'_>) -> Result<(), StoreError> {
        let mut query = self.db.prepare(NAMED)?;
        let named = query.query_map([], |row| row.get(0))?.collect::<Result<BTreeSet<String>, _>>()?;
        for found in files(&self.dir.join("data"))? {
            if !named.contains(&found) {
                wrong(format!("container {found} is named by nothing"));
            }
        }
        Ok(())
    }
}

/// Containers of the replica at `dir` that no row names.
pub(super) fn unnamed(dir: &Path) -> Result<Vec<String>, StoreError> {
    let db = open_for_reading(&dir.join("meta.db"))?;
    let mut query = db.prepare(NAMED)?;
    let named = query.query_map([], |row| row.get(0))?.collect::<Result<BTreeSet<String>, _>>()?;
    Ok(files(&dir.join("data"))?.into_iter().filter(|name| !named.contains(name)).collect())
}

/// Every name of a container that a row has.
const NAMED: &str = "SELECT container FROM content WHERE container IS NOT NULL \
    UNION SELECT container FROM former WHERE container IS NOT NULL \
    UNION SELECT container FROM garbage UNION SELECT container FROM upload";

fn hash_of(path: &Path) -> std::io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok((hasher.count(), *hasher.finalize().as_bytes()))
}

/// Names of the containers below `data`.
fn files(data: &PathBuf) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for shard in fs::read_dir(data).into_iter().flatten() {
        let shard = shard.map_err(StoreError::io(data))?;
        for file in fs::read_dir(shard.path()).map_err(StoreError::io(data))? {
            let file = file.map_err(StoreError::io(data))?;
            names.push(format!(
                "{}{}",
                shard.file_name().to_string_lossy(),
                file.file_name().to_string_lossy()
            ));
        }
    }
    Ok(names)
}
