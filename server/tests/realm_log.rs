//! The realm's log in every order of events: changes, promotions, partitions, lost answers and crashes. Each
//! step of a server is one step of the walk, so that others come in between.

use std::collections::{BTreeMap, BTreeSet};

use coda_net::Authority;
use coda_proto::{Rights, ServerId, wire};
use coda_server::{
    location::{
        Chronicle, Realm, Seal, Term,
        log::{self, Verdict, place},
        scm,
    },
    setup,
    shell::Certified,
};

/// One server: its log, and what it is about to do.
struct Node {
    id: ServerId,
    log: Chronicle,
    doing: Option<Doing>,
    given_up: Vec<wire::LogEntry>,
}

/// What the SCM, or a server that is being made one, is in the middle of.
enum Doing {
    Change(Change),
    Promotion(Promotion),
}

struct Change {
    reached: BTreeSet<ServerId>,
    todo: Vec<ServerId>,
    /// Set when it is appended.
    entry: Option<[u8; 32]>,
}

struct Promotion {
    term: Term,
    stage: Stage,
    todo: Vec<ServerId>,
    answered: BTreeSet<ServerId>,
    furthest: Option<(Term, u64)>,
    without: BTreeSet<ServerId>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Survey,
    Promises,
    Again,
}

struct World {
    nodes: Vec<Node>,
    voters: BTreeSet<ServerId>,
    cut: BTreeSet<(ServerId, ServerId)>,
    chance: u64,
    /// No message is lost any more.
    calm: bool,
    /// Which entry has a place, ever.
    places: BTreeMap<(Term, u64), [u8; 32]>,
    /// Entries whose change was answered as held by enough servers.
    acknowledged: BTreeSet<[u8; 32]>,
    /// Whether operators give up servers that are alive.
    lies: bool,
}

fn realm_of(count: u8) -> Realm {
    let info = |id: u8| wire::ServerInfo { id: id.into(), name: format!("s{id}"), endpoints: Vec::new() };
    setup::realm("r", (1..=count).map(info).collect(), Rights::ALL).unwrap()
}

impl World {
    fn new(count: u8, seed: u64, lies: bool) -> World {
        let realm = realm_of(count);
        let node =
            |id| Node { id: ServerId(id), log: Chronicle::begin(&realm), doing: None, given_up: vec![] };
        World {
            nodes: (1..=count).map(node).collect(),
            voters: scm::voters(&realm),
            cut: BTreeSet::new(),
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            calm: false,
            places: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            lies,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as usize % limit
    }

    fn at(&self, id: ServerId) -> usize {
        usize::from(id.0) - 1
    }

    fn others(&self, id: ServerId) -> Vec<ServerId> {
        self.nodes.iter().map(|node| node.id).filter(|other| *other != id).collect()
    }

    /// Whether a message gets through now.
    fn gets(&mut self, from: ServerId, to: ServerId) -> bool {
        self.calm || !self.cut.contains(&(from, to)) && self.below(20) != 0
    }

    fn is_scm(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.log.term().scm == node.id && node.log.promised() == node.log.term()
    }

    fn take(&mut self, at: usize, offer: &wire::Follow) -> bool {
        match self.nodes[at].log.judge(offer, None).unwrap() {
            Verdict::Take(step) => {
                let node = &mut self.nodes[at];
                let cut = node.log.done(step);
                node.given_up.extend(cut);
                self.note(at);
                true
            }
            Verdict::Known => true,
            _ => false,
        }
    }

    /// No place of a log ever belongs to two entries.
    fn note(&mut self, at: usize) {
        for entry in self.nodes[at].log.entries() {
            let key = (log::term(entry).unwrap(), entry.index);
            let hash = log::hash(entry);
            assert_eq!(*self.places.entry(key).or_insert(hash), hash, "two entries at {key:?}");
        }
    }

    /// One server tells another all that it lacks. Answers whether that one has it now.
    fn tell(&mut self, from: ServerId, to: ServerId) -> bool {
        let mut count = self.nodes[self.at(from)].log.entries().len();
        for _ in 0..40 {
            if !self.gets(from, to) {
                return false;
            }
            let offer = self.nodes[self.at(from)].log.from(count);
            let taken = self.take(self.at(to), &offer);
            if !self.gets(to, from) {
                return false;
            }
            if self.nodes[self.at(to)].log.promised() > self.nodes[self.at(from)].log.promised() {
                return false;
            }
            let end = self.nodes[self.at(to)].log.end();
            if end == self.nodes[self.at(from)].log.end() {
                return true;
            }
            match (taken, self.nodes[self.at(from)].log.count_to(&end)) {
                (_, Some(known)) => count = known,
                (false, None) if count > 0 => count /= 2,
                _ => return false,
            }
        }
        false
    }

    /// One server asks another what it knows.
    fn read(&mut self, from: ServerId, of: ServerId) -> Option<Term> {
        if !self.gets(from, of) {
            return None;
        }
        let end = self.nodes[self.at(from)].log.end();
        let other = &self.nodes[self.at(of)].log;
        let (offer, promised) = (other.after(Some(&end)), other.promised());
        if !self.gets(of, from) {
            return None;
        }
        self.take(self.at(from), &offer);
        Some(promised)
    }

    fn append(&mut self, at: usize, term: Term) -> [u8; 32] {
        let node = &mut self.nodes[at];
        let old = node.log.replay(node.log.entries().len(), &[]).unwrap();
        let new =
            Realm { scm: term.scm, root_volume: format!("{}", node.log.entries().len()), ..old.clone() };
        let mut entry = node.log.next(term, &old, &new, 0);
        entry.mandate = Some(wire::Mandate {
            realm: "r".into(),
            term: term.number,
            server: term.scm.0.into(),
            proof: None,
        });
        let hash = log::hash(&entry);
        let step = node.log.append(entry).unwrap();
        assert!(node.log.done(step).is_empty());
        self.note(at);
        hash
    }

    fn begin_change(&mut self, at: usize) {
        if self.is_scm(at) && self.nodes[at].doing.is_none() {
            let id = self.nodes[at].id;
            let change = Change { reached: BTreeSet::from([id]), todo: self.others(id), entry: None };
            self.nodes[at].doing = Some(Doing::Change(change));
        }
    }

    fn begin_promotion(&mut self, at: usize) {
        let id = self.nodes[at].id;
        let number = self.nodes[at].log.promised().number + 1;
        let mut without = BTreeSet::new();
        if self.lies {
            without = self.others(id).into_iter().filter(|other| self.cut.contains(&(id, *other))).collect();
        }
        let promotion = Promotion {
            term: Term { number, scm: id },
            stage: Stage::Survey,
            todo: self.others(id),
            answered: BTreeSet::from([id]),
            furthest: None,
            without,
        };
        self.nodes[at].doing = Some(Doing::Promotion(promotion));
    }

    fn step(&mut self, at: usize) {
        match self.nodes[at].doing.take() {
            None => {}
            Some(Doing::Change(change)) => self.step_change(at, change),
            Some(Doing::Promotion(promotion)) => self.step_promotion(at, promotion),
        }
    }

    fn step_change(&mut self, at: usize, mut change: Change) {
        let id = self.nodes[at].id;
        if !self.is_scm(at) {
            return;
        }
        if let Some(other) = change.todo.pop() {
            if self.tell(id, other) {
                change.reached.insert(other);
            }
            self.nodes[at].doing = Some(Doing::Change(change));
            return;
        }
        if scm::may_append(&self.voters, &change.reached).is_err() {
            return;
        }
        match change.entry {
            None => {
                let entry = Some(self.append(at, self.nodes[at].log.term()));
                let again = Change { reached: BTreeSet::from([id]), todo: self.others(id), entry };
                self.nodes[at].doing = Some(Doing::Change(again));
            }
            Some(entry) => drop(self.acknowledged.insert(entry)),
        }
    }

    fn step_promotion(&mut self, at: usize, mut promotion: Promotion) {
        let id = self.nodes[at].id;
        if let Some(other) = promotion.todo.pop() {
            match promotion.stage {
                Stage::Survey | Stage::Again => {
                    if let Some(promised) = self.read(id, other) {
                        promotion.answered.insert(other);
                        if promotion.stage == Stage::Survey && promised.number >= promotion.term.number {
                            return;
                        }
                    }
                }
                Stage::Promises => {
                    if self.gets(id, other) {
                        let to = self.at(other);
                        let promise = self.nodes[to].log.promise(promotion.term);
                        let taken = promise.is_ok();
                        if let Ok(step) = promise {
                            self.nodes[to].log.done(step);
                        }
                        if self.gets(other, id) {
                            if !taken {
                                return;
                            }
                            promotion.answered.insert(other);
                            let end = place(&self.nodes[to].log.end());
                            promotion.furthest = promotion.furthest.max(end);
                        }
                    }
                }
            }
            self.nodes[at].doing = Some(Doing::Promotion(promotion));
            return;
        }
        let old = self.nodes[at].log.term().scm;
        let enough = scm::may_promote(&self.voters, old, &promotion.answered, &promotion.without);
        match promotion.stage {
            Stage::Survey if enough.is_ok() => {
                let Ok(step) = self.nodes[at].log.promise(promotion.term) else { return };
                self.nodes[at].log.done(step);
                promotion.stage = Stage::Promises;
                promotion.answered = BTreeSet::from([id]);
            }
            Stage::Promises if enough.is_ok() => promotion.stage = Stage::Again,
            Stage::Again => {
                let own = place(&self.nodes[at].log.end());
                if own >= promotion.furthest && self.nodes[at].log.promised() == promotion.term {
                    self.append(at, promotion.term);
                }
                return;
            }
            _ => return,
        }
        promotion.todo = self.others(id);
        self.nodes[at].doing = Some(Doing::Promotion(promotion));
    }

    /// One thing happens.
    fn happen(&mut self) {
        let at = self.below(self.nodes.len());
        match self.below(100) {
            0..=9 => self.begin_change(at),
            10..=11 if self.nodes[at].doing.is_none() => self.begin_promotion(at),
            12..=13 => {
                let side = self.below(1 << self.nodes.len());
                self.cut.clear();
                for one in 0..self.nodes.len() {
                    for other in 0..self.nodes.len() {
                        if side >> one & 1 != side >> other & 1 {
                            self.cut.insert((self.nodes[one].id, self.nodes[other].id));
                        }
                    }
                }
            }
            14 => self.cut.clear(),
            15 => self.nodes[at].doing = None,
            16..=17 => {
                let of = self.below(self.nodes.len());
                if of != at {
                    self.read(self.nodes[at].id, self.nodes[of].id);
                }
            }
            _ => self.step(at),
        }
    }

    /// The network is whole, everybody asks everybody, and one promotion ends what was begun.
    fn settle(&mut self) {
        self.calm = true;
        self.nodes.iter_mut().for_each(|node| node.doing = None);
        for _ in 0..2 {
            for at in 0..self.nodes.len() {
                for of in self.others(self.nodes[at].id) {
                    self.read(self.nodes[at].id, of);
                }
            }
        }
        let number = self.nodes.iter().map(|node| node.log.promised().number).max().unwrap() + 1;
        let term = Term { number, scm: self.nodes[0].id };
        for node in &mut self.nodes {
            let step = node.log.promise(term).unwrap();
            node.log.done(step);
        }
        self.append(0, term);
        for other in self.others(self.nodes[0].id) {
            assert!(self.tell(self.nodes[0].id, other), "{other:?} is not told");
        }
    }

    fn check(&self) {
        let last = &self.nodes[0].log;
        for node in &self.nodes {
            assert_eq!(node.log.entries(), last.entries(), "{:?} has another log", node.id);
            // What was cut off is kept.
            assert_eq!(node.log.replay(node.log.entries().len(), &[]).unwrap().scm, self.nodes[0].id);
        }
        let held: BTreeSet<[u8; 32]> = last.entries().iter().map(log::hash).collect();
        for hash in &self.acknowledged {
            let given_up = || {
                let mut all = self.nodes.iter().flat_map(|node| &node.given_up);
                all.any(|entry| log::hash(entry) == *hash)
            };
            assert!(
                held.contains(hash) || self.lies && given_up(),
                "an acknowledged change is lost in silence"
            );
        }
    }
}

fn walk(count: u8, seed: u64, lies: bool) -> (usize, u64) {
    let mut world = World::new(count, seed, lies);
    for _ in 0..300 {
        world.happen();
    }
    world.settle();
    world.check();
    let term = world.nodes[0].log.term().number;
    (world.acknowledged.len(), term)
}

#[test]
fn in_no_order_of_events_is_an_acknowledged_change_lost_or_a_log_split() {
    let (mut changes, mut terms) = (0, 0);
    for seed in 1..=400 {
        for count in [3, 4, 5] {
            let (acknowledged, term) = std::panic::catch_unwind(|| walk(count, seed, false))
                .unwrap_or_else(|_| panic!("{count} servers, seed {seed}"));
            (changes, terms) = (changes + acknowledged, terms + term - 2);
        }
    }
    // The walk goes somewhere.
    assert!(changes > 300 && terms > 200, "{changes} changes, {terms} promotions");
}

#[test]
fn operators_who_give_up_servers_that_live_lose_changes_but_never_the_one_log() {
    for seed in 1..=300 {
        for count in [2, 3, 4] {
            std::panic::catch_unwind(|| walk(count, seed, true))
                .unwrap_or_else(|_| panic!("{count} servers, seed {seed}"));
        }
    }
}

/// Of two servers that were made SCM apart, with the same number, one log holds at both, and the other's
/// entries are cut off.
#[test]
fn two_scms_made_apart_end_in_one_log() {
    let mut world = World::new(3, 1, true);
    world.calm = true;
    for at in [1, 2] {
        let term = Term { number: 2, scm: world.nodes[at].id };
        let step = world.nodes[at].log.promise(term).unwrap();
        world.nodes[at].log.done(step);
        world.append(at, term);
        world.append(at, term);
    }
    let (two, three) = (world.nodes[1].log.clone(), world.nodes[2].log.clone());
    assert!(world.tell(ServerId(3), ServerId(2)));
    assert_ne!(world.nodes[1].log, two);
    assert_eq!(world.nodes[1].log, three);
    assert_eq!(world.nodes[1].given_up.len(), 2);
}

/// Numbers of configurations and of groups' epochs grow with the term, so that those of a log that was given
/// up are never taken for newer.
#[test]
fn stamps_of_a_later_term_are_higher_whatever_was_counted_before() {
    let term = |number, scm| Term { number, scm: ServerId(scm) };
    assert_eq!(term(1, 9).stamp(7), 7);
    let stamps = [
        term(1, 254).stamp(1_000_000),
        term(2, 1).stamp(1),
        term(2, 1).stamp(2),
        term(2, 2).stamp(1),
        term(3, 1).stamp(1),
    ];
    assert!(stamps.is_sorted(), "{stamps:?}");
    assert_eq!(log::count(term(3, 4).stamp(77)), 77);
}

/// With keys: what is not signed by whom it should be is not believed, whoever brings it.
#[test]
fn only_what_the_scm_and_an_administrator_have_signed_is_believed() {
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let authority = Authority::create("r", now).unwrap();
    let server = |id: u8| Certified(authority.issue_server(ServerId(id), now).unwrap());
    let (one, two, admin) = (server(1), server(2), Certified(authority.issue_admin(now).unwrap()));
    let stranger = Certified(Authority::create("r", now).unwrap().issue_server(ServerId(1), now).unwrap());
    let realm = realm_of(2);
    let log = Chronicle::begin(&realm);
    let entry = |term: Term, signs: Option<&Certified>| {
        let mut entry = log.next(term, &realm, &Realm { root_volume: "x".into(), ..realm.clone() }, 5);
        entry.proof = signs.map(|signs| signs.sign(&log::hash(&entry)).unwrap());
        entry
    };
    let judge = |entry: wire::LogEntry| {
        let offer = wire::Follow { after: Some(log.end()), entries: vec![entry], end: None };
        match log.judge(&offer, Some(&two)) {
            Ok(Verdict::Take(_)) => "taken".to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(why) => why.why,
        }
    };
    let first = Term::first(ServerId(1));
    assert_eq!(judge(entry(first, Some(&one))), "taken");
    assert_eq!(judge(entry(first, None)), "it is not signed");
    assert!(judge(entry(first, Some(&two))).contains("server 2 of r signed it, who may not"));
    assert!(judge(entry(first, Some(&admin))).contains("who may not"));
    assert_ne!(judge(entry(first, Some(&stranger))), "taken", "another authority's word is worth nothing");
    let changed = wire::LogEntry { what: "something else".into(), ..entry(first, Some(&one)) };
    assert!(judge(changed).contains("does not hold"));
    let unchained = wire::LogEntry { previous: vec![0; 32].into(), ..entry(first, Some(&one)) };
    assert!(judge(unchained).contains("does not follow"));

    let second = Term { number: 2, scm: ServerId(2) };
    let mandate = |server: u32, signs: &Certified| {
        let mut mandate = wire::Mandate { realm: "r".into(), term: 2, server, proof: None };
        mandate.proof = Some(signs.sign(&log::mandate_bytes(&mandate)).unwrap());
        Some(mandate)
    };
    let with = |mandate| wire::LogEntry { mandate, ..entry(second, Some(&two)) };
    assert_eq!(judge(with(mandate(2, &admin))), "taken");
    assert_eq!(judge(with(None)), "it opens a term without a mandate");
    assert_eq!(judge(with(mandate(1, &admin))), "its mandate is for another term");
    assert!(judge(with(mandate(2, &two))).contains("who may not"), "no server makes itself the SCM");
    let unsigned = wire::Mandate { proof: None, ..mandate(2, &admin).unwrap() };
    assert_eq!(judge(with(Some(unsigned))), "the mandate is not signed");
}
