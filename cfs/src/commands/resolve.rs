//! `cfs resolve`: decides between versions; without an option, has the servers bring their replicas together.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use coda_proto::control::{Failure, FailureKind, How, Reply, Request, UNASKED, escape, unescape};

use super::Command;
use crate::{
    Talk,
    args::Args,
    exit::Stop,
    glob,
    sandbox::{End, Sandbox},
};

/// Seconds that a merge tool may take unless somebody says otherwise.
const LIMIT: u64 = 600;

pub const COMMAND: Command = Command {
    name: "resolve",
    short: &[],
    usage: "cfs resolve [-r] [--ours | --theirs | --newest | --both | --text | --take FILE | --merge TOOL [--limit SECONDS]] <path or 'pattern'> ...",
    about: "decides between versions, or has the servers bring their replicas together now",
    run: |talk, mut args| {
        let recursive = args.flag(&["-r"]);
        let limit = args.value(&["--limit", "-limit"])?;
        let limit = limit.map_or(Some(LIMIT), |word| word.to_str()?.parse().ok()).ok_or(Stop::Usage)?;
        let wanted = wanted(talk, &mut args)?;
        for object in args.rest(1, usize::MAX)? {
            for path in targets(talk, &object, recursive && wanted != Wanted::Nothing)? {
                let shown = OsString::from(&path);
                let answer = decide(talk, &wanted, &path, Duration::from_secs(limit));
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

/// What is to be done about each path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// The servers are asked, and nothing is decided.
    Nothing,
    Choice(How),
    /// The contents of a file that is not below the mount point.
    Local(PathBuf),
    /// What a program makes of the versions.
    Merge(OsString),
}

fn wanted(talk: &mut Talk<'_>, args: &mut Args) -> Result<Wanted, Stop> {
    let flags: [(&[&str], How); 5] = [
        (&["--ours", "-ours"], How::Ours),
        (&["--theirs", "-theirs"], How::Theirs),
        (&["--newest", "-newest"], How::Newest),
        (&["--both", "-both"], How::Both),
        (&["--text", "-text"], How::Text),
    ];
    let mut all: Vec<Wanted> = flags
        .into_iter()
        .filter_map(|(names, how)| args.flag(names).then_some(Wanted::Choice(how)))
        .collect();
    if let Some(file) = args.value(&["--take", "-take"])? {
        all.push(match talk.path(&file) {
            Ok(path) => Wanted::Choice(How::Take(path)),
            Err(failure) if failure.kind == FailureKind::Outside => Wanted::Local(file.into()),
            Err(failure) => return Err(failure.into()),
        });
    }
    all.extend(args.value(&["--merge", "-merge"])?.map(Wanted::Merge));
    match all.len() {
        0 => Ok(Wanted::Nothing),
        1 => Ok(all.remove(0)),
        _ => Err(Stop::Usage),
    }
}

fn decide(talk: &mut Talk<'_>, wanted: &Wanted, path: &str, limit: Duration) -> Result<Reply, Failure> {
    let resolve = |how| Request::Resolve { path: path.to_owned(), how, of: Vec::new() };
    match wanted {
        Wanted::Nothing => talk.ask(resolve(None)),
        Wanted::Choice(how) => talk.ask(resolve(Some(how.clone()))),
        Wanted::Local(file) => {
            let brought = Brought::from(file, path).map_err(|error| failed(path, &error))?;
            talk.ask(resolve(Some(How::Take(crate::path::text(&brought.0)))))
        }
        Wanted::Merge(tool) => {
            let merged = merged(talk, tool, path, limit)?;
            let brought = Brought::from(&merged.result, path).map_err(|error| failed(path, &error))?;
            // What the tool did not see is not decided.
            let how = Some(How::Take(crate::path::text(&brought.0)));
            talk.ask(Request::Resolve { path: path.to_owned(), how, of: merged.of })
        }
    }
}

/// A file beside the one that is decided about, while the decision is made.
struct Brought(PathBuf);

impl Brought {
    fn from(file: &Path, beside: &str) -> std::io::Result<Brought> {
        let beside = PathBuf::from(OsString::from_vec(unescape(beside)));
        let mut name = OsString::from(".");
        name.push(beside.file_name().unwrap_or_default());
        name.push(format!(".take-{}", process::id()));
        let brought = Brought(beside.with_file_name(name));
        fs::copy(file, &brought.0)?;
        Ok(brought)
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What a tool made of some versions.
struct Merged {
    result: PathBuf,
    /// Their numbers.
    of: Vec<String>,
    /// The result lies in it.
    _sandbox: Sandbox,
}

/// Runs `TOOL VERSION... RESULT` on copies, ours first. The result is a copy of the first to begin with, and counts if
/// the tool says that it succeeded. `$CODA_BASE` names what both began from, where that is known.
fn merged(talk: &mut Talk<'_>, tool: &OsStr, path: &str, limit: Duration) -> Result<Merged, Failure> {
    let Reply::Conflicts(conflicts) = talk.ask(Request::Conflicts { paths: vec![path.to_owned()] })? else {
        return Err(refused(path, "nothing is known of its versions"));
    };
    let contents =
        conflicts.into_iter().find(|conflict| conflict.path == path && conflict.kind == "contents");
    let Some(mut conflict) = contents else { return Err(refused(path, "it has no versions to be merged")) };
    conflict.versions.sort_by_key(|version| !version.ours);
    let io = |error: std::io::Error| failed(path, &error);
    let sandbox = Sandbox::new().map_err(io)?;
    let file = |path: &str| PathBuf::from(OsString::from_vec(unescape(path)));
    let kind = file(path).extension().map(OsStr::to_owned);
    let name = |role: String| {
        let mut name = OsString::from(role);
        kind.iter().for_each(|kind| {
            name.push(".");
            name.push(kind);
        });
        name
    };
    let mut words = Vec::new();
    for (at, version) in conflict.versions.iter().enumerate() {
        let role = match at {
            0 => "ours".to_owned(),
            1 => "theirs".to_owned(),
            at => format!("theirs-{at}"),
        };
        words.push(sandbox.copy(&file(&version.path), &name(role)).map_err(io)?);
    }
    let result = sandbox.copy(&words[0], &name("result".into())).map_err(io)?;
    words.push(result.clone());
    let mut variables =
        vec![("CODA_PATH", file(path).into_os_string()), ("CODA_RESULT", result.clone().into())];
    if !conflict.base.is_empty() {
        let base = sandbox.copy(&file(&conflict.base), &name("base".into())).map_err(io)?;
        variables.push(("CODA_BASE", base.into()));
    }
    let what = tool.to_string_lossy().into_owned();
    let mut unconfined = || {
        let _ = writeln!(talk.err, "{what}: this kernel cannot confine it; it may write wherever you may");
    };
    match sandbox.run(tool, &words, &variables, limit, &mut unconfined) {
        Ok(End::Exited(status)) if status.success() => {}
        Ok(End::Exited(status)) => return Err(refused(path, &format!("{what} ended with {status}"))),
        Ok(End::TimedOut) => {
            return Err(refused(path, &format!("{what} took longer than {} s (--limit)", limit.as_secs())));
        }
        Err(error) => return Err(failed(&what, &error)),
    }
    let result = sandbox.result(&result).map_err(io)?;
    let of = conflict.versions.into_iter().map(|version| version.id).collect();
    Ok(Merged { result, of, _sandbox: sandbox })
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure { kind: FailureKind::Io, what: what.to_owned(), why: error.to_string(), next: String::new() }
}

fn refused(what: &str, why: &str) -> Failure {
    Failure { kind: FailureKind::Conflict, what: what.to_owned(), why: why.to_owned(), next: String::new() }
}

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
    let decidable = conflicts.into_iter().filter(|c| c.kind != "mark" && c.kind != UNASKED);
    let mut paths: Vec<String> = decidable.map(|conflict| conflict.path).collect();
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
        assert_eq!(run(&mut Fake::world(), "resolve --ours --theirs src/main.c", "").code, 255);
        assert_eq!(run(&mut Fake::world(), "resolve --merge cat --take f src/main.c", "").code, 255);
    }

    #[test]
    fn a_pattern_that_matches_no_conflict_is_a_failure() {
        let shown = run(&mut Fake::world(), "resolve --newest src/*.c", "");
        assert_eq!((shown.code, shown.err.contains("nothing there is in conflict")), (1, true), "{shown:?}");
    }

    #[test]
    fn a_tool_is_not_run_where_there_is_nothing_to_merge() {
        let shown = run(&mut Fake::world(), "resolve --merge /nonexistent src/main.c", "");
        assert!(shown.err.contains("it has no versions to be merged"), "{shown:?}");
    }
}
