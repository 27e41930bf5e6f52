//! How volumes, servers and venus itself are.

use std::{collections::BTreeMap, time::Duration};

use coda_proto::{
    VolumeId,
    control::{
        Alone, Failure, FailureKind, FidState, Place, Places, RealmState, Reply, Sent, ServedVolume,
        ServerState, Status, Volume, VolumeState,
    },
};
use tokio::time::{Instant, sleep};

use super::{server_state, wrong};
use crate::{
    control::failure::failure,
    replica::{Group, MemberState},
    venus::{
        Venus,
        face::{Caller, ObjectId},
    },
};

/// How long `cfs forcereintegrate` waits for what is pending.
const SENDING: Duration = Duration::from_secs(30);
/// Open files that are named, at most.
const NAMED: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Volumes with their realms' names.
pub(super) type Volumes = BTreeMap<(u32, VolumeId), (String, Group)>;

impl Venus {
    /// The group of a path's volume. `/coda` itself is in none.
    async fn group_of(&self, who: Caller, path: &str) -> Result<(ObjectId, String, Group), Failure> {
        let id = self.find(who, path).await?;
        if id.realm == 0 {
            return Err(wrong(path, FailureKind::Invalid, "belongs to no volume: it only shows the realms"));
        }
        let (realm, group) = self.core.group(id).await.map_err(|error| failure(path, &error))?;
        Ok((id, realm.to_string(), group))
    }

    pub(super) async fn places(&self, who: Caller, path: &str) -> Result<Places, Failure> {
        let (_, realm, group) = self.group_of(who, path).await?;
        let states = self.servers();
        let up = |server: u8| states.get(&(realm.clone(), server)).is_some_and(|state| state.up);
        let place = |member: &crate::replica::Member| Place {
            slot: member.slot,
            server: u32::from(member.server.0),
            name: self.core.peers.server_name(&realm, member.server),
            up: up(member.server.0),
            state: match member.state {
                MemberState::Joining => "joining",
                MemberState::Active => "active",
                MemberState::Leaving => "leaving",
            }
            .into(),
        };
        let members = group.members.iter().map(place).collect();
        Ok(Places { volume: group.name, id: group.id.to_string(), epoch: group.epoch, members, realm })
    }

    fn servers(&self) -> BTreeMap<(String, u8), ServerState> {
        let all = self.core.peers.status().into_iter();
        all.map(|server| ((server.realm.clone(), server.id), server_state(server))).collect()
    }

    pub(super) async fn status(&self, who: Caller, path: Option<&str>) -> Result<Status, Failure> {
        let only = match path {
            Some(path) => {
                let (_, realm, group) = self.group_of(who, path).await?;
                Some((realm, group.id))
            }
            None => None,
        };
        let space = self.core.cache.space();
        let servers = self.servers();
        let cached = self.core.cache.store(|store| store.volumes()).unwrap_or_default();
        let mut status = Status {
            mountpoint: self.config().mountpoint.clone(),
            cache_used: space.total.saturating_sub(space.free),
            cache_size: space.total,
            objects: space.objects.saturating_sub(space.objects_free),
            objects_limit: space.objects,
            alone: self.alone(),
            ..Status::default()
        };
        for (name, known) in self.core.peers.known().realms {
            if only.as_ref().is_some_and(|(realm, _)| *realm != name) {
                continue;
            }
            let of_realm = servers.iter().filter(|((realm, _), _)| *realm == name);
            let realm = RealmState {
                name: name.clone(),
                servers: of_realm.map(|(_, server)| server.clone()).collect(),
            };
            let Ok(number) = self.core.realm_number(&name) else { continue };
            for group in known.volumes.values() {
                let wanted = match &only {
                    Some((_, volume)) => *volume == group.id,
                    None => cached.contains(&(number, group.id)),
                };
                if wanted {
                    status.volumes.push(self.volume_state(&name, group));
                }
            }
            status.realms.push(realm);
        }
        Ok(status)
    }

    /// What only this machine has. Nothing where that cannot be told.
    fn alone(&self) -> Option<Alone> {
        let (spool, spooled) = self.core.cache.containers.spooled().ok()?;
        let logs = self.core.logs().into_iter();
        let open = self.core.cache.unstored();
        Some(Alone {
            records: logs.map(|(realm, volume)| self.core.pending(realm, volume).0).sum(),
            open: open.len() as u64,
            open_paths: self.paths_of(open.into_iter()),
            spooled,
            spool: if spooled > 0 { spool } else { String::new() },
        })
    }

    /// Where the first of some files are.
    pub(super) fn paths_of(&self, files: impl Iterator<Item = ObjectId>) -> Vec<String> {
        files.take(NAMED).map(|id| self.path_of(id).unwrap_or_else(|| id.fid.to_string())).collect()
    }

    /// How a volume is, with why and what to do where that is not well.
    fn volume_state(&self, realm: &str, group: &Group) -> VolumeState {
        let servers = self.servers();
        let of = |member: &crate::replica::Member| servers.get(&(realm.to_owned(), member.server.0)).cloned();
        let states: Vec<ServerState> = group.members.iter().filter_map(of).collect();
        let live = self.core.peers.live(realm, group).len() as u32;
        let members = group.members.len() as u32;
        let down = states.iter().filter(|server| matches!(server.state.as_str(), "dead" | "disconnected"));
        let why: Vec<String> = down.map(|server| format!("{} is {}", server.name, server.state)).collect();
        let apart = states.iter().any(|server| server.state == "disconnected");
        let next = match (live == members, apart) {
            (true, _) => "",
            (false, true) => "`cfs reconnect` ends what `cfs disconnect` began",
            (false, false) => "`cfs checkservers` tries them again now",
        };
        let number = self.core.realm_number(realm).unwrap_or(0);
        let (pending, pending_bytes) = self.core.pending(number, group.id);
        VolumeState {
            name: group.name.clone(),
            id: group.id.to_string(),
            realm: realm.to_owned(),
            state: match live > 0 {
                true if self.core.is_resolving(number, group.id) => "resolving",
                true => "reachable",
                false => "unreachable",
            }
            .into(),
            live,
            members,
            why: why.join(", "),
            next: next.into(),
            mode: self.core.volume_mode(number, group.id, live > 0).text().into(),
            waits: self.core.reasons(number, group.id, live > 0),
            pending,
            pending_bytes,
            oldest_seconds: if pending > 0 { self.oldest(number, group.id) } else { 0 },
        }
    }

    /// Age of the oldest record of a volume in the log.
    fn oldest(&self, realm: u32, volume: VolumeId) -> u64 {
        let log = self.core.cache.store(|store| store.log()).unwrap_or_default();
        let of_volume = |row: &&crate::store::LogRow| {
            row.realm == realm && row.record.op.touches().first().is_some_and(|fid| fid.volume == volume)
        };
        let first = log.iter().find(of_volume).map(|row| row.record.time);
        let age = first.map_or(0, |time| self.core.env.now().saturating_sub(time));
        u64::try_from(age / 1_000_000_000).unwrap_or(0)
    }

    pub(super) async fn volume(&self, who: Caller, path: &str, local: bool) -> Result<Volume, Failure> {
        let (id, realm, group) = self.group_of(who, path).await?;
        let served = match local || self.core.peers.live(&realm, &group).is_empty() {
            true => None,
            // Whoever could be asked may die while asked: then its facts are left out, as without servers.
            false => self.core.volume_status(id).await.ok().map(|status| ServedVolume {
                quota_blocks: status.quota_max,
                used_blocks: status.blocks_used,
                free_blocks: status.partition_free,
                total_blocks: status.partition_size,
            }),
        };
        let cached = self.core.cache.store(|store| store.of_volume(id.realm, group.id)).unwrap_or_default();
        let conflicts = cached.iter().any(|(_, row)| row.status.in_conflict() || row.status.marked);
        Ok(Volume { state: self.volume_state(&realm, &group), served, conflicts })
    }

    pub(super) async fn change_quota(&self, who: Caller, path: &str, blocks: u64) -> Result<Reply, Failure> {
        let (id, ..) = self.group_of(who, path).await?;
        let changed = async {
            let old = self.core.volume_status(id).await?.quota_max;
            self.core.set_quota(who.uid, id, blocks).await?;
            Ok(Reply::Quota { old, new: blocks })
        };
        changed.await.map_err(|error| failure(path, &error))
    }

    pub(super) async fn fid(&self, who: Caller, path: &str) -> Result<FidState, Failure> {
        let id = self.core.served(self.find(who, path).await?);
        if id.realm == 0 {
            return Err(wrong(path, FailureKind::Invalid, "is made up by venus and has no version"));
        }
        let shown = async {
            let realm = self.core.realm_name(id.realm)?;
            let view = self.core.current(id).await?;
            let status = &view.row.status;
            Ok(FidState {
                fid: id.fid.to_string(),
                realm: realm.to_string(),
                past: status.past.entries().map(|dot| dot.to_string()).collect(),
                siblings: status.siblings.iter().map(|sibling| sibling.dot.to_string()).collect(),
                conflict: status.in_conflict() || status.marked,
            })
        };
        shown.await.map_err(|error| failure(path, &error))
    }

    /// The volumes of some paths, or all that are known.
    pub(super) async fn groups_of(&self, who: Caller, paths: &[String]) -> Result<Volumes, Failure> {
        let mut volumes = BTreeMap::new();
        for path in paths {
            let (id, realm, group) = self.group_of(who, path).await?;
            volumes.insert((id.realm, group.id), (realm, group));
        }
        if paths.is_empty() {
            for (realm, known) in self.core.peers.known().realms {
                let Ok(number) = self.core.realm_number(&realm) else { continue };
                for group in known.volumes.into_values() {
                    volumes.insert((number, group.id), (realm.clone(), group));
                }
            }
        }
        Ok(volumes)
    }

    /// Sends what is pending, and waits until it is sent or all that is left waits for something, nobody can take it,
    /// or time is up.
    pub(super) async fn send_pending(
        &self,
        who: Caller,
        paths: &[String],
        limit: Option<Duration>,
    ) -> Result<Vec<Sent>, Failure> {
        let volumes = self.groups_of(who, paths).await?;
        volumes.keys().for_each(|(realm, volume)| self.core.force(*realm, *volume));
        let until = Instant::now() + limit.map_or(SENDING, |limit| limit.min(SENDING));
        let waiting = |volumes: &Volumes| {
            volumes.iter().any(|((number, volume), (realm, group))| {
                let live = !self.core.peers.live(realm, group).is_empty();
                live && self.core.is_sending(*number, *volume)
            })
        };
        while waiting(&volumes) && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        let sent = |((number, volume), (realm, group)): (&(u32, VolumeId), &(String, Group))| {
            let remaining = self.core.pending(*number, *volume).0;
            let reasons = self.core.reasons(*number, *volume, !self.core.peers.live(realm, group).is_empty());
            let why = match remaining {
                0 => String::new(),
                _ if reasons.is_empty() => "the servers have not taken them yet".to_owned(),
                _ => reasons.join("; "),
            };
            Sent { volume: group.name.clone(), remaining, why }
        };
        Ok(volumes.iter().map(sent).collect())
    }
}
