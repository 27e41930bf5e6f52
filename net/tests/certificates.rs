//! Authorities, enrolment, and files.

mod common;

use std::{os::unix::fs::PermissionsExt, time::Duration};

use coda_net::{
    Authority, Credentials,
    certificate::{self, Clock, Holder, fingerprint},
    credentials,
};
use coda_proto::ServerId;
use common::{REALM, now};

#[test]
fn an_authority_survives_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(REALM, now()).unwrap();
    authority.save(directory.path()).unwrap();
    let mode = directory.path().join("ca.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Authority::load(directory.path()).unwrap();
    assert_eq!((again.realm(), again.certificate()), (REALM, authority.certificate()));
    let server = again.issue_server(ServerId(7), now()).unwrap();
    server.save(directory.path(), "server").unwrap();
    let mode = directory.path().join("server.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let read = Credentials::load(directory.path(), "server").unwrap();
    assert_eq!(read.subject().holder, Holder::Server(ServerId(7)));
    assert_eq!(fingerprint(read.authority()), fingerprint(authority.certificate()));
}

#[test]
fn a_further_server_is_enrolled_by_its_request() {
    let authority = Authority::create(REALM, now()).unwrap();
    let (key, request) = credentials::request().unwrap();
    let signed = authority.sign_server(ServerId(12), &request, now()).unwrap();
    let credentials = Credentials::enrolled(&signed, authority.certificate(), &key).unwrap();
    assert_eq!(credentials.subject().to_string(), format!("server 12 of {REALM}"));
    let mut forged = request.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(authority.sign_server(ServerId(12), &forged, now()).is_err());
    assert!(authority.sign_server(ServerId(12), b"nonsense", now()).is_err());
}

#[test]
fn an_authority_speaks_for_its_realm_only() {
    let ours = Authority::create(REALM, now()).unwrap();
    let theirs = Authority::create("other.example", now()).unwrap();
    let server = theirs.issue_server(ServerId(1), now()).unwrap();
    let own = credentials_certificate(&server);
    assert!(certificate::judge(&own, theirs.certificate(), Clock::Ignored).is_ok());
    assert!(certificate::judge(&own, ours.certificate(), Clock::Ignored).is_err());
    let impostor = Authority::create("other.example", now()).unwrap();
    assert!(certificate::judge(&own, impostor.certificate(), Clock::Ignored).is_err());
}

#[test]
fn the_end_of_a_certificate_counts_where_a_clock_is_given() {
    let authority = Authority::create(REALM, now()).unwrap();
    let own = credentials_certificate(&authority.issue_admin(now()).unwrap());
    let late = now() + Duration::from_secs(11 * 365 * 24 * 3600);
    let judged =
        |clock| certificate::judge(&own, authority.certificate(), clock).map(|subject| subject.holder);
    assert_eq!(judged(Clock::Ignored), Ok(Holder::Admin));
    assert_eq!(judged(Clock::At(now())), Ok(Holder::Admin));
    assert!(judged(Clock::At(late)).unwrap_err().contains("expired"));
}

#[test]
fn names_that_would_confuse_are_no_realms() {
    for wrong in ["", "a/b", "a b", "coda\n", "ä", &"x".repeat(254)] {
        assert!(Authority::create(wrong, now()).is_err(), "{wrong:?}");
    }
}

fn credentials_certificate(credentials: &Credentials) -> rustls::pki_types::CertificateDer<'static> {
    let directory = tempfile::tempdir().unwrap();
    credentials.save(directory.path(), "it").unwrap();
    credentials::read_certificates(&directory.path().join("it.pem")).unwrap().remove(0)
}
