//! Access lists, and the list of what is cached.

use std::collections::{BTreeMap, HashMap};

use coda_proto::{
    Acl, Kind, Rights,
    acl::ACL_LIMIT,
    control::{AccessList, CachedObject, CachedVolume, Failure, FailureKind, Grant, escape},
};

use super::wrong;
use crate::{
    conflict::versions::is_made_up,
    control::failure::failure,
    error::Error,
    store::Row,
    venus::{
        Venus,
        face::{Caller, ObjectId},
    },
};

impl Venus {
    pub(super) async fn access_list(&self, who: Caller, path: &str) -> Result<AccessList, Failure> {
        let dir = self.find(who, path).await?;
        let acl = self.core.acl(dir).await.map_err(|error| failure(path, &error))?;
        let grants = |list: &BTreeMap<String, Rights>| {
            let grant =
                |(who, rights): (&String, &Rights)| Grant { who: who.clone(), rights: rights.to_string() };
            list.iter().map(grant).collect()
        };
        Ok(AccessList { positive: grants(&acl.positive), negative: grants(&acl.negative) })
    }

    pub(super) async fn set_access_list(
        &self,
        who: Caller,
        path: &str,
        list: &AccessList,
    ) -> Result<(), Failure> {
        let acl = acl(list).map_err(|why| wrong(path, FailureKind::Invalid, why))?;
        let dir = self.find(who, path).await?;
        self.core.set_acl(who.uid, dir, &acl).await.map_err(|error| failure(path, &error))
    }

    /// What is cached, of these volumes (paths, or names of mounted volumes) or of all.
    pub(super) async fn list_cache(
        &self,
        who: Caller,
        named: &[String],
    ) -> Result<Vec<CachedVolume>, Failure> {
        let mut volumes = Vec::new();
        for name in named {
            let id = match name.starts_with('/') {
                true => self.find(who, name).await?,
                false => self.volume_named(name).ok_or_else(|| {
                    wrong(name, FailureKind::NotFound, "neither a path here nor a volume that was met")
                })?,
            };
            volumes.push((id.realm, id.fid.volume));
        }
        let store = |error: &Error| failure("the cache", error);
        if named.is_empty() {
            volumes = self.core.cache.store(|store| store.volumes()).map_err(|error| store(&error))?;
            volumes.retain(|(_, volume)| !is_made_up(*volume));
        }
        let mut lists = Vec::new();
        for (realm, volume) in volumes {
            let rows = self.core.cache.store(|store| store.of_volume(realm, volume));
            lists.push(
                self.cached_volume(ObjectId { realm, fid: coda_proto::Fid::root(volume) }, rows)
                    .map_err(|error| store(&error))?,
            );
        }
        Ok(lists)
    }

    fn cached_volume(
        &self,
        root: ObjectId,
        rows: Result<Vec<(ObjectId, Row)>, Error>,
    ) -> Result<CachedVolume, Error> {
        let rows: HashMap<ObjectId, Row> = rows?.into_iter().collect();
        let mut paths = HashMap::from([(root, ".".to_owned())]);
        let mut objects = Vec::with_capacity(rows.len());
        for (id, row) in &rows {
            let (valid, dirty) = self.core.cache.held(*id);
            objects.push(CachedObject {
                path: self.path_in_volume(*id, &rows, &mut paths)?,
                fid: id.fid.to_string(),
                kind: match row.status.kind {
                    Kind::Directory => "d",
                    Kind::File => "f",
                    Kind::Symlink => "s",
                }
                .into(),
                link: match () {
                    () if id.fid.is_root() => "/",
                    () if self.core.covered_by(*id).is_some() => "m",
                    () => "",
                }
                .into(),
                valid: valid && (row.status.kind != Kind::Directory || row.complete),
                dirty,
            });
        }
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(CachedVolume {
            mount: self.path_of(root).unwrap_or_default(),
            id: root.fid.volume.to_string(),
            realm: self.core.realm_name(root.realm)?.to_string(),
            objects,
        })
    }

    /// Relative to the volume's root; an object whose parents are not cached is shown by its fid.
    fn path_in_volume(
        &self,
        id: ObjectId,
        rows: &HashMap<ObjectId, Row>,
        paths: &mut HashMap<ObjectId, String>,
    ) -> Result<String, Error> {
        let mut names: Vec<(ObjectId, String)> = Vec::new();
        let mut at = id;
        let mut base = loop {
            if let Some(path) = paths.get(&at) {
                break path.clone();
            }
            let dir = rows.get(&at).map(|row| ObjectId { realm: at.realm, fid: row.status.parent });
            let name = match dir {
                // A longer chain than there are objects goes in circles.
                Some(dir) if names.len() <= rows.len() => {
                    self.core.cache.store(|store| store.name_in(dir, at.fid))?.map(|name| (dir, name))
                }
                _ => None,
            };
            match name {
                Some((dir, name)) => {
                    names.push((at, escape(&name)));
                    at = dir;
                }
                None => break format!("({})", at.fid),
            }
        };
        for (id, name) in names.into_iter().rev() {
            base = format!("{base}/{name}");
            paths.insert(id, base.clone());
        }
        Ok(base)
    }
}

/// The list that a tool sent, if it is one.
fn acl(list: &AccessList) -> Result<Acl, String> {
    if list.positive.len() + list.negative.len() > ACL_LIMIT {
        return Err(format!("a list has at most {ACL_LIMIT} entries"));
    }
    let side = |grants: &[Grant]| {
        let entry = |grant: &Grant| match grant.rights.parse::<Rights>() {
            Ok(rights) if !grant.who.is_empty() && grant.who.len() <= 64 => Ok((grant.who.clone(), rights)),
            Ok(_) => Err(format!("{:?} is nobody's name", grant.who)),
            Err(malformed) => Err(malformed.why),
        };
        grants.iter().map(entry).collect::<Result<BTreeMap<_, _>, String>>()
    };
    Ok(Acl { positive: side(&list.positive)?, negative: side(&list.negative)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_none_is_refused_with_the_reason() {
        let list = |who: &str, rights: &str| AccessList {
            positive: vec![Grant { who: who.into(), rights: rights.into() }],
            negative: vec![],
        };
        assert_eq!(acl(&list("jan", "rl")).unwrap().positive["jan"], "rl".parse().unwrap());
        assert!(acl(&list("jan", "rx")).unwrap_err().contains("rlidwka"));
        assert!(acl(&list("", "rl")).unwrap_err().contains("name"));
        let many = AccessList { positive: vec![Grant::default(); 21], negative: vec![] };
        assert!(acl(&many).unwrap_err().contains("20"));
    }
}
