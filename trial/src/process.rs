//! A process that ends with the trial, and what it said.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, ensure};

/// A program that runs. Dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it says goes behind what is in `log` already. It lives in another network than this, if one is
    /// given.
    pub fn start(command: &mut Command, log: &Path, net: Option<BorrowedFd>) -> anyhow::Result<Process> {
        let net = net.map(|net| net.as_raw_fd());
        let file = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // SAFETY: between fork and exec only async-signal-safe calls are made.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                match net.map(|net| libc::setns(net, libc::CLONE_NEWNET)) {
                    None | Some(0) => Ok(()),
                    Some(_) => Err(io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> anyhow::Result<()> {
        // SAFETY: a plain system call on a process of ours that is not waited for yet.
        ensure!(
            unsafe { libc::kill(self.child.id() as i32, signal) } == 0,
            "the process is gone: {}",
            self.said()
        );
        Ok(())
    }

    /// kill -9, and gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and its status.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        Ok(self.child.wait()?)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            let _ = self.kill();
        }
    }
}

/// The standard output of a program that must succeed.
pub fn said(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
