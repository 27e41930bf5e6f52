//! `cfs lsmount`: whether a name is a mount point, and of which volume.

use coda_proto::control::{Mount, Reply, Request};

use super::Command;

pub const COMMAND: Command = Command {
    name: "lsmount",
    short: &[],
    usage: "cfs lsmount <dir> [dir ...]",
    about: "shows which volume is mounted at a name",
    run: |talk, args| {
        let dirs = args.rest(1, usize::MAX)?;
        let several = dirs.len() > 1;
        for dir in &dirs {
            let answer = talk.path(dir).and_then(|path| talk.ask(Request::ListMount { path }));
            let name = dir.to_string_lossy();
            let label = if several { format!("{name}: ") } else { String::new() };
            talk.answer(Some(dir), answer, |reply| match reply {
                Reply::Mount(mount) => label + &text(&name, mount),
                _ => String::new(),
            });
        }
        Ok(())
    },
};

fn text(name: &str, mount: &Mount) -> String {
    match mount {
        Mount::Mounted(volume) => format!("Mount point for volume \"{volume}.\"\n"),
        Mount::Dangling(volume) => {
            format!("Dangling sym link; looks like a mount point for volume \"{volume}.\"\n")
        }
        Mount::Directory => "Not a mount point\n".into(),
        Mount::Other => format!("{name} - Not a mount point\n"),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn tells_mount_points_dangling_ones_and_others_apart() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "lsmount src", "").out, "Mount point for volume \"p.src.\"\n");
        assert_eq!(run(&mut fake, "lsmount docs", "").out, "Not a mount point\n");
        assert_eq!(run(&mut fake, "lsmount src/main.c", "").out, "src/main.c - Not a mount point\n");
        assert_eq!(run(&mut fake, "mkm new p.new", "").code, 0);
        assert_eq!(
            run(&mut fake, "lsmount new", "").out,
            "Dangling sym link; looks like a mount point for volume \"p.new.\"\n"
        );
    }
}
