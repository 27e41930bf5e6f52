//! What servers say without being asked.

use coda_proto::{Fid, ServerId};

use super::{Core, Result};
use crate::{replica::PeerEvent, venus::face::ObjectId};

/// Objects of a break that are named to people.
const NAMED: usize = 3;

impl Core {
    /// Marks the cache as an event says. A break is acknowledged only after that.
    pub(crate) fn heard(&self, event: PeerEvent) -> Result<()> {
        match event {
            PeerEvent::Broken { realm, server, fids, ack } => {
                let number = self.realm_number(&realm)?;
                self.cache.broken(number, &fids);
                self.events.counts.promises_broken(fids.len());
                ack.done();
                tracing::debug!(%realm, %server, count = fids.len(), "callbacks broken");
                self.say(
                    "callback",
                    self.callback_text(number, &self.peers.server_name(&realm, server), &fids),
                );
            }
            PeerEvent::Lost { realm, server } => {
                self.void_what_depends_on(&realm, server)?;
                tracing::debug!(%realm, %server, "promises lost");
            }
            PeerEvent::Up { realm, server, away } => {
                if away {
                    // It may hold what the others never saw.
                    self.void_what_depends_on(&realm, server)?;
                }
                let number = self.realm_number(&realm)?;
                self.drain(Some(number));
                self.retire_earlier(number)?;
                self.look_again_for_ancestors();
                self.news.notify_waiters();
                self.say("connection", format!("up {}", self.peers.server_name(&realm, server)));
            }
            PeerEvent::Down { realm, server } => {
                let name = self.peers.server_name(&realm, server);
                self.say("connection", format!("unreachable {name}"));
            }
            PeerEvent::GroupChanged { realm, group } => {
                let number = self.realm_number(&realm)?;
                self.cache.void(number, |volume| volume == group.id);
                self.say(
                    "volstate",
                    format!("volume {}@{realm} has {} members", group.name, group.members.len()),
                );
            }
            PeerEvent::Known => {
                let known = serde_json::to_vec(&self.peers.known());
                let known =
                    known.map_err(|e| crate::error::Error::Io("what is known".into(), e.to_string()))?;
                self.cache.store(|store| store.keep("known", &known))?;
            }
        }
        Ok(())
    }
    /// What people are told of a break: who says so, and the first objects by name.
    fn callback_text(&self, realm: u32, server: &str, fids: &[Fid]) -> String {
        let shown = |fid: &Fid| self.shown(ObjectId { realm, fid: *fid });
        let first: Vec<String> = fids.iter().take(NAMED).map(shown).collect();
        match fids.len() - first.len() {
            0 => format!("Callback {server} ({})", first.join(", ")),
            more => format!("Callback {server} ({} and {more} more)", first.join(", ")),
        }
    }

    /// Promises about volumes of which this server holds a replica are void. Of a volume whose members are
    /// not known, too.
    fn void_what_depends_on(&self, realm: &str, server: ServerId) -> Result<()> {
        let number = self.realm_number(realm)?;
        let elsewhere = self.peers.volumes_without(realm, server);
        self.cache.void(number, |volume| !elsewhere.contains(&volume));
        Ok(())
    }
}
