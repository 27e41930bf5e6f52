//! What files were before they were written: who is told, and who is not.

mod world;

use coda_proto::{
    Acl, Code, Dot, Fid, Op, Rights,
    wire::{self, request, response::Body},
};
use world::{Client, Place, assert_sound, code, store_inline};

/// The versions that the server keeps of a file besides the present one.
async fn formers(client: &Client, file: Fid) -> Vec<Dot> {
    let ask = wire::ListFormer { fid: Some(file.into()) };
    match client.call(request::Body::ListFormer(ask)).await.unwrap() {
        Body::Formers(told) => {
            let version = |former: wire::Former| former.version.unwrap().dot.unwrap().try_into().unwrap();
            told.former.into_iter().map(version).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Contents of a former version.
async fn fetch(client: &Client, file: Fid, dot: Dot) -> Result<Vec<u8>, coda_proto::Refusal> {
    let (fid, dot) = (Some(file.into()), Some(dot.into()));
    let fetch = wire::Fetch { fid, dot, offset: 0, length: 1 << 20, holes: false };
    Ok(client.call_with(request::Body::Fetch(fetch), bytes::Bytes::new()).await?.1.to_vec())
}

/// A file in a directory that was `secret` before it was written again.
async fn written_again(a: &mut Client, dir: Fid, name: &str) -> (Fid, Dot) {
    let file = a.create(dir, name).await.unwrap();
    a.run(store_inline(file, b"secret")).await.unwrap();
    a.run(store_inline(file, b"for everybody")).await.unwrap();
    let [before] = formers(a, file).await[..] else { panic!("one former version") };
    assert_eq!(fetch(a, file, before).await.unwrap(), b"secret");
    (file, before)
}

/// A directory that only administrators may read, and such a file in it.
async fn written_again_in_a_closed_directory(admin: &mut Client) -> (Fid, Fid, Dot) {
    let root = admin.root();
    let dir = admin.mkdir(root, "closed").await.unwrap();
    admin.run(Op::SetAcl { fid: dir, acl: acl(Rights(0)) }).await.unwrap();
    let (file, before) = written_again(admin, dir, "f").await;
    (dir, file, before)
}

fn acl(any: Rights) -> Acl {
    Acl::root(any)
}

#[tokio::test]
async fn what_a_file_was_before_its_directory_was_opened_is_told_to_nobody() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let (mut admin, any) = (Client::admin(&server, place.home), Client::new(&server, place.home, 1));
    let (dir, file, before) = written_again_in_a_closed_directory(&mut admin).await;
    assert_eq!(code(fetch(&any, file, before).await), Code::Access);
    // Rights of another kind open nothing, and neither does what takes rights away.
    admin.run(Op::SetAcl { fid: dir, acl: acl(Rights::LOOKUP) }).await.unwrap();
    assert_eq!(fetch(&admin, file, before).await.unwrap(), b"secret");
    admin.run(Op::SetAcl { fid: dir, acl: acl(Rights::ALL) }).await.unwrap();
    assert!(formers(&any, file).await.is_empty());
    assert_eq!(code(fetch(&any, file, before).await), Code::Gone);
    assert_eq!(any.fetch(file, 0, 100).await.unwrap()[..], b"for everybody"[..]);
    server.stop();
    assert_sound(&place);
}

#[tokio::test]
async fn what_a_file_was_before_it_moved_to_another_directory_is_told_to_nobody() {
    let place = Place::new(Rights::ALL);
    let server = place.open();
    let (mut admin, any) = (Client::admin(&server, place.home), Client::new(&server, place.home, 1));
    let (dir, file, before) = written_again_in_a_closed_directory(&mut admin).await;
    let root = admin.root();
    let rename = |from, from_name: &str, to, to_name: &str| Op::Rename {
        from,
        from_name: from_name.into(),
        to,
        to_name: to_name.into(),
        fid: file,
        replaced: None,
    };
    admin.run(rename(dir, "f", dir, "g")).await.unwrap();
    assert_eq!(fetch(&admin, file, before).await.unwrap(), b"secret", "it is where it was");
    admin.run(rename(dir, "g", root, "g")).await.unwrap();
    assert!(formers(&any, file).await.is_empty());
    assert_eq!(code(fetch(&any, file, before).await), Code::Gone);
    server.stop();
    assert_sound(&place);
}
