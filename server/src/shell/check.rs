//! `codasrv check-config`: what is wrong with server.conf, with /etc/hosts and with the other servers, each
//! with its line.

use std::{
    fs,
    net::{IpAddr, ToSocketAddrs},
    path::Path,
    time::Duration,
};

use coda_net::Credentials;
use coda_proto::{
    ServerId,
    wire::{self, request},
};

use super::{NetEnv, conf, conf::Conf};
use crate::{
    location::{FileError, Realm, lines, servers},
    store::RealmStore,
};

/// The world as far as a configuration speaks of it.
pub trait World {
    /// Addresses of a name.
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String>;
    /// The text of /etc/hosts.
    fn hosts(&self) -> String;
    /// Whether this server answers there.
    fn reach(&self, server: ServerId, endpoint: &wire::Endpoint) -> Result<(), String>;
}

/// What is wrong. `own` and `realm` are known once the server has a store.
pub fn check(file: &str, text: &str, store: Option<(ServerId, &Realm)>, world: &dyn World) -> Vec<FileError> {
    let conf = match conf::parse(file, text) {
        Ok((conf, _)) => conf,
        Err(problems) => return problems,
    };
    let mut problems = Vec::new();
    let mut own_names: Vec<(usize, String)> =
        conf.endpoints.iter().map(|(line, endpoint)| (*line, endpoint.host.clone())).collect();
    if let Some(name) = &conf.hostname {
        own_names.push((line_of(text, "hostname"), name.clone()));
    }
    for (line, host) in &own_names {
        problems.extend(own_name(file, *line, host, world));
    }
    if let Some((own, realm)) = store {
        problems.extend(peers(own, realm, &own_names, world));
    }
    problems
}

fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| line.trim().split_once('=').is_some_and(|(found, _)| found.trim() == key);
    text.lines().enumerate().filter(|(_, line)| sets(line)).last().map_or(0, |(index, _)| index + 1)
}

/// A name of this server is given to everybody else: it must have an address, and not one that only this
/// machine has.
fn own_name(file: &str, line: usize, host: &str, world: &dyn World) -> Vec<FileError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return match address.is_loopback() {
            true => vec![FileError::new(file, line, format!("{host} is this machine wherever it is used"))],
            false => Vec::new(),
        };
    }
    if let Some((number, address)) = loopback_line(&world.hosts(), host) {
        let reason = format!(
            "{host} is {address} here, and something else everywhere: other machines are told the name"
        );
        return vec![FileError::new("/etc/hosts", number, reason)];
    }
    match world.resolve(host) {
        Ok(addresses) if addresses.iter().any(|address| !address.is_loopback()) => Vec::new(),
        Ok(_) => vec![FileError::new(file, line, format!("{host} has only a loopback address"))],
        Err(why) => vec![FileError::new(file, line, format!("{host}: unknown host ({why})"))],
    }
}

/// The line of /etc/hosts that gives a name to the loopback interface.
fn loopback_line(hosts: &str, host: &str) -> Option<(usize, IpAddr)> {
    hosts.lines().enumerate().find_map(|(index, line)| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        let named = words.any(|name| name.eq_ignore_ascii_case(host));
        (named && address.is_loopback()).then_some((index + 1, address))
    })
}

/// The other servers, by their line in db/servers.
fn peers(own: ServerId, realm: &Realm, checked: &[(usize, String)], world: &dyn World) -> Vec<FileError> {
    let file = "db/servers";
    let text = servers::text(&realm.servers);
    let mut problems = Vec::new();
    let numbers = lines::words(file, &text).unwrap_or_default();
    for (id, info) in &realm.servers {
        let line = numbers.iter().find(|(_, words)| words.get(1).is_some_and(|word| *word == id.to_string()));
        let line = line.map_or(0, |(number, _)| *number);
        if *id == own {
            let names = info.endpoints.iter().map(|endpoint| &endpoint.host);
            let fresh = names.filter(|host| !checked.iter().any(|(_, other)| other == *host));
            problems.extend(fresh.flat_map(|host| own_name(file, line, host, world)));
            continue;
        }
        for endpoint in &info.endpoints {
            let at = format!("{} at {}:{}", info.name, endpoint.host, endpoint.port);
            if endpoint.host.parse::<IpAddr>().is_err()
                && let Err(why) = world.resolve(&endpoint.host)
            {
                problems.push(FileError::new(file, line, format!("{at}: unknown host ({why})")));
                continue;
            }
            if let Err(why) = world.reach(*id, endpoint) {
                problems.push(FileError::new(file, line, format!("{at} does not answer: {why}")));
            }
        }
    }
    problems
}

/// This machine and its network.
struct Here {
    env: Option<NetEnv>,
    runtime: tokio::runtime::Handle,
}

const PATIENCE: Duration = Duration::from_secs(5);

impl World for Here {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
        Ok(found.map(|address| address.ip()).collect())
    }

    fn hosts(&self) -> String {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    }

    fn reach(&self, server: ServerId, endpoint: &wire::Endpoint) -> Result<(), String> {
        let Some(env) = &self.env else { return Ok(()) };
        let probe = request::Body::Probe(wire::Probe {});
        let request = wire::Request { body: Some(probe), ..Default::default() };
        let call = env.call(endpoint, Some(server), request, bytes::Bytes::new(), PATIENCE);
        let answer = tokio::task::block_in_place(|| self.runtime.block_on(call));
        answer.map(drop).map_err(|error| error.to_string())
    }
}

/// Checks the file at `path` in this world. Answers what is wrong, and notes.
pub fn check_here(path: &Path, needed: bool) -> anyhow::Result<(Vec<FileError>, Vec<String>)> {
    let file = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if needed || error.kind() != std::io::ErrorKind::NotFound => {
            return Ok((vec![FileError::new(&file, 0, error.to_string())], Vec::new()));
        }
        Err(_) => String::new(),
    };
    let (conf, notes) = conf::parse(&file, &text).unwrap_or_else(|_| (Conf::default(), Vec::new()));
    let store = match RealmStore::look(&conf.vicedir) {
        Ok(store) => Some(store.load()?),
        Err(_) => None,
    };
    let env = match &store {
        Some(_) => Some(NetEnv::new(&Credentials::load(&conf.vicedir, "server")?)?),
        None => None,
    };
    let here = Here { env, runtime: tokio::runtime::Handle::current() };
    Ok((check(&file, &text, store.as_ref().map(|(own, realm)| (*own, realm)), &here), notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup;

    struct Fake {
        hosts: &'static str,
        dead: Vec<u8>,
    }

    impl World for Fake {
        fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
            match host {
                "files1" | "files2" | "files3" => Ok(vec![[192, 0, 2, 1].into()]),
                "inside" => Ok(vec![[127, 0, 0, 1].into()]),
                _ => Err("no such name".into()),
            }
        }
        fn hosts(&self) -> String {
            self.hosts.to_owned()
        }
        fn reach(&self, server: ServerId, _: &wire::Endpoint) -> Result<(), String> {
            match self.dead.contains(&server.0) {
                true => Err("silent".into()),
                false => Ok(()),
            }
        }
    }

    fn well() -> Fake {
        Fake { hosts: "127.0.0.1 localhost\n192.0.2.1 files1 # ours\n", dead: Vec::new() }
    }

    fn realm() -> Realm {
        let info = |id: u32, host: &str| wire::ServerInfo {
            id,
            name: host.into(),
            endpoints: vec![wire::Endpoint { host: host.into(), port: 2432, peer_only: false }],
        };
        let servers = vec![info(1, "files1"), info(2, "files2"), info(3, "files3")];
        setup::realm("r", servers, coda_proto::Rights::ALL).unwrap()
    }

    fn said(text: &str, world: &Fake, realm: Option<&Realm>) -> Vec<String> {
        let store = realm.map(|realm| (ServerId(1), realm));
        check("server.conf", text, store, world).iter().map(FileError::to_string).collect()
    }

    #[test]
    fn a_sound_configuration_has_nothing_to_say() {
        assert!(said("hostname=files1\nendpoint=files1\n", &well(), Some(&realm())).is_empty());
        assert!(said("", &well(), None).is_empty());
    }

    #[test]
    fn an_unknown_host_name_is_told_with_its_line() {
        assert_eq!(
            said("# a\n\nendpoint=filse1\n", &well(), None),
            ["server.conf:3: filse1: unknown host (no such name)"]
        );
        assert_eq!(
            said("hostname=inside\n", &well(), None),
            ["server.conf:1: inside has only a loopback address"]
        );
        assert_eq!(
            said("endpoint=127.0.0.1:2432\n", &well(), None),
            ["server.conf:1: 127.0.0.1 is this machine wherever it is used"]
        );
    }

    #[test]
    fn a_loopback_address_in_etc_hosts_is_told_with_its_line_there() {
        let world = Fake { hosts: "127.0.0.1 localhost\n\n127.0.1.1\tFILES1 files\n", dead: vec![] };
        let expected = "/etc/hosts:3: files1 is 127.0.1.1 here, and something else everywhere: other machines are told \
                        the name";
        assert_eq!(said("endpoint=files1\n", &world, None), [expected]);
        // Also when only the realm knows the name.
        assert_eq!(said("", &world, Some(&realm())), [expected]);
    }

    #[test]
    fn a_peer_that_does_not_answer_or_has_no_address_is_told_with_its_line() {
        let world = Fake { dead: vec![3], ..well() };
        let mut realm = realm();
        assert_eq!(
            said("", &world, Some(&realm)),
            ["db/servers:4: files3 at files3:2432 does not answer: silent"]
        );
        realm.servers.get_mut(&ServerId(2)).unwrap().endpoints[0].host = "gone".into();
        assert_eq!(
            said("", &well(), Some(&realm)),
            ["db/servers:3: files2 at gone:2432: unknown host (no such name)"]
        );
    }

    #[test]
    fn lines_that_cannot_be_read_are_all_told() {
        assert_eq!(said("a\nlisten=x\n", &well(), None).len(), 2);
    }
}
