//! Volumes gain and lose replicas while clients write to them; nobody tells the clients by hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{
    Code, Refusal, VolumeId,
    service::{Identity, Service},
    wire::{self, MemberState, admin::Body as Ask, request, response},
};
use tokio::time::Instant;

use super::world::*;

const HOME: VolumeId = VolumeId(0x7f00_0002);

/// In a world whose clock stands still while anybody is busy, servers that ask each other for ever would
/// never reach a time limit: this one is of real time.
struct Bounded(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

#[allow(clippy::disallowed_methods, reason = "a limit of real time, beside the world's")]
fn bounded(test: &'static str) -> Bounded {
    let (alive, watch) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if watch.recv_timeout(Duration::from_secs(150)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test}: the servers never come to rest");
            std::process::exit(101);
        }
    });
    Bounded(alive)
}

/// What an administrator asks of a server.
async fn admin(world: &World, server: u8, ask: Ask) -> Result<wire::AdminAnswer, Refusal> {
    let admin = wire::Admin { body: Some(ask) };
    let request = wire::Request { body: Some(request::Body::Admin(admin)), ..Default::default() };
    let (response, _) = world.server(server).call(Identity::Admin, request, Bytes::new()).await;
    match response.body.unwrap() {
        response::Body::Admin(answer) => Ok(answer),
        response::Body::Refusal(refusal) => Err(refusal.try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

fn add(server: u32) -> Ask {
    Ask::AddReplica(wire::AddReplica { volume: "home".into(), server, rate: 0 })
}

fn remove(server: u32, force: bool) -> Ask {
    Ask::RemoveReplica(wire::RemoveReplica { volume: "home".into(), server, force })
}

fn members(world: &World, at: u8) -> BTreeMap<u32, MemberState> {
    let realm = world.server(at).realm();
    realm.volumes[&HOME].info.members.iter().map(|member| (member.server, member.state())).collect()
}

/// Waits until the SCM says that exactly these are members, and active.
async fn settled(world: &World, servers: &[u32]) {
    let start = Instant::now();
    let wanted: BTreeMap<_, _> = servers.iter().map(|id| (*id, MemberState::MemberActive)).collect();
    while members(world, 1) != wanted {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?} and not {wanted:?}", members(world, 1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The replica at a server as a peer would hear it.
async fn state(world: &World, server: u32) -> Vec<wire::ObjectState> {
    let mut meet = wire::Meet { volume: HOME.0, ..Default::default() };
    let mut objects = BTreeMap::new();
    loop {
        let request = wire::Request { body: Some(request::Body::Meet(meet.clone())), ..Default::default() };
        let (response, _) = world.server(server as u8).call(Identity::Admin, request, Bytes::new()).await;
        let Some(response::Body::Met(met)) = response.body else { panic!("{response:?}") };
        (meet.incarnation, meet.since) = (met.incarnation, met.upto);
        objects.extend(met.objects.into_iter().map(|o| (o.fid.map(|f| (f.vnode, f.unique)), o)));
        if met.last {
            return objects.into_values().collect();
        }
    }
}

/// Waits until these hold the same.
async fn equal(world: &World, servers: &[u32]) {
    let start = Instant::now();
    'again: loop {
        let first = state(world, servers[0]).await;
        for other in &servers[1..] {
            if state(world, *other).await != first {
                assert!(start.elapsed() < Duration::from_secs(40), "{other} differs from {}", servers[0]);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue 'again;
            }
        }
        return;
    }
}

/// Writes one file after the other until told to stop. Answers how many, and the longest wait.
async fn write_on(
    client: Arc<Client>,
    name: &'static str,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> (u32, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let start = Instant::now();
        let path = format!("home/{name}{count}");
        client.write(&path, format!("{name} {count}")).await.unwrap_or_else(|why| panic!("{path}: {why}"));
        longest = longest.max(start.elapsed());
        count += 1;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    (count, longest)
}

#[tokio::test(start_paused = true)]
async fn from_one_replica_to_eight_and_back_under_two_writers_nothing_is_lost() {
    let _bounded = bounded("from_one_replica_to_eight_and_back_under_two_writers_nothing_is_lost");
    let world = World::new(8);
    for server in 2..=8 {
        admin(&world, 1, remove(server, true)).await.unwrap();
    }
    settled(&world, &[1]).await;
    let (a, b) = (Arc::new(world.client("a")), Arc::new(world.client("b")));
    a.write("home/before", "it grew").await.unwrap();
    let stop = Arc::default();
    let one = tokio::spawn(write_on(a.clone(), "a", Arc::clone(&stop)));
    let two = tokio::spawn(write_on(b.clone(), "b", Arc::clone(&stop)));
    let pause = || tokio::time::sleep(Duration::from_millis(200));

    let all: Vec<u32> = (1..=8).collect();
    for count in 2..=8 {
        pause().await;
        admin(&world, 1, add(count)).await.unwrap();
        if count <= 3 {
            settled(&world, &all[..count as usize]).await;
        }
    }
    settled(&world, &all).await;
    pause().await;
    // One at a time, then all that are left at once; the first of all leaves too.
    admin(&world, 1, remove(1, false)).await.unwrap();
    settled(&world, &all[1..]).await;
    admin(&world, 1, remove(8, false)).await.unwrap();
    settled(&world, &all[1..7]).await;
    for server in 3..=7 {
        pause().await;
        admin(&world, 1, remove(server, false)).await.unwrap();
    }
    settled(&world, &[2]).await;
    pause().await;
    admin(&world, 1, add(1)).await.unwrap();
    settled(&world, &[1, 2]).await;
    pause().await;

    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut written = Vec::new();
    for (name, task) in [("a", one), ("b", two)] {
        let (count, longest) = task.await.unwrap();
        assert!(longest < Duration::from_secs(1), "{name} waited {longest:?}");
        assert!(count > 100, "{name} wrote {count}");
        written.extend((0..count).map(|n| (format!("{name}{n}"), format!("{name} {n}"))));
    }
    equal(&world, &[1, 2]).await;
    // Each of the two has all of it, as a client sees it that knows nothing else.
    written.push(("before".into(), "it grew".into()));
    for (killed, reader) in [(1, "c"), (2, "d")] {
        world.kill(killed);
        let reader = world.client(reader);
        let mut names = reader.ls("home").await.unwrap();
        names.sort();
        let mut wanted: Vec<String> = written.iter().map(|(name, _)| name.clone()).collect();
        wanted.sort();
        assert_eq!(names, wanted);
        for (name, text) in &written {
            assert_eq!(reader.read(&format!("home/{name}")).await.unwrap(), *text, "{name}");
        }
        world.boot(killed);
    }
    let slots: Vec<u32> =
        world.server(2).realm().volumes[&HOME].info.members.iter().map(|member| member.slot).collect();
    assert_eq!(slots, [8, 15], "slots are not given twice");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_takes_nothing_more_and_is_kept_until_the_others_have_what_it_took() {
    let _bounded =
        bounded("a_member_that_leaves_takes_nothing_more_and_is_kept_until_the_others_have_what_it_took");
    let world = World::new(3);
    let a = world.client("a");
    // Only the third hears this.
    world.weather(1, Weather::Closed);
    world.weather(2, Weather::Closed);
    a.write("home/only", "at three").await.unwrap();
    world.weather(1, Weather::Fine);
    // The second stays away: it has yet to hear of it.
    admin(&world, 1, remove(3, false)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(members(&world, 1)[&3], MemberState::MemberLeaving, "the second does not have it yet");
    let epoch = world.server(3).realm().volumes[&HOME].info.epoch;
    let refused = apply(&world, 3, epoch).await;
    assert_eq!(refused.code, Code::Offline, "{refused}");
    // It refuses after a restart as well, and says to who is behind what is new.
    world.kill(3);
    world.boot(3);
    assert_eq!(apply(&world, 3, epoch).await.code, Code::Offline);
    let stale = apply(&world, 3, epoch - 1).await;
    assert_eq!((stale.code, stale.info.map(|info| info.epoch)), (Code::StaleEpoch, Some(epoch)));
    world.weather(2, Weather::Fine);
    settled(&world, &[1, 2]).await;
    world.kill(3);
    for (killed, name) in [(1, "b"), (2, "c")] {
        world.kill(killed);
        assert_eq!(world.client(name).read("home/only").await.unwrap(), "at three");
        world.boot(killed);
    }
}

/// An Apply that is to be refused before anybody looks at its record.
async fn apply(world: &World, server: u8, epoch: u64) -> Refusal {
    use coda_proto::{Author, Dot, Fid, Op, Record};
    let root = Fid::root(HOME);
    let op = Op::SetAttr { fid: root, mode: Some(0o700), owner: None, group: None, mtime: None, atime: None };
    let record = Record {
        dot: Dot::new(Author(99), 1),
        lamport: 9,
        time: 0,
        changed: 0,
        bases: Vec::new(),
        logged: false,
        host: String::new(),
        op,
    };
    let apply = wire::Apply { volume: HOME.0, epoch, records: vec![(&record).into()] };
    let request = wire::Request { body: Some(request::Body::Apply(apply)), ..Default::default() };
    let (response, _) = world.server(server).call(Identity::Admin, request, Bytes::new()).await;
    match response.body.unwrap() {
        response::Body::Refusal(refusal) => refusal.try_into().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_lost_goes_when_an_administrator_insists() {
    let _bounded = bounded("a_member_that_is_lost_goes_when_an_administrator_insists");
    let world = World::new(2);
    let a = world.client("a");
    a.write("home/f", "kept").await.unwrap();
    world.kill(2);
    admin(&world, 1, remove(2, false)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(members(&world, 1)[&2], MemberState::MemberLeaving);
    a.write("home/g", "written meanwhile").await.unwrap();
    admin(&world, 1, remove(2, true)).await.unwrap();
    settled(&world, &[1]).await;
    let refused = admin(&world, 1, remove(1, true)).await.unwrap_err();
    assert_eq!(refused.code, Code::Invalid);
    // It comes back, hears that it is none any more, and what it held is put aside.
    world.boot(2);
    world.server(2).refresh().await;
    assert!(world.server(2).volume(HOME).is_err());
    assert_eq!(world.client("b").read("home/f").await.unwrap(), "kept");
}

#[tokio::test(start_paused = true)]
async fn a_replica_moves_to_another_server_while_a_client_works() {
    let _bounded = bounded("a_replica_moves_to_another_server_while_a_client_works");
    let world = World::new(3);
    admin(&world, 1, remove(3, true)).await.unwrap();
    settled(&world, &[1, 2]).await;
    let a = world.client("a");
    a.write("home/f", "one").await.unwrap();
    let moving = wire::MoveReplica { volume: "home".into(), from: 2, to: 3, rate: 0 };
    admin(&world, 1, Ask::MoveReplica(moving)).await.unwrap();
    a.write("home/f", "two").await.unwrap();
    settled(&world, &[1, 3]).await;
    a.write("home/g", "three").await.unwrap();
    world.kill(1);
    let b = world.client("b");
    assert_eq!(b.read("home/f").await.unwrap(), "two");
    assert_eq!(b.read("home/g").await.unwrap(), "three");
}

#[tokio::test(start_paused = true)]
async fn the_scm_that_dies_while_somebody_leaves_goes_on_with_it_when_it_is_back() {
    let _bounded = bounded("the_scm_that_dies_while_somebody_leaves_goes_on_with_it_when_it_is_back");
    let world = World::new(3);
    let a = world.client("a");
    a.write("home/f", "one").await.unwrap();
    world.kill(2);
    admin(&world, 1, remove(3, false)).await.unwrap();
    world.kill(1);
    world.boot(2);
    world.boot(1);
    settled(&world, &[1, 2]).await;
    a.write("home/f", "two").await.unwrap();
    assert_eq!(a.read("home/f").await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_locked_volume_waits_and_one_out_of_service_answers_nothing() {
    let _bounded = bounded("a_locked_volume_waits_and_one_out_of_service_answers_nothing");
    let world = World::new(1);
    let a = world.client("a");
    a.write("home/f", "one").await.unwrap();
    let set_for = |service: wire::VolumeService, seconds| {
        Ask::SetService(wire::SetService { volume: "home".into(), service: service.into(), seconds })
    };
    let set = |service| set_for(service, 0);
    admin(&world, 1, set(wire::VolumeService::VolumeLocked)).await.unwrap();
    assert_eq!(a.read("home/f").await.unwrap(), "one");
    world.pass(Duration::from_secs(3600));
    assert_eq!(apply(&world, 1, 1).await.code, Code::Busy);
    // A lock with a time ends by itself.
    admin(&world, 1, set_for(wire::VolumeService::VolumeLocked, 60)).await.unwrap();
    assert_eq!(apply(&world, 1, 1).await.code, Code::Busy);
    world.pass(Duration::from_secs(61));
    assert_ne!(apply(&world, 1, 1).await.code, Code::Busy);
    admin(&world, 1, set(wire::VolumeService::VolumeOffline)).await.unwrap();
    assert!(world.client("b").read("home/f").await.is_err());
    admin(&world, 1, set(wire::VolumeService::VolumeInService)).await.unwrap();
    a.write("home/f", "two").await.unwrap();
    // What was changed meanwhile may have been kept for later.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.client("c").read("home/f").await.unwrap(), "two");
}
