//! Members that leave: the SCM sees each of them out.
//!
//! ```text
//!  joining ──> active ──> leaving ──> removed
//!     │          │           │           └ no member; slot and replica id are never given again
//!     │          │           └ takes no mutation, durably; others meet it until they have all that it took
//!     │          └ asked for contents
//!     └ takes mutations once it has met a member that has all
//! ```
//!
//! What a leaving member let in is settled by one question: it answers when every mutation that passed its
//! door before it learned that it leaves is committed, and says how far its replica has come. When every
//! active member has heard it that far, it is dropped. All of this can be asked again, by another SCM or
//! after a crash of anybody; only the dropping changes something.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use coda_proto::{
    Code, Refusal, ServerId, VolumeId,
    wire::{self, request, response},
};
use tokio::sync::Notify;

use crate::{
    location::{Realm, change},
    server::Server,
};

/// Between looks while somebody leaves.
const AGAIN: Duration = Duration::from_millis(250);
/// The same while somebody that is needed cannot be reached.
const LATER: Duration = Duration::from_secs(3);
/// Silence of a member after which it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a leaving member's replica came before it let nothing in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastWord {
    incarnation: u64,
    change_seq: u64,
}

/// A member that leaves, and who must have heard its last word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaving {
    volume: VolumeId,
    epoch: u64,
    server: ServerId,
    stay: Vec<ServerId>,
}

/// Who leaves which volume.
fn leaving(realm: &Realm) -> Vec<Leaving> {
    let mut found = Vec::new();
    for (volume, entry) in &realm.volumes {
        let in_state = |state: wire::MemberState| {
            let members = entry.info.members.iter().filter(move |member| member.state() == state);
            members.filter_map(|member| ServerId::new(member.server).ok())
        };
        for server in in_state(wire::MemberState::MemberLeaving) {
            let stay = in_state(wire::MemberState::MemberActive).collect();
            found.push(Leaving { volume: *volume, epoch: entry.info.epoch, server, stay });
        }
    }
    found
}

/// Whether a member has heard all of `word`, as its report says.
fn has_heard(report: &wire::ReplicaReport, of: ServerId, word: LastWord) -> bool {
    let seen = report.seen.iter().find(|seen| seen.server == u32::from(of.0));
    seen.is_some_and(|seen| seen.incarnation == word.incarnation && seen.change_seq >= word.change_seq)
}

/// Sees leaving members out for as long as the server runs, where it is the SCM.
pub(crate) async fn attend(server: Weak<Server>, bell: Arc<Notify>) {
    let mut words = BTreeMap::new();
    loop {
        let wait = match server.upgrade() {
            Some(server) if !server.is_stopped() => server.see_out(&mut words).await,
            _ => return,
        };
        match wait {
            Some(wait) => tokio::select! {
                biased;
                () = bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
            },
            None => bell.notified().await,
        }
    }
}

impl Server {
    /// One look at all who leave. Answers when to look again, if anybody is left.
    async fn see_out(&self, words: &mut BTreeMap<(VolumeId, ServerId), LastWord>) -> Option<Duration> {
        let realm = self.realm();
        if realm.scm != self.id() {
            words.clear();
            return None;
        }
        let all = leaving(&realm);
        words.retain(|(volume, server), _| {
            all.iter().any(|one| (one.volume, one.server) == (*volume, *server))
        });
        let mut wait = None;
        for one in all {
            let again = match self.see_one_out(&one, words).await {
                Ok(true) => continue,
                Ok(false) => AGAIN,
                Err(why) => {
                    tracing::info!(volume = %one.volume, server = %one.server, %why, "it leaves, and is not gone yet");
                    LATER
                }
            };
            wait = Some(wait.map_or(again, |wait: Duration| wait.min(again)));
        }
        wait
    }

    /// Answers whether it is gone.
    async fn see_one_out(
        &self,
        one: &Leaving,
        words: &mut BTreeMap<(VolumeId, ServerId), LastWord>,
    ) -> Result<bool, Refusal> {
        let key = (one.volume, one.server);
        let ask = wire::ReplicaStatus { volume: one.volume.0, epoch: one.epoch, settle: true, meet: 0 };
        let own = self.ask_replica(one.server, ask).await?;
        let now = LastWord { incarnation: own.incarnation, change_seq: own.change_seq };
        // Its replica grows while it hears the others; only what it had let in before counts. After a restart
        // it is counted anew.
        let word = *words
            .entry(key)
            .and_modify(|word| {
                if word.incarnation != now.incarnation {
                    *word = now;
                }
            })
            .or_insert(now);
        // An old copy of its store, as it finds out, has to meet the others before it can tell.
        let mut all = own.joined;
        for member in &one.stay {
            let meet = one.server.0.into();
            let ask = wire::ReplicaStatus { volume: one.volume.0, epoch: one.epoch, settle: false, meet };
            let report = self.ask_replica(*member, ask).await?;
            all &= has_heard(&report, one.server, word);
        }
        if !all || one.stay.is_empty() {
            return Ok(false);
        }
        let (volume, server) = key;
        let dropped = self.change(|realm| {
            let member = realm.replica_at(volume, server);
            match member.is_some_and(|member| member.state() == wire::MemberState::MemberLeaving) {
                true => change::drop_member(realm, volume, server),
                false => return Err(Refusal::new(Code::Invalid, "it does not leave any more")),
            }
            Ok(volume)
        });
        dropped.await?;
        tracing::info!(%volume, %server, "a replica has left: the others have all that it took");
        words.remove(&key);
        Ok(true)
    }

    /// How far the replica of some member is.
    async fn ask_replica(
        &self,
        server: ServerId,
        ask: wire::ReplicaStatus,
    ) -> Result<wire::ReplicaReport, Refusal> {
        if server == self.id() {
            return self.replica_report(ask).await;
        }
        let away = |why: String| Refusal::new(Code::Offline, format!("server {server}: {why}"));
        let realm = self.realm();
        let peer = realm.servers.get(&server).ok_or_else(|| away("nobody knows where it is".into()))?;
        let admin = wire::Admin { body: Some(wire::admin::Body::ReplicaStatus(ask)) };
        let answer = self.ask_peer(peer, request::Body::Admin(admin), PATIENCE).await;
        match answer.map_err(|failure| away(failure.to_string()))? {
            (response::Body::Admin(wire::AdminAnswer { report: Some(report), .. }), _) => Ok(report),
            _ => Err(away("it answers another question".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_word_is_heard_when_the_same_replica_was_heard_that_far() {
        let word = LastWord { incarnation: 7, change_seq: 10 };
        let report = |server, incarnation, change_seq| wire::ReplicaReport {
            seen: vec![wire::Seen { server, incarnation, change_seq }],
            ..Default::default()
        };
        assert!(has_heard(&report(2, 7, 10), ServerId(2), word));
        assert!(has_heard(&report(2, 7, 11), ServerId(2), word));
        assert!(!has_heard(&report(2, 7, 9), ServerId(2), word));
        assert!(!has_heard(&report(2, 8, 99), ServerId(2), word), "another life of it");
        assert!(!has_heard(&report(3, 7, 10), ServerId(2), word));
    }
}
