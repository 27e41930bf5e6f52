//! A server that dies at each named point: what it had answered is there, and its store is sound.

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use coda_proto::{Fid, Rights};
use coda_server::{CrashHook, CrashPoint};
use world::{Client, Place, assert_sound, store_uploaded};

/// Dies when `point` is reached for the `nth` time.
fn dies_at(point: CrashPoint, nth: u32) -> CrashHook {
    let met = AtomicU32::new(0);
    CrashHook(Arc::new(move |here| here == point && met.fetch_add(1, Ordering::SeqCst) + 1 >= nth))
}

/// Writes until the server dies; answers the files whose stores were answered, with their contents.
async fn write_until_death(a: &mut Client) -> Vec<(Fid, Vec<u8>)> {
    let mut answered: Vec<(Fid, Vec<u8>)> = Vec::new();
    for round in 0..12u8 {
        let Ok(file) = a.create(a.root(), &format!("f{round}")).await else { return answered };
        answered.push((file, Vec::new()));
        for (again, size) in [(0u8, 100usize), (1, 60_000), (2, 70_000)] {
            let bytes = vec![round * 3 + again; size];
            let handle = [round * 3 + again + 1; 16];
            let stored = match size > coda_proto::INLINE_LIMIT {
                true => match a.upload(handle, &bytes, 0, size).await {
                    Ok(_) => a.run(store_uploaded(file, &bytes, handle)).await,
                    Err(refusal) => Err(refusal),
                },
                false => a.store(file, &bytes).await,
            };
            match stored {
                Ok(_) => answered.last_mut().unwrap().1 = bytes,
                Err(_) => return answered,
            }
        }
    }
    panic!("the server was to die");
}

#[tokio::test]
async fn whatever_was_answered_before_a_crash_is_there_after_it() {
    for point in CrashPoint::ALL {
        for nth in 1..=9 {
            let place = Place::new(Rights::ALL);
            let server = place.open_with(dies_at(point, nth));
            let mut a = Client::new(&server, place.home, 1);
            let answered = write_until_death(&mut a).await;
            server.stop();
            drop(a);
            let server = place.open();
            let b = Client::new(&server, place.home, 2);
            for (file, bytes) in &answered {
                let held = b.fetch(*file, 0, 100_000).await.unwrap();
                // The last store may have been committed without an answer.
                let last = answered.last().is_some_and(|(last, _)| last == file);
                assert!(held == *bytes || last, "{point:?} {nth}: {file}");
                assert!(b.status(*file).await.is_some());
            }
            server.stop();
            let findings = coda_server::store::fsck::check(&place.path()).unwrap();
            assert!(findings.is_empty(), "{point:?} {nth}: {findings:#?}");
        }
    }
}

#[tokio::test]
async fn a_mutation_whose_answer_was_lost_in_a_crash_is_done_once_when_retried() {
    for point in [CrashPoint::BeforeCommit, CrashPoint::BeforeReply] {
        let place = Place::new(Rights::ALL);
        let server = place.open_with(dies_at(point, 1));
        let mut a = Client::new(&server, place.home, 1);
        let fid = a.fresh_file();
        let parent = a.root();
        let create = coda_proto::Op::Create { parent, name: b"f".to_vec(), fid, mode: 0o644, owner: 1 };
        let record = a.record(create).await;
        a.apply(std::slice::from_ref(&record)).await.unwrap_err();
        server.stop();
        let server = place.open();
        let committed = Client::new(&server, place.home, 2).names(parent).await.len();
        assert_eq!(committed, usize::from(point == CrashPoint::BeforeReply));
        let a = Client { server: server.clone(), ..a };
        let mut again = Client::new(&server, place.home, 1);
        again.author = a.author;
        again.apply(&[record]).await.unwrap();
        assert_eq!(again.names(parent).await, ["f"]);
        server.stop();
        assert_sound(&place);
    }
}

#[tokio::test]
async fn containers_that_nobody_names_are_removed() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let file = a.create(a.root(), "f").await.unwrap();
    for round in 1..=3u8 {
        let bytes = vec![round; 50_000];
        a.upload([round; 16], &bytes, 0, 50_000).await.unwrap();
        a.run(store_uploaded(file, &bytes, [round; 16])).await.unwrap();
    }
    a.store(file, b"small").await.unwrap();
    a.create(a.root(), "g").await.unwrap();
    server.stop();
    let containers = std::fs::read_dir(place.path().join("vol"))
        .unwrap()
        .flat_map(|volume| std::fs::read_dir(volume.unwrap().path().join("data")).unwrap())
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .count();
    assert_eq!(containers, 0);
    assert_sound(&place);
}

#[tokio::test]
async fn damage_is_found() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let file = a.create(a.root(), "f").await.unwrap();
    let bytes = vec![1; 50_000];
    a.upload([1; 16], &bytes, 0, 50_000).await.unwrap();
    a.run(store_uploaded(file, &bytes, [1; 16])).await.unwrap();
    server.stop();
    assert_sound(&place);
    let container = std::fs::read_dir(place.path().join("vol"))
        .unwrap()
        .flat_map(|volume| std::fs::read_dir(volume.unwrap().path().join("data")).unwrap())
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut damaged = bytes.clone();
    damaged[40_000] = 2;
    std::fs::write(&container, &damaged).unwrap();
    let findings = coda_server::store::fsck::check(&place.path()).unwrap();
    assert!(findings[0].what.contains("do not match their hash"), "{findings:?}");
    std::fs::remove_file(&container).unwrap();
    let findings = coda_server::store::fsck::check(&place.path()).unwrap();
    assert!(findings[0].what.contains("cannot be read"), "{findings:?}");
}
