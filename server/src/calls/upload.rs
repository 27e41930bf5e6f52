//! Upload: contents that travel ahead of their Store.
//!
//! An upload belongs to the client's instance, so it goes on over a new connection and after a restart of
//! either side. Its hash proves the bytes and grants nothing.

use std::sync::Arc;

use bytes::Bytes;
use coda_proto::{
    BULK_LIMIT, Code, Fid, Refusal, Rights, VolumeId,
    id::required,
    record::hash,
    service::Identity,
    wire::{self, response::Body},
};

use super::{Answer, Caller, plain, read::served};
use crate::{
    blocking::blocking,
    config::CrashPoint,
    quota, rights,
    server::Server,
    store::{Containers, UploadRow},
    volume::Volume,
};

impl Server {
    pub(crate) async fn upload(&self, caller: Caller, piece: wire::Upload, bytes: Bytes) -> Answer {
        let volume = self.volume(VolumeId(piece.volume))?;
        let handle: [u8; 16] =
            piece.handle[..].try_into().map_err(|_| Refusal::new(Code::Invalid, "a handle has 16 bytes"))?;
        if bytes.len() > BULK_LIMIT {
            return Err(Refusal::new(Code::TooBig, "a piece is too large"));
        }
        let asked = UploadRow {
            instance: self.sessions().instance(caller.session).unwrap_or_default(),
            length: piece.length,
            hash: hash(&piece.hash)?,
            container: Containers::name([self.env().random(), self.env().random()]),
            complete: false,
        };
        let found = volume.read(|view| Ok(view.upload(&handle)?))?;
        let upload = match found {
            Some(found) => found,
            None => {
                let directory: Fid = required(piece.directory, "directory")?;
                may_upload(&volume, directory, caller.who)?;
                let begun = volume.read(|view| Ok(view.uploads_of(&asked.instance)?))?;
                if begun >= self.config().limits.uploads {
                    let why = format!("{begun} uploads of this client wait for their stores");
                    return Err(Refusal::new(Code::Busy, why));
                }
                self.note(&volume, handle, asked.clone()).await?;
                asked.clone()
            }
        };
        if upload.instance != asked.instance {
            return Err(Refusal::new(Code::Upload, "unknown upload"));
        }
        if (upload.length, upload.hash) != (asked.length, asked.hash) {
            return Err(Refusal::new(Code::Upload, "this handle was given to other contents"));
        }
        if upload.complete {
            return uploaded(upload.length, true);
        }
        let held = blocking(|| append(&volume, &handle, &upload, piece.offset, &bytes))?;
        if held < upload.length {
            return uploaded(held, false);
        }
        let whole = blocking(|| seal(&volume, &handle, &upload))?;
        volume.survive(CrashPoint::ContainerSynced)?;
        match whole {
            true => {
                self.note(&volume, handle, UploadRow { complete: true, ..upload }).await?;
                uploaded(held, true)
            }
            false => Err(Refusal::new(Code::Upload, "the bytes do not match their hash; send them again")),
        }
    }

    async fn note(&self, volume: &Arc<Volume>, handle: [u8; 16], upload: UploadRow) -> Result<(), Refusal> {
        let now = self.env().now();
        volume.write(move |txn| Ok(txn.put_upload(&handle, &upload, now)?), |_| {}).await
    }
}

fn uploaded(held: u64, complete: bool) -> Answer {
    plain(Body::Uploaded(wire::Uploaded { held, complete }))
}

/// Whether `who` may bring contents for this directory at all, before a byte of them is kept.
fn may_upload(volume: &Volume, directory: Fid, who: Identity) -> Result<(), Refusal> {
    volume.read(|view| {
        served(view)?;
        if directory.volume != volume.id || !directory.is_directory() {
            return Err(Refusal::about(Code::NotDirectory, directory, "not a directory of this volume"));
        }
        match rights::rights_in(view, directory, who)? {
            Some(rights) if rights.has_any(Rights(Rights::WRITE.0 | Rights::INSERT.0)) => {}
            Some(_) => return Err(Refusal::about(Code::Access, directory, "needs w or i to upload")),
            None => return Err(Refusal::about(Code::NeedsResolve, directory, "not known here")),
        }
        let limit = view.head(Fid::root(volume.id))?.map_or(0, |root| root.quota_max());
        match quota::may_grow(view.volume_row()?.used, limit) {
            true => Ok(()),
            false => Err(Refusal::new(Code::Quota, format!("volume {} is at its limit", volume.id))),
        }
    })
}

/// Adds a piece where it continues what is held; says how much is held then.
fn append(
    volume: &Volume,
    handle: &[u8; 16],
    upload: &UploadRow,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, Refusal> {
    let _one_at_a_time = volume.uploading.lock().expect("never held across a panic");
    let containers = &volume.store().containers;
    let held = containers.held(handle)?;
    if bytes.is_empty() || offset != held {
        return Ok(held);
    }
    let end = held + bytes.len() as u64;
    if end > upload.length {
        return Err(Refusal::new(Code::Invalid, format!("{end} bytes for a length of {}", upload.length)));
    }
    if volume.store().space()?.free <= quota::blocks(bytes.len() as u64) {
        return Err(Refusal::new(Code::NoSpace, "the server's disk is full"));
    }
    containers.append(handle, offset, bytes)?;
    Ok(end)
}

/// Puts a whole upload in place. `false`: its bytes are wrong, and forgotten.
fn seal(volume: &Volume, handle: &[u8; 16], upload: &UploadRow) -> Result<bool, Refusal> {
    let _one_at_a_time = volume.uploading.lock().expect("never held across a panic");
    let containers = &volume.store().containers;
    if containers.path(&upload.container).exists() {
        return Ok(true);
    }
    if containers.hash(handle)? != upload.hash {
        containers.abandon(handle)?;
        return Ok(false);
    }
    containers.seal(handle, &upload.container).inspect_err(|_| {
        // A sync that failed once may claim success the next time: the bytes must come again.
        let _ = containers.abandon(handle);
        let _ = containers.remove(&upload.container);
    })?;
    Ok(true)
}
