//! `cfs flushvolume`: forgets whatever of a volume can be forgotten.

use coda_proto::control::{Reply, Request};

use super::{Command, flushobject};
use crate::prompt;

pub const COMMAND: Command = Command {
    name: "flushvolume",
    short: &[],
    usage: "cfs flushvolume [-y | --dry-run] <dir> [dir ...]",
    about: "forgets whatever of the dirs' volumes can be forgotten",
    run: |talk, args| {
        let dirs = args.rest(1, usize::MAX)?;
        if !prompt::sure(talk, "important files may be lost, if disconnected") {
            return Ok(());
        }
        talk.each(
            &dirs,
            |path| Request::FlushVolume { path },
            |reply| match reply {
                Reply::Flushed(flushed) => flushobject::summary(flushed),
                _ => String::new(),
            },
        );
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn asks_and_says_what_stayed_which_is_no_failure() {
        let mut fake = Fake::world();
        fake.open("/coda/example.org/src/main.c", "2 changes not sent yet");
        let shown = run(&mut fake, "flushvolume src", "yes\n");
        assert_eq!(
            shown.out,
            "       DANGER:   important files may be lost, if disconnected\n       \
             Do you really want to do this? [n]        Fools rush in where angels fear to tread ........\n\
             2 objects were flushed.\n    kept /coda/example.org/src/main.c: 2 changes not sent yet\n"
        );
        assert_eq!(shown.code, 0);
    }
}
