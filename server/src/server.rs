//! A server: its store, its volumes, its sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use coda_proto::{Code, Refusal, ServerId, VolumeId, wire};
use tokio::sync::Notify;

use crate::{
    config::ServerConfig,
    env::{Env, Noticing},
    groups,
    location::{
        Chronicle, Realm,
        load::changed_groups,
        log::{self, Step},
    },
    resolution, scrub,
    session::Sessions,
    store::{
        NewReplica, RealmStore, Replica, Stage, StoreError, StoreLock, Txn, clear_stages, put_away,
        replica_dir,
    },
    volume::Volume,
};

/// One server of a realm. Carry its [`Service`](coda_proto::service::Service) over a network, or call it.
pub struct Server {
    me: Weak<Server>,
    id: ServerId,
    boot: u64,
    /// When it did.
    started: i64,
    config: ServerConfig,
    env: Arc<dyn Env>,
    store: RealmStore,
    realm: RwLock<Arc<Realm>>,
    /// The log that leads to `realm`. Held while a step of it is persisted, never across an await.
    chronicle: Mutex<Chronicle>,
    /// Whether somebody tells the others of the log until they all know.
    telling: AtomicBool,
    /// Told whenever `realm` is another.
    changed: tokio::sync::watch::Sender<u64>,
    volumes: RwLock<BTreeMap<VolumeId, Arc<Volume>>>,
    /// Volumes whose replica here is damaged, and not served. The others are.
    damaged: Mutex<BTreeSet<VolumeId>>,
    sessions: Arc<Sessions>,
    lock: Mutex<Option<StoreLock>>,
    /// Changes of the realm's configuration, one at a time.
    changing: tokio::sync::Mutex<()>,
    /// Whether somebody is asking the SCM for news.
    refreshing: AtomicBool,
    /// Replicas that are being made aside.
    stages: Mutex<BTreeMap<u128, Stage>>,
    /// Rung when somebody may be leaving a group.
    leaving: Arc<Notify>,
}

impl Server {
    /// Serves the store at `config.dir`. Nothing is loaded per object.
    pub fn open(config: ServerConfig, env: Arc<dyn Env>) -> Result<Arc<Server>, StoreError> {
        if !config.dir.join("server.db").exists() {
            return Err(StoreError::none_in(&config.dir));
        }
        let lock = StoreLock::take(&config.dir)?;
        let env: Arc<dyn Env> = Arc::new(Noticing::new(env));
        let boot = env.random().max(1);
        let store = RealmStore::open(&config.dir, boot, config.durability)?;
        let (id, realm) = store.load()?;
        let chronicle = store.chronicle(&realm)?;
        let server = Arc::new_cyclic(|me| Server {
            me: me.clone(),
            id,
            boot,
            started: env.now(),
            sessions: Arc::new(Sessions::new(config.limits.sessions)),
            config,
            env,
            store,
            realm: RwLock::new(Arc::new(realm)),
            chronicle: Mutex::new(chronicle),
            telling: AtomicBool::new(false),
            changed: tokio::sync::watch::Sender::new(0),
            volumes: RwLock::default(),
            damaged: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            changing: tokio::sync::Mutex::new(()),
            refreshing: AtomicBool::new(false),
            stages: Mutex::default(),
            leaving: Arc::default(),
        });
        clear_stages(&server.config.dir)?;
        server.make_replicas(&server.realm(), None)?;
        server.open_volumes(&server.realm(), || server.boot)?;
        let attending = groups::attend(server.me.clone(), server.leaving.clone());
        server.env.spawn(Box::pin(attending));
        Ok(server)
    }

    /// Makes the replicas that `realm` puts here and that are not here. Those of volumes that `before` did
    /// not know begin empty; any other has history that this disk does not have, and meets its peers first. So does
    /// one of a volume that was made before this server started: its store may be an old copy, and the volume have history.
    fn make_replicas(&self, realm: &Realm, before: Option<&Realm>) -> Result<(), StoreError> {
        for (id, volume) in &realm.volumes {
            let Some(member) = realm.replica_at(*id, self.id) else { continue };
            if replica_dir(&self.config.dir, member.replica).join("meta.db").exists() {
                continue;
            }
            let new = before.is_some_and(|before| !before.volumes.contains_key(id));
            // By clocks that may differ: one that waits for nothing has begun a second later, with the others.
            let others = volume.info.members.len() > 1;
            let is_older = others && volume.more.created != 0 && volume.more.created < self.started;
            let joining = !new || is_older || log::count(volume.info.epoch) > 1;
            let new = NewReplica { volume: *id, replica: member.replica, acl: volume.acl.clone(), joining };
            Replica::create(&self.config.dir, &new, self.config.durability, self.env.now())?;
        }
        Ok(())
    }

    /// Opens the replicas that `realm` says are here and are not open yet.
    fn open_volumes(&self, realm: &Realm, incarnation: impl Fn() -> u64) -> Result<(), StoreError> {
        for id in realm.volumes.keys() {
            let Some(member) = realm.replica_at(*id, self.id) else { continue };
            if self.volumes().contains_key(id) || self.damaged().contains(id) {
                continue;
            }
            let (durability, now) = (self.config.durability, self.env.now());
            let opened = Replica::open(&self.config.dir, *id, member.replica, incarnation(), durability, now);
            let replica = match opened {
                Err(error) if error.is_damage() => {
                    let path = replica_dir(&self.config.dir, member.replica);
                    tracing::error!(
                        volume = %id, path = %path.display(), %error,
                        "the database of this replica is damaged, and it is not served: stop the server, `codasrv check --repair`"
                    );
                    self.damaged.lock().expect("never held across a panic").insert(*id);
                    continue;
                }
                opened => opened?,
            };
            let volume = Volume::new(self.id, replica, self.env.clone(), self.config.crash.clone());
            let attending = resolution::attend(self.me.clone(), Arc::downgrade(&volume));
            self.env.spawn(Box::pin(scrub::scrub(Arc::downgrade(&volume))));
            self.volumes.write().expect("never held across a panic").insert(*id, volume);
            self.env.spawn(Box::pin(attending));
        }
        Ok(())
    }

    /// Takes over a configuration of the realm as if the SCM had appended it to the log: for worlds whose
    /// servers are told apart from each other, and are to agree.
    pub fn adopt(&self, new: Realm) -> Result<(), StoreError> {
        let old = self.realm();
        if new == *old {
            return Ok(());
        }
        let mut chronicle = self.chronicle();
        let entry = chronicle.next(chronicle.term(), &old, &new, 0);
        let step = chronicle.append(entry)?;
        self.take(&mut chronicle, step)
    }

    /// Takes a step of the realm's log: durably, in one transaction, and every client is told what it changes.
    /// Where entries are cut off, what they had put on this server is set aside.
    pub(crate) fn take(&self, chronicle: &mut Chronicle, step: Step) -> Result<(), StoreError> {
        let old = self.realm();
        let new = match step.keep == chronicle.entries().len() {
            true => {
                let next = |realm: Realm, entry| log::apply(Some(&realm), entry);
                step.entries.iter().try_fold((*old).clone(), next)
            }
            false => chronicle.replay(step.keep, &step.entries),
        }?;
        if new.name != old.name {
            let why = format!("it is of {}, and this is a server of {}", new.name, old.name);
            return Err(coda_proto::Malformed::new("the realm's log", why).into());
        }
        let common = match step.keep {
            0 => Some(new.clone()),
            keep if keep < chronicle.entries().len() => Some(chronicle.replay(keep, &[])?),
            _ => None,
        };
        if let Some(common) = common {
            self.set_aside(&old, &common)?;
        }
        // First the replicas: a crash in between must not make a new volume look like a lost one.
        self.make_replicas(&new, Some(&old))?;
        self.store.follow(chronicle, &step, &new)?;
        for entry in chronicle.done(step) {
            tracing::error!(
                index = entry.index, term = entry.term, writer = entry.writer, what = %entry.what,
                "a change of the realm is given up: another server had become the SCM"
            );
        }
        if new == *old {
            return Ok(());
        }
        let changed = changed_groups(&old, &new);
        let config = new.config;
        *self.realm.write().expect("never held across a panic") = Arc::new(new);
        // A replica that was here before, and is here again, is another one to its peers.
        self.open_volumes(&self.realm(), || self.env.random().max(1))?;
        let mine = |id: &VolumeId| self.realm().replica_at(*id, self.id).is_some();
        let gone: Vec<VolumeId> = self.volumes().keys().filter(|id| !mine(id)).copied().collect();
        for id in gone {
            self.close_volume(id);
            let Some(member) = old.replica_at(id, self.id) else { continue };
            // Of a purged volume nobody wants anything. A replica that left may hold what only it had, if it
            // was made to go: somebody may want to look at it.
            let purged = !self.realm().volumes.contains_key(&id);
            if let Err(error) = put_away(&self.config.dir, member.replica, self.boot, purged) {
                tracing::warn!(volume = %id, %error, "a replica that is not served any more is still there");
            }
        }
        self.forget_peers(&old);
        self.leaving.notify_one();
        for info in changed {
            self.sessions.announce(&wire::event::Body::GroupChanged(info));
        }
        self.sessions.announce(&wire::event::Body::Config(config));
        self.changed.send_replace(config);
        Ok(())
    }

    /// Ends when the realm is another than it is now.
    pub fn realm_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changed = self.changed.subscribe();
        async move { drop(changed.changed().await) }
    }

    fn close_volume(&self, id: VolumeId) {
        let volume = self.volumes.write().expect("never held across a panic").remove(&id);
        volume.iter().for_each(|volume| volume.stop());
    }

    /// Replicas that only cut-off entries had put here are moved aside, never removed: their ids may come back
    /// as something else.
    fn set_aside(&self, old: &Realm, common: &Realm) -> Result<(), StoreError> {
        for id in old.volumes.keys() {
            let Some(member) = old.replica_at(*id, self.id) else { continue };
            if common.replica_at(*id, self.id).is_some_and(|there| there.replica == member.replica) {
                continue;
            }
            self.close_volume(*id);
            let from = replica_dir(&self.config.dir, member.replica);
            let to = self.config.dir.join("aside").join(format!("{:08x}-{:016x}", member.replica, self.boot));
            if from.exists() {
                tracing::error!(volume = %id, to = %to.display(), "a replica is set aside");
                std::fs::create_dir_all(to.with_file_name("")).map_err(StoreError::io(&to))?;
                std::fs::rename(&from, &to).map_err(StoreError::io(&to))?;
            }
        }
        Ok(())
    }

    /// Forgets how far the replicas of members that are none any more were met.
    fn forget_peers(&self, old: &Realm) {
        for (id, volume) in self.volumes() {
            let Some(before) = old.volumes.get(&id) else { continue };
            let now = self.peers_of(id);
            let gone = before.info.members.iter().filter_map(|member| ServerId::new(member.server).ok());
            let gone: Vec<ServerId> =
                gone.filter(|peer| *peer != self.id && !now.contains_key(peer)).collect();
            if !gone.is_empty() {
                let forget =
                    move |txn: &mut Txn<'_>| gone.iter().try_for_each(|peer| Ok(txn.forget_peer(*peer)?));
                drop(volume.queue(forget, |_| {}));
            }
        }
    }

    /// Stops: every session ends, what is queued is dropped unanswered, and the store is free again.
    pub fn stop(&self) {
        for volume in self.volumes().values() {
            volume.stop();
        }
        self.volumes.write().expect("never held across a panic").clear();
        self.sessions.end_all();
        self.stages.lock().expect("never held across a panic").clear();
        self.lock.lock().expect("never held across a panic").take();
        self.leaving.notify_one();
    }

    /// Tells clients that the server goes away.
    pub fn say_goodbye(&self) {
        self.sessions.announce(&wire::event::Body::GoingDown(true));
    }

    /// Who it is.
    pub fn id(&self) -> ServerId {
        self.id
    }
    /// Another number after every start; also the incarnation of its replicas.
    pub fn boot(&self) -> u64 {
        self.boot
    }
    /// The realm as it knows it.
    pub fn realm(&self) -> Arc<Realm> {
        self.realm.read().expect("never held across a panic").clone()
    }
    /// Its own database.
    pub fn store(&self) -> &RealmStore {
        &self.store
    }
    /// Who is here.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }
    /// What it was told at its start.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }
    /// Its doors to the world.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }
    /// The log of the realm's configuration.
    pub fn chronicle(&self) -> std::sync::MutexGuard<'_, Chronicle> {
        self.chronicle.lock().expect("never held across a panic")
    }
    pub(crate) fn telling(&self) -> &AtomicBool {
        &self.telling
    }
    pub(crate) fn stages(&self) -> &Mutex<BTreeMap<u128, Stage>> {
        &self.stages
    }
    pub(crate) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.changing
    }

    /// Asks the other servers in the background what changed, unless somebody is asking already.
    pub fn refresh_soon(&self) {
        let Some(me) = self.me() else { return };
        if self.refreshing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.env.spawn(Box::pin(async move {
            me.refresh().await;
            me.refreshing.store(false, Ordering::Relaxed);
        }));
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.lock.lock().expect("never held across a panic").is_none()
    }

    pub(crate) fn me(&self) -> Option<Arc<Server>> {
        self.me.upgrade()
    }

    /// The volumes served here.
    pub fn volumes(&self) -> BTreeMap<VolumeId, Arc<Volume>> {
        self.volumes.read().expect("never held across a panic").clone()
    }

    /// A volume served here.
    pub fn volume(&self, id: VolumeId) -> Result<Arc<Volume>, Refusal> {
        let volumes = self.volumes.read().expect("never held across a panic");
        volumes.get(&id).cloned().ok_or_else(|| {
            if self.damaged().contains(&id) {
                let why = format!("the replica of volume {id} on server {} is damaged", self.id);
                return Refusal::new(Code::NotJoined, why);
            }
            Refusal::new(Code::NoVolume, format!("server {} holds no replica of volume {id}", self.id))
        })
    }

    /// Volumes that should be served here, and whose replica is damaged.
    pub(crate) fn damaged(&self) -> BTreeSet<VolumeId> {
        self.damaged.lock().expect("never held across a panic").clone()
    }
}
