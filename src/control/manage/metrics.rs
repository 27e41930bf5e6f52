//! What venus tells Prometheus.

use coda_net::metrics::Page;
use coda_proto::{VolumeId, control::VolumeState};

use crate::{
    store::Store,
    venus::{Venus, face::Caller},
};

/// Cached objects that are looked at before others have their turn.
const AT_ONCE: u32 = 500;

impl Venus {
    /// The page of numbers, from memory and from the cache's own database. No server is asked.
    pub async fn metrics(&self) -> Page {
        let mut page = Page::new();
        let nobody = Caller { uid: 0, gid: 0, pid: 0 };
        let Ok(status) = self.status(nobody, None).await else { return page };
        page.family(
            "coda_cache_bytes",
            "gauge",
            "Bytes of contents in the cache, how many there may be, and what those are that are there.",
        );
        page.sample("coda_cache_bytes", &[("class", "used")], status.cache_used);
        page.sample("coda_cache_bytes", &[("class", "limit")], status.cache_size);
        let dirty: u64 = status.volumes.iter().map(|volume| volume.pending_bytes).sum();
        let pinned = self.core.cache.store(|store| store.hoarded_bytes()).unwrap_or(0);
        page.sample("coda_cache_bytes", &[("class", "pinned")], pinned);
        page.sample("coda_cache_bytes", &[("class", "dirty")], dirty);
        let rest = status.cache_used.saturating_sub(pinned).saturating_sub(dirty);
        page.sample("coda_cache_bytes", &[("class", "opportunistic")], rest);
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
        page.family("coda_replica_rtt_seconds", "gauge", "How long a server takes to answer, once it has.");
        for server in self.core.peers.status() {
            if let Some(microseconds) = server.latency_us {
                let labels = [("realm", &*server.realm), ("server", &server.name)];
                page.sample("coda_replica_rtt_seconds", &labels, microseconds as f64 / 1e6);
            }
        }
        self.troubles(&mut page, &status.volumes).await;
        page
    }

    /// What people may have to look at.
    async fn troubles(&self, page: &mut Page, volumes: &[VolumeState]) {
        if let Some(conflicts) = self.count_conflicts(volumes).await {
            let help = "Cached objects in conflict, as of a minute ago or less.";
            page.gauge("coda_conflicts", help, conflicts);
        }
        let numbers = volumes.iter().filter_map(|volume| self.number_of(volume));
        let held = numbers.filter(|(realm, volume)| self.core.needs_approval(*realm, *volume)).count();
        page.gauge("coda_guard_holds", "Volumes whose removals wait for `cfs approve`.", held);
        let counts = &self.core.events.counts;
        let broken = counts.breaks();
        page.counter("coda_callback_breaks_total", "Objects about which a promise was broken.", broken);
        let name = "coda_reintegration_failures_total";
        page.family(name, "counter", "Times that servers did not take a logged change, by why.");
        for (reason, count) in counts.failures() {
            page.sample(name, &[("reason", &reason)], count);
        }
        // Without users there is none yet.
        page.family(
            "coda_token_expiry_seconds",
            "gauge",
            "When a user's token ends. There are no tokens yet.",
        );
    }

    fn number_of(&self, volume: &VolumeState) -> Option<(u32, VolumeId)> {
        let id = u32::from_str_radix(&volume.id, 16).ok()?;
        Some((self.core.realm_number(&volume.realm).ok()?, VolumeId(id)))
    }

    /// Looks through the cache, a little at a time: nobody waits for it.
    async fn count_conflicts(&self, volumes: &[VolumeState]) -> Option<u64> {
        let counts = &self.core.events.counts;
        if let Some(known) = counts.conflicts() {
            return Some(known);
        }
        let mut found = 0;
        for volume in volumes.iter().filter_map(|volume| self.number_of(volume)) {
            let mut after = None;
            loop {
                let ask = |store: &mut Store| store.undecided_after(volume, after, AT_ONCE);
                let (some, last) = self.core.cache.store(ask).ok()?;
                (found, after) = (found + some, last);
                if after.is_none() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        counts.conflicts_found(found);
        Some(found)
    }
}
