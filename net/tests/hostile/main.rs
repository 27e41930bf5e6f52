//! Peers that talk nonsense: to a server, and to a client. They cost only their own connection.

#[path = "../common/mod.rs"]
mod common;
mod liar;
mod raw;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use coda_net::{CallError, Limits, Listener, Priority::Foreground};
use coda_proto::{Code, ServerId, frame, wire};
use common::*;
use liar::lying_server;
use raw::Raw;

/// A request as it should be, with its opening byte.
fn proper(request: &wire::Request) -> Vec<u8> {
    [&[0][..], &frame::encode(request).unwrap()].concat()
}

async fn is_served(world: &World) {
    world.dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_costs_its_connection_and_no_other() {
    let world = world();
    is_served(&world).await;
    let huge = wire::Request { bulk: u32::MAX, ..named("x") };
    let hello = frame::encode(&wire::Hello { protocol: 1, ..Default::default() }).unwrap();
    let nonsense: [(&str, Vec<u8>); 7] = [
        ("an unknown opening", vec![9]),
        ("a frame of 4 GiB", vec![0, 0xff, 0xff, 0xff, 0xff, 0]),
        ("a frame of an unknown type", vec![0, 0, 0, 0, 1, 7, 7]),
        ("a caller that says it works", vec![0, 0, 0, 0, 0, 1]),
        ("bulk of 4 GiB", proper(&huge)),
        ("a session without a Hello", vec![1, 0, 0, 0, 1, 0, 0xff]),
        ("a word that is none", [&[1][..], &hello, &[0, 0, 0, 1, 0, 0xff]].concat()),
    ];
    for (what, bytes) in nonsense {
        let raw = Raw::to(world.target_address()).await;
        let (_send, _receive) = raw.says(&bytes).await;
        let closed = tokio::time::timeout(Duration::from_secs(5), raw.connection.closed()).await;
        let closed = closed.unwrap_or_else(|_| panic!("{what}: not closed"));
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{what}: {closed}");
        is_served(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_makes_no_sense_is_refused() {
    let world = world();
    let raw = Raw::to(world.target_address()).await;
    let (_send, mut receive) = raw.says(&[0, 0, 0, 0, 3, 0, 0xff, 0xff, 0xff]).await;
    let answer = receive.read_to_end(10_000).await.unwrap();
    let answer: wire::Response = frame::decode(answer[frame::HEADER..].to_vec().into(), "answer").unwrap();
    let Some(wire::response::Body::Refusal(refusal)) = answer.body else { panic!("{answer:?}") };
    assert_eq!(refusal.code(), Code::Invalid);
    assert!(raw.connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_noise_disturb_nobody() {
    let world = world();
    let noise = tokio::net::UdpSocket::bind(anywhere()).await.unwrap();
    let mut seed = 1u64;
    for length in 0..2000 {
        let bytes: Vec<u8> = (0..length % 1500)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 56) as u8
            })
            .collect();
        noise.send_to(&bytes, world.target_address()).await.unwrap();
    }
    is_served(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_are_given_up_and_hold_no_one_else() {
    let authority = authority();
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let limits = Limits {
        patience: Duration::from_secs(2),
        held: 9 * 1024 * 1024,
        calls: 2,
        working_for: Duration::ZERO,
        ..Limits::default()
    };
    let listener = Listener::bind_with(anywhere(), &credentials, Arc::new(Echo::default()), limits).unwrap();
    let raw = Raw::to(listener.local_addr()).await;
    let mut open = Vec::new();
    // Each claims a whole frame and sends a byte of it: together they claim 800 MiB, and get 9.
    for _ in 0..100 {
        open.push(raw.says(&[0, 0, 0x80, 0, 0, 0, 1]).await);
    }
    let dialer = dialer(&authority, None);
    let target = target(listener.local_addr());
    dialer.call(&target, named("x"), Bytes::new(), Foreground, Duration::from_secs(3)).await.unwrap();
    // Whichever of them had the room.
    let mut ends = tokio::task::JoinSet::new();
    for (send, mut receive) in open {
        ends.spawn(async move {
            let _ = receive.read_to_end(10).await;
            drop(send);
        });
    }
    let given_up = tokio::time::timeout(Duration::from_secs(10), ends.join_next()).await;
    assert!(given_up.is_ok(), "all are still waited for");
    assert!(raw.connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_connections_together_make_a_server_hold_is_bounded() {
    let authority = authority();
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let patience = Duration::from_secs(1);
    let limits = Limits { patience, held_in_all: 9 * 1024 * 1024, ..Limits::default() };
    let listener = Listener::bind_with(anywhere(), &credentials, Arc::new(Echo::default()), limits).unwrap();
    // Each claims a frame of 8 MiB and sends a byte of it, on a connection of its own: there is room for one.
    let mut open = Vec::new();
    for _ in 0..2 {
        let raw = Raw::to(listener.local_addr()).await;
        let streams = raw.says(&[0, 0, 0x80, 0, 0, 0, 1]).await;
        open.push((raw, streams));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Who comes behind them waits for its turn, is told so, and is served.
    let (dialer, target) = (dialer(&authority, None), target(listener.local_addr()));
    let start = tokio::time::Instant::now();
    dialer.call(&target, named("x"), Bytes::new(), Foreground, Duration::from_secs(10)).await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}: nothing was held", start.elapsed());
}

/// A request with bulk of 4 MiB behind it, of which only a byte comes.
fn begun_upload() -> Vec<u8> {
    [proper(&wire::Request { bulk: 4 << 20, ..named("x") }), vec![1]].concat()
}

/// A request for 4 MiB.
fn fetch() -> Vec<u8> {
    let fetch = wire::Fetch { length: 4 << 20, ..Default::default() };
    proper(&wire::Request { body: Some(wire::request::Body::Fetch(fetch)), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_never_end_hold_no_more_than_there_is_room_for() {
    let authority = authority();
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let limits =
        Limits { patience: Duration::from_secs(1), held_in_all: 9 * 1024 * 1024, ..Limits::default() };
    let listener = Listener::bind_with(anywhere(), &credentials, Arc::new(Echo::default()), limits).unwrap();
    let mut open = Vec::new();
    for _ in 0..2 {
        let raw = Raw::to(listener.local_addr()).await;
        let streams = raw.says(&begun_upload()).await;
        open.push((raw, streams));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (dialer, target) = (dialer(&authority, None), target(listener.local_addr()));
    // A call without bulk needs none of that room.
    dialer.call(&target, named("x"), Bytes::new(), Foreground, Duration::from_secs(10)).await.unwrap();
    let start = tokio::time::Instant::now();
    let bulk = Bytes::from(vec![1; 4 << 20]);
    let echoed = wire::Request { body: None, ..Default::default() };
    dialer.call(&target, echoed, bulk, Foreground, Duration::from_secs(10)).await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}: nothing was held", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_hold_no_more_than_there_is_room_for() {
    let authority = authority();
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let (mebi, patience) = (1024 * 1024, Duration::from_secs(1));
    // Room for two answers on a connection, and for three in all.
    let limits = Limits { patience, held: 9 * mebi, held_in_all: 13 * mebi, ..Limits::default() };
    let echo = Arc::new(Echo::default());
    let listener = Listener::bind_with(anywhere(), &credentials, echo.clone(), limits).unwrap();
    let begun = || echo.calls.load(std::sync::atomic::Ordering::Relaxed);
    let mut open = Vec::new();
    for most in [2, 3] {
        let raw = Raw::to(listener.local_addr()).await;
        for _ in 0..20 {
            open.push((None, raw.says(&fetch()).await));
        }
        open.last_mut().unwrap().0 = Some(raw);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(begun(), most, "calls that were begun");
    }
    // Small answers need none of that room, and whoever wants a large one has it when those who do not read are given up.
    let (dialer, target) = (dialer(&authority, None), target(listener.local_addr()));
    dialer.call(&target, named("x"), Bytes::new(), Foreground, Duration::from_secs(5)).await.unwrap();
    tokio::time::sleep(2 * patience).await;
    assert!(begun() > 4, "{} calls: nobody was given up", begun());
}

/// A server with room for two answers of 4 MiB in all, and what counts the calls that were begun there.
fn narrow(patience: u64) -> (coda_net::Authority, Listener, Arc<Echo>) {
    let authority = authority();
    let credentials = authority.issue_server(ServerId(3), now()).unwrap();
    let patience = Duration::from_secs(patience);
    let limits = Limits { patience, held_in_all: 9 * 1024 * 1024, ..Limits::default() };
    let echo = Arc::new(Echo::default());
    let listener = Listener::bind_with(anywhere(), &credentials, echo.clone(), limits).unwrap();
    (authority, listener, echo)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_byte_now_and_then_leaves_its_room_to_others() {
    let (authority, listener, echo) = narrow(1);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let raw = Raw::that_takes(listener.local_addr(), 16).await;
        let (send, mut receive) = raw.says(&fetch()).await;
        slow.push(tokio::spawn(async move {
            let (mut byte, _ends) = ([0], (raw, send));
            while receive.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    while echo.calls.load(std::sync::atomic::Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (dialer, target) = (dialer(&authority, None), target(listener.local_addr()));
    let fetch = wire::Fetch { length: 4 << 20, ..Default::default() };
    let fetch = wire::Request { body: Some(wire::request::Body::Fetch(fetch)), ..Default::default() };
    let fetched = dialer.call(&target, fetch, Bytes::new(), Foreground, SILENCE);
    let fetched = tokio::time::timeout(Duration::from_secs(60), fetched).await.expect("they kept their room");
    assert_eq!(fetched.unwrap().1.len(), 4 << 20);
    slow.iter().for_each(|one| one.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_byte_now_and_then_leaves_its_room_to_others() {
    let (authority, listener, _) = narrow(1);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let raw = Raw::to(listener.local_addr()).await;
        let (mut send, receive) = raw.says(&begun_upload()).await;
        slow.push(tokio::spawn(async move {
            let _ends = (raw, receive);
            while send.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (dialer, target) = (dialer(&authority, None), target(listener.local_addr()));
    let (request, bulk) = (wire::Request::default(), Bytes::from(vec![1; 4 << 20]));
    let sent = dialer.call(&target, request, bulk, Foreground, SILENCE);
    tokio::time::timeout(Duration::from_secs(60), sent).await.expect("they kept their room").unwrap();
    slow.iter().for_each(|one| one.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_holds_the_room_that_it_takes_and_a_listing_takes_some() {
    let (_authority, listener, echo) = narrow(600);
    let begun = || echo.calls.load(std::sync::atomic::Ordering::Relaxed);
    let asks = |body| proper(&wire::Request { body: Some(body), ..Default::default() });
    let raw = Raw::that_takes(listener.local_addr(), 16).await;
    let mut open = Vec::new();
    // It may be 4 MiB, and is a few bytes, none of which is taken.
    let small = wire::FetchMany { at_most: 4 << 20, ..Default::default() };
    for _ in 0..10 {
        open.push(raw.says(&asks(wire::request::Body::FetchMany(small.clone()))).await);
    }
    while begun() < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..10 {
        open.push(raw.says(&asks(wire::request::Body::ReadDir(wire::ReadDir::default()))).await);
    }
    while begun() < 12 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!((12..=13).contains(&begun()), "{} calls were begun: there is room for three listings", begun());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_abandoned_calls_leave_the_connection_usable() {
    let world = world();
    let raw = Raw::to(world.target_address()).await;
    for _ in 0..10_000 {
        let (mut send, mut receive) = raw.says(&[0, 0, 0]).await;
        send.reset(0u32.into()).unwrap();
        receive.stop(0u32.into()).unwrap();
    }
    let (mut send, mut receive) = raw.says(&proper(&named("x"))).await;
    send.finish().unwrap();
    assert!(receive.read_to_end(10_000).await.unwrap().len() > frame::HEADER);
    is_served(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_a_lying_server_are_malformed() {
    let authority = authority();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let server = lying_server(&authority.issue_server(ServerId(3), now()).unwrap(), answer.clone());
    let dialer = dialer(&authority, None);
    let target = target(server.local_addr().unwrap());
    let huge = frame::encode(&wire::Response { bulk: u32::MAX, body: None }).unwrap();
    for lie in [vec![0xff; 5], vec![0, 0, 0, 0, 9], vec![0, 0, 0, 2, 0, 0xff, 0xff], huge] {
        *answer.lock().unwrap() = lie.clone();
        let call = dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE);
        let error = call.await.unwrap_err();
        assert!(matches!(error, CallError::Malformed(_)), "{lie:?}: {error:?}");
    }
    // An answer that breaks off.
    *answer.lock().unwrap() = vec![0, 0, 0, 9, 0, 1];
    let error = dialer.call(&target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
}
