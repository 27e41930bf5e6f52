//! A realm of two servers inside this program, who talk to each other over QUIC on the loopback interface.
//!
//! What they hold is written straight into them, as fast as they take it; that is not measured.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use coda_net::{Authority, relay::Relay};
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

/// The realm's name.
pub const REALM: &str = "bench.example";

/// A realm of servers in this process.
pub struct Realm {
    /// Where everything runs.
    pub runtime: Runtime,
    state: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
    /// The lines to the servers, where clients are to have one that can be slow.
    pub lines: Vec<Relay>,
    servers: Vec<Option<CodaServer>>,
    /// The volume that is worked in.
    pub home: VolumeId,
}

impl Realm {
    /// Two servers; the volume `home` is on the first, and on the second where `both`.
    pub fn new(both: bool) -> anyhow::Result<Realm> {
        Realm::made(both, false)
    }

    /// The same, and clients reach them over lines that can be slow.
    pub fn over_lines(both: bool) -> anyhow::Result<Realm> {
        Realm::made(both, true)
    }

    fn made(both: bool, over_lines: bool) -> anyhow::Result<Realm> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let state = tempfile::tempdir()?;
        let sockets =
            (0..2).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
        drop(sockets);
        let lines = match over_lines {
            true => runtime.block_on(async {
                let mut lines = Vec::new();
                for address in &addresses {
                    lines.push(Relay::start(*address).await?);
                }
                Ok::<_, std::io::Error>(lines)
            })?,
            false => Vec::new(),
        };
        let mut shown = addresses.clone();
        shown.iter_mut().zip(&lines).for_each(|(shown, line)| *shown = line.local_addr());
        let info = |(index, address): (usize, &SocketAddr)| wire::ServerInfo {
            id: index as u32 + 1,
            name: format!("server{}", index + 1),
            endpoints: vec![wire::Endpoint {
                host: address.ip().to_string(),
                port: address.port().into(),
                peer_only: false,
            }],
        };
        let infos = shown.iter().enumerate().map(info).collect();
        let mut realm = setup::realm(REALM, infos, Rights::ALL)?;
        let root = *realm.volumes.keys().next().context("a realm has a root volume")?;
        let members = if both { vec![ServerId(1), ServerId(2)] } else { vec![ServerId(1)] };
        let home = setup::add_volume_on(&mut realm, "home", &members, &coda_proto::Acl::root(Rights::ALL));
        let records = [setup::mount(root, "home", "home", 1)];
        let authority = Authority::create(REALM, now())?;
        authority.save(state.path())?;
        let words: String = shown.iter().map(|address| format!(" {address}")).collect();
        std::fs::write(state.path().join("realms"), format!("{REALM}{words} ca=ca.pem\n"))?;
        let mut made = Realm { runtime, state, addresses, lines, servers: vec![None, None], home };
        for index in 0..2 {
            let own = ServerId(index as u8 + 1);
            std::fs::create_dir_all(made.dir(index))?;
            authority.issue_server(own, now())?.save(&made.dir(index), "server")?;
            setup::create(&made.dir(index), own, &realm, &records, Durability::Full, nanoseconds())?;
            made.start(index)?;
        }
        Ok(made)
    }

    /// A place for what goes with the realm.
    pub fn place(&self) -> &Path {
        self.state.path()
    }

    /// Whether a server runs.
    pub fn runs(&self, index: usize) -> bool {
        self.servers[index].is_some()
    }

    /// How often the membership of the volume has changed.
    pub fn epoch(&self) -> anyhow::Result<u64> {
        Ok(self.server(0)?.realm().volumes[&self.home].info.epoch)
    }

    /// The directory of a server.
    pub fn dir(&self, index: usize) -> PathBuf {
        self.state.path().join(index.to_string())
    }

    /// Starts a server (again).
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let (config, address) = (ServerConfig::new(self.dir(index)), self.addresses[index]);
        let server = self.runtime.block_on(async move { CodaServer::start(config, address) })?;
        self.servers[index] = Some(server);
        Ok(())
    }

    /// Stops a server.
    pub fn stop(&mut self, index: usize) {
        if let Some(server) = self.servers[index].take() {
            self.runtime.block_on(server.shutdown());
        }
    }

    /// A server that runs.
    pub fn server(&self, index: usize) -> anyhow::Result<&Server> {
        Ok(self.servers[index].as_ref().context("it is stopped")?.server())
    }

    /// How far a replica has come, and how far it has seen the other's; 0 where it is not there yet.
    pub fn seen(&self, index: usize) -> anyhow::Result<(u64, u64)> {
        let Ok(volume) = self.server(index)?.volume(self.home) else { return Ok((0, 0)) };
        let other = ServerId(2 - index as u8);
        Ok(volume.read(|view| Ok((view.volume_row()?.change_seq, view.peer(other)?.seen)))?)
    }

    /// Waits until each member includes what the other had at `upto`.
    pub fn equal(&self, upto: [u64; 2]) -> anyhow::Result<()> {
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

    /// Begins to fill a replica of the volume at the second server.
    pub fn add_replica(&self) -> anyhow::Result<()> {
        self.runtime.block_on(self.change_members())
    }

    /// The same, for who runs already.
    pub async fn change_members(&self) -> anyhow::Result<()> {
        let add = wire::AddReplica { volume: "home".into(), server: 2, rate: 0 };
        let admin = wire::Admin { body: Some(wire::admin::Body::AddReplica(add)) };
        self.ask(0, Identity::Admin, 0, request::Body::Admin(admin), Bytes::new()).await.map(drop)
    }

    /// Calls a server from within.
    pub fn call(
        &self,
        index: usize,
        who: Identity,
        session: u64,
        body: request::Body,
        bulk: Bytes,
    ) -> anyhow::Result<Body> {
        self.runtime.block_on(self.ask(index, who, session, body, bulk))
    }

    async fn ask(
        &self,
        index: usize,
        who: Identity,
        session: u64,
        body: request::Body,
        bulk: Bytes,
    ) -> anyhow::Result<Body> {
        let request = wire::Request { session, bulk: bulk.len() as u32, cop2: Vec::new(), body: Some(body) };
        let (response, _) = self.server(index)?.call(who, request, bulk).await;
        match response.body {
            Some(Body::Refusal(refusal)) => bail!("refused: {}", coda_proto::Refusal::try_from(refusal)?),
            Some(body) => Ok(body),
            None => bail!("an empty answer"),
        }
    }
}

/// One author that writes into one server.
pub struct Writer {
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
    /// One that writes into this server.
    pub fn new(realm: &Realm, server: usize, author: u64) -> anyhow::Result<Writer> {
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
        let (lamport, time) = (self.seq + 1, 0);
        self.records.push(Record { dot, lamport, time, changed: time, bases, logged: false, host, op });
        Ok(dot)
    }

    /// Sends what has gathered.
    pub fn flush(&mut self, realm: &Realm) -> anyhow::Result<()> {
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
        let fid = Fid::directory(realm.home, self.author, self.count + 1);
        self.make(
            realm,
            parent.1,
            Op::MakeDir { parent: parent.0, name: name.into(), fid, mode: 0o755, owner: 0 },
        )
    }

    /// Makes a file.
    pub fn create(
        &mut self,
        realm: &Realm,
        parent: (Fid, &mut Past),
        name: &str,
    ) -> anyhow::Result<(Fid, Past)> {
        let fid = Fid::file(realm.home, self.author, self.count + 1);
        self.make(
            realm,
            parent.1,
            Op::Create { parent: parent.0, name: name.into(), fid, mode: 0o644, owner: 0 },
        )
    }

    /// Binds what an operation makes in its parent.
    fn make(&mut self, realm: &Realm, above: &mut Past, op: Op) -> anyhow::Result<(Fid, Past)> {
        let (Op::MakeDir { parent, fid, .. } | Op::Create { parent, fid, .. }) = op else {
            anyhow::bail!("{op:?} makes nothing");
        };
        self.count += 1;
        let dot = self.add(realm, vec![Base { fid: parent, past: above.clone() }], op, 200)?;
        above.add(dot);
        Ok((fid, Past::of(dot)))
    }

    /// Stores its contents.
    pub fn store(
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

    /// Files of 4 KiB, each in a directory of its own: nothing is brought in along with another.
    pub fn scatter(&mut self, realm: &Realm, files: usize) -> anyhow::Result<()> {
        let root = Fid::root(realm.home);
        let mut above = Past::of(Dot::new(Author(1), 1));
        for index in 0..files {
            let (dir, mut past) = self.mkdir(realm, (root, &mut above), &format!("d{index}"))?;
            let file = self.create(realm, (dir, &mut past), "file")?;
            let mut bytes = vec![7; 4096];
            bytes[..8].copy_from_slice(&(index as u64).to_le_bytes());
            let hash = *blake3::hash(&bytes).as_bytes();
            self.store(realm, file, Contents::Inline(bytes.into()), 4096, hash)?;
        }
        self.flush(realm)
    }

    /// Files of `size` bytes, no two alike, a thousand to a directory.
    pub fn fill(&mut self, realm: &Realm, files: usize, size: usize) -> anyhow::Result<()> {
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

/// One file of so many MiB, no two of them alike.
pub fn large(realm: &Realm, megabytes: usize) -> anyhow::Result<()> {
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
