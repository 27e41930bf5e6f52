//! Peers that talk nonsense: to a server, and to a client. They cost only their own connection.

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use coda_net::{CallError, Credentials, Limits, Listener, Priority::Foreground};
use coda_proto::{Code, ServerId, frame, wire};
use common::*;
use quinn::{
    Connection, Endpoint, RecvStream, SendStream,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

/// Believes everybody.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection on which anything may be said.
async fn raw(server: SocketAddr) -> (Endpoint, Connection) {
    let provider = Arc::new(default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"coda/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(anywhere()).unwrap();
    let connection = endpoint.connect_with(config, server, "x").unwrap().await.unwrap();
    (endpoint, connection)
}

/// A request as it should be, with its opening byte.
fn proper(request: &wire::Request) -> Vec<u8> {
    [&[0][..], &frame::encode(request).unwrap()].concat()
}

async fn is_served(world: &World) {
    world.dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_costs_its_connection_and_no_other() {
    let world = world();
    is_served(&world).await;
    let huge = wire::Request { bulk: u32::MAX, ..named("x") };
    let hello = frame::encode(&wire::Hello { protocol: 1, ..Default::default() }).unwrap();
    let nonsense: [(&str, Vec<u8>); 7] = [
        ("an unknown opening", vec![9]),
        ("a frame of 4 GiB", vec![0, 0xff, 0xff, 0xff, 0xff, 0]),
        ("a frame of an unknown type", vec![0, 0, 0, 0, 1, 7, 7]),
        ("a caller that says it works", vec![0, 0, 0, 0, 0, 1]),
        ("bulk of 4 GiB", proper(&huge)),
        ("a session without a Hello", vec![1, 0, 0, 0, 1, 0, 0xff]),
        ("a word that is none", [&[1][..], &hello, &[0, 0, 0, 1, 0, 0xff]].concat()),
    ];
    for (what, bytes) in nonsense {
        let (_endpoint, connection) = raw(world.target_address()).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
        let closed = closed.unwrap_or_else(|_| panic!("{what}: not closed"));
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{what}: {closed}");
        is_served(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_makes_no_sense_is_refused() {
    let world = world();
    let (_endpoint, connection) = raw(world.target_address()).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0, 0, 0, 0, 3, 0, 0xff, 0xff, 0xff]).await.unwrap();
    let answer = receive.read_to_end(10_000).await.unwrap();
    let answer: wire::Response = frame::decode(answer[frame::HEADER..].to_vec().into(), "answer").unwrap();
    let Some(wire::response::Body::Refusal(refusal)) = answer.body else { panic!("{answer:?}") };
    assert_eq!(refusal.code(), Code::Invalid);
    assert!(connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_noise_disturb_nobody() {
    let world = world();
    let noise = tokio::net::UdpSocket::bind(anywhere()).await.unwrap();
    let mut seed = 1u64;
    for length in 0..2000 {
        let bytes: Vec<u8> = (0..length % 1500)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 56) as u8
            })
            .collect();
        noise.send_to(&bytes, world.target_address()).await.unwrap();
    }
    is_served(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_are_given_up_and_hold_no_one_else() {
    let authority = authority();
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let limits = Limits {
        patience: Duration::from_secs(2),
        held: 9 * 1024 * 1024,
        calls: 2,
        working_for: Duration::ZERO,
        ..Limits::default()
    };
    let listener = Listener::bind_with(anywhere(), &credentials, Arc::new(Echo::default()), limits).unwrap();
    let (_endpoint, connection) = raw(listener.local_addr()).await;
    let mut open = Vec::new();
    // Each claims a whole frame and sends a byte of it: together they claim 800 MiB, and get 9.
    for _ in 0..100 {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&[0, 0, 0x80, 0, 0, 0, 1]).await.unwrap();
        open.push((send, receive));
    }
    let dialer = dialer(&authority, None);
    let target = target(listener.local_addr());
    dialer.call(&target, named("x"), Bytes::new(), Foreground, Duration::from_secs(3)).await.unwrap();
    let (_, receive) = &mut open[0];
    let given_up = tokio::time::timeout(Duration::from_secs(10), receive.read_to_end(10)).await;
    assert!(given_up.is_ok(), "the first is still waited for");
    assert!(connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_abandoned_calls_leave_the_connection_usable() {
    let world = world();
    let (_endpoint, connection) = raw(world.target_address()).await;
    for _ in 0..10_000 {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&[0, 0, 0]).await.unwrap();
        send.reset(0u32.into()).unwrap();
        receive.stop(0u32.into()).unwrap();
    }
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&proper(&named("x"))).await.unwrap();
    send.finish().unwrap();
    assert!(receive.read_to_end(10_000).await.unwrap().len() > frame::HEADER);
    is_served(&world).await;
}

/// A server that has the realm's certificate and answers whatever it likes.
fn lying_server(credentials: &Credentials, answer: Arc<Mutex<Vec<u8>>>) -> Endpoint {
    let directory = tempfile::tempdir().unwrap();
    credentials.save(directory.path(), "it").unwrap();
    let chain = coda_net::credentials::read_certificates(&directory.path().join("it.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.path().join("it.key")).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"coda/1".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::server(config, anywhere()).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let connection = incoming.await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(lie(send, receive, answer.lock().unwrap().clone()));
                }
            });
        }
    });
    endpoint
}

async fn lie(mut send: SendStream, mut receive: RecvStream, answer: Vec<u8>) {
    let _ = receive.read_to_end(100_000).await;
    let _ = send.write_all(&answer).await;
    let _ = send.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_a_lying_server_are_malformed() {
    let authority = authority();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let server = lying_server(&authority.issue_server(ServerId(3), now()).unwrap(), answer.clone());
    let dialer = dialer(&authority, None);
    let target = target(server.local_addr().unwrap());
    let huge = frame::encode(&wire::Response { bulk: u32::MAX, body: None }).unwrap();
    for lie in [vec![0xff; 5], vec![0, 0, 0, 0, 9], vec![0, 0, 0, 2, 0, 0xff, 0xff], huge] {
        *answer.lock().unwrap() = lie.clone();
        let call = dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE);
        let error = call.await.unwrap_err();
        assert!(matches!(error, CallError::Malformed(_)), "{lie:?}: {error:?}");
    }
    // An answer that breaks off.
    *answer.lock().unwrap() = vec![0, 0, 0, 9, 0, 1];
    let error = dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
}
