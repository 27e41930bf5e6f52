//! What is refused, with which code, and that nothing changes then.

mod world;

use coda_proto::{
    Acl, Base, Code, Fid, Op, Record, Rights,
    acl::ANYUSER,
    service::Identity,
    wire::{self, request, response::Body},
};
use world::{Client, Place, assert_sound, code, store_inline};

#[tokio::test]
async fn one_bad_record_undoes_the_whole_call_and_is_named() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let root = a.root();
    let (one, two) = (a.fresh_file(), a.fresh_file());
    let create = |fid, name: &str| Op::Create { parent: root, name: name.into(), fid, mode: 0o644, owner: 1 };
    let first = a.record(create(one, "one")).await;
    let mut second = a.record(create(two, "one")).await;
    let mut base = second.bases[0].past.clone();
    base.add(first.dot);
    second.bases = vec![Base { fid: root, past: base }];
    second.lamport = first.lamport + 1;
    let refusal = a.apply(&[first.clone(), second]).await.unwrap_err();
    assert_eq!((refusal.code, refusal.index), (Code::Exists, 1));
    assert!(a.names(root).await.is_empty());
    a.apply(std::slice::from_ref(&first)).await.unwrap();
    // Said twice, it is done once.
    a.apply(&[first]).await.unwrap();
    assert_eq!(a.names(root).await, ["one"]);
    server.stop();
    assert_sound(&place);
}

#[tokio::test]
async fn a_member_that_lacks_the_base_says_so() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let file = a.create(a.root(), "f").await.unwrap();
    let mut record = a.record(store_inline(file, b"x")).await;
    let elsewhere = coda_proto::Dot::new(coda_proto::Author(77), 3);
    record.bases[0].past.add(elsewhere);
    assert_eq!(code(a.apply(&[record]).await), Code::NeedsResolve);
}

#[tokio::test]
async fn names_kinds_and_loops_are_checked() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let root = a.root();
    let dir = a.mkdir(root, "d").await.unwrap();
    let inner = a.mkdir(dir, "inner").await.unwrap();
    let file = a.create(root, "f").await.unwrap();
    assert_eq!(code(a.create(root, "..").await), Code::Name);
    assert_eq!(code(a.create(root, "a/b").await), Code::Name);
    assert_eq!(code(a.create(root, "f").await), Code::Exists);
    assert_eq!(
        code(a.run(Op::RemoveDir { parent: root, name: b"d".to_vec(), fid: dir }).await),
        Code::NotEmpty
    );
    assert_eq!(code(a.remove(root, "d", dir).await), Code::IsDirectory);
    assert_eq!(
        code(a.run(Op::Link { parent: dir, name: b"l".to_vec(), fid: file }).await),
        Code::CrossDirectory
    );
    let below_itself = Op::Rename {
        from: root,
        from_name: b"d".to_vec(),
        to: inner,
        to_name: b"d".to_vec(),
        fid: dir,
        replaced: None,
    };
    assert_eq!(code(a.run(below_itself).await), Code::Loop);
    a.remove(root, "f", file).await.unwrap();
    assert!(a.status(file).await.is_none());
    assert_eq!(code(a.fetch(file, 0, 1).await), Code::Gone);
}

#[tokio::test]
async fn rights_are_those_of_the_directory_at_each_call() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    a.attend();
    let root = a.root();
    let file = a.create(root, "f").await.unwrap();
    a.store(file, b"secret").await.unwrap();
    let mut acl = Acl::root(Rights(Rights::LOOKUP.0 | Rights::INSERT.0));
    acl.negative.insert(ANYUSER.into(), Rights::WRITE);
    let mut admin = Client::admin(&server, place.home);
    admin.attend();
    admin.run(Op::SetAcl { fid: root, acl: acl.clone() }).await.unwrap();
    assert_eq!(code(a.fetch(file, 0, 10).await), Code::Access);
    assert_eq!(code(a.store(file, b"x").await), Code::Access);
    assert_eq!(code(a.remove(root, "f", file).await), Code::Access);
    assert_eq!(code(a.run(Op::SetAcl { fid: root, acl: Acl::root(Rights::ALL) }).await), Code::Access);
    // Who may insert may fill what nobody has filled.
    let fresh = a.create(root, "new").await.unwrap();
    a.store(fresh, b"mine").await.unwrap();
    assert_eq!(code(a.store(fresh, b"again").await), Code::Access);
    assert_eq!(admin.fetch(file, 0, 10).await.unwrap(), "secret");
    let status = a.status(file).await.unwrap();
    assert_eq!(status.my_rights, Rights(Rights::LOOKUP.0 | Rights::INSERT.0));
    match a.call(request::Body::GetAcl(wire::GetAcl { fid: Some(root.into()) })).await.unwrap() {
        Body::Acl(answer) => assert_eq!(Acl::try_from(answer.acl.unwrap()).unwrap(), acl),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn mount_points_need_the_right_to_administer() {
    let place = Place::new(Rights(Rights::ALL.0 & !Rights::ADMINISTER.0));
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let link = |fid, target: &str, mode| Op::Symlink {
        parent: Fid::root(place.home),
        name: target.trim_matches(['#', '.']).into(),
        fid,
        target: target.into(),
        mode,
        owner: 1,
    };
    let (one, two) = (a.fresh_file(), a.fresh_file());
    assert_eq!(code(a.run(link(one, "#other.", 0o644)).await), Code::Access);
    a.run(link(two, "plain", 0o777)).await.unwrap();
}

#[tokio::test]
async fn a_volume_may_overshoot_its_quota_once() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let root = a.root();
    let file = a.create(root, "f").await.unwrap();
    a.run(Op::SetQuota { fid: root, min: None, max: Some(10) }).await.unwrap();
    a.store(file, &[1; 20_000]).await.unwrap();
    assert_eq!(code(a.store(file, &[1; 30_000]).await), Code::Quota);
    assert_eq!(code(a.create(root, "g").await), Code::Quota);
    assert_eq!(code(a.upload([1; 16], &[2; 40_000], 0, 40_000).await), Code::Quota);
    // What shrinks is welcome.
    a.store(file, &[1; 100]).await.unwrap();
    a.create(root, "g").await.unwrap();
    match a
        .call(request::Body::GetVolumeStatus(wire::GetVolumeStatus { volume: place.home.0 }))
        .await
        .unwrap()
    {
        // The root directory, a file of one block, an empty file.
        Body::VolumeStatus(status) => assert_eq!((status.blocks_used, status.quota_max), (4, 10)),
        other => panic!("{other:?}"),
    }
    server.stop();
    assert_sound(&place);
}

#[tokio::test]
async fn an_old_epoch_is_refused_with_the_new_group() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    a.epoch = 0;
    let refusal = a.create(a.root(), "f").await.unwrap_err();
    assert_eq!((refusal.code, refusal.info.unwrap().epoch), (Code::StaleEpoch, 1));
    a.epoch = 2;
    assert_eq!(code(a.create(a.root(), "f").await), Code::Busy);
}

#[tokio::test]
async fn limits_and_malformed_requests_are_refused() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    assert_eq!(code(a.apply(&[]).await), Code::TooBig);
    let file = a.create(a.root(), "f").await.unwrap();
    let record = a.record(store_inline(file, b"x")).await;
    let many: Vec<Record> = vec![record.clone(); 1001];
    assert_eq!(code(a.apply(&many).await), Code::TooBig);
    let lie = Op::Store {
        fid: file,
        length: 1,
        hash: [0; 32],
        mtime: 1,
        contents: coda_proto::Contents::Inline("x".into()),
        mode: None,
    };
    assert_eq!(code(a.run(lie).await), Code::Upload);
    let elsewhere = Fid { volume: place.root, ..file };
    let strange = Record { op: store_inline(elsewhere, b"x"), ..record };
    assert_eq!(code(a.apply(&[strange]).await), Code::Invalid);
    let none = wire::Request { session: a.session, ..Default::default() };
    let (response, _) =
        coda_proto::service::Service::call(&*server, Identity::Client, none, bytes::Bytes::new()).await;
    assert!(matches!(response.body, Some(Body::Refusal(refusal)) if refusal.code() == Code::Unsupported));
}

#[tokio::test]
async fn an_upload_whose_bytes_are_wrong_starts_again() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let a = Client::new(&server, place.home, 1);
    let bytes = vec![5u8; 50_000];
    let upload = |bulk: Vec<u8>| {
        let upload = wire::Upload {
            volume: place.home.0,
            handle: vec![3; 16].into(),
            directory: Some(a.root().into()),
            offset: 0,
            length: 50_000,
            hash: blake3::hash(&bytes).as_bytes().to_vec().into(),
            zeros: 0,
        };
        a.call_with(request::Body::Upload(upload), bulk.into())
    };
    assert_eq!(code(upload(vec![6; 50_000]).await), Code::Upload);
    match upload(bytes.clone()).await.unwrap().0 {
        Body::Uploaded(uploaded) => assert!(uploaded.complete),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        code(a.upload([4; 16], &[1; 10], 20, 10).await.and_then(|uploaded| {
            match uploaded.held {
                0 => Err(coda_proto::Refusal::new(Code::Upload, "nothing was held, and nothing was taken")),
                _ => Ok(uploaded),
            }
        })),
        Code::Upload
    );
}

#[tokio::test]
async fn administration_needs_the_admin_key() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let a = Client::new(&server, place.home, 1);
    let list = || {
        request::Body::Admin(wire::Admin { body: Some(wire::admin::Body::ListVolumes(wire::ListVolumes {})) })
    };
    assert_eq!(code(a.call(list()).await), Code::Access);
    let admin = Client::admin(&server, place.home);
    match admin.call(list()).await.unwrap() {
        Body::Admin(answer) => assert_eq!(answer.volumes.len(), 2),
        other => panic!("{other:?}"),
    }
}
