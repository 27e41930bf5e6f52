//! What is logged survives a power cut after a moment: contents first, then what the database has yet to take in,
//! which names them.
//!
//! To make each change last by itself would cost more than the change. One task sees to all that was done since the
//! last time; fsync, and whatever sends contents, does not wait for it.

use std::{collections::BTreeSet, io::ErrorKind};

use crate::{
    cache,
    ops::{Core, Result, locked},
};

/// What would not survive a power cut yet.
#[derive(Default)]
pub struct Unsynced {
    containers: BTreeSet<u64>,
    changed: bool,
    watched: bool,
}

impl Core {
    /// A change was logged, and a container holds its contents: they are to last soon.
    pub(super) fn note_unsynced(&self, container: Option<u64>) {
        let Some(within) = self.settings.lasting else { return };
        let mut unsynced = locked(&self.unsynced);
        unsynced.containers.extend(container);
        unsynced.changed = true;
        if std::mem::replace(&mut unsynced.watched, true) {
            return;
        }
        let me = self.weak();
        self.spawn(async move {
            tokio::time::sleep(within).await;
            let Some(core) = me.upgrade() else { return };
            locked(&core.unsynced).watched = false;
            if let Err(error) = core.make_last() {
                tracing::error!(%error, "what is logged would not survive a power cut");
                core.note_unsynced(None);
            }
        });
    }

    /// All that is logged lasts when this returns.
    pub(crate) fn make_last(&self) -> Result<()> {
        // Who comes while another one is at it waits for that one, whose work may be its own.
        let _one = locked(&self.syncing);
        let containers = {
            let mut unsynced = locked(&self.unsynced);
            if !std::mem::take(&mut unsynced.changed) {
                return Ok(());
            }
            std::mem::take(&mut unsynced.containers)
        };
        let done = self.sync_logged(&containers);
        if done.is_err() {
            let mut unsynced = locked(&self.unsynced);
            unsynced.containers.extend(containers);
            unsynced.changed = true;
        }
        done
    }

    fn sync_logged(&self, containers: &BTreeSet<u64>) -> Result<()> {
        for container in containers {
            match self.cache.containers.open(*container) {
                Ok(container) => container.sync().map_err(|error| cache::io("logged contents", error))?,
                // Nothing needs it any more.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(cache::io("logged contents", error)),
            }
        }
        match self.cache.store(|store| Ok(store.ahead()))? {
            Some(ahead) => self.cache.containers.sync_beside(&ahead).map_err(|e| cache::io("the log", e)),
            None => Ok(()),
        }
    }
}
