//! Long histories at random: people who see only their own site, records that arrive late, twice or
//! never, sites that meet when they like.

use std::collections::BTreeMap;

use coda_proto::{
    Fid, Op, Record,
    merge::{join_objects, memory::Memory},
};
use proptest::prelude::*;

use crate::{
    names::{create, mkdir},
    site::{History, Site, acl, name, root, store},
};

type Step = (u8, u8, u8, u8, u8);

/// Something that a person at this site might do next, of what the site shows.
pub fn something(site: &Site, what: u8, x: u8, y: u8, z: u8) -> Option<Op> {
    let (dirs, places) = site.shown();
    let dir = dirs[x as usize % dirs.len()];
    let to = dirs[z as usize % dirs.len()];
    let text = ["a", "b", "c"][y as usize % 3];
    let count = site.count as u32 + 1;
    let place = (!places.is_empty()).then(|| &places[x as usize % places.len()]);
    let named = |dir: Fid, text: &str| {
        site.state.bindings_in(dir).find(|b| b.shown && b.name == name(text)).map(|b| b.fid)
    };
    Some(match what % 16 {
        0 | 1 => create(dir, text, Fid::file(root().volume, site.author, count)),
        2 | 3 => mkdir(dir, text, Fid::directory(root().volume, site.author, count)),
        4 | 5 => {
            let place = place?;
            let (parent, name, fid) = (place.dir, place.name.clone(), place.fid);
            match fid.is_directory() {
                true => Op::RemoveDir { parent, name, fid },
                false => Op::Remove { parent, name, fid },
            }
        }
        6..=10 => {
            let place = place?;
            let replaced = named(to, text).filter(|fid| *fid != place.fid);
            Op::Rename {
                from: place.dir,
                from_name: place.name.clone(),
                to,
                to_name: name(text),
                fid: place.fid,
                replaced,
            }
        }
        11 => Op::Link { parent: place?.dir, name: name(text), fid: place?.fid },
        12 | 13 => store(place?.fid, &"s".repeat(z as usize)),
        14 => Op::SetAttr {
            fid: place?.fid,
            mode: Some(z.into()),
            owner: None,
            group: None,
            mtime: None,
            atime: None,
        },
        _ => Op::SetXattr { fid: place?.fid, name: name(text), value: (z > 99).then(|| name("v")) },
    })
}

struct World {
    history: History,
    sites: Vec<Site>,
    records: Vec<Record>,
    states: BTreeMap<std::collections::BTreeSet<coda_proto::Dot>, Memory>,
}

impl World {
    fn new(sites: u64) -> World {
        let mut history = History::default();
        let mut base = Site::new(5);
        let dir = |count| Fid::directory(root().volume, base.author, count);
        let (d, e) = (dir(1), dir(2));
        let f = Fid::file(root().volume, base.author, 1);
        for op in [mkdir(root(), "a", d), mkdir(root(), "b", e), create(d, "a", f), store(f, "one")] {
            base.make(&mut history, false, op).unwrap();
        }
        World {
            history,
            sites: (0..sites).map(|index| base.fork(10 + index)).collect(),
            records: Vec::new(),
            states: BTreeMap::new(),
        }
    }

    fn step(&mut self, (site, action, what, x, y): Step) {
        let count = self.sites.len();
        let (here, there) = (site as usize % count, x as usize % count);
        let z = what.wrapping_mul(31) ^ action ^ y.rotate_left(3);
        match action % 8 {
            0..=4 => {
                let Some(op) = something(&self.sites[here], what, x, y, z) else { return };
                let logged = action % 8 < 3;
                if let Ok(record) = self.sites[here].make(&mut self.history, logged, op) {
                    self.records.push(record);
                }
            }
            5 | 6 if !self.records.is_empty() => {
                let record = self.records[y as usize % self.records.len()].clone();
                let _ = self.sites[here].receive(&record);
            }
            _ => {
                let other = self.sites[there].clone();
                self.sites[here].join(&other);
            }
        }
        self.check(here);
    }

    fn check(&mut self, here: usize) {
        let site = &self.sites[here];
        site.check_tree();
        site.check_history(&self.history);
        let known = self.states.entry(site.seen.clone()).or_insert_with(|| site.state.clone());
        assert!(*known == site.state, "one set of records, two states:\n{:#?}\n{:#?}", known, site.state);
    }

    /// Everybody meets everybody, in two different orders.
    fn settle(&mut self) {
        let forwards = self.sites.iter().fold(self.sites[0].clone(), |all, site| all.joined(site));
        let backwards = self.sites.iter().rev().fold(self.sites[0].clone(), |all, site| all.joined(site));
        assert_eq!(forwards.tree(), backwards.tree());
        assert!(forwards.state == backwards.state);
        self.sites[0] = forwards;
        self.check(0);
    }
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 1..most)
}

/// `CODA_CASES` asks for more.
fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("CODA_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn one_set_of_records_is_one_state_and_what_the_causal_order_says(steps in steps(40)) {
        let mut world = World::new(3);
        for step in steps {
            world.step(step);
        }
        world.settle();
    }

    /// Objects that travel one by one: incomplete in between, the same in the end.
    #[test]
    fn exchanges_that_broke_off_do_no_harm(steps in steps(30), cuts in steps(12)) {
        let mut world = World::new(3);
        for step in steps {
            world.step(step);
        }
        let whole = world.sites.iter().fold(world.sites[0].clone(), |all, site| all.joined(site));
        for (here, there, skip, take, _) in cuts {
            let there = world.sites[there as usize % 3].objects();
            let some = there.into_iter().skip(skip as usize % 4).take(take as usize % 6).collect();
            join_objects(&mut world.sites[here as usize % 3].state, some).unwrap();
        }
        let mended = world.sites.iter().fold(world.sites[0].clone(), |all, site| all.joined(site));
        mended.check_tree();
        assert!(mended.state == whole.state);
    }
}

#[test]
fn lists_set_concurrently_leave_what_both_allow() {
    let mut history = History::default();
    let mut base = Site::new(5);
    base.make(&mut history, false, Op::SetAcl { fid: root(), acl: acl("w", 127) }).unwrap();
    let (mut a, mut b) = (base.fork(10), base.fork(11));
    a.make(&mut history, false, Op::SetAcl { fid: root(), acl: acl("w", 0b0111) }).unwrap();
    b.make(&mut history, false, Op::SetAcl { fid: root(), acl: acl("w", 0b1110) }).unwrap();
    let mut c = a.joined(&b);
    let head = |site: &Site| site.state.heads().next().unwrap().clone();
    assert_eq!((head(&c).acl(), head(&c).marked), (acl("w", 0b0110), true));
    c.make(&mut history, false, Op::SetAcl { fid: root(), acl: acl("w", 1) }).unwrap();
    assert_eq!((head(&c).acl(), head(&c).marked), (acl("w", 1), false));
    c.check_history(&history);
}

/// A walk that was found at random: a file is moved into a directory that is then removed, and elsewhere to another
/// place, which is the one that shows when both meet.
#[test]
fn a_directory_that_came_back_for_a_file_goes_when_the_file_shows_elsewhere() {
    let mut world = World::new(3);
    let steps = [
        (0, 8, 232, 2, 223),
        (96, 184, 216, 137, 91),
        (166, 21, 0, 0, 6),
        (232, 8, 70, 113, 113),
        (15, 0, 16, 24, 1),
        (120, 16, 212, 221, 0),
    ];
    steps.into_iter().for_each(|step| world.step(step));
    world.settle();
}
