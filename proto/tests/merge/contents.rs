//! A file that one removed and another changed: which contents show when it comes back.
//!
//! `Site::check_history` compares what shows with the true causal order, here and in all other tests of the join.

use coda_proto::{Author, Fid, Op, merge::Replica as _};

use crate::{
    names::{create, remove, rename},
    site::{History, Site, name, root, store},
};

fn file() -> Fid {
    Fid::file(root().volume, Author(9), 1)
}

/// Two sites that know `/f` with contents.
fn start() -> (History, [Site; 2]) {
    let (mut history, mut base) = (History::default(), Site::new(9));
    for op in [create(root(), "f", file()), store(file(), "1")] {
        base.make(&mut history, false, op).unwrap();
    }
    (history, [base.fork(10), base.fork(11)])
}

fn mode() -> Op {
    Op::SetAttr { fid: file(), mode: Some(0o600), owner: None, group: None, mtime: None, atime: None }
}

/// What somebody can do who sees this.
fn ops(site: &Site) -> Vec<Op> {
    let names: Vec<Vec<u8>> = site.shown().1.into_iter().map(|place| place.name).collect();
    let mut ops = Vec::new();
    if !names.is_empty() {
        let link = Op::Link { parent: root(), name: name("l"), fid: file() };
        ops.extend([store(file(), "22"), mode(), link]);
    }
    if names.contains(&name("f")) {
        ops.extend([remove(root(), "f", file()), rename(root(), "f", root(), "g", file())]);
    }
    ops
}

/// Every history of so many steps, a step being an operation at one site, or one learning all that the other knows.
fn after(steps: usize, history: &History, sites: &[Site; 2], look: &mut impl FnMut(&History, &[Site; 2])) {
    look(history, sites);
    if steps == 0 {
        return;
    }
    for here in 0..2 {
        let mut met = sites.clone();
        met[here].join(&sites[1 - here]);
        if met[here] != sites[here] {
            after(steps - 1, history, &met, look);
        }
        for op in ops(&sites[here]) {
            let (mut history, mut sites) = (history.clone(), sites.clone());
            if sites[here].make(&mut history, true, op).is_ok() {
                after(steps - 1, &history, &sites, look);
            }
        }
    }
}

#[test]
fn what_all_removers_saw_stays_removed_in_every_small_history_and_nothing_else_does() {
    let (history, sites) = start();
    let (mut states, mut left_out) = (0, 0);
    after(4, &history, &sites, &mut |history, [a, b]| {
        let both = a.joined(b);
        let all = both.state.head(file()).unwrap().unwrap().siblings.len();
        if all < 2 {
            return;
        }
        assert!(both.state == b.joined(a).state);
        both.check_history(history);
        let shown = both.contents(file()).len();
        assert!(shown > 0, "it has contents, so something shows");
        states += 1;
        left_out += usize::from(shown < all);
    });
    assert!(states > 500 && left_out > 50, "{states} states, {left_out} of them leave something out");
}

#[test]
fn a_file_that_comes_back_shows_what_was_written_apart_and_not_what_was_removed() {
    let (mut history, [mut here, mut there]) = start();
    here.make(&mut history, true, store(file(), "22")).unwrap();
    here.make(&mut history, true, remove(root(), "f", file())).unwrap();
    let theirs = there.make(&mut history, true, store(file(), "333")).unwrap().dot;
    let both = here.joined(&there);
    assert_eq!((both.tree(), both.contents(file())), (vec!["/f!".to_owned()], vec![theirs]));
    // A name that somebody gave it meanwhile says that it was never meant to go: nothing is left out.
    there.make(&mut history, true, rename(root(), "f", root(), "g", file())).unwrap();
    assert_eq!(both.joined(&there).contents(file()).len(), 2);
}

#[test]
fn a_file_that_a_new_mode_brings_back_shows_what_it_held() {
    let (mut history, [mut here, mut there]) = start();
    here.make(&mut history, true, remove(root(), "f", file())).unwrap();
    there.make(&mut history, true, mode()).unwrap();
    assert_eq!(here.joined(&there).contents(file()).len(), 1);
}
