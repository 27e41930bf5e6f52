//! Every pair, and many triples, of concurrent operations: in every order, at every subset of members,
//! applied or joined, one set of records makes one state.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Dot, Fid, Op, Record, merge::memory::Memory};

use crate::{
    names::{create, mkdir, remove, rename},
    site::{History, Site, acl, name, root, store},
};

/// `/d/f` and `/d/l` are one file, `/g` another; `/e/s` and `/h` are empty directories.
struct Start {
    history: History,
    base: Site,
    d: Fid,
    e: Fid,
    s: Fid,
    h: Fid,
    f: Fid,
    g: Fid,
}

fn start() -> Start {
    let mut history = History::default();
    let mut base = Site::new(5);
    let dir = |count| Fid::directory(root().volume, base.author, count);
    let file = |count| Fid::file(root().volume, base.author, count);
    let (d, e, s, h, f, g) = (dir(1), dir(2), dir(3), dir(4), file(1), file(2));
    for op in [
        mkdir(root(), "d", d),
        mkdir(root(), "e", e),
        mkdir(e, "s", s),
        mkdir(root(), "h", h),
        create(d, "f", f),
        Op::Link { parent: d, name: name("l"), fid: f },
        create(root(), "g", g),
        store(f, "one"),
        store(g, "g"),
    ] {
        base.make(&mut history, false, op).unwrap();
    }
    Start { history, base, d, e, s, h, f, g }
}

impl Start {
    /// The operations that change names, the harder half.
    fn name_ops(&self, author: u64) -> Vec<Op> {
        let Start { d, e, s, h, f, g, .. } = *self;
        let over = |from, from_name: &str, to, to_name: &str, fid, replaced| Op::Rename {
            from,
            from_name: name(from_name),
            to,
            to_name: name(to_name),
            fid,
            replaced: Some(replaced),
        };
        vec![
            create(h, "n", Fid { unique: author, ..f }),
            remove(d, "f", f),
            remove(root(), "h", h),
            rename(d, "f", d, "n", f),
            rename(d, "f", e, "f", f),
            over(root(), "g", d, "f", g, f),
            over(root(), "h", e, "s", h, s),
            rename(root(), "d", e, "d", d),
            rename(root(), "e", d, "e", e),
            rename(root(), "h", d, "h", h),
            rename(root(), "d", h, "d", d),
            rename(root(), "e", h, "e", e),
            store(f, &"x".repeat(author as usize % 7)),
        ]
    }

    fn all_ops(&self, author: u64) -> Vec<Op> {
        let Start { d, e, s, h, f, g, .. } = *self;
        let mut ops = self.name_ops(author);
        let attr =
            |fid, mode| Op::SetAttr { fid, mode, owner: None, group: Some(4), mtime: Some(99), atime: None };
        let xattr = |value: Option<&str>| Op::SetXattr { fid: f, name: name("x"), value: value.map(name) };
        ops.extend([
            create(d, "n", Fid { unique: author, ..f }),
            create(d, "f", Fid { unique: author, ..f }),
            create(e, "n", Fid { unique: author, ..f }),
            mkdir(s, "n", Fid { unique: author, ..d }),
            mkdir(root(), "n", Fid { unique: author, ..d }),
            Op::Symlink {
                parent: d,
                name: name("n"),
                fid: Fid { unique: author, ..f },
                target: name("t"),
                mode: 0o777,
                owner: 0,
            },
            Op::Link { parent: d, name: name("n"), fid: f },
            Op::Link { parent: d, name: name("f2"), fid: f },
            remove(d, "l", f),
            remove(root(), "g", g),
            remove(e, "s", s),
            rename(root(), "g", d, "n", g),
            rename(e, "s", root(), "s", s),
            rename(e, "s", h, "s", s),
            store(g, &"y".repeat(author as usize % 7)),
            attr(f, Some(0o600)),
            attr(d, None),
            xattr(Some(&author.to_string())),
            xattr(None),
            Op::SetAcl { fid: e, acl: acl("somebody", author as u32) },
            Op::SetQuota { fid: root(), min: None, max: Some(author) },
        ]);
        ops
    }
}

/// States by the records they hold. Whatever the way, there is one for each set.
#[derive(Default)]
struct States(BTreeMap<BTreeSet<Dot>, Memory>);

impl States {
    fn meet(&mut self, site: &Site, history: &History) {
        match self.0.get(&site.seen) {
            Some(state) => assert!(*state == site.state, "two states of {:?}", ops_of(site, history)),
            None => {
                site.check_tree();
                site.check_history(history);
                self.0.insert(site.seen.clone(), site.state.clone());
            }
        }
    }
}

fn ops_of(site: &Site, history: &History) -> Vec<Op> {
    let after_start = history.made.values().filter(|made| made.record.dot.author.0 != 5);
    after_start.filter(|m| site.seen.contains(&m.record.dot)).map(|m| m.record.op.clone()).collect()
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for at in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(at, count - 1);
            all.push(longer);
        }
    }
    all
}

fn concurrent(start: &Start, ops: &[&Op], logged: bool) {
    let mut history = start.history.clone();
    let mut states = States::default();
    let mut authors = Vec::new();
    let mut records: Vec<Record> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let mut author = start.base.fork(10 + index as u64);
        match author.make(&mut history, logged, (*op).clone()) {
            Ok(record) => records.push(record),
            Err(refusal) => panic!("{op:?} is refused by its own author: {refusal}"),
        }
        states.meet(&author, &history);
        authors.push(author);
    }
    let mut members = authors.clone();
    for order in permutations(records.len()) {
        let mut member = start.base.fork(99);
        for index in order {
            // A refusal is an answer too: the record is then none of this member's.
            let refused = member.receive(&records[index]).is_err();
            if !refused {
                assert_eq!(member.receive(&records[index]), Ok(coda_proto::merge::Outcome::Repeated));
            }
            states.meet(&member, &history);
        }
        if !members.iter().any(|known| known.seen == member.seen) {
            members.push(member);
        }
    }
    // A set of records makes one state, as was just checked, so one member of each set stands for all.
    for author in &authors {
        for member in members.clone() {
            let (here, there) = (member.joined(author), author.joined(&member));
            states.meet(&here, &history);
            states.meet(&there, &history);
            if !members.iter().any(|known| known.seen == here.seen) {
                members.push(here);
            }
        }
    }
    let few = members.len() <= 4;
    for (index, a) in members.iter().enumerate().filter(|_| few) {
        members.iter().skip(index).for_each(|b| states.meet(&a.joined(b), &history));
    }
    // Late and repeated records change nothing at who has everything.
    let mut all = authors.iter().fold(start.base.clone(), |all, author| all.joined(author));
    for record in &records {
        assert_eq!(all.receive(record), Ok(coda_proto::merge::Outcome::Repeated));
    }
}

#[test]
fn every_pair_of_concurrent_operations_makes_one_state() {
    let start = start();
    for (at, one) in start.all_ops(10).iter().enumerate() {
        for other in start.all_ops(11).iter().skip(at) {
            concurrent(&start, &[one, other], true);
        }
    }
}

#[test]
fn connected_operations_that_members_took_in_different_orders_make_one_state() {
    let start = start();
    let connected = |author| {
        let mut ops = start.all_ops(author);
        ops.retain(|op| {
            let mut alone = start.base.fork(author);
            alone.make(&mut start.history.clone(), false, op.clone()).is_ok()
        });
        ops
    };
    for one in &connected(10) {
        for other in &connected(11) {
            concurrent(&start, &[one, other], false);
        }
    }
}

#[test]
fn triples_of_concurrent_operations_on_names_make_one_state() {
    let start = start();
    let [first, second, third] = [10, 11, 12].map(|author| start.name_ops(author));
    for (at, one) in first.iter().enumerate() {
        for (then, other) in second.iter().enumerate().skip(at) {
            for last in third.iter().skip(then) {
                concurrent(&start, &[one, other, last], true);
            }
        }
    }
}
