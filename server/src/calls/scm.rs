//! The realm's log among servers: the SCM appends and tells the others; whoever missed something asks; and an
//! administrator makes another server the SCM. What may be taken over from whom is decided in
//! [`crate::location::log`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use coda_proto::{
    Code, Refusal, ServerId,
    service::Identity,
    wire::{self, admin::Body as Ask, request, response::Body},
};

use super::Answer;
use crate::{
    config::Sealing,
    location::{
        Realm, Seal, Term,
        log::{self, Verdict},
        scm,
    },
    server::Server,
    store::StoreError,
};

/// How long we wait for another server.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages that it may take to bring one server up to date.
const MESSAGES: usize = 100;
/// Between attempts to tell servers that did not answer: at first, and at most.
const TELL_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What came of telling one server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// It has all of the log.
    All,
    /// It does not answer, or cannot take it.
    Not(String),
    /// It knows of a higher term: whoever tells is the SCM no more.
    Higher(Term),
}

impl Server {
    fn seal(&self) -> Option<Sealing> {
        self.config().seal.clone()
    }

    /// The realm, if this server is its SCM.
    pub(crate) fn at_the_scm(&self) -> Result<Arc<Realm>, Refusal> {
        let realm = self.realm();
        let (term, promised) = {
            let chronicle = self.chronicle();
            (chronicle.term(), chronicle.promised())
        };
        let name = |id: &ServerId| realm.servers.get(id).map_or("?", |server| &server.name).to_owned();
        match term.scm == self.id() && term == promised {
            true => Ok(realm),
            false if term == promised => {
                let scm = name(&term.scm);
                Err(Refusal::new(
                    Code::Unsupported,
                    format!(
                        "the realm is changed at its SCM, server {} ({scm}). If that one is lost, \
                         `volutil promote-scm` makes this server, {}, the SCM",
                        term.scm,
                        name(&self.id())
                    ),
                ))
            }
            false => Err(Refusal::new(
                Code::Unsupported,
                format!(
                    "server {} ({}) was about to become the SCM: finish that, or make this server the SCM, with \
                     `volutil promote-scm`",
                    promised.scm,
                    name(&promised.scm)
                ),
            )),
        }
    }

    /// Changes the realm: the SCM appends to its log, and tells the others. Answers which did not hear, for
    /// people. The caller holds `changing`.
    pub(crate) async fn commit(&self, mut new: Realm) -> Result<String, Refusal> {
        let old = self.at_the_scm()?;
        let term = self.chronicle().term();
        count_epochs(&old, &mut new, term);
        if new == *old {
            return Ok(String::new());
        }
        // Ask before: what only we have, another SCM would not know of.
        let mut others = self.tell_all(&BTreeSet::new()).await?;
        let reached = self.reached(&others);
        if let Err(missing) = scm::may_append(&scm::voters(&old), &reached) {
            return Err(Refusal::new(
                Code::Busy,
                format!(
                    "nothing is changed: the SCM reaches fewer than half of the servers; {} {} not answer",
                    names(&old, &missing),
                    if missing.len() == 1 { "does" } else { "do" }
                ),
            ));
        }
        self.append(term, &new, None)?;
        // Who was silent a moment ago is not waited for twice.
        let silent = others.keys().filter(|id| !reached.contains(id)).copied().collect();
        others.extend(self.tell_all(&silent).await?);
        let unheard: BTreeSet<ServerId> =
            others.iter().filter(|(_, told)| **told != Told::All).map(|(id, _)| *id).collect();
        if unheard.is_empty() {
            return Ok(String::new());
        }
        self.tell_until_all_know();
        let mut text = format!("not reached yet: {}", names(&self.realm(), &unheard));
        if scm::may_append(&scm::voters(&old), &self.reached(&others)).is_err() {
            text += "; until more are, the change is lost if another server becomes the SCM";
        }
        Ok(text)
    }

    fn reached(&self, others: &BTreeMap<ServerId, Told>) -> BTreeSet<ServerId> {
        let all = others.iter().filter(|(_, told)| **told == Told::All).map(|(id, _)| *id);
        all.chain([self.id()]).collect()
    }

    /// Appends an entry of our own, durably.
    fn append(&self, term: Term, new: &Realm, mandate: Option<wire::Mandate>) -> Result<(), Refusal> {
        let mut chronicle = self.chronicle();
        if chronicle.promised() > term {
            return Err(deposed(chronicle.promised()));
        }
        let mut entry = chronicle.next(term, &self.realm(), new, self.env().now());
        if let Some(Sealing(seal)) = self.seal() {
            let proof = seal.sign(&log::hash(&entry)).map_err(|why| Refusal::new(Code::Internal, why))?;
            entry.proof = Some(proof);
        }
        entry.mandate = mandate;
        let step = chronicle.append(entry).map_err(|why| Refusal::new(Code::Internal, why.to_string()))?;
        Ok(self.take(&mut chronicle, step)?)
    }

    /// Tells every other server but those what it does not know of the log.
    async fn tell_all(&self, but: &BTreeSet<ServerId>) -> Result<BTreeMap<ServerId, Told>, Refusal> {
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
    async fn with_others<T, F>(
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

    async fn ask(&self, to: &wire::ServerInfo, ask: Ask) -> Result<wire::AdminAnswer, String> {
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
    fn tell_until_all_know(&self) {
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
                    let caller = super::Caller { who: Identity::Server(self.id()), session: 0 };
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

    /// Another server's entries are offered.
    pub(crate) fn follow(&self, follow: &wire::Follow) -> Answer {
        let taken = self.take_over(follow)?;
        self.followed(taken)
    }

    fn take_over(&self, follow: &wire::Follow) -> Result<bool, Refusal> {
        let seal = self.seal();
        let mut chronicle = self.chronicle();
        match chronicle.judge(follow, seal.as_ref().map(|seal| &*seal.0)) {
            Ok(Verdict::Take(step)) => {
                self.take(&mut chronicle, step)?;
                Ok(true)
            }
            Ok(Verdict::Known) => Ok(true),
            Ok(Verdict::Earlier | Verdict::Lower) => Ok(false),
            Err(why) => {
                tracing::warn!(%why, "entries of the realm's log are not believed");
                Err(Refusal::new(Code::Invalid, why.to_string()))
            }
        }
    }

    fn followed(&self, taken: bool) -> Answer {
        let chronicle = self.chronicle();
        let promised = chronicle.promised();
        let followed = wire::Followed {
            taken,
            at: Some(chronicle.end()),
            promised_term: promised.number,
            promised_writer: promised.scm.0.into(),
        };
        super::admin::answer(wire::AdminAnswer { followed: Some(followed), ..Default::default() })
    }

    /// What follows a position of the log here.
    pub(crate) fn read_log(&self, read: &wire::ReadLog) -> Answer {
        if read.given_up {
            let entries = self.store().given_up()?;
            let log = wire::Follow { entries, ..Default::default() };
            return super::admin::answer(wire::AdminAnswer { log: Some(log), ..Default::default() });
        }
        let chronicle = self.chronicle();
        let (log, promised) = (chronicle.after(read.after.as_ref()), chronicle.promised());
        let followed = wire::Followed {
            taken: true,
            at: log.end.clone(),
            promised_term: promised.number,
            promised_writer: promised.scm.0.into(),
        };
        let (log, followed) = (Some(log), Some(followed));
        super::admin::answer(wire::AdminAnswer { log, followed, ..Default::default() })
    }

    /// Asks every other server what it knows of the log. Each entry proves itself, whoever tells it.
    /// An SCM that has just started tells them in its turn: somebody may have missed its last words.
    pub async fn refresh(&self) {
        let _ = self.survey().await;
        if self.at_the_scm().is_ok() {
            self.tell_until_all_know();
        }
    }

    /// The same; answers which servers did, and the highest term that any has promised itself to.
    async fn survey(&self) -> (BTreeSet<ServerId>, Term) {
        let after = self.chronicle().end();
        let asked = self
            .with_others(&BTreeSet::new(), move |me, to| {
                let after = Some(after.clone());
                async move { me.ask(&to, Ask::ReadLog(wire::ReadLog { after, given_up: false })).await }
            })
            .await;
        let mut answered = BTreeSet::from([self.id()]);
        let mut promised = self.chronicle().promised();
        for (id, answer) in asked {
            let answer = match answer {
                Ok(answer) => answer,
                Err(why) => {
                    tracing::info!(server = %id, %why, "it tells nothing of the realm's log");
                    continue;
                }
            };
            answered.insert(id);
            let followed = answer.followed.unwrap_or_default();
            if let Ok(scm) = ServerId::new(followed.promised_writer) {
                promised = promised.max(Term { number: followed.promised_term, scm });
            }
            self.read_on(id, answer.log.unwrap_or_default()).await;
        }
        (answered, promised)
    }

    /// Takes over what a server tells of its log, and asks it for the rest.
    async fn read_on(&self, from: ServerId, mut log: wire::Follow) {
        for _ in 0..MESSAGES {
            let end = log.end.take();
            if !matches!(self.take_over(&log), Ok(true)) {
                return;
            }
            let own = self.chronicle().end();
            let realm = self.realm();
            let Some(to) = realm.servers.get(&from).filter(|_| end.as_ref() != Some(&own)) else { return };
            if log.entries.is_empty() {
                return;
            }
            let read = wire::ReadLog { after: Some(own), given_up: false };
            match self.ask(to, Ask::ReadLog(read)).await {
                Ok(wire::AdminAnswer { log: Some(more), .. }) => log = more,
                _ => return,
            }
        }
    }

    /// A server is being made the SCM: from now on nobody of a lower term can count on this one.
    pub(crate) fn promise_term(&self, promise: wire::Promise) -> Answer {
        let mandate = promise.mandate.unwrap_or_default();
        let term = self.mandated(&mandate)?;
        let mut chronicle = self.chronicle();
        let taken = match chronicle.promise(term) {
            Ok(step) => {
                self.take(&mut chronicle, step)?;
                true
            }
            Err(_) => false,
        };
        drop(chronicle);
        self.followed(taken)
    }

    fn mandated(&self, mandate: &wire::Mandate) -> Result<Term, Refusal> {
        let invalid = |why: String| Refusal::new(Code::Invalid, why);
        let realm = self.realm();
        if mandate.realm != realm.name {
            return Err(invalid(format!("the mandate is for {}, not {}", mandate.realm, realm.name)));
        }
        let term = log::mandated(mandate).ok_or_else(|| invalid("it is no mandate for a term".into()))?;
        let seal = self.seal();
        log::check_mandate(mandate, seal.as_ref().map(|seal| &*seal.0 as &dyn Seal)).map_err(invalid)?;
        Ok(term)
    }

    /// Makes this server the SCM. Nothing is promised or appended before enough servers have answered.
    pub(crate) async fn promote(&self, promote: wire::Promote) -> Answer {
        let _one_at_a_time = self.changing().lock().await;
        let mandate = promote.mandate.unwrap_or_default();
        let term = self.mandated(&mandate)?;
        if term.scm != self.id() {
            return Err(Refusal::new(
                Code::Invalid,
                format!("this is server {}, not {}", self.id(), term.scm),
            ));
        }
        let (answered, promised) = self.survey().await;
        if term.number <= promised.number {
            let why = format!("term {} is taken; the next is {}", promised.number, promised.number + 1);
            return Err(Refusal::new(Code::Busy, why));
        }
        self.enough(&answered, &promote.without)?;
        let step = self.chronicle().promise(term).map_err(deposed)?;
        {
            let mut chronicle = self.chronicle();
            self.take(&mut chronicle, step)?;
        }
        let ask = Ask::Promise(wire::Promise { mandate: Some(mandate.clone()) });
        let promises = self
            .with_others(&BTreeSet::new(), move |me, to| {
                let ask = ask.clone();
                async move { me.ask(&to, ask).await }
            })
            .await;
        let mut answered = BTreeSet::from([self.id()]);
        let mut furthest = (Term { number: 0, scm: self.id() }, 0);
        for (id, promise) in promises {
            let Ok(wire::AdminAnswer { followed: Some(followed), .. }) = promise else { continue };
            if !followed.taken {
                let why = format!("server {id} is promised to a higher term, {}", followed.promised_term);
                return Err(Refusal::new(Code::Busy, why));
            }
            answered.insert(id);
            furthest = furthest.max(log::place(&followed.at.unwrap_or_default()).unwrap_or(furthest));
        }
        self.enough(&answered, &promote.without)?;
        // What they took between our question and their promise; what they take now, nobody has counted on.
        self.survey().await;
        if log::place(&self.chronicle().end()).is_none_or(|own| own < furthest) {
            return Err(Refusal::new(
                Code::Busy,
                "a server that knows more of the log fell silent; try again",
            ));
        }
        let new = Realm { scm: self.id(), ..(*self.realm()).clone() };
        self.append(term, &new, Some(mandate))?;
        let others = self.tell_all(&BTreeSet::new()).await?;
        let unheard: BTreeSet<ServerId> =
            others.iter().filter(|(_, told)| **told != Told::All).map(|(id, _)| *id).collect();
        let mut text = format!("server {} is the SCM, in term {}", self.id(), term.number);
        if !unheard.is_empty() {
            self.tell_until_all_know();
            text += &format!("; not reached yet: {}", names(&self.realm(), &unheard));
        }
        super::admin::answer(wire::AdminAnswer { text, ..Default::default() })
    }

    fn enough(&self, answered: &BTreeSet<ServerId>, without: &[u32]) -> Result<(), Refusal> {
        let realm = self.realm();
        let without = without.iter().filter_map(|id| ServerId::new(*id).ok()).collect();
        scm::may_promote(&scm::voters(&realm), realm.scm, answered, &without).map_err(|unheard| {
            let list = names(&realm, &unheard);
            Refusal::new(
                Code::Busy,
                format!(
                    "the SCM stays as it is: {list} cannot be asked what the SCM changed last. Start them, or give \
                     up what only they know, with --without"
                ),
            )
        })
    }
}

/// Epochs of groups that change, and of new volumes, are counted within the term: two SCMs that do not know
/// of each other never give one epoch to two memberships.
fn count_epochs(old: &Realm, new: &mut Realm, term: Term) {
    for (id, volume) in &mut new.volumes {
        let before = old.volumes.get(id);
        if before.is_none_or(|before| before.info != volume.info) {
            volume.info.epoch = term.stamp(log::count(volume.info.epoch));
        }
    }
}

fn deposed(term: Term) -> Refusal {
    let why = format!(
        "this server is the SCM no more: server {} is, or is about to be, in term {}. Ask that one",
        term.scm, term.number
    );
    Refusal::new(Code::Unsupported, why)
}

fn names(realm: &Realm, servers: &BTreeSet<ServerId>) -> String {
    let name = |id: &ServerId| match realm.servers.get(id) {
        Some(server) => format!("server {id} ({})", server.name),
        None => format!("server {id}"),
    };
    servers.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl From<log::Unbelievable> for StoreError {
    fn from(why: log::Unbelievable) -> StoreError {
        coda_proto::Malformed::new("the realm's log", why.to_string()).into()
    }
}
