//! Where the servers of a realm are: the realms file, then `/etc/hosts` or DNS.
//!
//! "Nowhere" is an answer. An error means that nobody could be asked, and asking later may help.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use coda_net::{Names, certificate::check_realm, dialer::BoxFuture};
use coda_proto::DEFAULT_PORT;

use super::{
    dns::{Dns, Services},
    hosts,
    realms::Realms,
    srv,
};
use crate::env::Endpoint;

/// Who knows where things are.
#[derive(Clone)]
pub struct Atlas {
    /// The realms file.
    pub realms: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// DNS.
    pub dns: Arc<Dns>,
}

impl Atlas {
    /// The servers that may know a realm, best first.
    pub async fn locate(&self, realm: &str) -> Result<Vec<Endpoint>, String> {
        if let Some(listed) = Realms::read(&self.realms)?.endpoints(realm) {
            return listed.map(shuffled);
        }
        if let Ok(address) = realm.parse::<IpAddr>() {
            return Ok(vec![at(realm, address)]);
        }
        if check_realm(realm).is_err() || !is_dns_name(realm) {
            return Ok(self.known_here(realm));
        }
        let services = match self.dns.services(realm).await {
            Ok(services) => services,
            // Without DNS there is still what this machine knows.
            Err(why) => match self.known_here(realm) {
                none if none.is_empty() => return Err(why),
                known => return Ok(known),
            },
        };
        match services {
            Services::At(services) => Ok(in_order(realm, services)),
            Services::Absent => Ok(Vec::new()),
            Services::Unknown => match self.known_here(realm) {
                none if none.is_empty() => {
                    let found = self.dns.addresses(realm).await?;
                    Ok(shuffled(found.into_iter().map(|address| at(realm, address)).collect()))
                }
                known => Ok(known),
            },
        }
    }

    fn known_here(&self, realm: &str) -> Vec<Endpoint> {
        let found = hosts::addresses(&self.hosts, realm);
        shuffled(found.into_iter().map(|address| at(realm, address)).collect())
    }
}

impl Names for Atlas {
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>> {
        let (atlas, host) = (self.clone(), host.to_owned());
        Box::pin(async move {
            let mut found = match host.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => hosts::addresses(&atlas.hosts, &host),
            };
            if found.is_empty() && is_dns_name(&host) {
                found = atlas.dns.addresses(&host).await?;
            }
            match found.is_empty() {
                true => Err(format!("the host {host} has no address")),
                false => Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
            }
        })
    }
}

/// Whether DNS may be asked about a name: it has a dot inside.
fn is_dns_name(name: &str) -> bool {
    !name.starts_with('.') && name.trim_end_matches('.').contains('.')
}

fn at(realm: &str, address: IpAddr) -> Endpoint {
    Endpoint { realm: realm.to_owned(), host: address.to_string(), port: DEFAULT_PORT }
}

fn in_order(realm: &str, services: Vec<srv::Service>) -> Vec<Endpoint> {
    let endpoint = |service: srv::Service| Endpoint {
        realm: realm.to_owned(),
        host: service.target,
        port: service.port,
    };
    srv::order(services, below_or_at).into_iter().map(endpoint).collect()
}

fn shuffled(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    for last in (1..endpoints.len()).rev() {
        endpoints.swap(last, below_or_at(last as u64) as usize);
    }
    endpoints
}

/// A random number from 0 to `limit`, both included. Spreads load; need not be exactly fair.
fn below_or_at(limit: u64) -> u64 {
    getrandom::u64().unwrap_or_default() % (limit + 1)
}
