//! Contents of Stores that are too long for their records: brought to the servers ahead of them, and kept
//! apart from the file while that is written again.

use coda_proto::{Contents, Dot, Fid, Op};
use futures::{StreamExt, stream};

use super::{Failure, Outbox, pump::Sending};
use crate::{
    cache::{self, View},
    cml::To,
    env::Priority,
    ops::{Core, Result, Scratch, locked},
    store::{Change, Edit},
    venus::face::ObjectId,
};

/// Files brought at once: each waits for the disks of the servers several times, and they wait together.
const AT_ONCE: usize = 8;

impl Core {
    /// Brings the contents of a chunk's Stores to the servers, and notes in the records under which
    /// handles. An error names the first that could not be brought.
    pub(super) async fn upload_all(
        &self,
        outbox: &Outbox,
        batch: &mut [Sending],
        to: To,
    ) -> std::result::Result<(), (usize, Failure)> {
        if batch.iter().any(|sending| sending.logged && sending.container.is_some()) {
            // What is sent must not be lost here, or it would be known there and nowhere else.
            self.make_last().map_err(|error| (0, error.into()))?;
        }
        let jobs: Vec<_> =
            batch.iter().enumerate().filter_map(|(index, s)| self.job(outbox, index, s)).collect();
        let mut brought = stream::iter(jobs.into_iter().map(|job| async move {
            let container = self.cache.containers.open(job.container);
            let container = container.map_err(|error| (job.index, cache::io(job.id.fid, error).into()))?;
            let what = (job.length, job.hash);
            let brought = self
                .upload_to(to, job.id, job.directory, &*container, what, job.handle, Priority::Background)
                .await;
            brought.map_err(|failure| (job.index, failure))?;
            Ok((job.index, job.handle))
        }))
        .buffered(AT_ONCE);
        while let Some(done) = brought.next().await {
            let (index, handle) = done?;
            if let Op::Store { contents, .. } = &mut batch[index].record.op {
                *contents = Contents::Uploaded(handle);
            }
        }
        Ok(())
    }

    /// What has to be brought for a record. What asks has brought its contents already.
    fn job(&self, outbox: &Outbox, index: usize, sending: &Sending) -> Option<Job> {
        let Op::Store { fid, length, hash, .. } = &sending.record.op else { return None };
        let container = sending.container.filter(|_| sending.logged)?;
        let directory = self.known_directory(outbox, *fid);
        let (id, handle) = (outbox.object(*fid), handle(sending.record.dot));
        Some(Job { index, id, directory, container, length: *length, hash: *hash, handle })
    }

    /// The directory of an object, or the next one above it that the servers know already.
    fn known_directory(&self, outbox: &Outbox, fid: Fid) -> Fid {
        // Whatever makes an object touches it first.
        let made = |fid: &Fid| {
            let state = locked(&outbox.state);
            state.first_about(*fid).is_some_and(|pending| pending.entry.creates == Some(*fid))
        };
        let above = |fid| {
            let view = self.cache.view(outbox.object(fid)).ok().flatten()?;
            Some(view.row.status.parent)
        };
        let mut directory = above(fid);
        while let Some(fid) = directory.filter(made) {
            directory = above(fid);
        }
        directory.unwrap_or_else(|| Fid::root(outbox.volume))
    }

    /// A file is about to be written in a container that the log still needs: the log keeps a copy.
    pub(crate) fn shadow(&self, id: ObjectId, container: u64) -> Result<()> {
        if !self.cache.store(|store| store.log_names_container(container))? {
            return Ok(());
        }
        let copy = self.cache.container_name()?;
        let copied = self.cache.containers.copy(container, copy).and_then(|copied| copied.sync());
        let noted = match copied {
            Ok(()) => self.cache.commit(&Change::of(Edit::Recontain(container, copy))),
            Err(error) => Err(cache::io(id.fid, error)),
        };
        if noted.is_err() {
            self.cache.discard(copy);
        }
        noted
    }

    /// Contents that the cache has lost and the log still has.
    pub(crate) fn contents_from_log(&self, view: &View) -> Result<Option<(Scratch<'_>, u64)>> {
        let (id, Some(dot)) = (view.id, view.row.shown()) else { return Ok(None) };
        let outbox = self.outbox(id.realm, id.fid.volume);
        let log = {
            let state = locked(&outbox.state);
            let found = state.queue.values().find(|pending| pending.entry.dot == dot);
            found.map(|pending| pending.entry.log)
        };
        let Some(log) = log else { return Ok(None) };
        let Some(row) = self.cache.store(|store| store.logged(log))? else { return Ok(None) };
        let Op::Store { contents, length, .. } = row.record.op else { return Ok(None) };
        Ok(self.copied(id, row.container, &contents)?.map(|scratch| (scratch, length)))
    }

    /// The contents of a Store in a container of their own: from the one in which they lie, or from the record.
    pub(super) fn copied(
        &self,
        id: ObjectId,
        container: Option<u64>,
        contents: &Contents,
    ) -> Result<Option<Scratch<'_>>> {
        let scratch = self.scratch()?;
        let failed = |error| cache::io(id.fid, error);
        match (container, contents) {
            (Some(container), _) => {
                drop(self.cache.containers.copy(container, scratch.name).map_err(failed)?)
            }
            (None, Contents::Inline(bytes)) => scratch.container.write_at(0, bytes).map_err(failed)?,
            (None, Contents::Uploaded(_)) => return Ok(None),
        }
        Ok(Some(scratch))
    }

    /// Contents that are logged must not be lost with the power while the log remembers them.
    pub(super) fn keep_contents(&self, container: Option<u64>) {
        self.note_unsynced(container);
        let Some(container) = container.filter(|_| self.settings.lasting.is_none()) else { return };
        let synced = self.cache.containers.open(container).and_then(|container| container.sync());
        if let Err(error) = synced {
            tracing::error!(container, %error, "contents that are logged could not be synced");
        }
    }
}

struct Job {
    index: usize,
    id: ObjectId,
    directory: Fid,
    container: u64,
    length: u64,
    hash: [u8; 32],
    handle: [u8; 16],
}

/// The same after every restart, so that what was brought before need not be brought again.
fn handle(dot: Dot) -> [u8; 16] {
    let mut handle = [0; 16];
    handle[..8].copy_from_slice(&dot.author.0.to_le_bytes());
    handle[8..].copy_from_slice(&dot.seq.to_le_bytes());
    handle
}
