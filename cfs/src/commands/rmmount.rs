//! `cfs rmmount`: removes a mount point, also a dangling one. The volume is untouched.

use coda_proto::control::Request;

use super::Command;

pub const COMMAND: Command = Command {
    name: "rmmount",
    short: &["rmm"],
    usage: "cfs rmmount <path> [path ...]",
    about: "removes mount points; the volumes stay as they are",
    run: |talk, args| {
        let paths = args.rest(1, usize::MAX)?;
        talk.each(&paths, |path| Request::RemoveMount { path }, |_| String::new());
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn removes_mount_points_and_nothing_else() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "rmm src", "").code, 0);
        assert_eq!(run(&mut fake, "lsmount src", "").code, 1);
        let shown = run(&mut fake, "rmm docs", "");
        assert_eq!((shown.err.as_str(), shown.code), ("docs: not a mount point\n", 1));
    }
}
