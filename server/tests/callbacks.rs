//! Promises, breaks, fences: two clients and one server, in tokio's paused time.

mod world;

use std::time::Duration;

use coda_proto::{
    Code, Fid, Rights,
    service::Service,
    wire::{self, request, response::Body},
};
use tokio::time::{Instant, sleep};
use world::{Client, Place, code};

/// Two clients of a server, and a file that the first one made.
struct Two {
    a: Client,
    b: Client,
    file: Fid,
    /// Its directory goes away with it.
    _place: Place,
}

async fn two() -> Two {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let (mut a, b) = (Client::new(&server, place.home, 1), Client::new(&server, place.home, 2));
    let file = a.create(a.root(), "f").await.unwrap();
    Two { a, b, file, _place: place }
}

async fn validate_volume(client: &Client, stamp: Option<wire::Stamp>) -> wire::VolumeAnswer {
    let ask = wire::VolumeVersion { volume: client.volume.0, stamp, stamps: Vec::new() };
    let ask = request::Body::ValidateVolumes(wire::ValidateVolumes { volumes: vec![ask] });
    match client.call(ask).await.unwrap() {
        Body::VolumesValidated(mut answer) => answer.answers.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn validate(client: &Client, fid: Fid, digest: [u8; 16]) -> wire::ObjectAnswer {
    let object = wire::ObjectVersion { fid: Some(fid.into()), digest: digest.to_vec().into() };
    let ask = wire::ValidateObjects { volume: client.volume.0, objects: vec![object] };
    match client.call(request::Body::ValidateObjects(ask)).await.unwrap() {
        Body::ObjectsValidated(mut answer) => answer.answers.remove(0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_mutation_is_answered_only_when_its_break_is_acknowledged() {
    let Two { mut a, mut b, file, _place } = two().await;
    assert!(b.status(file).await.unwrap().promised);
    let writing = tokio::spawn(async move {
        a.store(file, b"new").await.unwrap();
        (a, Instant::now())
    });
    sleep(Duration::from_millis(700)).await;
    assert!(!writing.is_finished());
    assert_eq!(b.broken().await, [file]);
    let told = Instant::now();
    let (mut a, answered) = writing.await.unwrap();
    assert!(answered >= told);
    // The promise is spent: the next change tells b nothing, and waits for nobody.
    a.store(file, b"newer").await.unwrap();
    assert_eq!(Instant::now(), answered);
}

#[tokio::test(start_paused = true)]
async fn the_writer_keeps_its_own_promises_and_its_volume_stamp() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let file = a.create(a.root(), "f").await.unwrap();
    let stamp = validate_volume(&a, None).await.stamp;
    let applied = a.store(file, b"one").await.unwrap();
    assert_eq!(applied.before, stamp);
    assert_ne!(applied.after, stamp);
    assert!(validate_volume(&a, applied.after).await.valid);
    assert!(!validate_volume(&a, stamp).await.valid);
}

#[tokio::test(start_paused = true)]
async fn whoever_wrote_something_is_promised_to_hear_of_the_next_change() {
    let Two { mut a, mut b, file, _place } = two().await;
    let applied = a.store(file, b"mine").await.unwrap();
    assert!(applied.statuses.iter().all(|status| status.promised));
    let writing = tokio::spawn(async move { b.store(file, b"yours").await });
    assert_eq!(a.broken().await, [file]);
    writing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_acknowledge_is_fenced_after_five_seconds() {
    let Two { mut a, b, file, _place } = two().await;
    b.status(file).await.unwrap();
    let start = Instant::now();
    a.store(file, b"new").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let get = wire::GetAttr { volume: b.volume.0, fids: vec![file.into()] };
    assert_eq!(code(b.call(request::Body::GetAttr(get)).await), Code::UnknownSession);
    a.store(file, b"again").await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_retried_mutation_waits_for_the_break_of_its_first_attempt() {
    let Two { mut a, mut b, file, _place } = two().await;
    b.status(file).await.unwrap();
    let record = a.record(world::store_inline(file, b"new")).await;
    // The first attempt is given up before it is answered.
    let _ = tokio::time::timeout(Duration::from_secs(1), a.apply(std::slice::from_ref(&record))).await;
    let again = tokio::spawn(async move {
        a.apply(&[record]).await.unwrap();
        a
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!again.is_finished());
    b.broken().await;
    again.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_no_promises_for_a_minute() {
    let Two { mut a, mut b, file, _place } = two().await;
    b.status(file).await.unwrap();
    let writing = tokio::spawn(async move {
        a.store(file, b"new").await.unwrap();
        a
    });
    sleep(Duration::from_secs(2)).await;
    b.broken().await;
    let mut a = writing.await.unwrap();
    assert!(!b.status(file).await.unwrap().promised);
    let digest = b.past(file).await.digest();
    assert!(!validate(&b, file, digest).await.valid);
    let before = Instant::now();
    a.store(file, b"quick").await.unwrap();
    assert_eq!(Instant::now(), before);
    sleep(Duration::from_secs(60)).await;
    assert!(b.status(file).await.unwrap().promised);
}

#[tokio::test(start_paused = true)]
async fn a_break_of_one_object_voids_the_promise_for_its_volume() {
    let Two { mut a, mut b, file, _place } = two().await;
    let stamp = validate_volume(&b, None).await.stamp;
    assert!(validate_volume(&b, stamp).await.valid);
    let writing = tokio::spawn(async move { a.store(file, b"new").await });
    // b never asked for the file itself.
    assert_eq!(b.broken().await, [file]);
    writing.await.unwrap().unwrap();
    assert!(!validate_volume(&b, stamp).await.valid);
}

#[tokio::test(start_paused = true)]
async fn a_session_resumes_and_hears_what_it_missed() {
    let Two { mut a, mut b, file, _place } = two().await;
    let server = a.server.clone();
    b.status(file).await.unwrap();
    let session = b.session;
    b.events.get_mut().unwrap().take();
    server.lost(session);
    let writing = tokio::spawn(async move { a.store(file, b"new").await });
    sleep(Duration::from_secs(1)).await;
    assert!(b.hello(session, 0));
    assert_eq!((b.session, b.broken().await), (session, vec![file]));
    writing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_client_that_has_been_gone_for_long() {
    let Two { mut a, mut b, file, _place } = two().await;
    let server = a.server.clone();
    b.status(file).await.unwrap();
    let session = b.session;
    server.lost(session);
    sleep(Duration::from_secs(46)).await;
    let start = Instant::now();
    a.store(file, b"new").await.unwrap();
    assert_eq!(Instant::now(), start);
    assert!(!b.hello(session, 0));
}

#[tokio::test(start_paused = true)]
async fn another_client_cannot_resume_a_session_and_a_restart_voids_all() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let a = Client::new(&server, place.home, 1);
    let mut b = Client::new(&server, place.home, 2);
    let session = a.session;
    assert!(!b.hello(session, 0));
    assert_ne!(b.session, session);
    server.stop();
    let server = place.open();
    let mut a = Client { server, ..a };
    let get = wire::GetAttr { volume: a.volume.0, fids: vec![a.root().into()] };
    assert_eq!(code(a.call(request::Body::GetAttr(get)).await), Code::UnknownSession);
    assert!(!a.hello(session, 0));
}

#[tokio::test(start_paused = true)]
async fn the_old_stream_of_a_resumed_session_ends() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let mut old = a.events.get_mut().unwrap().take().unwrap();
    let ending = tokio::spawn(async move { old.next().await });
    tokio::task::yield_now().await;
    assert!(a.hello(a.session, 0));
    assert_eq!(ending.await.unwrap(), None);
    server.said(a.session, wire::ClientWord { ack: 0, ping: true });
    let event = a.events().next().await.unwrap();
    assert_eq!((event.seq, event.body), (0, Some(wire::event::Body::Ping(true))));
}
