//! What a server keeps for its clients is bounded, and what happens at each bound.

mod world;

use coda_proto::{
    Code, Rights,
    service::{Identity, Service},
    wire,
};
use coda_server::{Limits, Server, ServerConfig};
use world::{Client, Place, code, env};

fn hello(server: &Server, instance: u8) -> (wire::Welcome, bool) {
    let hello = wire::Hello { protocol: 1, instance: vec![instance; 16].into(), ..Default::default() };
    let (welcome, events) = server.hello(Identity::Client, hello);
    let is_there = events.is_some();
    if welcome.refusal.is_none() {
        // The stream lives on until the server hears that it broke.
        std::mem::forget(events);
    }
    (welcome, is_there)
}

#[tokio::test]
async fn one_client_more_than_there_may_be_is_told_to_come_again() {
    let place = Place::new(Rights::ALL);
    let limits = Limits { sessions: 3, ..Limits::default() };
    let server = Server::open(ServerConfig { limits, ..place.config() }, env()).unwrap();
    let first: Vec<u64> = (1..=3).map(|name| hello(&server, name).0.session).collect();
    let (refused, events) = hello(&server, 4);
    assert_eq!(refused.refusal.unwrap().code, i32::from(Code::Busy));
    assert!(!events);
    // A client that is here already starts again in its own place.
    assert!(hello(&server, 2).1);
    // One whose connection is gone makes room; the others keep theirs.
    server.lost(first[0]);
    assert!(hello(&server, 4).1);
    assert!(!server.sessions().knows(first[0]) && server.sessions().knows(first[2]));
    assert_eq!(server.sessions().counts().0, 3);
    server.stop();
}

#[tokio::test]
async fn a_client_that_begins_more_uploads_than_it_may_has_to_store_some_first() {
    let place = Place::new(Rights::ALL);
    let limits = Limits { uploads: 2, ..Limits::default() };
    let server = Server::open(ServerConfig { limits, ..place.config() }, env()).unwrap();
    let (mut one, two) = (Client::new(&server, place.home, 1), Client::new(&server, place.home, 2));
    let bytes = vec![1; 50_000];
    for handle in [1, 2] {
        one.upload([handle; 16], &bytes, 0, 10_000).await.unwrap();
    }
    assert_eq!(code(one.upload([3; 16], &bytes, 0, 10_000).await), Code::Busy);
    // It goes on with those that it began, and others are not concerned.
    one.upload([1; 16], &bytes, 10_000, 50_000).await.unwrap();
    two.upload([4; 16], &bytes, 0, 10_000).await.unwrap();
    let file = one.create(one.root(), "f").await.unwrap();
    one.run(world::store_uploaded(file, &bytes, [1; 16])).await.unwrap();
    one.upload([3; 16], &bytes, 0, 10_000).await.unwrap();
    server.stop();
}

#[tokio::test]
async fn what_a_server_tells_prometheus_is_what_it_does() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut one = Client::new(&server, place.home, 1);
    let mut two = Client::new(&server, place.home, 2);
    let file = one.create(one.root(), "f").await.unwrap();
    two.status(file).await.unwrap();
    two.attend();
    one.store(file, b"x").await.unwrap();
    one.remove(one.root(), "f", file).await.unwrap();
    let page = coda_server::shell::metrics::page(&server);
    for line in [
        "coda_sessions 2",
        "coda_callback_breaks_total 1",
        "coda_volume_state{volume=\"home\",state=\"serving\"} 1",
        "coda_volume_state{volume=\"home\",state=\"waiting\"} 0",
        "coda_tombstones{volume=\"home\"} 1",
        "coda_tombstones{volume=\"/\"} 0",
        "coda_contents_damaged_total{volume=\"home\"} 0",
        "# TYPE coda_callback_breaks_total counter",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
    }
    for name in [
        "coda_server_info",
        "coda_sessions",
        "coda_promises",
        "coda_callback_breaks_total",
        "coda_sessions_fenced_total",
        "coda_volume_state",
        "coda_volume_bytes",
        "coda_volume_objects",
        "coda_volume_changes",
        "coda_tombstones",
        "coda_partition_free_bytes",
        "coda_contents_lost",
        "coda_contents_damaged_total",
        "coda_contents_mended_total",
        "coda_scrubbed_bytes_total",
        "coda_replica_up",
        "coda_replica_unconfirmed_changes",
    ] {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}\nis not in\n{page}");
    }
    let info = page.lines().find(|line| line.starts_with("coda_server_info")).unwrap();
    assert!(info.contains("realm=\"test.example\"") && info.contains("server=\"1\""), "{info}");
    server.stop();
}

/// Rows that cannot be read, as many as there would be objects.
fn spoil(place: &Place, count: u32) {
    let realm = coda_server::store::RealmStore::look(&place.path()).unwrap().load().unwrap().1;
    let replica = realm.replica_at(place.home, coda_proto::ServerId(1)).unwrap().replica;
    let path = coda_server::store::replica_dir(&place.path(), replica).join("meta.db");
    let mut db = rusqlite::Connection::open(path).unwrap();
    let rows = db.transaction().unwrap();
    for vnode in 1..=count {
        rows.execute(
            "INSERT INTO head(vnode, uniq, kind, past, body, marked) VALUES (?1, 99, 1, x'ff', x'ff', 0)",
            [vnode * 2],
        )
        .unwrap();
    }
    rows.commit().unwrap();
}

#[tokio::test]
async fn a_start_reads_no_object_and_answers_at_once() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut one = Client::new(&server, place.home, 1);
    let file = one.create(one.root(), "f").await.unwrap();
    server.stop();
    // Whoever looked at all objects would stumble over these.
    spoil(&place, 20_000);
    let server = place.open();
    let one = Client::new(&server, place.home, 1);
    assert!(one.status(file).await.is_some());
    assert_eq!(one.names(one.root()).await, ["f"]);
    server.stop();
}

#[tokio::test(start_paused = true)]
async fn a_changed_group_is_told_to_a_hundred_idle_clients_at_once() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut clients: Vec<Client> = (1..=100).map(|name| Client::new(&server, place.home, name)).collect();
    let mut realm = (*server.realm()).clone();
    realm.config += 1;
    let info = &mut realm.volumes.get_mut(&place.home).unwrap().info;
    (info.epoch, info.name) = (info.epoch + 1, "elsewhere".into());
    let now = tokio::time::Instant::now();
    server.adopt(realm).unwrap();
    for client in &mut clients {
        let told = async {
            loop {
                let event = client.events().next().await.expect("the session lives");
                if let Some(wire::event::Body::GroupChanged(info)) = event.body {
                    return info.epoch;
                }
            }
        };
        let epoch = tokio::time::timeout(std::time::Duration::from_secs(1), told).await;
        assert_eq!(epoch, Ok(2), "client {}", client.instance);
    }
    assert!(now.elapsed() < std::time::Duration::from_secs(1));
    server.stop();
}
