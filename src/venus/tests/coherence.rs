//! Two clients of one realm.

use super::world::*;
use crate::{
    error::Error,
    venus::face::{Face, Forget, RenameMode},
};

#[tokio::test(start_paused = true)]
async fn a_close_is_seen_by_the_next_open_elsewhere() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "one").await.unwrap();
    assert_eq!(b.read("f").await.unwrap(), "one");
    let mut forgets = b.venus.forgets();
    let before = b.stat("f").await.unwrap();
    assert!(before.lasting);
    a.write("f", "two").await.unwrap();
    let forgotten = std::iter::from_fn(|| forgets.try_recv().ok()).collect::<Vec<_>>();
    assert!(forgotten.contains(&Forget::Object { id: before.id, data: true }), "{forgotten:?}");
    assert_eq!(b.read("f").await.unwrap(), "two");
    assert!(b.stat("f").await.unwrap().version > before.version);
}

#[tokio::test(start_paused = true)]
async fn names_made_and_removed_elsewhere_are_seen() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    assert_eq!(b.ls("").await.unwrap(), ["home"]);
    a.mkdir("d").await.unwrap();
    assert_eq!(b.ls("").await.unwrap(), ["d", "home"]);
    let root = b.stat("").await.unwrap().id;
    b.venus.rmdir(ME, root, b"d").await.unwrap();
    assert!(matches!(a.stat("d").await, Err(Error::NotFound(_))));
    assert!(matches!(a.mkdir("home").await, Err(Error::Exists(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reader_keeps_the_version_it_opened() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "old").await.unwrap();
    let opened = b.open("f", READ).await.unwrap();
    a.write("f", "new").await.unwrap();
    assert_eq!(b.read("f").await.unwrap(), "new");
    let mut bytes = [0; 3];
    opened.container.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"old");
    b.close(opened).await.unwrap();
    assert_eq!(b.read("f").await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_exclusive_makers_wins() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.ls("").await.unwrap();
    b.ls("").await.unwrap();
    let (one, other) = tokio::join!(a.mkdir("d"), b.mkdir("d"));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(a.ls("").await.unwrap(), ["d", "home"]);
    assert_eq!(b.ls("").await.unwrap(), ["d", "home"]);
}

#[tokio::test(start_paused = true)]
async fn clients_that_write_one_directory_at_once_all_succeed() {
    let world = World::new(2);
    let clients: Vec<_> = (0..4).map(|n| world.client(&format!("c{n}"))).collect();
    let work = clients.iter().enumerate().map(|(c, client)| async move {
        for n in 0..10 {
            client.write(&format!("c{c}n{n}"), "x").await.unwrap();
        }
        let root = client.stat("").await.unwrap().id;
        for n in 0..5 {
            let (from, to) = (format!("c{c}n{n}"), format!("moved-c{c}n{n}"));
            let (from, to) = ((root, from.as_bytes()), (root, to.as_bytes()));
            client.venus.rename(ME, from, to, RenameMode::Replace).await.unwrap();
        }
    });
    futures::future::join_all(work).await;
    for client in &clients {
        assert_eq!(client.ls("").await.unwrap().len(), 41);
    }
}

#[tokio::test(start_paused = true)]
async fn both_contents_of_two_writers_at_once_are_kept() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "start").await.unwrap();
    let (one, other) = (a.open("f", WRITE).await.unwrap(), b.open("f", WRITE).await.unwrap());
    one.container.write_at(0, b"from a").unwrap();
    other.container.write_at(0, b"from b").unwrap();
    a.close(one).await.unwrap();
    b.close(other).await.unwrap();
    // Neither saw the other's: people must decide, and nothing is lost.
    for client in [&a, &b] {
        let mut contents = Vec::new();
        for name in client.ls("").await.unwrap().iter().filter(|name| name.starts_with('f')) {
            contents.push(client.read(name).await.unwrap());
        }
        contents.sort();
        assert_eq!(contents, ["from a", "from b"]);
    }
}
