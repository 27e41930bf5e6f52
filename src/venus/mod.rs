//! The assembled manager: what the FUSE adapter, the control socket and the simulator call.
//!
//! [`Venus`] owns the parts and the one task that listens to the servers. Everything it does for callers
//! lies in `ops`; what is here joins the two and nothing more.

pub mod face;
mod faced;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use coda_proto::Acl;
use tokio::sync::mpsc;

use crate::{
    cache::{Cache, Limits},
    cml::{Guard, Weak},
    config::ConflictView,
    env::{Containers, Env, Processes},
    error::Error,
    events::Events,
    ops::{Askers, Core, seals},
    reintegration::Settings,
    replica::{Known, PeerEvent, Peers, PeersConfig},
    store::Store,
};
use face::{Forget, ObjectId};

/// Where the database lies.
#[derive(Clone, Debug)]
pub enum Database {
    /// In this file.
    File(PathBuf),
    /// In memory: lost at the end.
    Memory,
}

/// What a cache manager must know.
#[derive(Clone, Debug)]
pub struct VenusConfig {
    /// Bytes of contents that may be cached.
    pub cache_bytes: u64,
    /// Objects that may be cached.
    pub cache_objects: u64,
    /// Objects kept in memory.
    pub in_memory: usize,
    /// This machine's name, for people at the servers.
    pub host: String,
    /// A server silent on a call for so long is dead.
    pub rpc_timeout: Duration,
    /// Where the tree is mounted, for messages.
    pub mountpoint: String,
    /// The local user whose the mount is, and what is done in nobody's name.
    pub owner: u32,
    /// How files in conflict show.
    pub conflict_view: ConflictView,
    /// Where checkpoints of the log go unless somebody says otherwise.
    pub checkpoints: PathBuf,
    /// Changes of one volume, made by one user, that may wait to be sent.
    pub log_records: u64,
    /// Per cent of the cache's bytes that such changes may take.
    pub log_percent: u64,
    /// The same in bytes; 0: that share of the cache.
    pub log_bytes: u64,
    /// How much a log may remove from a volume before somebody has to approve of it.
    pub guard: Guard,
    /// Volumes become write-disconnected by themselves where the line is weak.
    pub adaptive: bool,
    /// What makes a line weak.
    pub weak: Weak,
    /// Bytes a second that what is sent behind people's backs may take.
    pub trickle: Option<u64>,
    /// The line costs money: what is logged is sent where somebody asks for it.
    pub metered: bool,
    /// Names of programs that get what is here and for which nothing is fetched.
    pub indexers: Vec<String>,
    /// Tells which program asks.
    pub processes: Processes,
    /// What is logged lasts through a power cut after so long, and contents do not before. None: contents do at once.
    pub lasting: Option<Duration>,
}

impl Default for VenusConfig {
    fn default() -> VenusConfig {
        VenusConfig {
            cache_bytes: 1 << 30,
            cache_objects: 100_000,
            in_memory: 50_000,
            host: String::new(),
            rpc_timeout: Duration::from_secs(15),
            mountpoint: "/coda".into(),
            owner: 0,
            conflict_view: ConflictView::default(),
            checkpoints: "/var/lib/coda/checkpoints".into(),
            log_records: 500_000,
            log_percent: 80,
            log_bytes: 0,
            guard: Guard::default(),
            adaptive: true,
            weak: Weak::default(),
            trickle: None,
            metered: false,
            indexers: Vec::new(),
            processes: |_| None,
            lasting: None,
        }
    }
}

/// The cache manager.
pub struct Venus {
    pub(crate) core: Arc<Core>,
    forgets: Mutex<Option<mpsc::UnboundedReceiver<Forget>>>,
    config: VenusConfig,
}

impl Venus {
    /// Starts with what the last run left. Sends nothing before somebody asks for something.
    pub fn start(
        config: VenusConfig,
        env: Arc<dyn Env>,
        containers: Arc<dyn Containers>,
        database: Database,
    ) -> Result<Arc<Venus>, Error> {
        let store = match &database {
            Database::File(path) => Store::open(Some(path))?,
            Database::Memory => Store::open(None)?,
        };
        let instance = instance(&store, &*env)?;
        let known: Known = match store.kept("known")? {
            // What cannot be read is learnt again.
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            None => Known::default(),
        };
        let (forget, forgets) = mpsc::unbounded_channel();
        let limits =
            Limits { bytes: config.cache_bytes, objects: config.cache_objects, in_memory: config.in_memory };
        let cache = Arc::new(Cache::new(store, containers, limits, forget)?);
        let (told, hears) = mpsc::unbounded_channel();
        let peers_config = PeersConfig {
            host: config.host.clone(),
            rpc_timeout: config.rpc_timeout,
            ..PeersConfig::new(instance)
        };
        let peers = Peers::new(env.clone(), peers_config, known, told);
        let settings = Settings {
            owner: config.owner,
            records: config.log_records,
            bytes: match config.log_bytes {
                0 => config.cache_bytes / 100 * config.log_percent,
                bytes => bytes,
            },
            guard: config.guard,
            adaptive: config.adaptive,
            weak: config.weak,
            trickle: config.trickle,
            metered: config.metered,
            lasting: config.lasting,
            patience: config.rpc_timeout,
        };
        let core = Core::new(
            env.clone(),
            cache,
            peers,
            Arc::new(Events::default()),
            &config.host,
            config.conflict_view,
            settings,
            Askers::new(config.processes, &config.indexers),
        )?;
        core.resume()?;
        core.keep_hoarding()?;
        let listener = Arc::downgrade(&core);
        env.spawn(Box::pin(async move { listen(listener, hears).await }));
        env.spawn(Box::pin(seals::keep(Arc::downgrade(&core))));
        Ok(Arc::new(Venus { core, forgets: Mutex::new(Some(forgets)), config }))
    }

    /// What it was started with.
    pub fn config(&self) -> &VenusConfig {
        &self.config
    }

    /// What happens, for people.
    pub fn events(&self) -> &Arc<Events> {
        &self.core.events
    }

    /// The servers as peers.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.core.peers
    }

    /// Records in the log: mutations that no server is known to have.
    pub fn unsent(&self) -> u64 {
        self.core.unsent()
    }

    /// The database takes no more, as on a full disk, or has room again; for simulated worlds.
    pub fn set_database_full(&self, full: bool) -> Result<(), Error> {
        self.core.cache.store(|store| store.set_full(full))
    }

    /// A directory's access list, as a server tells it.
    pub async fn acl(&self, dir: ObjectId) -> Result<Acl, Error> {
        self.core.acl(dir).await
    }

    /// Replaces a directory's access list.
    pub async fn set_acl(&self, dir: ObjectId, acl: &Acl) -> Result<(), Error> {
        self.core.set_acl(self.config.owner, dir, acl).await
    }

    /// Forgets the cached copy of an object, unless it is in use. Answers whether it is gone.
    pub fn forget_copy(&self, id: ObjectId) -> Result<bool, Error> {
        let in_use = !self.core.cache.store(|store| store.children(id))?.is_empty();
        Ok(!in_use && self.core.cache.flush(id)?.is_ok())
    }

    /// Ends well: says goodbye to the servers, and what was learnt survives power loss.
    pub async fn stop(&self) {
        // An end must not wait for who does not answer.
        let _ = tokio::time::timeout(FAREWELL, self.core.retire_all()).await;
        self.core.peers.close().await;
        self.core.keep_seals().await;
        if let Err(error) = self.core.make_last() {
            tracing::warn!(%error, "the log could not be synced");
        }
        if let Err(error) = self.core.cache.store(|store| store.sync()) {
            tracing::warn!(%error, "the database could not be synced");
        }
    }
}

/// What an orderly end waits for servers, at most, to tell them who writes no more.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// 16 bytes that name this store to the servers.
fn instance(store: &Store, env: &dyn Env) -> Result<[u8; 16], Error> {
    if let Some(kept) = store.kept("instance")?
        && let Ok(instance) = kept.try_into()
    {
        return Ok(instance);
    }
    let mut instance = [0; 16];
    instance[..8].copy_from_slice(&env.random().to_le_bytes());
    instance[8..].copy_from_slice(&env.random().to_le_bytes());
    store.keep("instance", &instance)?;
    Ok(instance)
}

/// Marks the cache as the servers say, until the manager is gone.
async fn listen(core: std::sync::Weak<Core>, mut hears: mpsc::UnboundedReceiver<PeerEvent>) {
    while let Some(event) = hears.recv().await {
        let Some(core) = core.upgrade() else { return };
        if let Err(error) = core.heard(event) {
            tracing::error!(%error, "an event could not be noted");
        }
    }
}

#[cfg(all(test, feature = "daemon"))]
pub(crate) mod tests;
