//! `server.conf`: `key=value` lines, `#` comments, later lines win. Every key of old still answers: it is used,
//! or a note says why it has no effect any more.

use std::{net::SocketAddr, path::PathBuf};

use coda_proto::wire;

use super::ports::{Network, Port};
use crate::location::{FileError, servers};

/// Where the file is looked for when nobody names one.
pub const USUAL: &str = "/etc/coda/server.conf";

/// What a server is set up to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Conf {
    /// Where the server keeps everything.
    pub vicedir: PathBuf,
    /// Its name, where the host's is not to be used.
    pub hostname: Option<String>,
    /// Where clients and servers reach it: (line, endpoint).
    pub endpoints: Vec<(usize, wire::Endpoint)>,
    /// Where it listens for whom.
    pub ports: Vec<(Port, SocketAddr)>,
    /// From which addresses it hears whom; a port without any hears all.
    pub allowed: Vec<(Port, Network)>,
    /// The partition in which FTREEDB is kept.
    pub partition: PathBuf,
    /// The key of the realm's authority is neither passed on nor asked for.
    pub keeps_authority: bool,
    /// Where numbers for Prometheus are shown, on loopback.
    pub metrics: Option<SocketAddr>,
}

impl Default for Conf {
    fn default() -> Conf {
        Conf {
            vicedir: "/vice".into(),
            hostname: None,
            endpoints: Vec::new(),
            ports: Vec::new(),
            allowed: Vec::new(),
            partition: "vicepa".into(),
            keeps_authority: false,
            metrics: None,
        }
    }
}

/// The keys that are used, each with what it is for.
pub const KEYS: [(&str, &str); 13] = [
    ("vicedir", "directory"),
    ("hostname", "name"),
    ("endpoint", "host[:port], more after commas"),
    ("peer_endpoint", "host[:port], more after commas"),
    ("listen", "address:port"),
    ("peer_listen", "address:port"),
    ("admin_listen", "address:port"),
    ("client_allow", "addresses and networks"),
    ("peer_allow", "addresses and networks"),
    ("admin_allow", "addresses and networks"),
    ("partition", "directory"),
    ("pass_authority", "yes or no"),
    ("metrics", "address:port"),
];

const RVM: &str = "there is no recoverable virtual memory";
const TRANSPORT: &str = "QUIC sets itself up";
const THREADS: &str = "the server has no threads to count";
const ALWAYS: &str = "it is always so";
const NEVER: &str = "nothing needs it";

/// Keys of old that have no effect, and why.
pub const OLD: [(&str, &str); 38] = [
    ("rvm_log", RVM),
    ("rvm_data", RVM),
    ("rvm_data_length", RVM),
    ("rvmtruncate", RVM),
    ("mapprivate", RVM),
    ("dumpvm", RVM),
    ("numservers", NEVER),
    ("ipaddress", "`listen` says where the server listens"),
    ("authenticate", "whoever has no token is System:AnyUser"),
    ("resolution", ALWAYS),
    ("allow_sha", ALWAYS),
    ("comparedirreps", ALWAYS),
    ("check_reintegration_retry", ALWAYS),
    ("pollandyield", THREADS),
    ("auth_lwps", THREADS),
    ("lwps", THREADS),
    ("stack", THREADS),
    ("buffers", "the database caches"),
    ("large", "the database caches"),
    ("small", "the database caches"),
    ("pathtiming", "metrics are always kept"),
    ("trace", "$CODASRV_LOG says what is logged"),
    ("debuglevel", "$CODASRV_LOG says what is logged"),
    ("windowsize", TRANSPORT),
    ("sendahead", TRANSPORT),
    ("timeout", TRANSPORT),
    ("retrycnt", TRANSPORT),
    ("codatunnel", TRANSPORT),
    ("onlytcp", TRANSPORT),
    ("cbwait", "clients that are silent are noticed by their sessions"),
    ("chk", "clients that are silent are noticed by their sessions"),
    ("forcesalvage", "the store is whole after any crash; `codasrv check` looks"),
    ("salvageonshutdown", "the store is whole after any crash; `codasrv check` looks"),
    ("nodebarrenize", "a container is lost with a report, and refilled from peers"),
    ("zombify", "a crash leaves a core where the system is set up to"),
    ("vicetab", "all replicas are below vicedir; mount file systems there"),
    ("nofork", ALWAYS),
    ("sslcertdir", "keys and certificates are in vicedir"),
];

/// Reads a file. Answers the settings and notes about old keys, or everything that is wrong.
pub fn parse(file: &str, text: &str) -> Result<(Conf, Vec<String>), Vec<FileError>> {
    let (mut conf, mut notes, mut problems) = (Conf::default(), Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match one(&mut conf, index + 1, line) {
            Ok(None) => {}
            Ok(Some(note)) => notes.push(format!("{file}:{}: {note}", index + 1)),
            Err(reason) => problems.push(FileError::new(file, index + 1, reason)),
        }
    }
    let listens = |port| conf.ports.iter().any(|(other, _)| *other == port);
    for (port, key) in [(Port::Peer, "peer_listen"), (Port::Admin, "admin_listen")] {
        if conf.allowed.iter().any(|(allowed, _)| *allowed == port) && !listens(port) {
            let reason = format!("{}_allow is of no use without {key}: all share one port", port.name());
            problems.push(FileError::new(file, 0, reason));
        }
    }
    if listens(Port::Peer) && !conf.endpoints.iter().any(|(_, at)| at.peer_only) {
        let reason = "peer_listen is of no use without peer_endpoint: the other servers would not know of it";
        problems.push(FileError::new(file, 0, reason));
    }
    match problems.is_empty() {
        true => Ok((conf, notes)),
        false => Err(problems),
    }
}

fn one(conf: &mut Conf, number: usize, line: &str) -> Result<Option<String>, String> {
    let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is not key=value"))?;
    let (key, value) = (key.trim(), unquoted(value));
    let several = || value.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
    if let Some((_, why)) = OLD.iter().find(|(old, _)| *old == key) {
        return Ok(Some(format!("{key} has no effect any more: {why}")));
    }
    if value.is_empty() {
        return Err(format!("{key} has no value"));
    }
    match key {
        "vicedir" => conf.vicedir = value.into(),
        "partition" => conf.partition = value.into(),
        "pass_authority" => {
            conf.keeps_authority = match value {
                "yes" => false,
                "no" => true,
                other => return Err(format!("pass_authority is yes or no, not {other:?}")),
            }
        }
        "metrics" => {
            let at: SocketAddr = value.parse().map_err(|_| format!("{value:?} is not ADDRESS:PORT"))?;
            if !at.ip().is_loopback() {
                return Err(format!("metrics are shown on loopback only, and {} is not", at.ip()));
            }
            conf.metrics = Some(at);
        }
        "hostname" => conf.hostname = Some(value.to_owned()),
        "endpoint" | "peer_endpoint" => {
            let peer_only = key == "peer_endpoint";
            conf.endpoints.retain(|(_, endpoint)| endpoint.peer_only != peer_only);
            for word in several() {
                let (host, port) = servers::endpoint(word)?;
                conf.endpoints.push((number, wire::Endpoint { host, port: port.into(), peer_only }));
            }
        }
        "listen" | "peer_listen" | "admin_listen" => {
            let port = port(key);
            let at = value.parse().map_err(|_| format!("{value:?} is not ADDRESS:PORT"))?;
            conf.ports.retain(|(other, _)| *other != port);
            conf.ports.push((port, at));
        }
        "client_allow" | "peer_allow" | "admin_allow" => {
            let port = port(key);
            conf.allowed.retain(|(other, _)| *other != port);
            for word in several() {
                conf.allowed.push((port, word.parse()?));
            }
        }
        _ => return Err(format!("unknown setting {key:?}; server.conf.example lists all of them")),
    }
    Ok(None)
}

fn port(key: &str) -> Port {
    match key.split('_').next() {
        Some("peer") => Port::Peer,
        Some("admin") => Port::Admin,
        _ => Port::Client,
    }
}

fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner;
        }
    }
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../server.conf.example");

    /// The lines of the example that set something once their mark of a comment is gone.
    fn examples() -> Vec<(String, String)> {
        let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        let key =
            |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        pairs.filter(|(name, _)| key(name)).map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_example_sets_nothing_and_each_of_its_lines_can_be_used() {
        assert_eq!(parse("example", EXAMPLE).unwrap(), (Conf::default(), Vec::new()));
        let uncommented: String = examples().iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let (conf, notes) = parse("example", &uncommented).unwrap();
        assert!(notes.is_empty() && conf.vicedir == Conf::default().vicedir, "{notes:?}");
        assert_eq!((conf.ports.len(), conf.endpoints.len()), (3, 2));
        assert_eq!(conf.metrics.unwrap().port(), 9433);
    }

    #[test]
    fn the_example_names_every_setting_and_no_other() {
        let named: std::collections::BTreeSet<String> = examples().into_iter().map(|(key, _)| key).collect();
        let known: std::collections::BTreeSet<String> =
            KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn every_old_key_is_noted_with_its_line() {
        for (key, _) in OLD {
            let (conf, notes) = parse("server.conf", &format!("# old\n{key}=1\n")).unwrap();
            assert_eq!(conf, Conf::default());
            assert!(
                notes[0].starts_with(&format!("server.conf:2: {key} has no effect any more: ")),
                "{notes:?}"
            );
        }
    }

    #[test]
    fn later_lines_win_and_several_endpoints_have_their_scope() {
        let text = "endpoint=a\nendpoint=files.example.org, [2001:db8::1]:2500 # both\npeer_endpoint=10.0.0.1:2433\n\
                    peer_listen=10.0.0.1:2433\npeer_allow=10.0.0.0/8 fd00::/8\nvicedir=\"/srv/my coda\"\n";
        let (conf, _) = parse("server.conf", text).unwrap();
        let hosts: Vec<_> = conf.endpoints.iter().map(|(_, at)| (at.host.as_str(), at.peer_only)).collect();
        assert_eq!(hosts, [("files.example.org", false), ("2001:db8::1", false), ("10.0.0.1", true)]);
        assert_eq!((conf.allowed.len(), conf.vicedir), (2, "/srv/my coda".into()));
    }

    #[test]
    fn each_fault_is_told_with_its_line_and_nothing_is_used() {
        for (text, line, reason) in [
            ("vicedir", 1, "not key=value"),
            ("\nvicdir=/x", 2, "unknown setting"),
            ("vicedir=", 1, "no value"),
            ("listen=2432", 1, "not ADDRESS:PORT"),
            ("endpoint=a:99999", 1, "port"),
            ("client_allow=10.0.0.0/33", 1, "10.0.0.0/33"),
            ("client_allow=here", 1, "here"),
            ("metrics=9433", 1, "not ADDRESS:PORT"),
            ("metrics=192.0.2.1:9433", 1, "loopback"),
            ("peer_allow=10.0.0.0/8", 0, "without peer_listen"),
            ("peer_listen=[::]:2433", 0, "without peer_endpoint"),
        ] {
            let problems = parse("server.conf", text).unwrap_err();
            assert!(problems[0].line == line && problems[0].reason.contains(reason), "{text}: {problems:?}");
        }
    }
}
