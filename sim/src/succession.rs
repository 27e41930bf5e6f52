//! Another SCM, again and again: administrators promote servers while others are cut off or dead, and go on changing
//! groups wherever somebody takes itself for the SCM. The old one returns, and finds out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{
    ServerId,
    service::{Identity, Service},
    wire::{self, admin::Body as Ask},
};
use coda_server::{Server, location::scm};

use crate::{
    annals::is_scm,
    chance::Chance,
    fabric::REALM,
    groups::{life, name, state},
    partition::{Shape, reshape},
    play::{check_replicas, check_store},
    seal::mandate,
    world::{Death, World},
};

/// Mostly one is alone, or there are two camps; now and then all reach all.
const SHAPES: [Shape; 7] =
    [Shape::Lonely, Shape::Camps, Shape::Camps, Shape::OneWay, Shape::OneLink, Shape::Narrow, Shape::Whole];

/// Volumes that are made, about: each costs what a database costs.
const VOLUMES: usize = 8;
/// Attempts to have an SCM once everything is healed.
const ATTEMPTS: usize = 30;

/// Servers die, the network changes, and SCMs follow each other, until the time is over.
pub(crate) async fn reign(world: &mut World, until: Duration) -> anyhow::Result<()> {
    let chance = world.chance.fork();
    let ruthless = chance.permille(150);
    world.annals.lock().expect("no holder panics").ruthless = ruthless;
    let (servers, clients) = world.hosts();
    let mut rising: Vec<(Duration, usize)> = Vec::new();
    while world.trace.time() < until {
        for at in world.bury().0 {
            if !rising.iter().any(|(_, which)| *which == at) {
                let later = chance.between(Duration::from_millis(100), Duration::from_secs(12));
                rising.push((world.trace.time() + later, at));
            }
        }
        let now = world.trace.time();
        for (_, at) in rising.extract_if(.., |(when, _)| *when <= now).collect::<Vec<_>>() {
            check_store(world, at);
            world.start_server(at)?;
        }
        if chance.permille(500) {
            let shape = *chance.pick(&SHAPES);
            reshape(&world.fabric.net, shape, &servers, &clients, &chance);
        }
        if chance.permille(120) {
            let death = if chance.permille(300) { Death::PowerCut } else { Death::Killed };
            let at = chance.below(0..servers.len() as u64) as usize;
            world.kill_server(at, death, chance.below(0..200));
        }
        for _ in 0..chance.below(1..4) {
            act(world, &chance, ruthless);
        }
        // Long enough for a promotion to come to an end, or too short for that.
        tokio::time::sleep(chance.between(Duration::from_millis(50), Duration::from_secs(4))).await;
        check_replicas(world);
    }
    Ok(())
}

/// An administrator does something at a server that is up.
fn act(world: &World, chance: &Chance, ruthless: bool) {
    let up: Vec<usize> = (0..world.servers.len()).filter(|at| life(world, *at).is_some()).collect();
    if up.is_empty() {
        return;
    }
    let at = *chance.pick(&up);
    let Some(server) = life(world, at) else { return };
    if chance.permille(300) {
        let without = match ruthless && chance.permille(500) {
            true => scm::voters(&server.realm()),
            false => Default::default(),
        };
        ask(world, at, promotion(&server, without.into_iter().collect()));
        return;
    }
    let of = chance.below(0..world.servers.len() as u64) as usize;
    // Most know where the SCM is; some ask whom they ask.
    if of == at || !(is_scm(&server) || chance.permille(50)) {
        return;
    }
    let (id, volume) = (world.servers[of].id, name(&server));
    if chance.permille(300) && server.realm().volumes.len() < VOLUMES {
        let servers = [world.servers[at].id, id].map(|id| u32::from(id.0)).to_vec();
        let name = format!("made.{}", world.trace.time().as_millis());
        ask(world, at, Ask::CreateVolume(wire::CreateVolume { name, servers, ..Default::default() }));
        return;
    }
    let active = i32::from(wire::MemberState::MemberActive);
    let members = world.servers.iter().filter(|slot| state(&server, slot.id) == Some(active)).count();
    match state(&server, id) {
        None => ask(
            world,
            at,
            Ask::AddReplica(wire::AddReplica { volume, server: id.0.into(), ..Default::default() }),
        ),
        Some(state) if state == active && members > 1 => ask(
            world,
            at,
            Ask::RemoveReplica(wire::RemoveReplica { volume, server: id.0.into(), ..Default::default() }),
        ),
        Some(_) => {}
    }
}

fn promotion(server: &Server, without: Vec<ServerId>) -> Ask {
    let term = server.chronicle().promised().number + 1;
    let mandate = Some(mandate(REALM, term, server.id()));
    Ask::Promote(wire::Promote { mandate, without: without.into_iter().map(|id| id.0.into()).collect() })
}

/// Asks, and does not wait: whoever is asked may die over it.
fn ask(world: &World, at: usize, ask: Ask) {
    let slot = &world.servers[at];
    let Some((process, server)) = &slot.life else { return };
    let (server, trace, id) = (Arc::clone(server), world.trace.clone(), slot.id);
    trace.say(format_args!("an administrator asks server {id}: {}", label(&ask)));
    process.spawn(Box::pin(async move {
        let said = tell(&server, ask).await;
        trace.say(format_args!("server {id} tells the administrator: {said:?}"));
    }));
}

async fn tell(server: &Server, ask: Ask) -> Result<String, String> {
    let body = Some(wire::request::Body::Admin(wire::Admin { body: Some(ask) }));
    let request = wire::Request { body, ..Default::default() };
    let (answer, _) = server.call(Identity::Admin, request, Bytes::new()).await;
    match answer.body {
        Some(wire::response::Body::Admin(answer)) => Ok(answer.text),
        Some(wire::response::Body::Refusal(refusal)) => Err(refusal.detail),
        other => Err(format!("{other:?}")),
    }
}

fn label(ask: &Ask) -> String {
    match ask {
        Ask::Promote(promote) => {
            let term = promote.mandate.as_ref().map_or(0, |mandate| mandate.term);
            format!("be the SCM in term {term}, without {:?}", promote.without)
        }
        other => format!("{other:?}"),
    }
}

/// Everything is healed: an administrator sees to it that there is an SCM, and that it can change the realm.
pub(crate) async fn crown(world: &World) {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        let lives: Vec<_> = (0..world.servers.len()).filter_map(|at| life(world, at)).collect();
        let highest = lives.iter().map(|server| server.chronicle().promised()).max();
        let reigning = lives.iter().find(|one| is_scm(one) && Some(one.chronicle().promised()) == highest);
        if let Some(scm) = reigning {
            match prove(world, scm, &lives).await {
                Ok(()) => return,
                Err(why) => last = why,
            }
        } else {
            let server = &lives[attempt % lives.len()];
            let mut ask = promotion(server, Vec::new());
            if let (Ask::Promote(wire::Promote { mandate: wanted, .. }), Some(highest)) = (&mut ask, highest)
            {
                *wanted = Some(mandate(REALM, highest.number + 1, server.id()));
            }
            world.trace.say(format_args!("an administrator asks server {}: {}", server.id(), label(&ask)));
            let said = tell(server, ask).await;
            world.trace.say(format_args!("server {} tells the administrator: {said:?}", server.id()));
            last = said.err().unwrap_or_default();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    world.verdicts.accuse(&world.trace, format!("nobody becomes an SCM that can change the realm: {last}"));
}

/// A volume of its own is made: it takes what any change takes.
async fn prove(world: &World, scm: &Arc<Server>, lives: &[Arc<Server>]) -> Result<(), String> {
    let wanted = wire::CreateVolume {
        name: format!("proof.{}", world.trace.time().as_millis()),
        servers: world.servers.iter().map(|slot| slot.id.0.into()).collect(),
        ..Default::default()
    };
    let said = tell(scm, Ask::CreateVolume(wanted)).await;
    world.trace.say(format_args!("server {} tells the administrator: {said:?}", scm.id()));
    match said {
        // All of them have the change, or it says who has not.
        Ok(text) if text.is_empty() => {
            let end = scm.chronicle().end();
            match lives.iter().find(|other| other.chronicle().end().index < end.index) {
                Some(other) => Err(format!("server {} has not heard of a change that all know", other.id())),
                None => Ok(()),
            }
        }
        Ok(text) => Err(text),
        Err(why) => Err(why),
    }
}
