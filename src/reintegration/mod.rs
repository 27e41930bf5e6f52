//! One path for all mutations of a volume: logged and applied here in one transaction, then sent to all
//! members, then off the log.
//!
//! ```text
//!              ┌── servers there, log empty ──▶ asks ── taken ──────────────────▶ done
//!  mutation ───┤                                 │ └─── refused ─▶ undone, told to its caller
//!              │                                 ▼ nobody answered
//!              └── apart, or behind the log ──▶ logged ── taken ───────────────▶ done
//!                                                ▲ │ └─── refused ─▶ given up, contents kept aside
//!                                                └─┘ cannot be taken now: waits
//! ```
//!
//! What asks has a caller who waits for what the servers say, and when one is refused, those built on it
//! are undone before it, last first, and begin again: what undoes them is exact. What is logged is
//! acknowledged: it is never undone, a taken name gets a second binding, and it waits for as long as it
//! takes. A directory is unlocked as soon as the change of one of its names is logged, so the next may be
//! built on it; all else that a mutation touches stays locked until its caller has an answer.
//!
//! On each lane one Apply is under way at a time; what is submitted meanwhile travels in the next one together.
//! What asks has a lane, and so has the log of each local user: nobody waits for what another user has to send,
//! unless it is built on that.
//!
//! ```text
//!  submit    a mutation begins       author    who writes it         undo    it did not come about
//!  pump      what waits is sent      contents  those of Stores       done    members hold it
//!  verdict   what answers mean       refused   it waits, or is given up
//!  modes     as people and the line want       report  what is pending, and why
//!  purge     given up by hand, or kept elsewhere
//!  restart   what an earlier run left          optimise  needless ones leave the log
//!  retire    authors that send nothing any more
//!  lasting   what is logged survives a power cut
//!  users     whose it is, and what goes on which lane
//! ```

mod author;
mod contents;
mod done;
mod lasting;
mod modes;
mod optimise;
mod pump;
mod purge;
mod refused;
mod report;
mod restart;
mod retire;
mod submit;
#[cfg(all(test, feature = "daemon"))]
mod tests;
mod undo;
mod users;
mod verdict;

pub use lasting::Unsynced;
pub use purge::{Checkpoint, Kept, KeptAs};
pub use report::{Line, VolumeReport};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use coda_proto::{Code, Dot, Fid, Past, Record, Refusal, ServerId, Status, VolumeId};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    cache::Held,
    cml::{Entry, Guard, Link, Mode, Weak, Why},
    error::Error,
    ops::{Core, locked},
    store::Change,
    venus::face::ObjectId,
};

/// The mutations of a volume that are not done.
pub struct Outbox {
    realm: u32,
    volume: VolumeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By number.
    users: BTreeMap<u32, users::User>,
    lanes: BTreeMap<users::Lane, users::Progress>,
    /// By place in the log.
    queue: BTreeMap<u64, Pending>,
    /// Which of them touch an object.
    by_object: HashMap<Fid, BTreeSet<u64>>,
    /// Those that ask.
    asks: BTreeSet<u64>,
    /// Records that have to wait.
    held: BTreeMap<u64, Hold>,
    /// Listings in which something shows that was given up.
    tainted: BTreeSet<Fid>,
    /// Records up to this place are sent, however young they are.
    forced: u64,
    /// The line costs money.
    metered: bool,
    mode: Mode,
    link: Link,
    /// On a weak line, who got the last chunk.
    relay: Option<ServerId>,
    /// Bytes of contents in the log.
    contents: u64,
    /// How often all that waits was told to go.
    nudges: u64,
    /// A record ended, or is logged that asked.
    ended: Arc<Notify>,
}

/// Why a logged record waits.
#[derive(Clone, Debug)]
pub struct Hold {
    /// In short.
    pub why: Why,
    /// What the servers said.
    pub detail: String,
    attempts: u32,
    until: Instant,
}

/// A mutation that is not done.
struct Pending {
    entry: Entry,
    /// It is acknowledged, or about to be, whatever the servers say.
    logged: bool,
    /// Some member may have got it.
    sent: bool,
    /// Somebody may hold it, although nobody said so.
    maybe: bool,
    waiting: Option<Box<Waiting>>,
    /// When it was made, or this run began.
    since: Instant,
}

/// How the log is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whoever the mount is for: whose it is what nobody else did.
    pub owner: u32,
    /// Records of one user in one volume, at most.
    pub records: u64,
    /// Bytes of contents, of one user in one volume, at most.
    pub bytes: u64,
    /// How much may be removed unasked.
    pub guard: Guard,
    /// Volumes become write-disconnected by themselves where the line is weak.
    pub adaptive: bool,
    /// What makes a line weak.
    pub weak: Weak,
    /// Bytes a second that what is sent behind people's backs may take; none: as many as there are.
    pub trickle: Option<u64>,
    /// The line costs money: nothing is sent from the log unless somebody asks.
    pub metered: bool,
    /// What is logged lasts through a power cut after so long. None: contents are made to last at once, and the
    /// rest is the database's matter.
    pub lasting: Option<std::time::Duration>,
    /// No caller waits longer for a log that is being sent.
    pub patience: std::time::Duration,
}

/// The caller of a mutation.
struct Waiting {
    /// The record, while it asks.
    record: Record,
    exclusive: bool,
    /// It can only be made while connected.
    connected: bool,
    container: Option<u64>,
    undo: Change,
    before: author::Before,
    _held: Held,
    reply: oneshot::Sender<Fate>,
}

/// How a mutation ended.
type Fate = std::result::Result<Dot, Failure>;

/// What a mutation is made with.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Its name.
    pub dot: Dot,
    /// Its Lamport time.
    pub lamport: u64,
    /// The clock.
    pub time: i64,
    /// The same, but later than the change time of anything that it touches.
    pub changed: i64,
    /// This machine, for people.
    pub host: String,
    /// The fid of a file or symbolic link that it makes.
    pub file: Fid,
    /// The fid of a directory that it makes.
    pub directory: Fid,
}

/// An object that a mutation touches, as its author saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub fid: Fid,
    /// What it included.
    pub past: Past,
    /// The highest Lamport time in it.
    pub lamport: u64,
    /// When it last changed.
    pub changed: i64,
    /// When the contents were written that are to be stored: that is the change, and not that they are stored.
    pub written: Option<i64>,
}

impl Seen {
    /// An object as it is cached.
    pub fn of(status: &Status) -> Seen {
        let Status { fid, lamport, ctime, .. } = *status;
        Seen { fid, past: status.past.clone(), lamport, changed: ctime, written: None }
    }
}

/// Why a mutation is not done. It is undone here.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Something else on which it was built is not done: build it anew.
    Again,
    /// The members have something else than it was based on: look again.
    Stale(Refusal),
    /// No.
    Refused(Refusal),
    /// The contents were not there.
    NoUpload,
    /// Nobody answered, and it cannot wait.
    Away,
    /// It went wrong here.
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Here(error)
    }
}

impl Failure {
    /// What it means for an operation on `what`.
    pub fn about(self, what: &str) -> Error {
        match self {
            Failure::Stale(refusal) if refusal.code == Code::Gone => Error::refused(what, &refusal),
            Failure::Stale(_) | Failure::NoUpload | Failure::Again => Error::Busy(what.to_owned()),
            Failure::Refused(refusal) => Error::refused(what, &refusal),
            Failure::Away => Error::Disconnected(what.to_owned()),
            Failure::Here(error) => error,
        }
    }
}

impl Outbox {
    /// The object of a fid of its volume.
    fn object(&self, fid: Fid) -> ObjectId {
        ObjectId { realm: self.realm, fid }
    }

    fn root(&self) -> ObjectId {
        self.object(Fid::root(self.volume))
    }
}

impl Core {
    fn outbox(&self, realm: u32, volume: VolumeId) -> Arc<Outbox> {
        if let Some(outbox) = locked(&self.outboxes).get(&(realm, volume)) {
            return outbox.clone();
        }
        let outbox = Outbox { realm, volume, state: Mutex::default() };
        {
            let mut state = locked(&outbox.state);
            state.mode = self.kept_mode(&outbox);
            state.metered = self.settings.metered;
        }
        locked(&self.outboxes).entry((realm, volume)).or_insert(Arc::new(outbox)).clone()
    }

    /// How many mutations are not done.
    pub fn unsent(&self) -> u64 {
        let outboxes: Vec<_> = locked(&self.outboxes).values().cloned().collect();
        outboxes.iter().map(|outbox| locked(&outbox.state).queue.len() as u64).sum()
    }

    /// How many mutations of a volume are not done, and their bytes.
    pub fn pending(&self, realm: u32, volume: VolumeId) -> (u64, u64) {
        let Some(outbox) = locked(&self.outboxes).get(&(realm, volume)).cloned() else { return (0, 0) };
        let state = locked(&outbox.state);
        (state.queue.len() as u64, state.contents)
    }
}
