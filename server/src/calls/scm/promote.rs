//! Another SCM: a mandate, promises of enough servers, and the first entry of a new term.

use std::collections::BTreeSet;

use coda_proto::{
    Code, Refusal, ServerId,
    planted::{Bug, planted},
    wire::{self, admin::Body as Ask},
};

use super::{deposed, names, tell::Told};
use crate::{
    calls::{Answer, admin},
    location::{Realm, Seal, Term, log, scm},
    server::Server,
};

impl Server {
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
        let lacks = log::place(&self.chronicle().end()).is_none_or(|own| own < furthest);
        if lacks && !planted(Bug::PromotesWithoutNewest) {
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
        admin::answer(wire::AdminAnswer { text, ..Default::default() })
    }

    fn enough(&self, answered: &BTreeSet<ServerId>, without: &[u32]) -> Result<(), Refusal> {
        if planted(Bug::PromotesUnasked) {
            return Ok(());
        }
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
