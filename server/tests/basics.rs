//! What one client sees of one server.

mod world;

use coda_proto::{
    Code, Fid, Rights,
    wire::{self, request, response::Body},
};
use world::{Client, Place, assert_sound, code, store_uploaded};

#[tokio::test]
async fn what_was_stored_is_fetched_also_after_a_restart() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut client = Client::new(&server, place.home, 1);
    let dir = client.mkdir(client.root(), "docs").await.unwrap();
    let file = client.create(dir, "a").await.unwrap();
    client.store(file, b"hello world").await.unwrap();
    assert_eq!(client.fetch(file, 6, 100).await.unwrap(), "world");
    assert_eq!(client.names(client.root()).await, ["docs"]);
    let before = client.status(file).await.unwrap();
    assert_eq!((before.length, before.nlink, before.parent, before.mode), (11, 1, dir, 0o644));
    server.stop();
    assert_sound(&place);

    let server = place.open();
    let client = Client::new(&server, place.home, 1);
    assert_eq!(client.fetch(file, 0, 100).await.unwrap(), "hello world");
    assert_eq!(client.status(file).await.unwrap(), before);
}

#[tokio::test]
async fn the_root_volume_mounts_home() {
    let place = Place::new(Rights::ALL);
    let client = Client::new(&place.open(), place.root, 1);
    let entries = client.list(client.root(), 10).await;
    let link = Fid::try_from(entries[0].fid.unwrap()).unwrap();
    let status = client.status(link).await.unwrap();
    assert_eq!((&entries[0].name[..], &status.target[..]), (&b"home"[..], &b"#home."[..]));
    assert_eq!(status.mode, 0o644);
}

#[tokio::test]
async fn a_second_server_on_one_store_is_refused() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let second = coda_server::Server::open(place.config(), world::env());
    assert!(second.err().unwrap().to_string().contains("another server is using this store"));
    server.stop();
    place.open();
}

#[tokio::test]
async fn a_lost_replica_serves_nothing_until_its_operator_accepts_what_is_there() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let member = server.realm().replica_at(place.home, server.id()).unwrap().replica;
    server.stop();
    std::fs::remove_dir_all(coda_server::store::replica_dir(&place.path(), member)).unwrap();
    let server = place.open();
    let a = Client::new(&server, place.home, 1);
    assert_eq!(code(a.fetch(a.root(), 0, 0).await), Code::NotJoined);
    // The other volume is served as ever.
    let b = Client::new(&server, place.root, 2);
    assert_eq!(b.names(b.root()).await, ["home"]);
    server.stop();
    let accepted = coda_server::setup::accept(&place.path(), coda_server::Durability::Process, 0);
    assert_eq!(accepted.unwrap(), [place.home]);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    a.mkdir(a.root(), "d").await.unwrap();
    server.stop();
    assert_sound(&place);
}

#[tokio::test]
async fn a_large_file_is_uploaded_in_pieces_and_goes_on_after_a_restart() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut client = Client::new(&server, place.home, 1);
    let file = client.create(client.root(), "big").await.unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
    let handle = [9; 16];
    assert_eq!(client.upload(handle, &bytes, 0, 100_000).await.unwrap().held, 100_000);
    server.stop();

    let server = place.open();
    let mut again = Client::new(&server, place.home, 1);
    let held = again.upload(handle, &bytes, 0, 0).await.unwrap();
    assert_eq!((held.held, held.complete), (100_000, false));
    // A piece from elsewhere is not taken.
    assert_eq!(again.upload(handle, &bytes, 200_000, 10).await.unwrap().held, 100_000);
    let stranger = Client::new(&server, place.home, 2);
    assert_eq!(code(stranger.upload(handle, &bytes, 0, 0).await), Code::Upload);
    assert!(again.upload(handle, &bytes, 100_000, 200_000).await.unwrap().complete);
    again.run(store_uploaded(file, &bytes, handle)).await.unwrap();
    assert_eq!(again.fetch(file, 299_990, 100).await.unwrap(), bytes[299_990..]);
    // The handle is used up.
    assert_eq!(code(again.run(store_uploaded(file, &bytes, handle)).await), Code::Upload);
    server.stop();
    assert_sound(&place);
}

#[tokio::test]
async fn a_hole_is_uploaded_and_fetched_without_its_zeros() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut client = Client::new(&server, place.home, 1);
    let file = client.create(client.root(), "sparse").await.unwrap();
    let bytes = [vec![7; 4096], vec![0; 1 << 20]].concat();
    let piece = |offset, zeros| wire::Upload {
        volume: place.home.0,
        handle: vec![9; 16].into(),
        directory: Some(client.root().into()),
        offset,
        length: bytes.len() as u64,
        hash: blake3::hash(&bytes).as_bytes().to_vec().into(),
        zeros,
    };
    let ask = |upload, bulk: &[u8]| {
        client.call_with(request::Body::Upload(upload), bytes::Bytes::copy_from_slice(bulk))
    };
    assert_eq!(code(ask(piece(0, 1), b"and bytes").await), Code::Invalid);
    assert_eq!(code(ask(piece(0, 1 << 40), b"").await), Code::Invalid);
    ask(piece(0, 0), &bytes[..4096]).await.unwrap();
    match ask(piece(4096, 1 << 20), b"").await.unwrap().0 {
        Body::Uploaded(uploaded) => assert!(uploaded.complete),
        other => panic!("{other:?}"),
    }
    client.run(store_uploaded(file, &bytes, [9; 16])).await.unwrap();
    let fetch = |offset, length, holes| {
        let fetch = wire::Fetch { fid: Some(file.into()), offset, length, holes, ..Default::default() };
        client.call_with(request::Body::Fetch(fetch), bytes::Bytes::new())
    };
    let zeros = |body| match body {
        Body::Fetched(fetched) => fetched.zeros,
        other => panic!("{other:?}"),
    };
    let (body, bulk) = fetch(4096, 1 << 20, true).await.unwrap();
    assert_eq!((zeros(body), bulk.len()), (1 << 20, 0));
    let (body, bulk) = fetch(0, 8192, true).await.unwrap();
    assert_eq!((zeros(body), &bulk[..]), (0, &bytes[..8192]));
    // Whoever does not know holes gets the zeros.
    let (body, bulk) = fetch(4096, 8192, false).await.unwrap();
    assert_eq!((zeros(body), &bulk[..]), (0, &[0; 8192][..]));
}
