//! What callers notice when servers die, hang, move, and when the network is bad.

mod common;

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use coda_net::{
    CallError, Credentials, Dialer, Listener, Priority, Target, Trust,
    relay::{Faults, Relay},
};
use coda_proto::{ServerId, wire};
use common::*;
use tokio::time::{Instant, sleep};

use Priority::Foreground;

const SECOND: Duration = Duration::from_secs(1);

async fn ask(world: &World, target: &Target) -> Result<(), CallError> {
    let call = world.dialer.call(target, named("x"), Bytes::new(), Foreground, SILENCE);
    call.await.map(|_| ())
}

/// The world with a relay before its server.
async fn relayed() -> (World, Relay) {
    let mut world = world();
    let relay = Relay::start(world.listener.local_addr()).await.unwrap();
    world.target = target(relay.local_addr());
    (world, relay)
}

fn hello() -> wire::Hello {
    wire::Hello { protocol: 1, ..Default::default() }
}

/// A server in a runtime of its own, which dies with it: its socket closes and nobody is told, as after
/// kill -9.
struct Mortal {
    runtime: tokio::runtime::Runtime,
    listener: Listener,
}

impl Mortal {
    fn start(world: &World, address: SocketAddr) -> Mortal {
        let credentials = world.authority.issue_server(ServerId(3), now()).unwrap();
        Mortal::with(world, &credentials, address)
    }

    fn with(world: &World, credentials: &Credentials, address: SocketAddr) -> Mortal {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let listener = Listener::bind(address, credentials, world.echo.clone()).unwrap();
        drop(guard);
        Mortal { runtime, listener }
    }

    fn target(&self) -> Target {
        target(self.listener.local_addr())
    }

    async fn kill(self) {
        tokio::task::spawn_blocking(move || {
            self.runtime.shutdown_timeout(5 * SECOND);
            drop(self.listener);
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_noticed_at_once() {
    let world = world();
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let error = ask(&world, &target(address)).await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable(why) if why.contains("nobody listens")), "{error:?}");
    assert!(start.elapsed() < SECOND / 2, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_a_call_is_unreachable_within_a_second() {
    let world = world();
    let server = Mortal::start(&world, anywhere());
    let target = server.target();
    let session = world.dialer.session(&target, hello(), SILENCE).await.unwrap();
    let slow = fetch(0, 60 * SECOND);
    let call = tokio::spawn(world.dialer.call(&target, slow, Bytes::new(), Foreground, SILENCE));
    until("the call has begun", || world.echo.calls.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    server.kill().await;
    let start = Instant::now();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    let (_, mut stream) = session;
    assert!(matches!(stream.next().await, Err(CallError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_in_the_middle_of_a_call_is_unreachable_at_once() {
    let world = world();
    let call = world.dialer.call(&world.target, fetch(0, 60 * SECOND), Bytes::new(), Foreground, SILENCE);
    let call = tokio::spawn(call);
    until("the call has begun", || world.echo.calls.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    let start = Instant::now();
    world.listener.shutdown().await;
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_again_is_found_at_once() {
    let world = world();
    let credentials = world.authority.issue_server(ServerId(3), now()).unwrap();
    let first = Mortal::with(&world, &credentials, anywhere());
    let target = first.target();
    let address = first.listener.local_addr();
    ask(&world, &target).await.unwrap();
    first.kill().await;
    let second = Mortal::with(&world, &credentials, address);
    let begin = Instant::now();
    ask(&world, &target).await.unwrap();
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_answers_is_silent_after_the_limit() {
    let world = world();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    let target = target(socket.local_addr().unwrap());
    let call = world.dialer.call(&target, named("x"), Bytes::new(), Foreground, 2 * SECOND);
    assert_eq!(call.await.unwrap_err(), CallError::Silent);
    assert!((2 * SECOND..3 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_callers_share_one_silence_of_15_seconds() {
    let (world, relay) = relayed().await;
    ask(&world, &world.target).await.unwrap();
    relay.set(Faults::black_hole());
    let start = Instant::now();
    let calls: Vec<_> = (0..10)
        .map(|_| tokio::spawn(world.dialer.call(&world.target, echo(), Bytes::new(), Foreground, SILENCE)))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err(), CallError::Silent);
    }
    assert!((14 * SECOND..17 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    // And when the network is back, a probe finds it within seconds, whatever the old connection does.
    relay.set(Faults::default());
    let start = Instant::now();
    ask(&world, &world.target).await.unwrap();
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_seconds_of_darkness_lose_no_call() {
    let (world, relay) = relayed().await;
    ask(&world, &world.target).await.unwrap();
    relay.set(Faults::black_hole());
    let call = tokio::spawn(world.dialer.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE));
    sleep(10 * SECOND).await;
    relay.set(Faults::default());
    call.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_of_all_packets_lost_makes_nobody_dead() {
    let (world, relay) = relayed().await;
    relay.set(Faults { loss: 30, delay: Duration::from_millis(5), ..Faults::default() });
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < 15 * SECOND {
        ask(&world, &world.target).await.unwrap();
        calls += 1;
    }
    // New connections too.
    for _ in 0..5 {
        let fresh = dialer(&world.authority, None);
        fresh.call(&world.target, named("x"), Bytes::new(), Foreground, SILENCE).await.unwrap();
    }
    let (passed, lost) = relay.counts();
    assert!(calls > 10 && lost * 5 > passed, "{calls} calls, {passed} packets passed, {lost} lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_address_behind_nat_is_not_noticed_by_calls_or_sessions() {
    let (world, relay) = relayed().await;
    let (_, mut session) = world.dialer.session(&world.target, hello(), SILENCE).await.unwrap();
    relay.forget_paths();
    ask(&world, &world.target).await.unwrap();
    world.echo.tell(Some(wire::Event { seq: 1, ..Default::default() }));
    assert_eq!(session.next().await.unwrap().seq, 1);
    assert!(world.echo.lost.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_that_changes_networks_keeps_its_sessions() {
    let world = world();
    let (_, mut session) = world.dialer.session(&world.target, hello(), SILENCE).await.unwrap();
    world.dialer.network_changed().unwrap();
    ask(&world, &world.target).await.unwrap();
    world.echo.tell(Some(wire::Event { seq: 7, ..Default::default() }));
    assert_eq!(session.next().await.unwrap().seq, 7);
    assert!(world.echo.lost.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_leads_to_another_server_costs_seconds_not_an_error() {
    let (world, relay) = relayed().await;
    let (_, mut session) = world.dialer.session(&world.target, hello(), SILENCE).await.unwrap();
    let other = Arc::new(Echo::default());
    let credentials = world.authority.issue_server(ServerId(4), now()).unwrap();
    let listener = Listener::bind(anywhere(), &credentials, other.clone()).unwrap();
    relay.redirect(listener.local_addr());
    let start = Instant::now();
    ask(&world, &world.target).await.unwrap();
    assert!(start.elapsed() < 6 * SECOND, "{:?}", start.elapsed());
    assert_eq!(other.calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    // The session was with the first server: it ends, so that its promises are not believed any more.
    assert!(session.next().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stood_still_gets_the_answer_that_came_meanwhile() {
    let world = world();
    let trust = Arc::new(Trust::pinned_only());
    trust.pin(world.authority.realm(), world.authority.certificate().clone());
    let target = world.target.clone();
    // A runtime of its own, which stops as a frozen process does.
    let frozen = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dialer = Dialer::new(trust, None).unwrap();
            let silence = SECOND / 2;
            dialer.call(&target, named("x"), Bytes::new(), Foreground, silence).await.unwrap();
            let slow = fetch(10, SECOND / 4);
            let call = tokio::spawn(dialer.call(&target, slow, Bytes::new(), Foreground, silence));
            sleep(SECOND / 10).await;
            std::thread::sleep(2 * SECOND);
            call.await.unwrap().map(|(_, bulk)| bulk.len())
        })
    };
    assert_eq!(tokio::task::spawn_blocking(frozen).await.unwrap().unwrap(), 10);
}
