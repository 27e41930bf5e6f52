//! Following: what another server offers of the log, and asking the others for what was missed.

use std::collections::BTreeSet;

use coda_proto::{
    Code, Refusal, ServerId,
    planted::{Bug, planted},
    wire::{self, admin::Body as Ask},
};

use super::tell::MESSAGES;
use crate::{
    calls::{Answer, admin},
    location::{Term, log::Verdict},
    server::Server,
};

impl Server {
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

    pub(super) fn followed(&self, taken: bool) -> Answer {
        let chronicle = self.chronicle();
        let promised = chronicle.promised();
        let followed = wire::Followed {
            taken,
            at: Some(chronicle.end()),
            promised_term: promised.number,
            promised_writer: promised.scm.0.into(),
        };
        admin::answer(wire::AdminAnswer { followed: Some(followed), ..Default::default() })
    }

    /// What follows a position of the log here.
    pub(crate) fn read_log(&self, read: &wire::ReadLog) -> Answer {
        if read.given_up {
            let entries = self.store().given_up()?;
            let log = wire::Follow { entries, ..Default::default() };
            return admin::answer(wire::AdminAnswer { log: Some(log), ..Default::default() });
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
        admin::answer(wire::AdminAnswer { log, followed, ..Default::default() })
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
    pub(super) async fn survey(&self) -> (BTreeSet<ServerId>, Term) {
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
            if !planted(Bug::PromotesWithoutNewest) {
                self.read_on(id, answer.log.unwrap_or_default()).await;
            }
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
}
