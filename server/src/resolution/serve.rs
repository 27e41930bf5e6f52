//! Answering a peer that asks.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use coda_proto::{
    BULK_LIMIT, Code, Fid, Refusal, ServerId, VolumeId,
    id::required,
    merge::ObjectState,
    planted::{Bug, planted},
    record::hash,
    service::Identity,
    wire::{self, response::Body},
};
use prost::Message;

use super::{SILENCE, SUSPECT_SILENCE};
use crate::{
    blocking::blocking,
    calls::{Answer, Caller, plain},
    server::Server,
    status::status,
    store::{Bytes as Stored, PeerRow, StoreError, View},
    volume::Volume,
};

/// Objects of one answer, at most.
const PAGE: u32 = 1000;
/// Retired authors of one answer, at most.
const RETIRED: u32 = 50_000;
/// Bytes of one answer, about.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

impl Server {
    pub(crate) fn meet(&self, caller: Caller, meet: &wire::Meet) -> Answer {
        let volume = self.volume(VolumeId(meet.volume))?;
        let (mut known, mut is_old) = (PeerRow::default(), false);
        match caller.who {
            Identity::Server(peer) if self.peers_of(volume.id).contains_key(&peer) => {
                known = volume.read(|view| Ok(view.peer(peer)?))?;
                is_old = self.hear_of_peer(&volume, peer, meet, known)?;
            }
            Identity::Server(_) | Identity::Admin => {}
            Identity::Client => return Err(Refusal::new(Code::Access, "only servers meet")),
        }
        // It takes milliseconds, in which others go on.
        blocking(|| {
            if !meet.contents.is_empty() {
                return contents(&volume, &hash(&meet.contents)?, meet.offset);
            }
            if !meet.many.is_empty() {
                return small_contents(&volume, &meet.many);
            }
            volume.read(|view| {
                let (known_incarnation, known_seq) = (known.incarnation, known.seen);
                let (page, clients) = (page(view, meet, is_old)?, volume.meetings.courtesy().has_clients());
                plain(Body::Met(wire::MetAnswer { known_incarnation, known_seq, clients, ..page }))
            })
        })
    }

    /// What a peer's question says of the peer, and of us. Answers whether we are an old copy of what it met.
    fn hear_of_peer(
        &self,
        volume: &Arc<Volume>,
        peer: ServerId,
        meet: &wire::Meet,
        known: PeerRow,
    ) -> Result<bool, Refusal> {
        if meet.my_incarnation == 0 {
            return Ok(false);
        }
        let started = known.incarnation != meet.my_incarnation;
        if started || known.seen < meet.my_change_seq {
            volume.meetings.now_with(peer);
        }
        if started {
            // We may be the first to see it back: clients readmit it when they hear of it.
            let up = wire::ServerUp { server: peer.0.into() };
            self.sessions().announce(&wire::event::Body::ServerUp(up));
        }
        if meet.met_incarnation == 0 {
            return Ok(false);
        }
        let (joined, has_been) = volume.read(|view| {
            Ok((view.volume_row()?.joined, view.has_been(meet.met_incarnation, meet.met_seq)?))
        })?;
        let (acked, at) = (meet.met_seq, meet.my_change_seq);
        let is_old = !has_been && volume.meetings.is_in_doubt(peer, meet.met_incarnation);
        if is_old && joined {
            doubt(volume, peer);
        } else if has_been && (known.acked, known.acked_at) != (acked, at) {
            // Nobody waits: it is committed with whatever comes next, and lost without harm.
            drop(volume.queue(move |txn| Ok(txn.put_acked(peer, acked, at)?), |_| {}));
        }
        Ok(is_old)
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

/// A peer has met more of this replica than is here: the disk is an old copy. It serves nobody until it
/// has met the others.
pub(super) fn doubt(volume: &Arc<Volume>, peer: ServerId) {
    tracing::warn!(volume = %volume.id, %peer, "this store is an old copy of one that the peer has met");
    volume.meetings.now_with(peer);
    // The writer runs it before whatever is asked for from now on.
    drop(volume.queue(|txn| Ok(txn.set_joined(false)?), |_| {}));
}

/// The bytes of one piece of contents.
fn contents(volume: &Arc<Volume>, hash: &[u8; 32], offset: u64) -> Answer {
    volume.read(|view| {
        let unknown = || Refusal::new(Code::Gone, "no contents with this hash");
        let content = view.content_by_hash(hash)?.ok_or_else(unknown)?;
        let bytes = volume.read_checked(&content, offset, BULK_LIMIT)?.ok_or_else(unknown)?;
        let clients = volume.meetings.courtesy().has_clients();
        Ok((Body::Met(wire::MetAnswer { total: content.length, clients, ..Default::default() }), bytes))
    })
}

/// Many small contents, as far as they fit.
fn small_contents(volume: &Arc<Volume>, hashes: &[Bytes]) -> Answer {
    volume.read(|view| {
        let (mut lengths, mut bulk) = (Vec::new(), BytesMut::new());
        for wanted in hashes.iter().take(PAGE as usize) {
            let content = view.content_by_hash(&hash(wanted)?)?;
            // One that is in a container here is fetched by itself.
            let small = content.filter(|content| matches!(content.bytes, Stored::Inline(_)));
            let bytes = match small {
                Some(content) => volume.read_checked(&content, 0, BULK_LIMIT)?,
                None => None,
            };
            match bytes {
                Some(bytes) if bulk.len() + bytes.len() > BULK_LIMIT => break,
                Some(bytes) => {
                    lengths.push(bytes.len() as i64);
                    bulk.extend_from_slice(&bytes);
                }
                None => lengths.push(-1),
            }
        }
        let clients = volume.meetings.courtesy().has_clients();
        Ok((Body::Met(wire::MetAnswer { lengths, clients, ..Default::default() }), bulk.freeze()))
    })
}

fn page(view: &View<'_>, meet: &wire::Meet, is_old: bool) -> Result<wire::MetAnswer, Refusal> {
    let row = view.volume_row()?;
    let mut answer = wire::MetAnswer {
        incarnation: row.incarnation,
        upto: row.change_seq,
        last: true,
        joined: row.joined,
        ..Default::default()
    };
    let limit = if meet.limit == 0 { PAGE } else { meet.limit.min(PAGE) };
    let is_ours = planted(Bug::MeetsByNumberAlone) || view.has_been(meet.incarnation, meet.since)?;
    let since = if is_ours { meet.since } else { 0 };
    if !row.joined || is_old {
        // What is here may be long gone elsewhere. It is told when it has been joined with what the others know.
        return Ok(wire::MetAnswer { upto: since, joined: false, ..answer });
    }
    if let Some(after) = meet.retired_after {
        let after = if is_ours { after } else { 0 };
        let retired = view.retired_after(after, RETIRED)?;
        answer.retired_upto = retired.last().map_or(after, |last| last.nr);
        let all = retired.len() < RETIRED as usize;
        let list = retired.into_iter().map(|one| wire::Retired { author: one.author.0, stamp: one.stamp });
        answer.retired = list.collect();
        if !all {
            // First all of these: the states that follow may have them folded.
            return Ok(wire::MetAnswer { upto: since, last: false, ..answer });
        }
        let marks = view.marks()?;
        (answer.promised, answer.complete, answer.included) =
            (marks.promised, marks.complete, marks.included);
    }
    if meet.count {
        (answer.objects_left, answer.bytes_left) = view.left_since(since)?;
    }
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
