//! `venus mount-helper`: what systemd runs as root, once for each question of a venus without privilege.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::fuse::{Options, helper};

/// Mounts for a venus that may not. It is asked on its standard input, a socket.
#[derive(Parser)]
#[command(name = "venus mount-helper")]
pub struct Words {
    /// Where to mount.
    #[arg(long, default_value = "/coda")]
    at: PathBuf,
    /// The user (by number) whose mount it is: everybody else is kept out.
    #[arg(long, default_value_t = 0, conflicts_with = "shared")]
    owner: u32,
    /// All users of this machine may enter.
    #[arg(long)]
    shared: bool,
}

/// Answers one question.
pub fn run(words: &Words) -> anyhow::Result<ExitCode> {
    let owner = Some((words.owner, super::running::group_of(words.owner)));
    let options = Options { owner, shared: words.shared, ..Options::at(&words.at) };
    helper::serve(helper::connection()?, &options)?;
    Ok(ExitCode::SUCCESS)
}
