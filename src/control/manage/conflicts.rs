//! Conflicts: which there are, and what people decide about them.

use std::collections::BTreeMap;

use coda_proto::{
    Fid, Kind, Sibling, Status, VolumeId,
    control::{Conflict, Failure, FailureKind, How, Resolved, UNASKED, Undoable, Version, escape},
};

use super::wrong;
use crate::{
    conflict::{Choice, Keep, contested::Fate, merge::Rule, names, places::Place, versions::labelled},
    control::failure::failure,
    env::Priority,
    error::Error,
    ops::path::labels_of,
    store::Undo,
    venus::{
        Venus,
        face::{Caller, ObjectId},
    },
};

impl Venus {
    /// What waits for a decision, in order of paths.
    pub(super) async fn conflicts(&self, who: Caller, paths: &[String]) -> Result<Vec<Conflict>, Failure> {
        let mut found = BTreeMap::new();
        let mut unasked = Vec::new();
        for (root, below) in self.volumes_of(who, paths).await? {
            let places = match self.core.contested(root).await {
                Err(error @ (Error::Disconnected(_) | Error::Unsupported(_))) => {
                    unasked.push((root, error));
                    self.cached_conflicts(root)
                }
                places => places,
            };
            let places = places.map_err(|error| failure("conflicts", &error))?;
            let at = self.path_of(root).unwrap_or_else(|| self.volume_name(root));
            for place in places {
                let conflict = self.conflict(root.realm, &at, &place).map_err(|e| failure(&at, &e))?;
                let within = |above: &String| {
                    conflict.path == *above || conflict.path.starts_with(&format!("{above}/"))
                };
                if below.is_empty() || below.iter().any(within) {
                    found.insert((conflict.path.clone(), conflict.kind.clone()), conflict);
                }
            }
        }
        match unasked.first() {
            // What is cached is told. That nothing is does not mean that there is nothing.
            Some((_, error)) if found.is_empty() => Err(failure("conflicts", error)),
            _ => {
                let unasked = unasked.into_iter().map(|(root, _)| self.unasked(root));
                let unasked = unasked.collect::<Result<Vec<_>, _>>();
                let unasked = unasked.map_err(|error| failure("conflicts", &error))?;
                Ok(found.into_values().chain(unasked).collect())
            }
        }
    }

    /// Says that no server of a volume could be asked.
    fn unasked(&self, root: ObjectId) -> Result<Conflict, Error> {
        Ok(Conflict {
            path: self.path_of(root).unwrap_or_else(|| self.volume_name(root)),
            fid: root.fid.to_string(),
            realm: self.core.realm_name(root.realm)?.to_string(),
            kind: UNASKED.into(),
            ..Conflict::default()
        })
    }

    /// The roots of the volumes of these paths, each with the paths; of all volumes in use where none is
    /// named.
    async fn volumes_of(
        &self,
        who: Caller,
        paths: &[String],
    ) -> Result<BTreeMap<ObjectId, Vec<String>>, Failure> {
        let mut volumes: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
        for path in paths {
            let id = self.core.served(self.find(who, path).await?);
            if id.realm == 0 {
                // `/coda` and realms that are only names: everything.
                return Box::pin(self.volumes_of(who, &[])).await;
            }
            let root = ObjectId { realm: id.realm, fid: Fid::root(id.fid.volume) };
            volumes.entry(root).or_default().push(path.trim_end_matches('/').to_owned());
        }
        if paths.is_empty() {
            for (realm, known) in self.core.peers.known().realms {
                let number = self.core.realm_number(&realm).map_err(|error| failure(&realm, &error))?;
                let ids = known.volumes.into_values().map(|group| group.id);
                let root = |id: VolumeId| ObjectId { realm: number, fid: Fid::root(id) };
                volumes.extend(ids.map(|id| (root(id), Vec::new())));
            }
        }
        Ok(volumes)
    }

    /// Contested places of a volume as they are cached.
    fn cached_conflicts(&self, root: ObjectId) -> Result<Vec<Place>, Error> {
        let rows = self.core.cache.store(|store| store.of_volume(root.realm, root.fid.volume))?;
        let above = self.path_of(root).unwrap_or_else(|| self.volume_name(root));
        let place = |(id, row): (ObjectId, crate::store::Row)| {
            let path = self.path_of(id)?;
            let path = path.strip_prefix(&above)?.trim_start_matches('/').to_owned();
            Some(Place { path: coda_proto::control::unescape(&path), status: row.status, others: Vec::new() })
        };
        let undecided =
            |(_, row): &(ObjectId, crate::store::Row)| row.status.in_conflict() || row.status.marked;
        Ok(rows.into_iter().filter(undecided).filter_map(place).collect())
    }

    /// A contested place in the words of tools.
    fn conflict(&self, realm: u32, above: &str, place: &Place) -> Result<Conflict, Error> {
        let named = |name: &[u8]| match name {
            b"" => above.to_owned(),
            name => format!("{above}/{}", escape(name)),
        };
        let drew = |author| self.core.cache.store(|store| store.drew(author));
        let status = &place.status;
        let mut versions = Vec::new();
        let kind = if !place.others.is_empty() {
            let all: Vec<&Status> = std::iter::once(status).chain(&place.others).collect();
            let fids: Vec<Fid> = all.iter().map(|status| status.fid).collect();
            let made: BTreeMap<Fid, (String, i64)> =
                all.iter().map(|status| (status.fid, (status.host.clone(), status.made))).collect();
            let labels = labels_of(&fids, |fid| made[&fid].clone());
            for (index, (status, label)) in all.iter().zip(labels).enumerate() {
                let name = if index == 0 { place.path.clone() } else { beside_path(&place.path, &label) };
                versions.push(Version {
                    path: named(&name),
                    host: status.host.clone(),
                    time: status.made,
                    length: status.length,
                    ours: drew(coda_proto::Author(status.fid.unique))?,
                    id: String::new(),
                });
            }
            "name"
        } else if status.in_conflict() {
            for (index, (sibling, label)) in labelled(&status.siblings).into_iter().enumerate() {
                let name = if index == 0 { place.path.clone() } else { beside_path(&place.path, &label) };
                let Sibling { length, mtime, host, dot, .. } = sibling;
                versions.push(Version {
                    path: named(&name),
                    host: host.clone(),
                    time: *mtime,
                    length: *length,
                    ours: drew(dot.author)?,
                    id: dot.to_string(),
                });
            }
            "contents"
        } else {
            "mark"
        };
        let file = ObjectId { realm, fid: status.fid };
        let base = match place.others.is_empty() && self.core.base_of(file, status)?.is_some() {
            true => named(&beside_path(&place.path, "base")),
            false => String::new(),
        };
        Ok(Conflict {
            path: named(&place.path),
            fid: status.fid.to_string(),
            realm: self.core.realm_name(realm)?.to_string(),
            kind: kind.into(),
            versions,
            base,
        })
    }

    /// Decides about one path.
    pub(super) async fn decide(
        &self,
        who: Caller,
        path: &str,
        how: Option<How>,
        of: &[String],
    ) -> Result<Resolved, Failure> {
        let id = self.core.served(self.find(who, path).await?);
        if id.realm == 0 {
            return Err(wrong(path, FailureKind::Invalid, "is made up by venus and has no versions"));
        }
        let Some(how) = how else {
            return self.ask_servers(id).await.map_err(|error| failure(path, &error));
        };
        // A name that several objects have is decided before what any of them holds.
        if let Some(contested) = self.contested_name(who, path).await? {
            return self.decide_name(who, path, &contested, how).await;
        }
        let decided = async {
            let view = self.core.current(id).await?;
            if view.row.status.marked && !view.row.status.in_conflict() {
                return self.decide_mark(who, id, &view.row.status, how).await;
            }
            let choice = match how {
                How::Ours => Choice::Ours,
                How::Theirs => Choice::Theirs,
                How::Newest => Choice::Newest,
                How::Both => {
                    let names = self.core.keep_both(who, id).await?;
                    return Ok(Resolved { dropped: 0, what: format!("also kept as {}", listed(&names)) });
                }
                How::Text => return self.merge_text(who, id).await,
                How::Take(from) => return self.take(who, id, &from, of).await,
                How::Remove => {
                    let shown = self.core.current(id).await?.row.shown().ok_or(Error::Gone(id.fid))?;
                    let decided = self.core.decide(who.uid, id, Keep::Chosen(Choice::Version(shown))).await?;
                    self.remove_file(who, id).await?;
                    return Ok(Resolved { dropped: decided.dropped as u32 + 1, what: "removed".into() });
                }
            };
            Ok(resolved(&self.core.decide(who.uid, id, Keep::Chosen(choice)).await?))
        };
        decided.await.map_err(|error: Error| failure(path, &error))
    }

    /// The directory and the name of a path, if several objects have that name.
    async fn contested_name(&self, who: Caller, path: &str) -> Result<Option<(ObjectId, Vec<u8>)>, Failure> {
        let Ok((dir, name)) = self.parent_of(who, path).await else { return Ok(None) };
        let named = async {
            self.core.directory(dir).await?;
            let Some(entry) = self.core.entry_known(dir, &name).await? else { return Ok(None) };
            let several = self.core.cache.named(dir, &entry.name)?.len() > 1;
            Ok(several.then_some((dir, entry.name)))
        };
        named.await.map_err(|error: Error| failure(path, &error))
    }

    async fn remove_file(&self, who: Caller, id: ObjectId) -> Result<(), Error> {
        let view = self.core.current(id).await?;
        let dir = ObjectId { realm: id.realm, fid: view.row.status.parent };
        let name = self.core.cache.store(|store| store.name_in(dir, id.fid))?;
        let name = name.ok_or(Error::Gone(id.fid))?;
        self.core.remove(who.uid, dir, &name, crate::ops::Removal::File).await?;
        self.core.cache.forget_name(dir, &name);
        self.core.cache.forget_object(dir, true);
        Ok(())
    }

    /// Decides about what came back after it was removed elsewhere. It stays, or is for its user to remove: a decision
    /// removes nothing that cannot be brought back.
    async fn decide_mark(
        &self,
        who: Caller,
        id: ObjectId,
        status: &Status,
        how: How,
    ) -> Result<Resolved, Error> {
        let mut ours = false;
        for sibling in &status.siblings {
            ours |= self.core.cache.store(|store| store.drew(sibling.dot.author))?;
        }
        let stays = match how {
            How::Newest | How::Both => true,
            How::Ours => ours,
            How::Theirs => !ours,
            How::Remove => {
                self.remove_file(who, id).await?;
                return Ok(Resolved { dropped: 1, what: "removed".into() });
            }
            How::Text | How::Take(_) => false,
        };
        if !stays {
            let why = "it came back after it was removed elsewhere: `rm` removes it, `cfs resolve --newest` keeps it";
            return Err(Error::Unclear(why.into()));
        }
        self.core.keep_marked(who.uid, id).await?;
        Ok(Resolved { dropped: 0, what: "it stays".into() })
    }

    async fn decide_name(
        &self,
        who: Caller,
        path: &str,
        (dir, name): &(ObjectId, Vec<u8>),
        how: How,
    ) -> Result<Resolved, Failure> {
        let fate = match how {
            How::Ours => Fate::Chosen(Choice::Ours),
            How::Theirs => Fate::Chosen(Choice::Theirs),
            How::Newest => Fate::Chosen(Choice::Newest),
            How::Both => Fate::Both,
            How::Text => {
                let why = "several objects have this name; texts of one file can be merged";
                return Err(wrong(path, FailureKind::Unsupported, why));
            }
            How::Remove => {
                let why = "several objects have this name; remove each by its own";
                return Err(wrong(path, FailureKind::Unsupported, why));
            }
            How::Take(from) => {
                let fid = self.find(who, &from).await?.fid;
                let birth = coda_proto::Dot::new(coda_proto::Author(fid.unique), fid.vnode.into());
                Fate::Chosen(Choice::Version(birth))
            }
        };
        let settled = self.core.decide_name(who, *dir, name, &fate).await;
        let settled = settled.map_err(|error| failure(path, &error))?;
        let what = match settled.renamed.is_empty() {
            true => "one object has the name".to_owned(),
            false => format!("kept beside it: {}", listed(&settled.renamed)),
        };
        Ok(Resolved { dropped: settled.removed as u32, what })
    }

    /// Shows a file as a directory of its versions, or as before.
    pub(super) async fn expand(&self, who: Caller, path: &str, open: bool) -> Result<(), Failure> {
        let file = self.core.served(self.find(who, path).await?);
        let done = match open {
            true => self.core.expand(file).await,
            false => self.core.collapse(file).await,
        };
        done.map_err(|error| failure(path, &error))
    }

    /// Decisions that can be undone.
    pub(super) fn undoable(&self) -> Result<Vec<Undoable>, Failure> {
        let undos = self.core.forget_outdated(self.core.env.now());
        let undos = undos.and_then(|()| self.core.cache.store(|store| store.undos()));
        let undos = undos.map_err(|error| failure("undo", &error))?;
        let shown = |undo: &Undo| {
            let path = self.path_of(undo.object).unwrap_or_else(|| undo.object.fid.to_string());
            Undoable {
                id: undo.id,
                path: match undo.name.is_empty() {
                    true => path,
                    false => format!("{path}/{}", escape(&undo.name)),
                },
                time: undo.time,
                versions: undo.dropped.len() as u32,
                bytes: undo.dropped.iter().map(|dropped| dropped.length).sum(),
            }
        };
        Ok(undos.iter().map(shown).collect())
    }

    /// Undoes one.
    pub(super) async fn undo(&self, who: Caller, id: u64) -> Result<Resolved, Failure> {
        let what = id.to_string();
        let undos = self.core.cache.store(|store| store.undos()).map_err(|error| failure(&what, &error))?;
        let Some(undo) = undos.into_iter().find(|undo| undo.id == id) else {
            return Err(wrong(&what, FailureKind::NotFound, "no such decision, or it is too old"));
        };
        let back = self.core.undo_decision(who, &undo).await.map_err(|error| failure(&what, &error))?;
        Ok(Resolved { dropped: 0, what: format!("{back} version(s) came back") })
    }

    /// Has the servers bring an object to the join of all members, and says what is left to decide.
    async fn ask_servers(&self, id: ObjectId) -> Result<Resolved, Error> {
        let complete = self.core.resolve(id, Priority::Foreground).await;
        self.core.cache.demote(id)?;
        let view = self.core.current(id).await?;
        let what = match (complete, view.row.status.in_conflict() || view.row.status.marked) {
            (_, true) => "people must decide: `cfs conflicts` lists the versions",
            (true, false) => "all replicas agree",
            (false, false) => "not all replicas could be asked",
        };
        Ok(Resolved { dropped: 0, what: what.into() })
    }

    /// The contents of another file, or of a version, become those of a file in conflict.
    async fn take(&self, who: Caller, id: ObjectId, from: &str, of: &[String]) -> Result<Resolved, Error> {
        let other = self.find(who, from).await.map_err(|failure| Error::NotFound(failure.what))?;
        let keep = match self.core.version_of(other) {
            Ok(of) if of.file == id => Keep::Chosen(Choice::Version(of.dot)),
            _ if other == id => {
                let view = self.core.current(id).await?;
                let shown = view.row.shown().ok_or(Error::Gone(id.fid))?;
                Keep::Chosen(Choice::Version(shown))
            }
            _ => return self.take_contents(who, id, other, of).await,
        };
        Ok(resolved(&self.core.decide(who.uid, id, keep).await?))
    }

    /// Merges what each side changed, by lines.
    async fn merge_text(&self, who: Caller, id: ObjectId) -> Result<Resolved, Error> {
        let view = self.core.current(id).await?;
        let status = &view.row.status;
        if !status.in_conflict() {
            return Err(Error::Unclear("not in conflict".into()));
        }
        if self.core.base_of(id, status)?.is_none() {
            // Whoever asks for it may wait for who knows.
            let sought = self.core.seek_ancestor(id).await;
            tracing::debug!(?sought, "what its versions were made from");
        }
        if self.core.base_of(id, status)?.is_none() {
            let why = "what both began from is not here; `cfs resolve --merge TOOL` merges without it";
            return Err(Error::Unclear(why.into()));
        }
        match self.core.merge_as(who.uid, id, Rule::Text).await? {
            Some(decided) => Ok(resolved(&decided)),
            None => {
                let why = "both changed the same lines, or it is no text; `cfs resolve --merge TOOL` asks a program";
                Err(Error::Unclear(why.into()))
            }
        }
    }

    async fn take_contents(
        &self,
        who: Caller,
        id: ObjectId,
        other: ObjectId,
        of: &[String],
    ) -> Result<Resolved, Error> {
        let now = self.core.current(id).await?.row.status.siblings.clone();
        let looked_at = |dot: &coda_proto::Dot| of.contains(&dot.to_string());
        let dots: Vec<coda_proto::Dot> = now.iter().map(|sibling| sibling.dot).collect();
        // Of versions with equal bytes one is listed.
        if !of.is_empty() && !labelled(&now).iter().all(|(sibling, _)| looked_at(&sibling.dot)) {
            return Err(Error::Unclear("its versions changed meanwhile".into()));
        }
        let of = if of.is_empty() { Vec::new() } else { dots };
        let view = self.core.current(other).await?;
        if view.row.status.kind != Kind::File {
            return Err(Error::Invalid(format!("{} is no file", other.fid)));
        }
        let mode = crate::venus::face::OpenMode { read: true, write: false, truncate: false };
        let opened = self.core.open(who, other, mode).await?;
        let keep = Keep::Given { container: opened.container_id, mtime: opened.attr.mtime, of };
        let decided = self.core.decide(who.uid, id, keep).await;
        self.core.release(opened.handle).await?;
        Ok(resolved(&decided?))
    }
}

fn listed(names: &[Vec<u8>]) -> String {
    names.iter().map(|name| escape(name)).collect::<Vec<_>>().join(", ")
}

fn resolved(decided: &crate::conflict::Decided) -> Resolved {
    let host = match decided.kept.host.as_str() {
        "" => String::new(),
        host => format!(", stored from {host}"),
    };
    let what = format!("{} bytes kept{host}", decided.kept.length);
    Resolved { dropped: decided.dropped as u32, what }
}

/// The path of a version, whose file name may have been cut.
fn beside_path(path: &[u8], label: &str) -> Vec<u8> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => [&path[..=at], &names::beside(&path[at + 1..], label)].concat(),
        None => names::beside(path, label),
    }
}
