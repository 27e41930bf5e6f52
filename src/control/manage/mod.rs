//! What the cache manager answers to tools: each request in the words of the core.

mod conflicts;
mod flush;
mod hoard;
mod lists;
mod log;
mod metrics;
mod path;
mod pin;
mod state;
mod tar;

use std::time::Duration;

use coda_proto::control::{Failure, FailureKind, Mount, Reply, Request, ServerState};

use super::{Manager, failure::failure};
use crate::{
    cml::Mode,
    error::Error,
    events::Events,
    ops::{Removal, path::mount_target},
    replica::{ServerStatus, VolumeKey},
    venus::{Venus, face::Caller},
};

impl Manager for Venus {
    async fn answer(&self, who: Caller, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Status { path } => self.status(who, path.as_deref()).await.map(Reply::Status),
            Request::Whereis { path } => self.places(who, &path).await.map(Reply::Places),
            Request::CheckServers { servers } => {
                let (states, strangers) = self.core.peers.check(&servers).await;
                known(strangers).map(|()| Reply::Servers(states.into_iter().map(server_state).collect()))
            }
            Request::CheckVolumes => self.check_volumes().map(|()| Reply::Done),
            Request::Strength { strong, paths } => {
                self.set_modes(who, &paths, |mode| mode.strong = strong).await?;
                if strong {
                    self.core.peers.probe_now();
                }
                Ok(Reply::Done)
            }
            Request::WaitForever { on, realm } => {
                let realm = realm.map(|realm| self.core.realm_number(&realm)).transpose();
                let realm = realm.map_err(|error| failure("the realm", &error))?;
                self.core.wait_forever(who.uid, realm, on);
                Ok(Reply::Done)
            }
            Request::FlushObject { path } => self.flush_object(who, &path).await.map(Reply::Flushed),
            Request::FlushVolume { path } => self.flush_volume(who, &path).await.map(Reply::Flushed),
            Request::FlushCache => self.flush_cache().await.map(Reply::Flushed),
            Request::GetFid { path } => self.fid(who, &path).await.map(Reply::Fid),
            Request::GetPath { fid } => self.path_of_fid(&fid).map(Reply::Path),
            Request::GetMountPoint { volume } => self.mount_of(&volume).map(Reply::Path),
            Request::ListVolume { path, local } => self.volume(who, &path, local).await.map(Reply::Volume),
            Request::ListMount { path } => self.list_mount(who, &path).await.map(Reply::Mount),
            Request::MakeMount { path, volume } => {
                self.make_mount(who, &path, &volume).await.map(|()| Reply::Done)
            }
            Request::RemoveMount { path } => self.remove_mount(who, &path).await.map(|()| Reply::Done),
            Request::GetAcl { path } => self.access_list(who, &path).await.map(Reply::Acl),
            Request::SetAcl { path, acl } => {
                self.set_access_list(who, &path, &acl).await.map(|()| Reply::Done)
            }
            Request::ListCache { volumes } => self.list_cache(who, &volumes).await.map(Reply::Cache),
            Request::SetQuota { path, blocks } => self.change_quota(who, &path, blocks).await,
            Request::Disconnect { servers } => {
                known(self.core.peers.disconnect(&servers)).map(|()| Reply::Done)
            }
            Request::Reconnect { servers } => {
                known(self.core.peers.reconnect(&servers)).map(|()| Reply::Done)
            }
            Request::Reintegrate { paths, seconds } => {
                self.send_pending(who, &paths, seconds.map(Duration::from_secs)).await.map(Reply::Sent)
            }
            Request::Conflicts { paths } => self.conflicts(who, &paths).await.map(Reply::Conflicts),
            Request::HoardAdd { path, attributes } => {
                self.hoard_add(who, &path, &attributes).await.map(|()| Reply::Done)
            }
            Request::HoardDelete { path } => self.hoard_delete(who, &path).await.map(|()| Reply::Done),
            Request::HoardClear { uid } => self.hoard_clear(uid).map(|()| Reply::Done),
            Request::HoardList { uid } => self.hoard_list(uid).map(Reply::Hoard),
            Request::HoardWalk => self.hoard_begin().await.map(Reply::HoardReport),
            Request::Preflight { path } => self.preflight(who, &path).await.map(Reply::HoardReport),
            Request::HoardVerify => self.hoard_report().await.map(Reply::HoardReport),
            Request::HoardSwitch { on } => {
                self.hoard_switch(on);
                Ok(Reply::Done)
            }
            Request::Pin { path, most } => self.pin(who, &path, most).await.map(Reply::Pinned),
            Request::Rehearse { begin: true } => {
                self.core.rehearse(who.pid);
                Ok(Reply::Done)
            }
            Request::Rehearse { begin: false } => Ok(Reply::Missed(self.misses(who))),
            Request::Expand { path } => self.expand(who, &path, true).await.map(|()| Reply::Done),
            Request::Collapse { path } => self.expand(who, &path, false).await.map(|()| Reply::Done),
            Request::Undo { id: None } => self.undoable().map(Reply::Undoable),
            Request::Undo { id: Some(id) } => self.undo(who, id).await.map(Reply::Resolved),
            Request::Resolve { path, how, of } => {
                self.decide(who, &path, how, &of).await.map(Reply::Resolved)
            }
            Request::WriteDisconnect { paths, age, time } => {
                self.write_disconnect(who, &paths, age, time).await.map(|()| Reply::Done)
            }
            Request::WriteReconnect { paths } => {
                self.set_modes(who, &paths, |mode| *mode = Mode { strong: mode.strong, ..Mode::default() })
                    .await?;
                self.send_pending(who, &paths, None).await.map(Reply::Sent)
            }
            Request::Pending { path } => self.pending(who, path.as_deref()).await.map(Reply::Pending),
            Request::Approve { paths } => self.approve(who, &paths).await.map(Reply::Approved),
            Request::PurgeLog { path, all } => self.purge(who, &path, all).await.map(Reply::Purged),
            Request::CheckpointLog { path, dir } => {
                self.checkpoint(who, path.as_deref(), dir.as_deref()).await.map(Reply::Written)
            }
            Request::Events { .. } => {
                Err(wrong("events", FailureKind::Invalid, "events are told, not answered"))
            }
        }
    }

    fn events(&self) -> &Events {
        Venus::events(self)
    }
}

impl Venus {
    /// Believes no location any more, and no cached object without asking.
    fn check_volumes(&self) -> Result<(), Failure> {
        for realm in self.core.peers.realms() {
            self.core.peers.forget_volumes(&realm);
        }
        for (number, _) in self.core.realms() {
            self.core.cache.void(number, |_| true);
        }
        Ok(())
    }

    async fn list_mount(&self, who: Caller, path: &str) -> Result<Mount, Failure> {
        let Some(place) = self.place(who, path).await? else { return Ok(Mount::Directory) };
        let found = async {
            let view = self.core.current(place.link).await?;
            let Some((volume, realm)) = mount_target(&view.row.status) else {
                return Ok(if place.link.fid.is_directory() { Mount::Directory } else { Mount::Other });
            };
            let named = match &realm {
                Some(realm) => format!("{volume}@{realm}"),
                None => volume.clone(),
            };
            let here = self.core.realm_name(place.dir.realm)?;
            let realm = realm.unwrap_or_else(|| here.to_string());
            match self.core.peers.volume(&realm, VolumeKey::Name(volume)).await {
                Ok(_) => Ok(Mount::Mounted(named)),
                Err(Error::UnknownVolume(_) | Error::UnknownRealm(_) | Error::NotFound(_)) => {
                    Ok(Mount::Dangling(named))
                }
                Err(error) => Err(error),
            }
        };
        found.await.map_err(|error| failure(path, &error))
    }

    async fn make_mount(&self, who: Caller, path: &str, volume: &str) -> Result<(), Failure> {
        let (name, realm) =
            volume.split_once('@').map_or((volume, None), |(name, realm)| (name, Some(realm)));
        let bad = |word: &str| {
            word.is_empty() || word.contains(|c: char| c == '/' || c.is_whitespace() || c == '#')
        };
        if bad(name) || realm.is_some_and(bad) {
            return Err(wrong(volume, FailureKind::Invalid, "not the name of a volume: NAME or NAME@REALM"));
        }
        let (dir, name) = self.parent_of(who, path).await?;
        let target = format!("#{volume}.");
        let made = self.core.make_link(who, dir, &name, target.as_bytes(), 0o644).await;
        made.map_err(|error| failure(path, &error))?;
        // The kernel did not ask for this itself.
        self.core.cache.forget_name(dir, &name);
        self.core.cache.forget_object(dir, true);
        Ok(())
    }

    async fn remove_mount(&self, who: Caller, path: &str) -> Result<(), Failure> {
        let none = || wrong(path, FailureKind::NotDirectory, "not a mount point");
        let place = self.place(who, path).await?.ok_or_else(none)?;
        let view = self.core.current(place.link).await.map_err(|error| failure(path, &error))?;
        if mount_target(&view.row.status).is_none() {
            return Err(none());
        }
        let removed = self.core.remove(who.uid, place.dir, &place.name, Removal::Mount).await;
        removed.map_err(|error| failure(path, &error))?;
        self.core.cache.forget_name(place.dir, &place.name);
        self.core.cache.forget_object(place.dir, true);
        Ok(())
    }
}

fn wrong(what: &str, kind: FailureKind, why: impl Into<String>) -> Failure {
    Failure { kind, what: what.to_owned(), why: why.into(), next: String::new() }
}

/// Names of servers that meant nobody are a failure.
fn known(strangers: Vec<String>) -> Result<(), Failure> {
    match strangers.first() {
        None => Ok(()),
        Some(stranger) => {
            let failure = wrong(stranger, FailureKind::NotFound, "no such server");
            Err(Failure { next: "`cfs status` lists the servers that are known".into(), ..failure })
        }
    }
}

fn server_state(server: ServerStatus) -> ServerState {
    let why = match (server.state, server.heard_s) {
        ("disconnected", _) => "by `cfs disconnect`".to_owned(),
        ("dead", Some(seconds)) => format!("no sign of life, last heard {seconds} s ago"),
        ("dead", None) => "no sign of life".to_owned(),
        _ => String::new(),
    };
    ServerState {
        name: server.name,
        realm: server.realm,
        up: server.state == "up",
        state: server.state.to_owned(),
        why,
    }
}
