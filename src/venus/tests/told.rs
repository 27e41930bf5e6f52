//! What the log says names the object and its realm, in fields that can be searched for.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use super::world::World;

/// What this thread logs from now on.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_lost_is_logged_with_fid_and_realm_and_fetched_again() {
    let world = World::new(1);
    let a = world.client("a");
    a.write("f", "contents").await.unwrap();
    let b = world.client("b");
    assert_eq!(b.read("f").await.unwrap(), "contents");
    let mut folders = vec![b.dir.join("containers")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => std::fs::remove_file(entry).unwrap(),
            }
        }
    }
    // Where nobody listens, a place that logs is found uninteresting, and by another thread at any time.
    let deaf = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
    let _ = tracing::subscriber::set_global_default(deaf);
    let lines = Lines::default();
    let to = lines.clone();
    let log = tracing_subscriber::fmt().json().with_writer(move || to.clone()).finish();
    let guard = tracing::subscriber::set_default(log);
    assert_eq!(b.read("f").await.unwrap(), "contents");
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line =
        text.lines().find(|line| line.contains("a container is lost")).unwrap_or_else(|| panic!("{text:?}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["fields"]["realm"], super::world::REALM, "{line}");
    let fid = line["fields"]["fid"].as_str().unwrap();
    assert!(fid.starts_with("7f000001.2."), "{line}");
}
