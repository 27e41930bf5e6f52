//! Getting to know a realm: who its servers are and what its root volume is called.
//!
//! What the disk remembers is believed at once and refreshed in the background. What is new is asked
//! from the root servers, one after another without waiting for the slow. All of it is per realm, so
//! that a realm that swallows every packet costs nobody else anything.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{ServerId, wire};
use tokio::time::{Instant, timeout};

use super::{
    AskError, Liveness, PeerEvent, Peers,
    flight::Flight,
    latency::GRACE_LIMIT,
    peers::{Realm, WANTED_EVERY},
    race::{Attempt, for_a_while, race},
    server::{Server, locked},
};
use crate::{
    env::{Endpoint, Priority},
    error::Error,
    realm::{KnownRealm, Told, is_name},
};

/// An unknown name stays unknown for so long; then somebody may have added it.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// Callers wait no longer than this for a realm that was out of reach last time.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// What is known is asked again after so long, while in use.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Root servers tried, at most.
const ROOTS_LIMIT: usize = 16;

/// A realm's part of [`Peers`].
pub struct RealmState {
    /// `None`: nobody ever answered for it.
    pub known: Option<KnownRealm>,
    /// When it was last asked in this run, answered or not.
    asked: Option<Instant>,
    /// How that failed, if it did.
    failed: Option<Error>,
    /// Those that `known` names.
    pub servers: BTreeMap<ServerId, Arc<Server>>,
    /// What we believe of each volume's location.
    pub located: BTreeMap<u32, super::locate::Located>,
}

impl RealmState {
    /// As the disk remembers it.
    pub fn from_disk(name: &str, known: KnownRealm) -> RealmState {
        let mut state = RealmState::new();
        state.install(name, known, Liveness::Unknown);
        state
    }

    fn new() -> RealmState {
        RealmState {
            known: None,
            asked: None,
            failed: None,
            servers: BTreeMap::new(),
            located: BTreeMap::new(),
        }
    }

    /// Makes the servers what `known` says. Answers those that are no longer named.
    fn install(&mut self, name: &str, known: KnownRealm, fresh: Liveness) -> Vec<Arc<Server>> {
        let realm: Arc<str> = name.into();
        let mut before = std::mem::take(&mut self.servers);
        for (id, server) in &known.servers {
            // What came from a disk that was tampered with is left out, not believed.
            let Ok(id) = ServerId::new(u32::from(*id)) else { continue };
            let kept = before.remove(&id).inspect(|kept| kept.relocate(server));
            let kept = kept.unwrap_or_else(|| Arc::new(Server::new(realm.clone(), id, server, fresh)));
            self.servers.insert(id, kept);
        }
        self.known = Some(known);
        before.into_values().collect()
    }
}

impl Realm {
    pub(super) fn new(name: &str, state: RealmState) -> Realm {
        Realm {
            name: name.into(),
            state: state.into(),
            learning: Flight::default(),
            asking: Default::default(),
        }
    }
}

/// What to do for somebody who wants a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It is known.
    Go,
    /// It is known; somebody should have another look.
    GoAndRefresh,
    /// The last failure is the answer.
    Fail,
    /// Ask, and wait so long.
    Ask(Duration),
}

/// `asked`: how long ago, in this run. `unknown`: no such realm, at that time.
fn plan(identified: bool, asked: Option<Duration>, unknown: bool, failed: bool, limit: Duration) -> Plan {
    match (identified, asked) {
        (true, Some(ago)) if ago < KNOWN_FOR => Plan::Go,
        (true, _) => Plan::GoAndRefresh,
        (false, Some(ago)) if unknown && ago < UNKNOWN_FOR => Plan::Fail,
        (false, Some(_)) if failed && !unknown => Plan::Ask(IMPATIENCE.min(limit)),
        (false, _) => Plan::Ask(limit),
    }
}

impl Peers {
    /// Makes sure that a realm is located and identified, by its servers or by what the disk remembers.
    pub async fn realm(&self, name: &str) -> Result<(), Error> {
        if !is_name(name) {
            return Err(Error::UnknownRealm(name.into()));
        }
        let realm = self.realm_entry(name);
        let (plan, failure) = {
            let state = locked(&realm.state);
            let unknown = matches!(state.failed, Some(Error::UnknownRealm(_)));
            let asked = state.asked.map(|at| at.elapsed());
            let limit = self.config.rpc_timeout;
            (plan(state.known.is_some(), asked, unknown, state.failed.is_some(), limit), state.failed.clone())
        };
        let away = || Error::Disconnected(name.into());
        match plan {
            Plan::Go => Ok(()),
            Plan::GoAndRefresh => {
                self.refresh_realm(name);
                Ok(())
            }
            Plan::Fail => Err(failure.unwrap_or_else(away)),
            Plan::Ask(_) if self.is_apart() => Err(away()),
            Plan::Ask(patience) => match timeout(patience, self.learn(&realm)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // Whoever comes next need not be as patient.
                    locked(&realm.state).failed.get_or_insert_with(away);
                    locked(&realm.state).asked.get_or_insert_with(Instant::now);
                    Err(away())
                }
            },
        }
    }

    /// Names of the realms that are known, in order.
    pub fn realms(&self) -> Vec<String> {
        let identified = |realm: &&Arc<Realm>| locked(&realm.state).known.is_some();
        locked(&self.realms).values().filter(identified).map(|realm| realm.name.to_string()).collect()
    }

    /// The name of a realm's root volume, by its servers or by what the disk remembers.
    pub async fn root_volume(&self, realm: &str) -> Result<String, Error> {
        self.realm(realm).await?;
        let entry = self.realm_entry(realm);
        let known = locked(&entry.state).known.as_ref().and_then(|known| known.root_volume.clone());
        if let Some(name) = known {
            return Ok(name);
        }
        let body = wire::request::Body::GetRootVolume(wire::GetRootVolume {});
        let answer = self.ask_anywhere(&entry, body, |response| match response {
            wire::response::Body::RootVolume(root) => checked_root(root),
            _ => None,
        });
        let name = answer.await.map_err(|error| error.about(realm))?;
        self.change_known(&entry, |known| known.root_volume = Some(name.clone()));
        Ok(name)
    }

    /// Looks again at a realm in the background, if that was not done just now.
    pub(super) fn refresh_realm(&self, name: &str) {
        let Some(realm) = self.find_realm(name) else { return };
        let recent = locked(&realm.state).asked.is_some_and(|at| at.elapsed() < WANTED_EVERY);
        if !recent && !self.is_apart() {
            drop(self.learn(&realm));
        }
    }

    /// A server says that the realm's configuration has this number.
    pub(super) fn config_is(&self, name: &str, config: u64) {
        let Some(realm) = self.find_realm(name) else { return };
        let newer = locked(&realm.state).known.as_ref().is_none_or(|known| config > known.config);
        if newer {
            self.refresh_realm(name);
        }
    }

    /// Changes what is known of a realm, and says so if it makes a difference.
    pub(super) fn change_known(&self, realm: &Realm, change: impl FnOnce(&mut KnownRealm)) {
        let changed = {
            let mut state = locked(&realm.state);
            let Some(known) = &mut state.known else { return };
            let before = known.clone();
            change(known);
            *known != before
        };
        if changed {
            self.tell(PeerEvent::Known);
        }
    }

    /// The realm of this name, made where needed. Names that turned out to be nothing are swept out.
    pub(super) fn realm_entry(&self, name: &str) -> Arc<Realm> {
        let mut realms = locked(&self.realms);
        if let Some(realm) = realms.get(name) {
            return realm.clone();
        }
        realms.retain(|_, realm| {
            let state = locked(&realm.state);
            let old = state.asked.is_some_and(|at| at.elapsed() >= UNKNOWN_FOR);
            !(old && matches!(state.failed, Some(Error::UnknownRealm(_))) && state.known.is_none())
        });
        let realm = Arc::new(Realm::new(name, RealmState::new()));
        realms.insert(name.to_owned(), realm.clone());
        realm
    }

    /// The look that is under way or begins now.
    pub(super) fn learn(&self, realm: &Arc<Realm>) -> impl Future<Output = Result<(), Error>> + use<> {
        let (me, subject) = (self.me.upgrade(), realm.clone());
        realm.learning.join(&*self.env, async move {
            let away = Error::Disconnected(subject.name.to_string());
            let Some(me) = me else { return Err(away) };
            let outcome = me.identify(&subject).await;
            let mut state = locked(&subject.state);
            state.asked = Some(Instant::now());
            state.failed = outcome.clone().err();
            outcome
        })
    }

    /// Locates the realm and asks the first root server that answers.
    async fn identify(&self, realm: &Arc<Realm>) -> Result<(), Error> {
        let name = realm.name.to_string();
        let located = timeout(self.config.rpc_timeout, self.env.locate(&name)).await;
        let mut why = None;
        let mut roots = match located {
            Ok(Ok(roots)) if roots.is_empty() && locked(&realm.state).known.is_none() => {
                return Err(Error::UnknownRealm(name));
            }
            Ok(Ok(roots)) => roots,
            Ok(Err(reason)) => {
                why = Some(reason);
                Vec::new()
            }
            Err(_) => {
                why = Some("looking it up takes too long".to_owned());
                Vec::new()
            }
        };
        let mut known: Vec<_> = realm.servers().iter().flat_map(|server| server.endpoints()).collect();
        self.shuffle(&mut known);
        known.retain(|endpoint| !roots.contains(endpoint));
        roots.extend(known);
        roots.truncate(ROOTS_LIMIT);
        let attempts = roots.into_iter().map(|root| self.ask_root(root)).collect();
        match race(attempts).await {
            Ok(((told, root), _)) => {
                let root_volume = self.ask_root_volume(root).await;
                self.told(realm, told, root_volume);
                Ok(())
            }
            Err(failures) => Err(match (AskError::most_telling(failures), why) {
                (AskError::Disconnected | AskError::Unreachable(_), Some(why)) => Error::RealmAway(name, why),
                (AskError::Unreachable(why), None) => Error::RealmAway(name, why),
                (error, _) => error.about(&name),
            }),
        }
    }

    fn ask_root(&self, root: Endpoint) -> Attempt<(Told, Endpoint), AskError> {
        let body = wire::request::Body::GetRealm(wire::GetRealm {});
        let request = wire::Request { body: Some(body), ..Default::default() };
        let (env, silence) = (self.env.clone(), self.config.rpc_timeout);
        let run = async move {
            let answer = env.call(&root, request, Bytes::new(), Priority::Foreground, silence).await?;
            match answer.response.body {
                Some(wire::response::Body::Realm(told)) => match Told::try_from(told) {
                    Ok(told) => Ok((told, root)),
                    Err(malformed) => Err(AskError::Malformed(malformed.to_string())),
                },
                Some(wire::response::Body::Refusal(refusal)) => Err(super::ask::refused(refusal)),
                _ => Err(AskError::Malformed("not a realm".into())),
            }
        };
        Attempt { patience: for_a_while(GRACE_LIMIT), run: Box::pin(run), overdue: Box::new(|| {}) }
    }

    /// A realm without a root volume, or a server that dies right now, is no reason to fail.
    async fn ask_root_volume(&self, root: Endpoint) -> Option<String> {
        let body = wire::request::Body::GetRootVolume(wire::GetRootVolume {});
        let request = wire::Request { body: Some(body), ..Default::default() };
        let call = self.env.call(&root, request, Bytes::new(), Priority::Foreground, GRACE_LIMIT);
        match timeout(GRACE_LIMIT, call).await.ok()?.ok()?.response.body? {
            wire::response::Body::RootVolume(root) => checked_root(root),
            _ => None,
        }
    }

    fn told(&self, realm: &Arc<Realm>, told: Told, root_volume: Option<String>) {
        let fresh = if self.is_apart() { Liveness::Disconnected } else { Liveness::Unknown };
        let (changed, gone) = {
            let mut state = locked(&realm.state);
            let before = state.known.clone();
            let mut known = before.clone().unwrap_or_default();
            known.learn(told);
            known.root_volume = root_volume.or(known.root_volume);
            let changed = before.as_ref() != Some(&known);
            (changed, state.install(&realm.name, known, fresh))
        };
        for server in gone {
            self.drop_session(&server);
        }
        if changed {
            self.tell(PeerEvent::Known);
        }
    }

    /// Any order, by the world's chance.
    pub(super) fn shuffle<T>(&self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.env.random() % (i as u64 + 1)) as usize);
        }
    }
}

fn checked_root(root: wire::RootVolume) -> Option<String> {
    let sane = !root.name.is_empty() && root.name.len() <= crate::volume::NAME_LIMIT;
    sane.then_some(root.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_for_a_realm() {
        let limit = Duration::from_secs(15);
        let ago = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(plan(true, ago(9), false, false, limit), Plan::Go);
        assert_eq!(plan(true, ago(9), false, true, limit), Plan::Go, "what the disk knows outlives failures");
        assert_eq!(plan(true, None, false, false, limit), Plan::GoAndRefresh, "from the disk");
        assert_eq!(plan(true, ago(4000), false, false, limit), Plan::GoAndRefresh);
        assert_eq!(plan(false, None, false, false, limit), Plan::Ask(limit));
        assert_eq!(plan(false, ago(1), true, true, limit), Plan::Fail);
        assert_eq!(plan(false, ago(2), true, true, limit), Plan::Ask(limit));
        assert_eq!(plan(false, ago(1), false, true, limit), Plan::Ask(IMPATIENCE));
    }
}
