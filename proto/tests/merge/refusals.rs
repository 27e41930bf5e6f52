//! What is refused, with which code, and whom it blames.

use coda_proto::{
    Author, Base, Code, Dot, Fid, Op, Past, Record,
    merge::{ApplyError, Outcome, Replica, apply, fold},
};

use crate::{
    names::{create, mkdir, remove, rename},
    site::{History, Site, acl, name, root, store},
};

struct Start {
    history: History,
    site: Site,
    d: Fid,
    e: Fid,
    f: Fid,
    g: Fid,
}

/// `/d/f`, `/d/e` and `/g`.
fn start() -> Start {
    let (mut history, mut site) = (History::default(), Site::new(9));
    let dir = |count| Fid::directory(root().volume, site.author, count);
    let file = |count| Fid::file(root().volume, site.author, count);
    let (d, e, f, g) = (dir(1), dir(2), file(1), file(2));
    for op in [mkdir(root(), "d", d), mkdir(d, "e", e), create(d, "f", f), create(root(), "g", g)] {
        site.make(&mut history, false, op).unwrap();
    }
    Start { history, site, d, e, f, g }
}

fn refused(start: &mut Start, op: Op) -> (Code, Option<Fid>) {
    let refusal = start.site.make(&mut start.history, false, op).unwrap_err();
    (refusal.code, refusal.blame)
}

#[test]
fn connected_calls_get_the_errors_of_posix() {
    let mut start = start();
    let Start { d, e, f, g, .. } = start;
    let new = Fid::file(root().volume, Author(9), 77);
    let newdir = Fid::directory(root().volume, Author(9), 77);
    let over = |from, a: &str, to, b: &str, fid, replaced| Op::Rename {
        from,
        from_name: name(a),
        to,
        to_name: name(b),
        fid,
        replaced: Some(replaced),
    };
    let cases = [
        (create(f, "n", new), Code::NotDirectory, f),
        (create(d, "..", new), Code::Name, d),
        (create(d, "a/b", new), Code::Name, d),
        (create(d, "f", new), Code::Exists, f),
        (mkdir(d, "f", newdir), Code::Exists, f),
        (create(d, "n", newdir), Code::IsDirectory, newdir),
        (mkdir(d, "n", new), Code::NotDirectory, new),
        (Op::Link { parent: root(), name: name("n"), fid: f }, Code::CrossDirectory, f),
        (Op::Link { parent: d, name: name("n"), fid: e }, Code::IsDirectory, e),
        (Op::Remove { parent: d, name: name("e"), fid: e }, Code::IsDirectory, e),
        (Op::RemoveDir { parent: d, name: name("f"), fid: f }, Code::NotDirectory, f),
        (remove(d, "nothing", f), Code::NoEntry, f),
        (remove(root(), "d", d), Code::NotEmpty, d),
        (rename(root(), "d", e, "d", d), Code::Loop, d),
        (rename(root(), "d", d, "d", d), Code::Loop, d),
        (rename(root(), "g", d, "f", g), Code::Exists, f),
        (over(root(), "g", d, "e", g, e), Code::IsDirectory, e),
        (over(root(), "d", root(), "g", d, g), Code::NotDirectory, g),
        (over(d, "e", root(), "d", e, d), Code::NotEmpty, d),
        (store(e, "x"), Code::IsDirectory, e),
        (store(new, "x"), Code::Gone, new),
        (Op::SetAcl { fid: f, acl: acl("w", 1) }, Code::NotDirectory, f),
        (Op::SetQuota { fid: d, min: None, max: Some(1) }, Code::Invalid, d),
    ];
    for (op, code, blame) in cases {
        assert_eq!(refused(&mut start, op.clone()), (code, Some(blame)), "{op:?}");
    }
}

#[test]
fn a_file_with_links_stays_in_its_directory() {
    let mut start = start();
    let Start { d, f, .. } = start;
    start.site.make(&mut start.history, false, Op::Link { parent: d, name: name("l"), fid: f }).unwrap();
    assert_eq!(refused(&mut start, rename(d, "f", root(), "f", f)), (Code::CrossDirectory, Some(f)));
    start.site.make(&mut start.history, false, rename(d, "f", d, "m", f)).unwrap();
}

#[test]
fn binding_a_name_again_to_the_object_it_has_succeeds() {
    let mut start = start();
    let Start { d, f, .. } = start;
    start.site.make(&mut start.history, false, Op::Link { parent: d, name: name("f"), fid: f }).unwrap();
    assert_eq!(start.site.tree(), ["/d", "/d/e", "/d/f", "/g"], "and shows once");
    start.site.make(&mut start.history, false, remove(d, "f", f)).unwrap();
    assert_eq!(start.site.tree(), ["/d", "/d/e", "/g"]);
}

#[test]
fn a_member_that_lacks_the_base_asks_for_resolution() {
    let mut start = start();
    let behind = start.site.clone();
    let Start { d, f, .. } = start;
    start.site.make(&mut start.history, false, store(f, "one")).unwrap();
    let second = start.site.make(&mut start.history, false, store(f, "two")).unwrap();
    let mut behind = behind.fork(20);
    let refusal = behind.receive(&second).unwrap_err();
    assert_eq!((refusal.code, refusal.blame), (Code::NeedsResolve, Some(f)));
    // Also where the object was never heard of.
    let new = Fid::file(root().volume, Author(9), 50);
    start.site.make(&mut start.history, false, create(d, "n", new)).unwrap();
    let third = start.site.make(&mut start.history, false, store(new, "x")).unwrap();
    let refusal = behind.receive(&third).unwrap_err();
    assert_eq!((refusal.code, refusal.blame), (Code::NeedsResolve, Some(new)));
    behind.join(&start.site);
    assert_eq!(behind.receive(&third), Ok(coda_proto::merge::Outcome::Repeated));
}

#[test]
fn nothing_but_contents_and_names_brings_a_removed_file_back_here() {
    let mut start = start();
    let Start { g, .. } = start;
    let mut other = start.site.fork(20);
    start.site.make(&mut start.history, false, remove(root(), "g", g)).unwrap();
    let attr = Op::SetAttr { fid: g, mode: Some(0), owner: None, group: None, mtime: None, atime: None };
    let late = other.make(&mut start.history, true, attr).unwrap();
    assert_eq!(start.site.receive(&late).unwrap_err().code, Code::Gone);
    let late = other.make(&mut start.history, true, store(g, "late")).unwrap();
    assert_eq!(start.site.receive(&late).unwrap_err().code, Code::NeedsResolve, "it lacks the setattr");
    let mut third = start.site.fork(21);
    third.join(&other);
    assert_eq!(third.tree(), ["/d", "/d/e", "/d/f", "/g!"]);
}

#[test]
fn records_of_retired_authors_and_of_other_volumes_are_refused() {
    let mut start = start();
    let Start { d, .. } = start;
    let elsewhere = Fid { volume: coda_proto::VolumeId(0x7f00_0002), ..d };
    let across = rename(d, "f", elsewhere, "f", start.f);
    assert_eq!(refused(&mut start, across).0, Code::Invalid);
    start.site.state.retire(Author(9), STAMP);
    let new = Fid::file(root().volume, Author(9), 50);
    assert_eq!(refused(&mut start, create(d, "n", new)), (Code::Retired, None));
}

#[test]
fn a_record_names_what_its_author_saw() {
    let Start { mut site, f, .. } = start();
    let record = |bases| Record {
        dot: Dot::new(Author(20), 1),
        lamport: 50,
        time: 0,
        changed: 0,
        bases,
        logged: false,
        host: String::new(),
        op: store(f, "x"),
    };
    let refusal = |error| match error {
        ApplyError::Refused(refusal) => (refusal.code, refusal.blame),
        ApplyError::Store(never) => match never {},
    };
    let none = apply(&mut site.state, &record(Vec::new())).unwrap_err();
    assert_eq!(refusal(none), (Code::Invalid, Some(f)));
    let never_was = Base { fid: f, past: Past::of(Dot::new(Author(9), 99)) };
    let lacking = apply(&mut site.state, &record(vec![never_was])).unwrap_err();
    assert_eq!(refusal(lacking), (Code::NeedsResolve, Some(f)));
}

/// When author 9 was retired.
const STAMP: u64 = Past::STAMPS + 9;

/// Lets one entry stand for what author 9 wrote.
fn fold_all(site: &mut Site) {
    for mut head in site.state.heads().cloned().collect::<Vec<_>>() {
        if head.past.seq(Author(9)) > 0 {
            fold(&site.state, &mut head, STAMP).unwrap();
            site.state.put_head(head).unwrap();
        }
    }
}

#[test]
fn a_repeated_record_of_a_retired_author_was_done_and_a_new_one_is_refused() {
    let Start { mut history, mut site, f, .. } = start();
    let mut other = site.fork(30);
    let record = other.make(&mut history, true, store(f, "once")).unwrap();
    site.receive(&record).unwrap();
    site.state.retire(record.dot.author, STAMP);
    assert_eq!(apply(&mut site.state, &record), Ok(Outcome::Repeated));
    let next = other.make(&mut history, true, store(f, "late")).unwrap();
    assert_eq!(site.receive(&next).unwrap_err().code, Code::Retired);
}

#[test]
fn what_a_retired_author_wrote_is_folded_and_included_all_the_same() {
    let Start { mut history, mut site, f, .. } = start();
    site.make(&mut history, false, store(f, "old")).unwrap();
    let (mut a, mut b, mut c) = (site.fork(20), site.fork(21), site.fork(22));
    for site in [&mut a, &mut b, &mut c] {
        site.state.retire(Author(9), STAMP);
        site.state.includes_elders(STAMP);
    }
    // One of them has folded it, and the others not yet.
    fold_all(&mut a);
    let folded = a.state.head(f).unwrap().unwrap();
    assert_eq!((folded.past.entries().count(), folded.past.elders()), (1, STAMP));
    let next = a.make(&mut history, false, store(f, "next")).unwrap();
    b.receive(&next).unwrap();
    assert_eq!(b.state.head(f).unwrap(), a.state.head(f).unwrap());
    assert_eq!(b.state.head(f).unwrap().unwrap().siblings.len(), 1, "what it replaced is not kept beside it");
    // And one that hears of both by joining.
    c.join(&a);
    assert_eq!(c.state, a.joined(&c).state);
    assert_eq!(c.state.head(f).unwrap().unwrap().siblings.len(), 1);
}

#[test]
fn what_nobody_saw_who_knew_the_object_before_it_was_folded_is_not_taken_for_seen() {
    let Start { mut history, mut site, f, .. } = start();
    let mut away = site.fork(30);
    site.make(&mut history, false, store(f, "of 9, unseen")).unwrap();
    site.state.retire(Author(9), STAMP);
    site.state.includes_elders(STAMP);
    fold_all(&mut site);
    // Whoever was away wrote on what was before.
    let late = away.make(&mut history, true, store(f, "of 30")).unwrap();
    site.receive(&late).unwrap();
    assert_eq!(site.state.head(f).unwrap().unwrap().siblings.len(), 2, "neither saw the other");
    // And a member that was restored to what was before hears all of it.
    let mut old = away.fork(31);
    old.state.retire(Author(9), STAMP);
    old.join(&site);
    assert_eq!(old.state.head(f).unwrap().unwrap().siblings.len(), 2);
    assert_eq!(old.state.head(f).unwrap(), site.joined(&old).state.head(f).unwrap());
}

#[test]
fn a_base_that_is_folded_is_taken_only_where_all_of_it_is_included() {
    let Start { mut history, mut site, f, .. } = start();
    let mut behind = site.fork(30);
    site.make(&mut history, false, store(f, "missed")).unwrap();
    for site in [&mut site, &mut behind] {
        site.state.retire(Author(9), STAMP);
    }
    fold_all(&mut site);
    let mut other = site.fork(20);
    let next = other.make(&mut history, false, store(f, "next")).unwrap();
    assert_eq!(behind.receive(&next).unwrap_err().code, Code::NeedsResolve);
    behind.join(&other);
    assert_eq!(behind.state.head(f).unwrap(), other.state.head(f).unwrap());
}

#[test]
fn what_a_retired_author_wrote_and_a_member_missed_is_not_taken_for_dropped() {
    let Start { mut history, mut site, f, .. } = start();
    let mut behind = site.fork(20);
    site.make(&mut history, false, store(f, "missed")).unwrap();
    site.state.retire(Author(9), STAMP);
    behind.state.retire(Author(9), STAMP);
    behind.join(&site);
    assert_eq!(behind.state.head(f).unwrap().unwrap().siblings.len(), 1);
    assert_eq!(site.joined(&behind).state, behind.state);
}
