//! `cfs writedisconnect`: changes are logged first, whoever can be reached, and sent behind one's back.

use coda_proto::control::Request;

use super::Command;
use crate::exit::Stop;

pub const COMMAND: Command = Command {
    name: "writedisconnect",
    short: &["wd"],
    usage: "cfs writedisconnect [-age seconds] [-time seconds] [dir ...]",
    about: "logs changes of the dirs' volumes (all without dirs), and sends them later, in small pieces",
    run: |talk, mut args| {
        let mut seconds = |names: &[&str]| -> Result<Option<u64>, Stop> {
            let word = args.value(names)?;
            word.map(|word| word.to_str().and_then(|word| word.parse().ok()).ok_or(Stop::Usage)).transpose()
        };
        let (age, time) = (seconds(&["-age", "--age"])?, seconds(&["-time", "--time"])?);
        let dirs = args.rest(0, usize::MAX)?;
        let paths = talk.paths(&dirs)?;
        let answer = talk.ask(Request::WriteDisconnect { paths, age, time });
        talk.answer(None, answer, |_| String::new());
        Ok(())
    },
};

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn takes_two_numbers_and_is_silent() {
        assert_eq!(run(&mut Fake::world(), "wd -age 5 -time 10 src", "").out, "");
        assert_eq!(run(&mut Fake::world(), "writedisconnect", "").code, 0);
        assert_eq!(run(&mut Fake::world(), "wd -age old", "").code, 255);
    }
}
