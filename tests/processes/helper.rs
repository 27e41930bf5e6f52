//! A venus without any privilege, in a mount namespace of its own: a helper mounts for it where everybody sees it.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt, chown},
            net::UnixListener,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    support,
    world::{Process, Room, World, is_mounted, venus},
};

/// The user that venus runs as, and the one whose mount it is: they need not be the same.
const RUNS: u32 = 65534;
const OWNS: u32 = 12345;

/// What systemd does with a socket unit: a helper for each connection, as root.
#[allow(clippy::disallowed_methods)] // A test of real processes may wait on a thread.
fn helpers(socket: &Path, at: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    chown(socket, Some(RUNS), Some(RUNS)).unwrap();
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).unwrap();
    let at = at.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut helper = venus();
            helper.args(["mount-helper", "--owner", &OWNS.to_string(), "--at"]).arg(&at);
            helper.stdin(OwnedFd::from(stream)).status().unwrap();
        }
    });
}

fn run_as(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    let user = user.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"]);
    command
}

/// What a shell of the mount's owner answers.
fn owner(script: &str) -> String {
    let done = run_as(OWNS).args(["sh", "-c", script]).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&done.stdout) + &text(&done.stderr)
}

fn start(room: &Room, words: &[String]) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave"]);
    let user = run_as(RUNS);
    command.arg(user.get_program()).args(user.get_args()).args(["--bounding-set", "-all"]);
    command.arg(env!("CARGO_BIN_EXE_venus")).args(words).env("CODACONFPATH", room.dir.path().join("conf"));
    let log = fs::File::options().create(true).append(true).open(room.dir.path().join("venus.log")).unwrap();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    Process(spawned)
}

#[test]
fn a_venus_without_privilege_serves_a_tree_that_everybody_sees() {
    // SAFETY: reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: only root can be the helper");
    }
    let Some(mut world) = World::new(1) else { return };
    assert!(world.venus().terminate().success());
    world.venus = None;
    let (room, mount) = (world.room.dir.path().to_owned(), world.room.mount());
    let (conf, state, socket) = (room.join("conf"), room.join("own"), room.join("mount.sock"));
    for dir in [&conf, &state, &mount] {
        let _ = fs::create_dir(dir);
    }
    fs::set_permissions(&room, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&state, Some(RUNS), Some(RUNS)).unwrap();
    for name in ["realms", "ca.pem"] {
        fs::copy(world.room.state().join(name), conf.join(name)).unwrap();
    }
    let settings = format!(
        "mountpoint={}\ncachedir={state}/cache\nrealmtab={conf}/realms\ncontrolsocket={state}/venus.sock\n\
         mount_helper={}\nprimaryuser={OWNS}\nlog=info\n",
        mount.display(),
        socket.display(),
        conf = conf.display(),
        state = state.display(),
    );
    fs::write(conf.join("venus.conf"), settings).unwrap();
    helpers(&socket, &mount);

    let mut running = start(&world.room, &[]);
    let path = mount.join("demo/home/f");
    let shows = |expected: &str| {
        let script = format!("cat {}", path.display());
        support::soon("the owner reads it", || owner(&script) == expected);
    };
    support::soon("it is mounted here, outside", || is_mounted(&mount));
    assert_eq!(owner(&format!("echo mine > {0}; cat {0}", path.display())), "mine\n");
    // Nobody else enters, root neither; and venus has not a single capability.
    assert_eq!(fs::read_dir(&mount).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    for set in ["CapEff:\t", "CapPrm:\t", "CapBnd:\t"] {
        assert!(status.contains(&format!("{set}0000000000000000\n")), "{status}");
    }

    // One that was killed leaves a dead mount, which the helper tells from a living one and covers.
    running.kill();
    assert!(owner(&format!("ls {}", mount.display())).contains("not connected"));
    let mut running = start(&world.room, &[]);
    shows("mine\n");

    // A second one does not take the place of a living one.
    let other = |what: &str, name: &str| format!("--{what}={}", state.join(name).display());
    let mut second = start(&world.room, &[other("cachedir", "other"), other("controlsocket", "other.sock")]);
    assert!(!second.0.wait().unwrap().success());
    assert!(world.said("venus").contains("it lives"), "{}", world.said("venus"));
    shows("mine\n");

    assert!(running.terminate().success(), "{}", world.said("venus"));
    assert!(!is_mounted(&mount), "neither this life's nor the last one's");
    assert_ne!(fs::metadata(&mount).unwrap().permissions().mode() & 0o200, 0);

    // Without its helper it does not start, and says why.
    fs::remove_file(&socket).unwrap();
    assert!(!start(&world.room, &[]).0.wait().unwrap().success());
    assert!(world.said("venus").contains("the mount helper at"), "{}", world.said("venus"));
}
