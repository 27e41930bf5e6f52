//! Commands of old that have no meaning any more, and what took their place.

use std::ffi::OsString;

use super::{Exit, Failed, Report};

/// What to say to who calls a command of volutil that is no more.
fn command_says(name: &str) -> Option<&'static str> {
    Some(match name {
        "ancient" => "a dump is accepted by being named: `volutil dump --since DUMP VOLUME FILE` follows it",
        "setvv" => {
            "versions are not set by hand: what includes what is decided by the join (`volutil salvage`)"
        }
        "setmaxvol" => {
            "ids are given by the SCM, and none is given twice; `volutil getmaxvol` shows the highest"
        }
        "makevldb" => "there is no VLDB to be made: every server follows the realm's configuration by itself",
        "updatedb" => "there is nothing to reload: every server follows the realm's configuration by itself",
        "showvnode" => {
            "`volutil info --all VOLUME` shows what replicas hold; `cfs getfid PATH` one object's version"
        }
        "showcallbacks" => "promises belong to sessions; the server's log names them at level debug",
        "shutdown" => "stop codasrv with SIGTERM (`systemctl stop codasrv`)",
        "swaplog" => "the log is the journal's (`journalctl -u codasrv`), which turns over by itself",
        "setdebug" => "set CODASRV_LOG, as `info` or `debug`, and start codasrv again",
        "rvmsize" => "there is no recoverable memory; `volutil info VOLUME` shows what a volume uses",
        "truncatervmlog" => "there is no recoverable memory, and SQLite's log is cut by itself",
        "printstats" | "timing" | "tracerpc" => {
            "statistics are in the server's log, which names each slow call"
        }
        "togglemalloc" | "swapmalloc" | "dumpmem" | "peek" | "poke" | "peeks" | "pokes" | "peekx"
        | "pokex" | "elapse" => "the memory of a running server is not looked at from outside",
        _ => return None,
    })
}

/// Answers a command that is no more; refuses one that never was.
pub fn command(words: &[OsString]) -> anyhow::Result<Report> {
    let name = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let said = match command_says(&name) {
        Some(said) => format!("{name}: {said}"),
        None => format!("{name}: no such command; `volutil --help` lists them"),
    };
    Err(Failed(Exit::Usage, said).into())
}

/// What to say to who calls a program that is no more.
pub fn by_name(name: &str) -> Option<String> {
    let said = match name {
        "initpw" | "au" | "pdbtool" => "there are no accounts yet: every client is System:AnyUser",
        "norton" | "norton-reinit" => "a store is looked at with `codasrv check [--repair] --dir DIR`",
        name => return crate::shell::names::replaced(name),
    };
    Some(format!("{name}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_old_answers_in_one_line_why_it_is_no_more() {
        for name in [
            "ancient",
            "setvv",
            "setmaxvol",
            "makevldb",
            "updatedb",
            "showvnode",
            "showcallbacks",
            "shutdown",
            "swaplog",
            "setdebug",
            "rvmsize",
            "truncatervmlog",
            "printstats",
            "timing",
            "tracerpc",
            "togglemalloc",
            "swapmalloc",
            "dumpmem",
            "peek",
            "poke",
            "peeks",
            "pokes",
            "peekx",
            "pokex",
            "elapse",
        ] {
            let said = command_says(name).unwrap_or_else(|| panic!("{name} says nothing"));
            assert!(!said.contains('\n') && said.len() < 120, "{name}: {said}");
        }
        for name in ["updatesrv", "updateclnt", "rpc2portmap", "auth2", "norton", "startserver"] {
            assert!(by_name(name).is_some_and(|said| !said.contains('\n')), "{name}");
        }
        assert_eq!(by_name("volutil"), None);
        let unknown = command(&["gibberish".into()]).unwrap_err().to_string();
        assert!(unknown.contains("no such command"), "{unknown}");
    }
}
