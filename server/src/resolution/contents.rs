//! Bytes from a peer, by their hash.

use std::{collections::BTreeMap, sync::Arc};

use coda_proto::{
    Code, INLINE_LIMIT, Refusal,
    wire::{self, request, response},
};

use super::{SILENCE, exchange::Failure};
use crate::{
    blocking::blocking,
    server::Server,
    store::{Bytes as Stored, Containers, StoreError, Txn, UploadRow},
    volume::Volume,
};

/// Small contents asked for in one call, at most.
const AT_ONCE: usize = 1000;
/// Containers fetched between two commits, at most.
const UPLOADS: usize = 100;

/// Contents that were fetched and that no row names yet.
pub(crate) enum Fetched {
    /// Small ones.
    Inline(Vec<u8>),
    /// A container in its place. A row of an upload names it until a sibling does, as after a crash.
    Container { handle: [u8; 16], name: String },
}

impl Fetched {
    /// They are to be named by a sibling.
    pub(super) fn take(self, txn: &mut Txn<'_>) -> Result<Stored, StoreError> {
        match self {
            Fetched::Inline(bytes) => Ok(Stored::Inline(bytes)),
            Fetched::Container { handle, name } => {
                txn.drop_upload(&handle)?;
                Ok(Stored::Container(name))
            }
        }
    }

    /// Nobody wants them.
    pub(crate) fn forget(self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        match self {
            Fetched::Inline(_) => Ok(()),
            Fetched::Container { handle, name } => {
                txn.drop_upload(&handle)?;
                txn.discard(&name)
            }
        }
    }
}

impl Server {
    /// Fetches contents, given as lengths by hash, as far as this peer has them.
    pub(crate) async fn fetch_lacking(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        lacking: BTreeMap<[u8; 32], u64>,
    ) -> Result<BTreeMap<[u8; 32], Fetched>, Failure> {
        let (small, large): (Vec<_>, Vec<_>) =
            lacking.into_iter().partition(|(_, length)| *length <= INLINE_LIMIT as u64);
        let mut fetched = BTreeMap::new();
        let mut small = small.into_iter().map(|(hash, _)| hash).peekable();
        while small.peek().is_some() {
            let asked: Vec<[u8; 32]> = small.by_ref().take(AT_ONCE).collect();
            self.fetch_small(volume, peer, asked, &mut fetched).await?;
        }
        for files in large.chunks(UPLOADS) {
            self.fetch_large(volume, peer, files, &mut fetched).await?;
        }
        Ok(fetched)
    }

    /// The rate at which the replica here fetches while it joins; 0: any.
    fn rate_of(&self, id: coda_proto::VolumeId) -> u64 {
        let realm = self.realm();
        let entry = realm.volumes.get(&id);
        entry.and_then(|entry| entry.member_more(self.id())).map_or(0, |more| more.rate)
    }

    async fn fetch_small(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        mut asked: Vec<[u8; 32]>,
        fetched: &mut BTreeMap<[u8; 32], Fetched>,
    ) -> Result<(), Failure> {
        let progress = volume.meetings.progress();
        while !asked.is_empty() {
            let many = asked.iter().map(|hash| hash.to_vec().into()).collect();
            let meet = wire::Meet { volume: volume.id.0, many, ..Default::default() };
            let (body, mut bulk) = self.ask_peer(peer, request::Body::Meet(meet), SILENCE).await?;
            let response::Body::Met(met) = body else { return Err(wrong().into()) };
            progress.bytes(bulk.len() as u64, self.rate_of(volume.id)).await;
            let answered = met.lengths.len();
            if answered == 0 || answered > asked.len() {
                return Err(wrong().into());
            }
            for (hash, length) in asked.drain(..answered).zip(met.lengths) {
                match usize::try_from(length) {
                    Ok(length) if length <= bulk.len() => {
                        let bytes = bulk.split_to(length);
                        if blake3::hash(&bytes).as_bytes() != &hash {
                            return Err(wrong().into());
                        }
                        fetched.insert(hash, Fetched::Inline(bytes.to_vec()));
                        progress.fetched();
                    }
                    Ok(_) => return Err(wrong().into()),
                    // It is not there, or kept in another way.
                    Err(_) => {
                        if let Some(bytes) = self.piece(volume, peer, &hash, 0).await? {
                            if blake3::hash(&bytes).as_bytes() != &hash {
                                return Err(wrong().into());
                            }
                            fetched.insert(hash, Fetched::Inline(bytes.to_vec()));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Contents that become containers. Rows of uploads name them from before their first byte is here
    /// until siblings do.
    async fn fetch_large(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        files: &[([u8; 32], u64)],
        fetched: &mut BTreeMap<[u8; 32], Fetched>,
    ) -> Result<(), Failure> {
        let random = || self.env().random();
        let mut rows = Vec::new();
        for (hash, length) in files {
            let handle = (u128::from(random()) << 64 | u128::from(random())).to_be_bytes();
            let container = Containers::name([random(), random()]);
            let (hash, length) = (*hash, *length);
            let row = UploadRow { instance: Vec::new(), length, hash, container, complete: false };
            rows.push((handle, row));
        }
        let (noted, now) = (rows.clone(), self.env().now());
        let note = move |txn: &mut Txn<'_>| {
            noted.iter().try_for_each(|(handle, row)| Ok(txn.put_upload(handle, row, now)?))
        };
        volume.write(note, |_| {}).await?;
        let (mut missing, mut failure) = (Vec::new(), None);
        for (handle, row) in rows {
            let whole = match failure {
                None => self.pieces(volume, peer, &row, &handle).await,
                Some(_) => Ok(false),
            };
            match whole {
                Ok(true) => {
                    let name = row.container;
                    volume.meetings.progress().fetched();
                    fetched.insert(row.hash, Fetched::Container { handle, name });
                }
                Ok(false) => missing.push(handle),
                Err(why) => {
                    missing.push(handle);
                    failure = Some(why);
                }
            }
        }
        if !missing.is_empty() {
            // Nothing of them is kept: pieces of two peers could belong to different bytes.
            for handle in &missing {
                blocking(|| volume.store().containers.abandon(handle)).map_err(Refusal::from)?;
            }
            let forget =
                move |txn: &mut Txn<'_>| missing.iter().try_for_each(|handle| Ok(txn.drop_upload(handle)?));
            volume.write(forget, |_| {}).await?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Fetches one container and puts it in its place. `false`: the peer does not have it.
    async fn pieces(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        upload: &UploadRow,
        handle: &[u8; 16],
    ) -> Result<bool, Failure> {
        let containers = &volume.store().containers;
        let (mut offset, mut hasher) = (0, blake3::Hasher::new());
        let mut next = self.piece(volume, peer, &upload.hash, 0).await?;
        while offset < upload.length {
            let Some(bytes) = next.take() else { return Ok(false) };
            let after = offset + bytes.len() as u64;
            if bytes.is_empty() || after > upload.length {
                return Err(wrong().into());
            }
            let keep = async {
                blocking(|| {
                    hasher.update(&bytes);
                    containers.append(handle, offset, &bytes)
                })
            };
            // The next one travels while this one is written.
            let (piece, kept) = tokio::join!(
                async {
                    match after < upload.length {
                        true => self.piece(volume, peer, &upload.hash, after).await,
                        false => Ok(None),
                    }
                },
                keep
            );
            kept.map_err(Refusal::from)?;
            (next, offset) = (piece?, after);
        }
        if hasher.finalize().as_bytes() != &upload.hash {
            return Err(wrong().into());
        }
        blocking(|| containers.seal(handle, &upload.container)).map_err(Refusal::from)?;
        Ok(true)
    }

    async fn piece(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        hash: &[u8; 32],
        offset: u64,
    ) -> Result<Option<bytes::Bytes>, Failure> {
        let contents = hash.to_vec().into();
        let meet = wire::Meet { volume: volume.id.0, contents, offset, ..Default::default() };
        match self.ask_peer(peer, request::Body::Meet(meet), SILENCE).await {
            Ok((response::Body::Met(_), bytes)) => {
                volume.meetings.progress().bytes(bytes.len() as u64, self.rate_of(volume.id)).await;
                Ok(Some(bytes))
            }
            Ok(_) => Err(wrong().into()),
            Err(Failure::Refused(refusal)) if refusal.code == Code::Gone => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn wrong() -> coda_proto::Malformed {
    coda_proto::Malformed::new("contents", "not the bytes that the hash names")
}
