//! Validation: is what I hold still so?

use coda_proto::{
    Code, Fid, Refusal, Status, VolumeId,
    id::required,
    wire::{self, response::Body},
};

use super::{
    Answer, Caller, plain,
    read::{MANY, served, stamp},
};
use crate::{server::Server, session::Key, status::status, store::View};

impl Server {
    pub(crate) fn validate_objects(&self, caller: Caller, ask: wire::ValidateObjects) -> Answer {
        let id = VolumeId(ask.volume);
        let volume = self.volume(id)?;
        if ask.objects.len() > MANY {
            return Err(Refusal::new(Code::TooBig, format!("more than {MANY} objects")));
        }
        let mut asked: Vec<(Fid, bytes::Bytes)> = Vec::with_capacity(ask.objects.len());
        for object in ask.objects {
            let fid: Fid = required(object.fid, "fid")?;
            if fid.volume != id {
                return Err(Refusal::about(Code::Invalid, fid, "of another volume"));
            }
            asked.push((fid, object.digest));
        }
        let promised = self.promise_keys(caller, asked.iter().map(|(fid, _)| Key::Object(*fid)));
        volume.read(|view| {
            served(view)?;
            let mut answers = Vec::with_capacity(asked.len());
            for (fid, digest) in &asked {
                let answer = match status(view, *fid, caller.who)? {
                    None => wire::ObjectAnswer { gone: true, ..Default::default() },
                    Some(status) if promised && status.past.digest()[..] == digest[..] => {
                        wire::ObjectAnswer { valid: true, ..Default::default() }
                    }
                    Some(status) => wire::ObjectAnswer {
                        status: Some((&Status { promised, ..status }).into()),
                        ..Default::default()
                    },
                };
                answers.push(answer);
            }
            let stamp = Some(stamp(view)?);
            plain(Body::ObjectsValidated(wire::ObjectsValidated { answers, stamp }))
        })
    }

    pub(crate) fn validate_volumes(&self, caller: Caller, ask: wire::ValidateVolumes) -> Answer {
        if ask.volumes.len() > MANY {
            return Err(Refusal::new(Code::TooBig, format!("more than {MANY} volumes")));
        }
        let answers = ask.volumes.iter().map(|one| self.validate_volume(caller, one));
        let answers = answers.collect::<Result<_, _>>()?;
        plain(Body::VolumesValidated(wire::VolumesValidated { answers }))
    }

    fn validate_volume(
        &self,
        caller: Caller,
        ask: &wire::VolumeVersion,
    ) -> Result<wire::VolumeAnswer, Refusal> {
        let id = VolumeId(ask.volume);
        let info = self.realm().volumes.get(&id).map(|volume| volume.info.clone());
        let unknown =
            wire::VolumeAnswer { volume: id.0, unknown: true, info: info.clone(), ..Default::default() };
        let Ok(volume) = self.volume(id) else { return Ok(unknown) };
        let promised = self.promise_keys(caller, [Key::Volume(id)]);
        volume.read(|view| {
            let row = view.volume_row()?;
            if !row.joined {
                return Ok(unknown);
            }
            let stamp = stamp(view)?;
            let mut known = None;
            for asked in ask.stamps.iter().chain(&ask.stamp) {
                if view.has_been(asked.incarnation, asked.change_seq)? {
                    known = known.max(Some(asked.change_seq));
                }
            }
            let changed = match known {
                Some(known) if promised => changed_since(view, known)?,
                _ => None,
            };
            let valid = changed.as_ref().is_some_and(Vec::is_empty);
            Ok(wire::VolumeAnswer {
                volume: id.0,
                valid,
                stamp: Some(stamp),
                info,
                unknown: false,
                listed: changed.is_some(),
                changed: changed.unwrap_or_default(),
            })
        })
    }
}

/// What changed since, unless it is too much for one answer.
fn changed_since(view: &View, seq: u64) -> Result<Option<Vec<wire::ObjectVersion>>, Refusal> {
    let changed = view.changed_since(seq, MANY as u32 + 1)?;
    if changed.len() > MANY {
        return Ok(None);
    }
    let version = |(_, fid): (u64, Fid)| -> Result<_, Refusal> {
        let digest = view.past(fid)?.map(|past| past.digest().to_vec().into()).unwrap_or_default();
        Ok(wire::ObjectVersion { fid: Some(fid.into()), digest })
    };
    changed.into_iter().map(version).collect::<Result<_, _>>().map(Some)
}
