//! Apply: the one mutation call.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use coda_proto::{
    APPLY_BYTES, APPLY_RECORDS, Author, Code, Contents, Dot, Fid, Op, Record, Refusal, Status, VolumeId,
    id::required,
    merge::{self, ApplyError, Outcome},
    planted::{Bug, planted},
    service::Identity,
    wire::{self, response::Body},
};
use prost::Message;

use super::{Answer, Caller, plain, read::served, repair::undecided};
use crate::{
    quota,
    resolution::renew,
    rights,
    server::Server,
    status::status,
    store::{Bytes as Stored, Content, StoreError, Txn},
    volume::Volume,
};

impl Server {
    pub(crate) async fn apply(&self, caller: Caller, apply: wire::Apply) -> Answer {
        self.change_objects(caller, apply, None).await
    }

    pub(crate) async fn repair(&self, caller: Caller, repair: wire::Repair) -> Answer {
        let fid: Fid = required(repair.fid, "fid")?;
        let apply = repair.apply.ok_or_else(|| Refusal::new(Code::Invalid, "a repair without records"))?;
        match fid.volume == VolumeId(apply.volume) {
            true => self.change_objects(caller, apply, Some(fid)).await,
            false => Err(Refusal::about(Code::Invalid, fid, "of another volume")),
        }
    }

    async fn change_objects(&self, caller: Caller, apply: wire::Apply, repairs: Option<Fid>) -> Answer {
        let id = VolumeId(apply.volume);
        let volume = self.volume(id)?;
        let epoch = apply.epoch;
        volume.meetings.courtesy().client_came();
        self.check_epoch(id, epoch)?;
        // Here too, so that nobody waits behind a replica that is being filled only to be refused.
        volume.read(served)?;
        let records = records(id, apply)?;
        let touched: BTreeSet<Fid> = records.iter().flat_map(|record| record.op.touches()).collect();
        let work = Work {
            // What the client has just written it need not ask for.
            promised: self.promise(caller, touched.iter().copied()),
            who: caller.who,
            instance: self.sessions().instance(caller.session).unwrap_or_default(),
            touched: touched.clone(),
            records,
            repairs,
            volume: volume.clone(),
            server: self.me().ok_or(StoreError::Stopped)?,
            epoch,
        };
        let sessions = self.sessions().clone();
        let named = touched.clone();
        let dots: Vec<Dot> = work.records.iter().map(|record| record.dot).collect();
        let applied = volume
            .write(
                move |txn| work.run(txn),
                move |done| sessions.break_promises(id, &done.changed, (caller.session, &named)),
            )
            .await;
        match &applied {
            // Whoever missed it will hear of it.
            Ok(_) if self.has_peers(id) => volume.meetings.changed(dots),
            Err(refusal) if refusal.code == Code::NeedsResolve => {
                volume.meetings.now();
                let unknown = refusal.blame;
                if let Some(fid) = unknown
                    && self.is_gone(&volume, fid).await?
                {
                    let gone = Refusal::about(Code::Gone, fid, "no member knows of it any more");
                    return Err(gone.at(refusal.index as usize));
                }
            }
            _ => {}
        }
        let (applied, mut news) = applied?;
        // Also those of earlier attempts: a repeated record breaks nothing, and its answer promises the same.
        news.extend(touched);
        let outstanding = self.sessions().outstanding(&news, caller.session);
        self.sessions().acknowledged(outstanding).await;
        plain(Body::Applied(applied))
    }

    fn check_epoch(&self, id: VolumeId, epoch: u64) -> Result<(), Refusal> {
        let realm = self.realm();
        let no_volume = || Refusal::new(Code::NoVolume, format!("{id}: no such volume"));
        let info = &realm.volumes.get(&id).ok_or_else(no_volume)?.info;
        match epoch.cmp(&info.epoch) {
            Ordering::Equal => {}
            Ordering::Less => {
                let why = format!("volume {id} is at epoch {}, not {epoch}", info.epoch);
                let refusal = Refusal::new(Code::StaleEpoch, why);
                return Err(Refusal { info: Some(info.clone()), ..refusal });
            }
            Ordering::Greater => {
                self.refresh_soon();
                let why = format!("this server has yet to learn of epoch {epoch} of volume {id}");
                return Err(Refusal::new(Code::Busy, why));
            }
        }
        let entry = &realm.volumes[&id];
        if entry.is_frozen() {
            return Err(Refusal::new(Code::Access, format!("volume {id} is read-only")));
        }
        if entry.is_locked(self.env().now()) {
            return Err(Refusal::new(Code::Busy, format!("volume {id} is locked by an administrator")));
        }
        let member = realm.replica_at(id, self.id()).ok_or_else(no_volume)?;
        match member.state == i32::from(wire::MemberState::MemberLeaving) {
            true => Err(Refusal::new(Code::Offline, format!("this member is leaving volume {id}"))),
            false => Ok(()),
        }
    }
}

/// Reads the records of one call, and checks all that needs no state.
fn records(id: VolumeId, apply: wire::Apply) -> Result<Vec<Record>, Refusal> {
    let count = apply.records.len();
    if count == 0 || count > APPLY_RECORDS {
        return Err(Refusal::new(Code::TooBig, format!("{count} records; 1 to {APPLY_RECORDS} per call")));
    }
    let size = apply.encoded_len();
    if size > APPLY_BYTES {
        return Err(Refusal::new(Code::TooBig, format!("{size} bytes; at most {APPLY_BYTES} per call")));
    }
    let mut records = Vec::with_capacity(count);
    for (index, record) in apply.records.into_iter().enumerate() {
        let record = Record::try_from(record).map_err(|error| Refusal::from(error).at(index))?;
        if record.dot.author == Author::ELDERS {
            return Err(Refusal::new(Code::Invalid, "nobody is this author").at(index));
        }
        if let Some(fid) = record.op.touches().iter().find(|fid| fid.volume != id) {
            return Err(Refusal::about(Code::Invalid, *fid, "of another volume").at(index));
        }
        if let Op::Store { fid, hash, contents: Contents::Inline(bytes), .. } = &record.op
            && blake3::hash(bytes).as_bytes() != hash
        {
            return Err(Refusal::about(Code::Upload, *fid, "the contents do not match their hash").at(index));
        }
        records.push(record);
    }
    Ok(records)
}

/// The records of one call, on their way through the volume's writer.
struct Work {
    promised: bool,
    who: Identity,
    instance: Vec<u8>,
    touched: BTreeSet<Fid>,
    records: Vec<Record>,
    /// The object at which people have decided something.
    repairs: Option<Fid>,
    volume: Arc<Volume>,
    server: Arc<Server>,
    epoch: u64,
}

impl Work {
    /// Answers what the client is told, and all that changed.
    fn run(self, txn: &mut Txn<'_>) -> Result<(wire::Applied, BTreeSet<Fid>), Refusal> {
        // Again, now that this is its turn: a member that learned meanwhile that it leaves, and said how far
        // its replica has come, must not go further.
        self.server.check_epoch(txn.volume, self.epoch)?;
        served(txn)?;
        let before = stamp(txn);
        if let Some(fid) = self.repairs
            && !self.is_repeated(txn)?
            && undecided(txn, fid)?.is_none()
        {
            return Err(Refusal::about(Code::Invalid, fid, "there is nothing to repair here"));
        }
        let some = self.records.len() - usize::from(planted(Bug::SaysYesToSome) && self.records.len() > 1);
        for (index, record) in self.records[..some].iter().enumerate() {
            self.one(txn, record).map_err(|refusal| refusal.at(index))?;
            txn.settle()?;
        }
        if let Some(fid) = self.repairs
            && let Some(left) = undecided(txn, fid)?
        {
            return Err(Refusal::about(Code::Invalid, fid, format!("the repair leaves {left}")));
        }
        let mut statuses = Vec::new();
        for fid in &self.touched {
            if let Some(status) = status(txn, *fid, self.who)? {
                statuses.push((&Status { promised: self.promised, ..status }).into());
            }
        }
        // Where the tree rule changed more than the records name, the client's stamp stays where it is.
        let changed = txn.changed().clone();
        let before = Some(before).filter(|_| changed.is_subset(&self.touched));
        Ok((wire::Applied { statuses, before, after: Some(stamp(txn)) }, changed))
    }

    /// Whether all of it was done before: its answer was lost.
    fn is_repeated(&self, txn: &Txn<'_>) -> Result<bool, Refusal> {
        for record in &self.records {
            let mut covered = false;
            for fid in record.op.touches() {
                covered |= txn.past(fid)?.is_some_and(|past| past.covers(record.dot));
            }
            if !covered {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn one(&self, txn: &mut Txn<'_>, record: &Record) -> Result<(), Refusal> {
        for fid in record.op.touches() {
            if txn.past(fid)?.is_some_and(|past| past.covers(record.dot)) && !planted(Bug::AppliesTwice) {
                return Ok(());
            }
        }
        rights::check(txn, self.who, record)?;
        check_quota(txn, record)?;
        let content = self.content(txn, record)?;
        let rewrites = match &record.op {
            Op::Store { fid, .. } => txn.has_contents(*fid)?,
            _ => false,
        };
        let touched = match merge::apply(txn, record) {
            Ok(Outcome::Applied { touched }) => touched,
            Ok(Outcome::Repeated) => Vec::new(),
            Err(ApplyError::Refused(refusal)) => return Err(refusal),
            Err(ApplyError::Store(error)) => return Err(error.into()),
        };
        let named = record.op.touches();
        for dir in touched.into_iter().filter(|fid| fid.is_directory() && !named.contains(fid)) {
            // Another name shows in it, or one less, and its past does not say so.
            renew(txn, &self.volume, dir)?;
        }
        if let (Op::Store { fid, contents, .. }, Some(content)) = (&record.op, content) {
            txn.put_content(*fid, record.dot, &content)?;
            if rewrites {
                // For whoever looks for what this and others were made from.
                txn.put_seen(*fid, record.dot, &record.base(*fid))?;
            }
            if let Contents::Uploaded(handle) = contents {
                txn.drop_upload(handle)?;
            }
        }
        Ok(())
    }

    /// The contents that a Store brings, or says were brought before.
    fn content(&self, txn: &Txn<'_>, record: &Record) -> Result<Option<Content>, Refusal> {
        let Op::Store { fid, length, hash, contents, .. } = &record.op else { return Ok(None) };
        let bytes = match contents {
            Contents::Inline(bytes) => Stored::Inline(bytes.to_vec()),
            Contents::Uploaded(handle) => {
                let wrong = |why: &str| Refusal::about(Code::Upload, *fid, why);
                let upload = txn.upload(handle)?.ok_or_else(|| wrong("unknown upload"))?;
                if upload.instance != self.instance {
                    return Err(wrong("unknown upload"));
                }
                if !upload.complete || upload.length != *length || upload.hash != *hash {
                    return Err(wrong("the upload is not complete, or holds something else"));
                }
                Stored::Container(upload.container)
            }
        };
        Ok(Some(Content { length: *length, hash: hash.to_vec(), bytes }))
    }
}

fn stamp(txn: &Txn<'_>) -> wire::Stamp {
    wire::Stamp { incarnation: txn.incarnation(), change_seq: txn.change_seq() }
}

fn check_quota(txn: &Txn<'_>, record: &Record) -> Result<(), Refusal> {
    let grows = match &record.op {
        Op::Create { .. } | Op::MakeDir { .. } | Op::Symlink { .. } => true,
        Op::Store { fid, length, .. } => {
            let held = txn.head(*fid)?.map_or(0, |head| quota::blocks_of(&head));
            quota::blocks(*length) > held
        }
        _ => false,
    };
    if !grows {
        return Ok(());
    }
    let limit = txn.head(Fid::root(txn.volume))?.map_or(0, |root| root.quota_max());
    match quota::may_grow(txn.used(), limit) {
        true => Ok(()),
        false => {
            let why = format!("volume {} uses {} of {limit} blocks", txn.volume, txn.used());
            Err(Refusal::new(Code::Quota, why))
        }
    }
}
