//! Authors that write no more: nothing of theirs is taken, everywhere, and one entry stands for theirs.

use std::time::Duration;

use coda_proto::{
    Author, Code, Fid, Op, Past,
    wire::{self, request, response::Body},
};
use coda_server::Limits;

use crate::{
    SOON, create, everywhere,
    network::Cluster,
    world::{Client, code, store_inline},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Enough for a regular meeting.
const MEETING: Duration = Duration::from_secs(900);
/// Enough for the rounds after which every member knows that all include something.
const ROUNDS: Duration = Duration::from_secs(4 * 3600);

/// A client of this server that is none of the others, and acknowledges what it is told.
fn client(cluster: &Cluster, id: u8) -> Client {
    static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
    let name = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut client = Client::new(&cluster.server(id), cluster.home, name);
    client.attend();
    client
}

/// What a client says when it has sent everything.
async fn retire(client: &Client, authors: &[Author]) -> Vec<(Author, u64)> {
    let authors = authors.iter().map(|author| author.0).collect();
    let body = request::Body::Retire(wire::Retire { volume: client.volume.0, authors, ask: false });
    match client.call(body).await.unwrap() {
        Body::Retired(told) => told.retired.into_iter().map(|one| (Author(one.author), one.stamp)).collect(),
        other => panic!("{other:?}"),
    }
}

fn past(cluster: &Cluster, id: u8) -> Past {
    let volume = cluster.server(id).volume(cluster.home).unwrap();
    volume.read(|view| Ok(view.past(Fid::root(cluster.home))?)).unwrap().unwrap()
}

fn names(cluster: &Cluster, id: u8) -> usize {
    past(cluster, id).entries().count()
}

/// `count` clients, one after the other, each of which makes a file in the root and writes no more.
async fn passers_by(cluster: &Cluster, count: usize) -> Vec<Author> {
    let mut authors = Vec::new();
    for index in 0..count {
        let mut one = client(cluster, 1);
        let others: Vec<Client> = (2..=cluster.ids().len() as u8).map(|id| client(cluster, id)).collect();
        let (_, op) = create(&mut one, Fid::root(cluster.home), &format!("f{index}"));
        everywhere(&mut one, &others.iter().collect::<Vec<_>>(), op).await;
        authors.push(one.author);
    }
    authors
}

#[tokio::test(start_paused = true)]
async fn a_late_record_of_a_retired_author_is_refused_at_every_member() {
    let cluster = Cluster::new(3);
    let (mut one, two, three) = (client(&cluster, 1), client(&cluster, 2), client(&cluster, 3));
    let (fid, op) = create(&mut one, Fid::root(cluster.home), "f");
    everywhere(&mut one, &[&two, &three], op).await;
    let repeated = one.record(store_inline(fid, b"done")).await;
    one.apply(std::slice::from_ref(&repeated)).await.unwrap();
    let late = one.record(store_inline(fid, b"late")).await;
    // One member is told; the others hear of it, also one that was away.
    cluster.cut_off(3);
    let told = retire(&one, &[one.author]).await;
    assert_eq!(told.len(), 1);
    tokio::time::sleep(MEETING).await;
    cluster.heal();
    tokio::time::sleep(MEETING).await;
    for client in [&one, &two, &three] {
        assert_eq!(code(client.apply(std::slice::from_ref(&late)).await), Code::Retired);
        client.apply(std::slice::from_ref(&repeated)).await.expect("what was done is done");
    }
    assert_eq!(retire(&two, &[one.author]).await, told, "all agree when it was");
    let mut again = client(&cluster, 2);
    again.store(fid, b"of another").await.unwrap();
    cluster.settle(SOON).await;
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn who_was_silent_for_400_days_is_retired_and_who_was_not_is_not() {
    let cluster = Cluster::new(2);
    let (mut silent, mut busy, two) = (client(&cluster, 1), client(&cluster, 1), client(&cluster, 2));
    let (fid, op) = create(&mut silent, Fid::root(cluster.home), "f");
    everywhere(&mut silent, &[&two], op).await;
    everywhere(&mut busy, &[&two], store_inline(fid, b"1")).await;
    tokio::time::sleep(ROUNDS).await;
    cluster.pass(DAY * 250);
    everywhere(&mut busy, &[&two], store_inline(fid, b"2")).await;
    tokio::time::sleep(ROUNDS).await;
    cluster.pass(DAY * 149);
    tokio::time::sleep(ROUNDS).await;
    everywhere(&mut silent, &[&two], store_inline(fid, b"just in time")).await;
    tokio::time::sleep(ROUNDS).await;
    cluster.pass(DAY * 252);
    tokio::time::sleep(ROUNDS).await;
    let late = busy.record(store_inline(fid, b"late")).await;
    for server in [&busy, &two] {
        assert_eq!(code(server.apply(std::slice::from_ref(&late)).await), Code::Retired);
    }
    everywhere(&mut silent, &[&two], store_inline(fid, b"still here")).await;
    cluster.settle(SOON).await;
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn long_pasts_are_folded_and_members_are_equal_all_the_while() {
    let cluster = Cluster::new(3);
    tokio::time::sleep(SOON).await;
    let authors = passers_by(&cluster, 14).await;
    let (mut one, two, three) = (client(&cluster, 1), client(&cluster, 2), client(&cluster, 3));
    assert_eq!(retire(&two, &authors[..12]).await.len(), 12);
    tokio::time::sleep(ROUNDS).await;
    assert_eq!(names(&cluster, 1), 15, "clients may be away that know no better");
    cluster.pass(DAY * 31);
    let root = one.root();
    for index in 0..24 {
        tokio::time::sleep(Duration::from_secs(600)).await;
        let (_, op) = create(&mut one, root, &format!("g{index}"));
        everywhere(&mut one, &[&two, &three], op).await;
        cluster.settle(SOON).await;
    }
    for id in 1..=3 {
        // Those who stand for the twelve, two that are not retired, and who wrote last.
        assert_eq!(names(&cluster, id), 4, "at server {id}: {}", past(&cluster, id));
        assert!(past(&cluster, id).is_folded());
    }
    assert_eq!(one.names(root).await.len(), 38);
    // A base from before is taken, and so is one from after, at any member.
    let fid = Fid::directory(cluster.home, one.author, 9000);
    let op = Op::MakeDir { parent: root, name: b"d".to_vec(), fid, mode: 0o755, owner: 1 };
    everywhere(&mut one, &[&two, &three], op).await;
    cluster.settle(SOON).await;
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_folded_while_a_member_may_lack_some_of_it() {
    let cluster = Cluster::limited(3, Limits { fold_age: Duration::ZERO, ..Limits::default() });
    tokio::time::sleep(SOON).await;
    cluster.cut_off(3);
    let mut authors = Vec::new();
    for index in 0..14 {
        let (mut one, two) = (client(&cluster, 1), client(&cluster, 2));
        let (_, op) = create(&mut one, Fid::root(cluster.home), &format!("f{index}"));
        everywhere(&mut one, &[&two], op).await;
        authors.push(one.author);
    }
    // What a retired author did at the one that is cut off is heard, too.
    let mut away = client(&cluster, 3);
    let (fid, op) = create(&mut away, Fid::root(cluster.home), "away");
    everywhere(&mut away, &[], op).await;
    authors.push(away.author);
    retire(&client(&cluster, 1), &authors).await;
    cluster.pass(DAY);
    tokio::time::sleep(ROUNDS).await;
    assert_eq!((names(&cluster, 1), names(&cluster, 2)), (15, 15));
    cluster.heal();
    cluster.settle(SOON).await;
    tokio::time::sleep(ROUNDS).await;
    for id in 1..=3 {
        assert!(past(&cluster, id).is_folded() && names(&cluster, id) < 5, "at server {id}");
    }
    assert!(client(&cluster, 1).status(fid).await.is_some());
    cluster.settle(SOON).await;
    cluster.check_stores();
}

#[tokio::test(start_paused = true)]
async fn what_was_written_on_a_version_from_before_loses_nothing_and_hides_nothing() {
    let cluster = Cluster::limited(2, Limits { fold_age: Duration::ZERO, ..Limits::default() });
    tokio::time::sleep(SOON).await;
    let (mut away, two) = (client(&cluster, 1), client(&cluster, 2));
    let (fid, op) = create(&mut away, Fid::root(cluster.home), "f");
    everywhere(&mut away, &[&two], op).await;
    let mut authors = Vec::new();
    let mut early = None;
    for index in 0..14 {
        if index == 13 {
            // It has all but the last version when it goes away.
            early = Some(away.record(store_inline(fid, b"of one who was away")).await);
        }
        let mut one = client(&cluster, 1);
        everywhere(&mut one, &[&two], store_inline(fid, format!("{index}").as_bytes())).await;
        authors.push(one.author);
    }
    let known = away.record(store_inline(fid, b"of one who knows all")).await;
    retire(&two, &authors).await;
    cluster.pass(DAY);
    tokio::time::sleep(ROUNDS).await;
    let folded = away.status(fid).await.unwrap();
    assert!(folded.past.is_folded() && folded.past.entries().count() == 2, "{}", folded.past);
    for server in [&two, &away] {
        server.apply(&early.clone().into_iter().collect::<Vec<_>>()).await.unwrap();
    }
    cluster.settle(SOON).await;
    for server in [&two, &away] {
        assert_eq!(server.status(fid).await.unwrap().siblings.len(), 2, "neither had seen the other");
    }
    // One that had seen the last of theirs replaces it, and not what it had not seen.
    let known = coda_proto::Record { dot: coda_proto::Dot::new(Author(99), 1), ..known };
    for server in [&two, &away] {
        server.apply(std::slice::from_ref(&known)).await.unwrap();
    }
    cluster.settle(SOON).await;
    let left = two.status(fid).await.unwrap().siblings;
    assert_eq!(left.len(), 2, "{left:?}");
    cluster.check_stores();
}
