//! Every operation, begun at the moment at which all servers fall silent: nothing hangs, what changes something is
//! acknowledged, and all of it is at the servers when they are back.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::chown, fs::symlink},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{
    net::Net,
    world::{World, output, timed},
};

/// Servers are given up after 15 s; the rest is for a machine that is busy.
const BOUND: Duration = Duration::from_secs(25);

/// What is done to a file of its own, which is there before.
type Deed = (&'static str, fn(&Path) -> io::Result<()>);

fn beside(path: &Path) -> std::path::PathBuf {
    path.with_extension("beside")
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_attribute(path: &Path) -> io::Result<()> {
    let (path, name, value) = (text(path), c"user.silent", b"x");
    // SAFETY: all three outlive the call.
    done(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

fn list_attributes(path: &Path) -> io::Result<()> {
    let path = text(path);
    // SAFETY: the path outlives the call, which writes nothing into a buffer of no bytes.
    done(unsafe { libc::listxattr(path.as_ptr(), std::ptr::null_mut(), 0) } as libc::c_int)
}

/// What is here, and what may be changed without anybody's leave.
const HERE: [Deed; 21] = [
    ("stat", |path| fs::symlink_metadata(path).map(drop)),
    ("read", |path| fs::read(path).map(drop)),
    ("list", |path| fs::read_dir(path.parent().unwrap()).map(drop)),
    ("list attributes", list_attributes),
    ("look for a name that is not there", |path| match fs::symlink_metadata(beside(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Err(io::Error::other(format!("{other:?}"))),
    }),
    ("create", |path| fs::File::create_new(beside(path)).map(drop)),
    ("create and write", |path| fs::write(beside(path), "new")),
    ("write", |path| fs::write(path, "written")),
    ("write much", |path| fs::write(path, vec![7; 300_000])),
    ("write and sync", |path| {
        use io::Write;
        let mut file = fs::File::options().append(true).open(path)?;
        file.write_all(b"more")?;
        file.sync_all()
    }),
    ("truncate", |path| fs::File::options().write(true).open(path)?.set_len(1)),
    ("mkdir", |path| fs::create_dir(beside(path))),
    ("mkdir and rmdir", |path| fs::create_dir(beside(path)).and_then(|()| fs::remove_dir(beside(path)))),
    ("unlink", |path| fs::remove_file(path)),
    ("rename", |path| fs::rename(path, beside(path))),
    ("save atomically", |path| {
        fs::write(beside(path), "saved").and_then(|()| fs::rename(beside(path), path))
    }),
    ("symlink", |path| {
        symlink("elsewhere", beside(path)).and_then(|()| fs::read_link(beside(path)).map(drop))
    }),
    ("link", |path| fs::hard_link(path, beside(path))),
    ("chmod", |path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))),
    ("chown and utimens", |path| {
        use std::os::unix::fs::MetadataExt;
        let about = fs::symlink_metadata(path)?;
        chown(path, Some(about.uid()), Some(about.gid()))?;
        fs::File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH)
    }),
    ("setxattr", set_attribute),
];

/// What is not here: it may fail, and only so.
const ELSEWHERE: [Deed; 2] = [
    ("read what is not here", |path| fs::read(path).map(drop)),
    ("append to what is not here", |path| {
        use io::Write;
        fs::File::options().append(true).open(path)?.write_all(b"x")
    }),
];

fn file(number: usize) -> String {
    format!("own{number}/f")
}

/// Makes a file for each deed, and forgets the contents of those that shall not be here.
fn prepare(world: &World) {
    for (number, (what, _)) in HERE.iter().chain(&ELSEWHERE).enumerate() {
        let path = world.path(&file(number));
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "contents").unwrap_or_else(|error| panic!("{what}: {error}"));
        fs::read(&path).unwrap();
        fs::read_dir(path.parent().unwrap()).unwrap().for_each(drop);
        if number >= HERE.len() {
            world.cfs(&format!("flushobject {}", path.display()));
        }
    }
}

/// All at the same time, so that each of them is the first to find the silence.
fn each_ends(world: &World) {
    std::thread::scope(|scope| {
        let deeds = HERE.iter().chain(&ELSEWHERE).enumerate();
        let begun: Vec<_> = deeds
            .map(|(number, (what, deed))| {
                let path = world.path(&file(number));
                (number, what, scope.spawn(move || timed(|| deed(&path))))
            })
            .collect();
        let (df, took) = timed(|| output(Command::new("df").arg(world.room.mount())));
        assert!(took < BOUND, "df took {took:?}: {df}");
        for (number, what, deed) in begun {
            let (result, took) = deed.join().unwrap();
            assert!(took < BOUND, "{what} took {took:?}");
            match result {
                Ok(()) => {}
                Err(error) if number >= HERE.len() && error.raw_os_error() == Some(libc::ETIMEDOUT) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
    });
}

/// What is at the servers when they are back, as a new client sees it.
fn all_arrived(world: &World) {
    world.cfs("flush --wait --timeout 60");
    let mount = world.room.state().join("second-mount");
    fs::create_dir_all(&mount).unwrap();
    let mut second = world.venus_at("second", &mount);
    for (number, (what, _)) in HERE.iter().enumerate() {
        let (ours, theirs) = (world.path(&file(number)), mount.join("demo/home").join(file(number)));
        for (ours, theirs) in [(beside(&ours), beside(&theirs)), (ours, theirs)] {
            let look = |path: &Path| {
                let about = fs::symlink_metadata(path).map_err(|error| error.kind())?;
                let held = if about.is_file() { fs::read(path).unwrap() } else { Vec::new() };
                Ok::<_, io::ErrorKind>((about.permissions(), about.len(), about.modified().ok(), held))
            };
            assert!(look(&ours) == look(&theirs), "{what}: {} is something else at another", ours.display());
        }
    }
    second.terminate();
}

#[test]
fn no_operation_hangs_when_all_servers_stop() {
    let Some(world) = World::new(2) else { return };
    prepare(&world);
    (1..=2).for_each(|server| world.server(server).signal(libc::SIGSTOP));
    each_ends(&world);
    (1..=2).for_each(|server| world.server(server).signal(libc::SIGCONT));
    all_arrived(&world);
}

#[test]
fn no_operation_hangs_when_all_packets_vanish() {
    let Some(net) = Net::new() else { return };
    let Some(world) = World::new(2) else { return };
    prepare(&world);
    net.silence(&[world.port(1), world.port(2)]);
    each_ends(&world);
    net.heal();
    all_arrived(&world);
}
