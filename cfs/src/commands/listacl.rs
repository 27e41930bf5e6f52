//! `cfs listacl`: who may do what in a directory.

use coda_proto::control::{Reply, Request};

use super::{Command, acl};

pub const COMMAND: Command = Command {
    name: "listacl",
    short: &["la"],
    usage: "cfs listacl <dir> [dir ...]",
    about: "shows who may do what in a directory",
    run: |talk, args| {
        let dirs = args.rest(1, usize::MAX)?;
        for dir in &dirs {
            let answer = talk.path(dir).and_then(|path| talk.ask(Request::GetAcl { path }));
            let header = match dirs.len() {
                1 => String::new(),
                _ => format!("\n{}:\n", dir.to_string_lossy()),
            };
            talk.answer(Some(dir), answer, |reply| match reply {
                Reply::Acl(list) => header + &acl::text(list),
                _ => String::new(),
            });
        }
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn names_are_right_aligned_and_denials_have_a_dash() {
        let shown = run(&mut Fake::world(), "la src", "");
        assert_eq!(
            shown.out,
            "      System:AnyUser  rl\n                 jan  rlidwka\n                 eve  -w\n"
        );
    }

    #[test]
    fn several_directories_have_headers() {
        let shown = run(&mut Fake::world(), "la src src", "");
        assert!(shown.out.starts_with("\nsrc:\n") && shown.out.contains("-w\n\nsrc:\n"), "{}", shown.out);
    }

    #[test]
    fn a_file_has_no_list() {
        let shown = run(&mut Fake::world(), "la src/main.c", "");
        assert_eq!((shown.err.as_str(), shown.code), ("src/main.c: not a directory\n", 1));
    }

    #[test]
    fn apart_from_the_servers_it_says_why_and_what_to_do() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "la src", "");
        assert_eq!(
            shown.err,
            "src: no server of p.src can be reached\n    `cfs checkservers` tries them again now\n"
        );
        assert_eq!(shown.code, 3);
    }
}
