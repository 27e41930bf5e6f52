//! Servers and clients of one world: how they start, die, come back, and what their replicas hold.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use coda_proto::{Rights, ServerId, wire};
use coda_server::{
    Server,
    config::{CrashHook, CrashPoint, Durability, Limits, Sealing, ServerConfig},
    setup,
};
use venus::venus::{Database, Venus, VenusConfig};

use crate::{
    actor::{Actor, Strictness, Verdicts, private},
    ageing,
    annals::Annals,
    chance::Chance,
    client::ClientEnv,
    disk::Disk,
    fabric::{Fabric, REALM, Up, host},
    model::Model,
    oracle::{self, Pasts},
    process::Process,
    seal::Wax,
    server::ServerEnv,
    trace::Trace,
};

/// A server silent on a call for so long is dead to a client, ordinarily.
pub const RPC_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of contents that a small cache may hold.
pub const SMALL_CACHE: u64 = 300_000;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The kernel closes its ports.
    Killed,
    /// The host is gone: nothing comes back, and what a client had not synced is lost.
    PowerCut,
}

/// One server.
pub struct ServerSlot {
    /// Who.
    pub id: ServerId,
    /// The store that the next life opens.
    store: Arc<Mutex<PathBuf>>,
    /// A copy of it, made some time ago.
    backup: Option<PathBuf>,
    /// The life that goes on, if any.
    pub life: Option<(Arc<Process>, Arc<Server>)>,
    wrong_by: Arc<AtomicI64>,
}

/// One client.
pub struct ClientSlot {
    /// Its host.
    pub host: String,
    store: Arc<Mutex<PathBuf>>,
    disk: Arc<Mutex<Disk>>,
    /// The life that goes on, if any.
    pub life: Option<ClientLife>,
    wrong_by: Arc<AtomicI64>,
}

/// One life of a client.
pub struct ClientLife {
    /// Its tasks.
    pub process: Arc<Process>,
    /// Its user.
    pub actor: Arc<Actor>,
    disk: Disk,
    power: Arc<Mutex<Death>>,
    /// It was asked to end, and does when it has taken its leave.
    ending: bool,
}

/// What servers of a world are like, beyond what all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nature {
    /// What takes years takes seconds.
    pub ages: bool,
    /// The log of the realm is signed, and servers that start ask for what they missed of it.
    pub succeeds: bool,
}

/// A world.
pub struct World {
    /// What all doors share.
    pub fabric: Fabric,
    /// What happens.
    pub trace: Trace,
    /// The seed's stream for what happens from outside.
    pub chance: Chance,
    /// Everything that anybody did.
    pub model: Arc<Mutex<Model>>,
    /// What must not be.
    pub verdicts: Verdicts,
    /// How reads are judged.
    pub strictness: Strictness,
    /// Whether the servers know how to come to agree.
    pub resolves: bool,
    /// Servers, by id.
    pub servers: Vec<ServerSlot>,
    /// Clients.
    pub clients: Vec<ClientSlot>,
    /// Users make no pauses.
    pub crowded: bool,
    /// Clients cache only a few objects.
    pub small_caches: bool,
    /// Copies of objects are forgotten: by users, or because the cache is small.
    pub forgetful: bool,
    /// Users forget the copy of what they are about to use, often.
    pub absent_minded: bool,
    /// A server silent on a call for so long is dead to a client.
    pub rpc_timeout: Duration,
    /// Nobody dies: not yet, or not any more.
    pub peace: Arc<AtomicBool>,
    /// What replicas included when they were last looked at.
    pub pasts: Mutex<Pasts>,
    /// What its servers are like.
    pub nature: Nature,
    /// What was seen of the realm's log.
    pub(crate) annals: Mutex<Annals>,
    lives: Arc<AtomicU64>,
    dir: PathBuf,
}

impl World {
    /// A realm of servers that are up, and clients that are not yet, below an empty directory.
    pub fn new(
        dir: &Path,
        chance: Chance,
        trace: Trace,
        servers: u8,
        clients: usize,
        (strictness, nature): (Strictness, Nature),
    ) -> anyhow::Result<World> {
        let fabric = Fabric::new(chance.fork(), trace.clone());
        let mut world = World {
            fabric,
            trace,
            chance,
            model: Arc::default(),
            verdicts: Verdicts::default(),
            strictness,
            resolves: false,
            servers: Vec::new(),
            clients: Vec::new(),
            crowded: false,
            small_caches: false,
            forgetful: false,
            absent_minded: false,
            rpc_timeout: RPC_TIMEOUT,
            peace: Arc::new(AtomicBool::new(true)),
            pasts: Mutex::default(),
            nature,
            annals: Mutex::default(),
            lives: Arc::default(),
            dir: dir.to_owned(),
        };
        let ids: Vec<ServerId> = (1..=servers).map(ServerId).collect();
        let infos = ids.iter().map(|id| info(*id)).collect();
        let realm = setup::realm(REALM, infos, Rights::ALL).context("the realm")?;
        for id in ids {
            let store = world.new_dir("server");
            let now = world.fabric.now(0);
            setup::create(&store, id, &realm, &[], Durability::Process, now).context("a server's store")?;
            let store = Arc::new(Mutex::new(store));
            world.servers.push(ServerSlot { id, store, backup: None, life: None, wrong_by: Arc::default() });
        }
        for client in 0..clients {
            let store = world.new_dir("client");
            fs::create_dir_all(&store)?;
            world.clients.push(ClientSlot {
                host: format!("c{client}"),
                store: Arc::new(Mutex::new(store)),
                disk: Arc::default(),
                life: None,
                wrong_by: Arc::default(),
            });
        }
        for server in 0..world.servers.len() {
            world.start_server(server)?;
        }
        Ok(world)
    }

    fn new_dir(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("{kind}-{}", self.lives.fetch_add(1, Ordering::Relaxed)))
    }

    /// What keeps a store as it is at the moment of death, for the next life.
    fn keeper(&self, store: &Arc<Mutex<PathBuf>>, kind: &str) -> impl Fn() + Send + Sync + 'static {
        let (store, next) = (Arc::clone(store), self.new_dir(kind));
        move || {
            let mut store = store.lock().expect("no holder panics");
            copy_dir(&store, &next).expect("the simulator's own disk works");
            *store = next.clone();
        }
    }

    /// Starts a server that is down, on what its last life left.
    pub fn start_server(&mut self, at: usize) -> anyhow::Result<()> {
        let slot = &self.servers[at];
        let process = Process::new(host(slot.id));
        let keep = self.keeper(&slot.store, "server");
        process.set_last_will(keep);
        let env = ServerEnv {
            fabric: self.fabric.clone(),
            server: slot.id,
            process: Arc::clone(&process),
            chance: self.chance.fork(),
            wrong_by: Arc::clone(&slot.wrong_by),
        };
        let dir = slot.store.lock().expect("no holder panics").clone();
        let config = ServerConfig {
            durability: Durability::Process,
            crash: self.crash_hook(&process),
            limits: if self.nature.ages { ageing::limits() } else { Limits::default() },
            seal: self.nature.succeeds.then(|| Sealing(Arc::new(Wax(slot.id)))),
            ..ServerConfig::new(dir)
        };
        let server = Server::open(config, Arc::new(env)).context("a server does not start")?;
        if self.nature.succeeds {
            server.refresh_soon();
        }
        self.trace.say(format_args!("server {} is up", slot.id));
        let service: Arc<dyn coda_proto::service::Service> = server.clone();
        self.fabric
            .up(&host(slot.id), Up { process: Arc::clone(&process), service, server: Arc::clone(&server) });
        self.servers[at].life = Some((process, server));
        Ok(())
    }

    /// Some lives of servers in a stormy world end at a point where a crash is worth trying.
    fn crash_hook(&self, process: &Arc<Process>) -> Option<CrashHook> {
        if self.strictness != Strictness::Stormy || !self.chance.permille(400) {
            return None;
        }
        let wanted = *self.chance.pick(&CrashPoint::ALL);
        let left = AtomicU64::new(self.chance.below(1..40));
        let (process, trace, peace) = (Arc::downgrade(process), self.trace.clone(), Arc::clone(&self.peace));
        Some(CrashHook(Arc::new(move |point| {
            if point != wanted || peace.load(Ordering::Relaxed) || left.fetch_sub(1, Ordering::Relaxed) != 1 {
                return false;
            }
            let Some(process) = process.upgrade() else { return false };
            trace.say(format_args!("{} crashes at {point:?}", process.name));
            process.die();
            true
        })))
    }

    /// Ends a server's life after so many steps of its tasks.
    pub fn kill_server(&mut self, at: usize, death: Death, after: u64) {
        let slot = &self.servers[at];
        if let Some((process, _)) = &slot.life {
            self.trace.say(format_args!("server {} is to die: {death:?}, after {after} steps", slot.id));
            process.die_after(after);
            if death == Death::PowerCut {
                process.die();
                self.fabric.down(&host(slot.id), false);
            }
        }
    }

    /// Somebody copies a server's disk.
    pub fn back_up(&mut self, at: usize) -> anyhow::Result<()> {
        let copy = self.new_dir("backup");
        copy_dir(&self.store_of(at), &copy)?;
        self.trace.say(format_args!("the disk of server {} is copied", self.servers[at].id));
        self.servers[at].backup = Some(copy);
        Ok(())
    }

    /// A server dies, and its next life finds the copy that was made of its disk. Only where another server includes
    /// what it holds: what nobody else has would be lost, and that is nobody's fault. Whether it was done.
    pub fn restore(&mut self, at: usize) -> anyhow::Result<bool> {
        let slot = &self.servers[at];
        let (Some(backup), Some((process, server))) = (&slot.backup, &slot.life) else { return Ok(false) };
        let others = self.servers.iter().filter(|other| other.id != slot.id);
        let mut lives = others
            .filter_map(|other| other.life.as_ref().filter(|(process, _)| process.is_alive()))
            .map(|(_, other)| oracle::includes(other, server));
        if !process.is_alive() || !lives.any(|includes| includes == Ok(true)) {
            return Ok(false);
        }
        self.trace.say(format_args!("server {} is to go on with the copy of its disk", slot.id));
        process.die();
        let copy = self.new_dir("server");
        copy_dir(backup, &copy)?;
        *slot.store.lock().expect("no holder panics") = copy;
        let id = slot.id;
        self.pasts.lock().expect("no holder panics").retain(|(server, _), _| *server != id);
        Ok(true)
    }

    /// Servers and clients that are dead, so that somebody may start them again.
    pub fn bury(&mut self) -> (Vec<usize>, Vec<usize>) {
        for slot in &mut self.servers {
            if slot.life.as_ref().is_some_and(|(process, _)| !process.is_alive()) {
                slot.life = None;
                if self.fabric.closed(&host(slot.id)) {
                    self.fabric.down(&host(slot.id), true);
                }
                self.trace.say(format_args!("server {} is dead", slot.id));
            }
        }
        for slot in &mut self.clients {
            if slot.life.as_ref().is_some_and(|life| !life.process.is_alive()) {
                slot.life = None;
                self.trace.say(format_args!("client {} is dead", slot.host));
            }
        }
        let dead =
            |lives: Vec<bool>| lives.iter().enumerate().filter(|(_, up)| !**up).map(|(at, _)| at).collect();
        (
            dead(self.servers.iter().map(|slot| slot.life.is_some()).collect()),
            dead(self.clients.iter().map(|slot| slot.life.is_some()).collect()),
        )
    }

    /// Starts a client that is down, on what its last life left. Its user works until `until`.
    pub fn start_client(&mut self, at: usize, until: Duration) -> anyhow::Result<()> {
        let slot = &self.clients[at];
        let process = Process::new(slot.host.clone());
        let disk = slot.disk.lock().expect("no holder panics").clone();
        let power = Arc::new(Mutex::new(Death::Killed));
        let keep = self.keeper(&slot.store, "client");
        let (disks, how, old) = (Arc::clone(&slot.disk), Arc::clone(&power), disk.clone());
        process.set_last_will(move || {
            keep();
            let cut = *how.lock().expect("no holder panics") == Death::PowerCut;
            let next = if cut { old.after_power_cut() } else { old.after_kill() };
            *disks.lock().expect("no holder panics") = next;
        });
        let env = Arc::new(ClientEnv {
            fabric: self.fabric.clone(),
            host: slot.host.clone(),
            servers: self.servers.iter().map(|server| server.id).collect(),
            process: Arc::clone(&process),
            chance: self.chance.fork(),
            wrong_by: Arc::clone(&slot.wrong_by),
        });
        let mut config =
            VenusConfig { host: slot.host.clone(), rpc_timeout: self.rpc_timeout, ..VenusConfig::default() };
        // What is slow for a while is still waited for, where nobody may be behind.
        config.adaptive = self.strictness == Strictness::Stormy;
        if self.small_caches {
            (config.cache_objects, config.cache_bytes) = (8, SMALL_CACHE);
        }
        let store = slot.store.lock().expect("no holder panics").join("venus.db");
        let face = Venus::start(config, env, Arc::new(disk.clone()), Database::File(store))
            .map_err(|error| anyhow::anyhow!("a client does not start: {error}"))?;
        self.trace.say(format_args!("client {} is up", slot.host));
        let manager = Arc::clone(&face);
        let logs = Arc::new(move || manager.unsent() > 0);
        let actor = Arc::new(Actor {
            client: at,
            face,
            chance: self.chance.fork(),
            model: Arc::clone(&self.model),
            trace: self.trace.clone(),
            verdicts: self.verdicts.clone(),
            strictness: self.strictness,
            crowded: self.crowded,
            forgetful: self.forgetful,
            absent_minded: self.absent_minded,
            private: private(at),
            logs,
        });
        let working = Arc::clone(&actor);
        process.spawn(Box::pin(async move { working.live(until).await }));
        self.clients[at].life = Some(ClientLife { process, actor, disk, power, ending: false });
        Ok(())
    }

    /// Ends a client's life after so many steps of its tasks.
    pub fn kill_client(&mut self, at: usize, death: Death, after: u64) {
        let slot = &self.clients[at];
        if let Some(life) = &slot.life {
            self.trace.say(format_args!("client {} is to die: {death:?}, after {after} steps", slot.host));
            *life.power.lock().expect("no holder panics") = death;
            life.process.die_after(after);
        }
    }

    /// A client ends as one should: it takes leave of the servers, where it reaches them.
    pub fn end_client(&mut self, at: usize) {
        let slot = &mut self.clients[at];
        if let Some(life) = &mut slot.life {
            self.trace.say(format_args!("client {} is to end", slot.host));
            life.ending = true;
            let (process, face) = (Arc::downgrade(&life.process), Arc::clone(&life.actor.face));
            life.process.spawn(Box::pin(async move {
                face.stop().await;
                if let Some(process) = process.upgrade() {
                    process.die();
                }
            }));
        }
    }

    /// A client that was asked to end and has not.
    pub fn ending(&self) -> Option<&str> {
        let ending = |slot: &&ClientSlot| {
            slot.life.as_ref().is_some_and(|life| life.ending && life.process.is_alive())
        };
        self.clients.iter().find(ending).map(|slot| slot.host.as_str())
    }

    /// The disks of the clients that live.
    pub fn disks(&self) -> Vec<Disk> {
        self.clients.iter().filter_map(|slot| Some(slot.life.as_ref()?.disk.clone())).collect()
    }

    /// A client's disk fills up, or has room again.
    pub fn set_full(&self, at: usize, full: bool) {
        if let Some(life) = &self.clients[at].life {
            self.trace.say(format_args!(
                "the disk of {} is {}",
                self.clients[at].host,
                if full { "full" } else { "free" }
            ));
            life.disk.set_full(full);
            life.actor.face.set_database_full(full).expect("no limit is below what is there");
        }
    }

    /// A server's disk fills up, or has room again.
    pub fn set_server_full(&self, at: usize, full: bool) {
        let slot = &self.servers[at];
        let Some((process, server)) = slot.life.as_ref().filter(|(process, _)| process.is_alive()) else {
            return;
        };
        self.trace.say(format_args!(
            "the disk of {} is {}",
            process.name,
            if full { "full" } else { "free" }
        ));
        for volume in server.volumes().values() {
            volume.store().set_full(full).expect("the simulator's own disk works");
        }
    }

    /// A host's clock jumps.
    pub fn step_clock(&self, host: &str, by: i64) {
        self.trace.say(format_args!("the clock of {host} jumps by {} s", by / 1_000_000_000));
        let clients = self.clients.iter().map(|slot| (slot.host.clone(), &slot.wrong_by));
        let servers = self.servers.iter().map(|slot| (crate::fabric::host(slot.id), &slot.wrong_by));
        for (_, clock) in clients.chain(servers).filter(|(name, _)| name == host) {
            clock.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// The hosts of servers, and of clients.
    pub fn hosts(&self) -> (Vec<String>, Vec<String>) {
        let servers = self.servers.iter().map(|slot| host(slot.id)).collect();
        (servers, self.clients.iter().map(|slot| slot.host.clone()).collect())
    }

    /// The stores of dead servers, for the offline checker.
    pub fn store_of(&self, at: usize) -> PathBuf {
        self.servers[at].store.lock().expect("no holder panics").clone()
    }

    /// Clients that hold more contents than they may. (One file may be on its way into the cache, or be written.)
    pub fn over_budget(&self) -> Vec<String> {
        let limit = if self.small_caches { SMALL_CACHE } else { u64::MAX };
        let lives =
            self.clients.iter().filter_map(|slot| Some((&slot.host, slot.life.as_ref()?.disk.used())));
        let over = lives.filter(|(_, used)| *used > limit.saturating_add(60_000));
        over.map(|(host, used)| format!("{host} holds {used} bytes of contents, and may {limit}")).collect()
    }

    /// Clients that live.
    pub fn actors(&self) -> Vec<Arc<Actor>> {
        self.clients.iter().filter_map(|slot| Some(Arc::clone(&slot.life.as_ref()?.actor))).collect()
    }
}

/// What a realm says of a server.
fn info(id: ServerId) -> wire::ServerInfo {
    let endpoint = wire::Endpoint { host: host(id), port: 2432, peer_only: false };
    wire::ServerInfo { id: id.0.into(), name: host(id), endpoints: vec![endpoint] }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
