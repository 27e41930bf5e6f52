//! Destructive commands ask first.

use std::io::{BufRead, IsTerminal, Write};

use super::exit::{Exit, Failed};

/// What somebody said beforehand.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Consent {
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long, visible_alias = "kill")]
    pub yes: bool,
}

impl Consent {
    /// Answers whether to do it. `what` says what would be done, as a sentence without a full stop.
    pub fn given(self, what: &str) -> anyhow::Result<bool> {
        let terminal = std::io::stdin().is_terminal();
        self.ask(what, terminal, &mut std::io::stdin().lock(), &mut std::io::stderr())
    }

    fn ask(
        self,
        what: &str,
        terminal: bool,
        answers: &mut dyn BufRead,
        out: &mut dyn Write,
    ) -> anyhow::Result<bool> {
        if self.dry_run {
            writeln!(out, "would do: {what}")?;
            return Ok(false);
        }
        if self.yes {
            return Ok(true);
        }
        if !terminal {
            let why =
                format!("{what}: nobody is there to ask; say --yes, or --dry-run to see what would be done");
            return Err(Failed(Exit::Declined, why).into());
        }
        write!(out, "{what}. Do it? [n] ")?;
        out.flush()?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        match matches!(line.trim(), "y" | "Y" | "yes") {
            true => Ok(true),
            false => Err(Failed(Exit::Declined, "nothing is changed".into()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(consent: Consent, terminal: bool, answer: &str) -> Result<bool, Exit> {
        let mut out = Vec::new();
        consent
            .ask("Volume a is purged", terminal, &mut answer.as_bytes(), &mut out)
            .map_err(|error| super::super::exit::of(&error))
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let none = Consent::default();
        assert_eq!(ask(none, true, "y\n"), Ok(true));
        assert_eq!(ask(none, true, "\n"), Err(Exit::Declined));
        assert_eq!(ask(none, true, ""), Err(Exit::Declined));
        assert_eq!(ask(none, false, "y\n"), Err(Exit::Declined), "a script says --yes");
        assert_eq!(ask(Consent { yes: true, ..none }, false, ""), Ok(true));
        assert_eq!(ask(Consent { yes: true, dry_run: true }, true, "y\n"), Ok(false));
    }
}
