//! The table of settings: name, how a value is read, and how it is written.
//!
//! venus.conf.example is checked against this table in both directions.

use std::{net::SocketAddr, path::PathBuf};

use super::{Config, ConflictView, units};

/// One setting of venus.conf.
pub struct Setting {
    /// Its key.
    pub name: &'static str,
    /// Reads a value, or says what is wrong with it.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// Writes the value in force; empty where there is none.
    pub get: fn(&Config) -> String,
}

/// The setting named `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Every setting, in the order of venus.conf.example.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "mountpoint",
        set: |c, v| path(v).map(|path| c.mountpoint = path),
        get: |c| c.mountpoint.display().to_string(),
    },
    Setting {
        name: "cachedir",
        set: |c, v| path(v).map(|path| c.cachedir = path),
        get: |c| c.cachedir.display().to_string(),
    },
    Setting {
        name: "cachesize",
        set: |c, v| units::size(v).map(|bytes| c.cachesize = bytes),
        get: |c| units::size_text(c.cachesize),
    },
    Setting {
        name: "cachefiles",
        set: |c, v| number(v).map(|files| c.cachefiles = files),
        get: |c| c.cachefiles.to_string(),
    },
    Setting {
        name: "spooldir",
        set: |c, v| path(v).map(|path| c.spooldir = Some(path)),
        get: |c| c.spooldir().display().to_string(),
    },
    Setting {
        name: "realm",
        set: |c, v| word(v).map(|realm| c.realm = Some(realm)),
        get: |c| c.realm.clone().unwrap_or_default(),
    },
    Setting {
        name: "realmtab",
        set: |c, v| path(v).map(|path| c.realmtab = path),
        get: |c| c.realmtab.display().to_string(),
    },
    Setting {
        name: "known_realms",
        set: |c, v| path(v).map(|path| c.known_realms = Some(path)),
        get: |c| c.known_realms().display().to_string(),
    },
    Setting {
        name: "controlsocket",
        set: |c, v| path(v).map(|path| c.controlsocket = path),
        get: |c| c.controlsocket.display().to_string(),
    },
    Setting {
        name: "rpc_timeout",
        set: |c, v| positive_time(v).map(|time| c.rpc_timeout = time),
        get: |c| units::time_text(c.rpc_timeout),
    },
    Setting {
        name: "cml_records",
        set: |c, v| positive(v).map(|records| c.cml_records = records),
        get: |c| c.cml_records.to_string(),
    },
    Setting {
        name: "cml_size",
        set: |c, v| units::size(v).map(|bytes| c.cml_size = bytes),
        get: |c| units::size_text(c.cml_size),
    },
    Setting {
        name: "approve_removals",
        set: |c, v| number(v).map(|names| c.approve_removals = names),
        get: |c| c.approve_removals.to_string(),
    },
    Setting {
        name: "approve_percent",
        set: |c, v| percent(v).map(|percent| c.approve_percent = percent),
        get: |c| c.approve_percent.to_string(),
    },
    Setting {
        name: "weak_bandwidth",
        set: |c, v| units::size(v).map(|bytes| c.weak_bandwidth = bytes),
        get: |c| units::size_text(c.weak_bandwidth),
    },
    Setting {
        name: "weak_latency",
        set: |c, v| positive_time(v).map(|time| c.weak_latency = time),
        get: |c| units::time_text(c.weak_latency),
    },
    Setting {
        name: "trickle_limit",
        set: |c, v| units::size(v).map(|bytes| c.trickle_limit = bytes),
        get: |c| units::size_text(c.trickle_limit),
    },
    Setting {
        name: "metered",
        set: |c, v| truth(v).map(|yes| c.metered = yes),
        get: |c| u8::from(c.metered).to_string(),
    },
    Setting {
        name: "conflict_view",
        set: |c, v| view(v).map(|view| c.conflict_view = view),
        get: |c| view_text(c.conflict_view).into(),
    },
    Setting {
        name: "allow_other",
        set: |c, v| truth(v).map(|yes| c.allow_other = yes),
        get: |c| u8::from(c.allow_other).to_string(),
    },
    Setting {
        name: "primaryuser",
        set: |c, v| number(v).and_then(user).map(|user| c.primaryuser = user),
        get: |c| c.primaryuser.unwrap_or(0).to_string(),
    },
    Setting {
        name: "indexers",
        set: |c, v| words(v).map(|names| c.indexers = names),
        get: |c| c.indexers.join(","),
    },
    Setting {
        name: "mount_helper",
        set: |c, v| {
            c.mount_helper = (!v.is_empty()).then(|| v.into());
            Ok(())
        },
        get: |c| c.mount_helper.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
    },
    Setting {
        name: "metrics",
        set: |c, v| loopback(v).map(|address| c.metrics = address),
        get: |c| c.metrics.map(|address| address.to_string()).unwrap_or_default(),
    },
    Setting { name: "log", set: |c, v| word(v).map(|log| c.log = log), get: |c| c.log.clone() },
    Setting {
        name: "logfile",
        set: |c, v| path(v).map(|path| c.logfile = Some(path)),
        get: |c| c.logfile.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
    },
];

fn path(value: &str) -> Result<PathBuf, String> {
    match value.starts_with('/') {
        true => Ok(PathBuf::from(value)),
        false => Err(format!("{value:?} is not an absolute path")),
    }
}

fn word(value: &str) -> Result<String, String> {
    match value.is_empty() || value.contains(char::is_whitespace) {
        true => Err(format!("{value:?} is not one word")),
        false => Ok(value.to_owned()),
    }
}

/// Words with commas between them; none where there is nothing.
fn words(value: &str) -> Result<Vec<String>, String> {
    let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(word).collect()
}

fn number(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{value:?} is not a whole number"))
}

fn positive(value: &str) -> Result<u64, String> {
    match number(value)? {
        0 => Err("must be more than zero".into()),
        number => Ok(number),
    }
}

fn percent(value: &str) -> Result<u64, String> {
    match number(value)? {
        percent @ 0..=100 => Ok(percent),
        _ => Err(format!("{value} is more than 100 per cent")),
    }
}

/// 0 stands for nobody in particular, as it always did.
fn user(number: u64) -> Result<Option<u32>, String> {
    let id = u32::try_from(number).map_err(|_| format!("{number} is not a user id"))?;
    Ok((id != 0).then_some(id))
}

fn positive_time(value: &str) -> Result<std::time::Duration, String> {
    match units::time(value)? {
        time if time.is_zero() => Err("must be more than zero".into()),
        time => Ok(time),
    }
}

/// An address of this machine that others cannot reach; empty for none.
fn loopback(value: &str) -> Result<Option<SocketAddr>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    match value.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
        Ok(address) => Err(format!("{} is not a loopback address", address.ip())),
        Err(_) => Err(format!("{value:?} is not ADDRESS:PORT")),
    }
}

fn view(value: &str) -> Result<ConflictView, String> {
    match value {
        "versions" => Ok(ConflictView::Versions),
        "link" => Ok(ConflictView::Link),
        _ => Err(format!("{value:?} is neither versions nor link")),
    }
}

fn view_text(view: ConflictView) -> &'static str {
    match view {
        ConflictView::Versions => "versions",
        ConflictView::Link => "link",
    }
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "1" | "yes" | "on" | "true" => Ok(true),
        "0" | "no" | "off" | "false" => Ok(false),
        _ => Err(format!("{value:?} is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, old};

    fn defaults() -> Config {
        Config::defaults(&Surroundings::of_root())
    }

    #[test]
    fn every_value_that_is_written_is_read_again() {
        let mut config = Config { realm: Some("example.org".into()), ..defaults() };
        config.logfile = Some("/var/log/venus.log".into());
        for setting in SETTINGS {
            let mut other = config.clone();
            let text = (setting.get)(&config);
            (setting.set)(&mut other, &text).unwrap_or_else(|why| panic!("{}={text}: {why}", setting.name));
            assert_eq!((setting.get)(&other), text, "{}", setting.name);
        }
    }

    #[test]
    fn bad_values_are_refused_with_the_reason() {
        for (name, value, reason) in [
            ("mountpoint", "coda", "absolute"),
            ("cachesize", "much", "not a number"),
            ("cachefiles", "-1", "whole number"),
            ("rpc_timeout", "0", "more than zero"),
            ("allow_other", "maybe", "neither 0 nor 1"),
            ("cml_records", "0", "more than zero"),
            ("cml_size", "4 XB", "no unit of size"),
            ("approve_removals", "many", "whole number"),
            ("approve_percent", "101", "more than 100"),
            ("weak_bandwidth", "slow", "not a number"),
            ("weak_latency", "0", "more than zero"),
            ("trickle_limit", "fast", "not a number"),
            ("metered", "sometimes", "neither 0 nor 1"),
            ("primaryuser", "99999999999", "user id"),
            ("metrics", "0.0.0.0:9100", "not a loopback address"),
            ("metrics", "localhost", "ADDRESS:PORT"),
            ("conflict_view", "both", "neither versions nor link"),
            ("realm", "two words", "one word"),
            ("indexers", "updatedb,two words", "one word"),
        ] {
            let mut config = defaults();
            let why = (find(name).unwrap().set)(&mut config, value).unwrap_err();
            assert!(why.contains(reason), "{name}={value}: {why}");
            assert_eq!(config, defaults(), "{name}: a refused value changes nothing");
        }
    }

    #[test]
    fn no_setting_is_also_an_old_one() {
        assert!(SETTINGS.iter().all(|setting| old::find(setting.name).is_none()));
    }

    /// venus.conf.example as (line number, key, value, whether commented out).
    fn example() -> Vec<(usize, &'static str, &'static str, bool)> {
        include_str!("../../venus.conf.example")
            .lines()
            .enumerate()
            .filter_map(|(line, text)| {
                let bare = text.trim_start_matches('#');
                let (key, value) = bare.split_once('=')?;
                let is_key = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                is_key.then_some((line + 1, key, value, bare.len() != text.len()))
            })
            .collect()
    }

    #[test]
    fn the_example_names_every_setting_once_in_order_with_its_default_commented_out() {
        let example = example();
        let named: Vec<_> = example.iter().map(|(_, key, ..)| *key).collect();
        let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(named, known);
        for (line, key, value, commented) in example {
            assert!(commented, "venus.conf.example:{line}: {key} is not commented out");
            let default = (find(key).unwrap().get)(&defaults());
            assert_eq!(value, default, "venus.conf.example:{line}: {key}");
        }
    }

    #[test]
    fn the_example_explains_every_setting() {
        let lines: Vec<&str> = include_str!("../../venus.conf.example").lines().collect();
        for (line, key, ..) in example() {
            assert!(lines[line - 2].starts_with("# "), "venus.conf.example:{line}: {key} has no explanation");
        }
    }
}
