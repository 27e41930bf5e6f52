//! Who asks makes a difference where something is not here: real processes by their names and descent.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::world::{World, cfs};

#[test]
fn an_indexer_and_whoever_tries_out_being_offline_cause_nothing_to_be_fetched() {
    let Some(mut world) = World::new(1) else { return };
    let other_mount = world.room.dir.path().join("other");
    let mut other = world.venus_at("other", &other_mount);
    let (here, there) = (world.path(""), other_mount.join("demo/home"));
    fs::write(here.join("report"), vec![b'x'; 100_000]).unwrap();
    fs::write(here.join("later"), "later").unwrap();
    assert_eq!(fs::read_dir(&there).unwrap().count(), 2);

    // The shell itself reads: its name is that of the script.
    let indexer = world.room.dir.path().join("updatedb");
    fs::write(&indexer, "#!/bin/sh\nread line < \"$1\" || test -n \"$line\"\n").unwrap();
    fs::set_permissions(&indexer, fs::Permissions::from_mode(0o755)).unwrap();
    let index = || Command::new(&indexer).arg(there.join("report")).output().unwrap();
    let refused = index();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("Permission denied"), "{refused:?}");
    assert_eq!(fs::read(there.join("report")).unwrap().len(), 100_000);
    assert!(index().status.success(), "what is here it gets");

    let socket = world.room.state().join("other.sock");
    let script = "cat report > read && cat later 2> said; rm read said; exit 7";
    let (code, _, told) =
        cfs(&socket, &there, &["offline", "--", "sh", "-c", &format!("cd {}; {script}", there.display())]);
    let missed = format!("           5 bytes  {}\n", there.join("later").display());
    assert_eq!((code, told.contains(&missed)), (7, true), "{told}");
    assert!(told.ends_with("1 missed, 5 bytes as far as is known; `cfs pin` keeps them here\n"), "{told}");
    assert_eq!(fs::read_to_string(there.join("later")).unwrap(), "later");

    assert!(other.terminate().success());
    assert!(world.venus().terminate().success());
}
