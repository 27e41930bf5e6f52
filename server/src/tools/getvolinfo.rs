//! What a server tells clients about a volume, in the form in which getvolinfo has always shown it.

use std::net::{Ipv4Addr, ToSocketAddrs};

use coda_proto::{
    ServerId,
    wire::{self, request, response},
};
use serde_json::json;

use super::{Link, Report, link};
use crate::location::Realm;

/// Columns of replicas.
const SLOTS: usize = 8;

/// A server and a volume.
#[derive(clap::Args)]
pub struct GetVolInfo {
    /// The server that is asked.
    pub server: String,
    /// The volume, by name or id.
    pub volume: String,
}

/// Asks.
pub async fn ask(link: &Link, ask: GetVolInfo) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let server = link::server(&realm, &ask.server)?;
    let by_id = u32::from_str_radix(&ask.volume, 16).ok().filter(|id| realm.volume_by_id(*id).is_some());
    let get = match by_id {
        Some(id) => wire::GetVolume { name: String::new(), id },
        None => wire::GetVolume { name: ask.volume.clone(), id: 0 },
    };
    let (body, _) = link.call(server, request::Body::GetVolume(get), bytes::Bytes::new()).await?;
    let response::Body::Volume(info) = body else { anyhow::bail!("{} answers something else", server.name) };
    let port = server.endpoints.first().map_or(coda_proto::DEFAULT_PORT.into(), |at| at.port);
    let text = text(&realm, &format!("{}:{port}", server.name), &ask.volume, &info);
    Ok(Report::new(text, json!({ "asked": server.name, "volume": super::info::json_of(&info) })))
}

/// The lines. Replicas stand in the order of their slots, without gaps.
fn text(realm: &Realm, asked: &str, name: &str, info: &wire::VolumeInfo) -> String {
    let mut text =
        format!("RPC2 connection to {asked} successful.\nReturned volume information for {name}\n");
    text += &format!("\tVolumeId {:08x}\n\tReplicated volume (type 3)\n\n", info.id);
    for kind in 0..5 {
        match kind {
            3 => text += &format!("\tType3 id {:08x}\n", info.id),
            kind => text += &format!("\tType{kind} id 0\n"),
        }
    }
    text += &format!("\n\tServerCount {}\n", info.members.len());
    let mut members = info.members.clone();
    members.sort_by_key(|member| member.slot);
    for slot in 0..SLOTS {
        match members.get(slot) {
            Some(member) => {
                let server = ServerId::new(member.server).ok().and_then(|id| realm.servers.get(&id));
                let address = server.map_or(Ipv4Addr::UNSPECIFIED.to_string(), address);
                text += &format!("\tReplica{slot} id {:08x}, Server{slot} {address}\n", member.replica);
            }
            None => text += &format!("\tReplica{slot} id 0, Server{slot} 0.0.0.0\n"),
        }
    }
    text + "\n\tVSGAddr 0\n"
}

/// The address where clients reach a server; its name where none is found.
fn address(server: &wire::ServerInfo) -> String {
    let Some(at) = server.endpoints.iter().find(|at| !at.peer_only) else { return server.name.clone() };
    let found = (at.host.as_str(), at.port as u16).to_socket_addrs().ok().and_then(|mut all| all.next());
    found.map_or_else(|| at.host.clone(), |found| found.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_as_it_always_did() {
        let info = |id: u32, name: &str| wire::ServerInfo {
            id,
            name: name.into(),
            endpoints: vec![wire::Endpoint { host: format!("10.0.0.{id}"), port: 2432, peer_only: false }],
        };
        let servers = vec![info(1, "scm"), info(2, "replica")];
        let realm = crate::setup::realm("r", servers, coda_proto::Rights::ALL).unwrap();
        let volume = realm.volumes.values().next().unwrap();
        assert_eq!(
            text(&realm, "scm:2432", "volume_name", &volume.info),
            "RPC2 connection to scm:2432 successful.\n\
             Returned volume information for volume_name\n\
             \tVolumeId 7f000001\n\
             \tReplicated volume (type 3)\n\
             \n\
             \tType0 id 0\n\
             \tType1 id 0\n\
             \tType2 id 0\n\
             \tType3 id 7f000001\n\
             \tType4 id 0\n\
             \n\
             \tServerCount 2\n\
             \tReplica0 id 01000001, Server0 10.0.0.1\n\
             \tReplica1 id 02000001, Server1 10.0.0.2\n\
             \tReplica2 id 0, Server2 0.0.0.0\n\
             \tReplica3 id 0, Server3 0.0.0.0\n\
             \tReplica4 id 0, Server4 0.0.0.0\n\
             \tReplica5 id 0, Server5 0.0.0.0\n\
             \tReplica6 id 0, Server6 0.0.0.0\n\
             \tReplica7 id 0, Server7 0.0.0.0\n\
             \n\
             \tVSGAddr 0\n"
        );
    }
}
