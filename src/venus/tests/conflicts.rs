//! Two people change one thing while they do not see each other, and find both versions afterwards.

use std::time::Duration;

use coda_proto::control::{How, Reply, Request};

use super::{parted::*, world::*};
use crate::{
    config::ConflictView,
    control::Manager,
    error::Error,
    venus::{
        VenusConfig,
        face::{Face, NodeKind, RenameMode},
    },
};

/// What shows: the plain name's contents and the other's name and contents.
async fn seen(client: &Client) -> (String, String, String) {
    let names = names(client).await;
    assert_eq!((names.len(), names[0].as_str()), (2, "f"), "{names:?}");
    let shown = client.read("f").await.unwrap();
    let other = client.read(&names[1]).await.unwrap();
    (shown, names[1].clone(), other)
}

#[tokio::test(start_paused = true)]
async fn both_versions_show_under_the_same_names_at_both_clients() {
    let parted = both_wrote("f").await;
    let (shown, name, other) = seen(&parted.a).await;
    assert_eq!(seen(&parted.b).await, (shown.clone(), name.clone(), other.clone()));
    let mut both = [shown, other.clone()];
    both.sort();
    assert_eq!(both, ["from the desk", "from the laptop"]);
    let host = if other == "from the desk" { "desk" } else { "laptop" };
    assert!(name.starts_with(&format!("f.conflict-{host}-2")), "{name}");
    let third = parted.world.client("third");
    assert_eq!(seen(&third).await.1, name);
    let file = third.stat("f").await.unwrap().id;
    for (attribute, value) in [("versions", "2"), ("state", "conflict")] {
        let attribute = format!("user.coda.{attribute}");
        let found = third.venus.getxattr(ME, file, attribute.as_bytes()).await.unwrap();
        assert_eq!(found, value.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_in_conflict_is_not_written_and_a_version_never() {
    let parted = both_wrote("f").await;
    let (shown, name, other) = seen(&parted.a).await;
    assert!(matches!(parted.a.write("f", "no").await, Err(Error::Undecided(_))));
    assert!(matches!(parted.a.write(&name, "no").await, Err(Error::Access(_))));
    parted.a.write("new", "replaces it?").await.unwrap();
    let root = parted.a.stat("").await.unwrap().id;
    let over = parted.a.venus.rename(ME, (root, b"new"), (root, b"f"), RenameMode::Replace).await;
    assert!(matches!(over, Err(Error::Undecided(_))), "{over:?}");
    let taken = parted.a.venus.mkdir(ME, root, name.as_bytes(), 0o755).await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");
    let away = parted.a.venus.rename(ME, (root, name.as_bytes()), (root, b"g"), RenameMode::Replace).await;
    assert!(matches!(away, Err(Error::CrossDirectory(_))), "a copy is made instead: {away:?}");
    parted.a.venus.unlink(ME, root, b"new").await.unwrap();
    assert_eq!(seen(&parted.b).await, (shown, name, other));
}

#[tokio::test(start_paused = true)]
async fn ours_and_theirs_are_what_this_machine_and_the_other_made() {
    for (how, contents) in [(How::Ours, "from the laptop"), (How::Theirs, "from the desk")] {
        let parted = both_wrote("f").await;
        resolve(&parted.a, "f", how).await.unwrap();
        settled(&parted, contents).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_is_what_was_written_last() {
    let parted = both_wrote("f").await;
    resolve(&parted.a, "f", How::Newest).await.unwrap();
    settled(&parted, "from the desk").await;
}

#[tokio::test(start_paused = true)]
async fn any_version_and_any_other_file_can_be_taken() {
    let parted = both_wrote("f").await;
    let (_, name, other) = seen(&parted.b).await;
    resolve(&parted.b, "f", How::Take(format!("/coda/{REALM}/{name}"))).await.unwrap();
    settled(&parted, &other).await;

    let parted = both_wrote("f").await;
    parted.b.write("merged", "both").await.unwrap();
    resolve(&parted.b, "f", How::Take(format!("/coda/{REALM}/merged"))).await.unwrap();
    let root = parted.b.stat("").await.unwrap().id;
    parted.b.venus.unlink(ME, root, b"merged").await.unwrap();
    settled(&parted, "both").await;
}

/// A file that the laptop removed and the desk wrote.
async fn came_back() -> Parted {
    let parted = Parted::new();
    parted.a.write("f", "start").await.unwrap();
    parted.b.read("f").await.unwrap();
    parted.part();
    parted.a.unlink("f").await.unwrap();
    parted.b.write("f", "from the desk").await.unwrap();
    parted.meet().await;
    parted
}

#[tokio::test(start_paused = true)]
async fn what_came_back_is_listed_until_somebody_says_that_it_stays_or_removes_it() {
    for stays in [true, false] {
        let parted = came_back().await;
        let listed = conflicts(&parted.a, &format!("/coda/{REALM}")).await;
        assert_eq!((listed.len(), listed[0].kind.as_str()), (1, "mark"), "{listed:?}");
        // What the laptop did was to remove it, and a decision does not.
        let refused = resolve(&parted.a, "f", How::Ours).await.unwrap_err();
        assert!(refused.why.contains("`rm` removes it"), "{refused:?}");
        if stays {
            resolve(&parted.a, "f", How::Newest).await.unwrap();
            settled(&parted, "from the desk").await;
        } else {
            parted.a.unlink("f").await.unwrap();
            for client in [&parted.a, &parted.b] {
                assert_eq!(client.ls("").await.unwrap(), ["home"]);
                assert!(conflicts(client, &format!("/coda/{REALM}")).await.is_empty());
            }
        }
    }
    let parted = came_back().await;
    resolve(&parted.a, "f", How::Remove).await.unwrap();
    assert_eq!(parted.b.ls("").await.unwrap(), ["home"]);
    // Whose version came back keeps it as his.
    let parted = came_back().await;
    resolve(&parted.b, "f", How::Ours).await.unwrap();
    settled(&parted, "from the desk").await;
}

#[tokio::test(start_paused = true)]
async fn a_version_renamed_to_the_name_is_the_one_that_stays() {
    let parted = both_wrote("f").await;
    let (_, name, other) = seen(&parted.a).await;
    let root = parted.a.stat("").await.unwrap().id;
    let (from, to) = ((root, name.as_bytes()), (root, &b"f"[..]));
    parted.a.venus.rename(ME, from, to, RenameMode::Replace).await.unwrap();
    settled(&parted, &other).await;
}

#[tokio::test(start_paused = true)]
async fn removing_a_version_leaves_the_other_and_removing_all_names_leaves_nothing() {
    let parted = both_wrote("f").await;
    let (shown, name, _) = seen(&parted.a).await;
    let root = parted.a.stat("").await.unwrap().id;
    parted.a.venus.unlink(ME, root, name.as_bytes()).await.unwrap();
    settled(&parted, &shown).await;

    let parted = both_wrote("f").await;
    let (_, name, other) = seen(&parted.a).await;
    let root = parted.a.stat("").await.unwrap().id;
    parted.a.venus.unlink(ME, root, b"f").await.unwrap();
    assert_eq!(parted.b.read("f").await.unwrap(), other);
    parted.a.venus.unlink(ME, root, name.as_bytes()).await.unwrap();
    assert_eq!(names(&parted.b).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn equal_contents_written_at_both_sides_are_no_conflict() {
    let parted = Parted::new();
    parted.a.write("f", "start").await.unwrap();
    parted.b.read("f").await.unwrap();
    parted.part();
    parted.a.write("f", "the same").await.unwrap();
    parted.b.write("f", "the same").await.unwrap();
    parted.meet().await;
    settled(&parted, "the same").await;
}

#[tokio::test(start_paused = true)]
async fn a_decision_made_while_a_replica_is_away_holds_when_it_comes_back() {
    let parted = both_wrote("f").await;
    seen(&parted.a).await;
    parted.world.kill(2);
    resolve(&parted.a, "f", How::Ours).await.unwrap();
    parted.world.boot(2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    parted.world.kill(1);
    assert_eq!(parted.world.client("third").read("f").await.unwrap(), "from the laptop");
    parted.world.boot(1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    settled(&parted, "from the laptop").await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_listed_with_path_machine_and_size() {
    let parted = both_wrote("f").await;
    let (_, name, _) = seen(&parted.a).await;
    let third = parted.world.client("third");
    let listed = conflicts(&third, &format!("/coda/{REALM}")).await;
    let [conflict] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((conflict.path.as_str(), conflict.kind.as_str()), ("/coda/example.org/f", "contents"));
    let mut hosts: Vec<_> = conflict.versions.iter().map(|v| (v.host.as_str(), v.length, v.ours)).collect();
    hosts.sort();
    assert_eq!(hosts, [("desk", 13, false), ("laptop", 15, false)]);
    assert_eq!(conflict.versions[1].path, format!("/coda/{REALM}/{name}"));
    let refused = resolve(&third, "f", How::Ours).await.unwrap_err();
    assert!(refused.why.contains("no version was made on this machine"), "{refused:?}");
    assert!(conflicts(&parted.a, &format!("/coda/{REALM}/home")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_version_is_read_again_without_servers_and_after_a_restart() {
    let parted = both_wrote("f").await;
    let (shown, name, other) = seen(&parted.a).await;
    parted.world.kill(1);
    parted.world.kill(2);
    assert_eq!(seen(&parted.a).await, (shown.clone(), name.clone(), other.clone()));
    let again = parted.world.crashed(&parted.a, "laptop-again");
    assert_eq!(again.read(&name).await.unwrap(), other);
    assert_eq!(again.read("f").await.unwrap(), shown);
}

/// The directory that is too large for every entry to be looked at has 64 entries in tests.
#[tokio::test(start_paused = true)]
async fn every_version_in_a_large_directory_is_listed() {
    let parted = Parted::new();
    for n in 0..80 {
        parted.a.write(&format!("f{n:02}"), "start").await.unwrap();
    }
    let contested = ["f03", "f70", "f75", "f79"];
    for name in contested {
        parted.b.read(name).await.unwrap();
    }
    parted.part();
    for name in contested {
        parted.a.write(name, "from the laptop").await.unwrap();
        parted.b.write(name, "from the desk").await.unwrap();
    }
    parted.meet().await;
    let third = parted.world.client("third");
    let versions = |names: Vec<String>| names.into_iter().filter(|name| name.contains(".conflict-")).count();
    assert_eq!(versions(names(&third).await), 4);
    assert_eq!(
        conflicts(&third, &format!("/coda/{REALM}")).await.len(),
        4,
        "more than a server tells at once"
    );
    parted.world.kill(1);
    parted.world.kill(2);
    assert_eq!(versions(names(&third).await), 4, "and without servers");
}

/// Both made a directory `d` and something in it, apart, and have met.
async fn directories_of_one_name() -> Parted {
    let parted = Parted::new();
    for client in [&parted.a, &parted.b] {
        client.ls("").await.unwrap();
    }
    parted.part();
    parted.a.mkdir("d").await.unwrap();
    parted.a.write("d/x", "x").await.unwrap();
    parted.b.mkdir("d").await.unwrap();
    parted.b.write("d/y", "y").await.unwrap();
    parted.meet().await;
    parted
}

#[tokio::test(start_paused = true)]
async fn objects_of_one_name_show_beside_each_other_after_their_machines() {
    let parted = directories_of_one_name().await;
    let listed = names(&parted.a).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(names(&parted.b).await, listed);
    assert!(
        listed[1].starts_with("d.conflict-laptop-2") || listed[1].starts_with("d.conflict-desk-2"),
        "{listed:?}"
    );
    let third = parted.world.client("third");
    let mut inside = third.ls(&listed[1]).await.unwrap();
    inside.extend(third.ls("d").await.unwrap());
    inside.sort();
    assert_eq!(inside, ["x", "y"]);
    let listed = conflicts(&third, &format!("/coda/{REALM}")).await;
    assert_eq!((listed.len(), listed[0].kind.as_str(), listed[0].versions.len()), (1, "name", 2));
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_undone_and_what_was_written_since_stays_too() {
    let parted = both_wrote("f").await;
    resolve(&parted.a, "f", How::Ours).await.unwrap();
    parted.b.write("f", "written since").await.unwrap();
    let again = parted.world.crashed(&parted.a, "laptop-again");
    again.ls("").await.unwrap();
    undo_latest(&again).await;
    let mut both = Vec::new();
    for name in names(&parted.b).await {
        both.push(parted.b.read(&name).await.unwrap());
    }
    both.sort();
    assert_eq!(both, ["from the desk", "written since"]);
    let Reply::Undoable(undos) = ask(&again, Request::Undo { id: None }).await else { panic!() };
    assert!(undos.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_removed_comes_back_too() {
    let parted = both_wrote("f").await;
    let (shown, name, other) = seen(&parted.a).await;
    let root = parted.a.stat("").await.unwrap().id;
    parted.a.venus.unlink(ME, root, name.as_bytes()).await.unwrap();
    undo_latest(&parted.a).await;
    let (now, _, back) = seen(&parted.b).await;
    let mut all = [now, back];
    all.sort();
    let mut before = [shown, other];
    before.sort();
    assert_eq!(all, before);
}

/// A name that both gave to a file of their own.
async fn both_made(name: &str) -> Parted {
    let parted = Parted::new();
    for client in [&parted.a, &parted.b] {
        client.ls("").await.unwrap();
    }
    parted.part();
    parted.a.write(name, "made on the laptop").await.unwrap();
    parted.b.write(name, "made on the desk").await.unwrap();
    parted.meet().await;
    parted
}

#[tokio::test(start_paused = true)]
async fn of_two_files_of_one_name_one_is_taken_and_the_other_comes_back_when_that_is_undone() {
    let parted = both_made("f").await;
    assert_eq!(names(&parted.a).await.len(), 2);
    resolve(&parted.a, "f", How::Theirs).await.unwrap();
    for client in [&parted.a, &parted.b] {
        assert_eq!(names(client).await, ["f"]);
        assert_eq!(client.read("f").await.unwrap(), "made on the desk");
    }
    undo_latest(&parted.a).await;
    assert_eq!(names(&parted.b).await, ["f", "f.2"]);
    assert_eq!(parted.b.read("f.2").await.unwrap(), "made on the laptop");
}

#[tokio::test(start_paused = true)]
async fn both_are_kept_under_names_of_their_own() {
    for parted in [both_made("f").await, both_wrote("f").await] {
        resolve(&parted.b, "f", How::Both).await.unwrap();
        let both = names(&parted.a).await;
        assert!(both.len() == 2 && both[0] == "f" && both[1].starts_with("f."), "{both:?}");
        assert!(!both[1].contains("conflict"), "{both:?}");
        let mut contents = Vec::new();
        for name in &both {
            contents.push(parted.a.read(name).await.unwrap());
            parted.a.write(name, "goes on").await.unwrap();
        }
        assert!(contents[0] != contents[1], "{contents:?}");
        assert!(conflicts(&parted.a, &format!("/coda/{REALM}")).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn directories_of_one_name_are_never_removed_by_a_decision() {
    let parted = directories_of_one_name().await;
    resolve(&parted.a, "d", How::Ours).await.unwrap();
    let both = names(&parted.b).await;
    assert_eq!(both.len(), 2, "{both:?}");
    assert_eq!(parted.b.read("d/x").await.unwrap(), "x");
    assert_eq!(parted.b.read(&format!("{}/y", both[1])).await.unwrap(), "y");
    assert!(conflicts(&parted.b, &format!("/coda/{REALM}")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_link_to_nowhere_stands_for_a_file_until_it_is_resolved() {
    let parted = both_wrote("f").await;
    let config = VenusConfig { conflict_view: ConflictView::Link, ..VenusConfig::default() };
    let c = parted.world.client_with("third", config);
    assert_eq!(names(&c).await, ["f"]);
    let attr = c.stat("f").await.unwrap();
    assert_eq!(attr.kind, NodeKind::Symlink);
    let target = String::from_utf8(c.venus.readlink(ME, attr.id).await.unwrap()).unwrap();
    let file = parted.a.stat("f").await.unwrap().id.fid;
    assert_eq!(target, format!("@{file}@{REALM}."));
    let root = c.stat("").await.unwrap().id;
    let line = c.venus.readdir(ME, root).await.unwrap().iter().find(|line| line.name == b"f").cloned();
    assert_eq!(line.map(|line| (line.id, line.kind)), Some((attr.id, NodeKind::Symlink)));
    resolve(&c, "f", How::Newest).await.unwrap();
    assert_eq!(c.read("f").await.unwrap(), "from the desk");
    settled(&parted, "from the desk").await;
}

#[tokio::test(start_paused = true)]
async fn an_expanded_file_is_a_directory_of_its_versions_until_it_is_collapsed() {
    let parted = both_wrote("f").await;
    let path = format!("/coda/{REALM}/f");
    let (shown, name, _) = seen(&parted.a).await;
    ask(&parted.a, Request::Expand { path: path.clone() }).await;
    assert_eq!(names(&parted.a).await, ["f"]);
    let inside = parted.a.ls("f").await.unwrap();
    assert_eq!(inside.len(), 2, "{inside:?}");
    let mut contents = Vec::new();
    for label in &inside {
        contents.push(parted.a.read(&format!("f/{label}")).await.unwrap());
    }
    contents.sort();
    assert_eq!(contents, ["from the desk", "from the laptop"]);
    assert!(matches!(parted.a.write("f/new", "no").await, Err(Error::Access(_))));
    // The other client sees nothing of it.
    assert_eq!(seen(&parted.b).await.1, name);
    let again = parted.world.crashed(&parted.a, "laptop-again");
    assert_eq!(again.ls("f").await.unwrap(), inside);
    ask(&again, Request::Collapse { path: format!("{path}/{}", inside[0]) }).await;
    assert_eq!(again.read("f").await.unwrap(), shown);
    ask(&parted.a, Request::Collapse { path: path.clone() }).await;
    assert_eq!(parted.a.read("f").await.unwrap(), shown);
    assert_eq!(seen(&parted.a).await.1, name);
    let refused = parted.a.venus.answer(ME, Request::Collapse { path }).await;
    assert!(refused.is_err());
    ask(
        &parted.a,
        Request::Resolve { path: format!("/coda/{REALM}/f"), how: Some(How::Remove), of: Vec::new() },
    )
    .await;
    assert_eq!(names(&parted.b).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_cannot_be_noted_leaves_nothing_behind_in_the_cache() {
    let parted = both_wrote("f").await;
    seen(&parted.a).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let core = &parted.a.venus.core;
    let said = |sql: &str| core.cache.store(|store| store.execute(sql)).unwrap();
    let before = core.cache.containers.list().unwrap();
    said("CREATE TRIGGER full BEFORE INSERT ON undo BEGIN SELECT RAISE(ABORT, 'full'); END");
    resolve(&parted.a, "f", How::Ours).await.unwrap_err();
    assert_eq!(core.cache.containers.list().unwrap(), before);
    said("DROP TRIGGER full");
    resolve(&parted.a, "f", How::Ours).await.unwrap();
    settled(&parted, "from the laptop").await;
}

#[tokio::test(start_paused = true)]
async fn a_list_of_conflicts_says_of_which_volumes_nobody_could_be_asked() {
    let parted = both_wrote("f").await;
    seen(&parted.a).await;
    let kinds = async || -> Vec<(String, String)> {
        let listed = conflicts(&parted.a, &format!("/coda/{REALM}")).await;
        listed.into_iter().map(|conflict| (conflict.path, conflict.kind)).collect()
    };
    let found = (format!("/coda/{REALM}/f"), "contents".to_owned());
    assert_eq!(kinds().await, std::slice::from_ref(&found));
    parted.a.venus.peers().disconnect(&[]);
    assert_eq!(kinds().await, [found, (format!("/coda/{REALM}"), "unasked".to_owned())]);
}
