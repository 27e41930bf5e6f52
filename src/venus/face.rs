//! The face of the cache manager: file operations on objects, for whoever mounts it.
//!
//! Every future that can be answered from the cache is ready at its first poll, so that the FUSE adapter
//! polls once on its own thread and answers hits inline; only misses, waits and network become tasks.

use std::sync::Arc;

use coda_proto::Fid;

use crate::{env::Container, error::Error};

/// An object of any realm. Realm 0 holds what venus makes up: `/coda` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Which realm, numbered in the order met; kept on disk.
    pub realm: u32,
    /// The object.
    pub fid: Fid,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Local user.
    pub uid: u32,
    /// Local group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
}

/// What an object is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NodeKind {
    File,
    Directory,
    Symlink,
}

/// Attributes as `stat` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The object. A mount point is shown as the root of the volume mounted there.
    pub id: ObjectId,
    /// What it is.
    pub kind: NodeKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits, without set-user-id, set-group-id.
    pub mode: u32,
    /// Names.
    pub nlink: u32,
    /// Owner: the caller's own number where the caller made it.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// When it last changed in any way.
    pub ctime: i64,
    /// The access time that somebody set; else the modification time.
    pub atime: i64,
    /// A callback is held: the kernel may keep this until told otherwise.
    pub lasting: bool,
    /// Grows with every new version of the contents; tells the adapter to drop the kernel's pages.
    pub version: u64,
}

/// One line of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirLine {
    /// The name shown.
    pub name: Vec<u8>,
    /// The object named.
    pub id: ObjectId,
    /// What it is.
    pub kind: NodeKind,
}

/// A directory as it was when it was opened: offsets stay stable until it is closed.
pub type Listing = Arc<Vec<DirLine>>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing; what is written is stored at flush.
    pub write: bool,
    /// Emptied first.
    pub truncate: bool,
}

/// An open file. The adapter reads and writes the container itself; the manager compares snapshots when
/// told of a flush or release.
#[derive(Clone)]
pub struct Opened {
    /// Names this open in `flush` and `release`.
    pub handle: u64,
    /// The contents. All opens of one version share one container.
    pub container: Arc<dyn Container>,
    /// A number that changes with the container: opens with equal numbers share it.
    pub container_id: u64,
    /// Attributes at the open.
    pub attr: Attr,
}

/// What to change of the attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length; a change of contents.
    pub size: Option<u64>,
    /// New modification time in nanoseconds since 1970.
    pub mtime: Option<i64>,
    /// New access time.
    pub atime: Option<i64>,
}

/// How a rename treats a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RenameMode {
    Replace,
    NoReplace,
}

/// Space, from memory: answers at once, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the cache's budget.
    pub total: u64,
    /// Bytes that may still be taken.
    pub free: u64,
    /// Objects of the budget.
    pub objects: u64,
    /// Objects that may still be cached.
    pub objects_free: u64,
}

/// What the kernel must forget because the world changed. Sent to the adapter's notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Attributes, and pages where `data`.
    Object {
        /// Which.
        id: ObjectId,
        /// The contents changed too.
        data: bool,
    },
    /// One name of a directory.
    Name {
        /// The directory.
        dir: ObjectId,
        /// The name.
        name: Vec<u8>,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// File operations. Implemented by the cache manager, and by an honest fake in the adapter's tests.
///
/// All are bounded in time: `rpc_timeout` and a second without progress at most.
pub trait Face: Send + Sync + 'static {
    /// The object that `/coda` is.
    fn root(&self) -> ObjectId;
    /// Looks a name up. Below the root this finds realms, without ever blocking other look-ups.
    fn lookup(&self, who: Caller, dir: ObjectId, name: &[u8]) -> impl Future<Output = Result<Attr>> + Send;
    /// Attributes. Of a file with a writer here: those of its container.
    fn getattr(&self, who: Caller, id: ObjectId) -> impl Future<Output = Result<Attr>> + Send;
    /// Changes attributes.
    fn setattr(
        &self,
        who: Caller,
        id: ObjectId,
        change: AttrChange,
        handle: Option<u64>,
    ) -> impl Future<Output = Result<Attr>> + Send;
    /// All lines of a directory but `.` and `..`.
    fn readdir(&self, who: Caller, dir: ObjectId) -> impl Future<Output = Result<Listing>> + Send;
    /// The directory that holds `dir`; the root's is itself.
    fn parent(&self, dir: ObjectId) -> impl Future<Output = Result<ObjectId>> + Send;
    /// Opens a file: fetched whole, latest version.
    fn open(&self, who: Caller, id: ObjectId, mode: OpenMode) -> impl Future<Output = Result<Opened>> + Send;
    /// Makes and opens a file. `exclusive`: a taken name is an error.
    fn create(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        mode: u32,
        open: OpenMode,
        exclusive: bool,
    ) -> impl Future<Output = Result<Opened>> + Send;
    /// A close of one descriptor: changed contents are stored at the servers before this returns.
    fn flush(&self, who: Caller, handle: u64) -> impl Future<Output = Result<()>> + Send;
    /// Everything written so far survives power loss, and is stored as by a flush.
    fn fsync(&self, who: Caller, handle: u64) -> impl Future<Output = Result<()>> + Send;
    /// What was done to names survives power loss.
    fn fsyncdir(&self) -> Result<()> {
        Ok(())
    }
    /// The last descriptor is gone (writes through a mapping may have come after the flush).
    fn release(&self, handle: u64) -> impl Future<Output = Result<()>> + Send;
    /// Makes a directory.
    fn mkdir(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        mode: u32,
    ) -> impl Future<Output = Result<Attr>> + Send;
    /// Makes a symbolic link.
    fn symlink(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        target: &[u8],
    ) -> impl Future<Output = Result<Attr>> + Send;
    /// The target of a symbolic link.
    fn readlink(&self, who: Caller, id: ObjectId) -> impl Future<Output = Result<Vec<u8>>> + Send;
    /// Gives a file one more name in its directory.
    fn link(
        &self,
        who: Caller,
        id: ObjectId,
        dir: ObjectId,
        name: &[u8],
    ) -> impl Future<Output = Result<Attr>> + Send;
    /// Removes a name of a file or symbolic link.
    fn unlink(&self, who: Caller, dir: ObjectId, name: &[u8]) -> impl Future<Output = Result<()>> + Send;
    /// Removes an empty directory.
    fn rmdir(&self, who: Caller, dir: ObjectId, name: &[u8]) -> impl Future<Output = Result<()>> + Send;
    /// Moves a name.
    fn rename(
        &self,
        who: Caller,
        from: (ObjectId, &[u8]),
        to: (ObjectId, &[u8]),
        mode: RenameMode,
    ) -> impl Future<Output = Result<()>> + Send;
    /// The value of an extended attribute: `user.*`, and read-only `user.coda.*`.
    fn getxattr(
        &self,
        who: Caller,
        id: ObjectId,
        name: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>>> + Send;
    /// Names of all extended attributes.
    fn listxattr(&self, who: Caller, id: ObjectId) -> impl Future<Output = Result<Vec<Vec<u8>>>> + Send;
    /// Sets (`Some`) or removes (`None`) one. `must_exist`: Some(true) replace only, Some(false) create only.
    fn setxattr(
        &self,
        who: Caller,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        must_exist: Option<bool>,
    ) -> impl Future<Output = Result<()>> + Send;
    /// Whether the caller may do this (`R_OK`, `W_OK`, `X_OK` bits).
    fn access(&self, who: Caller, id: ObjectId, mask: i32) -> impl Future<Output = Result<()>> + Send;
    /// Space.
    fn space(&self) -> Space;
    /// The kernel has forgotten the object.
    fn forget(&self, id: ObjectId);
    /// Where the manager says what the kernel must forget. Called once.
    fn forgets(&self) -> tokio::sync::mpsc::UnboundedReceiver<Forget>;
}
