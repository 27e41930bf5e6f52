//! `cfs checkservers`: asks servers for a sign of life now. One that answers is used again at once.

use coda_proto::control::{Reply, Request, ServerState};

use super::Command;

pub const COMMAND: Command = Command {
    name: "checkservers",
    short: &["cs"],
    usage: "cfs checkservers [server ...]",
    about: "probes servers, all that are known or those named",
    run: |talk, args| {
        let names = args.rest(0, 8)?;
        let servers = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if !talk.json {
            talk.say("Contacting servers .....\n");
        }
        let answer = talk.ask(Request::CheckServers { servers });
        talk.answer(None, answer, |reply| match reply {
            Reply::Servers(servers) => text(servers),
            _ => String::new(),
        });
        Ok(())
    },
};

fn text(servers: &[ServerState]) -> String {
    let down: Vec<_> =
        servers.iter().filter(|server| !server.up).map(|server| server.name.as_str()).collect();
    match (servers.is_empty(), down.is_empty()) {
        (true, _) => "No servers known\n".into(),
        (_, true) => "All servers up\n".into(),
        _ => format!("These servers still down:   {}\n", down.join("  ")),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn all_up() {
        let shown = run(&mut Fake::world(), "cs", "");
        assert_eq!(shown.out, "Contacting servers .....\nAll servers up\n");
        assert_eq!(shown.code, 0);
    }

    #[test]
    fn the_dead_are_named() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "checkservers", "");
        assert_eq!(
            shown.out,
            "Contacting servers .....\nThese servers still down:   srv1.example.org  srv2.example.org\n"
        );
        let shown = run(&mut fake, "checkservers srv2.example.org", "");
        assert!(shown.out.ends_with("still down:   srv2.example.org\n"));
    }

    #[test]
    fn knowing_no_server_is_not_all_of_them_being_up() {
        let shown = run(&mut Fake::default(), "cs", "");
        assert_eq!(shown.out, "Contacting servers .....\nNo servers known\n");
    }
}
