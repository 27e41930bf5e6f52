//! `cfs flush`: sends what is pending, and says whether all of it is at the servers.

use std::{
    ffi::OsStr,
    time::{Duration, Instant},
};

use coda_proto::control::{Alone, Failure, FailureKind, Reply, Request};

use super::Command;
use crate::exit::{Exit, Stop};

/// How often it is looked while waiting.
const EVERY: Duration = Duration::from_millis(200);

pub const COMMAND: Command = Command {
    name: "flush",
    short: &[],
    usage: "cfs flush [--wait] [--timeout seconds] [dir]",
    about: "sends what is pending; exit code 0 says that the servers have everything, 5 that they have not",
    run: |talk, mut args| {
        let wait = args.flag(&["--wait", "-wait"]);
        let timeout = args.value(&["--timeout", "-timeout"])?;
        let seconds = timeout.map(|word| word.to_str().and_then(|word| word.parse().ok()).ok_or(Stop::Usage));
        let dir = args.rest(0, 1)?.pop();
        let limit = seconds.transpose()?.map(Duration::from_secs);
        let path = dir.as_ref().map(|dir| talk.path(dir)).transpose()?;
        let began = now();
        // It answers once all is sent or what is left waits itself, nobody can be reached, or half a minute is over.
        let seconds = limit.map(|limit| limit.as_secs());
        talk.ask(Request::Reintegrate { paths: path.iter().cloned().collect(), seconds })?;
        loop {
            let Reply::Pending(volumes) = talk.ask(Request::Pending { path: path.clone() })? else {
                return Err(Stop::Failed(unexpected()));
            };
            let records: u64 = volumes.iter().map(|volume| volume.records).sum();
            if records > 0 && wait && limit.is_none_or(|limit| began.elapsed() < limit) {
                talk.progress(&format!("{records} changes are not sent yet"));
                std::thread::sleep(EVERY);
                continue;
            }
            if wait {
                talk.progress("");
            }
            // What is written and not closed yet, or lies in the spool, nobody can send; but it is not there.
            let alone = match (&dir, talk.ask(Request::Status { path: None })?) {
                (None, Reply::Status(status)) => status.alone,
                _ => Some(Alone {
                    records,
                    open: volumes.iter().map(|volume| volume.open.len() as u64).sum(),
                    ..Alone::default()
                }),
            };
            let text = verdict(alone.as_ref(), dir.as_deref());
            if text.is_err() {
                talk.ends_as(Exit::Pending);
            }
            let text = text.unwrap_or_else(|why| why);
            talk.answer(dir.as_deref(), Ok(Reply::Pending(volumes)), |_| text.clone());
            return Ok(());
        }
    },
};

/// What is said of what only this machine has: as an error where that is anything, or not known.
fn verdict(alone: Option<&Alone>, dir: Option<&OsStr>) -> Result<String, String> {
    let Some(alone) = alone else { return Err("What is kept here only is not known\n".into()) };
    if alone.is_nothing() {
        return Ok(everything(dir));
    }
    let said = alone.each(
        "changes are not sent yet; `cfs pending` says why",
        "open files hold writes that are stored when they are closed; `cfs status` names them",
    );
    Err(said.iter().map(|what| format!("{what}\n")).collect())
}

/// What is said where nothing is pending: of all volumes, or of one.
pub(super) fn everything(dir: Option<&OsStr>) -> String {
    match dir {
        None => "Everything is at the servers\n".into(),
        Some(dir) => format!("Everything of the volume of {} is at the servers\n", dir.to_string_lossy()),
    }
}

#[allow(clippy::disallowed_methods, reason = "a program that waits needs a clock")]
fn now() -> Instant {
    Instant::now()
}

fn unexpected() -> Failure {
    let why = "the answer is to another question".into();
    Failure { kind: FailureKind::Io, what: "venus".into(), why, next: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn exit_codes_tell_whether_everything_is_at_the_servers() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "flush --wait --timeout 0", "");
        assert_eq!((shown.code, shown.out.starts_with("3 changes are not sent yet")), (5, true));
        assert_eq!(run(&mut fake, "reconnect", "").code, 0);
        let shown = run(&mut fake, "flush --wait", "");
        assert_eq!((shown.code, shown.out.as_str()), (0, "Everything is at the servers\n"));
        assert_eq!(run(&mut fake, "flush --timeout soon", "").code, 255);
    }

    #[test]
    fn what_is_open_or_in_the_spool_is_not_at_the_servers_and_a_volume_is_not_everything() {
        let nothing = Alone::default();
        assert_eq!(verdict(Some(&nothing), None).unwrap(), "Everything is at the servers\n");
        assert_eq!(
            verdict(Some(&nothing), Some("docs".as_ref())).unwrap(),
            "Everything of the volume of docs is at the servers\n"
        );
        let open = Alone { open: 2, ..Alone::default() };
        assert!(verdict(Some(&open), None).unwrap_err().starts_with("2 open files hold writes"));
        let spooled = Alone { spooled: 1, spool: "/x/spool".into(), ..Alone::default() };
        assert_eq!(
            verdict(Some(&spooled), None).unwrap_err(),
            "1 files that no server took lie in /x/spool\n"
        );
        assert!(verdict(None, None).is_err());
    }
}
