//! What is promised of every command of an administrator: whoever adds one adds its line here.

#[path = "world/realm.rs"]
mod realm;

use std::{
    ffi::CStr,
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    process::{Command, Output, Stdio},
};

use realm::{Place, badly, well};
use serde_json::Value;

/// The subcommands that a program lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  "));
    names.filter(|line| !line.starts_with(' ')).map(|line| line.split(' ').next().unwrap().into()).collect()
}

/// A line of each command of volutil, in an order in which most of them find what they need.
const LINES: [&str; 38] = [
    "create src one two",
    "list",
    "invite --name four",
    "-h three create_rep /vicepa src.2 7f000002",
    "clone src",
    "backup src",
    "dump src whole.dump",
    "dumpestimate src",
    "readdump whole.dump",
    "restore -f whole.dump again --writable",
    "lock src",
    "unlock src",
    "offline src --yes",
    "online src",
    "quota src 5000",
    "setlogparms 7f000002 reson 4",
    "salvage src",
    "info src",
    "info --all src",
    "lookup src",
    "getvolinfo one src",
    "servers",
    "getmaxvol",
    "create solo one",
    "add-replica solo two --wait",
    "sync-status solo --wait",
    "remove-replica solo one --yes --wait",
    "move-replica solo two one --yes --wait",
    "set-root /",
    "dumpvrdb list.now",
    "makevrdb list.now",
    "loadlocation --vrlist list.now --dry-run",
    "log",
    "import --dry-run",
    "bldvldb",
    "promote-scm two --dry-run",
    "purge again --yes",
    "help",
];

/// Those that destroy. The rest makes, shows, or can be turned back; what takes over a list (`makevrdb`, `import`,
/// `loadlocation`) lets replicas leave, which go when others have all of theirs, and has a dry run.
const DESTROY: [(&str, &str); 5] = [
    ("purge", "purge src"),
    ("remove-replica", "remove-replica src two"),
    ("move-replica", "move-replica src two three"),
    ("offline", "offline src"),
    ("promote-scm", "promote-scm two --without one"),
];

/// The one value that a command told a script.
fn value(line: &str, output: &Output) -> Value {
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(&told).unwrap_or_else(|_| panic!("{line}: {told:?}, {output:?}"))
}

fn codasrv(place: &Place, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codasrv"));
    command.args(line.split(' ')).current_dir(place.dir.path()).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_command_of_volutil_answers_scripts_with_one_json_value() {
    let mut place = Place::new("one");
    place.join("two");
    place.join("three");
    for line in LINES {
        if line == "help" {
            continue; // Clap's, for people.
        }
        let output = place.run(&format!("volutil --json {line}"));
        let told = value(line, &output);
        assert!(output.status.success(), "{line}: {told} {output:?}");
        assert!(told.is_object() || told.is_array(), "{line}: {told}");
    }
    let commands = listed(&well(place.run("volutil --help")));
    let words: Vec<&str> = LINES.iter().flat_map(|line| line.split(' ')).collect();
    for command in commands {
        assert!(words.contains(&command.as_str()), "{command}: has no line here");
    }
    // What goes wrong is told in the same way, and ends as it does for people.
    for (line, status) in [
        ("info nothing", 5),
        ("create src one", 5),
        ("purge src", 4),
        ("dance", 2),
        ("peek 0x100", 2),
        ("create", 2),
        ("readdump list.now", 6),
    ] {
        let output = place.run(&format!("volutil --json {line}"));
        let told = value(line, &output);
        assert!(told["error"].as_str().is_some_and(|why| !why.is_empty()), "{line}: {told}");
        let people = place.run(&format!("volutil {line}"));
        assert_eq!(
            (told["exit"].as_i64(), people.status.code()),
            (Some(status), Some(status as i32)),
            "{line}"
        );
    }
    // Two things cannot both go to the standard output.
    assert_eq!(value("dump", &place.run("volutil --json dump src"))["exit"], 2);
    for line in
        ["printvrdb --json", "getvolinfo --json one src", "purgevol_rep --json src", "bldvldb.sh --json"]
    {
        value(line, &place.run(line));
    }
}

#[test]
fn every_command_of_codasrv_answers_scripts_with_one_json_value() {
    let mut place = Place::new("one");
    place.kill("one");
    std::fs::write(place.file("good.conf"), format!("vicedir={}\n", place.vice("one").display())).unwrap();
    std::fs::write(place.file("bad.conf"), "nonsense=1\n").unwrap();
    let join =
        "join --scm 127.0.0.1:1 --token test.example/00/SHA256:00 --dir more --name n --endpoint 127.0.0.1:2";
    let lines = [
        ("init --realm r.example --dir new --name a --endpoint 127.0.0.1:9", true),
        ("init --realm r.example --dir new --name a --endpoint 127.0.0.1:9", false),
        ("check --dir one", true),
        ("check --repair --dry-run --dir one", true),
        ("check --dir nowhere", false),
        ("accept --dir one --dry-run", true),
        ("accept --dir one --yes", true),
        ("accept --dir one", false),
        ("check-config --conf bad.conf", false),
        (join, false),
    ];
    for (line, good) in lines {
        let output = codasrv(&place, &format!("{line} --json"));
        let told = value(line, &output);
        assert_eq!((output.status.success(), told.is_object()), (good, true), "{line}: {told} {output:?}");
    }
    let commands = listed(&well(codasrv(&place, "--help")));
    for command in commands.iter().filter(|command| *command != "help") {
        assert!(
            lines.iter().any(|(line, _)| line.split(' ').next() == Some(command)),
            "{command}: no line here"
        );
    }
}

#[test]
fn what_destroys_has_a_dry_run_asks_and_takes_yes() {
    let mut place = Place::new("one");
    place.join("two");
    place.join("three");
    well(place.run("volutil create src one two"));
    // Whether it asks is seen in its help, so that none is forgotten here.
    for command in listed(&well(place.run("volutil --help"))).iter().filter(|command| *command != "help") {
        let help = well(place.run(&format!("volutil {command} --help")));
        let destroys = DESTROY.iter().any(|(name, _)| name == command);
        assert_eq!(help.contains("--yes"), destroys, "{command}");
        assert!(!destroys || help.contains("--dry-run"), "{command}");
    }
    let state = |place: &Place| well(place.run("volutil info src")) + &well(place.run("volutil --json log"));
    let before = state(&place);
    for (_, line) in DESTROY {
        let (status, why) = badly(place.run(&format!("volutil {line}")));
        assert!(status == 4 && why.contains("--yes") && why.contains("--dry-run"), "{line}: {why}");
        for more in ["--dry-run", "--dry-run --yes"] {
            let told = value(line, &place.run(&format!("volutil --json {line} {more}")));
            assert!(told["would_do"].is_string(), "{line} {more}: {told}");
        }
        assert_eq!(state(&place), before, "{line}");
    }
}

/// A terminal of its own: what is written to the second is read from the first.
fn terminal() -> (File, File) {
    let open = |path: &str| File::options().read(true).write(true).open(path).unwrap();
    let ours = open("/dev/ptmx");
    let mut name = [0u8; 64];
    // SAFETY: the descriptor is open, and the name is written to a place that is as long as is said.
    unsafe {
        assert_eq!(libc::unlockpt(ours.as_raw_fd()), 0);
        assert_eq!(libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr().cast(), name.len()), 0);
    }
    let theirs = open(CStr::from_bytes_until_nul(&name).unwrap().to_str().unwrap());
    (ours, theirs)
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a terminal is read while a real process writes to it")]
fn what_takes_long_draws_a_bar_on_a_terminal_and_nowhere_else() {
    let mut place = Place::new("one");
    place.join("two");
    for line in ["create src one", "add-replica src two --wait", "dump src a.dump", "restore -f a.dump b"] {
        let output = place.run(&format!("volutil {line}"));
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(output.status.success() && !said.contains(&b'\r') && !said.contains(&b'#'), "{output:?}");
    }
    // While one is away they are not equal, and it waits.
    place.kill("two");
    let (mut ours, theirs) = terminal();
    let mut waits = Command::new(place.dir.path().join("bin/volutil"))
        .args(["--timeout", "1", "sync-status", "src", "--wait"])
        .env("CODA_ADMIN_DIR", place.vice("one"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let mut drawn = String::new();
    while drawn.matches('\r').count() < 2 {
        let mut some = [0; 200];
        let count = ours.read(&mut some).unwrap();
        drawn.push_str(&String::from_utf8_lossy(&some[..count]));
    }
    assert!(drawn.starts_with('\r') && drawn.contains("two"), "{drawn:?}");
    place.start("two");
    // What it draws from now on has to be taken, or it would wait for that.
    let reader = std::thread::spawn(move || while ours.read(&mut [0; 200]).is_ok_and(|count| count > 0) {});
    let mut told = String::new();
    waits.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(waits.wait().unwrap().success() && told.contains("on two, active"), "{told}");
    reader.join().unwrap();
}

#[test]
fn a_server_that_may_not_open_enough_files_says_so_and_does_not_start() {
    let mut place = Place::new("one");
    place.kill("one");
    let start = |limit: u32| {
        let line = format!(
            "ulimit -n {limit} && exec {} --dir {}",
            env!("CARGO_BIN_EXE_codasrv"),
            place.vice("one").display()
        );
        Command::new("sh").args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // 64, and 6 for the root volume.
    let refused = start(69).wait_with_output().unwrap();
    let why = badly(refused).1;
    assert!(why.contains("1 volumes need 70 open files, and 69 are allowed (ulimit -Hn)"), "{why}");
    let mut served = start(70);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(served.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert!(line.contains("listens at"), "{line:?}");
    served.kill().unwrap();
    served.wait().unwrap();
}
