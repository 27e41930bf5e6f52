//! How venus is set up: built-in defaults, over them venus.conf, over it the command line.
//!
//! venus starts without any venus.conf. The values here are plain data, parsed from text; only `edge`
//! (feature `daemon`) looks at the environment and reads files.

pub mod nearest;
pub mod old;
pub mod settings;
pub mod switches;
pub mod text;
pub mod units;

#[cfg(feature = "daemon")]
pub mod edge;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use switches::Switches;
pub use text::Problem;

/// What the defaults depend on: who runs venus, and where that user's things belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether venus runs as root.
    pub root: bool,
    /// `$XDG_STATE_HOME`, else `~/.local/state`.
    pub state: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub config: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// `$CODACONFPATH`: directories to search for venus.conf instead of the usual ones.
    pub conf_path: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of a venus that the system runs.
    pub fn of_root() -> Surroundings {
        Surroundings { root: true, ..Surroundings::default() }
    }

    /// Where venus.conf may be, first match wins.
    pub fn conf_files(&self) -> Vec<PathBuf> {
        let usual = || {
            let own = self.config.iter().filter(|_| !self.root).map(|config| config.join("coda"));
            own.chain(["/usr/local/etc/coda".into(), "/etc/coda".into()]).collect()
        };
        let directories = if self.conf_path.is_empty() { usual() } else { self.conf_path.clone() };
        directories.into_iter().map(|directory| directory.join("venus.conf")).collect()
    }
}

/// How files in conflict show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConflictView {
    /// The name stays, readable, and its versions show beside it.
    #[default]
    Versions,
    /// A link to nowhere.
    Link,
}

/// Every setting of venus with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the tree is mounted.
    pub mountpoint: PathBuf,
    /// What venus keeps: database, containers, and below it whatever has no place of its own.
    pub cachedir: PathBuf,
    /// Bytes that cached contents may take.
    pub cachesize: u64,
    /// Objects that may be cached; 0 computes a number from `cachesize`.
    pub cachefiles: u64,
    /// Where contents go that nobody may lose and no server took.
    pub spooldir: Option<PathBuf>,
    /// The realms file.
    pub realmtab: PathBuf,
    /// Authorities of realms that were trusted on first use.
    pub known_realms: Option<PathBuf>,
    /// The realm that tools mean when none is named.
    pub realm: Option<String>,
    /// The socket that `cfs` talks to.
    pub controlsocket: PathBuf,
    /// A call without a sign of life for this long marks its server dead.
    pub rpc_timeout: Duration,
    /// Changes of one volume that may wait to be sent.
    pub cml_records: u64,
    /// Bytes of contents among them; 0 is four fifths of `cachesize`.
    pub cml_size: u64,
    /// Names that a log may remove from a volume before somebody has to approve of it.
    pub approve_removals: u64,
    /// The same as a share of the volume's cached objects, in per cent.
    pub approve_percent: u64,
    /// A line that carries fewer bytes a second is weak.
    pub weak_bandwidth: u64,
    /// A line on which an answer takes longer is weak, too.
    pub weak_latency: Duration,
    /// Bytes a second that what is sent behind people's backs may take; 0 is no limit.
    pub trickle_limit: u64,
    /// The line costs money.
    pub metered: bool,
    /// How files in conflict show.
    pub conflict_view: ConflictView,
    /// Other users of the machine may enter the mount.
    pub allow_other: bool,
    /// The user whose mount it is when root runs venus.
    pub primaryuser: Option<u32>,
    /// The socket of a helper that mounts for a venus without privilege.
    pub mount_helper: Option<std::path::PathBuf>,
    /// Programs that read everything: they get what is cached, and nothing is fetched for them.
    pub indexers: Vec<String>,
    /// The loopback address at which Prometheus finds numbers.
    pub metrics: Option<SocketAddr>,
    /// What goes to the log, in the words of tracing's filter.
    pub log: String,
    /// Where the log goes; standard error if unset.
    pub logfile: Option<PathBuf>,
}

impl Config {
    /// The built-in defaults.
    pub fn defaults(around: &Surroundings) -> Config {
        let cachedir = match &around.state {
            Some(state) if !around.root => state.join("coda"),
            _ => PathBuf::from("/var/lib/coda"),
        };
        let controlsocket = coda_proto::control::socket(around.root, around.runtime.as_deref());
        Config {
            mountpoint: "/coda".into(),
            controlsocket: controlsocket.unwrap_or_else(|| cachedir.join("venus.sock")),
            cachedir,
            cachesize: 1 << 30,
            cachefiles: 0,
            spooldir: None,
            realmtab: "/etc/coda/realms".into(),
            known_realms: None,
            realm: None,
            rpc_timeout: Duration::from_secs(15),
            cml_records: 500_000,
            cml_size: 0,
            approve_removals: 5_000,
            approve_percent: 50,
            weak_bandwidth: 50 << 10,
            weak_latency: Duration::from_millis(800),
            trickle_limit: 0,
            metered: false,
            conflict_view: ConflictView::default(),
            allow_other: false,
            primaryuser: None,
            mount_helper: None,
            indexers: INDEXERS.split(',').map(str::to_owned).collect(),
            metrics: None,
            log: "info".into(),
            logfile: None,
        }
    }

    /// The spool directory.
    pub fn spooldir(&self) -> PathBuf {
        self.spooldir.clone().unwrap_or_else(|| self.cachedir.join("spool"))
    }

    /// The file of trusted authorities.
    pub fn known_realms(&self) -> PathBuf {
        self.known_realms.clone().unwrap_or_else(|| self.cachedir.join("known_realms"))
    }

    /// How many objects may be cached: as set, or Coda's curve over the size of the cache.
    pub fn cachefiles(&self) -> u64 {
        match self.cachefiles {
            0 => {
                let blocks = (self.cachesize >> 10) as f64;
                ((24_200.0 * (blocks / 500_000.0 + 1.0).ln()) as u64).max(MIN_CACHEFILES)
            }
            files => files,
        }
    }

    /// What each setting alone cannot tell: whether the values make a venus that can work.
    pub fn check(&self) -> Result<(), String> {
        if self.cachesize < MIN_CACHESIZE {
            return Err(format!("cachesize is below the minimum of {}", units::size_text(MIN_CACHESIZE)));
        }
        if self.cachefiles() < MIN_CACHEFILES {
            return Err(format!("cachefiles is below the minimum of {MIN_CACHEFILES}"));
        }
        if self.cml_size > self.cachesize {
            return Err("cml_size is more than cachesize: what waits to be sent lies in the cache".into());
        }
        if self.cachedir.starts_with(&self.mountpoint) {
            return Err("cachedir lies below mountpoint: venus cannot keep its cache in itself".into());
        }
        Ok(())
    }
}

/// The programs of common desktops and systems that read every file they find: search, `locate`, thumbnails.
const INDEXERS: &str = "tracker-miner-fs-3,tracker-extract-3,localsearch-3,localsearch-extractor-3,baloo_file,\
    baloo_file_extractor,recollindex,updatedb,updatedb.plocate,updatedb.mlocate,tumblerd,gdk-pixbuf-thumbnailer,\
    gnome-thumbnail-font,evince-thumbnailer,totem-video-thumbnailer,ffmpegthumbnailer";

/// A smaller cache cannot hold one day's work.
pub const MIN_CACHESIZE: u64 = 2 << 20;
/// Fewer objects cannot hold one deep path with its neighbours.
pub const MIN_CACHEFILES: u64 = 85;

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Surroundings {
        Surroundings {
            state: Some("/home/u/.local/state".into()),
            config: Some("/home/u/.config".into()),
            runtime: Some("/run/user/1000".into()),
            ..Surroundings::default()
        }
    }

    #[test]
    fn the_defaults_are_enough_to_start() {
        for around in [Surroundings::of_root(), user(), Surroundings::default()] {
            Config::defaults(&around).check().unwrap();
        }
    }

    #[test]
    fn a_users_venus_keeps_its_things_in_the_users_directories() {
        let config = Config::defaults(&user());
        assert_eq!(config.cachedir, PathBuf::from("/home/u/.local/state/coda"));
        assert_eq!(config.controlsocket, PathBuf::from("/run/user/1000/coda/venus.sock"));
        assert_eq!(Config::defaults(&Surroundings::of_root()).cachedir, PathBuf::from("/var/lib/coda"));
    }

    #[test]
    fn what_has_no_place_of_its_own_follows_the_cache_directory() {
        let config = Config { cachedir: "/x".into(), ..Config::defaults(&user()) };
        assert_eq!(config.spooldir(), PathBuf::from("/x/spool"));
        assert_eq!(config.known_realms(), PathBuf::from("/x/known_realms"));
    }

    #[test]
    fn the_number_of_objects_follows_codas_curve() {
        let files = |mb: u64| {
            Config { cachesize: mb << 20, ..Config::defaults(&Surroundings::of_root()) }.cachefiles()
        };
        assert_eq!((files(2), files(100), files(200)), (98, 4508, 8308));
    }

    #[test]
    fn values_that_cannot_work_together_are_refused() {
        let config = Config::defaults(&Surroundings::of_root());
        let refused = |config: Config| config.check().unwrap_err();
        assert!(refused(Config { cachesize: 1 << 20, ..config.clone() }).contains("2MB"));
        assert!(refused(Config { cachefiles: 10, ..config.clone() }).contains("85"));
        assert!(refused(Config { cml_size: 2 << 30, ..config.clone() }).contains("cachesize"));
        assert!(refused(Config { cachedir: "/coda/cache".into(), ..config }).contains("mountpoint"));
    }

    #[test]
    fn venus_conf_is_searched_where_codaconfpath_says_else_in_the_usual_places() {
        let files = |around: &Surroundings| -> Vec<String> {
            around.conf_files().iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            files(&user()),
            ["/home/u/.config/coda/venus.conf", "/usr/local/etc/coda/venus.conf", "/etc/coda/venus.conf"]
        );
        let told = Surroundings { conf_path: vec!["/a".into(), "/b".into()], ..user() };
        assert_eq!(files(&told), ["/a/venus.conf", "/b/venus.conf"]);
    }
}
