//! Hoarding in the words of tools.

use std::collections::BTreeMap;

use coda_proto::{
    Fid, Kind, VolumeId,
    control::{Failure, FailureKind, HoardReport, HoardWish, NotHere, escape, unescape},
};

use super::wrong;
use crate::{
    control::failure::failure,
    error::Error,
    hoard::{Report, wish::attributes},
    ops::locked,
    store::{Reach, Wish},
    venus::{
        Venus,
        face::{Caller, ObjectId},
    },
};

/// Wishes that one path is spelt out into, at most.
const SPELT_OUT: usize = 10_000;

impl Venus {
    /// Wants a path, as `PRIORITY:ATTRIBUTES` says.
    pub(super) async fn hoard_add(&self, who: Caller, path: &str, text: &str) -> Result<(), Failure> {
        let attributes = attributes(text).map_err(|why| wrong(path, FailureKind::Invalid, why))?;
        let first = self.wish_for(who, path).await?;
        let reach = if attributes.future { attributes.reach } else { Reach::Itself };
        let wish = |path: Vec<u8>| Wish { path, priority: attributes.priority, reach, ..first.clone() };
        let added = async {
            let mut paths = vec![first.path.clone()];
            if !attributes.future && attributes.reach != Reach::Itself {
                self.spell_out(&first, attributes.reach, &mut paths).await?;
            }
            for path in paths {
                self.core.cache.store(|store| store.wish(&wish(path)))?;
            }
            self.core.keep_hoarding()
        };
        added.await.map_err(|error| failure(path, &error))
    }

    /// Everything that a wish reaches now, one by one.
    async fn spell_out(&self, wish: &Wish, reach: Reach, paths: &mut Vec<Vec<u8>>) -> Result<(), Error> {
        let mut open = vec![wish.path.clone()];
        while let Some(above) = open.pop() {
            let mut dir = ObjectId { realm: wish.realm, fid: Fid::root(wish.volume) };
            for name in above.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                self.core.directory(dir).await?;
                let entry = self.core.entry(dir, name)?;
                let entry = entry.ok_or_else(|| Error::NotFound(escape(name)))?;
                dir = ObjectId { realm: dir.realm, fid: entry.fid };
            }
            if !dir.fid.is_directory() {
                continue;
            }
            self.core.directory(dir).await?;
            for entry in self.core.cache.store(|store| store.entries(dir))? {
                let path = match above.is_empty() {
                    true => entry.name.clone(),
                    false => [&above[..], b"/", &entry.name].concat(),
                };
                if entry.kind == Kind::Directory && reach == Reach::Descendants {
                    open.push(path.clone());
                }
                paths.push(path);
                if paths.len() > SPELT_OUT {
                    return Err(Error::TooBig(format!("more than {SPELT_OUT} objects; use c+ or d+")));
                }
            }
        }
        Ok(())
    }

    /// The wish that a path makes.
    pub(super) async fn wish_for(&self, who: Caller, path: &str) -> Result<Wish, Failure> {
        let id = self.core.served(self.find(who, path).await?);
        if id.realm == 0 {
            return Err(wrong(path, FailureKind::Invalid, "is made up by venus and always here"));
        }
        let root = ObjectId { realm: id.realm, fid: Fid::root(id.fid.volume) };
        let (at, above) = (self.path_of(id), self.path_of(root));
        let within = match (&at, &above) {
            (Some(at), Some(above)) => at.strip_prefix(above.as_str()),
            _ => None,
        };
        let within = within.ok_or_else(|| wrong(path, FailureKind::NotFound, "where it is, is not known"))?;
        let path = unescape(within.trim_start_matches('/'));
        Ok(Wish {
            realm: id.realm,
            volume: id.fid.volume,
            path,
            uid: who.uid,
            priority: crate::hoard::wish::USUAL,
            reach: Reach::Itself,
            most: None,
        })
    }

    /// Wants a path no longer.
    pub(super) async fn hoard_delete(&self, who: Caller, path: &str) -> Result<(), Failure> {
        let wish = match self.wish_for(who, path).await {
            Ok(wish) => wish,
            // What is wanted may be there no longer.
            Err(failure) => {
                let wishes = self.wishes(None)?;
                let gone = wishes.into_iter().find(|(shown, _)| shown.path == path);
                gone.map(|(_, wish)| wish).ok_or(failure)?
            }
        };
        let (realm, volume) = (wish.realm, wish.volume);
        let gone = self.core.cache.store(|store| store.unwish(realm, volume, &wish.path));
        match gone.map_err(|error| failure(path, &error))? {
            true => {
                self.walk_aside();
                Ok(())
            }
            false => Err(wrong(path, FailureKind::NotFound, "not hoarded")),
        }
    }

    /// Wants nothing more of what one user, or anybody, wanted.
    pub(super) fn hoard_clear(&self, uid: Option<u32>) -> Result<(), Failure> {
        for (_, wish) in self.wishes(uid)? {
            let gone = self.core.cache.store(|store| store.unwish(wish.realm, wish.volume, &wish.path));
            gone.map_err(|error| failure("hoard", &error))?;
        }
        self.walk_aside();
        Ok(())
    }

    /// What was dropped is let go at the next walk: now, without waiting for it.
    fn walk_aside(&self) {
        self.core.hoard_walk_aside();
    }

    /// What is wanted, the most wanted first.
    pub(super) fn hoard_list(&self, uid: Option<u32>) -> Result<Vec<HoardWish>, Failure> {
        Ok(self.wishes(uid)?.into_iter().map(|(shown, _)| shown).collect())
    }

    /// Where a wish points, as people know it.
    pub(super) fn path_of_wish(&self, wish: &Wish) -> String {
        let root = ObjectId { realm: wish.realm, fid: Fid::root(wish.volume) };
        let above = self.path_of(root).unwrap_or_else(|| self.volume_name(root));
        match escape(&wish.path) {
            inside if inside.is_empty() => above,
            inside => format!("{above}/{inside}"),
        }
    }

    fn wishes(&self, uid: Option<u32>) -> Result<Vec<(HoardWish, Wish)>, Failure> {
        let wishes = self.core.cache.store(|store| store.wishes());
        let wishes = wishes.map_err(|error| failure("hoard", &error))?;
        let shown = |wish: Wish| {
            let inside = escape(&wish.path);
            let shown = HoardWish {
                path: self.path_of_wish(&wish),
                volume: wish.volume.to_string(),
                realm: self.core.realm_name(wish.realm).map(|name| name.to_string()).unwrap_or_default(),
                inside: if inside.is_empty() { ".".into() } else { format!("./{inside}") },
                uid: wish.uid,
                priority: wish.priority,
                reach: match wish.reach {
                    Reach::Itself => "",
                    Reach::Children => "c+",
                    Reach::Descendants => "d+",
                    Reach::Matching => "pattern",
                }
                .into(),
            };
            (shown, wish)
        };
        let wanted = |wish: &Wish| uid.is_none_or(|uid| wish.uid == uid);
        Ok(wishes.into_iter().filter(wanted).map(shown).collect())
    }

    /// Begins a walk where none is under way. The answer says how things are now.
    pub(super) async fn hoard_begin(&self) -> Result<HoardReport, Failure> {
        self.walk_aside();
        self.hoard_report().await
    }

    /// What is wanted and not here.
    pub(super) async fn hoard_report(&self) -> Result<HoardReport, Failure> {
        let report = self.core.hoard_look().await.map_err(|error| failure("hoard", &error))?;
        let walking = locked(&self.core.hoard).walking;
        Ok(self.reported(report, walking))
    }

    /// What of a path is not here, whether it is wanted or not.
    pub(super) async fn preflight(&self, who: Caller, path: &str) -> Result<HoardReport, Failure> {
        let wish = match self.wish_to_pin(who, path).await {
            Ok(wish) => wish,
            // What lies in no volume, as all realms together, has what is wanted.
            Err(failed) if failed.kind == FailureKind::Invalid => return self.hoard_report().await,
            Err(failed) => return Err(failed),
        };
        let looked = self.core.hoard_look_at(wish).await.map_err(|error| failure(path, &error));
        let (report, unkept) = looked?;
        let walking = locked(&self.core.hoard).walking;
        Ok(HoardReport { unkept, ..self.reported(report, walking) })
    }

    fn reported(&self, report: Report, walking: bool) -> HoardReport {
        let seconds = self.seconds_to_fetch(&report);
        let missing = report.missing.into_iter().map(|missing| {
            let above = self.path_of(missing.id).unwrap_or_else(|| missing.id.fid.to_string());
            NotHere {
                path: match missing.path.is_empty() {
                    true => above,
                    false => format!("{above}/{}", escape(&missing.path)),
                },
                why: missing.why,
                bytes: missing.bytes,
                priority: missing.priority,
            }
        });
        HoardReport {
            walking,
            objects: report.objects,
            bytes: report.bytes,
            room: report.room,
            missing: missing.collect(),
            unkept: 0,
            seconds,
        }
    }

    /// How long fetching what is missing takes, by what the lines to its volumes have carried so far.
    fn seconds_to_fetch(&self, report: &Report) -> Option<u64> {
        let mut bytes: BTreeMap<(u32, VolumeId), u64> = BTreeMap::new();
        for missing in &report.missing {
            *bytes.entry((missing.id.realm, missing.id.fid.volume)).or_default() += missing.bytes;
        }
        let seconds = |((realm, volume), bytes): ((u32, VolumeId), u64)| {
            let bandwidth = self.core.bandwidth(realm, volume).filter(|bandwidth| *bandwidth > 0)?;
            Some(bytes.div_ceil(bandwidth))
        };
        bytes.into_iter().map(seconds).sum()
    }

    /// Walks that nobody asks for happen, or do not.
    pub(super) fn hoard_switch(&self, on: bool) {
        locked(&self.core.hoard).off = !on;
    }
}
