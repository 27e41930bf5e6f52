//! Writes archives that every tar reads.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// What a member of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link(&'a [u8]),
}

/// An archive being written.
pub struct Archive<W> {
    to: W,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(to: W) -> Archive<W> {
        Archive { to }
    }

    /// Adds a member. A file's bytes come from `contents`, exactly as many as was said.
    pub fn add(
        &mut self,
        path: &[u8],
        mode: u32,
        mtime: i64,
        kind: Kind,
        contents: impl Read,
    ) -> io::Result<()> {
        let (flag, size, target): (u8, u64, &[u8]) = match kind {
            Kind::File(size) => (b'0', size, b""),
            Kind::Directory => (b'5', 0, b""),
            Kind::Link(target) => (b'2', 0, target),
        };
        // What is too long for its field comes as a member of its own before.
        self.long(path, b'L')?;
        self.long(target, b'K')?;
        self.to.write_all(&header(path, target, mode, mtime, flag, size))?;
        let written = io::copy(&mut contents.take(size), &mut self.to)?;
        if written != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "contents are shorter than they were"));
        }
        self.pad(size)
    }

    /// Ends the archive.
    pub fn end(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn long(&mut self, text: &[u8], flag: u8) -> io::Result<()> {
        if text.len() <= 100 {
            return Ok(());
        }
        let size = text.len() as u64 + 1;
        self.to.write_all(&header(b"././@LongLink", b"", 0o644, 0, flag, size))?;
        self.to.write_all(text)?;
        self.to.write_all(&[0])?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.to.write_all(&[0; BLOCK][..rest])
    }
}

fn header(path: &[u8], target: &[u8], mode: u32, mtime: i64, flag: u8, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(100)]);
    put(100, format!("{:07o}", mode & 0o7777).as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}").as_bytes()),
        false => {
            // The number in binary, marked by the highest bit.
            put(124, &[0x80, 0, 0, 0]);
            put(128, &size.to_be_bytes());
        }
    }
    put(136, format!("{:011o}", (mtime / 1_000_000_000).max(0)).as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("saved.tar");
        let mut archive = Archive::new(std::fs::File::create(&file).unwrap());
        let long = [b"d/".to_vec(), vec![b'n'; 200]].concat();
        archive.add(b"d", 0o755, 0, Kind::Directory, io::empty()).unwrap();
        archive.add(&long, 0o640, 1_000_000_000_000_000_000, Kind::File(5), &b"bytes"[..]).unwrap();
        archive.add(b"d/link", 0o777, 0, Kind::Link(b"elsewhere"), io::empty()).unwrap();
        archive.end().unwrap();
        let out = std::process::Command::new("tar").arg("xf").arg(&file).current_dir(dir.path()).output();
        let Ok(out) = out else { return };
        assert!(out.status.success(), "{out:?}");
        let there = dir.path().join("d").join("n".repeat(200));
        assert_eq!(std::fs::read(there).unwrap(), b"bytes");
        assert_eq!(std::fs::read_link(dir.path().join("d/link")).unwrap().to_str(), Some("elsewhere"));
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.add(b"f", 0o644, 0, Kind::File(9), &b"short"[..]).is_err());
    }
}
