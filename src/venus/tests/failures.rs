//! Servers that die, answers that are lost, and starts after crashes.

use std::time::Duration;

use tokio::time::Instant;

use super::world::*;
use crate::{error::Error, venus::face::Face};

#[tokio::test(start_paused = true)]
async fn one_dead_server_of_two_is_not_noticed() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "one").await.unwrap();
    world.kill(2);
    a.write("f", "two").await.unwrap();
    a.mkdir("d").await.unwrap();
    a.write("d/g", "g").await.unwrap();
    assert_eq!(a.read("f").await.unwrap(), "two");
    let b = world.client("b");
    assert_eq!(b.read("f").await.unwrap(), "two");
    assert_eq!(b.read("d/g").await.unwrap(), "g");
}

#[tokio::test(start_paused = true)]
async fn without_servers_what_is_cached_is_read() {
    let world = World::new(2);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    a.write("d/f", "cached").await.unwrap();
    a.ls("d").await.unwrap();
    world.kill(1);
    world.kill(2);
    assert_eq!(a.read("d/f").await.unwrap(), "cached");
    assert_eq!(a.ls("d").await.unwrap(), ["f"]);
    assert_eq!(a.ls("").await.unwrap(), ["d", "home"]);
    world.boot(1);
    world.boot(2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    a.mkdir("yes").await.unwrap();
    assert_eq!(a.ls("").await.unwrap(), ["d", "home", "yes"]);
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_costs_one_stall() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "one").await.unwrap();
    world.weather(2, Weather::Hung);
    let began = Instant::now();
    a.write("f", "two").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(17), "{:?}", began.elapsed());
    let began = Instant::now();
    a.write("f", "three").await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!(a.read("f").await.unwrap(), "three");
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_by_all_is_a_mutation_done_once_at_most() {
    let world = World::new(1);
    let a = world.client("a");
    a.ls("").await.unwrap();
    world.weather(1, Weather::LosesAnswers(1));
    let made = a.mkdir("d").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    // Whatever was told, what is there now is one directory or none, and it works.
    match made {
        Ok(_) => assert_eq!(a.ls("").await.unwrap(), ["d", "home"]),
        Err(_) => drop(a.mkdir("d").await),
    }
    a.write("d/f", "f").await.unwrap();
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap(), ["d", "home"]);
    assert_eq!(b.read("d/f").await.unwrap(), "f");
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_by_one_member_is_not_noticed() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    world.weather(1, Weather::LosesAnswers(1));
    a.write("f", "f").await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    a.write("f", "g").await.unwrap();
    let b = world.client("b");
    assert_eq!(b.read("f").await.unwrap(), "g");
    assert_eq!(b.ls("").await.unwrap(), ["f", "home"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_cache_and_what_was_being_written() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "kept").await.unwrap();
    let opened = a.open("open", WRITE).await.unwrap();
    opened.container.write_at(0, b"not yet stored").unwrap();
    world.calls.lock().unwrap().clear();
    let a = world.crashed(&a, "again");
    assert!(world.calls.lock().unwrap().is_empty(), "a start sends nothing");
    assert_eq!(a.spooled(), ["not yet stored"]);
    assert_eq!(a.read("f").await.unwrap(), "kept");
    assert_eq!(world.counted("fetch"), 0, "the contents were here");
    assert_eq!(a.read("open").await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_start_without_any_server_shows_what_is_cached() {
    let world = World::new(2);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    a.write("d/f", "cached").await.unwrap();
    a.ls("d").await.unwrap();
    a.ls("").await.unwrap();
    world.kill(1);
    world.kill(2);
    let a = world.crashed(&a, "again");
    assert_eq!(a.read("d/f").await.unwrap(), "cached");
    assert_eq!(a.ls("d").await.unwrap(), ["f"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_in_the_log_is_sent_again_and_done_once() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    world.weather(1, Weather::Hung);
    world.weather(2, Weather::Hung);
    let mut making = Box::pin(a.mkdir("d"));
    tokio::time::timeout(Duration::from_secs(1), &mut making).await.unwrap_err();
    let again = world.crashed(&a, "again");
    drop(making);
    drop(a);
    world.weather(1, Weather::Fine);
    world.weather(2, Weather::Fine);
    let a = again;
    a.write("f", "f").await.unwrap();
    assert_eq!(a.ls("").await.unwrap(), ["d", "f", "home"]);
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap(), ["d", "f", "home"]);
    a.write("d/x", "x").await.unwrap();
    assert_eq!(b.read("d/x").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn contents_that_cannot_be_stored_go_to_the_spool() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "old").await.unwrap();
    let root = a.stat("").await.unwrap().id;
    a.venus.core.set_quota(ME.uid, root, 1).await.unwrap();
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, &[b'p'; 10_000]).unwrap();
    assert!(matches!(a.close(opened).await, Err(Error::Quota(_))));
    assert_eq!(a.spooled(), ["p".repeat(10_000)]);
    assert_eq!(a.read("f").await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn the_version_a_returning_server_missed_is_not_read_from_it() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "one").await.unwrap();
    world.kill(2);
    a.write("f", "two").await.unwrap();
    world.boot(2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let b = world.client("b");
    assert_eq!(b.read("f").await.unwrap(), "two");
    assert_eq!(a.read("f").await.unwrap(), "two");
    a.write("f", "three").await.unwrap();
    assert_eq!(b.read("f").await.unwrap(), "three");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_realm_has_is_refused_at_once() {
    let world = World::new(1);
    let a = world.client("a");
    for name in [&b".Trash"[..], b"autorun.inf", b"a b"] {
        let found = a.venus.lookup(ME, a.venus.root(), name).await;
        assert!(matches!(found, Err(Error::NotFound(_))), "{found:?}");
    }
    assert!(matches!(
        a.venus.lookup(ME, a.venus.root(), b"nowhere.example").await,
        Err(Error::UnknownRealm(_) | Error::NotFound(_))
    ));
    assert!(world.calls.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_names_made_at_once_only_the_refused_one_fails() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.ls("").await.unwrap();
    let root = a.stat("").await.unwrap().id;
    b.mkdir("d07").await.unwrap();
    // Its break is not heard: what is cached says that the name is free.
    a.venus.core.cache.believe_for_test(root);
    let names: Vec<String> = (0..20).map(|n| format!("d{n:02}")).collect();
    let made =
        futures::future::join_all(names.iter().map(|n| a.venus.mkdir(ME, root, n.as_bytes(), 0o755))).await;
    let failed: Vec<_> = (0..20).filter(|n| made[*n].is_err()).collect();
    assert_eq!(failed, [7], "{made:?}");
    assert_eq!(a.ls("").await.unwrap().len(), 21);
    assert_eq!(b.ls("").await.unwrap().len(), 21);
}

#[tokio::test(start_paused = true)]
async fn names_made_at_once_are_all_logged_where_nobody_answers() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    let root = a.stat("").await.unwrap().id;
    world.weather(1, Weather::Hung);
    world.weather(2, Weather::Hung);
    let names: Vec<String> = (0..20).map(|n| format!("d{n:02}")).collect();
    let made =
        futures::future::join_all(names.iter().map(|n| a.venus.mkdir(ME, root, n.as_bytes(), 0o755))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    assert_eq!(a.ls("").await.unwrap().len(), 21);
    world.weather(1, Weather::Fine);
    world.weather(2, Weather::Fine);
    tokio::time::sleep(Duration::from_secs(120)).await;
    a.mkdir("d").await.unwrap();
    let b = world.client("b");
    assert_eq!(a.ls("").await.unwrap().len(), 22);
    assert_eq!(b.ls("").await.unwrap().len(), 22);
}

#[tokio::test(start_paused = true)]
async fn a_large_store_that_a_crash_left_is_finished() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "old").await.unwrap();
    let contents = vec![7; 100_000];
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, &contents).unwrap();
    world.weather(1, Weather::HangsOnApply);
    world.weather(2, Weather::HangsOnApply);
    let mut closing = Box::pin(a.close(opened));
    tokio::time::timeout(Duration::from_secs(1), &mut closing).await.unwrap_err();
    let again = world.crashed(&a, "again");
    drop(closing);
    drop(a);
    for id in [1, 2] {
        world.kill(id);
        world.boot(id);
    }
    again.mkdir("d").await.unwrap();
    assert!(again.spooled().is_empty(), "{:?}", again.venus.events().listen(100).0);
    assert!(again.bytes("f").await.unwrap() == contents);
    assert!(world.client("b").bytes("f").await.unwrap() == contents);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_changed_where_nobody_answers_is_shown_as_it_was_listed() {
    let world = World::new(2);
    let (a, b, c) = (world.client("a"), world.client("b"), world.client("c"));
    a.mkdir("d").await.unwrap();
    a.write("d/x", "x").await.unwrap();
    assert_eq!(b.ls("d").await.unwrap(), ["x"]);
    world.weather(2, Weather::Closed);
    a.write("d/y", "y").await.unwrap();
    // Both see that it changed, and neither sees how; one has never listed it.
    for client in [&b, &c] {
        client.stat("d").await.unwrap();
    }
    world.weather(1, Weather::Closed);
    world.weather(2, Weather::Fine);
    tokio::time::sleep(Duration::from_secs(20)).await;
    for client in [&b, &c] {
        assert_eq!(client.ls("d").await.unwrap(), ["x"], "the only survivor missed the change");
    }
    world.weather(1, Weather::Fine);
    tokio::time::sleep(Duration::from_secs(60)).await;
    for client in [&b, &c] {
        assert_eq!(client.ls("d").await.unwrap(), ["x", "y"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_server_takes_is_kept_also_while_the_file_is_open() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "old").await.unwrap();
    a.venus.peers().disconnect(&[]);
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, b"new").unwrap();
    // One descriptor of two is closed: what was written is acknowledged.
    a.venus.flush(ME, opened.handle).await.unwrap();
    b.unlink("f").await.unwrap();
    // As after years.
    let all = coda_server::store::Due { before: i64::MAX, keep: 0, included: u64::MAX, at_once: 1000 };
    for id in [1, 2] {
        for volume in world.server(id).volumes().into_values() {
            volume.write(move |txn| Ok(txn.forget_due(&all, 1)?), |_| {}).await.unwrap();
        }
    }
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    assert_eq!(a.spooled(), ["new"]);
    a.close(opened).await.unwrap();
    assert_eq!(a.spooled(), ["new"]);
    assert_eq!(a.ls("").await.unwrap(), ["home"]);
}
