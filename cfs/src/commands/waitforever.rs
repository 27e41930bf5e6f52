//! `cfs waitforever`: whether one's programs wait for servers, or are told that there is none.

use coda_proto::control::Request;

use super::Command;
use crate::exit::Stop;

pub const COMMAND: Command = Command {
    name: "waitforever",
    short: &["wf"],
    usage: "cfs waitforever -on|-off [realm]",
    about: "lets your programs wait for servers (of all realms without one) rather than fail without them",
    run: |talk, mut args| {
        let (on, off) = (args.flag(&["-on", "--on"]), args.flag(&["-off", "--off"]));
        if on == off {
            return Err(Stop::Usage);
        }
        let realm = args.rest(0, 1)?.pop().map(|realm| realm.to_string_lossy().into_owned());
        let answer = talk.ask(Request::WaitForever { on, realm });
        talk.answer(None, answer, |_| String::new());
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn it_is_silent_and_wants_to_know_which() {
        let mut fake = Fake::world();
        for line in ["waitforever -on", "wf -off example.org", "wf --on example.org"] {
            let shown = run(&mut fake, line, "");
            assert_eq!((shown.code, shown.out.as_str()), (0, ""), "{line}");
        }
        for line in ["waitforever", "wf -on -off", "wf -on a b"] {
            assert_eq!(run(&mut fake, line, "").code, 255, "{line}");
        }
    }
}
