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
                let number = self.realm_number(&realm)?;
                self.cache.void(number, None);
                tracing::debug!(%realm, %server, "promises lost");
            }
            PeerEvent::Up { realm, server } => {
                let number = self.realm_number(&realm)?;
                // It may hold what the others never saw.
                self.cache.void(number, None);
                self.drain(Some(number));
                self.say("connection", format!("up {}", self.peers.server_name(&realm, server)));
            }
            PeerEvent::Down { realm, server } => {
                let name = self.peers.server_name(&realm, server);
                self.say("connection", format!("unreachable {name}"));
            }
            PeerEvent::GroupChanged { realm, group } => {
                let number = self.realm_number(&realm)?;
                self.cache.void(number, Some(group.id));
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
}
