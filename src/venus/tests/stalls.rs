//! What a server that has stopped costs, and whom.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::world::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_for_a_server_that_has_stopped() {
    let world = World::new(2);
    let a = world.client("a");
    for name in ["f", "g", "h"] {
        a.write(name, name).await.unwrap();
    }
    for stopped in [1, 2] {
        let b = world.client(&format!("b{stopped}"));
        assert_eq!(b.read("f").await.unwrap(), "f");
        world.weather(stopped, Weather::Hung);
        let began = Instant::now();
        assert_eq!(b.read("g").await.unwrap(), "g");
        let first = began.elapsed();
        assert!(first <= 2 * SECOND, "{first:?}");
        let began = Instant::now();
        assert_eq!(b.read("h").await.unwrap(), "h");
        let second = began.elapsed();
        assert!(second <= SECOND / 2, "{second:?}");
        world.weather(stopped, Weather::Fine);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_writers_share_the_stall_of_one_server() {
    let world = World::new(3);
    let a = world.client("a");
    a.write("f", "one").await.unwrap();
    world.weather(3, Weather::Hung);
    let began = Instant::now();
    let names: Vec<String> = (0..10).map(|i| format!("f{i}")).collect();
    for done in join_all(names.iter().map(|name| a.write(name, "x"))).await {
        done.unwrap();
    }
    assert!(began.elapsed() <= 17 * SECOND, "{:?}", began.elapsed());
    let began = Instant::now();
    a.write("g", "x").await.unwrap();
    a.mkdir("d").await.unwrap();
    assert!(began.elapsed() <= SECOND / 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_takes_longer_than_the_silence_limit_when_every_server_has_stopped() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "cached").await.unwrap();
    a.ls("").await.unwrap();
    world.weather(1, Weather::Hung);
    world.weather(2, Weather::Hung);
    let began = Instant::now();
    a.mkdir("first").await.unwrap();
    assert!(began.elapsed() <= 16 * SECOND, "{:?}", began.elapsed());
    let began = Instant::now();
    a.mkdir("second").await.unwrap();
    assert_eq!(a.read("f").await.unwrap(), "cached");
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
    // A client that never met them gives up in time too, and then at once.
    let b = world.client("b");
    let began = Instant::now();
    assert!(b.read("f").await.is_err());
    assert!(began.elapsed() <= 17 * SECOND, "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(b.read("f").await.is_err());
    assert!(began.elapsed() <= 3 * SECOND / 2, "{:?}", began.elapsed());
    world.weather(1, Weather::Fine);
    world.weather(2, Weather::Fine);
    tokio::time::sleep(10 * SECOND).await;
    a.read("f").await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    a.mkdir("yes").await.unwrap();
    assert_eq!(b.read("f").await.unwrap(), "cached");
}

#[tokio::test(start_paused = true)]
async fn the_death_of_one_server_voids_nothing_that_the_others_promised() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "one").await.unwrap();
    a.read("f").await.unwrap();
    world.kill(2);
    tokio::time::sleep(SECOND).await;
    world.calls.lock().unwrap().clear();
    assert_eq!(a.read("f").await.unwrap(), "one");
    assert_eq!(world.counted("getattr"), 0);
    // What others change now still reaches us through the survivor.
    let b = world.client("b");
    b.write("f", "two").await.unwrap();
    assert_eq!(a.read("f").await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_resolving_as_long_as_its_servers_are_asked_to_agree() {
    let world = World::new(2);
    let a = world.client("a");
    let id = a.stat("").await.unwrap().id;
    let core = a.venus.core.clone();
    let resolving = || core.is_resolving(id.realm, id.fid.volume);
    assert!(!resolving());
    (1..=2).for_each(|server| world.weather(server, Weather::Hung));
    let asking = core.clone();
    let asked = tokio::spawn(async move { asking.resolve(id, crate::env::Priority::Foreground).await });
    tokio::time::sleep(SECOND).await;
    assert!(resolving());
    assert!(!asked.await.unwrap());
    assert!(!resolving());
}
