//! One meeting, from the side of who asks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{
    Author, Fid, INLINE_LIMIT, Kind, Refusal, ServerId, VolumeId,
    merge::{self, Head, Joined, ObjectState, Replica as _},
    planted::{Bug, planted},
    wire::{self, request, response},
};
use tokio::time::Instant;

use super::{SILENCE, contents::Fetched, listings::renew, serve::doubt};
use crate::{
    env::PeerError,
    server::Server,
    session::NOBODY,
    store::{Bytes as Stored, Content, Marks, StoreError, Txn, View},
    volume::Volume,
};

/// Objects joined in one transaction, about: while it runs nobody else writes, and memory holds them all.
const AT_ONCE: usize = 20_000;
/// Bytes of small contents among them, about: they are in memory until they are joined.
const HEAVY: u64 = 64 * 1024 * 1024;
/// The same for a replica that is being filled, which nobody sees in between.
const FILL: usize = 250;
/// Times that a peer is heard again because contents were replaced meanwhile.
const HEARD_AGAIN: u32 = 3;

/// Why a meeting came to nothing. It is held again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Unreachable(#[from] PeerError),
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("a peer that answers nonsense: {0}")]
    Malformed(#[from] coda_proto::Malformed),
}

/// How far a peer has been heard.
#[derive(Clone, Copy)]
struct Place {
    incarnation: u64,
    upto: u64,
    retired_upto: u64,
}

/// What a peer said of its replica.
struct Heard {
    incarnation: u64,
    upto: u64,
    last: bool,
    joined: bool,
    states: Vec<ObjectState>,
    retired: Vec<wire::Retired>,
    retired_upto: u64,
    /// How far the peer had come with retired authors, when it had told all that it knew.
    marks: Marks,
}

impl Server {
    /// Learns what `peer` knows of `volume`. Answers how many objects changed here.
    pub(crate) async fn meet_with(
        &self,
        volume: &Arc<Volume>,
        peer: &wire::ServerInfo,
        silence: Duration,
    ) -> Result<usize, Failure> {
        let server = ServerId::new(peer.id)?;
        let turn = volume.meetings.turn(server);
        let _one_at_a_time = turn.acquire().await.expect("never closed");
        // Nobody sees a replica that serves nobody in between.
        let filling = !volume.read(|view| Ok(view.volume_row()?.joined))?;
        volume.meetings.courtesy().fills(filling);
        let mut changed = 0;
        let mut heard = self.hear_with_contents(volume, server, peer, (silence, filling), None).await?;
        loop {
            let (heard_now, contents) = heard;
            let (place, last) = (heard_now.place(), heard_now.last);
            // The next ones travel while these are joined.
            let next = async {
                match last {
                    true => Ok(None),
                    false => {
                        let more = (silence, filling);
                        self.hear_with_contents(volume, server, peer, more, Some(place)).await.map(Some)
                    }
                }
            };
            let (joined, next) = tokio::join!(self.join(volume, server, heard_now, contents, filling), next);
            changed += joined?;
            match next? {
                Some(next) => heard = next,
                None => return Ok(changed),
            }
        }
    }

    /// What a peer says, and the contents that are lacking here for it.
    async fn hear_with_contents(
        &self,
        volume: &Arc<Volume>,
        server: ServerId,
        peer: &wire::ServerInfo,
        (silence, filling): (Duration, bool),
        from: Option<Place>,
    ) -> Result<(Heard, BTreeMap<[u8; 32], Fetched>), Failure> {
        let mut fetched = BTreeMap::new();
        let mut again = 0;
        loop {
            let mut heard = self.hear(volume, server, peer, (silence, filling), from).await?;
            if planted(Bug::MeetingLosesOne) && heard.states.len() > 1 {
                heard.states.pop();
            }
            let mut lacking = volume.read(|view| Ok(lacking(view, &heard.states)?))?;
            lacking.retain(|hash, _| !fetched.contains_key(hash));
            let wanted: Vec<[u8; 32]> =
                lacking.iter().filter(|(_, length)| **length > 0).map(|(hash, _)| *hash).collect();
            fetched.extend(self.fetch_lacking(volume, peer, lacking).await?);
            // What it no longer has was replaced while we asked: joined now, it would take contents away here that
            // somebody may want before we meet again. What it still does not have after that is lost there.
            if again < HEARD_AGAIN && wanted.iter().any(|hash| !fetched.contains_key(hash)) {
                again += 1;
                continue;
            }
            return Ok((heard, fetched));
        }
    }

    /// Joins a few objects of a peer's, whenever they changed there.
    pub(crate) async fn join_only(
        &self,
        volume: &Arc<Volume>,
        server: ServerId,
        peer: &wire::ServerInfo,
        states: Vec<ObjectState>,
    ) -> Result<usize, Failure> {
        let (known, lacking) = volume.read(|view| Ok((view.peer(server)?, lacking(view, &states)?)))?;
        let fetched = self.fetch_lacking(volume, peer, lacking).await?;
        let retired_upto = volume.read(|view| Ok(view.retired_heard(server)?))?;
        let place = Place { incarnation: known.incarnation, upto: known.seen, retired_upto };
        let heard = Heard { states, ..Heard::none(place) };
        self.join(volume, server, heard, fetched, false).await
    }

    /// What changed at a peer since we last met, or behind `from`, as far as it fits.
    async fn hear(
        &self,
        volume: &Arc<Volume>,
        server: ServerId,
        peer: &wire::ServerInfo,
        (silence, filling): (Duration, bool),
        from: Option<Place>,
    ) -> Result<Heard, Failure> {
        let (known, row, retired) =
            volume.read(|view| Ok((view.peer(server)?, view.volume_row()?, view.retired_heard(server)?)))?;
        let first = Place { incarnation: known.incarnation, upto: known.seen, retired_upto: retired };
        let mut heard = Heard::none(from.unwrap_or(first));
        let enough = if filling { FILL } else { AT_ONCE };
        let courtesy = volume.meetings.courtesy();
        let mut weight = 0;
        while !heard.last && heard.states.len() < enough && weight < HEAVY {
            let count = !row.joined && from.is_none() && heard.states.is_empty();
            let body = request::Body::Meet(wire::Meet {
                volume: volume.id.0,
                incarnation: heard.incarnation,
                since: heard.upto,
                my_incarnation: row.incarnation,
                my_change_seq: row.change_seq,
                met_incarnation: known.incarnation,
                met_seq: known.seen,
                retired_after: Some(heard.retired_upto),
                count,
                limit: if filling { FILL as u32 } else { 0 },
                ..Default::default()
            });
            let begun = Instant::now();
            let (body, _) = self.ask_peer(peer, body, silence).await?;
            let response::Body::Met(met) = body else { return Err(unexpected().into()) };
            if met.clients {
                courtesy.peer_has_clients();
            }
            courtesy.rest(begun.elapsed()).await;
            if met.known_incarnation != 0 {
                let has_been =
                    volume.read(|view| Ok(view.has_been(met.known_incarnation, met.known_seq)?))?;
                if !has_been && volume.meetings.is_in_doubt(server, met.known_incarnation) {
                    doubt(volume, server);
                }
            }
            (heard.incarnation, heard.upto) = (met.incarnation, met.upto);
            (heard.last, heard.joined) = (met.last, met.joined);
            (heard.retired_upto, heard.marks) = (met.retired_upto, marks(&met));
            heard.retired.extend(met.retired);
            if count {
                volume.meetings.progress().expect(met.objects_left, met.bytes_left);
            }
            for state in met.objects {
                let state = ObjectState::try_from(state)?;
                if state.head.fid.volume != volume.id {
                    return Err(coda_proto::Malformed::new("object", "of another volume").into());
                }
                let lengths = state.head.siblings.iter().map(|sibling| sibling.length);
                weight += lengths.filter(|length| *length <= INLINE_LIMIT as u64).sum::<u64>();
                heard.states.push(state);
            }
        }
        Ok(heard)
    }

    /// Joins what was heard: as one change, or, where nobody is served yet, as several.
    async fn join(
        &self,
        volume: &Arc<Volume>,
        peer: ServerId,
        mut heard: Heard,
        mut fetched: BTreeMap<[u8; 32], Fetched>,
        filling: bool,
    ) -> Result<usize, Failure> {
        let courtesy = volume.meetings.courtesy();
        let mut changed = 0;
        while filling && heard.states.len() > courtesy.at_once() {
            let rest = heard.states.split_off(courtesy.at_once().min(heard.states.len()));
            let part = std::mem::replace(&mut heard.states, rest);
            let retired = std::mem::take(&mut heard.retired);
            let begun = Instant::now();
            let joined;
            (joined, fetched) = self.join_part(volume, part, retired, fetched).await?;
            changed += joined.changed.len();
            volume.meetings.listed(peer, &joined);
            courtesy.rest(begun.elapsed()).await;
        }
        let begun = Instant::now();
        changed += self.join_last(volume, peer, heard, fetched, filling).await?;
        courtesy.rest(begun.elapsed()).await;
        Ok(changed)
    }

    /// Joins some of what was heard. Nothing is noted about the peer: what comes after it may be lost.
    async fn join_part(
        &self,
        volume: &Arc<Volume>,
        states: Vec<ObjectState>,
        retired: Vec<wire::Retired>,
        mut fetched: BTreeMap<[u8; 32], Fetched>,
    ) -> Result<(Joined, BTreeMap<[u8; 32], Fetched>), Failure> {
        let (sessions, id, count) = (self.sessions().clone(), volume.id, states.len());
        let files: Vec<Fid> = states.iter().map(|state| state.head.fid).collect();
        let work = move |txn: &mut Txn<'_>| -> Result<_, Refusal> {
            for one in retired {
                txn.hear_retired(Author(one.author), one.stamp)?;
            }
            let joined = merge::join_objects(txn, states)?;
            files.into_iter().try_for_each(|fid| fill(txn, fid, &mut fetched))?;
            Ok((joined, fetched))
        };
        let done = volume.write(work, move |done| sessions.break_promises(id, &done.changed, NOBODY)).await?;
        volume.meetings.progress().joined(count);
        Ok(done)
    }

    /// Joins (the rest of) what was heard, and notes how far the peer has been heard by that.
    async fn join_last(
        &self,
        volume: &Arc<Volume>,
        peer: ServerId,
        heard: Heard,
        mut fetched: BTreeMap<[u8; 32], Fetched>,
        filling: bool,
    ) -> Result<usize, Failure> {
        let (sessions, id) = (self.sessions().clone(), volume.id);
        let touching = volume.clone();
        let files: Vec<Fid> = heard.states.iter().map(|state| state.head.fid).collect();
        let (last, is_whole) = (heard.last, heard.last && heard.joined);
        let (peers, epoch) = self.group_of(id);
        let heard_of = files.len();
        let (joined, has_begun) = volume
            .write(
                move |txn| {
                    // Before the states that fold what they did.
                    for one in heard.retired {
                        txn.hear_retired(Author(one.author), one.stamp)?;
                    }
                    let joined = merge::join_objects(txn, heard.states)?;
                    for fid in files {
                        fill(txn, fid, &mut fetched)?;
                    }
                    for left in fetched.into_values() {
                        left.forget(txn)?;
                    }
                    let relisted = match filling {
                        true if heard.last => touching.meetings.relisted(peer, &joined),
                        true => Vec::new(),
                        false => joined.relisted.clone(),
                    };
                    for dir in relisted {
                        renew(txn, &touching, dir)?;
                    }
                    let begins = is_whole && !txn.volume_row()?.joined;
                    if begins {
                        txn.set_joined(true)?;
                    }
                    txn.put_peer(peer, heard.incarnation, heard.upto)?;
                    txn.put_retired_heard(peer, heard.retired_upto)?;
                    if is_whole {
                        txn.put_marks(peer, epoch, heard.marks)?;
                        txn.advance_marks(&peers, epoch)?;
                    }
                    Ok((joined, begins))
                },
                move |done| sessions.break_promises(id, &done.changed, NOBODY),
            )
            .await?;
        if has_begun {
            // Whoever asked before was told that there is nothing to hear. They learn of it by being asked.
            volume.meetings.now();
        }
        match last {
            true => volume.meetings.listed_all(peer),
            false if filling => volume.meetings.listed(peer, &joined),
            false => {}
        }
        if is_whole {
            volume.meetings.has_met();
            volume.meetings.courtesy().fills(false);
        }
        volume.meetings.progress().joined(heard_of);
        Ok(joined.changed.len())
    }

    /// Asks a peer something.
    pub(crate) async fn ask_peer(
        &self,
        peer: &wire::ServerInfo,
        body: request::Body,
        silence: Duration,
    ) -> Result<(response::Body, Bytes), Failure> {
        let request = wire::Request { body: Some(body), ..Default::default() };
        let (response, bulk) = self.env().call_peer(peer, request, Bytes::new(), silence).await?;
        match response.body {
            Some(response::Body::Refusal(refusal)) => Err(Refusal::try_from(refusal)?.into()),
            Some(body) => Ok((body, bulk)),
            None => Err(unexpected().into()),
        }
    }

    /// A new volume begins when every member says that it has no history. Answers whether this replica
    /// has one now.
    pub(crate) async fn begin_if_new(&self, volume: &Arc<Volume>) -> Result<bool, Failure> {
        let peers = self.peers_of(volume.id);
        if volume.read(|view| Ok(view.volume_row()?.joined))? {
            return Ok(true);
        }
        if peers.is_empty() {
            // Alone: an operator must say that what is here is all there is.
            return Ok(false);
        }
        for peer in peers.values() {
            let only = vec![Fid::root(volume.id).into()];
            let body = request::Body::Meet(wire::Meet { volume: volume.id.0, only, ..Default::default() });
            let (body, _) = self.ask_peer(peer, body, SILENCE).await?;
            match body {
                response::Body::Met(met) if !met.joined => {}
                _ => {
                    volume.meetings.unless_meeting(ServerId::new(peer.id)?);
                    return Ok(false);
                }
            }
        }
        let realm = self.realm();
        let Some(entry) = realm.volumes.get(&volume.id) else { return Ok(false) };
        let (id, acl): (VolumeId, _) = (volume.id, entry.acl.clone());
        let begin = move |txn: &mut Txn<'_>| -> Result<(), Refusal> {
            if txn.past(Fid::root(id))?.is_none_or(|past| past.is_empty()) {
                txn.put_head(Head::root(id, &acl, 0o755, 0))?;
            }
            Ok(txn.set_joined(true)?)
        };
        volume.write(begin, |_| {}).await?;
        Ok(true)
    }
}

impl Heard {
    /// Where what comes next begins.
    fn place(&self) -> Place {
        Place { incarnation: self.incarnation, upto: self.upto, retired_upto: self.retired_upto }
    }

    /// Nothing yet.
    fn none(Place { incarnation, upto, retired_upto }: Place) -> Heard {
        Heard {
            incarnation,
            upto,
            last: false,
            joined: false,
            states: Vec::new(),
            retired: Vec::new(),
            retired_upto,
            marks: Marks::default(),
        }
    }
}

/// How far who answers has come with retired authors.
fn marks(met: &wire::MetAnswer) -> Marks {
    Marks { promised: met.promised, complete: met.complete, included: met.included }
}

fn unexpected() -> coda_proto::Malformed {
    coda_proto::Malformed::new("answer", "of another kind than the question")
}

/// Contents that the join will want and that are not here: their lengths, by hash.
fn lacking(view: &View<'_>, states: &[ObjectState]) -> Result<BTreeMap<[u8; 32], u64>, StoreError> {
    let mut lacking = BTreeMap::new();
    for state in states.iter().filter(|state| state.head.kind == Kind::File) {
        let mine = view.head(state.head.fid)?;
        for sibling in &state.head.siblings {
            let dropped = mine.as_ref().is_some_and(|mine| {
                mine.past.covers(sibling.dot) && !mine.siblings.iter().any(|held| held.dot == sibling.dot)
            });
            // Equal bytes of another version are no help: that version may be one that the join drops.
            if !dropped && view.content(state.head.fid, sibling.dot)?.is_none() {
                lacking.insert(sibling.hash, sibling.length);
            }
        }
    }
    Ok(lacking)
}

/// Gives the siblings of a file their bytes. Those that nobody has any more keep their version.
pub(crate) fn fill(
    txn: &mut Txn<'_>,
    fid: Fid,
    fetched: &mut BTreeMap<[u8; 32], Fetched>,
) -> Result<(), Refusal> {
    let Some(head) = txn.head(fid)?.filter(|head| head.kind == Kind::File) else { return Ok(()) };
    if planted(Bug::MeetingLeavesContents) {
        return Ok(());
    }
    for sibling in head.siblings {
        if txn.content(fid, sibling.dot)?.is_some() {
            continue;
        }
        let bytes: Option<Stored> = match txn.content_by_hash(&sibling.hash)? {
            Some(content) => Some(content.bytes),
            None => match fetched.remove(&sibling.hash) {
                Some(fetched) => Some(fetched.take(txn)?),
                None => None,
            },
        };
        match bytes {
            Some(bytes) => {
                let content = Content { length: sibling.length, hash: sibling.hash.to_vec(), bytes };
                txn.put_content(fid, sibling.dot, &content)?;
            }
            None => tracing::debug!(%fid, dot = %sibling.dot, "contents that no peer met so far holds"),
        }
    }
    Ok(())
}
