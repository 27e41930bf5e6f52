//! A realm as one of its servers knows it.

use std::collections::BTreeMap;

use coda_proto::{Acl, ServerId, VolumeId, wire};

/// Servers and volumes of a realm.
#[derive(Clone, Debug, PartialEq)]
pub struct Realm {
    /// Its name.
    pub name: String,
    /// The server through which the configuration changes.
    pub scm: ServerId,
    /// Grows with every change.
    pub config: u64,
    /// The volume that `/coda/REALM` shows.
    pub root_volume: String,
    /// Its servers.
    pub servers: BTreeMap<ServerId, wire::ServerInfo>,
    /// Its volumes.
    pub volumes: BTreeMap<VolumeId, VolumeEntry>,
}

/// A volume, and what its root directory was made with.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeEntry {
    /// Name, epoch and members.
    pub info: wire::VolumeInfo,
    /// The ACL of a new root: the same at every member.
    pub acl: Acl,
}

impl VolumeEntry {
    /// A replicated volume.
    pub fn new(info: wire::VolumeInfo, acl: Acl) -> VolumeEntry {
        VolumeEntry { info, acl }
    }

    /// A slot that no member has.
    pub fn next_slot(&self) -> u32 {
        self.info.members.iter().map(|member| member.slot + 1).max().unwrap_or(0)
    }

    /// Notes a slot as given.
    pub fn took(&mut self, _slot: u32, _replica: u32) {}
}

impl Realm {
    /// A volume by name; the empty name and `/` are the root volume.
    pub fn volume_named(&self, name: &str) -> Option<&VolumeEntry> {
        let name = match name {
            "" | "/" => self.root_volume.as_str(),
            name => name,
        };
        self.volumes.values().find(|volume| volume.info.name == name)
    }

    /// A volume by its group id, or by the id of one of its replicas.
    pub fn volume_by_id(&self, id: u32) -> Option<&VolumeEntry> {
        self.volumes.get(&VolumeId(id)).or_else(|| {
            self.volumes.values().find(|volume| volume.info.members.iter().any(|member| member.replica == id))
        })
    }

    /// The number of a replica that `server` holds of `volume`.
    pub fn replica_at(&self, volume: VolumeId, server: ServerId) -> Option<&wire::Member> {
        let members = &self.volumes.get(&volume)?.info.members;
        members.iter().find(|member| member.server == u32::from(server.0))
    }

    /// What clients are told.
    pub fn to_wire(&self) -> wire::Realm {
        let mut servers: Vec<wire::ServerInfo> = self.servers.values().cloned().collect();
        for server in &mut servers {
            server.endpoints.retain(|endpoint| !endpoint.peer_only);
        }
        wire::Realm { name: self.name.clone(), config: self.config, servers, scm: self.scm.0.into() }
    }

    /// The next group id that no volume has.
    pub fn next_volume(&self) -> VolumeId {
        VolumeId(self.volumes.keys().map(|id| id.0).max().unwrap_or(0x7f00_0000).max(0x7f00_0000) + 1)
    }

    /// The next replica number of `server`: its id, then a count.
    pub fn next_replica(&self, server: ServerId) -> u32 {
        let own = self.volumes.values().flat_map(|volume| &volume.info.members);
        let last = own.map(|member| member.replica).filter(|id| id >> 24 == u32::from(server.0)).max();
        last.unwrap_or(u32::from(server.0) << 24) + 1
    }
}
