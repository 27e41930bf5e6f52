//! The lid was closed, and is opened again.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep};

use super::world::*;
use crate::ops::slept;

const SECOND: Duration = Duration::from_secs(1);

/// A client that notices when its machine sleeps.
fn client(world: &Arc<World>, name: &str) -> Client {
    let client = world.client(name);
    tokio::spawn(slept::watch(Arc::downgrade(&client.venus.core)));
    client
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_what_servers_promised_is_void_and_asked_for_again() {
    let world = World::new(2);
    let (a, b) = (client(&world, "a"), world.client("b"));
    a.write("f", "one").await.unwrap();
    a.read("f").await.unwrap();
    sleep(3 * SECOND).await;
    world.calls.lock().unwrap().clear();
    a.read("f").await.unwrap();
    assert!(world.calls.lock().unwrap().is_empty(), "it was promised");
    // While it sleeps, somebody changes the file; nobody can tell it.
    world.deaf.store(true, Ordering::Relaxed);
    b.write("f", "two").await.unwrap();
    world.asleep.store(3600, Ordering::Relaxed);
    sleep(2 * SECOND).await;
    world.deaf.store(false, Ordering::Relaxed);
    assert_eq!(a.read("f").await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn within_two_seconds_of_the_network_being_back_servers_are_used_again_and_the_log_is_sent() {
    let world = World::new(2);
    let a = client(&world, "a");
    a.write("f", "one").await.unwrap();
    a.ls("").await.unwrap();
    (1..=2).for_each(|id| world.weather(id, Weather::Closed));
    a.write("g", "made on the train").await.unwrap();
    // By now dead servers are looked for once a minute.
    sleep(900 * SECOND).await;
    world.asleep.store(3600, Ordering::Relaxed);
    // The machine wakes before its network does.
    sleep(5 * SECOND).await;
    assert!(a.pending() > 0);
    (1..=2).for_each(|id| world.weather(id, Weather::Fine));
    a.venus.peers().probe_now();
    let began = Instant::now();
    while a.pending() > 0 {
        sleep(SECOND / 20).await;
        assert!(began.elapsed() <= 2 * SECOND, "{:?}", a.venus.peers().status());
    }
    assert_eq!(world.client("b").read("g").await.unwrap(), "made on the train");
}

#[tokio::test(start_paused = true)]
async fn a_venus_that_was_frozen_goes_on_and_believes_nothing_from_before() {
    let world = World::new(2);
    let (a, b) = (client(&world, "a"), world.client("b"));
    a.write("f", "one").await.unwrap();
    a.read("f").await.unwrap();
    sleep(3 * SECOND).await;
    for gap in [5, 20, 100] {
        // Nothing of it runs, and nothing that servers say is heard.
        world.deaf.store(true, Ordering::Relaxed);
        let text = format!("changed within {gap} s");
        b.write("f", &text).await.unwrap();
        tokio::time::advance(gap * SECOND).await;
        sleep(SECOND).await;
        world.deaf.store(false, Ordering::Relaxed);
        assert_eq!(a.read("f").await.unwrap(), text);
        a.write("g", &text).await.unwrap();
        assert_eq!(a.pending(), 0, "{:?}", a.venus.peers().status());
        assert_eq!(b.read("g").await.unwrap(), text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_comes_back_without_a_word_is_found_by_probes_or_by_whoever_wants_it() {
    for (away, found, wanted) in [(60, 62, false), (900, 62, false), (900, 6, true)] {
        let world = World::new(1);
        let a = client(&world, "a");
        a.write("f", "one").await.unwrap();
        a.ls("").await.unwrap();
        // As a portal does that wants to be logged in to.
        world.weather(1, Weather::Hung);
        a.write("g", "behind a portal").await.unwrap();
        sleep(away * SECOND).await;
        world.weather(1, Weather::Fine);
        let began = Instant::now();
        while a.pending() > 0 {
            sleep(SECOND).await;
            if wanted {
                let _ = a.read("not cached").await;
            }
            assert!(began.elapsed() <= found * SECOND, "{away} {wanted}: {:?}", a.venus.peers().status());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn news_of_the_network_make_probes_frequent_again() {
    let world = World::new(1);
    let a = client(&world, "a");
    a.write("f", "one").await.unwrap();
    world.weather(1, Weather::Closed);
    a.write("g", "x").await.unwrap();
    sleep(900 * SECOND).await;
    a.venus.peers().probe_now();
    // An address is there, and a way to the servers a little later; of that nobody tells.
    sleep(SECOND * 3 / 2).await;
    world.weather(1, Weather::Fine);
    sleep(2 * SECOND).await;
    assert_eq!(a.pending(), 0);
}
