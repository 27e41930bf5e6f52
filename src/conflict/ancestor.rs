//! The version that all versions of a file were made from, where a member still keeps it.
//!
//! Members keep what files were for a while, and know what the authors had seen whose records came to them. Which
//! version all of those had seen that compete now is worked out here, from what all members say together: then that
//! one was not only what some version was made from (see `base`), and everybody can show it.

use std::collections::{BTreeMap, BTreeSet};

use coda_proto::{Dot, Fid, Kind, Past, ServerId, Sibling, id::required, wire};

use super::{base::LARGEST, versions::base_id};
use crate::{
    cache,
    env::Priority,
    error::Error,
    ops::{Core, Result, Scratch, locked, unexpected},
    replica::AskError,
    store::Base,
    venus::face::ObjectId,
};

/// Bytes asked for at once.
const PIECE: u64 = 1 << 20;

/// What members say of what a file was.
#[derive(Debug, Default)]
struct Told {
    /// Versions that were replaced, what their authors had seen, and who has their contents.
    former: BTreeMap<Dot, (Sibling, Past, BTreeSet<ServerId>)>,
    /// What the authors of present versions had seen.
    seen: BTreeMap<Dot, Past>,
}

impl Told {
    fn take(
        &mut self,
        server: ServerId,
        formers: wire::Formers,
    ) -> std::result::Result<(), coda_proto::Malformed> {
        // All of it, or nothing.
        let (mut former, mut seen) = (Vec::new(), Vec::new());
        for one in formers.former {
            let version: Sibling = required(one.version, "former version")?;
            former.push((version, required::<_, Past>(one.seen, "what its author had seen")?));
        }
        for one in formers.seen {
            let past: Past = required(one.past, "what an author had seen")?;
            seen.push((required::<_, Dot>(one.dot, "version")?, past));
        }
        for (version, seen) in former {
            let known =
                self.former.entry(version.dot).or_insert_with(|| (version, Past::default(), BTreeSet::new()));
            known.1.join(&seen);
            known.2.insert(server);
        }
        for (dot, past) in seen {
            self.seen.entry(dot).or_default().join(&past);
        }
        Ok(())
    }

    /// The latest version that the authors of all of these had seen. Nothing where that of one is not known.
    ///
    /// Where several are the latest, made apart from each other, none of them is what all began from: against one
    /// of them, what it changed would look like something that another took back. Then it is what all of those
    /// were made from.
    fn ancestor(&self, versions: &[Dot]) -> Option<Dot> {
        let saw = |version: &Dot, dot: Dot| self.seen.get(version).is_some_and(|past| past.covers(dot));
        let common = |dot: &Dot| versions.iter().all(|version| saw(version, *dot));
        let mut found: Vec<Dot> = self.former.keys().copied().filter(common).collect();
        let before = |dot: Dot, later: Dot| self.former[&later].1.covers(dot);
        loop {
            let is_latest = |dot: &Dot| !found.iter().any(|other| before(*dot, *other));
            let latest: Vec<Dot> = found.iter().copied().filter(is_latest).collect();
            let first = *latest.first()?;
            if latest.iter().all(|dot| self.former[dot].0.hash == self.former[&first].0.hash) {
                return Some(first);
            }
            found.retain(|dot| latest.iter().all(|later| before(*dot, *later)));
        }
    }
}

impl Core {
    /// Whether what is kept as a file's base is what all of these versions were made from.
    pub(super) fn is_ancestor_of(&self, file: ObjectId, base: Dot, versions: &[Sibling]) -> bool {
        let agreed = locked(&self.ancestors);
        let Some((ancestor, of)) = agreed.get(&file) else { return false };
        *ancestor == base
            && versions.len() == of.len()
            && versions.iter().all(|version| of.contains(&version.dot))
    }

    /// Looks for what the versions of a file in conflict were made from, and keeps it as its base. Answers whether that is
    /// known now, or never will be.
    pub(crate) async fn seek_ancestor(&self, file: ObjectId) -> Result<bool> {
        // Who comes second finds it found.
        let _one = self.cache.locks.hold([search_of(file)]).await;
        let view = self.current(file).await?;
        let status = &view.row.status;
        if status.kind != Kind::File || !status.in_conflict() {
            return Ok(true);
        }
        let versions: Vec<Dot> = status.siblings.iter().map(|sibling| sibling.dot).collect();
        let (realm, group) = self.group(file).await?;
        let body = wire::request::Body::ListFormer(wire::ListFormer { fid: Some(file.fid.into()) });
        let mut told = Told::default();
        for (server, answer) in self.peers.ask_most(&realm, &group, body, Priority::Background).await.told {
            // Who knows nothing of this question keeps nothing.
            if let Ok(answer) = answer
                && let Some(wire::response::Body::Formers(formers)) = answer.response.body
            {
                // Others may know what one of them tells wrong.
                if let Err(error) = told.take(server, formers) {
                    tracing::debug!(realm = self.realm_field(file.realm), fid = %file.fid, %server, %error, "what it says of former versions");
                }
            }
        }
        let Some(dot) = told.ancestor(&versions) else { return Ok(false) };
        let (version, _, servers) = &told.former[&dot];
        let held = self.cache.store(|store| store.base(file))?;
        if held.as_ref().is_none_or(|held| held.version.dot != dot) {
            if version.length > LARGEST || version.length > self.cache.space().free {
                return Ok(true);
            }
            let fetched = self.fetch_former(file, &realm, version, servers).await?;
            // Somebody may have decided meanwhile, or written the file.
            let _held = self.cache.locks.hold([file]).await;
            let now = self.cache.view(file)?;
            if now.is_none_or(|now| now.row.status.siblings != status.siblings) {
                return Ok(false);
            }
            let held = self.cache.store(|store| store.base(file))?;
            let (time, container) = (self.env.now(), fetched.name);
            let base = Base { file, time, container, version: version.clone() };
            self.cache.store(|store| store.keep_base(&base))?;
            fetched.keep();
            held.into_iter().for_each(|held| self.cache.discard(held.container));
            self.forget_old_bases()?;
        }
        locked(&self.ancestors).insert(file, (dot, versions.into_iter().collect()));
        // It shows beside the name from now on.
        self.cache.forget_object(ObjectId { realm: file.realm, fid: status.parent }, true);
        Ok(true)
    }

    /// Fetches a version that some of the members keep.
    async fn fetch_former(
        &self,
        file: ObjectId,
        realm: &str,
        version: &Sibling,
        servers: &BTreeSet<ServerId>,
    ) -> Result<Scratch<'_>> {
        let mut bytes = Vec::new();
        for server in servers {
            match self.former_bytes(file, realm, version, *server).await {
                Ok(whole) => bytes = whole,
                Err(error) => {
                    tracing::debug!(realm = self.realm_field(file.realm), fid = %file.fid, %server, %error, "a former version")
                }
            }
            if bytes.len() as u64 == version.length && blake3::hash(&bytes).as_bytes() == &version.hash {
                let scratch = self.scratch()?;
                scratch.container.write_at(0, &bytes).map_err(|error| cache::io(file.fid, error))?;
                return Ok(scratch);
            }
        }
        Err(Error::Gone(file.fid))
    }

    async fn former_bytes(
        &self,
        file: ObjectId,
        realm: &str,
        version: &Sibling,
        server: ServerId,
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < version.length {
            let offset = bytes.len() as u64;
            let body = wire::request::Body::Fetch(wire::Fetch {
                fid: Some(file.fid.into()),
                dot: Some(version.dot.into()),
                offset,
                length: (version.length - offset).min(PIECE) as u32,
                holes: false,
            });
            let asked =
                self.peers.ask_one(realm, server, body, bytes::Bytes::new(), Priority::Background).await;
            let answer = asked.map_err(|error: AskError| error.about(&file.fid.to_string()))?;
            if answer.bulk.is_empty() || bytes.len() as u64 + answer.bulk.len() as u64 > version.length {
                return unexpected(file);
            }
            bytes.extend_from_slice(&answer.bulk);
        }
        Ok(bytes)
    }
}

/// The lock of the search for a file's base: no object has this name.
fn search_of(file: ObjectId) -> ObjectId {
    ObjectId { fid: Fid { vnode: 0, ..base_id(file).fid }, ..file }
}

#[cfg(test)]
mod tests {
    use coda_proto::Author;

    use super::*;

    fn dot(author: u64) -> Dot {
        Dot::new(Author(author), 1)
    }

    fn former(author: u64, mtime: i64, seen: &[u64]) -> wire::Former {
        let version = Sibling { dot: dot(author), length: 1, hash: [0; 32], mtime, host: String::new() };
        let seen: Past = seen.iter().map(|author| dot(*author)).collect();
        wire::Former { version: Some((&version).into()), seen: Some((&seen).into()) }
    }

    fn seen(author: u64, seen: &[u64]) -> wire::SeenBy {
        let past: Past = seen.iter().map(|author| dot(*author)).collect();
        wire::SeenBy { dot: Some(dot(author).into()), past: Some((&past).into()) }
    }

    fn told(formers: Vec<wire::Former>, seen: Vec<wire::SeenBy>) -> Told {
        let mut told = Told::default();
        // Each member knows a part.
        for (number, former) in formers.into_iter().enumerate() {
            let formers = wire::Formers { former: vec![former], seen: Vec::new() };
            told.take(ServerId(number as u8 + 1), formers).unwrap();
        }
        told.take(ServerId(9), wire::Formers { former: Vec::new(), seen }).unwrap();
        told
    }

    #[test]
    fn it_is_the_latest_version_that_all_authors_had_seen() {
        // 1 became 2, and 2 became 3; then 8 and 9 were made apart, 9 by somebody who had seen 2 only.
        let chain = vec![former(1, 1, &[]), former(2, 2, &[1]), former(3, 3, &[1, 2])];
        let both = vec![seen(8, &[1, 2, 3]), seen(9, &[1, 2])];
        assert_eq!(told(chain.clone(), both.clone()).ancestor(&[dot(8), dot(9)]), Some(dot(2)));
        // An older one that is left is an ancestor, too.
        assert_eq!(
            told(vec![chain[0].clone(), chain[2].clone()], both).ancestor(&[dot(8), dot(9)]),
            Some(dot(1))
        );
    }

    #[test]
    fn what_one_of_them_had_not_seen_or_of_whom_nobody_knows_what_he_had_is_none() {
        let formers = vec![former(1, 1, &[])];
        let apart = told(formers.clone(), vec![seen(8, &[1]), seen(9, &[5])]);
        assert_eq!(apart.ancestor(&[dot(8), dot(9)]), None);
        let unknown = told(formers.clone(), vec![seen(8, &[1])]);
        assert_eq!(unknown.ancestor(&[dot(8), dot(9)]), None);
        let third = told(formers, vec![seen(7, &[]), seen(8, &[1]), seen(9, &[1])]);
        assert_eq!(third.ancestor(&[dot(7), dot(8), dot(9)]), None);
        assert_eq!(third.ancestor(&[dot(8), dot(9)]), Some(dot(1)));
    }

    #[test]
    fn of_two_that_were_made_apart_themselves_it_is_what_both_were_made_from() {
        let apart = |number: u64| {
            let mut former = former(number, number as i64, &[1]);
            former.version.as_mut().unwrap().hash = vec![number as u8; 32].into();
            former
        };
        let both = vec![seen(8, &[1, 2, 3]), seen(9, &[1, 2, 3])];
        let of = |formers| told(formers, both.clone()).ancestor(&[dot(8), dot(9)]);
        assert_eq!(of(vec![former(1, 1, &[]), apart(2), apart(3)]), Some(dot(1)));
        assert_eq!(of(vec![apart(2), apart(3)]), None);
        // The same was made at both sides.
        assert_eq!(of(vec![former(1, 1, &[]), former(2, 2, &[1]), former(3, 3, &[1])]), Some(dot(2)));
    }

    #[test]
    fn what_one_member_tells_wrong_takes_nothing_from_what_others_tell() {
        let mut told = told(vec![former(1, 1, &[])], vec![seen(8, &[1]), seen(9, &[1])]);
        let wrong = wire::Former { seen: None, ..former(2, 9, &[1]) };
        let formers = wire::Formers { former: vec![former(3, 9, &[1]), wrong], seen: vec![seen(8, &[1, 3])] };
        assert!(told.take(ServerId(5), formers).is_err());
        assert_eq!(told.former.keys().copied().collect::<Vec<_>>(), [dot(1)]);
        assert_eq!(told.ancestor(&[dot(8), dot(9)]), Some(dot(1)));
    }
}
