//! Sessions, callbacks, changed groups, and COP2.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{Code, Fid, Refusal, wire};
use tokio::time::sleep;

use super::world::*;
use crate::{
    env::Priority,
    replica::{AskError, Group, VolumeKey, ask::Body, server::locked},
};

const SECOND: Duration = Duration::from_secs(1);
const REALM: &str = "example.org";

fn broken() -> wire::event::Body {
    wire::event::Body::Break(wire::Break { fids: vec![Fid::root(volume()).into()] })
}

/// A client that has read something in a realm of so many servers, and heard what there was to hear.
async fn has_read(servers: u32) -> (Arc<World>, Client, Group) {
    let world = World::new().with_realm(REALM, servers);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    client.read(REALM, &group).await;
    client.told();
    (world, client, group)
}

/// A client that has changed something in a realm of so many servers, and heard what there was to hear.
async fn has_changed_something(servers: u32) -> (Arc<World>, Client, Group) {
    let world = World::new().with_realm(REALM, servers);
    let (client, group) = changes_something(&world).await;
    (world, client, group)
}

/// The same where the first two of three servers hold the volume.
async fn has_changed_something_at_two_of_three() -> (Arc<World>, Client, Group) {
    let world = World::new().with_realm(REALM, 3);
    world.change_group(REALM, 1, &[1, 2]);
    let (client, group) = changes_something(&world).await;
    (world, client, group)
}

async fn changes_something(world: &Arc<World>) -> (Client, Group) {
    let mut client = Client::new(world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    client.told();
    (client, group)
}

fn acks(world: &World, host: &str) -> Vec<u64> {
    locked(&world.host(host).inner).said.iter().filter(|w| !w.ping).map(|w| w.ack).collect()
}

#[tokio::test(start_paused = true)]
async fn a_break_is_acknowledged_only_after_the_cache_is_marked() {
    let (world, mut client, _) = has_read(1).await;
    world.announce("example.org-1", broken());
    let ack = client.next_break().await;
    sleep(3 * SECOND).await;
    assert!(acks(&world, "example.org-1").is_empty());
    ack.done();
    sleep(SECOND).await;
    assert_eq!(acks(&world, "example.org-1"), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_break_that_nobody_took_care_of_voids_everything() {
    let (world, mut client, _) = has_read(1).await;
    world.announce("example.org-1", broken());
    drop(client.next_break().await);
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 1"]);
    assert!(acks(&world, "example.org-1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_resumed_and_no_break_is_missed() {
    let (world, mut client, _) = has_read(1).await;
    world.announce("example.org-1", broken());
    client.next_break().await.done();
    sleep(SECOND).await;
    world.break_streams("example.org-1");
    world.announce("example.org-1", broken());
    sleep(SECOND).await;
    assert_eq!(client.told(), ["broken 1 by 1"], "only the second one, and nothing lost");
    sleep(SECOND).await;
    assert_eq!(acks(&world, "example.org-1"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_resumed_is_lost() {
    let (world, mut client, group) = has_read(1).await;
    locked(&world.host("example.org-1").inner).resumes = false;
    world.break_streams("example.org-1");
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 1"]);
    client.read(REALM, &group).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forgot_us_is_greeted_again_and_the_caller_sees_nothing() {
    let (world, mut client, group) = has_read(1).await;
    // Fenced: the session is gone while its stream still stands.
    let kept = std::mem::take(&mut locked(&world.host("example.org-1").inner).sessions);
    client.read(REALM, &group).await;
    assert_eq!(client.told(), ["lost 1"]);
    drop(kept);
    sleep(SECOND).await;
    assert!(client.told().is_empty(), "the old stream's end says nothing about the new session");
}

#[tokio::test(start_paused = true)]
async fn promises_of_a_server_not_heard_from_for_thirty_seconds_are_void() {
    let (world, mut client, _) = has_read(1).await;
    sleep(300 * SECOND).await;
    assert!(client.told().is_empty(), "pings keep an idle session");
    locked(&world.host("example.org-1").inner).deaf = true;
    sleep(45 * SECOND).await;
    assert!(client.told().contains(&"lost 1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_loss_was_told_is_not_used_again() {
    let (world, mut client, group) = has_read(1).await;
    // Breaks are missing; and Hello takes a while, during which the server would still answer in the old
    // session.
    locked(&world.host("example.org-1").inner).sessions.values_mut().for_each(|session| session.seq = 3);
    locked(&world.host("example.org-1").inner).hello_delay = 2 * SECOND;
    world.announce("example.org-1", broken());
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 1"]);
    let old = *locked(&world.host("example.org-1").inner).sessions.keys().next().unwrap();
    client.read(REALM, &group).await;
    let inner = world.host("example.org-1");
    assert_ne!(locked(&inner.inner).last_session, old);
    assert!(client.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn checking_servers_finds_the_dead_and_the_returned() {
    let (world, client, _) = has_changed_something(2).await;
    world.set("example.org-2", Mode::Closed);
    let states = |statuses: Vec<crate::replica::ServerStatus>| {
        statuses.iter().map(|server| server.state).collect::<Vec<_>>()
    };
    assert_eq!(states(client.peers.check(&[]).await.0), ["up", "dead"]);
    world.restart("example.org-2");
    assert_eq!(states(client.peers.check(&["2".into()]).await.0), ["up"]);
    assert_eq!(client.peers.check(&["nobody".into()]).await.1, ["nobody"]);
}

#[tokio::test(start_paused = true)]
async fn a_network_change_finds_out_who_has_given_us_up() {
    let (world, mut client, _) = has_changed_something(2).await;
    let kept = std::mem::take(&mut locked(&world.host("example.org-1").inner).sessions);
    client.peers.probe_now();
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 1"]);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_known_to_hold_no_replica_of_some_volumes() {
    let (world, client, _) = has_changed_something_at_two_of_three().await;
    drop(world);
    let without = |server| client.peers.volumes_without(REALM, coda_proto::ServerId(server)).len();
    assert_eq!((without(1), without(2), without(3)), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_events_voids_everything() {
    let (world, mut client, _) = has_read(1).await;
    locked(&world.host("example.org-1").inner).sessions.values_mut().for_each(|session| session.seq = 3);
    world.announce("example.org-1", broken());
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_group_is_noticed_by_the_event() {
    let (world, mut client, _) = has_changed_something_at_two_of_three().await;
    world.change_group(REALM, 2, &[1, 2, 3]);
    world.announce("example.org-1", wire::event::Body::GroupChanged(group_of(2, &[1, 2, 3])));
    sleep(SECOND).await;
    assert_eq!(client.told(), ["group 2"]);
    let group = client.peers.volume(REALM, VolumeKey::Id(volume())).await.unwrap();
    assert_eq!(client.mutate(REALM, &group).await.0, 3);
}

#[tokio::test(start_paused = true)]
async fn a_changed_group_is_noticed_by_the_epoch_and_by_an_unknown_volume() {
    let (world, mut client, group) = has_changed_something_at_two_of_three().await;
    world.change_group(REALM, 2, &[2, 3]);
    assert_eq!(client.mutate(REALM, &group).await.0, 0, "refused for its epoch");
    assert_eq!(client.told(), ["group 2"]);
    let group = client.peers.volume(REALM, VolumeKey::Id(volume())).await.unwrap();
    assert_eq!(client.mutate(REALM, &group).await.0, 2);

    world.change_group(REALM, 3, &[3]);
    let refusal = Refusal::new(Code::NoVolume, "moved away");
    locked(&world.host("example.org-2").inner).refuse = Some(refusal.into());
    let server = coda_proto::ServerId(2);
    let body = Body::Fetch(wire::Fetch { fid: Some(Fid::root(volume()).into()), ..Default::default() });
    let answer = client.peers.ask_one(REALM, server, body, Bytes::new(), Priority::Foreground).await;
    assert!(matches!(answer, Err(AskError::Refused(_))));
    let group = client.peers.volume(REALM, VolumeKey::Id(volume())).await.unwrap();
    assert_eq!(group.epoch, 3);
}

#[tokio::test(start_paused = true)]
async fn what_every_member_took_is_told_to_them_within_ten_seconds() {
    let (world, client, group) = has_changed_something(2).await;
    let told = |host: &str| locked(&world.host(host).inner).cop2.len();
    assert_eq!((told("example.org-1"), told("example.org-2")), (0, 0));
    // The next call takes it along; the member that is not asked gets it by itself.
    let (who, _) = client.read(REALM, &group).await;
    assert_eq!(told(&format!("example.org-{who}")), 1);
    sleep(11 * SECOND).await;
    assert_eq!((told("example.org-1"), told("example.org-2")), (1, 1));
    // What a dead member missed is not everywhere.
    world.set("example.org-2", Mode::Closed);
    client.mutate(REALM, &group).await;
    sleep(30 * SECOND).await;
    assert_eq!(told("example.org-1"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_member_with_the_lowest_slot_decides_what_must_be_exclusive() {
    let world = World::new().with_realm(REALM, 2);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    let exclusive = || client.peers.ask_first_then_all(REALM, &group, apply(&group), Bytes::new());
    assert_eq!(exclusive().await.len(), 2);
    let refusal = Refusal::new(Code::Exists, "taken");
    locked(&world.host("example.org-1").inner).refuse = Some(refusal.into());
    let applied = || world.asked("example.org-2").iter().filter(|kind| **kind == "Apply").count();
    let before = applied();
    let told = exclusive().await;
    assert!(matches!(&told[..], [(_, Err(AskError::Refused(r)))] if r.code == Code::Exists));
    assert_eq!(applied(), before, "nobody else was asked");
    // A dead one decides nothing.
    world.set("example.org-1", Mode::Closed);
    let told = exclusive().await;
    assert!(matches!(&told[..], [(_, Err(AskError::Unreachable(_))), (_, Ok(_))]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_says_good_bye() {
    let (world, client, _) = has_changed_something(2).await;
    client.peers.close().await;
    for host in ["example.org-1", "example.org-2"] {
        assert_eq!(world.asked(host).last(), Some(&"GoodBye"));
        assert_eq!(locked(&world.host(host).inner).cop2.len(), 1);
    }
}
