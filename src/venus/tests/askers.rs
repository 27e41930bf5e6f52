//! For whom nothing is fetched: programs that read everything, and whoever tries out how it is to be offline.

use coda_proto::control::{Missed, Reply, Request};

use super::world::*;
use crate::{
    control::Manager,
    env::Process,
    error::Error,
    venus::{
        VenusConfig,
        face::{Caller, Face},
    },
};

const INDEXER: Caller = Caller { pid: 20, ..ME };
const STARTER: Caller = Caller { pid: 10, ..ME };
const CHILD: Caller = Caller { pid: 11, ..ME };

fn processes(pid: u32) -> Option<Process> {
    let process = |name: &str, parent| Some(Process { name: name.into(), parent, leader: pid });
    match pid {
        10 => process("cfs", 1),
        11 => process("make", 10),
        20 => process("updatedb", 1),
        _ => None,
    }
}

fn config() -> VenusConfig {
    VenusConfig { indexers: vec!["updatedb".into()], processes, ..VenusConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_for_an_indexer_and_what_is_here_it_gets() {
    let world = World::new(2);
    let (a, b) = (world.client_with("a", config()), world.client("b"));
    b.mkdir("d").await.unwrap();
    b.write("d/f", "contents").await.unwrap();
    let dir = a.stat("d").await.unwrap().id;
    let listed = a.venus.readdir(INDEXER, dir).await;
    assert!(matches!(listed, Err(Error::NotFetched(_))), "{listed:?}");
    assert!(matches!(a.venus.lookup(INDEXER, dir, b"f").await, Err(Error::NotFetched(_))));
    a.ls("d").await.unwrap();
    assert_eq!(a.venus.readdir(INDEXER, dir).await.unwrap().len(), 1);
    let file = a.venus.lookup(INDEXER, dir, b"f").await.unwrap();
    assert_eq!(file.size, 8);
    let opened = a.venus.open(INDEXER, file.id, READ).await;
    assert!(matches!(opened, Err(Error::NotFetched(_))));
    assert_eq!(world.counted("fetch") + world.counted("fetchmany"), 0);
    assert_eq!(a.read("d/f").await.unwrap(), "contents");
    let opened = a.venus.open(INDEXER, file.id, READ).await.unwrap();
    a.close(opened).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_tries_out_being_offline_sees_what_is_here_and_every_miss_is_told() {
    let world = World::new(2);
    let (a, b) = (world.client_with("a", config()), world.client("b"));
    b.mkdir("e").await.unwrap();
    b.write("here", "here").await.unwrap();
    b.write("there", vec![1; 5000]).await.unwrap();
    a.read("here").await.unwrap();
    let (here, there) = (a.stat("here").await.unwrap().id, a.stat("there").await.unwrap().id);
    let unseen = a.stat("e").await.unwrap().id;
    a.venus.answer(STARTER, Request::Rehearse { begin: true }).await.unwrap();
    let opened = a.venus.open(CHILD, here, READ).await.unwrap();
    a.close(opened).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(a.venus.open(CHILD, there, READ).await, Err(Error::Disconnected(_))));
    }
    assert!(matches!(a.venus.lookup(CHILD, unseen, b"x").await, Err(Error::Disconnected(_))));
    // A listing that may be old does not say that a name is nowhere.
    let root = a.stat("").await.unwrap().id;
    b.write("new", "new").await.unwrap();
    assert!(matches!(a.venus.lookup(CHILD, root, b"new").await, Err(Error::NotFound(_))));
    assert_eq!(a.read("new").await.unwrap(), "new");
    assert!(matches!(a.venus.lookup(CHILD, root, b"nowhere").await, Err(Error::NotFound(_))));
    // Everybody else goes on as ever.
    assert!(matches!(a.venus.lookup(ME, unseen, b"x").await, Err(Error::NotFound(_))));
    assert_eq!(a.bytes("there").await.unwrap().len(), 5000);
    let told = a.venus.answer(STARTER, Request::Rehearse { begin: false }).await.unwrap();
    let missed = |name: &str, bytes, times| Missed { path: format!("/coda/{REALM}/{name}"), bytes, times };
    let expected = vec![missed("e/x", None, 1), missed("new", None, 1), missed("there", Some(5000), 2)];
    assert_eq!(told, Reply::Missed(expected));
    assert!(matches!(a.venus.lookup(CHILD, unseen, b"x").await, Err(Error::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn what_a_rehearsal_changes_is_logged_and_goes_to_the_servers_behind_it() {
    let world = World::new(2);
    let (a, b) = (world.client_with("a", config()), world.client("b"));
    b.mkdir("d").await.unwrap();
    a.ls("").await.unwrap();
    a.ls("d").await.unwrap();
    let dir = a.stat("d").await.unwrap().id;
    a.venus.answer(STARTER, Request::Rehearse { begin: true }).await.unwrap();
    [1, 2].into_iter().for_each(|id| world.weather(id, Weather::Hung));
    // Nobody is waited for.
    let begun = tokio::time::Instant::now();
    a.venus.mkdir(CHILD, dir, b"made", 0o755).await.unwrap();
    let opened = a.venus.create(CHILD, dir, b"f", 0o644, WRITE, false).await.unwrap();
    opened.container.write_at(0, b"text").unwrap();
    a.venus.flush(CHILD, opened.handle).await.unwrap();
    a.venus.release(opened.handle).await.unwrap();
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
    [1, 2].into_iter().for_each(|id| world.weather(id, Weather::Fine));
    a.venus.answer(STARTER, Request::Rehearse { begin: false }).await.unwrap();
    a.settled().await;
    assert_eq!(b.read("d/f").await.unwrap(), "text");
    b.ls("d/made").await.unwrap();
}
