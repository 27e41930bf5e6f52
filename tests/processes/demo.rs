//! `venus demo`.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use crate::{
    support,
    world::{Room, is_mounted, output, venus},
};

#[test]
fn a_command_runs_in_the_realm_and_the_demonstration_ends_with_its_status() {
    let Some(room) = Room::new() else { return };
    let script = "set -e; test \"$PWD\" = \"$CODA_MOUNT/demo\"; mkdir d; echo hello > d/f; cat d/f; \
                  echo home > home/h; cat home/h; ls; test -S \"$CODA_CONTROL\"; exit 7";
    let done = room.demo(3, script).output().unwrap();
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "hello\nhome\nd\nhome\n");
    assert!(!is_mounted(&room.mount()));
}

#[test]
fn the_state_is_kept_for_the_next_run() {
    let Some(room) = Room::new() else { return };
    output(&mut room.demo(2, "echo kept > home/note && ln -s note home/link && mkdir home/d"));
    assert_eq!(output(&mut room.demo(2, "cat home/link; ls home")), "kept\nd\nlink\nnote\n");
}

#[test]
fn a_temporary_state_is_gone_afterwards() {
    let Some(room) = Room::new() else { return };
    let temporary = room.dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut demo = venus();
    demo.args(["demo", "--servers", "1", "--exec", "echo x > home/x && cat home/x"]);
    demo.arg("--mount").arg(room.mount()).env("TMPDIR", &temporary);
    assert_eq!(output(&mut demo), "x\n");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(!room.mount().exists());
}

#[test]
fn an_ordinary_user_mounts_with_the_helper() {
    // SAFETY: reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: only root can become an ordinary user");
    }
    let Some(room) = Room::new() else { return };
    let home = room.dir.path().join("user");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(room.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where the device is closed to ordinary users, they get one of their own: the helper opens it as them.
    let device = room.dir.path().join("fuse");
    let script = format!(
        "mknod -m 666 {device} c 10 229 && mount --bind {device} /dev/fuse && cd {home} && \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME={home} TMPDIR={home} \
         {venus} demo --servers 1 --exec 'id -u; echo mine > home/f; cat home/f; stat -c %u home/f'",
        device = device.display(),
        home = home.display(),
        venus = env!("CARGO_BIN_EXE_venus"),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    assert_eq!(output(&mut command), "65534\nmine\n65534\n");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn a_demonstration_serves_until_it_is_told_to_stop() {
    let Some(room) = Room::new() else { return };
    let mut demo = venus();
    demo.args(["demo", "--servers", "1"]).arg("--state").arg(room.state()).arg("--mount").arg(room.mount());
    let told = room.dir.path().join("told");
    let child = demo.stdout(fs::File::create(&told).unwrap()).spawn().unwrap();
    let mut demo = crate::world::Process(child);
    support::soon("it says what to try", || {
        fs::read_to_string(&told).is_ok_and(|text| text.contains("unmounts and ends"))
    });
    fs::write(room.mount().join("demo/home/x"), "x").unwrap();
    assert!(demo.terminate().success());
    assert!(!is_mounted(&room.mount()));
}

/// The tour of the README: offline, back with a conflict, and its end.
#[test]
fn two_machines_disagree_and_agree_again() {
    let Some(room) = Room::new() else { return };
    let mut demo = venus();
    demo.args(["demo", "--two", "--servers", "2"]);
    demo.arg("--state").arg(room.state()).arg("--mount").arg(room.mount());
    let told = room.dir.path().join("told");
    let child = demo.stdout(fs::File::create(&told).unwrap()).spawn().unwrap();
    let mut demo = crate::world::Process(child);
    let said = || fs::read_to_string(&told).unwrap_or_default();
    support::soon("it says what to try", || said().contains("unmounts and ends"));
    let said = said();
    let sockets = said.lines().find_map(|line| line.trim().strip_prefix("export CODA_CONTROL=")).unwrap();
    let sockets: Vec<PathBuf> = std::env::split_paths(sockets).collect();
    let mut other_mount = room.mount().into_os_string();
    other_mount.push("-2");
    let other_mount = PathBuf::from(other_mount);
    let (laptop, desk) = (room.mount().join("demo/home"), other_mount.join("demo/home"));
    let cfs = |line: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = cfs::run(
            line.split_whitespace().map(OsString::from).collect(),
            cfs::World {
                connect: &mut |_, hint| cfs::socket::connect(Some(&sockets[0]), hint),
                input: &mut std::io::empty(),
                out: &mut out,
                err: &mut err,
                here: laptop.clone(),
                terminal: false,
            },
        );
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(exit.code(), 0, "cfs {line}: {}", text(err));
        text(out)
    };
    let names = |dir: &PathBuf| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    fs::create_dir(laptop.join("conf")).unwrap();
    for name in ["conf/a", "conf/b", "plan"] {
        fs::write(laptop.join(name), "one\ntwo\nthree\n").unwrap();
        assert_eq!(fs::read_to_string(desk.join(name)).unwrap(), "one\ntwo\nthree\n");
    }
    cfs("disconnect");
    fs::write(laptop.join("plan"), "one, on the train\ntwo\nthree\n").unwrap();
    fs::write(desk.join("plan"), "one\ntwo\nthree, at the desk\n").unwrap();
    for name in ["conf/a", "conf/b"] {
        fs::write(laptop.join(name), "laptop").unwrap();
        fs::write(desk.join(name), "desk").unwrap();
    }
    assert_eq!(fs::read_to_string(laptop.join("plan")).unwrap(), "one, on the train\ntwo\nthree\n");
    cfs("reconnect");
    assert_eq!(cfs("flush --wait --timeout 20"), "Everything is at the servers\n");
    support::soon("the versions show", || names(&laptop).len() == 4 && names(&desk).len() == 3);
    assert_eq!(names(&laptop)[2], "plan.conflict-base");
    assert!(cfs("conflicts .").contains("what they, or this machine's, were made from\n"));
    cfs("resolve --text plan");
    let merged = "one, on the train\ntwo\nthree, at the desk\n";
    assert_eq!(fs::read_to_string(desk.join("plan")).unwrap(), merged);
    // All at once, and every name was there all the time.
    assert!(names(&desk.join("conf")).starts_with(&["a".into()]));
    cfs("resolve --newest conf/**");
    assert_eq!(
        (names(&laptop.join("conf")), names(&desk)),
        (vec!["a".into(), "b".into()], vec!["conf".into(), "plan".into()])
    );
    assert!(demo.terminate().success());
    assert!(!is_mounted(&room.mount()) && !is_mounted(&other_mount) && !other_mount.exists());
}
