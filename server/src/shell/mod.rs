//! The world around a server: sockets, the clock, processes.

pub mod authority;
pub mod check;
pub mod conf;
mod env;
pub mod files;
pub mod join;
pub mod metrics;
pub mod names;
pub mod overtaken;
pub mod ports;
pub mod scm;
mod seal;
mod serve;
pub mod srvlog;
pub mod token;
pub mod vice;

pub use env::NetEnv;
pub use seal::Certified;
pub use serve::{CodaServer, StartError};

/// The time.
#[allow(clippy::disallowed_methods)] // The shell reads the clock for everybody.
pub fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The time in nanoseconds since 1970.
pub fn nanoseconds() -> i64 {
    now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    /// The unit for systemd takes from the server what it does not need; a line that is lost gives it back.
    #[test]
    fn the_unit_keeps_the_server_small() {
        let unit = include_str!("../../../docs/systemd/codasrv.service");
        for line in [
            "User=coda",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "PrivateDevices=yes",
            "DevicePolicy=closed",
            "ProtectKernelTunables=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelLogs=yes",
            "ProtectControlGroups=yes",
            "ProtectClock=yes",
            "ProtectHostname=yes",
            "ProtectProc=invisible",
            "RestrictNamespaces=yes",
            "RestrictSUIDSGID=yes",
            "RestrictRealtime=yes",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            "LockPersonality=yes",
            "MemoryDenyWriteExecute=yes",
            "SystemCallFilter=@system-service",
            "SystemCallFilter=~@privileged @resources",
            "UMask=0077",
            "LimitCORE=0",
        ] {
            assert!(unit.lines().any(|there| there == line), "{line} is missing");
        }
        assert!(unit.contains("MemoryMax=") && unit.contains("TasksMax="));
    }
}
