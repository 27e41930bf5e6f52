//! Whether a port is closed.
//!
//! QUIC's socket talks to everybody, and the kernel tells such a socket nothing about closed ports. A
//! socket that is connected to one address is told: so we send one byte, which no QUIC endpoint minds,
//! and see whether the host says that nobody listens.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

/// How long one knock waits for the host to say no.
const WAIT: Duration = Duration::from_millis(250);
/// Knocks without a route before an existing connection is given up: a laptop changes networks.
const PATIENCE: u32 = 4;

/// What a knock brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Knock {
    /// Nothing: somebody listens, or the host says nothing.
    Quiet,
    /// Nobody listens.
    Closed,
    /// No way there.
    NoRoute(String),
}

/// Knocks once.
pub async fn knock(address: SocketAddr) -> Knock {
    let attempt = async {
        let any: IpAddr = match address.is_ipv4() {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(address).await?;
        socket.send(&[0]).await?;
        match timeout(WAIT, socket.recv(&mut [0; 16])).await {
            Ok(Err(error)) => Err(error),
            _ => Ok(()),
        }
    };
    judge(attempt.await)
}

/// Ends when nobody can be reached at this address, with the reason. For a first contact: no route is an
/// answer at once.
pub(crate) async fn unreachable(address: SocketAddr) -> String {
    loop {
        match knock(address).await {
            Knock::Quiet => sleep(WAIT).await,
            Knock::Closed => return format!("{address}: nobody listens there"),
            Knock::NoRoute(why) => return format!("{address}: {why}"),
        }
    }
}

/// Counts knocks on a connection's address; `Some` is the reason why it has no future.
pub(crate) fn verdict(knock: Knock, without_route: &mut u32) -> Option<String> {
    match knock {
        Knock::Quiet => *without_route = 0,
        Knock::Closed => return Some("its port is closed".into()),
        Knock::NoRoute(why) => {
            *without_route += 1;
            if *without_route >= PATIENCE {
                return Some(why);
            }
        }
    }
    None
}

fn judge(outcome: io::Result<()>) -> Knock {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    match outcome {
        Ok(()) => Knock::Quiet,
        Err(error) => match error.kind() {
            ConnectionRefused => Knock::Closed,
            HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
                Knock::NoRoute(error.to_string())
            }
            // No socket to be had, or a firewall here: it says nothing about the other side.
            _ => Knock::Quiet,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_told_from_a_silent_one() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        assert_eq!(knock(address).await, Knock::Quiet);
        drop(silent);
        assert_eq!(knock(address).await, Knock::Closed);
    }

    #[test]
    fn a_route_may_be_missing_for_a_moment() {
        let mut without = 0;
        for _ in 0..3 {
            assert_eq!(verdict(Knock::NoRoute("no".into()), &mut without), None);
        }
        assert_eq!(verdict(Knock::Quiet, &mut without), None);
        for _ in 0..3 {
            assert_eq!(verdict(Knock::NoRoute("no".into()), &mut without), None);
        }
        assert_eq!(verdict(Knock::NoRoute("no".into()), &mut without), Some("no".into()));
    }
}
