//! The `servers` file: `NAME[:PORT] ID`, one server a line. The id is decimal.

use std::collections::BTreeMap;

use coda_proto::{DEFAULT_PORT, ServerId, wire};

use super::lines::{FileError, words};

/// The longest name of a server, in bytes.
const NAME_LIMIT: usize = 253;

/// Reads a `servers` file.
pub fn parse(file: &str, text: &str) -> Result<BTreeMap<ServerId, wire::ServerInfo>, FileError> {
    let mut servers: BTreeMap<ServerId, (usize, wire::ServerInfo)> = BTreeMap::new();
    for (number, words) in words(file, text)? {
        let wrong = |reason: String| FileError::new(file, number, reason);
        let [name, id] = words[..] else {
            return Err(wrong(format!("{} words; a line is NAME[:PORT] ID", words.len())));
        };
        let id: u32 = id.parse().map_err(|_| wrong(format!("{id:?} is not a decimal server id")))?;
        let id = ServerId::new(id).map_err(|error| wrong(error.why))?;
        let (host, port) = endpoint(name).map_err(wrong)?;
        if let Some((line, other)) = servers.get(&id) {
            return Err(wrong(format!("id {id} is already that of {} (line {line})", other.name)));
        }
        if let Some((line, _)) = servers.values().find(|(_, other)| other.name == name) {
            return Err(wrong(format!("{name} is already there (line {line})")));
        }
        let info = wire::ServerInfo {
            id: id.0.into(),
            name: name.to_owned(),
            endpoints: vec![wire::Endpoint { host, port: port.into(), peer_only: false }],
        };
        servers.insert(id, (number, info));
    }
    match servers.is_empty() {
        true => Err(FileError::new(file, 0, "no server; nothing would be served")),
        false => Ok(servers.into_iter().map(|(id, (_, info))| (id, info)).collect()),
    }
}

/// Refuses what cannot name a new server: what a line of this file cannot say, and what would be taken for an id.
pub fn check_name(name: &str) -> Result<(), String> {
    endpoint(name)?;
    if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') || name.parse::<u32>().is_ok() {
        return Err(format!("{name:?} cannot name a server: no blanks, no #, and not only digits"));
    }
    Ok(())
}

/// `HOST`, `HOST:PORT` or `[V6]:PORT`.
pub fn endpoint(text: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        None if text.matches(':').count() > 1 => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.len() > NAME_LIMIT {
        return Err(format!("{text:?} does not name a host"));
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host.to_owned(), DEFAULT_PORT)),
        Some(Ok(port)) if port > 0 => Ok((host.to_owned(), port)),
        Some(_) => Err(format!("the port of {text:?} is not in 1-65535")),
    }
}

/// The same as a file.
pub fn text(servers: &BTreeMap<ServerId, wire::ServerInfo>) -> String {
    let mut text = String::from("# NAME[:PORT] ID\n");
    for (id, info) in servers {
        text.push_str(&format!("{}\t{id}\n", info.name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ports_and_comments_are_read() {
        let servers = parse("servers", "# ours\n\nalpha 1\nbeta:2500 2 # second\n[::1]:9 254\n").unwrap();
        let ports: Vec<_> = servers.values().map(|s| (s.id, s.endpoints[0].clone())).collect();
        let endpoint = |host: &str, port| wire::Endpoint { host: host.into(), port, peer_only: false };
        assert_eq!(
            ports,
            [(1, endpoint("alpha", 2432)), (2, endpoint("beta", 2500)), (254, endpoint("::1", 9))]
        );
        assert_eq!(parse("again", &text(&servers)).unwrap(), servers);
    }

    #[test]
    fn what_may_name_a_server_is_a_line_of_the_file() {
        for name in ["alpha", "files1.example.org", "beta:2500", "[::1]:9", "2nd"] {
            assert_eq!(check_name(name), Ok(()));
            let line = format!("{name} 1\n");
            assert_eq!(parse("servers", &line).unwrap()[&ServerId(1)].name, name);
        }
        let long = "x".repeat(254);
        for name in ["", "two words", "a\tb", "a\nb", "a#b", "7", "a:0", &long] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn each_fault_is_refused_with_its_line() {
        let long = format!("{} 1", "x".repeat(600));
        for (text, line, reason) in [
            ("a 1\nb\n", 2, "words"),
            ("a 1 2\n", 1, "words"),
            ("a x\n", 1, "decimal"),
            ("a 0\n", 1, "not in"),
            ("a 127\n", 1, "not in"),
            ("a 255\n", 1, "not in"),
            ("a 1\n\nb 1\n", 3, "already that of a (line 1)"),
            ("a 1\na 2\n", 2, "already there"),
            ("a:0 1\n", 1, "port"),
            ("a:70000 1\n", 1, "port"),
            (":5 1\n", 1, "host"),
            ("# nothing\n", 0, "no server"),
            (&long, 1, "at most 500"),
        ] {
            let error = parse("servers", text).unwrap_err();
            assert_eq!((error.line, error.file.as_str()), (line, "servers"), "{text:?}: {error}");
            assert!(error.reason.contains(reason), "{text:?}: {error}");
        }
    }
}
