//! Where volumes are: asked from any server of the realm, remembered, and asked again when somebody shows
//! that what we believe is out of date.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{Code, ServerId, VolumeId, wire};
use tokio::time::Instant;

use super::{
    AskError, PeerEvent, Peers,
    flight::Flight,
    latency::GRACE_LIMIT,
    learn::KNOWN_FOR,
    peers::{Realm, WANTED_EVERY},
    race::{Attempt, for_a_while, race},
    server::locked,
};
use crate::{
    env::Priority,
    error::Error,
    volume::{Group, News, VolumeKey, news},
};

/// Somebody asks for a volume's location.
pub type VolumeFlight = Flight<Result<Group, Error>>;

/// A name is looked up again after so long, while in use: it may mean another volume now.
const NAME_KNOWN_FOR: Duration = Duration::from_secs(60);

/// How far the location of a volume is believed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Located {
    /// When a server last told it, in this run.
    asked: Option<Instant>,
    /// Somebody showed that it is out of date, or people asked to forget it.
    doubted: bool,
}

/// What to do for somebody who wants a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Go,
    GoAndRefresh,
    Ask,
}

fn plan(known: bool, doubted: bool, asked: Option<Duration>, good_for: Duration) -> Plan {
    match asked {
        _ if !known || doubted => Plan::Ask,
        Some(ago) if ago < good_for => Plan::Go,
        _ => Plan::GoAndRefresh,
    }
}

impl Peers {
    /// A volume and its members, by the realm's servers or by what the disk remembers.
    pub async fn volume(&self, realm: &str, key: VolumeKey) -> Result<Group, Error> {
        self.realm(realm).await?;
        let realm = self.realm_entry(realm);
        let good_for = if matches!(key, VolumeKey::Id(_)) { KNOWN_FOR } else { NAME_KNOWN_FOR };
        let (known, plan) = {
            let state = locked(&realm.state);
            let known = state.known.as_ref().and_then(|known| known.volume(&key)).cloned();
            let located = known.as_ref().and_then(|group| state.located.get(&group.id.0));
            let located = located.copied().unwrap_or_default();
            let asked = located.asked.map(|at| at.elapsed());
            let plan = plan(known.is_some(), located.doubted, asked, good_for);
            (known, plan)
        };
        match (plan, known) {
            (Plan::Go, Some(group)) => Ok(group),
            (Plan::GoAndRefresh, Some(group)) => {
                drop(self.ask_location(&realm, key));
                Ok(group)
            }
            (_, known) => match (self.ask_location(&realm, key).await, known) {
                (Err(error), Some(group)) if error.is_disconnected() => Ok(group),
                (outcome, _) => outcome,
            },
        }
    }

    /// A volume as it is known, without asking.
    pub fn known_group(&self, realm: &str, id: VolumeId) -> Option<Group> {
        locked(&self.find_realm(realm)?.state).known.as_ref()?.volumes.get(&id.0).cloned()
    }

    /// Known volumes of a realm of which this server holds no replica.
    pub fn volumes_without(&self, realm: &str, server: ServerId) -> BTreeSet<VolumeId> {
        let Some(realm) = self.find_realm(realm) else { return BTreeSet::new() };
        let state = locked(&realm.state);
        let volumes = state.known.iter().flat_map(|known| known.volumes.values());
        let without = volumes.filter(|group| group.members.iter().all(|member| member.server != server));
        without.map(|group| group.id).collect()
    }

    /// Believes the location of a volume no longer: the next one who wants it asks.
    pub fn forget_volume(&self, realm: &str, id: VolumeId) {
        if let Some(realm) = self.find_realm(realm) {
            locked(&realm.state).located.entry(id.0).or_default().doubted = true;
        }
    }

    /// Believes no location of a realm any longer, nor its servers (`cfs checkvolumes`).
    pub fn forget_volumes(&self, name: &str) {
        let Some(realm) = self.find_realm(name) else { return };
        {
            let mut state = locked(&realm.state);
            let ids: Vec<_> = state.known.iter().flat_map(|known| known.volumes.keys().copied()).collect();
            for id in ids {
                state.located.entry(id).or_default().doubted = true;
            }
        }
        self.refresh_realm(name);
    }

    /// A server told us about a volume we know, unasked.
    pub(super) fn group_told(&self, realm: &str, info: wire::VolumeInfo) {
        let Some(realm) = self.find_realm(realm) else { return };
        let Ok(group) = Group::try_from(info) else { return };
        let met = locked(&realm.state).known.as_ref().is_some_and(|k| k.volumes.contains_key(&group.id.0));
        if met {
            self.take_group(&realm, group);
        }
    }

    /// Survivors say that a server came back.
    pub(super) fn seen_up(&self, realm: &str, server: u32) {
        let id = coda_proto::ServerId::new(server);
        if let Some(server) = id.ok().and_then(|id| self.find_server(realm, id)) {
            server.wanted(Instant::now(), Duration::from_secs(1));
        }
    }

    /// Takes over a volume's membership, unless it is older than ours. Answers what is believed then.
    fn take_group(&self, realm: &Arc<Realm>, told: Group) -> Group {
        let (news, strangers) = {
            let mut state = locked(&realm.state);
            let located = state.located.entry(told.id.0).or_default();
            let forced = std::mem::replace(&mut located.doubted, false);
            located.asked = Some(Instant::now());
            let strangers = told.members.iter().any(|member| !state.servers.contains_key(&member.server));
            let Some(known) = &mut state.known else { return told };
            let before = known.volumes.get(&told.id.0);
            let news = news(before, &told, forced);
            match (news, before) {
                (News::Outdated, Some(before)) => return before.clone(),
                _ => known.volumes.insert(told.id.0, told.clone()),
            };
            (news, strangers)
        };
        if news == News::Changed {
            let (realm, group) = (realm.name.to_string(), told.clone());
            self.tell(PeerEvent::GroupChanged { realm, group });
        }
        if news != News::Same {
            self.tell(PeerEvent::Known);
        }
        if strangers {
            self.refresh_realm(&realm.name);
        }
        told
    }

    /// Asks where a volume is; who comes meanwhile waits for the same answer.
    fn ask_location(
        &self,
        realm: &Arc<Realm>,
        key: VolumeKey,
    ) -> impl Future<Output = Result<Group, Error>> + use<> {
        let flight = locked(&realm.asking).entry(key.clone()).or_default().clone();
        let (me, realm) = (self.me.upgrade(), realm.clone());
        flight.join(&*self.env, async move {
            let label = match &key {
                VolumeKey::Name(name) => name.clone(),
                VolumeKey::Id(id) => id.to_string(),
            };
            let outcome = match me {
                Some(me) => me.locate_volume(&realm, &key).await.map_err(|error| match error {
                    AskError::Refused(refusal) => Error::refused(&label, &refusal),
                    error => error.about(&label),
                }),
                None => Err(Error::Disconnected(label)),
            };
            locked(&realm.asking).remove(&key);
            outcome
        })
    }

    async fn locate_volume(&self, realm: &Arc<Realm>, key: &VolumeKey) -> Result<Group, AskError> {
        let (name, id) = match key {
            VolumeKey::Name(name) => (name.clone(), 0),
            VolumeKey::Id(id) => (String::new(), id.0),
        };
        let wanted = key.clone();
        let body = wire::request::Body::GetVolume(wire::GetVolume { name, id });
        let answer = self.ask_anywhere(realm, body, move |response| match response {
            wire::response::Body::Volume(info) => {
                Group::try_from(info).ok().filter(|group| wanted.is_root() || group.answers_to(&wanted))
            }
            _ => None,
        });
        match answer.await {
            Ok(group) => {
                let group = self.take_group(realm, group);
                // A server that we have not heard of may hold a replica: worth a moment's wait.
                let known = |group: &Group| group.members.iter().any(|m| realm.server(m.server).is_some());
                if !known(&group) {
                    let _ = tokio::time::timeout(GRACE_LIMIT, self.learn(realm)).await;
                }
                Ok(group)
            }
            Err(AskError::Refused(refusal)) if refusal.code == Code::NoVolume => {
                self.change_known(realm, |known| {
                    if let Some(id) = known.volume(key).map(|group| group.id.0) {
                        known.volumes.remove(&id);
                    }
                });
                Err(AskError::Refused(refusal))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks servers of a realm, whichever live, until one gives an answer that `parse` understands.
    pub(super) async fn ask_anywhere<T: Send + 'static>(
        &self,
        realm: &Arc<Realm>,
        body: wire::request::Body,
        parse: impl Fn(wire::response::Body) -> Option<T> + Send + Sync + 'static,
    ) -> Result<T, AskError> {
        let mut servers = realm.servers();
        servers.iter().for_each(|server| server.wanted(Instant::now(), WANTED_EVERY));
        servers.retain(|server| server.liveness().callable());
        self.shuffle(&mut servers);
        servers.sort_by_key(|server| server.rank());
        let Some(me) = self.me.upgrade() else { return Err(AskError::Disconnected) };
        let parse = Arc::new(parse);
        let attempts = (servers.into_iter())
            .map(|server| {
                let (me, body, parse) = (me.clone(), body.clone(), parse.clone());
                let slow = server.clone();
                Attempt {
                    patience: for_a_while(server.grace()),
                    run: Box::pin(async move {
                        let request = wire::Request { body: Some(body), ..Default::default() };
                        let answer = me.call(&server, request, Bytes::new(), Priority::Foreground).await?;
                        match answer.response.body {
                            Some(wire::response::Body::Refusal(refusal)) => Err(super::ask::refused(refusal)),
                            Some(body) => parse(body)
                                .ok_or_else(|| AskError::Malformed("an answer to another question".into())),
                            None => Err(AskError::Malformed("an empty answer".into())),
                        }
                    }),
                    overdue: Box::new(move || slow.suspect()),
                }
            })
            .collect();
        match race(attempts).await {
            Ok((answer, running)) => {
                self.see_out(running);
                Ok(answer)
            }
            Err(failures) => Err(AskError::most_telling(failures)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_for_a_volume() {
        let hour = Duration::from_secs(3600);
        let ago = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(plan(false, false, None, hour), Plan::Ask);
        assert_eq!(plan(true, false, None, hour), Plan::GoAndRefresh, "from the disk");
        assert_eq!(plan(true, false, ago(1), hour), Plan::Go);
        assert_eq!(plan(true, false, ago(3600), hour), Plan::GoAndRefresh);
        assert_eq!(plan(true, true, ago(1), hour), Plan::Ask, "shown to be out of date");
    }
}
