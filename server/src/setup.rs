//! New realms: stores for all their servers, without a network.

use std::path::Path;

use coda_proto::{
    Acl, Author, Base, Dot, Fid, Op, Past, Record, Refusal, Rights, ServerId, VolumeId,
    merge::{self, Head, Replica as _},
    wire,
};

use crate::{
    config::Durability,
    location::{Realm, VolumeEntry},
    store::{NewReplica, RealmStore, Replica, StoreError, Txn},
};

/// The name of a realm's root volume unless it is given another.
pub const ROOT_VOLUME: &str = "/";

/// A realm of these servers with a root volume on all of them, at which everyone has `any`.
pub fn realm(name: &str, servers: Vec<wire::ServerInfo>, any: Rights) -> Result<Realm, StoreError> {
    let mut known = std::collections::BTreeMap::new();
    for server in servers {
        known.insert(ServerId::new(server.id)?, server);
    }
    let scm = *known.keys().next().ok_or_else(|| coda_proto::Malformed::new("realm", "no server"))?;
    let mut realm = Realm {
        name: name.to_owned(),
        scm,
        config: 1,
        root_volume: ROOT_VOLUME.to_owned(),
        servers: known,
        volumes: Default::default(),
        high: Default::default(),
    };
    add_volume(&mut realm, ROOT_VOLUME, any);
    Ok(realm)
}

/// Adds a volume on all servers of a realm that is not served yet (or whose servers are told otherwise).
pub fn add_volume(realm: &mut Realm, name: &str, any: Rights) -> VolumeId {
    let servers: Vec<ServerId> = realm.servers.keys().copied().collect();
    add_volume_on(realm, name, &servers, &Acl::root(any))
}

/// The same on these servers, in the order of their slots.
pub fn add_volume_on(realm: &mut Realm, name: &str, servers: &[ServerId], acl: &Acl) -> VolumeId {
    let id = realm.next_volume();
    let members = servers.iter().enumerate().map(|(slot, server)| wire::Member {
        slot: slot as u32,
        replica: realm.next_replica(*server),
        server: server.0.into(),
        state: wire::MemberState::MemberActive.into(),
    });
    let info = wire::VolumeInfo { id: id.0, name: name.to_owned(), epoch: 1, members: members.collect() };
    realm.volumes.insert(id, VolumeEntry::new(info, acl.clone()));
    id
}

/// The record that mounts volume `name` as `as_name` in the root directory of `below`. The `count`-th of
/// such records, from 1: it is the same at every member.
pub fn mount(below: VolumeId, as_name: &str, name: &str, count: u32) -> Record {
    let root = Fid::root(below);
    let seen = Dot::new(Author(1), count.into());
    Record {
        dot: Dot::new(Author(1), u64::from(count) + 1),
        lamport: u64::from(count) + 1,
        time: 0,
        changed: 0,
        bases: vec![Base { fid: root, past: Past::of(seen) }],
        logged: false,
        host: String::new(),
        op: Op::Symlink {
            parent: root,
            name: as_name.as_bytes().to_vec(),
            fid: Fid::file(below, Author(1), count),
            target: format!("#{name}.").into_bytes(),
            mode: 0o644,
            owner: 0,
        },
    }
}

/// Makes the store of server `own`: its database, and every replica that `realm` puts there. `records` are
/// applied to the replicas of their volumes, as they must be at every other member.
pub fn create(
    dir: &Path,
    own: ServerId,
    realm: &Realm,
    records: &[Record],
    durability: Durability,
    now: i64,
) -> Result<(), StoreError> {
    RealmStore::create(dir, own, realm, durability)?;
    for (id, volume) in &realm.volumes {
        let Some(member) = realm.replica_at(*id, own) else { continue };
        let new =
            NewReplica { volume: *id, replica: member.replica, acl: volume.acl.clone(), joining: false };
        Replica::create(dir, &new, durability, now)?;
        let replica = Replica::open(dir, *id, member.replica, 0, durability, now)?;
        replica.write(|batch| records.iter().try_for_each(|record| seed(batch, *id, record)), || Ok(()))?;
    }
    Ok(())
}

/// Says that what the replicas at `dir` hold is all there is: those that wait for peers serve again. For a
/// volume whose other members are lost. Answers the volumes that waited.
pub fn accept(dir: &Path, durability: Durability, now: i64) -> Result<Vec<VolumeId>, StoreError> {
    let (own, realm) = RealmStore::look(dir)?.load()?;
    let mut accepted = Vec::new();
    for (id, volume) in &realm.volumes {
        let Some(member) = realm.replica_at(*id, own) else { continue };
        let new = NewReplica { volume: *id, replica: member.replica, acl: volume.acl.clone(), joining: true };
        Replica::create(dir, &new, durability, now)?;
        let replica = Replica::open(dir, *id, member.replica, 0, durability, now)?;
        if replica.read(|view| Ok(view.volume_row()?.joined))? {
            continue;
        }
        let begin = |txn: &mut Txn<'_>| -> Result<(), StoreError> {
            if txn.past(Fid::root(*id))?.is_none_or(|past| past.is_empty()) {
                txn.put_head(Head::root(*id, &volume.acl, 0o755, 0))?;
            }
            txn.set_joined(true)
        };
        replica.write(|batch| batch.job(begin), || Ok(()))?;
        accepted.push(*id);
    }
    Ok(accepted)
}

fn seed(batch: &mut crate::store::Batch<'_>, volume: VolumeId, record: &Record) -> Result<(), StoreError> {
    if record.op.touches().iter().any(|fid| fid.volume != volume) {
        return Ok(());
    }
    batch.job(|txn| match merge::apply(txn, record) {
        Ok(_) => Ok(()),
        Err(merge::ApplyError::Store(error)) => Err(error),
        Err(merge::ApplyError::Refused(refusal)) => Err(unseeded(refusal)),
    })
}

fn unseeded(refusal: Refusal) -> StoreError {
    coda_proto::Malformed::new("record of a new volume", refusal.to_string()).into()
}
