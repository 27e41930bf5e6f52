//! `cfs listcache`: what is cached, volume by volume; `*` marks what would be validated before use, or is
//! not sent yet.

use std::fs;

use coda_proto::control::{CachedObject, CachedVolume, Failure, FailureKind, Reply, Request};

use super::Command;
use crate::exit::Stop;

pub const COMMAND: Command = Command {
    name: "listcache",
    short: &["lc"],
    usage: "cfs listcache [-f <file>] [-l] [-ov | -onv] [-all] [volume ...]",
    about: "shows what is cached (-l: kind, link and fid; -ov only valid, -onv only not valid)",
    run: |talk, mut args| {
        let file = args.value(&["-f"])?;
        let long = args.flag(&["-l"]);
        let (valid, invalid) = (args.flag(&["-ov"]), args.flag(&["-onv"]));
        args.flag(&["-a", "-all"]);
        let named = args.rest(0, usize::MAX)?;
        if valid && invalid {
            return Err(Stop::Usage);
        }
        let mut volumes = Vec::new();
        for volume in &named {
            // A mounted volume's name is no path.
            let word = volume.to_string_lossy().into_owned();
            volumes.push(if word.contains('/') { talk.path(volume)? } else { word });
        }
        let wanted = |object: &CachedObject| match marked(object) {
            true => !valid,
            false => !invalid,
        };
        let text = |reply: &Reply| match reply {
            Reply::Cache(volumes) => volumes.iter().map(|volume| listing(volume, long, wanted)).collect(),
            _ => String::new(),
        };
        let answer = talk.ask(Request::ListCache { volumes });
        match (file, answer) {
            (Some(file), Ok(reply)) if !talk.json => {
                fs::write(&file, text(&reply)).map_err(|error| unwritten(&file.to_string_lossy(), &error))?;
            }
            (_, answer) => talk.answer(None, answer, text),
        }
        Ok(())
    },
};

fn unwritten(file: &str, error: &std::io::Error) -> Failure {
    Failure { kind: FailureKind::Io, what: file.into(), why: error.to_string(), next: String::new() }
}

fn marked(object: &CachedObject) -> bool {
    !object.valid || object.dirty
}

fn listing(volume: &CachedVolume, long: bool, wanted: impl Fn(&CachedObject) -> bool) -> String {
    let line = |object: &CachedObject| {
        let mark = if marked(object) { '*' } else { ' ' };
        match long {
            true => format!("{mark} {} {:<1} {:<32} {}\n", object.kind, object.link, object.fid, object.path),
            false => format!("{mark} {}\n", object.path),
        }
    };
    let lines = volume.objects.iter().filter(|object| wanted(object)).map(line);
    format!("{}: {}\n{}\n", volume.mount, volume.id, lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn each_volume_has_its_objects_and_a_star_marks_what_is_not_valid() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        let shown = run(&mut fake, "lc p.src", "");
        assert_eq!(shown.out, "/coda/example.org/src: 7f000012\n  .\n  ./Makefile\n* ./main.c\n\n");
        assert_eq!(
            run(&mut fake, "lc -ov p.src", "").out,
            "/coda/example.org/src: 7f000012\n  .\n  ./Makefile\n\n"
        );
        assert_eq!(
            run(&mut fake, "lc -onv p.src", "").out,
            "/coda/example.org/src: 7f000012\n* ./main.c\n\n"
        );
        assert_eq!(run(&mut fake, "lc -ov -onv", "").code, 255);
    }

    #[test]
    fn the_long_form_adds_kind_link_and_fid() {
        let shown = run(&mut Fake::world(), "lc -l p.src", "");
        assert!(shown.out.contains("\n  d / 7f000012.1.1                     .\n"), "{}", shown.out);
        assert!(shown.out.contains("* f   7f000012.2.a1                    ./main.c\n"), "{}", shown.out);
    }

    #[test]
    fn a_file_may_take_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        let shown = run(&mut Fake::world(), &format!("lc -f {}", file.display()), "");
        assert_eq!(shown.out, "");
        let list = std::fs::read_to_string(&file).unwrap();
        assert!(list.starts_with("/coda/example.org: 7f000001\n"), "{list}");
        assert!(list.contains("/coda/example.org/src: 7f000012\n"), "{list}");
    }
}
