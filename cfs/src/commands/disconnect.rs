//! `cfs disconnect`: behaves as if servers were unreachable, until `cfs reconnect`.

use coda_proto::control::Request;

use super::Command;

pub const COMMAND: Command = Command {
    name: "disconnect",
    short: &[],
    usage: "cfs disconnect [server ...]",
    about: "behaves as if servers (all without names) were unreachable",
    run: |talk, args| {
        let servers = args.rest(0, usize::MAX)?;
        let servers = servers.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let answer = talk.ask(Request::Disconnect { servers });
        talk.answer(None, answer, |_| String::new());
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn cuts_off_silently_and_reconnect_ends_it() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "disconnect srv2.example.org", "").out, "");
        assert!(run(&mut fake, "cs", "").out.ends_with("still down:   srv2.example.org\n"));
        assert_eq!(run(&mut fake, "disconnect", "").out, "");
        assert_eq!(run(&mut fake, "la src", "").code, 3);
        assert_eq!(run(&mut fake, "reconnect", "").out, "");
        assert!(run(&mut fake, "cs", "").out.ends_with("All servers up\n"));
    }

    #[test]
    fn an_unknown_server_is_named() {
        let shown = run(&mut Fake::world(), "disconnect srv9", "");
        assert_eq!((shown.err.as_str(), shown.code), ("srv9: no such server\n", 1));
    }
}
