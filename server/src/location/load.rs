//! Taking over a `servers` and a `VRList` file: all of both, or nothing.

use std::collections::BTreeMap;

use coda_proto::{Acl, ServerId, VolumeId, wire};

use super::{FileError, Realm, VolumeEntry, servers, vrlist};

/// The realm as these files describe it. What they cannot say (epochs, states of members, further
/// endpoints) is kept from `old`; a volume whose members change gets a new epoch.
pub fn load(old: &Realm, servers_text: &str, vrlist_text: &str, acl: &Acl) -> Result<Realm, FileError> {
    let mut known = match servers_text.trim().is_empty() {
        true => old.servers.clone(),
        false => servers::parse("servers", servers_text)?,
    };
    for (id, info) in &mut known {
        if let Some(before) = old.servers.get(id).filter(|before| before.name == info.name) {
            *info = before.clone();
        }
    }
    let lines = match vrlist_text.trim().is_empty() {
        true => vrlist::parse("VRList", &vrlist::text(old.volumes.values().map(|v| &v.info)), &known)?,
        false => vrlist::parse("VRList", vrlist_text, &known)?,
    };
    if !known.contains_key(&old.scm) {
        return Err(FileError::new("servers", 0, format!("server {}, the SCM, is missing", old.scm)));
    }
    let mut volumes = BTreeMap::new();
    for line in &lines {
        let before = old.volumes.get(&line.id);
        volumes.insert(line.id, volume(line, before, acl)?);
    }
    if !lines.iter().any(|line| line.name == old.root_volume) {
        let reason = format!("the root volume {} is missing", old.root_volume);
        return Err(FileError::new("VRList", 0, reason));
    }
    let mut new = Realm { servers: known, volumes, ..old.clone() };
    if new != *old {
        new.config += 1;
    }
    Ok(new)
}

fn volume(line: &vrlist::Line, before: Option<&VolumeEntry>, acl: &Acl) -> Result<VolumeEntry, FileError> {
    let wrong = |reason: String| FileError::new("VRList", line.number, reason);
    let mut members = Vec::new();
    for &(slot, replica) in &line.replicas {
        let known = before.map_or(&[][..], |before| &before.info.members[..]);
        let same = known.iter().find(|member| member.replica == replica);
        if let Some(member) = same.filter(|member| member.slot != slot) {
            return Err(wrong(format!("replica {replica:08x} moved from slot {} to {slot}", member.slot)));
        }
        if let Some(member) = known.iter().find(|member| member.slot == slot && member.replica != replica) {
            return Err(wrong(format!("slot {slot} belonged to replica {:08x}", member.replica)));
        }
        let state = match (before, same) {
            (_, Some(member)) => member.state,
            (None, None) => wire::MemberState::MemberActive.into(),
            (Some(_), None) => wire::MemberState::MemberJoining.into(),
        };
        members.push(wire::Member { slot, replica, server: replica >> 24, state });
    }
    let (epoch, acl) = match before {
        None => (1, acl.clone()),
        Some(before) if before.info.members == members => (before.info.epoch, before.acl.clone()),
        Some(before) => (before.info.epoch + 1, before.acl.clone()),
    };
    let info = wire::VolumeInfo { id: line.id.0, name: line.name.clone(), epoch, members };
    Ok(VolumeEntry { info, acl })
}

/// The volumes whose groups differ between two configurations.
pub fn changed_groups(old: &Realm, new: &Realm) -> Vec<wire::VolumeInfo> {
    let changed = |(id, volume): (&VolumeId, &VolumeEntry)| {
        let before = old.volumes.get(id);
        (before.map(|before| &before.info) != Some(&volume.info)).then(|| volume.info.clone())
    };
    new.volumes.iter().filter_map(changed).collect()
}

/// The servers that a volume's members are on.
pub fn servers_of(info: &wire::VolumeInfo) -> Vec<ServerId> {
    info.members.iter().filter_map(|member| ServerId::new(member.server).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: &str = "a 1\nb 2\nc 3\n";
    const LIST: &str = "/ 7f000001 2 01000001 02000001 0 0 0 0 0 0\n";

    fn old() -> Realm {
        let empty = Realm {
            name: "r".into(),
            scm: ServerId(1),
            config: 4,
            root_volume: "/".into(),
            servers: BTreeMap::new(),
            volumes: BTreeMap::new(),
        };
        load(&empty, SERVERS, LIST, &Acl::default()).unwrap()
    }

    #[test]
    fn the_same_files_change_nothing() {
        let old = old();
        assert_eq!(old.config, 5);
        assert_eq!(load(&old, SERVERS, LIST, &Acl::default()).unwrap(), old);
        assert_eq!(load(&old, "", "", &Acl::default()).unwrap(), old);
    }

    #[test]
    fn a_replica_added_to_a_volume_joins_under_a_new_epoch() {
        let list = "/ 7f000001 3 01000001 02000001 03000001 0 0 0 0 0\n";
        let new = load(&old(), SERVERS, list, &Acl::default()).unwrap();
        let info = &new.volumes[&VolumeId(0x7f00_0001)].info;
        assert_eq!(info.epoch, 2);
        let states: Vec<i32> = info.members.iter().map(|member| member.state).collect();
        assert_eq!(states, [2, 2, 1]);
        assert_eq!(changed_groups(&old(), &new), std::slice::from_ref(info));
    }

    #[test]
    fn slots_never_change_meaning() {
        for (list, reason) in [
            ("/ 7f000001 2 02000001 01000001 0 0 0 0 0 0\n", "moved from slot 1 to 0"),
            ("/ 7f000001 2 01000001 03000001 0 0 0 0 0 0\n", "slot 1 belonged to replica 02000001"),
            ("x 7f000002 1 01000002 0 0 0 0 0 0 0\n", "root volume / is missing"),
        ] {
            let error = load(&old(), SERVERS, list, &Acl::default()).unwrap_err();
            assert!(error.reason.contains(reason), "{error}");
        }
        let error = load(&old(), "b 2\n", "/ 7f000001 1 0 02000001 0 0 0 0 0 0\n", &Acl::default());
        assert!(error.unwrap_err().reason.contains("the SCM"));
    }
}
