//! `cfs flushobject`: forgets the cached copy of an object and of what is below it. What is open, not sent
//! yet or mounted upon stays, and is named; where the volume lives is looked up again even then.

use coda_proto::control::{Failure, Flushed, Reply, Request};

use super::Command;
use crate::{Talk, prompt};

pub const COMMAND: Command = Command {
    name: "flushobject",
    short: &["fl"],
    usage: "cfs flushobject [-y | --dry-run] <path or volume> [path or volume ...]",
    about: "forgets the cached copies of objects and of what is below them",
    run: |talk, args| {
        let objects = args.rest(1, usize::MAX)?;
        if !prompt::sure(talk, "these files will be lost, if disconnected") {
            return Ok(());
        }
        for object in &objects {
            let answer = flush(talk, object);
            match &answer {
                Ok(Reply::Flushed(flushed)) if !flushed.kept.is_empty() => {
                    if !talk.json {
                        talk.say(&active(flushed));
                    }
                    talk.in_use(object, flushed);
                }
                _ => talk.answer(Some(object), answer, |_| String::new()),
            }
        }
        Ok(())
    },
};

/// A word without a slash that is no name here is taken for a mounted volume's name.
fn flush(talk: &mut Talk<'_>, object: &std::ffi::OsStr) -> Result<Reply, Failure> {
    let word = object.to_string_lossy();
    let path = talk.path(object);
    match path.and_then(|path| talk.ask(Request::FlushObject { path })) {
        Err(_) if !word.contains('/') => talk.ask(Request::FlushObject { path: word.into_owned() }),
        other => other,
    }
}

/// The words that cfs always used, then the reasons that it never gave.
fn active(flushed: &Flushed) -> String {
    let kept = flushed.kept.iter().map(|kept| format!("    {}: {}\n", kept.path, kept.why));
    format!(
        "Can't flush active file\n{}    {} objects were flushed; the volume's location was looked up again.\n",
        kept.collect::<String>(),
        flushed.objects
    )
}

/// How much was forgotten, and what was not.
pub(super) fn summary(flushed: &Flushed) -> String {
    let kept = flushed.kept.iter().map(|kept| format!("    kept {}: {}\n", kept.path, kept.why));
    format!("{} objects were flushed.\n{}", flushed.objects, kept.collect::<String>())
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    const ASKED: &str = "       DANGER:   these files will be lost, if disconnected\n       \
                         Do you really want to do this? [n] ";
    const FOOLS: &str = "       Fools rush in where angels fear to tread ........\n";

    #[test]
    fn asks_in_the_old_words_and_is_silent_when_it_is_done() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "flushobject src/main.c", "y\n");
        assert_eq!(shown.out, format!("{ASKED}{FOOLS}"));
        assert!(!fake.cached("/coda/example.org/src/main.c"));
    }

    #[test]
    fn no_and_end_of_file_leave_everything_as_it_is() {
        for answer in ["n\n", "\n", "", "perhaps\n"] {
            let mut fake = Fake::world();
            let shown = run(&mut fake, "fl src/main.c", answer);
            assert!(shown.out.starts_with(ASKED), "{}", shown.out);
            assert_eq!(shown.code, 0, "{answer:?}");
            assert!(fake.cached("/coda/example.org/src/main.c"));
        }
    }

    #[test]
    fn with_dash_y_it_does_not_ask() {
        assert_eq!(run(&mut Fake::world(), "fl -y src/main.c", "").out, "");
    }

    #[test]
    fn what_is_in_use_stays_and_is_named_and_the_location_is_looked_up_all_the_same() {
        let mut fake = Fake::world();
        fake.open("/coda/example.org/src/main.c", "open by process 17");
        let shown = run(&mut fake, "flushobject src", "y\n");
        assert_eq!(
            shown.out,
            format!(
                "{ASKED}{FOOLS}Can't flush active file\n    \
                 /coda/example.org/src/main.c: open by process 17\n    \
                 2 objects were flushed; the volume's location was looked up again.\n"
            )
        );
        assert_eq!((shown.code, fake.looked_up()), (4, 1));
    }

    #[test]
    fn a_mounted_volumes_name_will_do() {
        let mut fake = Fake::world();
        assert_eq!(run(&mut fake, "fl -y p.src", "").code, 0);
        assert!(!fake.cached("/coda/example.org/src/main.c"));
        assert_eq!(run(&mut fake, "fl -y p.nonsense", "").code, 1);
    }
}
