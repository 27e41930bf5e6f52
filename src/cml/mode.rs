//! How a volume's mutations travel, as people set it. Kept for each volume; what nobody set is adaptive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a volume is to be treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mode {
    /// `cfs strong`: every mutation waits for all servers that can be reached, however slow they are.
    pub strong: bool,
    /// `cfs writedisconnect`: mutations are logged, whoever can be reached.
    pub write_disconnected: bool,
    /// Seconds that a record stays in the log before it is sent.
    pub age: u64,
    /// Seconds of the line that one chunk may take; 0: as many as it takes.
    pub time: u64,
}

impl Mode {
    /// Whether a record that was made so long ago may be sent.
    pub fn is_ripe(&self, age: Duration) -> bool {
        age >= Duration::from_secs(self.age)
    }

    /// Bytes of contents that a chunk may hold on a line of this bandwidth.
    pub fn chunk_bytes(&self, bandwidth: Option<u64>) -> Option<u64> {
        bandwidth.filter(|_| self.time > 0).map(|bandwidth| bandwidth.saturating_mul(self.time))
    }
}

/// What a volume is, in people's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeMode {
    /// Mutations are at the servers when they return.
    Connected,
    /// Mutations are logged, and sent behind one's back.
    WriteDisconnected,
    /// Nobody can be reached.
    Disconnected,
}

impl VolumeMode {
    /// In people's words.
    pub fn text(self) -> &'static str {
        match self {
            VolumeMode::Connected => "connected",
            VolumeMode::WriteDisconnected => "write-disconnected",
            VolumeMode::Disconnected => "disconnected",
        }
    }
}

/// Decides what a volume is.
pub fn volume_mode(reachable: bool, logs: bool, logged: usize) -> VolumeMode {
    match reachable {
        false => VolumeMode::Disconnected,
        true if logs || logged > 0 => VolumeMode::WriteDisconnected,
        true => VolumeMode::Connected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_connected_only_when_nothing_waits_any_more() {
        assert_eq!(volume_mode(true, false, 0), VolumeMode::Connected);
        assert_eq!(volume_mode(true, false, 1), VolumeMode::WriteDisconnected);
        assert_eq!(volume_mode(true, true, 0), VolumeMode::WriteDisconnected);
        assert_eq!(volume_mode(false, false, 0), VolumeMode::Disconnected);
    }

    #[test]
    fn a_chunk_takes_no_more_than_its_time() {
        let mode = Mode { time: 15, ..Mode::default() };
        assert_eq!(mode.chunk_bytes(Some(8_000)), Some(120_000));
        assert_eq!(mode.chunk_bytes(None), None);
        assert_eq!(Mode::default().chunk_bytes(Some(8_000)), None);
        assert!(Mode { age: 5, ..mode }.is_ripe(Duration::from_secs(5)));
        assert!(!Mode { age: 5, ..mode }.is_ripe(Duration::from_secs(4)));
    }
}
