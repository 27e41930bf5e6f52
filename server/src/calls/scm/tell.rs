//! Telling the others: what the SCM appended, until all know it; and where a server is reached, until the realm knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Refusal, ServerId,
    service::Identity,
    wire::{self, admin::Body as Ask, request, response::Body},
};

use super::deposed;
use crate::{location::Term, server::Server};

/// How long we wait for another server.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages that it may take to bring one server up to date.
pub(super) const MESSAGES: usize = 100;
/// Between attempts to tell servers that did not answer: at first, and at most.
const TELL_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What came of telling one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It has all of the log.
    All,
    /// It does not answer, or cannot take it.
    Not(String),
    /// It knows of a higher term: whoever tells is the SCM no more.
    Higher(Term),
}

impl Server {
    /// Tells every other server but those what it does not know of the log.
    pub(super) async fn tell_all(
        &self,
        but: &BTreeSet<ServerId>,
    ) -> Result<BTreeMap<ServerId, Told>, Refusal> {
        let others = self.with_others(but, |me, to| async move { me.tell(&to).await }).await;
        let higher = others.values().filter_map(|told| match told {
            Told::Higher(term) => Some(*term),
            _ => None,
        });
        match higher.max() {
            None => Ok(others),
            Some(term) => {
                self.refresh_soon();
                Err(deposed(term))
            }
        }
    }

    /// Does the same with all other servers but those at once.
    pub(super) async fn with_others<T, F>(
        &self,
        but: &BTreeSet<ServerId>,
        f: impl Fn(Arc<Server>, wire::ServerInfo) -> F,
    ) -> BTreeMap<ServerId, T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut waiting = Vec::new();
        let realm = self.realm();
        for (id, server) in realm.servers.iter().filter(|(id, _)| **id != self.id() && !but.contains(id)) {
            let Some(me) = self.me() else { break };
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let doing = f(me, server.clone());
            self.env().spawn(Box::pin(async move {
                let _ = sender.send(doing.await);
            }));
            waiting.push((*id, receiver));
        }
        let mut done = BTreeMap::new();
        for (id, receiver) in waiting {
            if let Ok(answer) = receiver.await {
                done.insert(id, answer);
            }
        }
        done
    }

    pub(super) async fn ask(&self, to: &wire::ServerInfo, ask: Ask) -> Result<wire::AdminAnswer, String> {
        let body = Some(request::Body::Admin(wire::Admin { body: Some(ask) }));
        let request = wire::Request { body, ..Default::default() };
        match self.env().call_peer(to, request, Bytes::new(), PATIENCE).await {
            Ok((wire::Response { body: Some(Body::Admin(answer)), .. }, _)) => Ok(answer),
            Ok((wire::Response { body: Some(Body::Refusal(refusal)), .. }, _)) => Err(refusal.detail),
            Ok(_) => Err("it answers something else".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Brings one server up to date: from our end back to where both logs agree, then forward.
    async fn tell(&self, to: &wire::ServerInfo) -> Told {
        let mut from = self.chronicle().entries().len();
        for _ in 0..MESSAGES {
            let (follow, own) = {
                let chronicle = self.chronicle();
                (chronicle.from(from.min(chronicle.entries().len())), chronicle.promised())
            };
            let followed = match self.ask(to, Ask::Follow(follow)).await {
                Ok(wire::AdminAnswer { followed: Some(followed), .. }) => followed,
                Ok(_) => return Told::Not("it does not say where its log ends".into()),
                Err(why) => return Told::Not(why),
            };
            let scm = ServerId::new(followed.promised_writer);
            if let Ok(scm) = scm {
                let promised = Term { number: followed.promised_term, scm };
                if promised > own {
                    return Told::Higher(promised);
                }
            }
            let at = followed.at.unwrap_or_default();
            let chronicle = self.chronicle();
            if at == chronicle.end() {
                return Told::All;
            }
            match (followed.taken, chronicle.count_to(&at)) {
                (_, Some(count)) => from = count,
                (false, None) if from > 0 => from /= 2,
                _ => return Told::Not("it does not take the log".into()),
            }
        }
        Told::Not("it never has all of the log".into())
    }

    /// Goes on telling those that did not answer.
    pub(super) fn tell_until_all_know(&self) {
        if self.telling().swap(true, Ordering::Relaxed) {
            return;
        }
        let Some(me) = self.me() else { return };
        let weak = Arc::downgrade(&me);
        self.env().spawn(Box::pin(async move {
            let (mut wait, longest) = TELL_AGAIN;
            loop {
                tokio::time::sleep(wait).await;
                let Some(me) = weak.upgrade() else { return };
                if me.is_stopped() {
                    return;
                }
                let scm = me.at_the_scm().is_ok();
                if !scm
                    || me
                        .tell_all(&BTreeSet::new())
                        .await
                        .is_ok_and(|all| all.values().all(|told| *told == Told::All))
                {
                    me.telling().store(false, Ordering::Relaxed);
                    return;
                }
                wait = (wait * 2).min(longest);
            }
        }));
    }

    /// Makes the realm know where this server is reached; goes on until it does.
    pub async fn announce(&self, endpoints: Vec<wire::Endpoint>) {
        let (mut wait, longest) = TELL_AGAIN;
        while !self.is_stopped() {
            let realm = self.realm();
            if realm.servers.get(&self.id()).is_none_or(|own| own.endpoints == endpoints) {
                return;
            }
            let announce = wire::Announce { endpoints: endpoints.clone() };
            let done = match (realm.scm == self.id(), realm.servers.get(&realm.scm)) {
                (false, Some(scm)) => self.ask(scm, Ask::Announce(announce)).await.map(drop),
                _ => {
                    let caller = crate::calls::Caller { who: Identity::Server(self.id()), session: 0 };
                    let admin = wire::Admin { body: Some(Ask::Announce(announce)) };
                    self.admin(caller, admin, Bytes::new())
                        .await
                        .map(drop)
                        .map_err(|refusal| refusal.to_string())
                }
            };
            if let Err(why) = done {
                tracing::warn!(%why, "the realm does not know yet where this server is reached");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }
}
