//! Members that missed something are equal again by themselves.

mod collected;
mod damaged;
mod network;
mod random;
mod repaired;
mod restored;
mod retired;
mod told;
#[path = "../world/mod.rs"]
mod world;

use std::time::Duration;

use coda_proto::{
    Code, Fid, Op, Record, ServerId,
    wire::{self, request, response::Body},
};
use network::Cluster;
use world::{Client, code, store_inline, store_uploaded};

/// What the issue promises for a server that was away.
const SOON: Duration = Duration::from_secs(30);
/// Long enough for every retry, not for a regular meeting.
const PAUSE: Duration = Duration::from_secs(100);

fn client(cluster: &Cluster, id: u8) -> Client {
    Client::new(&cluster.server(id), cluster.home, id)
}

/// Sends what `from` does to the other clients' servers too.
async fn everywhere(from: &mut Client, others: &[&Client], op: Op) -> Record {
    let record = from.record(op).await;
    from.apply(std::slice::from_ref(&record)).await.unwrap();
    for other in others {
        other.apply(std::slice::from_ref(&record)).await.unwrap();
    }
    record
}

fn create(from: &mut Client, parent: Fid, name: &str) -> (Fid, Op) {
    let fid = from.fresh_file();
    (fid, Op::Create { parent, name: name.into(), fid, mode: 0o644, owner: 1 })
}

/// Two members, a client of each, and a file `f` in the root that both members hold.
async fn two_with_a_file() -> (Cluster, Client, Client, Fid) {
    let cluster = Cluster::new(2);
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    let root = one.root();
    let (fid, op) = create(&mut one, root, "f");
    everywhere(&mut one, &[&two], op).await;
    (cluster, one, two, fid)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_cut_off_is_equal_again_within_30_seconds() {
    let cluster = Cluster::new(3);
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    cluster.settle(SOON).await;
    cluster.cut_off(3);
    let root = one.root();
    let (fid, op) = create(&mut one, root, "a");
    everywhere(&mut one, &[&two], op).await;
    everywhere(&mut one, &[&two], store_inline(fid, b"while you were away")).await;
    tokio::time::sleep(PAUSE).await;
    assert!(cluster.difference().await.is_some());
    cluster.heal();
    cluster.settle(SOON).await;
    let three = client(&cluster, 3);
    assert_eq!(three.names(root).await, ["a"]);
    assert_eq!(&three.fetch(fid, 0, 100).await.unwrap()[..], b"while you were away");
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_down_is_equal_again_within_30_seconds_and_so_are_those_who_missed_its_last_words()
{
    let mut cluster = Cluster::new(2);
    let (mut one, mut two) = (client(&cluster, 1), client(&cluster, 2));
    let root = one.root();
    // Its last word reached nobody else.
    let dir = two.mkdir(root, "two").await.unwrap();
    cluster.stop(ServerId(2));
    let big = vec![7; 5 * 1024 * 1024];
    let (fid, op) = create(&mut one, root, "big");
    one.run(op).await.unwrap();
    let mut sent = 0;
    while sent < big.len() {
        sent = one.upload([1; 16], &big, sent, 1 << 20).await.unwrap().held as usize;
    }
    one.run(store_uploaded(fid, &big, [1; 16])).await.unwrap();
    tokio::time::sleep(PAUSE).await;
    cluster.start(ServerId(2));
    cluster.settle(SOON).await;
    let two = client(&cluster, 2);
    assert_eq!(two.names(root).await, ["big", "two"]);
    assert_eq!(two.fetch(fid, 5 * 1024 * 1024 - 3, 10).await.unwrap(), [7, 7, 7][..]);
    assert!(client(&cluster, 1).status(dir).await.is_some());
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn what_was_written_at_both_sides_is_kept_at_both() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    let root = one.root();
    cluster.cut(1, 2);
    one.store(fid, b"one").await.unwrap();
    two.store(fid, b"two").await.unwrap();
    let mine = one.create(root, "new").await.unwrap();
    let theirs = two.create(root, "new").await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    let status = two.status(fid).await.unwrap();
    assert!(status.in_conflict() && status.siblings.len() == 2);
    let bound: Vec<Fid> =
        one.list(root, 10).await.into_iter().map(|entry| entry.fid.unwrap().try_into().unwrap()).collect();
    assert!(bound.contains(&mine) && bound.contains(&theirs));
    // Who saw both decides.
    one.store(fid, b"three").await.unwrap();
    cluster.settle(SOON).await;
    assert_eq!(two.status(fid).await.unwrap().siblings.len(), 1);
    assert_eq!(&two.fetch(fid, 0, 9).await.unwrap()[..], b"three");
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_member_with_a_new_disk_serves_nothing_until_it_has_met_the_others() {
    let mut cluster = Cluster::new(3);
    let mut one = client(&cluster, 1);
    let root = one.root();
    for index in 0..50 {
        let fid = one.create(root, &format!("f{index}")).await.unwrap();
        one.store(fid, &[index]).await.unwrap();
    }
    cluster.settle(SOON).await;
    cluster.stop(ServerId(3));
    cluster.lose_disk(ServerId(3));
    cluster.cut_off(3);
    cluster.start(ServerId(3));
    let mut three = client(&cluster, 3);
    let ask = || request::Body::GetAttr(wire::GetAttr { volume: cluster.home.0, fids: vec![root.into()] });
    assert_eq!(code(three.call(ask()).await), Code::NotJoined);
    cluster.heal();
    cluster.settle(SOON).await;
    assert_eq!(three.names(root).await.len(), 50);
    three.mkdir(root, "d").await.unwrap();
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_filled_in_many_transactions_makes_no_version_of_its_own() {
    let mut cluster = Cluster::new(2);
    let mut one = client(&cluster, 1);
    cluster.settle(SOON).await;
    cluster.stop(ServerId(2));
    cluster.lose_disk(ServerId(2));
    let dirs = [one.mkdir(one.root(), "a").await.unwrap(), one.mkdir(one.root(), "b").await.unwrap()];
    let mut files = Vec::new();
    for index in 0..100 {
        files.push(one.create(dirs[index % 2], &format!("f{index}")).await.unwrap());
    }
    // Written to after their directories changed for the last time, so that they come behind them.
    for (index, fid) in files.iter().enumerate() {
        one.store(*fid, &[index as u8]).await.unwrap();
    }
    let mut pasts = Vec::new();
    for dir in [one.root(), dirs[0], dirs[1]] {
        pasts.push((dir, one.past(dir).await));
    }
    // A client is at work, so it comes in small pieces, with rests in between.
    cluster.start(ServerId(2));
    cluster.settle(SOON).await;
    tokio::time::sleep(PAUSE).await;
    let two = client(&cluster, 2);
    assert_eq!(two.names(dirs[0]).await.len(), 50);
    for (dir, past) in pasts {
        assert_eq!(one.past(dir).await, past, "a version that nobody made");
    }
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_no_member_has_a_history_of_begins_when_all_of_them_say_so() {
    let mut cluster = Cluster::new(3);
    // As after a crash of all of them between learning of the volume and making its replicas.
    for id in cluster.ids() {
        cluster.stop(id);
        cluster.lose_disk(id);
    }
    cluster.cut_off(3);
    cluster.ids().into_iter().for_each(|id| cluster.start(id));
    tokio::time::sleep(PAUSE).await;
    let (mut one, three) = (client(&cluster, 1), client(&cluster, 3));
    let root = one.root();
    let ask = || request::Body::GetAttr(wire::GetAttr { volume: cluster.home.0, fids: vec![root.into()] });
    assert_eq!(code(one.call(ask()).await), Code::NotJoined, "one member might know more");
    cluster.heal();
    tokio::time::sleep(SOON).await;
    one.mkdir(root, "d").await.unwrap();
    cluster.settle(SOON).await;
    assert_eq!(three.names(root).await, ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_added_joins_and_is_active_then() {
    let mut cluster = Cluster::new(2);
    let mut one = client(&cluster, 1);
    for name in ["a", "b"] {
        let fid = one.create(one.root(), name).await.unwrap();
        one.store(fid, name.as_bytes()).await.unwrap();
    }
    cluster.add_server(3);
    one.who = coda_proto::service::Identity::Admin;
    let add = wire::AddReplica { volume: "home".into(), server: 3, rate: 0 };
    let admin = wire::Admin { body: Some(wire::admin::Body::AddReplica(add)) };
    one.call(request::Body::Admin(admin)).await.unwrap();
    cluster.settle(SOON).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in 1..=3 {
        let realm = cluster.server(id).realm();
        let state = realm.replica_at(cluster.home, ServerId(3)).unwrap().state;
        assert_eq!(state, i32::from(wire::MemberState::MemberActive), "as server {id} knows it");
    }
    assert_eq!(cluster.state(3).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_has_all_members_equal_at_once() {
    let cluster = Cluster::new(3);
    let (mut one, mut two) = (client(&cluster, 1), client(&cluster, 2));
    tokio::time::sleep(SOON).await;
    let root = one.root();
    one.mkdir(root, "one").await.unwrap();
    two.mkdir(root, "two").await.unwrap();
    let resolve = wire::Resolve { fid: Some(root.into()) };
    let Body::Resolved(resolved) = one.call(request::Body::Resolve(resolve)).await.unwrap() else { panic!() };
    assert!(resolved.complete && resolved.changed > 0);
    assert_eq!(cluster.difference().await, None);
    assert_eq!(client(&cluster, 3).names(root).await, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lacks_the_base_of_a_record_asks_the_others_at_once() {
    let cluster = Cluster::new(2);
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    tokio::time::sleep(SOON).await;
    let dir = one.mkdir(one.root(), "d").await.unwrap();
    let (_, op) = create(&mut one, dir, "f");
    let record = one.record(op).await;
    one.apply(std::slice::from_ref(&record)).await.unwrap();
    assert_eq!(code(two.apply(std::slice::from_ref(&record)).await), Code::NeedsResolve);
    cluster.settle(Duration::from_secs(1)).await;
    // Repeated, it is skipped.
    two.apply(&[record]).await.unwrap();
    assert_eq!(cluster.difference().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_meeting_changes_breaks_promises() {
    let cluster = Cluster::new(2);
    let (mut one, mut two) = (client(&cluster, 1), client(&cluster, 2));
    let root = one.root();
    let status = two.status(root).await.unwrap();
    assert!(status.promised);
    one.mkdir(root, "d").await.unwrap();
    let broken = tokio::time::timeout(SOON, two.broken()).await.expect("told by itself");
    assert!(broken.contains(&root));
}

#[tokio::test(start_paused = true)]
async fn a_directory_whose_listing_changes_by_what_happened_elsewhere_gets_a_new_version() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    let root = one.root();
    cluster.cut(1, 2);
    one.remove(root, "f", fid).await.unwrap();
    let removed = one.past(root).await;
    two.store(fid, b"new").await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    assert_eq!(one.names(root).await, ["f"], "it came back");
    assert_ne!(one.past(root).await, removed, "who saw the directory without it can tell");
    assert!(one.status(fid).await.unwrap().marked);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn members_that_are_equal_leave_each_other_alone() {
    let cluster = Cluster::new(3);
    let (mut one, mut two) = (client(&cluster, 1), client(&cluster, 2));
    cluster.cut(1, 2);
    let root = one.root();
    one.mkdir(root, "a").await.unwrap();
    two.mkdir(root, "b").await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    tokio::time::sleep(SOON).await;
    let before = cluster.calls();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(cluster.calls() - before, 0, "calls of members that have nothing to say");
}
