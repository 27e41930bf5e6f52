//! Bytes from a peer, by their hash.

use std::{collections::BTreeMap, sync::Arc};

use coda_proto::{
    BULK_LIMIT, Code, INLINE_LIMIT, Refusal,
    wire::{self, request, response},
};
use futures::{
    StreamExt,
    stream::{FuturesOrdered, FuturesUnordered},
};
use tokio::time::Instant;

use super::{SILENCE, exchange::Failure};
use crate::{
    blocking::blocking,
    server::Server,
    store::{Bytes as Stored, Containers, StoreError, Txn, UploadRow},
    volume::Volume,
};

/// Small contents asked for in one call, at most.
const AT_ONCE: usize = 1000;
/// The same while clients want the same processors.
const AMONG_CLIENTS: usize = 100;
/// Pieces of one container that are asked for before the first of them is here.
const AHEAD: usize = 4;
/// Containers fetched at a time, one piece of each.
const ABREAST: usize = 4;
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
        let courtesy = volume.meetings.courtesy();
        while small.peek().is_some() {
            let count = if courtesy.gives_way() { AMONG_CLIENTS } else { AT_ONCE };
            let asked: Vec<[u8; 32]> = small.by_ref().take(count).collect();
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
            let begun = Instant::now();
            let (body, mut bulk) = self.ask_peer(peer, request::Body::Meet(meet), SILENCE).await?;
            let response::Body::Met(met) = body else { return Err(wrong().into()) };
            rest(volume, &met, begun).await;
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
        let ahead = if files.len() == 1 { AHEAD } else { 1 };
        let (mut waiting, mut going) = (rows.into_iter(), FuturesUnordered::new());
        loop {
            while failure.is_none()
                && going.len() < ABREAST
                && let Some((handle, row)) = waiting.next()
            {
                going.push(
                    async move { (handle, self.pieces(volume, peer, &row, &handle, ahead).await, row) },
                );
            }
            let Some((handle, whole, row)) = going.next().await else { break };
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
        missing.extend(waiting.map(|(handle, _)| handle));
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
        ahead: usize,
    ) -> Result<bool, Failure> {
        let containers = &volume.store().containers;
        let (mut offset, mut asked) = (0, 0);
        let mut hasher = blake3::Hasher::new();
        let mut coming = FuturesOrdered::new();
        while offset < upload.length {
            // A rate is kept by asking for one after the other.
            let calm = self.rate_of(volume.id) == 0 && !volume.meetings.courtesy().gives_way();
            while coming.len() < if calm { ahead } else { 1 } && asked < upload.length {
                coming.push_back(self.piece(volume, peer, &upload.hash, asked));
                asked += BULK_LIMIT as u64;
            }
            let piece = coming.next().await.expect("one was asked for, since not all are here");
            let Some(bytes) = piece? else { return Ok(false) };
            let after = offset + bytes.len() as u64;
            if bytes.is_empty() || after > upload.length {
                return Err(wrong().into());
            }
            if after < upload.length && bytes.len() != BULK_LIMIT {
                // A peer that sends other pieces than we asked for: those that are under way do not follow this one.
                coming = FuturesOrdered::new();
                asked = after;
            }
            let keep = || {
                hasher.update(&bytes);
                containers.append(handle, offset, &bytes)
            };
            blocking(keep).map_err(Refusal::from)?;
            offset = after;
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
        let begun = Instant::now();
        match self.ask_peer(peer, request::Body::Meet(meet), SILENCE).await {
            Ok((response::Body::Met(met), bytes)) => {
                rest(volume, &met, begun).await;
                volume.meetings.progress().bytes(bytes.len() as u64, self.rate_of(volume.id)).await;
                Ok(Some(bytes))
            }
            Ok(_) => Err(wrong().into()),
            Err(Failure::Refused(refusal)) if refusal.code == Code::Gone => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// After an answer: clients go first.
async fn rest(volume: &Volume, met: &wire::MetAnswer, begun: Instant) {
    let courtesy = volume.meetings.courtesy();
    if met.clients {
        courtesy.peer_has_clients();
    }
    courtesy.rest(begun.elapsed()).await;
}

fn wrong() -> coda_proto::Malformed {
    coda_proto::Malformed::new("contents", "not the bytes that the hash names")
}
