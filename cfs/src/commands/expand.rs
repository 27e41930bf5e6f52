//! `cfs expand` and `cfs beginrepair`: shows a file in conflict as a directory of its versions; `cfs collapse`
//! and `cfs endrepair` end that.

use coda_proto::control::Request;

use super::Command;
use crate::{Talk, args::Args, exit::Stop};

pub const EXPAND: Command = Command {
    name: "expand",
    short: &[],
    usage: "cfs expand <path> [path ...]",
    about: "shows files in conflict as directories of their versions",
    run: expand,
};

pub const BEGIN: Command = Command {
    name: "beginrepair",
    short: &["br"],
    usage: "cfs beginrepair <path> [path ...]",
    about: "the same as expand",
    run: expand,
};

pub const COLLAPSE: Command = Command {
    name: "collapse",
    short: &[],
    usage: "cfs collapse <path> [path ...]",
    about: "ends expand: shows the files as before",
    run: collapse,
};

pub const END: Command = Command {
    name: "endrepair",
    short: &["er"],
    usage: "cfs endrepair <path> [path ...]",
    about: "the same as collapse",
    run: collapse,
};

fn expand(talk: &mut Talk<'_>, args: Args) -> Result<(), Stop> {
    let paths = args.rest(1, usize::MAX)?;
    talk.each(&paths, |path| Request::Expand { path }, |_| String::new());
    Ok(())
}

fn collapse(talk: &mut Talk<'_>, args: Args) -> Result<(), Stop> {
    let paths = args.rest(1, usize::MAX)?;
    talk.each(&paths, |path| Request::Collapse { path }, |_| String::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn a_file_that_is_not_in_conflict_is_not_expanded() {
        for command in ["expand", "beginrepair", "br", "collapse", "endrepair", "er"] {
            let shown = run(&mut Fake::world(), &format!("{command} src/main.c"), "");
            assert_eq!((shown.code, shown.err.contains("not in conflict")), (1, true), "{shown:?}");
        }
    }
}
