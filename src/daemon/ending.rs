//! How a mounted venus comes to its end: by a signal, by its command's end, or because somebody unmounted it.

use std::{process::ExitStatus, time::Duration};

use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
};

use crate::fuse::{Mounted, mount::Farewell};

/// Processes inside get this long to leave. Together with naming them it stays below two seconds.
const PATIENCE: Duration = Duration::from_millis(1000);

/// A mount that somebody else took away is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why it ends.
#[derive(Debug)]
pub enum Ending {
    /// Somebody asked.
    Signal(&'static str),
    /// The command it ran has ended.
    Command(std::io::Result<ExitStatus>),
    /// The mount is gone.
    Unmounted,
}

/// The signals that ask for the end. Listening begins at once: one that comes before the mount stands counts.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Waits for the end.
pub async fn wait(signals: &mut Signals, mounted: &Mounted, command: Option<&mut Child>) -> Ending {
    let unmounted = async {
        while !mounted.has_ended() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let ended = async {
        match command {
            Some(command) => command.wait().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        status = ended => Ending::Command(status),
        name = signals.next() => Ending::Signal(name),
        () = unmounted => Ending::Unmounted,
    }
}

/// Unmounts, and tells people who was still inside.
pub async fn unmount(mounted: Mounted) -> anyhow::Result<()> {
    let at = mounted.at().display().to_string();
    let farewell = tokio::task::spawn_blocking(move || mounted.unmount(PATIENCE)).await??;
    if let Farewell::Detached { inside } = farewell {
        let names: Vec<String> = inside.iter().map(|(pid, name)| format!("{pid} ({name})")).collect();
        let names = if names.is_empty() { "processes that cannot be seen".into() } else { names.join(", ") };
        eprintln!("{at} is in use by {names}: it is detached, and what they do there fails from now on");
        tracing::warn!(%at, inside = %names, "detached while in use");
    }
    Ok(())
}
