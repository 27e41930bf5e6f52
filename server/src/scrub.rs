//! Bytes that are not what their hash names: found when they are read, or by the scrubber, which reads all
//! of them in turn; mended from a peer. What files were before they were written is forgotten where it is damaged.
//!
//! ```text
//!  read ────┐                                ┌─ a peer has them ──> back in their place
//!           ├─ damaged ─> put aside, version ┤
//!  scrub ───┘             stays, bytes lost  └─ nobody has them ──> reported until somebody does
//! ```
//!
//! Small contents are checked at every read. A container is checked whole when it is read whole; when it is
//! read in pieces, once an hour and whenever somebody wrote into it; a very large one by a task of its own,
//! since whoever fetches it checks it too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use coda_proto::Refusal;
use tokio::time::Instant;

use crate::{
    blocking::blocking,
    resolution::{Fetched, fill},
    server::Server,
    store::{Bytes as Stored, Content, LostRow, StoreError, StoredRow, Txn},
    volume::Volume,
};

/// How long a container that was found sound counts as sound.
const TRUSTED: Duration = Duration::from_secs(3600);
/// Containers of which that is remembered.
const REMEMBERED: usize = 100_000;
/// A container read in pieces is checked before its first piece is served, up to this size.
const AT_ONCE: u64 = 64 * 1024 * 1024;
/// How long after that it is checked: whoever wants it now wants the disk and a processor, too.
const LATER: Duration = Duration::from_secs(10);
/// Before the first look after a start, and between two passes over everything.
const FIRST: Duration = Duration::from_secs(60);
const BETWEEN_PASSES: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes that the scrubber reads in a second, at most.
const RATE: u64 = 20_000_000;
/// Contents that it looks at before it pauses.
const STEP: u32 = 256;
/// Between two attempts to mend what no peer had.
const AGAIN: Duration = Duration::from_secs(600);

type Stamp = Option<(u64, i64, i64)>;

/// What is known of a volume's bytes.
#[derive(Default)]
pub(crate) struct Health {
    /// Containers found sound, when, and as which file.
    sound: Mutex<BTreeMap<String, (Instant, Stamp)>>,
    /// When it is time to ask peers for what was lost.
    mend_at: Mutex<Option<Instant>>,
    pub(crate) damaged: AtomicU64,
    pub(crate) mended: AtomicU64,
    pub(crate) scrubbed: AtomicU64,
}

impl Health {
    fn is_sound(&self, name: &str, stamp: Stamp, now: Instant) -> bool {
        let sound = self.sound.lock().expect("never held across a panic");
        let found = sound.get(name);
        found.is_some_and(|(at, as_file)| *as_file == stamp && now.duration_since(*at) < TRUSTED)
    }

    fn found_sound(&self, name: &str, stamp: Stamp, now: Instant) {
        let mut sound = self.sound.lock().expect("never held across a panic");
        if sound.len() >= REMEMBERED {
            sound.clear();
        }
        sound.insert(name.to_owned(), (now, stamp));
    }

    fn mend_at(&self, at: Option<Instant>) {
        *self.mend_at.lock().expect("never held across a panic") = at;
    }

    fn is_mending_due(&self, now: Instant) -> bool {
        self.mend_at.lock().expect("never held across a panic").is_some_and(|at| at <= now)
    }

    /// When to look for lost bytes next, if any are.
    pub(crate) fn next(&self) -> Option<Instant> {
        *self.mend_at.lock().expect("never held across a panic")
    }
}

impl Volume {
    /// At most `length` bytes of contents from `offset` on; `None` where they are not what they were.
    pub(crate) fn read_checked(
        self: &Arc<Self>,
        content: &Content,
        offset: u64,
        length: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        let name = match &content.bytes {
            Stored::Inline(bytes) => {
                if blake3::hash(bytes).as_bytes()[..] != content.hash {
                    self.damaged(&content.hash, None);
                    return Ok(None);
                }
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = start.saturating_add(length).min(bytes.len());
                return Ok(Some(Bytes::copy_from_slice(&bytes[start..end])));
            }
            Stored::Container(name) => name,
        };
        let (now, whole) = (Instant::now(), offset == 0 && length as u64 >= content.length);
        let sound = || self.store().containers.holds(name, content.length, &content.hash);
        let stamp = if whole { None } else { self.store().containers.stamp(name) };
        if !whole && !self.health.is_sound(name, stamp, now) {
            if content.length > AT_ONCE {
                self.check_later(name.clone(), content.length, content.hash.clone());
            } else if !blocking(sound) {
                self.damaged(&content.hash, Some(name));
                return Ok(None);
            }
            self.health.found_sound(name, stamp, now);
        }
        match self.store().containers.read(name, offset, length) {
            Ok(bytes) if whole && blake3::hash(&bytes).as_bytes()[..] != content.hash => {
                self.damaged(&content.hash, Some(name));
                Ok(None)
            }
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(StoreError::Io { path, source }) => {
                tracing::error!(volume = %self.id, path = %path.display(), %source, "a container cannot be read");
                self.damaged(&content.hash, Some(name));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn check_later(self: &Arc<Self>, name: String, length: u64, hash: Vec<u8>) {
        let volume = self.clone();
        self.env().spawn(Box::pin(async move {
            tokio::time::sleep(LATER).await;
            if !blocking(|| volume.store().containers.holds(&name, length, &hash)) {
                volume.damaged(&hash, Some(&name));
            }
        }));
    }

    /// Takes damaged bytes out of service. Their version stays, and peers are asked for them.
    fn damaged(self: &Arc<Self>, hash: &[u8], container: Option<&str>) {
        tracing::error!(volume = %self.id, container, "damaged: these bytes are not what their hash names");
        if let Some(name) = container
            && let Err(error) = self.store().containers.set_aside(name)
        {
            tracing::warn!(volume = %self.id, %error, "a damaged container stays where it is");
        }
        let (volume, hash, container) = (self.clone(), hash.to_vec(), container.map(str::to_owned));
        let lose = move |txn: &mut Txn<'_>| Ok(txn.lose(&hash, container.as_deref())?);
        // Whoever reads meanwhile finds the same.
        drop(self.queue(lose, move |done| {
            for fid in &done.answer {
                tracing::error!(volume = %volume.id, %fid, "a version lost its bytes; peers are asked for them");
            }
            volume.health.damaged.fetch_add(done.answer.len() as u64, Ordering::Relaxed);
            volume.health.mend_at(Some(Instant::now()));
            volume.meetings.wake();
        }));
    }
}

impl Server {
    /// Asks peers for what was lost here, when it is time.
    pub(crate) async fn mend(&self, volume: &Arc<Volume>) -> Result<(), Refusal> {
        if !volume.health.is_mending_due(Instant::now()) {
            return Ok(());
        }
        let lost = volume.read(|view| Ok(view.lost(1000)?))?;
        // Of some the version may be gone by now, or the bytes may have come in a meeting.
        let mut lost = self.put_back(volume, lost, BTreeMap::new()).await?;
        for (server, peer) in self.peers_of(volume.id) {
            if lost.is_empty() || volume.meetings.is_suspect(server) {
                continue;
            }
            let wanted = lost.iter().map(|row| (row.hash, row.length)).collect();
            match self.fetch_lacking(volume, &peer, wanted).await {
                Ok(fetched) => lost = self.put_back(volume, lost, fetched).await?,
                Err(why) => {
                    tracing::info!(volume = %volume.id, peer = peer.id, %why, "cannot mend from this peer");
                }
            }
        }
        if !lost.is_empty() {
            tracing::error!(volume = %volume.id, contents = lost.len(), "lost: no peer that answers has them");
        }
        volume.health.mend_at((!lost.is_empty()).then(|| Instant::now() + AGAIN));
        Ok(())
    }

    /// Gives what was lost its bytes, as far as these are they. Answers what is lost still.
    async fn put_back(
        &self,
        volume: &Arc<Volume>,
        lost: Vec<LostRow>,
        mut fetched: BTreeMap<[u8; 32], Fetched>,
    ) -> Result<Vec<LostRow>, Refusal> {
        let before = lost.len();
        let put_back = move |txn: &mut Txn<'_>| -> Result<Vec<LostRow>, Refusal> {
            for row in &lost {
                fill(txn, row.fid, &mut fetched)?;
            }
            for left in fetched.into_values() {
                left.forget(txn)?;
            }
            let mut still = Vec::new();
            for row in lost {
                if !txn.find(&row)? {
                    still.push(row);
                }
            }
            Ok(still)
        };
        let still = volume.write(put_back, |_| {}).await?;
        let back = before - still.len();
        if back > 0 {
            tracing::info!(volume = %volume.id, contents = back, "mended");
        }
        volume.health.mended.fetch_add(back as u64, Ordering::Relaxed);
        Ok(still)
    }
}

/// Looks at all contents of a volume in turn, for as long as it is served.
pub(crate) async fn scrub(volume: std::sync::Weak<Volume>) {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        let Some(volume) = volume.upgrade() else { return };
        pause = match look_on(&volume).await {
            Ok(pause) => pause,
            Err(why) if why.code == coda_proto::Code::Offline => return,
            Err(why) => {
                tracing::warn!(volume = %volume.id, %why, "cannot scrub");
                FIRST
            }
        };
    }
}

/// Checks some contents; answers how long to pause.
async fn look_on(volume: &Arc<Volume>) -> Result<Duration, Refusal> {
    // What an earlier run lost and did not get back.
    if volume.read(|view| Ok(!view.lost(1)?.is_empty()))? && volume.health.next().is_none() {
        volume.health.mend_at(Some(Instant::now()));
        volume.meetings.wake();
    }
    let rows = volume.read(|view| Ok(view.stored_after(view.scrubbed()?, STEP)?))?;
    let place = rows.last().map_or(0, |row| row.place);
    let mut read = 0;
    for row in rows {
        read += row.length;
        let whole = |row: &StoredRow| match &row.bytes {
            Stored::Inline(bytes) => blake3::hash(bytes).as_bytes()[..] == row.hash,
            Stored::Container(name) => volume.store().containers.holds(name, row.length, &row.hash),
        };
        if !blocking(|| whole(&row)) && is_still_there(volume, &row)? {
            let name = match &row.bytes {
                Stored::Container(name) => Some(name.as_str()),
                Stored::Inline(_) => None,
            };
            volume.damaged(&row.hash, name);
        }
        volume.health.scrubbed.fetch_add(row.length, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
    volume.write(move |txn| Ok(txn.put_scrubbed(place)?), |_| {}).await?;
    Ok(match place {
        0 => BETWEEN_PASSES,
        _ => Duration::from_millis(read / (RATE / 1000)).max(Duration::from_secs(1)),
    })
}

/// Whether the contents are wanted after all that happened while they were read.
fn is_still_there(volume: &Volume, row: &StoredRow) -> Result<bool, Refusal> {
    let again = volume.read(|view| Ok(view.stored_at(row.place)?))?;
    Ok(again.is_some_and(|now| now.hash == row.hash))
}
