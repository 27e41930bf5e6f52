//! Servers die, hang and come back while somebody works.

use std::{fs, io, time::Duration};

use crate::{
    support,
    world::{World, output, timed},
};

fn text(n: usize) -> String {
    format!("file {n}\n").repeat(100 + n)
}

#[test]
fn one_of_three_servers_killed_during_a_copy_is_not_noticed() {
    let Some(mut world) = World::new(3) else { return };
    let dir = world.path("copy");
    fs::create_dir(&dir).unwrap();
    for n in 0..120 {
        if n == 40 {
            world.kill_server(2);
        }
        let (done, took) = timed(|| fs::write(dir.join(n.to_string()), text(n)));
        done.unwrap_or_else(|error| panic!("file {n}: {error}"));
        assert!(took < Duration::from_secs(5), "file {n} took {took:?}");
    }
    for n in 0..120 {
        assert_eq!(fs::read_to_string(dir.join(n.to_string())).unwrap(), text(n));
    }
}

#[test]
fn a_server_that_hangs_costs_a_single_stall() {
    let Some(world) = World::new(3) else { return };
    fs::write(world.path("before"), "x").unwrap();
    world.server(3).signal(libc::SIGSTOP);
    let (done, stall) = timed(|| fs::write(world.path("stalled"), "x"));
    done.unwrap();
    assert!((Duration::from_secs(13)..=Duration::from_secs(17)).contains(&stall), "{stall:?}");
    for n in 0..5 {
        let (done, took) = timed(|| fs::write(world.path(&format!("after-{n}")), "x"));
        done.unwrap();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    world.server(3).signal(libc::SIGCONT);
    assert_eq!(fs::read_to_string(world.path("stalled")).unwrap(), "x");
}

#[test]
fn with_all_servers_stopped_the_root_df_and_cfs_answer_at_once() {
    let Some(world) = World::new(2) else { return };
    fs::write(world.path("cached"), "x").unwrap();
    let (mount, cached) = (world.room.mount(), world.path("cached"));
    let both = |signal| (1..=2).for_each(|server| world.server(server).signal(signal));
    both(libc::SIGSTOP);
    let quick = |what: &str, work: &dyn Fn()| {
        let took = (0..5).map(|_| timed(work).1).min().expect("five times");
        assert!(took < Duration::from_millis(100), "{what} took {took:?}");
    };
    std::thread::scope(|scope| {
        // Somebody waits for the servers meanwhile.
        let writer = scope.spawn(|| fs::write(world.path("waits"), "x"));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!writer.is_finished());
        quick("stat of the root", &|| assert!(fs::metadata(&mount).is_ok()));
        quick("listing the root", &|| assert_eq!(fs::read_dir(&mount).unwrap().count(), 1));
        quick("stat of what is cached", &|| assert!(fs::metadata(&cached).is_ok()));
        quick("reading what is cached", &|| drop(fs::read(&cached).unwrap()));
        quick("df", &|| drop(output(std::process::Command::new("df").arg(&mount))));
        for line in ["status", "listcache", "whereis .", "getfid cached", "events -last"] {
            quick(line, &|| drop(world.cfs(line)));
        }
        assert!(!writer.is_finished());
        both(libc::SIGCONT);
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn a_venus_that_is_frozen_and_thawed_fails_nobody() {
    let Some(world) = World::new(2) else { return };
    fs::write(world.path("before"), "x").unwrap();
    let venus = world.venus.as_ref().unwrap();
    venus.signal(libc::SIGSTOP);
    std::thread::scope(|scope| {
        let works = scope.spawn(|| {
            fs::write(world.path("meanwhile"), "y")?;
            fs::read_to_string(world.path("before"))
        });
        // Longer than it believes promises from before.
        std::thread::sleep(Duration::from_secs(4));
        assert!(!works.is_finished());
        venus.signal(libc::SIGCONT);
        assert_eq!(works.join().unwrap().unwrap(), "x");
    });
    assert_eq!(fs::read_to_string(world.path("meanwhile")).unwrap(), "y");
    world.cfs("flush --wait --timeout 20");
}

#[test]
fn with_all_servers_dead_files_are_read_and_written_and_sent_when_they_return() {
    let Some(mut world) = World::new(2) else { return };
    fs::write(world.path("cached"), "from memory").unwrap();
    assert_eq!(fs::read_to_string(world.path("cached")).unwrap(), "from memory");
    world.kill_server(1);
    world.kill_server(2);
    let (result, took) = timed(|| fs::write(world.path("new"), "x"));
    result.unwrap();
    assert!(took < Duration::from_secs(17), "{took:?}");
    assert_eq!(fs::read_to_string(world.path("cached")).unwrap(), "from memory");
    assert_eq!(fs::metadata(world.path("cached")).unwrap().len(), 11);
    assert_eq!(fs::read_to_string(world.path("new")).unwrap(), "x");

    world.start_server(1);
    world.start_server(2);
    support::within(Duration::from_secs(60), "changes work again", || {
        let result: io::Result<()> = fs::write(world.path("again"), "x");
        result.is_ok()
    });
    assert_eq!(fs::read_to_string(world.path("again")).unwrap(), "x");
}
