//! What proves who we are: a chain of certificates (ours, then the realm's authority) and our secret key.
//!
//! Files are PEM. A key file is readable by its owner only from the moment it exists.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::certificate::{self, Subject};

/// Why credentials could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// A file holds something else.
    #[error("{0}: {1}")]
    File(String, String),
    /// A key or certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What was given cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// A chain of certificates and the key of its first.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    subject: Subject,
}

impl Clone for Credentials {
    fn clone(&self) -> Credentials {
        Credentials { chain: self.chain.clone(), key: self.key.clone_key(), subject: self.subject.clone() }
    }
}

impl Credentials {
    /// Credentials of a certificate, the authority that signed it, and the certificate's key (PKCS #8).
    pub fn new(chain: Vec<CertificateDer<'static>>, key: Vec<u8>) -> Result<Credentials, CredentialsError> {
        let [own, authority] = &chain[..] else {
            return Err(CredentialsError::Unusable("a chain is a certificate and its authority".into()));
        };
        let subject = certificate::judge(own, authority, certificate::Clock::Ignored)
            .map_err(CredentialsError::Unusable)?;
        Ok(Credentials { chain, key: key.into(), subject })
    }

    /// What the authority answered to our [`request`], with the key made then. Both as DER.
    pub fn enrolled(certificate: &[u8], authority: &[u8], key: &KeyPair) -> Result<Self, CredentialsError> {
        let chain = vec![certificate.to_vec().into(), authority.to_vec().into()];
        Credentials::new(chain, key.serialize_der())
    }

    /// Writes `STEM.pem` and `STEM.key` into `directory`.
    pub fn save(&self, directory: &Path, stem: &str) -> Result<(), CredentialsError> {
        write_key(&directory.join(format!("{stem}.key")), self.key.secret_pkcs8_der())?;
        write_certificates(&directory.join(format!("{stem}.pem")), &self.chain)
    }

    /// Reads what `save` wrote.
    pub fn load(directory: &Path, stem: &str) -> Result<Credentials, CredentialsError> {
        let path = directory.join(format!("{stem}.pem"));
        let chain = read_certificates(&path)?;
        let key = read_key(&directory.join(format!("{stem}.key")))?;
        Credentials::new(chain, key.secret_der().to_vec())
            .map_err(|why| CredentialsError::File(path.display().to_string(), why.to_string()))
    }

    /// Whom they name.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The realm's authority.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.chain[1]
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// A new key, and the request (DER) for a certificate of it.
pub fn request() -> Result<(KeyPair, Vec<u8>), CredentialsError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

/// Writes certificates as PEM, whole or not at all.
pub fn write_certificates(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), CredentialsError> {
    let text: String = chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
    write(path, text.as_bytes(), 0o644)
}

/// Reads one certificate or more.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let wrong = |why: String| CredentialsError::File(path.display().to_string(), why);
    let text = fs::read(path).map_err(|error| CredentialsError::Io(path.display().to_string(), error))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    match chain.is_empty() {
        true => Err(wrong("holds no certificate".into())),
        false => Ok(chain),
    }
}

pub(crate) fn write_key(path: &Path, key: &[u8]) -> Result<(), CredentialsError> {
    write(path, pem("PRIVATE KEY", key).as_bytes(), 0o600)
}

pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let text = fs::read(path).map_err(|error| CredentialsError::Io(path.display().to_string(), error))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| CredentialsError::File(path.display().to_string(), error.to_string()))
}

/// Writes beside and renames: a reader sees the old file or the new one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CredentialsError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let attempt = || {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    attempt().map_err(|error| CredentialsError::Io(path.display().to_string(), error))
}

fn pem(label: &str, der: &[u8]) -> String {
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), unix)
}
