//! What becomes of each pair of operations that were made apart: the tree that people see.
//!
//! That every pair makes one state, in every order and at every subset of members, is shown in `pairs`;
//! here the outcome has a name. `!` marks what people must look at.

use coda_proto::{Acl, Fid, Op, Rights, merge::Replica as _};

use crate::{
    names::{create, mkdir, remove, rename},
    site::{History, Site, acl, name, root, store},
};

/// `/d` holds the file `f`, which `/d/l` names too, and the empty directory `s`; `/e` is empty; `/g` is a file.
struct World {
    history: History,
    here: Site,
    there: Site,
}

const MAKER: u64 = 9;

fn dir(count: u32) -> Fid {
    Fid::directory(root().volume, coda_proto::Author(MAKER), count)
}
fn file(count: u32) -> Fid {
    Fid::file(root().volume, coda_proto::Author(MAKER), count)
}
fn new_file(author: u64) -> Fid {
    Fid::file(root().volume, coda_proto::Author(author), 1)
}
fn new_dir(author: u64) -> Fid {
    Fid::directory(root().volume, coda_proto::Author(author), 1)
}

const D: u32 = 1;
const E: u32 = 2;
const S: u32 = 3;
const F: u32 = 1;
const G: u32 = 2;

impl World {
    fn new() -> World {
        let mut history = History::default();
        let mut base = Site::new(MAKER);
        for op in [
            mkdir(root(), "d", dir(D)),
            mkdir(root(), "e", dir(E)),
            mkdir(dir(D), "s", dir(S)),
            create(dir(D), "f", file(F)),
            link("l"),
            create(root(), "g", file(G)),
            store(file(F), "1"),
            store(file(G), "22"),
        ] {
            base.make(&mut history, false, op).unwrap();
        }
        World { history, here: base.fork(10), there: base.fork(11) }
    }
}

fn link(text: &str) -> Op {
    Op::Link { parent: dir(D), name: name(text), fid: file(F) }
}

fn over(from: Fid, from_name: &str, to: Fid, to_name: &str, fid: Fid, replaced: Fid) -> Op {
    let (from_name, to_name) = (name(from_name), name(to_name));
    Op::Rename { from, from_name, to, to_name, fid, replaced: Some(replaced) }
}

fn attr(fid: Fid, mode: Option<u32>, owner: Option<u32>) -> Op {
    Op::SetAttr { fid, mode, owner, group: None, mtime: None, atime: None }
}

/// Both made apart, then joined.
fn apart(one: Op, other: Op) -> Site {
    let mut world = World::new();
    world.here.make(&mut world.history, true, one).unwrap();
    world.there.make(&mut world.history, true, other).unwrap();
    let joined = world.here.joined(&world.there);
    assert_eq!(joined.state, world.there.joined(&world.here).state);
    joined.check_tree();
    joined.check_history(&world.history);
    joined
}

/// What shows after both, without what neither touched.
fn tree(one: Op, other: Op) -> Vec<String> {
    apart(one, other).tree()
}

/// The tree with these lines in place of those.
fn expect(gone: &[&str], new: &[&str]) -> Vec<String> {
    let mut tree: Vec<String> =
        ["/d", "/d/f", "/d/l", "/d/s", "/e", "/g"].iter().map(|line| (*line).to_owned()).collect();
    tree.retain(|line| !gone.contains(&line.as_str()));
    tree.extend(new.iter().map(|line| (*line).to_owned()));
    tree.sort();
    tree
}

#[test]
fn different_names_made_in_one_directory_are_both_there() {
    assert_eq!(
        tree(create(dir(E), "a", new_file(10)), create(dir(E), "b", new_file(11))),
        expect(&[], &["/e/a", "/e/b"])
    );
    assert_eq!(
        tree(create(dir(E), "a", new_file(10)), remove(dir(D), "s", dir(S))),
        expect(&["/d/s"], &["/e/a"])
    );
}

#[test]
fn one_name_given_to_several_objects_shows_each_of_them() {
    let two = expect(&[], &["/e/n", "/e/n"]);
    assert_eq!(tree(create(dir(E), "n", new_file(10)), create(dir(E), "n", new_file(11))), two);
    assert_eq!(tree(mkdir(dir(E), "n", new_dir(10)), mkdir(dir(E), "n", new_dir(11))), two);
    assert_eq!(tree(mkdir(dir(E), "n", new_dir(10)), create(dir(E), "n", new_file(11))), two);
    let symlink = |author| Op::Symlink {
        parent: dir(E),
        name: name("n"),
        fid: new_file(author),
        target: name("t"),
        mode: 0o777,
        owner: 0,
    };
    assert_eq!(tree(symlink(10), symlink(11)), two);
    assert_eq!(tree(symlink(10), create(dir(E), "n", new_file(11))), two);
}

#[test]
fn a_name_made_here_and_taken_by_a_rename_there_shows_both() {
    assert_eq!(
        tree(create(dir(E), "n", new_file(10)), rename(root(), "g", dir(E), "n", file(G))),
        expect(&["/g"], &["/e/n", "/e/n"])
    );
    assert_eq!(
        tree(rename(dir(D), "s", dir(E), "n", dir(S)), rename(root(), "g", dir(E), "n", file(G))),
        expect(&["/g", "/d/s"], &["/e/n", "/e/n"])
    );
    assert_eq!(tree(create(dir(D), "n", new_file(10)), link("n")), expect(&[], &["/d/n", "/d/n"]));
}

#[test]
fn one_link_made_at_both_sides_is_one_name() {
    assert_eq!(tree(link("n"), link("n")), expect(&[], &["/d/n"]));
    assert_eq!(tree(link("n"), link("m")), expect(&[], &["/d/m", "/d/n"]));
}

#[test]
fn what_was_removed_at_both_sides_is_gone() {
    assert_eq!(tree(remove(root(), "g", file(G)), remove(root(), "g", file(G))), expect(&["/g"], &[]));
    assert_eq!(tree(remove(dir(D), "s", dir(S)), remove(dir(D), "s", dir(S))), expect(&["/d/s"], &[]));
    assert_eq!(
        tree(remove(dir(D), "f", file(F)), remove(dir(D), "l", file(F))),
        expect(&["/d/f", "/d/l"], &[])
    );
}

#[test]
fn what_was_removed_here_and_changed_there_comes_back_marked() {
    let back = expect(&["/g"], &["/g!"]);
    assert_eq!(tree(remove(root(), "g", file(G)), store(file(G), "333")), back);
    assert_eq!(tree(remove(root(), "g", file(G)), attr(file(G), Some(0o600), None)), back);
    let xattr = Op::SetXattr { fid: file(G), name: name("x"), value: Some(name("v")) };
    assert_eq!(tree(remove(root(), "g", file(G)), xattr), back);
    let list = Op::SetAcl { fid: dir(S), acl: acl("somebody", 9) };
    assert_eq!(tree(remove(dir(D), "s", dir(S)), list), expect(&["/d/s"], &["/d/s!"]));
    assert_eq!(
        tree(remove(dir(D), "s", dir(S)), create(dir(S), "n", new_file(11))),
        expect(&["/d/s"], &["/d/s!", "/d/s/n"])
    );
    assert_eq!(
        tree(remove(dir(D), "s", dir(S)), rename(root(), "g", dir(S), "g", file(G))),
        expect(&["/d/s", "/g"], &["/d/s!", "/d/s/g"])
    );
}

#[test]
fn a_name_removed_here_and_changed_through_another_name_there_is_removed() {
    assert_eq!(tree(remove(dir(D), "f", file(F)), store(file(F), "333")), expect(&["/d/f"], &[]));
}

#[test]
fn a_name_removed_here_and_renamed_there_keeps_its_new_name() {
    assert_eq!(
        tree(remove(root(), "g", file(G)), rename(root(), "g", dir(E), "n", file(G))),
        expect(&["/g"], &["/e/n"])
    );
    assert_eq!(
        tree(remove(dir(D), "s", dir(S)), rename(dir(D), "s", dir(E), "n", dir(S))),
        expect(&["/d/s"], &["/e/n"])
    );
}

#[test]
fn a_name_removed_here_and_linked_there_keeps_its_link() {
    assert_eq!(tree(remove(dir(D), "f", file(F)), link("n")), expect(&["/d/f"], &["/d/n"]));
}

#[test]
fn a_name_renamed_at_both_sides_has_the_later_of_the_new_names() {
    let later = apart(rename(root(), "g", root(), "h", file(G)), rename(root(), "g", dir(E), "i", file(G)));
    assert_eq!(later.tree(), expect(&["/g"], &["/e/i"]));
    assert_eq!(
        tree(rename(dir(D), "s", dir(E), "s", dir(S)), rename(dir(D), "s", root(), "t", dir(S))),
        expect(&["/d/s"], &["/t"])
    );
    // To one name: one rename.
    assert_eq!(
        tree(rename(root(), "g", root(), "h", file(G)), rename(root(), "g", root(), "h", file(G))),
        expect(&["/g"], &["/h"])
    );
}

#[test]
fn contents_and_attributes_follow_a_rename() {
    let renamed = apart(rename(root(), "g", dir(E), "n", file(G)), store(file(G), "333"));
    assert_eq!(renamed.tree(), expect(&["/g"], &["/e/n"]));
    let head = renamed.state.head(file(G)).unwrap().unwrap();
    assert_eq!(head.siblings.iter().map(|sibling| sibling.length).collect::<Vec<_>>(), [3]);
    let moved = apart(rename(root(), "e", dir(D), "e", dir(E)), create(dir(E), "n", new_file(11)));
    assert_eq!(moved.tree(), expect(&["/e"], &["/d/e", "/d/e/n"]));
}

#[test]
fn what_a_rename_replaced_here_and_somebody_changed_there_comes_back_marked_beside_it() {
    assert_eq!(
        tree(over(root(), "g", dir(D), "f", file(G), file(F)), store(file(F), "333")),
        expect(&["/g"], &[]),
        "its other name is left"
    );
    assert_eq!(
        tree(over(dir(D), "f", root(), "g", file(F), file(G)), store(file(G), "333")),
        expect(&["/d/f", "/g"], &["/g", "/g!"])
    );
    assert_eq!(
        tree(over(root(), "e", dir(D), "s", dir(E), dir(S)), create(dir(S), "n", new_file(11))),
        expect(&["/e", "/d/s"], &["/d/s", "/d/s!", "/d/s/n"])
    );
}

#[test]
fn contents_written_at_both_sides_are_both_kept_and_the_same_bytes_are_one() {
    let lengths = |site: &Site| -> Vec<u64> {
        let head = site.state.head(file(G)).unwrap().unwrap();
        head.siblings.iter().map(|sibling| sibling.length).collect()
    };
    assert_eq!(lengths(&apart(store(file(G), "333"), store(file(G), "4444"))), [3, 4]);
    // Two versions with one hash: no decision is needed (`Status::in_conflict`).
    assert_eq!(lengths(&apart(store(file(G), "333"), store(file(G), "333"))), [3, 3]);
}

#[test]
fn attributes_of_both_sides_come_together_and_the_later_value_of_one_wins() {
    let head = |site: Site, fid| site.state.head(fid).unwrap().unwrap();
    let merged = head(apart(attr(file(G), Some(0o600), None), attr(file(G), None, Some(7))), file(G));
    assert_eq!((merged.mode(), merged.owner(), merged.marked), (0o600, 7, false));
    let later = head(apart(attr(dir(D), Some(0o700), None), attr(dir(D), Some(0o711), None)), dir(D));
    assert_eq!((later.mode(), later.marked), (0o711, false));
    let with_contents = head(apart(attr(file(G), Some(0o600), None), store(file(G), "333")), file(G));
    assert_eq!((with_contents.mode(), with_contents.siblings.len()), (0o600, 1));
    let xattr = |key: &str| Op::SetXattr { fid: file(G), name: name(key), value: Some(name("v")) };
    assert_eq!(head(apart(xattr("a"), xattr("b")), file(G)).xattrs().len(), 2);
}

#[test]
fn the_change_time_of_both_sides_is_the_later_one_whoever_wrote_last() {
    let head = |site: &Site| site.state.head(file(G)).unwrap().unwrap();
    let World { mut history, mut here, mut there } = World::new();
    // The clock of 11 is ahead of that of 10.
    there.make(&mut history, false, attr(file(G), Some(0o600), None)).unwrap();
    for mode in [0o640, 0o644, 0o660] {
        here.make(&mut history, false, attr(file(G), Some(mode), None)).unwrap();
    }
    let (ahead, last) = (head(&there).ctime(), head(&here));
    assert!(ahead > last.ctime() && head(&there).lamport() < last.lamport());
    here.join(&there);
    assert_eq!((head(&here).ctime(), head(&here).mode()), (ahead, 0o660));
    // Whoever saw it goes on from there, whatever the clock says.
    here.make(&mut history, false, attr(file(G), Some(0o600), None)).unwrap();
    assert_eq!(head(&here).ctime(), ahead + 1);
}

#[test]
fn quotas_set_at_both_sides_are_the_later_one() {
    let quota = |max| Op::SetQuota { fid: root(), min: None, max: Some(max) };
    let site = apart(quota(100), quota(200));
    assert_eq!(site.state.head(root()).unwrap().unwrap().quota_max(), 200);
}

#[test]
fn lists_set_at_both_sides_leave_what_both_allow_and_mark_the_directory() {
    let list = |who: &str, rights| Op::SetAcl { fid: dir(E), acl: acl(who, rights) };
    let site = apart(list("somebody", 0b1111), list("somebody", 0b0011));
    assert!(site.tree().contains(&"/e!".to_owned()));
    let left: Acl = site.state.head(dir(E)).unwrap().unwrap().acl();
    assert_eq!(left.positive.get("somebody"), Some(&Rights(0b0011)));
    // A list beside anything else decides nothing.
    let beside = apart(list("somebody", 1), create(dir(E), "n", new_file(11)));
    assert_eq!(beside.tree(), expect(&[], &["/e/n"]));
}

#[test]
fn of_directories_moved_into_each_other_the_younger_move_gives_way_marked() {
    assert_eq!(
        tree(rename(root(), "d", dir(E), "d", dir(D)), rename(root(), "e", dir(D), "e", dir(E))),
        expect(&["/e", "/d", "/d/f", "/d/l", "/d/s"], &["/e!", "/e/d", "/e/d/f", "/e/d/l", "/e/d/s"])
    );
}
