//! A replica with an author of its own, and the history of all records made.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{
    Acl, Author, Base, Contents, Dot, Fid, Kind, Op, Record, Refusal, Rights, VolumeId,
    merge::{
        ApplyError, Binding, Head, ObjectState, Outcome, Replica, apply, join_objects, memory::Memory,
        shown::parent_of, state_of,
    },
};

pub const VOLUME: VolumeId = VolumeId(0x7f00_0001);

pub fn root() -> Fid {
    Fid::root(VOLUME)
}

/// A record with what was true when it was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub record: Record,
    /// What its author's state held.
    pub seen: BTreeSet<Dot>,
    /// The origins that stood at the places it takes away, by object.
    pub takes: BTreeMap<Fid, BTreeSet<Dot>>,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub made: BTreeMap<Dot, Made>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    pub author: Author,
    pub count: u64,
    pub state: Memory,
    pub seen: BTreeSet<Dot>,
}

impl Site {
    pub fn new(author: u64) -> Site {
        let mut root = Head::root(VOLUME, &Acl::default(), 0o755, 0);
        root.acls.clear();
        root.registers.remove(&b"acl"[..]);
        let birth = Dot::new(Author(1), 1);
        Site {
            author: Author(author),
            count: 0,
            state: Memory::with_root(root),
            seen: BTreeSet::from([birth]),
        }
    }

    /// The same state under another author.
    pub fn fork(&self, author: u64) -> Site {
        Site { author: Author(author), count: 0, ..self.clone() }
    }

    /// Makes a record of what this site sees, and applies it here.
    pub fn make(&mut self, history: &mut History, logged: bool, op: Op) -> Result<Record, Refusal> {
        let lamport = self.lamport() + 1;
        let base = |fid: Fid| Some(Base { fid, past: self.state.head(fid).unwrap()?.past });
        // Clocks go wrong.
        let clock = lamport as i64 * 1000 + self.author.0 as i64 % 3 * 5000;
        let seen =
            op.touches().into_iter().filter_map(|fid| Some(self.state.head(fid).unwrap()?.ctime() + 1));
        let changed = seen.fold(clock, i64::max);
        let record = Record {
            dot: Dot::new(self.author, self.count + 1),
            lamport,
            time: lamport as i64 * 1000,
            changed,
            bases: op.touches().into_iter().filter_map(base).collect(),
            logged,
            host: String::new(),
            op,
        };
        let made = Made { record: record.clone(), seen: self.seen.clone(), takes: self.takes(&record.op) };
        match apply(&mut self.state, &record) {
            Ok(Outcome::Applied { .. }) => {}
            Ok(Outcome::Repeated) => panic!("a new record cannot be a repeated one: {record:?}"),
            Err(ApplyError::Refused(refusal)) => return Err(refusal),
        }
        self.count += 1;
        self.seen.insert(record.dot);
        history.made.insert(record.dot, made);
        Ok(record)
    }

    fn takes(&self, op: &Op) -> BTreeMap<Fid, BTreeSet<Dot>> {
        let places: Vec<(Fid, &[u8], Fid)> = match op {
            Op::Remove { parent, name, fid } | Op::RemoveDir { parent, name, fid } => {
                vec![(*parent, name, *fid)]
            }
            Op::Rename { from, from_name, to, to_name, fid, replaced } => {
                let mut places = vec![(*from, &from_name[..], *fid)];
                places.extend(replaced.map(|replaced| (*to, &to_name[..], replaced)));
                places
            }
            _ => Vec::new(),
        };
        let mut takes = BTreeMap::new();
        for (dir, name, fid) in places {
            let here: Vec<Binding> =
                self.state.bindings_in(dir).filter(|b| b.name == name && b.fid == fid).cloned().collect();
            let bound = here.iter().filter(|b| !b.dots.is_empty()).map(|b| b.origin);
            let mut origins: BTreeSet<Dot> = bound.collect();
            if origins.is_empty() {
                origins.extend(here.iter().map(|b| b.origin));
            }
            takes.insert(fid, origins);
        }
        takes
    }

    /// A record arrives, perhaps late, perhaps again. Exactly once is checked here.
    pub fn receive(&mut self, record: &Record) -> Result<Outcome, Refusal> {
        let before = self.state.clone();
        match apply(&mut self.state, record) {
            Ok(Outcome::Repeated) => {
                assert!(self.seen.contains(&record.dot), "{} was skipped and is not here", record.dot);
                assert_eq!(self.state, before);
                Ok(Outcome::Repeated)
            }
            Ok(applied) => {
                assert!(self.seen.insert(record.dot), "{} was applied twice", record.dot);
                Ok(applied)
            }
            Err(ApplyError::Refused(refusal)) => {
                assert_eq!(self.state, before, "a refused record leaves no trace");
                Err(refusal)
            }
        }
    }

    /// All of another site's state arrives.
    pub fn join(&mut self, other: &Site) {
        join_objects(&mut self.state, other.objects()).unwrap();
        self.seen.extend(&other.seen);
    }

    pub fn joined(&self, other: &Site) -> Site {
        let mut joined = self.clone();
        joined.join(other);
        joined
    }

    pub fn objects(&self) -> Vec<ObjectState> {
        let fids: Vec<Fid> = self.state.heads().map(|head| head.fid).collect();
        fids.into_iter().map(|fid| state_of(&self.state, fid).unwrap().unwrap()).collect()
    }

    pub fn lamport(&self) -> u64 {
        let heads = self.state.heads().map(Head::lamport);
        let tombstones = self.state.tombstones().map(|tombstone| tombstone.lamport);
        heads.chain(self.state.bindings().map(Binding::lamport)).chain(tombstones).max().unwrap_or(0)
    }

    /// Directories and others that show, in order of fid.
    pub fn shown(&self) -> (Vec<Fid>, Vec<Binding>) {
        let places: Vec<Binding> = self.state.bindings().filter(|place| place.shown).cloned().collect();
        let mut dirs = BTreeSet::from([root()]);
        dirs.extend(places.iter().map(|place| place.fid).filter(|fid| fid.is_directory()));
        (dirs.into_iter().collect(), places)
    }

    /// The shown path of an object.
    pub fn path(&self, fid: Fid) -> String {
        if fid.is_root() {
            return String::new();
        }
        let place = self.state.bindings_of(fid).unwrap().into_iter().find(|place| place.shown);
        let place = place.unwrap_or_else(|| panic!("{fid} does not show"));
        format!("{}/{}", self.path(place.dir), String::from_utf8_lossy(&place.name))
    }

    /// Everything shown as text, sorted: `path`, with `!` where marked.
    pub fn tree(&self) -> Vec<String> {
        let (_, places) = self.shown();
        let line = |place: &Binding| {
            let marked = self.state.head(place.fid).unwrap().is_some_and(|head| head.marked);
            let name = String::from_utf8_lossy(&place.name);
            format!("{}/{name}{}", self.path(place.dir), if marked { "!" } else { "" })
        };
        let mut tree: Vec<String> = places.iter().map(line).collect();
        tree.sort();
        tree
    }

    /// What must hold of every state, whatever happened: a tree, no orphans, marks where they belong.
    pub fn check_tree(&self) {
        for place in self.state.bindings() {
            assert!(!place.is_gone());
            let head = self.state.head(place.fid).unwrap().expect("what is bound is known");
            assert_eq!(place.fid.is_directory(), head.kind == Kind::Directory);
        }
        for head in self.state.heads() {
            let places = self.state.bindings_of(head.fid).unwrap();
            let shown: Vec<&Binding> = places.iter().filter(|place| place.shown).collect();
            assert!(places.is_empty() || !shown.is_empty(), "{} is bound and shows nowhere", head.fid);
            if head.fid.is_directory() && !head.fid.is_root() {
                assert!(shown.len() <= 1, "{} shows twice", head.fid);
            }
            let names: BTreeSet<_> = shown.iter().map(|place| (place.dir, &place.name)).collect();
            assert_eq!(names.len(), shown.len(), "a name shows one object once");
            for place in shown {
                let (mut at, mut steps) = (place.dir, 0);
                while !at.is_root() {
                    at = parent_of(&self.state, at).unwrap().unwrap_or_else(|| panic!("{at} is cut off"));
                    steps += 1;
                    assert!(steps < 100, "{at} is on a cycle");
                }
            }
            let marked = head.acls.len() > 1 || places.iter().any(|place| place.derived);
            assert_eq!(head.marked, marked, "{}", head.fid);
        }
    }
}

pub fn name(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

pub fn store(fid: Fid, text: &str) -> Op {
    Op::Store {
        fid,
        length: text.len() as u64,
        hash: [text.len() as u8; 32],
        mtime: 7,
        contents: Contents::Inline(text.as_bytes().to_vec().into()),
        mode: None,
    }
}

pub fn acl(who: &str, rights: u32) -> Acl {
    Acl { positive: [(who.to_owned(), Rights(rights))].into(), ..Acl::default() }
}
