//! Upload: contents that travel ahead of their Store.
//!
//! An upload belongs to the client's instance, so it goes on over a new connection and after a restart of
//! either side. Its hash proves the bytes and grants nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

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

/// Zeros of one piece: hashing them must not take long.
const ZEROS_LIMIT: u64 = 64 << 20;
/// Zeros that are hashed at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Server {
    pub(crate) async fn upload(&self, caller: Caller, piece: wire::Upload, bytes: Bytes) -> Answer {
        let volume = self.volume(VolumeId(piece.volume))?;
        volume.meetings.courtesy().client_came();
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
        let (upload, noting) = match found {
            Some(found) => (found, None),
            None => {
                let directory: Fid = required(piece.directory, "directory")?;
                may_upload(&volume, directory, caller.who)?;
                let begun = volume.read(|view| Ok(view.uploads_of(&asked.instance)?))?;
                if begun >= self.config().limits.uploads {
                    let why = format!("{begun} uploads of this client wait for their stores");
                    return Err(Refusal::new(Code::Busy, why));
                }
                (asked.clone(), Some(self.note(&volume, handle, asked.clone())))
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
        if piece.zeros > ZEROS_LIMIT || (piece.zeros > 0 && !bytes.is_empty()) {
            return Err(Refusal::new(Code::Invalid, "a piece is bytes, or a bounded number of zeros"));
        }
        let added = Piece { offset: piece.offset, bytes, zeros: piece.zeros };
        let adding = async {
            match blocking(|| append(&volume, &handle, &upload, &added)) {
                Err(full) if full.code == Code::NoSpace => {
                    self.give_up_remains().await?;
                    blocking(|| append(&volume, &handle, &upload, &added))
                }
                held => held,
            }
        };
        let held = match noting {
            // The row waits for the disk while the bytes do. What no row names is removed at the next start, as
            // long as it is not in its place: the row comes before that.
            Some(noting) => {
                let (noted, held) = tokio::join!(noting, adding);
                noted.and(held)?
            }
            None => adding.await?,
        };
        if held < upload.length {
            return uploaded(held, false);
        }
        let whole = blocking(|| seal(&volume, &handle, &upload))?;
        volume.uploading.done(&handle);
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

/// Part of an upload.
struct Piece {
    offset: u64,
    bytes: Bytes,
    zeros: u64,
}

/// Adds a piece where it continues what is held; says how much is held then. A whole upload is settled.
fn append(volume: &Volume, handle: &[u8; 16], upload: &UploadRow, piece: &Piece) -> Result<u64, Refusal> {
    let one_at_a_time = volume.uploading.of(handle);
    let mut running = one_at_a_time.lock().expect("never held across a panic");
    let containers = &volume.store().containers;
    let held = containers.held(handle)?;
    let count = piece.bytes.len() as u64 + piece.zeros;
    if count == 0 || piece.offset != held {
        return Ok(held);
    }
    let end = held + count;
    if end > upload.length {
        return Err(Refusal::new(Code::Invalid, format!("{end} bytes for a length of {}", upload.length)));
    }
    if volume.store().space()?.free <= quota::blocks(piece.bytes.len() as u64) {
        return Err(Refusal::new(Code::NoSpace, "the server's disk is full"));
    }
    match piece.zeros {
        0 => containers.append(handle, held, &piece.bytes)?,
        zeros => containers.append_zeros(handle, held, zeros)?,
    }
    running.add(held, &piece.bytes, piece.zeros);
    if end == upload.length {
        // A sync that failed once may claim success the next time: the bytes must come again.
        containers.settle(handle).inspect_err(|_| drop(containers.abandon(handle)))?;
        running.settled = true;
    }
    Ok(end)
}

/// Puts a whole upload in place. `false`: its bytes are wrong, and forgotten.
fn seal(volume: &Volume, handle: &[u8; 16], upload: &UploadRow) -> Result<bool, Refusal> {
    let one_at_a_time = volume.uploading.of(handle);
    let running = one_at_a_time.lock().expect("never held across a panic");
    let containers = &volume.store().containers;
    if containers.path(&upload.container).exists() {
        return Ok(true);
    }
    let hash = match running.hash(upload.length) {
        Some(hash) => hash,
        None => containers.hash(handle)?,
    };
    if hash != upload.hash {
        containers.abandon(handle)?;
        return Ok(false);
    }
    let placed = match running.settled {
        true => containers.place(handle, &upload.container),
        false => containers.seal(handle, &upload.container),
    };
    placed.inspect_err(|_| {
        // A sync that failed once may claim success the next time: the bytes must come again.
        let _ = containers.abandon(handle);
        let _ = containers.remove(&upload.container);
    })?;
    Ok(true)
}

/// Uploads under way: each takes one piece at a time, and is hashed as it comes.
#[derive(Default)]
pub struct Uploads {
    map: Mutex<HashMap<[u8; 16], Arc<Mutex<Running>>>>,
}

/// So many are remembered while nothing of them arrives.
const IDLE: usize = 64;

impl Uploads {
    fn of(&self, handle: &[u8; 16]) -> Arc<Mutex<Running>> {
        let mut map = self.map.lock().expect("never held across a panic");
        if map.len() >= IDLE {
            // Forgotten is only how far it was hashed.
            map.retain(|_, running| Arc::strong_count(running) > 1);
        }
        map.entry(*handle).or_default().clone()
    }

    fn done(&self, handle: &[u8; 16]) {
        let mut map = self.map.lock().expect("never held across a panic");
        if map.get(handle).is_some_and(|running| Arc::strong_count(running) == 1) {
            map.remove(handle);
        }
    }
}

/// The BLAKE3 of an upload's beginning.
#[derive(Default)]
struct Running {
    hasher: blake3::Hasher,
    hashed: u64,
    /// The whole of it survives power loss.
    settled: bool,
}

impl Running {
    /// A piece was written at `offset`. After a restart the beginning was not seen, and the whole is read.
    fn add(&mut self, offset: u64, bytes: &[u8], zeros: u64) {
        if offset == 0 {
            *self = Running::default();
        }
        if offset != self.hashed {
            return;
        }
        self.hasher.update(bytes);
        let mut left = zeros;
        while left > 0 {
            let some = left.min(ZEROS.len() as u64);
            self.hasher.update(&ZEROS[..some as usize]);
            left -= some;
        }
        self.hashed = offset + bytes.len() as u64 + zeros;
    }

    /// The hash of all `length` bytes, if all were seen.
    fn hash(&self, length: u64) -> Option<[u8; 32]> {
        (self.hashed == length && length > 0).then(|| *self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_grows_with_the_pieces_or_is_not_known() {
        let mut running = Running::default();
        running.add(0, b"abc", 0);
        running.add(3, b"", 70_000);
        let whole = [b"abc".to_vec(), vec![0; 70_000]].concat();
        assert_eq!(running.hash(70_003), Some(*blake3::hash(&whole).as_bytes()));
        assert_eq!(running.hash(70_004), None);
        running.add(80_000, b"a gap", 0);
        assert_eq!(running.hash(80_005), None);
        running.add(0, b"again", 0);
        assert_eq!(running.hash(5), Some(*blake3::hash(b"again").as_bytes()));
    }
}
