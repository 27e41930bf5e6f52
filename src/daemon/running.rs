//! A venus that runs: its manager, its mount, its control socket.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{sync::watch, task::JoinHandle};

use super::ending;
use crate::{
    cache::disk::DiskContainers,
    cml::{Guard, Weak},
    config::Config,
    control::{self, Owners},
    fuse::{self, Mounted, Options},
    net::{NetConfig, NetEnv},
    ops,
    venus::{Database, Venus, VenusConfig},
};

/// Objects whose status is held in memory, at most.
const IN_MEMORY: usize = 50_000;

/// What is logged is made to last after so long: with the time that this takes, within a second.
const LASTING: Duration = Duration::from_millis(500);

/// Everything that was started, to be stopped in reverse.
pub struct Running {
    venus: Arc<Venus>,
    mounted: Mounted,
    control: JoinHandle<()>,
    watcher: JoinHandle<()>,
    metrics: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts what `config` says. Nothing is sent: that begins with the first look-up below the mount.
    pub async fn start(config: &Config) -> anyhow::Result<Running> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Running::start_as(config, host.trim()).await
    }

    /// The same on a machine of this name.
    pub async fn start_as(config: &Config, host: &str) -> anyhow::Result<Running> {
        private(&config.cachedir)?;
        let net = NetConfig::system(&config.realmtab, config.known_realms());
        let env = Arc::new(NetEnv::new(net).context("the network")?);
        let spool = config.spooldir();
        let containers = DiskContainers::open(&containers(config), &spool)
            .with_context(|| format!("the cache in {}", config.cachedir.display()))?;
        let changes = env.changes();
        let database = Database::File(database(config));
        let venus = Venus::start(settings(config, host), env, Arc::new(containers), database)
            .with_context(|| format!("the cache in {}", config.cachedir.display()))?;
        announce(&spool);

        let metrics = match config.metrics {
            Some(address) => Some(coda_net::metrics::bind(address).await.context("the port for metrics")?),
            None => None,
        };
        let control = control::bind(&config.controlsocket).context("the control socket")?;
        let runtime = tokio::runtime::Handle::current();
        let (face, options) = (venus.clone(), options(config)?);
        let mounted = tokio::task::spawn_blocking(move || fuse::mount(face, runtime, &options))
            .await?
            .context("mounting")?;
        let owners =
            Owners { runner: effective_user(), primary: config.primaryuser, shared: config.allow_other };
        let control = tokio::spawn(control.serve(venus.clone(), owners, config.mountpoint.clone()));
        let watcher = tokio::spawn(look_again(venus.clone(), changes));
        tokio::spawn(ops::slept::watch(Arc::downgrade(&venus.core)));
        let metrics = metrics.map(|listener| {
            let (shown, meter) = (venus.clone(), mounted.meter().clone());
            tokio::spawn(coda_net::metrics::serve(listener, move || {
                let (venus, meter) = (shown.clone(), meter.clone());
                async move {
                    let mut page = venus.metrics().await;
                    meter.write(&mut page);
                    page.into_text()
                }
            }))
        });
        Ok(Running { venus, mounted, control, watcher, metrics })
    }

    /// The mount.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }

    /// Unmounts, says goodbye to the servers, closes the cache.
    pub async fn stop(self) -> anyhow::Result<()> {
        let unmounted = ending::unmount(self.mounted).await;
        self.watcher.abort();
        self.metrics.iter().for_each(|metrics| metrics.abort());
        self.control.abort();
        let _ = self.control.await;
        self.venus.stop().await;
        unmounted
    }
}

/// Looks for servers that were away whenever the machine's network changes.
async fn look_again(venus: Arc<Venus>, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        venus.core.peers.probe_now();
    }
}

fn settings(config: &Config, host: &str) -> VenusConfig {
    VenusConfig {
        cache_bytes: config.cachesize,
        cache_objects: config.cachefiles(),
        in_memory: IN_MEMORY,
        host: host.to_owned(),
        rpc_timeout: config.rpc_timeout,
        mountpoint: config.mountpoint.display().to_string(),
        owner: config.primaryuser.unwrap_or_else(effective_user),
        conflict_view: config.conflict_view,
        log_records: config.cml_records,
        log_bytes: config.cml_size,
        guard: Guard { names: config.approve_removals, percent: config.approve_percent },
        weak: Weak { bandwidth: config.weak_bandwidth, round_trip: config.weak_latency },
        trickle: (config.trickle_limit > 0).then_some(config.trickle_limit),
        metered: config.metered,
        lasting: Some(LASTING),
        checkpoints: config.cachedir.join("checkpoints"),
        indexers: config.indexers.clone(),
        processes: crate::fuse::process::process,
        ..VenusConfig::default()
    }
}

/// The database of a cache.
pub fn database(config: &Config) -> std::path::PathBuf {
    config.cachedir.join("venus.db")
}

/// The directory of a cache's contents.
pub fn containers(config: &Config) -> std::path::PathBuf {
    config.cachedir.join("containers")
}

fn options(config: &Config) -> anyhow::Result<Options> {
    let at = &config.mountpoint;
    let missing = at.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if missing && config.mount_helper.is_none() {
        fs::create_dir_all(at).with_context(|| format!("the mount point {}", at.display()))?;
    }
    let owner = config.primaryuser.map(|user| (user, group_of(user)));
    let helper = config.mount_helper.clone();
    Ok(Options { owner, shared: config.allow_other, helper, ..Options::at(at) })
}

/// The group in which a user logs in: the kernel compares it, too.
pub(super) fn group_of(user: u32) -> u32 {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
    });
    ids.into_iter().find(|(uid, _)| *uid == user).map_or(user, |(_, gid)| gid)
}

fn effective_user() -> u32 {
    // SAFETY: reads a number and cannot fail.
    unsafe { libc::geteuid() }
}

/// A directory for its owner only.
fn private(directory: &Path) -> anyhow::Result<()> {
    let name = || directory.display().to_string();
    fs::create_dir_all(directory).with_context(name)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).with_context(name)
}

/// Says what lies in the spool: contents that no server took, for their owner to look at and remove.
fn announce(spool: &Path) {
    let files: Vec<_> = fs::read_dir(spool).into_iter().flatten().flatten().map(|file| file.path()).collect();
    for file in &files {
        tracing::warn!(file = %file.display(), "kept in the spool: contents that were not stored at a server");
    }
    if !files.is_empty() {
        eprintln!(
            "venus: {} file(s) that were not stored at a server are kept in {}",
            files.len(),
            spool.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Surroundings;

    #[test]
    fn the_settings_of_venus_conf_mean_the_same_as_those_that_nobody_set() {
        let (set, unset) =
            (settings(&Config::defaults(&Surroundings::of_root()), ""), VenusConfig::default());
        assert_eq!((set.log_records, set.log_bytes), (unset.log_records, unset.log_bytes));
        assert_eq!((set.guard, set.weak), (unset.guard, unset.weak));
        assert_eq!((set.trickle, set.metered), (unset.trickle, unset.metered));
        assert_eq!((set.cache_bytes, set.rpc_timeout), (unset.cache_bytes, unset.rpc_timeout));
    }
}
