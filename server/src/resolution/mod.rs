//! Resolution: the members of a volume meet, and each joins what it hears.
//!
//! A meeting is one-sided: a server asks a peer for what changed there since it last asked, fetches the
//! contents that it lacks, and joins all of it in one transaction. With the question it says how far its
//! own replica has come, so that a peer to whom that is news asks back. Nobody coordinates, nothing is
//! locked at the other side, and a meeting that breaks off is simply held again.
//!
//! ```text
//!  start, reconnect ─┐
//!  NEEDS_RESOLVE    ─┼─> at once       ┌─ ask for changes ─ fetch contents ─ join ─┐
//!  client's Resolve ─┘                 │                                           v
//!  local change, COP2 missing ─> 5 s ──┴─> peer unreachable: again in 1 .. 15 s   10 min
//! ```
//!
//! `schedule` decides when, `exchange` does it, `serve` answers those who ask. A replica that serves nobody yet is
//! filled in many small transactions, and gives way to clients (`courtesy`).

mod contents;
mod courtesy;
mod exchange;
mod listings;
mod progress;
mod schedule;
mod serve;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use coda_proto::{Author, Dot, Fid, ServerId, VolumeId, merge::Joined, wire};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{server::Server, volume::Volume};
pub(crate) use contents::Fetched;
use exchange::Failure;
pub(crate) use exchange::fill;
pub(crate) use listings::renew;
use schedule::Schedule;

/// Silence of a peer after which a meeting is broken off.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);
/// The same where somebody waits and the peer could not be reached the last time.
const SUSPECT_SILENCE: Duration = Duration::from_secs(2);

/// How long a replica that has yet to meet its peers waits before it looks for them again.
const NOT_JOINED: Duration = Duration::from_secs(1);

/// After a start there is better to do than to forget.
const FIRST_COLLECTION: Duration = Duration::from_secs(600);

/// How long it waits before it tells the SCM again that it has met them.
const LATER: Duration = Duration::from_secs(10);

/// When a volume's replica meets its peers.
pub(crate) struct Meetings {
    schedule: Mutex<Schedule>,
    /// The schedule changed.
    woken: Notify,
    /// One meeting with each peer at a time.
    turns: Mutex<BTreeMap<ServerId, Arc<Semaphore>>>,
    /// Of the few records that this replica makes itself: new versions of directories whose listings a
    /// join changed.
    writer: Mutex<Dot>,
    /// When to forget again what nobody needs; none: it was not done yet.
    collect_at: Mutex<Option<Instant>>,
    begun: Instant,
    /// Peers that have met a run of this replica's store which it does not remember, and whether it has been
    /// joined with what the others know since it heard of that.
    doubts: Mutex<BTreeMap<(ServerId, u64), bool>>,
    progress: progress::Progress,
    courtesy: courtesy::Courtesy,
    /// What a replica that is being filled did to listings, by the peer that fills it.
    listings: Mutex<BTreeMap<ServerId, listings::Listings>>,
}

impl Meetings {
    pub(crate) fn new(author: Author) -> Meetings {
        Meetings {
            schedule: Mutex::default(),
            woken: Notify::new(),
            turns: Mutex::default(),
            writer: Mutex::new(Dot::new(author, 0)),
            collect_at: Mutex::default(),
            begun: Instant::now(),
            doubts: Mutex::default(),
            progress: progress::Progress::default(),
            courtesy: courtesy::Courtesy::default(),
            listings: Mutex::default(),
        }
    }

    /// A peer has met a run that is not remembered here. Answers whether that is a reason to doubt: it is
    /// none any more once this replica has met the others, however long the peer takes to notice.
    pub(crate) fn is_in_doubt(&self, peer: ServerId, incarnation: u64) -> bool {
        let mut doubts = self.doubts.lock().expect("never held across a panic");
        !*doubts.entry((peer, incarnation)).or_insert(false)
    }

    /// This replica has been joined with one that has a history.
    pub(crate) fn has_met(&self) {
        self.doubts.lock().expect("never held across a panic").values_mut().for_each(|met| *met = true);
    }

    /// Whether it is time for a collection; the next one is so long after it.
    pub(crate) fn is_collection_due(&self, every: Duration) -> bool {
        let now = Instant::now();
        let mut at = self.collect_at.lock().expect("never held across a panic");
        let due = at.unwrap_or(self.begun + FIRST_COLLECTION.min(every)) <= now;
        if due {
            *at = Some(now + every);
        }
        due
    }

    /// Whether a peer could not be reached when last asked.
    pub(crate) fn is_suspect(&self, peer: ServerId) -> bool {
        self.schedule(|schedule| schedule.is_suspect(peer))
    }

    /// How far this replica is on its way in.
    pub(crate) fn progress(&self) -> &progress::Progress {
        &self.progress
    }

    /// Who goes first.
    pub(crate) fn courtesy(&self) -> &courtesy::Courtesy {
        &self.courtesy
    }

    /// One of the transactions in which a peer fills this replica.
    fn listed(&self, peer: ServerId, joined: &Joined) {
        self.listings.lock().expect("never held across a panic").entry(peer).or_default().add(joined);
    }

    /// Directories that need a new version after the last of them.
    fn relisted(&self, peer: ServerId, last: &Joined) -> Vec<Fid> {
        let listings = self.listings.lock().expect("never held across a panic");
        let mut all = listings.get(&peer).cloned().unwrap_or_default();
        all.add(last);
        all.relisted()
    }

    /// They have been given one.
    fn listed_all(&self, peer: ServerId) {
        self.listings.lock().expect("never held across a panic").remove(&peer);
    }

    /// These mutations were applied here. Unless somebody says that all members hold them, the peers are
    /// asked (and thereby told) soon.
    pub(crate) fn changed(&self, dots: impl IntoIterator<Item = Dot>) {
        if self.schedule(|schedule| schedule.changed(dots, Instant::now())) {
            self.woken.notify_one();
        }
    }

    /// All members hold these.
    pub(crate) fn held_everywhere(&self, dots: &[Dot]) {
        self.schedule(|schedule| schedule.held_everywhere(dots));
    }

    /// Meets all peers at once.
    pub(crate) fn now(&self) {
        self.change(|schedule| schedule.all_now(Instant::now()));
    }

    /// Meets one peer at once, who has something new or is back.
    pub(crate) fn now_with(&self, peer: ServerId) {
        self.change(|schedule| schedule.now_with(peer, Instant::now()));
    }

    /// Meets one peer at once, unless it is being met.
    pub(crate) fn unless_meeting(&self, peer: ServerId) {
        if self.schedule(|schedule| schedule.unless_meeting(peer, Instant::now())) {
            self.woken.notify_one();
        }
    }

    /// Ends the wait for the next meeting.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    fn change(&self, f: impl FnOnce(&mut Schedule)) {
        f(&mut self.schedule.lock().expect("never held across a panic"));
        self.woken.notify_one();
    }

    fn schedule<T>(&self, f: impl FnOnce(&mut Schedule) -> T) -> T {
        f(&mut self.schedule.lock().expect("never held across a panic"))
    }

    fn turn(&self, peer: ServerId) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().expect("never held across a panic");
        turns.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Who makes this replica's own records.
    pub(crate) fn author(&self) -> Author {
        self.writer.lock().expect("never held across a panic").author
    }

    /// The name of this replica's next own record. Where its author was silent for so long that it was retired,
    /// another takes its place.
    fn next_dot(&self, is_retired: impl FnOnce(Author) -> bool, random: impl FnOnce() -> u64) -> Dot {
        let mut writer = self.writer.lock().expect("never held across a panic");
        if is_retired(writer.author) {
            *writer = Dot::new(Author(random().max(2)), 0);
        }
        writer.seq += 1;
        *writer
    }
}

/// Holds a volume's meetings, for as long as it is served.
pub(crate) async fn attend(server: Weak<Server>, volume: Weak<Volume>) {
    loop {
        let Some((server, volume)) = server.upgrade().zip(volume.upgrade()) else { return };
        if !server.volumes().get(&volume.id).is_some_and(|current| Arc::ptr_eq(current, &volume)) {
            return;
        }
        let next = server.attend_once(&volume).await;
        // While waiting, the task keeps nothing alive but the bell.
        let meetings = volume.meetings.clone();
        drop((server, volume));
        tokio::select! {
            biased;
            () = meetings.woken.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

impl Server {
    /// A member that was added tells the SCM when it has met the others, so that clients ask it for
    /// contents. Answers whether there is nothing (more) to tell.
    async fn tell_that_we_joined(&self, id: VolumeId) -> bool {
        let realm = self.realm();
        let joining = i32::from(wire::MemberState::MemberJoining);
        if realm.replica_at(id, self.id()).is_none_or(|member| member.state != joining) {
            return true;
        }
        let told = match realm.servers.get(&realm.scm) {
            _ if realm.scm == self.id() => {
                self.activate(id, self.id()).await.map_err(Failure::from).map(drop)
            }
            Some(scm) => {
                let joined = wire::admin::Body::MemberJoined(wire::MemberJoined { volume: id.0 });
                let admin = wire::Admin { body: Some(joined) };
                self.ask_peer(scm, wire::request::Body::Admin(admin), SILENCE).await.map(drop)
            }
            None => return false,
        };
        match told {
            Ok(()) => true,
            Err(why) => {
                tracing::info!(volume = %id, %why, "the SCM does not know yet that this member has joined");
                false
            }
        }
    }

    /// Whether a volume has other members.
    pub(crate) fn has_peers(&self, id: VolumeId) -> bool {
        self.realm().volumes.get(&id).is_some_and(|volume| volume.info.members.len() > 1)
    }

    /// Begins the meetings that are due; answers when to look again. A peer that is silent keeps nobody
    /// from meeting the others.
    async fn attend_once(&self, volume: &Arc<Volume>) -> Instant {
        let peers = self.peers_of(volume.id);
        let due = volume.meetings.schedule(|s| s.due(peers.keys().copied(), Instant::now()));
        for peer in due {
            let (server, volume, info) = (self.me(), volume.clone(), peers[&peer].clone());
            self.env().spawn(Box::pin(async move {
                let Some(server) = server else { return };
                let met = server.meet_with(&volume, &info, SILENCE).await;
                match &met {
                    // The network between us may have come back, without either of us having been away.
                    Ok(_) => server.sessions().peer_heard(peer),
                    Err(why) => tracing::debug!(volume = %volume.id, %peer, %why, "a meeting failed"),
                }
                volume.meetings.change(|schedule| schedule.met(peer, met.is_ok(), Instant::now()));
            }));
        }
        if let Err(why) = self.collect(volume).await {
            tracing::warn!(volume = %volume.id, %why, "nothing was collected");
        }
        if let Err(why) = self.mend(volume).await {
            tracing::warn!(volume = %volume.id, %why, "nothing was mended");
        }
        let next = volume.meetings.schedule(|s| s.next(peers.keys().copied(), Instant::now()));
        let next = volume.health.next().map_or(next, |mend| mend.min(next));
        match self.begin_if_new(volume).await {
            Ok(true) if self.tell_that_we_joined(volume.id).await => next,
            Ok(true) => next.min(Instant::now() + LATER),
            Ok(false) => next.min(Instant::now() + NOT_JOINED),
            Err(why) => {
                tracing::debug!(volume = %volume.id, %why, "not every member can be asked");
                next.min(Instant::now() + NOT_JOINED)
            }
        }
    }

    /// The other members of a volume.
    pub(crate) fn peers_of(&self, id: VolumeId) -> BTreeMap<ServerId, wire::ServerInfo> {
        let realm = self.realm();
        let members = realm.volumes.get(&id).map(|volume| volume.info.members.as_slice()).unwrap_or_default();
        let servers = members.iter().filter_map(|member| ServerId::new(member.server).ok());
        let others = servers.filter(|server| *server != self.id());
        others.filter_map(|server| Some((server, realm.servers.get(&server)?.clone()))).collect()
    }
}
