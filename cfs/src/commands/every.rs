//! What is promised of every command: whoever adds one adds its lines here.

use serde_json::Value;

use super::{ASK, COMMANDS};
use crate::fake::{Fake, Shown, run};

/// Lines of a command that show an answer, a failure, or both; `DIR` is an empty directory.
fn lines(command: &str) -> Option<&'static [&'static str]> {
    Some(match command {
        "adaptive" | "strong" => &["strong", "strong src docs", "adaptive src"],
        "approve" => &["approve src"],
        "beginrepair" | "expand" => &["expand src", "beginrepair src docs"],
        "checkpointml" => &["checkpointml", "checkpointml src DIR"],
        "checkservers" => &["checkservers"],
        "checkvolumes" => &["checkvolumes"],
        "collapse" | "endrepair" => &["collapse src", "endrepair src"],
        "coda-client-setup" => &["coda-client-setup --dir DIR example.org"],
        // It never ends; its lines are those of events.
        "codacon" => &["events -last"],
        "conflicts" => &["conflicts /elsewhere"],
        "disconnect" => &["disconnect", "disconnect nobody"],
        "events" => &["events -last"],
        "flush" => &["flush", "flush --wait src"],
        "flushcache" => &["flushcache -y", "flushcache"],
        "flushobject" => &["flushobject -y src docs", "flushobject src", "flushobject -y nothing/there"],
        "flushvolume" => &["flushvolume -y src", "flushvolume src"],
        "forcereintegrate" => &["forcereintegrate", "forcereintegrate src"],
        "getfid" => &["getfid src nothing"],
        "getmountpoint" => &["getmountpoint 7f000012@example.org 1@nowhere"],
        "getpath" => &["getpath 7f000012.2.a1@example.org nonsense"],
        "help" => &["help", "help fl", "help exit", "help dance"],
        "hoard" => {
            &["hoard list", "hoard add docs", "hoard walk", "hoard verify", "hoard clear", "hoard nonsense"]
        }
        "listacl" => &["listacl docs", "listacl src/main.c"],
        "listcache" => &["listcache", "listcache src"],
        "listvol" => &["listvol src docs", "listvol -local src"],
        "lsmount" => &["lsmount src docs"],
        "mkmount" => &["mkmount m home", "mkmount src home"],
        "offline" => &["offline -- true"],
        "pending" => &["pending", "pending src"],
        "pin" => &["pin src", "pin nothing"],
        "preflight" => &["preflight", "preflight --fetch docs"],
        "purgeml" => &["purgeml -y src", "purgeml src"],
        "reconnect" => &["reconnect"],
        "repair" => &["repair src", "repair -remove src"],
        "replay" => &["replay -y DIR/nothing DIR", "replay --dry-run DIR/nothing DIR"],
        "resolve" => &["resolve src", "resolve --newest src"],
        "rmmount" => &["rmmount src", "rmmount docs"],
        "salvage" => &["salvage DIR/nothing DIR/to"],
        "setacl" => &["setacl docs jan rl", "setacl docs jan bogus"],
        "setquota" => &["setquota docs 7"],
        "status" => &["status", "status src"],
        "undo" => &["undo", "undo 7"],
        "unpin" => &["unpin src"],
        "venus-setup" => &["venus-setup --dir DIR host 10000"],
        "waitforever" => &["waitforever -on", "waitforever"],
        "whereis" => &["whereis src nothing"],
        "writedisconnect" => &["writedisconnect", "writedisconnect src"],
        "writereconnect" => &["writereconnect", "writereconnect src"],
        _ => return None,
    })
}

/// Runs a line where there is something of everything.
fn shown(line: &str) -> Shown {
    let (mut fake, dir) = (Fake::world(), tempfile::tempdir().unwrap());
    fake.kill("srv2.example.org");
    run(&mut fake, &line.replace("DIR", dir.path().to_str().unwrap()), "")
}

#[test]
fn every_command_answers_scripts_in_json_and_in_nothing_else() {
    for command in COMMANDS {
        let lines = lines(command.name).unwrap_or_else(|| panic!("{}: has no line here", command.name));
        for line in lines {
            let told = shown(&format!("--json {line}"));
            assert!(!told.out.is_empty(), "{line}: says nothing to scripts, but {:?}", told.err);
            for value in told.out.lines() {
                let value: Value = serde_json::from_str(value).unwrap_or_else(|_| panic!("{line}: {value}"));
                let known =
                    ["ok", "failed", "seq"].into_iter().filter(|key| value.get(key).is_some()).count();
                assert_eq!(known, 1, "{line}: {value}");
            }
            // It ends as it would for people.
            assert_eq!(told.code, shown(line).code, "{line}");
        }
    }
}

#[test]
fn wrong_lines_too_are_told_in_json() {
    for line in ["dance", "getfid", "uk", "whereis --frobnicate src"] {
        let told = shown(&format!("--json {line}"));
        let value: Value = serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{line}: {told:?}"));
        assert!(value["failed"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{line}: {value}");
        assert_eq!(told.code, shown(line).code, "{line}");
    }
}

#[test]
fn what_destroys_asks_takes_yes_and_tells_beforehand() {
    for name in ASK {
        let command = super::find(name).unwrap();
        assert!(command.usage.contains("[-y | --dry-run]"), "{}", command.usage);
    }
    // One that is replayed has a test of its own; it needs an archive.
    let state =
        |fake: &mut Fake| run(fake, "--json listcache", "").out + &run(fake, "--json pending", "").out;
    for (line, prior) in [
        ("flushcache", "listcache"),
        ("flushobject src/main.c", "listcache"),
        ("flushvolume src", "listcache"),
        ("purgeml src", "pending"),
    ] {
        assert!(ASK.contains(&line.split(' ').next().unwrap()));
        let held = |fake: &Fake| fake.cached("/coda/example.org/src/main.c");
        let mut fake = Fake::world();
        let before = state(&mut fake);
        for (more, input) in [("", ""), ("", "no\n"), (" --dry-run", "y\n"), (" -y --dry-run", "")] {
            let told = run(&mut fake, &format!("{line}{more}"), input);
            assert_eq!(told.code, 0, "{line}{more}: {told:?}");
            assert_eq!(told.out.contains("would do: "), more.contains("dry"), "{line}{more}: {told:?}");
            assert_eq!(told.out.contains("Do you really"), more.is_empty(), "{line}{more}: {told:?}");
            assert!(held(&fake) && state(&mut fake) == before, "{line}{more}: something is gone");
        }
        for (more, input) in [("", "y\n"), (" -y", "")] {
            let mut fake = Fake::world();
            run(&mut fake, &format!("{line}{more}"), input);
            let gone = if prior == "listcache" { !held(&fake) } else { state(&mut fake) != before };
            assert!(gone, "{line}{more}: nothing was done");
        }
    }
}

#[test]
fn what_does_not_ask_knows_no_dry_run() {
    for line in ["unpin src", "setquota docs 7", "rmmount src", "resolve --newest src"] {
        assert_eq!(shown(&format!("{line} --dry-run")).code, 255, "{line}");
    }
}
