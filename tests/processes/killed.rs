//! venus is killed, or asked to leave while somebody is inside.

use std::{
    fs::{self, File},
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    support,
    world::{Process, World, is_mounted, timed},
};

#[test]
fn after_a_kill_files_fail_at_once_and_the_next_start_mounts_again() {
    let Some(mut world) = World::new(2) else { return };
    fs::write(world.path("kept"), "acknowledged").unwrap();
    let mut open = File::create(world.path("open")).unwrap();
    open.write_all(b"not closed when venus was killed").unwrap();

    // A call that waits for a hung server is pending when venus dies.
    world.server(1).signal(libc::SIGSTOP);
    world.server(2).signal(libc::SIGSTOP);
    let pending = {
        let path = world.path("pending");
        #[allow(clippy::disallowed_methods)] // A test of real processes may wait on a thread.
        std::thread::spawn(move || timed(|| fs::write(path, "x")).0)
    };
    support::soon("the call is pending", || {
        std::thread::sleep(Duration::from_millis(200));
        !pending.is_finished()
    });
    world.venus().kill();
    let (result, took) = timed(|| pending.join().unwrap());
    assert!(result.is_err());
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.server(1).signal(libc::SIGCONT);
    world.server(2).signal(libc::SIGCONT);

    // Opened, because attributes that the kernel remembers it may still tell.
    let failed = |path| File::open(path).unwrap_err().raw_os_error();
    assert_eq!(failed(world.path("kept")), Some(libc::ENOTCONN));
    assert_eq!(failed(world.room.mount()), Some(libc::ENOTCONN));
    assert!(fs::write(world.room.mount().join("below"), "x").is_err());
    drop(open);

    world.start_venus();
    assert_eq!(fs::read_to_string(world.path("kept")).unwrap(), "acknowledged");
    // Another test of this program may have started a process meanwhile: it inherits the descriptor, and its
    // exec closes it, which is a close like any other and stores what was written.
    let text = "not closed when venus was killed";
    if fs::read_to_string(world.path("open")).unwrap() != text {
        support::soon("the spool is announced", || world.said("venus").contains("spool"));
        let spool = world.room.state().join("cache/spool");
        let kept: Vec<String> = fs::read_dir(&spool)
            .unwrap()
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        assert!(kept.iter().any(|kept| kept == text), "{kept:?}");
    }

    assert!(world.venus().terminate().success());
    assert!(!is_mounted(&world.room.mount()), "nothing is left, neither of this life nor of the last");
    assert_eq!(fs::read_dir(world.room.mount()).unwrap().count(), 0, "nothing reached the directory below");
}

#[test]
fn who_is_inside_is_named_and_the_mount_goes_all_the_same() {
    let Some(mut world) = World::new(1) else { return };
    fs::create_dir(world.path("d")).unwrap();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("60").current_dir(world.path("d")).stdin(Stdio::null());
    let sleeper = Process(sleeper.spawn().unwrap());
    let (status, took) = timed(|| world.venus().terminate());
    assert!(status.success());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(!is_mounted(&world.room.mount()));
    let said = world.said("venus");
    assert!(said.contains(&format!("{} (sleep)", sleeper.pid())), "{said}");
}

#[test]
fn two_of_them_do_not_share_a_mount_or_a_cache() {
    let Some(mut world) = World::new(1) else { return };
    fs::write(world.path("f"), "x").unwrap();
    let first = world.venus.take().unwrap();
    let state = world.room.state();
    let mut second = crate::world::venus();
    second.arg(format!("--mountpoint={}", world.room.mount().display()));
    second.arg(format!("--cachedir={}", state.join("cache2").display()));
    second.arg(format!("--controlsocket={}", state.join("other.sock").display()));
    let refused = second.env("CODACONFPATH", &state).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("mounted there already"), "{refused:?}");
    world.venus = Some(first);
    assert_eq!(fs::read_to_string(world.path("f")).unwrap(), "x");
}
