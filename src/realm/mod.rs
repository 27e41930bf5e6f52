//! Realms as a client knows them: which servers they have, and where their volumes are.
//!
//! Everything here is a value that is kept on disk, so that a start without any network finds its way
//! to what is cached, and a crashed root server is not missed. Asking is done by `replica`.

use std::collections::BTreeMap;

use coda_proto::{Malformed, ServerId, wire};
use serde::{Deserialize, Serialize};

use crate::{
    env::Endpoint,
    volume::{Group, VolumeKey},
};

/// Bytes of a realm's name, at most: that of a host name.
pub const NAME_LIMIT: usize = 253;
/// Endpoints of one server that are remembered.
const ENDPOINTS_LIMIT: usize = 16;

/// What is known of all realms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// By name.
    pub realms: BTreeMap<String, KnownRealm>,
}

/// What is known of one realm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownRealm {
    /// Grows with every change of the realm's configuration.
    pub config: u64,
    /// Name of the root volume, once a server told it.
    pub root_volume: Option<String>,
    /// By number.
    pub servers: BTreeMap<u8, KnownServer>,
    /// By group id.
    pub volumes: BTreeMap<u32, Group>,
}

/// What is known of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownServer {
    /// For people.
    pub name: String,
    /// Host and port, best first.
    pub endpoints: Vec<(String, u16)>,
}

impl KnownRealm {
    /// The volume that goes by this key.
    pub fn volume(&self, key: &VolumeKey) -> Option<&Group> {
        let root;
        let key = match (key, &self.root_volume) {
            (key, Some(known)) if key.is_root() => {
                root = VolumeKey::Name(known.clone());
                &root
            }
            _ => key,
        };
        self.volumes.values().find(|group| group.answers_to(key))
    }

    /// Takes over what a server says of the realm.
    pub fn learn(&mut self, told: Told) {
        self.config = told.config;
        self.servers = told.servers;
    }
}

impl KnownServer {
    /// Where to reach it.
    pub fn endpoints(&self, realm: &str) -> Vec<Endpoint> {
        let endpoint =
            |(host, port): &(String, u16)| Endpoint { realm: realm.into(), host: host.clone(), port: *port };
        self.endpoints.iter().map(endpoint).collect()
    }
}

/// A server's answer about its realm, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    config: u64,
    servers: BTreeMap<u8, KnownServer>,
}

impl TryFrom<wire::Realm> for Told {
    type Error = Malformed;
    fn try_from(realm: wire::Realm) -> Result<Told, Malformed> {
        let mut servers = BTreeMap::new();
        for server in realm.servers {
            let id = ServerId::new(server.id)?;
            let usable = |e: &wire::Endpoint| {
                !e.peer_only && !e.host.is_empty() && e.host.len() <= NAME_LIMIT && port(e).is_some()
            };
            let endpoints: Vec<_> = (server.endpoints.into_iter().filter(usable))
                .take(ENDPOINTS_LIMIT)
                .filter_map(|e| port(&e).map(|port| (e.host, port)))
                .collect();
            if server.name.len() > NAME_LIMIT {
                return Err(Malformed::new("realm", format!("the name of server {id} is too long")));
            }
            if servers.insert(id.0, KnownServer { name: server.name, endpoints }).is_some() {
                return Err(Malformed::new("realm", format!("server {id} is named twice")));
            }
        }
        if servers.values().all(|server| server.endpoints.is_empty()) {
            return Err(Malformed::new("realm", "no server that a client could reach"));
        }
        Ok(Told { config: realm.config, servers })
    }
}

fn port(endpoint: &wire::Endpoint) -> Option<u16> {
    u16::try_from(endpoint.port).ok().filter(|port| *port != 0)
}

/// Whether a name below `/coda` can be a realm's at all. What cannot is unknown, without asking anybody.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    !name.is_empty()
        && name.len() <= NAME_LIMIT
        && name != "localhost"
        && !name.starts_with('.')
        && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u32, host: &str, port: u32) -> wire::ServerInfo {
        let endpoint = wire::Endpoint { host: host.into(), port, peer_only: false };
        wire::ServerInfo { id, name: format!("server{id}"), endpoints: vec![endpoint] }
    }

    fn told(servers: Vec<wire::ServerInfo>) -> Result<Told, Malformed> {
        Told::try_from(wire::Realm { name: "example.org".into(), config: 1, servers, scm: 1 })
    }

    #[test]
    fn what_a_realm_says_of_itself_is_checked() {
        assert!(told(vec![server(1, "a", 2432), server(2, "b", 2432)]).is_ok());
        assert!(told(vec![]).is_err(), "no server");
        assert!(told(vec![server(1, "a", 0)]).is_err(), "no port");
        assert!(told(vec![server(1, "a", 70_000)]).is_err(), "no such port");
        assert!(told(vec![server(127, "a", 1)]).is_err(), "a reserved number");
        assert!(told(vec![server(1, "a", 1), server(1, "b", 1)]).is_err(), "one number twice");
        let mut hidden = server(1, "a", 1);
        hidden.endpoints[0].peer_only = true;
        assert!(told(vec![hidden]).is_err(), "reachable for servers only");
    }

    #[test]
    fn what_cannot_be_a_realm_is_not_asked_for() {
        for good in ["example.org", "server1", "127.0.0.1", "b-2.c_d", "müller.de"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(300);
        for bad in ["", "#x", "@x", ".Trash", "...PIOCTL.", "a/b", "a b", "localhost", &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_known_survives_the_disk_and_fields_of_the_future() {
        let mut realm = KnownRealm::default();
        realm.learn(told(vec![server(1, "a", 2432)]).unwrap());
        let known = Known { realms: BTreeMap::from([("example.org".to_owned(), realm)]) };
        let text = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<Known>(&text).unwrap(), known);
        assert_eq!(serde_json::from_str::<Known>(r#"{"later":1}"#).unwrap(), Known::default());
    }
}
