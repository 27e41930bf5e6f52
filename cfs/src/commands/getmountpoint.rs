//! `cfs getmountpoint`: where a volume is mounted.

use coda_proto::control::{Reply, Request};

use super::Command;

pub const COMMAND: Command = Command {
    name: "getmountpoint",
    short: &["gmt"],
    usage: "cfs getmountpoint <volumeid@realm> [volumeid@realm ...]",
    about: "shows where a volume is mounted",
    run: |talk, args| {
        for volume in args.rest(1, usize::MAX)? {
            let name = volume.to_string_lossy().into_owned();
            let answer = talk.ask(Request::GetMountPoint { volume: name.clone() });
            talk.answer(Some(&volume), answer, |reply| match reply {
                Reply::Path(path) => format!("{name}:  {path}\n"),
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
    fn names_the_volume_and_its_place() {
        let shown = run(&mut Fake::world(), "gmt 7f000012@example.org", "");
        assert_eq!(shown.out, "7f000012@example.org:  /coda/example.org/src\n");
        assert_eq!(run(&mut Fake::world(), "gmt 7f000099@example.org", "").code, 1);
    }
}
