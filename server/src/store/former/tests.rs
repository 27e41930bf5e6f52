//! What is kept of former contents, and what is given up.

use coda_proto::{Author, Contents, Kind, Name, Op, Record, merge};

use super::*;
use crate::store::{
    Bytes,
    trying::{Trying, VOLUME},
};

const US: Author = Author(7);

struct World {
    store: Trying,
    file: Fid,
    seq: u64,
}

impl World {
    fn new() -> World {
        let file = Fid::file(VOLUME, US, 1);
        let mut world = World { store: Trying::new(), file, seq: 0 };
        let name: Name = b"f".to_vec();
        let make = Op::Create { parent: Fid::root(VOLUME), name, fid: file, mode: 0o644, owner: 0 };
        world.run(make, None);
        world
    }

    fn run(&mut self, op: Op, content: Option<Content>) -> Dot {
        self.seq += 1;
        let made = Dot::new(US, self.seq);
        let file = self.file;
        self.store.job(|txn| {
            let base = |fid: Fid| Some(coda_proto::Base { fid, past: txn.head(fid).unwrap()?.past });
            let bases: Vec<_> = op.touches().into_iter().filter_map(base).collect();
            let time = made.seq as i64;
            let (host, logged) = (String::new(), false);
            let record =
                Record { dot: made, lamport: made.seq + 1, time, changed: time, bases, logged, host, op };
            let rewrites = txn.has_contents(file)?;
            assert!(matches!(merge::apply(txn, &record), Ok(merge::Outcome::Applied { .. })));
            if let Some(content) = content {
                txn.put_content(file, made, &content)?;
                if rewrites {
                    txn.put_seen(file, made, &record.base(file))?;
                }
            }
            Ok(())
        });
        made
    }

    /// Writes the file; its times go on as its numbers do.
    fn store(&mut self, bytes: &[u8], container: Option<&str>) -> Dot {
        let (length, hash) = (bytes.len() as u64, *blake3::hash(bytes).as_bytes());
        let contents = Contents::Uploaded([0; 16]);
        let mtime = self.seq as i64 + 1;
        let op = Op::Store { fid: self.file, length, hash, mtime, contents, mode: None };
        let bytes = match container {
            Some(name) => Bytes::Container(name.to_owned()),
            None => Bytes::Inline(bytes.to_vec()),
        };
        self.run(op, Some(Content { length, hash: hash.to_vec(), bytes }))
    }

    fn formers(&self) -> Vec<Former> {
        self.store.replica.read(|view| view.formers(self.file)).unwrap()
    }

    fn bytes(&self) -> u64 {
        self.store.replica.read(|view| view.former_bytes()).unwrap()
    }
}

#[test]
fn what_a_file_was_is_kept_with_what_its_author_had_seen_and_quota_does_not_count_it() {
    let mut world = World::new();
    let used = |world: &World| world.store.replica.read(|view| Ok(view.volume_row()?.used)).unwrap();
    let one = world.store(b"one", Some("aa11"));
    let before = used(&world);
    let two = world.store(b"two", None);
    assert_eq!(used(&world), before);
    let formers = world.formers();
    assert_eq!(formers.len(), 1);
    assert_eq!((formers[0].version.dot, formers[0].version.length), (one, 3));
    let seen = world.store.replica.read(|view| view.seen_by(world.file)).unwrap();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].0 == two && seen[0].1.covers(one));
    // Its container is no garbage while it is kept, and is when it goes.
    assert!(world.store.replica.garbage(9).unwrap().is_empty());
    let held = world.store.replica.read(|view| view.former_content(world.file, one)).unwrap().unwrap();
    assert!(matches!(held.bytes, Bytes::Container(name) if name == "aa11"));
    assert!(!world.store.job(|txn| txn.forget_formers(0, 100)));
    assert_eq!((world.formers().len(), world.bytes()), (1, 3), "it is new");
    assert!(!world.store.job(|txn| txn.forget_formers(101, 200)));
    assert_eq!((world.formers().len(), world.bytes()), (0, 0));
    assert_eq!(world.store.replica.garbage(9).unwrap(), ["aa11"]);
}

#[test]
fn of_one_file_a_few_are_kept_the_oldest_and_the_newest_among_them() {
    let mut world = World::new();
    let made: Vec<Dot> = (0..40u32).map(|n| world.store(&n.to_le_bytes(), None)).collect();
    let kept: Vec<Dot> = world.formers().iter().map(|former| former.version.dot).collect();
    assert_eq!(kept.len(), OF_ONE);
    assert_eq!((kept[0], kept[OF_ONE - 1]), (made[0], made[38]));
    assert_eq!(world.bytes(), 4 * OF_ONE as u64);
    // Whoever removes the file leaves nothing behind.
    world.store.job(|txn| txn.forget_formers_of(Fid::file(VOLUME, US, 1)));
    assert_eq!((world.formers().len(), world.bytes()), (0, 0));
}

#[test]
fn all_together_take_a_share_and_no_more_and_large_ones_are_not_kept() {
    let mut world = World::new();
    let large = |n: u64, length: u64| Content {
        length,
        hash: blake3::hash(&n.to_le_bytes()).as_bytes().to_vec(),
        bytes: Bytes::Container(format!("{n:04}")),
    };
    let mut write = |n: u64, length: u64| {
        let content = large(n, length);
        let hash = content.hash[..].try_into().unwrap();
        let contents = Contents::Uploaded([0; 16]);
        let op = Op::Store { fid: world.file, length, hash, mtime: n as i64, contents, mode: None };
        world.run(op, Some(content));
        world.bytes()
    };
    write(1, LARGEST + 1);
    assert_eq!(write(2, 9 << 20), 0, "too large");
    assert_eq!(write(3, 6 << 20), 9 << 20);
    assert_eq!(write(4, 5 << 20), 15 << 20);
    assert_eq!(write(5, 1), 11 << 20, "the oldest made room");
}

#[test]
fn where_much_is_to_go_no_store_waits_for_all_of_it() {
    let mut world = World::new();
    world.store(b"x", None);
    world.store(b"y", None);
    world.store.job(|txn| {
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
            INSERT INTO former(vnode, uniq, author, seq, length, hash, mtime, host, seen, bytes)
            SELECT 2, i, 1, 1, 1048576, x'', 0, '', x'', x'' FROM n; UPDATE kept SET bytes = 1 + 100 * 1048576";
        Ok(txn.db.execute_batch(many)?)
    });
    world.store(b"z", None);
    assert_eq!(world.bytes(), (101 - u64::from(AT_A_STORE)) << 20 | 1, "what it was and some others went");
    while world.store.job(|txn| txn.forget_formers(0, 100)) {}
    assert_eq!(world.bytes(), (15 << 20) + 1);
}

#[test]
fn what_authors_had_seen_goes_with_the_versions_that_it_explains() {
    let mut world = World::new();
    let seen = |world: &World| world.store.replica.read(|view| view.seen_by(world.file)).unwrap();
    for n in 0..40u32 {
        world.store(&n.to_le_bytes(), None);
    }
    let last = Dot::new(US, world.seq);
    assert_eq!(seen(&world).iter().map(|(made, _)| *made).collect::<Vec<_>>(), [last], "of the present one");
    let explained = |former: &Former| former.version.dot == Dot::new(US, 2) || !former.seen.is_empty();
    assert!(world.formers().iter().all(explained), "former ones say it themselves");
    world.store.job(|txn| txn.forget_formers(0, 100));
    assert_eq!(seen(&world).len(), 1, "the others are new");
    world.store.job(|txn| txn.forget_formers(101, 200));
    assert!(seen(&world).is_empty());
}

#[test]
fn a_former_version_that_is_damaged_is_forgotten_and_others_with_its_bytes_stay() {
    let mut world = World::new();
    let first = world.store(b"same", Some("aa11"));
    world.store(b"same", Some("bb22"));
    let inline = world.store(b"same", None);
    world.store(b"other", None);
    let hash = *blake3::hash(b"same").as_bytes();
    let dots = |world: &World| world.formers().iter().map(|f| f.version.dot).collect::<Vec<_>>();
    world.store.job(|txn| txn.lose(&hash, Some("bb22")));
    assert_eq!((dots(&world), world.bytes()), (vec![first, inline], 8));
    world.store.job(|txn| txn.lose(&hash, None));
    assert_eq!(dots(&world), [first, inline], "what the row holds is whole");
    let places = world.store.replica.read(|view| view.stored_after(0, 9)).unwrap();
    assert_eq!(places.len(), 1);
    let then = world.store.replica.read(|view| view.stored_after(places[0].place, 9)).unwrap();
    assert_eq!(then.iter().map(|row| row.place < 0).collect::<Vec<_>>(), [true, true]);
    let again = world.store.replica.read(|view| view.stored_at(then[1].place)).unwrap();
    assert_eq!(again.unwrap().hash, hash);
    assert!(world.store.replica.read(|view| view.stored_after(then[1].place, 9)).unwrap().is_empty());
}

#[test]
fn what_is_missed_least_goes() {
    assert_eq!(spare(&[1, 2, 3, 4, 5, 6, 7, 8]), None);
    assert_eq!(spare(&[0, 100, 200, 300, 310, 320, 500, 600, 700]), Some(4));
    // Clocks go wrong.
    assert!(spare(&[i64::MAX, i64::MIN, 0, 1, 2, 3, 4, 5, i64::MAX]).is_some());
}

#[test]
fn a_directory_has_no_former_contents() {
    let world = World::new();
    let root = Head::runt(Fid::root(VOLUME), Kind::Directory);
    world.store.job(|txn| txn.keep_replaced(&root));
    assert_eq!(world.bytes(), 0);
}
