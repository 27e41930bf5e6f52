//! What versions that two people made apart were made from, and merging them by it.

use std::time::Duration;

use coda_proto::control::{How, Reply, Request};

use super::{parted::*, world::*};
use crate::{conflict::automatic::Sought, control::Manager, error::Error, venus::face::Face};

/// The laptop has changed a file while it saw no server, and the desk has meanwhile.
async fn changed_apart(ours: &str, theirs: &str) -> Parted {
    let parted = Parted::new();
    parted.a.write("f", "1\n2\n3\n4\n5\n").await.unwrap();
    parted.b.read("f").await.unwrap();
    assert!(parted.a.venus.peers().disconnect(&[]).is_empty());
    parted.a.write("f", "first try").await.unwrap();
    parted.a.write("f", ours).await.unwrap();
    parted.b.write("f", theirs).await.unwrap();
    parted.meet().await;
    parted
}

#[tokio::test(start_paused = true)]
async fn what_this_machines_version_was_made_from_shows_beside_until_it_is_decided() {
    let parted = changed_apart("ours\n", "theirs\n").await;
    for client in [&parted.a, &parted.world.crashed(&parted.a, "again")] {
        let listed = client.ls("").await.unwrap();
        assert_eq!((listed.len(), listed[2].as_str()), (4, "f.conflict-base"), "{listed:?}");
        assert_eq!(client.read("f.conflict-base").await.unwrap(), "1\n2\n3\n4\n5\n");
        assert!(matches!(client.write("f.conflict-base", "no").await, Err(Error::Access(_))));
    }
    let listed = conflicts(&parted.a, &format!("/coda/{REALM}")).await;
    assert_eq!(listed[0].base, format!("/coda/{REALM}/f.conflict-base"));
    resolve(&parted.a, "f", How::Ours).await.unwrap();
    assert!(parted.a.venus.core.cache.store(|store| store.bases()).unwrap().is_empty());
    assert!(matches!(parted.a.read("f.conflict-base").await, Err(Error::NotFound(_))));
    settled(&parted, "ours\n").await;
}

#[tokio::test(start_paused = true)]
async fn what_both_versions_were_made_from_shows_at_every_client_while_members_keep_it() {
    let parted = both_wrote("f").await;
    let third = parted.world.client("third");
    for client in [&parted.a, &parted.b, &third] {
        assert_eq!(names(client).await.len(), 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(client.ls("").await.unwrap().contains(&"f.conflict-base".into()));
        assert_eq!(client.read("f.conflict-base").await.unwrap(), "start");
    }
    let listed = conflicts(&third, &format!("/coda/{REALM}")).await;
    assert_eq!(listed[0].base, format!("/coda/{REALM}/f.conflict-base"));
    resolve(&parted.a, "f", How::Ours).await.unwrap();
    settled(&parted, "from the laptop").await;
    assert!(matches!(third.read("f.conflict-base").await, Err(Error::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_by_merges_texts_whose_common_version_members_keep() {
    let parted = Parted::new();
    parted.a.write("f", "1\n2\n3\n4\n5\n").await.unwrap();
    parted.b.read("f").await.unwrap();
    parted.part();
    // What is kept of one side in between is not what both had.
    parted.a.write("f", "A\n2\n3\n4\n").await.unwrap();
    parted.a.write("f", "A\n2\n3\n4\n5\n").await.unwrap();
    parted.b.write("f", "1\n2\n3\n4\nB\n").await.unwrap();
    parted.meet().await;
    let third = parted.world.client("third");
    resolve(&third, "f", How::Text).await.unwrap();
    settled(&parted, "A\n2\n3\n4\nB\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_in_place_leaves_behind_what_it_was_too() {
    let parted = Parted::new();
    parted.a.write("f", "1\n2\n").await.unwrap();
    parted.b.read("f").await.unwrap();
    assert!(parted.a.venus.peers().disconnect(&[]).is_empty());
    let opened = parted.a.open("f", WRITE).await.unwrap();
    opened.container.write_at(0, b"A").unwrap();
    parted.a.close(opened).await.unwrap();
    parted.b.write("f", "1\n2\n3\n").await.unwrap();
    parted.meet().await;
    assert_eq!(parted.a.read("f.conflict-base").await.unwrap(), "1\n2\n");
    let root = parted.a.stat("").await.unwrap().id;
    parted.a.venus.unlink(ME, root, b"f.conflict-base").await.unwrap();
    assert_eq!(parted.a.ls("").await.unwrap().len(), 3, "home and two versions");
}

#[tokio::test(start_paused = true)]
async fn texts_changed_in_different_places_are_merged_when_somebody_asks_and_that_can_be_undone() {
    let parted = changed_apart("A\n2\n3\n4\n5\n", "1\n2\n3\n4\nB\n").await;
    let before = names(&parted.a).await;
    resolve(&parted.a, "f", How::Text).await.unwrap();
    assert_eq!(parted.b.read("f").await.unwrap(), "A\n2\n3\n4\nB\n");
    let Reply::Undoable(undos) = parted.a.venus.answer(ME, Request::Undo { id: None }).await.unwrap() else {
        panic!()
    };
    parted.a.venus.answer(ME, Request::Undo { id: Some(undos[0].id) }).await.unwrap();
    assert_eq!(
        names(&parted.a).await.len(),
        before.len() + 1,
        "the merged one, and both that it was made of"
    );

    let parted = changed_apart("A\n", "B\n").await;
    let refused = resolve(&parted.a, "f", How::Text).await.unwrap_err();
    assert!(refused.why.contains("both changed the same lines"), "{refused:?}");
    assert_eq!(names(&parted.a).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn texts_are_merged_whole_too_when_a_decision_between_them_was_undone() {
    let parted = changed_apart("A\n2\n3\n4\n5\n", "1\n2\n3\n4\nB\n").await;
    resolve(&parted.a, "f", How::Ours).await.unwrap();
    undo_latest(&parted.a).await;
    // Both had seen what the decision was between, and neither of that is what both began from.
    resolve(&parted.world.client("third"), "f", How::Text).await.unwrap();
    settled(&parted, "A\n2\n3\n4\nB\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_merges_texts_where_what_they_were_made_from_is_known() {
    let parted = Parted::new();
    parted.a.write(".codamerge", "f text\n").await.unwrap();
    parted.a.write("f", "1\n2\n3\n").await.unwrap();
    for client in [&parted.a, &parted.b] {
        client.read("f").await.unwrap();
        client.read(".codamerge").await.unwrap();
    }
    assert!(parted.a.venus.peers().disconnect(&[]).is_empty());
    parted.a.write("f", "A\n2\n3\n").await.unwrap();
    parted.b.write("f", "1\n2\nB\n").await.unwrap();
    parted.meet().await;
    parted.a.read("f").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(parted.b.read("f").await.unwrap(), "A\n2\nB\n");
}

#[tokio::test(start_paused = true)]
async fn what_was_merged_counts_only_while_the_versions_are_those_that_were_merged() {
    let parted = both_wrote("f").await;
    parted.b.write("merged", "both").await.unwrap();
    let listed = conflicts(&parted.b, &format!("/coda/{REALM}")).await;
    let ids: Vec<String> = listed[0].versions.iter().map(|version| version.id.clone()).collect();
    let take = |of: &[String]| Request::Resolve {
        path: format!("/coda/{REALM}/f"),
        how: Some(How::Take(format!("/coda/{REALM}/merged"))),
        of: of.to_vec(),
    };
    let refused = parted.b.venus.answer(ME, take(&ids[..1])).await.unwrap_err();
    assert!(refused.why.contains("its versions changed meanwhile"), "{refused:?}");
    parted.b.venus.answer(ME, take(&ids)).await.unwrap();
    let root = parted.b.stat("").await.unwrap().id;
    parted.b.venus.unlink(ME, root, b"merged").await.unwrap();
    settled(&parted, "both").await;
}

#[tokio::test(start_paused = true)]
async fn a_history_that_grew_at_both_sides_is_merged_where_a_rule_says_so() {
    let parted = Parted::new();
    parted.a.write(".codamerge", "history append\n").await.unwrap();
    for name in ["history", "other"] {
        parted.a.write(name, "ls\n").await.unwrap();
        parted.b.read(name).await.unwrap();
    }
    parted.part();
    for name in ["history", "other"] {
        parted.a.write(name, "ls\nmake\n").await.unwrap();
        parted.b.write(name, "ls\nvi f\n").await.unwrap();
    }
    parted.meet().await;
    parted.a.ls("").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let merged = parted.b.read("history").await.unwrap();
    assert!(["ls\nmake\nvi f\n", "ls\nvi f\nmake\n"].contains(&merged.as_str()), "{merged:?}");
    let left = names(&parted.b).await;
    assert_eq!(left.len(), 4, "only the one without a rule is in conflict: {left:?}");
    assert!(left[3].starts_with("other.conflict-"), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_versions_were_made_from_is_looked_for_again_when_a_member_comes_up_that_may_know() {
    let parted = both_wrote("f").await;
    let third = parted.world.client("third");
    let file = third.stat("f").await.unwrap().id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let core = &third.venus.core;
    // As if nobody had known.
    core.forget_base(file).unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(86_400);
    core.merging.lock().unwrap().values_mut().for_each(|sought| *sought = Sought::Until(until));
    let looks = || async {
        core.cache.demote(file).unwrap();
        third.stat("f").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        core.cache.store(|store| store.base(file)).unwrap().is_some()
    };
    assert!(!looks().await, "it was looked for a moment ago");
    third.venus.peers().disconnect(&["srv2".into()]);
    third.venus.peers().reconnect(&[]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(looks().await);
}
