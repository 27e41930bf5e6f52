//! What no story of a whole cache manager comes upon by itself.

use std::time::Duration;

use coda_proto::{Acl, Fid, Op, Rights, acl::ANYUSER};

use super::Seen;
use crate::{
    ops::locked,
    store::Change,
    venus::{
        face::{Face, RenameMode},
        tests::world::*,
    },
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_what_asks_waits_through_however_much_else_ends() {
    let world = World::new(1);
    let a = world.client("a");
    let (b, c) = (a.user(ME.uid + 1), a.user(ME.uid + 2));
    for dir in ["closed", "open"] {
        a.mkdir(dir).await.unwrap();
        a.write(&format!("{dir}/old"), "old").await.unwrap();
        a.ls(dir).await.unwrap();
    }
    a.venus.peers().disconnect(&[]);
    let elsewhere = world.client("elsewhere");
    let dir = elsewhere.stat("closed").await.unwrap().id;
    let may = |rights| Acl { positive: [(ANYUSER.to_owned(), rights)].into(), ..Acl::default() };
    let read = Rights(Rights::READ.0 | Rights::LOOKUP.0 | Rights::ADMINISTER.0);
    elsewhere.venus.set_acl(dir, &may(read)).await.unwrap();
    a.mkdir("closed/mine").await.unwrap();
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(a.pending(), 1, "it is refused, and waits");
    let (closed, open) = (c.stat("closed").await.unwrap().id, c.stat("open").await.unwrap().id);
    c.stat("closed/old").await.unwrap();
    world.weather(1, Weather::HangsOnApply);
    let ended = async {
        let outbox = a.venus.core.outbox(open.realm, open.fid.volume);
        for _ in 0..1000 {
            locked(&outbox.state).ended.notify_waiters();
            tokio::task::yield_now().await;
        }
        world.weather(1, Weather::Fine);
    };
    let moved = c.venus.rename(c.me, (closed, b"old"), (open, b"moved"), RenameMode::Replace);
    let (asked, moved, ()) = tokio::join!(b.mkdir("open/d"), moved, ended);
    asked.unwrap();
    moved.unwrap();
    elsewhere.venus.set_acl(dir, &may(Rights::ALL)).await.unwrap();
    a.settled().await;
    assert_eq!(elsewhere.ls("open").await.unwrap(), ["d", "moved", "old"]);
}

/// Changes the mode of a file, for somebody who found out at `nudges` that nobody could be reached.
async fn changes_mode(client: &Client, path: &str, mode: u32, nudges: u64) {
    let id = client.stat(path).await.unwrap().id;
    let core = &client.venus.core;
    let held = core.cache.locks.hold([id]).await;
    let row = core.cache.view(id).unwrap().unwrap().row;
    let outbox = core.outbox(id.realm, id.fid.volume);
    let set =
        |fid: Fid| Op::SetAttr { fid, mode: Some(mode), owner: None, group: None, mtime: None, atime: None };
    let how = super::submit::How { uid: ME.uid, nudges, ..Default::default() };
    let bases = vec![Seen::of(&row.status)];
    let begun = core.enqueue(&outbox, how, held, bases, |_| (set(id.fid), Change::default()));
    assert!(begun.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_up_while_a_change_finds_nobody_gets_it_all_the_same() {
    let world = World::new(1);
    let a = world.client("a");
    for name in ["f", "g"] {
        a.write(name, "x").await.unwrap();
    }
    let root = a.stat("").await.unwrap().id;
    let outbox = a.venus.core.outbox(root.realm, root.fid.volume);
    let nudges = locked(&outbox.state).nudges;
    // Somebody came up, and there was nothing to send.
    a.venus.core.drain(None);
    changes_mode(&a, "f", 0o600, nudges).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.pending(), 0, "it goes at once");
    // Nobody said so: then it is found out.
    let nudges = locked(&outbox.state).nudges;
    changes_mode(&a, "g", 0o600, nudges).await;
    assert_eq!(a.pending(), 1);
    tokio::time::sleep(61 * SECOND).await;
    assert_eq!(a.pending(), 0);
    let elsewhere = world.client("elsewhere");
    for name in ["f", "g"] {
        assert_eq!(elsewhere.stat(name).await.unwrap().mode, 0o600);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_off_the_log_stays_pending_until_it_can() {
    let world = World::new(1);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    a.venus.peers().disconnect(&[]);
    a.mkdir("d/logged").await.unwrap();
    let said = |sql: &str| a.venus.core.cache.store(|store| store.execute(sql)).unwrap();
    said("CREATE TRIGGER full BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'full'); END");
    a.venus.peers().reconnect(&[]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((a.pending(), a.venus.core.unsent()), (1, 1));
    let b = a.user(ME.uid + 1);
    b.mkdir("asked").await.unwrap();
    assert_eq!((a.pending(), a.venus.core.unsent()), (2, 2), "its caller has his answer");
    let elsewhere = world.client("elsewhere");
    assert_eq!(elsewhere.ls("").await.unwrap(), ["asked", "d", "home"]);
    let root = a.stat("").await.unwrap().id;
    let reasons = a.venus.core.reasons(root.realm, root.fid.volume, true);
    assert!(reasons.iter().all(|why| why.contains("could not be noted here")), "{reasons:?}");
    said("DROP TRIGGER full");
    a.settled().await;
    assert_eq!(a.venus.core.unsent(), 0);
    assert_eq!(elsewhere.ls("d").await.unwrap(), ["logged"]);
    b.mkdir("asked/more").await.unwrap();
    assert_eq!(elsewhere.ls("asked").await.unwrap(), ["more"]);
}

#[tokio::test(start_paused = true)]
async fn an_author_is_noted_with_whatever_is_the_first_that_it_writes() {
    let world = World::new(1);
    let a = world.client("a");
    a.write("f", "x").await.unwrap();
    let b = a.user(ME.uid + 1);
    let said = |sql: &str| a.venus.core.cache.store(|store| store.execute(sql)).unwrap();
    said("CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'full'); END");
    b.mkdir("no").await.unwrap_err();
    said("DROP TRIGGER full");
    b.mkdir("yes").await.unwrap();
    let volume = a.stat("").await.unwrap().id.fid.volume;
    let drawn = a.venus.core.cache.store(|store| store.authors(1, volume)).unwrap();
    assert!(drawn.iter().any(|(_, uid)| *uid == Some(ME.uid + 1)), "{drawn:?}");
}
