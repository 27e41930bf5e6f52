//! What a server tells Prometheus.

use std::sync::atomic::Ordering;

use coda_net::metrics::Page;

use crate::Server;

/// The page of numbers. Written when somebody asks; nothing is counted for it that is not counted anyway.
pub fn page(server: &Server) -> String {
    let mut page = Page::new();
    let (id, realm) = (server.id().to_string(), server.realm());
    page.family("coda_server_info", "gauge", "Which server this is.");
    let version = env!("CARGO_PKG_VERSION");
    page.sample("coda_server_info", &[("realm", &realm.name), ("server", &id), ("version", version)], 1);
    let (sessions, promises) = server.sessions().counts();
    page.gauge("coda_sessions", "Clients that have a session.", sessions);
    page.gauge("coda_promises", "Callback promises that clients hold.", promises);
    let (broken, fenced) = server.sessions().totals();
    page.counter("coda_callback_breaks_total", "Objects whose promise was broken.", broken);
    page.counter("coda_sessions_fenced_total", "Sessions ended for want of an acknowledgement.", fenced);
    volumes(server, &mut page);
    page.into_text()
}

/// Numbers of one volume, with the words that name them.
struct Numbers {
    volume: String,
    serving: bool,
    blocks: u64,
    objects: u64,
    changes: u64,
    tombstones: u64,
    lost: usize,
    free: u64,
    damaged: u64,
    mended: u64,
    scrubbed: u64,
    peers: Vec<(String, bool, u64)>,
}

fn volumes(server: &Server, page: &mut Page) {
    let all: Vec<Numbers> = server.volumes().keys().filter_map(|id| numbers(server, *id)).collect();
    let help = "Whether a replica serves, waits to meet the others, or is damaged.";
    page.family("coda_volume_state", "gauge", help);
    let realm = server.realm();
    let damaged = server.damaged();
    let damaged = damaged.iter().filter_map(|id| realm.volumes.get(id)).map(|volume| &volume.info.name);
    let states = all.iter().map(|one| (&one.volume, if one.serving { "serving" } else { "waiting" }));
    for (volume, is) in states.chain(damaged.map(|volume| (volume, "damaged"))) {
        for state in ["serving", "waiting", "damaged"] {
            let is = state == is;
            page.sample("coda_volume_state", &[("volume", volume), ("state", state)], u8::from(is));
        }
    }
    type Column = (&'static str, &'static str, &'static str, fn(&Numbers) -> u64);
    const COLUMNS: &[Column] = &[
        ("coda_volume_bytes", "gauge", "Bytes that a volume's objects take.", |one| one.blocks * 1024),
        ("coda_volume_objects", "gauge", "Objects that a replica knows, dead ones included.", |one| {
            one.objects
        }),
        ("coda_volume_changes", "counter", "Changes of a replica since it was made.", |one| one.changes),
        ("coda_tombstones", "gauge", "Removals that are remembered.", |one| one.tombstones),
        ("coda_partition_free_bytes", "gauge", "Room on the replica's disk.", |one| one.free * 1024),
        ("coda_contents_lost", "gauge", "Contents whose bytes no peer asked so far has.", |one| {
            one.lost as u64
        }),
        ("coda_contents_damaged_total", "counter", "Contents found not to match their hash.", |one| {
            one.damaged
        }),
        ("coda_contents_mended_total", "counter", "Of these, mended from a peer.", |one| one.mended),
        ("coda_scrubbed_bytes_total", "counter", "Bytes that the scrubber has read.", |one| one.scrubbed),
    ];
    for (name, kind, help, value) in COLUMNS {
        page.family(name, kind, help);
        all.iter().for_each(|one| page.sample(name, &[("volume", &one.volume)], value(one)));
    }
    page.family("coda_replica_up", "gauge", "Whether another member could be reached when last asked.");
    for one in &all {
        for (peer, up, _) in &one.peers {
            page.sample("coda_replica_up", &[("volume", &one.volume), ("server", peer)], u8::from(*up));
        }
    }
    let behind = "coda_replica_unconfirmed_changes";
    page.family(behind, "gauge", "Changes of this replica that another member has not said to include.");
    for one in &all {
        for (peer, _, changes) in &one.peers {
            page.sample(behind, &[("volume", &one.volume), ("server", peer)], changes);
        }
    }
}

/// `None` where the volume went away, or cannot be read.
fn numbers(server: &Server, id: coda_proto::VolumeId) -> Option<Numbers> {
    let volume = server.volume(id).ok()?;
    let name = server.realm().volumes.get(&id).map(|entry| entry.info.name.clone())?;
    let space = volume.store().space().ok()?;
    let peers: Vec<_> = server.peers_of(id).into_keys().collect();
    let read = volume.read(|view| {
        let row = view.volume_row()?;
        let mut members = Vec::new();
        for peer in peers {
            let unconfirmed = row.change_seq.saturating_sub(view.peer(peer)?.acked);
            members.push((peer.to_string(), !volume.meetings.is_suspect(peer), unconfirmed));
        }
        Ok(Numbers {
            volume: name,
            serving: row.joined,
            blocks: row.used,
            objects: view.objects()?,
            changes: row.change_seq,
            tombstones: view.tombstones()?,
            lost: view.lost(1000)?.len(),
            free: space.free,
            damaged: volume.health.damaged.load(Ordering::Relaxed),
            mended: volume.health.mended.load(Ordering::Relaxed),
            scrubbed: volume.health.scrubbed.load(Ordering::Relaxed),
            peers: members,
        })
    });
    read.ok()
}
