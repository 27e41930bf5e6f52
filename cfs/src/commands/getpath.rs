//! `cfs getpath`: where an object is, by its fid.

use coda_proto::control::{Failure, FailureKind, Reply, Request};

use super::Command;

pub const COMMAND: Command = Command {
    name: "getpath",
    short: &["gp"],
    usage: "cfs getpath <fid> [fid ...]",
    about: "shows the path of a fid written VOLUME.VNODE.UNIQUE@REALM",
    run: |talk, args| {
        for object in args.rest(1, usize::MAX)? {
            let fid = object.to_string_lossy().into_owned();
            let answer = match well_formed(&fid) {
                true => talk.ask(Request::GetPath { fid }),
                false => Err(Failure {
                    kind: FailureKind::Invalid,
                    what: fid,
                    why: "Malformed fid: should look like %x.%x.%x@<realm>".into(),
                    next: String::new(),
                }),
            };
            talk.answer(Some(&object), answer, |reply| match reply {
                Reply::Path(path) => format!("\t{path}\n"),
                _ => String::new(),
            });
        }
        Ok(())
    },
};

fn well_formed(fid: &str) -> bool {
    let parts = fid.split_once('@').filter(|(_, realm)| !realm.is_empty());
    parts.is_some_and(|(fid, _)| fid.parse::<coda_proto::Fid>().is_ok())
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn a_fid_leads_to_its_path() {
        let shown = run(&mut Fake::world(), "getpath 7f000012.2.a1@example.org", "");
        assert_eq!(shown.out, "\t/coda/example.org/src/main.c\n");
    }

    #[test]
    fn a_malformed_fid_is_told_how_it_should_look() {
        for fid in ["main.c", "7f000012.2.a1", "7f000012.2@example.org", "1.2.3@"] {
            let shown = run(&mut Fake::world(), &format!("gp {fid}"), "");
            assert_eq!(shown.err, format!("{fid}: Malformed fid: should look like %x.%x.%x@<realm>\n"));
            assert_eq!(shown.code, 1);
        }
    }
}
