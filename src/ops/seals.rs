//! Volumes whose promises were lost: what changed meanwhile is asked once, for all their objects. Where that
//! brings no answer, objects are validated a thousand at a time.

use std::{collections::BTreeMap, sync::Weak, time::Duration};

use coda_proto::{Fid, ServerId, Status, VolumeId, wire};

use super::{Core, status::Answers};
use crate::{
    cache::seal::{Doubt, Since, Stamps},
    env::{Answer, Priority},
    replica::{AskError, Gathered, Group},
    venus::face::ObjectId,
};

/// Objects validated by one question: what a server takes.
const MANY: usize = 1000;

/// How long what was learnt of seals may be lost by a crash. It costs a question more, and nothing else.
const KEPT_EVERY: Duration = Duration::from_secs(5);

/// Keeps what is learnt of seals, for as long as there is a manager.
pub(crate) async fn keep(core: Weak<Core>) {
    loop {
        tokio::time::sleep(KEPT_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        core.keep_seals().await;
    }
}

/// What the members say of a seal.
#[derive(Debug, PartialEq)]
enum Said {
    /// What changed since, by each of them.
    Changes(BTreeMap<ServerId, Since>),
    /// One of them cannot tell.
    Unknown,
    /// Not all of those that live have answered: nothing is known.
    Nothing,
}

impl Core {
    /// Asks once for the whole volume, if its promises were lost, whether what is cached is still so. Answers
    /// whether `id`, which is to be validated, may now be believed.
    pub(super) async fn is_still_sealed(&self, id: ObjectId, realm: &str, group: &Group) -> bool {
        if self.cache.doubt(id.realm, group.id).is_none() {
            return false;
        }
        // Whoever comes second finds it asked. Taken last, so whoever holds it waits for no object.
        let _alone = self.cache.locks.hold([as_a_whole(id.realm, group.id)]).await;
        if let Some(doubt) = self.cache.doubt(id.realm, group.id) {
            self.ask_since(id.realm, realm, group, &doubt).await;
        }
        self.cache.held(id).0
    }

    /// Keeps what is known of seals for after a restart.
    pub(crate) async fn keep_seals(&self) {
        loop {
            match self.cache.keep_seals() {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => return,
                Err(error) => return tracing::warn!(%error, "what servers hold could not be noted"),
            }
        }
    }

    /// Renews the seal of a volume in which much changed, before it is too much for one answer.
    pub(crate) fn keep_seal(&self, realm: u32, volume: VolumeId) {
        let Some(doubt) = self.cache.behind(realm, volume) else { return };
        let core = self.me();
        self.spawn(async move {
            let Ok((name, group)) = core.group(ObjectId { realm, fid: Fid::root(volume) }).await else {
                return;
            };
            let _alone = core.cache.locks.hold([as_a_whole(realm, volume)]).await;
            core.ask_since(realm, &name, &group, &doubt).await;
        });
    }

    async fn ask_since(&self, number: u32, realm: &str, group: &Group, doubt: &Doubt) {
        let stamps = doubt.stamps.values().copied().collect();
        let body = wire::request::Body::ValidateVolumes(wire::ValidateVolumes {
            volumes: vec![wire::VolumeVersion { volume: group.id.0, stamp: None, stamps }],
        });
        let gathered = self.peers.ask_most(realm, group, body, Priority::Foreground).await;
        match said(gathered, group.id) {
            Said::Changes(since) => {
                let changed: usize = since.values().map(|since| since.changed.len()).sum();
                tracing::debug!(%realm, volume = %group.id, changed, "asked what changed");
                self.cache.reseal((number, group.id), doubt, &since);
            }
            Said::Unknown => {
                self.cache.break_seal(number, group.id);
                self.validate_all(number, group.id);
            }
            Said::Nothing => {}
        }
    }

    /// Validates everything of a volume that is in memory, in the background.
    fn validate_all(&self, realm: u32, volume: VolumeId) {
        let core = self.me();
        self.spawn(async move {
            let root = ObjectId { realm, fid: Fid::root(volume) };
            let Ok((name, group)) = core.group(root).await else { return };
            loop {
                let suspects = core.cache.suspects(root, MANY);
                if suspects.is_empty() || !core.validate_some(realm, &name, &group, &suspects).await {
                    return;
                }
            }
        });
    }

    /// One question about many objects. Answers whether it was worth it.
    async fn validate_some(&self, number: u32, realm: &str, group: &Group, suspects: &[ObjectId]) -> bool {
        let mark = self.cache.mark(number, group.id);
        let mut cached: Vec<Status> = Vec::new();
        for id in suspects {
            let Ok(Some(view)) = self.cache.view(*id) else { continue };
            cached.push(view.row.status.clone());
        }
        let version = |status: &Status| wire::ObjectVersion {
            fid: Some(status.fid.into()),
            digest: status.past.digest().to_vec().into(),
        };
        let body = wire::request::Body::ValidateObjects(wire::ValidateObjects {
            volume: group.id.0,
            objects: cached.iter().map(version).collect(),
        });
        let gathered = self.peers.ask_most(realm, group, body, Priority::Background).await;
        let mut answers =
            Answers { of: BTreeMap::new(), complete: gathered.missing.is_empty(), stamps: Stamps::new() };
        for (server, outcome) in gathered.told {
            match outcome.and_then(|answer| objects(answer, &cached)) {
                Ok((statuses, stamp)) => {
                    answers.stamps.extend(stamp.map(|stamp| (server, stamp)));
                    for (cached, status) in cached.iter().zip(statuses) {
                        answers.of.entry(cached.fid).or_default().push((server, status));
                    }
                }
                Err(error) => answers.complete &= super::is_away(&error),
            }
        }
        let mut believed = false;
        for (fid, said) in std::mem::take(&mut answers.of) {
            let id = ObjectId { realm: number, fid };
            if let Some(_held) = self.cache.locks.try_hold(id) {
                let _ = self.take_in(id, &said, &answers, mark);
                believed |= self.cache.held(id).0;
            }
        }
        believed
    }
}

/// The lock of a volume as a whole: no object has this name.
fn as_a_whole(realm: u32, volume: VolumeId) -> ObjectId {
    ObjectId { realm, fid: Fid { volume, vnode: 0, unique: 0 } }
}

fn said(gathered: Gathered, volume: VolumeId) -> Said {
    if !gathered.missing.is_empty() {
        return Said::Nothing;
    }
    let mut since = BTreeMap::new();
    for (server, outcome) in gathered.told {
        match outcome {
            Ok(answer) => match changes(answer, volume) {
                Some(changes) => drop(since.insert(server, changes)),
                None => return Said::Unknown,
            },
            // A member that died meanwhile is no longer one that must have answered.
            Err(error) if super::is_away(&error) => {}
            Err(_) => return Said::Unknown,
        }
    }
    if since.is_empty() { Said::Nothing } else { Said::Changes(since) }
}

fn changes(answer: Answer, volume: VolumeId) -> Option<Since> {
    let Some(wire::response::Body::VolumesValidated(validated)) = answer.response.body else { return None };
    let answer = validated.answers.into_iter().next().filter(|answer| answer.volume == volume.0)?;
    if !(answer.valid || answer.listed) {
        return None;
    }
    let change = |object: wire::ObjectVersion| {
        let fid = coda_proto::id::required(object.fid, "fid").ok()?;
        let digest = match object.digest.len() {
            0 => None,
            _ => Some(object.digest[..].try_into().ok()?),
        };
        Some((fid, digest))
    };
    let changed = answer.changed.into_iter().map(change).collect::<Option<_>>()?;
    Some(Since { stamp: answer.stamp?, changed })
}

type Objects = (Vec<Option<Status>>, Option<wire::Stamp>);

/// What a member says of each object asked about: its status, or none where it is gone.
fn objects(answer: Answer, asked: &[Status]) -> Result<Objects, AskError> {
    let Some(wire::response::Body::ObjectsValidated(validated)) = answer.response.body else {
        return Err(AskError::Malformed("no validation".into()));
    };
    if validated.answers.len() != asked.len() {
        return Err(AskError::Malformed("not as many answers as questions".into()));
    }
    let malformed = |error: coda_proto::Malformed| AskError::Malformed(error.to_string());
    let statuses = asked.iter().zip(validated.answers).map(|(cached, answer)| match answer.status {
        _ if answer.valid => Ok(Some(Status { promised: true, ..cached.clone() })),
        Some(status) => Status::try_from(status).map(Some).map_err(malformed),
        None if answer.gone => Ok(None),
        None => Err(AskError::Malformed("neither valid nor a status".into())),
    });
    Ok((statuses.collect::<Result<_, _>>()?, validated.stamp))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn told(id: u8, answer: Result<wire::VolumeAnswer, AskError>) -> (ServerId, Result<Answer, AskError>) {
        let answer = answer.map(|answer| {
            let body =
                wire::response::Body::VolumesValidated(wire::VolumesValidated { answers: vec![answer] });
            Answer { response: wire::Response { bulk: 0, body: Some(body) }, bulk: Bytes::new() }
        });
        (ServerId(id), answer)
    }

    fn valid() -> wire::VolumeAnswer {
        let stamp = Some(wire::Stamp { incarnation: 1, change_seq: 1 });
        wire::VolumeAnswer { volume: 9, valid: true, stamp, ..Default::default() }
    }

    #[test]
    fn a_volume_is_as_it_was_only_if_all_who_live_say_so() {
        let decide = |told| said(Gathered { told, missing: vec![] }, VolumeId(9));
        let away = || Err(AskError::Unreachable("dead".into()));
        assert!(
            matches!(decide(vec![told(1, Ok(valid())), told(2, Ok(valid()))]), Said::Changes(s) if s.len() == 2)
        );
        assert!(
            matches!(decide(vec![told(1, Ok(valid())), told(2, away())]), Said::Changes(s) if s.len() == 1)
        );
        assert_eq!(decide(vec![told(1, away())]), Said::Nothing);
        let other = wire::VolumeAnswer { valid: false, ..valid() };
        assert_eq!(decide(vec![told(1, Ok(valid())), told(2, Ok(other))]), Said::Unknown);
        let elsewhere = wire::VolumeAnswer { volume: 8, ..valid() };
        assert_eq!(decide(vec![told(1, Ok(elsewhere))]), Said::Unknown);
        let late = Gathered { told: vec![told(1, Ok(valid()))], missing: vec![ServerId(2)] };
        assert_eq!(said(late, VolumeId(9)), Said::Nothing);
    }
}
