//! A server that dies at each named point, or whose disk goes dead at each of its calls: what it had answered is
//! there, and its store is sound.

#[path = "world/cut.rs"]
mod cut;
mod world;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use coda_proto::{Acl, Fid, Op, Record, Rights};
use coda_server::{CrashHook, CrashPoint, Durability, Server, ServerConfig, store::fsck};
use cut::Disk;
use world::{Client, Place, assert_sound, env, head, store_inline, store_uploaded};

/// Dies when `point` is reached for the `nth` time.
fn dies_at(point: CrashPoint, nth: u32) -> CrashHook {
    let met = AtomicU32::new(0);
    CrashHook(Arc::new(move |here| here == point && met.fetch_add(1, Ordering::SeqCst) + 1 >= nth))
}

/// Writes until the server dies; answers the files whose stores were answered, with their contents.
async fn write_until_death(a: &mut Client) -> Vec<(Fid, Vec<u8>)> {
    let mut answered: Vec<(Fid, Vec<u8>)> = Vec::new();
    for round in 0..16u8 {
        // The last file is written more often than what it was is kept.
        if round < 4 {
            let Ok(file) = a.create(a.root(), &format!("f{round}")).await else { return answered };
            answered.push((file, Vec::new()));
        }
        let file = answered.last().unwrap().0;
        for (again, size) in [(0u8, 100usize), (1, 60_000), (2, 70_000)] {
            let bytes = vec![round * 3 + again; size];
            let handle = [round * 3 + again + 1; 16];
            let stored = match size > coda_proto::INLINE_LIMIT {
                true => match a.upload(handle, &bytes, 0, size).await {
                    Ok(_) => a.run(store_uploaded(file, &bytes, handle)).await,
                    Err(refusal) => Err(refusal),
                },
                false => a.store(file, &bytes).await,
            };
            match stored {
                Ok(_) => answered.last_mut().unwrap().1 = bytes,
                Err(_) => return answered,
            }
        }
    }
    panic!("the server was to die");
}

#[tokio::test]
async fn whatever_was_answered_before_a_crash_is_there_after_it() {
    for point in CrashPoint::ALL {
        for nth in 1..=9 {
            let place = Place::new(Rights::ALL);
            let server = place.open_with(dies_at(point, nth));
            let mut a = Client::new(&server, place.home, 1);
            let answered = write_until_death(&mut a).await;
            server.stop();
            drop(a);
            let server = place.open();
            let b = Client::new(&server, place.home, 2);
            for (file, bytes) in &answered {
                let held = b.fetch(*file, 0, 100_000).await.unwrap();
                // The last store may have been committed without an answer.
                let last = answered.last().is_some_and(|(last, _)| last == file);
                assert!(held == *bytes || last, "{point:?} {nth}: {file}");
                assert!(b.status(*file).await.is_some());
            }
            server.stop();
            let findings = coda_server::store::fsck::check(&place.path()).unwrap();
            assert!(findings.is_empty(), "{point:?} {nth}: {findings:#?}");
        }
    }
}

#[tokio::test]
async fn a_mutation_whose_answer_was_lost_in_a_crash_is_done_once_when_retried() {
    for point in [CrashPoint::BeforeCommit, CrashPoint::BeforeReply] {
        let place = Place::new(Rights::ALL);
        let server = place.open_with(dies_at(point, 1));
        let mut a = Client::new(&server, place.home, 1);
        let fid = a.fresh_file();
        let parent = a.root();
        let create = coda_proto::Op::Create { parent, name: b"f".to_vec(), fid, mode: 0o644, owner: 1 };
        let record = a.record(create).await;
        a.apply(std::slice::from_ref(&record)).await.unwrap_err();
        server.stop();
        let server = place.open();
        let committed = Client::new(&server, place.home, 2).names(parent).await.len();
        assert_eq!(committed, usize::from(point == CrashPoint::BeforeReply));
        let a = Client { server: server.clone(), ..a };
        let mut again = Client::new(&server, place.home, 1);
        again.author = a.author;
        again.apply(&[record]).await.unwrap();
        assert_eq!(again.names(parent).await, ["f"]);
        server.stop();
        assert_sound(&place);
    }
}

#[tokio::test]
async fn containers_that_nobody_names_are_removed() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let file = a.create(a.root(), "f").await.unwrap();
    for round in 1..=12u8 {
        let bytes = vec![round; 50_000];
        a.upload([round; 16], &bytes, 0, 50_000).await.unwrap();
        a.run(store_uploaded(file, &bytes, [round; 16])).await.unwrap();
    }
    a.store(file, b"small").await.unwrap();
    a.create(a.root(), "g").await.unwrap();
    server.stop();
    let containers = std::fs::read_dir(place.path().join("vol"))
        .unwrap()
        .flat_map(|volume| std::fs::read_dir(volume.unwrap().path().join("data")).unwrap())
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .count();
    assert_eq!(containers, 8, "so often it is kept what a file was");
    assert_sound(&place);
}

#[tokio::test]
async fn damage_is_found() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let mut a = Client::new(&server, place.home, 1);
    let file = a.create(a.root(), "f").await.unwrap();
    let bytes = vec![1; 50_000];
    a.upload([1; 16], &bytes, 0, 50_000).await.unwrap();
    a.run(store_uploaded(file, &bytes, [1; 16])).await.unwrap();
    server.stop();
    assert_sound(&place);
    let container = std::fs::read_dir(place.path().join("vol"))
        .unwrap()
        .flat_map(|volume| std::fs::read_dir(volume.unwrap().path().join("data")).unwrap())
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut damaged = bytes.clone();
    damaged[40_000] = 2;
    std::fs::write(&container, &damaged).unwrap();
    let findings = coda_server::store::fsck::check(&place.path()).unwrap();
    assert!(findings[0].what.contains("do not match their hash"), "{findings:?}");
    std::fs::remove_file(&container).unwrap();
    let findings = coda_server::store::fsck::check(&place.path()).unwrap();
    assert!(findings[0].what.contains("cannot be read"), "{findings:?}");
}

/// A store with a few objects, of which copies are made.
struct Template {
    place: Place,
    root: Fid,
    dir: Fid,
    file: Fid,
    large: Fid,
    empty: Fid,
}

/// What one record can do.
const DEEDS: [&str; 13] = [
    "create",
    "mkdir",
    "symlink",
    "link",
    "remove",
    "rmdir",
    "rename",
    "replace",
    "store",
    "store large",
    "setattr",
    "setxattr",
    "setacl",
];
const HANDLE: [u8; 16] = [9; 16];

fn bytes_of(deed: &str) -> Vec<u8> {
    vec![deed.len() as u8; 50_000]
}

impl Template {
    /// `/d`, `/d/f`, `/s`, and `/g` in a container.
    async fn new() -> Template {
        let place = Place::new(Rights::ALL);
        let server = place.open();
        let mut a = Client::new(&server, place.home, 1);
        let root = a.root();
        let (dir, empty) = (a.mkdir(root, "d").await.unwrap(), a.mkdir(root, "s").await.unwrap());
        let (file, large) = (a.create(dir, "f").await.unwrap(), a.create(root, "g").await.unwrap());
        a.store(file, b"small").await.unwrap();
        a.upload([1; 16], &[1; 50_000], 0, 50_000).await.unwrap();
        a.run(store_uploaded(large, &[1; 50_000], [1; 16])).await.unwrap();
        server.stop();
        Template { place, root, dir, file, large, empty }
    }

    fn op(&self, deed: &str, a: &mut Client) -> Op {
        let (parent, fid, name) = (self.root, self.file, b"new".to_vec());
        let (mode, owner) = (0o644, 1000);
        let rename = |to_name: &[u8], replaced| Op::Rename {
            from: self.dir,
            from_name: b"f".to_vec(),
            to: parent,
            to_name: to_name.to_vec(),
            fid,
            replaced,
        };
        match deed {
            "create" => Op::Create { parent, name, fid: a.fresh_file(), mode, owner },
            "mkdir" => Op::MakeDir { parent, name, fid: a.fresh_directory(), mode, owner },
            "symlink" => {
                Op::Symlink { parent, name, fid: a.fresh_file(), target: b"t".to_vec(), mode, owner }
            }
            "link" => Op::Link { parent: self.dir, name, fid },
            "remove" => Op::Remove { parent: self.dir, name: b"f".to_vec(), fid },
            "rmdir" => Op::RemoveDir { parent, name: b"s".to_vec(), fid: self.empty },
            "rename" => rename(b"new", None),
            "replace" => rename(b"g", Some(self.large)),
            "store" => store_inline(self.large, b"other"),
            "store large" => store_uploaded(fid, &bytes_of(deed), HANDLE),
            "setattr" => {
                Op::SetAttr { fid, mode: Some(0o600), owner: None, group: None, mtime: None, atime: None }
            }
            "setxattr" => Op::SetXattr { fid, name, value: Some(b"v".to_vec()) },
            "setacl" => Op::SetAcl { fid: self.dir, acl: Acl::root(Rights::ALL) },
            other => panic!("{other}"),
        }
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&self.place.path(), copy.path());
        copy
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Opens a store whose commits wait for the disk.
fn open(dir: &Path) -> Result<Arc<Server>, String> {
    let config = ServerConfig { durability: Durability::Full, ..ServerConfig::new(dir) };
    Server::open(config, env()).map_err(|error| error.to_string())
}

/// What is on a disk once the power is back: a copy, since whoever died with it may still have its files open here.
fn left_on(disk: &Disk, place: &tempfile::TempDir) -> (tempfile::TempDir, Arc<Disk>) {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(place.path(), copy.path());
    disk.lose_unsynced(copy.path());
    disk.forget();
    let disk = Disk::new(copy.path());
    (copy, disk)
}

/// Does it, contents first where it has large ones. Whether it was answered.
async fn perform(a: &Client, deed: &str, record: &Record) -> bool {
    if deed == "store large" && a.upload(HANDLE, &bytes_of(deed), 0, 50_000).await.is_err() {
        return false;
    }
    a.apply(std::slice::from_ref(record)).await.is_ok()
}

/// Whether a record is in the past of all that it touches; in that of some of it only, never.
fn is_done(server: &Server, record: &Record) -> bool {
    let touched = record.op.touches();
    let covers = |fid: &Fid| head(server, *fid).is_some_and(|head| head.past.covers(record.dot));
    let done = touched.iter().filter(|fid| covers(fid)).count();
    assert!(done == 0 || done == touched.len(), "{:?} is half there", record.op);
    done > 0
}

/// The power goes after so many calls of the disk while `deeds` are done, the last of them cut short. Then the store is
/// recovered, what was cut short is done again, and the power goes once more during one more deed. Answers whether it
/// went the first time.
async fn survives(template: &Template, deeds: &[&str], calls: u64) -> bool {
    let place = template.copy();
    let disk = Disk::new(place.path());
    let case = format!("{deeds:?} cut after {calls} calls");
    let server = open(place.path()).unwrap();
    let mut a = Client::new(&server, template.place.home, 1);
    let (mut records, mut answered) = (Vec::new(), true);
    for (at, deed) in deeds.iter().enumerate() {
        let op = template.op(deed, &mut a);
        let record = a.record(op).await;
        if at + 1 == deeds.len() {
            disk.cut_after(calls);
        }
        answered = perform(&a, deed, &record).await;
        assert!(answered || disk.is_dead(), "{case}: {deed}");
        records.push(record);
    }
    let cut = disk.is_dead();
    server.stop();
    drop(a);
    // The power goes while it recovers, too.
    let (place, disk) = left_on(&disk, &place);
    disk.cut_after(calls % 7);
    if let Ok(server) = open(place.path()) {
        server.stop();
    }
    let (place, disk) = left_on(&disk, &place);
    let server = open(place.path()).unwrap();
    let (last, before) = records.split_last().unwrap();
    for record in before {
        assert!(is_done(&server, record), "{case}: {:?} was answered", record.op);
    }
    assert!(is_done(&server, last) || !answered, "{case}: it was answered");
    // An upload is its client's.
    let mut a = Client::new(&server, template.place.home, 1);
    assert!(perform(&a, deeds.last().unwrap(), last).await, "{case}: done again");
    let mkdir = Op::MakeDir {
        parent: template.root,
        name: b"more".to_vec(),
        fid: a.fresh_directory(),
        mode: 0o755,
        owner: 1000,
    };
    let more = a.record(mkdir).await;
    disk.cut_after(calls % 11);
    let answered = perform(&a, "mkdir", &more).await;
    server.stop();
    drop(a);
    let (place, disk) = left_on(&disk, &place);
    let server = open(place.path()).unwrap();
    for record in &records {
        assert!(is_done(&server, record), "{case}: {:?} after one more", record.op);
    }
    assert!(is_done(&server, &more) || !answered, "{case}: one more was answered");
    server.stop();
    disk.forget();
    let findings = fsck::check(place.path()).unwrap();
    assert!(findings.is_empty(), "{case}: {findings:#?}");
    cut
}

#[tokio::test]
async fn a_power_cut_at_any_call_of_the_disk_leaves_each_record_whole_or_undone() {
    let template = Template::new().await;
    // Every fourth call, from another one for each deed; all of them take a minute.
    let step = if std::env::var_os("CODA_EVERY_CUT").is_some() { 1 } else { 4 };
    for (at, deed) in DEEDS.iter().enumerate() {
        let mut calls = at as u64 % step;
        while survives(&template, &[deed], calls).await {
            calls += step;
        }
        assert!(calls > 5, "{deed} is {calls} calls");
    }
}

#[tokio::test]
async fn a_power_cut_during_the_second_of_two_records_leaves_the_first() {
    let template = Template::new().await;
    let apart = |one: &str, two: &str| {
        let takes = |deed: &str| matches!(deed, "remove" | "rename" | "replace");
        // What is gone cannot be used, nor a name given twice.
        let (names, uses) =
            (["create", "mkdir", "symlink", "rename"], ["link", "setattr", "setxattr", "store large"]);
        one == two
            || (takes(one) && (takes(two) || uses.contains(&two)))
            || (one == "replace" && two == "store")
            // A file with two names does not leave its directory.
            || (one == "link" && takes(two) && two != "remove")
            || (names.contains(&one) && names.contains(&two))
    };
    let mut tried = 0;
    for (at, one) in DEEDS.iter().enumerate() {
        for (then, two) in DEEDS.iter().enumerate().filter(|(_, two)| !apart(one, two)) {
            // A sample: another call of each pair.
            if (at + then) % 5 == 0 {
                tried += 1;
                survives(&template, &[one, two], (at * 3 + then * 5) as u64 % 13).await;
            }
        }
    }
    assert!(tried > 15, "{tried}");
}
