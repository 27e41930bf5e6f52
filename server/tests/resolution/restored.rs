//! A server whose disk is an old copy, and one that was merely away.

use std::time::Duration;

use coda_proto::{
    Acl, Code, Op, Rights, ServerId,
    wire::{self, request},
};
use coda_server::setup;

use crate::{
    PAUSE, SOON, client,
    network::Cluster,
    two_with_a_file,
    world::{Client, code},
};

const TWO: ServerId = ServerId(2);

async fn refuses(client: &mut Client) -> bool {
    let ask = wire::GetAttr { volume: client.volume.0, fids: vec![client.root().into()] };
    let read = client.call(request::Body::GetAttr(ask)).await;
    let fid = client.fresh_directory();
    let op = Op::MakeDir { parent: client.root(), name: b"no".to_vec(), fid, mode: 0o755, owner: 1 };
    let record = coda_proto::Record {
        dot: coda_proto::Dot::new(client.author, 1),
        lamport: 9,
        time: 0,
        changed: 0,
        bases: vec![],
        logged: false,
        host: String::new(),
        op,
    };
    let write = client.apply(&[record]).await;
    let is = |refusal: Option<&coda_proto::Refusal>| refusal.is_some_and(|r| r.code == Code::NotJoined);
    is(read.as_ref().err()) && is(write.as_ref().err())
}

#[tokio::test(start_paused = true)]
async fn a_server_restored_from_an_old_copy_serves_nothing_until_it_has_met_the_others() {
    let (mut cluster, mut one, _, fid) = two_with_a_file().await;
    let root = one.root();
    cluster.settle(SOON).await;
    cluster.stop(TWO);
    let copy = cluster.copy_disk(TWO);
    cluster.start(TWO);
    // What only the later life of its disk knew, and what the other member learned of it.
    let mut two = client(&cluster, 2);
    let lost = two.mkdir(root, "told").await.unwrap();
    tokio::time::sleep(PAUSE).await;
    cluster.settle(SOON).await;
    cluster.stop(TWO);
    one.remove(root, "f", fid).await.unwrap();

    cluster.restore(TWO, copy);
    // The other member asks it, and it cannot ask back.
    cluster.cut_one_way(2, 1);
    cluster.start(TWO);
    let mut two = client(&cluster, 2);
    assert!(!refuses(&mut two).await, "it cannot know yet");
    cluster.ask(1, 2, meet_of(&cluster, 1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(refuses(&mut two).await);
    // Not even a restart makes it forget.
    cluster.stop(TWO);
    cluster.start(TWO);
    let mut two = client(&cluster, 2);
    assert!(refuses(&mut two).await);
    assert!(one.status(fid).await.is_none(), "what the copy still had did not come back");

    cluster.heal();
    cluster.settle(SOON).await;
    let mut two = client(&cluster, 2);
    assert!(!refuses(&mut two).await);
    assert_eq!(two.names(root).await, ["told"]);
    assert!(two.status(lost).await.is_some() && two.status(fid).await.is_none());
    cluster.check_stores();
}

/// What server `id` would ask: as it does by itself, with what it has seen of server 2.
fn meet_of(cluster: &Cluster, id: u8) -> wire::Meet {
    let volume = cluster.server(id).volume(cluster.home).unwrap();
    let (known, row) = volume.read(|view| Ok((view.peer(ServerId(3 - id))?, view.volume_row()?))).unwrap();
    wire::Meet {
        volume: cluster.home.0,
        incarnation: known.incarnation,
        since: known.seen,
        my_incarnation: row.incarnation,
        my_change_seq: row.change_seq,
        met_incarnation: known.incarnation,
        met_seq: known.seen,
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_server_learns_it_from_whom_it_asks() {
    let mut cluster = Cluster::new(2);
    let mut two = client(&cluster, 2);
    let root = two.root();
    cluster.settle(SOON).await;
    cluster.stop(TWO);
    let copy = cluster.copy_disk(TWO);
    cluster.start(TWO);
    two = client(&cluster, 2);
    for name in ["a", "b", "c"] {
        two.mkdir(root, name).await.unwrap();
    }
    cluster.settle(SOON).await;
    cluster.stop(TWO);
    cluster.restore(TWO, copy);
    cluster.start(TWO);
    cluster.settle(SOON).await;
    tokio::time::sleep(PAUSE).await;
    // Who asked it while it knew no better asks again, and not at the next regular meeting.
    assert_eq!(heard(&cluster, 1), held(&cluster, 2));
    let mut two = client(&cluster, 2);
    assert_eq!(two.names(root).await, ["a", "b", "c"]);
    // It goes on as any member.
    two.mkdir(root, "d").await.unwrap();
    cluster.settle(SOON).await;
    cluster.check_stores();
}

/// The run of the other member's store that server `id` has heard, and how far.
fn heard(cluster: &Cluster, id: u8) -> (u64, u64) {
    let known = cluster.server(id).volume(cluster.home).unwrap();
    let known = known.read(|view| Ok(view.peer(ServerId(3 - id))?)).unwrap();
    (known.incarnation, known.seen)
}

/// The run of the store of server `id`, and how far it has come.
fn held(cluster: &Cluster, id: u8) -> (u64, u64) {
    let row = cluster.server(id).volume(cluster.home).unwrap().read(|view| Ok(view.volume_row()?)).unwrap();
    (row.incarnation, row.change_seq)
}

#[tokio::test(start_paused = true)]
async fn a_restored_server_that_has_met_the_others_serves_though_they_cannot_ask_it() {
    let mut cluster = Cluster::new(2);
    let root = client(&cluster, 2).root();
    cluster.settle(SOON).await;
    cluster.stop(TWO);
    let copy = cluster.copy_disk(TWO);
    cluster.start(TWO);
    client(&cluster, 2).mkdir(root, "a").await.unwrap();
    cluster.settle(SOON).await;
    tokio::time::sleep(PAUSE).await;
    cluster.stop(TWO);
    cluster.restore(TWO, copy);
    cluster.cut_one_way(1, 2);
    cluster.start(TWO);
    tokio::time::sleep(SOON).await;
    let mut two = client(&cluster, 2);
    assert_eq!(two.names(root).await, ["a"]);
    // The other remembers the lost run for as long as it cannot ask. That is no news any more.
    for name in ["b", "c"] {
        let resolve = wire::Resolve { fid: Some(root.into()) };
        two.call(request::Body::Resolve(resolve)).await.unwrap();
        assert!(!refuses(&mut two).await);
        two.mkdir(root, name).await.unwrap();
    }
    cluster.heal();
    cluster.settle(SOON).await;
    assert_eq!(client(&cluster, 1).names(root).await, ["a", "b", "c"]);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_made_after_the_copy_is_not_taken_for_a_new_one() {
    const ONE: ServerId = ServerId(1);
    let mut cluster = Cluster::new(3);
    cluster.stop(TWO);
    let copy = cluster.copy_disk(TWO);
    cluster.start(TWO);
    let mut realm = cluster.realm.clone();
    realm.config += 1;
    let later = setup::add_volume_on(&mut realm, "later", &[ONE, TWO], &Acl::root(Rights::ALL));
    realm.volumes.get_mut(&later).unwrap().more.created = 1_700_000_000_000_000_000;
    cluster.pass(Duration::from_secs(60));
    cluster.ids().into_iter().for_each(|id| cluster.server(id.0).adopt(realm.clone()).unwrap());
    let mut one = Client::new(&cluster.server(1), later, 1);
    one.mkdir(one.root(), "kept").await.unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(Client::new(&cluster.server(2), later, 2).names(one.root()).await, ["kept"]);

    // Only a third server is left to tell it of the volume: an empty one would be a wrong answer.
    cluster.stop(ONE);
    cluster.stop(TWO);
    cluster.restore(TWO, copy);
    cluster.start(TWO);
    cluster.server(2).adopt(realm.clone()).unwrap();
    tokio::time::sleep(SOON).await;
    assert!(refuses(&mut Client::new(&cluster.server(2), later, 2)).await);
    cluster.start(ONE);
    tokio::time::sleep(SOON).await;
    assert_eq!(Client::new(&cluster.server(2), later, 2).names(one.root()).await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn when_all_members_are_old_copies_what_they_have_is_what_there_is() {
    let mut cluster = Cluster::new(2);
    let mut one = client(&cluster, 1);
    let root = one.root();
    one.mkdir(root, "old").await.unwrap();
    cluster.settle(SOON).await;
    cluster.ids().into_iter().for_each(|id| cluster.stop(id));
    let copies: Vec<_> = cluster.ids().into_iter().map(|id| (id, cluster.copy_disk(id))).collect();
    cluster.ids().into_iter().for_each(|id| cluster.start(id));
    one = client(&cluster, 1);
    one.mkdir(root, "new").await.unwrap();
    cluster.settle(SOON).await;
    cluster.ids().into_iter().for_each(|id| cluster.stop(id));
    copies.into_iter().for_each(|(id, copy)| cluster.restore(id, copy));
    cluster.ids().into_iter().for_each(|id| cluster.start(id));
    tokio::time::sleep(SOON).await;
    assert_eq!(client(&cluster, 1).names(root).await, ["old"]);
    assert_eq!(client(&cluster, 2).names(root).await, ["old"]);
}

#[tokio::test(start_paused = true)]
async fn the_operator_of_a_restored_server_whose_peers_are_lost_can_accept_what_it_has() {
    let mut cluster = Cluster::new(2);
    let mut two = client(&cluster, 2);
    let root = two.root();
    two.mkdir(root, "old").await.unwrap();
    cluster.settle(SOON).await;
    cluster.stop(TWO);
    let copy = cluster.copy_disk(TWO);
    cluster.start(TWO);
    client(&cluster, 2).mkdir(root, "new").await.unwrap();
    tokio::time::sleep(PAUSE).await;
    cluster.stop(TWO);
    cluster.restore(TWO, copy);
    cluster.cut_one_way(2, 1);
    cluster.start(TWO);
    cluster.ask(1, 2, meet_of(&cluster, 1)).await;
    cluster.stop(ServerId(1));
    tokio::time::sleep(PAUSE).await;
    assert!(refuses(&mut client(&cluster, 2)).await);
    cluster.stop(TWO);
    let accepted = setup::accept(&cluster.dir(TWO), coda_server::Durability::Process, 0).unwrap();
    assert!(accepted.contains(&cluster.home));
    cluster.start(TWO);
    assert_eq!(client(&cluster, 2).names(root).await, ["old"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_meeting_costs_what_changed() {
    let mut cluster = Cluster::new(2);
    let mut one = client(&cluster, 1);
    let root = one.root();
    for index in 0..100 {
        one.mkdir(root, &format!("d{index}")).await.unwrap();
    }
    cluster.settle(SOON).await;
    tokio::time::sleep(PAUSE).await;
    let before = cluster.objects();
    cluster.ids().into_iter().for_each(|id| cluster.stop(id));
    cluster.ids().into_iter().for_each(|id| cluster.start(id));
    client(&cluster, 1).mkdir(root, "new").await.unwrap();
    cluster.settle(SOON).await;
    tokio::time::sleep(PAUSE).await;
    let travelled = cluster.objects() - before;
    assert!((2..10).contains(&travelled), "{travelled} objects travelled for a new directory");
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_record_on_an_unjoined_member_is_refused_for_that_reason() {
    let mut cluster = Cluster::new(2);
    cluster.stop(TWO);
    cluster.lose_disk(TWO);
    cluster.cut_off(2);
    cluster.start(TWO);
    let mut two = client(&cluster, 2);
    assert!(refuses(&mut two).await);
    let upload = two.upload([1; 16], &[1; 40_000], 0, 40_000).await;
    assert_eq!(code(upload), Code::NotJoined);
}
