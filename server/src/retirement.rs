//! Retirement: pasts stay short.
//!
//! A client retires an author when none of its records can ever be sent again. One that was silent for 400 days is
//! retired by the servers, and its records are refused from then on. The list of retired authors goes from member
//! to member with their meetings; when every member includes all that some of them did, and that has been so for
//! as long as clients may have been away, one entry stands for theirs in every past that is long
//! (`store::retired` has the rules).

use std::sync::Arc;

use coda_proto::{
    Author, Code, Refusal, ServerId, VolumeId,
    wire::{self, response::Body},
};

use crate::{
    calls::{Answer, plain, served},
    server::Server,
    session::NOBODY,
    store::Foldable,
    volume::Volume,
};

/// Objects looked at in one transaction: while it runs nobody else writes.
const AT_ONCE: u32 = 2000;
/// Authors of one call, at most.
const MANY: usize = 1000;

impl Server {
    /// Retires authors, or says which of them are.
    pub(crate) async fn retire(&self, retire: wire::Retire) -> Answer {
        let volume = self.volume(VolumeId(retire.volume))?;
        if retire.authors.len() > MANY {
            return Err(Refusal::new(Code::TooBig, format!("more than {MANY} authors")));
        }
        let authors: Vec<Author> = retire.authors.into_iter().map(Author).collect();
        if !retire.ask {
            let (authors, now) = (authors.clone(), self.env().now());
            let retired = move |txn: &mut crate::store::Txn<'_>| {
                served(txn)?;
                authors.iter().try_for_each(|author| Ok(txn.retire(*author, now).map(drop)?))
            };
            volume.write(retired, |_| {}).await?;
        }
        volume.read(|view| {
            served(view)?;
            let mut retired = Vec::new();
            for author in authors {
                let stamp = view.retired(author)?;
                retired.extend(stamp.map(|stamp| wire::Retired { author: author.0, stamp }));
            }
            plain(Body::Retired(wire::RetiredAuthors { retired }))
        })
    }

    /// The other members of a volume, and the epoch in which they are.
    pub(crate) fn group_of(&self, id: VolumeId) -> (Vec<ServerId>, u64) {
        let epoch = self.realm().volumes.get(&id).map_or(0, |volume| volume.info.epoch);
        (self.peers_of(id).into_keys().collect(), epoch)
    }

    /// One round: who was silent for long is retired, and long pasts are folded.
    pub(crate) async fn retire_and_fold(&self, volume: &Arc<Volume>) -> Result<(), Refusal> {
        if !volume.read(|view| Ok(view.volume_row()?.joined))? {
            return Ok(());
        }
        let (limits, now) = (self.config().limits, self.env().now());
        while volume.write(move |txn| Ok(txn.note_writers(AT_ONCE, now)?), |_| {}).await? {}
        let ago =
            |age: std::time::Duration| now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let (own, silent) = (volume.meetings.author(), ago(limits.author_age));
        let (peers, epoch) = self.group_of(volume.id);
        let round = move |txn: &mut crate::store::Txn<'_>| -> Result<_, Refusal> {
            txn.succeed(own, now)?;
            let retired = txn.retire_silent(silent, own, now)?;
            txn.promise_stamps(now)?;
            txn.advance_marks(&peers, epoch)?;
            Ok((retired, txn.included_by(&peers, epoch)?))
        };
        let (retired, included) = volume.write(round, |_| {}).await?;
        if retired > 0 {
            tracing::info!(volume = %volume.id, authors = retired, "silent for long, and retired");
        }
        let what = Foldable {
            stamp: included.min(ago(limits.fold_age).max(0) as u64),
            bytes: limits.past,
            at_least: limits.fold_at_least,
        };
        let (mut objects, mut after) = (0, (0, 0));
        loop {
            let (sessions, id) = (self.sessions().clone(), volume.id);
            let fold = move |txn: &mut crate::store::Txn<'_>| Ok(txn.fold_pasts(what, after, AT_ONCE)?);
            let folded =
                volume.write(fold, move |done| sessions.break_promises(id, &done.changed, NOBODY)).await?;
            objects += folded.objects;
            match folded.after {
                Some(last) => after = last,
                None => break,
            }
        }
        if objects > 0 {
            tracing::info!(volume = %volume.id, objects, "pasts were folded");
        }
        Ok(())
    }
}
