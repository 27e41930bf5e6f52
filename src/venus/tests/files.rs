//! What one user does with two servers that are well.

use std::sync::atomic::Ordering;

use super::world::*;
use crate::{
    error::Error,
    venus::{
        VenusConfig,
        face::{AttrChange, Face, NodeKind, RenameMode},
    },
};

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_by_another_client() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.mkdir("docs").await.unwrap();
    a.write("docs/hello", "hello").await.unwrap();
    assert_eq!(b.read("docs/hello").await.unwrap(), "hello");
    assert_eq!(b.ls("docs").await.unwrap(), ["hello"]);
    let attr = b.stat("docs/hello").await.unwrap();
    assert_eq!((attr.size, attr.uid, attr.mode, attr.nlink), (5, 1000, 0o644, 1));
    assert!(attr.lasting);
}

#[tokio::test(start_paused = true)]
async fn a_mount_point_shows_as_the_root_of_its_volume() {
    let world = World::new(2);
    let a = world.client("a");
    let home = a.stat("home").await.unwrap();
    assert_eq!(home.kind, NodeKind::Directory);
    assert!(home.id.fid.is_root());
    a.write("home/f", "in home").await.unwrap();
    assert_eq!(a.read("home/f").await.unwrap(), "in home");
    let lines = a.venus.readdir(ME, a.stat("").await.unwrap().id).await.unwrap();
    let home_line = lines.iter().find(|line| line.name == b"home").unwrap();
    assert_eq!((home_line.kind, home_line.id), (NodeKind::Directory, home.id));
    assert_eq!(a.venus.parent(home.id).await.unwrap(), a.stat("").await.unwrap().id);
    let (dir, name) = a.place("home").await.unwrap();
    assert!(a.venus.rmdir(ME, dir, name).await.is_err());
    let coda = a.venus.readdir(ME, a.venus.root()).await.unwrap();
    assert_eq!(coda[0].name, REALM.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn large_files_are_uploaded_and_fetched_in_pieces() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    let contents: Vec<u8> = (0..9_000_001u32).map(|n| (n / 7) as u8).collect();
    a.write("big", &contents).await.unwrap();
    assert!(world.counted("upload") >= 6);
    assert!(b.bytes("big").await.unwrap() == contents);
    assert!(world.counted("fetch") >= 9);
}

#[tokio::test(start_paused = true)]
async fn attributes_that_are_so_already_are_not_sent() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "x").await.unwrap();
    let attr = a.stat("f").await.unwrap();
    world.counted("apply");
    let same = AttrChange { uid: Some(attr.uid), gid: Some(attr.gid), ..AttrChange::default() };
    a.venus.setattr(ME, attr.id, same, None).await.unwrap();
    let same = AttrChange { mode: Some(attr.mode), mtime: Some(attr.mtime), ..same };
    a.venus.setattr(ME, attr.id, same, None).await.unwrap();
    assert_eq!(world.counted("apply"), 0);
    let other = AttrChange { mode: Some(0o600), ..same };
    assert_eq!(a.venus.setattr(ME, attr.id, other, None).await.unwrap().mode, 0o600);
    assert_eq!(world.counted("apply"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hole_travels_as_a_hole() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    let opened = a.open("sparse", WRITE).await.unwrap();
    opened.container.write_at(40 << 20, b"end").unwrap();
    a.close(opened).await.unwrap();
    assert!(world.counted("upload") <= 4, "a piece of zeros and one of bytes for each of two servers");
    let contents = b.bytes("sparse").await.unwrap();
    assert!(contents.len() == (40 << 20) + 3 && contents[..40 << 20].iter().all(|byte| *byte == 0));
    let kept = b.open("sparse", READ).await.unwrap();
    assert_eq!(kept.container.next_data(0).unwrap(), 40 << 20);
    b.close(kept).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn names_move_and_go_as_posix_says() {
    let world = World::new(2);
    let a = world.client("a");
    a.mkdir("d").await.unwrap();
    a.mkdir("d/e").await.unwrap();
    a.write("d/f", "f").await.unwrap();
    a.write("g", "g").await.unwrap();
    let d = a.stat("d").await.unwrap().id;
    let root = a.stat("").await.unwrap().id;
    let rename = async |from: (_, &[u8]), to: (_, &[u8]), mode| a.venus.rename(ME, from, to, mode).await;
    rename((d, b"f"), (root, b"moved"), RenameMode::Replace).await.unwrap();
    assert_eq!(a.read("moved").await.unwrap(), "f");
    assert!(matches!(a.stat("d/f").await, Err(Error::NotFound(_))));
    assert!(matches!(
        rename((root, b"moved"), (root, b"g"), RenameMode::NoReplace).await,
        Err(Error::Exists(_))
    ));
    rename((root, b"moved"), (root, b"g"), RenameMode::Replace).await.unwrap();
    assert_eq!(a.read("g").await.unwrap(), "f");
    let e = a.stat("d/e").await.unwrap().id;
    assert!(matches!(rename((root, b"d"), (e, b"loop"), RenameMode::Replace).await, Err(Error::Loop(_))));
    assert!(matches!(a.venus.rmdir(ME, root, b"d").await, Err(Error::NotEmpty(_))));
    assert!(matches!(a.venus.unlink(ME, root, b"d").await, Err(Error::IsDirectory(_))));
    a.venus.rmdir(ME, d, b"e").await.unwrap();
    a.venus.rmdir(ME, root, b"d").await.unwrap();
    a.venus.unlink(ME, root, b"g").await.unwrap();
    assert_eq!(a.ls("").await.unwrap(), ["home"]);
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap(), ["home"]);
}

#[tokio::test(start_paused = true)]
async fn links_attributes_and_symbolic_links_are_kept() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "f").await.unwrap();
    let root = a.stat("").await.unwrap().id;
    let f = a.stat("f").await.unwrap().id;
    assert_eq!(a.venus.link(ME, f, root, b"also").await.unwrap().nlink, 2);
    assert!(matches!(a.venus.link(ME, f, root, b"f").await, Err(Error::Exists(_))));
    a.venus.symlink(ME, root, b"s", b"some/where").await.unwrap();
    let change = AttrChange { mode: Some(0o4755), mtime: Some(77), ..AttrChange::default() };
    let attr = a.venus.setattr(ME, f, change, None).await.unwrap();
    assert_eq!((attr.mode, attr.mtime), (0o755, 77));
    a.venus.setxattr(ME, f, b"user.color", Some(b"blue"), None).await.unwrap();
    let seen = b.stat("also").await.unwrap();
    assert_eq!((seen.mode, seen.mtime, seen.nlink), (0o755, 77, 2));
    assert_eq!(b.venus.getxattr(ME, seen.id, b"user.color").await.unwrap(), b"blue");
    assert_eq!(b.venus.listxattr(ME, seen.id).await.unwrap(), [b"user.color"]);
    assert_eq!(b.venus.getxattr(ME, seen.id, b"user.coda.volume").await.unwrap(), b"/");
    let s = b.stat("s").await.unwrap();
    assert_eq!(b.venus.readlink(ME, s.id).await.unwrap(), b"some/where");
    a.venus.unlink(ME, root, b"f").await.unwrap();
    assert_eq!(b.stat("also").await.unwrap().nlink, 1);
    assert_eq!(b.read("also").await.unwrap(), "f");
}

#[tokio::test(start_paused = true)]
async fn every_change_moves_the_change_time_on_and_it_is_the_same_everywhere() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "f").await.unwrap();
    let root = a.stat("").await.unwrap().id;
    let f = a.stat("f").await.unwrap().id;
    let mut before = a.stat("f").await.unwrap();
    for step in ["chmod", "touch", "xattr", "link", "rename", "unlink", "write"] {
        let touch = AttrChange { mtime: Some(77), atime: Some(88), ..AttrChange::default() };
        match step {
            "chmod" => drop(a.chmod("f", 0o600).await.unwrap()),
            "touch" => drop(a.venus.setattr(ME, f, touch, None).await.unwrap()),
            "xattr" => a.venus.setxattr(ME, f, b"user.color", Some(b"blue"), None).await.unwrap(),
            "link" => drop(a.venus.link(ME, f, root, b"also").await.unwrap()),
            "rename" => a.rename("f", "g").await.unwrap(),
            "unlink" => a.unlink("g").await.unwrap(),
            _ => b.write("also", "new").await.unwrap(),
        }
        let name = if step == "rename" {
            "g"
        } else if step == "unlink" || step == "write" {
            "also"
        } else {
            "f"
        };
        let (here, there) = (a.stat(name).await.unwrap(), b.stat(name).await.unwrap());
        assert!(here.ctime > before.ctime, "{step}: {} {}", before.ctime, here.ctime);
        assert_eq!((here.ctime, here.mtime, here.atime), (there.ctime, there.mtime, there.atime), "{step}");
        before = here;
    }
    assert_eq!(before.atime, 88, "kept as it was set");
    let dir = a.mkdir("d").await.unwrap();
    a.write("d/x", "").await.unwrap();
    let now = a.stat("d").await.unwrap();
    assert!(now.ctime > dir.ctime);
    assert_eq!(now.atime, now.mtime, "nobody set it");
}

#[tokio::test(start_paused = true)]
async fn the_change_time_that_a_writer_sees_stays_when_the_file_is_stored() {
    let world = World::new(2);
    let a = world.client("a");
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, b"x").unwrap();
    // Whoever compares it later, as git does, need not read the file again.
    let seen = a.venus.getattr(ME, opened.attr.id).await.unwrap();
    a.close(opened).await.unwrap();
    let stored = world.client("b").stat("f").await.unwrap();
    assert_eq!((stored.ctime, stored.mtime), (seen.ctime, seen.mtime));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_behind_never_takes_a_change_time_back() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    world.ahead.store(3600, Ordering::Relaxed);
    a.write("f", "f").await.unwrap();
    let made = a.chmod("f", 0o600).await.unwrap();
    world.ahead.store(0, Ordering::Relaxed);
    let changed = b.chmod("f", 0o640).await.unwrap();
    assert!(changed.ctime > made.ctime && changed.ctime < made.ctime + 1000, "the next nanosecond");
    assert_eq!(a.stat("f").await.unwrap().ctime, changed.ctime);
    // What is asked for and is so already changes nothing.
    let same = AttrChange { atime: Some(changed.atime), mode: Some(0o640), ..AttrChange::default() };
    assert_eq!(b.venus.setattr(ME, changed.id, same, None).await.unwrap().ctime, changed.ctime);
}

#[tokio::test(start_paused = true)]
async fn a_new_length_is_a_new_content() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.write("f", "0123456789").await.unwrap();
    let f = a.stat("f").await.unwrap().id;
    let size = |size| AttrChange { size: Some(size), ..AttrChange::default() };
    assert_eq!(a.venus.setattr(ME, f, size(4), None).await.unwrap().size, 4);
    assert_eq!(b.read("f").await.unwrap(), "0123");
    assert_eq!(b.venus.setattr(ME, f, size(0), None).await.unwrap().size, 0);
    assert_eq!(a.read("f").await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn time_and_mode_set_before_the_close_join_the_store() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, b"x").unwrap();
    let change = AttrChange { mode: Some(0o600), mtime: Some(99), ..AttrChange::default() };
    let attr = a.venus.setattr(ME, opened.attr.id, change, Some(opened.handle)).await.unwrap();
    assert_eq!((attr.mode, attr.mtime, attr.size), (0o600, 99, 1));
    world.counted("apply");
    a.close(opened).await.unwrap();
    assert_eq!(world.counted("apply"), 2, "one at each member");
    let seen = b.stat("f").await.unwrap();
    assert_eq!((seen.mode, seen.mtime, seen.size), (0o600, 99, 1));
}

#[tokio::test(start_paused = true)]
async fn a_file_unlinked_while_open_stays_readable() {
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "still").await.unwrap();
    let opened = a.open("f", READ).await.unwrap();
    let root = a.stat("").await.unwrap().id;
    a.venus.unlink(ME, root, b"f").await.unwrap();
    let mut bytes = [0; 5];
    opened.container.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still");
    assert_eq!(a.venus.getattr(ME, opened.attr.id).await.unwrap().nlink, 0);
    let id = opened.attr.id;
    a.close(opened).await.unwrap();
    assert!(a.venus.getattr(ME, id).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn small_files_of_a_directory_come_together() {
    let world = World::new(2);
    let (a, b) = (world.client("a"), world.client("b"));
    a.mkdir("d").await.unwrap();
    for n in 0..100 {
        a.write(&format!("d/f{n:03}"), format!("contents {n}")).await.unwrap();
    }
    world.calls.lock().unwrap().clear();
    for n in 0..100 {
        assert_eq!(b.read(&format!("d/f{n:03}")).await.unwrap(), format!("contents {n}"));
    }
    let calls = world.calls.lock().unwrap().len();
    assert!(calls < 30, "{calls} calls for 100 files");
}

#[tokio::test(start_paused = true)]
async fn hits_are_answered_without_asking_anybody() {
    use std::{future::Future, pin::pin, task::Poll};
    let world = World::new(2);
    let a = world.client("a");
    a.write("f", "f").await.unwrap();
    a.read("f").await.unwrap();
    a.ls("").await.unwrap();
    let (root, f) = (a.stat("").await.unwrap().id, a.stat("f").await.unwrap().id);
    world.calls.lock().unwrap().clear();
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(matches!(pin!(a.venus.lookup(ME, root, b"f")).poll(&mut context), Poll::Ready(Ok(_))));
    assert!(matches!(pin!(a.venus.getattr(ME, f)).poll(&mut context), Poll::Ready(Ok(_))));
    assert!(matches!(pin!(a.venus.readdir(ME, root)).poll(&mut context), Poll::Ready(Ok(_))));
    assert!(matches!(pin!(a.venus.open(ME, f, READ)).poll(&mut context), Poll::Ready(Ok(_))));
    assert!(matches!(
        pin!(a.venus.lookup(ME, root, b"none")).poll(&mut context),
        Poll::Ready(Err(Error::NotFound(_)))
    ));
    let calls = world.calls.lock().unwrap();
    assert!(calls.is_empty(), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_kept_by_letting_unused_contents_go() {
    let world = World::new(2);
    let config = VenusConfig { cache_bytes: 300_000, ..VenusConfig::default() };
    let a = world.client_with("a", config.clone());
    for n in 0..10 {
        a.write(&format!("f{n}"), vec![n as u8; 100_000]).await.unwrap();
    }
    let space = a.venus.space();
    assert!(space.free <= 300_000 && space.total == 300_000, "{space:?}");
    for n in 0..10 {
        assert_eq!(a.bytes(&format!("f{n}")).await.unwrap(), vec![n as u8; 100_000]);
    }
    // What is open cannot go, and what does not fit is refused before it is fetched.
    let held = a.open("f0", READ).await.unwrap();
    let also = a.open("f1", READ).await.unwrap();
    let b = world.client("b");
    b.write("huge", vec![1; 250_000]).await.unwrap();
    assert!(matches!(a.bytes("huge").await, Err(Error::NoSpace(_))));
    a.close(held).await.unwrap();
    a.close(also).await.unwrap();
    assert_eq!(a.bytes("huge").await.unwrap().len(), 250_000);
}

#[tokio::test(start_paused = true)]
async fn objects_leave_leaf_first_and_come_back() {
    let world = World::new(2);
    let config = VenusConfig { cache_objects: 40, ..VenusConfig::default() };
    let (a, b) = (world.client_with("a", config), world.client("b"));
    for d in 0..5 {
        b.mkdir(&format!("d{d}")).await.unwrap();
        for n in 0..20 {
            b.write(&format!("d{d}/f{n}"), format!("{d} {n}")).await.unwrap();
        }
    }
    for d in 0..5 {
        for n in 0..20 {
            assert_eq!(a.read(&format!("d{d}/f{n}")).await.unwrap(), format!("{d} {n}"));
            assert!(a.venus.space().objects_free <= 40);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_made_at_once_in_one_directory_travel_together() {
    let world = World::new(2);
    let a = world.client("a");
    a.ls("").await.unwrap();
    world.calls.lock().unwrap().clear();
    let names: Vec<String> = (0..50).map(|n| format!("d{n:02}")).collect();
    let made = futures::future::join_all(names.iter().map(|name| a.mkdir(name))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let applies = world.counted("apply");
    assert!(applies <= 10, "{applies} calls for 50 directories");
    let b = world.client("b");
    assert_eq!(a.ls("").await.unwrap().len(), 51);
    assert_eq!(b.ls("").await.unwrap().len(), 51);
}

#[tokio::test(start_paused = true)]
async fn what_follows_is_brought_in_while_a_directory_is_read() {
    let world = World::new(1);
    let a = world.client("a");
    for n in 0..300 {
        a.write(&format!("f{n:03}"), n.to_string()).await.unwrap();
    }
    let b = world.client("b");
    assert_eq!(b.ls("").await.unwrap().len(), 301);
    world.counted("fetchmany");
    b.read("f000").await.unwrap();
    b.read("f001").await.unwrap();
    assert_eq!(world.counted("fetchmany"), 1);
    // Somebody goes on reading: nobody has asked for what comes after the first few hundred yet.
    b.read("f002").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.counted("fetchmany"), 1);
    b.read("f003").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.counted("fetchmany"), 0);
    world.kill(1);
    for n in [200, 290, 299] {
        assert_eq!(b.read(&format!("f{n:03}")).await.unwrap(), n.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_or_that_nobody_waits_for_any_more_leaves_nothing_behind() {
    let world = World::new(1);
    let (a, b) = (world.client("a"), world.client("b"));
    b.write("f", vec![7; 9 << 20]).await.unwrap();
    let id = a.stat("f").await.unwrap().id;
    let containers = || a.venus.core.cache.containers.list().unwrap();
    world.weather(1, Weather::Hung);
    for given_up in [true, false] {
        let venus = a.venus.clone();
        let opened = tokio::spawn(async move { venus.open(ME, id, READ).await.map(drop) });
        while containers().is_empty() {
            assert!(!opened.is_finished());
            tokio::task::yield_now().await;
        }
        if given_up {
            opened.abort();
        }
        assert!(!matches!(opened.await, Ok(Ok(()))));
        assert!(containers().is_empty(), "given up: {given_up}");
    }
}
