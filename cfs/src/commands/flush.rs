//! `cfs flush`: sends what is pending, and says whether all of it is at the servers.

use std::time::{Duration, Instant};

use coda_proto::control::{Failure, FailureKind, Reply, Request};

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
        // It answers once all is sent, nobody can be reached, or half a minute is over.
        talk.ask(Request::Reintegrate { paths: path.iter().cloned().collect() })?;
        let began = now();
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
            talk.answer(dir.as_deref(), Ok(Reply::Pending(volumes)), |_| match records {
                0 => "Everything is at the servers\n".to_owned(),
                _ => format!("{records} changes are not sent yet; `cfs pending` says why\n"),
            });
            if records > 0 {
                talk.ends_as(Exit::Pending);
            }
            return Ok(());
        }
    },
};

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
}
