//! TLS 1.3 for both sides, with our own idea of whom to believe.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use coda_proto::service::Identity;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::{
    Credentials, Trust,
    certificate::{self, Clock, Holder, Subject},
};

/// The protocol both sides must speak.
const ALPN: &[u8] = b"coda/1";

/// Where a verifier leaves its reason: TLS would turn it into an alert number.
pub(crate) type Reason = Arc<Mutex<Option<String>>>;

/// How a server greets: with its certificate and its authority's, so that a client can pin that one.
pub(crate) fn server(credentials: &Credentials) -> Result<QuicServerConfig, Error> {
    let verifier = Callers { authority: credentials.authority().clone(), provider: provider() };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(credentials.chain(), credentials.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

/// How a client of this realm judges who answers. With credentials it also proves who it is.
pub(crate) fn client(
    realm: &str,
    trust: &Arc<Trust>,
    credentials: Option<&Credentials>,
    reason: Reason,
) -> Result<QuicClientConfig, Error> {
    let verifier = Servers { realm: realm.to_owned(), trust: trust.clone(), provider: provider(), reason };
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match credentials {
        Some(credentials) => config.with_client_auth_cert(credentials.chain(), credentials.key())?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed connection would not show its certificates again.
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

/// Who has called, once the handshake is complete.
pub(crate) fn caller(connection: &quinn::Connection) -> Identity {
    let holder = chain(connection).and_then(|chain| {
        // The handshake has compared the chain with the realm's authority.
        certificate::judge(chain.first()?, chain.get(1)?, Clock::Ignored).ok()
    });
    match holder.map(|subject| subject.holder) {
        Some(Holder::Server(id)) => Identity::Server(id),
        Some(Holder::Admin) => Identity::Admin,
        None => Identity::Client,
    }
}

/// Who has answered, and the authority that says so.
pub(crate) fn answerer(connection: &quinn::Connection) -> Option<(Subject, CertificateDer<'static>)> {
    let chain = chain(connection)?;
    let authority = chain.get(1)?.clone();
    let subject = certificate::judge(chain.first()?, &authority, Clock::Ignored).ok()?;
    Some((subject, authority))
}

fn chain(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    // Of the strong ciphers the quickest comes first: encryption is most of what large files cost.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// Signatures of a handshake are checked by the library, whoever is judged.
macro_rules! signatures_by_the_library {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// A client's judge of servers.
#[derive(Debug)]
struct Servers {
    realm: String,
    trust: Arc<Trust>,
    provider: Arc<CryptoProvider>,
    reason: Reason,
}

impl Servers {
    fn judge(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), String> {
        let [authority] = others else {
            return Err(format!("{} certificates came where two were expected", others.len() + 1));
        };
        let subject = certificate::judge(own, authority, Clock::Ignored)?;
        if subject.realm != self.realm || !matches!(subject.holder, Holder::Server(_)) {
            return Err(format!("a server of {} was expected, and {subject} answered", self.realm));
        }
        self.trust.accepts(&self.realm, authority)
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(own, others).map(|()| ServerCertVerified::assertion()).map_err(|why| {
            *self.reason.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(why.clone());
            Error::General(why)
        })
    }
    signatures_by_the_library!();
}

/// A server's judge of callers: none need a certificate, but one that is shown must be the realm's.
#[derive(Debug)]
struct Callers {
    authority: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if others != [self.authority.clone()] {
            return Err(Error::General("the certificate is not of this realm's authority".into()));
        }
        // A server's clock decides.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        certificate::judge(own, &self.authority, Clock::At(now)).map_err(Error::General)?;
        Ok(ClientCertVerified::assertion())
    }
    signatures_by_the_library!();
}
