//! File operations as short flows: gather facts, decide, act.
//!
//! ```text
//!  path      what a name means: realms, mount points, entries, conflicting names
//!  place     the path of an object, for people
//!  status    is what is cached still so? all members are asked, and the newest version wins
//!  seals     the same for whole volumes: one question where promises were lost
//!  elders    the same where servers have folded versions
//!  listing   directories, whole        contents   files, whole
//!  asker     for whom nothing is fetched
//!  names     create, mkdir, symlink, link, unlink, rmdir, rename
//!  file      open, flush, release      attributes, xattrs
//!  patience  who waits for servers     resolve   the servers are to agree
//!  heard     what servers say unasked    slept    what nobody could hear
//! ```
//!
//! What is cached and valid is answered without waiting. Everything else takes the object's lock, looks
//! again, and asks.

mod acl;
mod asker;
mod attributes;
pub(crate) mod contents;
mod elders;
mod file;
mod heard;
mod listing;
pub(crate) mod names;
pub(crate) mod path;
mod patience;
mod place;
mod resolve;
mod restart;
pub(crate) mod seals;
pub(crate) mod slept;
mod status;
mod xattrs;

pub use asker::Missed;
pub(crate) use asker::{Askers, Looked};
pub(crate) use contents::Scratch;
pub use names::Removal;
pub(crate) use restart::digest;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use coda_proto::{Dot, Fid, ServerId, VolumeId, wire};

use crate::{
    cache::{Cache, OpenFile, View},
    cml::Pace,
    config::ConflictView,
    conflict::{automatic::Sought, versions::MadeUp, view},
    env::{Answer, BoxFuture, Env, Priority},
    error::Error,
    events::Events,
    hoard::Hoard,
    reintegration::{Outbox, Settings, Unsynced},
    replica::{AskError, Group, Peers, VolumeKey},
    venus::face::{Attr, Caller, NodeKind, ObjectId},
};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The cache manager's working parts.
pub struct Core {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) events: Arc<Events>,
    /// This machine's name, for people.
    pub(crate) host: String,
    pub(crate) settings: Settings,
    /// What is logged and would not survive a power cut yet.
    pub(crate) unsynced: Mutex<Unsynced>,
    /// One at a time makes it last.
    pub(crate) syncing: Mutex<()>,
    /// Users whose operations wait for servers: of one realm, or of all.
    pub(crate) patient: Mutex<BTreeSet<(u32, Option<u32>)>>,
    /// A server came back.
    pub(crate) news: tokio::sync::Notify,
    /// How fast the log goes.
    pub(crate) pace: Mutex<Pace>,
    askers: Askers,
    me: Weak<Core>,
    realms: Mutex<Realms>,
    pub(crate) outboxes: Mutex<HashMap<(u32, VolumeId), Arc<Outbox>>>,
    pub(crate) mounts: Mutex<path::Mounts>,
    handles: Mutex<Handles>,
    resolving: Mutex<BTreeSet<(u32, Fid)>>,
    /// How many objects of a volume the servers are asked to bring together now.
    joining: Mutex<BTreeMap<(u32, VolumeId), u32>>,
    prefetching: Mutex<HashMap<ObjectId, contents::Misses>>,
    /// What the versions are of that venus shows beside names.
    pub(crate) versions: Mutex<BTreeMap<ObjectId, MadeUp>>,
    /// Files in conflict that show as directories of their versions.
    pub(crate) expanded: Mutex<BTreeSet<ObjectId>>,
    /// How files in conflict show.
    pub(crate) conflict_view: ConflictView,
    /// The state of hoarding.
    pub(crate) hoard: Mutex<Hoard>,
    /// Sets of versions that were looked at whether a rule merges them.
    pub(crate) merging: Mutex<BTreeMap<(ObjectId, Vec<Dot>), Sought>>,
    /// Of files in conflict, the version that all these versions were made from.
    pub(crate) ancestors: Mutex<BTreeMap<ObjectId, (Dot, BTreeSet<Dot>)>>,
}

#[derive(Default)]
struct Realms {
    numbers: HashMap<String, u32>,
    names: HashMap<u32, Arc<str>>,
    /// Looked up since the start: what `/coda` lists.
    used: BTreeSet<String>,
}

#[derive(Default)]
struct Handles {
    next: u64,
    open: HashMap<u64, Handle>,
}

/// One open of a file.
#[derive(Clone)]
pub(crate) struct Handle {
    pub id: ObjectId,
    pub file: Arc<OpenFile>,
    pub write: bool,
    /// Who opened it: whatever it stores is theirs.
    pub uid: u32,
}

/// A machine's name as records carry it: short.
fn host_name(full: &str) -> String {
    full.split('.').next().unwrap_or_default().chars().take(15).collect()
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

impl Core {
    /// Puts the parts together.
    #[allow(clippy::too_many_arguments, reason = "one for each part")]
    pub(crate) fn new(
        env: Arc<dyn Env>,
        cache: Arc<Cache>,
        peers: Arc<Peers>,
        events: Arc<Events>,
        host: &str,
        conflict_view: ConflictView,
        settings: Settings,
        askers: Askers,
    ) -> Result<Arc<Core>> {
        let expanded = cache.store(|store| view::expanded(store))?;
        let mut realms = Realms::default();
        for (number, name) in cache.store(|store| store.realms())? {
            realms.numbers.insert(name.clone(), number);
            realms.names.insert(number, name.into());
        }
        Ok(Arc::new_cyclic(|me| Core {
            env,
            cache,
            peers,
            events,
            host: host_name(host),
            settings,
            unsynced: Mutex::default(),
            syncing: Mutex::default(),
            patient: Mutex::default(),
            news: Default::default(),
            pace: Mutex::default(),
            askers,
            me: me.clone(),
            realms: Mutex::new(realms),
            outboxes: Mutex::default(),
            mounts: Mutex::default(),
            handles: Mutex::default(),
            resolving: Mutex::default(),
            joining: Mutex::default(),
            prefetching: Mutex::default(),
            versions: Mutex::default(),
            expanded: Mutex::new(expanded),
            conflict_view,
            hoard: Mutex::default(),
            merging: Mutex::default(),
            ancestors: Mutex::default(),
        }))
    }

    pub(crate) fn me(&self) -> Arc<Core> {
        self.me.upgrade().expect("whoever runs a flow holds the core")
    }

    /// For a task that waits for long.
    pub(crate) fn weak(&self) -> Weak<Core> {
        self.me.clone()
    }

    /// Runs a task that outlives its caller.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.env.spawn(Box::pin(task) as BoxFuture<'static, ()>);
    }

    /// Tells people.
    pub(crate) fn say(&self, class: &str, text: impl Into<String>) {
        self.events.tell(self.env.now(), class, text);
    }

    /// A realm's name.
    pub(crate) fn realm_name(&self, realm: u32) -> Result<Arc<str>> {
        locked(&self.realms).names.get(&realm).cloned().ok_or_else(|| Error::UnknownRealm(realm.to_string()))
    }

    /// The same for a line of the log.
    pub(crate) fn realm_field(&self, realm: u32) -> Option<String> {
        self.realm_name(realm).ok().map(|name| name.to_string())
    }

    /// A realm's number; a new one the first time.
    pub(crate) fn realm_number(&self, name: &str) -> Result<u32> {
        if let Some(number) = locked(&self.realms).numbers.get(name) {
            return Ok(*number);
        }
        let number = self.cache.store(|store| store.realm_number(name))?;
        let mut realms = locked(&self.realms);
        realms.numbers.insert(name.to_owned(), number);
        realms.names.insert(number, name.into());
        Ok(number)
    }

    /// All realms met.
    pub fn realms(&self) -> Vec<(u32, Arc<str>)> {
        let mut realms: Vec<_> =
            locked(&self.realms).names.iter().map(|(n, name)| (*n, name.clone())).collect();
        realms.sort();
        realms
    }

    /// The group of an object's volume.
    pub(crate) async fn group(&self, id: ObjectId) -> Result<(Arc<str>, Group)> {
        if id.realm == 0 {
            return Err(Error::ReadOnly("/coda".into()));
        }
        let id = self.served(id);
        let realm = self.realm_name(id.realm)?;
        let group = self.peers.volume(&realm, VolumeKey::Id(id.fid.volume)).await;
        Ok((realm, group?))
    }

    /// Asks the best member; others where it fails.
    pub(crate) async fn ask_any(
        &self,
        id: ObjectId,
        realm: &str,
        group: &Group,
        body: wire::request::Body,
    ) -> Result<(ServerId, Answer)> {
        let ask = |group: Group, body| async move {
            self.peers.ask_any(realm, &group, body, bytes::Bytes::new(), Priority::Foreground).await
        };
        let mut asked = ask(group.clone(), body.clone()).await;
        if let Err(error) = &asked
            && is_disconnected(&error.about(""))
        {
            // Whoever was asked may be no member any more, and has said so.
            let (_, now) = self.group(id).await?;
            if now.epoch != group.epoch {
                asked = ask(now, body).await;
            }
        }
        asked.map_err(|error| error.about(&id.fid.to_string()))
    }

    pub(crate) fn handle(&self, handle: u64) -> Result<Handle> {
        locked(&self.handles).open.get(&handle).cloned().ok_or(Error::BadHandle)
    }

    fn add_handle(&self, handle: Handle) -> u64 {
        let mut handles = locked(&self.handles);
        handles.next += 1;
        let number = handles.next;
        handles.open.insert(number, handle);
        number
    }

    fn take_handle(&self, handle: u64) -> Result<Handle> {
        locked(&self.handles).open.remove(&handle).ok_or(Error::BadHandle)
    }

    /// An object's attributes as `stat` shows them.
    pub(crate) fn attr(&self, view: &View, who: Caller) -> Attr {
        let status = &view.row.status;
        let mut attr = Attr {
            id: view.id,
            kind: match status.kind {
                coda_proto::Kind::File => NodeKind::File,
                coda_proto::Kind::Directory => NodeKind::Directory,
                coda_proto::Kind::Symlink => NodeKind::Symlink,
            },
            size: match status.kind {
                coda_proto::Kind::Directory => 4096,
                coda_proto::Kind::File => status.length,
                coda_proto::Kind::Symlink => status.target.len() as u64,
            },
            mode: status.mode & 0o1777,
            nlink: if view.gone { 0 } else { status.nlink.max(1) },
            uid: status.owner,
            // A group that nobody ever set is that of whoever made the object.
            gid: if status.group == 0 && status.owner == who.uid { who.gid } else { status.group },
            mtime: status.mtime,
            // Cached before this was kept: then it shows as it did.
            ctime: if status.ctime == 0 { status.mtime } else { status.ctime },
            atime: status.atime.unwrap_or(status.mtime),
            lasting: false,
            version: view.row.version,
        };
        let mut being_written = false;
        if let Some(file) = &view.open {
            let state = file.state();
            being_written = state.writers > 0 || state.unsaved;
            if being_written && let Ok(now) = file.container.snapshot() {
                attr.size = now.0;
                attr.mode = state.mode.unwrap_or(attr.mode) & 0o1777;
                if now != state.stored {
                    // What the Store of just these contents is going to say.
                    (attr.mtime, attr.ctime) = (now.1, now.2.max(status.ctime.saturating_add(1)));
                }
                if let Some((mtime, at)) = state.mtime
                    && at == now
                {
                    attr.mtime = mtime;
                }
            }
        }
        attr.lasting = !being_written && !view.gone && self.cache.tell(view.id);
        attr
    }
}

/// What a server answered, if it is what was asked for.
pub(crate) fn unexpected<T>(id: ObjectId) -> Result<T> {
    Err(Error::BadAnswer(id.fid.to_string(), "the answer is to another question".into()))
}

/// Whether a failed question says that nobody is there.
pub(crate) fn is_away(error: &AskError) -> bool {
    matches!(error, AskError::Unreachable(_) | AskError::Disconnected)
}

/// Whether an operation failed because nobody is there.
pub(crate) fn is_disconnected(error: &Error) -> bool {
    error.is_disconnected()
}
