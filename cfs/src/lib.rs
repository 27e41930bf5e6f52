//! How people talk to venus. One file per subcommand; each asks over the control socket and turns the
//! answer into text for people, or with `--json` into one line per object for scripts.

pub mod args;
pub mod commands;
pub mod exit;
pub mod glob;
pub mod path;
pub mod prompt;
pub mod sandbox;
pub mod setup;
pub mod socket;
pub mod talk;

#[cfg(test)]
mod fake;

use std::ffi::OsString;

use args::Args;
use exit::{Exit, Stop};
pub use talk::{Talk, Venus, World};

/// Runs one command line, without the program's name.
pub fn run(words: Vec<OsString>, world: World<'_>) -> Exit {
    let mut args = Args::new(words);
    let mut talk = Talk::new(world);
    talk.json = args.flag(&["--json"]);
    talk.yes = args.flag(&["-y", "--yes"]);
    match args.value(&["--socket"]) {
        Ok(socket) => talk.socket = socket.map(Into::into),
        Err(_) => return talk.usage("Usage: cfs [--json] [-y] [--socket PATH] <opcode> [args]"),
    }
    let name = args.next().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(command) = commands::find(&name) else {
        return match commands::gone(&name) {
            Some(why) => talk.refuse(&name, why),
            None => talk.usage("Bogus or missing opcode: type \"cfs help\" for list"),
        };
    };
    if commands::ASK.contains(&command.name) {
        talk.dry_run = args.flag(&["--dry-run"]);
    }
    match (command.run)(&mut talk, args) {
        Ok(()) => talk.exit(),
        Err(Stop::Usage) => talk.usage(&format!("Usage: {}", command.usage)),
        Err(Stop::Failed(failure)) => {
            talk.failed(None, &failure);
            talk.exit()
        }
    }
}
