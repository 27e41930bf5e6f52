//! What people want to have here is fetched ahead, stays, and is there when no server can be reached.

use std::time::Duration;

use coda_proto::control::{Failure, FailureKind, HoardReport, Pinned, Reply, Request};

use super::world::*;
use crate::{
    control::Manager,
    error::Error,
    venus::{VenusConfig, face::Face},
};

fn at(path: &str) -> String {
    format!("/coda/{REALM}/{path}")
}

async fn ask(client: &Client, request: Request) -> Result<Reply, Failure> {
    client.venus.answer(ME, request).await
}

async fn add(client: &Client, path: &str, attributes: &str) {
    ask(client, Request::HoardAdd { path: at(path), attributes: attributes.into() }).await.unwrap();
}

/// Walks, and answers what is missing after it.
async fn walk(client: &Client) -> HoardReport {
    let mut answer = ask(client, Request::HoardWalk).await.unwrap();
    loop {
        match answer {
            Reply::HoardReport(report) if !report.walking => return report,
            Reply::HoardReport(_) => {}
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = ask(client, Request::HoardVerify).await.unwrap();
    }
}

async fn paths(client: &Client) -> Vec<String> {
    match ask(client, Request::HoardList { uid: None }).await.unwrap() {
        Reply::Hoard(wishes) => wishes
            .into_iter()
            .map(|wish| format!("{} {}:{}", wish.inside, wish.priority, wish.reach))
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// A project made by another client.
async fn project(world: &std::sync::Arc<World>) {
    let maker = world.client("maker");
    for dir in ["p", "p/src", "p/src/deep", "q"] {
        maker.mkdir(dir).await.unwrap();
    }
    for file in ["p/README", "p/src/main.c", "p/src/deep/x.c", "q/other"] {
        maker.write(file, format!("contents of {file}")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_hoarded_is_read_without_servers_though_nobody_looked_at_it_before() {
    let world = World::new(2);
    project(&world).await;
    let a = world.client("a");
    add(&a, "p", "100:d+").await;
    let report = walk(&a).await;
    assert!(report.missing.is_empty(), "{report:?}");
    world.kill(1);
    world.kill(2);
    for file in ["p/README", "p/src/main.c", "p/src/deep/x.c"] {
        assert_eq!(a.read(file).await.unwrap(), format!("contents of {file}"));
    }
    assert!(matches!(a.read("q/other").await, Err(Error::Disconnected(_))));
    let again = world.crashed(&a, "again");
    assert_eq!(again.read("p/src/deep/x.c").await.unwrap(), "contents of p/src/deep/x.c");
    assert_eq!(paths(&again).await, ["./p 100:d+"]);
}

async fn preflight(client: &Client, path: &str) -> HoardReport {
    match ask(client, Request::Preflight { path: at(path) }).await.unwrap() {
        Reply::HoardReport(report) => report,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_before_going_names_what_is_not_here_though_nobody_wants_it() {
    let world = World::new(2);
    project(&world).await;
    world.client("b").write("p/large", vec![1; 100_000]).await.unwrap();
    let a = world.client("a");
    let report = preflight(&a, "p").await;
    let missing: Vec<&str> = report.missing.iter().map(|missing| missing.path.as_str()).collect();
    assert!(missing.contains(&&*at("p/src/deep/x.c")) && missing.contains(&&*at("p/large")), "{report:?}");
    assert!(report.missing.iter().all(|missing| missing.bytes > 0), "{report:?}");
    assert!(report.unkept > 0 && report.seconds.is_none(), "nothing was ever fetched: {report:?}");
    let gone = ask(&a, Request::Preflight { path: at("nowhere") }).await.unwrap_err();
    assert_eq!(gone.kind, coda_proto::control::FailureKind::NotFound, "{gone:?}");
    // What somebody happened to read is here; that does not keep it.
    for file in ["p/README", "p/src/main.c", "p/src/deep/x.c", "p/large"] {
        a.bytes(file).await.unwrap();
    }
    let report = preflight(&a, "p").await;
    assert!(report.missing.is_empty() && report.unkept > 0 && report.seconds == Some(0), "{report:?}");
    add(&a, "p", "100:d+").await;
    walk(&a).await;
    let report = preflight(&a, "p").await;
    assert!(report.missing.is_empty() && report.unkept == 0, "{report:?}");
    world.client("b").write("p/new", vec![2; 50_000]).await.unwrap();
    a.venus.core.note_transfer(a.stat("p").await.unwrap().id, 20_000, Duration::from_secs(1));
    let report = preflight(&a, "p").await;
    assert_eq!((report.missing.len(), report.missing[0].bytes), (1, 50_000), "{report:?}");
    assert_eq!(report.seconds, Some(3), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_listed_is_named_once() {
    let world = World::new(1);
    project(&world).await;
    let a = world.client("a");
    a.stat("p").await.unwrap();
    world.kill(1);
    let report = preflight(&a, "p").await;
    let missing: Vec<&str> = report.missing.iter().map(|missing| missing.path.as_str()).collect();
    assert_eq!(missing, [at("p")], "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn children_are_one_level_and_a_wish_without_a_plus_is_spelt_out() {
    let world = World::new(1);
    project(&world).await;
    let a = world.client("a");
    add(&a, "p", "c+").await;
    add(&a, "q", "7:c").await;
    assert_eq!(paths(&a).await, ["./p 10:c+", "./q 7:", "./q/other 7:"]);
    assert!(walk(&a).await.missing.is_empty());
    world.kill(1);
    assert_eq!(a.read("p/README").await.unwrap(), "contents of p/README");
    assert_eq!(a.read("q/other").await.unwrap(), "contents of q/other");
    assert!(a.read("p/src/main.c").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_comes_later_and_what_changes_is_fetched_by_the_walks_that_nobody_asks_for() {
    let world = World::new(2);
    project(&world).await;
    let a = world.client("a");
    add(&a, "p", "d+").await;
    walk(&a).await;
    let b = world.client("b");
    b.write("p/src/new.c", "new").await.unwrap();
    b.write("p/README", "changed").await.unwrap();
    tokio::time::sleep(Duration::from_secs(660)).await;
    world.kill(1);
    world.kill(2);
    assert_eq!(a.read("p/src/new.c").await.unwrap(), "new");
    assert_eq!(a.read("p/README").await.unwrap(), "changed");
}

#[tokio::test(start_paused = true)]
async fn nothing_else_evicts_what_is_hoarded_and_what_does_not_fit_is_named() {
    let world = World::new(1);
    let b = world.client("b");
    b.mkdir("p").await.unwrap();
    b.write("p/kept", vec![1; 40_000]).await.unwrap();
    b.write("p/large", vec![2; 80_000]).await.unwrap();
    b.mkdir("work").await.unwrap();
    for n in 0..10 {
        b.write(&format!("work/f{n}"), vec![n; 20_000]).await.unwrap();
    }
    let a = world.client_with("a", VenusConfig { cache_bytes: 120_000, ..VenusConfig::default() });
    add(&a, "p/kept", "900").await;
    add(&a, "p/large", "5").await;
    let report = walk(&a).await;
    assert_eq!((report.room, report.bytes), (90_000, 40_000), "{report:?}");
    assert_eq!(report.missing.len(), 1, "{report:?}");
    assert_eq!(report.missing[0].path, at("p/large"));
    for n in 0..10 {
        assert_eq!(a.bytes(&format!("work/f{n}")).await.unwrap(), vec![n; 20_000]);
    }
    world.kill(1);
    assert_eq!(a.bytes("p/kept").await.unwrap(), vec![1; 40_000]);
    assert!(a.bytes("work/f0").await.is_err(), "what nobody hoards goes");
}

#[tokio::test(start_paused = true)]
async fn what_is_hoarded_no_longer_may_go() {
    let world = World::new(1);
    project(&world).await;
    let a = world.client("a");
    add(&a, "p", "d+").await;
    walk(&a).await;
    assert!(!a.venus.core.cache.store(|store| store.hoarded()).unwrap().is_empty());
    ask(&a, Request::HoardDelete { path: at("p") }).await.unwrap();
    walk(&a).await;
    assert!(a.venus.core.cache.store(|store| store.hoarded()).unwrap().is_empty());
    assert!(ask(&a, Request::HoardDelete { path: at("p") }).await.is_err());
    let refused = ask(&a, Request::HoardAdd { path: at("p"), attributes: "0".into() }).await;
    assert!(refused.unwrap_err().why.contains("out of range"));
    assert!(ask(&a, Request::HoardAdd { path: at("nothing"), attributes: String::new() }).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_wish_no_longer_finds_is_told() {
    let world = World::new(1);
    project(&world).await;
    let a = world.client("a");
    add(&a, "q/other", "").await;
    let dir = a.stat("q").await.unwrap().id;
    a.venus.unlink(ME, dir, b"other").await.unwrap();
    let report = walk(&a).await;
    let [missing] = &report.missing[..] else { panic!("{report:?}") };
    assert_eq!(missing.path, at("q/other"));
    assert!(missing.why.starts_with("Not bound: "), "{missing:?}");
}

async fn pin(client: &Client, path: &str, most: Option<u64>) -> Result<Pinned, Failure> {
    match ask(client, Request::Pin { path: at(path), most }).await? {
        Reply::Pinned(pinned) => Ok(pinned),
        other => panic!("{other:?}"),
    }
}

/// A client whose pins may take 90,000 bytes of 120,000.
fn small(world: &std::sync::Arc<World>) -> Client {
    world.client_with("small", VenusConfig { cache_bytes: 120_000, ..VenusConfig::default() })
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_cannot_fit_is_refused_at_once_with_numbers_and_what_holds_the_room() {
    let world = World::new(1);
    let b = world.client("b");
    for (name, length) in [("p", 40_000), ("q", 80_000), ("r", 40_000)] {
        b.mkdir(name).await.unwrap();
        b.write(&format!("{name}/f"), vec![1; length]).await.unwrap();
    }
    let a = small(&world);
    let pinned = pin(&a, "p", None).await.unwrap();
    assert_eq!(pinned, Pinned { objects: 3, bytes: 40_000, missing: 40_000, left: 50_000 });
    let refused = pin(&a, "q", None).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::NoSpace);
    assert!(
        refused.why.contains("needs 78.1 KB (3 objects), and pins have 48.8 KB of 87.9 KB left"),
        "{refused:?}"
    );
    assert_eq!(refused.next, format!("{} holds 39.1 KB; `cfs unpin` gives room back", at("p")));
    assert_eq!(paths(&a).await, ["./p 1000:d+"]);
    assert_eq!(pin(&a, "r", None).await.unwrap().left, 10_000);
    assert_eq!(pin(&a, "r", None).await.unwrap().left, 10_000, "once is enough");
    assert!(walk(&a).await.missing.is_empty());
    ask(&a, Request::HoardDelete { path: at("p") }).await.unwrap();
    ask(&a, Request::HoardDelete { path: at("r") }).await.unwrap();
    assert_eq!(pin(&a, "q", None).await.unwrap().left, 10_000);
}

#[tokio::test(start_paused = true)]
async fn the_room_of_a_pin_is_kept_for_it_before_it_is_fetched() {
    let world = World::new(1);
    let b = world.client("b");
    b.mkdir("p").await.unwrap();
    b.write("p/f", vec![1; 60_000]).await.unwrap();
    b.mkdir("work").await.unwrap();
    for n in 0..10 {
        b.write(&format!("work/f{n}"), vec![n; 20_000]).await.unwrap();
    }
    b.write("work/large", vec![9; 80_000]).await.unwrap();
    let a = small(&world);
    pin(&a, "p", None).await.unwrap();
    for n in 0..10 {
        assert_eq!(a.bytes(&format!("work/f{n}")).await.unwrap(), vec![n; 20_000]);
        assert!(a.venus.core.cache.store(|store| store.totals()).unwrap().1 <= 60_000);
    }
    assert!(matches!(a.bytes("work/large").await, Err(Error::NoSpace(_))));
    assert!(walk(&a).await.missing.is_empty());
    let again = world.crashed(&a, "again");
    world.kill(1);
    for client in [&a, &again] {
        assert_eq!(client.bytes("p/f").await.unwrap(), vec![1; 60_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pattern_keeps_what_it_matches_now_and_later_and_nothing_else() {
    let world = World::new(1);
    project(&world).await;
    let a = world.client("a");
    let pinned = pin(&a, "p/**/*.c", None).await.unwrap();
    assert_eq!((pinned.objects, pinned.bytes), (6, 50), "{pinned:?}");
    walk(&a).await;
    let b = world.client("b");
    b.write("p/src/late.c", "late").await.unwrap();
    walk(&a).await;
    assert!(pin(&a, "nothing/*.c", None).await.is_err(), "a pattern begins somewhere");
    world.kill(1);
    for (name, length) in [("p/src/main.c", 24), ("p/src/deep/x.c", 26), ("p/src/late.c", 4)] {
        assert_eq!(a.bytes(name).await.unwrap().len(), length, "{name}");
    }
    assert!(a.bytes("p/README").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_pin_with_a_limit_keeps_the_newest_files_that_fit() {
    let world = World::new(1);
    let b = world.client("b");
    b.mkdir("q").await.unwrap();
    for name in ["oldest", "old", "new"] {
        b.write(&format!("q/{name}"), vec![1; 20_000]).await.unwrap();
    }
    let a = small(&world);
    assert_eq!(pin(&a, "q", Some(50_000)).await.unwrap().bytes, 40_000);
    let report = walk(&a).await;
    assert!(report.missing.is_empty(), "{report:?}");
    world.kill(1);
    assert!(a.bytes("q/new").await.is_ok() && a.bytes("q/old").await.is_ok());
    assert!(a.bytes("q/oldest").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn of_three_priorities_beyond_the_cache_the_highest_are_kept_and_the_rest_is_named() {
    let world = World::new(1);
    let b = world.client("b");
    for name in ["low", "middle", "high"] {
        b.write(name, vec![1; 45_000]).await.unwrap();
    }
    let a = small(&world);
    for (name, priority) in [("low", "5"), ("middle", "500"), ("high", "900")] {
        add(&a, name, priority).await;
        let report = walk(&a).await;
        assert_eq!(report.missing.len(), usize::from(name == "high"), "{report:?}");
    }
    let Reply::HoardReport(report) = ask(&a, Request::HoardVerify).await.unwrap() else { panic!() };
    assert_eq!(report.missing[0].path, at("low"));
    world.kill(1);
    assert!(
        a.bytes("high").await.is_ok() && a.bytes("middle").await.is_ok() && a.bytes("low").await.is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pinned_project_is_edited_on_a_plane_and_uploaded_at_home_without_a_conflict() {
    let world = World::new(2);
    project(&world).await;
    let yesterday = world.client("laptop");
    pin(&yesterday, "p", None).await.unwrap();
    walk(&yesterday).await;
    world.kill(1);
    world.kill(2);
    let plane = world.crashed(&yesterday, "plane");
    assert_eq!(plane.read("p/src/main.c").await.unwrap(), "contents of p/src/main.c");
    plane.write("p/src/main.c", "edited on the plane").await.unwrap();
    plane.venus.stop().await;
    let home = world.crashed(&plane, "home");
    world.boot(1);
    world.boot(2);
    home.read("p/src/main.c").await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(home.pending(), 0);
    let other = world.client("other");
    assert_eq!(other.read("p/src/main.c").await.unwrap(), "edited on the plane");
    assert_eq!(other.ls("p/src").await.unwrap().len(), 2, "no version beside it");
}

#[tokio::test(start_paused = true)]
async fn a_file_larger_than_the_cache_is_written_and_pins_stay() {
    let world = World::new(1);
    let b = world.client("b");
    b.mkdir("p").await.unwrap();
    b.write("p/f", vec![1; 60_000]).await.unwrap();
    let a = small(&world);
    pin(&a, "p", None).await.unwrap();
    walk(&a).await;
    a.write("download", vec![2; 500_000]).await.unwrap();
    assert_eq!(b.bytes("download").await.unwrap().len(), 500_000);
    world.kill(1);
    assert_eq!(a.bytes("p/f").await.unwrap(), vec![1; 60_000]);
}
