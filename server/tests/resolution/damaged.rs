//! Bytes that changed on the disk are noticed, never served, and mended from a peer.

use std::{path::PathBuf, time::Duration};

use coda_proto::{
    Code, Fid, ServerId,
    wire::{self, request},
};
use coda_server::store::replica_dir;

use crate::{
    SOON, client, create, everywhere,
    network::Cluster,
    world::{Client, code, store_inline, store_uploaded},
};

/// Every container of a server's replica.
fn containers(cluster: &Cluster, id: u8) -> Vec<PathBuf> {
    let replica = cluster.realm.replica_at(cluster.home, ServerId(id)).unwrap().replica;
    let data = replica_dir(&cluster.dir(ServerId(id)), replica).join("data");
    let files = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files(data).flat_map(files).collect()
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

async fn large(cluster: &Cluster, clients: &mut [Client], name: &str, bytes: &[u8], handle: u8) -> Fid {
    let (one, others) = clients.split_first_mut().unwrap();
    let others: Vec<&Client> = others.iter().collect();
    let root = one.root();
    let (fid, op) = create(one, root, name);
    everywhere(one, &others, op).await;
    for client in others.iter().copied().chain([&*one]) {
        let mut sent = 0;
        while sent < bytes.len() {
            sent = client.upload([handle; 16], bytes, sent, 1 << 20).await.unwrap().held as usize;
        }
    }
    everywhere(one, &others, store_uploaded(fid, bytes, [handle; 16])).await;
    cluster.settle(SOON).await;
    fid
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_is_never_served_and_mended_from_a_peer() {
    let cluster = Cluster::new(2);
    let mut clients = [client(&cluster, 1), client(&cluster, 2)];
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let fid = large(&cluster, &mut clients, "big", &bytes, 1).await;
    let [path] = &containers(&cluster, 1)[..] else { panic!("one container") };
    for at in [0, 4_999_999, 2_500_000] {
        let [path] = &containers(&cluster, 1)[..] else { panic!("one container") };
        flip(path, at);
        // In pieces, and none of them wrong.
        assert_eq!(code(clients[0].fetch(fid, 1_000_000, 1000).await), Code::NeedsResolve, "byte {at}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clients[0].fetch(fid, 0, 4_000_000).await.unwrap()[..], bytes[..4_000_000]);
        assert_eq!(clients[0].fetch(fid, 4_000_000, 4_000_000).await.unwrap()[..], bytes[4_000_000..]);
    }
    assert!(!path.exists(), "another container holds it now");
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn what_a_file_was_is_forgotten_where_it_is_damaged() {
    for (name, is_read) in [("read", true), ("scrubbed", false)] {
        let cluster = Cluster::new(2);
        let mut clients = [client(&cluster, 1), client(&cluster, 2)];
        let fid = large(&cluster, &mut clients, name, &[7; 100_000], 1).await;
        let before = clients[0].past(fid).await;
        let [path] = &containers(&cluster, 1)[..] else { panic!("one container") };
        flip(path, 50_000);
        let (one, others) = clients.split_first_mut().unwrap();
        everywhere(one, &others.iter().collect::<Vec<_>>(), store_inline(fid, b"short")).await;
        let made = before.entries().last().unwrap();
        if is_read {
            let (fid, dot) = (Some(fid.into()), Some(made.into()));
            let fetch = wire::Fetch { fid, dot, offset: 0, length: 100_000, holes: false };
            let fetched = one.call_with(request::Body::Fetch(fetch), bytes::Bytes::new()).await;
            assert_eq!(code(fetched), Code::Gone);
        }
        tokio::time::sleep(Duration::from_secs(180)).await;
        assert!(containers(&cluster, 1).is_empty(), "{name}: it is put aside");
        assert_eq!(containers(&cluster, 2).len(), 1, "where it is whole it is kept");
        cluster.settle(SOON).await;
        cluster.check_stores();
    }
}

#[tokio::test(start_paused = true)]
async fn the_scrubber_finds_what_nobody_reads() {
    let cluster = Cluster::new(2);
    let mut clients = [client(&cluster, 1), client(&cluster, 2)];
    let bytes = vec![7; 100_000];
    large(&cluster, &mut clients, "big", &bytes, 1).await;
    let [path] = &containers(&cluster, 2)[..] else { panic!("one container") };
    flip(path, 50_000);
    tokio::time::sleep(Duration::from_secs(180)).await;
    let [mended] = &containers(&cluster, 2)[..] else { panic!("one container") };
    assert_ne!(path, mended);
    assert_eq!(std::fs::read(mended).unwrap(), bytes);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_lost_container_keeps_its_version_until_a_peer_has_the_bytes() {
    let cluster = Cluster::new(2);
    let mut clients = [client(&cluster, 1), client(&cluster, 2)];
    let fid = large(&cluster, &mut clients, "big", &[9; 50_000], 1).await;
    cluster.cut(1, 2);
    let past = clients[0].past(fid).await;
    std::fs::remove_file(&containers(&cluster, 1)[0]).unwrap();
    assert_eq!(code(clients[0].fetch(fid, 0, 100).await), Code::NeedsResolve);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(code(clients[0].fetch(fid, 0, 100).await), Code::NeedsResolve);
    assert_eq!(clients[0].past(fid).await, past);
    cluster.heal();
    tokio::time::sleep(Duration::from_secs(1300)).await;
    assert_eq!(clients[0].fetch(fid, 0, 100).await.unwrap()[..], [9; 100]);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn damage_to_a_file_that_is_written_again_meanwhile_is_of_no_interest() {
    let cluster = Cluster::new(2);
    let mut clients = [client(&cluster, 1), client(&cluster, 2)];
    let fid = large(&cluster, &mut clients, "big", &[9; 50_000], 1).await;
    cluster.cut(1, 2);
    std::fs::remove_file(&containers(&cluster, 1)[0]).unwrap();
    assert_eq!(code(clients[0].fetch(fid, 0, 100).await), Code::NeedsResolve);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (one, others) = clients.split_first_mut().unwrap();
    everywhere(one, &[&others[0]], store_inline(fid, b"new")).await;
    tokio::time::sleep(Duration::from_secs(1300)).await;
    assert_eq!(clients[0].fetch(fid, 0, 100).await.unwrap()[..], b"new"[..]);
    let volume = cluster.server(1).volume(cluster.home).unwrap();
    assert!(volume.read(|view| Ok(view.lost(10)?)).unwrap().is_empty());
    cluster.heal();
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_database_costs_one_replica_and_is_filled_anew_by_a_peer() {
    const ONE: ServerId = ServerId(1);
    for wreck in [&b"garbage"[..], b""] {
        let mut cluster = Cluster::new(2);
        let root = client(&cluster, 2).root();
        client(&cluster, 2).mkdir(root, "kept").await.unwrap();
        cluster.settle(SOON).await;
        cluster.stop(ONE);
        let dir = cluster.dir(ONE);
        let replica = replica_dir(&dir, cluster.realm.replica_at(cluster.home, ONE).unwrap().replica);
        for name in ["meta.db-wal", "meta.db-shm"] {
            let _ = std::fs::remove_file(replica.join(name));
        }
        std::fs::write(replica.join("meta.db"), wreck).unwrap();
        let found = coda_server::store::fsck::check(&dir).unwrap();
        assert!(found.iter().any(|one| one.what.contains("meta.db is damaged")), "{found:?}");
        // The other volume is served, and of this one clients are told that others have it.
        cluster.start(ONE);
        let volumes: Vec<_> = cluster.realm.volumes.keys().copied().collect();
        let served = |id| cluster.server(1).volume(id).map(drop).map_err(|refusal| refusal.code);
        assert_eq!(volumes.into_iter().map(served).collect::<Vec<_>>(), [Ok(()), Err(Code::NotJoined)]);
        let page = coda_server::shell::metrics::page(&cluster.server(1));
        assert!(page.contains("coda_volume_state{volume=\"home\",state=\"damaged\"} 1"), "{page}");
        assert!(page.contains("coda_volume_state{volume=\"/\",state=\"damaged\"} 0"), "{page}");
        cluster.stop(ONE);

        let done = coda_server::store::repair::repair(&dir, 7).unwrap();
        assert!(done.len() == 1 && done[0].contains("filled anew"), "{done:?}");
        cluster.start(ONE);
        cluster.settle(SOON).await;
        assert_eq!(client(&cluster, 1).names(root).await, ["kept"]);
        cluster.check_stores();
    }
}
