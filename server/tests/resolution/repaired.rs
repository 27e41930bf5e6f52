//! Repair: what people decided is applied whole, and only where it leaves nothing to decide.

use coda_proto::{
    Acl, Code, Op, Record, Refusal, Rights,
    wire::{self, request, response::Body},
};

use crate::{
    SOON, client, everywhere,
    network::Cluster,
    two_with_a_file,
    world::{Client, code, store_inline},
};

/// Sends a repair to one member.
async fn repair(client: &Client, fid: coda_proto::Fid, records: &[Record]) -> Result<wire::Applied, Refusal> {
    let records = records.iter().map(Into::into).collect();
    let apply = Some(wire::Apply { volume: client.volume.0, epoch: client.epoch, records });
    let repair = wire::Repair { fid: Some(fid.into()), apply };
    match client.call(request::Body::Repair(repair)).await? {
        Body::Applied(applied) => Ok(applied),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_versions_the_one_that_people_choose_is_left_at_every_member() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    let early = one.record(store_inline(fid, b"chosen")).await;
    assert_eq!(code(repair(&one, fid, &[early]).await), Code::Invalid, "there is nothing to repair");
    cluster.cut(1, 2);
    two.store(fid, b"two").await.unwrap();
    one.store(fid, b"one").await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    assert!(one.status(fid).await.unwrap().in_conflict());
    // Attributes alone decide nothing, and nothing of what is refused stays.
    let op = Op::SetAttr { fid, mode: Some(0o600), owner: None, group: None, mtime: None, atime: None };
    let beside = one.record(op).await;
    let refused = repair(&one, fid, &[beside]).await.unwrap_err();
    assert!(refused.detail.contains("2 versions"), "{refused}");
    assert_ne!(one.status(fid).await.unwrap().mode, 0o600);
    let record = one.record(store_inline(fid, b"chosen")).await;
    repair(&one, fid, std::slice::from_ref(&record)).await.unwrap();
    repair(&two, fid, std::slice::from_ref(&record)).await.unwrap();
    // Its answer may have been lost.
    repair(&two, fid, &[record]).await.unwrap();
    assert_eq!(cluster.difference().await, None);
    for client in [&one, &two] {
        assert_eq!(&client.fetch(fid, 0, 100).await.unwrap()[..], b"chosen");
        assert!(!client.status(fid).await.unwrap().in_conflict());
    }
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn a_directory_with_two_objects_of_one_name_and_two_lists_is_repaired_in_one_step() {
    let cluster = Cluster::new(2);
    let (mut one, mut two) = (client(&cluster, 1), client(&cluster, 2));
    let root = one.root();
    let dir = one.fresh_directory();
    let make = Op::MakeDir { parent: root, name: b"d".to_vec(), fid: dir, mode: 0o755, owner: 1 };
    everywhere(&mut one, &[&two], make).await;
    cluster.cut(1, 2);
    let theirs = two.create(dir, "new").await.unwrap();
    let mine = one.create(dir, "new").await.unwrap();
    let list = |rights| Acl { positive: [("System:AnyUser".to_owned(), rights)].into(), ..Acl::default() };
    one.run(Op::SetAcl { fid: dir, acl: list(Rights::ALL) }).await.unwrap();
    two.run(Op::SetAcl { fid: dir, acl: list(Rights(Rights::ALL.0 & !1)) }).await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    assert!(one.status(dir).await.unwrap().marked);
    let rename = |from: &str, to: &str, fid| Op::Rename {
        from: dir,
        from_name: from.into(),
        to: dir,
        to_name: to.into(),
        fid,
        replaced: None,
    };
    let set_list = one.record(Op::SetAcl { fid: dir, acl: list(Rights::ALL) }).await;
    let half = repair(&one, dir, std::slice::from_ref(&set_list)).await.unwrap_err();
    assert!(half.detail.contains("several objects named"), "{half}");
    let mut moved = one.record(rename("new", "theirs", theirs)).await;
    // It follows the list in one call.
    moved.bases.iter_mut().filter(|base| base.fid == dir).for_each(|base| base.past.add(set_list.dot));
    moved.lamport += 1;
    let records = [set_list, moved];
    repair(&one, dir, &records).await.unwrap();
    repair(&two, dir, &records).await.unwrap();
    assert_eq!(cluster.difference().await, None);
    let names = two.list(dir, 10).await.into_iter().map(|entry| (entry.name, entry.fid.unwrap().unique));
    assert_eq!(names.collect::<Vec<_>>(), [("new".into(), mine.unique), ("theirs".into(), theirs.unique)]);
    assert!(!two.status(dir).await.unwrap().marked);
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn what_came_back_is_repaired_by_giving_it_a_place_or_removing_it() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    let root = one.root();
    cluster.cut(1, 2);
    one.remove(root, "f", fid).await.unwrap();
    two.store(fid, b"new").await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    assert!(one.status(fid).await.unwrap().marked);
    let rename = Op::Rename {
        from: root,
        from_name: b"f".to_vec(),
        to: root,
        to_name: b"kept".to_vec(),
        fid,
        replaced: None,
    };
    let record = one.record(rename).await;
    for client in [&one, &two] {
        repair(client, fid, std::slice::from_ref(&record)).await.unwrap();
        assert_eq!(client.names(root).await, ["kept"]);
        assert!(!client.status(fid).await.unwrap().marked);
    }
    cluster.settle(SOON).await;
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_written_at_both_sides_are_no_conflict() {
    let (cluster, mut one, mut two, fid) = two_with_a_file().await;
    cluster.cut(1, 2);
    one.store(fid, b"same").await.unwrap();
    two.store(fid, b"same").await.unwrap();
    cluster.heal();
    cluster.settle(SOON).await;
    let status = one.status(fid).await.unwrap();
    assert_eq!(status.siblings.len(), 2);
    assert!(!status.in_conflict() && !status.marked);
    let record = one.record(store_inline(fid, b"next")).await;
    assert_eq!(code(repair(&one, fid, std::slice::from_ref(&record)).await), Code::Invalid);
    one.apply(&[record]).await.unwrap();
    assert_eq!(one.status(fid).await.unwrap().siblings.len(), 1);
    cluster.settle(SOON).await;
    cluster.check_stores();
}
