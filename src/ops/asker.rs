//! On whose behalf something is looked at, where that makes a difference: at a miss.
//!
//! Programs that read everything, indexers and thumbnailers, get what is here and cause nothing to be fetched.
//! A process tree that *rehearses* being offline (`cfs offline`) gets what is here too, and every miss is noted
//! for whoever began the rehearsal. What is here is never asked about: who asks is looked up only when a server
//! would have to be.
//!
//! What a rehearsal changes is logged, as it would be offline, and sent from the log as soon as may be: it is done in
//! earnest. What an indexer changes is changed as ever.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Core, Result, locked, path::text};
use crate::{
    env::Processes,
    error::Error,
    venus::face::{Caller, ObjectId},
};

/// The kernel cuts the names of processes to so many bytes.
const COMM: usize = 15;
/// Processes above another, at most: more than any tree has.
const DEPTH: usize = 256;
/// Misses that one rehearsal notes, at most.
const NOTED: usize = 100_000;

tokio::task_local! {
    /// The process for which this is done.
    static ASKER: u32;
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Fetch it.
    Somebody,
    /// A program for which nothing is fetched.
    Indexer,
    /// Somebody who wants to know how it would be without servers.
    Rehearser(u32),
}

/// What somebody looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Looked<'a> {
    /// An object.
    At(ObjectId),
    /// A name in a directory.
    For(ObjectId, &'a [u8]),
}

/// What was missing in a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Below the mount point, as far as that is known.
    pub path: String,
    /// Bytes, where they are known.
    pub bytes: Option<u64>,
    /// How often somebody asked.
    pub times: u64,
}

/// Who is treated differently.
pub(crate) struct Askers {
    processes: Processes,
    indexers: Vec<Vec<u8>>,
    /// What was missed, by the process that began the rehearsal.
    rehearsals: Mutex<BTreeMap<u32, BTreeMap<String, Missed>>>,
    /// How many there are: looked at for every request.
    rehearsing: AtomicUsize,
}

fn cut(name: &str) -> Vec<u8> {
    name.as_bytes().iter().take(COMM).copied().collect()
}

impl Askers {
    pub fn new(processes: Processes, indexers: &[String]) -> Askers {
        Askers {
            processes,
            indexers: indexers.iter().map(|name| cut(name)).collect(),
            rehearsals: Mutex::default(),
            rehearsing: AtomicUsize::new(0),
        }
    }

    fn matter(&self) -> bool {
        !self.indexers.is_empty() || self.rehearsing.load(Ordering::Relaxed) > 0
    }

    /// Who a process is. Nobody in particular, where that cannot be told.
    fn who(&self, pid: u32) -> Asker {
        let Some(process) = (self.processes)(pid) else { return Asker::Somebody };
        if self.indexers.contains(&cut(&process.name)) {
            return Asker::Indexer;
        }
        if self.rehearsing.load(Ordering::Relaxed) == 0 {
            return Asker::Somebody;
        }
        let mut line = vec![process.leader];
        let mut above = process.parent;
        while above > 1 && line.len() < DEPTH {
            line.push(above);
            above = (self.processes)(above).map_or(0, |process| process.parent);
        }
        let rehearsals = locked(&self.rehearsals);
        let found = line.into_iter().find(|pid| rehearsals.contains_key(pid));
        found.map_or(Asker::Somebody, Asker::Rehearser)
    }

    /// A process and those that it starts rehearse from now on.
    fn begin(&self, pid: u32) {
        let mut rehearsals = locked(&self.rehearsals);
        // Whoever began and is gone asks no more.
        rehearsals.retain(|pid, _| (self.processes)(*pid).is_some());
        rehearsals.insert(pid, BTreeMap::new());
        self.rehearsing.store(rehearsals.len(), Ordering::Relaxed);
    }

    fn end(&self, pid: u32) -> Option<Vec<Missed>> {
        let mut rehearsals = locked(&self.rehearsals);
        let missed = rehearsals.remove(&pid);
        self.rehearsing.store(rehearsals.len(), Ordering::Relaxed);
        missed.map(|missed| missed.into_values().collect())
    }

    fn note(&self, pid: u32, path: String, bytes: Option<u64>) {
        let mut rehearsals = locked(&self.rehearsals);
        let Some(missed) = rehearsals.get_mut(&pid) else { return };
        if let Some(again) = missed.get_mut(&path) {
            again.times += 1;
            again.bytes = bytes.or(again.bytes);
        } else if missed.len() < NOTED {
            missed.insert(path.clone(), Missed { path, bytes, times: 1 });
        }
    }
}

impl Core {
    /// Looks at something for a caller.
    pub(crate) async fn on_behalf<T>(
        &self,
        who: Caller,
        at: Looked<'_>,
        look: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.askers.matter() {
            return look.await;
        }
        let seen = self.as_caller(who, look).await;
        if let Err(error) = &seen
            && (error.is_disconnected() || self.may_be_there(error, at))
            && self.askers.rehearsing.load(Ordering::Relaxed) > 0
            && let Asker::Rehearser(pid) = self.askers.who(who.pid)
        {
            self.note_miss(pid, at);
        }
        seen
    }

    /// The same, where nothing can be missing.
    pub(crate) async fn as_caller<T>(&self, who: Caller, what: impl Future<Output = T>) -> T {
        match self.askers.matter() {
            true => ASKER.scope(who.pid, what).await,
            false => what.await,
        }
    }

    /// Whether this is done in a rehearsal: no server is to be asked.
    pub(crate) fn rehearses(&self) -> bool {
        // Looking somebody up takes longer than all else that a change needs to know.
        self.askers.rehearsing.load(Ordering::Relaxed) > 0 && matches!(self.asker(), Asker::Rehearser(_))
    }

    /// Whether a name is missing in a listing that may have changed meanwhile: then it may be there, and not here.
    fn may_be_there(&self, error: &Error, at: Looked<'_>) -> bool {
        let Looked::For(dir, _) = at else { return false };
        matches!(error, Error::NotFound(_))
            && self
                .cache
                .view(dir)
                .is_ok_and(|view| view.is_some_and(|view| !view.stands() || !view.row.complete))
    }

    fn note_miss(&self, pid: u32, at: Looked<'_>) {
        let (path, bytes) = match at {
            Looked::At(id) => {
                let status = self.cache.peek(id).ok().flatten().map(|row| row.status.clone());
                let length = status.filter(|status| status.kind == coda_proto::Kind::File);
                (self.shown(id), length.map(|status| status.length))
            }
            Looked::For(dir, name) => (format!("{}/{}", self.shown(dir), text(name)), None),
        };
        self.askers.note(pid, path, bytes);
    }

    /// Contents or a listing are missing: whether they may be fetched for whoever asks.
    pub(crate) fn may_fetch(&self, id: ObjectId) -> Result<()> {
        match self.asker() {
            Asker::Somebody => Ok(()),
            Asker::Indexer => Err(Error::NotFetched(id.fid.to_string())),
            Asker::Rehearser(_) => Err(Error::Disconnected(id.fid.to_string())),
        }
    }

    /// A status is missing or in doubt: whether servers may be asked for whoever asks.
    pub(crate) fn may_ask(&self, id: ObjectId) -> Result<()> {
        match self.asker() {
            Asker::Somebody | Asker::Indexer => Ok(()),
            Asker::Rehearser(_) => Err(Error::Disconnected(id.fid.to_string())),
        }
    }

    fn asker(&self) -> Asker {
        ASKER.try_with(|pid| self.askers.who(*pid)).unwrap_or(Asker::Somebody)
    }

    /// A process, and what it starts, sees the tree as if no server could be reached.
    pub(crate) fn rehearse(&self, pid: u32) {
        self.askers.begin(pid);
    }

    /// Ends that. Answers what was missing; nothing where nobody rehearsed.
    pub(crate) fn rehearsed(&self, pid: u32) -> Option<Vec<Missed>> {
        self.askers.end(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Process;

    /// 1 is the first, 10 began a rehearsal, 12 is a thread of its grandchild 11, 20 an indexer.
    fn processes(pid: u32) -> Option<Process> {
        let process = |name: &str, parent, leader| Some(Process { name: name.into(), parent, leader });
        match pid {
            1 => process("init", 0, 1),
            10 => process("cfs", 1, 10),
            11 => process("make", 10, 11),
            12 => process("worker", 11, 12),
            13 => process("make", 10, 11),
            20 => process("tracker-miner-f", 1, 20),
            30 => process("bash", 1, 30),
            _ => None,
        }
    }

    #[test]
    fn who_asks_is_told_by_name_and_by_descent() {
        let askers = Askers::new(processes, &["tracker-miner-fs-3".into(), "updatedb".into()]);
        assert_eq!(askers.who(20), Asker::Indexer);
        assert_eq!(
            (askers.who(12), askers.who(99), askers.who(0)),
            (Asker::Somebody, Asker::Somebody, Asker::Somebody)
        );
        askers.begin(10);
        for pid in [10, 11, 12, 13] {
            assert_eq!(askers.who(pid), Asker::Rehearser(10), "{pid}");
        }
        assert_eq!((askers.who(30), askers.who(20)), (Asker::Somebody, Asker::Indexer));
        askers.note(10, "a".into(), None);
        askers.note(10, "a".into(), Some(5));
        askers.note(99, "b".into(), None);
        assert_eq!(askers.end(10), Some(vec![Missed { path: "a".into(), bytes: Some(5), times: 2 }]));
        assert_eq!((askers.who(12), askers.end(10)), (Asker::Somebody, None));
    }

    #[test]
    fn whoever_began_and_is_gone_is_forgotten() {
        let askers = Askers::new(processes, &[]);
        askers.begin(99);
        askers.begin(10);
        assert_eq!(askers.end(99), None);
        assert!(askers.matter());
        askers.end(10);
        assert!(!askers.matter());
    }
}
