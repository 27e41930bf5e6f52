//! `cfs status`: how venus is, and for each volume that is not wholly well: why, and what to do.

use std::fmt::Write;

use coda_proto::control::{Alone, Reply, Request, Status, VolumeState};

use super::Command;
use crate::exit::Exit;

pub const COMMAND: Command = Command {
    name: "status",
    short: &[],
    usage: "cfs status [path]",
    about: "shows how venus, its servers and volumes are, and why; exit code 0 says that the servers have everything, 5 that they have not",
    run: |talk, args| {
        let path = args.rest(0, 1)?.pop();
        let understood = path.as_ref().map(|path| talk.path(path)).transpose()?;
        let answer = talk.ask(Request::Status { path: understood });
        let clean = matches!(&answer, Ok(Reply::Status(status)) if status.alone.as_ref().is_some_and(Alone::is_nothing));
        let answered = answer.is_ok();
        talk.answer(path.as_deref(), answer, |reply| match reply {
            Reply::Status(status) => text(status),
            _ => String::new(),
        });
        if answered && !clean {
            talk.ends_as(Exit::Pending);
        }
        Ok(())
    },
};

fn text(status: &Status) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "venus at {}: {} of {} cached, {} of {} objects",
        status.mountpoint,
        bytes(status.cache_used),
        bytes(status.cache_size),
        status.objects,
        status.objects_limit
    );
    for realm in &status.realms {
        let _ = writeln!(text, "realm {}", realm.name);
        for server in &realm.servers {
            let state = match (server.up, server.why.as_str()) {
                (true, _) => "up".to_owned(),
                _ if server.state == "unknown" => "not talked to yet".to_owned(),
                (false, "") => "down".to_owned(),
                (false, why) => format!("down: {why}"),
            };
            let _ = writeln!(text, "    server {:<24} {state}", server.name);
        }
        let volumes = status.volumes.iter().filter(|volume| volume.realm == realm.name);
        volumes.for_each(|volume| text.push_str(&one(volume)));
    }
    if status.realms.is_empty() {
        text.push_str("no realm in use; look at one, as in `ls /coda/example.org`\n");
    }
    text.push_str(&verdict(status.alone.as_ref()));
    text
}

/// Whether the machine may be wiped, and why not. It is about everything, whichever path was asked about.
fn verdict(alone: Option<&Alone>) -> String {
    let Some(alone) = alone else {
        return "what is kept here only is not known: the lid may be closed, the machine not wiped\n".into();
    };
    if alone.is_nothing() {
        return "everything is at the servers: the lid may be closed, and the machine wiped\n".into();
    }
    let mut text: String =
        alone.open_paths.iter().map(|path| format!("open and written: {path}\n")).collect();
    let said = alone
        .each("changes are kept here only", "open files hold writes that are stored when they are closed");
    let _ = writeln!(text, "{}: the lid may be closed, the machine not wiped", said.join(", "));
    text
}

fn one(volume: &VolumeState) -> String {
    let mode = if volume.mode.is_empty() { String::new() } else { format!("{}: ", volume.mode) };
    let mut text = format!(
        "    volume {:<24} {mode}{}, {} of {} replicas\n",
        volume.name, volume.state, volume.live, volume.members
    );
    if !volume.why.is_empty() {
        let _ = writeln!(text, "        because {}", volume.why);
    }
    if volume.pending > 0 {
        let _ = writeln!(
            text,
            "        {} changes not sent yet ({}), the oldest {} old",
            volume.pending,
            bytes(volume.pending_bytes),
            age(volume.oldest_seconds)
        );
        for why in &volume.waits {
            let _ = writeln!(text, "        waits: {why}");
        }
    }
    if !volume.next.is_empty() {
        let _ = writeln!(text, "        {}", volume.next);
    }
    text
}

pub fn bytes(count: u64) -> String {
    let units = [(30, "GB"), (20, "MB"), (10, "KB")];
    units.into_iter().find(|(shift, _)| count >> shift > 0).map_or_else(
        || format!("{count} bytes"),
        |(shift, unit)| format!("{:.1} {unit}", count as f64 / (1u64 << shift) as f64),
    )
}

pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn shows_cache_servers_and_volumes() {
        let shown = run(&mut Fake::world(), "status", "");
        assert_eq!(
            shown.out,
            "venus at /coda: 12.5 MB of 1.0 GB cached, 4 of 27357 objects\n\
             realm example.org\n    server srv1.example.org         up\n    server srv2.example.org         up\n    \
             volume coda.root                connected: reachable, 1 of 1 replicas\n    \
             volume p.src                    write-disconnected: reachable, 2 of 2 replicas\n        \
             3 changes not sent yet (4.0 KB), the oldest 5 min old\n\
             3 changes are kept here only: the lid may be closed, the machine not wiped\n"
        );
    }

    #[test]
    fn a_volume_without_servers_says_why_and_what_to_do() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "status src", "");
        assert!(shown.out.contains(
            "volume p.src                    disconnected: unreachable, 0 of 2 replicas\n        because "
        ));
        assert!(shown.out.contains("cfs checkservers"), "{}", shown.out);
        assert!(!shown.out.contains("coda.root"), "only the path's volume: {}", shown.out);
        assert_eq!(shown.code, 5);
    }

    #[test]
    fn what_only_this_machine_has_is_told_whichever_path_was_asked_about() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "status docs", "");
        assert!(!shown.out.contains("p.src"), "{shown:?}");
        assert!(
            shown
                .out
                .ends_with("3 changes are kept here only: the lid may be closed, the machine not wiped\n")
        );
        assert_eq!((shown.code, run(&mut fake, "flush", "").code), (5, 0));
        let shown = run(&mut fake, "status", "");
        assert!(
            shown
                .out
                .ends_with("everything is at the servers: the lid may be closed, and the machine wiped\n")
        );
        assert_eq!(shown.code, 0);
    }

    #[test]
    fn files_that_are_open_and_files_in_the_spool_are_not_at_the_servers() {
        let open = Alone { open: 1, open_paths: vec!["/coda/r/f".into()], ..Alone::default() };
        let told = verdict(Some(&open));
        assert!(told.starts_with("open and written: /coda/r/f\n1 open files hold writes"), "{told}");
        assert!(told.ends_with("the machine not wiped\n"), "{told}");
        let spooled = Alone { records: 2, spooled: 3, spool: "/x/spool".into(), ..Alone::default() };
        let told = verdict(Some(&spooled));
        assert!(
            told.starts_with("2 changes are kept here only, 3 files that no server took lie in /x/spool: "),
            "{told}"
        );
        assert!(verdict(None).contains("not known") && verdict(None).ends_with("not wiped\n"));
    }

    #[test]
    fn a_venus_that_knows_no_realm_says_how_to_begin() {
        assert!(run(&mut Fake::default(), "status", "").out.contains("no realm in use"));
    }
}
