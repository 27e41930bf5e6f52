//! An honest manager in memory: real containers in a directory, no network, versions that count.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coda_proto::{Author, Fid, VolumeId};
use tokio::sync::mpsc;
use venus::{
    env::Container,
    error::Error,
    venus::face::{
        Attr, AttrChange, Caller, DirLine, Face, Forget, Listing, NodeKind, ObjectId, OpenMode, Opened,
        RenameMode, Space,
    },
};

type Result<T> = std::result::Result<T, Error>;

const REALM: u32 = 1;
const VOLUME: VolumeId = VolumeId(0x7f00_0001);

/// A container that is a file, and counts the reads and writes that come through venus.
struct OnDisk(File, Arc<AtomicU64>);

impl Container for OnDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.write_all_at(bytes, offset)
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn snapshot(&self) -> io::Result<(u64, i64, i64)> {
        use std::os::unix::fs::MetadataExt;
        let meta = self.0.metadata()?;
        let nanos = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
        Ok((meta.len(), nanos(meta.mtime(), meta.mtime_nsec()), nanos(meta.ctime(), meta.ctime_nsec())))
    }
    fn file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

#[derive(Clone)]
struct Object {
    kind: NodeKind,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    ctime: i64,
    atime: Option<i64>,
    version: u64,
    nlink: u32,
    parent: Fid,
    entries: BTreeMap<Vec<u8>, Fid>,
    target: Vec<u8>,
    container: Option<(u64, Arc<dyn Container>)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    writers: u32,
}

struct Open {
    fid: Fid,
    writes: bool,
    container: Arc<dyn Container>,
    snapshot: (u64, i64, i64),
}

struct State {
    objects: HashMap<Fid, Object>,
    opens: HashMap<u64, Open>,
    counter: u64,
    sender: mpsc::UnboundedSender<Forget>,
    receiver: Option<mpsc::UnboundedReceiver<Forget>>,
    stored: Vec<(Vec<u8>, u64)>,
    lookups: u64,
    getattrs: u64,
    transfers: Arc<AtomicU64>,
}

/// The manager. Names that begin with `slow` take a while to look up; the name `panic` brings it down.
pub struct Fake {
    state: Mutex<State>,
    directory: PathBuf,
}

fn object(fid: Fid) -> ObjectId {
    ObjectId { realm: REALM, fid }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Fake {
    pub fn new(directory: PathBuf) -> Fake {
        let (sender, receiver) = mpsc::unbounded_channel();
        let root = Fid::root(VOLUME);
        let mut state = State {
            objects: HashMap::new(),
            opens: HashMap::new(),
            counter: 1,
            sender,
            receiver: Some(receiver),
            stored: Vec::new(),
            lookups: 0,
            getattrs: 0,
            transfers: Arc::default(),
        };
        state.objects.insert(root, blank(NodeKind::Directory, 0o755, root, (0, 0)));
        Fake { state: Mutex::new(state), directory }
    }

    /// What was stored at flush or release: names of the time and lengths.
    pub fn stored(&self) -> Vec<(Vec<u8>, u64)> {
        self.state.lock().unwrap().stored.clone()
    }

    /// Requests that reached the manager: look-ups and attributes.
    pub fn asked(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.lookups, state.getattrs)
    }

    /// Reads and writes of contents that came through venus.
    pub fn transfers(&self) -> u64 {
        self.state.lock().unwrap().transfers.load(Ordering::Relaxed)
    }

    /// Another client stores a new version of a file in the root.
    pub fn replace(&self, name: &str, contents: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let fid = state.objects[&Fid::root(VOLUME)].entries[name.as_bytes()];
        let container = state.container(&self.directory);
        container.1.write_at(0, contents).unwrap();
        let file = state.objects.get_mut(&fid).unwrap();
        file.container = Some(container);
        file.version += 1;
        file.mtime += 1_000_000_000;
        state.sender.send(Forget::Object { id: object(fid), data: true }).unwrap();
    }

    /// Another client removes a name of the root, or binds it.
    pub fn rebind(&self, name: &str, to: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        let root = state.objects.get_mut(&Fid::root(VOLUME)).unwrap();
        let fid = to.map(|to| root.entries[to.as_bytes()]);
        match fid {
            Some(fid) => root.entries.insert(name.into(), fid),
            None => root.entries.remove(name.as_bytes()),
        };
        root.mtime += 1;
        let id = object(Fid::root(VOLUME));
        state.sender.send(Forget::Object { id, data: true }).unwrap();
    }
}

fn blank(kind: NodeKind, mode: u32, parent: Fid, owner: (u32, u32)) -> Object {
    Object {
        kind,
        mode,
        owner,
        mtime: 1_700_000_000_000_000_000,
        ctime: 1_700_000_000_000_000_000,
        atime: None,
        version: 1,
        nlink: 1,
        parent,
        entries: BTreeMap::new(),
        target: Vec::new(),
        container: None,
        xattrs: BTreeMap::new(),
        writers: 0,
    }
}

impl State {
    fn get(&self, id: ObjectId) -> Result<&Object> {
        self.objects.get(&id.fid).ok_or(Error::Gone(id.fid))
    }

    fn get_mut(&mut self, id: ObjectId) -> Result<&mut Object> {
        self.objects.get_mut(&id.fid).ok_or(Error::Gone(id.fid))
    }

    fn child(&self, dir: ObjectId, name: &[u8]) -> Result<Fid> {
        let dir = self.get(dir)?;
        if dir.kind != NodeKind::Directory {
            return Err(Error::NotDirectory(text(name)));
        }
        dir.entries.get(name).copied().ok_or_else(|| Error::NotFound(text(name)))
    }

    fn attr(&self, fid: Fid) -> Result<Attr> {
        let it = self.get(object(fid))?;
        let (mut size, mut mtime) = (it.target.len() as u64, it.mtime);
        if let Some((_, container)) = &it.container {
            let snapshot = container.snapshot().unwrap();
            size = snapshot.0;
            if it.writers > 0 {
                mtime = snapshot.1;
            }
        }
        Ok(Attr {
            id: object(fid),
            kind: it.kind,
            size,
            mode: it.mode,
            nlink: it.nlink,
            uid: it.owner.0,
            gid: it.owner.1,
            mtime,
            ctime: it.ctime.max(mtime),
            atime: it.atime.unwrap_or(mtime),
            lasting: true,
            version: it.version,
        })
    }

    fn fresh(&mut self, directory: bool) -> Fid {
        self.counter += 1;
        let count = self.counter as u32;
        match directory {
            true => Fid::directory(VOLUME, Author(7), count),
            false => Fid::file(VOLUME, Author(7), count),
        }
    }

    fn container(&mut self, directory: &std::path::Path) -> (u64, Arc<dyn Container>) {
        self.counter += 1;
        let path = directory.join(self.counter.to_string());
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        (self.counter, Arc::new(OnDisk(file, self.transfers.clone())))
    }

    fn bind(&mut self, dir: ObjectId, name: &[u8], made: Object, fid: Fid) -> Result<Attr> {
        if self.child(dir, name).is_ok() {
            return Err(Error::Exists(text(name)));
        }
        self.objects.insert(fid, made);
        let dir = self.get_mut(dir)?;
        dir.entries.insert(name.to_vec(), fid);
        dir.mtime += 1;
        self.attr(fid)
    }

    fn unbind(&mut self, dir: ObjectId, name: &[u8]) -> Result<()> {
        let fid = self.child(dir, name)?;
        let parent = self.get_mut(dir)?;
        parent.entries.remove(name);
        parent.mtime += 1;
        let child = self.objects.get_mut(&fid).unwrap();
        child.nlink -= 1;
        if child.nlink == 0 {
            self.objects.remove(&fid);
        }
        Ok(())
    }

    fn open(&mut self, fid: Fid, mode: OpenMode) -> Result<Opened> {
        self.counter += 1;
        let handle = self.counter;
        let file = self.objects.get_mut(&fid).ok_or(Error::Gone(fid))?;
        if file.kind == NodeKind::Directory {
            return Err(Error::IsDirectory(fid.to_string()));
        }
        file.writers += u32::from(mode.write);
        let (container_id, container) = file.container.clone().expect("a file has a container");
        let snapshot = container.snapshot().unwrap();
        if mode.truncate {
            container.set_length(0).unwrap();
        }
        self.opens.insert(handle, Open { fid, writes: mode.write, container: container.clone(), snapshot });
        Ok(Opened { handle, container, container_id, attr: self.attr(fid)? })
    }

    fn store(&mut self, handle: u64) -> Result<()> {
        let open = self.opens.get_mut(&handle).ok_or(Error::BadHandle)?;
        let now = open.container.snapshot().unwrap();
        if !open.writes || now == open.snapshot {
            return Ok(());
        }
        open.snapshot = now;
        let fid = open.fid;
        let Some(file) = self.objects.get_mut(&fid) else { return Ok(()) };
        file.version += 1;
        file.mtime = now.1;
        let names = &self.objects[&self.objects[&fid].parent].entries;
        let name = names.iter().find(|(_, bound)| **bound == fid).map(|(name, _)| name.clone());
        self.stored.push((name.unwrap_or_default(), now.0));
        Ok(())
    }
}

async fn dawdle(name: &[u8]) {
    if name.starts_with(b"slow") {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_ne!(name, b"panic", "as the test wants it");
}

impl Face for Fake {
    fn root(&self) -> ObjectId {
        object(Fid::root(VOLUME))
    }

    async fn lookup(&self, _: Caller, dir: ObjectId, name: &[u8]) -> Result<Attr> {
        dawdle(name).await;
        let mut state = self.state.lock().unwrap();
        state.lookups += 1;
        let fid = state.child(dir, name)?;
        state.attr(fid)
    }

    async fn getattr(&self, _: Caller, id: ObjectId) -> Result<Attr> {
        let mut state = self.state.lock().unwrap();
        state.getattrs += 1;
        state.attr(id.fid)
    }

    async fn setattr(&self, _: Caller, id: ObjectId, change: AttrChange, _: Option<u64>) -> Result<Attr> {
        let mut state = self.state.lock().unwrap();
        let it = state.get_mut(id)?;
        it.mode = change.mode.unwrap_or(it.mode);
        it.owner = (change.uid.unwrap_or(it.owner.0), change.gid.unwrap_or(it.owner.1));
        it.mtime = change.mtime.unwrap_or(it.mtime);
        it.atime = change.atime.or(it.atime);
        it.ctime += 1;
        if let (Some(size), Some((_, container))) = (change.size, &it.container) {
            container.set_length(size).map_err(|error| Error::Io(id.fid.to_string(), error.to_string()))?;
        }
        state.attr(id.fid)
    }

    async fn readdir(&self, _: Caller, dir: ObjectId) -> Result<Listing> {
        let state = self.state.lock().unwrap();
        let lines = state.get(dir)?.entries.iter().map(|(name, fid)| DirLine {
            name: name.clone(),
            id: object(*fid),
            kind: state.objects[fid].kind,
        });
        Ok(Arc::new(lines.collect()))
    }

    async fn parent(&self, dir: ObjectId) -> Result<ObjectId> {
        Ok(object(self.state.lock().unwrap().get(dir)?.parent))
    }

    async fn open(&self, _: Caller, id: ObjectId, mode: OpenMode) -> Result<Opened> {
        self.state.lock().unwrap().open(id.fid, mode)
    }

    async fn create(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        mode: u32,
        open: OpenMode,
        exclusive: bool,
    ) -> Result<Opened> {
        dawdle(name).await;
        let mut state = self.state.lock().unwrap();
        match state.child(dir, name) {
            Ok(_) if exclusive => Err(Error::Exists(text(name))),
            Ok(fid) => state.open(fid, open),
            Err(Error::NotFound(_)) => {
                let fid = state.fresh(false);
                let mut file = blank(NodeKind::File, mode, dir.fid, (who.uid, who.gid));
                file.container = Some(state.container(&self.directory));
                state.bind(dir, name, file, fid)?;
                state.open(fid, open)
            }
            Err(error) => Err(error),
        }
    }

    async fn flush(&self, _: Caller, handle: u64) -> Result<()> {
        self.state.lock().unwrap().store(handle)
    }

    async fn fsync(&self, _: Caller, handle: u64) -> Result<()> {
        self.state.lock().unwrap().store(handle)
    }

    async fn release(&self, handle: u64) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.store(handle)?;
        let open = state.opens.remove(&handle).ok_or(Error::BadHandle)?;
        if let Some(file) = state.objects.get_mut(&open.fid) {
            file.writers -= u32::from(open.writes);
        }
        Ok(())
    }

    async fn mkdir(&self, who: Caller, dir: ObjectId, name: &[u8], mode: u32) -> Result<Attr> {
        dawdle(name).await;
        let mut state = self.state.lock().unwrap();
        let fid = state.fresh(true);
        state.bind(dir, name, blank(NodeKind::Directory, mode, dir.fid, (who.uid, who.gid)), fid)
    }

    async fn symlink(&self, who: Caller, dir: ObjectId, name: &[u8], target: &[u8]) -> Result<Attr> {
        let mut state = self.state.lock().unwrap();
        let fid = state.fresh(false);
        let mut link = blank(NodeKind::Symlink, 0o777, dir.fid, (who.uid, who.gid));
        link.target = target.to_vec();
        state.bind(dir, name, link, fid)
    }

    async fn readlink(&self, _: Caller, id: ObjectId) -> Result<Vec<u8>> {
        Ok(self.state.lock().unwrap().get(id)?.target.clone())
    }

    async fn link(&self, _: Caller, id: ObjectId, dir: ObjectId, name: &[u8]) -> Result<Attr> {
        let mut state = self.state.lock().unwrap();
        if state.child(dir, name).is_ok() {
            return Err(Error::Exists(text(name)));
        }
        if state.get(id)?.parent != dir.fid {
            return Err(Error::CrossDirectory(text(name)));
        }
        state.get_mut(id)?.nlink += 1;
        state.get_mut(dir)?.entries.insert(name.to_vec(), id.fid);
        state.attr(id.fid)
    }

    async fn unlink(&self, _: Caller, dir: ObjectId, name: &[u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let fid = state.child(dir, name)?;
        match state.objects[&fid].kind {
            NodeKind::Directory => Err(Error::IsDirectory(text(name))),
            _ => state.unbind(dir, name),
        }
    }

    async fn rmdir(&self, _: Caller, dir: ObjectId, name: &[u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let fid = state.child(dir, name)?;
        match &state.objects[&fid] {
            child if child.kind != NodeKind::Directory => Err(Error::NotDirectory(text(name))),
            child if !child.entries.is_empty() => Err(Error::NotEmpty(text(name))),
            _ => state.unbind(dir, name),
        }
    }

    async fn rename(
        &self,
        _: Caller,
        from: (ObjectId, &[u8]),
        to: (ObjectId, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let fid = state.child(from.0, from.1)?;
        match state.child(to.0, to.1) {
            Ok(_) if mode == RenameMode::NoReplace => return Err(Error::Exists(text(to.1))),
            Ok(taken) if taken == fid => return Ok(()),
            Ok(taken) if !state.objects[&taken].entries.is_empty() => {
                return Err(Error::NotEmpty(text(to.1)));
            }
            Ok(_) => state.unbind(to.0, to.1)?,
            Err(_) => {}
        }
        state.get_mut(from.0)?.entries.remove(from.1);
        state.get_mut(to.0)?.entries.insert(to.1.to_vec(), fid);
        state.objects.get_mut(&fid).unwrap().parent = to.0.fid;
        Ok(())
    }

    async fn getxattr(&self, _: Caller, id: ObjectId, name: &[u8]) -> Result<Vec<u8>> {
        let state = self.state.lock().unwrap();
        state.get(id)?.xattrs.get(name).cloned().ok_or_else(|| Error::NoAttribute(text(name)))
    }

    async fn listxattr(&self, _: Caller, id: ObjectId) -> Result<Vec<Vec<u8>>> {
        Ok(self.state.lock().unwrap().get(id)?.xattrs.keys().cloned().collect())
    }

    async fn setxattr(
        &self,
        _: Caller,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        must_exist: Option<bool>,
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let xattrs = &mut state.get_mut(id)?.xattrs;
        match must_exist {
            Some(true) if !xattrs.contains_key(name) => return Err(Error::NoAttribute(text(name))),
            Some(false) if xattrs.contains_key(name) => return Err(Error::Exists(text(name))),
            _ => {}
        }
        match value {
            Some(value) => xattrs.insert(name.to_vec(), value.to_vec()),
            None => xattrs.remove(name),
        };
        Ok(())
    }

    async fn access(&self, _: Caller, id: ObjectId, mask: i32) -> Result<()> {
        let state = self.state.lock().unwrap();
        let mode = state.get(id)?.mode as i32 >> 6;
        if mask & !mode == 0 { Ok(()) } else { Err(Error::Access(id.fid.to_string())) }
    }

    fn space(&self) -> Space {
        Space { total: 1 << 30, free: 1 << 29, objects: 1000, objects_free: 900 }
    }

    fn forget(&self, _: ObjectId) {}

    fn forgets(&self) -> mpsc::UnboundedReceiver<Forget> {
        self.state.lock().unwrap().receiver.take().expect("asked for once")
    }
}
