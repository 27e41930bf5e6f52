//! What a reconnection costs: questions about volumes, not about objects.

use std::time::Duration;

use coda_proto::ServerId;

use super::world::*;
use crate::{replica::PeerEvent, venus::face::Face};

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
