//! Whom a certificate names, and whether its realm's authority says so.
//!
//! The name is a URI among the alternative names: `coda://REALM/server/ID`, `coda://REALM/admin`, and
//! `coda://REALM/authority` for the authority itself. Host names and addresses never appear: a server may
//! move, and whoever answers at its old address is somebody else.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use coda_proto::ServerId;
use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The realm.
    pub realm: String,
    /// Its role there.
    pub holder: Holder,
}

/// The roles that a realm's authority certifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A server, by its id.
    Server(ServerId),
    /// Whoever has the realm's admin key.
    Admin,
}

/// What the time of a certificate's end is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// Nothing: a laptop's clock may be wrong, and its realm's authority is pinned.
    Ignored,
    /// This time.
    At(SystemTime),
}

impl Subject {
    /// The name in the certificate.
    pub fn uri(&self) -> String {
        match self.holder {
            Holder::Server(id) => format!("coda://{}/server/{id}", self.realm),
            Holder::Admin => format!("coda://{}/admin", self.realm),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder {
            Holder::Server(id) => write!(f, "server {id} of {}", self.realm),
            Holder::Admin => write!(f, "administrator of {}", self.realm),
        }
    }
}

/// Whom `own` names, if `authority` has signed it. The answer otherwise is the reason, for people.
pub fn judge(
    own: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
    clock: Clock,
) -> Result<Subject, String> {
    let subject = subject(own)?;
    let realm = authority_realm(authority)?;
    if realm != subject.realm {
        return Err(format!("the authority of {realm} cannot speak for {}", subject.realm));
    }
    let now = match clock {
        Clock::Ignored => begin(own)?,
        Clock::At(now) => UnixTime::since_unix_epoch(
            now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "the clock is before 1970")?,
        ),
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|error| format!("authority: {error}"))?;
    let parsed = ParsedCertificate::try_from(own).map_err(|error| error.to_string())?;
    // No certificate of ours limits its use (the role is in its name), so the check for servers fits all.
    let algorithms = default_provider().signature_verification_algorithms;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms.all) {
        Ok(()) => Ok(subject),
        Err(error) => Err(format!("the certificate of {subject} does not hold: {error}")),
    }
}

/// The realm that this self-signed certificate is the authority of.
pub fn authority_realm(authority: &CertificateDer<'_>) -> Result<String, String> {
    let uri = uri(authority)?;
    match uri.strip_prefix("coda://").and_then(|rest| rest.strip_suffix("/authority")) {
        Some(realm) => check_realm(realm).map(|()| realm.to_owned()),
        None => Err(format!("{uri} names no realm's authority")),
    }
}

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` computes it: `SHA256:` and hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().iter().fold("SHA256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether a realm may have this name: what a host name may be made of.
pub fn check_realm(realm: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match !realm.is_empty() && realm.len() <= 253 && realm.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("{realm:?} cannot be the name of a realm")),
    }
}

pub(crate) fn authority_uri(realm: &str) -> String {
    format!("coda://{realm}/authority")
}

fn subject(own: &CertificateDer<'_>) -> Result<Subject, String> {
    let uri = uri(own)?;
    let wrong = || format!("{uri} names neither a server nor an administrator");
    let mut parts = uri.strip_prefix("coda://").ok_or_else(wrong)?.split('/');
    let realm = parts.next().ok_or_else(wrong)?.to_owned();
    check_realm(&realm)?;
    let holder = match (parts.next(), parts.next(), parts.next()) {
        (Some("server"), Some(id), None) => {
            let id = id.parse::<u32>().map_err(|_| wrong())?;
            Holder::Server(ServerId::new(id).map_err(|error| error.to_string())?)
        }
        (Some("admin"), None, None) => Holder::Admin,
        _ => return Err(wrong()),
    };
    Ok(Subject { realm, holder })
}

fn uri(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        _ => Err("the certificate names not exactly one URI".into()),
    }
}

/// The key that a certificate certifies, as its algorithm writes it.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    Ok(parse(certificate)?.public_key().subject_public_key.data.to_vec())
}

fn begin(certificate: &CertificateDer<'_>) -> Result<UnixTime, String> {
    let seconds = parse(certificate)?.validity().not_before.timestamp();
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0) as u64)))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("bytes follow the certificate".into()),
        Err(error) => Err(format!("no certificate: {error}")),
    }
}
