//! Seals, and what a restart leaves of them.

use coda_proto::{Author, Dot, Kind, Past, Status};

use super::{kept::KEPT_AT_ONCE, *};
use crate::{
    cache::{Limits, disk::DiskContainers},
    store::{Change, Edit, Store},
    venus::face::ObjectId,
};

fn stamp(incarnation: u64, change_seq: u64) -> wire::Stamp {
    wire::Stamp { incarnation, change_seq }
}

fn stamps(of: &[(u8, u64, u64)]) -> Stamps {
    of.iter().map(|(id, incarnation, seq)| (ServerId(*id), stamp(*incarnation, *seq))).collect()
}

#[test]
fn a_stamp_may_be_older_than_what_it_seals_but_not_younger() {
    let mut seal = Seal::default();
    assert_eq!(seal.cover(&stamps(&[(1, 7, 5), (2, 8, 9)])), 0b11);
    assert_eq!(seal.cover(&stamps(&[(1, 7, 6), (2, 8, 9)])), 0b11);
    assert_eq!(seal.members[&ServerId(1)].stamp, stamp(7, 5), "it stays where it was");
    assert_eq!(seal.cover(&stamps(&[(1, 7, 4), (2, 8, 9)])), 0b10, "an old answer");
    assert_eq!(seal.cover(&Stamps::new()), 0, "nobody vouches");
}

#[test]
fn a_member_that_is_away_or_lives_another_life_seals_nothing() {
    let mut seal = Seal::default();
    seal.cover(&stamps(&[(1, 7, 5), (2, 8, 9)]));
    assert_eq!(seal.cover(&stamps(&[(2, 8, 10)])), 0b10);
    assert_eq!(seal.cover(&stamps(&[(1, 99, 5), (2, 8, 10)])), 0b10);
    assert_eq!(seal.cover(&stamps(&[(3, 1, 1)])), 0b100, "a new member");
}

#[test]
fn our_own_mutations_keep_a_stamp_that_nobody_else_has_passed() {
    let mut seal = Seal::default();
    seal.cover(&stamps(&[(1, 7, 5)]));
    seal.advance(ServerId(1), stamp(7, 5), stamp(7, 6));
    seal.advance(ServerId(1), stamp(7, 7), stamp(7, 8));
    assert_eq!(seal.members[&ServerId(1)].stamp, stamp(7, 6), "somebody else's lies in between");
    seal.cover(&stamps(&[(1, 7, 6 + BEHIND)]));
    assert_eq!(seal.behind, BEHIND);
}

const VOLUME: (u32, VolumeId) = (1, VolumeId(7));
const HERE: ServerId = ServerId(1);
const THERE: ServerId = ServerId(2);

fn cache(store: Store, dir: &std::path::Path) -> Cache {
    let containers = DiskContainers::open(&dir.join("containers"), &dir.join("spool")).unwrap();
    let limits = Limits { bytes: 1 << 20, objects: 1000, in_memory: 1000 };
    Cache::new(store, std::sync::Arc::new(containers), limits, tokio::sync::mpsc::unbounded_channel().0)
        .unwrap()
}

/// What a cache is after a crash.
fn again(cache: &Cache, dir: &std::path::Path) -> Cache {
    let store = std::mem::replace(&mut cache.ground().store, Store::open(None).unwrap());
    self::cache(store, dir)
}

fn object(vnode: u32) -> ObjectId {
    ObjectId { realm: VOLUME.0, fid: Fid { volume: VOLUME.1, vnode, unique: 5 } }
}

fn past(seq: u64) -> Past {
    [Dot::new(Author(9), seq)].into_iter().collect()
}

fn version(vnode: u32, seq: u64) -> Status {
    let status = wire::Status {
        fid: Some(object(vnode).fid.into()),
        kind: Kind::File.into(),
        parent: Some(Fid::root(VOLUME.1).into()),
        past: Some((&past(seq)).into()),
        ..Default::default()
    };
    status.try_into().unwrap()
}

/// These members were found to hold a version of an object.
fn found(cache: &Cache, vnode: u32, seq: u64, at: &[(ServerId, u64)]) {
    cache.learn(object(vnode), version(vnode, seq)).unwrap();
    let mark = cache.mark(VOLUME.0, VOLUME.1);
    let stamps = at.iter().map(|(server, seq)| (*server, stamp(server.0.into(), *seq))).collect();
    assert!(cache.believe(object(vnode), mark, &past(seq), &stamps).unwrap());
}

/// A member answers what changed, in the order of what changed.
fn since(seq: u64, server: ServerId, changed: &[(u32, u64)]) -> Since {
    let changed = changed.iter().map(|(vnode, seq)| (object(*vnode).fid, Some(past(*seq).digest())));
    Since { stamp: stamp(server.0.into(), seq), changed: changed.collect() }
}

fn reseal(cache: &Cache, answers: &[(ServerId, Since)]) {
    cache.void(VOLUME.0, |_| true);
    let doubt = cache.doubt(VOLUME.0, VOLUME.1).unwrap();
    cache.reseal(VOLUME, &doubt, &answers.iter().cloned().collect());
}

fn is_believed(cache: &Cache, vnode: u32) -> bool {
    cache.view(object(vnode)).unwrap().unwrap().valid
}

#[test]
fn a_member_that_came_late_vouches_after_a_crash_for_nothing_that_it_was_not_asked_about_since() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(Store::open(None).unwrap(), dir.path());
    found(&one, 2, 1, &[(HERE, 5)]);
    while one.keep_seals().unwrap() {}
    // The other member comes up, and holds it, too.
    found(&one, 2, 1, &[(HERE, 5), (THERE, 10)]);
    found(&one, 4, 1, &[(HERE, 5), (THERE, 10)]);
    while one.keep_seals().unwrap() {}
    let two = again(&one, dir.path());
    // At 20 the first object changed there, and nowhere else. It is met again later, over another object.
    found(&two, 4, 2, &[(HERE, 6), (THERE, 30)]);
    two.void(VOLUME.0, |_| true);
    let doubt = two.doubt(VOLUME.0, VOLUME.1).unwrap();
    let listed: &[(u32, u64)] = if doubt.stamps[&THERE].change_seq < 20 { &[(2, 8), (4, 2)] } else { &[] };
    two.reseal(VOLUME, &doubt, &[(THERE, since(30, THERE, listed))].into());
    assert!(!is_believed(&two, 2), "it changed at 20");
    assert!(is_believed(&two, 4));
}

#[test]
fn what_is_ours_and_not_sent_is_sealed_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(Store::open(None).unwrap(), dir.path());
    found(&one, 2, 1, &[(HERE, 5), (THERE, 10)]);
    while one.keep_seals().unwrap() {}
    // Written here, then off the log: what the members said of it was lost in a crash.
    let ours = crate::store::Row::new(version(2, 2));
    one.commit(&Change::of(Edit::Put(object(2), ours.into()))).unwrap();
    while one.keep_seals().unwrap() {}
    let two = again(&one, dir.path());
    assert!(!is_believed(&two, 2));
    reseal(&two, &[(HERE, since(6, HERE, &[])), (THERE, since(11, THERE, &[]))]);
    assert!(!is_believed(&two, 2), "nobody was asked about this version");
    let kept = two.store(|store| Ok(store.sealed(object(2)).unwrap().map(|kept| kept.members))).unwrap();
    assert_eq!(kept.unwrap_or(0), 0);
}

#[test]
fn no_younger_stamp_is_kept_ahead_of_what_is_known_of_objects() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(Store::open(None).unwrap(), dir.path());
    let objects = KEPT_AT_ONCE as u32 + 10;
    let all = || (1..=objects).map(|n| 2 * n);
    all().for_each(|vnode| found(&one, vnode, 1, &[(HERE, 5)]));
    while one.keep_seals().unwrap() {}
    // Our own mutations moved its stamp; and what they made is known of each object.
    one.advance(VOLUME, HERE, (stamp(1, 5), stamp(1, 6)));
    all().for_each(|vnode| found(&one, vnode, 2, &[(HERE, 6)]));
    let kept = || one.store(|store| Ok(store.seals().unwrap()[0].members[0].2.change_seq)).unwrap();
    assert!(one.keep_seals().unwrap(), "there is more");
    assert_eq!(kept(), 5);
    assert!(!one.keep_seals().unwrap());
    assert_eq!(kept(), 6);
    // An answer moves it, too, and takes along what is known.
    found(&one, 2, 3, &[(HERE, 7)]);
    reseal(&one, &[(HERE, since(7, HERE, &[]))]);
    let said = one.store(|store| Ok(store.sealed(object(2)).unwrap().unwrap())).unwrap();
    assert_eq!((kept(), said.digest), (7, past(3).digest()));
}

#[test]
fn what_comes_back_while_it_is_open_is_not_what_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(Store::open(None).unwrap(), dir.path());
    found(&one, 2, 1, &[(HERE, 5)]);
    let container = one.containers.create(1).unwrap();
    let file = crate::cache::OpenFile::new(1, container, past(1)).unwrap();
    one.open(object(2), &std::sync::Arc::new(file)).unwrap();
    one.commit(&Change::of(Edit::Drop(object(2)))).unwrap();
    one.learn(object(2), version(2, 2)).unwrap();
    assert!(!is_believed(&one, 2));
    reseal(&one, &[(HERE, since(6, HERE, &[]))]);
    assert!(!is_believed(&one, 2));
}
