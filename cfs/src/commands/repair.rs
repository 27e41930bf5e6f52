//! `cfs repair`, also called `repair`: the commands that old hands know, on conflicts as they are here. Members
//! of a group agree about every version, so what was decided replica by replica is decided version by
//! version; a directory is joined entry by entry by itself, and a fix file says what becomes of the names
//! below it that are left.

use std::{ffi::OsString, fs};

use coda_proto::control::{Conflict, Failure, FailureKind, How, Reply, Request, UNASKED};

use super::Command;
use crate::{Talk, exit::Stop};

pub const COMMAND: Command = Command {
    name: "repair",
    short: &[],
    usage: "repair [-remove] [object [fixfile]]",
    about: "repairs conflicts by beginrepair, comparedirs, dorepair, replaceinc, removeinc, clearinc, endrepair",
    run: |talk, mut args| {
        let remove = args.flag(&["-remove"]);
        // Accepted, as ever.
        let _ = (args.flag(&["-d"]), args.flag(&["-allowclear"]));
        let words = args.rest(0, 2)?;
        let mut session = Session::default();
        match (remove, &words[..]) {
            (true, [object]) => {
                session.follow(talk, &["beginrepair", &object.to_string_lossy()])?;
                session.follow(talk, &["removeinc"])?;
                Ok(())
            }
            (false, [object, fixfile]) => {
                let fixfile = fixfile.to_string_lossy();
                session.follow(talk, &["beginrepair", &object.to_string_lossy()])?;
                session.follow(talk, &["comparedirs", &fixfile])?;
                session.follow(talk, &["dorepair", &fixfile])?;
                session.follow(talk, &["endrepair"])?;
                Ok(())
            }
            (false, objects @ ([] | [_])) => {
                if let [object] = objects {
                    session.follow(talk, &["beginrepair", &object.to_string_lossy()])?;
                }
                converse(talk, &mut session);
                Ok(())
            }
            _ => Err(Stop::Usage),
        }
    },
};

const COMMANDS: [&str; 9] = [
    "beginrepair",
    "clearinc",
    "comparedirs",
    "dorepair",
    "endrepair",
    "help",
    "quit",
    "removeinc",
    "replaceinc",
];

const HELP: &str = "\
beginrepair <object>     shows the versions of an object, a file's as a directory
comparedirs <fixfile>    writes what has to be decided below a directory (stdout: shows it)
dorepair [fixfile]       does what the file says
replaceinc <file>        the contents of another file become the object's
removeinc                removes the object with all its versions
clearinc                 keeps what came back after it was removed; where all versions are equal, says so
endrepair                shows the object as before
quit                     ends
";

/// The command that a word is, or the beginning of just one.
fn command(word: &str) -> Option<&'static str> {
    let mut found = COMMANDS.into_iter().filter(|command| command.starts_with(word));
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one),
        _ => COMMANDS.into_iter().find(|command| *command == word),
    }
}

/// What is being repaired.
#[derive(Default)]
struct Session {
    object: Option<String>,
    expanded: bool,
    fixfile: Option<String>,
}

fn wrong(why: &str) -> Failure {
    Failure { kind: FailureKind::Invalid, what: "repair".into(), why: why.into(), next: String::new() }
}

/// Reads commands until the end.
fn converse(talk: &mut Talk<'_>, session: &mut Session) {
    loop {
        talk.say("repair > ");
        let mut line = String::new();
        let read = talk.input.read_line(&mut line);
        let words: Vec<&str> = line.split_whitespace().collect();
        if !matches!(read, Ok(1..)) || words.first().and_then(|word| command(word)) == Some("quit") {
            let _ = session.end(talk);
            return;
        }
        if let Err(failure) = session.follow(talk, &words) {
            talk.failed(None, &failure);
        }
    }
}

impl Session {
    fn follow(&mut self, talk: &mut Talk<'_>, words: &[&str]) -> Result<(), Failure> {
        let Some((first, rest)) = words.split_first() else { return Ok(()) };
        let Some(command) = command(first) else {
            return Err(wrong(&format!("{first} is no command, or not just one; try help")));
        };
        match (command, rest) {
            ("beginrepair", [object]) => self.begin(talk, object),
            ("comparedirs", [fixfile, ..]) => self.compare(talk, fixfile),
            ("dorepair", []) => match self.fixfile.clone() {
                Some(fixfile) => self.repair(talk, &fixfile),
                None => Err(wrong("which fixfile?")),
            },
            ("dorepair", [fixfile]) => self.repair(talk, fixfile),
            ("replaceinc", [file]) => {
                let file = talk.path(&OsString::from(file))?;
                self.decide(talk, How::Take(file))
            }
            ("removeinc", []) => self.decide(talk, How::Remove),
            ("clearinc", []) => {
                let conflicts = self.conflicts(talk)?;
                let object = self.object()?;
                match conflicts.iter().find(|conflict| conflict.path == *object) {
                    Some(own) if own.kind == "mark" => return self.decide(talk, How::Newest),
                    _ if conflicts.is_empty() => {
                        talk.say("All versions are equal: there is nothing to clear.\n");
                    }
                    _ => return Err(wrong("the versions differ")),
                }
                Ok(())
            }
            ("endrepair", []) => self.end(talk),
            ("help", _) => {
                talk.say(HELP);
                Ok(())
            }
            _ => Err(wrong(&format!("{command}: wrong number of words; try help"))),
        }
    }

    fn object(&self) -> Result<&String, Failure> {
        self.object.as_ref().ok_or_else(|| wrong("no repair was begun"))
    }

    fn conflicts(&self, talk: &mut Talk<'_>) -> Result<Vec<Conflict>, Failure> {
        match talk.ask(Request::Conflicts { paths: vec![self.object()?.clone()] })? {
            Reply::Conflicts(mut conflicts) => {
                conflicts.retain(|conflict| conflict.kind != UNASKED);
                Ok(conflicts)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn begin(&mut self, talk: &mut Talk<'_>, object: &str) -> Result<(), Failure> {
        self.end(talk)?;
        let path = talk.path(&OsString::from(object))?;
        self.object = Some(path.clone());
        let conflicts = self.conflicts(talk)?;
        let Some(own) = conflicts.iter().find(|conflict| conflict.path == path) else {
            if conflicts.is_empty() {
                self.object = None;
                return Err(wrong(&format!("{path} is not in conflict")));
            }
            talk.say(&format!(
                "{} conflicts below this directory: comparedirs and dorepair\n",
                conflicts.len()
            ));
            return Ok(());
        };
        if own.kind == "contents" {
            self.expanded = talk.ask(Request::Expand { path: path.clone() }).is_ok();
            talk.say(&format!("{} versions: replaceinc or removeinc\n", own.versions.len()));
        } else if own.kind == "mark" {
            talk.say(
                "it came back after it was removed elsewhere: clearinc keeps it, removeinc removes it\n",
            );
        } else {
            talk.say("objects of one name: comparedirs and dorepair, or removeinc\n");
        }
        for version in &own.versions {
            talk.say(&format!("    {} bytes, by {}  {}\n", version.length, version.host, version.path));
        }
        Ok(())
    }

    fn end(&mut self, talk: &mut Talk<'_>) -> Result<(), Failure> {
        let object = self.object.take();
        if let (Some(path), true) = (object, std::mem::take(&mut self.expanded)) {
            // What was repaired meanwhile shows as itself already.
            let _ = talk.ask(Request::Collapse { path });
        }
        Ok(())
    }

    /// Writes a fix file: one line for each conflict, with what would be done, and its versions as comments.
    fn compare(&mut self, talk: &mut Talk<'_>, fixfile: &str) -> Result<(), Failure> {
        let conflicts = self.conflicts(talk)?;
        let text: String = conflicts.iter().map(fix).collect();
        if fixfile == "stdout" {
            let conflicts = Reply::Conflicts(conflicts);
            talk.answer(None, Ok(conflicts), |_| text);
            return Ok(());
        }
        fs::write(fixfile, text).map_err(|error| wrong(&format!("{fixfile}: {error}")))?;
        self.fixfile = Some(fixfile.to_owned());
        Ok(())
    }

    fn repair(&mut self, talk: &mut Talk<'_>, fixfile: &str) -> Result<(), Failure> {
        let text = fs::read_to_string(fixfile).map_err(|error| wrong(&format!("{fixfile}: {error}")))?;
        let fixes = fixes(&text).map_err(|line| wrong(&format!("{fixfile}: {line}")))?;
        for (how, path) in fixes {
            let answer = talk.ask(Request::Resolve { path: path.clone(), how: Some(how), of: Vec::new() });
            let shown = OsString::from(&path);
            talk.answer(Some(&shown), answer, |_| format!("{path}: succeeded\n"));
        }
        Ok(())
    }

    fn decide(&mut self, talk: &mut Talk<'_>, how: How) -> Result<(), Failure> {
        let path = self.object()?.clone();
        self.end(talk)?;
        let reply = talk.ask(Request::Resolve { path: path.clone(), how: Some(how), of: Vec::new() })?;
        let shown = OsString::from(&path);
        talk.answer(Some(&shown), Ok(reply), |reply| match reply {
            Reply::Resolved(done) => format!("{path}: {}\n", done.what),
            _ => format!("{path}: succeeded\n"),
        });
        Ok(())
    }
}

fn fix(conflict: &Conflict) -> String {
    let how = match conflict.kind.as_str() {
        "contents" | "mark" => "newest",
        "name" => "both",
        _ => "# nothing to be decided:",
    };
    let version =
        |v: &coda_proto::control::Version| format!("#   {} bytes, by {}  {}\n", v.length, v.host, v.path);
    let versions: String = conflict.versions.iter().map(version).collect();
    format!("{versions}{how} {}\n", conflict.path)
}

/// The decisions of a fix file, or the first line that is none.
fn fixes(text: &str) -> Result<Vec<(How, String)>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (how, path) = line.split_once(' ').ok_or_else(|| line.to_owned())?;
        let how = match how {
            "ours" => How::Ours,
            "theirs" => How::Theirs,
            "newest" => How::Newest,
            "both" => How::Both,
            "remove" => How::Remove,
            _ => return Err(line.to_owned()),
        };
        Ok((how, path.trim().to_owned()))
    };
    lines.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn a_fix_file_says_what_becomes_of_each_path() {
        let text =
            "#   5 bytes, by laptop  /coda/r/f\nnewest /coda/r/f\n\nboth /coda/r/a name\nremove /coda/r/g\n";
        let read = fixes(text).unwrap();
        assert_eq!(
            read,
            [
                (How::Newest, "/coda/r/f".into()),
                (How::Both, "/coda/r/a name".into()),
                (How::Remove, "/coda/r/g".into())
            ]
        );
        assert_eq!(fixes("perhaps /coda/r/f\n"), Err("perhaps /coda/r/f".into()));
    }

    #[test]
    fn what_is_compared_can_be_read_again() {
        for kind in ["contents", "mark"] {
            let conflict = Conflict { path: "/coda/r/f".into(), kind: kind.into(), ..Conflict::default() };
            assert_eq!(fixes(&fix(&conflict)).unwrap(), [(How::Newest, "/coda/r/f".into())]);
        }
    }

    #[test]
    fn commands_may_be_cut_short_while_they_mean_one() {
        assert_eq!(
            (command("beg"), command("e"), command("q")),
            (Some("beginrepair"), Some("endrepair"), Some("quit"))
        );
        assert_eq!((command("re"), command("c"), command("nonsense")), (None, None, None));
        assert_eq!(command("rem"), Some("removeinc"));
    }

    #[test]
    fn an_object_that_is_not_in_conflict_is_not_repaired() {
        let shown = run(&mut Fake::world(), "repair", "beginrepair src/main.c\nhelp\nremoveinc\nquit\n");
        assert!(shown.err.contains("/coda/example.org/src/main.c is not in conflict"), "{shown:?}");
        assert!(shown.err.contains("no repair was begun"), "{shown:?}");
        assert!(shown.out.contains("replaceinc <file>"), "{shown:?}");
    }
}
