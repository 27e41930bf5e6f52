//! The administrator's commands, as real processes against real servers: the walk-throughs of Coda's
//! manuals and mailing list, typed line by line, and what the manuals did not have.

#[path = "world/realm.rs"]
mod realm;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_net::{Dialer, Priority, Target, Trust, trust::read_authority};
use coda_proto::{
    Author, Base, Contents, Dot, Fid, Op, Past, Record, VolumeId,
    wire::{self, request, response::Body},
};
use realm::{Place, badly, noted, well};

impl Place {
    async fn client(&self, name: &str) -> Client {
        let port = self.servers.iter().find(|(known, ..)| known == name).unwrap().1;
        Client::connect(&self.vice(&self.servers[0].0).join("ca.pem"), port).await
    }
}

/// A client's end, as far as these tests need one.
struct Client {
    dialer: Dialer,
    target: Target,
    session: u64,
    _stream: coda_net::SessionStream,
    author: Author,
    seq: u64,
}

/// Of the files' ids; each client writes as an author of its own.
const AUTHOR: Author = Author(77);

impl Client {
    async fn connect(ca: &Path, port: u16) -> Client {
        let trust = Trust::pinned_only();
        trust.pin("test.example", read_authority(ca).unwrap());
        let dialer = Dialer::new(Arc::new(trust), None).unwrap();
        let target = Target { realm: "test.example".into(), host: "127.0.0.1".into(), port, server: None };
        let hello = wire::Hello { protocol: 1, instance: vec![1; 16].into(), ..Default::default() };
        let (welcome, stream) = dialer.session(&target, hello, Duration::from_secs(10)).await.unwrap();
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let author = Author(NEXT.fetch_add(1, Ordering::Relaxed));
        Client { dialer, target, session: welcome.session, _stream: stream, author, seq: 0 }
    }

    async fn call(&self, body: request::Body) -> (Body, Bytes) {
        let request = wire::Request { session: self.session, body: Some(body), ..Default::default() };
        let silence = Duration::from_secs(10);
        let call = self.dialer.call(&self.target, request, Bytes::new(), Priority::Foreground, silence);
        let (response, bulk) = call.await.unwrap();
        (response.body.unwrap(), bulk)
    }

    async fn volume(&self, name: &str) -> wire::VolumeInfo {
        match self.call(request::Body::GetVolume(wire::GetVolume { name: name.into(), id: 0 })).await.0 {
            Body::Volume(info) => info,
            other => panic!("{other:?}"),
        }
    }

    async fn past(&self, fid: Fid) -> Past {
        let get = wire::GetAttr { volume: fid.volume.0, fids: vec![fid.into()] };
        match self.call(request::Body::GetAttr(get)).await.0 {
            Body::Attributes(mut found) if !found.statuses.is_empty() => {
                found.statuses.remove(0).past.unwrap().try_into().unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn apply(&mut self, volume: &wire::VolumeInfo, bases: &[Fid], op: Op) -> Body {
        let mut known = Vec::new();
        for fid in bases {
            known.push(Base { fid: *fid, past: self.past(*fid).await });
        }
        self.seq += 1;
        let dot = Dot::new(self.author, self.seq);
        let record = Record {
            dot,
            lamport: 10 + self.seq,
            time: 1,
            changed: 1,
            bases: known,
            logged: false,
            host: String::new(),
            op,
        };
        let records = vec![(&record).into()];
        let apply = wire::Apply { volume: volume.id, epoch: volume.epoch, records };
        self.call(request::Body::Apply(apply)).await.0
    }

    /// A new file with these contents, the `number`-th of this client.
    async fn write(&mut self, volume: &str, number: u32, text: &str) {
        let info = self.volume(volume).await;
        let id = VolumeId(info.id);
        let (root, fid) = (Fid::root(id), Fid::file(id, AUTHOR, number));
        let name = format!("f{number}").into_bytes();
        let create = Op::Create { parent: root, name, fid, mode: 0o644, owner: 0 };
        assert!(matches!(self.apply(&info, &[root], create).await, Body::Applied(_)));
        let store = Op::Store {
            fid,
            length: text.len() as u64,
            hash: *blake3::hash(text.as_bytes()).as_bytes(),
            mtime: 1,
            contents: Contents::Inline(Bytes::copy_from_slice(text.as_bytes())),
            mode: None,
        };
        assert!(matches!(self.apply(&info, &[fid], store).await, Body::Applied(_)));
    }

    async fn read(&self, volume: &str, number: u32) -> Option<String> {
        let id = VolumeId(self.volume(volume).await.id);
        let fid = Fid::file(id, AUTHOR, number);
        let fetch = wire::Fetch { fid: Some(fid.into()), length: 1000, ..Default::default() };
        match self.call(request::Body::Fetch(fetch)).await {
            (Body::Fetched(_), bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            (Body::Refusal(_), _) => None,
            other => panic!("{other:?}"),
        }
    }
}

/// The steps of "Dynamically add replicated server", for one more replica on `new`.
async fn add_replica_as_in_the_manual(place: &Place, new: &str) {
    // Look at the VRList, and pull the volume's name, id, number of entries and ids from it.
    let words = place.vrlist("myvol");
    let (id, entries) = (&words[1], words[2].parse::<usize>().unwrap());
    assert!(noted(place.run(&format!("volutil setlogparms {id} reson 4"))).contains("Set Log parameters"));
    let line = format!("volutil -h {new} create_rep /vicepa myvol.{entries} {id}");
    let said = well(place.run(&line));
    let (status, why) = badly(place.run(&line));
    assert!(status == 5 && why.contains("already"), "a name that exists anywhere is refused: {why}");
    // The second word is the id; scripts depend on it.
    let made = said.split(' ').nth(1).unwrap();
    // It goes where the first zero is, and the number of entries grows by one.
    let list = well(place.run("printvrdb"));
    let mut edited = words.clone();
    edited[2] = (entries + 1).to_string();
    let zero = edited.iter().skip(3).position(|id| id == "00000000").unwrap() + 3;
    edited[zero] = made.to_owned();
    let list = list.replace(&words.join(" "), &edited.join(" "));
    fs::write(place.file("VRList"), list).unwrap();
    let built = noted(place.run(&format!("bldvldb.sh {new}")));
    for line in [
        "Fetching volume lists from servers:".to_owned(),
        format!("V_BindToServer: binding to host {new}"),
        "GetVolumeList finished successfully".to_owned(),
        format!("{new} - success"),
        "V_BindToServer: binding to host scm".to_owned(),
        "VLDB completed.".to_owned(),
    ] {
        assert!(built.lines().any(|found| found == line), "{line:?} in\n{built}");
    }
    let scm = place.servers[0].1;
    let made = noted(place.run(&format!("volutil -h 127.0.0.1:{scm} makevrdb VRList")));
    assert!(made.contains("VRDB completed."), "{made}");
    // Nobody has to walk the tree.
    well(place.run("volutil sync-status myvol --wait"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_that_adds_a_replicated_server_works_for_a_second_and_a_third_one() {
    let mut place = Place::new("scm");
    place.join("replica");
    assert_eq!(well(place.run("createvol_rep myvol scm")), "Volume 7f000002 (myvol) created \n");
    let mut scm = place.client("scm").await;
    scm.write("myvol", 1, "there before").await;

    add_replica_as_in_the_manual(&place, "replica").await;
    let info = well(place.run("getvolinfo scm myvol"));
    let port = place.servers[0].1;
    let wanted = format!(
        "RPC2 connection to scm:{port} successful.\n\
         Returned volume information for myvol\n\
         \tVolumeId 7f000002\n\
         \tReplicated volume (type 3)\n\n\
         \tType0 id 0\n\tType1 id 0\n\tType2 id 0\n\tType3 id 7f000002\n\tType4 id 0\n\n\
         \tServerCount 2\n\
         \tReplica0 id 01000002, Server0 127.0.0.1\n\
         \tReplica1 id 02000001, Server1 127.0.0.1\n"
    );
    assert!(info.starts_with(&wanted), "{info}");
    assert!(info.ends_with("\tReplica7 id 0, Server7 0.0.0.0\n\n\tVSGAddr 0\n"), "{info}");
    let replica = place.client("replica").await;
    assert_eq!(replica.read("myvol", 1).await.as_deref(), Some("there before"));

    place.join("third");
    add_replica_as_in_the_manual(&place, "third").await;
    assert_eq!(
        place.vrlist("myvol").join(" "),
        "myvol 7f000002 3 01000002 02000001 03000001 00000000 00000000 00000000 00000000 00000000 0"
    );
    assert_eq!(place.client("third").await.read("myvol", 1).await.as_deref(), Some("there before"));

    // A count that contradicts its ids, as on the mailing list, is refused with line and reason.
    let list = well(place.run("printvrdb")).replace("myvol 7f000002 3", "myvol 7f000002 1");
    fs::write(place.file("VRList"), list).unwrap();
    let (status, why) = badly(place.run("volutil makevrdb VRList"));
    assert!(status == 5 && why.contains("VRList:2: the count says 1 replicas, and 3 ids follow"), "{why}");
    // Turning the log off and on again around a restart hurts nothing.
    assert!(noted(place.run("volutil setlogparms 7f000002 reson 0")).contains("nothing is changed"));
    drop(scm);
    place.kill("scm");
    place.start("scm");
    well(place.run("volutil setlogparms 7f000002 reson 4"));
    place.client("scm").await.write("myvol", 2, "the first change after it").await;

    // What is no more says so, and is a mistake to call.
    let (status, why) = badly(place.run("updatesrv"));
    assert!(status == 2 && why.lines().count() == 1 && why.contains("SCM"), "{why}");
    assert_eq!(badly(place.run("volutil peek 0x100")).0, 2);
    assert_eq!(badly(place.run("volutil add-replica myvol scm")).0, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_server_fails_and_its_replica_is_moved_to_another() {
    let mut place = Place::new("scm");
    place.join("nonscm");
    well(place.run("createvol_rep web scm nonscm"));
    let mut client = place.client("scm").await;
    client.write("web", 1, "before").await;
    place.kill("nonscm");
    client.write("web", 2, "while one is away").await;
    // It comes back: nothing manual.
    place.start("nonscm");
    well(place.run("volutil sync-status web --wait"));
    let back = place.client("nonscm").await;
    let start = tokio::time::Instant::now();
    while back.read("web", 2).await.as_deref() != Some("while one is away") {
        assert!(start.elapsed() < Duration::from_secs(30), "it is never told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It is lost for good: another takes its place, and it goes by force.
    drop(back);
    place.join("third");
    place.kill("nonscm");
    well(place.run("volutil add-replica web third --wait"));
    let (status, why) = badly(place.run("volutil remove-replica web nonscm --force"));
    assert!(status == 4 && why.contains("--yes"), "{why}");
    assert!(noted(place.run("volutil remove-replica web nonscm --force --dry-run")).contains("would do"));
    well(place.run("volutil remove-replica web nonscm --force --yes"));
    let status = well(place.run("volutil --json sync-status web --wait"));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let on: Vec<&str> =
        status["members"].as_array().unwrap().iter().map(|m| m["server"].as_str().unwrap()).collect();
    assert_eq!((on, status["settled"].as_bool()), (vec!["scm", "third"], Some(true)));
    assert_eq!(place.client("third").await.read("web", 2).await.as_deref(), Some("while one is away"));
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_cloned_backed_up_dumped_restored_and_purged() {
    let mut place = Place::new("one");
    place.join("two");
    well(place.run("createvol_rep src one two"));
    let mut client = place.client("one").await;
    client.write("src", 1, "first").await;

    // A clone and a backup keep what was; nobody changes them.
    assert_eq!(
        well(place.run("volutil clone src")),
        "VolClone: New Volume id = 7f000003\nVolClone: New Volume name is src.readonly\n"
    );
    assert_eq!(well(place.run("volutil backup src")), "Backup (id = 7f000004) of Volume 7f000002 created\n");
    well(place.run("volutil dump src full.dump"));
    client.write("src", 2, "second").await;
    assert_eq!(client.read("src.readonly", 1).await.as_deref(), Some("first"));
    assert_eq!(client.read("src.readonly", 2).await, None);
    let frozen = client.volume("src.readonly").await;
    let root = Fid::root(VolumeId(frozen.id));
    let op = Op::SetAttr { fid: root, mode: Some(0o700), owner: None, group: None, mtime: None, atime: None };
    match client.apply(&frozen, &[root], op).await {
        Body::Refusal(refusal) => assert!(refusal.detail.contains("read-only"), "{refusal:?}"),
        other => panic!("{other:?}"),
    }
    well(place.run("volutil sync-status src.readonly --wait"));
    assert_eq!(place.client("two").await.read("src.readonly", 1).await.as_deref(), Some("first"));
    // The next backup takes the place of the former.
    assert_eq!(well(place.run("volutil backup src")), "Backup (id = 7f000005) of Volume 7f000002 created\n");
    assert_eq!(client.read("src.backup", 2).await.as_deref(), Some("second"));
    assert_eq!(client.volume("src.backup").await.id, 0x7f00_0005);

    // Full and incremental dumps; what is damaged or cut off is refused with the offset, and changes nothing.
    well(place.run("volutil dump src more.dump --since full.dump"));
    let before = well(place.run("volutil list"));
    let whole = fs::read(place.file("full.dump")).unwrap();
    fs::write(place.file("cut.dump"), &whole[..whole.len() - 20]).unwrap();
    let (status, why) = badly(place.run("volutil restore -f cut.dump x"));
    assert_eq!(status, 6);
    assert!(why.contains(&format!("cut off at offset {}", whole.len() - 20)), "{why}");
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 4;
    fs::write(place.file("bad.dump"), bad).unwrap();
    let (status, why) = badly(place.run("volutil restore -f bad.dump x"));
    assert!(status == 6 && why.contains("damaged at offset"), "{why}");
    assert_eq!(badly(place.run("volutil restore -f more.dump x")).0, 5, "it follows a full one");
    assert_eq!(well(place.run("volutil list")), before);

    let made = well(place.run("volutil restore -f full.dump"));
    assert_eq!(made.trim(), "VolRestore successful, created 7f000006");
    assert_eq!(client.read("src.restored", 1).await.as_deref(), Some("first"));
    assert_eq!(client.read("src.restored", 2).await, None);
    well(place.run("volutil restore -f full.dump -f more.dump both --on two one --writable"));
    well(place.run("volutil sync-status both --wait"));
    for server in ["one", "two"] {
        let client = place.client(server).await;
        assert_eq!(client.read("both", 1).await.as_deref(), Some("first"), "{server}");
        assert_eq!(client.read("both", 2).await.as_deref(), Some("second"), "{server}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&well(place.run("volutil --json readdump more.dump"))).unwrap();
    assert!(json["header"]["follows"].is_string() && json["contents"] == 1, "{json}");

    // Levels find by themselves what they follow.
    fs::create_dir(place.file("levels")).unwrap();
    assert_eq!(badly(place.run("volutil dump src levels/early --level 1")).0, 5);
    well(place.run("volutil dump src levels/month --level 0"));
    well(place.run("volutil dump src levels/week --level 1"));
    // A client that acknowledges nothing, as the first one, was fenced meanwhile.
    place.client("one").await.write("src", 3, "third").await;
    well(place.run("volutil dump src levels/day -i 2"));
    well(place.run("volutil dump src levels/later-week -i 1"));
    assert_eq!(badly(place.run("volutil restore -f levels/month -f levels/day x")).0, 5);
    well(place.run("volutil restore -f levels/month -f levels/week -f levels/day daily --writable"));
    well(place.run("volutil restore -f levels/month -f levels/later-week weekly --writable"));
    for volume in ["daily", "weekly"] {
        assert_eq!(place.client("one").await.read(volume, 3).await.as_deref(), Some("third"), "{volume}");
        well(place.run(&format!("purgevol_rep --kill {volume}")));
    }

    // What is destroyed is asked for, by its name.
    assert_eq!(badly(place.run("volutil purge both")).0, 4);
    assert_eq!(badly(place.run("volutil purge 7f000007 src --yes")).0, 5);
    well(place.run("purgevol_rep both"));
    assert!(well(place.run("volutil list")).contains("both"), "a dry run, unless told otherwise");
    assert!(well(place.run("purgevol_rep --kill both")).contains("(both) successfully purged"));
    assert!(!well(place.run("volutil list")).contains("both"));
    assert!(!place.vice("two").join("vol/02000005").exists(), "its room is free again");

    // Quota, lock, service.
    well(place.run("volutil quota src 1000"));
    assert!(well(place.run("volutil quota src")).starts_with("maxquota = 1000"));
    assert!(well(place.run("volutil info src")).contains("maxquota = 1000, minquota = 0, maxfiles = 0"));
    assert_eq!(well(place.run("volutil lock src")), "Locked volume 7f000002\n");
    assert_eq!(well(place.run("volutil unlock src")), "Volume 7f000002 is unlocked.\n");
    // A client that acknowledges nothing, as this one, was fenced meanwhile: each look is a new one's.
    well(place.run("volutil offline src --yes"));
    assert_eq!(place.client("one").await.read("src", 1).await, None);
    well(place.run("volutil online src"));
    assert_eq!(place.client("one").await.read("src", 1).await.as_deref(), Some("first"));
    assert!(well(place.run("volutil salvage src")).contains("all 2 members are equal"));

    // Stores are sound after all that.
    for name in ["one", "two"] {
        place.kill(name);
        let check = Command::new(env!("CARGO_BIN_EXE_codasrv"))
            .args(["check", "--repair", "--yes", "--json", "--dir"])
            .arg(place.vice(name))
            .output()
            .unwrap();
        assert!(well(check).contains("\"sound\":true"));
        // Nobody is there to be asked.
        let codasrv = |arguments: &[&str]| {
            let dir = place.vice(name);
            Command::new(env!("CARGO_BIN_EXE_codasrv"))
                .args(arguments)
                .arg("--dir")
                .arg(dir)
                .output()
                .unwrap()
        };
        for line in [&["accept"][..], &["check", "--repair"]] {
            assert!(badly(codasrv(line)).1.contains("--yes"), "{line:?}");
        }
        assert_eq!(well(codasrv(&["accept", "--dry-run"])), "");
        let told = well(codasrv(&["accept", "--dry-run", "--json"]));
        assert!(serde_json::from_str::<serde_json::Value>(&told).unwrap()["would_do"].is_string());
        assert!(well(codasrv(&["check", "--repair", "--dry-run"])).ends_with(": sound\n"));
    }
}
