//! How QUIC is tuned, and the sockets under it.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{digest, hmac};
use rustls::pki_types::PrivateKeyDer;
use socket2::{Domain, Protocol, Socket, Type};

use crate::yielding::{Traffic, Yielding};

/// Calls of one connection at a time.
pub(crate) const STREAMS: u32 = 1024;
/// A connection on which nothing arrives for so long is lost. Longer than the silence that makes a
/// server dead, so that this never decides first.
const IDLE: Duration = Duration::from_secs(30);
/// Keeps NAT and firewalls open.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// One answer with its bulk fits, so that a stream never waits for credit.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes that a peer may have under way on one connection.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// Bytes that wait to be sent on one connection. They are held anyway, so this only decides that all calls
/// move together, a little each: one that had to wait for others to be through would seem silent.
const SEND_WINDOW: u64 = 1024 * 1024 * 1024;
/// Jumbo frames and loopback; path MTU discovery finds what the path carries. Ten datagrams are handed to the
/// kernel at once, and together they must fit into 65507 bytes: else all ten are dropped in silence, which looks
/// like a path that carries no large ones.
const LARGEST_DATAGRAM: u16 = 6500;
const _: () = assert!(LARGEST_DATAGRAM as usize * 10 <= 65507);
/// What the kernel is asked to hold for us in each direction.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// A server's: it answers.
pub(crate) fn answering() -> Arc<TransportConfig> {
    Arc::new(tuning(false))
}

/// A client's: it keeps the connection alive, and yields as `traffic` says.
pub(crate) fn calling(traffic: Arc<Traffic>) -> Arc<TransportConfig> {
    let mut config = tuning(true);
    config.congestion_controller_factory(Arc::new(Yielding(traffic)));
    Arc::new(config)
}

fn tuning(keep_alive: bool) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(LARGEST_DATAGRAM);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("30 s fit")))
        .keep_alive_interval(keep_alive.then_some(KEEP_ALIVE))
        // A first packet that is lost is sent again after three of these.
        .initial_rtt(Duration::from_millis(100))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    config
}

/// A client's end: connections draw their numbers at random.
pub(crate) fn client_end() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(LARGEST_DATAGRAM).expect("within QUIC's bounds");
    config
}

/// A server's end. What it derives from its key, the server that is started again derives too: so it
/// recognizes packets of connections that it has forgotten, and its resets of them are believed.
pub(crate) fn server_end(key: &PrivateKeyDer<'_>) -> EndpointConfig {
    let derive = |label: &str| {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(label.as_bytes());
        context.update(key.secret_der());
        context.finish()
    };
    let reset = hmac::Key::new(hmac::HMAC_SHA256, derive("coda stateless reset").as_ref());
    let number = derive("coda connection ids").as_ref()[..8].try_into().expect("8 of 32 bytes");
    let number = u64::from_be_bytes(number);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.max_udp_payload_size(LARGEST_DATAGRAM).expect("within QUIC's bounds");
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(number)));
    config
}

/// A socket at this address; an IPv6 one also speaks IPv4.
pub(crate) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what it allows; less is slower, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A client's socket: both families where the host has both.
pub(crate) fn any_socket() -> io::Result<UdpSocket> {
    socket((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| socket((Ipv4Addr::UNSPECIFIED, 0).into()))
}
