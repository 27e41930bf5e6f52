//! Which authority speaks for a realm: a pinned one, or the one that was seen first.
//!
//! A certificate file named in the realms file wins. Otherwise the realm's authority is believed once,
//! at the first contact, and its fingerprint is kept in `known_realms`, one line per realm:
//!
//! ```text
//! coda.example.org SHA256:3f…
//! ```
//!
//! From then on another authority is an error that names this file and line. Where servers are is not
//! trusted at all: the certificate identifies, whatever the realms file or DNS says.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use rustls::pki_types::CertificateDer;

use crate::{certificate, credentials};

/// What is believed about realms' authorities.
#[derive(Debug)]
pub struct Trust {
    pinned: Mutex<Pins>,
    known: Known,
}

/// The pinned authority of each realm, or why it cannot be read: then nobody is believed in its place.
pub type Pins = BTreeMap<String, Result<CertificateDer<'static>, String>>;

/// Reads the authority that a PEM file holds.
pub fn read_authority(path: &Path) -> Result<CertificateDer<'static>, String> {
    let found = credentials::read_certificates(path).map_err(|error| error.to_string())?;
    Ok(found.into_iter().next().expect("at least one is read"))
}

/// Where fingerprints are kept.
#[derive(Debug)]
enum Known {
    /// Nowhere: only pinned authorities are believed.
    Nothing,
    /// In a file.
    File(PathBuf, Mutex<()>),
}

impl Trust {
    /// Believes pinned authorities only.
    pub fn pinned_only() -> Trust {
        Trust { pinned: Mutex::default(), known: Known::Nothing }
    }

    /// Believes what it meets first, and remembers it in this file.
    pub fn on_first_use(known_realms: impl Into<PathBuf>) -> Trust {
        Trust { pinned: Mutex::default(), known: Known::File(known_realms.into(), Mutex::default()) }
    }

    /// Pins a realm's authority.
    pub fn pin(&self, realm: &str, authority: CertificateDer<'static>) {
        self.pinned().insert(realm.to_owned(), Ok(authority));
    }

    /// Pins these authorities, and no others.
    pub fn pin_only(&self, pins: Pins) {
        *self.pinned() = pins;
    }

    /// Whether this authority may speak for the realm, as far as is known. Writes nothing.
    pub fn accepts(&self, realm: &str, authority: &CertificateDer<'_>) -> Result<(), String> {
        if let Some(pinned) = self.pinned().get(realm) {
            return match pinned {
                Ok(pinned) if pinned == authority => Ok(()),
                Ok(pinned) => Err(format!(
                    "{realm} shows the authority {}, but {} is pinned",
                    certificate::fingerprint(authority),
                    certificate::fingerprint(pinned)
                )),
                Err(why) => Err(format!("the authority of {realm} cannot be read: {why}")),
            };
        }
        match &self.known {
            Known::Nothing => Err(format!("no authority is pinned for {realm}")),
            Known::File(path, _) => compare(path, realm, authority).map(|_| ()),
        }
    }

    /// Remembers an authority whose server has proved itself. A realm that is known already must show the
    /// same one as before: two first contacts may race.
    pub fn remember(&self, realm: &str, authority: &CertificateDer<'_>) -> Result<(), String> {
        let Known::File(path, one_at_a_time) = &self.known else { return Ok(()) };
        if self.pinned().contains_key(realm) {
            return Ok(());
        }
        let _guard = one_at_a_time.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if compare(path, realm, authority)? == Met::Before {
            return Ok(());
        }
        let line = format!("{realm} {}\n", certificate::fingerprint(authority));
        append(path, &line).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn pinned(&self) -> MutexGuard<'_, Pins> {
        self.pinned.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(PartialEq)]
enum Met {
    Before,
    Never,
}

fn compare(path: &Path, realm: &str, authority: &CertificateDer<'_>) -> Result<Met, String> {
    // Read again each time: whoever corrects the file wants to be believed without a restart.
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Met::Never),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let shown = certificate::fingerprint(authority);
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        if words.next() != Some(realm) {
            continue;
        }
        return match words.next() {
            Some(known) if known.eq_ignore_ascii_case(&shown) => Ok(Met::Before),
            known => Err(format!(
                "{realm} shows the authority {shown}, but {} line {} says {}: somebody else answers in its \
                 place, or the realm was set up anew; if you know that it was, remove that line",
                path.display(),
                number + 1,
                known.unwrap_or("nothing"),
            )),
        };
    }
    Ok(Met::Never)
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let unfinished = fs::read(path).is_ok_and(|bytes| !matches!(bytes.last(), None | Some(b'\n')));
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    let start = if unfinished { "\n" } else { "" };
    file.write_all(format!("{start}{line}").as_bytes())?;
    file.sync_all()
}
