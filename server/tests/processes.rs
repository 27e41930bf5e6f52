//! Real processes over real QUIC: a realm is made, a second server joins, volumes are made and loaded.

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use coda_net::{Dialer, Priority, Target, Trust, trust::read_authority};
use coda_proto::{
    Acl, Fid, Op, Record, Rights, VolumeId,
    wire::{self, request, response::Body},
};
use coda_server::{
    ServerConfig,
    shell::{CodaServer, ports::Port},
};
use tokio::time::Instant;

/// A running codasrv, killed at the end.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn codasrv(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codasrv")).args(arguments).output().unwrap()
}

fn volutil(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volutil")).arg("--dir").arg(dir).args(arguments).output().unwrap()
}

fn well(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn badly(output: Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// Starts a server and waits until it listens.
fn serve(dir: &Path) -> Serving {
    let mut child = Command::new(env!("CARGO_BIN_EXE_codasrv"))
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listens at"), "{line:?}");
    Serving(child)
}

/// A client's end, as far as these tests need one.
struct Client {
    dialer: Dialer,
    target: Target,
    session: u64,
    _stream: coda_net::SessionStream,
}

impl Client {
    async fn connect(ca: &Path, realm: &str, port: u16) -> Client {
        let trust = Trust::pinned_only();
        trust.pin(realm, read_authority(ca).unwrap());
        let dialer = Dialer::new(Arc::new(trust), None).unwrap();
        let target = Target { realm: realm.into(), host: "127.0.0.1".into(), port, server: None };
        let hello = wire::Hello { protocol: 1, instance: vec![1; 16].into(), ..Default::default() };
        let (welcome, stream) = dialer.session(&target, hello, Duration::from_secs(10)).await.unwrap();
        Client { dialer, target, session: welcome.session, _stream: stream }
    }

    async fn call(&self, body: request::Body) -> Body {
        let request = wire::Request { session: self.session, body: Some(body), ..Default::default() };
        let silence = Duration::from_secs(10);
        let call = self.dialer.call(&self.target, request, Bytes::new(), Priority::Foreground, silence);
        call.await.unwrap().0.body.unwrap()
    }

    async fn volume(&self, name: &str) -> wire::VolumeInfo {
        let get = wire::GetVolume { name: name.into(), id: 0 };
        match self.call(request::Body::GetVolume(get)).await {
            Body::Volume(info) => info,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_is_made_joined_and_administered() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (port, second_port) = (free_port(), free_port());
    let at = format!("127.0.0.1:{port}");
    let init = [
        "init",
        "--realm",
        "test.example",
        "--dir",
        one.to_str().unwrap(),
        "--name",
        "alpha",
        "--endpoint",
        &at,
    ];
    assert!(well(codasrv(&init)).contains("Realm test.example is made"));
    assert!(badly(codasrv(&init)).contains("already"));
    let first = serve(&one);
    assert!(badly(codasrv(&["--dir", one.to_str().unwrap()])).contains("another server is using this store"));

    let token = well(volutil(&one, &["invite", "--name", "beta"]));
    let second_at = format!("127.0.0.1:{second_port}");
    let join = |token: &str, dir: &Path, name: &str, endpoint: &str| {
        let (token, dir) = (token.trim(), dir.to_str().unwrap());
        let words =
            ["join", "--scm", &at, "--token", token, "--dir", dir, "--name", name, "--endpoint", endpoint];
        codasrv(&words)
    };
    // A token of another authority convinces nobody, and is not used up; nothing is left where it failed.
    let (start, _) = token.trim().rsplit_once(':').unwrap();
    let (wrong, fooled) = (format!("{start}:{}", "0".repeat(64)), dir.path().join("fooled"));
    assert!(badly(join(&wrong, &fooled, "beta", &second_at)).contains("Is the token whole?"));
    // Nor is it where another server is reached.
    assert!(badly(join(&token, &fooled, "beta", &at)).contains("is where server alpha is reached"));
    assert!(!fooled.exists());
    // The name is that of the invitation, whatever this machine is called.
    assert!(well(join(&token, &two, "there", &second_at)).contains("beta is server 2 of test.example"));
    assert!(well(volutil(&one, &["servers"])).contains("2\tbeta\t"));
    assert!(badly(join(&token, &fooled, "beta", &second_at)).contains("unknown token"));
    // One name is one server, and a line of db/servers.
    assert!(badly(volutil(&one, &["invite", "--name", "beta"])).contains("server 2 is called beta already"));
    assert!(badly(volutil(&one, &["invite", "--name", "ga mma"])).contains("no blanks"));
    let nameless = well(volutil(&one, &["invite"]));
    let third_at = format!("127.0.0.1:{}", free_port());
    let refused = badly(join(&nameless, &fooled, "beta", &third_at));
    assert!(refused.contains("server 2 is called beta already"), "{refused}");
    let second = serve(&two);

    // Without the admin key, and with nothing else, the next step is named.
    assert!(badly(volutil(&two, &["list"])).contains("say where with --dir or CODA_ADMIN_DIR"));
    let keys = dir.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    for name in ["admin.pem", "admin.key"] {
        std::fs::copy(one.join(name), keys.join(name)).unwrap();
    }
    assert!(badly(volutil(&keys, &["list"])).contains("say --host"));
    well(volutil(&keys, &["--host", &second_at, "list"]));

    let created = well(volutil(&one, &["createvol_rep", "home", "alpha", "beta"]));
    assert_eq!(created, "Volume 7f000002 (home) created \n");
    assert!(badly(volutil(&one, &["create", "home"])).contains("already"));
    assert!(badly(volutil(&one, &["create", "x", "gamma"])).contains("no such server"));
    let list = well(volutil(&one, &["list"]));
    assert!(list.contains("home 7f000002 2 01000002 02000001 00000000"), "{list}");
    assert!(well(volutil(&one, &["info", "home"])).contains("slot 1 = 02000001 on beta, active"));

    // The second server serves its replica, and answers for the others.
    let client = Client::connect(&one.join("ca.pem"), "test.example", second_port).await;
    let info = client.volume("home").await;
    assert_eq!((info.members.len(), info.epoch), (2, 1));
    assert_eq!(client.volume("/").await.members.len(), 1);
    let root = Fid::root(VolumeId(info.id));
    let get = wire::GetAcl { fid: Some(root.into()) };
    match client.call(request::Body::GetAcl(get)).await {
        Body::Acl(answer) => assert_eq!(Acl::try_from(answer.acl.unwrap()).unwrap(), Acl::root(Rights::ALL)),
        other => panic!("{other:?}"),
    }

    // A list that contradicts itself changes nothing; one that is right moves on.
    let file = dir.path().join("VRList");
    std::fs::write(&file, list.replace("7f000002 2", "7f000002 1")).unwrap();
    let refused = badly(volutil(&one, &["makevrdb", file.to_str().unwrap()]));
    assert!(refused.contains("VRList:2: the count says 1 replicas, and 2 ids follow"), "{refused}");
    std::fs::write(&file, format!("{list}more 7f000009 1 02000009 0 0 0 0 0 0 0\n")).unwrap();
    well(volutil(&one, &["makevrdb", file.to_str().unwrap()]));
    assert_eq!(client.volume("more").await.members[0].replica, 0x0200_0009);

    // A replica joins a volume that has history, and becomes active.
    well(volutil(&one, &["create", "grows", "alpha"]));
    well(volutil(&one, &["add-replica", "grows", "beta"]));
    let start = Instant::now();
    while !well(volutil(&one, &["info", "grows"])).contains("on beta, active") {
        assert!(start.elapsed() < Duration::from_secs(20), "it never becomes active");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The SCM has said so; whoever is asked here hears of it.
    while client.volume("grows").await.epoch < 3 {
        assert!(start.elapsed() < Duration::from_secs(20), "the other server never hears of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // What a server missed it learns when it is back.
    drop(second);
    well(volutil(&one, &["create", "later", "alpha"]));
    let _second = serve(&two);
    let client = Client::connect(&one.join("ca.pem"), "test.example", second_port).await;
    let start = Instant::now();
    loop {
        let get = wire::GetVolume { name: "later".into(), id: 0 };
        if let Body::Volume(info) = client.call(request::Body::GetVolume(get)).await {
            assert_eq!(info.members.len(), 1);
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it never learns");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_has_what_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let at = format!("127.0.0.1:{port}");
    well(codasrv(&[
        "init",
        "--realm",
        "r",
        "--dir",
        dir.path().to_str().unwrap(),
        "--name",
        "a",
        "--endpoint",
        &at,
    ]));
    let server = serve(dir.path());
    let client = Client::connect(&dir.path().join("ca.pem"), "r", port).await;
    let root = Fid::root(VolumeId(client.volume("").await.id));
    let author = coda_proto::Author(99);
    let past = coda_proto::Past::of(coda_proto::Dot::new(coda_proto::Author(1), 1));
    let record = Record {
        dot: coda_proto::Dot::new(author, 1),
        lamport: 10,
        time: 1,
        changed: 1,
        bases: vec![coda_proto::Base { fid: root, past }],
        logged: false,
        host: String::new(),
        op: Op::MakeDir {
            parent: root,
            name: b"kept".to_vec(),
            fid: Fid::directory(root.volume, author, 1),
            mode: 0o755,
            owner: 0,
        },
    };
    let apply = wire::Apply { volume: root.volume.0, epoch: 1, records: vec![(&record).into()] };
    assert!(matches!(client.call(request::Body::Apply(apply)).await, Body::Applied(_)));
    drop(server);
    let check = ["check", "--dir", dir.path().to_str().unwrap()];
    assert!(well(codasrv(&check)).contains("sound"));

    // The same store, served within this process, at any port.
    let server = CodaServer::start(ServerConfig::new(dir.path()), ([127, 0, 0, 1], 0).into()).unwrap();
    let client = Client::connect(&dir.path().join("ca.pem"), "r", server.local_addr().port()).await;
    let read = wire::ReadDir { fid: Some(root.into()), ..Default::default() };
    match client.call(request::Body::ReadDir(read)).await {
        Body::DirPage(page) => assert_eq!(&page.entries[0].name[..], b"kept"),
        other => panic!("{other:?}"),
    }
    server.shutdown().await;
    let again = CodaServer::start(ServerConfig::new(dir.path()), ([127, 0, 0, 1], 0).into()).unwrap();
    again.shutdown().await;
}

#[test]
fn a_server_with_too_few_open_files_says_how_many_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (one, at) = (dir.path().join("one"), format!("127.0.0.1:{}", free_port()));
    let one = one.to_str().unwrap();
    well(codasrv(&["init", "--realm", "test.example", "--dir", one, "--name", "alpha", "--endpoint", &at]));
    let command = format!("ulimit -n 40; exec {} --dir {one}", env!("CARGO_BIN_EXE_codasrv"));
    let why = badly(Command::new("sh").args(["-c", &command]).output().unwrap());
    assert!(why.contains("1 volumes need 70 open files, and 40 are allowed"), "{why}");
}

#[tokio::test]
async fn a_server_shows_its_numbers_on_a_loopback_port() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let (one, at) = (dir.path().join("one"), format!("127.0.0.1:{}", free_port()));
    let path = one.to_str().unwrap();
    well(codasrv(&["init", "--realm", "test.example", "--dir", path, "--name", "alpha", "--endpoint", &at]));
    let anywhere = badly(codasrv(&["--dir", path, "--metrics", "0.0.0.0:0"]));
    assert!(anywhere.contains("loopback"), "{anywhere}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_codasrv"))
        .args(["--dir", path, "--metrics", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut line, mut said) = (String::new(), BufReader::new(child.stdout.take().unwrap()));
    said.read_line(&mut line).unwrap();
    let _serving = Serving(child);
    let address = line.trim().strip_prefix("codasrv: metrics at http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address.strip_suffix("/metrics").unwrap()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    assert!(page.contains("coda_server_info{realm=\"test.example\""), "{page}");
}

/// The same condition, asked again until it holds.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: never");
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scm_is_lost_another_signs_for_the_realm_and_files_in_the_directory_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (at, second_at) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    well(codasrv(&["init", "--realm", "r", "--dir", &text(&one), "--name", "alpha", "--endpoint", &at]));
    let first = serve(&one);
    let token = well(volutil(&one, &["invite"]));
    well(codasrv(&[
        "join",
        "--scm",
        &at,
        "--token",
        token.trim(),
        "--dir",
        &text(&two),
        "--name",
        "beta",
        "--endpoint",
        &second_at,
        "--peer-endpoint",
        &second_at,
    ]));
    let _second = serve(&two);
    well(volutil(&one, &["create", "home", "alpha", "beta"]));
    let file = |dir: &Path, name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    eventually("db/VRList of the other server", || file(&two, "db/VRList").contains("home 7f000002 2"));
    assert_eq!((file(&two, "db/scm").trim(), file(&two, "hostname").trim()), ("alpha", "beta"));
    assert!(file(&one, "db/servers").contains("beta\t2"));
    assert!(one.join("srv/SrvErr").exists() && one.join("vicepa/FTREEDB").exists());

    // It may be the next SCM, and has what that needs.
    eventually("the authority's key", || two.join("ca.key").exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&two.join("ca.key").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    let beta = |arguments: &[&str]| volutil(&one, &[&["--host", second_at.as_str()], arguments].concat());
    assert!(badly(beta(&["create", "x"])).contains("changed at its SCM, server 1 (alpha)"));
    let said = well(beta(&["promote-scm", "beta"]));
    assert!(said.starts_with("server 2 is the SCM, in term 2; not reached yet: server 1 (alpha)"), "{said}");
    well(beta(&["create", "without", "beta"]));
    eventually("db/scm", || file(&two, "db/scm").trim() == "beta");
    // A third one joins although the first is not there.
    let (three, third_at) = (dir.path().join("three"), format!("127.0.0.1:{}", free_port()));
    let token = well(beta(&["invite", "--name", "gamma"]));
    let (token, three_dir) = (token.trim(), text(&three));
    let scm = ["join", "--scm", second_at.as_str(), "--token", token, "--dir", three_dir.as_str()];
    let joined = well(codasrv(&[&scm[..], &["--name", "gamma", "--endpoint", &third_at, "--json"]].concat()));
    let joined: serde_json::Value = serde_json::from_str(&joined).unwrap();
    assert_eq!((&joined["server"], &joined["name"]), (&3.into(), &"gamma".into()));
    let _third = serve(&three);
    well(beta(&["create", "on-three", "beta", "gamma"]));
    eventually("the third one serves it", || file(&three, "db/VRList").contains("on-three"));

    let conf = dir.path().join("server.conf");
    std::fs::write(&conf, format!("vicedir={}\nlwps=5\n", text(&two))).unwrap();
    let check = codasrv(&["check-config", "--conf", &text(&conf)]);
    let found = String::from_utf8(check.stdout.clone()).unwrap();
    assert!(found.contains("server.conf:2: lwps has no effect any more"), "{found}");
    assert!(found.contains(&format!("db/servers:2: alpha at {at} does not answer")), "{found}");
    assert!(found.contains("db/servers:3: 127.0.0.1 is this machine wherever it is used"), "{found}");
    badly(check);
    let check = codasrv(&["check-config", "--json", "--conf", &text(&conf)]);
    let told: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    let count = |what: &str| told[what].as_array().unwrap().len();
    assert_eq!((count("notes"), count("notes") + count("problems")), (1, found.lines().count()));
    badly(check);

    let _first = serve(&one);
    let alpha = |arguments: &[&str]| volutil(&one, &[&["--host", at.as_str()], arguments].concat());
    eventually("the old SCM steps down", || file(&one, "db/scm").trim() == "beta");
    // Whoever is told the name of a server that is not the SCM any more is led to the one that is.
    well(alpha(&["create", "y"]));
    assert!(well(alpha(&["list"])).contains("without 7f000003 1"));
    let log = well(alpha(&["log"]));
    assert!(log.contains("\t2.2\tthe SCM is server 2") && !log.contains("given up"), "{log}");

    // By hand, as of old: another name in db/scm, and a replica in VRList.
    std::fs::write(one.join("db/scm"), "alpha\n").unwrap();
    let list = file(&one, "db/VRList");
    let edited = list.replace("without 7f000003 1 02000002 00000000", "without 7f000003 2 02000002 01000009");
    assert_ne!(list, edited);
    std::fs::write(one.join("db/VRList"), edited).unwrap();
    let shown = well(alpha(&["import", "--dry-run"]));
    assert_eq!(shown, "! the SCM is alpha, was beta\n+ replica 01000009 of without on alpha, joining\n");
    let done = well(alpha(&["import"]));
    assert!(done.contains("server 1 is the SCM, in term 3"), "{done}");
    eventually("the replica joins", || {
        well(alpha(&["info", "without"])).contains("01000009 on alpha, active")
    });
    well(alpha(&["create", "z"]));
    for (name, answer) in
        [("updatesrv", "the SCM tells"), ("updateclnt", "follows"), ("rpc2portmap", "one UDP port")]
    {
        assert!(well(codasrv(&[name])).contains(answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_has_a_port_of_its_own_and_is_heard_from_its_addresses_only() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("s");
    let home = home.to_str().unwrap();
    well(codasrv(&["init", "--realm", "r", "--dir", home, "--name", "a", "--endpoint", "127.0.0.1:2432"]));
    let any = ([127, 0, 0, 1], 0).into();
    let ports = [(Port::Client, any), (Port::Peer, any), (Port::Admin, any)];
    let start = |allow: &[(Port, coda_server::shell::ports::Network)]| {
        CodaServer::start_at(ServerConfig::new(home), &ports, allow).unwrap()
    };
    let server = start(&[]);
    let at: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let ask = |at: &str| volutil(Path::new(home), &["--host", at, "list"]);
    assert!(badly(ask(&at[0])).contains("this is the client port"));
    assert!(badly(ask(&at[1])).contains("this is the peer port"));
    assert!(well(ask(&at[2])).contains("7f000001"));
    let ca = Path::new(home).join("ca.pem");
    let client = Client::connect(&ca, "r", server.local_addr().port()).await;
    assert_eq!(client.volume("/").await.members.len(), 1);
    let elsewhere =
        Client { target: Target { port: server.addresses()[2].port(), ..client.target.clone() }, ..client };
    match elsewhere.call(request::Body::GetRealm(wire::GetRealm {})).await {
        Body::Refusal(refusal) => assert!(refusal.detail.contains("this is the admin port"), "{refusal:?}"),
        other => panic!("{other:?}"),
    }
    server.shutdown().await;

    let server = start(&[(Port::Admin, "192.0.2.0/24".parse().unwrap())]);
    let client = Client::connect(&ca, "r", server.local_addr().port()).await;
    let unheard = Target { port: server.addresses()[2].port(), ..client.target.clone() };
    let probe = wire::Request { body: Some(request::Body::Probe(wire::Probe {})), ..Default::default() };
    let silence = Duration::from_millis(500);
    let call = client.dialer.call(&unheard, probe, Bytes::new(), Priority::Foreground, silence).await;
    assert!(call.is_err(), "nothing answers there: {call:?}");
    server.shutdown().await;
}

#[test]
fn what_another_server_left_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    let words = ["--dir", one.to_str().unwrap()];
    let init = ["init", "--realm", "r.example", "--name", "alpha", "--endpoint", "127.0.0.1:9"];
    let init: Vec<&str> = init.into_iter().chain(words).collect();
    well(codasrv(&init));
    let meta = one.join("vol/01000001/meta.db");
    let before = std::fs::read(&meta).unwrap();
    // A disk of which only the replicas came back.
    for name in ["server.db", "ca.pem", "admin.pem", "server.pem", "ca.key", "admin.key", "server.key"] {
        let refused = badly(codasrv(&init));
        assert!(refused.contains("there is a server store already"), "{refused}");
        std::fs::remove_file(one.join(name)).unwrap();
    }
    let refused = badly(codasrv(&init));
    assert!(refused.contains("there are replicas in vol"), "{refused}");
    let join =
        ["join", "--scm", "127.0.0.1:9", "--token", "r.example/1/SHA256:1", "--endpoint", "127.0.0.1:9"];
    let join: Vec<&str> = join.into_iter().chain(words).collect();
    let refused = badly(codasrv(&join));
    assert!(refused.contains("there are replicas in vol"), "{refused}");
    let refused = badly(codasrv(&words));
    assert!(refused.contains("put it back from a copy"), "{refused}");
    assert!(std::fs::read(&meta).unwrap() == before);
}
