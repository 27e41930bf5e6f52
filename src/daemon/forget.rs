//! `venus -init`: begin with an empty cache, without losing what no server has.

use std::{fs, path::Path};

use anyhow::{Context, bail};

use super::running::{containers, database};
use crate::{config::Config, store::Store};

/// A file of this name in the cache directory orders the same as `-init`, once.
const ORDER: &str = "INIT";

/// Whether the cache is to be forgotten although the command line does not say so.
pub fn is_ordered(config: &Config) -> bool {
    config.cachedir.join(ORDER).exists()
}

/// The start succeeded: what was ordered is done.
pub fn done(config: &Config) -> anyhow::Result<()> {
    let file = config.cachedir.join(ORDER);
    fs::remove_file(&file).or_else(missing).with_context(|| file.display().to_string())
}

/// Forgets the cache. Refused while mutations are unsent, unless they are to be archived first.
pub fn forget_cache(config: &Config, archive: bool) -> anyhow::Result<()> {
    let file = database(config);
    if !file.exists() {
        return Ok(());
    }
    let unsent = Store::open(Some(&file)).and_then(|store| store.log()).map(|log| log.len());
    match unsent {
        Ok(0) => {}
        Ok(_) if archive => return set_aside(config),
        Ok(count) => bail!(
            "{count} change(s) are not at a server yet; start venus without -init and let them go, or add \
             --archive to keep them in {}",
            config.spooldir().display()
        ),
        // What cannot be read may hold changes.
        Err(_) if archive => return set_aside(config),
        Err(error) => bail!("{error}; --archive keeps what is there in {}", config.spooldir().display()),
    }
    fs::remove_dir_all(containers(config)).or_else(missing)?;
    for name in ["", "-wal", "-shm"] {
        fs::remove_file(beside(&file, name)).or_else(missing)?;
    }
    Ok(())
}

/// Moves the database with its containers into the spool.
fn set_aside(config: &Config) -> anyhow::Result<()> {
    let spool = config.spooldir();
    fs::create_dir_all(&spool)?;
    let free = (1..).map(|n| spool.join(format!("cache-{n}"))).find(|path| !path.exists());
    let place = free.context("the spool is full")?;
    fs::create_dir(&place).with_context(|| place.display().to_string())?;
    fs::rename(containers(config), place.join("containers")).or_else(missing)?;
    let file = database(config);
    for name in ["", "-wal", "-shm"] {
        let from = beside(&file, name);
        let to = place.join(from.file_name().expect("the database has a name"));
        fs::rename(&from, to).or_else(missing)?;
    }
    eprintln!("venus: the old cache with its unsent changes is kept in {}", place.display());
    Ok(())
}

fn beside(file: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use coda_proto::{Author, Dot, Fid, Op, Record, VolumeId};

    use super::*;
    use crate::{
        config::Surroundings,
        store::{Change, Edit, LogRow},
    };

    fn config(room: &Path) -> Config {
        Config { cachedir: room.to_owned(), ..Config::defaults(&Surroundings::of_root()) }
    }

    #[test]
    fn a_cache_without_unsent_changes_is_forgotten() {
        let room = tempfile::tempdir().unwrap();
        let config = config(room.path());
        forget_cache(&config, false).unwrap();
        drop(Store::open(Some(&database(&config))).unwrap());
        fs::create_dir(containers(&config)).unwrap();
        fs::write(containers(&config).join("x"), "").unwrap();
        forget_cache(&config, false).unwrap();
        assert!(!database(&config).exists() && !containers(&config).exists());
    }

    #[test]
    fn unsent_changes_are_named_and_kept_or_archived() {
        let room = tempfile::tempdir().unwrap();
        let config = config(room.path());
        let mut store = Store::open(Some(&database(&config))).unwrap();
        let op = Op::MakeDir {
            parent: Fid::root(VolumeId(1)),
            name: b"d".to_vec(),
            fid: Fid::directory(VolumeId(1), Author(7), 1),
            mode: 0o755,
            owner: 0,
        };
        let dot = Dot::new(Author(7), 1);
        let record = Record {
            dot,
            lamport: 1,
            time: 0,
            changed: 0,
            bases: Vec::new(),
            logged: false,
            op,
            host: String::new(),
        };
        let row =
            LogRow { id: 1, realm: 1, uid: None, exclusive: false, record, container: None, sent: false };
        store.apply(&Change::of(Edit::Log(row)), 0).unwrap();
        drop(store);
        let refused = forget_cache(&config, false).unwrap_err().to_string();
        assert!(refused.starts_with("1 change(s) are not at a server yet") && refused.contains("--archive"));
        assert!(database(&config).exists());
        forget_cache(&config, true).unwrap();
        assert!(!database(&config).exists());
        let kept = config.spooldir().join("cache-1/venus.db");
        assert_eq!(Store::open(Some(&kept)).unwrap().log().unwrap().len(), 1);
    }

    #[test]
    fn a_file_called_init_orders_it_once() {
        let room = tempfile::tempdir().unwrap();
        let config = config(room.path());
        assert!(!is_ordered(&config));
        fs::write(room.path().join("INIT"), "").unwrap();
        assert!(is_ordered(&config));
        done(&config).unwrap();
        assert!(!is_ordered(&config));
        done(&config).unwrap();
    }

    #[test]
    fn a_cache_that_cannot_be_read_is_never_thrown_away() {
        let room = tempfile::tempdir().unwrap();
        let config = config(room.path());
        fs::write(database(&config), "not a database, but somebody's work").unwrap();
        assert!(forget_cache(&config, false).is_err());
        assert!(database(&config).exists());
        forget_cache(&config, true).unwrap();
        assert!(!database(&config).exists());
        assert!(config.spooldir().join("cache-1/venus.db").exists());
    }
}
