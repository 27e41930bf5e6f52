//! Calls and sessions over real QUIC on loopback.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coda_net::{CallError, Listener, Priority, Trust};
use coda_proto::{BULK_LIMIT, Code, ServerId, service::Identity, wire};
use common::*;
use tokio::time::Instant;

const NOW: Duration = Duration::ZERO;
use Priority::{Background, Foreground};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered() {
    let world = world();
    let (answer, bulk) =
        world.dialer.call(&world.target, named("home"), Bytes::new(), Foreground, SILENCE).await.unwrap();
    assert_eq!((name_in(&answer), bulk.len()), ("home", 0));
    assert_eq!(*world.echo.callers.lock().unwrap(), [Identity::Client]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_goes_both_ways_unchanged() {
    let world = world();
    for length in [1, 1199, 65_537, BULK_LIMIT] {
        let bulk: Bytes = (0..length).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into();
        let (answer, back) =
            world.dialer.call(&world.target, echo(), bulk.clone(), Background, SILENCE).await.unwrap();
        assert_eq!(name_in(&answer), blake3(&bulk));
        assert!(back == bulk, "{length} bytes came back different");
        assert_eq!(answer.bulk as usize, length);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once() {
    let world = Arc::new(world());
    let calls: Vec<_> = (0..1000)
        .map(|n| {
            let world = world.clone();
            tokio::spawn(async move {
                let name = format!("volume{n}");
                let bulk = Bytes::from(vec![n as u8; 100]);
                let call = world.dialer.call(&world.target, named(&name), bulk, Foreground, SILENCE);
                assert_eq!(name_in(&call.await.unwrap().0), name);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_shows_signs_of_life() {
    let world = world();
    let slow = fetch(0, Duration::from_secs(6));
    world.dialer.call(&world.target, slow, Bytes::new(), Foreground, Duration::from_secs(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_inside_is_refused_and_costs_nobody_else() {
    let world = world();
    let (answer, _) =
        world.dialer.call(&world.target, fetch(666, NOW), Bytes::new(), Foreground, SILENCE).await.unwrap();
    let Some(wire::response::Body::Refusal(refusal)) = answer.body else { panic!("{answer:?}") };
    assert_eq!(refusal.code(), Code::Internal);
    world.dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_tell_who_calls() {
    let world = world();
    let server = world.authority.issue_server(ServerId(9), now()).unwrap();
    let admin = world.authority.issue_admin(now()).unwrap();
    for credentials in [server, admin] {
        let dialer = dialer(&world.authority, Some(credentials));
        dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
    }
    assert_eq!(*world.echo.callers.lock().unwrap(), [Identity::Server(ServerId(9)), Identity::Admin]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_at_the_client_fails_nothing_and_at_the_server_callers_only() {
    let world = world();
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    // To a server of the next century, our clock is a century behind.
    let ahead = world.authority.issue_server(ServerId(8), now() + century).unwrap();
    let listener = Listener::bind(anywhere(), &ahead, world.echo.clone()).unwrap();
    let target = target(listener.local_addr());
    world.dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
    let caller = dialer(&world.authority, Some(ahead));
    let error = caller.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_under_another_authority_is_not_trusted() {
    let world = world();
    let other = dialer(&authority(), None);
    let error = other.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap_err();
    let CallError::Untrusted(why) = error else { panic!("{error:?}") };
    assert!(why.contains("is pinned"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_another_authority_is_turned_away() {
    let world = world();
    let stranger = authority().issue_admin(now()).unwrap();
    let dialer = dialer(&world.authority, Some(stranger));
    let error = dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted(_)), "{error:?}");
    assert!(world.echo.callers.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_one_wanted_is_not_asked() {
    let world = world();
    let mut target = world.target.clone();
    target.server = Some(ServerId(4));
    let error = world.dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap_err();
    assert_eq!(
        error,
        CallError::Untrusted(format!("server 4 was expected, and server 3 of {REALM} answered"))
    );
    target.server = Some(ServerId(3));
    world.dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_believed_once_and_then_compared() {
    let directory = tempfile::tempdir().unwrap();
    let known = directory.path().join("known_realms");
    std::fs::write(&known, "# mine\nother.example SHA256:00").unwrap();
    let call = async |world: &World| {
        let dialer = coda_net::Dialer::new(Arc::new(Trust::on_first_use(&known)), None).unwrap();
        dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await
    };
    let first = world();
    call(&first).await.unwrap();
    call(&first).await.unwrap();
    let text = std::fs::read_to_string(&known).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    let error = call(&world()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{} line 3", known.display())), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_carries_events_and_acknowledgements() {
    let world = world();
    let hello = wire::Hello { protocol: 1, ..Default::default() };
    let (welcome, mut session) = world.dialer.session(&world.target, hello, SILENCE).await.unwrap();
    assert_eq!(welcome.session, 42);
    for seq in 1..=500 {
        world.echo.tell(Some(wire::Event { seq, ..Default::default() }));
    }
    for seq in 1..=500 {
        assert_eq!(session.next().await.unwrap().seq, seq);
        session.say(wire::ClientWord { ack: seq, ping: false }).await.unwrap();
    }
    until("all acknowledged", || world.echo.said.lock().unwrap().len() == 500).await;
    assert_eq!(world.echo.said.lock().unwrap()[499], (42, wire::ClientWord { ack: 500, ping: false }));
    drop(session);
    until("lost", || *world.echo.lost.lock().unwrap() == [42]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_ends_is_not_lost() {
    let world = world();
    let hello = wire::Hello { protocol: 1, ..Default::default() };
    let (_, mut session) = world.dialer.session(&world.target, hello, SILENCE).await.unwrap();
    world.echo.tell(None);
    assert!(matches!(session.next().await, Err(CallError::Unreachable(_))));
    drop(session);
    assert!(world.echo.lost.lock().unwrap().is_empty());
    let refused = wire::Hello { protocol: 9, ..Default::default() };
    let (welcome, mut session) = world.dialer.session(&world.target, refused, SILENCE).await.unwrap();
    assert_eq!(welcome.refusal.unwrap().detail, "another protocol");
    assert!(session.next().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_both_families_lead_to_a_server() {
    let world = world();
    let mut target = world.target.clone();
    target.host = "localhost".into();
    world.dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
    let six = "[::1]:0".parse().unwrap();
    let credentials = world.authority.issue_server(ServerId(5), now()).unwrap();
    let Ok(listener) = Listener::bind(six, &credentials, world.echo.clone()) else {
        return eprintln!("skipped: no IPv6 here");
    };
    let target = common::target(listener.local_addr());
    world.dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_move() {
    let world = world();
    let start = Instant::now();
    let pieces: Vec<_> = (0..25)
        .map(|_| {
            let piece = fetch(BULK_LIMIT as u32, NOW);
            tokio::spawn(world.dialer.call(&world.target, piece, Bytes::new(), Foreground, SILENCE))
        })
        .collect();
    for piece in pieces {
        assert_eq!(piece.await.unwrap().unwrap().1.len(), BULK_LIMIT);
    }
    // Optimized code reaches several times the 300 MB/s that we aim for; tests are not optimized.
    eprintln!("100 MiB in {:?}", start.elapsed());
}
