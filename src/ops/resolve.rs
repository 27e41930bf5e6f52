//! Having the servers bring an object to the join of all members (`Resolve`), waited for or not.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use coda_proto::{VolumeId, wire};

use super::{Core, locked};
use crate::{env::Priority, venus::face::ObjectId};

/// Resolution of one object is not asked for again sooner.
const RESOLVE_PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// Asks for resolution of an object without waiting for it. One request at a time.
    pub(crate) fn request_resolve(&self, id: ObjectId) {
        if !locked(&self.resolving).insert((id.realm, id.fid)) {
            return;
        }
        let core = self.me();
        self.spawn(async move {
            core.resolve(id, Priority::Background).await;
            // Whoever still finds it lagging need not ask at once again.
            tokio::time::sleep(RESOLVE_PAUSE).await;
            locked(&core.resolving).remove(&(id.realm, id.fid));
        });
    }

    /// Has the servers bring an object to the join of all members. Answers whether they did.
    pub(crate) async fn resolve(&self, id: ObjectId, priority: Priority) -> bool {
        let Ok((realm, group)) = self.group(id).await else { return false };
        let _joining = Joining::begin(&self.joining, (id.realm, group.id));
        let body = wire::request::Body::Resolve(wire::Resolve { fid: Some(id.fid.into()) });
        match self.peers.ask_any(&realm, &group, body, bytes::Bytes::new(), priority).await {
            Ok((_, answer)) => {
                self.say("resolve", format!("Resolved {}", self.shown(id)));
                matches!(answer.response.body, Some(wire::response::Body::Resolved(r)) if r.complete)
            }
            Err(error) => {
                tracing::info!(%realm, fid = %id.fid, %error, "resolution was not done");
                false
            }
        }
    }

    /// Whether the servers of a volume are asked to bring something of it together.
    pub(crate) fn is_resolving(&self, realm: u32, volume: VolumeId) -> bool {
        locked(&self.joining).contains_key(&(realm, volume))
    }
}

/// Counts a question among those under way, as long as it is.
struct Joining<'a> {
    all: &'a Mutex<BTreeMap<(u32, VolumeId), u32>>,
    volume: (u32, VolumeId),
}

impl<'a> Joining<'a> {
    fn begin(all: &'a Mutex<BTreeMap<(u32, VolumeId), u32>>, volume: (u32, VolumeId)) -> Joining<'a> {
        *locked(all).entry(volume).or_default() += 1;
        Joining { all, volume }
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let mut all = locked(self.all);
        if let Some(count) = all.get_mut(&self.volume) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.volume);
            }
        }
    }
}
