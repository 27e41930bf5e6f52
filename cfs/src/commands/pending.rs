//! `cfs pending`: what the servers do not have yet, since when, how much, and why it waits.

use std::fmt::Write;

use coda_proto::control::{PendingVolume, Reply, Request};

use super::{
    Command,
    flush::everything,
    status::{age, bytes},
};

pub const COMMAND: Command = Command {
    name: "pending",
    short: &["listlocal", "ll"],
    usage: "cfs pending [dir]",
    about: "shows what is not sent to the servers yet, since when, and why it waits",
    run: |talk, args| {
        let dir = args.rest(0, 1)?.pop();
        let path = dir.as_ref().map(|dir| talk.path(dir)).transpose()?;
        let answer = talk.ask(Request::Pending { path });
        talk.answer(dir.as_deref(), answer, |reply| match reply {
            Reply::Pending(volumes)
                if volumes.iter().all(|volume| volume.records == 0 && volume.open.is_empty()) =>
            {
                everything(dir.as_deref())
            }
            Reply::Pending(volumes) => volumes.iter().map(text).collect(),
            _ => String::new(),
        });
        Ok(())
    },
};

fn text(volume: &PendingVolume) -> String {
    let mut text = String::new();
    for line in &volume.lines {
        let size = if line.bytes > 0 { format!(" ({})", bytes(line.bytes)) } else { String::new() };
        let why = if line.why.is_empty() { String::new() } else { format!(": {}", line.why) };
        let whose = if volume.users.len() > 1 { format!(", of user {}", line.uid) } else { String::new() };
        let _ = writeln!(text, "{:<8} {}{size}, {} ago{whose}{why}", line.verb, line.path, age(line.seconds));
    }
    for path in &volume.open {
        let _ = writeln!(text, "open     {path}: its writes are stored when it is closed");
    }
    if volume.records == 0 {
        return text;
    }
    let _ = write!(
        text,
        "{} changes of {} ({}) are not sent yet, the oldest {} old; it is {}",
        volume.records,
        volume.volume,
        bytes(volume.bytes),
        age(volume.oldest_seconds),
        volume.mode
    );
    let _ = match volume.left_seconds {
        Some(left) => writeln!(text, "; about {} to go", age(left)),
        None => writeln!(text),
    };
    for user in volume.users.iter().filter(|_| volume.users.len() > 1) {
        let _ = writeln!(text, "    of user {}: {} ({})", user.uid, user.records, bytes(user.bytes));
    }
    for why in &volume.reasons {
        let _ = writeln!(text, "    waits: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use coda_proto::control::{PendingRecord, PendingUser, PendingVolume};

    use crate::fake::{Fake, run};

    #[test]
    fn tells_whose_it_is_where_several_have_something() {
        let line =
            |uid| PendingRecord { uid, verb: "store".into(), path: "/coda/r/f".into(), ..Default::default() };
        let user = |uid, records| PendingUser { uid, records, bytes: 4120 };
        let volume = PendingVolume {
            volume: "/coda/r".into(),
            records: 3,
            users: vec![user(1000, 2), user(1001, 1)],
            lines: vec![line(1001)],
            ..Default::default()
        };
        let shown = super::text(&volume);
        assert!(shown.starts_with("store    /coda/r/f, 0 s ago, of user 1001\n"), "{shown}");
        assert!(shown.contains("    of user 1000: 2 (4.0 KB)\n    of user 1001: 1 (4.0 KB)\n"), "{shown}");
        let alone = super::text(&PendingVolume { users: vec![user(1001, 1)], ..volume });
        assert!(!alone.contains("user"), "{alone}");
    }

    #[test]
    fn files_that_are_open_and_written_are_pending_too() {
        let volume = PendingVolume { open: vec!["/coda/r/f".into()], ..Default::default() };
        assert_eq!(super::text(&volume), "open     /coda/r/f: its writes are stored when it is closed\n");
    }

    #[test]
    fn tells_what_since_when_how_much_and_why() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "pending", "").out;
        assert!(shown.starts_with("create   /coda/example.org/src/new, 5 min ago\n"), "{shown}");
        assert!(shown.contains("store    /coda/example.org/src/new (4.0 KB), 5 min ago\n"), "{shown}");
        assert!(
            shown.ends_with(
                "3 changes of /coda/example.org/src (4.0 KB) are not sent yet, the oldest 5 min old; \
             it is write-disconnected; about 2 s to go\n"
            ),
            "{shown}"
        );
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        assert!(run(&mut fake, "listlocal src", "").out.contains("waits: no server can be reached\n"));
        assert_eq!(
            run(&mut fake, "pending docs", "").out,
            "Everything of the volume of docs is at the servers\n"
        );
    }
}
