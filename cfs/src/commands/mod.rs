//! The subcommands, by name and abbreviation, exactly: no prefix is guessed at.

use crate::{Talk, args::Args, exit::Stop};

mod acl;
mod checkservers;
mod checkvolumes;
mod conflicts;
mod disconnect;
mod events;
mod expand;
mod flush;
mod flushcache;
mod flushobject;
mod flushvolume;
mod forcereintegrate;
mod getfid;
mod getmountpoint;
mod getpath;
mod help;
mod hoard;
mod listacl;
mod listcache;
mod listvol;
mod log;
mod lsmount;
mod mkmount;
mod offline;
mod pending;
mod reconnect;
mod repair;
mod replay;
mod resolve;
mod rmmount;
mod salvage;
mod setacl;
mod setquota;
mod setup;
mod status;
mod strong;
mod undo;
mod waitforever;
mod whereis;
mod writedisconnect;

/// One subcommand.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its other names.
    pub short: &'static [&'static str],
    /// How it is called.
    pub usage: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Does it. What fails for one object of several is told, not returned.
    pub run: fn(&mut Talk<'_>, Args) -> Result<(), Stop>,
}

/// All of them, in order of names.
pub const COMMANDS: &[&Command] = &[
    &strong::ADAPTIVE,
    &log::APPROVE,
    &expand::BEGIN,
    &log::CHECKPOINT,
    &checkservers::COMMAND,
    &checkvolumes::COMMAND,
    &setup::CLIENT,
    &events::CODACON,
    &expand::COLLAPSE,
    &conflicts::COMMAND,
    &disconnect::COMMAND,
    &expand::END,
    &events::COMMAND,
    &expand::EXPAND,
    &flush::COMMAND,
    &flushcache::COMMAND,
    &flushobject::COMMAND,
    &flushvolume::COMMAND,
    &forcereintegrate::COMMAND,
    &getfid::COMMAND,
    &getmountpoint::COMMAND,
    &getpath::COMMAND,
    &help::COMMAND,
    &hoard::COMMAND,
    &listacl::COMMAND,
    &listcache::COMMAND,
    &listvol::COMMAND,
    &lsmount::COMMAND,
    &mkmount::COMMAND,
    &offline::COMMAND,
    &pending::COMMAND,
    &hoard::PIN,
    &hoard::PREFLIGHT,
    &log::PURGE,
    &reconnect::COMMAND,
    &repair::COMMAND,
    &replay::COMMAND,
    &resolve::COMMAND,
    &rmmount::COMMAND,
    &salvage::COMMAND,
    &setacl::COMMAND,
    &setquota::COMMAND,
    &status::COMMAND,
    &strong::COMMAND,
    &undo::COMMAND,
    &hoard::UNPIN,
    &setup::VENUS,
    &waitforever::COMMAND,
    &whereis::COMMAND,
    &writedisconnect::COMMAND,
    &forcereintegrate::WRITE_RECONNECT,
];

/// Those that destroy something nobody brings back: they ask, take `-y`, and with `--dry-run` say only what they
/// would do. (What `resolve` and `repair` decide is undone by `undo`.)
pub const ASK: &[&str] = &["flushcache", "flushobject", "flushvolume", "purgeml", "replay"];

/// A time as people read it, in UTC.
fn date(time: i64) -> String {
    let [year, month, day, hour, minute, second] = coda_proto::control::utc(time);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The command of this name or abbreviation.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name || command.short.contains(&name)).copied()
}

/// Why a command of older versions is not here.
pub fn gone(name: &str) -> Option<&'static str> {
    GONE.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
}

const GONE: &[(&[&str], &str)] = &[
    (&["checklocal"], "venus checks by itself what waits: `cfs pending` lists it, and why it waits"),
    (
        &["preservelocal"],
        "`cfs checkpointml` writes an archive of what waits, and `cfs replay` does it again",
    ),
    (
        &["examineclosure", "ec", "replayclosure", "rc"],
        "`cfs checkpointml` and `cfs replay` took their place",
    ),
    (&["getpfid"], "an object has one id: `cfs getfid` prints it, and `cfs getpath` finds its name"),
    (&["lookaside", "lka", "redir"], "contents come from the servers and from nowhere else"),
    (&["markincon"], "conflicts are made by changing something apart, and in no other way"),
    (
        &["clearpriorities", "cp", "zonelimit", "zl"],
        "what is evicted first and when writers wait is not set by hand",
    ),
    (
        &["disableasr", "dasr", "enableasr", "easr", "flushasr", "fasr"],
        "what is merged without asking says a file `.codamerge` in its directory",
    ),
    (&["cpuname", "@cpu", "sysname", "@sys"], "names with @cpu and @sys are not expanded"),
    (&["setvol", "sv"], "not supported, as ever; volutil on a server changes volumes"),
    (&["truncatelog", "tl"], "there is no log to truncate: the store keeps itself small"),
    (&["unloadkernel", "uk"], "there is no kernel module"),
];

#[cfg(test)]
mod every;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_two_commands_and_the_list_is_in_order() {
        let names: Vec<_> =
            COMMANDS.iter().flat_map(|command| [&[command.name], command.short].concat()).collect();
        let gone = GONE.iter().flat_map(|(names, _)| names.iter().copied());
        let mut all: Vec<_> = names.iter().copied().chain(gone).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn every_usage_starts_with_how_the_command_is_called() {
        for command in COMMANDS {
            let words: Vec<_> = command.usage.split_whitespace().take(2).collect();
            assert!(words.contains(&command.name), "{}", command.usage);
        }
    }
}
