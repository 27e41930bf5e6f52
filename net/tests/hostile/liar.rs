//! A server that answers whatever it likes.

use std::sync::{Arc, Mutex};

use coda_net::Credentials;
use quinn::{Endpoint, RecvStream, SendStream, crypto::rustls::QuicServerConfig};
use rustls::{
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, pem::PemObject},
};

use crate::common::anywhere;

/// A server that has the realm's certificate and answers whatever it likes.
pub fn lying_server(credentials: &Credentials, answer: Arc<Mutex<Vec<u8>>>) -> Endpoint {
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
