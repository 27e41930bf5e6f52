//! `cfs resolve`: decides between versions; without an option, has the servers bring their replicas together.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use coda_proto::control::{Failure, FailureKind, How, Reply, Request, escape, unescape};

use super::Command;
use crate::{Talk, exit::Stop, glob};

pub const COMMAND: Command = Command {
    name: "resolve",
    short: &[],
    usage: "cfs resolve [-r] [--ours | --theirs | --newest | --both | --take FILE] <path or 'pattern'> ...",
    about: "decides between versions, or has the servers bring their replicas together now",
    run: |talk, mut args| {
        let recursive = args.flag(&["-r"]);
        let flags: [(&[&str], How); 4] = [
            (&["--ours", "-ours"], How::Ours),
            (&["--theirs", "-theirs"], How::Theirs),
            (&["--newest", "-newest"], How::Newest),
            (&["--both", "-both"], How::Both),
        ];
        let mut hows: Vec<How> =
            flags.into_iter().filter_map(|(names, how)| args.flag(names).then_some(how)).collect();
        if let Some(file) = args.value(&["--take", "-take"])? {
            hows.push(How::Take(talk.path(&file)?));
        }
        if hows.len() > 1 {
            return Err(Stop::Usage);
        }
        let typed = args.rest(1, usize::MAX)?;
        for object in &typed {
            for path in targets(talk, object, recursive)? {
                let shown = OsString::from(&path);
                let answer = talk.ask(Request::Resolve { path: path.clone(), how: hows.first().cloned() });
                talk.answer(Some(&shown), answer, |reply| match reply {
                    Reply::Resolved(done) if done.dropped == 0 => format!("{path}: {}\n", done.what),
                    Reply::Resolved(done) => {
                        format!("{path}: {}, {} other version(s) gone\n", done.what, done.dropped)
                    }
                    _ => String::new(),
                });
            }
        }
        Ok(())
    },
};

/// The paths that a word means: itself; with `-r`, every conflict below it; every conflict that a pattern
/// matches.
fn targets(talk: &mut Talk<'_>, object: &OsStr, recursive: bool) -> Result<Vec<String>, Failure> {
    let path = talk.path(object)?;
    if !recursive && !glob::is_pattern(object.as_bytes()) {
        return Ok(vec![path]);
    }
    let pattern = unescape(&path);
    let above = if recursive { pattern.clone() } else { glob::fixed_part(&pattern).to_vec() };
    let Reply::Conflicts(conflicts) = talk.ask(Request::Conflicts { paths: vec![escape(&above)] })? else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<String> = conflicts.into_iter().map(|conflict| conflict.path).collect();
    paths.dedup();
    paths.retain(|path| recursive || glob::matches(&pattern, &unescape(path)));
    match paths.is_empty() {
        false => Ok(paths),
        true => Err(Failure {
            kind: FailureKind::NotFound,
            what: escape(object.as_bytes()),
            why: "nothing there is in conflict".into(),
            next: "`cfs conflicts` lists what is".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn two_choices_at_once_are_refused() {
        assert_eq!(run(&mut Fake::world(), "resolve --ours --theirs src/main.c", "").code, 2);
    }

    #[test]
    fn a_pattern_that_matches_no_conflict_is_a_failure() {
        let shown = run(&mut Fake::world(), "resolve --newest src/*.c", "");
        assert_eq!((shown.code, shown.err.contains("nothing there is in conflict")), (1, true), "{shown:?}");
    }
}
