//! The administrator's commands: one program that goes by many names.
//!
//! ```text
//!  volutil        what is done to volumes, replicas and the realm      one file per noun
//!  createvol_rep  purgevol_rep  getvolinfo  printvrdb  bldvldb.sh  vice-setup      by their old names
//!  updatesrv  updateclnt  rpc2portmap  norton …                        say what took their place
//! ```
//!
//! A command asks servers, and says what came of it: for people, or with `--json` for programs. What it
//! changes is changed by one server in one step, so that a command that is killed leaves nothing behind.

mod clone;
pub mod confirm;
mod create;
mod dump;
mod exit;
mod getvolinfo;
mod info;
mod levels;
mod link;
mod names;
mod replica;
mod report;
mod restore;
mod retired;
mod scm;
mod service;
mod stream;
mod sync;
mod volutil;
mod vrdb;

use std::process::ExitCode;

pub use exit::{Exit, Failed};
pub use link::Link;
pub use report::Report;

/// Runs the command that this program was called by.
pub fn main() -> ExitCode {
    let mut words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = words.first().map(std::path::Path::new).and_then(|path| path.file_name());
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(said) = retired::by_name(&name) {
        eprintln!("{said}");
        return Exit::Usage.into();
    }
    if name == "vice-setup" {
        return names::vice_setup(&words[1..]);
    }
    names::as_volutil(&name, &mut words);
    volutil::main(words)
}
