//! What venus tells Prometheus.

use coda_net::metrics::Page;
use coda_proto::control::VolumeState;

use crate::venus::{Venus, face::Caller};

impl Venus {
    /// The page of numbers, from memory and from the cache's own database. No server is asked.
    pub async fn metrics(&self) -> String {
        let mut page = Page::new();
        let nobody = Caller { uid: 0, gid: 0, pid: 0 };
        let Ok(status) = self.status(nobody, None).await else { return page.into_text() };
        page.family(
            "coda_cache_bytes",
            "gauge",
            "Bytes of contents in the cache, and how many there may be.",
        );
        page.sample("coda_cache_bytes", &[("class", "used")], status.cache_used);
        page.sample("coda_cache_bytes", &[("class", "limit")], status.cache_size);
        page.family("coda_cache_objects", "gauge", "Objects in the cache, and how many there may be.");
        page.sample("coda_cache_objects", &[("class", "used")], status.objects);
        page.sample("coda_cache_objects", &[("class", "limit")], status.objects_limit);

        type Column = (&'static str, &'static str, fn(&VolumeState) -> u64);
        const COLUMNS: &[Column] = &[
            ("coda_cml_entries", "Changes that no server has yet.", |volume| volume.pending),
            ("coda_cml_bytes", "Bytes of contents among them.", |volume| volume.pending_bytes),
            ("coda_cml_oldest_seconds", "Age of the oldest of them.", |volume| volume.oldest_seconds),
            ("coda_volume_members_live", "Members that can be reached.", |volume| volume.live.into()),
            ("coda_volume_members", "Members that there are.", |volume| volume.members.into()),
        ];
        for (name, help, value) in COLUMNS {
            page.family(name, "gauge", help);
            for volume in &status.volumes {
                page.sample(name, &[("realm", &volume.realm), ("volume", &volume.name)], value(volume));
            }
        }
        page.family("coda_volume_state", "gauge", "How a volume is: the state that holds is 1.");
        for volume in &status.volumes {
            let labels = [("realm", &*volume.realm), ("volume", &volume.name), ("state", &volume.state)];
            page.sample("coda_volume_state", &labels, 1);
        }
        page.family("coda_replica_up", "gauge", "Whether a server is taken to be up.");
        for realm in &status.realms {
            for server in &realm.servers {
                let labels = [("realm", &*realm.name), ("server", &server.name)];
                page.sample("coda_replica_up", &labels, u8::from(server.up));
            }
        }
        page.into_text()
    }
}
