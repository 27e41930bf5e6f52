//! What no story of a whole cache manager comes upon by itself.

use std::time::Duration;

use coda_proto::{Acl, Rights, acl::ANYUSER};

use crate::{
    ops::locked,
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
