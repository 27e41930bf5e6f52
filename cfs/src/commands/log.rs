//! What people do with a log that does not get home: approve of it, keep a copy, give it up.

use coda_proto::control::{Reply, Request};

use super::Command;

pub const APPROVE: Command = Command {
    name: "approve",
    short: &[],
    usage: "cfs approve [dir ...]",
    about: "lets changes go that would remove much of the dirs' volumes (all without dirs)",
    run: |talk, args| {
        let dirs = args.rest(0, usize::MAX)?;
        let paths = talk.paths(&dirs)?;
        let answer = talk.ask(Request::Approve { paths });
        talk.answer(None, answer, |reply| match reply {
            Reply::Approved(count) => format!("{count} removals may go\n"),
            _ => String::new(),
        });
        Ok(())
    },
};

pub const CHECKPOINT: Command = Command {
    name: "checkpointml",
    short: &["ck"],
    usage: "cfs checkpointml [dir [checkpointdir]]",
    about: "writes what is not sent yet into an archive that tar reads, and a list of it",
    run: |talk, args| {
        let mut words = args.rest(0, 2)?.into_iter();
        let dir = words.next();
        let path = dir.as_ref().map(|dir| talk.path(dir)).transpose()?;
        let target = words.next().map(|to| talk.here().join(to).display().to_string());
        let answer = talk.ask(Request::CheckpointLog { path, dir: target });
        talk.answer(dir.as_deref(), answer, |reply| match reply {
            Reply::Written(files) => files.iter().map(|file| format!("{file}\n")).collect(),
            _ => String::new(),
        });
        Ok(())
    },
};

pub const PURGE: Command = Command {
    name: "purgeml",
    short: &["discardlocal"],
    usage: "cfs purgeml [-y | --dry-run] [--all] <dir>",
    about: "gives up what you did in the dir's volume and is not sent yet, or what all users did; asks first",
    run: |talk, mut args| {
        let all = args.flag(&["--all", "-all"]);
        let dirs = args.rest(1, 1)?;
        let path = talk.path(&dirs[0])?;
        let what = match all {
            true => "every change that is not sent yet is given up, whoever made it",
            false => "every change of yours that is not sent yet is given up",
        };
        if !crate::prompt::sure(talk, what) {
            return Ok(());
        }
        let answer = talk.ask(Request::PurgeLog { path, all });
        talk.answer(Some(&dirs[0]), answer, |reply| match reply {
            Reply::Purged(0) if !all => "Nothing of yours is left to be given up\n".to_owned(),
            Reply::Purged(count) => format!("{count} changes given up\n"),
            _ => String::new(),
        });
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn nothing_is_given_up_without_a_yes() {
        let mut fake = Fake::world();
        run(&mut fake, "purgeml src", "no\n");
        assert!(run(&mut fake, "pending", "").out.contains("3 changes"));
        assert_eq!(run(&mut fake, "-y purgeml src", "").out, "3 changes given up\n");
        assert!(run(&mut fake, "pending", "").out.contains("Everything"));
        assert!(run(&mut fake, "-y purgeml src", "").out.starts_with("Nothing of yours"));
        assert_eq!(run(&mut fake, "-y purgeml --all src", "").out, "0 changes given up\n");
    }

    #[test]
    fn a_checkpoint_names_the_files_it_wrote() {
        let shown = run(&mut Fake::world(), "ck src saved", "").out;
        assert_eq!(
            shown,
            "/coda/example.org/saved/example.org_p.src.tar\n/coda/example.org/saved/example.org_p.src.cml\n"
        );
        assert_eq!(run(&mut Fake::world(), "approve", "").out, "7 removals may go\n");
    }
}
