//! The command line of venus: every setting as a switch, and the switches of older versions.
//!
//! One leading dash or two, a value as the next word or after `=`: `-c 200MB`, `--cachesize=200MB`.

use super::{Config, Problem, nearest::nearest, settings, text};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Forget the cache first; refused while something is unsent.
    pub init: bool,
    /// With `init`: what is unsent is archived in the spool directory instead of being a reason to refuse.
    pub archive: bool,
    /// Read this file instead of searching for venus.conf.
    pub conf: Option<String>,
    /// Print the help and leave.
    pub help: bool,
    /// Print the version and leave.
    pub version: bool,
    /// Settings in the order given.
    pub settings: Vec<(String, String)>,
    /// Switches that have no effect any more, and why.
    pub notes: Vec<String>,
}

/// How an old switch is understood.
enum Meaning {
    /// A flag of [`Switches`].
    Flag(fn(&mut Switches)),
    /// Takes a value and means this setting.
    Setting(&'static str),
    /// Means this setting with this value.
    Fixed(&'static str, &'static str),
    /// No effect; takes this many words.
    Nothing(usize, &'static str),
}

use Meaning::{Fixed, Flag, Nothing, Setting};

const MEMORY: &str = "there is no recoverable memory";
const WHOLE: &str = "files are cached whole";
const QUIC: &str = "QUIC decides by itself";
const TOKIO: &str = "tasks need no fixed numbers";
const MOUNT: &str = "the mount is FUSE's";

const SWITCHES: &[(&str, Meaning)] = &[
    ("help", Flag(|s| s.help = true)),
    ("h", Flag(|s| s.help = true)),
    ("version", Flag(|s| s.version = true)),
    ("V", Flag(|s| s.version = true)),
    ("init", Flag(|s| s.init = true)),
    ("archive", Flag(|s| s.archive = true)),
    ("c", Setting("cachesize")),
    ("cf", Setting("cachefiles")),
    ("f", Setting("cachedir")),
    ("spooldir", Setting("spooldir")),
    ("primaryuser", Setting("primaryuser")),
    ("timeout", Setting("rpc_timeout")),
    ("mles", Setting("cml_records")),
    ("console", Setting("logfile")),
    ("d", Fixed("log", "debug")),
    ("allow-other", Fixed("allow_other", "1")),
    ("newinstance", Nothing(0, "every start draws new authors")),
    ("mapprivate", Nothing(0, MEMORY)),
    ("rvmt", Nothing(1, MEMORY)),
    ("vld", Nothing(1, MEMORY)),
    ("vlds", Nothing(1, MEMORY)),
    ("vdd", Nothing(1, MEMORY)),
    ("vdds", Nothing(1, MEMORY)),
    ("rdscs", Nothing(1, MEMORY)),
    ("rdsnl", Nothing(1, MEMORY)),
    ("rdstrace", Nothing(0, MEMORY)),
    ("logopts", Nothing(1, "the log is one SQLite table")),
    ("rpcdebug", Nothing(1, "use -log")),
    ("lwpdebug", Nothing(1, "use -log")),
    ("pcfr", Nothing(1, WHOLE)),
    ("ccbs", Nothing(1, WHOLE)),
    ("wfmax", Nothing(1, WHOLE)),
    ("wfmin", Nothing(1, WHOLE)),
    ("wfstall", Nothing(1, WHOLE)),
    ("hdbes", Nothing(1, "nothing limits their number")),
    ("k", Nothing(1, MOUNT)),
    ("m", Nothing(1, "there is one way to update")),
    ("maxworkers", Nothing(1, TOKIO)),
    ("maxcbservers", Nothing(1, TOKIO)),
    ("maxprefetchers", Nothing(1, TOKIO)),
    ("retries", Nothing(1, QUIC)),
    ("ws", Nothing(1, QUIC)),
    ("sa", Nothing(1, QUIC)),
    ("ap", Nothing(1, QUIC)),
    ("ps", Nothing(1, QUIC)),
    ("swt", Nothing(1, "what is evicted first depends on use alone")),
    ("mwt", Nothing(1, "what is evicted first depends on use alone")),
    ("ssf", Nothing(1, "what is evicted first depends on use alone")),
    ("von", Nothing(0, "statistics cost nothing")),
    ("voff", Nothing(0, "statistics cost nothing")),
    ("vmon", Nothing(0, "statistics cost nothing")),
    ("vmoff", Nothing(0, "statistics cost nothing")),
    ("SearchForNOreFind", Nothing(0, "it was for debugging")),
    ("noasr", Nothing(0, "there are no automatic resolvers")),
    ("novcb", Nothing(0, "a volume's stamp is always used")),
    ("nowalk", Nothing(0, "there is no periodic walk")),
    ("MarinerTcp", Nothing(0, "events are on the control socket")),
    ("noMarinerTcp", Nothing(0, "events are on the control socket")),
    ("allow-reattach", Nothing(0, "a stale mount is always cleared")),
    ("masquerade", Nothing(0, "a client is known by its key, never by its address and port")),
    ("nomasquerade", Nothing(0, "a client is known by its key, never by its address and port")),
    ("codatunnel", Nothing(0, "every connection is TLS")),
    ("no-codatunnel", Nothing(0, "every connection is TLS")),
    ("onlytcp", Nothing(0, "the transport is QUIC")),
    ("codafs", Nothing(0, MOUNT)),
    ("no-codafs", Nothing(0, MOUNT)),
    ("9pfs", Nothing(0, "there is no 9P service")),
    ("no-9pfs", Nothing(0, "there is no 9P service")),
    ("nofork", Nothing(0, "venus always stays in the foreground")),
    ("relay", Nothing(1, MOUNT)),
];

/// Reads the words of the command line, without the program's name.
pub fn read(words: impl IntoIterator<Item = String>) -> Result<Switches, Problem> {
    let mut switches = Switches::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        one(&mut switches, &word, &mut words).map_err(problem)?;
    }
    match switches.archive && !switches.init {
        true => Err(problem("--archive goes with -init".into())),
        false => Ok(switches),
    }
}

fn problem(reason: String) -> Problem {
    Problem { file: "command line".into(), line: None, reason }
}

fn one(switches: &mut Switches, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
    let bare = word.strip_prefix("--").or(word.strip_prefix('-'));
    let bare = bare.ok_or_else(|| format!("{word:?} is not a switch (they start with a dash)"))?;
    let (name, mut given) = match bare.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (bare, None),
    };
    let mut value = || {
        given
            .take()
            .or_else(|| rest.next())
            .ok_or_else(|| format!("bad command line option: {word} needs a value"))
    };
    if name == "conf" {
        switches.conf = Some(value()?);
        return Ok(());
    }
    match SWITCHES.iter().find(|(known, _)| *known == name).map(|(_, meaning)| meaning) {
        Some(Flag(raise)) => raise(switches),
        Some(Setting(setting)) => {
            let value = value()?;
            switches.settings.push(((*setting).to_owned(), value));
        }
        Some(Fixed(setting, to)) => {
            // Coda's -d takes a level.
            if name == "d" {
                value()?;
            }
            switches.settings.push(((*setting).to_owned(), (*to).to_owned()));
        }
        Some(Nothing(count, why)) => {
            (0..*count).try_for_each(|_| value().map(drop))?;
            switches.notes.push(format!("{word} has no effect any more: {why}"));
        }
        None if settings::find(name).is_some() => {
            let value = value()?;
            switches.settings.push((name.to_owned(), value));
        }
        None => return Err(unknown(word, name)),
    }
    Ok(())
}

fn unknown(word: &str, name: &str) -> String {
    let known = SWITCHES.iter().map(|(known, _)| *known);
    let settings = settings::SETTINGS.iter().map(|setting| setting.name);
    match nearest(name, known.chain(settings).chain(["conf"])).filter(|near| near.len() > 2) {
        Some(near) => format!("bad command line option: {word}; did you mean --{near}?"),
        None => format!("bad command line option: {word}; `venus --help` lists all of them"),
    }
}

impl Switches {
    /// Puts the settings of the command line over those of the file.
    pub fn over(&self, config: &mut Config) -> Result<(), Problem> {
        for (name, value) in &self.settings {
            text::set(config, name, value).map_err(problem)?;
        }
        Ok(())
    }
}

/// What `venus --help` prints.
pub fn help() -> String {
    let settings = settings::SETTINGS.iter().map(|setting| format!("  --{}=VALUE\n", setting.name));
    format!(
        "Usage: venus [switches]\n       venus demo [--help]\n\n\
         Mounts {{mountpoint}} and keeps it, with or without a network.\n\n\
         \x20 --conf=FILE          read FILE instead of searching for venus.conf\n\
         \x20 -init                forget the cache; refused while something is unsent\n\
         \x20 -init --archive      the same, what is unsent goes to the spool directory first\n\
         \x20 --help, --version\n\n\
         Settings (venus.conf.example explains each; the command line goes over the file):\n{}\n\
         Short for some: -c cachesize, -cf cachefiles, -f cachedir, -d 1 for --log=debug,\n\
         -timeout rpc_timeout, -console logfile. Switches of older versions are accepted with a note.\n",
        settings.collect::<String>()
    )
    .replace("{mountpoint}", "/coda")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Surroundings;

    fn read_line(line: &str) -> Result<Switches, String> {
        read(line.split_whitespace().map(str::to_owned)).map_err(|problem| problem.to_string())
    }

    fn configured(line: &str) -> Config {
        let mut config = Config::defaults(&Surroundings::of_root());
        read_line(line).unwrap().over(&mut config).unwrap();
        config
    }

    #[test]
    fn every_setting_is_a_switch_in_each_spelling() {
        for line in ["-cachesize 64MB", "--cachesize 64MB", "--cachesize=64MB", "-c 64MB", "-c=65536"] {
            assert_eq!(configured(line).cachesize, 64 << 20, "{line}");
        }
        for setting in settings::SETTINGS {
            let line = format!("--{}=1", setting.name);
            assert_eq!(read_line(&line).unwrap().settings, [(setting.name.to_owned(), "1".to_owned())]);
        }
    }

    #[test]
    fn old_switches_are_accepted_with_a_note() {
        let switches = read_line("-init -k /dev/cfs0 -masquerade -maxworkers 20 -d 100 -f /cache").unwrap();
        assert!(switches.init);
        assert_eq!(switches.notes.len(), 3);
        assert!(switches.notes[0].starts_with("-k has no effect any more"));
        let config = configured("-init -k /dev/cfs0 -d 100 -f /cache");
        assert_eq!((config.log.as_str(), config.cachedir.to_str()), ("debug", Some("/cache")));
    }

    #[test]
    fn a_bad_option_is_named_with_the_nearest_one() {
        let why = |line| read_line(line).unwrap_err();
        assert_eq!(
            why("--cachsize 1"),
            "command line: bad command line option: --cachsize; did you mean --cachesize?"
        );
        assert!(why("-alpha").contains("venus --help"));
        assert!(why("-c").contains("needs a value"));
        assert!(why("stray").contains("not a switch"));
        assert!(why("--archive").contains("-init"));
    }

    #[test]
    fn a_bad_value_is_refused_when_it_is_put_over_the_file() {
        let mut config = Config::defaults(&Surroundings::of_root());
        let problem = read_line("-timeout soon").unwrap().over(&mut config).unwrap_err();
        assert_eq!(problem.to_string(), "command line: rpc_timeout: \"soon\" is not a number");
    }

    #[test]
    fn the_help_names_every_setting() {
        assert!(settings::SETTINGS.iter().all(|setting| help().contains(&format!("--{}=", setting.name))));
    }
}
