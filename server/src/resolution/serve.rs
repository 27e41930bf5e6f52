//! Answering a peer that asks.

use bytes::Bytes;
use coda_proto::{
    BULK_LIMIT, Code, Fid, Refusal, VolumeId,
    id::required,
    merge::ObjectState,
    record::hash,
    service::Identity,
    wire::{self, response::Body},
};
use prost::Message;

use super::{SILENCE, SUSPECT_SILENCE};
use crate::{
    calls::{Answer, Caller, plain},
    server::Server,
    status::status,
    store::{Bytes as Stored, StoreError, View},
};

/// Objects of one answer, at most.
const PAGE: u32 = 1000;
/// Bytes of one answer, about.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

impl Server {
    pub(crate) fn meet(&self, caller: Caller, meet: &wire::Meet) -> Answer {
        let volume = self.volume(VolumeId(meet.volume))?;
        match caller.who {
            Identity::Server(peer) if self.peers_of(volume.id).contains_key(&peer) => {
                let known = volume.read(|view| Ok(view.peer(peer)?))?;
                let (incarnation, seen) = known.unwrap_or_default();
                let started = incarnation != meet.my_incarnation;
                if meet.my_incarnation != 0 && (started || seen < meet.my_change_seq) {
                    volume.meetings.now_with(peer);
                }
                if meet.my_incarnation != 0 && started {
                    // We may be the first to see it back: clients readmit it when they hear of it.
                    let up = wire::ServerUp { server: peer.0.into() };
                    self.sessions().announce(&wire::event::Body::ServerUp(up));
                }
            }
            Identity::Server(_) | Identity::Admin => {}
            Identity::Client => return Err(Refusal::new(Code::Access, "only servers meet")),
        }
        match meet.contents.is_empty() {
            true => volume.read(|view| plain(Body::Met(page(view, meet)?))),
            false => {
                let hash = hash(&meet.contents)?;
                volume.read(|view| {
                    let unknown = || Refusal::new(Code::Gone, "no contents with this hash");
                    let content = view.content_by_hash(&hash)?.ok_or_else(unknown)?;
                    let bytes = match content.bytes {
                        Stored::Inline(bytes) => {
                            let from = usize::try_from(meet.offset).unwrap_or(usize::MAX).min(bytes.len());
                            Bytes::from(bytes).slice(from..)
                        }
                        Stored::Container(name) => {
                            volume.store().containers.read(&name, meet.offset, BULK_LIMIT)?.into()
                        }
                    };
                    let met = wire::MetAnswer { total: content.length, ..Default::default() };
                    Ok((Body::Met(met), bytes))
                })
            }
        }
    }

    /// Brings a volume to the join of all members that can be reached. Asked by a client, the others are
    /// asked to do the same; asked by a server, that one is met.
    pub(crate) async fn resolve(&self, caller: Caller, resolve: wire::Resolve) -> Answer {
        let fid: Fid = required(resolve.fid, "fid")?;
        let volume = self.volume(fid.volume)?;
        let mut peers = self.peers_of(volume.id);
        if let Identity::Server(from) = caller.who {
            peers.retain(|peer, _| *peer == from);
        }
        let (mut changed, mut complete) = (0, true);
        let mut met = Vec::new();
        for (server, peer) in &peers {
            let silence = match volume.meetings.schedule(|schedule| schedule.is_suspect(*server)) {
                true => SUSPECT_SILENCE,
                false => SILENCE,
            };
            match self.meet_with(&volume, peer, silence).await {
                Ok(count) => {
                    changed += count as u32;
                    met.push(peer);
                }
                Err(why) => {
                    tracing::debug!(volume = %volume.id, peer = peer.id, %why, "resolving without it");
                    complete = false;
                }
            }
        }
        if !matches!(caller.who, Identity::Server(_)) {
            for peer in met {
                let body = wire::request::Body::Resolve(wire::Resolve { fid: Some(fid.into()) });
                complete &= self.ask_peer(peer, body, SILENCE).await.is_ok();
            }
        }
        let status = volume.read(|view| Ok(status(view, fid, caller.who)?))?;
        let status = status.as_ref().map(Into::into);
        plain(Body::Resolved(wire::Resolved { changed, complete, status }))
    }
}

fn page(view: &View<'_>, meet: &wire::Meet) -> Result<wire::MetAnswer, Refusal> {
    let row = view.volume_row()?;
    let mut answer = wire::MetAnswer {
        incarnation: row.incarnation,
        upto: row.change_seq,
        last: true,
        joined: row.joined,
        ..Default::default()
    };
    let limit = if meet.limit == 0 { PAGE } else { meet.limit.min(PAGE) };
    let since = if meet.incarnation == row.incarnation { meet.since } else { 0 };
    let wanted = match meet.only.is_empty() {
        true => view.changed_since(since, limit)?,
        false => {
            let only =
                meet.only.iter().take(PAGE as usize).map(|fid| Ok((row.change_seq, (*fid).try_into()?)));
            only.collect::<Result<_, coda_proto::Malformed>>()?
        }
    };
    let (count, mut size) = (wanted.len(), 0);
    for (index, (seq, fid)) in wanted.into_iter().enumerate() {
        if let Some(state) = state(view, fid)? {
            let state = wire::ObjectState::from(&state);
            size += state.encoded_len();
            answer.objects.push(state);
        }
        let more = index + 1 < count || (meet.only.is_empty() && count == limit as usize);
        if more && (size > PAGE_BYTES || index + 1 == count) {
            (answer.upto, answer.last) = (seq, false);
            break;
        }
    }
    Ok(answer)
}

/// An object as it travels.
pub(super) fn state(view: &View<'_>, fid: Fid) -> Result<Option<ObjectState>, StoreError> {
    let Some(head) = view.head(fid)? else { return Ok(None) };
    Ok(Some(ObjectState::of_rows(head, view.bindings_of(fid)?, view.tombstones_of(fid)?)))
}
