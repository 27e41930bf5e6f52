//! The way to fail over that administrators of Coda use: a symbolic link into the realm is turned to a local
//! copy, and venus is killed, so that whoever still uses the realm fails at once instead of waiting.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
    time::Duration,
};

use crate::world::{Process, World, timed};

#[test]
fn a_service_fails_over_to_its_local_copy_by_a_symbolic_link() {
    let Some(mut world) = World::new(1) else { return };
    let room = world.room.dir.path().to_owned();
    let (web, local) = (room.join("web"), room.join("local"));
    fs::create_dir(world.path("web")).unwrap();
    fs::write(world.path("web/index"), "from the realm\n").unwrap();
    fs::create_dir(&local).unwrap();
    fs::write(local.join("index"), "local copy\n").unwrap();
    symlink(world.path("web"), &web).unwrap();

    // A service that opens its file again and again, and goes on after an error.
    let script = format!("cd / && while :; do cat {}/index; sleep 0.02; done", web.display());
    let served = room.join("served");
    let mut service = Command::new("sh");
    service.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut service = Process(service.stdout(fs::File::create(&served).unwrap()).spawn().unwrap());
    let last = || fs::read_to_string(&served).unwrap().lines().last().map(str::to_owned);
    crate::support::soon("it serves from the realm", || last().as_deref() == Some("from the realm"));

    world.server(1).signal(libc::SIGSTOP);
    let ((), took) = timed(|| {
        fs::remove_file(&web).unwrap();
        symlink(&local, &web).unwrap();
        world.venus().kill();
        crate::support::soon("it serves the copy", || last().as_deref() == Some("local copy"));
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    // What the kernel remembers of attributes it may still tell; contents are out of reach.
    let gone = fs::read(world.path("web/index")).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOTCONN));
    world.server(1).signal(libc::SIGCONT);
    service.kill();
}
