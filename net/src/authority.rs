//! A realm's certificate authority: made when its first server is set up, kept by that server.
//!
//! It signs two kinds of certificates: a server's, which names the realm and the server's id, and the
//! administrators'. Cache managers need none. Who asks for a certificate sends only its public key; what
//! the certificate says is decided here.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use coda_proto::ServerId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::{
    certificate::{self, Holder, Subject},
    credentials::{self, Credentials, CredentialsError},
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate is valid a little before it was made: its user's clock may be behind.
const BEFORE: Duration = Duration::from_secs(48 * 3600);

/// A realm's authority with its secret key.
pub struct Authority {
    realm: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the authority of a new realm, valid for 30 years from `now`.
    pub fn create(realm: &str, now: SystemTime) -> Result<Authority, CredentialsError> {
        certificate::check_realm(realm).map_err(CredentialsError::Unusable)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Coda realm {realm}"));
        params.subject_alt_names = vec![SanType::URI(certificate::authority_uri(realm).try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + 30 * YEAR).into();
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority { realm: realm.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Writes `ca.pem` and `ca.key` (for its owner only) into `directory`.
    pub fn save(&self, directory: &Path) -> Result<(), CredentialsError> {
        credentials::write_key(&directory.join("ca.key"), &self.issuer.key().serialize_der())?;
        credentials::write_certificates(&directory.join("ca.pem"), std::slice::from_ref(&self.certificate))
    }

    /// Reads what `save` wrote.
    pub fn load(directory: &Path) -> Result<Authority, CredentialsError> {
        let path = directory.join("ca.pem");
        let certificate = credentials::read_certificates(&path)?.remove(0);
        let realm = certificate::authority_realm(&certificate)
            .map_err(|why| CredentialsError::File(path.display().to_string(), why))?;
        let key = KeyPair::try_from(&credentials::read_key(&directory.join("ca.key"))?)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Authority { realm, certificate, issuer })
    }

    /// Of the key (PKCS #8) that another server passed on. Refused unless it is the key of this certificate.
    pub fn passed_on(
        certificate: &CertificateDer<'static>,
        key: &[u8],
        now: SystemTime,
    ) -> Result<Authority, CredentialsError> {
        let realm = certificate::authority_realm(certificate).map_err(CredentialsError::Unusable)?;
        let key = KeyPair::try_from(key)?;
        let issuer = Issuer::from_ca_cert_der(certificate, key)?;
        let authority = Authority { realm, certificate: certificate.clone(), issuer };
        // What it signs has to hold.
        authority.issue_admin(now)?;
        Ok(authority)
    }

    /// Its secret key (PKCS #8): whoever has it makes anybody a server or an administrator of the realm.
    pub fn secret(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The authority's own certificate, which others pin.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A new key and certificate for a server, valid for ten years from `now`.
    pub fn issue_server(&self, id: ServerId, now: SystemTime) -> Result<Credentials, CredentialsError> {
        self.issue(Holder::Server(id), now)
    }

    /// A new key and certificate for the realm's administrators.
    pub fn issue_admin(&self, now: SystemTime) -> Result<Credentials, CredentialsError> {
        self.issue(Holder::Admin, now)
    }

    /// Signs a request of [`credentials::request`]: server `id` gets a certificate for the key it holds.
    /// The names that the request asks for are not looked at.
    pub fn sign_server(
        &self,
        id: ServerId,
        request: &[u8],
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CredentialsError> {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request)?;
        self.sign(Holder::Server(id), &request.public_key, now)
    }

    fn issue(&self, holder: Holder, now: SystemTime) -> Result<Credentials, CredentialsError> {
        let key = KeyPair::generate()?;
        let certificate = self.sign(holder, &key, now)?;
        Credentials::new(vec![certificate, self.certificate.clone()], key.serialize_der())
    }

    fn sign(
        &self,
        holder: Holder,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CredentialsError> {
        let subject = Subject { realm: self.realm.clone(), holder };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.to_string());
        params.subject_alt_names = vec![SanType::URI(subject.uri().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + 10 * YEAR).into();
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}
