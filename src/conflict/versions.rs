//! The other contents of a file in conflict, as files that can be read.
//!
//! Each is a cached object of its own, of a volume that exists on this machine only, so that it is opened,
//! fetched and evicted like any other. What it is of is remembered in memory: nobody knows its number who
//! has not looked its name up.

use coda_proto::{Author, Dot, Fid, Kind, Past, Rights, Sibling, Status, VolumeId};

use super::{
    base,
    names::{self, Made},
};
use crate::{
    cache::View,
    error::Error,
    fid::VERSIONS,
    ops::{Core, Result, locked},
    venus::face::ObjectId,
};

/// What a version is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionOf {
    /// The file.
    pub file: ObjectId,
    /// The Store that made these contents.
    pub dot: Dot,
}

/// An object that venus shows and no server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MadeUp {
    /// One of a file's contents.
    Version(VersionOf),
    /// A link to nowhere in place of a file.
    Link(ObjectId),
    /// A directory of versions in place of a file.
    Expanded(ObjectId),
    /// What the versions of a file, or this machine's, were made from.
    Base(ObjectId),
}

impl MadeUp {
    /// The file that it stands for.
    pub fn file(self) -> ObjectId {
        match self {
            MadeUp::Version(of) => of.file,
            MadeUp::Link(file) | MadeUp::Expanded(file) | MadeUp::Base(file) => file,
        }
    }
}

/// What the name of a version means.
pub(crate) enum Named {
    /// The contents that the plain name shows.
    Shown(ObjectId),
    /// Others.
    Other(ObjectId, VersionOf),
    /// What they, or this machine's, were made from: the object that shows it, and the file.
    Base(ObjectId, ObjectId),
}

/// The contents between which people must decide, the shown one first. Equal bytes count once.
pub fn distinct(siblings: &[Sibling]) -> Vec<&Sibling> {
    let mut distinct: Vec<&Sibling> = Vec::new();
    for sibling in siblings {
        if distinct.iter().all(|other| other.hash != sibling.hash) {
            distinct.push(sibling);
        }
    }
    distinct
}

/// The contents with the labels by which their names are told apart.
pub fn labelled(siblings: &[Sibling]) -> Vec<(&Sibling, String)> {
    let distinct = distinct(siblings);
    let made: Vec<Made> = distinct.iter().map(|sibling| (*sibling).into()).collect();
    distinct.into_iter().zip(names::labels(&made)).collect()
}

/// The number of an object that stands for a file: the same whenever it is looked up.
fn number(file: ObjectId, what: MadeUp) -> ObjectId {
    let dot = match what {
        MadeUp::Version(of) => of.dot,
        MadeUp::Link(_) => Dot::new(Author(0), 1),
        MadeUp::Expanded(_) => Dot::new(Author(0), 2),
        MadeUp::Base(_) => Dot::new(Author(0), 3),
    };
    let directory = u32::from(matches!(what, MadeUp::Expanded(_)));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&crate::fid::key(file));
    hasher.update(&dot.author.0.to_le_bytes());
    hasher.update(&dot.seq.to_le_bytes());
    let hash = hasher.finalize();
    let (first, second) = hash.as_bytes()[..12].split_at(4);
    let vnode = u32::from_le_bytes(first.try_into().expect("four bytes"));
    let unique = u64::from_le_bytes(second.try_into().expect("eight bytes"));
    // Odd for a directory only, and neither 0 nor a root's.
    let vnode = (vnode & !1) | 2 | directory;
    ObjectId { realm: file.realm, fid: Fid { volume: VERSIONS, vnode, unique } }
}

/// The number of what shows what the versions of a file were made from.
pub(super) fn base_id(file: ObjectId) -> ObjectId {
    number(file, MadeUp::Base(file))
}

/// Whether an object is a version that venus shows beside a name.
pub(crate) fn is_version(id: ObjectId) -> bool {
    id.fid.volume == VERSIONS
}

/// A version as a file: readable where the file is, and never written.
pub(super) fn status(of: &Status, sibling: &Sibling, fid: Fid) -> Status {
    Status {
        fid,
        kind: Kind::File,
        length: sibling.length,
        mode: of.mode & 0o555,
        mtime: sibling.mtime,
        ctime: sibling.mtime,
        atime: None,
        nlink: 1,
        past: Past::of(sibling.dot),
        siblings: vec![sibling.clone()],
        my_rights: Rights(of.my_rights.0 & (Rights::READ.0 | Rights::LOOKUP.0)),
        any_rights: Rights(of.any_rights.0 & (Rights::READ.0 | Rights::LOOKUP.0)),
        promised: false,
        lamport: 0,
        xattrs: Vec::new(),
        marked: true,
        ..of.clone()
    }
}

impl Core {
    /// The object that a version of a file is.
    pub(crate) fn version_id(&self, file: ObjectId, dot: Dot) -> ObjectId {
        self.stand_in_for(file, MadeUp::Version(VersionOf { file, dot }))
    }

    /// The object that stands for a file.
    pub(crate) fn stand_in_for(&self, file: ObjectId, what: MadeUp) -> ObjectId {
        let id = number(file, what);
        locked(&self.versions).insert(id, what);
        id
    }

    /// What an object stands for.
    pub(super) fn what_made_up(&self, id: ObjectId) -> Result<MadeUp> {
        locked(&self.versions).get(&id).copied().ok_or(Error::Gone(id.fid))
    }

    /// What a version is of.
    pub(crate) fn version_of(&self, id: ObjectId) -> Result<VersionOf> {
        match self.what_made_up(id)? {
            MadeUp::Version(of) => Ok(of),
            _ => Err(Error::Gone(id.fid)),
        }
    }

    /// The object that servers know: of a version, the file that it is of.
    pub(crate) fn served(&self, id: ObjectId) -> ObjectId {
        match is_version(id) {
            true => self.what_made_up(id).map_or(id, MadeUp::file),
            false => id,
        }
    }

    /// A version as it is cached, while it is one.
    pub(crate) async fn version(&self, id: ObjectId) -> Result<View> {
        let what = self.what_made_up(id)?;
        let file = Box::pin(self.current(what.file())).await?;
        let of = match what {
            MadeUp::Version(of) => of,
            MadeUp::Base(_) => return self.base_view(id, &file),
            _ if !file.row.status.in_conflict() => return Err(Error::Gone(id.fid)),
            MadeUp::Link(_) => return self.link_view(id, &file),
            MadeUp::Expanded(_) => return self.directory_view(id, &file),
        };
        let status_of_file = &file.row.status;
        let versions = distinct(&status_of_file.siblings);
        // An expanded file shows all of them; what is left alone is the file itself.
        let undecided = versions.len() > 1;
        let still = versions.into_iter().find(|sibling| undecided && sibling.dot == of.dot);
        let Some(sibling) = still else {
            if let Ok(Ok(())) = self.cache.flush(id) {
                locked(&self.versions).remove(&id);
            }
            return match self.cache.view(id)? {
                // Somebody has it open and goes on reading it.
                Some(view) => Ok(view),
                None => Err(Error::Gone(id.fid)),
            };
        };
        if self.cache.view(id)?.is_none() {
            self.cache.room_for(1)?;
        }
        self.cache.learn(id, status(status_of_file, sibling, id.fid))?;
        self.cache.view(id)?.ok_or(Error::Gone(id.fid))
    }

    /// What a name to which nothing is bound means as that of a version.
    pub(crate) async fn version_named(&self, dir: ObjectId, name: &[u8]) -> Result<Option<Named>> {
        let Some((plain, label)) = names::split(name) else { return Ok(None) };
        for plain in self.plain_names(dir, plain, name)? {
            let Some(entry) = self.entry(dir, &plain)?.filter(|entry| entry.kind == Kind::File) else {
                continue;
            };
            let file = ObjectId { realm: dir.realm, fid: entry.fid };
            let view = Box::pin(self.current(file)).await?;
            if label == base::LABEL.as_bytes() && self.base_of(file, &view.row.status)?.is_some() {
                return Ok(Some(Named::Base(self.base_id(file), file)));
            }
            let versions = labelled(&view.row.status.siblings);
            for (index, (sibling, text)) in versions.iter().enumerate() {
                // What is left when the others are gone goes on answering to its name: whoever listed the
                // directory before may want to remove all that he saw.
                let alone = versions.len() == 1 && label.ends_with(names::stamp(sibling.mtime).as_bytes());
                if names::beside(&plain, text) == name || alone {
                    return Ok(Some(match index {
                        0 => Named::Shown(file),
                        _ => {
                            let of = VersionOf { file, dot: sibling.dot };
                            Named::Other(self.version_id(file, sibling.dot), of)
                        }
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The names that a version's may have been made from: a long one was cut.
    fn plain_names(&self, dir: ObjectId, plain: &[u8], name: &[u8]) -> Result<Vec<Vec<u8>>> {
        if name.len() + 4 <= coda_proto::name::NAME_LIMIT {
            return Ok(vec![plain.to_vec()]);
        }
        let from = self.cache.store(|store| store.entries_after(dir, plain, 256))?;
        let mut names: Vec<_> =
            from.into_iter().map(|entry| entry.name).take_while(|name| name.starts_with(plain)).collect();
        names.dedup();
        Ok(names)
    }

    /// The names and numbers of what shows beside a file's name, as far as its status is cached.
    pub(crate) fn versions_beside(&self, file: ObjectId, name: &[u8]) -> Result<Vec<(Vec<u8>, ObjectId)>> {
        if is_version(file) {
            return Ok(Vec::new());
        }
        let Some(view) = self.cache.view(file)?.filter(|view| view.row.status.in_conflict()) else {
            return Ok(Vec::new());
        };
        let versions = labelled(&view.row.status.siblings);
        let others = versions.iter().skip(1);
        let mut beside: Vec<_> = others
            .map(|(sibling, label)| (names::beside(name, label), self.version_id(file, sibling.dot)))
            .collect();
        match self.base_of(file, &view.row.status)? {
            Some(_) => beside.push((names::beside(name, base::LABEL), self.base_id(file))),
            // Somebody may know it.
            None => self.merge_by_rule(file, view.row.status.siblings.iter().map(|one| one.dot).collect()),
        }
        Ok(beside)
    }
}

/// Whether a volume is one of venus' own.
pub(crate) fn is_made_up(volume: VolumeId) -> bool {
    volume == VERSIONS || volume == crate::fid::LOCAL_VOLUME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sibling(author: u64, contents: &str) -> Sibling {
        Sibling {
            dot: Dot::new(Author(author), 1),
            length: contents.len() as u64,
            hash: *blake3::hash(contents.as_bytes()).as_bytes(),
            mtime: 0,
            host: "h".into(),
        }
    }

    #[test]
    fn equal_contents_are_no_conflict_and_show_once() {
        let siblings = [sibling(1, "a"), sibling(2, "b"), sibling(3, "a")];
        let dots: Vec<_> = distinct(&siblings).iter().map(|sibling| sibling.dot.author.0).collect();
        assert_eq!(dots, [1, 2]);
    }

    #[test]
    fn a_version_has_the_number_of_a_file_and_keeps_it() {
        let file = ObjectId { realm: 1, fid: Fid { volume: VolumeId(7), vnode: 4, unique: 9 } };
        let number = |dot| number(file, MadeUp::Version(VersionOf { file, dot }));
        let id = number(Dot::new(Author(1), 1));
        assert!(is_version(id) && !id.fid.is_directory());
        assert_eq!(id, number(Dot::new(Author(1), 1)));
        assert_ne!(id, number(Dot::new(Author(1), 2)));
        let expanded = super::number(file, MadeUp::Expanded(file));
        assert!(expanded.fid.is_directory() && !expanded.fid.is_root());
    }
}
