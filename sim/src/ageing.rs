//! A world in which everything ages in seconds that ages in years: removals are forgotten, authors that were silent are
//! retired although their clients have something to send, and pasts are folded. Clients also end as one should, and
//! come back as somebody else.

use std::time::Duration;

use coda_server::config::Limits;

use crate::{
    chance::Chance,
    net::Weather,
    partition::{Shape, reshape},
    play::{check_replicas, check_store},
    world::{Death, World},
};

/// How old things become.
pub fn limits() -> Limits {
    Limits {
        tombstone_age: Duration::from_secs(6),
        author_age: Duration::from_secs(10),
        fold_age: Duration::from_secs(3),
        past: 0,
        fold_at_least: 3,
        round: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// What comes from outside, until the time is over.
pub(crate) async fn pass(world: &mut World, until: Duration) -> anyhow::Result<()> {
    let chance = world.chance.fork();
    let mut rising: Vec<(Duration, bool, usize)> = Vec::new();
    while world.trace.time() < until {
        let (servers, clients) = world.bury();
        let now = world.trace.time();
        let dead = servers.iter().map(|at| (true, *at)).chain(clients.iter().map(|at| (false, *at)));
        for (is_server, at) in dead {
            if !rising.iter().any(|(_, kind, which)| (*kind, *which) == (is_server, at)) {
                rising.push((
                    now + chance.between(Duration::from_millis(50), Duration::from_secs(15)),
                    is_server,
                    at,
                ));
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
        tokio::time::sleep(chance.between(Duration::from_millis(100), Duration::from_secs(5))).await;
        check_replicas(world);
    }
    Ok(())
}

fn strike(world: &mut World, chance: &Chance) {
    let (servers, clients) = world.hosts();
    let (server, client) =
        (chance.below(0..servers.len() as u64) as usize, chance.below(0..clients.len() as u64) as usize);
    match chance.below(0..100) {
        // For so long that the servers may have given its author up.
        0..=24 => {
            let alone = clients[client].clone();
            servers.iter().for_each(|server| {
                world.fabric.net.cut(&alone, server);
                world.fabric.net.cut(server, &alone);
            });
        }
        25..=34 => world.fabric.net.heal(),
        35..=44 => {
            let shape = *chance.pick(&Shape::ALL);
            reshape(&world.fabric.net, shape, &servers, &clients, chance);
        }
        45..=64 => world.end_client(client),
        65..=72 => world.kill_client(client, Death::Killed, chance.below(0..100)),
        73..=79 => world.kill_server(server, Death::Killed, chance.below(0..200)),
        80..=84 => world.fabric.net.set_weather(Weather::FOUL),
        85..=89 => world.fabric.net.set_weather(Weather::FAIR),
        90..=92 => {
            let by = chance.below(0..60) as i64 - 30;
            world.step_clock(&servers[server], by * 1_000_000_000);
        }
        _ => {}
    }
}

/// What came of it, for people: the servers' lists and what is left of removals.
pub(crate) fn tell(world: &World) {
    world.trace.say(format_args!("aged: {} records were issued again", world.fabric.ledger.issued_again()));
    for slot in &world.servers {
        let Some((_, server)) = &slot.life else { continue };
        for volume in server.volumes().values() {
            let told = volume.read(|view| {
                let retired = view.retired_after(0, u32::MAX)?.len();
                let mut folded = 0;
                for (_, fid) in view.changed_since(0, u32::MAX)? {
                    folded += u64::from(view.past(fid)?.is_some_and(|past| past.is_folded()));
                }
                Ok((retired, folded, view.tombstones()?))
            });
            if let Ok((retired, folded, tombstones)) = told {
                world.trace.say(format_args!(
                    "aged: server {} has {retired} retired authors, {folded} folded pasts, {tombstones} tombstones",
                    slot.id
                ));
            }
        }
    }
}
