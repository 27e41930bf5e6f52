//! What no server has is got out of a cache without venus.

use super::world::*;
use crate::daemon::salvage::{Salvaged, salvage};

#[tokio::test(start_paused = true)]
async fn what_no_server_has_is_got_out_of_a_cache_without_server_or_database() {
    let world = World::new(1);
    let a = world.client("a");
    a.write("sent", "sent").await.unwrap();
    a.ls("").await.unwrap();
    world.kill(1);
    a.mkdir("d").await.unwrap();
    a.write("d/short", "short").await.unwrap();
    a.write("d/long", vec![5; 70_000]).await.unwrap();
    let opened = a.open("d/short", WRITE).await.unwrap();
    opened.container.write_at(0, b"not closed").unwrap();
    let dead = world.crashed_dir(&a, "dead");
    std::fs::rename(dead.join("db"), dead.join("venus.db")).unwrap();
    std::fs::rename(dead.join("db-wal"), dead.join("venus.db-wal")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let found = salvage(&dead, &out.path().join("found")).unwrap();
    assert_eq!((found.files, found.damaged), (3, 0), "{found:?}");
    let root = a.stat("").await.unwrap().id.fid.volume.to_string();
    let place = out.path().join("found").join(REALM).join(root).join("d");
    assert_eq!(std::fs::read(place.join("short")).unwrap(), b"short");
    assert!(std::fs::read(place.join("long")).unwrap() == vec![5; 70_000]);
    assert_eq!(std::fs::read(place.join("short.being-written")).unwrap(), b"not closed");
    assert!(salvage(&dead, &out.path().join("found")).is_err(), "nothing is overwritten");
    std::fs::write(dead.join("venus.db"), b"ruined").unwrap();
    let Salvaged { files, .. } = salvage(&dead, &out.path().join("raw")).unwrap();
    assert!(files >= 3);
}
