//! `/etc/hosts`: what a machine knows without asking anybody.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// The addresses of a name. A file that cannot be read knows none; `localhost` is always known.
pub fn addresses(file: &Path, name: &str) -> Vec<IpAddr> {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let found = parse(&text, name);
    match found.is_empty() && name.eq_ignore_ascii_case("localhost") {
        true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        false => found,
    }
}

fn parse(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_on_several_lines() {
        let text = "127.0.0.1 localhost\n\
                    192.0.2.1 server1.example.org Server1 # server2\n\
                    nonsense server1\n\
                    2001:db8::1\tserver1\n192.0.2.1 server1";
        let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(parse(text, "server1"), expected);
        assert!(parse(text, "server2").is_empty());
    }

    #[test]
    fn localhost_needs_no_file() {
        assert_eq!(addresses(Path::new("/nonexistent"), "localhost").len(), 2);
        assert!(addresses(Path::new("/nonexistent"), "other").is_empty());
    }
}
