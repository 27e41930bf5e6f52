//! `cfs offline`: runs a command as if no server could be reached, and says what it missed.

use std::{ffi::OsString, os::unix::process::ExitStatusExt, process};

use coda_proto::control::{Failure, FailureKind, Missed, Reply, Request};

use super::Command;
use crate::{Talk, exit::Exit};

/// Misses that are listed for people.
const LISTED: usize = 1000;

pub const COMMAND: Command = Command {
    name: "offline",
    short: &[],
    usage: "cfs offline [--] <command> [args ...]",
    about: "runs a command that sees only what is cached, and lists what it missed; ends with its status",
    run: |talk, args| {
        let words: Vec<OsString> = args.skip_while(|word| word == "--").collect();
        let Some((program, words)) = words.split_first() else { return Err(crate::exit::Stop::Usage) };
        talk.ask(Request::Rehearse { begin: true })?;
        let ran = run(program, words);
        let missed = match talk.ask(Request::Rehearse { begin: false })? {
            Reply::Missed(missed) => missed,
            _ => Vec::new(),
        };
        let status = ran.map_err(|error| Failure {
            kind: FailureKind::NotFound,
            what: program.to_string_lossy().into_owned(),
            why: error.to_string(),
            next: String::new(),
        })?;
        // Standard output is the command's.
        tell(talk, missed);
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        talk.ends_as(Exit::Command(u8::try_from(code).unwrap_or(1)));
        Ok(())
    },
};

/// Runs it in this terminal. What ends it from the keyboard must not end us: there is something left to say.
fn run(program: &OsString, words: &[OsString]) -> std::io::Result<process::ExitStatus> {
    let (held, quit) = (hold(libc::SIGINT), hold(libc::SIGQUIT));
    let ran = process::Command::new(program).args(words).status();
    for (signal, before) in [(libc::SIGINT, held), (libc::SIGQUIT, quit)] {
        // SAFETY: puts back what the call before it answered.
        unsafe { libc::signal(signal, before) };
    }
    ran
}

extern "C" fn nothing(_: libc::c_int) {}

/// Lets a signal do nothing to this process. Programs that it starts begin as ever: only what is ignored is inherited.
fn hold(signal: libc::c_int) -> libc::sighandler_t {
    // SAFETY: the handler does nothing, which is safe at any moment.
    unsafe { libc::signal(signal, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t) }
}

fn tell(talk: &mut Talk<'_>, missed: Vec<Missed>) {
    if talk.json {
        return talk.answer(None, Ok(Reply::Missed(missed)), |_| String::new());
    }
    let _ = write!(talk.err, "{}", text(&missed));
}

fn text(missed: &[Missed]) -> String {
    if missed.is_empty() {
        return "Nothing was missed: it would have worked without servers\n".into();
    }
    let line = |missed: &Missed| match missed.bytes {
        Some(bytes) => format!("{bytes:>12} bytes  {}\n", missed.path),
        None => format!("{:>12}        {}\n", "?", missed.path),
    };
    let lines: String = missed.iter().take(LISTED).map(line).collect();
    let more = missed.len().saturating_sub(LISTED);
    let more = if more > 0 { format!("{more} more\n") } else { String::new() };
    let known: u64 = missed.iter().filter_map(|missed| missed.bytes).sum();
    format!(
        "{lines}{more}{} missed, {known} bytes as far as is known; `cfs pin` keeps them here\n",
        missed.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn the_status_is_the_commands_and_what_it_missed_goes_to_standard_error() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "offline -- false", "");
        assert_eq!((shown.code, shown.out.as_str()), (1, ""), "{shown:?}");
        assert!(shown.err.contains("        2048 bytes  /coda/example.org/docs/a\n"), "{shown:?}");
        assert!(shown.err.contains("           ?        /coda/example.org/docs/b\n"), "{shown:?}");
        assert!(shown.err.ends_with("2 missed, 2048 bytes as far as is known; `cfs pin` keeps them here\n"));
        assert_eq!(run(&mut fake, "offline true", "").code, 0);
        assert_eq!(run(&mut fake, "offline sh -c kill${IFS}-9${IFS}$$", "").code, 137);
        let none = run(&mut fake, "offline -- /nonexistent/program", "");
        assert_eq!(none.code, 1, "{none:?}");
        assert_eq!(run(&mut fake, "offline --", "").code, 255);
    }

    #[test]
    fn without_a_miss_it_says_so() {
        assert!(text(&[]).starts_with("Nothing was missed"));
    }
}
