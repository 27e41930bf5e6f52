//! `cfs undo`: lists decisions that can be undone, or undoes one: what it took away comes back beside what
//! is there now.

use coda_proto::control::{Failure, FailureKind, Reply, Request, Undoable, escape};

use super::Command;
use std::os::unix::ffi::OsStrExt;

pub const COMMAND: Command = Command {
    name: "undo",
    short: &[],
    usage: "cfs undo [number or path]",
    about: "lists what `cfs resolve` decided in the last seven days, or undoes one of it",
    run: |talk, args| {
        let typed = args.rest(0, 1)?;
        let undos = match talk.ask(Request::Undo { id: None })? {
            Reply::Undoable(undos) => undos,
            _ => Vec::new(),
        };
        let Some(word) = typed.first() else {
            let text = text(&undos);
            talk.answer(None, Ok(Reply::Undoable(undos)), |_| text);
            return Ok(());
        };
        let number = word.to_str().and_then(|word| word.parse().ok());
        let id = match number {
            Some(id) => id,
            None => {
                let path = talk.path(word)?;
                let latest = undos.iter().find(|undo| undo.path == path);
                latest.map(|undo| undo.id).ok_or_else(|| Failure {
                    kind: FailureKind::NotFound,
                    what: escape(word.as_bytes()),
                    why: "nothing was decided about it in the last seven days".into(),
                    next: "`cfs undo` lists what was".into(),
                })?
            }
        };
        let answer = talk.ask(Request::Undo { id: Some(id) });
        talk.answer(Some(word), answer, |reply| match reply {
            Reply::Resolved(done) => format!("{}: {}\n", word.to_string_lossy(), done.what),
            _ => String::new(),
        });
        Ok(())
    },
};

fn text(undos: &[Undoable]) -> String {
    if undos.is_empty() {
        return "Nothing to undo\n".into();
    }
    let line = |undo: &Undoable| {
        let (id, when) = (undo.id, super::date(undo.time));
        format!("{id:>5}  {when} UTC  {} version(s), {} bytes  {}\n", undo.versions, undo.bytes, undo.path)
    };
    undos.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn decisions_are_listed_with_their_numbers() {
        let undo = Undoable { id: 3, path: "/coda/r/f".into(), time: 0, versions: 1, bytes: 5 };
        assert_eq!(text(&[undo]), "    3  1970-01-01 00:00:00 UTC  1 version(s), 5 bytes  /coda/r/f\n");
    }

    #[test]
    fn without_decisions_it_says_so_and_an_unknown_one_is_a_failure() {
        assert_eq!(run(&mut Fake::world(), "undo", "").out, "Nothing to undo\n");
        assert_eq!(run(&mut Fake::world(), "undo src/main.c", "").code, 1);
        assert_eq!(run(&mut Fake::world(), "undo 7", "").code, 1);
    }
}
