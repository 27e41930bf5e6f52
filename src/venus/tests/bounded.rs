//! Every operation ends, whatever the servers do.

use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

use super::world::*;
use crate::venus::face::{AttrChange, Face, ObjectId, OpenMode, Opened, RenameMode};

/// Everything the kernel may ask for that can need a server.
const OPERATIONS: [&str; 21] = [
    "lookup",
    "lookup of nothing",
    "getattr",
    "readdir",
    "parent",
    "open",
    "open for writing",
    "create",
    "flush",
    "fsync",
    "release",
    "mkdir",
    "symlink",
    "readlink",
    "link",
    "unlink",
    "rmdir",
    "rename",
    "setattr",
    "xattr",
    "access",
];

/// What the operations are about, looked at while all was well.
struct Tree {
    root: ObjectId,
    file: ObjectId,
    link: ObjectId,
    opened: Opened,
}

async fn plant(client: &Client, op: &str) -> Tree {
    let name = |what: &str| format!("{what} {op}");
    client.write(&name("f"), "contents").await.unwrap();
    client.mkdir(&name("d")).await.unwrap();
    let root = client.stat("").await.unwrap().id;
    let link = client.venus.symlink(ME, root, name("l").as_bytes(), b"target").await.unwrap().id;
    let file = client.stat(&name("f")).await.unwrap().id;
    let opened = client.open(&name("w"), WRITE).await.unwrap();
    opened.container.write_at(0, b"written").unwrap();
    Tree { root, file, link, opened }
}

/// Does it; how it ends is another test's matter.
async fn perform(client: &Client, tree: &Tree, op: &str) {
    let venus = &client.venus;
    let name = |what: &str| format!("{what} {op}").into_bytes();
    let (f, d, n) = (name("f"), name("d"), name("n"));
    match op {
        "lookup" => drop(venus.lookup(ME, tree.root, &f).await),
        "lookup of nothing" => drop(venus.lookup(ME, tree.root, &n).await),
        "getattr" => drop(venus.getattr(ME, tree.file).await),
        "readdir" => drop(venus.readdir(ME, tree.root).await),
        "parent" => drop(venus.parent(tree.root).await),
        "open" => drop(venus.open(ME, tree.file, READ).await),
        "open for writing" => drop(venus.open(ME, tree.file, OpenMode { truncate: true, ..WRITE }).await),
        "create" => drop(venus.create(ME, tree.root, &n, 0o644, WRITE, true).await),
        "flush" => drop(venus.flush(ME, tree.opened.handle).await),
        "fsync" => drop(venus.fsync(ME, tree.opened.handle).await),
        "release" => drop(venus.release(tree.opened.handle).await),
        "mkdir" => drop(venus.mkdir(ME, tree.root, &n, 0o755).await),
        "symlink" => drop(venus.symlink(ME, tree.root, &n, b"x").await),
        "readlink" => drop(venus.readlink(ME, tree.link).await),
        "link" => drop(venus.link(ME, tree.file, tree.root, &n).await),
        "unlink" => drop(venus.unlink(ME, tree.root, &f).await),
        "rmdir" => drop(venus.rmdir(ME, tree.root, &d).await),
        "rename" => drop(venus.rename(ME, (tree.root, &f), (tree.root, &n), RenameMode::Replace).await),
        "setattr" => {
            let change = AttrChange { mode: Some(0o600), ..AttrChange::default() };
            drop(venus.setattr(ME, tree.file, change, None).await);
        }
        "xattr" => drop(venus.setxattr(ME, tree.file, b"user.x", Some(b"y"), None).await),
        "access" => drop(venus.access(ME, tree.file, libc::R_OK).await),
        _ => unreachable!("{op}"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_operation_ends_within_the_silence_limit_when_all_servers_fall_silent() {
    let mut late = Vec::new();
    for weather in [Weather::Hung, Weather::HangsOnApply, Weather::Closed] {
        let world = World::new(2);
        let well =
            |yes: bool| (1..=2).for_each(|id| world.weather(id, if yes { Weather::Fine } else { weather }));
        for op in OPERATIONS {
            let client = world.client(op);
            let tree = plant(&client, op).await;
            // What is cached must be asked about, or it would be no question.
            client.venus.core.cache.void(tree.root.realm, |_| true);
            well(false);
            let began = Instant::now();
            perform(&client, &tree, op).await;
            let first = began.elapsed();
            let mut bound = |what: &str, took: Duration, limit: u64| {
                if took > Duration::from_secs(limit) {
                    late.push(format!("{op}, {weather:?}{what}: {took:?}"));
                }
            };
            bound("", first, 16);
            // What needs no server is answered on the spot.
            assert!(client.venus.getattr(ME, client.venus.root()).now_or_never().is_some(), "{op}");
            assert!(client.venus.readdir(ME, client.venus.root()).now_or_never().is_some(), "{op}");
            assert!(client.venus.space().total > 0);
            let began = Instant::now();
            perform(&client, &tree, op).await;
            let second = began.elapsed();
            // One that answers probes and nothing else is found out by each mutation anew.
            bound(", once more", second, if weather == Weather::HangsOnApply { 16 } else { 2 });
            well(true);
            client.venus.stop().await;
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_create_waits_for_one_silence_limit_however_many_members_are_silent() {
    for hanging in 1..=3 {
        let world = World::new(3);
        let a = world.client("a");
        a.ls("").await.unwrap();
        (1..=hanging).for_each(|id| world.weather(id, Weather::HangsOnApply));
        let began = Instant::now();
        a.mkdir("d").await.unwrap();
        let took = began.elapsed();
        let limit = Duration::from_secs(13)..=Duration::from_millis(15_100);
        assert!(limit.contains(&took), "{hanging} of three: {took:?}");
        let there = a.pending() == 0;
        assert_eq!(there, hanging < 3, "whoever answers has it");
    }
}

#[tokio::test(start_paused = true)]
async fn listing_coda_looks_no_realm_up_and_asks_nobody() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "x").await.unwrap();
    a.venus.stop().await;
    let a = world.crashed(&a, "again");
    world.calls.lock().unwrap().clear();
    world.located.store(0, std::sync::atomic::Ordering::Relaxed);
    let root = a.venus.root();
    let lines = a.venus.readdir(ME, root).now_or_never().expect("at once").unwrap();
    assert_eq!(lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>(), [REALM.as_bytes()]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.calls.lock().unwrap().is_empty());
    assert_eq!(world.located.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_log_that_takes_long_to_send() {
    let world = World::new(1);
    let a = world.client("a");
    a.ls("").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.write("big", vec![7; 300_000]).await.unwrap();
    world.weather(1, Weather::Crawls(Duration::from_secs(40)));
    a.venus.peers().reconnect(&[]);
    let began = Instant::now();
    a.mkdir("d").await.unwrap();
    let took = began.elapsed();
    assert!(took <= Duration::from_secs(16), "{took:?}");
    assert!(a.pending() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_frozen_with_a_file_open_blocks_nobody() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    for name in ["f", "g"] {
        a.write(name, "before").await.unwrap();
    }
    // It stands still in the middle of a write, and with another file open for reading.
    let frozen = a.open("f", WRITE).await.unwrap();
    frozen.container.write_at(0, b"half of").unwrap();
    let reads = a.open("g", READ).await.unwrap();
    let began = Instant::now();
    a.read("f").await.unwrap();
    a.chmod("f", 0o600).await.unwrap();
    a.rename("f", "renamed").await.unwrap();
    a.write("g", "replaced").await.unwrap();
    a.unlink("g").await.unwrap();
    a.write("h", "x").await.unwrap();
    b.write("renamed", "by another").await.unwrap();
    assert_eq!(b.read("h").await.unwrap(), "x");
    assert!(a.ls("").await.unwrap().contains(&"renamed".into()));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    a.venus.peers().disconnect(&[]);
    a.mkdir("made apart").await.unwrap();
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    assert!(b.ls("").await.unwrap().contains(&"made apart".into()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // It is thawed, and finds what the others of this machine made of it.
    let mut contents = [0; 6];
    reads.container.read_at(0, &mut contents).unwrap();
    assert_eq!(&contents, b"replac");
    a.close(reads).await.unwrap();
    a.close(frozen).await.unwrap();
}
