//! Signatures without keys: what servers and administrators of the world put under the realm's log. Whoever does not
//! call [`Wax::sign`] as itself cannot make one by accident, and nobody here does it on purpose.

use coda_proto::{ServerId, wire};
use coda_server::location::{Seal, log};

/// A server's seal.
pub struct Wax(pub ServerId);

fn press(who: &str, bytes: &[u8]) -> wire::Proof {
    let signature = blake3::hash(&[who.as_bytes(), b"\n", bytes].concat());
    wire::Proof {
        certificate: who.as_bytes().to_vec().into(),
        signature: signature.as_bytes().to_vec().into(),
    }
}

fn check(who: &str, bytes: &[u8], proof: &wire::Proof) -> Result<(), String> {
    if *proof == press(who, bytes) { Ok(()) } else { Err(format!("{who} has not signed this")) }
}

fn name(server: ServerId) -> String {
    format!("server {server}")
}

impl Seal for Wax {
    fn sign(&self, bytes: &[u8]) -> Result<wire::Proof, String> {
        Ok(press(&name(self.0), bytes))
    }

    fn by_server(&self, server: ServerId, bytes: &[u8], proof: &wire::Proof) -> Result<(), String> {
        check(&name(server), bytes, proof)
    }

    fn by_admin(&self, bytes: &[u8], proof: &wire::Proof) -> Result<(), String> {
        check("an administrator", bytes, proof)
    }
}

/// An administrator's mandate for a server to write in a term.
pub fn mandate(realm: &str, term: u64, server: ServerId) -> wire::Mandate {
    let bare = wire::Mandate { realm: realm.to_owned(), term, server: server.0.into(), proof: None };
    let proof = press("an administrator", &log::mandate_bytes(&bare));
    wire::Mandate { proof: Some(proof), ..bare }
}
