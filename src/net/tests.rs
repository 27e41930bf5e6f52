//! Locating realms with a real DNS server on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tempfile::TempDir;
use tokio::{net::UdpSocket, time::Instant};
use trust_dns_resolver::proto::{
    op::{Metadata, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, SOA, SRV},
    },
};

use super::{
    dns::{Dns, NameServers},
    locate::Atlas,
};
use coda_net::Names;

/// What the DNS server knows and has seen.
#[derive(Default)]
struct Zone {
    records: Mutex<Vec<Record>>,
    asked: AtomicUsize,
    delay: Duration,
}

impl Zone {
    fn add(&self, name: &str, data: RData) {
        self.records.lock().unwrap().push(Record::from_rdata(Name::from_ascii(name).unwrap(), 3600, data));
    }
    fn srv(&self, realm: &str, priority: u16, weight: u16, port: u16, target: &str) {
        let target = Name::from_ascii(target).unwrap();
        self.add(&format!("_codasrv._udp.{realm}."), RData::SRV(SRV::new(priority, weight, port, target)));
    }
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Answers(Arc<Zone>);

#[async_trait::async_trait]
impl RequestHandler for Answers {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut to: R,
    ) -> ResponseInfo {
        let zone = &self.0;
        zone.asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(zone.delay).await;
        let query = request.request_info().unwrap().query;
        let name = Name::from(query.name().clone());
        let known = zone.records.lock().unwrap().clone();
        let named: Vec<_> = known.into_iter().filter(|record| record.name == name).collect();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        if named.is_empty() {
            metadata.response_code = ResponseCode::NXDomain;
        }
        let answers: Vec<_> =
            named.into_iter().filter(|record| record.record_type() == query.query_type()).collect();
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 3600, 3600, 3600, 3600);
        let soa = [Record::from_rdata(root, 3600, RData::SOA(soa))];
        let soa = if answers.is_empty() { &soa[..] } else { &[] };
        let response = MessageResponseBuilder::from_message_request(request);
        to.send_response(response.build(metadata, &answers, [], soa, [])).await.unwrap()
    }
}

/// A zone, its server, and an atlas that asks it.
struct World {
    zone: Arc<Zone>,
    atlas: Atlas,
    directory: TempDir,
    _server: Option<Server<Answers>>,
}

async fn world(delay: Duration) -> World {
    let zone = Arc::new(Zone { delay, ..Default::default() });
    let mut server = Server::new(Answers(zone.clone()));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    server.register_socket(socket);
    World { _server: Some(server), ..asking(zone, vec![address]) }
}

fn asking(zone: Arc<Zone>, servers: Vec<SocketAddr>) -> World {
    let directory = tempfile::tempdir().unwrap();
    let atlas = Atlas {
        realms: directory.path().join("realms"),
        hosts: directory.path().join("hosts"),
        dns: Arc::new(Dns::new(NameServers::Given(servers))),
    };
    World { zone, atlas, directory, _server: None }
}

impl World {
    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.directory.path().join(file), text).unwrap();
    }
    async fn locate(&self, realm: &str) -> Result<Vec<String>, String> {
        let found = self.atlas.locate(realm).await?;
        assert!(found.iter().all(|endpoint| endpoint.realm == realm));
        Ok(found.into_iter().map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port)).collect())
    }
    async fn sorted(&self, realm: &str) -> Vec<String> {
        let mut found = self.locate(realm).await.unwrap();
        found.sort();
        found
    }
}

const PROMPT: Duration = Duration::ZERO;

#[tokio::test]
async fn srv_records_give_order_and_port() {
    let world = world(PROMPT).await;
    world.zone.srv("coda.example", 20, 0, 2432, "last.example.");
    world.zone.srv("coda.example", 10, 0, 9999, "first.example.");
    assert_eq!(world.locate("coda.example").await.unwrap(), ["first.example:9999", "last.example:2432"]);
}

#[tokio::test]
async fn weights_share_the_load() {
    let world = world(PROMPT).await;
    world.zone.srv("coda.example", 1, 90, 1, "often.example.");
    world.zone.srv("coda.example", 1, 10, 1, "seldom.example.");
    let mut often = 0;
    for _ in 0..200 {
        often += usize::from(world.locate("coda.example").await.unwrap()[0] == "often.example:1");
    }
    // 180 expected; the chance of leaving this range is below one in a million.
    assert!((150..200).contains(&often), "{often} of 200");
    assert_eq!(world.zone.asked(), 1, "the answer is kept for as long as it is valid");
}

#[tokio::test]
async fn a_target_of_a_dot_means_that_there_is_no_service() {
    let world = world(PROMPT).await;
    world.zone.srv("none.example", 0, 0, 0, ".");
    world.zone.add("none.example.", RData::A(A::new(192, 0, 2, 1)));
    assert_eq!(world.locate("none.example").await.unwrap(), [""; 0]);
    assert_eq!(world.zone.asked(), 1, "and nothing else is tried");
}

#[tokio::test]
async fn without_srv_the_addresses_of_the_realm_are_its_servers() {
    let world = world(PROMPT).await;
    world.zone.add("host.example.", RData::A(A::new(192, 0, 2, 1)));
    world.zone.add("host.example.", RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)));
    assert_eq!(world.sorted("host.example").await, ["192.0.2.1:2432", "2001:db8::1:2432"]);
}

#[tokio::test]
async fn an_unknown_realm_is_nowhere_and_may_appear_within_seconds() {
    let world = world(PROMPT).await;
    assert_eq!(world.locate("new.example").await.unwrap(), [""; 0]);
    let asked = world.zone.asked();
    assert_eq!(world.locate("new.example").await.unwrap(), [""; 0]);
    assert_eq!(world.zone.asked(), asked, "believed for a moment");
    world.zone.srv("new.example", 1, 1, 7, "server.example.");
    let start = Instant::now();
    while world.locate("new.example").await.unwrap() != ["server.example:7"] {
        assert!(start.elapsed() < Duration::from_secs(8), "a negative answer is believed for too long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_realms_file_comes_first_and_may_say_nowhere() {
    let world = world(PROMPT).await;
    world.zone.srv("coda.example", 1, 1, 1, "dns.example.");
    world.write("realms", "coda.example one.example:5 192.0.2.1\nhidden.example\nbad.example x:y\n");
    assert_eq!(world.sorted("coda.example").await, ["192.0.2.1:2432", "one.example:5"]);
    assert_eq!(world.locate("hidden.example").await.unwrap(), [""; 0]);
    let error = world.locate("bad.example").await.unwrap_err();
    assert!(error.contains("realms:3: x:y: a port is"), "{error}");
    assert_eq!(world.zone.asked(), 0);
    world.write("realms", "");
    assert_eq!(world.locate("coda.example").await.unwrap(), ["dns.example:1"]);
}

#[tokio::test]
async fn a_name_without_a_dot_never_reaches_dns() {
    let world = world(PROMPT).await;
    world.write("hosts", "192.0.2.7 server1\n");
    assert_eq!(world.locate("server1").await.unwrap(), ["192.0.2.7:2432"]);
    for name in
        ["server2", ".Trash", ".Trash-1000", "autorun", "localdomain.", ".hidden.d", "a b.c", "x..", ""]
    {
        assert_eq!(world.locate(name).await.unwrap(), [""; 0], "{name}");
    }
    assert!(Names::addresses(&world.atlas, "server2", 1).await.is_err());
    assert_eq!(Names::addresses(&world.atlas, "server1", 1).await.unwrap()[0].to_string(), "192.0.2.7:1");
    assert_eq!(Names::addresses(&world.atlas, "localhost", 1).await.unwrap().len(), 2);
    assert_eq!(world.zone.asked(), 0);
}

#[tokio::test]
async fn an_address_is_its_own_answer() {
    let world = world(PROMPT).await;
    assert_eq!(world.locate("192.0.2.3").await.unwrap(), ["192.0.2.3:2432"]);
    assert_eq!(Names::addresses(&world.atlas, "::1", 9).await.unwrap()[0].to_string(), "[::1]:9");
    assert_eq!(world.zone.asked(), 0);
}

#[tokio::test]
async fn a_slow_resolver_is_waited_for() {
    let world = world(Duration::from_millis(1500)).await;
    world.zone.srv("coda.example", 1, 1, 7, "server.example.");
    assert_eq!(world.locate("coda.example").await.unwrap(), ["server.example:7"]);
}

#[tokio::test]
async fn a_dead_resolver_costs_seconds_and_is_not_the_same_as_nowhere() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let world = asking(Arc::default(), vec![silent.local_addr().unwrap()]);
    let start = Instant::now();
    let error = world.locate("coda.example").await.unwrap_err();
    assert!(error.contains("DNS does not answer about _codasrv._udp.coda.example"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    // What the machine itself knows needs no resolver.
    world.write("hosts", "192.0.2.7 coda.example\n");
    assert_eq!(world.locate("coda.example").await.unwrap(), ["192.0.2.7:2432"]);
}

#[tokio::test]
async fn a_resolver_whose_port_is_closed_is_noticed_at_once() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = asking(Arc::default(), vec![closed]);
    let start = Instant::now();
    world.locate("coda.example").await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn one_of_two_resolvers_is_enough() {
    let mut world = world(PROMPT).await;
    world.zone.srv("coda.example", 1, 1, 7, "server.example.");
    let good = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = vec![silent.local_addr().unwrap(), good.local_addr().unwrap()];
    let mut server = Server::new(Answers(world.zone.clone()));
    server.register_socket(good);
    world.atlas.dns = Arc::new(Dns::new(NameServers::Given(servers)));
    assert_eq!(world.locate("coda.example").await.unwrap(), ["server.example:7"]);
}

#[tokio::test]
async fn other_name_servers_are_noticed() {
    let mut world = world(PROMPT).await;
    world.write("resolv.conf", "search example\n");
    let file = world.directory.path().join("resolv.conf");
    world.atlas.dns = Arc::new(Dns::new(NameServers::File(file.clone())));
    let error = world.locate("coda.example").await.unwrap_err();
    assert!(error.contains("no nameservers found"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = world.locate("coda.example").await.unwrap_err();
    assert!(error.contains("resolv.conf"), "{error}");
    // A name server that is a closed port: another failure than before, so the file was read again.
    world.write("resolv.conf", "nameserver 127.254.254.254\n");
    let error = world.locate("coda.example").await.unwrap_err();
    assert!(error.contains("no name server runs"), "{error}");
}
