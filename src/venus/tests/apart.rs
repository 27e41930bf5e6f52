//! Work without servers, and what becomes of it when they are there again.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::world::*;
use crate::{error::Error, venus::face::Face};

const SECOND: Duration = Duration::from_secs(1);

fn away(world: &Arc<World>, servers: u8) {
    (1..=servers).for_each(|id| world.kill(id));
}

fn back(world: &Arc<World>, servers: u8) {
    (1..=servers).for_each(|id| world.boot(id));
}

#[tokio::test(start_paused = true)]
async fn what_is_done_apart_is_there_at_once_and_everywhere_later() {
    let world = World::new(2);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    a.write("d/old", "old").await.unwrap();
    a.write("gone", "x").await.unwrap();
    a.ls("d").await.unwrap();
    a.ls("").await.unwrap();
    away(&world, 2);
    let big = vec![7; 200_000];
    a.write("d/old", "changed").await.unwrap();
    a.write("d/new", "new").await.unwrap();
    a.mkdir("d/e").await.unwrap();
    a.write("d/e/big", &big).await.unwrap();
    a.unlink("gone").await.unwrap();
    a.rename("d/new", "d/e/moved").await.unwrap();
    let seen = async |client: &Client| {
        assert_eq!(client.read("d/old").await.unwrap(), "changed");
        assert_eq!(client.read("d/e/moved").await.unwrap(), "new");
        assert!(client.bytes("d/e/big").await.unwrap() == big);
        assert_eq!(client.ls("d").await.unwrap(), ["e", "old"]);
        assert_eq!(client.ls("").await.unwrap(), ["d", "home"]);
    };
    seen(&a).await;
    let a = world.crashed(&a, "again");
    seen(&a).await;
    assert!(a.pending() > 0);
    back(&world, 2);
    a.settled().await;
    seen(&a).await;
    seen(&world.client("b")).await;
    assert!(a.spooled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn losing_all_servers_costs_one_stall_and_no_error() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    world.weather(1, Weather::Hung);
    world.weather(2, Weather::Hung);
    let began = Instant::now();
    a.mkdir("d").await.unwrap();
    assert!(began.elapsed() <= 16 * SECOND, "{:?}", began.elapsed());
    let began = Instant::now();
    for n in 0..50 {
        a.write(&format!("d/f{n}"), "x").await.unwrap();
    }
    assert!(began.elapsed() <= SECOND / 10, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_cached_is_a_clear_error_while_apart() {
    let world = World::new(2);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    world.client("b").write("d/other", "x").await.unwrap();
    a.ls("").await.unwrap();
    a.ls("d").await.unwrap();
    away(&world, 2);
    assert!(matches!(a.read("d/other").await, Err(Error::Disconnected(_))));
    assert!(matches!(a.write("home/f", "x").await, Err(Error::Disconnected(_))));
    assert!(matches!(a.read("d/none").await, Err(Error::NotFound(_))));
    // Whether it is empty nobody can say.
    let refused = a.venus.rmdir(ME, a.stat("").await.unwrap().id, b"home").await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_made_apart_at_both_sides_shows_twice() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.ls("").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.write("same", "of a").await.unwrap();
    b.write("same", "of b").await.unwrap();
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    let shown = a.ls("").await.unwrap();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown, b.ls("").await.unwrap());
    let mut contents = vec![a.read(&shown[1]).await.unwrap(), a.read(&shown[2]).await.unwrap()];
    contents.sort();
    assert_eq!(contents, ["of a", "of b"]);
}

#[tokio::test(start_paused = true)]
async fn many_records_travel_in_few_calls() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    away(&world, 2);
    for n in 0..400 {
        a.write(&format!("f{n:03}"), format!("{n}")).await.unwrap();
    }
    assert_eq!(a.pending(), 800);
    back(&world, 2);
    world.counted("apply");
    a.settled().await;
    assert!(world.counted("apply") <= 4);
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap().len(), 401);
    assert_eq!(b.read("f399").await.unwrap(), "399");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_during_reintegration_do_nothing_twice() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    away(&world, 2);
    for n in 0..20 {
        a.write(&format!("f{n:02}"), "first").await.unwrap();
    }
    back(&world, 2);
    world.weather(1, Weather::LosesAnswers(1));
    world.weather(2, Weather::LosesAnswers(1));
    a.settled().await;
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap().len(), 21);
    assert_eq!(b.read("f07").await.unwrap(), "first");
    a.write("f07", "second").await.unwrap();
    assert_eq!(b.read("f07").await.unwrap(), "second");
}

/// A laptop's disk is put back to what it was before its log was sent. It sends the log once more, in the name of an
/// author whose records are known, and goes on as another.
#[tokio::test(start_paused = true)]
async fn a_laptop_restored_to_yesterday_does_nothing_twice_and_loses_nothing() {
    let world = World::new(2);
    let (a, b) = (world.client("laptop"), world.client("desk"));
    for name in ["f", "kept", "old", "moves"] {
        a.write(name, "yesterday").await.unwrap();
    }
    b.ls("").await.unwrap();
    away(&world, 2);
    a.write("f", "on the train").await.unwrap();
    a.write("new", "made on the train").await.unwrap();
    a.unlink("old").await.unwrap();
    a.rename("moves", "moved").await.unwrap();
    a.mkdir("d").await.unwrap();
    a.write("d/x", "deep").await.unwrap();
    let waits = a.pending();
    assert!(waits > 5);
    let yesterday = world.crashed_dir(&a, "yesterday");
    back(&world, 2);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(a.pending(), 0);
    // Life goes on: what was sent is changed again, here and there, and some of it removed.
    assert_eq!(b.read("f").await.unwrap(), "on the train");
    b.write("f", "at the desk").await.unwrap();
    a.write("new", "changed at home").await.unwrap();
    a.write("later", "made at home").await.unwrap();
    b.unlink("d/x").await.unwrap();
    b.unlink("moved").await.unwrap();
    a.write("old", "another of that name").await.unwrap();
    drop(a);

    assert!(yesterday.exists());
    let restored = world.client("yesterday");
    assert_eq!(restored.pending(), waits, "its log is what it was");
    restored.ls("").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(restored.pending(), 0);
    assert!(restored.spooled().is_empty());
    for client in [&restored, &b] {
        assert_eq!(client.ls("").await.unwrap(), ["d", "f", "home", "kept", "later", "new", "old"]);
        assert!(client.ls("d").await.unwrap().is_empty());
        for (name, contents) in [
            ("f", "at the desk"),
            ("new", "changed at home"),
            ("later", "made at home"),
            ("old", "another of that name"),
            ("kept", "yesterday"),
        ] {
            assert_eq!(client.read(name).await.unwrap(), contents, "{name}");
        }
    }
    // What it does from now on is new to everybody.
    restored.write("f", "after the accident").await.unwrap();
    restored.write("kept", "changed").await.unwrap();
    assert_eq!(b.read("f").await.unwrap(), "after the accident");
    assert_eq!(b.read("kept").await.unwrap(), "changed");
}

#[tokio::test(start_paused = true)]
async fn a_file_written_again_while_its_store_waits_is_sent_as_it_was_and_as_it_is() {
    let world = World::new(1);
    let a = world.client("a");
    a.ls("").await.unwrap();
    away(&world, 1);
    a.write("f", vec![1; 100_000]).await.unwrap();
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, b"begun").unwrap();
    back(&world, 1);
    a.settled().await;
    let b = world.client("b");
    assert!(b.bytes("f").await.unwrap() == vec![1; 100_000]);
    a.close(opened).await.unwrap();
    let now = b.bytes("f").await.unwrap();
    assert!(now.starts_with(b"begun") && now.len() == 100_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_quota_waits_and_the_rest_goes() {
    let world = World::new(1);
    let a = world.client("a");
    a.write("small", "x").await.unwrap();
    a.mkdir("d").await.unwrap();
    a.write("d/inside", "x").await.unwrap();
    a.ls("d").await.unwrap();
    let root = a.stat("").await.unwrap().id;
    a.venus.core.set_quota(ME.uid, root, 1).await.unwrap();
    away(&world, 1);
    a.mkdir("more").await.unwrap();
    a.chmod("d/inside", 0o600).await.unwrap();
    back(&world, 1);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(a.pending(), 1, "the mkdir waits");
    let b = world.client("b");
    assert_eq!(b.stat("d/inside").await.unwrap().mode, 0o600);
    b.venus.core.set_quota(ME.uid, root, 0).await.unwrap();
    a.settled().await;
    assert_eq!(b.ls("").await.unwrap(), ["d", "home", "more", "small"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_what_was_removed_elsewhere_is_given_up_and_its_contents_are_not() {
    let world = World::new(1);
    let (a, b) = (world.client("a"), world.client("b"));
    for name in ["f", "g"] {
        a.write(name, "old").await.unwrap();
    }
    b.ls("").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.chmod("f", 0o600).await.unwrap();
    a.chmod("g", 0o600).await.unwrap();
    a.write("g", "new").await.unwrap();
    b.unlink("f").await.unwrap();
    b.unlink("g").await.unwrap();
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    // What was written comes back; what was only touched does not.
    assert_eq!(b.ls("").await.unwrap(), ["g", "home"]);
    assert_eq!(b.read("g").await.unwrap(), "new");
    assert_eq!(a.ls("").await.unwrap(), ["g", "home"]);
}

#[tokio::test(start_paused = true)]
async fn who_was_not_told_that_a_file_came_back_learns_it_afterwards() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "old").await.unwrap();
    b.ls("").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.write("f", "new").await.unwrap();
    b.unlink("f").await.unwrap();
    assert_eq!(b.ls("").await.unwrap(), ["home"]);
    b.venus.peers().disconnect(&[]);
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    b.venus.peers().reconnect(&[]);
    // Somebody looks, and servers are found.
    b.ls("").await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(b.ls("").await.unwrap(), ["f", "home"]);
    assert_eq!(b.read("f").await.unwrap(), "new");
}

/// A file that one renamed apart while another removed it, which all members hold. `given_up`: and what it held is on no
/// disk any more.
async fn renamed_apart_and_removed(given_up: bool) -> (Arc<World>, Client) {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "wanted").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.rename("f", "g").await.unwrap();
    b.unlink("f").await.unwrap();
    // It says that all hold it soon, and that is committed with what comes next.
    tokio::time::sleep(20 * SECOND).await;
    b.write("next", "x").await.unwrap();
    for id in [1, 2] {
        for volume in world.server(id).volumes().into_values() {
            let give_up = move |txn: &mut coda_server::store::Txn<'_>| {
                Ok(given_up && txn.remaining()? == 6 && !txn.thin_remains(true)?)
            };
            volume.write(give_up, |_| {}).await.unwrap();
        }
    }
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    let c = world.client("c");
    assert_eq!(c.ls("").await.unwrap(), ["g", "home", "next"]);
    (world, c)
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_removed_and_renamed_apart_has_what_it_held() {
    let (_world, c) = renamed_apart_and_removed(false).await;
    assert_eq!(c.read("g").await.unwrap(), "wanted");
}

#[tokio::test(start_paused = true)]
async fn if_that_was_given_up_it_is_said_and_the_name_can_be_removed_or_written() {
    let (_world, c) = renamed_apart_and_removed(true).await;
    let Err(Error::Io(what, why)) = c.read("g").await else { panic!("there is nothing to read") };
    assert!(what.ends_with("/g") && why.starts_with("none of its servers has its contents"), "{what}: {why}");
    c.write("g", "anew").await.unwrap();
    assert_eq!(c.read("g").await.unwrap(), "anew");
    c.unlink("g").await.unwrap();
    let (_world, c) = renamed_apart_and_removed(true).await;
    c.unlink("g").await.unwrap();
    assert_eq!(c.ls("").await.unwrap(), ["home", "next"]);
}

#[tokio::test(start_paused = true)]
async fn access_lists_and_quotas_need_a_server() {
    let world = World::new(1);
    let a = world.client("a");
    let root = a.stat("").await.unwrap().id;
    a.ls("").await.unwrap();
    away(&world, 1);
    assert!(matches!(a.venus.core.set_quota(ME.uid, root, 7).await, Err(Error::Disconnected(_))));
    a.mkdir("d").await.unwrap();
    assert!(matches!(a.venus.core.set_quota(ME.uid, root, 7).await, Err(Error::Disconnected(_))));
    assert_eq!(a.ls("").await.unwrap(), ["d", "home"]);
}

#[tokio::test(start_paused = true)]
async fn on_a_weak_line_a_chunk_goes_to_one_member_which_passes_it_on() {
    let world = World::new(3);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    a.ls("d").await.unwrap();
    let id = a.stat("d").await.unwrap().id;
    (0..3).for_each(|_| a.venus.core.note_transfer(id, 20_000, SECOND));
    world.calls.lock().unwrap().clear();
    a.write("d/big", vec![7; 100_000]).await.unwrap();
    a.write("d/small", "x").await.unwrap();
    a.mkdir("d/e").await.unwrap();
    a.settled().await;
    a.write("d/e/more", "y").await.unwrap();
    a.settled().await;
    let sent = |(_, call): &&(u8, &str)| ["apply", "upload"].contains(call);
    let to: std::collections::BTreeSet<u8> =
        world.calls.lock().unwrap().iter().filter(sent).map(|(server, _)| *server).collect();
    assert_eq!(to.len(), 1, "{to:?}");
    // The others have it by themselves soon.
    tokio::time::sleep(20 * SECOND).await;
    let one = *to.first().unwrap();
    world.kill(one);
    let b = world.client("b");
    assert!(b.bytes("d/big").await.unwrap() == vec![7; 100_000]);
    assert_eq!(
        (b.read("d/small").await.unwrap(), b.read("d/e/more").await.unwrap()),
        ("x".into(), "y".into())
    );
    // And when that one is away, another gets what comes next.
    a.write("d/small", "changed").await.unwrap();
    a.settled().await;
    assert_eq!(b.read("d/small").await.unwrap(), "changed");
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_wait_for_servers_does_and_nobody_else() {
    let world = World::new(1);
    world.client("b").write("f", "x").await.unwrap();
    let a = world.client("a");
    let root = a.stat("").await.unwrap().id;
    world.kill(1);
    assert!(matches!(a.read("f").await, Err(Error::Disconnected(_))));
    a.venus.core.wait_forever(ME.uid, None, true);
    let other = crate::venus::face::Caller { uid: ME.uid + 1, ..ME };
    let refused = a.venus.lookup(other, root, b"f").await;
    assert!(matches!(refused, Err(Error::Disconnected(_))), "{refused:?}");
    let waits = a.read("f");
    tokio::pin!(waits);
    assert!(tokio::time::timeout(3600 * SECOND, &mut waits).await.is_err(), "it waits");
    world.boot(1);
    let began = Instant::now();
    assert_eq!(waits.await.unwrap(), "x");
    assert!(began.elapsed() <= 61 * SECOND, "{:?}", began.elapsed());
    // Who waits and no longer wants to is told at once.
    let c = world.client("c");
    c.ls("").await.unwrap();
    world.kill(1);
    c.venus.core.wait_forever(ME.uid, None, true);
    let waits = c.read("f");
    tokio::pin!(waits);
    assert!(tokio::time::timeout(60 * SECOND, &mut waits).await.is_err());
    c.venus.core.wait_forever(ME.uid, None, false);
    let began = Instant::now();
    assert!(matches!(waits.await, Err(Error::Disconnected(_))));
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
}
