//! `cfs checkvolumes`: mount points and volume locations are looked up again at the next use.

use coda_proto::control::Request;

use super::Command;

pub const COMMAND: Command = Command {
    name: "checkvolumes",
    short: &[],
    usage: "cfs checkvolumes",
    about: "looks every mount point and volume location up again",
    run: |talk, args| {
        args.rest(0, 0)?;
        let answer = talk.ask(Request::CheckVolumes);
        talk.answer(None, answer, |_| String::new());
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn is_silent() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "checkvolumes", "");
        assert_eq!((shown.out.as_str(), shown.err.as_str(), shown.code), ("", "", 0));
        assert_eq!(fake.looked_up(), 1);
    }
}
