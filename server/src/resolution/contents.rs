//! Bytes from a peer, by their hash.

use std::sync::Arc;

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

/// Contents that were fetched and that no row names yet.
pub(super) enum Fetched {
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
    pub(super) fn forget(self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
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
    /// Fetches contents; `None` where this peer does not have them either.
    pub(super) async fn fetch_contents(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        hash: [u8; 32],
        length: u64,
    ) -> Result<Option<Fetched>, Failure> {
        if length <= INLINE_LIMIT as u64 {
            let Some(bytes) = self.piece(volume, peer, &hash, 0).await? else { return Ok(None) };
            return match blake3::hash(&bytes).as_bytes() == &hash {
                true => Ok(Some(Fetched::Inline(bytes.to_vec()))),
                false => Err(wrong().into()),
            };
        }
        let handle = (u128::from(self.env().random()) << 64 | u128::from(self.env().random())).to_be_bytes();
        let name = Containers::name([self.env().random(), self.env().random()]);
        let row = UploadRow { instance: Vec::new(), length, hash, container: name.clone(), complete: false };
        let now = self.env().now();
        volume.write(move |txn| Ok(txn.put_upload(&handle, &row, now)?), |_| {}).await?;
        let whole = self.pieces(volume, peer, &hash, length, &handle).await;
        if let Ok(true) = whole {
            let sealed = blocking(|| -> Result<bool, StoreError> {
                let containers = &volume.store().containers;
                let right = containers.hash(&handle)? == hash;
                if right {
                    containers.seal(&handle, &name)?;
                }
                Ok(right)
            });
            if sealed.map_err(Refusal::from)? {
                return Ok(Some(Fetched::Container { handle, name }));
            }
        }
        // Nothing of it is kept: pieces of two peers could belong to different bytes.
        blocking(|| volume.store().containers.abandon(&handle)).map_err(Refusal::from)?;
        volume.write(move |txn| Ok(txn.drop_upload(&handle)?), |_| {}).await?;
        match whole? {
            true => Err(wrong().into()),
            false => Ok(None),
        }
    }

    async fn pieces(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        hash: &[u8; 32],
        length: u64,
        handle: &[u8; 16],
    ) -> Result<bool, Failure> {
        let mut offset = 0;
        while offset < length {
            let Some(bytes) = self.piece(volume, peer, hash, offset).await? else { return Ok(false) };
            if bytes.is_empty() || bytes.len() as u64 > length - offset {
                return Err(wrong().into());
            }
            blocking(|| volume.store().containers.append(handle, offset, &bytes)).map_err(Refusal::from)?;
            offset += bytes.len() as u64;
        }
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
            Ok((response::Body::Met(_), bytes)) => Ok(Some(bytes)),
            Ok(_) => Err(wrong().into()),
            Err(Failure::Refused(refusal)) if refusal.code == Code::Gone => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn wrong() -> coda_proto::Malformed {
    coda_proto::Malformed::new("contents", "not the bytes that the hash names")
}
