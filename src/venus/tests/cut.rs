//! The disk below the cache's database goes dead at each of its calls.

#[path = "../../../server/tests/world/cut.rs"]
pub mod disk;

use std::{sync::Arc, time::Duration};

use disk::Disk;

use super::world::*;
use crate::{error::Error, venus::face::NodeKind};

/// What somebody does.
const DEEDS: [&str; 9] =
    ["mkdir", "create", "create large", "write", "write large", "remove", "rename", "replace", "chmod"];

/// Of two deeds a sparser sample: every so many calls, or as CODA_CUT_EVERY says.
fn sparse() -> u64 {
    std::env::var("CODA_CUT_EVERY").ok().and_then(|every| every.parse().ok()).unwrap_or(31)
}

/// Contents that no server can be asked for.
const NOT_HERE: &str = "not here";

/// A client that knows three files, of a world with one server.
async fn start() -> (Arc<World>, Client) {
    let world = World::new(1);
    let a = world.client("a");
    for name in ["f", "g", "h"] {
        a.write(name, name).await.unwrap();
    }
    assert_eq!(a.read("f").await.unwrap(), "f");
    state(&a).await;
    (world, a)
}

async fn perform(a: &Client, deed: &str) -> Result<(), Error> {
    match deed {
        "mkdir" => a.mkdir("new").await.map(drop),
        "create" => a.write("new", "created").await,
        "create large" => a.write("new", vec![3; 50_000]).await,
        "write" => a.write("f", "written").await,
        "write large" => a.write("f", vec![4; 50_000]).await,
        "remove" => a.unlink("g").await,
        "rename" => a.rename("g", "new").await,
        "replace" => a.rename("g", "h").await,
        "chmod" => a.chmod("h", 0o600).await.map(drop),
        other => panic!("{other}"),
    }
}

/// Everything that shows.
async fn state(a: &Client) -> Vec<String> {
    let mut lines = Vec::new();
    for name in a.ls("").await.unwrap().into_iter().filter(|name| name != "home") {
        let attr = a.stat(&name).await.unwrap();
        let held = match attr.kind {
            NodeKind::Directory => "directory".to_owned(),
            _ => match a.bytes(&name).await {
                Ok(bytes) => blake3::hash(&bytes).to_hex()[..8].to_owned(),
                Err(Error::Disconnected(_)) => NOT_HERE.to_owned(),
                Err(other) => panic!("{name}: {other:?}"),
            },
        };
        lines.push(format!("{name} {:o} {held}", attr.mode));
    }
    lines
}

/// What is done, and during which deed the database goes dead.
#[derive(Clone, Copy)]
struct Case<'a> {
    /// No server is in reach.
    apart: bool,
    /// Done and answered before.
    first: Option<&'a str>,
    deed: &'a str,
}

impl Case<'_> {
    async fn begin(&self, world: &Arc<World>, a: &Client) {
        if self.apart {
            world.kill(1);
        }
        if let Some(first) = self.first {
            perform(a, first).await.unwrap();
        }
    }
}

/// The states that a deed may leave: nothing done, all of it; and of a file that is made and written, the empty one.
/// Nothing where it cannot be done.
async fn allowed(case: Case<'_>) -> Option<(Vec<Vec<String>>, Vec<String>)> {
    let Case { apart, first, deed } = case;
    let (world, a) = start().await;
    case.begin(&world, &a).await;
    let mut allowed = vec![state(&a).await];
    if deed.starts_with("create") {
        if a.stat("new").await.is_ok() {
            return None;
        }
        let opened = a.open("new", WRITE).await.unwrap();
        a.close(opened).await.unwrap();
        allowed.push(state(&a).await);
        a.unlink("new").await.unwrap();
    }
    perform(&a, deed).await.ok()?;
    let done = state(&a).await;
    allowed.push(done.clone());
    // Whoever dies while a file is written finds what was written in the spool, and has what it was before from the
    // servers.
    if apart && deed.starts_with("write") && !first.is_some_and(|first| first.starts_with("write")) {
        let written =
            |line: &String| if line.starts_with("f ") { format!("f 644 {NOT_HERE}") } else { line.clone() };
        allowed.push(done.iter().map(written).collect());
    }
    Some((allowed, done))
}

/// The database goes dead after so many calls; the next life begins on what is left. Answers whether it went.
async fn survives(what: Case<'_>, calls: u64, allowed: &(Vec<Vec<String>>, Vec<String>)) -> bool {
    let Case { apart, first, deed } = what;
    let case =
        format!("{first:?}, {deed}, {}, cut after {calls} calls", if apart { "apart" } else { "connected" });
    let (world, a) = start().await;
    // Databases are watched from when they are opened.
    let disk = Disk::new(&world.crashed_dir(&a, "watched"));
    drop(a);
    let a = world.client("watched");
    state(&a).await;
    what.begin(&world, &a).await;
    disk.cut_after(calls);
    let answered = perform(&a, deed).await.is_ok();
    let cut = disk.is_dead();
    world.crashed_dir(&a, "left");
    disk.forget();
    drop(a);
    let a = world.client("left");
    let now = state(&a).await;
    match answered {
        true => assert_eq!(now, allowed.1, "{case}: it was answered"),
        false => assert!(allowed.0.contains(&now), "{case}: {now:?}"),
    }
    // What is left comes home, and one more deed with it.
    perform(&a, "chmod").await.unwrap();
    if apart {
        world.boot(1);
    }
    for _ in 0..200 {
        if a.pending() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    assert_eq!(a.pending(), 0, "{case}");
    assert_eq!(state(&world.client("b")).await, state(&a).await, "{case}");
    cut
}

/// A sample: every `step`th call, from another one for each deed.
async fn all(apart: bool, first: Option<&str>, step: u64) {
    for deed in DEEDS {
        let case = Case { apart, first, deed };
        let Some(allowed) = allowed(case).await else { continue };
        let mut calls = (deed.len() + first.map_or(0, str::len)) as u64 % step;
        while survives(case, calls, &allowed).await {
            calls += step;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_dies_at_any_call_while_apart_leaves_what_was_answered() {
    all(true, None, 19).await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_dies_at_any_call_while_connected_leaves_what_was_answered() {
    all(false, None, 37).await;
}

#[tokio::test(start_paused = true)]
async fn so_does_one_that_dies_during_the_second_of_two_deeds_apart() {
    for first in DEEDS {
        all(true, Some(first), sparse()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn so_does_one_that_dies_during_the_second_of_two_deeds_connected() {
    for first in DEEDS {
        all(false, Some(first), sparse()).await;
    }
}
