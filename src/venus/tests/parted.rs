//! Two people who do not see each other for a while, and what tests of that ask.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use coda_proto::control::{Conflict, How, Reply, Request};

use super::world::*;
use crate::control::Manager;

/// Two servers and two clients, each of which is about to see one server only.
pub struct Parted {
    pub world: Arc<World>,
    pub a: Client,
    pub b: Client,
}

impl Parted {
    pub fn new() -> Parted {
        let world = World::new(2);
        let (a, b) = (world.client("laptop"), world.client("desk"));
        Parted { world, a, b }
    }

    pub fn part(&self) {
        self.world.parted.store(true, Ordering::Relaxed);
        assert!(self.a.venus.peers().disconnect(&["srv2".into()]).is_empty());
        assert!(self.b.venus.peers().disconnect(&["srv1".into()]).is_empty());
    }

    pub async fn meet(&self) {
        self.world.parted.store(false, Ordering::Relaxed);
        for client in [&self.a, &self.b] {
            client.venus.peers().reconnect(&[]);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

/// A file that both have changed.
pub async fn both_wrote(name: &str) -> Parted {
    let parted = Parted::new();
    parted.a.write(name, "start").await.unwrap();
    parted.b.read(name).await.unwrap();
    parted.part();
    parted.a.write(name, "from the laptop").await.unwrap();
    parted.b.write(name, "from the desk").await.unwrap();
    parted.meet().await;
    parted
}

/// All names but those of what versions were made from.
pub async fn names(client: &Client) -> Vec<String> {
    let all = client.ls("").await.unwrap().into_iter();
    all.filter(|name| name != "home" && !name.ends_with(".conflict-base")).collect()
}

pub async fn conflicts(client: &Client, path: &str) -> Vec<Conflict> {
    let request = Request::Conflicts { paths: vec![path.into()] };
    match client.venus.answer(ME, request).await.unwrap() {
        Reply::Conflicts(conflicts) => conflicts,
        other => panic!("{other:?}"),
    }
}

pub async fn resolve(client: &Client, path: &str, how: How) -> Result<Reply, coda_proto::control::Failure> {
    let request = Request::Resolve { path: format!("/coda/{REALM}/{path}"), how: Some(how), of: Vec::new() };
    client.venus.answer(ME, request).await
}

/// Both see one file with these contents, and no other version.
pub async fn settled(parted: &Parted, contents: &str) {
    for client in [&parted.a, &parted.b] {
        assert_eq!(names(client).await, ["f"]);
        assert_eq!(client.read("f").await.unwrap(), contents);
        assert!(conflicts(client, &format!("/coda/{REALM}")).await.is_empty());
    }
    parted.b.write("f", "goes on").await.unwrap();
    assert_eq!(parted.a.read("f").await.unwrap(), "goes on");
}

pub async fn ask(client: &Client, request: Request) -> Reply {
    client.venus.answer(ME, request).await.unwrap()
}

/// Undoes the latest decision of a client.
pub async fn undo_latest(client: &Client) {
    let Reply::Undoable(undos) = ask(client, Request::Undo { id: None }).await else { panic!() };
    assert_eq!(undos[0].path, format!("/coda/{REALM}/f"));
    ask(client, Request::Undo { id: Some(undos[0].id) }).await;
}
