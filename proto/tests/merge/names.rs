//! Stories about names, each with the tree that people see.

use coda_proto::{
    Code, Fid, Op,
    merge::{Replica, join_objects, shown::keeps_the_name},
};

use crate::site::{History, Site, name, root, store};

/// `/d` and `/e` are directories, `/d/f` a file, at two sites that are equal.
fn start() -> (History, Site, Site, [Fid; 3]) {
    let mut history = History::default();
    let mut base = Site::new(9);
    let dir = |count| Fid::directory(root().volume, base.author, count);
    let (d, e) = (dir(1), dir(2));
    let f = Fid::file(root().volume, base.author, 1);
    for op in [mkdir(root(), "d", d), mkdir(root(), "e", e), create(d, "f", f), store(f, "one")] {
        base.make(&mut history, false, op).unwrap();
    }
    (history, base.fork(10), base.fork(11), [d, e, f])
}

pub fn mkdir(parent: Fid, text: &str, fid: Fid) -> Op {
    Op::MakeDir { parent, name: name(text), fid, mode: 0o755, owner: 1 }
}
pub fn create(parent: Fid, text: &str, fid: Fid) -> Op {
    Op::Create { parent, name: name(text), fid, mode: 0o644, owner: 1 }
}
pub fn remove(parent: Fid, text: &str, fid: Fid) -> Op {
    match fid.is_directory() {
        true => Op::RemoveDir { parent, name: name(text), fid },
        false => Op::Remove { parent, name: name(text), fid },
    }
}
pub fn rename(from: Fid, from_name: &str, to: Fid, to_name: &str, fid: Fid) -> Op {
    Op::Rename { from, from_name: name(from_name), to, to_name: name(to_name), fid, replaced: None }
}

fn both(history: &History, a: &Site, b: &Site) -> Site {
    let joined = a.joined(b);
    assert_eq!(joined.state, b.joined(a).state);
    joined.check_tree();
    joined.check_history(history);
    joined
}

#[test]
fn a_file_removed_here_and_written_there_comes_back_marked() {
    let (mut history, mut a, mut b, [d, _, f]) = start();
    a.make(&mut history, true, remove(d, "f", f)).unwrap();
    b.make(&mut history, true, store(f, "two")).unwrap();
    let mut c = both(&history, &a, &b);
    assert_eq!(c.tree(), ["/d", "/d/f!", "/e"]);
    // Who sees it back may remove it for good.
    c.make(&mut history, false, remove(d, "f", f)).unwrap();
    assert_eq!(c.tree(), ["/d", "/e"]);
    both(&history, &c, &b);
}

#[test]
fn a_file_that_came_back_and_is_renamed_is_a_file_like_any_other() {
    let (mut history, mut a, mut b, [d, e, f]) = start();
    a.make(&mut history, true, remove(d, "f", f)).unwrap();
    b.make(&mut history, true, store(f, "two")).unwrap();
    let mut c = both(&history, &a, &b);
    c.make(&mut history, false, rename(d, "f", e, "g", f)).unwrap();
    assert_eq!(both(&history, &c, &a).tree(), ["/d", "/e", "/e/g"]);
}

#[test]
fn a_removed_directory_that_holds_such_a_file_comes_back_with_it() {
    let (mut history, mut a, mut b, [d, _, f]) = start();
    a.make(&mut history, true, remove(d, "f", f)).unwrap();
    a.make(&mut history, true, remove(root(), "d", d)).unwrap();
    b.make(&mut history, true, store(f, "two")).unwrap();
    assert_eq!(both(&history, &a, &b).tree(), ["/d!", "/d/f!", "/e"]);
}

#[test]
fn a_file_renamed_to_two_places_shows_at_one_and_goes_from_both() {
    let (mut history, mut a, mut b, [d, e, f]) = start();
    a.make(&mut history, true, rename(d, "f", d, "g", f)).unwrap();
    b.make(&mut history, true, rename(d, "f", e, "h", f)).unwrap();
    let mut c = both(&history, &a, &b);
    assert_eq!(c.tree(), ["/d", "/e", "/e/h"]);
    c.make(&mut history, false, remove(e, "h", f)).unwrap();
    assert_eq!(both(&history, &c, &a).tree(), ["/d", "/e"]);
}

#[test]
fn directories_moved_into_each_other_stay_a_tree_and_the_older_move_counts() {
    let (mut history, mut a, mut b, [d, e, _]) = start();
    a.make(&mut history, true, rename(root(), "d", e, "d", d)).unwrap();
    b.make(&mut history, true, rename(root(), "e", d, "e", e)).unwrap();
    let mut c = both(&history, &a, &b);
    assert_eq!(c.tree(), ["/e!", "/e/d", "/e/d/f"], "of equal Lamport times the smaller dot is older");
    // Moving it again settles it.
    c.make(&mut history, false, rename(root(), "e", root(), "E", e)).unwrap();
    assert_eq!(both(&history, &c, &b).tree(), ["/E", "/E/d", "/E/d/f"]);
}

#[test]
fn two_files_of_one_name_both_show_and_the_smallest_dot_keeps_it() {
    let (mut history, mut a, mut b, [d, ..]) = start();
    let of = |site: &Site| Fid::file(root().volume, site.author, 1);
    let (first, second) = (of(&a), of(&b));
    a.make(&mut history, false, create(d, "new", first)).unwrap();
    let late = b.make(&mut history, false, create(d, "new", second)).unwrap();
    // A connected create is refused where the name is taken, a logged one adds to it.
    let refusal = a.receive(&late).unwrap_err();
    assert_eq!((refusal.code, refusal.blame), (Code::Exists, Some(first)));
    let c = both(&history, &a, &b);
    let named = c.state.bindings_named(d, b"new").unwrap();
    assert_eq!(named.len(), 2);
    assert_eq!(keeps_the_name(&named).map(|binding| binding.fid), Some(first));
}

#[test]
fn a_directory_removed_here_and_filled_there_comes_back() {
    let (mut history, mut a, mut b, [_, e, _]) = start();
    let new = Fid::file(root().volume, b.author, 1);
    a.make(&mut history, true, remove(root(), "e", e)).unwrap();
    b.make(&mut history, true, create(e, "new", new)).unwrap();
    assert_eq!(both(&history, &a, &b).tree(), ["/d", "/d/f", "/e!", "/e/new"]);
}

#[test]
fn links_count_names_and_go_one_by_one() {
    let (mut history, mut a, b, [d, _, f]) = start();
    let link = Op::Link { parent: d, name: name("g"), fid: f };
    a.make(&mut history, false, link.clone()).unwrap();
    a.make(&mut history, false, remove(d, "f", f)).unwrap();
    assert_eq!(a.tree(), ["/d", "/d/g", "/e"]);
    assert_eq!(both(&history, &a, &b).tree(), a.tree());
    let refusal = a.make(&mut history, false, remove(d, "f", f)).unwrap_err();
    assert_eq!(refusal.code, Code::NoEntry);
}

#[test]
fn a_cycle_is_noticed_in_whichever_order_its_directories_arrive() {
    let (mut history, mut a, _, [d, ..]) = start();
    let inner = Fid::directory(root().volume, a.author, 1);
    a.make(&mut history, true, mkdir(d, "inner", inner)).unwrap();
    a.make(&mut history, true, rename(root(), "d", inner, "d", d)).unwrap();
    for order in [[d, inner], [inner, d]] {
        let mut other = Site::new(20);
        for fid in order {
            let object = a.objects().into_iter().filter(|object| object.head.fid == fid).collect();
            join_objects(&mut other.state, object).unwrap();
        }
        other.join(&a);
        other.check_tree();
        assert_eq!(other.state, a.state);
    }
}
