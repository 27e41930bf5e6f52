//! `venus demo`.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

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
