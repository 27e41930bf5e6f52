//! The words behind a subcommand. Options have one dash, as cfs always wrote them, or two.

use std::ffi::{OsStr, OsString};

use crate::exit::Stop;

/// Words not yet understood.
#[derive(Clone, Debug)]
pub struct Args {
    words: Vec<OsString>,
}

impl Args {
    /// All of them.
    pub fn new(words: Vec<OsString>) -> Args {
        Args { words }
    }

    /// Takes an option without a value; everything behind `--` is left alone.
    pub fn flag(&mut self, names: &[&str]) -> bool {
        let found = self.place(names);
        found.map(|at| self.words.remove(at)).is_some()
    }

    /// Takes an option with its value. An option at the end has none: an error.
    pub fn value(&mut self, names: &[&str]) -> Result<Option<OsString>, Stop> {
        match self.place(names) {
            Some(at) if at + 1 < self.words.len() => {
                self.words.remove(at);
                Ok(Some(self.words.remove(at)))
            }
            Some(_) => Err(Stop::Usage),
            None => Ok(None),
        }
    }

    fn place(&self, names: &[&str]) -> Option<usize> {
        let words = self.words.iter().take_while(|word| *word != "--");
        words.into_iter().position(|word| names.iter().any(|name| word == OsStr::new(name)))
    }

    /// The rest, if it is as many words as it may be and no unknown option among them.
    pub fn rest(self, least: usize, most: usize) -> Result<Vec<OsString>, Stop> {
        let mut words = self.words;
        match words.iter().position(|word| word == "--") {
            Some(end) => drop(words.remove(end)),
            None if words.iter().any(|word| is_option(word)) => return Err(Stop::Usage),
            None => {}
        }
        if (least..=most).contains(&words.len()) { Ok(words) } else { Err(Stop::Usage) }
    }
}

impl Iterator for Args {
    type Item = OsString;

    /// Takes the next word.
    fn next(&mut self) -> Option<OsString> {
        (!self.words.is_empty()).then(|| self.words.remove(0))
    }
}

fn is_option(word: &OsStr) -> bool {
    let word = word.as_encoded_bytes();
    word.len() > 1 && word[0] == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn options_are_taken_wherever_they_stand() {
        let mut args = args("a -l b -f out c");
        assert!(args.flag(&["-l"]) && !args.flag(&["-l"]));
        assert_eq!(args.value(&["-f"]).unwrap(), Some("out".into()));
        assert_eq!(args.rest(3, 3).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn unknown_options_and_wrong_counts_are_refused() {
        assert!(args("-x a").rest(0, 9).is_err());
        assert!(args("a b").rest(0, 1).is_err());
        assert!(args("").rest(1, 1).is_err());
        assert!(args("a -f").value(&["-f"]).is_err());
    }

    #[test]
    fn behind_two_dashes_nothing_is_an_option() {
        let mut args = args("-- -l");
        assert!(!args.flag(&["-l"]));
        assert_eq!(args.rest(1, 1).unwrap(), ["-l"]);
    }
}
