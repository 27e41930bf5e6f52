//! What every member includes is forgotten, and nothing else.

use std::time::Duration;

use coda_proto::{Code, Fid, Op, Record, ServerId, wire, wire::request};
use coda_server::Limits;

use crate::{
    PAUSE, SOON, client, create, everywhere,
    network::Cluster,
    two_with_a_file,
    world::{Client, code, head, store_inline},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Enough for regular meetings and a round of collection.
const HOURS: Duration = Duration::from_secs(2 * 3600 + 1800);

fn few() -> Limits {
    Limits { tombstones: 32, ..Limits::default() }
}

/// Makes and removes this many files, at all of these clients' servers.
async fn remove_many(one: &mut Client, others: &[&Client], count: usize) -> Vec<(Fid, Record)> {
    let mut gone = Vec::new();
    for index in 0..count {
        let (root, name) = (one.root(), format!("f{index}"));
        let (fid, op) = create(one, root, &name);
        everywhere(one, others, op).await;
        // Somebody keeps a change of it to himself.
        let late = one.record(store_inline(fid, b"late")).await;
        everywhere(one, others, Op::Remove { parent: root, name: name.into(), fid }).await;
        gone.push((fid, late));
    }
    gone
}

#[tokio::test(start_paused = true)]
async fn tombstones_beyond_a_limit_of_32_are_forgotten_oldest_first_and_their_objects_with_them() {
    let cluster = Cluster::limited(2, few());
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    let gone = remove_many(&mut one, &[&two], 100).await;
    let kept = one.mkdir(one.root(), "kept").await.unwrap();
    cluster.settle(SOON).await;
    assert_eq!(cluster.rows(1), (100, 102));
    tokio::time::sleep(HOURS).await;
    for id in [1, 2] {
        assert_eq!(cluster.rows(id), (32, 34), "at server {id}");
    }
    let volume = cluster.server(1).volume(cluster.home).unwrap();
    let knows = |fid| volume.read(|view| Ok(view.past(fid)?)).unwrap().is_some();
    assert!(!knows(gone[0].0) && !knows(gone[67].0) && knows(gone[68].0), "the oldest went first");
    assert_eq!(one.names(one.root()).await, ["kept"]);
    assert_eq!(two.names(one.root()).await, ["kept"]);
    assert!(two.status(kept).await.is_some());
    // Nobody brings back what the other forgot.
    tokio::time::sleep(HOURS).await;
    assert_eq!(cluster.difference().await, None);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_while_a_member_is_behind() {
    let cluster = Cluster::limited(3, few());
    let (mut one, two, three) = (client(&cluster, 1), client(&cluster, 2), client(&cluster, 3));
    let root = one.root();
    let (old, op) = create(&mut one, root, "old");
    everywhere(&mut one, &[&two, &three], op).await;
    cluster.settle(SOON).await;
    cluster.cut_off(3);
    everywhere(&mut one, &[&two], Op::Remove { parent: root, name: b"old".to_vec(), fid: old }).await;
    remove_many(&mut one, &[&two], 60).await;
    tokio::time::sleep(HOURS).await;
    cluster.pass(DAY * 500);
    tokio::time::sleep(HOURS).await;
    assert_eq!((cluster.rows(1).0, cluster.rows(2).0), (61, 61));
    cluster.heal();
    cluster.settle(SOON).await;
    assert!(three.names(one.root()).await.is_empty(), "what was removed did not come back");
    tokio::time::sleep(HOURS).await;
    for id in 1..=3 {
        assert!(cluster.rows(id).0 <= 32, "server {id}: {:?}", cluster.rows(id));
    }
    assert!(three.names(one.root()).await.is_empty());
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_is_kept_for_400_days() {
    let cluster = Cluster::new(2);
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    remove_many(&mut one, &[&two], 3).await;
    tokio::time::sleep(HOURS).await;
    cluster.pass(DAY * 399);
    tokio::time::sleep(HOURS).await;
    assert_eq!(cluster.rows(1), (3, 4));
    cluster.pass(DAY * 2);
    tokio::time::sleep(HOURS).await;
    assert_eq!((cluster.rows(1), cluster.rows(2)), ((0, 1), (0, 1)));
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_record_about_an_object_that_nobody_knows_any_more_is_gone_and_of_a_removed_one_it_is_not() {
    let cluster = Cluster::limited(2, Limits { tombstones: 1, ..Limits::default() });
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    let gone = remove_many(&mut one, &[&two], 2).await;
    tokio::time::sleep(HOURS).await;
    assert_eq!(cluster.rows(1), (1, 2));
    let ((forgotten, late), (removed, later)) = (gone[0].clone(), gone[1].clone());
    assert_eq!(one.apply(std::slice::from_ref(&late)).await.unwrap_err().code, Code::Gone);
    let refusal = two.apply(&[late]).await.unwrap_err();
    assert_eq!((refusal.code, refusal.blame), (Code::Gone, Some(forgotten)));
    // The other was changed here and removed there, which its tombstone says.
    one.author = later.dot.author;
    let fresh = Record { dot: coda_proto::Dot::new(coda_proto::Author(99), 1), ..later };
    one.apply(&[fresh]).await.unwrap();
    assert!(one.status(removed).await.unwrap().marked);
    cluster.settle(SOON).await;
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn nobody_says_gone_while_a_member_that_might_know_cannot_be_asked() {
    let mut cluster = Cluster::new(2);
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    tokio::time::sleep(SOON).await;
    cluster.cut(1, 2);
    let dir = one.mkdir(one.root(), "d").await.unwrap();
    let (fid, op) = create(&mut one, dir, "f");
    let record = one.record(op).await;
    assert_eq!(code(two.apply(std::slice::from_ref(&record)).await), Code::NeedsResolve);
    cluster.stop(ServerId(1));
    assert_eq!(code(two.apply(std::slice::from_ref(&record)).await), Code::NeedsResolve);
    cluster.heal();
    cluster.start(ServerId(1));
    tokio::time::sleep(PAUSE).await;
    two.apply(&[record]).await.unwrap();
    assert!(two.status(fid).await.is_some());
}

/// Tells these clients' servers that every member holds the last mutation of `by`.
async fn say_that_all_hold_the_last(by: &Client, clients: &[&Client]) {
    let dots = vec![coda_proto::Dot::new(by.author, by.seq).into()];
    let cop2 = wire::Cop2 { volume: by.volume.0, epoch: 1, dots };
    let body = Some(request::Body::Cop2Only(wire::Cop2Only {}));
    for client in clients {
        let request =
            wire::Request { session: client.session, cop2: vec![cop2.clone()], bulk: 0, body: body.clone() };
        coda_proto::service::Service::call(&*client.server, client.who, request, Default::default()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_by_a_store_shows_no_contents_that_were_removed() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    let root = one.root();
    // Somebody writes it apart, and sends that after it was written, removed, and forgotten here.
    let late = Record { logged: true, ..two.record(store_inline(fid, b"apart")).await };
    everywhere(&mut one, &[&two], store_inline(fid, b"removed")).await;
    everywhere(&mut one, &[&two], Op::Remove { parent: root, name: b"f".to_vec(), fid }).await;
    say_that_all_hold_the_last(&one, &[&one, &two]).await;
    one.apply(std::slice::from_ref(&late)).await.unwrap();
    cluster.settle(SOON).await;
    for client in [&one, &two] {
        let status = client.status(fid).await.unwrap();
        assert!(status.marked && !status.in_conflict(), "{:?}", status.siblings);
        assert_eq!(status.siblings.iter().map(|sibling| sibling.dot).collect::<Vec<_>>(), [late.dot]);
        assert_eq!(&client.fetch(fid, 0, 100).await.unwrap()[..], b"apart");
    }
    // Whoever writes it now replaces both.
    everywhere(&mut one, &[&two], store_inline(fid, b"later")).await;
    assert_eq!(head(&two.server, fid).unwrap().siblings.len(), 1);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_by_a_name_given_apart_has_what_it_held() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    let root = one.root();
    everywhere(&mut one, &[&two], store_inline(fid, b"wanted")).await;
    // Somebody renames it apart, and sends that after it was removed everywhere.
    let rename = Op::Rename {
        from: root,
        from_name: b"f".to_vec(),
        to: root,
        to_name: b"g".to_vec(),
        fid,
        replaced: None,
    };
    let late = Record { logged: true, ..two.record(rename).await };
    everywhere(&mut one, &[&two], Op::Remove { parent: root, name: b"f".to_vec(), fid }).await;
    say_that_all_hold_the_last(&one, &[&one, &two]).await;
    one.apply(std::slice::from_ref(&late)).await.unwrap();
    cluster.settle(SOON).await;
    for client in [&one, &two] {
        assert_eq!(client.names(root).await, ["g"]);
        assert_eq!(&client.fetch(fid, 0, 100).await.unwrap()[..], b"wanted");
    }
    // It is no removed file any more, however much is removed after it.
    let volume = cluster.server(1).volume(cluster.home).unwrap();
    assert!(!volume.write(|txn| Ok(txn.thin_remains(true)?), |_| {}).await.unwrap());
    assert_eq!(&one.fetch(fid, 0, 100).await.unwrap()[..], b"wanted");
    assert_eq!(volume.read(|view| Ok(view.remaining()?)).unwrap(), 0);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn what_removed_files_held_goes_where_the_disk_is_full() {
    let (cluster, mut one, two, fid) = two_with_a_file().await;
    let root = one.root();
    everywhere(&mut one, &[&two], store_inline(fid, b"removed")).await;
    everywhere(&mut one, &[&two], Op::Remove { parent: root, name: b"f".to_vec(), fid }).await;
    say_that_all_hold_the_last(&one, &[&one, &two]).await;
    cluster.settle(SOON).await;
    let volume = cluster.server(1).volume(cluster.home).unwrap();
    let remaining = || volume.read(|view| Ok(view.remaining()?)).unwrap();
    let bytes = vec![7; 200_000];
    one.upload([3; 16], &bytes, 0, 100_000).await.unwrap();
    assert_eq!(remaining(), 7);
    volume.store().set_full(true).unwrap();
    let full = one.upload([3; 16], &bytes, 100_000, 100_000).await.unwrap_err();
    assert_eq!(full.code, coda_proto::Code::NoSpace);
    assert_eq!(remaining(), 0);
    volume.store().set_full(false).unwrap();
    assert!(one.upload([3; 16], &bytes, 100_000, 100_000).await.unwrap().complete);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_a_client_says_all_members_hold_needs_no_meeting_to_be_forgotten() {
    let cluster = Cluster::limited(2, Limits { tombstones: 0, ..Limits::default() });
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    tokio::time::sleep(SOON).await;
    let gone = remove_many(&mut one, &[&two], 1).await;
    say_that_all_hold_the_last(&one, &[&one, &two]).await;
    cluster.cut(1, 2);
    tokio::time::sleep(HOURS).await;
    let volume = cluster.server(1).volume(cluster.home).unwrap();
    assert!(volume.read(|view| Ok(view.past(gone[0].0)?)).unwrap().is_none());
    assert_eq!(cluster.rows(1).0, 0);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_forgotten_after_what_was_removed_from_it() {
    let cluster = Cluster::limited(2, Limits { tombstones: 0, ..Limits::default() });
    let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
    let dir = one.fresh_directory();
    let root = one.root();
    let make = Op::MakeDir { parent: root, name: b"d".to_vec(), fid: dir, mode: 0o755, owner: 1 };
    everywhere(&mut one, &[&two], make).await;
    let (fid, op) = create(&mut one, dir, "f");
    everywhere(&mut one, &[&two], op).await;
    let rename = Op::Rename {
        from: dir,
        from_name: b"f".to_vec(),
        to: root,
        to_name: b"g".to_vec(),
        fid,
        replaced: None,
    };
    everywhere(&mut one, &[&two], rename).await;
    everywhere(&mut one, &[&two], Op::RemoveDir { parent: root, name: b"d".to_vec(), fid: dir }).await;
    tokio::time::sleep(HOURS).await;
    assert_eq!((cluster.rows(1), cluster.rows(2)), ((0, 2), (0, 2)));
    assert_eq!(one.names(root).await, ["g"]);
    everywhere(&mut one, &[&two], store_inline(fid, b"lives")).await;
    cluster.settle(SOON).await;
    cluster.check_stores();
}
