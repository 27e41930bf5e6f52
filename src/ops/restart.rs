//! After a start: what the last run left half done.

use std::sync::Arc;

use super::{Core, Result};
use crate::{
    env::Container,
    store::{Change, Edit, Row},
    venus::face::ObjectId,
};

impl Core {
    /// Takes up the log, keeps what was being written, and clears orphans away in the background.
    pub(crate) fn resume(&self) -> Result<()> {
        self.take_up()?;
        for (id, row) in self.cache.store(|store| store.writing())? {
            self.rescue(id, row)?;
        }
        let below = self.cache.container_name()?;
        let core = self.me();
        self.spawn(async move { core.clear_orphans(below).await });
        Ok(())
    }

    /// A file that was open for writing: contents that no server has are kept in the spool.
    fn rescue(&self, id: ObjectId, row: Row) -> Result<()> {
        let stored = row.data.is_none_or(|data| {
            let shown = row.status.siblings.first().map(|sibling| (sibling.length, sibling.hash));
            let contents = self.cache.containers.open(data.container).and_then(|c| digest(&*c));
            match (contents, shown) {
                (Ok(contents), Some(shown)) => contents == shown && data.dot == row.shown(),
                (Ok((length, _)), None) => length == 0,
                (Err(_), _) => false,
            }
        });
        let kept = match row.data {
            Some(data) if !stored => {
                let length = self.cache.containers.open(data.container).and_then(|c| c.length());
                match length {
                    // Nothing is there to be kept.
                    Ok(0) | Err(_) => self.cache.containers.remove(data.container).unwrap_or_default(),
                    Ok(_) => self.spool(id, data.container),
                }
                None
            }
            data => data,
        };
        let row = Row { writing: false, data: kept, ..row };
        self.cache.commit(&Change::of(Edit::Put(id, Arc::new(row))))
    }

    /// Removes containers older than `below` that no row names: a crash left them behind.
    async fn clear_orphans(&self, below: u64) {
        let names = match self.cache.containers.list() {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "containers could not be listed");
                return;
            }
        };
        for (index, name) in names.into_iter().filter(|name| *name < below).enumerate() {
            self.cache.discard(name);
            if index % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Length and hash of a container's contents.
pub(crate) fn digest(container: &dyn Container) -> std::io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let read = container.read_at(length, &mut buffer)?;
        if read == 0 {
            return Ok((length, *hasher.finalize().as_bytes()));
        }
        hasher.update(&buffer[..read]);
        length += read as u64;
    }
}
