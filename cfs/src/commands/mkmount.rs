//! `cfs mkmount`: mounts a volume at a name. Whether the volume exists is not checked: the mount point
//! works once it does.

use coda_proto::control::Request;

use super::Command;

pub const COMMAND: Command = Command {
    name: "mkmount",
    short: &["mkm"],
    usage: "cfs mkmount <path> [volume[@realm]]",
    about: "mounts a volume (by default the one of the same name) at a path",
    run: |talk, args| {
        let words = args.rest(1, 2)?;
        let path = &words[0];
        let name = std::path::Path::new(path).file_name().unwrap_or_default();
        let volume = words.get(1).map_or(name, |word| word).to_string_lossy().into_owned();
        let answer = talk.path(path).and_then(|path| talk.ask(Request::MakeMount { path, volume }));
        talk.answer(Some(path), answer, |_| String::new());
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn is_silent_and_the_name_must_be_free() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "mkmount docs/p.src", "").out, "");
        assert_eq!(run(&mut fake, "lsmount docs/p.src", "").out, "Mount point for volume \"p.src.\"\n");
        let shown = run(&mut fake, "mkmount src p.src", "");
        assert_eq!((shown.err.as_str(), shown.code), ("src: exists\n", 1));
    }
}
