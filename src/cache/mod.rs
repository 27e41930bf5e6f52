//! The cache: objects as far as they are here, and whether what is here may be believed.
//!
//! An object is *valid* while a server's promise to tell us of changes is held, in memory only. An invalid
//! object is not thrown away: the next use asks the servers whether it changed, and without servers it is
//! served as it is. The table in memory is a bounded cache over the store's rows.
//!
//! ```text
//!   absent ──status──▶ cached ──promise──▶ valid
//!                        ▲                   │
//!                        └─ break, lost, up ─┘
//! ```
//!
//! The seal of a volume makes the way back from lost promises one question for all its objects.

pub mod budget;
pub mod choose;
#[cfg(feature = "daemon")]
pub mod disk;
pub mod lock;
pub mod open;
pub mod seal;
pub mod validity;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use coda_proto::{Entry, Past, Relation, Status, VolumeId};
use tokio::sync::mpsc;

pub use budget::{Limits, Reserved};
pub use lock::{Held, Locks};
pub use open::{OpenFile, OpenState};

use crate::{
    env::Containers,
    error::Error,
    store::{Change, Edit, Row, Store},
    venus::face::{Forget, ObjectId},
};

type Result<T> = std::result::Result<T, Error>;

/// How many names of containers are set aside at once.
const CONTAINER_BLOCK: u64 = 1000;

/// An object in memory.
struct Node {
    row: Arc<Row>,
    /// Every member that lives promised to tell before it changes.
    promised: bool,
    /// The same by a promise about its whole volume.
    by_volume: bool,
    /// The members of its volume's seal that held the same.
    sealed: u64,
    /// The kernel was told that it may keep the attributes.
    told: bool,
    /// Mutations under way and other reasons to stay.
    pins: u32,
    used: u64,
    used_noted: u64,
    open: Option<Arc<OpenFile>>,
    /// No longer in the store: unlinked while open.
    gone: bool,
}

/// An object as it was when looked at.
#[derive(Clone)]
pub struct View {
    /// Which.
    pub id: ObjectId,
    /// What is known of it.
    pub row: Arc<Row>,
    /// Whether a promise is held.
    pub valid: bool,
    /// Its container, while it is open.
    pub open: Option<Arc<OpenFile>>,
    /// Unlinked, and still open.
    pub gone: bool,
    /// Changes of it are in the log: what is here is newer than what servers have.
    pub unsent: bool,
}

impl View {
    /// Whether it is served without asking anybody: it may be believed, or is ours alone.
    pub fn stands(&self) -> bool {
        self.valid || self.gone || self.unsent
    }
}

struct Ground {
    store: Store,
    table: HashMap<ObjectId, Node>,
    /// All of the table that no promise covers, and perhaps some more, in order.
    doubtful: BTreeSet<ObjectId>,
    tick: u64,
    objects: u64,
    bytes: u64,
    reserved: u64,
    /// Bytes that pins are still to fetch: nothing else takes that room.
    owed: u64,
    promises: HashMap<(u32, VolumeId), validity::Breaks>,
    seals: HashMap<(u32, VolumeId), seal::Seal>,
    /// What the store does not yet know of seals, and of what they say of objects.
    unkept: seal::Unkept,
    /// Containers that somebody has open.
    opened: HashSet<u64>,
    /// How many records of the log touch an object. Such an object never goes, and nobody is asked for it.
    unsent: HashMap<ObjectId, u32>,
    next_container: u64,
    container_end: u64,
    next_log: u64,
}

/// The cache.
pub struct Cache {
    ground: Mutex<Ground>,
    /// The files that hold contents.
    pub containers: Arc<dyn Containers>,
    /// One lock per object.
    pub locks: Locks,
    limits: Limits,
    forgets: mpsc::UnboundedSender<Forget>,
}

pub(crate) fn io(what: impl std::fmt::Display, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull => Error::NoSpace(what.to_string()),
        _ => Error::Io(what.to_string(), error.to_string()),
    }
}

impl Cache {
    /// A cache over a store. What the kernel must forget is said to `forgets`.
    pub fn new(
        store: Store,
        containers: Arc<dyn Containers>,
        limits: Limits,
        forgets: mpsc::UnboundedSender<Forget>,
    ) -> Result<Cache> {
        let (objects, bytes) = store.totals()?;
        let next_container = match store.kept("containers")? {
            Some(value) => value.try_into().map(u64::from_le_bytes).unwrap_or(1),
            None => 1,
        };
        let seals = store.seals()?.into_iter().map(|kept| ((kept.realm, kept.volume), kept.into())).collect();
        let ground = Ground {
            tick: store.last_used()?,
            next_log: store.last_logged()? + 1,
            store,
            table: HashMap::new(),
            doubtful: BTreeSet::new(),
            objects,
            bytes,
            reserved: 0,
            owed: 0,
            promises: HashMap::new(),
            seals,
            unkept: seal::Unkept::default(),
            opened: HashSet::new(),
            unsent: HashMap::new(),
            next_container,
            container_end: next_container,
        };
        Ok(Cache { ground: Mutex::new(ground), containers, locks: Locks::default(), limits, forgets })
    }

    fn ground(&self) -> MutexGuard<'_, Ground> {
        self.ground.lock().expect("no holder panics")
    }

    /// Asks the store something.
    pub fn store<T>(&self, ask: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        ask(&mut self.ground().store)
    }

    /// Looks at an object; `None` where nothing is known of it here.
    pub fn view(&self, id: ObjectId) -> Result<Option<View>> {
        let mut ground = self.ground();
        ground.tick += 1;
        let tick = ground.tick;
        if !ground.load(id)? {
            return Ok(None);
        }
        let node = ground.table.get_mut(&id).expect("just loaded");
        node.used = tick;
        let (row, valid, open, gone) = (node.row.clone(), node.is_valid(), node.open.clone(), node.gone);
        let view = View { id, row, valid, open, gone, unsent: ground.unsent.contains_key(&id) };
        self.shrink(&mut ground);
        Ok(Some(view))
    }

    /// What is known of an object, without counting as a use.
    pub fn peek(&self, id: ObjectId) -> Result<Option<Arc<Row>>> {
        self.ground().row(id)
    }

    /// Notes that the kernel may keep this object's attributes; answers whether it may.
    pub fn tell(&self, id: ObjectId) -> bool {
        let mut ground = self.ground();
        let unsent = ground.unsent.contains_key(&id);
        match ground.table.get_mut(&id) {
            Some(node) if node.is_valid() || unsent => {
                node.told = true;
                true
            }
            _ => false,
        }
    }

    /// Makes a change, as one transaction, and shows it.
    pub fn commit(&self, change: &Change) -> Result<()> {
        self.ground().commit(change, &self.forgets)
    }

    /// Makes a change that is decided over the rows as they are, with nothing in between.
    pub fn decide<T>(
        &self,
        decide: impl FnOnce(&dyn Fn(ObjectId) -> Option<Arc<Row>>) -> (Change, T),
    ) -> Result<T> {
        let mut ground = self.ground();
        let (change, answer) = decide(&|id| ground.row(id).ok().flatten());
        ground.commit(&change, &self.forgets)?;
        Ok(answer)
    }

    /// Makes a change that can be undone: `seal` makes the log record, given its place.
    pub fn commit_undoable(
        &self,
        mut change: Change,
        seal: impl FnOnce(u64) -> Edit,
    ) -> Result<(u64, Change)> {
        let mut ground = self.ground();
        let inverse = change.inverse(&ground.store)?;
        let id = ground.next_log;
        ground.next_log += 1;
        change.push(seal(id));
        ground.commit(&change, &self.forgets)?;
        Ok((id, inverse))
    }

    /// The same without a log record.
    pub fn commit_folded(&self, change: Change) -> Result<Change> {
        let mut ground = self.ground();
        let inverse = change.inverse(&ground.store)?;
        ground.commit(&change, &self.forgets)?;
        Ok(inverse)
    }

    /// Takes in what a server says of an object. A state that does not include the cached one changes
    /// nothing. Answers what the new state is to the cached one.
    pub fn learn(&self, id: ObjectId, status: Status) -> Result<Relation> {
        let mut ground = self.ground();
        ground.load(id)?;
        let old = ground.table.get(&id).filter(|node| !node.gone).map(|node| node.row.clone());
        let Some(old) = old else {
            ground.commit(&Change::of(Edit::Put(id, Arc::new(Row::new(status)))), &self.forgets)?;
            return Ok(Relation::Newer);
        };
        let relation = status.past.relation(&old.status.past);
        // What left the log unsent was shown here: time does not go back where somebody saw it.
        let status = Status { ctime: status.ctime.max(old.status.ctime), ..status };
        if ground.unsent.contains_key(&id) && relation == Relation::Newer {
            // All of ours got there, and nobody has told us yet: when somebody does, this is asked again.
            return Ok(Relation::Concurrent);
        }
        let row = match relation {
            Relation::Equal if status == old.status => return Ok(relation),
            Relation::Equal => old.confirmed(status),
            Relation::Newer => Row {
                version: old.version + 1,
                complete: false,
                data: old.data,
                writing: old.writing,
                status,
            },
            Relation::Older | Relation::Concurrent => return Ok(relation),
        };
        ground.commit(&Change::of(Edit::Put(id, Arc::new(row))), &self.forgets)?;
        Ok(relation)
    }

    /// What a cached version includes is said in fewer words, or less of it. Not of what is on its way to the
    /// servers: they have yet to say what it is then.
    pub fn revise_past(&self, id: ObjectId, revise: impl FnOnce(&Past) -> Past) -> Result<()> {
        let mut ground = self.ground();
        if ground.unsent.contains_key(&id) || !ground.load(id)? {
            return Ok(());
        }
        let Some(row) = ground.table.get(&id).filter(|node| !node.gone).map(|node| node.row.clone()) else {
            return Ok(());
        };
        let past = revise(&row.status.past);
        if past == row.status.past {
            return Ok(());
        }
        let mut row: Row = (*row).clone();
        row.status.past = past;
        ground.commit(&Change::of(Edit::Put(id, Arc::new(row))), &self.forgets)
    }

    /// Holds an object in the cache.
    pub fn pin(&self, id: ObjectId) -> Result<()> {
        let mut ground = self.ground();
        if ground.load(id)? {
            ground.table.get_mut(&id).expect("just loaded").pins += 1;
        }
        Ok(())
    }

    /// Lets it go again.
    pub fn unpin(&self, id: ObjectId) {
        if let Some(node) = self.ground().table.get_mut(&id) {
            node.pins = node.pins.saturating_sub(1);
        }
    }

    /// Notes that the log holds a record which touches these.
    pub fn note_unsent(&self, ids: impl IntoIterator<Item = ObjectId>) {
        let mut ground = self.ground();
        ids.into_iter().for_each(|id| *ground.unsent.entry(id).or_default() += 1);
    }

    /// Notes that it is off the log.
    pub fn note_sent(&self, ids: impl IntoIterator<Item = ObjectId>) {
        let mut ground = self.ground();
        for id in ids {
            if let std::collections::hash_map::Entry::Occupied(mut count) = ground.unsent.entry(id) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Makes `file` the open container of an object, which is not discarded before it is closed.
    pub fn open(&self, id: ObjectId, file: &Arc<OpenFile>) -> Result<()> {
        let mut ground = self.ground();
        ground.opened.insert(file.name);
        if ground.load(id)? {
            ground.table.get_mut(&id).expect("just loaded").open = Some(file.clone());
        }
        Ok(())
    }

    /// Makes `file` the open container of an object, or forgets it. An object that was unlinked while open
    /// leaves with its container.
    pub fn set_open(&self, id: ObjectId, file: Option<Arc<OpenFile>>) -> Result<()> {
        let mut ground = self.ground();
        if ground.load(id)? {
            let node = ground.table.get_mut(&id).expect("just loaded");
            node.open = file;
            if node.gone && node.open.is_none() {
                ground.remove(id);
            }
        }
        Ok(())
    }

    /// Notes that a container is open, or no longer: an open one is never discarded.
    pub fn note_open(&self, container: u64, open: bool) {
        let mut ground = self.ground();
        match open {
            true => ground.opened.insert(container),
            false => ground.opened.remove(&container),
        };
    }

    /// Files that are open and hold, or may hold, what is stored only when they are closed.
    pub fn unstored(&self) -> Vec<ObjectId> {
        let ground = self.ground();
        let open = ground.table.iter().filter(|(_, node)| !node.gone);
        let open = open.filter_map(|(id, node)| Some((*id, node.open.clone()?)));
        let written: Vec<_> =
            open.filter(|(_, file)| file.state().writers > 0 || file.state().unsaved).collect();
        drop(ground);
        // The disk is asked without holding up anybody else.
        let mut unstored: Vec<_> =
            written.into_iter().filter(|(_, file)| file.changed()).map(|(id, _)| id).collect();
        unstored.sort();
        unstored
    }

    /// A name for a new container, never used before.
    pub fn container_name(&self) -> Result<u64> {
        let mut ground = self.ground();
        if ground.next_container == ground.container_end {
            let end = ground.container_end + CONTAINER_BLOCK;
            ground.store.keep("containers", &end.to_le_bytes())?;
            ground.container_end = end;
        }
        let name = ground.next_container;
        ground.next_container += 1;
        Ok(name)
    }

    /// Removes a container that no row names and nobody has open.
    pub fn discard(&self, container: u64) {
        let free = {
            let ground = self.ground();
            !ground.opened.contains(&container)
                && matches!(ground.store.names_container(container), Ok(false))
        };
        if free && let Err(error) = self.containers.remove(container) {
            tracing::warn!(container, %error, "a container could not be removed");
        }
    }

    /// Tells the kernel to forget a name.
    pub fn forget_name(&self, dir: ObjectId, name: &[u8]) {
        let _ = self.forgets.send(Forget::Name { dir, name: name.to_vec() });
    }

    /// Tells the kernel to forget an object.
    pub fn forget_object(&self, id: ObjectId, data: bool) {
        let _ = self.forgets.send(Forget::Object { id, data });
    }

    /// Bindings of a name in a cached directory.
    pub fn named(&self, dir: ObjectId, name: &[u8]) -> Result<Vec<Entry>> {
        self.ground().store.named(dir, name)
    }

    /// Lets objects go from memory where there are too many; their rows stay.
    fn shrink(&self, ground: &mut Ground) {
        if ground.table.len() <= self.limits.in_memory {
            return;
        }
        let mut ages: Vec<(u64, ObjectId)> = ground
            .table
            .iter()
            .filter(|(_, node)| node.pins == 0 && node.open.is_none())
            .map(|(id, node)| (node.used, *id))
            .collect();
        ages.sort_unstable();
        ages.truncate(self.limits.in_memory / 8 + 1);
        if let Err(error) = ground.note_uses() {
            tracing::warn!(%error, "last uses could not be noted");
        }
        if let Err(error) = ground.keep_seals(usize::MAX) {
            tracing::warn!(%error, "what servers hold could not be noted");
        }
        for (_, id) in ages {
            if let Some(node) = ground.remove(id)
                && node.told
            {
                // Without the object in memory nobody would notice that the promise broke.
                let _ = self.forgets.send(Forget::Object { id, data: true });
            }
        }
    }
}

impl Ground {
    /// Brings an object into memory; answers whether it exists.
    fn load(&mut self, id: ObjectId) -> Result<bool> {
        if self.table.contains_key(&id) {
            return Ok(true);
        }
        match self.store.row(id)? {
            Some(row) => {
                let mut node = Node::new(Arc::new(row), self.tick);
                self.recall(id, &mut node)?;
                if !node.is_valid() {
                    self.doubtful.insert(id);
                }
                self.table.insert(id, node);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn remove(&mut self, id: ObjectId) -> Option<Node> {
        self.doubtful.remove(&id);
        self.table.remove(&id)
    }

    fn row(&self, id: ObjectId) -> Result<Option<Arc<Row>>> {
        match self.table.get(&id) {
            Some(node) if node.gone => Ok(None),
            Some(node) => Ok(Some(node.row.clone())),
            None => Ok(self.store.row(id)?.map(Arc::new)),
        }
    }

    fn commit(&mut self, change: &Change, forgets: &mpsc::UnboundedSender<Forget>) -> Result<()> {
        let mut old = HashMap::new();
        for edit in &change.edits {
            if let Edit::Put(id, _) | Edit::Drop(id) = edit
                && let std::collections::hash_map::Entry::Vacant(slot) = old.entry(*id)
            {
                slot.insert(self.row(*id)?);
            }
        }
        self.store.apply(change, self.tick)?;
        for edit in &change.edits {
            match edit {
                Edit::Put(id, row) => {
                    let was = old.insert(*id, Some(row.clone())).flatten();
                    self.count(was.as_deref(), Some(row));
                    let (tick, doubtful) = (self.tick, &mut self.doubtful);
                    let node = self.table.entry(*id).or_insert_with(|| {
                        doubtful.insert(*id);
                        // It may have been here, and then this use is noted nowhere yet.
                        Node { used_noted: 0, ..Node::new(row.clone(), tick) }
                    });
                    if std::mem::take(&mut node.gone) {
                        // What comes back is not what was promised.
                        node.doubt(*id, forgets);
                        node.sealed = 0;
                        self.doubtful.insert(*id);
                    }
                    if was.is_some_and(|was| was.status.past != row.status.past) {
                        // Nobody was asked about this version: what is ours has yet to get there, and what was learnt
                        // is one member's word.
                        node.sealed = 0;
                        self.unkept.objects.insert(*id);
                    }
                    node.row = row.clone();
                }
                Edit::Drop(id) => {
                    self.count(old.insert(*id, None).flatten().as_deref(), None);
                    match self.table.get_mut(id) {
                        Some(node) if node.open.is_some() => node.gone = true,
                        Some(node) => {
                            if node.told {
                                // The names in a directory that goes have gone before it.
                                let data = !id.fid.is_directory();
                                let _ = forgets.send(Forget::Object { id: *id, data });
                            }
                            self.remove(*id);
                        }
                        None => {}
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, old: Option<&Row>, new: Option<&Row>) {
        let bytes = |row: Option<&Row>| row.and_then(|row| row.data).map_or(0, |data| data.length);
        self.objects = (self.objects + u64::from(new.is_some())).saturating_sub(u64::from(old.is_some()));
        self.bytes = (self.bytes + bytes(new)).saturating_sub(bytes(old));
    }

    fn note_uses(&mut self) -> Result<()> {
        let ticks: Vec<(ObjectId, u64)> = self
            .table
            .iter_mut()
            .filter(|(_, node)| node.used > node.used_noted && !node.gone)
            .map(|(id, node)| {
                node.used_noted = node.used;
                (*id, node.used)
            })
            .collect();
        self.store.used(&ticks)
    }
}

impl Node {
    fn new(row: Arc<Row>, tick: u64) -> Node {
        Node {
            row,
            promised: false,
            by_volume: false,
            sealed: 0,
            told: false,
            pins: 0,
            used: tick,
            used_noted: tick,
            open: None,
            gone: false,
        }
    }
}
