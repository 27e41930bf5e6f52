//! What servers do among themselves: becoming equal again, filling a new replica, starting with many files.
//!
//! The servers run inside this program and talk to each other over QUIC on the loopback interface. What
//! they hold is written straight into them, as fast as they take it; that is not measured.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use coda_net::Authority;
use coda_proto::{
    Author, Base, Contents, Dot, Fid, Op, Past, Record, Rights, ServerId, VolumeId,
    service::{Identity, Service},
    wire::{self, request, response::Body},
};
use coda_server::{
    Durability, Server, ServerConfig, setup,
    shell::{CodaServer, nanoseconds, now},
};
use tokio::runtime::Runtime;

/// One of them: its name, what it says for people, and how it is run.
pub struct Story {
    /// The name in `--only`.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    run: fn(quick: bool) -> anyhow::Result<Vec<Number>>,
}

/// All of them.
pub const STORIES: &[Story] = &[
    Story {
        name: "away",
        about: "a replica that was away for 10,000 operations, until it is equal again",
        run: away,
    },
    Story {
        name: "sides",
        about: "one directory with 1,000 entries created at each of two replicas, until they are equal",
        run: sides,
    },
    Story {
        name: "populate",
        about: "a new replica of 10,000 files of 4 KiB, and of one of 1 GiB, until it serves",
        run: populate,
    },
    Story {
        name: "restart",
        about: "start of a server with 100,000 files, until its first answer",
        run: restart,
    },
];

/// What was measured, and what it should be.
struct Number {
    what: String,
    value: f64,
    unit: &'static str,
    reach: f64,
    /// More is better.
    more: bool,
}

impl Number {
    fn seconds(what: impl Into<String>, value: f64, reach: f64) -> Number {
        Number { what: what.into(), value, unit: "s", reach, more: false }
    }

    fn is_reached(&self) -> bool {
        if self.more { self.value >= self.reach } else { self.value <= self.reach }
    }
}

/// Runs one and prints what it measured.
pub fn measure(story: &Story, quick: bool, json: bool) -> anyhow::Result<()> {
    let numbers = (story.run)(quick).with_context(|| story.name)?;
    if json {
        let numbers: Vec<_> = numbers
            .iter()
            .map(|n| serde_json::json!({ "what": n.what, "value": n.value, "unit": n.unit, "reach": n.reach, "reached": n.is_reached() }))
            .collect();
        println!("{}", serde_json::json!({ "name": story.name, "numbers": numbers }));
        return Ok(());
    }
    for number in numbers {
        let (sign, verdict) = match (number.more, number.is_reached() || quick) {
            (true, true) => (">=", ""),
            (true, false) => (">=", "  MISSED"),
            (false, true) => ("<=", ""),
            (false, false) => ("<=", "  MISSED"),
        };
        println!(
            "{:<18} {}: {:.2} {}  ({sign} {} {}){verdict}",
            story.name, number.what, number.value, number.unit, number.reach, number.unit
        );
    }
    Ok(())
}

/// A realm of servers in this process.
struct Realm {
    runtime: Runtime,
    state: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
    servers: Vec<Option<CodaServer>>,
    home: VolumeId,
}

impl Realm {
    /// Two servers; the volume `home` is on the first, and on the second where `both`.
    fn new(both: bool) -> anyhow::Result<Realm> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let state = tempfile::tempdir()?;
        let sockets =
            (0..2).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
        drop(sockets);
        let info = |(index, address): (usize, &SocketAddr)| wire::ServerInfo {
            id: index as u32 + 1,
            name: format!("server{}", index + 1),
            endpoints: vec![wire::Endpoint {
                host: address.ip().to_string(),
                port: address.port().into(),
                peer_only: false,
            }],
        };
        let infos = addresses.iter().enumerate().map(info).collect();
        let mut realm = setup::realm("bench.example", infos, Rights::ALL)?;
        let members = if both { vec![ServerId(1), ServerId(2)] } else { vec![ServerId(1)] };
        let home = setup::add_volume_on(&mut realm, "home", &members, &coda_proto::Acl::root(Rights::ALL));
        let authority = Authority::create("bench.example", now())?;
        let mut made = Realm { runtime, state, addresses, servers: vec![None, None], home };
        for index in 0..2 {
            let own = ServerId(index as u8 + 1);
            std::fs::create_dir_all(made.dir(index))?;
            authority.issue_server(own, now())?.save(&made.dir(index), "server")?;
            setup::create(&made.dir(index), own, &realm, &[], Durability::Full, nanoseconds())?;
            made.start(index)?;
        }
        Ok(made)
    }

    fn dir(&self, index: usize) -> PathBuf {
        self.state.path().join(index.to_string())
    }

    fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let (config, address) = (ServerConfig::new(self.dir(index)), self.addresses[index]);
        let server = self.runtime.block_on(async move { CodaServer::start(config, address) })?;
        self.servers[index] = Some(server);
        Ok(())
    }

    fn stop(&mut self, index: usize) {
        if let Some(server) = self.servers[index].take() {
            self.runtime.block_on(server.shutdown());
        }
    }

    fn server(&self, index: usize) -> anyhow::Result<&Server> {
        Ok(self.servers[index].as_ref().context("it is stopped")?.server())
    }

    /// How far a replica has come, and how far it has seen the other's; 0 where it is not there yet.
    fn seen(&self, index: usize) -> anyhow::Result<(u64, u64)> {
        let Ok(volume) = self.server(index)?.volume(self.home) else { return Ok((0, 0)) };
        let other = ServerId(2 - index as u8);
        Ok(volume.read(|view| Ok((view.volume_row()?.change_seq, view.peer(other)?.seen)))?)
    }

    /// Waits until each member includes what the other had at `upto`.
    fn equal(&self, upto: [u64; 2]) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let (_, first) = self.seen(0)?;
            let (_, second) = self.seen(1)?;
            if first >= upto[1] && second >= upto[0] {
                return Ok(());
            }
            ensure!(begun.elapsed() < Duration::from_secs(900), "not equal after 15 minutes");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn call(
        &self,
        index: usize,
        who: Identity,
        session: u64,
        body: request::Body,
        bulk: Bytes,
    ) -> anyhow::Result<Body> {
        let request = wire::Request { session, bulk: bulk.len() as u32, cop2: Vec::new(), body: Some(body) };
        let (response, _) = self.runtime.block_on(self.server(index)?.call(who, request, bulk));
        match response.body {
            Some(Body::Refusal(refusal)) => bail!("refused: {}", coda_proto::Refusal::try_from(refusal)?),
            Some(body) => Ok(body),
            None => bail!("an empty answer"),
        }
    }
}

/// One author that writes into one server.
struct Writer {
    author: Author,
    session: u64,
    server: usize,
    seq: u64,
    count: u32,
    records: Vec<Record>,
    size: usize,
    /// Keeps the session.
    _events: Option<Box<dyn coda_proto::service::EventSource>>,
}

impl Writer {
    fn new(realm: &Realm, server: usize, author: u64) -> anyhow::Result<Writer> {
        let hello =
            wire::Hello { protocol: 1, instance: vec![author as u8; 16].into(), ..Default::default() };
        let (welcome, events) = realm.server(server)?.hello(Identity::Client, hello);
        let author = Author(author);
        let (session, records) = (welcome.session, Vec::new());
        Ok(Writer { author, session, server, seq: 0, count: 0, records, size: 0, _events: events })
    }

    fn add(&mut self, realm: &Realm, bases: Vec<Base>, op: Op, size: usize) -> anyhow::Result<Dot> {
        if self.records.len() == coda_proto::APPLY_RECORDS || self.size + size > 3 << 20 {
            self.flush(realm)?;
        }
        self.seq += 1;
        self.size += size;
        let dot = Dot::new(self.author, self.seq);
        let host = String::new();
        self.records.push(Record { dot, lamport: self.seq + 1, time: 0, bases, logged: false, host, op });
        Ok(dot)
    }

    fn flush(&mut self, realm: &Realm) -> anyhow::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let epoch = realm.server(self.server)?.realm().volumes[&realm.home].info.epoch;
        let records = self.records.iter().map(Into::into).collect();
        let apply = wire::Apply { volume: realm.home.0, epoch, records };
        realm.call(self.server, Identity::Client, self.session, request::Body::Apply(apply), Bytes::new())?;
        self.records.clear();
        self.size = 0;
        Ok(())
    }

    fn mkdir(&mut self, realm: &Realm, parent: (Fid, &mut Past), name: &str) -> anyhow::Result<(Fid, Past)> {
        self.count += 1;
        let fid = Fid::directory(realm.home, self.author, self.count);
        let op = Op::MakeDir { parent: parent.0, name: name.into(), fid, mode: 0o755, owner: 0 };
        let dot = self.add(realm, vec![Base { fid: parent.0, past: parent.1.clone() }], op, 200)?;
        parent.1.add(dot);
        Ok((fid, Past::of(dot)))
    }

    fn create(&mut self, realm: &Realm, parent: (Fid, &mut Past), name: &str) -> anyhow::Result<(Fid, Past)> {
        self.count += 1;
        let fid = Fid::file(realm.home, self.author, self.count);
        let op = Op::Create { parent: parent.0, name: name.into(), fid, mode: 0o644, owner: 0 };
        let dot = self.add(realm, vec![Base { fid: parent.0, past: parent.1.clone() }], op, 200)?;
        parent.1.add(dot);
        Ok((fid, Past::of(dot)))
    }

    fn store(
        &mut self,
        realm: &Realm,
        (fid, past): (Fid, Past),
        contents: Contents,
        length: u64,
        hash: [u8; 32],
    ) -> anyhow::Result<()> {
        let size = if let Contents::Inline(bytes) = &contents { bytes.len() } else { 0 };
        let op = Op::Store { fid, length, hash, mtime: 0, contents, mode: None };
        self.add(realm, vec![Base { fid, past }], op, 300 + size)?;
        Ok(())
    }

    /// Files of `size` bytes, no two alike, a thousand to a directory.
    fn fill(&mut self, realm: &Realm, files: usize, size: usize) -> anyhow::Result<()> {
        let root = Fid::root(realm.home);
        let volume = realm.server(self.server)?.volume(realm.home)?;
        let mut above = volume.read(|view| Ok(view.past(root)?))?.context("there is a root")?;
        let mut bytes = vec![0; size];
        for first in (0..files).step_by(1000) {
            let name = format!("{:x}-{first}", self.author.0);
            let (dir, mut past) = self.mkdir(realm, (root, &mut above), &name)?;
            for index in first..files.min(first + 1000) {
                let file = self.create(realm, (dir, &mut past), &index.to_string())?;
                let mark = size.min(8);
                bytes[..mark].copy_from_slice(&(index as u64).to_le_bytes()[..mark]);
                let hash = *blake3::hash(&bytes).as_bytes();
                let contents = Contents::Inline(Bytes::copy_from_slice(&bytes));
                self.store(realm, file, contents, size as u64, hash)?;
            }
        }
        self.flush(realm)
    }
}

fn away(quick: bool) -> anyhow::Result<Vec<Number>> {
    let operations = if quick { 200 } else { 10_000 };
    let mut realm = Realm::new(true)?;
    realm.stop(1);
    // Each file is two operations.
    Writer::new(&realm, 0, 77)?.fill(&realm, operations / 2, 1000)?;
    let upto = [realm.seen(0)?.0, 0];
    let begun = Instant::now();
    realm.start(1)?;
    realm.equal(upto)?;
    Ok(vec![Number::seconds(
        format!("equal after {operations} operations"),
        begun.elapsed().as_secs_f64(),
        10.0,
    )])
}

fn sides(quick: bool) -> anyhow::Result<Vec<Number>> {
    let entries = if quick { 50 } else { 1000 };
    let mut realm = Realm::new(true)?;
    for (apart, other) in [(0, 1), (1, 0)] {
        realm.stop(other);
        if realm.servers[apart].is_none() {
            realm.start(apart)?;
        }
        let root = Fid::root(realm.home);
        let mut writer = Writer::new(&realm, apart, 90 + apart as u64)?;
        let mut past = Past::of(Dot::new(Author(1), 1));
        for index in 0..entries {
            writer.create(&realm, (root, &mut past), &format!("{apart}-{index}"))?;
        }
        writer.flush(&realm)?;
    }
    let theirs = realm.seen(1)?.0;
    let begun = Instant::now();
    realm.start(0)?;
    realm.equal([realm.seen(0)?.0, theirs])?;
    Ok(vec![Number::seconds(
        format!("equal after {entries} entries at each side"),
        begun.elapsed().as_secs_f64(),
        0.5,
    )])
}

fn populate(quick: bool) -> anyhow::Result<Vec<Number>> {
    let (files, megabytes) = if quick { (200, 8) } else { (10_000, 1024) };
    let mut numbers = Vec::new();
    let realm = Realm::new(false)?;
    Writer::new(&realm, 0, 55)?.fill(&realm, files, 4096)?;
    let seconds = add_replica(&realm)?;
    let (value, reach) = (files as f64 / seconds, 2000.0);
    numbers.push(Number {
        what: format!("{files} files of 4 KiB"),
        value,
        unit: "files/s",
        reach,
        more: true,
    });
    drop(realm);

    let realm = Realm::new(false)?;
    large(&realm, megabytes)?;
    let seconds = add_replica(&realm)?;
    let (value, reach) = (megabytes as f64 * 1.048_576 / seconds, 200.0);
    numbers.push(Number {
        what: format!("one file of {megabytes} MiB"),
        value,
        unit: "MB/s",
        reach,
        more: true,
    });
    Ok(numbers)
}

/// Adds the second server's replica; seconds until it has everything.
fn add_replica(realm: &Realm) -> anyhow::Result<f64> {
    let upto = [realm.seen(0)?.0, 0];
    let begun = Instant::now();
    let add = wire::AddReplica { volume: "home".into(), server: 2, rate: 0 };
    let admin = wire::Admin { body: Some(wire::admin::Body::AddReplica(add)) };
    realm.call(0, Identity::Admin, 0, request::Body::Admin(admin), Bytes::new())?;
    realm.equal(upto)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// One file of so many MiB, no two of them alike.
fn large(realm: &Realm, megabytes: usize) -> anyhow::Result<()> {
    const PIECE: usize = 4 << 20;
    let piece = |index: usize| {
        let mut bytes = vec![7u8; PIECE];
        bytes.chunks_mut(4096).for_each(|page| page[..8].copy_from_slice(&(index as u64).to_le_bytes()));
        Bytes::from(bytes)
    };
    let (pieces, mut hasher) = (megabytes / 4, blake3::Hasher::new());
    for index in 0..pieces {
        hasher.update(&piece(index));
    }
    let (length, hash) = ((pieces * PIECE) as u64, *hasher.finalize().as_bytes());
    let mut writer = Writer::new(realm, 0, 56)?;
    let root = Fid::root(realm.home);
    let mut past = Past::of(Dot::new(Author(1), 1));
    let file = writer.create(realm, (root, &mut past), "large")?;
    writer.flush(realm)?;
    for index in 0..pieces {
        let upload = wire::Upload {
            volume: realm.home.0,
            handle: vec![1; 16].into(),
            directory: Some(root.into()),
            offset: (index * PIECE) as u64,
            length,
            hash: hash.to_vec().into(),
            zeros: 0,
        };
        realm.call(0, Identity::Client, writer.session, request::Body::Upload(upload), piece(index))?;
    }
    writer.store(realm, file, Contents::Uploaded([1; 16]), length, hash)?;
    writer.flush(realm)
}

fn restart(quick: bool) -> anyhow::Result<Vec<Number>> {
    let files = if quick { 1000 } else { 100_000 };
    let mut realm = Realm::new(true)?;
    realm.stop(1);
    Writer::new(&realm, 0, 33)?.fill(&realm, files, 16)?;
    realm.stop(0);
    let begun = Instant::now();
    realm.start(0)?;
    let writer = Writer::new(&realm, 0, 34)?;
    let fids = vec![Fid::root(realm.home).into()];
    let ask = request::Body::GetAttr(wire::GetAttr { volume: realm.home.0, fids });
    match realm.call(0, Identity::Client, writer.session, ask, Bytes::new())? {
        Body::Attributes(found) => ensure!(found.statuses.len() == 1, "the root is there"),
        other => bail!("{other:?}"),
    }
    Ok(vec![Number::seconds(format!("first answer with {files} files"), begun.elapsed().as_secs_f64(), 1.0)])
}
