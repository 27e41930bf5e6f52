//! Keys of older venus.conf files: still understood, or named as obsolete. None of them stops venus.

/// What became of an old key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// The same setting under its present name. The value is read as it always was.
    Renamed(&'static str),
    /// It has no effect, because of this.
    Obsolete(&'static str),
}

/// What became of `name`.
pub fn find(name: &str) -> Option<Old> {
    OLD.iter().find(|(old, _)| *old == name).map(|(_, fate)| *fate)
}

/// Every old key.
pub const OLD: &[(&str, Old)] = &[
    ("cacheblocks", Old::Renamed("cachesize")),
    ("checkpointdir", Old::Renamed("spooldir")),
    ("RPC2_timeout", Old::Renamed("rpc_timeout")),
    ("marinersocket", Old::Obsolete("events are on the control socket; `cfs events` shows them")),
    ("errorlog", Old::Obsolete("there is one log: see log and logfile")),
    ("rootservers", Old::Obsolete("name the servers of a realm in the realms file")),
    ("authservers", Old::Obsolete("any server of a realm answers")),
    ("masquerade", Old::Obsolete("a client is known by its key, never by its address and port")),
    ("masquerade_port", Old::Obsolete("the port is always the kernel's choice")),
    ("serverprobe", Old::Obsolete("a live server that was silent for 150 s is probed, always")),
    ("RPC2_retries", Old::Obsolete("QUIC resends by itself")),
    ("cml_entries", Old::Renamed("cml_records")),
    ("hoard_entries", Old::Obsolete("nothing limits their number")),
    ("cachechunkblocksize", Old::Obsolete("files are cached whole")),
    ("partialcachefilesratio", Old::Obsolete("files are cached whole")),
    ("wholefilemaxsize", Old::Obsolete("files are cached whole")),
    ("wholefileminsize", Old::Obsolete("files are cached whole")),
    ("wholefilemaxstall", Old::Obsolete("files are cached whole")),
    ("checkpointformat", Old::Obsolete("the spool holds plain files")),
    ("kerneldevice", Old::Obsolete("the mount is FUSE's")),
    ("mapprivate", Old::Obsolete("there is no recoverable memory")),
    ("rvm_log", Old::Obsolete("there is no recoverable memory")),
    ("rvm_data", Old::Obsolete("there is no recoverable memory")),
    ("dontuservm", Old::Obsolete("there is no recoverable memory")),
    ("allow_backfetch", Old::Obsolete("servers never fetch from clients")),
    ("sslcertdir", Old::Obsolete("a realm's authority is named in the realms file or trusted once")),
    ("reintegration_age", Old::Obsolete("`cfs writedisconnect -age` sets it for each volume")),
    ("reintegration_time", Old::Obsolete("`cfs writedisconnect -time` sets it for each volume")),
    ("validateattrs", Old::Obsolete("validation goes in batches by itself")),
    ("pid_file", Old::Obsolete("the store's lock keeps a second venus away")),
    ("run_control_file", Old::Obsolete("the control socket takes its place")),
    ("asrlauncher_path", Old::Obsolete("there are no automatic resolvers")),
    ("asrpolicy_path", Old::Obsolete("there are no automatic resolvers")),
    ("isr", Old::Obsolete("repeated records are always recognised")),
    ("detect_reintegration_retry", Old::Obsolete("repeated records are always recognised")),
    ("codafs", Old::Obsolete("the mount is FUSE's")),
    ("9pfs", Old::Obsolete("there is no 9P service")),
    ("plan9server", Old::Obsolete("there is no 9P service")),
    ("codatunnel", Old::Obsolete("every connection is TLS")),
    ("onlytcp", Old::Obsolete("the transport is QUIC")),
    ("cache_prefix", Old::Obsolete("there is no Windows client")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;

    #[test]
    fn every_renamed_key_leads_to_a_setting() {
        for (name, fate) in OLD {
            if let Old::Renamed(now) = fate {
                assert!(settings::find(now).is_some(), "{name} -> {now}");
            }
        }
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut names: Vec<_> = OLD.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
