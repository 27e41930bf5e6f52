//! What changed between two configurations of a realm, as an entry of its log carries it.

use coda_proto::{Malformed, ServerId, VolumeId, wire};

use super::Realm;

/// What turns `old` into `new`.
pub fn between(old: &Realm, new: &Realm) -> wire::ConfigChange {
    let servers = new.servers.iter().filter(|(id, info)| old.servers.get(id) != Some(info));
    let volumes = new.volumes.iter().filter(|(id, volume)| old.volumes.get(id) != Some(volume));
    let part = Realm {
        servers: servers.map(|(id, info)| (*id, info.clone())).collect(),
        volumes: volumes.map(|(id, volume)| (*id, volume.clone())).collect(),
        ..new.clone()
    };
    let gone = |id: &&ServerId| !new.servers.contains_key(id);
    wire::ConfigChange {
        config: Some((&part).into()),
        whole: false,
        servers_gone: old.servers.keys().filter(gone).map(|id| id.0.into()).collect(),
        volumes_gone: old.volumes.keys().filter(|id| !new.volumes.contains_key(id)).map(|id| id.0).collect(),
    }
}

/// The configuration that `change` makes of `old`; a log's first needs no old one.
pub fn follow(old: Option<&Realm>, change: wire::ConfigChange) -> Result<Realm, Malformed> {
    let wrong = |why: &str| Malformed::new("change of a realm's configuration", why);
    let mut new = Realm::try_from(change.config.ok_or_else(|| wrong("it says nothing"))?)?;
    if !change.whole {
        let old = old.ok_or_else(|| wrong("there is nothing that it changes"))?;
        if old.name != new.name {
            return Err(wrong("it is another realm's"));
        }
        let gone = |id: &ServerId| change.servers_gone.contains(&id.0.into());
        for (id, info) in old.servers.iter().filter(|(id, _)| !gone(id)) {
            new.servers.entry(*id).or_insert_with(|| info.clone());
        }
        let gone = |id: &VolumeId| change.volumes_gone.contains(&id.0);
        for (id, volume) in old.volumes.iter().filter(|(id, _)| !gone(id)) {
            new.volumes.entry(*id).or_insert_with(|| volume.clone());
        }
    }
    match new.servers.contains_key(&new.scm) {
        true => Ok(new),
        false => Err(wrong("the SCM is no server of the realm")),
    }
}

/// In a few words, for whoever reads the log.
pub fn describe(old: Option<&Realm>, change: &wire::ConfigChange) -> String {
    let (Some(old), Some(config)) = (old, &change.config) else {
        return "the realm as it was when its log began".to_owned();
    };
    let mut words = Vec::new();
    let realm = config.realm.clone().unwrap_or_default();
    for server in &realm.servers {
        words.push(format!("server {} ({})", server.id, server.name));
    }
    words.extend(change.servers_gone.iter().map(|id| format!("server {id} is gone")));
    for info in &config.volumes {
        words.push(format!("volume {} ({:08x}), replicas: {}", info.name, info.id, info.members.len()));
    }
    words.extend(change.volumes_gone.iter().map(|id| format!("volume {id:08x} is gone")));
    if config.root_volume != old.root_volume {
        words.push(format!("root volume {}", config.root_volume));
    }
    if realm.scm != u32::from(old.scm.0) {
        words.push(format!("the SCM is server {}", realm.scm));
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use coda_proto::Rights;

    use super::*;
    use crate::setup;

    fn server(id: u32, name: &str) -> wire::ServerInfo {
        wire::ServerInfo { id, name: name.into(), endpoints: Vec::new() }
    }

    #[test]
    fn a_change_says_what_is_different_and_makes_the_new_of_the_old() {
        let mut old = setup::realm("r", vec![server(1, "a"), server(2, "b")], Rights::ALL).unwrap();
        setup::add_volume(&mut old, "x", Rights::ALL);
        setup::add_volume(&mut old, "y", Rights::ALL);
        let mut new = old.clone();
        setup::add_volume(&mut new, "z", Rights::ALL);
        new.servers.insert(ServerId(3), server(3, "c"));
        new.servers.insert(ServerId(2), server(2, "b2"));
        new.volumes.remove(&VolumeId(0x7f00_0003));
        new.volumes.get_mut(&VolumeId(0x7f00_0002)).unwrap().info.epoch = 9;
        new.root_volume = "x".into();
        new.scm = ServerId(2);
        let change = between(&old, &new);
        let part = change.config.clone().unwrap();
        assert_eq!((part.realm.unwrap().servers.len(), part.volumes.len()), (2, 2));
        assert_eq!(change.volumes_gone, [0x7f00_0003]);
        assert_eq!(
            describe(Some(&old), &change),
            "server 2 (b2); server 3 (c); volume x (7f000002), replicas: 2; volume z (7f000004), replicas: 2; \
             volume 7f000003 is gone; root volume x; the SCM is server 2"
        );
        assert_eq!(follow(Some(&old), change).unwrap(), new);
    }

    #[test]
    fn a_change_that_leaves_no_scm_is_not_followed() {
        let old = setup::realm("r", vec![server(1, "a"), server(2, "b")], Rights::ALL).unwrap();
        let gone = wire::ConfigChange { servers_gone: vec![1], ..between(&old, &old) };
        assert!(follow(Some(&old), gone).is_err());
        let other = setup::realm("other", vec![server(1, "a")], Rights::ALL).unwrap();
        assert!(follow(Some(&old), between(&other, &other)).is_err());
        assert!(follow(None, wire::ConfigChange::default()).is_err());
    }
}
