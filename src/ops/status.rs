//! Is what is cached still so? All live members are asked, because each knows only its own version.

use std::collections::BTreeMap;

use coda_proto::{Fid, Kind, Relation, ServerId, Status, wire};

use super::{Core, Result, is_disconnected};
use crate::{
    cache::{
        View,
        choose::{Choice, choose},
        seal::Stamps,
        validity::Mark,
    },
    conflict::versions::is_version,
    env::Priority,
    error::Error,
    replica::{AskError, Group},
    venus::face::ObjectId,
};

/// Objects validated along with the one that is wanted.
const ALONG: usize = 63;

/// What the members say of some objects.
pub(super) struct Answers {
    pub of: BTreeMap<Fid, Vec<(ServerId, Option<Status>)>>,
    /// Every member that lives has answered.
    pub complete: bool,
    /// When each said so.
    pub stamps: Stamps,
}

impl Core {
    /// An object that may be believed; or, where no server can be asked, as it is cached.
    pub(crate) async fn current(&self, id: ObjectId) -> Result<View> {
        self.current_along(id, Vec::new).await
    }

    /// The same. Where servers must be asked, they are asked for `along` too.
    pub(crate) async fn current_along(
        &self,
        id: ObjectId,
        along: impl FnOnce() -> Vec<Fid> + Send,
    ) -> Result<View> {
        if is_version(id) {
            return self.version(id).await;
        }
        match self.cache.view(id)? {
            Some(view) if view.stands() => return Ok(view),
            _ => {}
        }
        let _held = self.cache.locks.hold([id]).await;
        self.current_held(id, along()).await
    }

    /// The same, for a caller that holds the object's lock.
    pub(crate) async fn current_held(&self, id: ObjectId, along: Vec<Fid>) -> Result<View> {
        if is_version(id) {
            return self.version(id).await;
        }
        let cached = self.cache.view(id)?;
        match &cached {
            Some(view) if view.stands() => return Ok(view.clone()),
            _ => {}
        }
        match self.refresh(id, along).await {
            Ok(()) => {}
            Err(error) if is_disconnected(&error) && cached.is_some() => {}
            Err(error) => return Err(error),
        }
        self.cache.view(id)?.ok_or(Error::Gone(id.fid))
    }

    /// Asks the members for an object's status, and along with it for others of its volume.
    pub(crate) async fn refresh(&self, id: ObjectId, mut along: Vec<Fid>) -> Result<()> {
        self.may_ask(id)?;
        let (realm, group) = self.group(id).await?;
        if self.is_still_sealed(id, &realm, &group).await {
            return Ok(());
        }
        if self.cache.view(id)?.is_none() {
            self.cache.room_for(1 + along.len() as u64)?;
        }
        let room = ALONG.saturating_sub(along.len());
        along.extend(self.cache.suspects(id, room).iter().map(|id| id.fid));
        along.retain(|fid| *fid != id.fid);
        along.sort();
        along.dedup();
        let mark = self.cache.mark(id.realm, id.fid.volume);
        let mut answers = match self.versions(id, &realm, &group, &along).await {
            Err(error) if is_disconnected(&error) => {
                // Whoever was asked may be no member any more, and has said so.
                let (realm, now) = self.group(id).await?;
                if now.epoch == group.epoch {
                    return Err(error);
                }
                self.versions(id, &realm, &now, &along).await?
            }
            answers => answers?,
        };
        self.unfold(id, &realm, &mut answers).await;
        for (fid, said) in std::mem::take(&mut answers.of) {
            if fid != id.fid {
                let other = ObjectId { realm: id.realm, fid };
                // Whoever holds it is about to learn better; and only the wanted object may wait.
                if let Some(_held) = self.cache.locks.try_hold(other) {
                    let _ = self.take_in(other, &said, &answers, mark);
                }
                continue;
            }
            match self.take_in(id, &said, &answers, mark)? {
                Choice::Concurrent => {
                    self.resolve(id, Priority::Foreground).await;
                    self.after_resolution(id, &realm, &group).await?;
                }
                Choice::Behind | Choice::Nothing => self.request_resolve(id),
                Choice::Newest { .. } => {}
            }
        }
        self.keep_seal(id.realm, id.fid.volume);
        Ok(())
    }

    /// Decides what the members' answers mean for the cache, and makes it so.
    pub(super) fn take_in(
        &self,
        id: ObjectId,
        said: &[(ServerId, Option<Status>)],
        answers: &Answers,
        mark: Mark,
    ) -> Result<Choice> {
        let cached = self.cache.view(id)?;
        let statuses: Vec<(ServerId, &Status)> =
            said.iter().filter_map(|(server, status)| Some((*server, status.as_ref()?))).collect();
        if statuses.is_empty() {
            // All who answered say that it is gone. What is open or not sent yet stays.
            let busy = cached.as_ref().is_some_and(|view| view.open.is_some());
            if !busy
                && answers.complete
                && let Ok(Ok(())) = self.cache.flush(id)
            {
                return Err(Error::Gone(id.fid));
            }
            return match cached {
                Some(_) => Ok(Choice::Nothing),
                None => Err(Error::Gone(id.fid)),
            };
        }
        let pasts: Vec<_> = statuses.iter().map(|(server, status)| (*server, &status.past)).collect();
        let choice = choose(cached.as_ref().map(|view| &view.row.status.past), &pasts);
        if let Choice::Newest { at, stale } = &choice {
            let newest = |(server, _): &&(ServerId, &Status)| at.contains(server);
            let (_, status) = statuses.iter().find(newest).expect("the choice is among the answers");
            self.cache.learn(id, (*status).clone())?;
            if status.in_conflict() {
                self.merge_by_rule(id, status.siblings.iter().map(|sibling| sibling.dot).collect());
            }
            let lagging = !stale.is_empty() || statuses.len() < said.len();
            let promised = statuses.iter().all(|(_, status)| status.promised);
            if lagging {
                self.request_resolve(id);
            } else if answers.complete && promised {
                // Who said nothing of this one seals nothing of it.
                let said = |server: &ServerId| statuses.iter().any(|(other, _)| other == server);
                let stamps = answers.stamps.iter().filter(|(server, _)| said(server));
                let stamps = stamps.map(|(server, stamp)| (*server, *stamp)).collect();
                self.cache.believe(id, mark, &status.past, &stamps)?;
            }
        }
        Ok(choice)
    }

    /// Members disagreed and were asked to resolve. What they still disagree on is a conflict of a file;
    /// of a directory, one of its versions shows.
    async fn after_resolution(&self, id: ObjectId, realm: &str, group: &Group) -> Result<()> {
        let mark = self.cache.mark(id.realm, id.fid.volume);
        let mut answers = self.versions(id, realm, group, &[]).await?;
        self.unfold(id, realm, &mut answers).await;
        let Some(said) = answers.of.get(&id.fid) else { return Err(Error::Gone(id.fid)) };
        if self.take_in(id, said, &answers, mark)? != Choice::Concurrent {
            return Ok(());
        }
        let first = said.iter().find_map(|(_, status)| status.as_ref().filter(|s| !s.past.is_empty()));
        match first {
            Some(status) if status.kind == Kind::Directory => {
                if self.cache.view(id)?.is_none() {
                    self.cache.learn(id, status.clone())?;
                }
                Ok(())
            }
            _ => Err(Error::Conflict(id.fid)),
        }
    }

    /// Asks all live members, without waiting long for those slower than the first.
    async fn versions(&self, id: ObjectId, realm: &str, group: &Group, along: &[Fid]) -> Result<Answers> {
        let fids: Vec<wire::Fid> =
            std::iter::once(id.fid).chain(along.iter().copied()).map(Into::into).collect();
        let body = wire::request::Body::GetAttr(wire::GetAttr { volume: id.fid.volume.0, fids });
        let gathered = self.peers.ask_most(realm, group, body, Priority::Foreground).await;
        let complete = gathered.missing.is_empty();
        let mut answers = Answers { of: BTreeMap::new(), complete, stamps: Stamps::new() };
        let mut failures = Vec::new();
        for (server, outcome) in gathered.told {
            match outcome.and_then(|answer| attributes(answer.response)) {
                Ok((statuses, gone, stamp)) => {
                    answers.stamps.extend(stamp.map(|stamp| (server, stamp)));
                    for status in statuses {
                        answers.of.entry(status.fid).or_default().push((server, Some(status)));
                    }
                    for fid in gone {
                        answers.of.entry(fid).or_default().push((server, None));
                    }
                }
                Err(error) => {
                    // A member that died meanwhile is no longer one that must have answered.
                    answers.complete &= super::is_away(&error);
                    failures.push(error);
                }
            }
        }
        answers.of.retain(|fid, _| *fid == id.fid || along.contains(fid));
        if answers.of.is_empty() {
            return Err(AskError::most_telling(failures).about(&id.fid.to_string()));
        }
        Ok(answers)
    }

    /// Takes in a status that came along with something else, without a promise. Answers whether the
    /// cache now holds that version.
    pub(crate) fn learn_along(&self, id: ObjectId, status: Status) -> Result<bool> {
        Ok(matches!(self.cache.learn(id, status)?, Relation::Equal | Relation::Newer))
    }
}

type Attributes = (Vec<Status>, Vec<Fid>, Option<wire::Stamp>);

fn attributes(response: wire::Response) -> std::result::Result<Attributes, AskError> {
    let Some(wire::response::Body::Attributes(attributes)) = response.body else {
        return Err(AskError::Malformed("no attributes".into()));
    };
    let malformed = |error: coda_proto::Malformed| AskError::Malformed(error.to_string());
    let statuses =
        attributes.statuses.into_iter().map(Status::try_from).collect::<std::result::Result<_, _>>();
    let gone = attributes.gone.into_iter().map(Fid::try_from).collect::<std::result::Result<_, _>>();
    Ok((statuses.map_err(malformed)?, gone.map_err(malformed)?, attributes.stamp))
}
