//! The server's directory in the shape that people know: `db/servers`, `db/VRList`, `db/scm` and the others are
//! written whenever the realm changes.
//!
//! A file that somebody has edited and not imported yet is left alone; what it would be is written beside it, as
//! `NAME.now`. An edit that says nothing new (because it was imported) is no edit.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coda_proto::{Acl, Rights, ServerId, wire};

use super::overtaken;
use crate::{
    Server,
    location::{FileError, Realm, load, servers, vrlist},
};

/// How often FTREEDB and VolumeList, which say what replicas hold, are written anew.
const OFTEN: Duration = Duration::from_secs(10);

/// The files that may be edited and imported.
pub const EDITED: [&str; 3] = ["servers", "VRList", "scm"];

/// The files of `db`, by name.
pub fn files(realm: &Realm) -> BTreeMap<&'static str, String> {
    let name = |id: ServerId| realm.servers.get(&id).map_or_else(|| id.to_string(), |info| info.name.clone());
    let list = vrlist::text(realm.volumes.values().map(|volume| &volume.info));
    let mut vldb = String::new();
    for volume in realm.volumes.values() {
        let info = &volume.info;
        vldb += &format!("{} {:08x} replicated", info.name, info.id);
        for member in &info.members {
            vldb += &format!(" {:08x}@{}", member.replica, member.server);
        }
        vldb.push('\n');
    }
    BTreeMap::from([
        ("servers", servers::text(&realm.servers)),
        ("VRDB", format!("# made of VRList, which is what is loaded; `volutil makevrdb` loads it\n{list}")),
        ("VRList", list),
        ("VLDB", format!("# NAME GROUP TYPE REPLICA@SERVER...; made of VRList\n{vldb}")),
        ("scm", format!("{}\n", name(realm.scm))),
        ("ROOTVOLUME", format!("{}\n", realm.root_volume)),
        ("maxgroupid", format!("{}\n", realm.next_volume().0)),
    ])
}

/// What somebody has written into the three files, compared with the realm as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Edits {
    /// Text of `db/servers`.
    pub servers: String,
    /// Text of `db/VRList`.
    pub vrlist: String,
    /// Another SCM, where `db/scm` names one.
    pub scm: Option<ServerId>,
    /// What the other two change.
    pub difference: Vec<String>,
}

/// Reads the files of `db` in a server's directory.
pub fn edits(dir: &Path, realm: &Realm) -> Result<Edits, FileError> {
    let now = files(realm);
    let text = |name: &str| match fs::read_to_string(dir.join("db").join(name)) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(now[name].clone()),
        Err(error) => Err(FileError::new(name, 0, error.to_string())),
    };
    if !EDITED.iter().any(|name| dir.join("db").join(name).exists()) {
        let why =
            "none of db/servers, db/VRList and db/scm is there; --vicedir names the directory of a server";
        return Err(FileError::new(&dir.display().to_string(), 0, why));
    }
    let (servers, vrlist, scm) = (text("servers")?, text("VRList")?, text("scm")?);
    for (name, text) in [("servers", &servers), ("VRList", &vrlist)] {
        overtaken::refuse(&dir.join("db").join(name), text, &now[name])?;
    }
    let new = load::load(realm, &servers, &vrlist, &Acl::root(Rights(0)))?;
    let scm = scm.trim();
    let named = new.servers.iter().find(|(id, info)| info.name == scm || id.to_string() == scm);
    let named = named.ok_or_else(|| FileError::new("scm", 1, format!("{scm}: no such server")))?;
    let scm = Some(*named.0).filter(|id| *id != realm.scm);
    Ok(Edits { servers, vrlist, scm, difference: load::difference(realm, &new) })
}

/// Writes all files of `db`. Answers those that were edited, and left alone.
pub fn write_db(dir: &Path, realm: &Realm) -> io::Result<Vec<&'static str>> {
    let db = dir.join("db");
    fs::create_dir_all(&db)?;
    let mut edited = Vec::new();
    for (name, text) in files(realm) {
        let (path, beside) = (db.join(name), db.join(format!("{name}.now")));
        let there = fs::read_to_string(&path).ok();
        let ours = fs::read_to_string(db.join(format!(".{name}.written"))).ok();
        let untouched = there.is_none() || there == ours || there.as_ref() == Some(&text);
        if !untouched && EDITED.contains(&name) && !says_the_same(dir, realm) {
            edited.push(name);
            replace(&beside, &text)?;
            continue;
        }
        if there.as_ref() != Some(&text) {
            replace(&path, &text)?;
        }
        // What was written last, so that an edit is told from an old state.
        if ours.as_ref() != Some(&text) {
            replace(&db.join(format!(".{name}.written")), &text)?;
        }
        match fs::remove_file(beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(edited)
}

fn says_the_same(dir: &Path, realm: &Realm) -> bool {
    edits(dir, realm).is_ok_and(|edits| edits.scm.is_none() && edits.difference.is_empty())
}

/// A reader sees the old file or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, text)?;
    fs::rename(beside, path)
}

/// `vol/VolumeList` and the partition's FTREEDB: what the replicas here hold. FTREEDB is empty while none
/// of them holds anything but its root.
fn write_volumes(dir: &Path, partition: &Path, server: &Server) -> anyhow::Result<()> {
    let realm = server.realm();
    let (mut list, mut tree) = (format!("P{} H{}\n", partition.display(), server.id()), String::new());
    for (id, volume) in server.volumes() {
        let Some(entry) = realm.volumes.get(&id) else { continue };
        let Some(member) = realm.replica_at(id, server.id()) else { continue };
        let (used, changes) = volume.read(|view| {
            let row = view.volume_row()?;
            Ok((row.used, row.change_seq))
        })?;
        let name = format!("{}.{}", entry.info.name, member.slot);
        list += &format!(
            "W{name} I{:x} H{:x} P{} U{used:x} W{:x}\n",
            member.replica,
            server.id().0,
            partition.display(),
            entry.info.id
        );
        // Making the root is the first change, and no population.
        if changes > 1 {
            tree += &format!("{:08x} {name} changes={changes} blocks={used}\n", member.replica);
        }
    }
    fs::create_dir_all(dir.join("vol"))?;
    fs::create_dir_all(partition)?;
    for (path, text) in [(dir.join("vol/VolumeList"), list), (partition.join("FTREEDB"), tree)] {
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            replace(&path, &text)?;
        }
    }
    Ok(())
}

/// Where FTREEDB of a server's directory is, given the setting.
pub fn partition(dir: &Path, setting: &Path) -> PathBuf {
    dir.join(setting)
}

/// Keeps the files as the realm is, until the server stops.
pub async fn keep(server: Arc<Server>, setting: PathBuf) {
    let dir = server.config().dir.clone();
    let weak = Arc::downgrade(&server);
    drop(server);
    let (mut written, mut said) = (None, Vec::new());
    while let Some(server) = weak.upgrade().filter(|server| !server.is_stopped()) {
        let realm = server.realm();
        // Somebody may have edited meanwhile, or imported what was edited.
        if written != Some(realm.config) || !said.is_empty() {
            match write_db(&dir, &realm) {
                Ok(edited) => {
                    if edited != said && !edited.is_empty() {
                        tracing::warn!(files = ?edited, "edited and not imported: `volutil import` shows and takes it");
                    }
                    (written, said) = (Some(realm.config), edited);
                }
                Err(error) => tracing::warn!(%error, "db cannot be written"),
            }
        }
        if let Err(error) = write_volumes(&dir, &partition(&dir, &setting), &server) {
            tracing::warn!(%error, "VolumeList and FTREEDB cannot be written");
        }
        let changed = server.realm_changed();
        drop(server);
        tokio::select! {
            biased;
            () = changed => {}
            () = tokio::time::sleep(OFTEN) => {}
        }
    }
}

/// The name in `hostname`, as people expect it in the directory.
pub fn write_hostname(dir: &Path, own: Option<&wire::ServerInfo>) -> io::Result<()> {
    match own {
        Some(own) => replace(&dir.join("hostname"), &format!("{}\n", own.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup;

    fn realm() -> Realm {
        let info = |id: u32| wire::ServerInfo { id, name: format!("s{id}"), endpoints: Vec::new() };
        setup::realm("r", vec![info(1), info(2)], Rights::ALL).unwrap()
    }

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join("db").join(name)).unwrap()
    }

    #[test]
    fn the_files_follow_the_realm() {
        let (dir, mut realm) = (tempfile::tempdir().unwrap(), realm());
        assert!(write_db(dir.path(), &realm).unwrap().is_empty());
        assert_eq!(read(dir.path(), "scm"), "s1\n");
        assert_eq!(read(dir.path(), "servers"), "# NAME[:PORT] ID\ns1\t1\ns2\t2\n");
        assert!(read(dir.path(), "VRList").starts_with("/ 7f000001 2 01000001 02000001"));
        assert!(read(dir.path(), "VLDB").contains("/ 7f000001 replicated 01000001@1 02000001@2"));
        assert_eq!(read(dir.path(), "ROOTVOLUME"), "/\n");
        realm.scm = ServerId(2);
        setup::add_volume(&mut realm, "home", Rights::ALL);
        assert!(write_db(dir.path(), &realm).unwrap().is_empty());
        assert_eq!(read(dir.path(), "scm"), "s2\n");
        assert!(read(dir.path(), "VRDB").contains("home 7f000002"));
    }

    #[test]
    fn an_edited_file_is_left_alone_until_it_says_nothing_new() {
        let (dir, mut realm) = (tempfile::tempdir().unwrap(), realm());
        write_db(dir.path(), &realm).unwrap();
        let edited = "# mine\n/ 7f000001 2 1000001 2000001 0 0 0 0 0 0\nx 7f000002 1 2000002 0 0 0 0 0 0 0\n";
        fs::write(dir.path().join("db/VRList"), edited).unwrap();
        setup::add_volume(&mut realm, "home", Rights::ALL);
        assert_eq!(write_db(dir.path(), &realm).unwrap(), ["VRList"]);
        assert_eq!(read(dir.path(), "VRList"), edited);
        assert!(read(dir.path(), "VRList.now").contains("home"));
        // The realm becomes what the file says: it is no edit any more.
        realm.volumes.get_mut(&coda_proto::VolumeId(0x7f00_0002)).unwrap().info = wire::VolumeInfo {
            id: 0x7f00_0002,
            name: "x".into(),
            epoch: 1,
            members: vec![wire::Member { slot: 0, replica: 0x0200_0002, server: 2, state: 2 }],
        };
        assert!(write_db(dir.path(), &realm).unwrap().is_empty());
        assert!(read(dir.path(), "VRList").starts_with("/ 7f000001 2 01000001"));
        assert!(!dir.path().join("db/VRList.now").exists());
    }

    #[test]
    fn a_directory_without_the_files_is_named() {
        let (dir, realm) = (tempfile::tempdir().unwrap(), realm());
        assert!(edits(dir.path(), &realm).unwrap_err().to_string().contains("--vicedir"));
    }

    #[test]
    fn another_name_in_db_scm_is_a_promotion() {
        let (dir, realm) = (tempfile::tempdir().unwrap(), realm());
        write_db(dir.path(), &realm).unwrap();
        assert_eq!(edits(dir.path(), &realm).unwrap().scm, None);
        fs::write(dir.path().join("db/scm"), "s2\n").unwrap();
        let edits = edits(dir.path(), &realm).unwrap();
        assert_eq!((edits.scm, edits.difference), (Some(ServerId(2)), Vec::new()));
        fs::write(dir.path().join("db/scm"), "s9\n").unwrap();
        assert_eq!(super::edits(dir.path(), &realm).unwrap_err().to_string(), "scm:1: s9: no such server");
    }
}
