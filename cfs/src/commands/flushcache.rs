//! `cfs flushcache`: forgets whatever of the whole cache can be forgotten.

use coda_proto::control::{Reply, Request};

use super::{Command, flushobject};
use crate::prompt;

pub const COMMAND: Command = Command {
    name: "flushcache",
    short: &[],
    usage: "cfs flushcache [-y | --dry-run]",
    about: "forgets whatever of the cache can be forgotten",
    run: |talk, args| {
        args.rest(0, 0)?;
        if !prompt::sure(talk, "all files will be lost, if disconnected") {
            return Ok(());
        }
        let answer = talk.ask(Request::FlushCache);
        talk.answer(None, answer, |reply| match reply {
            Reply::Flushed(flushed) => flushobject::summary(flushed),
            _ => String::new(),
        });
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn asks_first() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "flushcache", "");
        assert!(shown.out.starts_with("       DANGER:   all files will be lost, if disconnected\n"));
        assert!(fake.cached("/coda/example.org/src"));
        let shown = run(&mut fake, "flushcache", "y");
        assert!(shown.out.ends_with("4 objects were flushed.\n"), "{}", shown.out);
        assert!(!fake.cached("/coda/example.org/src"));
    }
}
