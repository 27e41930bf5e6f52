//! A network for one test alone: real packets, and a firewall that drops them without a word.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

/// The network of the thread that made it, and of every process that the thread starts.
pub struct Net(());

impl Net {
    /// Leaves the machine's network for one with a loopback only. None where that is not permitted.
    pub fn new() -> Option<Net> {
        let net = Net(());
        // SAFETY: a plain system call that concerns this thread alone.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        let up = || Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|s| s.success());
        if apart && up() && net.rules("").is_ok() {
            return Some(net);
        }
        let required = std::env::var_os("CODA_REQUIRE_MOUNT").is_some_and(|value| value == "1");
        assert!(!required, "CODA_REQUIRE_MOUNT=1 wants network namespaces, `ip` and `nft`");
        eprintln!(
            "skipped: no network namespace with nftables is to be had (that takes root, `ip` and `nft`)"
        );
        None
    }

    /// Of a hundred packets to and from this port, so many do not arrive. Nobody is told: a packet that may not
    /// leave would be an error to its sender.
    pub fn lose(&self, percent: u8, port: u16) {
        let some = match percent {
            0..100 => format!("numgen random mod 100 < {percent} drop"),
            _ => "drop".to_owned(),
        };
        let rules = format!("udp dport {port} {some}; udp sport {port} {some};");
        self.rules(&rules).expect("it was possible before");
    }

    /// No packet to or from these ports arrives.
    pub fn silence(&self, ports: &[u16]) {
        let drop = |port: &u16| format!("udp dport {port} drop; udp sport {port} drop;");
        self.rules(&ports.iter().map(drop).collect::<String>()).expect("it was possible before");
    }

    /// All packets arrive again.
    pub fn heal(&self) {
        self.rules("").expect("it was possible before");
    }

    /// Packets sent in this network so far, of whatever kind.
    pub fn sent(&self) -> u64 {
        let table = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = table.lines().filter(|line| line.starts_with("Ip:"));
        let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|name| name == "OutRequests").unwrap();
        numbers.split(' ').nth(at).unwrap().parse().unwrap()
    }

    fn rules(&self, rules: &str) -> Result<(), String> {
        let chain = format!("chain in {{ type filter hook input priority 0; policy accept; {rules} }}");
        let text = format!("add table inet test\ndelete table inet test\ntable inet test {{\n{chain}\n}}\n");
        let mut nft =
            Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        nft.stdin.take().expect("piped").write_all(text.as_bytes()).map_err(|e| e.to_string())?;
        let status = nft.wait().map_err(|e| e.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("nft: {status}")) }
    }
}
