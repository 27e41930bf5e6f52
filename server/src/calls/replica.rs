//! How far the replica here is: what the SCM asks while somebody leaves, and administrators at any time.

use coda_proto::{Code, Refusal, ServerId, VolumeId, wire};

use crate::{server::Server, store::View};

impl Server {
    /// Reports on the replica of one volume.
    pub(crate) async fn replica_report(
        &self,
        ask: wire::ReplicaStatus,
    ) -> Result<wire::ReplicaReport, Refusal> {
        let id = VolumeId(ask.volume);
        let epoch = self.realm().volumes.get(&id).map_or(0, |volume| volume.info.epoch);
        if ask.epoch > epoch {
            self.refresh_soon();
            let why = format!("this server has yet to learn of epoch {} of volume {id}", ask.epoch);
            return Err(Refusal::new(Code::Busy, why));
        }
        let volume = self.volume(id)?;
        if ask.settle {
            // The writer takes jobs in order: what was let in before is committed when this one is.
            volume.write(|_| Ok(()), |_| {}).await?;
        }
        if let Ok(peer) = ServerId::new(ask.meet)
            && self.peers_of(id).contains_key(&peer)
        {
            volume.meetings.now_with(peer);
        }
        let progress = volume.meetings.progress().report();
        let report = volume.read(|view| {
            let row = view.volume_row()?;
            Ok(wire::ReplicaReport {
                server: self.id().0.into(),
                incarnation: row.incarnation,
                change_seq: row.change_seq,
                joined: row.joined,
                objects: view.objects()?,
                blocks: row.used,
                seen: seen(view)?,
                progress: (!row.joined).then_some(progress),
                epoch,
            })
        })?;
        Ok(report)
    }
}

fn seen(view: &View<'_>) -> Result<Vec<wire::Seen>, Refusal> {
    let seen = view.peers()?.into_iter().map(|(server, incarnation, change_seq)| wire::Seen {
        server: server.into(),
        incarnation,
        change_seq,
    });
    Ok(seen.collect())
}
