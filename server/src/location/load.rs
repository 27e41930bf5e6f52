//! Taking over a `servers` and a `VRList` file: all of both, or nothing.

use std::collections::BTreeMap;

use coda_proto::{Acl, ServerId, VolumeId, wire};

use super::{FileError, Realm, VolumeEntry, servers, vrlist};

/// The realm as these files describe it. What they cannot say (epochs, states of members, further
/// endpoints) is kept from `old`; a volume whose members change gets a new epoch. A replica that was added
/// joins, one that was taken out leaves; nothing is removed by taking its line out, for a line is easily lost.
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
    if !known.contains_key(&old.scm) {
        return Err(FileError::new("servers", 0, format!("server {}, the SCM, is missing", old.scm)));
    }
    let listed = vrlist::text(old.volumes.values().map(|v| &v.info));
    let edited = match vrlist_text.trim().is_empty() {
        true => listed.as_str(),
        false => vrlist_text,
    };
    let lines = vrlist::parse("VRList", edited, &known)?;
    let before = vrlist::parse("VRList", &listed, &old.servers).unwrap_or_default();
    let mut volumes = BTreeMap::new();
    for line in &lines {
        let entry = match old.volumes.get(&line.id) {
            Some(entry) => changed(line, entry, before.iter().find(|before| before.id == line.id))?,
            None => added(old, line, acl)?,
        };
        volumes.insert(line.id, entry);
    }
    if let Some(gone) = old.volumes.values().find(|volume| !volumes.contains_key(&VolumeId(volume.info.id))) {
        let reason = format!(
            "the line of volume {} is missing; a list removes no volume, `volutil purgevol_rep` does",
            gone.info.name
        );
        return Err(FileError::new("VRList", 0, reason));
    }
    let root = |line: &vrlist::Line| line.name == old.root_volume;
    if !lines.iter().any(root) {
        let reason = format!("the root volume {} is missing", old.root_volume);
        return Err(FileError::new("VRList", 0, reason));
    }
    let mut new = Realm { servers: known, volumes, ..old.clone() };
    if new != *old {
        new.config += 1;
    }
    Ok(new)
}

const LEAVING: i32 = wire::MemberState::MemberLeaving as i32;

/// A volume that is new by its line.
fn added(old: &Realm, line: &vrlist::Line, acl: &Acl) -> Result<VolumeEntry, FileError> {
    let member = |&(slot, replica): &(u32, u32)| wire::Member {
        slot,
        replica,
        server: replica >> 24,
        state: wire::MemberState::MemberActive.into(),
    };
    for (_, replica) in &line.replicas {
        not_taken(old, line, *replica)?;
    }
    let members = line.replicas.iter().map(member).collect();
    let info = wire::VolumeInfo { id: line.id.0, name: line.name.clone(), epoch: 1, members };
    Ok(VolumeEntry::new(info, acl.clone()))
}

fn not_taken(old: &Realm, line: &vrlist::Line, replica: u32) -> Result<(), FileError> {
    let of = |volume: &&VolumeEntry| {
        volume.info.id != line.id.0 && volume.info.members.iter().any(|member| member.replica == replica)
    };
    match old.volumes.values().find(of) {
        Some(other) => {
            let why = format!("replica {replica:08x} belongs to volume {}", other.info.name);
            Err(FileError::new("VRList", line.number, why))
        }
        None => Ok(()),
    }
}

/// A volume whose line may have changed; `before` is the line that it had.
fn changed(
    line: &vrlist::Line,
    entry: &VolumeEntry,
    before: Option<&vrlist::Line>,
) -> Result<VolumeEntry, FileError> {
    let wrong = |reason: String| FileError::new("VRList", line.number, reason);
    let had = before.map_or(&[][..], |before| &before.replicas[..]);
    let mut new = entry.clone();
    new.info.name.clone_from(&line.name);
    for &(column, replica) in &line.replicas {
        if let Some((was, _)) = had.iter().find(|(was, of)| *of == replica && *was != column) {
            return Err(wrong(format!("replica {replica:08x} moved from slot {was} to {column}")));
        }
        if let Some((_, other)) = had.iter().find(|(was, other)| *was == column && *other != replica) {
            return Err(wrong(format!(
                "slot {column} belonged to replica {other:08x}; a further one goes to the first free slot"
            )));
        }
        if had.iter().any(|(_, of)| *of == replica) {
            continue;
        }
        let slot = new.next_slot().max(column);
        let state = wire::MemberState::MemberJoining.into();
        new.info.members.push(wire::Member { slot, replica, server: replica >> 24, state });
        new.took(slot, replica);
    }
    for member in &mut new.info.members {
        if !line.replicas.iter().any(|(_, replica)| *replica == member.replica) {
            member.state = LEAVING;
        }
    }
    let active = i32::from(wire::MemberState::MemberActive);
    if !new.info.members.iter().any(|member| member.state == active) {
        return Err(wrong(format!("volume {} would have no replica left that has all of it", line.name)));
    }
    if new.info.members != entry.info.members {
        new.info.epoch += 1;
    }
    Ok(new)
}

/// What is different between two configurations, a line for each thing, as `diff` would mark it.
pub fn difference(old: &Realm, new: &Realm) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, info) in &new.servers {
        match old.servers.get(id) {
            None => lines.push(format!("+ server {id} {}", info.name)),
            Some(before) if before != info => {
                lines.push(format!("! server {id}: {} is now {}", before.name, info.name));
            }
            Some(_) => {}
        }
    }
    for (id, info) in old.servers.iter().filter(|(id, _)| !new.servers.contains_key(id)) {
        lines.push(format!("- server {id} {}", info.name));
    }
    let on = |member: &wire::Member| {
        let server = ServerId::new(member.server).ok().and_then(|id| new.servers.get(&id));
        server.map_or_else(|| format!("server {}", member.server), |server| server.name.clone())
    };
    for (id, volume) in &new.volumes {
        let name = &volume.info.name;
        let Some(before) = old.volumes.get(id) else {
            let places: Vec<String> = volume.info.members.iter().map(on).collect();
            lines.push(format!("+ volume {name} {id} on {}", places.join(", ")));
            continue;
        };
        if before.info.name != *name {
            lines.push(format!("! volume {id}: {} is now {name}", before.info.name));
        }
        for member in &volume.info.members {
            match before.info.members.iter().find(|was| was.replica == member.replica) {
                None => {
                    lines.push(format!(
                        "+ replica {:08x} of {name} on {}, joining",
                        member.replica,
                        on(member)
                    ));
                }
                Some(was) if was.state != LEAVING && member.state == LEAVING => {
                    lines.push(format!(
                        "- replica {:08x} of {name} on {}, leaving",
                        member.replica,
                        on(member)
                    ));
                }
                Some(_) => {}
            }
        }
    }
    for (id, volume) in old.volumes.iter().filter(|(id, _)| !new.volumes.contains_key(id)) {
        lines.push(format!("- volume {} {id}", volume.info.name));
    }
    lines
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
            high: Default::default(),
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

    fn edited(list: &str) -> Result<Realm, FileError> {
        load(&old(), SERVERS, list, &Acl::default())
    }

    #[test]
    fn a_replica_added_to_a_volume_joins_under_a_new_epoch() {
        let new = edited("/ 7f000001 3 01000001 02000001 03000001 0 0 0 0 0\n").unwrap();
        let info = &new.volumes[&VolumeId(0x7f00_0001)].info;
        assert_eq!(info.epoch, 2);
        let states: Vec<i32> = info.members.iter().map(|member| member.state).collect();
        assert_eq!(states, [2, 2, 1]);
        assert_eq!(changed_groups(&old(), &new), std::slice::from_ref(info));
        assert_eq!(difference(&old(), &new), ["+ replica 03000001 of / on c, joining"]);
    }

    #[test]
    fn a_replica_taken_from_a_line_leaves_and_is_not_simply_gone() {
        let new = edited("/ 7f000001 1 01000001 0 0 0 0 0 0 0\n").unwrap();
        let info = &new.volumes[&VolumeId(0x7f00_0001)].info;
        let states: Vec<i32> = info.members.iter().map(|member| member.state).collect();
        assert_eq!((states, info.epoch), (vec![2, 3], 2));
        assert_eq!(difference(&old(), &new), ["- replica 02000001 of / on b, leaving"]);
        // While it leaves it is in the list; taking it out again changes nothing.
        assert_eq!(
            load(&new, SERVERS, "/ 7f000001 1 01000001 0 0 0 0 0 0 0\n", &Acl::default()).unwrap(),
            new
        );
    }

    #[test]
    fn a_volume_added_by_its_line_begins_with_all_its_replicas() {
        let new = edited(&format!("{LIST}x 7f000002 2 03000001 01000002 0 0 0 0 0 0\n")).unwrap();
        let info = &new.volumes[&VolumeId(0x7f00_0002)].info;
        assert!(info.epoch == 1 && info.members.iter().all(|member| member.state == 2), "{info:?}");
        assert_eq!(difference(&old(), &new), ["+ volume x 7f000002 on c, a"]);
    }

    #[test]
    fn servers_come_and_go_by_their_file() {
        let new = load(&old(), "a 1\nb2 2\nd 4\n", "", &Acl::default()).unwrap();
        assert_eq!(difference(&old(), &new), ["! server 2: b is now b2", "+ server 4 d", "- server 3 c"]);
        // One that holds a replica stays.
        let error = load(&old(), "a 1\nc 3\n", "", &Acl::default()).unwrap_err();
        assert!(error.to_string().contains("VRList:1: replica 02000001 is on server 2, which nobody knows"));
    }

    #[test]
    fn what_would_change_the_meaning_of_a_slot_or_lose_a_volume_is_refused_with_its_line() {
        for (list, line, reason) in [
            // The line of a well-known mistake: two replicas, and a count of one.
            (
                "dir 7f000002 1 02000003 03000001 0 0 0 0 0 0\n",
                1,
                "the count says 1 replicas, and 2 ids follow",
            ),
            ("/ 7f000001 2 02000001 01000001 0 0 0 0 0 0\n", 1, "moved from slot 1 to 0"),
            ("/ 7f000001 2 01000001 03000001 0 0 0 0 0 0\n", 1, "slot 1 belonged to replica 02000001"),
            ("/ 7f000001 2 01000001 0 02000001 0 0 0 0 0\n", 1, "moved from slot 1 to 2"),
            ("/ 7f000001 1 03000001 0 0 0 0 0 0 0\n", 1, "slot 0 belonged to replica 01000001"),
            ("/ 7f000001 1 0 0 03000001 0 0 0 0 0\n", 1, "no replica left that has all of it"),
            ("x 7f000002 1 01000002 0 0 0 0 0 0 0\n", 0, "the line of volume / is missing"),
            (
                "/ 7f000001 2 01000001 02000001 0 0 0 0 0 0\nx 7f000002 1 02000001 0 0 0 0 0 0 0\n",
                2,
                "already there",
            ),
            ("r 7f000001 2 01000001 02000001 0 0 0 0 0 0\n", 0, "the root volume / is missing"),
        ] {
            let error = edited(list).unwrap_err();
            assert!(error.reason.contains(reason) && error.line == line, "{list:?}: {error}");
        }
        // A replica of one volume cannot become another's.
        let two = edited(&format!("{LIST}x 7f000002 1 03000001 0 0 0 0 0 0 0\n")).unwrap();
        let list = "/ 7f000001 2 01000001 02000001 0 0 0 0 0 0\nx 7f000002 2 03000001 01000001 0 0 0 0 0 0\n";
        assert!(load(&two, SERVERS, list, &Acl::default()).is_err());
        let error = load(&old(), "b 2\n", "/ 7f000001 1 0 02000001 0 0 0 0 0 0\n", &Acl::default());
        assert!(error.unwrap_err().reason.contains("the SCM"));
    }
}
