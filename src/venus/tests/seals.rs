//! What a reconnection, or a restart, costs: questions about volumes, not about objects.

use std::{sync::Arc, time::Duration};

use coda_proto::ServerId;

use super::{cut::disk::Disk, world::*};
use crate::{
    replica::PeerEvent,
    venus::{VenusConfig, face::Face},
};

/// A client's servers are left and met again: every promise is void.
fn reconnect(client: &Client) {
    client.venus.peers().disconnect(&[]);
    client.venus.peers().reconnect(&[]);
}

async fn settled() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn a_reconnection_costs_one_question_to_each_member_of_a_volume() {
    let world = World::new(2);
    let client = world.client("a");
    // More than a server lists: our own changes must not count.
    let objects = 1100;
    for n in 0..objects {
        client.mkdir(&format!("home/{n}")).await.unwrap();
    }
    reconnect(&client);
    settled().await;
    world.calls.lock().unwrap().clear();
    let dir = client.stat("home").await.unwrap().id;
    for n in 0..objects {
        let attr = client.venus.lookup(ME, dir, n.to_string().as_bytes()).await.unwrap();
        assert!(attr.lasting, "{n}");
    }
    let calls = world.calls.lock().unwrap().clone();
    let about = |call: &str| calls.iter().filter(|(_, name)| *name == call).count();
    assert_eq!(about("validatevolumes"), 4, "two volumes at two members: {calls:?}");
    assert_eq!((about("getattr"), about("validateobjects")), (0, 0), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn what_changed_meanwhile_is_listed_and_all_else_is_believed() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    for n in 0..10 {
        a.write(&format!("f{n}"), "old").await.unwrap();
    }
    a.venus.peers().disconnect(&[]);
    b.write("f3", "new, and longer").await.unwrap();
    assert_eq!(a.read("f3").await.unwrap(), "old", "apart, the cached contents are served");
    a.venus.peers().reconnect(&[]);
    settled().await;
    world.calls.lock().unwrap().clear();
    assert_eq!(a.read("f3").await.unwrap(), "new, and longer");
    assert_eq!(world.counted("validatevolumes"), 2);
    assert_eq!(world.counted("getattr"), 2, "of what was listed");
    for n in [0, 1, 9] {
        assert_eq!(a.read(&format!("f{n}")).await.unwrap(), "old");
    }
    assert_eq!((world.counted("validatevolumes"), world.counted("getattr")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_promise_about_a_volume_is_broken_by_any_change_of_it() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    for name in ["f", "g"] {
        a.write(name, "old").await.unwrap();
    }
    reconnect(&a);
    assert_eq!(a.read("g").await.unwrap(), "old");
    assert!(a.stat("f").await.unwrap().lasting);
    b.write("f", "newer").await.unwrap();
    assert_eq!(a.read("f").await.unwrap(), "newer");
    world.calls.lock().unwrap().clear();
    // The members have told once of a change of the volume, and promised nothing for the next.
    b.write("g", "newest").await.unwrap();
    assert_eq!(a.read("g").await.unwrap(), "newest");
    b.mkdir("d").await.unwrap();
    assert!(a.ls("").await.unwrap().contains(&"d".into()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_started_again_knows_what_changed() {
    let world = World::new(2);
    let client = world.client("a");
    for n in 0..100 {
        client.mkdir(&n.to_string()).await.unwrap();
    }
    world.kill(2);
    client.mkdir("made without it").await.unwrap();
    world.boot(2);
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.calls.lock().unwrap().clear();
    for n in 0..100 {
        assert!(client.stat(&n.to_string()).await.unwrap().lasting);
    }
    assert!(client.stat("made without it").await.unwrap().lasting);
    let calls = world.calls.lock().unwrap().clone();
    let questions = |(_, call): &&(u8, &str)| call.starts_with("validate") || *call == "getattr";
    let asked = calls.iter().filter(questions).count();
    assert!(asked <= 8, "{asked}: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn where_too_much_changed_objects_are_validated_many_at_a_time() {
    let world = World::new(1);
    let (a, b) = (world.client("a"), world.client("b"));
    for n in 0..200 {
        a.mkdir(&format!("home/{n}")).await.unwrap();
    }
    a.venus.peers().disconnect(&[]);
    // More objects than one answer lists.
    for n in 0..1001 {
        b.mkdir(&format!("home/b{n}")).await.unwrap();
    }
    a.venus.peers().reconnect(&[]);
    settled().await;
    world.calls.lock().unwrap().clear();
    a.stat("home").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.counted("validateobjects"), 1);
    world.calls.lock().unwrap().clear();
    for n in 0..200 {
        assert!(a.stat(&format!("home/{n}")).await.unwrap().lasting);
    }
    assert_eq!((world.counted("getattr"), world.counted("validateobjects")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_one_server_costs_only_what_depends_on_it() {
    let world = World::new(2);
    let client = world.client("a");
    client.write("home/f", "x").await.unwrap();
    let id = client.stat("home/f").await.unwrap().id;
    let lose = |server| {
        let event = PeerEvent::Lost { realm: REALM.into(), server: ServerId(server) };
        client.venus.core.heard(event).unwrap();
    };
    lose(9);
    assert!(client.venus.core.cache.held(id).0, "no replica of the volume is there");
    lose(2);
    assert!(!client.venus.core.cache.held(id).0);
}

/// Longer than what is learnt of seals may be lost.
const KEPT: Duration = Duration::from_secs(6);

/// Looks at directories with numbers for names, and answers what was asked meanwhile.
async fn asked_for(world: &Arc<World>, client: &Client, dir: &str, count: u32) -> Vec<(u8, &'static str)> {
    world.calls.lock().unwrap().clear();
    let dir = client.stat(dir).await.unwrap().id;
    for n in 0..count {
        let attr = client.venus.lookup(ME, dir, n.to_string().as_bytes()).await.unwrap();
        assert!(attr.lasting, "{n}");
    }
    world.calls.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_restart_costs_one_question_to_each_member_of_a_volume() {
    let world = World::new(2);
    let client = world.client("a");
    // More than a server lists, and more than it validates at once.
    for n in 0..1100 {
        client.mkdir(&format!("home/{n}")).await.unwrap();
    }
    tokio::time::sleep(KEPT).await;
    let again = world.crashed(&client, "again");
    drop(client);
    let calls = asked_for(&world, &again, "home", 1100).await;
    let about = |call: &str| calls.iter().filter(|(_, name)| *name == call).count();
    assert_eq!(about("validatevolumes"), 4, "two volumes at two members: {calls:?}");
    assert_eq!((about("getattr"), about("validateobjects")), (0, 0), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_venus_was_down_is_noticed_at_the_next_start() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    for n in 0..10 {
        b.write(&format!("f{n}"), "old").await.unwrap();
        assert_eq!(a.read(&format!("f{n}")).await.unwrap(), "old");
    }
    tokio::time::sleep(KEPT).await;
    world.crashed_dir(&a, "again");
    drop(a);
    b.write("f3", "new, and longer").await.unwrap();
    b.unlink("f4").await.unwrap();
    b.write("f5", "twice").await.unwrap();
    b.write("f5", "and again").await.unwrap();
    let a = world.client("again");
    world.calls.lock().unwrap().clear();
    assert_eq!(a.read("f3").await.unwrap(), "new, and longer");
    assert!(a.read("f4").await.is_err());
    assert_eq!(a.read("f5").await.unwrap(), "and again");
    assert_eq!((world.counted("validatevolumes"), world.counted("validateobjects")), (2, 0));
    world.calls.lock().unwrap().clear();
    for n in [0, 1, 9] {
        assert_eq!(a.read(&format!("f{n}")).await.unwrap(), "old");
    }
    assert_eq!((world.counted("getattr"), world.counted("validatevolumes")), (0, 0));
    // The promise that came with the answer is one.
    b.write("f9", "newest").await.unwrap();
    assert_eq!(a.read("f9").await.unwrap(), "newest");
}

#[tokio::test(start_paused = true)]
async fn what_left_the_memory_is_believed_when_it_comes_back_unless_the_volume_changed() {
    let world = World::new(2);
    let config = VenusConfig { in_memory: 150, ..VenusConfig::default() };
    let (a, b) = (world.client_with("a", config), world.client("b"));
    for n in 0..400 {
        a.mkdir(&n.to_string()).await.unwrap();
    }
    reconnect(&a);
    settled().await;
    asked_for(&world, &a, "", 400).await;
    let calls = asked_for(&world, &a, "", 400).await;
    assert!(calls.is_empty(), "{calls:?}");
    // Rights that change with a directory's list are asked for anew, also where nothing of it is in memory.
    let root = a.stat("").await.unwrap().id;
    let acl = a.venus.acl(root).await.unwrap();
    a.venus.set_acl(root, &acl).await.unwrap();
    let calls = asked_for(&world, &a, "", 400).await;
    assert!(calls.iter().any(|(_, call)| *call == "getattr"), "{calls:?}");
    b.chmod("7", 0o700).await.unwrap();
    assert_eq!(a.stat("7").await.unwrap().mode, 0o700);
}

/// The database of a client goes dead after so many calls, while it and another write and a reconnection moves stamps.
/// More changes while it is down. Answers whether it went.
async fn believes_nothing_old(calls: u64, power: bool) -> bool {
    let case = format!("cut after {calls} calls, power {power}");
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    let names: Vec<String> = (0..6).map(|n| format!("f{n}")).collect();
    for name in &names {
        b.write(name, "0").await.unwrap();
        a.read(name).await.unwrap();
    }
    tokio::time::sleep(KEPT).await;
    let disk = Disk::new(&world.crashed_dir(&a, "watched"));
    drop(a);
    let a = world.client("watched");
    for name in &names {
        a.read(name).await.unwrap();
    }
    disk.cut_after(calls);
    // Whatever goes wrong from here on: its disk is dead.
    let _ = a.write("f1", "mine").await;
    b.write("f2", "theirs").await.unwrap();
    tokio::time::sleep(KEPT).await;
    let _ = a.read("f2").await;
    a.venus.peers().disconnect(&[]);
    b.write("f3", "apart").await.unwrap();
    b.write("f1", "over it").await.unwrap();
    a.venus.peers().reconnect(&[]);
    settled().await;
    let _ = a.read("f0").await;
    let _ = a.write("f4", "mine").await;
    let _ = a.read("f3").await;
    tokio::time::sleep(KEPT).await;
    b.write("f4", "at last").await.unwrap();
    let cut = disk.is_dead();
    let left = world.crashed_dir(&a, "left");
    if power {
        disk.lose_unsynced(&left);
    }
    disk.forget();
    drop(a);
    b.write("f5", "while it was down").await.unwrap();
    let a = world.client("left");
    a.settled().await;
    for name in &names {
        assert_eq!(a.read(name).await.unwrap(), b.read(name).await.unwrap(), "{name}, {case}");
    }
    cut
}

#[tokio::test(start_paused = true)]
async fn whatever_a_crash_leaves_of_a_seal_nothing_old_is_believed() {
    for power in [false, true] {
        let mut calls = u64::from(power) * 5;
        while believes_nothing_old(calls, power).await {
            calls += 11;
        }
    }
}
