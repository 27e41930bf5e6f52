//! What an earlier run left in the log is acknowledged work: it is sent as such.

use coda_proto::planted::{Bug, planted};

use super::Pending;
use crate::{
    cml::Entry,
    ops::{Core, Result, locked},
    venus::face::ObjectId,
};

impl Core {
    /// Takes up what an earlier run left in the log.
    pub(crate) fn take_up(&self) -> Result<()> {
        let mut rows = self.cache.store(|store| store.log())?;
        if planted(Bug::RestartForgetsPending) {
            rows.pop();
        }
        let (left, since) = (rows.len(), tokio::time::Instant::now());
        for row in rows {
            let touched = row.record.op.touches();
            let outbox = self.outbox(row.realm, touched[0].volume);
            let realm = row.realm;
            self.cache.note_unsent(touched.into_iter().map(|fid| ObjectId { realm, fid }));
            let uid = row.uid.unwrap_or(self.settings.owner);
            let entry = Entry::new(row.id, uid, &row.record, row.container.is_none());
            // What was sent may have arrived.
            let pending =
                Pending { entry, logged: true, sent: row.sent, maybe: row.sent, waiting: None, since };
            locked(&outbox.state).insert(pending);
        }
        if left > 0 {
            tracing::info!(left, "records of an earlier run are in the log");
            self.drain(None);
        }
        Ok(())
    }
}
