//! An honest fake of venus: a small world of two volumes that really changes when it is told to.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    ops::ControlFlow,
    path::Path,
    rc::Rc,
};

use coda_proto::control::*;

use crate::{Venus, World};

/// The world, shared by all connections to it.
#[derive(Clone, Default)]
pub struct Fake(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// Name -> up.
    servers: BTreeMap<String, bool>,
    /// Path -> kind; `m:VOLUME` is a mount point.
    objects: BTreeMap<String, String>,
    cached: BTreeSet<String>,
    in_use: BTreeMap<String, String>,
    acl: AccessList,
    quota: u64,
    pending: u64,
    looked_up: u32,
    hoard: Vec<HoardWish>,
    /// Bytes that pins may still take.
    room: u64,
    /// A walk goes on: each look at it finds one object more.
    walking: bool,
    events: Vec<Event>,
}

const ROOT: &str = "/coda/example.org";
const SRC: &str = "/coda/example.org/src";

impl Fake {
    /// A realm with a root volume at one server and `p.src` at two.
    pub fn world() -> Fake {
        let grant = |who: &str, rights: &str| Grant { who: who.into(), rights: rights.into() };
        let objects = [
            (ROOT, "d"),
            (SRC, "m:p.src"),
            ("/coda/example.org/docs", "d"),
            ("/coda/example.org/src/main.c", "f"),
            ("/coda/example.org/src/Makefile", "f"),
        ];
        let cached = [ROOT, SRC, "/coda/example.org/src/main.c", "/coda/example.org/src/Makefile"];
        Fake(Rc::new(RefCell::new(State {
            servers: ["srv1.example.org", "srv2.example.org"].map(|name| (name.to_owned(), true)).into(),
            objects: objects.map(|(path, kind)| (path.to_owned(), kind.to_owned())).into(),
            cached: cached.map(str::to_owned).into(),
            acl: AccessList {
                positive: vec![grant("System:AnyUser", "lr"), grant("jan", "rlidwka")],
                negative: vec![grant("eve", "w")],
            },
            pending: 3,
            room: 1 << 20,
            ..State::default()
        })))
    }
    pub fn kill(&mut self, server: &str) {
        let mut state = self.0.borrow_mut();
        state.servers.insert(server.to_owned(), false);
        state.tell(&format!("unreachable {server}"));
    }
    pub fn open(&mut self, path: &str, why: &str) {
        self.0.borrow_mut().in_use.insert(path.to_owned(), why.to_owned());
    }
    /// Pins may take only so many bytes more.
    pub fn leave_room(&mut self, bytes: u64) {
        self.0.borrow_mut().room = bytes;
    }
    pub fn cached(&self, path: &str) -> bool {
        self.0.borrow().cached.contains(path)
    }
    pub fn looked_up(&self) -> u32 {
        self.0.borrow().looked_up
    }
}

impl State {
    fn tell(&mut self, text: &str) {
        let seq = self.events.len() as u64 + 1;
        self.events.push(Event { seq, time: 0, class: "connection".into(), text: text.into() });
    }
    fn hoard_report(&self) -> HoardReport {
        let missing = self.hoard.iter().filter(|wish| !self.cached.contains(&wish.path));
        HoardReport {
            walking: self.walking,
            objects: self.hoard.len() as u64,
            bytes: self.hoard.iter().filter(|wish| self.cached.contains(&wish.path)).count() as u64 * 2048,
            room: 1 << 20,
            missing: missing
                .map(|wish| NotHere {
                    path: wish.path.clone(),
                    why: "Missing/Invalid".into(),
                    bytes: 2048,
                    priority: wish.priority,
                })
                .collect(),
            unkept: 0,
            seconds: None,
        }
    }
    fn kind(&self, path: &str) -> Result<&str, Failure> {
        self.objects
            .get(path)
            .map(String::as_str)
            .ok_or_else(|| not(path, FailureKind::NotFound, "no such object"))
    }
    fn in_src(path: &str) -> bool {
        path == SRC || path.starts_with(&format!("{SRC}/"))
    }
    fn members(&self, src: bool) -> Vec<Place> {
        let all = self.servers.iter().enumerate().take(if src { 2 } else { 1 });
        all.map(|(slot, (name, up))| Place {
            slot: slot as u32,
            server: slot as u32 + 1,
            name: name.clone(),
            up: *up,
            state: "active".into(),
        })
        .collect()
    }
    fn volume(&self, src: bool) -> VolumeState {
        let members = self.members(src);
        let live = members.iter().filter(|place| place.up).count() as u32;
        let (name, id) = if src { ("p.src", "7f000012") } else { ("coda.root", "7f000001") };
        let pending = if src { self.pending } else { 0 };
        VolumeState {
            name: name.into(),
            id: id.into(),
            realm: "example.org".into(),
            state: if live > 0 { "reachable" } else { "unreachable" }.into(),
            live,
            members: members.len() as u32,
            why: if live > 0 { String::new() } else { "no server answers".into() },
            next: if live > 0 { String::new() } else { "`cfs checkservers` tries them again now".into() },
            mode: match (live, pending) {
                (0, _) => "disconnected",
                (_, 0) => "connected",
                _ => "write-disconnected",
            }
            .into(),
            waits: if live == 0 && pending > 0 { vec!["no server can be reached".into()] } else { vec![] },
            pending,
            pending_bytes: if pending > 0 { 4120 } else { 0 },
            oldest_seconds: if pending > 0 { 300 } else { 0 },
        }
    }
    fn served(&self, path: &str) -> Result<VolumeState, Failure> {
        let volume = self.volume(State::in_src(path));
        match volume.live {
            0 => {
                let why = format!("no server of {} can be reached", volume.name);
                let next = "`cfs checkservers` tries them again now".into();
                Err(Failure { kind: FailureKind::Disconnected, what: path.into(), why, next })
            }
            _ => Ok(volume),
        }
    }
    fn flush(&mut self, below: &str) -> Flushed {
        self.looked_up += 1;
        let mut flushed = Flushed::default();
        let doomed: Vec<_> = self.cached.iter().filter(|path| path.starts_with(below)).cloned().collect();
        for path in doomed {
            match self.in_use.get(&path) {
                Some(why) => flushed.kept.push(Kept { path, why: why.clone() }),
                None => {
                    self.cached.remove(&path);
                    flushed.objects += 1;
                }
            }
        }
        flushed
    }
    fn server_states(&self) -> Vec<ServerState> {
        let state = |(name, up): (&String, &bool)| ServerState {
            name: name.clone(),
            realm: "example.org".into(),
            up: *up,
            state: if *up { "up" } else { "dead" }.into(),
            why: String::new(),
        };
        self.servers.iter().map(state).collect()
    }
    fn switch(&mut self, names: &[String], up: bool) -> Result<Reply, Failure> {
        if let Some(unknown) = names.iter().find(|name| !self.servers.contains_key(*name)) {
            return Err(not(unknown, FailureKind::NotFound, "no such server"));
        }
        let chosen: Vec<_> =
            self.servers.keys().filter(|name| names.is_empty() || names.contains(name)).cloned().collect();
        for name in chosen {
            if self.servers.insert(name.clone(), up) != Some(up) {
                self.tell(&format!("{} {name}", if up { "up" } else { "unreachable" }));
            }
        }
        Ok(Reply::Done)
    }

    fn answer(&mut self, request: Request) -> Result<Reply, Failure> {
        Ok(match request {
            Request::Status { path } => {
                let known = !self.servers.is_empty();
                let volumes = match path {
                    Some(path) => vec![self.volume(State::in_src(&path))],
                    None if known => vec![self.volume(false), self.volume(true)],
                    None => vec![],
                };
                let servers = self.server_states();
                Reply::Status(Status {
                    mountpoint: "/coda".into(),
                    cache_used: 13_107_200,
                    cache_size: 1 << 30,
                    objects: self.cached.len() as u64,
                    objects_limit: 27_357,
                    realms: if known {
                        vec![RealmState { name: "example.org".into(), servers }]
                    } else {
                        vec![]
                    },
                    volumes,
                    alone: Some(Alone { records: self.pending, ..Alone::default() }),
                })
            }
            Request::Whereis { path } => {
                self.kind(&path)?;
                let volume = self.volume(State::in_src(&path));
                Reply::Places(Places {
                    volume: volume.name.trim_start_matches("p.").into(),
                    id: volume.id,
                    realm: volume.realm,
                    epoch: 3,
                    members: self.members(State::in_src(&path)),
                })
            }
            Request::CheckServers { servers } => Reply::Servers(
                self.server_states()
                    .into_iter()
                    .filter(|server| servers.is_empty() || servers.contains(&server.name))
                    .collect(),
            ),
            Request::CheckVolumes => {
                self.looked_up += 1;
                Reply::Done
            }
            Request::Strength { .. } | Request::WaitForever { .. } => Reply::Done,
            Request::FlushObject { path } | Request::FlushVolume { path } => {
                let path = if path == "p.src" { SRC.to_owned() } else { path };
                self.kind(&path)?;
                Reply::Flushed(self.flush(&path))
            }
            Request::FlushCache => Reply::Flushed(self.flush("/")),
            Request::GetFid { path } => {
                self.kind(&path)?;
                Reply::Fid(FidState {
                    fid: "7f000012.2.a1".into(),
                    realm: "example.org".into(),
                    past: vec!["a1.1".into(), "a1.7".into()],
                    siblings: vec!["a1.7".into()],
                    conflict: false,
                })
            }
            Request::GetPath { fid } if fid == "7f000012.2.a1@example.org" => {
                Reply::Path(format!("{SRC}/main.c"))
            }
            Request::GetPath { fid } => return Err(not(&fid, FailureKind::NotFound, "not cached")),
            Request::GetMountPoint { volume } if volume == "7f000012@example.org" => Reply::Path(SRC.into()),
            Request::GetMountPoint { volume } => {
                return Err(not(&volume, FailureKind::NotFound, "not mounted, as far as is known"));
            }
            Request::ListVolume { path, local } => {
                self.kind(&path)?;
                let state = self.volume(State::in_src(&path));
                let served = (!local && state.live > 0).then_some(ServedVolume {
                    quota_blocks: self.quota,
                    used_blocks: 8123,
                    free_blocks: 1_200_340,
                    total_blocks: 2_097_152,
                });
                Reply::Volume(Volume { state, served, conflicts: false })
            }
            Request::ListMount { path } => Reply::Mount(match self.kind(&path)? {
                "m:p.src" => Mount::Mounted("p.src".into()),
                "d" => Mount::Directory,
                "f" => Mount::Other,
                other => Mount::Dangling(other.trim_start_matches("m:").into()),
            }),
            Request::MakeMount { path, volume } => {
                if self.objects.contains_key(&path) {
                    return Err(not(&path, FailureKind::Exists, "exists"));
                }
                self.objects.insert(path, format!("m:{volume}"));
                Reply::Done
            }
            Request::RemoveMount { path } => {
                if !self.kind(&path)?.starts_with("m:") {
                    return Err(not(&path, FailureKind::NotDirectory, "not a mount point"));
                }
                self.objects.remove(&path);
                Reply::Done
            }
            Request::GetAcl { path } => {
                if self.kind(&path)? == "f" {
                    return Err(not(&path, FailureKind::NotDirectory, "not a directory"));
                }
                self.served(&path)?;
                Reply::Acl(self.acl.clone())
            }
            Request::SetAcl { path, acl } => {
                self.served(&path)?;
                if acl.positive.iter().any(|grant| grant.who.contains("nobody-knows")) {
                    return Err(not(&path, FailureKind::Invalid, "invalid"));
                }
                self.acl = acl;
                Reply::Done
            }
            Request::ListCache { volumes } => {
                let object = |path: &str, fid: &str, kind: &str, link: &str, valid| CachedObject {
                    path: path.into(),
                    fid: fid.into(),
                    kind: kind.into(),
                    link: link.into(),
                    valid,
                    dirty: false,
                };
                let volume = |mount: &str, id: &str, objects| CachedVolume {
                    mount: mount.into(),
                    id: id.into(),
                    realm: "example.org".into(),
                    objects,
                };
                let root = volume(ROOT, "7f000001", vec![object(".", "7f000001.1.1", "d", "/", true)]);
                let src = volume(
                    SRC,
                    "7f000012",
                    vec![
                        object(".", "7f000012.1.1", "d", "/", true),
                        object("./Makefile", "7f000012.4.a1", "f", "", true),
                        object("./main.c", "7f000012.2.a1", "f", "", false),
                    ],
                );
                Reply::Cache(if volumes.is_empty() { vec![root, src] } else { vec![src] })
            }
            Request::SetQuota { path, blocks } => {
                self.served(&path)?;
                let old = std::mem::replace(&mut self.quota, blocks);
                Reply::Quota { old, new: blocks }
            }
            Request::Disconnect { servers } => self.switch(&servers, false)?,
            Request::Reconnect { servers } => self.switch(&servers, true)?,
            Request::Reintegrate { paths, .. } if paths.is_empty() => {
                self.answer(Request::Reintegrate { paths: vec![SRC.into()], seconds: None })?
            }
            Request::Reintegrate { paths, .. } => Reply::Sent(
                paths
                    .iter()
                    .map(|path| {
                        let volume = self.volume(State::in_src(path));
                        let reached = volume.live > 0;
                        self.pending = if reached { 0 } else { self.pending };
                        let why = if reached { "" } else { "no server can be reached" };
                        Sent { volume: volume.name, remaining: self.pending, why: why.into() }
                    })
                    .collect(),
            ),
            Request::Conflicts { .. } => Reply::Conflicts(Vec::new()),
            Request::HoardAdd { path, attributes } => {
                self.kind(&path)?;
                self.hoard.retain(|wish| wish.path != path);
                self.hoard.push(HoardWish {
                    inside: path.replacen(ROOT, ".", 1),
                    volume: "7f000001".into(),
                    realm: "example.org".into(),
                    uid: 1000,
                    priority: attributes.split(':').next().and_then(|word| word.parse().ok()).unwrap_or(10),
                    reach: attributes.split(':').find(|word| word.ends_with('+')).unwrap_or("").into(),
                    path,
                });
                Reply::Done
            }
            Request::HoardDelete { path } => {
                let before = self.hoard.len();
                self.hoard.retain(|wish| wish.path != path);
                match before == self.hoard.len() {
                    true => return Err(not(&path, FailureKind::NotFound, "not hoarded")),
                    false => Reply::Done,
                }
            }
            Request::HoardClear { .. } => {
                self.hoard.clear();
                Reply::Done
            }
            Request::HoardList { .. } => Reply::Hoard(self.hoard.clone()),
            Request::HoardWalk => {
                self.walking = !self.hoard_report().missing.is_empty();
                Reply::HoardReport(self.hoard_report())
            }
            Request::HoardVerify => {
                let missing = self.hoard_report().missing;
                if let (true, Some(next)) = (self.walking, missing.first()) {
                    self.cached.insert(next.path.clone());
                    self.walking = missing.len() > 1;
                }
                Reply::HoardReport(self.hoard_report())
            }
            Request::Preflight { path } => {
                let wanted = self.hoard.iter().any(|wish| wish.path == path);
                let here = self.cached.contains(&path);
                let missing = NotHere { path, why: "Missing/Invalid".into(), bytes: 2048, priority: 10 };
                Reply::HoardReport(HoardReport {
                    objects: 1,
                    room: 1 << 20,
                    missing: if here { vec![] } else { vec![missing] },
                    unkept: u64::from(!wanted),
                    seconds: Some(3),
                    ..HoardReport::default()
                })
            }
            Request::HoardSwitch { .. } => Reply::Done,
            Request::Pin { path, most } => {
                let wanted = 2048;
                if most.is_none_or(|most| most >= wanted) && self.room < wanted {
                    return Err(Failure {
                        kind: FailureKind::NoSpace,
                        what: path,
                        why: format!("needs {wanted} bytes, and pins have {} left", self.room),
                        next: String::new(),
                    });
                }
                self.answer(Request::HoardAdd { path, attributes: "1000:d+".into() })?;
                Reply::Pinned(Pinned { objects: 1, bytes: wanted, missing: wanted, left: self.room - wanted })
            }
            Request::Rehearse { begin: true } => Reply::Done,
            Request::Rehearse { begin: false } => {
                let missed =
                    |name: &str, bytes| Missed { path: format!("{ROOT}/docs/{name}"), bytes, times: 1 };
                Reply::Missed(vec![missed("a", Some(2048)), missed("b", None)])
            }
            Request::Expand { path } | Request::Collapse { path } => {
                return Err(not(&path, FailureKind::Invalid, "not in conflict"));
            }
            Request::Undo { id: None } => Reply::Undoable(Vec::new()),
            Request::Undo { id: Some(id) } => {
                return Err(not(&id.to_string(), FailureKind::NotFound, "nothing to undo"));
            }
            Request::Resolve { path, .. } => {
                return Err(not(&path, FailureKind::Invalid, "not in conflict"));
            }
            Request::WriteDisconnect { .. } => Reply::Done,
            Request::WriteReconnect { paths } => {
                self.answer(Request::Reintegrate { paths, seconds: None })?
            }
            Request::Approve { .. } => Reply::Approved(7),
            Request::PurgeLog { .. } => Reply::Purged(std::mem::take(&mut self.pending)),
            Request::CheckpointLog { dir, .. } => {
                let dir = dir.unwrap_or("/var/lib/coda/checkpoints".into());
                Reply::Written(vec![
                    format!("{dir}/example.org_p.src.tar"),
                    format!("{dir}/example.org_p.src.cml"),
                ])
            }
            Request::Pending { path } => {
                let volume = self.volume(true);
                let away = volume.live == 0;
                let why = if away { "no server can be reached" } else { "" };
                let line = |verb: &str, path: &str, bytes| PendingRecord {
                    uid: 1000,
                    verb: verb.into(),
                    path: path.into(),
                    bytes,
                    seconds: 300,
                    why: why.into(),
                };
                let wanted = path.is_none_or(|path| State::in_src(&path)) && self.pending > 0;
                Reply::Pending(
                    wanted
                        .then(|| PendingVolume {
                            volume: SRC.into(),
                            mode: if away { "disconnected" } else { "write-disconnected" }.into(),
                            records: self.pending,
                            bytes: 4120,
                            oldest_seconds: 300,
                            left_seconds: (!away).then_some(2),
                            reasons: if away { vec![why.into()] } else { vec![] },
                            open: vec![],
                            users: vec![PendingUser { uid: 1000, records: self.pending, bytes: 4120 }],
                            lines: vec![
                                line("create", "/coda/example.org/src/new", 0),
                                line("store", "/coda/example.org/src/new", 4120),
                                line("remove", "/coda/example.org/src/old", 0),
                            ],
                        })
                        .into_iter()
                        .collect(),
                )
            }
            Request::Events { .. } => unreachable!("asked for by Venus::events"),
        })
    }
}

fn not(what: &str, kind: FailureKind, why: &str) -> Failure {
    Failure { kind, what: what.into(), why: why.into(), next: String::new() }
}

impl Venus for Fake {
    fn mountpoint(&self) -> &Path {
        Path::new("/coda")
    }
    fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        // Through its text, as over the socket.
        let text = serde_json::to_string(&request).unwrap();
        let answer = self.0.borrow_mut().answer(serde_json::from_str(&text).unwrap());
        let text = serde_json::to_string(&answer).unwrap();
        serde_json::from_str(&text).unwrap()
    }
    fn events(
        &mut self,
        recent: usize,
        follow: bool,
        each: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        assert!(!follow, "the fake has no future");
        let state = self.0.borrow();
        let skip = state.events.len().saturating_sub(recent);
        for event in &state.events[skip..] {
            if each(event.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// What a command showed.
#[derive(Debug)]
pub struct Shown {
    pub out: String,
    pub err: String,
    pub code: u8,
}

/// Runs a command line in `/coda/example.org` with `input` as standard input.
pub fn run(fake: &mut Fake, line: &str, input: &str) -> Shown {
    run_at(fake, line, input, false)
}

/// The same, where standard error may be a terminal.
pub fn run_at(fake: &mut Fake, line: &str, input: &str, terminal: bool) -> Shown {
    let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = crate::run(
        words,
        World {
            connect: &mut |_, _| Ok(Box::new(fake.clone())),
            input: &mut input.as_bytes(),
            out: &mut out,
            err: &mut err,
            here: ROOT.into(),
            terminal,
        },
    );
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Shown { out: text(out), err: text(err), code: exit.code() }
}
