//! Ports: who is answered where, and from which addresses.
//!
//! One port answers everybody unless the server is told to keep servers or administrators apart. Then each
//! port answers its own callers only, and a firewall can tell them apart.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use bytes::Bytes;
use coda_proto::{
    Code, Refusal,
    service::{BoxFuture, EventSource, Identity, Service},
    wire::{self, request, response::Body},
};

/// For whom a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// Cache managers, and whoever has no port of his own.
    Client,
    /// The other servers, and those that join.
    Peer,
    /// Administrators.
    Admin,
}

impl Port {
    /// As the settings begin.
    pub fn name(self) -> &'static str {
        match self {
            Port::Client => "client",
            Port::Peer => "peer",
            Port::Admin => "admin",
        }
    }

    /// Whose port it is.
    pub fn of(who: Identity) -> Port {
        match who {
            Identity::Client => Port::Client,
            Identity::Server(_) => Port::Peer,
            Identity::Admin => Port::Admin,
        }
    }
}

/// Whether a caller is answered at `here` when there are these ports. One that joins has no certificate yet:
/// its token is looked at wherever it comes.
pub fn admits(here: Port, ports: &[Port], who: Identity, enrolling: bool) -> bool {
    let own = Port::of(who);
    enrolling || own == here || here == Port::Client && !ports.contains(&own)
}

/// A network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether it contains this address. An IPv4 address may come dressed as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, true),
            IpAddr::V6(address) => (u128::from(address), false),
        };
        let ((own, four), (other, other_four)) = (number(self.address), number(address.to_canonical()));
        let differs = (own ^ other).checked_shr(128 - u32::from(self.bits)).unwrap_or(0);
        four == other_four && differs == 0
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is no address, and no network like 192.0.2.0/24");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        match bits.unwrap_or(all) {
            bits if bits <= all => Ok(Network { address, bits }),
            _ => Err(wrong()),
        }
    }
}

/// Whether a list of networks lets an address in; an empty one lets all in.
pub fn allowed(list: &[Network], from: SocketAddr) -> bool {
    list.is_empty() || list.iter().any(|network| network.contains(from.ip()))
}

/// A server as one of its ports shows it.
pub struct Door {
    /// The server.
    pub service: Arc<dyn Service>,
    /// For whom this port is.
    pub port: Port,
    /// All ports that there are.
    pub ports: Vec<Port>,
}

impl Service for Door {
    fn call(
        &self,
        who: Identity,
        request: wire::Request,
        bulk: Bytes,
    ) -> BoxFuture<'static, (wire::Response, Bytes)> {
        let enrolling = matches!(request.body, Some(request::Body::Enroll(_)));
        if admits(self.port, &self.ports, who, enrolling) {
            return self.service.call(who, request, bulk);
        }
        let refusal = Refusal::new(Code::Access, elsewhere(self.port, Port::of(who)));
        let body = Some(Body::Refusal(refusal.into()));
        Box::pin(async move { (wire::Response { bulk: 0, body }, Bytes::new()) })
    }

    fn hello(&self, who: Identity, hello: wire::Hello) -> (wire::Welcome, Option<Box<dyn EventSource>>) {
        if admits(self.port, &self.ports, who, false) {
            return self.service.hello(who, hello);
        }
        let refusal = Some(Refusal::new(Code::Access, elsewhere(self.port, Port::of(who))).into());
        (wire::Welcome { refusal, ..Default::default() }, None)
    }

    fn said(&self, session: u64, word: wire::ClientWord) {
        self.service.said(session, word);
    }

    fn lost(&self, session: u64) {
        self.service.lost(session);
    }
}

fn elsewhere(here: Port, own: Port) -> String {
    format!("this is the {} port; the server has a port of its own for {} calls", here.name(), own.name())
}

#[cfg(test)]
mod tests {
    use coda_proto::ServerId;

    use super::*;

    #[test]
    fn each_caller_is_answered_at_its_own_port_and_without_one_at_the_clients() {
        use Port::{Admin, Client, Peer};
        let (client, server, admin) = (Identity::Client, Identity::Server(ServerId(2)), Identity::Admin);
        for (here, ports, who, answered) in [
            (Client, &[Client][..], client, true),
            (Client, &[Client], server, true),
            (Client, &[Client], admin, true),
            (Client, &[Client, Peer], client, true),
            (Client, &[Client, Peer], server, false),
            (Client, &[Client, Peer], admin, true),
            (Peer, &[Client, Peer], server, true),
            (Peer, &[Client, Peer], client, false),
            (Peer, &[Client, Peer], admin, false),
            (Client, &[Client, Peer, Admin], admin, false),
            (Peer, &[Client, Peer, Admin], admin, false),
            (Admin, &[Client, Peer, Admin], admin, true),
            (Admin, &[Client, Peer, Admin], client, false),
            (Admin, &[Client, Peer, Admin], server, false),
        ] {
            assert_eq!(admits(here, ports, who, false), answered, "{who:?} at {here:?} of {ports:?}");
            assert!(admits(here, ports, who, true), "who joins is answered everywhere");
        }
    }

    #[test]
    fn networks_contain_what_they_say() {
        for (network, address, inside) in [
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.0/24", "192.0.3.7", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("::1", "::1", true),
            ("fe80::/127", "fe80::2", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{address} in {network}");
        }
        for wrong in ["", "x", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong:?}");
        }
    }
}
