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
    /// The highest ids ever given.
    pub high: wire::HighWater,
}

/// A volume, and what its root directory was made with.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeEntry {
    /// Name, epoch and members.
    pub info: wire::VolumeInfo,
    /// The ACL of a new root: the same at every member.
    pub acl: Acl,
    /// What clients are not told.
    pub more: wire::VolumeMore,
}

impl VolumeEntry {
    /// A replicated volume in service.
    pub fn new(info: wire::VolumeInfo, acl: Acl) -> VolumeEntry {
        VolumeEntry { info, acl, more: wire::VolumeMore::default() }
    }

    /// A slot that no member ever had.
    pub fn next_slot(&self) -> u32 {
        let present = self.info.members.iter().map(|member| member.slot + 1).max().unwrap_or(0);
        present.max(self.more.next_slot)
    }

    /// Notes a slot as given, and a replica that was made before it as named now.
    pub fn took(&mut self, slot: u32, replica: u32) {
        self.more.next_slot = self.next_slot().max(slot + 1);
        self.more.reserved.retain(|kept| kept.replica != replica);
    }

    /// What is known of a member beyond what clients are told.
    pub fn member_more(&self, server: ServerId) -> Option<&wire::MemberMore> {
        self.more.members.iter().find(|member| member.server == u32::from(server.0))
    }

    /// Whether its changes wait. A lock may end by itself.
    pub fn is_locked(&self, now: i64) -> bool {
        let until = self.more.locked_until;
        self.more.service() == wire::VolumeService::VolumeLocked && (until == 0 || now < until)
    }

    /// Whether nobody may change it.
    pub fn is_frozen(&self) -> bool {
        self.more.kind() != wire::VolumeKind::VolumeReplicated
    }
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
        let last = self.volumes.keys().map(|id| id.0).max().unwrap_or_default();
        VolumeId(last.max(self.high.volume).max(0x7f00_0000) + 1)
    }

    /// The next replica number of `server`: its id, then a count.
    pub fn next_replica(&self, server: ServerId) -> u32 {
        let reserved = self.volumes.values().flat_map(|volume| &volume.more.reserved);
        let members = self.volumes.values().flat_map(|volume| &volume.info.members);
        let given = members.chain(reserved).map(|member| member.replica);
        let own =
            given.chain(self.high.replicas.iter().copied()).filter(|id| id >> 24 == u32::from(server.0));
        own.max().unwrap_or(u32::from(server.0) << 24) + 1
    }

    /// Remembers every id that is in use as given, before some of them go.
    pub fn remember_ids(&mut self) {
        self.high.volume = self.next_volume().0 - 1;
        let next = |server: &ServerId| self.next_replica(*server) - 1;
        let all = self.volumes.values().flat_map(|volume| &volume.info.members);
        let known: std::collections::BTreeSet<ServerId> = all
            .map(|member| member.replica >> 24)
            .chain(self.high.replicas.iter().map(|id| id >> 24))
            .filter_map(|server| ServerId::new(server).ok())
            .collect();
        self.high.replicas = known.iter().map(next).collect();
    }
}
