//! Changes of a realm that administrators ask for: each a function from the realm to the realm it becomes.

use coda_proto::{
    Acl, Code, Refusal, Rights, ServerId, VolumeId, id::optional, name::VOLUME_NAME_LIMIT, wire,
};

use super::Realm;
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

fn volume_of(realm: &Realm, name: &str) -> Result<VolumeId, Refusal> {
    let found = realm.volume_named(name).map(|volume| VolumeId(volume.info.id));
    found.ok_or_else(|| Refusal::new(Code::NoVolume, format!("{name}: no such volume in {}", realm.name)))
}

/// A new volume. Answers its id.
pub fn create_volume(realm: &mut Realm, create: wire::CreateVolume) -> Result<VolumeId, Refusal> {
    let name = create.name.as_str();
    let whole = name.len() <= VOLUME_NAME_LIMIT && !name.is_empty();
    if !whole || name.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '#' | '@')) {
        let why = format!("{name:?} cannot name a volume: 1 to {VOLUME_NAME_LIMIT} bytes, no blanks, # or @");
        return Err(invalid(why));
    }
    if realm.volumes.values().any(|volume| volume.info.name == name) {
        return Err(Refusal::new(Code::Exists, format!("there is a volume {name} already")));
    }
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
    let replica = realm.next_replica(server);
    if realm.replica_at(id, server).is_some() {
        return Err(Refusal::new(Code::Exists, format!("server {server} holds a replica already")));
    }
    let info = &mut realm.volumes.get_mut(&id).expect("it was just found").info;
    let slot = info.members.iter().map(|member| member.slot + 1).max().unwrap_or(0);
    if slot >= SLOTS {
        return Err(invalid(format!("slots are never used again, and volume {} had {SLOTS}", add.volume)));
    }
    let state = wire::MemberState::MemberJoining.into();
    info.members.push(wire::Member { slot, replica, server: server.0.into(), state });
    info.epoch += 1;
    Ok(id)
}

/// A replica leaves: first it takes no more mutations; asked once more, it is gone.
pub fn remove_replica(realm: &mut Realm, remove: &wire::RemoveReplica) -> Result<VolumeId, Refusal> {
    let (id, server) = (volume_of(realm, &remove.volume)?, server_of(realm, remove.server)?);
    let info = &mut realm.volumes.get_mut(&id).expect("it was just found").info;
    let leaving = i32::from(wire::MemberState::MemberLeaving);
    let stay = |member: &&wire::Member| member.server != u32::from(server.0) && member.state != leaving;
    if !info.members.iter().any(|member| member.server == u32::from(server.0)) {
        return Err(invalid(format!("server {server} holds no replica of {}", remove.volume)));
    }
    if info.members.iter().filter(stay).count() == 0 {
        return Err(invalid(format!("volume {} would have no replica left", remove.volume)));
    }
    let mut left = false;
    info.members.retain_mut(|member| match member.server == u32::from(server.0) {
        true if member.state == leaving => false,
        true => {
            left = true;
            member.state = leaving;
            true
        }
        false => true,
    });
    info.epoch += 1;
    tracing::info!(volume = %id, %server, left, "a replica leaves");
    Ok(id)
}

/// A member has met the others: it is asked for contents from now on.
pub fn activate(realm: &mut Realm, id: VolumeId, server: ServerId) -> bool {
    let Some(volume) = realm.volumes.get_mut(&id) else { return false };
    let joining = i32::from(wire::MemberState::MemberJoining);
    let mut members = volume.info.members.iter_mut();
    match members.find(|member| member.server == u32::from(server.0) && member.state == joining) {
        Some(member) => {
            member.state = wire::MemberState::MemberActive.into();
            volume.info.epoch += 1;
            true
        }
        None => false,
    }
}

/// Another root volume.
pub fn set_root(realm: &mut Realm, name: &str) -> Result<VolumeId, Refusal> {
    let id = volume_of(realm, name)?;
    realm.root_volume = name.to_owned();
    Ok(id)
}

/// A further server. Its id and name were kept for it.
pub fn add_server(realm: &mut Realm, id: ServerId, name: &str, endpoints: Vec<wire::Endpoint>) {
    let info = wire::ServerInfo { id: id.0.into(), name: name.to_owned(), endpoints };
    realm.servers.insert(id, info);
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
        let create = wire::CreateVolume { name: "a".into(), servers: vec![3, 1], acl: None };
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
            let create = wire::CreateVolume { name: name.into(), servers, acl: None };
            assert_eq!(create_volume(&mut realm(), create).unwrap_err().code, Code::Invalid, "{name}");
        }
    }

    #[test]
    fn a_replica_joins_is_activated_leaves_and_its_slot_is_never_used_again() {
        let mut realm = realm();
        let create = wire::CreateVolume { name: "a".into(), servers: vec![1, 2], acl: None };
        let id = create_volume(&mut realm, create).unwrap();
        let add = wire::AddReplica { volume: "a".into(), server: 3 };
        add_replica(&mut realm, &add).unwrap();
        assert_eq!(add_replica(&mut realm, &add).unwrap_err().code, Code::Exists);
        assert!(activate(&mut realm, id, ServerId(3)) && !activate(&mut realm, id, ServerId(3)));
        let remove = wire::RemoveReplica { volume: "a".into(), server: 1 };
        remove_replica(&mut realm, &remove).unwrap();
        assert_eq!(realm.volumes[&id].info.members[0].state, i32::from(wire::MemberState::MemberLeaving));
        remove_replica(&mut realm, &remove).unwrap();
        let slots: Vec<u32> = realm.volumes[&id].info.members.iter().map(|m| m.slot).collect();
        assert_eq!((slots, realm.volumes[&id].info.epoch), (vec![1, 2], 5));
        add_replica(&mut realm, &wire::AddReplica { volume: "a".into(), server: 1 }).unwrap();
        assert_eq!(realm.volumes[&id].info.members.last().unwrap().slot, 3);
    }

    #[test]
    fn the_last_replica_stays() {
        let mut realm = realm();
        create_volume(&mut realm, wire::CreateVolume { name: "a".into(), servers: vec![1], acl: None })
            .unwrap();
        let remove = wire::RemoveReplica { volume: "a".into(), server: 1 };
        assert_eq!(remove_replica(&mut realm, &remove).unwrap_err().code, Code::Invalid);
    }
}
