//! The inode table: objects and the numbers the kernel knows them by.
//!
//! A number is a hash of the object, so it is the same after every start and a directory can be listed
//! without an entry per line. An object changes its number in one case: a new version arrived while the
//! old one was open. The old inode keeps the old contents until its last release, and a look-up finds
//! the new version under a new number, because the kernel wants all opens of an inode to share one
//! container and one way of reading it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
};

use fuser::BackingId;

use crate::venus::face::{ObjectId, Opened};

/// The kernel's name for the root.
pub const ROOT: u64 = 1;

/// What stands for the listing of a directory among the kernel's pages, with how much had changed by then.
const LISTING: u64 = u64::MAX;

/// How the kernel reaches the contents of an open inode. The same for all opens of it.
#[derive(Clone, Debug)]
pub enum Way {
    /// The kernel reads and writes the container by itself.
    Passthrough(Arc<BackingId>),
    /// Reads go through the kernel's page cache to us.
    Cached,
}

/// What an open was granted.
#[derive(Debug)]
pub struct Grant {
    /// How to reach the contents.
    pub way: Way,
    /// The kernel's pages are of this very version.
    pub keep_pages: bool,
}

/// The inode is open with other contents: the name must be looked up again to get a new number.
#[derive(Debug, PartialEq, Eq)]
pub struct Superseded;

/// The table.
#[derive(Debug, Default)]
pub struct Inodes {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    nodes: HashMap<u64, Node>,
    current: HashMap<ObjectId, u64>,
    /// How often anything changed elsewhere. A listing shows the versions of files in conflict, too.
    changes: u64,
}

#[derive(Debug)]
struct Node {
    id: ObjectId,
    lookups: u64,
    io: Option<Io>,
    /// Newer contents exist than those that are open.
    superseded: bool,
    /// Container and version that the kernel's pages were read from.
    pages: Option<(u64, u64)>,
}

struct Io {
    opened: Opened,
    way: Way,
    opens: u32,
    writers: u32,
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} opens, {} writers, {:?}", self.opens, self.writers, self.way)
    }
}

impl Inodes {
    /// A table that knows the root.
    pub fn new(root: ObjectId) -> Inodes {
        let inodes = Inodes::default();
        inodes.lock().insert(ROOT, root, 1);
        inodes
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while the inode table is locked")
    }

    /// The object behind a number.
    pub fn object(&self, ino: u64) -> Option<ObjectId> {
        self.lock().nodes.get(&ino).map(|node| node.id)
    }

    /// The number shown for an object in a listing. Promises nothing.
    pub fn number(&self, id: ObjectId) -> u64 {
        self.lock().current.get(&id).copied().unwrap_or_else(|| hash(id, 0))
    }

    /// The kernel learns of an object and will forget it once more. Answers its number and whether it is
    /// open for writing.
    pub fn found(&self, id: ObjectId) -> (u64, bool) {
        let mut table = self.lock();
        let ino = match table.current.get(&id).copied() {
            Some(ino) if !table.nodes[&ino].is_behind() => ino,
            _ => table.fresh(id),
        };
        let node = table.nodes.get_mut(&ino).expect("a current number has a node");
        node.lookups += 1;
        (ino, node.writers() > 0)
    }

    /// The kernel forgets `count` look-ups. Answers the object if no number is left for it.
    pub fn forget(&self, ino: u64, count: u64) -> Option<ObjectId> {
        let mut table = self.lock();
        let node = table.nodes.get_mut(&ino)?;
        node.lookups = node.lookups.saturating_sub(count);
        table.sweep(ino)
    }

    /// Counts an open of an inode. `backing` registers the container with the kernel, if it should and can
    /// be: it is asked only where the way is not settled by another open.
    pub fn open(
        &self,
        ino: u64,
        opened: &Opened,
        writes: bool,
        backing: impl FnOnce() -> Option<BackingId>,
    ) -> Result<Grant, Superseded> {
        let mut table = self.lock();
        let node = table.nodes.get_mut(&ino).ok_or(Superseded)?;
        if node.io.as_ref().is_some_and(|io| io.opened.container_id != opened.container_id) {
            node.superseded = true;
            return Err(Superseded);
        }
        let io = node.io.get_or_insert_with(|| Io {
            opened: opened.clone(),
            way: backing().map_or(Way::Cached, |id| Way::Passthrough(Arc::new(id))),
            opens: 0,
            writers: 0,
        });
        io.opens += 1;
        io.writers += u32::from(writes);
        let way = io.way.clone();
        let of = (opened.container_id, opened.attr.version);
        let keep_pages = matches!(way, Way::Cached) && node.pages == Some(of);
        node.pages = matches!(way, Way::Cached).then_some(of);
        Ok(Grant { way, keep_pages })
    }

    /// Whether it is open so that the kernel uses the container by itself.
    pub fn passes_through(&self, ino: u64) -> bool {
        let table = self.lock();
        let io = table.nodes.get(&ino).and_then(|node| node.io.as_ref());
        io.is_some_and(|io| matches!(io.way, Way::Passthrough(_)))
    }

    /// Counts an open of a directory whose listing the kernel keeps, or not. Answers whether what it kept before
    /// is still so.
    pub fn list(&self, ino: u64, lasting: bool) -> bool {
        let mut table = self.lock();
        let now = (LISTING, table.changes);
        let Some(node) = table.nodes.get_mut(&ino) else { return false };
        std::mem::replace(&mut node.pages, lasting.then_some(now)) == Some(now)
    }

    /// One open less. Answers the object if no number is left for it.
    pub fn close(&self, ino: u64, writes: bool) -> Option<ObjectId> {
        let mut table = self.lock();
        let node = table.nodes.get_mut(&ino)?;
        if let Some(io) = &mut node.io {
            io.opens = io.opens.saturating_sub(1);
            io.writers = io.writers.saturating_sub(u32::from(writes));
            if io.opens == 0 {
                node.io = None;
                node.superseded = false;
            }
        }
        table.sweep(ino)
    }

    /// Whether somebody has the inode open for writing.
    pub fn has_writers(&self, ino: u64) -> bool {
        self.lock().nodes.get(&ino).is_some_and(|node| node.writers() > 0)
    }

    /// What is open under a number, if newer contents exist elsewhere.
    pub fn left_behind(&self, ino: u64) -> Option<Opened> {
        let table = self.lock();
        let node = table.nodes.get(&ino)?;
        node.superseded.then_some(())?;
        node.io.as_ref().map(|io| io.opened.clone())
    }

    /// What is open under a number.
    pub fn opened(&self, ino: u64) -> Option<Opened> {
        self.lock().nodes.get(&ino)?.io.as_ref().map(|io| io.opened.clone())
    }

    /// An object changed elsewhere. Answers its number, and whether the old contents are open, so that its
    /// names must be looked up again.
    pub fn changed(&self, id: ObjectId, data: bool) -> Option<(u64, bool)> {
        let mut table = self.lock();
        table.changes += u64::from(data);
        let ino = *table.current.get(&id)?;
        let node = table.nodes.get_mut(&ino)?;
        node.superseded |= data && node.io.is_some();
        if data {
            node.pages = None;
        }
        Some((ino, node.superseded))
    }
}

impl Node {
    fn writers(&self) -> u32 {
        self.io.as_ref().map_or(0, |io| io.writers)
    }

    fn is_behind(&self) -> bool {
        self.superseded && self.io.is_some()
    }
}

impl Table {
    fn insert(&mut self, ino: u64, id: ObjectId, lookups: u64) {
        self.nodes.insert(ino, Node { id, lookups, io: None, superseded: false, pages: None });
        self.current.insert(id, ino);
    }

    fn fresh(&mut self, id: ObjectId) -> u64 {
        let ino = (0..).map(|salt| hash(id, salt)).find(|ino| !self.nodes.contains_key(ino));
        let ino = ino.expect("fewer than 2^63 inodes");
        self.insert(ino, id, 0);
        ino
    }

    /// Drops a node that neither the kernel nor an open needs. A release may come after the last forget.
    fn sweep(&mut self, ino: u64) -> Option<ObjectId> {
        let Entry::Occupied(entry) = self.nodes.entry(ino) else { return None };
        if ino == ROOT || entry.get().lookups > 0 || entry.get().io.is_some() {
            return None;
        }
        let id = entry.remove().id;
        if self.current.get(&id) != Some(&ino) {
            return None;
        }
        self.current.remove(&id);
        Some(id)
    }
}

/// A number for an object: never 0 or the root's, and below 2^63.
fn hash(id: ObjectId, salt: u64) -> u64 {
    let fid = id.fid;
    let words =
        [(u64::from(id.realm) << 32) | u64::from(fid.volume.0), u64::from(fid.vnode), fid.unique, salt];
    let mixed = words.into_iter().fold(0x9e37_79b9_7f4a_7c15_u64, |state, word| {
        // The finalizer of splitmix64 spreads every bit of a word over all.
        let mut x = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    });
    (mixed >> 1).max(ROOT + 1)
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use coda_proto::{Fid, VolumeId};

    use super::*;
    use crate::{
        env::Container,
        venus::face::{Attr, NodeKind},
    };

    struct Nothing;

    impl Container for Nothing {
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn length(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn set_length(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn snapshot(&self) -> io::Result<(u64, i64, i64)> {
            Ok((0, 0, 0))
        }
        fn file(&self) -> Option<&fs::File> {
            None
        }
    }

    fn object(vnode: u32) -> ObjectId {
        ObjectId { realm: 1, fid: Fid { volume: VolumeId(0x7f00_0001), vnode, unique: 9 } }
    }

    fn opened(container_id: u64, version: u64) -> Opened {
        let (id, kind) = (object(2), NodeKind::File);
        let attr = Attr {
            id,
            kind,
            size: 0,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            mtime: 0,
            ctime: 0,
            atime: 0,
            lasting: true,
            version,
        };
        Opened { handle: 1, container: Arc::new(Nothing), container_id, attr }
    }

    #[test]
    fn a_number_stays_until_the_last_forget_and_is_the_same_afterwards() {
        let inodes = Inodes::new(object(1));
        let (ino, _) = inodes.found(object(2));
        assert_eq!((inodes.found(object(2)).0, inodes.number(object(2))), (ino, ino));
        assert_eq!(inodes.forget(ino, 1), None);
        assert_eq!(inodes.forget(ino, 1), Some(object(2)));
        assert_eq!(inodes.object(ino), None);
        assert_eq!(inodes.found(object(2)).0, ino);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let inodes = Inodes::new(object(1));
        assert_eq!(inodes.found(object(1)).0, ROOT);
        assert_eq!(inodes.forget(ROOT, 100), None);
        assert_eq!(inodes.object(ROOT), Some(object(1)));
    }

    #[test]
    fn a_release_may_come_after_the_last_forget() {
        let inodes = Inodes::new(object(1));
        let (ino, _) = inodes.found(object(2));
        inodes.open(ino, &opened(1, 1), false, || None).unwrap();
        assert_eq!(inodes.forget(ino, 1), None);
        assert_eq!(inodes.close(ino, false), Some(object(2)));
    }

    #[test]
    fn pages_are_kept_for_the_very_version_only() {
        let inodes = Inodes::new(object(1));
        let (ino, _) = inodes.found(object(2));
        let keeps = |container, version| {
            let grant = inodes.open(ino, &opened(container, version), false, || None).unwrap();
            inodes.close(ino, false);
            grant.keep_pages
        };
        assert!(!keeps(1, 1));
        assert!(keeps(1, 1));
        assert!(!keeps(1, 2));
        assert!(!keeps(2, 2));
        assert!(keeps(2, 2));
        inodes.changed(object(2), true);
        assert!(!keeps(2, 2));
    }

    #[test]
    fn a_listing_is_kept_until_the_directory_changes() {
        let inodes = Inodes::new(object(1));
        let (ino, _) = inodes.found(object(3));
        assert!(!inodes.list(ino, true));
        assert!(inodes.list(ino, true));
        inodes.changed(object(3), false);
        assert!(inodes.list(ino, true));
        inodes.changed(object(3), true);
        assert!(!inodes.list(ino, true));
        inodes.changed(object(4), true);
        assert!(!inodes.list(ino, true), "a file in it has perhaps more versions now");
        assert!(inodes.list(ino, false));
        assert!(!inodes.list(ino, true));
    }

    #[test]
    fn other_contents_than_those_open_need_a_new_number() {
        let inodes = Inodes::new(object(1));
        let (ino, _) = inodes.found(object(2));
        inodes.open(ino, &opened(1, 1), true, || None).unwrap();
        assert!(inodes.open(ino, &opened(2, 2), false, || None).is_err());
        let (next, writers) = inodes.found(object(2));
        assert_ne!(next, ino);
        assert!(!writers);
        inodes.open(next, &opened(2, 2), false, || None).unwrap();
        assert!(inodes.left_behind(ino).is_some() && inodes.left_behind(next).is_none());
        assert_eq!(inodes.close(ino, true), None);
        assert_eq!(inodes.forget(ino, 1), None, "the object has another number");
        inodes.close(next, false);
        assert_eq!(inodes.forget(next, 1), Some(object(2)));
    }
}
