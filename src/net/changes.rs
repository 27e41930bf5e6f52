//! When this machine's network changes: an address or a route comes or goes.
//!
//! The kernel tells it on a netlink socket. What it tells is not looked at: whoever waits only wants to
//! know that servers may be reachable now that were not before, or on other ways.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix,
    },
    time::Duration,
};

use tokio::{net::UnixDatagram, time::sleep};

/// Changes come in bursts: an interface, its addresses, its routes. One burst is one change.
const BURST: Duration = Duration::from_millis(400);

/// Hears of changes.
pub struct Changes {
    // To tokio, a netlink socket is a datagram socket like any other that has no port.
    socket: UnixDatagram,
}

impl Changes {
    /// Begins to listen. Needs a tokio runtime around it.
    pub fn listen() -> io::Result<Changes> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain system calls; the descriptor is owned from here on.
        let socket = unsafe {
            let raw = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: sockaddr_nl is plain data, for which zeros are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = (libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE) as u32;
        // SAFETY: the address lives for the call and has the length given.
        let bound = unsafe {
            let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
        };
        match bound {
            0 => Ok(Changes { socket: UnixDatagram::from_std(unix::net::UnixDatagram::from(socket))? }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for the next change, until its burst is over.
    pub async fn next(&self) -> io::Result<()> {
        self.message().await?;
        sleep(BURST).await;
        self.drain()
    }

    async fn message(&self) -> io::Result<()> {
        taken(self.socket.recv(&mut [0; 8192]).await)
    }

    fn drain(&self) -> io::Result<()> {
        loop {
            match taken(self.socket.try_recv(&mut [0; 8192])) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// An overflow means that more has changed than was told, which is all the same here.
fn taken(message: io::Result<usize>) -> io::Result<()> {
    match message {
        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brings the loopback interface of this thread's network up.
    fn loopback_up() -> io::Result<()> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        // SAFETY: ifreq is plain data; the name fits and ends with a zero.
        let outcome = unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            request.ifr_name[0] = b'l' as libc::c_char;
            request.ifr_name[1] = b'o' as libc::c_char;
            request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[tokio::test]
    async fn an_interface_that_comes_up_is_one_change() {
        // A thread of its own, for a network of its own.
        let story = tokio::task::spawn_blocking(|| {
            // SAFETY: it changes what this thread sees, and nothing else.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return eprintln!("skipped: no network of one's own without privilege");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let changes = Changes::listen().unwrap();
                let nothing = tokio::time::timeout(Duration::from_millis(100), changes.next()).await;
                assert!(nothing.is_err(), "nothing has changed yet");
                loopback_up().unwrap();
                tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
                let more = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
                assert!(more.is_err(), "one burst is one change");
            });
        });
        story.await.unwrap();
    }
}
