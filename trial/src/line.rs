//! The line of one client: a network of its own, in which it finds every server at the address that the realm knows.
//!
//! ```text
//!  the client's network          everybody's
//!  venus ── 127.0.0.1:P ═ relay ═ 127.0.0.1:P ── server
//! ```

use std::{
    fs::File,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    process::Command,
};

use anyhow::{Context, ensure};
use coda_net::relay::{Faults, Relay};

/// One client's way to the servers.
pub struct Line {
    net: File,
    relays: Vec<Relay>,
}

impl Line {
    /// A line to these servers. Making a network takes root, and `ip`.
    pub fn new(runtime: &tokio::runtime::Runtime, servers: &[SocketAddr]) -> anyhow::Result<Line> {
        // A thread moves into the new network and leaves what it opened there.
        let (net, fronts) = std::thread::scope(|scope| {
            scope.spawn(|| apart(servers)).join().map_err(|_| anyhow::anyhow!("a thread ended by a panic"))?
        })?;
        let _inside = runtime.enter();
        let relay = |(front, server): (UdpSocket, &SocketAddr)| {
            Relay::at(tokio::net::UdpSocket::from_std(front)?, *server)
        };
        let relays = fronts.into_iter().zip(servers).map(relay).collect::<std::io::Result<_>>()?;
        Ok(Line { net, relays })
    }

    /// The network, for a process that shall live in it.
    pub fn net(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// From now on this happens on it.
    pub fn set(&self, faults: Faults) {
        self.relays.iter().for_each(|relay| relay.set(faults));
    }
}

/// Moves this thread into a network with nothing but a loopback. Answers that network, and a socket there for each
/// address.
fn apart(addresses: &[SocketAddr]) -> anyhow::Result<(File, Vec<UdpSocket>)> {
    // SAFETY: a plain system call that concerns this thread alone.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    ensure!(left, "a network of its own: {} (it takes root)", std::io::Error::last_os_error());
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip")?;
    ensure!(up.success(), "ip link set lo up: {up}");
    let net = File::open("/proc/thread-self/ns/net")?;
    let front = |address: &SocketAddr| {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    Ok((net, addresses.iter().map(front).collect::<std::io::Result<_>>()?))
}
