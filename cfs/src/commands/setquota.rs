//! `cfs setquota`: limits a volume, in blocks of a kilobyte.

use coda_proto::control::{Reply, Request};

use super::Command;
use crate::exit::Stop;

pub const COMMAND: Command = Command {
    name: "setquota",
    short: &["sq"],
    usage: "cfs setquota <dir> <blocks> [<dir> <blocks> ...]",
    about: "limits the dirs' volumes to so many blocks of 1 KB; 0 is no limit",
    run: |talk, args| {
        let words = args.rest(2, usize::MAX)?;
        let pairs: Option<Vec<_>> = words
            .chunks(2)
            .map(|pair| Some((&pair[0], pair.get(1)?.to_str()?.parse::<u64>().ok()?)))
            .collect();
        for (dir, blocks) in pairs.ok_or(Stop::Usage)? {
            let answer = talk.path(dir).and_then(|path| talk.ask(Request::SetQuota { path, blocks }));
            talk.answer(Some(dir), answer, |reply| match reply {
                Reply::Quota { old, new } => {
                    format!(
                        "Old maximum quota is {}\nNew maximum quota is {}\n",
                        words_for(*old),
                        words_for(*new)
                    )
                }
                _ => String::new(),
            });
        }
        Ok(())
    },
};

fn words_for(blocks: u64) -> String {
    if blocks == 0 { "unlimited".into() } else { format!("{blocks} blocks") }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn tells_the_old_and_the_new_limit() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "sq src 5000", "");
        assert_eq!(shown.out, "Old maximum quota is unlimited\nNew maximum quota is 5000 blocks\n");
        assert!(run(&mut fake, "lv src", "").out.contains("maximum quota is 5000\n"));
        assert_eq!(run(&mut fake, "sq src many", "").code, 255);
        assert_eq!(run(&mut fake, "sq src 1 docs", "").code, 255);
    }
}
