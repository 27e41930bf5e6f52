//! Several users of one machine: each has a log and an author of their own, and nobody waits for what another has to
//! send, unless it is built on that.

use std::{collections::BTreeSet, time::Duration};

use coda_proto::{Acl, Author, Rights, acl::ANYUSER};
use tokio::time::Instant;

use super::world::*;
use crate::{
    error::Error,
    venus::{
        VenusConfig,
        face::{Face, RenameMode},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const OTHER: u32 = ME.uid + 1;

/// What is in the log: whose, by which author, and what.
fn logged(client: &Client) -> Vec<(u32, Author, &'static str)> {
    let rows = client.venus.core.cache.store(|store| store.log()).unwrap();
    let shown = |row: crate::store::LogRow| (row.uid.unwrap(), row.record.dot.author, row.record.op.verb());
    rows.into_iter().map(shown).collect()
}

/// How many records of a user are in the log.
fn pending(client: &Client, uid: u32) -> usize {
    logged(client).iter().filter(|(of, ..)| *of == uid).count()
}

async fn allow(client: &Client, path: &str, rights: Rights) {
    let dir = client.stat(path).await.unwrap().id;
    let acl = Acl { positive: [(ANYUSER.to_owned(), rights)].into(), ..Acl::default() };
    client.venus.set_acl(dir, &acl).await.unwrap();
}

/// Two users of a machine that has seen the directories `closed` and `open`, and is apart; and a client elsewhere that has
/// taken away the right to make anything in `closed`.
async fn apart() -> (std::sync::Arc<World>, Client, Client, Client) {
    let world = World::new(1);
    let a = world.client("a");
    for dir in ["closed", "open"] {
        a.mkdir(dir).await.unwrap();
        a.write(&format!("{dir}/old"), "old").await.unwrap();
        a.ls(dir).await.unwrap();
    }
    a.ls("").await.unwrap();
    a.venus.peers().disconnect(&[]);
    let elsewhere = world.client("elsewhere");
    let rights = Rights(Rights::READ.0 | Rights::LOOKUP.0 | Rights::ADMINISTER.0);
    allow(&elsewhere, "closed", rights).await;
    let b = a.user(OTHER);
    (world, a, b, elsewhere)
}

#[tokio::test(start_paused = true)]
async fn a_small_save_goes_out_at_once_whatever_another_user_has_to_send() {
    let world = World::new(1);
    let a = world.client("a");
    let b = a.user(OTHER);
    for dir in ["bulk", "notes"] {
        a.mkdir(dir).await.unwrap();
        a.ls(dir).await.unwrap();
    }
    a.venus.peers().disconnect(&[]);
    for n in 0..40 {
        a.write(&format!("bulk/{n}"), vec![n; 100_000]).await.unwrap();
    }
    world.weather(1, Weather::Crawls(60 * SECOND));
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(pending(&a, ME.uid), 80, "it is on its way");
    let elsewhere = world.client("elsewhere");
    let began = Instant::now();
    b.write("notes/small", "of the other").await.unwrap();
    b.mkdir("notes/d").await.unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    tokio::time::sleep(SECOND).await;
    assert_eq!(elsewhere.read("notes/small").await.unwrap(), "of the other");
    assert_eq!((pending(&a, OTHER), pending(&a, ME.uid)), (0, 80));
    world.weather(1, Weather::Fine);
    a.settled().await;
    assert_eq!(elsewhere.ls("bulk").await.unwrap().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_of_one_user_holds_back_nothing_of_another() {
    let (_world, a, b, elsewhere) = apart().await;
    a.mkdir("closed/d").await.unwrap();
    a.mkdir("closed/d/e").await.unwrap();
    b.write("open/f", "x").await.unwrap();
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((pending(&a, ME.uid), pending(&a, OTHER)), (2, 0));
    assert_eq!(elsewhere.read("open/f").await.unwrap(), "x");
    // And what he does from now on is done when it returns.
    b.mkdir("open/d").await.unwrap();
    assert_eq!(elsewhere.ls("open").await.unwrap(), ["d", "f", "old"]);
    allow(&b, "open", Rights::ALL).await;
    let report = a.venus.core.report(None, 10).await.unwrap().remove(0);
    assert_eq!(report.users, [(ME.uid, 2, 0)]);
    assert!(report.lines.iter().all(|line| line.uid == ME.uid && !line.why.is_empty()), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_built_on_what_another_user_did_waits_for_that_and_then_goes() {
    let (_world, a, b, elsewhere) = apart().await;
    a.mkdir("closed/d").await.unwrap();
    b.write("closed/d/f", "inside").await.unwrap();
    b.write("open/f", "beside").await.unwrap();
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((pending(&a, ME.uid), pending(&a, OTHER)), (1, 2));
    assert_eq!(elsewhere.read("open/f").await.unwrap(), "beside");
    // What is built on it is logged, and nobody is kept waiting for it.
    let began = Instant::now();
    b.mkdir("closed/d/e").await.unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    b.mkdir("open/e").await.unwrap();
    assert_eq!(elsewhere.ls("open").await.unwrap(), ["e", "f", "old"]);
    allow(&elsewhere, "closed", Rights::ALL).await;
    a.settled().await;
    assert_eq!(elsewhere.read("closed/d/f").await.unwrap(), "inside");
    assert_eq!(elsewhere.ls("closed/d").await.unwrap(), ["e", "f"]);
    assert!(a.spooled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_built_on_what_others_asked_for_and_on_what_they_logged_is_logged_once_they_know() {
    let (_world, a, b, elsewhere) = apart().await;
    a.write("closed/mine", "x").await.unwrap();
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(pending(&a, ME.uid), 2);
    let c = a.user(OTHER + 1);
    let (closed, open) = (c.stat("closed").await.unwrap().id, c.stat("open").await.unwrap().id);
    c.stat("closed/old").await.unwrap();
    let both = async {
        let move_it = c.venus.rename(c.me, (closed, b"old"), (open, b"moved"), RenameMode::Replace);
        tokio::join!(b.mkdir("open/d"), b.mkdir("open/e"), move_it)
    };
    let (first, second, moved) = both.await;
    first.unwrap();
    second.unwrap();
    moved.unwrap();
    assert_eq!((pending(&a, OTHER), pending(&a, OTHER + 1)), (0, 1));
    assert_eq!(a.ls("open").await.unwrap(), ["d", "e", "moved", "old"]);
    allow(&elsewhere, "closed", Rights::ALL).await;
    a.settled().await;
    assert_eq!(elsewhere.ls("open").await.unwrap(), ["d", "e", "moved", "old"]);
    assert_eq!(elsewhere.ls("closed").await.unwrap(), ["mine"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_knows_whose_is_what() {
    let (world, a, b, elsewhere) = apart().await;
    a.write("open/a", "of one").await.unwrap();
    b.write("open/b", vec![7; 50_000]).await.unwrap();
    // Written by one and closed last by the other: it is the other's.
    let (mine, his) = (a.open("open/old", WRITE).await.unwrap(), b.open("open/old", WRITE).await.unwrap());
    mine.container.write_at(0, b"ours").unwrap();
    a.close(mine).await.unwrap();
    b.close(his).await.unwrap();
    let before = logged(&a);
    let of = |uid| before.iter().filter(|(of, ..)| *of == uid).map(|(.., verb)| *verb).collect::<Vec<_>>();
    assert_eq!(of(ME.uid), ["create", "store"]);
    assert_eq!(of(OTHER), ["create", "store", "store"]);
    let authors = |uid| before.iter().filter(|(of, ..)| *of == uid).map(|(_, author, _)| *author).collect();
    let (one, other): (BTreeSet<Author>, BTreeSet<Author>) = (authors(ME.uid), authors(OTHER));
    assert!(one.len() == 1 && other.len() == 1 && one != other, "each is an author");
    let a = world.crashed(&a, "again");
    a.venus.peers().disconnect(&[]);
    assert_eq!(logged(&a), before);
    let report = a.venus.core.report(None, 10).await.unwrap().remove(0);
    assert_eq!(report.users, [(ME.uid, 2, 6), (OTHER, 3, 50_004)]);
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    assert_eq!(elsewhere.ls("open").await.unwrap(), ["a", "b", "old"]);
    assert_eq!(elsewhere.read("open/old").await.unwrap(), "ours");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_version_logged_is_whose_it_says_or_the_owners_of_the_mount() {
    let (world, a, b, elsewhere) = apart().await;
    b.write("open/f", "x").await.unwrap();
    b.chmod("open/old", 0o600).await.unwrap();
    let db = rusqlite::Connection::open(world.crashed_dir(&a, "earlier").join("db")).unwrap();
    db.execute_batch("ALTER TABLE log DROP COLUMN uid; ALTER TABLE author DROP COLUMN uid").unwrap();
    drop(db);
    let a = world.client_with("earlier", VenusConfig { owner: 4711, ..VenusConfig::default() });
    a.venus.peers().disconnect(&[]);
    let report = a.venus.core.report(None, 10).await.unwrap().remove(0);
    assert_eq!(report.users, [(OTHER, 1, 0), (4711, 2, 1)]);
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    assert_eq!(elsewhere.read("open/f").await.unwrap(), "x");
    assert_eq!(elsewhere.stat("open/old").await.unwrap().mode, 0o600);
}

#[tokio::test(start_paused = true)]
async fn what_users_do_to_one_file_is_not_folded_together() {
    let (_world, a, b, elsewhere) = apart().await;
    a.write("open/f", "one").await.unwrap();
    b.write("open/f", "two").await.unwrap();
    a.write("open/f", "three").await.unwrap();
    b.write("open/g", "one").await.unwrap();
    a.unlink("open/g").await.unwrap();
    let shown: Vec<_> = logged(&a).into_iter().map(|(uid, _, verb)| (uid, verb)).collect();
    let (one, other) = (ME.uid, OTHER);
    let all = [
        (one, "create"),
        (one, "store"),
        (other, "store"),
        (one, "store"),
        (other, "create"),
        (other, "store"),
        (one, "remove"),
    ];
    assert_eq!(shown, all);
    // What one user takes back is gone as ever, and what another built on the same directory is not.
    a.write("open/h", "x").await.unwrap();
    b.mkdir("open/d").await.unwrap();
    a.unlink("open/h").await.unwrap();
    assert_eq!(logged(&a).len(), all.len() + 1);
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    assert_eq!(elsewhere.ls("open").await.unwrap(), ["d", "f", "old"]);
    assert_eq!(elsewhere.read("open/f").await.unwrap(), "three");
    assert_eq!(a.read("open/f").await.unwrap(), "three");
    assert!(a.spooled().is_empty());
}

#[tokio::test(start_paused = true)]
async fn giving_up_what_one_user_did_leaves_what_another_did() {
    let (_world, a, b, elsewhere) = apart().await;
    a.mkdir("open/d").await.unwrap();
    a.write("open/d/mine", "x").await.unwrap();
    a.write("open/f", "of one").await.unwrap();
    a.write("open/old", "changed").await.unwrap();
    b.write("open/d/his", vec![5; 50_000]).await.unwrap();
    b.write("open/f", "of the other").await.unwrap();
    b.chmod("open/old", 0o600).await.unwrap();
    let root = a.stat("").await.unwrap().id;
    let purged = a.venus.core.purge(root.realm, root.fid.volume, Some(ME.uid)).await.unwrap();
    assert_eq!(purged, 4, "all but what made the directory and the file of which more is pending");
    assert_eq!((pending(&a, ME.uid), pending(&a, OTHER)), (2, 4));
    assert_eq!(b.bytes("open/d/his").await.unwrap(), vec![5; 50_000]);
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    for client in [&elsewhere, &a] {
        assert_eq!(client.ls("open").await.unwrap(), ["d", "f", "old"]);
        assert_eq!(client.ls("open/d").await.unwrap(), ["his"]);
        assert_eq!(client.read("open/f").await.unwrap(), "of the other");
        assert_eq!(client.read("open/old").await.unwrap(), "old");
        assert_eq!(client.stat("open/old").await.unwrap().mode, 0o600);
    }
    assert_eq!(a.venus.core.purge(root.realm, root.fid.volume, Some(ME.uid)).await.unwrap(), 0);
    a.write("open/f", "next").await.unwrap();
    assert_eq!(elsewhere.read("open/f").await.unwrap(), "next");
}

#[tokio::test(start_paused = true)]
async fn a_full_log_and_a_long_list_of_removals_are_the_matter_of_whoever_has_them() {
    let world = World::new(1);
    let guard = crate::cml::Guard { names: 200, percent: 100 };
    let config = VenusConfig { log_records: 210, guard, ..VenusConfig::default() };
    let a = world.client_with("a", config);
    let b = a.user(OTHER);
    for n in 0..210 {
        a.write(&format!("f{n}"), "").await.unwrap();
    }
    a.mkdir("d").await.unwrap();
    a.write("d/f", "x").await.unwrap();
    a.ls("").await.unwrap();
    a.ls("d").await.unwrap();
    a.venus.peers().disconnect(&[]);
    for n in 0..210 {
        a.unlink(&format!("f{n}")).await.unwrap();
    }
    assert!(matches!(a.mkdir("d/no").await, Err(Error::NoSpace(_))));
    b.unlink("d/f").await.unwrap();
    b.mkdir("d/yes").await.unwrap();
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((pending(&a, ME.uid), pending(&a, OTHER)), (210, 0));
    let elsewhere = world.client("elsewhere");
    assert_eq!(elsewhere.ls("d").await.unwrap(), ["yes"]);
    let root = a.stat("").await.unwrap().id;
    assert_eq!(a.venus.core.approve(root.realm, root.fid.volume, Some(OTHER)), 0);
    assert_eq!(a.venus.core.approve(root.realm, root.fid.volume, Some(ME.uid)), 210);
    a.settled().await;
    assert_eq!(elsewhere.ls("").await.unwrap(), ["d", "home"]);
}

#[tokio::test(start_paused = true)]
async fn one_users_retired_author_is_not_anothers() {
    let (world, a, b, elsewhere) = apart().await;
    a.mkdir("open/d").await.unwrap();
    b.write("open/d/f", "x").await.unwrap();
    b.write("open/old", "y").await.unwrap();
    let author_of = |client: &Client, uid| logged(client).into_iter().find(|(of, ..)| *of == uid).unwrap().1;
    let (was, his) = (author_of(&a, ME.uid), author_of(&a, OTHER));
    let volume = a.stat("").await.unwrap().id.fid.volume;
    super::authors::retired(&world, 1, volume, &[was], false).await;
    a.venus.peers().reconnect(&[]);
    a.settled().await;
    assert_eq!(elsewhere.read("open/d/f").await.unwrap(), "x");
    assert_eq!(elsewhere.read("open/old").await.unwrap(), "y");
    let of = |uid| {
        let drawn = a.venus.core.cache.store(|store| store.authors(1, volume)).unwrap();
        drawn.iter().filter(|(_, of)| *of == Some(uid)).map(|(author, _)| *author).collect::<Vec<_>>()
    };
    assert_eq!(of(OTHER), [his]);
    assert!(of(ME.uid).is_empty(), "all that one wrote as is over");
    b.write("open/d/f", "z").await.unwrap();
    assert_eq!(elsewhere.read("open/d/f").await.unwrap(), "z");
    assert_eq!(of(OTHER), [his], "he goes on as who he is");
}
