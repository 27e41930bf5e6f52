//! The realm's log among servers: the SCM appends and tells the others; whoever missed something asks; and an
//! administrator makes another server the SCM. What may be taken over from whom is decided in
//! [`crate::location::log`].
//!
//! ```text
//!  here      the SCM appends      tell     the others are told, until all know
//!  follow    the others take it   promote  another server becomes the SCM
//! ```

mod follow;
mod promote;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coda_proto::{
    Code, Refusal, ServerId,
    planted::{Bug, planted},
    wire,
};

use crate::{
    config::Sealing,
    location::{Realm, Term, log, scm},
    server::Server,
    store::StoreError,
};
use tell::Told;

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
}

/// Epochs of groups that change, and of new volumes, are counted within the term: two SCMs that do not know
/// of each other never give one epoch to two memberships.
fn count_epochs(old: &Realm, new: &mut Realm, term: Term) {
    for (id, volume) in &mut new.volumes {
        let before = old.volumes.get(id);
        let changed = before.is_none_or(|before| before.info != volume.info);
        if changed && !planted(Bug::EpochsForgetTerm) {
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
