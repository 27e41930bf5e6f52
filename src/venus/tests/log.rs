//! The log as people see and treat it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::world::*;
use crate::{
    cml::{Guard, Mode},
    error::Error,
    reintegration::KeptAs,
    venus::{
        VenusConfig,
        face::{Caller, Face},
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// A client that has looked at the root, of a world whose only server is gone.
async fn apart(config: VenusConfig) -> (Arc<World>, Client) {
    let world = World::new(1);
    let a = world.client_with("a", config);
    a.write("old", "old").await.unwrap();
    a.ls("").await.unwrap();
    world.kill(1);
    a.chmod("old", 0o600).await.unwrap();
    (world, a)
}

fn place(client: &Client, root: &crate::venus::face::Attr) -> (u32, coda_proto::VolumeId) {
    let _ = client;
    (root.id.realm, root.id.fid.volume)
}

#[tokio::test(start_paused = true)]
async fn a_file_written_fifty_times_is_stored_once() {
    let (world, a) = apart(VenusConfig::default()).await;
    for n in 0..50 {
        a.write("f", format!("{n}")).await.unwrap();
        a.write("big", vec![n; 50_000]).await.unwrap();
    }
    assert_eq!(a.pending(), 5, "two creates, two stores, a mode");
    world.boot(1);
    a.settled().await;
    let b = world.client("b");
    assert_eq!(b.read("f").await.unwrap(), "49");
    assert!(b.bytes("big").await.unwrap() == vec![49; 50_000]);
    assert_eq!(a.read("f").await.unwrap(), "49");
}

#[tokio::test(start_paused = true)]
async fn what_is_made_and_removed_while_apart_never_was() {
    let (world, a) = apart(VenusConfig::default()).await;
    let pending = a.pending();
    for _ in 0..3 {
        a.mkdir("build").await.unwrap();
        a.write("build/x", "x").await.unwrap();
        a.rename("build/x", "build/y").await.unwrap();
        a.unlink("build/y").await.unwrap();
        let root = a.stat("").await.unwrap().id;
        a.venus.rmdir(ME, root, b"build").await.unwrap();
    }
    assert_eq!(a.pending(), pending);
    a.mkdir("build").await.unwrap();
    let a = world.crashed(&a, "again");
    world.boot(1);
    a.settled().await;
    assert_eq!(world.client("b").ls("").await.unwrap(), ["build", "home", "old"]);
    assert_eq!(a.ls("").await.unwrap(), ["build", "home", "old"]);
    a.write("build/z", "z").await.unwrap();
    assert_eq!(a.read("build/z").await.unwrap(), "z");
}

#[tokio::test(start_paused = true)]
async fn saves_by_rename_leave_one_store_and_the_right_contents() {
    let (world, a) = apart(VenusConfig::default()).await;
    for n in 0..10 {
        a.write("old.tmp", format!("version {n}")).await.unwrap();
        a.rename("old.tmp", "old").await.unwrap();
        assert_eq!(a.read("old").await.unwrap(), format!("version {n}"));
    }
    assert_eq!(a.pending(), 5, "a mode, a create, a store, the removal of what was there first, a rename");
    world.boot(1);
    a.settled().await;
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap(), ["home", "old"]);
    assert_eq!(b.read("old").await.unwrap(), "version 9");
    assert_eq!(a.read("old").await.unwrap(), "version 9");
}

#[tokio::test(start_paused = true)]
async fn a_full_log_refuses_before_it_accepts_and_loses_nothing() {
    let (world, a) = apart(VenusConfig { log_records: 4, ..VenusConfig::default() }).await;
    a.write("f", "kept").await.unwrap();
    a.mkdir("d").await.unwrap();
    let refused = a.mkdir("e").await;
    assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    assert_eq!(a.ls("").await.unwrap(), ["d", "f", "home", "old"]);
    world.boot(1);
    a.settled().await;
    a.mkdir("e").await.unwrap();
    assert_eq!(world.client("b").ls("").await.unwrap(), ["d", "e", "f", "home", "old"]);
}

#[tokio::test(start_paused = true)]
async fn write_disconnected_changes_are_logged_until_they_are_old_enough_or_wanted() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    let root = a.stat("").await.unwrap();
    let (realm, volume) = place(&a, &root);
    let wd = |mode: &mut Mode| *mode = Mode { write_disconnected: true, age: 60, ..*mode };
    a.venus.core.set_mode(realm, volume, wd).unwrap();
    a.write("f", "x").await.unwrap();
    assert_eq!(a.venus.core.volume_mode(realm, volume, true).text(), "write-disconnected");
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(b.ls("").await.unwrap(), ["home"]);
    assert_eq!(a.pending(), 2);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(b.ls("").await.unwrap(), ["f", "home"]);
    a.write("g", "x").await.unwrap();
    a.venus.core.force(realm, volume);
    tokio::time::sleep(SECOND).await;
    assert_eq!(b.ls("").await.unwrap(), ["f", "g", "home"]);
    // It is kept over a restart.
    let a = world.crashed(&a, "again");
    assert!(a.venus.core.mode(realm, volume).write_disconnected);
    a.venus.core.set_mode(realm, volume, |mode| *mode = Mode::default()).unwrap();
    a.mkdir("d").await.unwrap();
    assert_eq!(a.pending(), 0);
    assert_eq!(a.venus.core.volume_mode(realm, volume, true).text(), "connected");
}

/// A client that removed 210 directories of `d` and wrote `f` while apart, and has had time to send it; and another.
async fn much_removed(guard: Guard) -> (Client, Client, (u32, coda_proto::VolumeId)) {
    let world = World::new(1);
    let a = world.client_with("a", VenusConfig { guard, ..VenusConfig::default() });
    a.mkdir("d").await.unwrap();
    for n in 0..210 {
        a.mkdir(&format!("d/{n}")).await.unwrap();
    }
    let dir = a.stat("d").await.unwrap();
    a.ls("d").await.unwrap();
    for n in 0..210 {
        a.ls(&format!("d/{n}")).await.unwrap();
    }
    world.kill(1);
    for n in 0..210 {
        a.venus.rmdir(ME, dir.id, n.to_string().as_bytes()).await.unwrap();
    }
    a.write("f", "goes").await.unwrap();
    world.boot(1);
    tokio::time::sleep(100 * SECOND).await;
    let b = world.client("b");
    assert_eq!(b.read("f").await.unwrap(), "goes");
    let place = place(&a, &dir);
    (a, b, place)
}

#[tokio::test(start_paused = true)]
async fn a_log_that_would_remove_much_waits_for_approval_and_says_so() {
    let (a, b, (realm, volume)) = much_removed(Guard::default()).await;
    assert_eq!(b.ls("d").await.unwrap().len(), 210);
    let reasons = a.venus.core.reasons(realm, volume, true);
    assert!(reasons.iter().any(|why| why.contains("cfs approve")), "{reasons:?}");
    assert_eq!(a.venus.core.approve(realm, volume, None), 210);
    a.settled().await;
    assert!(b.ls("d").await.unwrap().is_empty());
    assert!(Guard::default().names > 210);
}

#[tokio::test(start_paused = true)]
async fn a_purged_log_leaves_what_the_servers_have() {
    let (world, a) = apart(VenusConfig::default()).await;
    a.write("old", "changed").await.unwrap();
    a.write("new", "x").await.unwrap();
    let (realm, volume) = place(&a, &a.stat("").await.unwrap());
    assert!(a.venus.core.purge(realm, volume, None).await.unwrap() > 0);
    assert_eq!(a.pending(), 0);
    world.boot(1);
    tokio::time::sleep(70 * SECOND).await;
    assert_eq!(a.ls("").await.unwrap(), ["home", "old"]);
    assert_eq!(a.read("old").await.unwrap(), "old");
    a.write("new", "y").await.unwrap();
    assert_eq!(world.client("b").read("new").await.unwrap(), "y");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_holds_what_is_pending_and_a_report_says_why() {
    let (_world, a) = apart(VenusConfig::default()).await;
    a.mkdir("d").await.unwrap();
    a.write("d/f", "first").await.unwrap();
    a.write("d/big", vec![3; 60_000]).await.unwrap();
    a.unlink("old").await.unwrap();
    let (realm, volume) = place(&a, &a.stat("").await.unwrap());
    let checkpoint = a.venus.core.checkpoint(realm, volume).unwrap().unwrap();
    let paths: Vec<_> = checkpoint.kept.iter().map(|kept| String::from_utf8_lossy(&kept.path)).collect();
    assert_eq!(paths, ["d", "d/f", "d/big"]);
    assert!(matches!(checkpoint.kept[2].what, KeptAs::Container(_, 60_000)));
    assert!(matches!(&checkpoint.kept[1].what, KeptAs::Bytes(bytes) if bytes == "first"));
    assert!(checkpoint.lines.contains(&"Remove\told".to_owned()), "{:?}", checkpoint.lines);
    let report = a.venus.core.report(None, 10).await.unwrap();
    assert_eq!(report[0].reasons, ["no server can be reached"]);
    assert_eq!(report[0].bytes, 60_005);
    assert_eq!(report[0].state.text(), "disconnected");
}

#[tokio::test(start_paused = true)]
async fn a_metered_line_holds_what_is_logged_until_somebody_asks() {
    let world = World::new(2);
    let a = world.client_with("a", VenusConfig { metered: true, ..VenusConfig::default() });
    let b = world.client("b");
    let root = a.stat("").await.unwrap();
    let (realm, volume) = place(&a, &root);
    let began = Instant::now();
    a.write("f", "x").await.unwrap();
    assert!(began.elapsed() < SECOND / 10);
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!((a.pending(), b.ls("").await.unwrap()), (2, vec!["home".to_owned()]));
    let report = a.venus.core.report(None, 10).await.unwrap().remove(0);
    assert!(report.reasons.iter().any(|why| why.contains("metered")), "{:?}", report.reasons);
    assert_eq!(report.state.text(), "write-disconnected");
    a.venus.core.force(realm, volume);
    tokio::time::sleep(SECOND).await;
    assert_eq!((a.pending(), b.ls("").await.unwrap()), (0, vec!["f".to_owned(), "home".to_owned()]));
    // What comes later waits again; `cfs strong` says that the line may be used.
    a.write("g", "x").await.unwrap();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(a.pending(), 2);
    a.venus.core.set_mode(realm, volume, |mode| mode.strong = true).unwrap();
    a.settled().await;
    assert_eq!(b.read("g").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn what_trickles_out_takes_no_more_of_the_line_than_it_may() {
    let world = World::new(1);
    let config = VenusConfig { trickle: Some(50_000), ..VenusConfig::default() };
    let a = world.client_with("a", config);
    a.ls("").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.write("big", vec![7; 1_000_000]).await.unwrap();
    for n in 0..20 {
        a.write(&format!("f{n}"), vec![n; 10_000]).await.unwrap();
    }
    a.venus.peers().reconnect(&[]);
    let began = Instant::now();
    a.settled().await;
    let took = began.elapsed().as_secs();
    // 1.2 million bytes at 50,000 a second.
    assert!((20..=30).contains(&took), "{took} s");
    // What somebody waits for is not slowed down.
    let began = Instant::now();
    a.write("more", vec![7; 1_000_000]).await.unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_log_may_hold_so_many_bytes_and_remove_so_many_names_as_people_say() {
    let config = VenusConfig { log_bytes: 10_000, ..VenusConfig::default() };
    let (world, a) = apart(config).await;
    a.write("f", vec![1; 9_000]).await.unwrap();
    let refused = a.write("g", vec![1; 9_000]).await;
    assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    world.boot(1);
    a.settled().await;
    a.write("h", vec![1; 9_000]).await.unwrap();
    for (names, left) in [(250, 0), (205, 210)] {
        let (_a, b, _) = much_removed(Guard { names, percent: 100 }).await;
        assert_eq!(b.ls("d").await.unwrap().len(), left, "{names} may go unasked");
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_itself_back_while_apart_leaves_nothing_in_the_log() {
    let (_world, a) = apart(VenusConfig::default()).await;
    let (pending, root) = (a.pending(), a.stat("").await.unwrap().id);
    // A file that is made, written twice and removed.
    a.write("f", "one").await.unwrap();
    a.write("f", vec![2; 50_000]).await.unwrap();
    a.unlink("f").await.unwrap();
    assert_eq!(a.pending(), pending);
    // A directory, once also with something in it that has to go first.
    a.mkdir("d").await.unwrap();
    a.venus.rmdir(ME, root, b"d").await.unwrap();
    assert_eq!(a.pending(), pending);
    a.mkdir("d").await.unwrap();
    a.write("d/f", "x").await.unwrap();
    assert!(matches!(a.venus.rmdir(ME, root, b"d").await, Err(Error::NotEmpty(_))));
    a.unlink("d/f").await.unwrap();
    a.venus.rmdir(ME, root, b"d").await.unwrap();
    assert_eq!(a.pending(), pending);
    // Lock files as editors and mail programs make them: an own name, a link, and both go.
    for _ in 0..20 {
        a.write("lock.host.123", "123").await.unwrap();
        let own = a.stat("lock.host.123").await.unwrap().id;
        a.venus.link(ME, own, root, b"lock").await.unwrap();
        a.unlink("lock.host.123").await.unwrap();
        a.unlink("lock").await.unwrap();
    }
    assert_eq!(a.pending(), pending);
}

#[tokio::test(start_paused = true)]
async fn a_save_by_rename_makes_the_file_another_and_a_rewrite_leaves_it_the_same() {
    let (world, a) = apart(VenusConfig::default()).await;
    let before = a.stat("old").await.unwrap().id;
    // Whoever renames over a name means the new file, also where others know the old one.
    a.write("old.tmp", "saved").await.unwrap();
    let saved = a.stat("old.tmp").await.unwrap().id;
    a.rename("old.tmp", "old").await.unwrap();
    assert_eq!(a.stat("old").await.unwrap().id, saved);
    // Whoever writes into it means the same one.
    a.write("old", "written").await.unwrap();
    assert_eq!(a.stat("old").await.unwrap().id, saved);
    world.boot(1);
    a.settled().await;
    let b = world.client("b");
    assert_eq!(
        (b.stat("old").await.unwrap().id.fid, b.read("old").await.unwrap()),
        (saved.fid, "written".into())
    );
    assert_ne!(before, saved);
    assert_eq!(b.ls("").await.unwrap(), ["home", "old"]);
    // With a backup beside, as some editors keep it: the old file is the backup.
    a.rename("old", "old~").await.unwrap();
    a.write("old", "next").await.unwrap();
    a.settled().await;
    assert_eq!(b.stat("old~").await.unwrap().id.fid, saved.fid);
    assert_eq!(
        (b.read("old~").await.unwrap(), b.read("old").await.unwrap()),
        ("written".into(), "next".into())
    );
}

#[tokio::test(start_paused = true)]
async fn two_users_of_a_machine_work_in_one_volume_while_apart_and_neither_waits_for_the_other() {
    let (world, a) = apart(VenusConfig::default()).await;
    let root = a.stat("").await.unwrap().id;
    let other = Caller { uid: ME.uid + 1, ..ME };
    // One has a file open for writing all the while.
    let opened = a.open("mine", WRITE).await.unwrap();
    let began = Instant::now();
    for n in 0..20 {
        a.mkdir(&format!("d{n}")).await.unwrap();
        a.venus.mkdir(other, root, format!("e{n}").as_bytes(), 0o755).await.unwrap();
    }
    assert!(began.elapsed() < SECOND / 10, "{:?}", began.elapsed());
    world.boot(1);
    tokio::time::sleep(100 * SECOND).await;
    let b = world.client("b");
    let shown = b.ls("").await.unwrap();
    assert_eq!(shown.iter().filter(|name| name.starts_with('d') || name.starts_with('e')).count(), 40);
    assert_eq!(b.stat("e3").await.unwrap().uid, other.uid);
    a.close(opened).await.unwrap();
}
