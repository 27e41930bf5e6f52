//! `cfs strong` and `cfs adaptive`: whether a slow connection is treated as a good one.

use std::ffi::OsString;

use coda_proto::control::{Reply, Request};

use super::Command;
use crate::{Talk, exit::Stop};

pub const COMMAND: Command = Command {
    name: "strong",
    short: &[],
    usage: "cfs strong [dir ...]",
    about: "treats the connection of volumes (all without dirs) as a good one, from now on",
    run: |talk, args| set(talk, true, args.rest(0, usize::MAX)?),
};

pub const ADAPTIVE: Command = Command {
    name: "adaptive",
    short: &[],
    usage: "cfs adaptive [dir ...]",
    about: "treats the connection of volumes (all without dirs) as what it measures",
    run: |talk, args| set(talk, false, args.rest(0, usize::MAX)?),
};

fn set(talk: &mut Talk<'_>, strong: bool, dirs: Vec<OsString>) -> Result<(), Stop> {
    if dirs.is_empty() {
        let answer = talk.ask(Request::Strength { strong, paths: vec![] });
        talk.answer(None, answer, |_| String::new());
        return Ok(());
    }
    let several = dirs.len() > 1;
    for dir in &dirs {
        let answer =
            talk.path(dir).and_then(|path| talk.ask(Request::Strength { strong, paths: vec![path] }));
        talk.answer(Some(dir), answer, |reply| match (reply, several) {
            (Reply::Done, true) => format!("{}\n", dir.to_string_lossy()),
            _ => String::new(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn both_are_silent_for_all_volumes_and_echo_several_dirs() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "strong", "").out, "");
        assert_eq!(run(&mut fake, "adaptive src", "").out, "");
        assert_eq!(run(&mut fake, "strong src /coda/example.org", "").out, "src\n/coda/example.org\n");
    }
}
