//! The realms file: which servers a realm has, and whom to believe, said by the administrator.
//!
//! ```text
//! # REALM HOST[:PORT] HOST... [ca=FILE]
//! coda.example.org  server1.example.org [2001:db8::1]:2432  ca=coda.pem
//! nowhere.example                     # a realm without servers is not looked for elsewhere
//! ```
//!
//! A line that makes no sense costs its own realm only.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use coda_net::{certificate::check_realm, trust};
use coda_proto::DEFAULT_PORT;

use crate::env::Endpoint;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Realms {
    /// The realms it names.
    pub entries: BTreeMap<String, Entry>,
    /// The lines that make no sense.
    pub wrong: Vec<Wrong>,
}

/// One realm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Host and port of each server. None: the realm is not to be looked for.
    pub servers: Vec<(String, u16)>,
    /// The PEM file with the realm's authority.
    pub authority: Option<PathBuf>,
}

/// A line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The realm that it would have been about.
    pub realm: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

impl Realms {
    /// Reads the file. One that is not there says nothing.
    pub fn read(file: &Path) -> Result<Realms, String> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Realms::parse(&text, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Realms::default()),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }

    /// Reads a text. `file` is for messages, and where files that it names are found.
    pub fn parse(text: &str, file: &Path) -> Realms {
        let mut realms = Realms::default();
        for (line, text) in text.lines().enumerate() {
            let mut words = words(text);
            let Some(realm) = words.next() else { continue };
            let entry = match realms.entries.contains_key(realm) {
                true => Err(format!("{realm} has a line already")),
                false => entry(realm, words, file.parent().unwrap_or(Path::new("."))),
            };
            match entry {
                Ok(entry) => drop(realms.entries.insert(realm.to_owned(), entry)),
                Err(why) => realms.wrong.push(Wrong {
                    file: file.to_owned(),
                    line: line + 1,
                    realm: realm.to_owned(),
                    why,
                }),
            }
        }
        realms
    }

    /// The servers of a realm, if the file speaks about it.
    pub fn endpoints(&self, realm: &str) -> Option<Result<Vec<Endpoint>, String>> {
        if let Some(wrong) = self.wrong.iter().find(|wrong| wrong.realm == realm) {
            return Some(Err(wrong.to_string()));
        }
        let endpoint = |(host, port): &(String, u16)| Endpoint {
            realm: realm.to_owned(),
            host: host.clone(),
            port: *port,
        };
        let entry = self.entries.get(realm)?;
        Some(Ok(entry.servers.iter().map(endpoint).collect()))
    }

    /// The authorities that it names.
    pub fn pins(&self) -> trust::Pins {
        let pin = |(realm, entry): (&String, &Entry)| {
            let authority = entry.authority.as_deref()?;
            Some((realm.clone(), trust::read_authority(authority)))
        };
        let wrong = self.wrong.iter().map(|wrong| (wrong.realm.clone(), Err(wrong.to_string())));
        self.entries.iter().filter_map(pin).chain(wrong).collect()
    }
}

/// The words of a line, up to a word that begins a comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let separator = |c: char| c.is_whitespace() || c == ',';
    line.split(separator).filter(|word| !word.is_empty()).take_while(|word| !word.starts_with('#'))
}

fn entry<'a>(realm: &str, words: impl Iterator<Item = &'a str>, beside: &Path) -> Result<Entry, String> {
    check_realm(realm)?;
    let mut entry = Entry::default();
    for word in words {
        match word.split_once('=') {
            Some(("ca", "")) => return Err("ca= names no file".into()),
            Some(("ca", file)) if entry.authority.is_none() => entry.authority = Some(beside.join(file)),
            Some(("ca", _)) => return Err("ca= is given twice".into()),
            Some((key, _)) => return Err(format!("unknown setting {key}=; there is ca=FILE")),
            None => entry.servers.push(server(word)?),
        }
    }
    if entry.authority.is_some() && entry.servers.is_empty() {
        return Err("ca= without a server: name the servers too".into());
    }
    Ok(entry)
}

/// Reads `HOST`, `HOST:PORT`, `ADDRESS`, `[ADDRESS]` or `[ADDRESS]:PORT`.
pub fn server(word: &str) -> Result<(String, u16), String> {
    let wrong = |why: &str| Err(format!("{word}: {why}"));
    let (host, port) = match word.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) if port.starts_with(':') => (host, Some(&port[1..])),
            _ => return wrong("an address in brackets ends with ] or ]:PORT"),
        },
        // More than one colon: an IPv6 address.
        None if word.matches(':').count() > 1 => (word, None),
        None => match word.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (word, None),
        },
    };
    let address = host.parse::<std::net::IpAddr>().is_ok();
    if !address && (host.contains(':') || check_realm(host).is_err()) {
        return wrong("neither a host name nor an address");
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host.to_owned(), DEFAULT_PORT)),
        Some(Ok(port)) if port != 0 => Ok((host.to_owned(), port)),
        Some(_) => wrong("a port is a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Realms {
        Realms::parse(text, Path::new("/etc/coda/realms"))
    }

    fn complaint(text: &str) -> String {
        let realms = parse(text);
        assert!(realms.entries.is_empty(), "{realms:?}");
        realms.wrong[0].to_string()
    }

    #[test]
    fn a_line_names_a_realm_and_its_servers() {
        let realms = parse(
            "# comment\n\n\
             a.example one:99,two\t[2001:db8::1]:7 2001:db8::2 192.0.2.1 ca=a.pem # the last word\n\
             nowhere.example\n\
             server1 192.0.2.9",
        );
        assert_eq!(realms.wrong, []);
        let servers =
            [("one", 99), ("two", 2432), ("2001:db8::1", 7), ("2001:db8::2", 2432), ("192.0.2.1", 2432)];
        let entry = &realms.entries["a.example"];
        assert_eq!(entry.servers, servers.map(|(host, port)| (host.to_owned(), port)));
        assert_eq!(entry.authority, Some("/etc/coda/a.pem".into()));
        assert_eq!(realms.endpoints("nowhere.example"), Some(Ok(vec![])));
        assert_eq!(realms.endpoints("other.example"), None);
        assert_eq!(realms.endpoints("server1").unwrap().unwrap()[0].host, "192.0.2.9");
    }

    #[test]
    fn a_line_may_be_long() {
        let servers: Vec<_> = (0..200).map(|n| format!("server{n}.example.org")).collect();
        let realms = parse(&format!("a.example {}", servers.join(" ")));
        assert_eq!(realms.entries["a.example"].servers.len(), 200);
    }

    #[test]
    fn a_wrong_line_is_named_with_its_reason_and_costs_its_realm_only() {
        let wrong = "/etc/coda/realms:1: ";
        for (line, why) in [
            ("a/b one", "\"a/b\" cannot be the name of a realm"),
            ("a one:0", "one:0: a port is a number from 1 to 65535"),
            ("a one:x", "one:x: a port is a number from 1 to 65535"),
            ("a [::1", "[::1: an address in brackets ends with ] or ]:PORT"),
            ("a [::1]9", "[::1]9: an address in brackets ends with ] or ]:PORT"),
            ("a b:c:d", "b:c:d: neither a host name nor an address"),
            ("a one cert=x", "unknown setting cert=; there is ca=FILE"),
            ("a one ca=", "ca= names no file"),
            ("a ca=x", "ca= without a server: name the servers too"),
        ] {
            assert_eq!(complaint(line), format!("{wrong}{why}"));
        }
        let realms = parse("a one:x\nb two\nb three");
        assert_eq!(realms.entries["b"].servers.len(), 1);
        assert_eq!(realms.wrong[1].to_string(), "/etc/coda/realms:3: b has a line already");
        assert!(realms.endpoints("a").unwrap().unwrap_err().contains("realms:1"));
    }

    #[test]
    fn the_example_is_correct() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("realms.example");
        let realms = Realms::read(&path).unwrap();
        assert_eq!(realms.wrong, []);
        // Its lines are comments; without the mark they are correct too.
        let text = fs::read_to_string(&path).unwrap();
        let live: String =
            text.lines().filter_map(|line| line.strip_prefix("#:")).map(|l| l.to_owned() + "\n").collect();
        let realms = Realms::parse(&live, &path);
        assert_eq!(realms.wrong, []);
        assert!(realms.entries.len() >= 4, "{realms:?}");
    }
}
