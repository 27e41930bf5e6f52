//! Conflicts that a rule decides: whoever sees one merges it, in the background, once.

use std::{collections::btree_map::Entry, time::Duration};

use coda_proto::{Dot, Kind};
use tokio::time::Instant;

use super::{
    Keep,
    merge::{self, Rule},
    versions::distinct,
};
use crate::{
    cache,
    error::Error,
    ops::{Core, Result, locked},
    venus::face::{Caller, ObjectId, OpenMode},
};

/// The file that holds the rules for a directory and those below it.
const RULES: &[u8] = b".codamerge";
/// Bytes of rules, at most.
const RULES_LIMIT: u64 = 64 * 1024;
/// Directories above a file that may have rules.
const DEPTH: usize = 64;
/// Sets of versions that were looked at, at most.
const REMEMBERED: usize = 10_000;

/// Where it was not found what versions were made from, it is looked for again after so long, and when a member comes up.
const AGAIN: Duration = Duration::from_secs(600);

/// Whether a set of versions was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sought {
    /// That was enough.
    Once,
    /// Nobody there knew what they were made from: until then there is no other look.
    Until(Instant),
}

impl Sought {
    fn is_enough(self, now: Instant) -> bool {
        match self {
            Sought::Once => true,
            Sought::Until(again) => now < again,
        }
    }
}

impl Core {
    /// Members came up that may know what versions were made from.
    pub(crate) fn look_again_for_ancestors(&self) {
        locked(&self.merging).retain(|_, sought| *sought == Sought::Once);
    }

    /// A file has several versions: looks for what they were made from, and merges them if there is a rule for it.
    pub(crate) fn merge_by_rule(&self, id: ObjectId, siblings: Vec<Dot>) {
        {
            let mut seen = locked(&self.merging);
            if seen.len() > REMEMBERED {
                seen.clear();
            }
            let now = Instant::now();
            match seen.entry((id, siblings.clone())) {
                Entry::Occupied(sought) if sought.get().is_enough(now) => return,
                sought => *sought.or_insert(Sought::Once) = Sought::Once,
            }
        }
        let (core, versions) = (self.me(), siblings);
        self.spawn(async move {
            let known = core.seek_ancestor(id).await;
            tracing::debug!(realm = core.realm_field(id.realm), fid = %id.fid, ?known, "what its versions were made from");
            if !known.unwrap_or(false) {
                // Members that are away may know it.
                locked(&core.merging).insert((id, versions), Sought::Until(Instant::now() + AGAIN));
            }
            match core.try_merge(id).await {
                Ok(true) => core.say("conflict", format!("Merged {} by rule", id.fid)),
                Ok(false) => {}
                Err(error) => tracing::debug!(realm = core.realm_field(id.realm), fid = %id.fid, %error, "not merged by rule"),
            }
        });
    }

    async fn try_merge(&self, id: ObjectId) -> Result<bool> {
        let view = self.current(id).await?;
        let status = &view.row.status;
        if status.kind != Kind::File || !status.in_conflict() {
            return Ok(false);
        }
        let dir = ObjectId { realm: id.realm, fid: status.parent };
        let Some(rule) = self.rule(dir, id).await? else { return Ok(false) };
        self.merge_as(self.settings.owner, id, rule).await.map(|merged| merged.is_some())
    }

    /// Merges what several sides wrote, as a rule says. Answers nothing where it does not say how.
    pub(crate) async fn merge_as(
        &self,
        uid: u32,
        id: ObjectId,
        rule: Rule,
    ) -> Result<Option<super::Decided>> {
        let view = self.current(id).await?;
        let status = &view.row.status;
        let versions = distinct(&status.siblings);
        if versions.iter().any(|version| version.length > merge::LIMIT) {
            return Ok(None);
        }
        let base = self.base_bytes(id, status, merge::LIMIT)?;
        let mut contents = Vec::new();
        for version in &versions {
            let source = self.source(id, &view, version).await?;
            let mut bytes = vec![0; source.length as usize];
            let read = source.container.read_at(0, &mut bytes).map_err(|e| cache::io(id.fid, e))?;
            bytes.truncate(read);
            contents.push(bytes);
        }
        let Some(merged) = merge::merge(rule, base.as_deref(), &contents) else { return Ok(None) };
        let scratch = self.scratch()?;
        scratch.container.write_at(0, &merged).map_err(|error| cache::io(id.fid, error))?;
        let mtime = versions.iter().map(|version| version.mtime).max().unwrap_or_default();
        let of = status.siblings.iter().map(|sibling| sibling.dot).collect();
        self.decide(uid, id, Keep::Given { container: scratch.name, mtime, of }).await.map(Some)
    }

    /// The rule for a file: of the nearest directory that has one for its name.
    async fn rule(&self, dir: ObjectId, id: ObjectId) -> Result<Option<Rule>> {
        self.directory(dir).await?;
        let Some(name) = self.cache.store(|store| store.name_in(dir, id.fid))? else { return Ok(None) };
        let mut at = dir;
        for _ in 0..DEPTH {
            self.directory(at).await?;
            if let Some(entry) = self.entry(at, RULES)?.filter(|entry| entry.kind == Kind::File)
                && entry.fid != id.fid
            {
                let rules = self.rules(ObjectId { realm: at.realm, fid: entry.fid }).await?;
                if let Some(rule) = merge::rule_for(&rules, &name) {
                    return Ok(Some(rule));
                }
            }
            if at.fid.is_root() {
                break;
            }
            at = self.parent(at).await?;
        }
        Ok(None)
    }

    async fn rules(&self, id: ObjectId) -> Result<Vec<u8>> {
        // Whoever may write here is whose rights count at the servers; nobody local asks.
        let nobody = Caller { uid: u32::MAX, gid: u32::MAX, pid: 0 };
        let mode = OpenMode { read: true, write: false, truncate: false };
        let opened = self.open(nobody, id, mode).await?;
        let mut bytes = vec![0; opened.attr.size.min(RULES_LIMIT) as usize];
        let read = opened.container.read_at(0, &mut bytes);
        self.release(opened.handle).await?;
        bytes.truncate(read.map_err(|error| Error::Io(id.fid.to_string(), error.to_string()))?);
        Ok(bytes)
    }
}
