//! Signatures that outlive a connection: what a server or an administrator of a realm has said, for
//! others to check later.
//!
//! The signature is made with the key of a certificate of the realm, which travels with it. Whoever knows
//! the realm's authority can tell who spoke; a certificate's dates do not matter, for what was said then
//! holds.

use coda_proto::wire;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey},
};
use rustls::pki_types::CertificateDer;

use crate::{
    certificate::{self, Clock, Subject},
    credentials::{Credentials, CredentialsError},
};

impl Credentials {
    /// Signs `bytes` as the holder of these credentials.
    pub fn sign(&self, bytes: &[u8]) -> Result<wire::Proof, CredentialsError> {
        let random = SystemRandom::new();
        let unusable = |why: String| CredentialsError::Unusable(format!("{}: {why}", self.subject()));
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, self.key().secret_der(), &random)
            .map_err(|error| unusable(error.to_string()))?;
        let signature = key.sign(&random, bytes).map_err(|_| unusable("cannot sign".into()))?;
        Ok(wire::Proof {
            certificate: self.chain()[0].to_vec().into(),
            signature: signature.as_ref().to_vec().into(),
        })
    }
}

/// Who signed `bytes`, if `authority` knows them. The answer otherwise is the reason, for people.
pub fn signer(bytes: &[u8], proof: &wire::Proof, authority: &CertificateDer<'_>) -> Result<Subject, String> {
    let own = CertificateDer::from(proof.certificate.to_vec());
    let subject = certificate::judge(&own, authority, Clock::Ignored)?;
    let key = certificate::public_key(&own)?;
    match UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(bytes, &proof.signature) {
        Ok(()) => Ok(subject),
        Err(_) => Err(format!("the signature of {subject} does not hold")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use coda_proto::ServerId;

    use super::*;
    use crate::{Authority, certificate::Holder};

    fn authority() -> Authority {
        Authority::create("r.example", UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap()
    }

    #[test]
    fn what_was_signed_names_its_signer_and_nothing_else_does() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (ours, others) = (authority(), authority());
        let server = ours.issue_server(ServerId(2), now).unwrap();
        let proof = server.sign(b"words").unwrap();
        assert_eq!(signer(b"words", &proof, ours.certificate()).unwrap().holder, Holder::Server(ServerId(2)));
        assert!(signer(b"sword", &proof, ours.certificate()).unwrap_err().contains("does not hold"));
        assert!(signer(b"words", &proof, others.certificate()).is_err());
        let admin = ours.issue_admin(now).unwrap();
        let mixed = wire::Proof { certificate: admin.sign(b"words").unwrap().certificate, ..proof };
        assert!(signer(b"words", &mixed, ours.certificate()).is_err());
        assert!(signer(b"", &wire::Proof::default(), ours.certificate()).is_err());
    }
}
