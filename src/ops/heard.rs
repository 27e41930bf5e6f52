//! What servers say without being asked.

use super::{Core, Result};
use crate::replica::PeerEvent;

impl Core {
    /// Marks the cache as an event says. A break is acknowledged only after that.
    pub(crate) fn heard(&self, event: PeerEvent) -> Result<()> {
        match event {
            PeerEvent::Broken { realm, server, fids, ack } => {
                let number = self.realm_number(&realm)?;
                self.cache.broken(number, &fids)?;
                ack.done();
                tracing::debug!(%realm, %server, count = fids.len(), "callbacks broken");
                self.say("callback", format!("Callback break for {} objects@{realm}", fids.len()));
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
                self.drain(Some(self.realm_number(&realm)?));
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
    /// Promises about volumes of which this server holds a replica are void. Of a volume whose members are
    /// not known, too.
    fn void_what_depends_on(&self, realm: &str, server: coda_proto::ServerId) -> Result<()> {
        let number = self.realm_number(realm)?;
        let elsewhere = self.peers.volumes_without(realm, server);
        self.cache.void(number, |volume| !elsewhere.contains(&volume));
        Ok(())
    }
}
