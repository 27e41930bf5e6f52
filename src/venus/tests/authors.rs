//! Authors that are retired: by themselves when nothing is left to send, or by servers that heard nothing for long.

use std::time::Duration;

use coda_proto::{
    Author, VolumeId,
    service::{Identity, Service},
    wire,
};

use super::world::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Enough for the members to agree that all of them include something.
const ROUNDS: Duration = Duration::from_secs(4 * 3600);

fn drawn(client: &Client, volume: VolumeId) -> Vec<Author> {
    let store = |store: &mut crate::store::Store| store.authors(1, volume);
    client.venus.core.cache.store(store).unwrap().into_iter().map(|(author, _)| author).collect()
}

pub async fn retired(world: &World, id: u8, volume: VolumeId, authors: &[Author], ask: bool) -> usize {
    let authors = authors.iter().map(|author| author.0).collect();
    let body = wire::request::Body::Retire(wire::Retire { volume: volume.0, authors, ask });
    let request = wire::Request { body: Some(body), ..Default::default() };
    let (response, _) = world.server(id).call(Identity::Admin, request, Default::default()).await;
    match response.body {
        Some(wire::response::Body::Retired(told)) => told.retired.len(),
        other => panic!("{other:?}"),
    }
}

fn logged(client: &Client) -> Vec<Author> {
    let rows = client.venus.core.cache.store(|store| store.log()).unwrap();
    rows.iter().map(|row| row.record.dot.author).collect()
}

#[tokio::test(start_paused = true)]
async fn what_waited_until_its_author_was_retired_is_issued_again_and_loses_nothing() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "old").await.unwrap();
    a.write("gone", "x").await.unwrap();
    a.mkdir("d").await.unwrap();
    a.ls("").await.unwrap();
    a.ls("d").await.unwrap();
    let volume = a.stat("").await.unwrap().id.fid.volume;
    a.venus.peers().disconnect(&[]);
    a.write("f", "changed").await.unwrap();
    a.write("d/new", "new").await.unwrap();
    a.mkdir("d/e").await.unwrap();
    a.write("d/e/deep", vec![7; 100_000]).await.unwrap();
    a.rename("d/new", "d/e/moved").await.unwrap();
    a.unlink("gone").await.unwrap();
    let was = logged(&a)[0];
    for id in [1, 2] {
        assert_eq!(retired(&world, id, volume, &[was], false).await, 1);
    }
    b.write("f", "of b").await.unwrap();
    // Also where a crash came between.
    let a = world.crashed(&a, "again");
    let seen = async |client: &Client| {
        assert_eq!(client.read("d/e/moved").await.unwrap(), "new");
        assert_eq!(client.bytes("d/e/deep").await.unwrap(), vec![7; 100_000]);
        assert_eq!(client.ls("d").await.unwrap(), ["e"]);
    };
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    seen(&a).await;
    let c = world.client("c");
    seen(&c).await;
    let shown = c.ls("").await.unwrap();
    let mut versions = Vec::new();
    for name in shown.iter().filter(|name| name.starts_with('f')) {
        versions.push(c.read(name).await.unwrap());
    }
    versions.sort();
    assert_eq!(versions, ["changed", "of b"], "{shown:?}");
    assert!(!shown.contains(&"gone".to_owned()));
    assert!(a.spooled().is_empty());
    // And it goes on.
    a.write("d/e/moved", "newer").await.unwrap();
    assert_eq!(c.read("d/e/moved").await.unwrap(), "newer");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_author_was_retired_writes_on_as_another() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "1").await.unwrap();
    let volume = a.stat("").await.unwrap().id.fid.volume;
    let was = drawn(&a, volume);
    for id in [1, 2] {
        retired(&world, id, volume, &was, false).await;
    }
    a.write("f", "2").await.unwrap();
    a.mkdir("d").await.unwrap();
    assert_eq!(world.client("b").read("f").await.unwrap(), "2");
    assert_eq!(a.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn authors_that_have_nothing_left_to_send_are_retired_at_the_end_or_after_the_next_start() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "1").await.unwrap();
    let volume = a.stat("").await.unwrap().id.fid.volume;
    let first = drawn(&a, volume);
    assert_eq!(retired(&world, 1, volume, &first, true).await, 0, "it may write on");
    // After a crash what is left is sent first.
    a.venus.peers().disconnect(&[]);
    a.write("f", "2").await.unwrap();
    let again = world.crashed(&a, "again");
    drop(a);
    again.venus.peers().disconnect(&[]);
    again.read("f").await.unwrap();
    assert_eq!(retired(&world, 1, volume, &first, true).await, 0);
    again.venus.peers().reconnect(&[]);
    again.settled().await;
    tokio::time::sleep(SECOND).await;
    again.write("f", "3").await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(retired(&world, 1, volume, &first, true).await, first.len());
    let last = drawn(&again, volume);
    assert_eq!(last.len(), 1);
    again.venus.stop().await;
    assert_eq!(retired(&world, 2, volume, &last, true).await, 1);
    assert!(drawn(&again, volume).is_empty());
}

#[tokio::test(start_paused = true)]
async fn authors_of_a_run_that_crashed_are_retired_although_their_user_never_writes_again() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "1").await.unwrap();
    let volume = a.stat("").await.unwrap().id.fid.volume;
    let first = drawn(&a, volume);
    let again = world.crashed(&a, "again");
    drop(a);
    again.read("f").await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(retired(&world, 1, volume, &first, true).await, first.len());
    assert!(drawn(&again, volume).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_servers_have_folded_is_read_and_written_by_whoever_knew_it_before() {
    let world = World::new(2);
    let (a, away) = (world.client("a"), world.client("away"));
    a.write("f", "0").await.unwrap();
    a.mkdir("d").await.unwrap();
    assert_eq!(away.read("f").await.unwrap(), "0");
    let volume = a.stat("").await.unwrap().id.fid.volume;
    for index in 1..14 {
        let one = world.client(&format!("one{index}"));
        one.write("f", format!("{index}")).await.unwrap();
        one.write(&format!("d/f{index}"), "x").await.unwrap();
        one.venus.stop().await;
    }
    assert_eq!(away.read("f").await.unwrap(), "13");
    assert_eq!(away.ls("d").await.unwrap().len(), 13);
    away.venus.peers().disconnect(&[]);
    away.write("d/away", "of away").await.unwrap();
    world.pass(31 * DAY);
    tokio::time::sleep(ROUNDS).await;
    let f = a.stat("f").await.unwrap().id.fid;
    for id in [1, 2] {
        let served = world.server(id).volume(volume).unwrap();
        let past = served.read(|view| Ok(view.past(f)?)).unwrap().unwrap();
        assert!(past.is_folded() && past.entries().count() < 4, "at {id}: {past}");
    }
    // Whoever had it cached sees what is there, has nothing to decide, and may change it.
    assert_eq!(a.read("f").await.unwrap(), "13");
    a.write("f", "of a").await.unwrap();
    away.venus.peers().reconnect(&[]);
    away.settled().await;
    assert_eq!(away.read("f").await.unwrap(), "of a");
    away.write("f", "of away").await.unwrap();
    away.unlink("d/f3").await.unwrap();
    for client in [&a, &away, &world.client("new")] {
        assert_eq!(client.read("f").await.unwrap(), "of away");
        assert_eq!(client.ls("").await.unwrap(), ["d", "f", "home"]);
        assert_eq!(client.ls("d").await.unwrap().len(), 13);
    }
    assert_eq!(away.pending() + a.pending(), 0);
}
