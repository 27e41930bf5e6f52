//! What Linux tells of a process: the one place that reads /proc.
//!
//! `status` is made by the kernel from memory, without the locks that a process may hold while it waits for us.

use std::{
    fs::File,
    io::{self, Read as _},
};

use crate::env::Process;

/// A process, or the process of a thread.
pub fn process(id: u32) -> Option<Process> {
    // The kernel says 0 of whoever is in another namespace of processes.
    if id == 0 {
        return None;
    }
    let own = parse(&status(id).ok()?)?;
    match own.leader == id {
        true => Some(own),
        // A thread may be called otherwise than its process.
        false => parse(&status(own.leader).ok()?),
    }
}

/// The first lines: what is wanted of them comes early, and one call brings them.
fn status(id: u32) -> io::Result<String> {
    let mut start = [0; 4096];
    let length = File::open(format!("/proc/{id}/status"))?.read(&mut start)?;
    Ok(String::from_utf8_lossy(&start[..length]).into_owned())
}

fn parse(status: &str) -> Option<Process> {
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::trim)
    };
    Some(Process {
        name: field("Name")?.to_owned(),
        parent: field("PPid")?.parse().ok()?,
        leader: field("Tgid")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_threads_go_by_the_process() {
        let own = std::process::id();
        let found = process(own).unwrap();
        assert_eq!(found.leader, own);
        assert!(found.parent > 0 && !found.name.is_empty());
        // SAFETY: reads a number and cannot fail.
        let thread = unsafe { libc::gettid() } as u32;
        assert_eq!(process(thread), Some(found));
        assert_eq!(process(0), None);
        assert_eq!(process(u32::MAX), None);
    }
}
