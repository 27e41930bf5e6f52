//! A walk: binds the wishes, validates what they mean, fetches what is missing.

use std::time::Duration;

use coda_proto::Kind;

use super::bind::{Bound, From};
use crate::{
    error::Error,
    ops::{Core, Result, is_disconnected, locked},
    store::Wish,
    venus::face::ObjectId,
};

/// Between two walks that nobody asked for.
const EVERY: Duration = Duration::from_secs(600);
/// Of the cache, wishes may take so many of so many parts.
const SHARE: (u64, u64) = (3, 4);

/// Of a cache of `total` bytes, those that wishes may take.
pub(super) fn room_of(total: u64) -> u64 {
    total * SHARE.0 / SHARE.1
}

/// Something that is wanted and not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The object; of what is bound to nothing, the directory where that shows.
    pub id: ObjectId,
    /// Names below it that are bound to nothing.
    pub path: Vec<u8>,
    /// `Missing/Invalid`, `No room`, or `Not bound: ` and the cause.
    pub why: String,
    /// Bytes that would have to be fetched, as far as they are known.
    pub bytes: u64,
    /// How much it is wanted.
    pub priority: u32,
}

/// What a walk or a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects that the wishes mean.
    pub objects: u64,
    /// Bytes of them that are here.
    pub bytes: u64,
    /// Bytes that wishes may take.
    pub room: u64,
    /// What is not here, the most wanted first.
    pub missing: Vec<Missing>,
}

/// The state of hoarding.
#[derive(Debug, Default)]
pub struct Hoard {
    /// A walk is under way.
    pub walking: bool,
    /// Something was asked for meanwhile: it is followed by another.
    again: bool,
    /// Walks that nobody asks for are left out.
    pub off: bool,
    /// The task that walks is there.
    ticking: bool,
}

impl Core {
    /// Walks now and then, as long as there are wishes. One task, however often this is called.
    pub(crate) fn keep_hoarding(&self) -> Result<()> {
        if self.cache.store(|store| store.wishes())?.is_empty()
            || std::mem::replace(&mut locked(&self.hoard).ticking, true)
        {
            return Ok(());
        }
        let core = self.weak();
        self.spawn(async move {
            if let Some(core) = core.upgrade()
                && let Err(error) = core.note_owed().await
            {
                tracing::info!(%error, "what the pins are still to fetch is not known");
            }
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(core) = core.upgrade() else { return };
                let off = locked(&core.hoard).off;
                if !off && let Err(error) = core.hoard_walk().await {
                    tracing::info!(%error, "the hoard was not walked");
                }
            }
        });
        Ok(())
    }

    /// Fetches what the wishes want. A second walk at the same time only looks.
    pub(crate) async fn hoard_walk(&self) -> Result<Report> {
        if std::mem::replace(&mut locked(&self.hoard).walking, true) {
            return self.hoard_look().await;
        }
        self.walk_on().await
    }

    /// Begins a walk that nobody waits for. Whoever looks next sees that it is under way.
    pub(crate) fn hoard_walk_aside(&self) {
        {
            let mut hoard = locked(&self.hoard);
            if std::mem::replace(&mut hoard.walking, true) {
                // It may have read the wishes before what is new among them.
                hoard.again = true;
                return;
            }
        }
        let core = self.me();
        self.spawn(async move {
            if let Err(error) = core.walk_on().await {
                tracing::info!(%error, "the hoard was not walked");
            }
        });
    }

    /// Walks until nothing new was asked for.
    async fn walk_on(&self) -> Result<Report> {
        loop {
            locked(&self.hoard).again = false;
            let walked = self.walked().await;
            let mut hoard = locked(&self.hoard);
            if !hoard.again {
                hoard.walking = false;
                return walked;
            }
        }
    }

    async fn walked(&self) -> Result<Report> {
        self.say("cache", "BeginStatusWalk");
        let report = self.walk().await?;
        let text = format!("EndDataWalk [{} objects, {} missing]", report.objects, report.missing.len());
        self.say("cache", text);
        Ok(report)
    }

    async fn walk(&self) -> Result<Report> {
        let wishes = self.cache.store(|store| store.wishes())?;
        let bound = self.bind(&wishes, From::Servers, self.most_bound()).await?;
        let mut report = self.begun(&bound, &wishes);
        let (kept, left) = self.what_fits(by_priority(&bound), report.room)?;
        // What does not fit may go, also where it is here: it stands in the way of what is wanted more.
        self.cache.store(|store| store.set_hoarded(&kept))?;
        self.note_owed().await?;
        self.say("cache", format!("EndStatusWalk [{} objects]", kept.len()));
        let too_large = |(id, priority, bytes): &_| missing(*id, "No room", *bytes, *priority);
        report.missing.extend(left.iter().map(too_large));
        for (id, priority) in kept {
            match self.have(id, report.room - report.bytes).await {
                Ok(Have::Here(bytes)) => report.bytes += bytes,
                Ok(Have::NoRoom(bytes)) => report.missing.push(missing(id, "No room", bytes, priority)),
                Err(Error::Gone(_)) => {}
                Err(Error::NoSpace(_)) => report.missing.push(missing(id, "No room", 0, priority)),
                Err(error) => {
                    let why =
                        if is_disconnected(&error) { "Missing/Invalid".into() } else { error.to_string() };
                    report.missing.push(missing(id, &why, 0, priority));
                }
            }
        }
        self.note_owed().await?;
        Ok(report)
    }

    /// Of objects in order of priority, those that fit into `room` together, and those that do not, with their
    /// bytes. What is small may fit where something more wanted was too large.
    #[allow(clippy::type_complexity, reason = "two lists, told apart by what they hold")]
    fn what_fits(
        &self,
        order: Vec<(ObjectId, u32)>,
        room: u64,
    ) -> Result<(Vec<(ObjectId, u32)>, Vec<(ObjectId, u32, u64)>)> {
        let (mut kept, mut left, mut taken) = (Vec::new(), Vec::new(), 0);
        for (id, priority) in order {
            let (length, _) = self.length_here(id)?;
            if taken + length > room {
                left.push((id, priority, length));
                continue;
            }
            taken += length;
            kept.push((id, priority));
        }
        Ok((kept, left))
    }

    /// How many objects may be bound.
    pub(super) fn most_bound(&self) -> usize {
        (self.cache.space().objects * SHARE.0 / SHARE.1) as usize
    }

    /// Validates an object and fetches what it holds, if that is not more than `room`.
    async fn have(&self, id: ObjectId, room: u64) -> Result<Have> {
        if id.fid.is_directory() {
            self.directory(id).await?;
            return Ok(Have::Here(0));
        }
        let view = self.current(id).await?;
        if view.row.status.kind != Kind::File {
            return Ok(Have::Here(0));
        }
        let length = view.row.status.length;
        if view.row.has_contents() {
            return Ok(Have::Here(length));
        }
        if length > room {
            return Ok(Have::NoRoom(length));
        }
        let _held = self.cache.locks.hold([id]).await;
        self.contents_held(id).await?;
        Ok(Have::Here(length))
    }

    /// What the wishes want and what of it is here, without asking anybody.
    pub(crate) async fn hoard_look(&self) -> Result<Report> {
        let wishes = self.cache.store(|store| store.wishes())?;
        let bound = self.bind(&wishes, From::Cache, self.most_bound()).await?;
        self.looked_at(&bound, &wishes)
    }

    /// What a wish would want and what of it is here. Answers too how much of that no wish wants yet.
    pub(crate) async fn hoard_look_at(&self, wish: Wish) -> Result<(Report, u64)> {
        let most = self.most_bound();
        let bound = self.bind(std::slice::from_ref(&wish), From::Servers, most).await?;
        let wishes = self.cache.store(|store| store.wishes())?;
        let wanted = self.bind(&wishes, From::Cache, most).await?.objects;
        let unkept = bound.objects.keys().filter(|id| !wanted.contains_key(*id)).count() as u64;
        Ok((self.looked_at(&bound, &[wish])?, unkept))
    }

    fn looked_at(&self, bound: &Bound, wishes: &[Wish]) -> Result<Report> {
        let mut report = self.begun(bound, wishes);
        for (id, priority) in by_priority(bound) {
            match self.cache.view(id)? {
                Some(view) if view.row.status.kind == Kind::File => {
                    let length = view.row.status.length;
                    match view.row.has_contents() || view.row.status.siblings.is_empty() {
                        true => report.bytes += length,
                        false => report.missing.push(missing(id, "Missing/Invalid", length, priority)),
                    }
                }
                // It says so already, and why.
                _ if bound.unlisted.contains(&id) => {}
                Some(view) if view.row.status.kind == Kind::Directory && !view.row.complete => {
                    report.missing.push(missing(id, "Missing/Invalid", 0, priority));
                }
                Some(_) => {}
                None => report.missing.push(missing(id, "Missing/Invalid", 0, priority)),
            }
        }
        Ok(report)
    }

    fn begun(&self, bound: &Bound, wishes: &[Wish]) -> Report {
        let highest = wishes.first().map_or(0, |wish| wish.priority);
        let unbound = bound.unbound.iter().map(|(id, path, why)| Missing {
            id: *id,
            path: path.clone(),
            why: why.clone(),
            bytes: 0,
            priority: highest,
        });
        let mut report = Report {
            objects: bound.objects.len() as u64,
            bytes: 0,
            room: room_of(self.cache.space().total),
            missing: unbound.collect(),
        };
        if bound.full {
            let root = bound.objects.keys().next().copied();
            report.missing.extend(root.map(|id| missing(id, "No room: too many objects", 0, highest)));
        }
        report
    }
}

enum Have {
    Here(u64),
    NoRoom(u64),
}

fn missing(id: ObjectId, why: &str, bytes: u64, priority: u32) -> Missing {
    Missing { id, path: Vec::new(), why: why.to_owned(), bytes, priority }
}

/// The most wanted first; between equals, directories before what is in them.
fn by_priority(bound: &Bound) -> Vec<(ObjectId, u32)> {
    let mut order: Vec<(ObjectId, u32)> =
        bound.objects.iter().map(|(id, priority)| (*id, *priority)).collect();
    order.sort_by_key(|(id, priority)| (std::cmp::Reverse(*priority), !id.fid.is_directory(), *id));
    order
}
