//! Where the configuration meets the machine: environment variables, the home directory, files.

use std::{env, fs, io, path::PathBuf};

use super::{Config, Problem, Surroundings, Switches, text};

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Surroundings {
        let absolute = |path: PathBuf| path.is_absolute().then_some(path);
        let variable = |name| env::var_os(name).map(PathBuf::from).and_then(absolute);
        let home = variable("HOME");
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        Surroundings {
            // SAFETY: geteuid reads a number and cannot fail.
            root: unsafe { libc::geteuid() } == 0,
            state: variable("XDG_STATE_HOME").or_else(|| below_home(".local/state")),
            config: variable("XDG_CONFIG_HOME").or_else(|| below_home(".config")),
            runtime: variable("XDG_RUNTIME_DIR"),
            conf_path: env::var_os("CODACONFPATH")
                .map(|dirs| env::split_paths(&dirs).collect())
                .unwrap_or_default(),
        }
    }
}

/// What venus starts with, and what to tell about it.
#[derive(Debug)]
pub struct Loaded {
    /// The settings in force.
    pub config: Config,
    /// The file that was read; without one the defaults hold.
    pub file: Option<PathBuf>,
    /// Old keys and switches that were met.
    pub notes: Vec<String>,
}

/// Defaults, over them the first venus.conf that can be read, over it the switches.
pub fn load(around: &Surroundings, switches: &Switches) -> Result<Loaded, Vec<Problem>> {
    let mut config = Config::defaults(around);
    let mut notes = switches.notes.clone();
    let found = find(around, switches.conf.as_deref())?;
    if let Some((file, contents)) = &found {
        let met = text::follow(&mut config, &file.display().to_string(), contents)?;
        notes.extend(met.iter().map(Problem::to_string));
    }
    switches.over(&mut config).map_err(|problem| vec![problem])?;
    let file = found.map(|(file, _)| file);
    config.check().map_err(|reason| {
        let file = file.as_ref().map_or("settings".into(), |file| file.display().to_string());
        vec![Problem { file, line: None, reason }]
    })?;
    Ok(Loaded { config, file, notes })
}

/// A file named on the command line must be there; of the usual places the first that can be read counts.
fn find(around: &Surroundings, named: Option<&str>) -> Result<Option<(PathBuf, String)>, Vec<Problem>> {
    let unreadable = |file: &PathBuf, error: io::Error| {
        vec![Problem { file: file.display().to_string(), line: None, reason: error.to_string() }]
    };
    if let Some(named) = named {
        let file = PathBuf::from(named);
        return match fs::read_to_string(&file) {
            Ok(contents) => Ok(Some((file, contents))),
            Err(error) => Err(unreadable(&file, error)),
        };
    }
    for file in around.conf_files() {
        match fs::read_to_string(&file) {
            Ok(contents) => return Ok(Some((file, contents))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(unreadable(&file, error)),
            Err(_) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(directories: &[&tempfile::TempDir]) -> Surroundings {
        let conf_path = directories.iter().map(|dir| dir.path().to_owned()).collect();
        Surroundings { conf_path, ..Surroundings::of_root() }
    }

    #[test]
    fn without_any_file_the_defaults_hold() {
        let empty = tempfile::tempdir().unwrap();
        let loaded = load(&around(&[&empty]), &Switches::default()).unwrap();
        assert_eq!(loaded.config, Config::defaults(&Surroundings::of_root()));
        assert_eq!(loaded.file, None);
    }

    #[test]
    fn the_first_file_found_counts_and_switches_go_over_it() {
        let (none, first, second) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(first.path().join("venus.conf"), "cachesize=50MB\nrpc_timeout=7\n").unwrap();
        fs::write(second.path().join("venus.conf"), "cachesize=60MB\nallow_other=1\n").unwrap();
        let switches = Switches { settings: vec![("rpc_timeout".into(), "9".into())], ..Switches::default() };
        let loaded = load(&around(&[&none, &first, &second]), &switches).unwrap();
        assert_eq!(loaded.config.cachesize, 50 << 20);
        assert_eq!(loaded.config.rpc_timeout.as_secs(), 9);
        assert!(!loaded.config.allow_other);
    }

    #[test]
    fn a_file_named_on_the_command_line_must_be_there() {
        let empty = tempfile::tempdir().unwrap();
        let missing = empty.path().join("x.conf").display().to_string();
        let switches = Switches { conf: Some(missing.clone()), ..Switches::default() };
        let problems = load(&around(&[]), &switches).unwrap_err();
        assert!(problems[0].to_string().starts_with(&missing), "{}", problems[0]);
    }

    #[test]
    fn values_that_do_not_fit_together_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("venus.conf"), "cachesize=1MB\n").unwrap();
        let problems = load(&around(&[&dir]), &Switches::default()).unwrap_err();
        assert!(problems[0].to_string().contains("venus.conf: cachesize is below the minimum"));
    }
}
