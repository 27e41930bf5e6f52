//! `cfs conflicts`: what waits for a decision, with every version and where it can be read.

use coda_proto::control::{Conflict, Failure, FailureKind, Reply, Request, UNASKED};

use super::Command;

pub const COMMAND: Command = Command {
    name: "conflicts",
    short: &[],
    usage: "cfs conflicts [path ...]",
    about: "lists what people must decide, with every version",
    run: |talk, args| {
        let typed = args.rest(0, usize::MAX)?;
        let paths = talk.paths(&typed)?;
        let Reply::Conflicts(listed) = talk.ask(Request::Conflicts { paths })? else { return Ok(()) };
        let (unasked, conflicts): (Vec<Conflict>, Vec<Conflict>) =
            listed.into_iter().partition(|conflict| conflict.kind == UNASKED);
        if talk.json {
            for conflict in conflicts {
                let object = std::ffi::OsString::from(&conflict.path);
                talk.answer(Some(&object), Ok(Reply::Conflicts(vec![conflict])), |_| String::new());
            }
        } else if conflicts.is_empty() && unasked.is_empty() {
            talk.say("No conflicts\n");
        } else {
            let text: String = conflicts.iter().map(text).collect();
            talk.say(&text);
        }
        for volume in unasked {
            let object = std::ffi::OsString::from(&volume.path);
            talk.failed(Some(&object), &incomplete(volume));
        }
        Ok(())
    },
};

/// A list that may lack something says so, and the command fails.
fn incomplete(volume: Conflict) -> Failure {
    Failure {
        kind: FailureKind::Disconnected,
        what: volume.path,
        why: "its servers could not be asked; of this volume only what is cached is listed".into(),
        next: "`cfs status` says why; `cfs checkservers` tries them again now".into(),
    }
}

/// One line for what is contested, and one for each version.
fn text(conflict: &Conflict) -> String {
    let what = match conflict.kind.as_str() {
        "contents" => "several contents",
        "name" => "several objects of one name",
        _ => "came back after it was removed elsewhere, or its access list was changed at both sides",
    };
    let mut text = format!("{}: {what}\n", conflict.path);
    for version in &conflict.versions {
        let host = if version.host.is_empty() { "unknown" } else { &version.host };
        let ours = if version.ours { ", this machine" } else { "" };
        text.push_str(&format!(
            "    {} bytes, by {host}{ours}, {} UTC\n        {}\n",
            version.length,
            super::date(version.time),
            version.path
        ));
    }
    if conflict.kind == "mark" {
        text.push_str(
            "    `cfs resolve --newest` keeps it, `rm` removes it; `cfs setacl` decides about a list\n",
        );
    }
    if !conflict.base.is_empty() {
        text.push_str(&format!(
            "    what they, or this machine's, were made from\n        {}\n",
            conflict.base
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use coda_proto::control::Version;

    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn every_version_is_listed_with_its_machine_and_time() {
        let version = |path: &str, host: &str, ours| Version {
            path: path.into(),
            host: host.into(),
            time: 1_795_970_285_000_000_000,
            length: 5,
            ours,
            id: String::new(),
        };
        let conflict = Conflict {
            path: "/coda/r/f".into(),
            kind: "contents".into(),
            versions: vec![version("/coda/r/f", "laptop", true), version("/coda/r/f.conflict-x", "", false)],
            base: "/coda/r/f.conflict-base".into(),
            ..Conflict::default()
        };
        assert_eq!(
            text(&conflict),
            "/coda/r/f: several contents\n    5 bytes, by laptop, this machine, 2026-11-29 16:38:05 UTC\n        \
             /coda/r/f\n    5 bytes, by unknown, 2026-11-29 16:38:05 UTC\n        /coda/r/f.conflict-x\n    \
             what they, or this machine's, were made from\n        /coda/r/f.conflict-base\n"
        );
    }

    #[test]
    fn without_conflicts_it_says_so() {
        assert_eq!(run(&mut Fake::world(), "conflicts", "").out, "No conflicts\n");
    }

    #[test]
    fn a_list_that_may_lack_something_says_so_and_fails() {
        let failure = incomplete(Conflict { path: "/coda/r/v".into(), ..Conflict::default() });
        assert!(failure.why.contains("only what is cached is listed"));
        assert_eq!(crate::exit::Exit::of(&failure), crate::exit::Exit::Disconnected);
    }
}
