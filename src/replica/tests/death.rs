//! Who is dead, how soon that is known, and what it costs.

use std::time::Duration;

use bytes::Bytes;
use coda_proto::wire;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::world::*;
use crate::{
    env::Priority,
    replica::{AskError, ask::Body},
};

const SECOND: Duration = Duration::from_secs(1);
const REALM: &str = "example.org";

#[tokio::test(start_paused = true)]
async fn a_server_stopped_for_ten_seconds_is_waited_for() {
    let world = World::new().with_realm(REALM, 2);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    assert_eq!(client.mutate(REALM, &group).await.0, 2);
    client.told();
    world.set("example.org-2", Mode::Stopped);
    let other = world.clone();
    tokio::spawn(async move {
        sleep(10 * SECOND).await;
        other.set("example.org-2", Mode::Well);
    });
    let (taken, time) = client.mutate(REALM, &group).await;
    assert_eq!(taken, 2);
    assert!(time >= 10 * SECOND && time < 11 * SECOND, "{time:?}");
    assert!(client.told().is_empty(), "nobody was marked dead");
}

#[tokio::test(start_paused = true)]
async fn ten_writers_share_one_stall_and_the_next_mutation_is_immediate() {
    let world = World::new().with_realm(REALM, 3);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    client.told();
    world.set("example.org-3", Mode::Stopped);
    let began = Instant::now();
    // They come one after the other, the last one 9 s after the first.
    let writers = (0..10).map(|i| {
        let (client, group) = (&client, &group);
        async move {
            sleep(i * SECOND).await;
            client.mutate(REALM, group).await.0
        }
    });
    assert_eq!(join_all(writers).await, [2; 10]);
    let stall = began.elapsed();
    assert!(stall >= 14 * SECOND && stall <= 17 * SECOND, "{stall:?}");
    let (taken, time) = client.mutate(REALM, &group).await;
    assert_eq!(taken, 2);
    assert!(time < SECOND / 2, "{time:?}");
    assert_eq!(client.told(), ["down 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_is_death_at_once() {
    let world = World::new().with_realm(REALM, 2);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    world.set("example.org-1", Mode::Closed);
    let (taken, time) = client.mutate(REALM, &group).await;
    assert_eq!((taken, client.state(1)), (1, "dead"));
    assert!(time < SECOND, "{time:?}");
    assert_eq!(client.peers.live(REALM, &group), [coda_proto::ServerId(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_quick_restart_costs_promises_and_no_error() {
    let world = World::new().with_realm(REALM, 2);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    client.told();
    world.restart("example.org-1");
    assert_eq!(client.mutate(REALM, &group).await.0, 2);
    sleep(SECOND).await;
    assert_eq!(client.told(), ["lost 1"]);
    assert_eq!(client.state(1), "up");
}

#[tokio::test(start_paused = true)]
async fn a_server_announced_by_a_survivor_is_back_within_five_seconds() {
    let world = World::new().with_realm(REALM, 2);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    world.set("example.org-2", Mode::Stopped);
    client.mutate(REALM, &group).await;
    assert_eq!(client.state(2), "dead");
    // Long enough for the pauses between probes to have grown.
    sleep(300 * SECOND).await;
    client.told();
    world.restart("example.org-2");
    world.announce("example.org-1", wire::event::Body::ServerUp(wire::ServerUp { server: 2 }));
    sleep(5 * SECOND).await;
    assert_eq!(client.state(2), "up");
    assert_eq!(client.told(), ["up 2"]);
    assert_eq!(client.mutate(REALM, &group).await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_wanted_is_back_within_seconds_without_survivors() {
    let world = World::new().with_realm(REALM, 1);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    world.set("example.org-1", Mode::Closed);
    assert_eq!(client.mutate(REALM, &group).await.0, 0);
    sleep(300 * SECOND).await;
    world.restart("example.org-1");
    let began = Instant::now();
    while client.mutate(REALM, &group).await.0 == 0 {
        sleep(SECOND / 2).await;
    }
    assert!(began.elapsed() <= 5 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_dead_are_probed_less_and_less_and_at_once_when_the_network_changes() {
    let world = World::new().with_realm(REALM, 1);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    world.set("example.org-1", Mode::Closed);
    client.mutate(REALM, &group).await;
    let probes = || world.asked("example.org-1").iter().filter(|kind| **kind == "Probe").count();
    sleep(600 * SECOND).await;
    let many = probes();
    assert!((12..=18).contains(&many), "{many} probes in ten minutes");
    world.restart("example.org-1");
    client.peers.probe_now();
    sleep(SECOND).await;
    assert_eq!(client.state(1), "up");
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_a_grace_and_then_asks_another_too() {
    let world = World::new().with_realm(REALM, 2);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    let (first, _) = client.read(REALM, &group).await;
    let (first, second) = (u32::from(first.0), 3 - u32::from(first.0));
    world.set(&format!("{REALM}-{first}"), Mode::Stopped);
    let (who, time) = client.read(REALM, &group).await;
    assert_eq!(u32::from(who.0), second);
    assert!(time <= SECOND, "{time:?}");
    // The suspect is not asked first again, and the call that waits for it finds it dead.
    let (who, time) = client.read(REALM, &group).await;
    assert_eq!((u32::from(who.0), time < SECOND / 10), (second, true));
    sleep(16 * SECOND).await;
    assert_eq!(client.state(first), "dead");
    assert!(client.told().contains(&format!("down {first}")));
}

#[tokio::test(start_paused = true)]
async fn a_long_transfer_that_moves_is_not_asked_for_twice() {
    let world = World::new().with_realm(REALM, 2);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    // Fetches take 4 s, probes an instant.
    for id in [1, 2] {
        let host = world.host(&format!("{REALM}-{id}"));
        super::super::server::locked(&host.inner).fetch_delay = 4 * SECOND;
    }
    let fetches = |id: u32| world.asked(&format!("{REALM}-{id}")).iter().filter(|k| **k == "Fetch").count();
    let fetch = || async {
        let body = Body::Fetch(wire::Fetch { length: 1 << 20, ..Default::default() });
        let answer = client.peers.ask_any(REALM, &group, body, Bytes::new(), Priority::Foreground).await;
        u32::from(answer.unwrap().0.0)
    };
    let first = fetch().await;
    assert_eq!((fetches(first), fetches(3 - first)), (1, 0));
    // But one that has stopped is.
    world.set(&format!("{REALM}-{first}"), Mode::Stopped);
    let began = Instant::now();
    assert_eq!(fetch().await, 3 - first);
    assert!(began.elapsed() <= 5 * SECOND + SECOND / 10, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_status_is_asked_of_all_and_a_late_member_costs_one_grace() {
    let world = World::new().with_realm(REALM, 3);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    let gather = || async {
        let began = Instant::now();
        let body = Body::Fetch(wire::Fetch::default());
        let gathered = client.peers.ask_most(REALM, &group, body, Priority::Foreground).await;
        let late: Vec<u8> = gathered.missing.iter().map(|server| server.0).collect();
        (gathered.told.len(), late, began.elapsed())
    };
    assert_eq!(gather().await.0, 3);
    world.set("example.org-2", Mode::Stopped);
    let (told, late, time) = gather().await;
    assert_eq!((told, late), (2, vec![2]));
    assert!(time <= SECOND, "{time:?}");
    let (told, late, time) = gather().await;
    assert_eq!((told, late), (2, vec![2]));
    assert!(time < SECOND / 50, "{time:?}");
    sleep(16 * SECOND).await;
    assert_eq!(client.state(2), "dead");
    assert_eq!(gather().await.1, [] as [u8; 0], "the dead are not missed");
}

#[tokio::test(start_paused = true)]
async fn a_server_never_met_that_swallows_everything_costs_a_reader_one_second() {
    let world = World::new().with_realm(REALM, 2);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    world.set("example.org-1", Mode::Stopped);
    let (who, time) = client.read(REALM, &group).await;
    assert_eq!(who.0, 2);
    assert!(time < SECOND + SECOND / 10, "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_disconnected_by_command_is_left_alone_until_reconnected() {
    let world = World::new().with_realm(REALM, 2);
    let mut client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    client.told();
    assert_eq!(client.peers.disconnect(&["example.org-2.name".into(), "nobody".into()]), ["nobody"]);
    assert_eq!(client.told(), ["down 2"]);
    let before = world.asked("example.org-2").len();
    assert_eq!(client.mutate(REALM, &group).await.0, 1);
    client.peers.probe_now();
    sleep(300 * SECOND).await;
    assert_eq!(world.asked("example.org-2").len(), before, "not one packet");
    client.peers.disconnect(&[]);
    assert_eq!(client.mutate(REALM, &group).await.0, 0);
    client.peers.reconnect(&[]);
    sleep(SECOND).await;
    assert_eq!(client.mutate(REALM, &group).await.0, 2);
    assert!(client.told().contains(&"up 2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_reaches_another_server_is_no_error_for_anybody() {
    let world = World::new().with_realm(REALM, 2);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    client.mutate(REALM, &group).await;
    // The relay before server 1 now leads to server 2.
    world.restart("example.org-1");
    super::super::server::locked(&world.host("example.org-1").inner).impostor = Some(2);
    assert_eq!(client.mutate(REALM, &group).await.0, 1);
    assert_eq!(client.read(REALM, &group).await.0.0, 2);
}

#[tokio::test(start_paused = true)]
async fn no_live_member_is_a_state_with_a_name() {
    let world = World::new().with_realm(REALM, 2);
    let client = Client::new(&world);
    let group = client.group(REALM).await;
    world.set("example.org-1", Mode::Closed);
    world.set("example.org-2", Mode::Closed);
    client.mutate(REALM, &group).await;
    let body = Body::Fetch(wire::Fetch::default());
    let answer = client.peers.ask_any(REALM, &group, body, Bytes::new(), Priority::Foreground).await;
    assert_eq!(answer.err(), Some(AskError::Disconnected));
    assert!(client.peers.ask_all(REALM, &group, apply(&group), Bytes::new()).await.is_empty());
}
