//! What survives when the power goes.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::sleep;

use super::world::*;
use crate::{
    cache::disk::DiskContainers,
    env::{Container, Containers},
    venus::{VenusConfig, face::Face},
};

const SECOND: Duration = Duration::from_secs(1);

/// What was made to last, in order: containers by name, and what the database has yet to take in.
type Synced = Arc<Mutex<Vec<String>>>;

/// A disk that writes down what is made to last.
struct Watched(DiskContainers, Synced);

struct Open(Arc<dyn Container>, u64, Synced);

impl Watched {
    fn open_as(&self, container: Arc<dyn Container>, name: u64) -> Arc<dyn Container> {
        Arc::new(Open(container, name, self.1.clone()))
    }
}

impl Containers for Watched {
    fn create(&self, name: u64) -> io::Result<Arc<dyn Container>> {
        Ok(self.open_as(self.0.create(name)?, name))
    }
    fn open(&self, name: u64) -> io::Result<Arc<dyn Container>> {
        Ok(self.open_as(self.0.open(name)?, name))
    }
    fn copy(&self, from: u64, to: u64) -> io::Result<Arc<dyn Container>> {
        Ok(self.open_as(self.0.copy(from, to)?, to))
    }
    fn remove(&self, name: u64) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> io::Result<Vec<u64>> {
        self.0.list()
    }
    fn spool(&self, name: u64, label: &str) -> io::Result<String> {
        self.0.spool(name, label)
    }
    fn free(&self) -> io::Result<u64> {
        self.0.free()
    }
    fn sync_beside(&self, path: &Path) -> io::Result<()> {
        assert!(path.exists(), "{path:?}");
        self.1.lock().unwrap().push("log".into());
        self.0.sync_beside(path)
    }
}

impl Container for Open {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.2.lock().unwrap().push(self.1.to_string());
        self.0.sync()
    }
    fn snapshot(&self) -> io::Result<(u64, i64, i64)> {
        self.0.snapshot()
    }
    fn file(&self) -> Option<&std::fs::File> {
        self.0.file()
    }
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        self.0.next_data(offset)
    }
}

/// A client without servers, and what it makes to last.
async fn apart() -> (Arc<World>, Client, Synced) {
    let (world, synced) = (World::new(1), Synced::default());
    let config = VenusConfig { lasting: Some(SECOND / 2), ..VenusConfig::default() };
    let watched = synced.clone();
    let a = world.client_over("a", config, |disk| Arc::new(Watched(disk, watched)));
    a.write("old", "old").await.unwrap();
    a.ls("").await.unwrap();
    world.weather(1, Weather::Closed);
    a.chmod("old", 0o600).await.unwrap();
    sleep(2 * SECOND).await;
    synced.lock().unwrap().clear();
    (world, a, synced)
}

#[tokio::test(start_paused = true)]
async fn what_is_logged_lasts_within_a_second_contents_before_the_log_and_not_one_by_one() {
    let (_world, a, synced) = apart().await;
    for n in 0..5 {
        a.write(&format!("big{n}"), vec![n; 50_000]).await.unwrap();
        a.write(&format!("small{n}"), "x").await.unwrap();
        a.mkdir(&format!("d{n}")).await.unwrap();
    }
    assert!(synced.lock().unwrap().is_empty(), "nobody waited for the disk: {synced:?}");
    sleep(SECOND).await;
    let first = std::mem::take(&mut *synced.lock().unwrap());
    assert_eq!(first.len(), 6, "{first:?}");
    assert_eq!(first.iter().position(|what| what == "log"), Some(5), "contents come first: {first:?}");
    sleep(60 * SECOND).await;
    assert!(synced.lock().unwrap().is_empty(), "all of it lasted already");
    a.unlink("small1").await.unwrap();
    sleep(SECOND).await;
    assert_eq!(*synced.lock().unwrap(), ["log"]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_syncs_lasts_at_once() {
    let (_world, a, synced) = apart().await;
    let opened = a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, &[7; 50_000]).unwrap();
    a.venus.fsync(ME, opened.handle).await.unwrap();
    let order = std::mem::take(&mut *synced.lock().unwrap());
    assert_eq!(order.last().map(String::as_str), Some("log"), "{order:?}");
    assert!(order.len() >= 2, "its contents before it: {order:?}");
    a.close(opened).await.unwrap();
    a.rename("f", "g").await.unwrap();
    synced.lock().unwrap().clear();
    a.venus.fsyncdir().unwrap();
    assert_eq!(*synced.lock().unwrap(), ["log"]);
}

#[tokio::test(start_paused = true)]
async fn contents_last_before_they_are_sent() {
    let (world, a, synced) = apart().await;
    world.weather(1, Weather::Fine);
    a.write("f", vec![7; 50_000]).await.unwrap();
    assert!(synced.lock().unwrap().is_empty());
    world.counted("upload");
    a.venus.peers().probe_now();
    while world.counted("upload") == 0 {
        assert!(a.pending() > 0);
        tokio::task::yield_now().await;
    }
    assert_eq!(synced.lock().unwrap().len(), 2, "{synced:?}");
}

#[tokio::test(start_paused = true)]
async fn while_connected_nothing_is_made_to_last_that_servers_have() {
    let (world, synced) = (World::new(1), Synced::default());
    let config = VenusConfig { lasting: Some(SECOND / 2), ..VenusConfig::default() };
    let watched = synced.clone();
    let a = world.client_over("a", config, |disk| Arc::new(Watched(disk, watched)));
    a.write("f", vec![7; 50_000]).await.unwrap();
    a.mkdir("d").await.unwrap();
    sleep(2 * SECOND).await;
    assert!(synced.lock().unwrap().is_empty(), "{synced:?}");
}
