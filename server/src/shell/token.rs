//! The token that `volutil invite` prints: the realm, a secret, and the authority's fingerprint, so that
//! the new server knows whom to believe.

use std::{fmt, str::FromStr};

use coda_proto::Malformed;

/// An invitation as people pass it on: `REALM/SECRET/FINGERPRINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The realm to join.
    pub realm: String,
    /// What the SCM kept.
    pub secret: String,
    /// Of the realm's authority.
    pub fingerprint: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.realm, self.secret, self.fingerprint)
    }
}

impl FromStr for Token {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Token, Malformed> {
        let mut parts = text.trim().splitn(3, '/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(realm), Some(secret), Some(fingerprint))
                if ![&realm, &secret, &fingerprint].into_iter().any(String::is_empty)
                    && !text.contains(char::is_whitespace) =>
            {
                Ok(Token { realm, secret, fingerprint })
            }
            _ => {
                Err(Malformed::new("token", "it is REALM/SECRET/FINGERPRINT, as `volutil invite` prints it"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_passed_on() {
        let token = Token { realm: "r.x".into(), secret: "12".into(), fingerprint: "SHA256:ab".into() };
        assert_eq!(token.to_string().parse(), Ok(token));
        for wrong in ["", "a/b", "a//c", "a b/c/d"] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong:?}");
        }
    }
}
