//! Two machines write one file at the same time; both mounts show both versions, and a choice ends it.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crate::world::{self, World};

/// Names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Runs `cfs` in a directory, talking to one of the cache managers. What it prints.
fn cfs(socket: &Path, here: &Path, words: &[&str]) -> String {
    let (code, out, err) = world::cfs(socket, here, words);
    assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
    out
}

#[test]
fn both_versions_of_a_conflict_show_on_two_mounts_until_one_is_taken() {
    let Some(mut world) = World::new(2) else { return };
    let other_mount = world.room.dir.path().join("other");
    let mut other = world.venus_at("other", &other_mount);
    let (one, two) = (world.path(""), other_mount.join("demo/home"));
    fs::write(one.join("plan"), "start\n").unwrap();
    assert_eq!(fs::read_to_string(two.join("plan")).unwrap(), "start\n");

    let mut here = File::options().write(true).open(one.join("plan")).unwrap();
    let mut there = File::options().write(true).open(two.join("plan")).unwrap();
    here.write_all(b"plan A\n").unwrap();
    there.write_all(b"plan B\n").unwrap();
    drop((here, there));

    let listed = names(&one);
    assert_eq!((listed.len(), listed[0].as_str()), (2, "plan"), "{listed:?}");
    assert!(listed[1].starts_with("plan.conflict-"), "{listed:?}");
    assert_eq!(names(&two), listed);
    let mut contents = [&listed[0], &listed[1]].map(|name| fs::read_to_string(two.join(name)).unwrap());
    contents.sort();
    assert_eq!(contents, ["plan A\n", "plan B\n"]);
    assert!(fs::metadata(one.join(&listed[1])).unwrap().permissions().readonly());

    let refused = fs::write(one.join("plan"), "plan C\n").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    let socket = world.room.state().join("other.sock");
    let shown = cfs(&socket, &two, &["conflicts", "."]);
    assert!(shown.contains("plan: several contents\n") && shown.contains(&listed[1]), "{shown}");

    cfs(&socket, &two, &["resolve", "--ours", "plan"]);
    assert_eq!(names(&one), ["plan"]);
    assert_eq!(fs::read_to_string(one.join("plan")).unwrap(), "plan B\n");

    // Undone, and decided by a program that reads both through the mount.
    cfs(&socket, &two, &["undo", "plan"]);
    assert_eq!(names(&one).len(), 2);
    let tool = world.room.dir.path().join("tool");
    fs::write(&tool, "#!/bin/sh\nsort \"$1\" \"$2\" > \"$3\"\n").unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    cfs(&socket, &two, &["resolve", "--merge", tool.to_str().unwrap(), "plan"]);
    assert_eq!(names(&one), ["plan"]);
    assert_eq!(fs::read_to_string(one.join("plan")).unwrap(), "plan A\nplan B\n");
    fs::write(one.join("plan"), "plan C\n").unwrap();
    assert_eq!(fs::read_to_string(two.join("plan")).unwrap(), "plan C\n");

    assert!(other.terminate().success());
    assert!(world.venus().terminate().success());
}
