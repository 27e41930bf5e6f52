//! What the log says names the object and its realm, in fields that can be searched for.

#[path = "../../../server/tests/world/lines.rs"]
mod lines;

use lines::Lines;

use super::world::World;

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
    let (lines, _guard) = Lines::begin();
    assert_eq!(b.read("f").await.unwrap(), "contents");
    let [line] = &lines.of("a container is lost")[..] else { panic!("{:?}", lines.of("")) };
    assert_eq!(line["realm"], super::world::REALM, "{line}");
    let fid = line["fid"].as_str().unwrap();
    assert!(fid.starts_with("7f000001.2."), "{line}");
}
