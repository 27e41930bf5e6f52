//! One seed played from beginning to end.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use anyhow::Context;
use coda_proto::{
    service::{Identity, Service},
    wire,
};
use coda_server::Server;
use venus::{error::Error, venus::face::Face};

use crate::{
    actor::{Actor, DIRECTORIES, SHARED, Strictness, USER, private},
    ageing,
    chance::Chance,
    fabric::REALM,
    groups,
    model::contents,
    net::Weather,
    oracle,
    partition::{Shape, reshape},
    succession,
    trace::Trace,
    world::{Death, Nature, World},
};

/// How a seed ended.
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must not be; nothing: all is well.
    pub violations: Vec<String>,
    /// Lines of the trace, and their digest.
    pub digest: (u64, u64),
    /// Operations, acknowledged, refused.
    pub operations: (usize, usize, usize),
    /// The trace's last lines.
    pub tail: Vec<String>,
}

/// Which worlds to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Climate {
    /// As the seed says.
    Any,
    /// Fair weather only.
    Calm,
    /// Cuts and deaths.
    Stormy,
    /// Nothing breaks, but everybody works without a pause and reads what the others write, far from each other.
    Crowded,
    /// The network falls apart in every shape, again and again; nobody dies, and copies are forgotten.
    Parted,
    /// The same, and replicas come and go.
    Changing,
    /// Every client reaches one server, now this one and now that, and no server another; users forget their copies.
    Wandering,
    /// The network falls apart, and servers are restored from old copies of their disks.
    Restored,
    /// The network falls apart, servers die, and SCMs follow each other.
    Succeeding,
    /// Removals are forgotten, authors retired and pasts folded within seconds.
    Ageing,
}

impl Climate {
    /// Nobody reaches everybody.
    fn is_parted(self) -> bool {
        matches!(
            self,
            Climate::Parted
                | Climate::Changing
                | Climate::Wandering
                | Climate::Restored
                | Climate::Succeeding
        )
    }
}

/// What takes its time goes on for so long when users have gone home.
const AFTER: Duration = Duration::from_secs(20);

/// Plays a seed on a runtime of its own.
pub fn play(seed: u64, climate: Climate, print: bool) -> anyhow::Result<Report> {
    let dir = room()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(run(seed, climate, print, dir.path()))
}

/// Where a world's stores lie: in memory where the machine has such a place, since no world loses what a disk does.
pub(crate) fn room() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let wanted = std::env::var_os("TMPDIR").is_none() || std::env::var_os("TMPDIR") == Some("/tmp".into());
    match wanted.then(|| tempfile::tempdir_in(memory)) {
        Some(Ok(dir)) => Ok(dir),
        _ => tempfile::tempdir(),
    }
}

async fn run(seed: u64, climate: Climate, print: bool, dir: &Path) -> anyhow::Result<Report> {
    let (chance, trace) = (Chance::new(seed), Trace::new(print));
    let storm = match climate {
        Climate::Any => chance.permille(600),
        Climate::Calm | Climate::Crowded => false,
        Climate::Stormy | Climate::Ageing => true,
        climate => climate.is_parted(),
    };
    let parted = climate.is_parted() || (climate == Climate::Any && storm && chance.permille(300));
    let changing =
        climate == Climate::Changing || (climate == Climate::Any && parted && chance.permille(400));
    let wandering = climate == Climate::Wandering
        || (climate == Climate::Any && parted && !changing && chance.permille(250));
    let restored = climate == Climate::Restored
        || (climate == Climate::Any && parted && !changing && !wandering && chance.permille(300));
    let crowded = climate == Climate::Crowded || (climate == Climate::Any && !storm && chance.permille(250));
    let foul = !crowded && chance.permille(400);
    let strictness = match (storm, foul) {
        (true, _) => Strictness::Stormy,
        (false, true) => Strictness::Calm { slack: Duration::from_secs(40) },
        (false, false) => Strictness::Calm { slack: Duration::ZERO },
    };
    let nature = Nature { succeeds: climate == Climate::Succeeding, ages: climate == Climate::Ageing };
    let servers = if parted { *chance.pick(&[2, 3, 3]) } else { *chance.pick(&[1, 2, 2, 2, 3]) };
    let clients = if crowded { 3 } else { *chance.pick(&[1, 2, 2, 3]) as usize };
    trace.say(format_args!("{servers} servers, {clients} clients, {strictness:?}"));
    let mut world = World::new(dir, chance.fork(), trace.clone(), servers, clients, (strictness, nature))?;
    let until = Duration::from_secs(if crowded { chance.below(8..16) } else { chance.below(20..60) });
    world.crowded = crowded;
    world.small_caches = storm && chance.permille(250);
    world.absent_minded = wandering;
    world.forgetful = !storm || parted || world.small_caches;
    if parted {
        world.rpc_timeout = Duration::from_secs(3);
    }
    begin(&mut world).await?;
    for client in 0..clients {
        world.start_client(client, until)?;
    }
    if crowded {
        world.fabric.net.set_weather(Weather::FAR);
    }
    if foul {
        world.fabric.net.set_weather(Weather::FOUL);
    }
    if nature.succeeds {
        succession::reign(&mut world, until + AFTER).await?;
    } else if nature.ages {
        ageing::pass(&mut world, until + AFTER).await?;
    } else if changing {
        let until = until + Duration::from_secs(30);
        tokio::join!(part(&world, until, &MILD), groups::administer(&world, until));
    } else if wandering {
        part(&world, until, &[Shape::Narrow]).await;
    } else if restored {
        lose_disks(&mut world, until).await?;
    } else if parted {
        part(&world, until, &HARSH).await;
    } else if storm {
        fate(&mut world, until).await?;
    } else {
        tokio::time::sleep(until.saturating_sub(trace.time())).await;
    }
    match tokio::time::timeout(DAY, finale(&mut world)).await {
        Ok(well) => well?,
        Err(_) => world.verdicts.accuse(&world.trace, "somebody waits for ever".to_owned()),
    }
    let violations = world.verdicts.all();
    let operations = world.model.lock().expect("no holder panics").counts();
    Ok(Report { seed, violations, digest: trace.digest(), operations, tail: trace.tail() })
}

/// The directories are made while nothing goes wrong.
async fn begin(world: &mut World) -> anyhow::Result<()> {
    world.start_client(0, Duration::ZERO)?;
    let actor = world.actors().remove(0);
    let made = async {
        let realm = actor.face.lookup(USER, actor.face.root(), REALM.as_bytes()).await?;
        for name in DIRECTORIES {
            actor.face.mkdir(USER, realm.id, name.as_bytes(), 0o755).await?;
        }
        Ok::<(), Error>(())
    };
    made.await.map_err(|error| anyhow::anyhow!("the first directories: {error}"))?;
    drop(actor);
    world.resolves = resolves(world).await;
    world.kill_client(0, Death::Killed, 0);
    if let Some(life) = &world.clients[0].life {
        life.process.die();
    }
    world.bury();
    world.peace.store(false, Ordering::Relaxed);
    Ok(())
}

/// Whether the servers know how to come to agree.
async fn resolves(world: &World) -> bool {
    let Some(server) = lives(world).pop() else { return false };
    let hello =
        wire::Hello { protocol: coda_proto::PROTOCOL, instance: vec![1; 16].into(), ..Default::default() };
    let (welcome, _source) = server.hello(Identity::Client, hello);
    let volume = server.volumes().keys().next().copied();
    let fid = volume.map(|volume| coda_proto::Fid::root(volume).into());
    let body = wire::request::Body::Resolve(wire::Resolve { fid });
    let request = wire::Request { session: welcome.session, body: Some(body), ..Default::default() };
    let (answer, _) = server.call(Identity::Client, request, Default::default()).await;
    let unsupported = i32::from(wire::Code::Unsupported);
    !matches!(answer.body, Some(wire::response::Body::Refusal(refusal)) if refusal.code == unsupported)
}

/// What comes from outside, until the time is over.
async fn fate(world: &mut World, until: Duration) -> anyhow::Result<()> {
    let chance = world.chance.fork();
    let mut rising: Vec<(Duration, bool, usize)> = Vec::new();
    while world.trace.time() < until {
        tokio::time::sleep(chance.between(Duration::from_millis(50), Duration::from_secs(8))).await;
        let now = world.trace.time();
        // Whoever died comes back some time later.
        let (servers, clients) = world.bury();
        for (is_server, at) in
            servers.iter().map(|at| (true, *at)).chain(clients.iter().map(|at| (false, *at)))
        {
            if !rising.iter().any(|(_, kind, which)| (*kind, *which) == (is_server, at)) {
                let later = now + chance.between(Duration::from_millis(100), Duration::from_secs(25));
                rising.push((later, is_server, at));
            }
        }
        for (_, is_server, at) in rising.extract_if(.., |(when, ..)| *when <= now).collect::<Vec<_>>() {
            if is_server {
                check_store(world, at);
                world.start_server(at)?;
            } else {
                world.start_client(at, until)?;
            }
        }
        strike(world, &chance);
        if servers.len() + clients.len() > 0 {
            check_replicas(world);
        }
    }
    Ok(())
}

/// Shapes that a network takes where nobody shall reach everybody.
const HARSH: [Shape; 5] = [Shape::Narrow, Shape::Narrow, Shape::Camps, Shape::OneWay, Shape::OneLink];
/// Shapes that let an administrator get on, now and then.
const MILD: [Shape; 6] =
    [Shape::Narrow, Shape::Camps, Shape::OneWay, Shape::OneLink, Shape::Whole, Shape::Whole];

/// Takes the network from shape to shape, until the time is over.
async fn part(world: &World, until: Duration, shapes: &[Shape]) {
    let chance = world.chance.fork();
    let (servers, clients) = world.hosts();
    while world.trace.time() < until {
        let shape = *chance.pick(shapes);
        reshape(&world.fabric.net, shape, &servers, &clients, &chance);
        // Long enough that some are found dead, or too short for that.
        tokio::time::sleep(chance.between(Duration::from_millis(200), Duration::from_secs(12))).await;
        check_replicas(world);
    }
}

/// The same, and somebody copies the disks of servers and puts old copies back.
async fn lose_disks(world: &mut World, until: Duration) -> anyhow::Result<()> {
    let chance = world.chance.fork();
    let (servers, clients) = world.hosts();
    while world.trace.time() < until {
        for at in world.bury().0 {
            world.start_server(at)?;
        }
        let shape = *chance.pick(&MILD);
        reshape(&world.fabric.net, shape, &servers, &clients, &chance);
        tokio::time::sleep(chance.between(Duration::from_millis(200), Duration::from_secs(8))).await;
        check_replicas(world);
        let at = chance.below(0..servers.len() as u64) as usize;
        if chance.permille(400) || !world.restore(at)? {
            world.back_up(at)?;
        }
    }
    Ok(())
}

fn strike(world: &mut World, chance: &Chance) {
    let (server_hosts, client_hosts) = world.hosts();
    let hosts: Vec<String> = server_hosts.iter().chain(&client_hosts).cloned().collect();
    let (servers, clients) = (world.servers.len() as u64, world.clients.len() as u64);
    let death = if chance.permille(300) { Death::PowerCut } else { Death::Killed };
    match chance.below(0..100) {
        0..=14 => {
            let (from, to) = (chance.pick(&hosts).clone(), chance.pick(&hosts).clone());
            world.fabric.net.cut(&from, &to);
            if chance.permille(700) {
                world.fabric.net.cut(&to, &from);
            }
        }
        15..=29 => world.fabric.net.heal(),
        30..=34 => {
            let shape = *chance.pick(&Shape::ALL);
            reshape(&world.fabric.net, shape, &server_hosts, &client_hosts, chance);
        }
        35..=49 => world.kill_server(chance.below(0..servers) as usize, death, chance.below(0..200)),
        50..=54 => (0..servers as usize).for_each(|at| world.kill_server(at, death, 0)),
        55..=69 => world.kill_client(chance.below(0..clients) as usize, death, chance.below(0..100)),
        70..=74 => world.fabric.net.set_weather(Weather::FOUL),
        75..=79 => world.fabric.net.set_weather(Weather::FAIR),
        80..=83 => world.set_full(chance.below(0..clients) as usize, true),
        84..=87 => {
            (0..clients as usize).for_each(|at| world.set_full(at, false));
            (0..servers as usize).for_each(|at| world.set_server_full(at, false));
        }
        88..=91 => {
            let by = chance.below(0..7_200) as i64 - 3_600;
            world.step_clock(chance.pick(&hosts).as_str(), by * 1_000_000_000);
        }
        92..=94 => world.set_server_full(chance.below(0..servers) as usize, true),
        _ => {}
    }
}

/// Everything heals; what was promised is looked for.
async fn finale(world: &mut World) -> anyhow::Result<()> {
    world.fabric.net.set_weather(Weather::FAIR);
    world.fabric.net.heal();
    for at in 0..world.clients.len() {
        world.set_full(at, false);
    }
    for at in 0..world.servers.len() {
        world.set_server_full(at, false);
    }
    // Nobody dies any more, but for those who are about to end.
    world.peace.store(true, Ordering::Relaxed);
    let begun = world.trace.time();
    while let Some(host) = world.ending() {
        if world.trace.time() - begun > FAREWELL {
            world.verdicts.accuse(&world.trace, format!("client {host} was asked to end, and does not"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for slot in &world.servers {
        slot.life.iter().for_each(|(process, _)| process.die_after(u64::MAX));
    }
    for slot in &world.clients {
        slot.life.iter().for_each(|life| life.process.die_after(u64::MAX));
    }
    let (servers, clients) = world.bury();
    for at in servers {
        check_store(world, at);
        world.start_server(at)?;
    }
    for at in clients {
        world.start_client(at, Duration::ZERO)?;
    }
    if world.nature.succeeds {
        succession::crown(world).await;
    }
    settle(world).await;
    check_replicas(world);
    if world.nature.succeeds {
        let wrong = world.annals.lock().expect("no holder panics").judge(&all(world));
        wrong.into_iter().for_each(|what| world.verdicts.accuse(&world.trace, what));
    }
    if world.nature.ages {
        ageing::tell(world);
    }
    for actor in world.actors() {
        read_all(world, &actor).await;
    }
    check_lasting(world);
    check_ledger(world);
    Ok(())
}

/// Every member holds what follows from all records that reached one.
fn check_ledger(world: &World) {
    if !world.resolves || !world.verdicts.all().is_empty() {
        return;
    }
    for server in lives(world) {
        match world.fabric.ledger.judge(server) {
            Ok(wrong) => wrong.into_iter().for_each(|what| world.verdicts.accuse(&world.trace, what)),
            Err(error) => world.verdicts.accuse(&world.trace, error),
        }
    }
}

/// How long a client may take its leave.
const FAREWELL: Duration = Duration::from_secs(30);
/// Nothing lasts so long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long servers may take to agree when nothing hinders them.
const QUIET: Duration = Duration::from_secs(300);
/// The same where pasts are folded: each member does that by itself, and the others hear of it when they meet next without
/// having a reason to.
const HEARSAY: Duration = Duration::from_secs(1500);

async fn settle(world: &World) {
    // Clients finish what they began; dead servers are probed once a minute.
    tokio::time::sleep(Duration::from_secs(100)).await;
    // What was done apart comes home.
    let begun = world.trace.time();
    for actor in world.actors() {
        while actor.face.unsent() > 0 {
            if world.trace.time() - begun > QUIET {
                let what = format!("client {}: {} records are never sent", actor.client, actor.face.unsent());
                world.verdicts.accuse(&world.trace, what);
                break;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
    if !world.resolves {
        return;
    }
    let begun = world.trace.time();
    let quiet = if world.nature.ages { HEARSAY } else { QUIET };
    loop {
        let agreed = oracle::converged(&lives(world), world.nature.ages);
        match agreed {
            Ok(()) => return world.trace.say(format_args!("the servers agree")),
            Err(difference) if world.trace.time() - begun > quiet => {
                return world
                    .verdicts
                    .accuse(&world.trace, format!("the servers do not come to agree: {difference}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(5)).await,
        }
    }
}

/// Servers that are up and hold a replica. (One that was cut off when its replica was taken away may still have it.)
pub(crate) fn lives(world: &World) -> Vec<&Server> {
    let up = world.servers.iter().filter_map(|slot| Some(&*slot.life.as_ref()?.1));
    let up: Vec<&Server> = up.filter(|server| !server.volumes().is_empty()).collect();
    let latest = up.iter().map(|server| server.realm()).max_by_key(|realm| realm.config);
    let is_member = |server: &&&Server| {
        let volumes = server.volumes();
        let mut known =
            latest.iter().flat_map(|realm| volumes.keys().map(|id| realm.replica_at(*id, server.id())));
        known.any(|member| member.is_some())
    };
    up.iter().filter(is_member).copied().collect()
}

/// All servers that are up.
fn all(world: &World) -> Vec<&Server> {
    world.servers.iter().filter_map(|slot| Some(&*slot.life.as_ref()?.1)).collect()
}

pub(crate) fn check_replicas(world: &World) {
    let mut pasts = world.pasts.lock().expect("no holder panics");
    if world.nature.succeeds {
        let wrong = world.annals.lock().expect("no holder panics").look(&all(world));
        wrong.into_iter().for_each(|what| world.verdicts.accuse(&world.trace, what));
        // One that was set aside begins anew.
        let begins = |server: &&Server| {
            let mut volumes = server.volumes().into_values();
            volumes.len() == 0
                || volumes.any(|one| !one.read(|view| Ok(view.volume_row()?.joined)).unwrap_or(false))
        };
        let anew: Vec<_> = all(world).into_iter().filter(begins).map(Server::id).collect();
        pasts.retain(|(server, _), _| !anew.contains(server));
    }
    for what in world.fabric.ledger.complaints() {
        world.verdicts.accuse(&world.trace, what);
    }
    if let Err(difference) = oracle::replicas_are_sound(&lives(world), &mut pasts, world.nature.ages) {
        world.verdicts.accuse(&world.trace, difference);
    }
    for over in world.over_budget() {
        world.verdicts.accuse(&world.trace, over);
    }
    for dot in world.fabric.ledger.given_twice() {
        world.verdicts.accuse(&world.trace, format!("{dot} names two mutations"));
    }
}

/// The offline checker on the store of a server that died.
pub(crate) fn check_store(world: &World, at: usize) {
    match coda_server::store::fsck::check(&world.store_of(at)) {
        Ok(findings) => findings.iter().for_each(|finding| {
            world.verdicts.accuse(&world.trace, format!("the store of a dead server: {finding:?}"));
        }),
        Err(error) => world.verdicts.accuse(&world.trace, format!("the store of a dead server: {error}")),
    }
}

/// Everybody reads every name. What only one client writes must be as it left it, for all.
async fn read_all(world: &World, actor: &Actor) {
    let everybodys: Vec<String> = (0..world.clients.len()).flat_map(private).collect();
    let shared: Vec<String> = SHARED.iter().map(|name| name.to_string()).collect();
    for (names, owned) in [(everybodys, true), (shared, false)] {
        for name in names {
            actor.read_at_the_end(&name, owned, world.resolves).await;
        }
    }
    if world.resolves {
        for dir in DIRECTORIES {
            actor.read_acl_at_the_end(dir).await;
        }
    }
}

/// What nothing can have replaced is somewhere in the current contents of the servers.
fn check_lasting(world: &World) {
    let mut hashes = match oracle::hashes(&lives(world)) {
        Ok(hashes) => hashes,
        Err(error) => return world.verdicts.accuse(&world.trace, error),
    };
    if world.nature.ages {
        // Of what was removed and forgotten whole nobody takes a Store: its contents are kept where it was made.
        hashes.extend(world.disks().iter().flat_map(|disk| disk.spooled()));
    }
    let model = world.model.lock().expect("no holder panics");
    for (id, name) in model.lasting() {
        let lengths = [1, 30, 3_000];
        let found =
            lengths.iter().any(|lines| hashes.contains(blake3::hash(&contents(id, *lines)).as_bytes()));
        if !found {
            let what = model.operation(id).map(|op| op.what.clone()).unwrap_or_default();
            world
                .verdicts
                .accuse(&world.trace, format!("{name}: {id} ({what}) was acknowledged and is nowhere"));
        }
    }
}

/// Plays a seed twice, in whichever world; the two traces must be one.
pub fn play_twice(play: impl Fn() -> anyhow::Result<Report>) -> anyhow::Result<Report> {
    let first = play().context("the first time")?;
    let mut second = play().context("the second time")?;
    if first.digest != second.digest {
        let differ = first.tail.iter().zip(&second.tail).find(|(a, b)| a != b);
        second.violations.push(format!("two runs of this seed differ: {differ:?}"));
    }
    Ok(second)
}
