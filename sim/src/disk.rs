//! A client's containers, in memory. They outlive the process; when the power goes, what was not synced is
//! as if it had never been written.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use venus::env::{Container, Containers};

/// A disk of containers. Clones share it; [`Disk::after_kill`] and [`Disk::after_power_cut`] do not.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, Arc<File>>,
    spooled: Vec<[u8; 32]>,
    full: Arc<AtomicBool>,
}

struct File {
    disk_full: Arc<AtomicBool>,
    data: Mutex<Data>,
}

#[derive(Clone, Default)]
struct Data {
    now: Vec<u8>,
    /// What survives a power cut; `None`: not even the name does.
    synced: Option<Vec<u8>>,
    changes: i64,
}

impl Disk {
    /// What the next process finds when this one was killed.
    pub fn after_kill(&self) -> Disk {
        self.rebuilt(|data| Some(data.clone()))
    }

    /// What the next process finds when the power went.
    pub fn after_power_cut(&self) -> Disk {
        self.rebuilt(|data| {
            let kept = data.synced.clone()?;
            Some(Data { now: kept.clone(), synced: Some(kept), changes: data.changes + 1 })
        })
    }

    /// Whether writes that need room fail.
    pub fn set_full(&self, full: bool) {
        self.inner().full.store(full, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.inner().full.load(Ordering::Relaxed)
    }

    /// Bytes of all containers.
    pub fn used(&self) -> u64 {
        self.inner().files.values().map(|file| file.data().now.len() as u64).sum()
    }

    /// The hashes of what was moved out for people to find.
    pub fn spooled(&self) -> Vec<[u8; 32]> {
        self.inner().spooled.clone()
    }

    fn rebuilt(&self, keep: impl Fn(&Data) -> Option<Data>) -> Disk {
        let disk = Disk::default();
        let full = Arc::clone(&disk.inner().full);
        let inner = self.inner();
        let files = inner.files.iter().filter_map(|(name, file)| {
            let data = keep(&file.data())?;
            Some((*name, Arc::new(File { disk_full: Arc::clone(&full), data: Mutex::new(data) })))
        });
        let files = files.collect();
        let mut new = disk.inner();
        new.files = files;
        new.spooled = inner.spooled.clone();
        drop(new);
        disk
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder panics")
    }

    fn put(&self, name: u64, data: Data) -> Arc<dyn Container> {
        let mut inner = self.inner();
        let file = Arc::new(File { disk_full: Arc::clone(&inner.full), data: Mutex::new(data) });
        inner.files.insert(name, Arc::clone(&file));
        file
    }

    fn get(&self, name: u64) -> io::Result<Arc<File>> {
        self.inner().files.get(&name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Containers for Disk {
    fn create(&self, name: u64) -> io::Result<Arc<dyn Container>> {
        if let Ok(existing) = self.get(name) {
            existing.set_length(0)?;
            return Ok(existing);
        }
        if self.is_full() {
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(self.put(name, Data::default()))
    }

    fn open(&self, name: u64) -> io::Result<Arc<dyn Container>> {
        Ok(self.get(name)?)
    }

    fn copy(&self, from: u64, to: u64) -> io::Result<Arc<dyn Container>> {
        let now = self.get(from)?.data().now.clone();
        Ok(self.put(to, Data { now, ..Data::default() }))
    }

    fn remove(&self, name: u64) -> io::Result<()> {
        self.inner().files.remove(&name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.inner().files.keys().copied().collect())
    }

    fn spool(&self, name: u64, label: &str) -> io::Result<String> {
        let hash = *blake3::hash(&self.get(name)?.data().now).as_bytes();
        let mut inner = self.inner();
        inner.files.remove(&name);
        inner.spooled.push(hash);
        Ok(format!("spool/{name}-{label}"))
    }

    fn free(&self) -> io::Result<u64> {
        Ok(if self.is_full() { 0 } else { 1 << 40 })
    }
}

impl File {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().expect("no holder panics")
    }

    fn change(&self, grows: bool, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if grows && self.disk_full.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(28));
        }
        let mut data = self.data();
        change(&mut data.now);
        data.changes += 1;
        Ok(())
    }
}

impl Container for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.data();
        let from = (offset as usize).min(data.now.len());
        let length = buffer.len().min(data.now.len() - from);
        buffer[..length].copy_from_slice(&data.now[from..from + length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        let grows = end > self.data().now.len();
        self.change(grows, |now| {
            if grows {
                now.resize(end, 0);
            }
            now[offset as usize..end].copy_from_slice(bytes);
        })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.data().now.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let grows = length > self.data().now.len() as u64;
        self.change(grows, |now| now.resize(length as usize, 0))
    }

    fn sync(&self) -> io::Result<()> {
        let mut data = self.data();
        data.synced = Some(data.now.clone());
        Ok(())
    }

    fn snapshot(&self) -> io::Result<(u64, i64, i64)> {
        let data = self.data();
        Ok((data.now.len() as u64, data.changes, data.changes))
    }

    fn file(&self) -> Option<&std::fs::File> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(disk: &Disk, name: u64) -> Option<Vec<u8>> {
        let file = disk.open(name).ok()?;
        let mut bytes = vec![0; file.length().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn a_power_cut_loses_what_was_not_synced_and_a_kill_loses_nothing() {
        let disk = Disk::default();
        let kept = disk.create(1).unwrap();
        kept.write_at(0, b"old").unwrap();
        kept.sync().unwrap();
        kept.write_at(0, b"new!").unwrap();
        disk.create(2).unwrap().write_at(0, b"never synced").unwrap();

        let killed = disk.after_kill();
        assert_eq!(contents(&killed, 1).unwrap(), b"new!");
        assert_eq!(contents(&killed, 2).unwrap(), b"never synced");
        let cut = disk.after_power_cut();
        assert_eq!(contents(&cut, 1).unwrap(), b"old");
        assert_eq!(contents(&cut, 2), None);

        // A handle of the dead process reaches neither.
        kept.write_at(0, b"ghost").unwrap();
        assert_eq!(contents(&killed, 1).unwrap(), b"new!");
    }

    #[test]
    fn a_full_disk_takes_no_more() {
        let disk = Disk::default();
        let file = disk.create(1).unwrap();
        file.write_at(0, b"abc").unwrap();
        disk.set_full(true);
        assert!(file.write_at(1, b"xyz").is_err());
        assert!(disk.create(2).is_err());
        file.write_at(0, b"xyz").unwrap();
        assert_eq!(contents(&disk, 1).unwrap(), b"xyz");
    }
}
