//! `cfs getfid`: identity and version of an object; a final symbolic link is not followed.

use coda_proto::control::{FidState, Reply, Request};

use super::Command;

pub const COMMAND: Command = Command {
    name: "getfid",
    short: &["gf"],
    usage: "cfs getfid <path> [path ...]",
    about: "shows an object's fid, and the version of what is cached",
    run: |talk, args| {
        let paths = args.rest(1, usize::MAX)?;
        talk.each(
            &paths,
            |path| Request::GetFid { path },
            |reply| match reply {
                Reply::Fid(fid) => text(fid),
                _ => String::new(),
            },
        );
        Ok(())
    },
};

/// Where Coda printed a counter for each server, a version is a past: each author's last update.
fn text(fid: &FidState) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("{item} ")).collect::<String>();
    let conflict = if fid.conflict { "   in conflict" } else { "" };
    format!(
        "FID = {}@{}   VV = [ {}] [ {}]{conflict}\n",
        fid.fid,
        fid.realm,
        list(&fid.past),
        list(&fid.siblings)
    )
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn shows_fid_realm_past_and_contents() {
        let shown = run(&mut Fake::world(), "gf src/main.c", "");
        assert_eq!(shown.out, "FID = 7f000012.2.a1@example.org   VV = [ a1.1 a1.7 ] [ a1.7 ]\n");
    }
}
