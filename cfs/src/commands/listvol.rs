//! `cfs listvol`: what a volume is, how it is reached, how full it is, what waits to be sent.

use std::fmt::Write;

use coda_proto::control::{Reply, Request, Volume};

use super::Command;

pub const COMMAND: Command = Command {
    name: "listvol",
    short: &["lv"],
    usage: "cfs listvol [-local] <dir> [dir ...]",
    about: "shows facts of the dirs' volumes (-local: without asking a server)",
    run: |talk, mut args| {
        let local = args.flag(&["-local", "--local"]);
        let dirs = args.rest(1, usize::MAX)?;
        for dir in &dirs {
            let answer = talk.path(dir).and_then(|path| talk.ask(Request::ListVolume { path, local }));
            let header = match dirs.len() {
                1 => String::new(),
                _ => format!("\n{}:\n", dir.to_string_lossy()),
            };
            talk.answer(Some(dir), answer, |reply| match reply {
                Reply::Volume(volume) => header + &text(volume),
                _ => String::new(),
            });
        }
        Ok(())
    },
};

fn text(volume: &Volume) -> String {
    let state = &volume.state;
    let number = u32::from_str_radix(&state.id, 16).unwrap_or(0);
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "  {arguments}");
    };
    line(format_args!("Status of volume {} ({number}) named \"{}\"", state.id, state.name));
    line(format_args!("Volume type is Replicated"));
    line(format_args!("Connection State is {}", capital(&state.state)));
    if !state.why.is_empty() {
        line(format_args!("  because {}", state.why));
    }
    if let Some(served) = &volume.served {
        let quota = match served.quota_blocks {
            0 => "unlimited".to_owned(),
            blocks => blocks.to_string(),
        };
        line(format_args!("Minimum quota is 0, maximum quota is {quota}"));
        line(format_args!("Current blocks used are {}", served.used_blocks));
        line(format_args!(
            "The partition has {} blocks available out of {}",
            served.free_blocks, served.total_blocks
        ));
    }
    if volume.conflicts {
        line(format_args!("*** There are pending conflicts in this volume ***"));
    }
    line(format_args!(
        "There are {} CML entries pending for reintegration ({} bytes)",
        state.pending, state.pending_bytes
    ));
    text
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    const HEAD: &str = "  Status of volume 7f000012 (2130706450) named \"p.src\"\n  Volume type is Replicated\n  \
                        Connection State is Reachable\n";

    #[test]
    fn shows_what_the_servers_say() {
        let shown = run(&mut Fake::world(), "lv src", "");
        assert_eq!(
            shown.out,
            format!(
                "{HEAD}  Minimum quota is 0, maximum quota is unlimited\n  Current blocks used are 8123\n  \
                 The partition has 1200340 blocks available out of 2097152\n  \
                 There are 3 CML entries pending for reintegration (4120 bytes)\n"
            )
        );
    }

    #[test]
    fn local_and_unreachable_leave_out_what_only_servers_know() {
        let mut fake = Fake::world();
        let pending = "  There are 3 CML entries pending for reintegration (4120 bytes)\n";
        assert_eq!(run(&mut fake, "listvol -local src", "").out, format!("{HEAD}{pending}"));
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "listvol src", "");
        assert!(shown.out.contains("Connection State is Unreachable\n    because "), "{}", shown.out);
        assert!(!shown.out.contains("quota"), "{}", shown.out);
    }
}
