//! What the log says names the volume, the object and the peer, in fields that can be searched for.

#[path = "../world/lines.rs"]
mod lines;

use std::time::Duration;

use coda_proto::{Code, Op, ServerId};
use coda_server::store::replica_dir;
use lines::Lines;

use crate::{
    SOON, client,
    network::Cluster,
    two_with_a_file,
    world::{code, store_uploaded},
};

#[tokio::test(start_paused = true)]
async fn a_refused_change_is_logged_with_volume_and_fid() {
    let (cluster, mut one, _two, fid) = two_with_a_file().await;
    let (lines, _guard) = Lines::begin();
    // A file cannot be removed as a directory.
    let op = Op::RemoveDir { parent: one.root(), name: "f".into(), fid };
    let record = one.record(op).await;
    assert_ne!(code(one.apply(&[record]).await), Code::Busy);
    let told = lines.of("a change was refused");
    let [line] = &told[..] else { panic!("{told:?}") };
    assert_eq!(line["volume"], cluster.home.to_string(), "{line}");
    assert_eq!(line["fid"], fid.to_string(), "{line}");
    assert!(line["session"].as_u64().is_some_and(|session| session > 0), "{line}");
    assert!(line["why"].is_string() && line["code"].is_string(), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_container_is_logged_with_volume_and_fid() {
    let (cluster, mut one, two, fid) = two_with_a_file().await;
    let bytes = vec![7; 100_000];
    for client in [&one, &two] {
        client.upload([9; 16], &bytes, 0, bytes.len()).await.unwrap();
    }
    crate::everywhere(&mut one, &[&two], store_uploaded(fid, &bytes, [9; 16])).await;
    cluster.settle(SOON).await;
    let replica = cluster.realm.replica_at(cluster.home, ServerId(1)).unwrap().replica;
    let data = replica_dir(&cluster.dir(ServerId(1)), replica).join("data");
    for folder in std::fs::read_dir(data).unwrap() {
        for container in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            std::fs::write(container.unwrap().path(), vec![8; bytes.len()]).unwrap();
        }
    }
    let (lines, _guard) = Lines::begin();
    assert_eq!(code(one.fetch(fid, 0, bytes.len() as u32).await), Code::NeedsResolve);
    tokio::time::sleep(SOON).await;
    let told = lines.of("a version lost its bytes");
    let [line] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&line["volume"], &line["fid"]), (&cluster.home.to_string().into(), &fid.to_string().into()));
    assert_eq!(lines.of("damaged: ")[0]["volume"], cluster.home.to_string());
    assert_eq!(lines.of("mended")[0]["volume"], cluster.home.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_lost_and_back_is_logged_once_each() {
    let cluster = Cluster::new(2);
    let _one = client(&cluster, 1);
    cluster.settle(SOON).await;
    let (lines, _guard) = Lines::begin();
    cluster.cut(1, 2);
    // More than one regular meeting is missed.
    tokio::time::sleep(Duration::from_secs(2000)).await;
    let peers = |words: &str| {
        let mut peers: Vec<u64> = lines.of(words).iter().map(|line| line["peer"].as_u64().unwrap()).collect();
        peers.sort_unstable();
        peers
    };
    assert_eq!(peers("a peer is lost"), [1, 2], "each misses the other, once");
    cluster.heal();
    tokio::time::sleep(Duration::from_secs(2000)).await;
    assert_eq!((peers("a peer is lost"), peers("a peer is back")), (vec![1, 2], vec![1, 2]));
}
