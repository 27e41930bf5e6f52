//! Replaying the log as it is kept comes to the same as replaying everything that was done.

use std::{collections::BTreeMap, convert::Infallible};

use coda_proto::{
    Acl, Author, Base, Contents, Dot, Fid, Kind, Op, Past, Record, VolumeId,
    merge::{ApplyError, Head, Replica, apply, memory::Memory},
};
use proptest::prelude::*;

use super::{Earlier, Forgotten, cancel, fold, subject, without};

const VOLUME: VolumeId = VolumeId(0x7f00_0001);
const US: Author = Author(5);
/// Another user of the same machine.
const THEM: Author = Author(6);
const NAMES: [&str; 3] = ["a", "b", "c"];

fn root() -> Fid {
    Fid::root(VOLUME)
}

/// A volume with a directory and a file.
fn volume() -> Memory {
    let mut volume = Memory::with_root(Head::root(VOLUME, &Acl::default(), 0o755, 0));
    let (dir, file) = (Fid::directory(VOLUME, Author(2), 1), Fid::file(VOLUME, Author(2), 2));
    let ops = [
        Op::MakeDir { parent: root(), name: b"c".to_vec(), fid: dir, mode: 0o755, owner: 0 },
        Op::Create { parent: root(), name: b"a".to_vec(), fid: file, mode: 0o644, owner: 0 },
        store(file, 0),
    ];
    let mut seq = 0;
    for op in ops {
        seq += 1;
        let record = record(&volume, Dot::new(Author(2), seq), seq, op);
        assert!(apply(&mut volume, &record).is_ok());
    }
    volume
}

fn store(fid: Fid, what: u64) -> Op {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&what.to_le_bytes());
    let contents = Contents::Uploaded([0; 16]);
    Op::Store { fid, length: what, hash, mtime: what as i64, contents, mode: None }
}

/// A record on a replica's state.
fn record(replica: &Memory, dot: Dot, lamport: u64, op: Op) -> Record {
    let base = |fid: Fid| Some(Base { fid, past: replica.head(fid).unwrap()?.past });
    let bases = op.touches().into_iter().filter_map(base).collect();
    let time = lamport as i64;
    Record { dot, lamport, time, changed: time, bases, logged: true, host: String::new(), op }
}

/// What somebody sees: each place, and what is there. Times of directories are not kept exactly.
fn shown(replica: &Memory) -> Vec<String> {
    let mut lines = Vec::new();
    for binding in replica.bindings().filter(|binding| binding.shown) {
        let head = replica.head(binding.fid).unwrap().unwrap();
        let mtime = (head.kind != Kind::Directory).then(|| head.mtime());
        let siblings: Vec<_> = head.siblings.iter().map(|sibling| sibling.length).collect();
        lines.push(format!(
            "{}/{} {} {:?} {siblings:?} {:o} {} {mtime:?} {:?}",
            binding.dir,
            String::from_utf8_lossy(&binding.name),
            binding.fid,
            head.kind,
            head.mode(),
            head.owner(),
            head.xattrs()
        ));
    }
    lines.sort();
    lines
}

/// A client that is apart: what it did, and what it keeps of that.
struct Client {
    local: Memory,
    all: Vec<Record>,
    log: BTreeMap<u64, Record>,
    sent: u64,
    pasts: BTreeMap<Fid, Past>,
    seq: u64,
}

impl Client {
    fn new(volume: &Memory) -> Client {
        let pasts = volume.heads().map(|head| (head.fid, head.past.clone())).collect();
        let (all, log) = Default::default();
        Client { local: volume.clone(), all, log, sent: 0, pasts, seq: 0 }
    }

    /// Does something, if it can be done.
    fn act(&mut self, op: Op) -> bool {
        self.act_as(US, op)
    }

    fn act_as(&mut self, author: Author, op: Op) -> bool {
        self.seq += 1;
        let (dot, lamport) = (Dot::new(author, self.seq), 100 + self.seq);
        let full = record(&self.local, dot, lamport, op.clone());
        let connected = Record { logged: false, ..full.clone() };
        if apply(&mut self.local, &connected).is_err() {
            return false;
        }
        self.all.push(full);
        let bases = op.touches().into_iter().filter_map(|fid| {
            Some(Base { fid, past: self.pasts.get(&fid).filter(|past| !past.is_empty())?.clone() })
        });
        let new = Record {
            dot,
            lamport,
            time: lamport as i64,
            changed: lamport as i64,
            bases: bases.collect(),
            logged: true,
            host: String::new(),
            op,
        };
        for fid in new.op.touches() {
            self.pasts.entry(fid).or_default().add(dot);
        }
        self.keep(new);
        true
    }

    fn keep(&mut self, new: Record) {
        let subject = subject(&new.op);
        let last_name = subject
            .is_some_and(|fid| self.local.bindings_of(fid).unwrap().iter().all(|binding| !binding.shown));
        let about = self.log.iter().filter(|(_, r)| subject.is_some_and(|s| r.op.touches().contains(&s)));
        let earlier: Vec<Earlier> = about
            .map(|(log, record)| {
                let sent = *log <= self.sent || record.dot.author != new.dot.author;
                Earlier { log: *log, op: &record.op, sent }
            })
            .collect();
        let plan = cancel(&earlier, &new.op, last_name);
        let read = |log: u64| Ok::<_, Infallible>(self.log[&log].clone());
        let next = |fid: Fid, log: u64| {
            let behind = self.log.range(log + 1..).filter(|(_, record)| record.op.touches().contains(&fid));
            behind.map(|(log, _)| *log).collect()
        };
        let Ok(folded) = fold(plan, &new, read, next);
        for log in &folded.gone {
            self.log.remove(log);
        }
        self.log.extend(folded.changed);
        for forgotten in folded.forgotten {
            if let Some(past) = self.pasts.get_mut(&forgotten.fid)
                && let Some(left) = forgotten.out_of(past)
            {
                *past = left;
            }
        }
        if let Some(record) = folded.new {
            self.log.insert(record.dot.seq, record);
        }
    }
}

/// Replays a log; what is refused is given up, as reintegration does. Answers how many were.
fn replay(replica: &mut Memory, log: &BTreeMap<u64, Record>) -> usize {
    let mut log = log.clone();
    let mut given_up = 0;
    while let Some((at, record)) = log.pop_first() {
        match apply(replica, &record) {
            Ok(_) => {}
            Err(ApplyError::Refused(_)) => {
                given_up += 1;
                let read = |behind: u64| Ok::<_, Infallible>(log.get(&behind).unwrap_or(&record).clone());
                let next = |fid: Fid, after: u64| {
                    let behind = log.range(after + 1..).filter(|(_, r)| r.op.touches().contains(&fid));
                    behind.map(|(at, _)| *at).collect()
                };
                let Ok(folded) = without(at, &record, read, next);
                log.extend(folded.changed);
            }
        }
    }
    given_up
}

/// An operation on whatever these numbers mean in a replica.
fn draw(
    replica: &Memory,
    kind: u8,
    first: u8,
    second: u8,
    number: u32,
    who: Author,
    keeps: bool,
) -> Option<Op> {
    let shown: Vec<_> = replica.bindings().filter(|binding| binding.shown).cloned().collect();
    let dirs: Vec<Fid> =
        std::iter::once(root()).chain(shown.iter().map(|b| b.fid).filter(|fid| fid.is_directory())).collect();
    let dir = dirs[first as usize % dirs.len()];
    let name = NAMES[second as usize % NAMES.len()].as_bytes().to_vec();
    let place = (!shown.is_empty()).then(|| shown[first as usize % shown.len()].clone());
    let ours = |fid: Fid| !keeps || fid.unique == who.0;
    Some(match kind % 8 {
        0 => Op::Create { parent: dir, name, fid: Fid::file(VOLUME, who, number), mode: 0o644, owner: 0 },
        1 => {
            let fid = Fid::directory(VOLUME, who, number);
            Op::MakeDir { parent: dir, name, fid, mode: 0o755, owner: 0 }
        }
        2 | 3 => {
            let file = place.filter(|place| !place.fid.is_directory())?.fid;
            store(file, u64::from(number))
        }
        4 => {
            let fid = place?.fid;
            let set = Some(i64::from(number));
            let (mode, mtime, atime) = match second % 4 {
                0 => (Some(0o600 + number % 7), None, None),
                1 => (None, set, None),
                2 => (None, None, set),
                _ => (Some(0o640), set, set),
            };
            Op::SetAttr { fid, mode, owner: None, group: None, mtime, atime }
        }
        5 => {
            let place = place.filter(|place| ours(place.fid))?;
            let (parent, name, fid) = (place.dir, place.name, place.fid);
            match fid.is_directory() {
                true => Op::RemoveDir { parent, name, fid },
                false => Op::Remove { parent, name, fid },
            }
        }
        6 => {
            let place = place?;
            let there = shown.iter().find(|other| other.dir == dir && other.name == name);
            let replaced = there.map(|there| there.fid);
            if replaced.is_some_and(|replaced| !ours(replaced)) {
                return None;
            }
            let (from, from_name) = (place.dir, place.name);
            Op::Rename { from, from_name, to: dir, to_name: name, fid: place.fid, replaced }
        }
        _ => {
            let value = second.is_multiple_of(2).then(|| vec![second]);
            Op::SetXattr { fid: place?.fid, name: b"user.x".to_vec(), value }
        }
    })
}

fn removes_directory(op: &Op) -> bool {
    match op {
        Op::RemoveDir { .. } => true,
        Op::Rename { replaced, .. } => replaced.is_some_and(Fid::is_directory),
        _ => false,
    }
}

type Steps = Vec<(u8, u8, u8, bool)>;

/// Plays a client's steps, after somebody else's at the servers. `keeps`: it removes only what it made.
fn play(steps: &Steps, others: &Steps, keeps: bool) -> Result<(usize, usize), TestCaseError> {
    let mut server = volume();
    let mut client = Client::new(&server);
    for (at, (kind, first, second, sends)) in steps.iter().enumerate() {
        if let Some(op) = draw(&client.local, *kind, *first, *second, at as u32 + 1, US, keeps) {
            client.act(op);
        }
        if *sends && second % 8 == 0 {
            // All that is left so far may have arrived somewhere.
            client.sent = client.seq;
        }
    }
    for (at, (kind, first, second, _)) in others.iter().enumerate() {
        let (seq, them) = (at as u64 + 1, Author(9));
        // A directory that others removed comes back with the first thing that was made in it. Where that one was
        // removed again, the log that is kept brings it back later, or not at all.
        if let Some(op) = draw(&server, *kind, *first, *second, at as u32 + 1, them, false)
            && !removes_directory(&op)
        {
            let record = record(&server, Dot::new(them, seq), 50 + seq, op);
            let _ = apply(&mut server, &Record { logged: false, ..record });
        }
    }
    let (mut whole, mut short) = (server.clone(), server);
    let all: BTreeMap<u64, Record> = client.all.iter().map(|r| (r.dot.seq, r.clone())).collect();
    let refused = (replay(&mut whole, &all), replay(&mut short, &client.log));
    prop_assert_eq!(shown(&whole), shown(&short), "{:#?}\n{:#?}", &client.all, &client.log);
    if others.is_empty() {
        prop_assert_eq!(refused, (0, 0));
        prop_assert_eq!(shown(&short), shown(&client.local));
        for (fid, past) in &client.pasts {
            let there = short.head(*fid).unwrap().map(|head| head.past);
            prop_assert!(there.is_none_or(|there| there == *past), "{} is at another version", fid);
        }
    }
    Ok((all.len(), client.log.len()))
}

/// Plays what two users of a machine do in turns, and sends their logs in some order that keeps what is built on
/// what: what touches the same objects.
fn play_two(steps: &Steps, order: &[bool]) -> Result<(), TestCaseError> {
    let mut client = Client::new(&volume());
    for (at, (kind, first, second, other)) in steps.iter().enumerate() {
        let author = if *other { THEM } else { US };
        if let Some(op) = draw(&client.local, *kind, *first, *second, at as u32 + 1, author, false) {
            client.act_as(author, op);
        }
    }
    let (mut server, mut log) = (volume(), client.log.clone());
    for last in order.iter().chain(std::iter::repeat(&false)) {
        let is_free = |(at, record): &(&u64, &Record)| {
            let touched = record.op.touches();
            let mut earlier = log.range(..**at).map(|(_, earlier)| earlier.op.touches());
            !earlier.any(|fids| fids.iter().any(|fid| touched.contains(fid)))
        };
        let mut free = log.iter().filter(is_free).map(|(at, _)| *at);
        let Some(next) = (if *last { free.next_back() } else { free.next() }) else { break };
        let record = log.remove(&next).unwrap();
        prop_assert!(apply(&mut server, &record).is_ok(), "{record:?} is refused");
    }
    prop_assert!(log.is_empty());
    prop_assert_eq!(shown(&server), shown(&client.local), "{:#?}", &client.log);
    for (fid, past) in &client.pasts {
        let there = server.head(*fid).unwrap().map(|head| head.past);
        prop_assert!(there.is_none_or(|there| there == *past), "{} is at another version", fid);
    }
    Ok(())
}

fn steps(most: usize) -> impl Strategy<Value = Steps> {
    proptest::collection::vec(any::<(u8, u8, u8, bool)>(), 0..most)
}

/// How many logs are drawn, of each kind: as many as PROPTEST_CASES says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_log_as_it_is_kept_does_what_all_of_it_would_do(steps in steps(40)) {
        play(&steps, &Steps::new(), false)?;
    }

    #[test]
    fn what_two_users_did_may_be_sent_in_any_order_that_keeps_what_is_built_on_what(
        steps in steps(40),
        order in proptest::collection::vec(any::<bool>(), 40),
    ) {
        play_two(&steps, &order)?;
    }

    #[test]
    fn and_also_where_others_were_active(mine in steps(25), theirs in steps(8)) {
        play(&mine, &theirs, true)?;
    }
}

#[test]
fn folding_makes_logs_much_shorter() {
    // Ten times: made, written, renamed over the last one.
    let mut client = Client::new(&volume());
    for number in 10..20 {
        let fid = Fid::file(VOLUME, US, number);
        let old = client.local.bindings_named(root(), b"a").unwrap();
        let replaced = old.iter().find(|binding| binding.shown).map(|binding| binding.fid);
        let (from_name, to_name) = (b"tmp".to_vec(), b"a".to_vec());
        assert!(client.act(Op::Create {
            parent: root(),
            name: from_name.clone(),
            fid,
            mode: 0o644,
            owner: 0
        }));
        assert!(client.act(store(fid, u64::from(number))));
        let (from, to) = (root(), root());
        assert!(client.act(Op::Rename { from, from_name, to, to_name, fid, replaced }));
    }
    assert_eq!((client.all.len(), client.log.len()), (30, 4));
    let stores = client.log.values().filter(|record| matches!(record.op, Op::Store { .. }));
    assert_eq!(stores.count(), 1);
}

#[test]
fn an_update_that_never_was_is_in_no_past() {
    let fid = root();
    let past: Past = [Dot::new(Author(1), 1), Dot::new(US, 7)].into_iter().collect();
    let first = Forgotten { fid, dot: Dot::new(US, 7), before: 0 };
    assert_eq!(first.out_of(&past), Some(Past::of(Dot::new(Author(1), 1))));
    let second = Forgotten { before: 3, ..first };
    assert_eq!(second.out_of(&past).unwrap().seq(US), 3);
    assert_eq!(Forgotten { dot: Dot::new(US, 6), ..first }.out_of(&past), None);
}
