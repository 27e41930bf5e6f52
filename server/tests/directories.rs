//! Large directories: many entries, pages, order.

mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use coda_proto::{
    Author, Dot, Fid, Kind, Rights,
    merge::{Binding, Head, Replica},
    wire::{self, request, response::Body},
};
use coda_server::store::Txn;
use world::{Client, Place, assert_sound, store_inline};

#[tokio::test]
async fn a_hundred_thousand_entries_are_listed_in_pages() {
    const ENTRIES: u32 = 100_000;
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let root = a.root();
    a.create(root, "first").await.unwrap();
    // As rows: a hundred thousand calls would test the patience.
    let (volume, author) = (server.volume(place.home).unwrap(), Author(4242));
    for chunk in 0..10 {
        let fill = move |txn: &mut Txn<'_>| {
            for count in chunk * ENTRIES / 10..(chunk + 1) * ENTRIES / 10 {
                let (fid, dot) = (Fid::file(root.volume, author, count + 1), Dot::new(author, 1));
                let mut head = Head::runt(fid, Kind::File);
                head.past.add(dot);
                txn.put_head(head)?;
                // In an order that is not the names'.
                let name = format!("n{:06}", count.wrapping_mul(7919) % ENTRIES).into_bytes();
                let dots = BTreeMap::from([(dot, 1)]);
                txn.put_binding(Binding {
                    dir: root,
                    name,
                    fid,
                    origin: dot,
                    dots,
                    derived: false,
                    shown: true,
                })?;
            }
            Ok(())
        };
        volume.write(fill, |_| {}).await.unwrap();
    }
    let names = a.names(root).await;
    assert_eq!(names.len(), ENTRIES as usize + 1);
    assert!(names.is_sorted());
    assert_eq!(a.list(root, 333).await.len(), ENTRIES as usize + 1);
    let status = a.status(root).await.unwrap();
    assert_eq!((status.length, status.nlink), (u64::from(ENTRIES) + 1, 2));
    a.create(root, "last").await.unwrap();
    server.stop();
    place.open().stop();
    assert_sound(&place);
}

#[tokio::test]
async fn many_small_files_are_fetched_at_once_as_far_as_they_fit() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let mut files = Vec::new();
    for count in 0..10u8 {
        let file = a.create(a.root(), &format!("f{count}")).await.unwrap();
        a.run(store_inline(file, &[count; 1000])).await.unwrap();
        files.push(file);
    }
    let fetch = wire::FetchMany {
        volume: place.home.0,
        fids: files.iter().map(|fid| (*fid).into()).collect(),
        at_most: 4500,
    };
    let (body, bulk) = a.call_with(request::Body::FetchMany(fetch), Bytes::new()).await.unwrap();
    match body {
        Body::FetchedMany(fetched) => {
            assert_eq!(fetched.statuses.len(), 10);
            assert_eq!(fetched.contents.iter().filter(|there| **there).count(), 4);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bulk.len(), 4000);
    assert_eq!((bulk[0], bulk[3999]), (0, 3));
}
