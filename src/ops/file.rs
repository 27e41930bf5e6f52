//! Open files: containers shared by all opens of one version, stored when they were changed and closed.
//!
//! What was written is noticed by comparing snapshots of the container, since writes may pass by us. With
//! several writers the last one's close stores.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{BULK_LIMIT, Contents, Fid, INLINE_LIMIT, Kind, Op, Rights, Sibling, wire};
use futures::future::join_all;

use super::{
    Core, Handle, Result,
    names::{Birth, is_taken, updated},
    path::text,
};
use crate::{
    cache::{self, Held, OpenFile, View, open::Snapshot},
    cml::{self, To},
    env::{Container, Priority},
    error::Error,
    reintegration::{Failure, Seen, Stamp},
    store::{Change, Data, Edit, Row},
    venus::face::{Caller, ObjectId, OpenMode, Opened},
};

/// Attempts to read contents that are being written.
const STILL: usize = 8;

/// Smaller holes are sent as the zeros that they read as.
const HOLE: u64 = 256 << 10;
/// Zeros that one piece of an upload may stand for.
const ZEROS_LIMIT: u64 = 64 << 20;

/// Contents as they were read: what a Store says of them.
struct Reading {
    snapshot: Snapshot,
    length: u64,
    hash: [u8; 32],
    /// Where they are short.
    inline: Option<Bytes>,
}

impl Core {
    /// Opens a file: whole, in its latest version.
    pub(crate) async fn open(&self, who: Caller, id: ObjectId, mode: OpenMode) -> Result<Opened> {
        let held = self.cache.locks.hold([id]).await;
        self.open_held(held, who, id, mode, false).await
    }

    async fn open_held(
        &self,
        _held: Held,
        who: Caller,
        id: ObjectId,
        mode: OpenMode,
        is_new: bool,
    ) -> Result<Opened> {
        let view = self.current_held(id, Vec::new()).await?;
        match view.row.status.kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::IsDirectory(id.fid.to_string())),
            Kind::Symlink => return Err(Error::Invalid(format!("{} is a symbolic link", id.fid))),
        }
        let rights = view.row.status.my_rights;
        let writes = mode.write || mode.truncate;
        // Whoever may make a name may write the file that he has just made.
        if (mode.read && !rights.has(Rights::READ) && !is_new)
            || (writes && !rights.has(Rights::WRITE) && !is_new)
        {
            return Err(Error::Access(id.fid.to_string()));
        }
        if writes && view.row.status.in_conflict() {
            return Err(Error::Undecided(self.name_of(id, &view)));
        }
        let file = match self.shared(&view) {
            Some(file) => file,
            None if mode.truncate || (is_new && writes) => {
                if !is_new {
                    self.leave_base(who.uid, &view, None).await?;
                }
                self.emptied(id)?
            }
            None => self.opened(id, &view).await?,
        };
        if writes {
            let view = self.cache.view(id)?.unwrap_or_else(|| view.clone());
            self.leave_base(who.uid, &view, Some(&file)).await?;
            self.shadow(id, file.name)?;
        }
        if mode.truncate && file.container.length().is_ok_and(|length| length > 0) {
            file.container.set_length(0).map_err(|error| cache::io(id.fid, error))?;
        }
        if writes {
            self.note_writing(id, true)?;
        }
        let handle = self.add_handle(Handle { id, file: file.clone(), write: writes, uid: who.uid });
        let mut state = file.state();
        match writes {
            true => state.writers += 1,
            false => state.readers += 1,
        }
        drop(state);
        let view = self.cache.view(id)?.unwrap_or(view);
        let attr = self.attr(&view, who);
        Ok(Opened { handle, container: file.container.clone(), container_id: file.name, attr })
    }

    /// The container that other opens use, if this one is to share it: while somebody writes, or while it
    /// is what shows.
    fn shared(&self, view: &View) -> Option<Arc<OpenFile>> {
        let file = view.open.clone()?;
        let busy = {
            let state = file.state();
            state.writers > 0 || state.unsaved
        };
        let shows = view.row.has_contents() && view.row.data.is_some_and(|data| data.container == file.name);
        (busy || shows || view.gone).then_some(file)
    }

    /// A container with the contents that show.
    async fn opened(&self, id: ObjectId, now: &View) -> Result<Arc<OpenFile>> {
        let here = now.row.has_contents() && !now.row.status.in_conflict();
        let view = if here { now.clone() } else { self.contents_held(id).await? };
        if here {
            self.read_on(id, &view);
        }
        let data = view.row.data.ok_or(Error::Gone(id.fid))?;
        if let Some(file) = view.open.as_ref().filter(|file| file.name == data.container) {
            return Ok(file.clone());
        }
        let container = match self.cache.containers.open(data.container) {
            Ok(container) => container,
            Err(error) => {
                // A container that is lost keeps its version: the same contents are fetched again.
                let realm = self.realm_field(id.realm);
                tracing::warn!(realm, fid = %id.fid, container = data.container, %error, "a container is lost");
                let row = Row { data: None, ..(*view.row).clone() };
                self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))?;
                let view = Box::pin(self.contents_held(id)).await?;
                let data = view.row.data.ok_or(Error::Gone(id.fid))?;
                return self.attach(id, &view, data.container, None);
            }
        };
        self.attach(id, &view, data.container, Some(container))
    }

    fn attach(
        &self,
        id: ObjectId,
        view: &View,
        name: u64,
        container: Option<Arc<dyn Container>>,
    ) -> Result<Arc<OpenFile>> {
        let failed = |error| cache::io(id.fid, error);
        let container = match container {
            Some(container) => container,
            None => self.cache.containers.open(name).map_err(failed)?,
        };
        let file = OpenFile::new(name, container, view.row.status.past.clone()).map_err(failed)?;
        let file = Arc::new(file);
        self.cache.open(id, &file)?;
        Ok(file)
    }

    /// An empty container in place of contents that are not wanted.
    fn emptied(&self, id: ObjectId) -> Result<Arc<OpenFile>> {
        let view = self.cache.view(id)?.ok_or(Error::Gone(id.fid))?;
        let scratch = self.scratch()?;
        let name = scratch.name;
        let old = view.row.data.map(|data| data.container);
        let data = Some(Data { container: name, dot: None, length: 0 });
        let row = Row { data, writing: true, ..(*view.row).clone() };
        self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))?;
        let (_, container) = scratch.keep();
        let file = self.attach(id, &view, name, Some(container))?;
        // What the servers hold is not empty, as far as we know.
        file.state().unsaved = !view.row.status.siblings.is_empty();
        if let Some(old) = old {
            self.cache.discard(old);
        }
        Ok(file)
    }

    /// Notes that a container may hold what no server has.
    fn note_writing(&self, id: ObjectId, writing: bool) -> Result<()> {
        match self.cache.view(id)? {
            Some(view) if view.row.writing != writing && !view.gone => {
                let row = Row { writing, ..(*view.row).clone() };
                self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))
            }
            _ => Ok(()),
        }
    }

    /// Makes and opens a file.
    pub(crate) async fn create(
        &self,
        who: Caller,
        dir: ObjectId,
        name: &[u8],
        mode: u32,
        open: OpenMode,
        exclusive: bool,
    ) -> Result<Opened> {
        // What is written next goes into a container that is there from the beginning.
        let scratch = if open.write || open.truncate { Some(self.scratch()?) } else { None };
        let birth = Birth {
            kind: Kind::File,
            mode: mode & 0o1777,
            owner: who.uid,
            target: b"",
            exclusive,
            container: scratch.as_ref().map(|scratch| scratch.name),
        };
        let made = self.make(dir, name, birth).await;
        let (id, is_new) = match made {
            Ok(view) => (view.id, true),
            // Somebody else made it first.
            Err(error) if is_taken(&error) && !exclusive => (self.lookup(who, dir, name).await?.id, false),
            Err(error) => return Err(error),
        };
        let held = self.cache.locks.hold([id]).await;
        if let Some(scratch) = scratch
            && let Some(view) = self.cache.view(id)?
            && view.row.data.is_some_and(|data| data.container == scratch.name)
        {
            let (name, container) = scratch.keep();
            // Somebody may have found and opened it meanwhile.
            if view.open.is_none() {
                self.attach(id, &view, name, Some(container))?;
            }
        }
        self.open_held(held, who, id, open, is_new).await
    }

    /// A close of one descriptor.
    pub(crate) async fn flush(&self, handle: u64) -> Result<()> {
        let handle = self.handle(handle)?;
        let others = handle.file.state().writers > 1;
        if !handle.write || others || !handle.file.changed() {
            return Ok(());
        }
        self.store(handle.uid, handle.id, &handle.file).await
    }

    /// What was written survives power loss, here and there.
    pub(crate) async fn fsync(&self, handle: u64) -> Result<()> {
        let handle = self.handle(handle)?;
        if handle.write {
            handle.file.container.sync().map_err(|error| cache::io(handle.id.fid, error))?;
            if handle.file.changed() {
                self.store(handle.uid, handle.id, &handle.file).await?;
            }
        }
        self.make_last()
    }

    /// The last descriptor of an open is gone.
    pub(crate) async fn release(&self, handle: u64) -> Result<()> {
        let Handle { id, file, write, uid } = self.take_handle(handle)?;
        let last_writer = write && file.state().writers == 1;
        // Stores through a mapping may have come after the flush.
        let stored = match last_writer && file.changed() {
            true => self.store(uid, id, &file).await,
            false => Ok(()),
        };
        let _held = self.cache.locks.hold([id]).await;
        let unused = {
            let mut state = file.state();
            match write {
                true => state.writers = state.writers.saturating_sub(1),
                false => state.readers = state.readers.saturating_sub(1),
            }
            state.writers == 0 && state.readers == 0
        };
        let view = self.cache.view(id)?;
        let is_current = view
            .as_ref()
            .is_some_and(|view| !view.gone && view.row.data.is_some_and(|data| data.container == file.name));
        let no_writers = file.state().writers == 0;
        if write && no_writers {
            self.written(id.realm, id.fid.volume);
        }
        if stored.is_err() && no_writers && file.changed() && view.as_ref().is_some_and(|view| !view.gone) {
            self.set_aside(id, &file, is_current)?;
        } else if write && no_writers && is_current {
            self.note_writing(id, false)?;
        }
        if unused {
            if view.as_ref().and_then(|view| view.open.as_ref()).is_some_and(|open| Arc::ptr_eq(open, &file))
            {
                self.cache.set_open(id, None)?;
            }
            self.cache.note_open(file.name, false);
            if !is_current {
                self.cache.discard(file.name);
            }
            self.cache.trim()?;
        }
        stored
    }

    /// Contents that could not be stored go to the spool; the object is fetched again when it is wanted.
    fn set_aside(&self, id: ObjectId, file: &OpenFile, is_current: bool) -> Result<()> {
        self.spool(id, file.name);
        file.state().unsaved = false;
        if is_current && let Some(view) = self.cache.view(id)? {
            let row = Row { data: None, writing: false, ..(*view.row).clone() };
            self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))?;
        }
        self.cache.demote(id)
    }

    /// Stores changed contents at all members, for whoever closes the file.
    pub(crate) async fn store(&self, uid: u32, id: ObjectId, file: &Arc<OpenFile>) -> Result<()> {
        let name = id.fid.to_string();
        let stored = self.retried(id, name.as_bytes(), || self.store_once(uid, id, file)).await;
        if stored.is_err() {
            file.state().unsaved = true;
        }
        stored
    }

    async fn store_once(
        &self,
        uid: u32,
        id: ObjectId,
        file: &Arc<OpenFile>,
    ) -> std::result::Result<(), Failure> {
        let held = self.cache.locks.hold([id]).await;
        if !file.changed() {
            return Ok(());
        }
        let view = match self.cache.view(id)? {
            Some(view) => view,
            None => self.current_held(id, Vec::new()).await?,
        };
        if view.gone {
            // Unlinked while open: what is written is for whoever has it open.
            return Ok(());
        }
        let reading = self.read_still(id, file).await?;
        let contents = match &reading.inline {
            Some(bytes) => Contents::Inline(bytes.clone()),
            None => Contents::Uploaded(self.bring(uid, id, &view, file, &reading).await?),
        };
        // Short contents are in the record, others stay where they are while it is logged.
        let log_keeps = reading.inline.is_none();
        if file.container.snapshot().map_err(|error| cache::io(id.fid, error))? != reading.snapshot {
            return Err(Failure::NoUpload);
        }
        let (seen, mode, mtime) = {
            let state = file.state();
            let set = state.mtime.filter(|(_, at)| *at == reading.snapshot).map(|(mtime, _)| mtime);
            (state.seen.clone(), state.mode, set.unwrap_or(reading.snapshot.1))
        };
        let base = Seen { past: seen, written: Some(reading.snapshot.2), ..Seen::of(&view.row.status) };
        let length = reading.length;
        let is_current = view.row.data.is_some_and(|data| data.container == file.name);
        let replaced = base.past.clone();
        let make = |stamp: &Stamp| {
            let host = stamp.host.clone();
            let sibling = Sibling { dot: stamp.dot, length, hash: reading.hash, mtime, host };
            let row = updated(&view.row, stamp, |status| {
                status.siblings.retain(|old| !replaced.covers(old.dot));
                status.siblings.insert(0, sibling);
                status.length = length;
                status.mtime = mtime;
                status.mode = mode.unwrap_or(status.mode);
            });
            let mut row = (*row).clone();
            row.version += 1;
            if is_current {
                row.data = Some(Data { container: file.name, dot: Some(stamp.dot), length });
            }
            let op = Op::Store { fid: id.fid, length, hash: reading.hash, mtime, contents, mode };
            (op, Change::of(Edit::Put(id, Arc::new(row))))
        };
        let dot = match log_keeps {
            true => self.submit_store(uid, held, id, base, file.name, make).await?,
            false => self.submit(uid, held, id, vec![base], false, make).await?,
        };
        if log_keeps && file.state().writers > 1 {
            // Somebody else goes on writing.
            self.shadow(id, file.name)?;
        }
        let mut state = file.state();
        state.stored = reading.snapshot;
        state.unsaved = false;
        state.seen.add(dot);
        (state.mode, state.mtime) = (None, None);
        drop(state);
        self.say("store", format!("Stored {}, {length} bytes", self.shown(id)));
        Ok(())
    }

    /// How many zeros follow in a hole worth telling of.
    fn hole(&self, container: &dyn Container, offset: u64, length: u64) -> std::io::Result<u64> {
        if length <= HOLE {
            return Ok(0);
        }
        let zeros = container.next_data(offset)?.min(length).saturating_sub(offset);
        Ok(if zeros >= HOLE { zeros } else { 0 })
    }

    /// Reads contents while nobody writes them.
    async fn read_still(&self, id: ObjectId, file: &OpenFile) -> Result<Reading> {
        let failed = |error| cache::io(id.fid, error);
        for _ in 0..STILL {
            let snapshot = file.container.snapshot().map_err(failed)?;
            let mut hasher = blake3::Hasher::new();
            let mut buffer = vec![0; (snapshot.0.min(1 << 20) as usize).max(1)];
            let (mut length, mut inline) = (0u64, None);
            loop {
                // Holes need not be read to be hashed.
                let zeros = self.hole(&*file.container, length, snapshot.0).map_err(failed)?;
                if zeros > 0 {
                    buffer.fill(0);
                    for start in (0..zeros).step_by(buffer.len()) {
                        hasher.update(&buffer[..(zeros - start).min(buffer.len() as u64) as usize]);
                        tokio::task::yield_now().await;
                    }
                    length += zeros;
                    if length >= snapshot.0 {
                        break;
                    }
                }
                let read = file.container.read_at(length, &mut buffer).map_err(failed)?;
                hasher.update(&buffer[..read]);
                length += read as u64;
                if read < buffer.len() || length >= snapshot.0 {
                    if length <= INLINE_LIMIT as u64 {
                        inline = Some(Bytes::copy_from_slice(&buffer[..length as usize]));
                    }
                    break;
                }
                tokio::task::yield_now().await;
            }
            if length == snapshot.0 && file.container.snapshot().map_err(failed)? == snapshot {
                return Ok(Reading { snapshot, length, hash: *hasher.finalize().as_bytes(), inline });
            }
            tokio::task::yield_now().await;
        }
        Err(Error::Busy(id.fid.to_string()))
    }

    /// Brings contents to the servers ahead of their Store, where that is sent now. Where it is logged they
    /// are made to last as long as it does.
    async fn bring(
        &self,
        uid: u32,
        id: ObjectId,
        view: &View,
        file: &OpenFile,
        reading: &Reading,
    ) -> std::result::Result<[u8; 16], Failure> {
        let mut handle = [0; 16];
        if !self.is_apart(uid, &[id]).await {
            handle[..8].copy_from_slice(&self.env.random().to_le_bytes());
            handle[8..].copy_from_slice(&self.env.random().to_le_bytes());
            let what = (reading.length, reading.hash);
            match self
                .upload(id, view.row.status.parent, &*file.container, what, handle, Priority::Foreground)
                .await
            {
                Err(Failure::Away) => {}
                brought => return brought.map(|()| handle),
            }
        }
        if self.settings.lasting.is_none() {
            file.container.sync().map_err(|error| cache::io(id.fid, error))?;
        }
        Ok([0; 16])
    }

    /// Brings contents to every live member ahead of their Store. One member is enough to go on.
    pub(crate) async fn upload(
        &self,
        id: ObjectId,
        directory: Fid,
        container: &dyn Container,
        (length, hash): (u64, [u8; 32]),
        handle: [u8; 16],
        priority: Priority,
    ) -> std::result::Result<(), Failure> {
        self.upload_to(To::All, id, directory, container, (length, hash), handle, priority).await
    }

    /// The same to those whom they are for.
    #[allow(clippy::too_many_arguments, reason = "an upload has so many sides")]
    pub(crate) async fn upload_to(
        &self,
        to: To,
        id: ObjectId,
        directory: Fid,
        container: &dyn Container,
        (length, hash): (u64, [u8; 32]),
        handle: [u8; 16],
        priority: Priority,
    ) -> std::result::Result<(), Failure> {
        let (realm, group) = self.group(id).await.map_err(|error| match super::is_disconnected(&error) {
            true => Failure::Away,
            false => Failure::Here(error),
        })?;
        let members = match to {
            To::All => self.peers.live(&realm, &group),
            To::One(server) => vec![server],
        };
        let limit = self.settings.trickle.filter(|_| priority == Priority::Background);
        let most = limit.map_or(BULK_LIMIT as u64, |limit| cml::piece(limit).min(BULK_LIMIT as u64));
        let sent = members.iter().map(|server| async {
            let (mut offset, mut holes) = (0, true);
            loop {
                let failed = |error| cache::io(id.fid, error);
                let hole = if holes { self.hole(container, offset, length).map_err(failed)? } else { 0 };
                let zeros = hole.min(ZEROS_LIMIT);
                let mut piece = Vec::new();
                if zeros == 0 {
                    piece.resize((length - offset).min(most) as usize, 0);
                    let read = container.read_at(offset, &mut piece).map_err(failed)?;
                    piece.truncate(read);
                }
                let body = wire::request::Body::Upload(wire::Upload {
                    volume: id.fid.volume.0,
                    handle: handle.to_vec().into(),
                    directory: Some(directory.into()),
                    offset,
                    length,
                    hash: hash.to_vec().into(),
                    zeros,
                });
                if limit.is_some() {
                    self.paced(piece.len() as u64).await;
                }
                let (bytes, began) = (piece.len() as u64, tokio::time::Instant::now());
                let asked = self.peers.ask_one(&realm, *server, body, piece.into(), priority).await;
                self.note_transfer(id, bytes, began.elapsed());
                match asked {
                    Ok(answer) => match answer.response.body {
                        Some(wire::response::Body::Uploaded(up)) if up.complete => return Ok(()),
                        Some(wire::response::Body::Uploaded(up)) if up.held > offset => offset = up.held,
                        // A server that knows no holes.
                        Some(wire::response::Body::Uploaded(_)) if zeros > 0 => holes = false,
                        // No progress: the contents changed under us, or it answers nonsense.
                        _ => return Err(Failure::NoUpload),
                    },
                    Err(crate::replica::AskError::Refused(refusal))
                        if refusal.code == coda_proto::Code::Upload =>
                    {
                        return Err(Failure::NoUpload);
                    }
                    // It is no member any more: look again who is.
                    Err(crate::replica::AskError::Refused(refusal))
                        if refusal.code == coda_proto::Code::NoVolume =>
                    {
                        return Err(Failure::Stale(refusal));
                    }
                    Err(crate::replica::AskError::Refused(refusal)) => return Err(Failure::Refused(refusal)),
                    Err(error) if super::is_away(&error) => return Err(Failure::Away),
                    Err(error) => return Err(Failure::Here(error.about(&id.fid.to_string()))),
                }
            }
        });
        let outcomes: Vec<std::result::Result<(), Failure>> = join_all(sent).await;
        let mut failure = Failure::Away;
        for outcome in outcomes {
            match outcome {
                Ok(()) => return Ok(()),
                Err(Failure::Away) => {}
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    /// A name of an object, for messages.
    pub fn name_of(&self, id: ObjectId, view: &View) -> String {
        let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
        let name = self.cache.store(|store| store.name_in(dir, id.fid)).ok().flatten();
        name.map_or_else(|| id.fid.to_string(), |name| text(&name))
    }
}
