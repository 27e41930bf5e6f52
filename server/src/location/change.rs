//! Changes of a realm that administrators ask for: each a function from the realm to the realm it becomes.

use coda_proto::{
    Acl, Code, Refusal, Rights, ServerId, VolumeId, id::optional, name::VOLUME_NAME_LIMIT, wire,
};

use super::{Realm, servers};
use crate::setup::add_volume_on;

/// Slots of a volume that the text files have room for.
const SLOTS: u32 = 8;

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(Code::Invalid, why)
}

fn server_of(realm: &Realm, id: u32) -> Result<ServerId, Refusal> {
    let known = ServerId::new(id).ok().filter(|id| realm.servers.contains_key(id));
    known.ok_or_else(|| invalid(format!("{id}: no such server in {}", realm.name)))
}

/// A volume by its name, or by the id of its group or of one of its replicas in hexadecimal.
pub fn volume_of(realm: &Realm, text: &str) -> Result<VolumeId, Refusal> {
    let by_id = || u32::from_str_radix(text, 16).ok().and_then(|id| realm.volume_by_id(id));
    let found = realm.volume_named(text).or_else(by_id).map(|volume| VolumeId(volume.info.id));
    found.ok_or_else(|| Refusal::new(Code::NoVolume, format!("{text}: no such volume in {}", realm.name)))
}

/// Refuses what cannot name a new volume.
pub fn check_name(realm: &Realm, name: &str) -> Result<(), Refusal> {
    let whole = name.len() <= VOLUME_NAME_LIMIT && !name.is_empty();
    if !whole || name.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '#' | '@')) {
        let why = format!("{name:?} cannot name a volume: 1 to {VOLUME_NAME_LIMIT} bytes, no blanks, # or @");
        return Err(invalid(why));
    }
    match named(realm, name) {
        Some(what) => Err(Refusal::new(Code::Exists, format!("there is a {what} {name} already"))),
        None => Ok(()),
    }
}

/// What goes by this name: a volume, or a replica, which is called VOLUME.N.
fn named(realm: &Realm, name: &str) -> Option<&'static str> {
    if realm.volumes.values().any(|volume| volume.info.name == name) {
        return Some("volume");
    }
    let (volume, slot) = name.rsplit_once('.')?;
    let slot: u32 = slot.parse().ok()?;
    let entry = realm.volumes.values().find(|entry| entry.info.name == volume)?;
    let mut replicas = entry.info.members.iter().chain(&entry.more.reserved);
    replicas.any(|member| member.slot == slot).then_some("replica")
}

/// A new volume. Answers its id.
pub fn create_volume(realm: &mut Realm, create: wire::CreateVolume) -> Result<VolumeId, Refusal> {
    let name = create.name.as_str();
    check_name(realm, name)?;
    let servers = match create.servers.is_empty() {
        true => realm.servers.keys().copied().take(SLOTS as usize).collect(),
        false => create.servers.iter().map(|id| server_of(realm, *id)).collect::<Result<Vec<_>, _>>()?,
    };
    let distinct: std::collections::BTreeSet<_> = servers.iter().collect();
    if distinct.len() != servers.len() || servers.len() > SLOTS as usize {
        return Err(invalid(format!("a volume has at most {SLOTS} replicas, each on another server")));
    }
    let acl: Acl = optional(create.acl)?.unwrap_or_else(|| Acl::root(Rights(0)));
    Ok(add_volume_on(realm, name, &servers, &acl))
}

/// One more replica, which has to meet the others before it serves.
pub fn add_replica(realm: &mut Realm, add: &wire::AddReplica) -> Result<VolumeId, Refusal> {
    let (id, server) = (volume_of(realm, &add.volume)?, server_of(realm, add.server)?);
    let reserved = realm.volumes[&id].more.reserved.iter().find(|kept| kept.server == add.server).cloned();
    let replica = reserved.map_or_else(|| realm.next_replica(server), |kept| kept.replica);
    if realm.replica_at(id, server).is_some() {
        return Err(Refusal::new(Code::Exists, format!("server {server} holds a replica already")));
    }
    let entry = realm.volumes.get_mut(&id).expect("it was just found");
    if entry.info.members.len() >= SLOTS as usize {
        return Err(invalid(format!("volume {} has {SLOTS} replicas, and no volume has more", add.volume)));
    }
    let (slot, state) = (entry.next_slot(), wire::MemberState::MemberJoining.into());
    entry.more.next_slot = slot + 1;
    entry.more.reserved.retain(|kept| kept.server != add.server);
    let more = wire::MemberMore { server: add.server, rate: add.rate, replaces: 0 };
    entry.more.members.retain(|member| member.server != add.server);
    if more.rate != 0 {
        entry.more.members.push(more);
    }
    entry.info.members.push(wire::Member { slot, replica, server: server.0.into(), state });
    entry.info.epoch += 1;
    Ok(id)
}

/// A replica leaves: it takes no more mutations from now on, and is gone when the others have all that it
/// took before. Asked once more, nothing changes. `force`: it is gone at once.
pub fn remove_replica(realm: &mut Realm, remove: &wire::RemoveReplica) -> Result<VolumeId, Refusal> {
    let id = volume_of(realm, &remove.volume)?;
    let entry = &realm.volumes[&id];
    // A server that left the realm's list may still be a member.
    let server = ServerId::new(remove.server)?;
    let of = |member: &wire::Member| member.server == u32::from(server.0);
    let active = i32::from(wire::MemberState::MemberActive);
    let Some(own) = entry.info.members.iter().find(|member| of(member)) else {
        return Err(invalid(format!("server {server} holds no replica of {}", remove.volume)));
    };
    let joining = own.state == i32::from(wire::MemberState::MemberJoining);
    if !entry.info.members.iter().any(|member| !of(member) && member.state == active) {
        let why = format!("volume {} would have no replica left that has all of it", remove.volume);
        return Err(invalid(why));
    }
    // One that has not joined has taken nothing that others lack.
    if remove.force || joining {
        drop_member(realm, id, server);
        return Ok(id);
    }
    let leaving = i32::from(wire::MemberState::MemberLeaving);
    let info = &mut realm.volumes.get_mut(&id).expect("it was just found").info;
    let members = info.members.iter_mut().filter(|member| member.state != leaving);
    if let Some(member) = members.into_iter().find(|member| of(member)) {
        member.state = leaving;
        info.epoch += 1;
    }
    Ok(id)
}

/// A member is no more. Its slot and its replica's id are never given again.
pub fn drop_member(realm: &mut Realm, id: VolumeId, server: ServerId) {
    realm.remember_ids();
    let Some(entry) = realm.volumes.get_mut(&id) else { return };
    entry.more.next_slot = entry.next_slot();
    entry.more.members.retain(|member| member.server != u32::from(server.0));
    entry.info.members.retain(|member| member.server != u32::from(server.0));
    entry.info.epoch += 1;
}

/// A replica moves: one joins, and the other leaves when that one is active.
pub fn move_replica(realm: &mut Realm, moving: &wire::MoveReplica) -> Result<VolumeId, Refusal> {
    let (id, from) = (volume_of(realm, &moving.volume)?, server_of(realm, moving.from)?);
    if realm.replica_at(id, from).is_none() {
        return Err(invalid(format!("server {from} holds no replica of {}", moving.volume)));
    }
    let add = wire::AddReplica { volume: moving.volume.clone(), server: moving.to, rate: moving.rate };
    add_replica(realm, &add)?;
    let entry = realm.volumes.get_mut(&id).expect("it was just found");
    entry.more.members.retain(|member| member.server != moving.to);
    let more = wire::MemberMore { server: moving.to, rate: moving.rate, replaces: moving.from };
    entry.more.members.push(more);
    Ok(id)
}

/// A member has met the others: it is asked for contents from now on, and one that it replaces leaves.
pub fn activate(realm: &mut Realm, id: VolumeId, server: ServerId) -> bool {
    let Some(entry) = realm.volumes.get_mut(&id) else { return false };
    let joining = i32::from(wire::MemberState::MemberJoining);
    let mut members = entry.info.members.iter_mut();
    let Some(member) = members.find(|member| member.server == u32::from(server.0) && member.state == joining)
    else {
        return false;
    };
    member.state = wire::MemberState::MemberActive.into();
    entry.info.epoch += 1;
    let replaces = entry.member_more(server).map_or(0, |more| more.replaces);
    entry.more.members.retain(|member| member.server != u32::from(server.0));
    if let Some(old) = entry.info.members.iter_mut().find(|member| replaces != 0 && member.server == replaces)
    {
        old.state = wire::MemberState::MemberLeaving.into();
    }
    true
}

/// A volume is no more. `name` must be its name, so that a slip of an id purges nothing.
pub fn purge_volume(realm: &mut Realm, purge: &wire::PurgeVolume) -> Result<VolumeId, Refusal> {
    let id = volume_of(realm, &purge.volume)?;
    let name = &realm.volumes[&id].info.name;
    if *name != purge.name {
        return Err(invalid(format!("volume {id} is called {name}, not {}", purge.name)));
    }
    if *name == realm.root_volume {
        return Err(invalid(format!("{name} is the realm's root volume")));
    }
    realm.remember_ids();
    realm.volumes.remove(&id);
    Ok(id)
}

/// A volume whose first replica, on the first of `servers`, was made before: a clone, or one that was
/// restored. The others join.
pub fn add_staged(
    realm: &mut Realm,
    name: &str,
    servers: &[ServerId],
    acl: &Acl,
    more: wire::VolumeMore,
) -> Result<VolumeId, Refusal> {
    let id = add_volume_on(realm, name, servers, acl);
    let entry = realm.volumes.get_mut(&id).expect("it was just added");
    // An epoch above the first says that there is history, which a replica made later has to learn.
    entry.info.epoch = 2;
    for member in entry.info.members.iter_mut().skip(1) {
        member.state = wire::MemberState::MemberJoining.into();
    }
    entry.more = wire::VolumeMore { next_slot: servers.len() as u32, ..more };
    Ok(id)
}

/// Whether a volume takes changes, waits, or answers nothing.
pub fn set_service(realm: &mut Realm, set: &wire::SetService, now: i64) -> Result<VolumeId, Refusal> {
    let id = volume_of(realm, &set.volume)?;
    let more = &mut realm.volumes.get_mut(&id).expect("it was just found").more;
    more.service = set.service;
    let nanoseconds = i64::try_from(set.seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    more.locked_until = match set.service() == wire::VolumeService::VolumeLocked && set.seconds > 0 {
        true => now.saturating_add(nanoseconds),
        false => 0,
    };
    Ok(id)
}

/// Keeps an id for a further replica, which a list may name afterwards. Answers it.
pub fn reserve_replica(realm: &mut Realm, reserve: &wire::ReserveReplica) -> Result<u32, Refusal> {
    let (id, server) = (volume_of(realm, &reserve.volume)?, server_of(realm, reserve.server)?);
    if let Some(what) = named(realm, &reserve.name) {
        return Err(Refusal::new(Code::Exists, format!("there is a {what} {} already", reserve.name)));
    }
    let of = &realm.volumes[&id].info;
    let slot = reserve.name.rsplit_once('.').filter(|(volume, _)| *volume == of.name);
    let slot = slot.and_then(|(_, slot)| slot.parse::<u32>().ok());
    let slot = slot.ok_or_else(|| {
        invalid(format!("{}: a replica of {} is called {}.N", reserve.name, of.name, of.name))
    })?;
    let holds = realm.replica_at(id, server).is_some();
    if holds || realm.volumes[&id].more.reserved.iter().any(|kept| kept.server == reserve.server) {
        return Err(Refusal::new(Code::Exists, format!("server {server} holds a replica of it already")));
    }
    let replica = match reserve.replica {
        0 => realm.next_replica(server),
        wanted if wanted >> 24 != reserve.server => {
            return Err(invalid(format!("replica {wanted:08x} does not belong to server {server}")));
        }
        wanted if wanted < realm.next_replica(server) => {
            return Err(Refusal::new(Code::Exists, format!("replica id {wanted:08x} was given before")));
        }
        wanted => wanted,
    };
    let state = wire::MemberState::MemberJoining.into();
    let kept = wire::Member { slot, replica, server: reserve.server, state };
    realm.volumes.get_mut(&id).expect("it was just found").more.reserved.push(kept);
    Ok(replica)
}

/// Another root volume.
pub fn set_root(realm: &mut Realm, name: &str) -> Result<VolumeId, Refusal> {
    let id = volume_of(realm, name)?;
    realm.root_volume = name.to_owned();
    Ok(id)
}

/// A further server. Its id and name were kept for it.
pub fn add_server(
    realm: &mut Realm,
    id: ServerId,
    name: &str,
    endpoints: Vec<wire::Endpoint>,
) -> Result<(), Refusal> {
    check_server_name(realm, name)?;
    if !endpoints.iter().any(|endpoint| !endpoint.peer_only) {
        return Err(invalid("clients need an endpoint, too"));
    }
    let mut taken =
        realm.servers.values().flat_map(|other| other.endpoints.iter().map(move |at| (other, at)));
    if let Some((other, at)) = taken.find(|(_, at)| endpoints.contains(at)) {
        let why =
            format!("{}:{} is where server {} is reached: say --endpoint", at.host, at.port, other.name);
        return Err(Refusal::new(Code::Exists, why));
    }
    let info = wire::ServerInfo { id: id.0.into(), name: name.to_owned(), endpoints };
    realm.servers.insert(id, info);
    Ok(())
}

/// Refuses what cannot name a further server.
pub fn check_server_name(realm: &Realm, name: &str) -> Result<(), Refusal> {
    servers::check_name(name).map_err(invalid)?;
    match realm.servers.values().find(|other| other.name == name) {
        Some(other) => {
            let why = format!(
                "server {} is called {name} already; if it is no more, take its line out of db/servers and \
                 `volutil import`",
                other.id
            );
            Err(Refusal::new(Code::Exists, why))
        }
        None => Ok(()),
    }
}

/// An id for an invitation: the one asked for, or the lowest that nobody has.
pub fn free_server(realm: &Realm, wanted: u32, kept: impl Fn(ServerId) -> bool) -> Result<ServerId, Refusal> {
    let taken = |id: ServerId| realm.servers.contains_key(&id);
    match wanted {
        0 => (1..=254)
            .filter_map(|id| ServerId::new(id).ok())
            .find(|id| !taken(*id) && !kept(*id))
            .ok_or_else(|| invalid("every server id is taken")),
        id => match ServerId::new(id) {
            Ok(id) if !taken(id) => Ok(id),
            Ok(id) => Err(Refusal::new(Code::Exists, format!("server {id} is there already"))),
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm() -> Realm {
        let server = |id| wire::ServerInfo { id, name: format!("s{id}"), endpoints: Vec::new() };
        crate::setup::realm("r", vec![server(1), server(2), server(3)], Rights::ALL).unwrap()
    }

    #[test]
    fn a_volume_is_made_on_the_servers_named_in_their_order() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![3, 1], ..Default::default() };
        let id = create_volume(&mut realm, create.clone()).unwrap();
        let replicas: Vec<u32> = realm.volumes[&id].info.members.iter().map(|m| m.replica).collect();
        assert_eq!(replicas, [0x0300_0002, 0x0100_0002]);
        assert_eq!(create_volume(&mut realm, create).unwrap_err().code, Code::Exists);
    }

    #[test]
    fn impossible_volumes_are_refused() {
        let long = "x".repeat(32);
        for (name, servers) in
            [("", vec![]), ("a b", vec![]), ("a", vec![9]), ("a", vec![1, 1]), (&long, vec![])]
        {
            let create = wire::CreateVolume { name: name.into(), servers, ..Default::default() };
            assert_eq!(create_volume(&mut realm(), create).unwrap_err().code, Code::Invalid, "{name}");
        }
    }

    fn states(realm: &Realm, id: VolumeId) -> Vec<(u32, u32, wire::MemberState)> {
        realm.volumes[&id].info.members.iter().map(|m| (m.slot, m.server, m.state())).collect()
    }

    use wire::MemberState::{MemberActive as Active, MemberJoining as Joining, MemberLeaving as Leaving};

    #[test]
    fn a_replica_joins_is_activated_leaves_and_neither_its_slot_nor_its_id_is_given_again() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1, 2], ..Default::default() };
        let id = create_volume(&mut realm, create).unwrap();
        let add = |server| wire::AddReplica { volume: "a".into(), server, rate: 0 };
        add_replica(&mut realm, &add(3)).unwrap();
        assert_eq!(add_replica(&mut realm, &add(3)).unwrap_err().code, Code::Exists);
        assert!(activate(&mut realm, id, ServerId(3)) && !activate(&mut realm, id, ServerId(3)));
        let remove = wire::RemoveReplica { volume: "a".into(), server: 3, force: false };
        remove_replica(&mut realm, &remove).unwrap();
        assert_eq!(states(&realm, id), [(0, 1, Active), (1, 2, Active), (2, 3, Leaving)]);
        let epoch = realm.volumes[&id].info.epoch;
        remove_replica(&mut realm, &remove).unwrap();
        assert_eq!(realm.volumes[&id].info.epoch, epoch, "asked again it leaves as it did");
        let replica = realm.replica_at(id, ServerId(3)).unwrap().replica;
        drop_member(&mut realm, id, ServerId(3));
        add_replica(&mut realm, &add(3)).unwrap();
        assert_eq!(states(&realm, id), [(0, 1, Active), (1, 2, Active), (3, 3, Joining)]);
        assert!(realm.replica_at(id, ServerId(3)).unwrap().replica > replica);
    }

    #[test]
    fn a_volume_goes_through_more_members_in_its_life_than_it_has_at_once() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1, 2], ..Default::default() };
        let id = create_volume(&mut realm, create).unwrap();
        for _ in 0..20 {
            add_replica(&mut realm, &wire::AddReplica { volume: "a".into(), server: 3, rate: 0 }).unwrap();
            assert!(activate(&mut realm, id, ServerId(3)));
            drop_member(&mut realm, id, ServerId(3));
        }
        assert_eq!(realm.volumes[&id].next_slot(), 22);
    }

    #[test]
    fn who_is_replaced_leaves_when_the_new_one_is_active() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1], ..Default::default() };
        let id = create_volume(&mut realm, create).unwrap();
        let moving = wire::MoveReplica { volume: "a".into(), from: 1, to: 2, rate: 7 };
        move_replica(&mut realm, &moving).unwrap();
        assert_eq!(states(&realm, id), [(0, 1, Active), (1, 2, Joining)]);
        assert!(activate(&mut realm, id, ServerId(2)));
        assert_eq!(states(&realm, id), [(0, 1, Leaving), (1, 2, Active)]);
        let moving = wire::MoveReplica { from: 3, ..moving };
        assert_eq!(move_replica(&mut realm, &moving).unwrap_err().code, Code::Invalid);
    }

    #[test]
    fn one_that_is_still_joining_is_gone_at_once() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1], ..Default::default() };
        let id = create_volume(&mut realm, create).unwrap();
        add_replica(&mut realm, &wire::AddReplica { volume: "a".into(), server: 2, rate: 0 }).unwrap();
        let remove = |server| wire::RemoveReplica { volume: "a".into(), server, force: false };
        let refused = remove_replica(&mut realm, &remove(1)).unwrap_err();
        assert!(refused.detail.contains("no replica left that has all of it"), "{refused}");
        remove_replica(&mut realm, &remove(2)).unwrap();
        assert_eq!(states(&realm, id), [(0, 1, Active)]);
    }

    #[test]
    fn a_purged_volumes_ids_are_not_given_again() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1], ..Default::default() };
        let id = create_volume(&mut realm, create.clone()).unwrap();
        let purge = |volume: &str, name: &str| wire::PurgeVolume { volume: volume.into(), name: name.into() };
        assert_eq!(purge_volume(&mut realm, &purge("a", "b")).unwrap_err().code, Code::Invalid);
        assert_eq!(purge_volume(&mut realm, &purge("/", "/")).unwrap_err().code, Code::Invalid);
        let replica = realm.volumes[&id].info.members[0].replica;
        assert_eq!(purge_volume(&mut realm, &purge(&id.to_string(), "a")), Ok(id));
        let again = create_volume(&mut realm, create).unwrap();
        assert!(again > id && realm.volumes[&again].info.members[0].replica > replica);
    }

    #[test]
    fn a_replicas_name_is_refused_where_anything_bears_it() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1], ..Default::default() };
        create_volume(&mut realm, create.clone()).unwrap();
        create_volume(&mut realm, wire::CreateVolume { name: "a.5".into(), ..create.clone() }).unwrap();
        let reserve = |name: &str, server| wire::ReserveReplica {
            volume: "a".into(),
            server,
            name: name.into(),
            replica: 0,
        };
        for (name, server, code) in [
            ("a.0", 2, Code::Exists),
            ("a.5", 2, Code::Exists),
            ("b.1", 2, Code::Invalid),
            ("a", 2, Code::Exists),
            ("a.1", 1, Code::Exists),
            ("a.1", 9, Code::Invalid),
        ] {
            assert_eq!(reserve_replica(&mut realm, &reserve(name, server)).unwrap_err().code, code, "{name}");
        }
        let replica = reserve_replica(&mut realm, &reserve("a.1", 2)).unwrap();
        assert_eq!(replica >> 24, 2);
        assert_eq!(reserve_replica(&mut realm, &reserve("a.1", 3)).unwrap_err().code, Code::Exists);
        assert_eq!(realm.next_replica(ServerId(2)), replica + 1);
        let taken = wire::CreateVolume { name: "a.1".into(), ..create };
        assert_eq!(create_volume(&mut realm, taken).unwrap_err().code, Code::Exists);
        add_replica(&mut realm, &wire::AddReplica { volume: "a".into(), server: 2, rate: 0 }).unwrap();
        let id = volume_of(&realm, "a").unwrap();
        assert_eq!(realm.replica_at(id, ServerId(2)).unwrap().replica, replica, "the id that was kept");
    }

    #[test]
    fn the_last_replica_stays() {
        let mut realm = realm();
        create_volume(
            &mut realm,
            wire::CreateVolume { name: "a".into(), servers: vec![1], ..Default::default() },
        )
        .unwrap();
        let remove = wire::RemoveReplica { volume: "a".into(), server: 1, force: true };
        assert_eq!(remove_replica(&mut realm, &remove).unwrap_err().code, Code::Invalid);
    }
}
