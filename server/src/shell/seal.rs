//! Proofs of the realm's log by certificates of the realm.

use coda_net::{Credentials, certificate::Holder, seal};
use coda_proto::{ServerId, wire};

use crate::location::Seal;

/// Signs as the server that these credentials name, and believes what their authority has certified.
pub struct Certified(pub Credentials);

impl Certified {
    fn check(&self, bytes: &[u8], proof: &wire::Proof, wanted: Holder) -> Result<(), String> {
        let subject = seal::signer(bytes, proof, self.0.authority())?;
        match subject.realm == self.0.subject().realm && subject.holder == wanted {
            true => Ok(()),
            false => Err(format!("{subject} signed it, who may not")),
        }
    }
}

impl Seal for Certified {
    fn sign(&self, bytes: &[u8]) -> Result<wire::Proof, String> {
        self.0.sign(bytes).map_err(|error| error.to_string())
    }
    fn by_server(&self, server: ServerId, bytes: &[u8], proof: &wire::Proof) -> Result<(), String> {
        self.check(bytes, proof, Holder::Server(server))
    }
    fn by_admin(&self, bytes: &[u8], proof: &wire::Proof) -> Result<(), String> {
        self.check(bytes, proof, Holder::Admin)
    }
}
