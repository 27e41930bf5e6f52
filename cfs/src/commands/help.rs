//! `cfs help`: the list of commands, or how one is called.

use serde_json::json;

use super::{COMMANDS, Command, find};
use crate::exit;

pub const COMMAND: Command = Command {
    name: "help",
    short: &["--help", "-h"],
    usage: "cfs help [opcode | exit]",
    about: "shows this list, how one command is called, or the exit codes",
    run: |talk, args| {
        let about = args.rest(0, 1)?;
        let text = match about.first().map(|word| word.to_string_lossy().into_owned()).as_deref() {
            None => {
                let one = |command: &&Command| {
                    let Command { name, short, usage, about, .. } = command;
                    json!({ "name": name, "short": short, "usage": usage, "about": about })
                };
                talk.tell(None, &json!({ "commands": COMMANDS.iter().map(one).collect::<Vec<_>>() }));
                list()
            }
            Some("exit") => exit::HELP.to_owned(),
            Some(name) => {
                let Some(command) = find(name) else {
                    talk.refuse("help", &format!("{name} is no opcode; `cfs help` lists all of them"));
                    return Ok(());
                };
                one(command)
            }
        };
        if !about.is_empty() {
            talk.tell(None, &json!({ "text": text }));
        }
        talk.say(&text);
        Ok(())
    },
};

fn list() -> String {
    let line = |command: &&Command| {
        let names = [&[command.name], command.short].concat().join(", ");
        format!("    {names:<22} {}\n", command.about)
    };
    format!(
        "Usage: cfs [--json] [-y] [--socket PATH] <opcode> [args]\n\n{}\n\
         --json prints one line for each object: {{\"object\", \"ok\" or \"failed\"}}.\n\
         `cfs help exit` lists the exit codes.\n",
        COMMANDS.iter().map(line).collect::<String>()
    )
}

fn one(command: &Command) -> String {
    let short = match command.short {
        [] => String::new(),
        short => format!("    also called {}\n", short.join(", ")),
    };
    format!("Usage: {}\n    {}\n{short}", command.usage, command.about)
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn lists_every_command_and_explains_one() {
        let list = run(&mut Fake::default(), "help", "").out;
        assert!(super::COMMANDS.iter().all(|command| list.contains(command.about)));
        let one = run(&mut Fake::default(), "help fl", "").out;
        assert!(one.starts_with("Usage: cfs flushobject"), "{one}");
        assert!(run(&mut Fake::default(), "help exit", "").out.contains("255"));
    }

    #[test]
    fn an_opcode_that_is_none_or_came_later_is_told_so() {
        let shown = run(&mut Fake::default(), "dance", "");
        assert_eq!(shown.err, "Bogus or missing opcode: type \"cfs help\" for list\n");
        assert_eq!(shown.code, 255);
        assert_eq!(run(&mut Fake::default(), "", "").code, 255);
        // No prefix is guessed at.
        assert_eq!(run(&mut Fake::default(), "where src", "").code, 255);
        let shown = run(&mut Fake::default(), "uk", "");
        assert_eq!((shown.err.as_str(), shown.code), ("cfs uk: there is no kernel module\n", 1));
    }

    #[test]
    fn wrong_arguments_show_the_usage() {
        let shown = run(&mut Fake::default(), "getfid", "");
        assert_eq!(shown.err, "Usage: cfs getfid <path> [path ...]\n");
        assert_eq!(shown.code, 255);
        assert_eq!(run(&mut Fake::default(), "checkvolumes now", "").code, 255);
        assert_eq!(run(&mut Fake::default(), "whereis --frobnicate src", "").code, 255);
    }
}
