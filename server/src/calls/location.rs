//! Where things are: for everybody, without a session.

use coda_proto::{
    Code, Refusal,
    wire::{self, response::Body},
};

use super::{Answer, Caller, plain};
use crate::server::Server;

impl Server {
    pub(crate) fn get_realm(&self) -> Answer {
        plain(Body::Realm(self.realm().to_wire()))
    }

    pub(crate) fn get_root_volume(&self) -> Answer {
        plain(Body::RootVolume(wire::RootVolume { name: self.realm().root_volume.clone() }))
    }

    pub(crate) fn get_volume(&self, get: &wire::GetVolume) -> Answer {
        let realm = self.realm();
        let found = match (get.name.as_str(), get.id) {
            ("", id) if id != 0 => realm.volume_by_id(id),
            (name, _) => realm.volume_named(name),
        };
        match found {
            Some(volume) => plain(Body::Volume(volume.info.clone())),
            None => {
                let which = match get.id {
                    0 => get.name.clone(),
                    id => format!("{id:08x}"),
                };
                Err(Refusal::new(Code::NoVolume, format!("{which}: no such volume in {}", realm.name)))
            }
        }
    }

    pub(crate) fn probe(&self, caller: Caller) -> Answer {
        plain(Body::Probe(wire::ProbeAnswer {
            server: self.id().0.into(),
            time: self.env().now(),
            config: self.realm().config,
            boot: self.boot(),
            session_known: caller.session != 0 && self.sessions().knows(caller.session),
        }))
    }
}
