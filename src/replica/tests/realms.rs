//! Getting to know realms and volumes, with and without anybody to ask.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::world::*;
use crate::{error::Error, replica::VolumeKey, replica::server::locked};

const SECOND: Duration = Duration::from_secs(1);

fn root() -> VolumeKey {
    VolumeKey::Name("root".into())
}

#[tokio::test(start_paused = true)]
async fn not_one_packet_leaves_before_the_first_use() {
    let world = World::new().with_realm("a.org", 2);
    let first = Client::new(&world);
    first.group("a.org").await;
    let known = first.peers.known();
    drop(first);
    sleep(SECOND).await;
    let before = world.packets();
    let _client = Client::with(&world, known);
    sleep(600 * SECOND).await;
    assert_eq!(world.packets(), before);
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_knows_is_enough_when_nobody_can_be_asked() {
    let world = World::new().with_realm("a.org", 2);
    let first = Client::new(&world);
    let group = first.group("a.org").await;
    let known = first.peers.known();
    locked(&world.realms).get_mut("a.org").unwrap().locates = false;
    world.set("a.org-1", Mode::Stopped);
    world.set("a.org-2", Mode::Closed);
    let client = Client::with(&world, known);
    let began = Instant::now();
    client.peers.realm("a.org").await.unwrap();
    assert_eq!(client.peers.root_volume("a.org").await.unwrap(), "root");
    assert_eq!(client.peers.volume("a.org", root()).await.unwrap(), group);
    assert_eq!(client.peers.volume("a.org", VolumeKey::Name(String::new())).await.unwrap(), group);
    assert!(began.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_dead_root_server_is_never_noticed() {
    for mode in [Mode::Stopped, Mode::Closed, Mode::Nonsense] {
        let world = World::new().with_realm("a.org", 3);
        world.set("a.org-1", mode);
        let client = Client::new(&world);
        let began = Instant::now();
        client.peers.realm("a.org").await.unwrap();
        client.peers.volume("a.org", root()).await.unwrap();
        let time = began.elapsed();
        assert!(time < SECOND * 5 / 2, "{mode:?}: {time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_knows_are_told_apart_from_realms_out_of_reach() {
    let world = World::new().with_realm("a.org", 1);
    let client = Client::new(&world);
    let began = Instant::now();
    for name in ["nobody.org", ".Trash", "#x", "nobody.org"] {
        assert_eq!(client.peers.realm(name).await, Err(Error::UnknownRealm(name.into())));
    }
    assert!(began.elapsed() < SECOND);
    world.set("a.org-1", Mode::Stopped);
    let away = client.peers.realm("a.org").await.unwrap_err();
    assert_eq!(away, Error::RealmAway("a.org".into(), "silent".into()));
    assert!(began.elapsed() <= 16 * SECOND);
    // Whoever comes next is not kept as long, and whoever comes after it is back succeeds.
    let again = Instant::now();
    assert!(client.peers.realm("a.org").await.is_err());
    assert!(again.elapsed() <= SECOND);
    world.set("a.org-1", Mode::Well);
    client.peers.realm("a.org").await.unwrap();
    assert_eq!(client.peers.realms(), ["a.org"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_becomes_known_seconds_after_somebody_adds_it() {
    let world = World::new();
    let client = Client::new(&world);
    assert!(client.peers.realm("new.org").await.is_err());
    world.with_realm("new.org", 1);
    sleep(3 * SECOND).await;
    client.peers.realm("new.org").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_realm_that_swallows_everything_blocks_nobody_else() {
    let world = World::new().with_realm("hole.org", 2).with_realm("a.org", 2);
    world.set("hole.org-1", Mode::Stopped);
    world.set("hole.org-2", Mode::Stopped);
    let client = Client::new(&world);
    let peers = client.peers.clone();
    let stuck = tokio::spawn(async move { peers.realm("hole.org").await });
    sleep(SECOND / 10).await;
    let began = Instant::now();
    let group = client.group("a.org").await;
    assert_eq!(client.mutate("a.org", &group).await.0, 2);
    assert!(began.elapsed() < SECOND / 10);
    assert!(!stuck.is_finished());
    assert!(stuck.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_realm_that_talks_nonsense_disturbs_nobody_else() {
    let world = World::new().with_realm("liar.org", 2).with_realm("a.org", 2);
    let client = Client::new(&world);
    let lied = client.group("liar.org").await;
    let group = client.group("a.org").await;
    world.set("liar.org-1", Mode::Nonsense);
    world.set("liar.org-2", Mode::Nonsense);
    assert_eq!(client.mutate("liar.org", &lied).await.0, 0);
    assert_eq!(client.mutate("a.org", &group).await.0, 2);
    assert!(matches!(
        client.peers.volume("liar.org", VolumeKey::Name("x".into())).await,
        Err(Error::BadAnswer(..) | Error::RealmAway(..))
    ));
    let fresh = Client::new(&world);
    assert!(matches!(fresh.peers.realm("liar.org").await, Err(Error::BadAnswer(..))));
    assert_eq!(fresh.peers.realm("a.org").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_nobody_knows_is_unknown_until_somebody_makes_it() {
    let world = World::new().with_realm("a.org", 2);
    let client = Client::new(&world);
    client.group("a.org").await;
    let wanted = VolumeKey::Name("new".into());
    let answer = client.peers.volume("a.org", wanted.clone()).await;
    assert_eq!(answer, Err(Error::UnknownVolume("new".into())));
    locked(&world.realms).get_mut("a.org").unwrap().group.name = "new".into();
    client.peers.volume("a.org", wanted).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_volume_is_asked_for_at_once_and_falls_back_on_what_was_known() {
    let world = World::new().with_realm("a.org", 2);
    let mut client = Client::new(&world);
    let old = client.group("a.org").await;
    world.change_group("a.org", 2, &[2]);
    assert_eq!(client.group("a.org").await, old, "nobody has told us");
    client.peers.forget_volume("a.org", volume());
    assert_eq!(client.group("a.org").await.epoch, 2);
    assert!(client.told().contains(&"group 2".to_owned()));
    client.peers.forget_volumes("a.org");
    world.set("a.org-1", Mode::Closed);
    world.set("a.org-2", Mode::Closed);
    assert_eq!(client.group("a.org").await.epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_moved_is_found_by_looking_the_realm_up_again() {
    let world = World::new().with_realm("a.org", 1);
    let client = Client::new(&world);
    let group = client.group("a.org").await;
    client.mutate("a.org", &group).await;
    let known = client.peers.known();
    drop(client);
    // The same server, at another address.
    let moved = locked(&world.hosts).remove("a.org-1").unwrap();
    locked(&world.hosts).insert("elsewhere".into(), moved);
    {
        let mut realms = locked(&world.realms);
        let fake = realms.get_mut("a.org").unwrap();
        fake.roots = vec!["elsewhere".into()];
        fake.servers = vec![(1, "elsewhere".into())];
        fake.config = 2;
    }
    let client = Client::with(&world, known);
    client.peers.realm("a.org").await.unwrap();
    sleep(5 * SECOND).await;
    let group = client.group("a.org").await;
    assert_eq!(client.mutate("a.org", &group).await.0, 1);
}
