//! `cfs` against a real cache manager and real servers.

mod world;

use venus::venus::face::{Face, OpenMode};
use world::{ME, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whereis_shows_every_replica_of_a_volume() {
    let world = World::new(3).await;
    assert_eq!(world.says("whereis home").await, "  server1  server2  server3\n");
    let long = world.says("whereis -v home").await;
    assert!(long.starts_with("home (7f"), "{long}");
    assert_eq!(long.matches(" up ").count(), 3, "{long}");
    let failed = world.cfs("whereis nowhere").await;
    assert_eq!((failed.code, failed.err.starts_with("nowhere: ")), (1, true), "{failed:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_found_by_its_fid_and_a_volume_by_its_mount_point() {
    let world = World::new(1).await;
    world.write("home", "greeting", b"hello").await;
    let fid = world.says("getfid home/greeting").await;
    let fid = fid.strip_prefix("FID = ").unwrap().split_whitespace().next().unwrap();
    assert_eq!(world.says(&format!("getpath {fid}")).await, "\t/coda/demo/home/greeting\n");
    let volume = format!("{}@demo", fid.split('.').next().unwrap());
    assert_eq!(world.says(&format!("gmt {volume}")).await, format!("{volume}:  /coda/demo/home\n"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_lists_are_changed_at_all_replicas() {
    let world = World::new(2).await;
    assert!(world.says("la home").await.contains("System:AnyUser  rlidwka\n"));
    world.says("setacl home System:AnyUser rlidwk bob rl").await;
    let list = world.says("listacl home").await;
    assert!(
        list.contains("System:AnyUser  rlidwk\n") && list.contains("                 bob  rl\n"),
        "{list}"
    );
    // Without the right to administer, nobody can take it back.
    let refused = world.cfs("setacl home System:AnyUser all").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("permission denied"), "{refused:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_points_are_made_listed_and_removed() {
    let world = World::new(1).await;
    assert_eq!(world.says("lsmount home").await, "Mount point for volume \"home.\"\n");
    world.says("mkmount again home").await;
    assert_eq!(world.says("lsmount again").await, "Mount point for volume \"home.\"\n");
    world.write("home", "f", b"x").await;
    assert_eq!(world.find("again/f").await, world.find("home/f").await);
    world.says("mkmount lost no-such-volume").await;
    let dangling = world.says("lsmount lost").await;
    assert_eq!(dangling, "Dangling sym link; looks like a mount point for volume \"no-such-volume.\"\n");
    assert_eq!(world.cfs("mkmount again home").await.code, 1);
    world.says("rmmount again lost").await;
    assert_eq!(world.cfs("lsmount again").await.code, 1);
    assert_eq!(world.cfs("rmmount home/f").await.code, 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_is_not_flushed_and_the_answer_names_it() {
    let world = World::new(1).await;
    let opened = world.create("home", "held", b"contents").await;
    let shown = world.cfs_with("flushobject home", "y\n").await;
    assert!(shown.out.contains("Can't flush active file\n    /coda/demo/home/held: it is open"), "{shown:?}");
    assert_eq!(shown.code, 4);
    world.venus.release(opened.handle).await.unwrap();
    let shown = world.cfs("flushobject -y home").await;
    assert_eq!((shown.code, shown.out.as_str()), (0, ""), "{shown:?}");
    let list = world.says("listcache home").await;
    assert!(!list.contains("held"), "{list}");
    // It comes back from the servers.
    let id = world.find("home/held").await;
    let mode = OpenMode { read: true, write: false, truncate: false };
    let opened = world.venus.open(ME, id, mode).await.unwrap();
    let mut contents = [0; 8];
    opened.container.read_at(0, &mut contents).unwrap();
    assert_eq!(&contents, b"contents");
    world.venus.release(opened.handle).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushing_goes_by_a_volumes_name_and_for_the_whole_cache() {
    let world = World::new(1).await;
    world.write("home", "a", b"x").await;
    assert!(world.says("listcache -l home").await.contains(" ./a\n"));
    world.says("fl -y home").await;
    assert_eq!(world.cfs("fl -y no-such-thing").await.code, 1);
    world.find("home/a").await;
    let flushed = world.says("flushvolume -y home").await;
    assert!(flushed.starts_with("2 objects were flushed."), "{flushed}");
    world.find("home/a").await;
    let flushed = world.says("flushcache -y").await;
    assert!(!flushed.contains("kept"), "{flushed}");
    assert_eq!(world.says("listcache").await, "");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_by_hand_cached_files_are_read_and_status_says_why() {
    let world = World::new(2).await;
    world.write("home", "f", b"kept").await;
    world.says("disconnect").await;
    let id = world.find("home/f").await;
    let opened =
        world.venus.open(ME, id, OpenMode { read: true, write: false, truncate: false }).await.unwrap();
    world.venus.release(opened.handle).await.unwrap();
    let status = world.says("status home").await;
    assert!(status.contains("home") && status.contains("unreachable, 0 of 2 replicas"), "{status}");
    assert!(status.contains("server1 is disconnected, server2 is disconnected"), "{status}");
    assert!(status.contains("`cfs reconnect`"), "{status}");
    let refused = world.cfs("listacl home").await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("cfs status"), "{refused:?}");
    assert!(world.says("cs").await.contains("still down:   server1  server2\n"));
    world.says("reconnect").await;
    assert!(world.says("cs").await.ends_with("All servers up\n"));
    assert!(world.says("listacl home").await.contains("System:AnyUser"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_told_kept_elsewhere_and_sent() {
    let world = World::new(2).await;
    world.write("home", "f", b"old").await;
    world.find("home/f").await;
    assert_eq!(world.says("pending").await, "Everything is at the servers\n");
    assert!(world.says("status").await.ends_with("and the machine wiped\n"));
    world.says("disconnect").await;
    world.write("home", "train", b"written on the train").await;
    let pending = world.says("pending home").await;
    assert!(pending.contains("store    ") && pending.contains("train (20 bytes)"), "{pending}");
    assert!(pending.contains("waits: no server can be reached\n"), "{pending}");
    let status = world.cfs("status").await;
    assert_eq!(status.code, 5, "{status:?}");
    let status = status.out;
    assert!(status.contains("disconnected: unreachable, 0 of 2") && status.contains("not wiped"), "{status}");
    // The other volume has nothing to send: the machine is not to be wiped all the same.
    let status = world.cfs("status .").await;
    assert!(!status.out.contains("volume home") && status.out.ends_with("not wiped\n"), "{status:?}");
    assert_eq!(status.code, 5, "{status:?}");
    let flushed = world.cfs("flush --wait --timeout 1").await;
    assert_eq!(flushed.code, 5, "{flushed:?}");
    let to = tempfile::tempdir().unwrap();
    let written = world.says(&format!("checkpointml home {}", to.path().display())).await;
    let archive = written.lines().next().unwrap();
    let bytes = std::fs::read(archive).unwrap();
    assert!(bytes.windows(20).any(|part| part == b"written on the train"));
    world.says("reconnect").await;
    assert_eq!(world.says("flush --wait --timeout 60").await, "Everything is at the servers\n");
    world.says("wd -age 600 home").await;
    world.write("home", "later", b"x").await;
    assert!(world.says("pending").await.contains("it is kept for "));
    assert!(world.cfs("status").await.out.contains("write-disconnected: reachable"));
    world.says("wr home").await;
    assert!(world.says("status").await.contains(" connected: reachable, 2 of 2"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_and_written_or_in_the_spool_keeps_the_machine_from_being_wiped() {
    let world = World::new(1).await;
    let opened = world.create("home", "f", b"old").await;
    assert!(
        world.says("status").await.ends_with("and the machine wiped\n"),
        "all that was written is stored"
    );
    opened.container.write_at(0, b"new").unwrap();
    for line in ["status", "status .", "flush", "flush home", "flush --wait --timeout 1 home"] {
        let shown = world.cfs(line).await;
        assert_eq!(shown.code, 5, "{line}: {shown:?}");
        assert!(shown.out.contains("open files hold writes"), "{line}: {shown:?}");
    }
    let path = format!("/coda/{}/home/f", venus::daemon::demo::REALM);
    assert_eq!(
        world.says("pending").await,
        format!("open     {path}: its writes are stored when it is closed\n")
    );
    world.venus.release(opened.handle).await.unwrap();
    assert_eq!(world.says("flush home").await, "Everything of the volume of home is at the servers\n");
    assert!(world.says("status").await.ends_with("and the machine wiped\n"));

    let opened = world.create("home", "f2", b"").await;
    world.says("setquota home 1").await;
    opened.container.write_at(0, &[b'p'; 10_000]).unwrap();
    world.venus.release(opened.handle).await.unwrap_err();
    for line in ["status", "flush"] {
        let shown = world.cfs(line).await;
        assert_eq!(shown.code, 5, "{line}: {shown:?}");
        assert!(shown.out.contains("1 files that no server took lie in "), "{line}: {shown:?}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_longer_for_a_flush_than_they_want_or_for_what_waits_itself() {
    let world = World::new(1).await;
    for number in 0..201 {
        world.write("home", &format!("f{number}"), b"").await;
    }
    let dir = world.find("home").await;
    world.says("disconnect").await;
    for number in 0..201 {
        world.venus.unlink(ME, dir, format!("f{number}").as_bytes()).await.unwrap();
    }
    world.says("reconnect").await;
    world.says("cs").await;
    // Less than venus gives to whoever says no time.
    for line in ["flush --wait --timeout 1", "flush", "forcereintegrate home"] {
        let shown = tokio::time::timeout(std::time::Duration::from_secs(15), world.cfs(line)).await;
        let shown = shown.unwrap_or_else(|_| panic!("{line} takes long"));
        assert_ne!(shown.code, 0, "{line}: {shown:?}");
    }
    world.says("approve home").await;
    assert_eq!(world.says("flush --wait --timeout 60").await, "Everything is at the servers\n");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_number_that_is_promised_is_told_to_prometheus() {
    let world = World::new(2).await;
    world.write("home", "kept", b"1234567").await;
    world.says("pin home/kept").await;
    world.says("hoard walk").await;
    world.says("disconnect server2").await;
    world.says("wd -age 600 home").await;
    world.write("home", "later", b"x").await;
    let mut page = world.venus.metrics().await;
    venus::fuse::meter::Meter::default().write(&mut page);
    let page = page.into_text();
    let number = |of: &str| -> f64 {
        let line =
            page.lines().find_map(|line| line.strip_prefix(of)).unwrap_or_else(|| panic!("{of}\n{page}"));
        line.trim().parse().unwrap_or_else(|_| panic!("{of}: {line}"))
    };
    let home = format!("{{realm=\"{}\",volume=\"home\"", venus::daemon::demo::REALM);
    let server = |name: &str| format!("{{realm=\"{}\",server=\"{name}\"}}", venus::daemon::demo::REALM);
    assert!(number(&format!("coda_cml_entries{home}}}")) >= 1.0);
    assert_eq!(number(&format!("coda_cml_bytes{home}}}")), 1.0);
    assert!(number(&format!("coda_cml_oldest_seconds{home}}}")) < 60.0);
    assert_eq!(number("coda_conflicts "), 0.0);
    assert_eq!(number(&format!("coda_volume_state{home},state=\"reachable\"}}")), 1.0);
    assert_eq!(number("coda_cache_bytes{class=\"pinned\"}"), 7.0);
    assert_eq!(number("coda_cache_bytes{class=\"dirty\"}"), 1.0);
    assert!(number("coda_cache_bytes{class=\"opportunistic\"}") < number("coda_cache_bytes{class=\"used\"}"));
    assert_eq!(number("coda_fuse_op_seconds_bucket{le=\"+Inf\"}"), 0.0);
    assert_eq!(number("coda_fuse_op_seconds_count"), 0.0);
    assert_eq!(number("coda_fuse_inflight"), 0.0);
    assert_eq!(number("coda_fuse_oldest_inflight_seconds"), 0.0);
    assert_eq!(number(&format!("coda_replica_up{}", server("server1"))), 1.0);
    assert_eq!(number(&format!("coda_replica_up{}", server("server2"))), 0.0);
    let rtt = number(&format!("coda_replica_rtt_seconds{}", server("server1")));
    assert!(rtt > 0.0 && rtt < 10.0, "{rtt}");
    assert_eq!(number("coda_callback_breaks_total"), 0.0);
    assert_eq!(number("coda_guard_holds"), 0.0);
    // Nothing has failed, and there are no tokens: named, and without a number.
    for name in ["coda_reintegration_failures_total", "coda_token_expiry_seconds"] {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}\n{page}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_may_be_left_out_and_others_do_not_exist() {
    let world = World::new(2).await;
    world.says("whereis home").await;
    world.says("disconnect server2").await;
    assert!(world.says("whereis -v home").await.contains("down"));
    world.write("home", "f", b"x").await;
    world.says("reconnect server2").await;
    let refused = world.cfs("disconnect server9").await;
    assert_eq!((refused.code, refused.err.starts_with("server9: no such server")), (1, true), "{refused:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_shown_and_set() {
    let world = World::new(1).await;
    let facts = world.says("listvol home").await;
    assert!(facts.contains("named \"home\"") && facts.contains("maximum quota is unlimited"), "{facts}");
    assert!(facts.contains("There are 0 CML entries pending"), "{facts}");
    let set = world.says("setquota home 5000").await;
    assert_eq!(set, "Old maximum quota is unlimited\nNew maximum quota is 5000 blocks\n");
    assert!(world.says("lv home").await.contains("maximum quota is 5000\n"));
    let local = world.says("lv -local home").await;
    assert!(local.contains("Connection State is Reachable") && !local.contains("quota"), "{local}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_answers_too() {
    let world = World::new(1).await;
    world.write("home", "f", b"x").await;
    world.says("checkvolumes").await;
    world.says("strong").await;
    world.says("adaptive home").await;
    world.says("wr").await;
    assert_eq!(world.says("fr home").await, "Modifications to home reintegrated to server\n");
    world.says("disconnect").await;
    let events = world.says("events -last").await;
    assert!(events.contains("unreachable server1 ("), "{events}");
    let root = world.cfs("whereis /coda").await;
    assert!(root.err.contains("belongs to no volume"), "{root:?}");
    world.end().await;
}
