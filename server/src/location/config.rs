//! A realm's configuration as servers tell it each other.

use coda_proto::{Acl, Malformed, ServerId, VolumeId, id::required, name::VOLUME_NAME_LIMIT, wire};

use super::{Realm, VolumeEntry};

impl From<&Realm> for wire::RealmConfig {
    fn from(realm: &Realm) -> wire::RealmConfig {
        wire::RealmConfig {
            realm: Some(wire::Realm {
                servers: realm.servers.values().cloned().collect(),
                ..realm.to_wire()
            }),
            root_volume: realm.root_volume.clone(),
            volumes: realm.volumes.values().map(|volume| volume.info.clone()).collect(),
            acls: realm.volumes.values().map(|volume| (&volume.acl).into()).collect(),
            more: realm.volumes.values().map(|volume| volume.more.clone()).collect(),
            high: Some(realm.high.clone()),
        }
    }
}

impl TryFrom<wire::RealmConfig> for Realm {
    type Error = Malformed;
    fn try_from(config: wire::RealmConfig) -> Result<Realm, Malformed> {
        let wrong = |why: &str| Malformed::new("realm configuration", why);
        let realm = config.realm.ok_or_else(|| wrong("no realm"))?;
        if config.acls.len() != config.volumes.len() {
            return Err(wrong("a list for each volume"));
        }
        let mut servers = std::collections::BTreeMap::new();
        for server in realm.servers {
            servers.insert(ServerId::new(server.id)?, server);
        }
        let mut volumes = std::collections::BTreeMap::new();
        // A server that knows less says nothing of it.
        let mut more = config.more;
        more.resize(config.volumes.len(), wire::VolumeMore::default());
        for ((info, acl), more) in config.volumes.into_iter().zip(config.acls).zip(more) {
            let id = VolumeId(info.id);
            if !id.is_group() || info.name.is_empty() || info.name.len() > VOLUME_NAME_LIMIT {
                return Err(wrong("a volume's id or name is out of range"));
            }
            for member in &info.members {
                ServerId::new(member.server)?;
            }
            let acl: Acl = required(Some(acl), "ACL")?;
            volumes.insert(id, VolumeEntry { info, acl, more });
        }
        Ok(Realm {
            name: realm.name,
            scm: ServerId::new(realm.scm)?,
            config: realm.config,
            root_volume: config.root_volume,
            servers,
            volumes,
            high: config.high.unwrap_or_default(),
        })
    }
}
