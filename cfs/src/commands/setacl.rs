//! `cfs setacl`: reads a directory's list, changes the entries named, writes it back.

use std::ffi::OsString;

use coda_proto::{
    Rights,
    control::{AccessList, Failure, FailureKind, Grant, Reply, Request},
};

use super::Command;
use crate::exit::Stop;

pub const COMMAND: Command = Command {
    name: "setacl",
    short: &["sa"],
    usage: "cfs setacl [-clear] [-negative] <dir> <id> <rights> [<id> <rights> ...]",
    about: "changes who may do what in a directory (rights: letters of rlidwka, all, read, write, none)",
    run: |talk, mut args| {
        let (clear, negative) = (args.flag(&["-clear", "--clear"]), args.flag(&["-negative", "--negative"]));
        let words = args.rest(3, usize::MAX)?;
        if words.len().is_multiple_of(2) {
            return Err(Stop::Usage);
        }
        if clear && negative {
            let why = "-clear with -negative would leave a list that only denies; do it in two steps";
            talk.refuse("setacl", why);
            return Ok(());
        }
        let changes = match changes(&words[1..]) {
            Ok(changes) => changes,
            Err(bogus) => {
                talk.refuse("setacl", &format!("Bogus rights specified: \"{bogus}\""));
                return Ok(());
            }
        };
        let dir = &words[0];
        let path = talk.path(dir)?;
        let old = match clear {
            true => AccessList::default(),
            false => match talk.ask(Request::GetAcl { path: path.clone() }) {
                Ok(Reply::Acl(acl)) => acl,
                Ok(_) => AccessList::default(),
                Err(failure) => {
                    talk.failed(Some(dir), &failure);
                    return Ok(());
                }
            },
        };
        let acl = changed(old, &changes, negative);
        let answer = talk.ask(Request::SetAcl { path, acl }).map_err(explained);
        talk.answer(Some(dir), answer, |_| String::new());
        Ok(())
    },
};

/// Pairs of id and rights, or the rights that are none.
fn changes(words: &[OsString]) -> Result<Vec<(String, Rights)>, String> {
    words
        .chunks(2)
        .map(|pair| {
            let (who, rights) = (pair[0].to_string_lossy().into_owned(), pair[1].to_string_lossy());
            rights.parse().map(|rights| (who, rights)).map_err(|_| rights.into_owned())
        })
        .collect()
}

/// The list with the entries replaced or added; those without rights are dropped. Ids are compared without
/// regard to case.
fn changed(mut acl: AccessList, changes: &[(String, Rights)], negative: bool) -> AccessList {
    let grants = if negative { &mut acl.negative } else { &mut acl.positive };
    for (who, rights) in changes {
        let known = grants.iter().position(|grant| grant.who.eq_ignore_ascii_case(who));
        let grant = Grant { who: who.clone(), rights: rights.to_string() };
        match known {
            Some(at) if *rights == Rights(0) => drop(grants.remove(at)),
            Some(at) => grants[at].rights = grant.rights,
            None if *rights == Rights(0) => {}
            None => grants.push(grant),
        }
    }
    acl
}

fn explained(mut failure: Failure) -> Failure {
    if failure.kind == FailureKind::Invalid && failure.next.is_empty() {
        failure.next = "perhaps a user or group is not known at the servers".into();
    }
    failure
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn replaces_adds_and_drops_without_regard_to_case() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "sa src SYSTEM:anyuser none bob rl JAN all", "").code, 0);
        assert_eq!(
            run(&mut fake, "la src", "").out,
            "                 jan  rlidwka\n                 bob  rl\n                 eve  -w\n"
        );
        assert_eq!(run(&mut fake, "sa -negative src eve none", "").code, 0);
        assert!(!run(&mut fake, "la src", "").out.contains("eve"));
        assert_eq!(run(&mut fake, "sa -clear src carol rlw", "").code, 0);
        assert_eq!(run(&mut fake, "la src", "").out, "               carol  rlw\n");
    }

    #[test]
    fn bogus_rights_and_odd_wishes_are_refused_before_anything_changes() {
        let shown = run(&mut Fake::world(), "sa src bob rlx", "");
        assert_eq!((shown.err.as_str(), shown.code), ("cfs setacl: Bogus rights specified: \"rlx\"\n", 1));
        assert_eq!(run(&mut Fake::world(), "sa src bob", "").code, 255);
        assert_eq!(run(&mut Fake::world(), "sa src bob rl carol", "").code, 255);
        let shown = run(&mut Fake::world(), "sa -clear -negative src bob rl", "");
        assert!(shown.err.contains("two steps") && shown.code == 1);
    }

    #[test]
    fn an_unknown_user_gets_a_hint() {
        let shown = run(&mut Fake::world(), "sa src nobody-knows-me rl", "");
        assert!(shown.err.contains("not known at the servers"), "{}", shown.err);
    }
}
