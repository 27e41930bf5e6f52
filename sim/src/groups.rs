//! An administrator who takes replicas away and brings them back while everybody works.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{
    ServerId,
    service::{Identity, Service},
    wire::{self, admin::Body as Ask},
};
use coda_server::Server;

use crate::{oracle, world::World};

/// How long the administrator waits for a member that leaves to be known by the others, before it gives up for now.
const PATIENCE: Duration = Duration::from_secs(20);

/// Changes the root volume's group, until the time is over. The SCM's own replica stays.
pub(crate) async fn administer(world: &World, until: Duration) {
    let chance = world.chance.fork();
    while world.trace.time() < until {
        tokio::time::sleep(chance.between(Duration::from_millis(500), Duration::from_secs(6))).await;
        let Some(scm) = life(world, 0) else { continue };
        let at = chance.below(1..world.servers.len() as u64) as usize;
        let id = world.servers[at].id;
        match state(&scm, id) {
            None => add(world, &scm, id).await,
            Some(state) if state == i32::from(wire::MemberState::MemberActive) => {
                remove(world, &scm, at, until).await;
            }
            Some(state) if state == i32::from(wire::MemberState::MemberLeaving) => {
                finish(world, &scm, at).await;
            }
            // It has yet to meet the others.
            Some(_) => {}
        }
    }
    // A member that leaves for ever is not what the end is about.
    let Some(scm) = life(world, 0) else { return };
    for at in 1..world.servers.len() {
        if state(&scm, world.servers[at].id) == Some(wire::MemberState::MemberLeaving.into()) {
            finish(world, &scm, at).await;
        }
    }
}

async fn add(world: &World, scm: &Server, id: ServerId) {
    // It begins anew.
    world.pasts.lock().expect("no holder panics").retain(|(server, _), _| *server != id);
    let ask = wire::AddReplica { volume: name(scm), server: id.0.into(), ..Default::default() };
    administrate(world, scm, Ask::AddReplica(ask)).await;
}

/// First the member takes no more mutations; when the others have what it has, it is gone.
async fn remove(world: &World, scm: &Server, at: usize, until: Duration) {
    let ask = wire::RemoveReplica {
        volume: name(scm),
        server: world.servers[at].id.0.into(),
        ..Default::default()
    };
    administrate(world, scm, Ask::RemoveReplica(ask)).await;
    if world.trace.time() < until {
        finish(world, scm, at).await;
    }
}

async fn finish(world: &World, scm: &Server, at: usize) {
    let id = world.servers[at].id;
    let begun = world.trace.time();
    while world.trace.time() - begun < PATIENCE {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let Some(leaving) = life(world, at) else { continue };
        // A server that has not heard that it leaves goes on taking mutations.
        let knows = state(&leaving, id) == Some(wire::MemberState::MemberLeaving.into());
        if knows && oracle::includes(scm, &leaving).unwrap_or(false) {
            let ask = wire::RemoveReplica { volume: name(scm), server: id.0.into(), ..Default::default() };
            administrate(world, scm, Ask::RemoveReplica(ask)).await;
            return;
        }
    }
}

async fn administrate(world: &World, scm: &Server, ask: Ask) {
    world.trace.say(format_args!("the administrator asks: {ask:?}"));
    let body = Some(wire::request::Body::Admin(wire::Admin { body: Some(ask) }));
    let (answer, _) =
        scm.call(Identity::Admin, wire::Request { body, ..Default::default() }, Bytes::new()).await;
    if let Some(wire::response::Body::Refusal(refusal)) = answer.body {
        world.trace.say(format_args!("refused: {}", refusal.detail));
    }
}

pub(crate) fn life(world: &World, at: usize) -> Option<Arc<Server>> {
    world.servers[at]
        .life
        .as_ref()
        .filter(|(process, _)| process.is_alive())
        .map(|(_, server)| Arc::clone(server))
}

pub(crate) fn name(scm: &Server) -> String {
    scm.realm().root_volume.clone()
}

/// How a member of the root volume stands, as a server knows it.
pub(crate) fn state(server: &Server, member: ServerId) -> Option<i32> {
    let realm = server.realm();
    let volume = realm.volume_named(&realm.root_volume)?;
    volume.info.members.iter().find(|one| one.server == u32::from(member.0)).map(|one| one.state)
}
