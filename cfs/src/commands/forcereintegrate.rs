//! `cfs forcereintegrate` and `cfs writereconnect`: sends what waits to be sent, now, and waits for it.

use std::cell::Cell;

use coda_proto::control::{Reply, Request, Sent};

use super::Command;
use crate::exit::Exit;

pub const COMMAND: Command = Command {
    name: "forcereintegrate",
    short: &["fr"],
    usage: "cfs forcereintegrate [dir ...]",
    about: "sends what is pending for the dirs' volumes (all without dirs) and waits",
    run: |talk, args| {
        let dirs = args.rest(0, usize::MAX)?;
        if dirs.is_empty() {
            let answer = talk.ask(Request::Reintegrate { paths: vec![], seconds: None });
            talk.answer(None, answer, |_| String::new());
        }
        let left = Cell::new(0);
        talk.each(
            &dirs,
            |path| Request::Reintegrate { paths: vec![path], seconds: None },
            |reply| match reply {
                Reply::Sent(volumes) => {
                    left.set(left.get() + volumes.iter().map(|sent| sent.remaining).sum::<u64>());
                    volumes.iter().map(text).collect()
                }
                _ => String::new(),
            },
        );
        if left.get() > 0 {
            talk.ends_as(Exit::Pending);
        }
        Ok(())
    },
};

pub const WRITE_RECONNECT: Command = Command {
    name: "writereconnect",
    short: &["wr"],
    usage: "cfs writereconnect [dir ...]",
    about: "ends write-disconnected operation of the dirs' volumes: sends what is pending",
    run: |talk, args| {
        let dirs = args.rest(0, usize::MAX)?;
        if dirs.is_empty() {
            let answer = talk.ask(Request::WriteReconnect { paths: vec![] });
            talk.answer(None, answer, |_| String::new());
        }
        talk.each(&dirs, |path| Request::WriteReconnect { paths: vec![path] }, |_| String::new());
        Ok(())
    },
};

fn text(sent: &Sent) -> String {
    let why = match sent.why.as_str() {
        "" => String::new(),
        why => format!("Reintegration failed: {why}\n"),
    };
    match sent.remaining {
        0 => format!("Modifications to {} reintegrated to server\n", sent.volume),
        count => format!("{count} CML entries remaining for volume {}\n{why}", sent.volume),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn tells_for_each_dir_what_was_sent_or_remains() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "fr src", "");
        assert_eq!(
            shown.out,
            "3 CML entries remaining for volume p.src\nReintegration failed: no server can be reached\n"
        );
        assert_eq!(shown.code, 5);
        assert_eq!(run(&mut fake, "reconnect", "").code, 0);
        assert_eq!(run(&mut fake, "fr src", "").out, "Modifications to p.src reintegrated to server\n");
    }

    #[test]
    fn without_dirs_and_as_writereconnect_it_is_silent() {
        assert_eq!(run(&mut Fake::world(), "forcereintegrate", "").out, "");
        assert_eq!(run(&mut Fake::world(), "wr src", "").out, "");
    }
}
