//! Who may ask for what. Servers check rights on objects; here it is only about venus itself.

use coda_proto::control::Request;

/// Whose venus this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// The user who runs it.
    pub runner: u32,
    /// The user whose mount it is.
    pub primary: Option<u32>,
    /// Other users may enter the mount, hence ask about objects too.
    pub shared: bool,
}

impl Owners {
    /// Whether `uid` may ask this. Root and the owners may ask for everything; on a shared mount everybody
    /// may ask for what concerns objects, not for what changes venus' behaviour towards others or shows
    /// their names.
    pub fn may(&self, uid: u32, request: &Request) -> bool {
        let owner = uid == 0 || uid == self.runner || self.primary == Some(uid);
        owner || (self.shared && concerns_objects(request))
    }
}

/// No wildcard arm on purpose: whoever adds a request decides who may ask it.
fn concerns_objects(request: &Request) -> bool {
    use Request::*;
    match request {
        Status { .. }
        | Whereis { .. }
        | CheckServers { .. }
        | CheckVolumes
        | FlushObject { .. }
        | FlushVolume { .. }
        | GetFid { .. }
        | GetPath { .. }
        | GetMountPoint { .. }
        | ListVolume { .. }
        | ListMount { .. }
        | MakeMount { .. }
        | RemoveMount { .. }
        | GetAcl { .. }
        | SetAcl { .. }
        | SetQuota { .. }
        | Reintegrate { .. }
        | WaitForever { .. }
        | WriteReconnect { .. }
        | Pending { .. }
        | Approve { .. }
        | Conflicts { .. }
        | Undo { .. }
        | Rehearse { .. }
        | PurgeLog { all: false, .. }
        | Expand { .. }
        | Collapse { .. }
        | Resolve { .. } => true,
        WriteDisconnect { .. }
        | PurgeLog { all: true, .. }
        | CheckpointLog { .. }
        | HoardAdd { .. }
        | HoardDelete { .. }
        | HoardClear { .. }
        | HoardList { .. }
        | HoardWalk
        | HoardVerify
        | Preflight { .. }
        | HoardSwitch { .. }
        | Pin { .. }
        | Strength { .. }
        | FlushCache
        | ListCache { .. }
        | Disconnect { .. }
        | Reconnect { .. }
        | Events { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: Owners = Owners { runner: 0, primary: Some(1000), shared: false };
    const SHARED: Owners = Owners { shared: true, ..PRIVATE };

    #[test]
    fn owners_and_root_may_everything() {
        for uid in [0, 1000] {
            assert!(PRIVATE.may(uid, &Request::FlushCache));
            assert!(PRIVATE.may(uid, &Request::Events { recent: 1, follow: true }));
        }
    }

    #[test]
    fn others_may_nothing_on_a_private_mount() {
        assert!(!PRIVATE.may(1001, &Request::Status { path: None }));
    }

    #[test]
    fn others_may_ask_about_objects_on_a_shared_mount_but_not_cut_everybody_off() {
        assert!(SHARED.may(1001, &Request::Whereis { path: "/coda/r".into() }));
        assert!(!SHARED.may(1001, &Request::Disconnect { servers: vec![] }));
        assert!(!SHARED.may(1001, &Request::ListCache { volumes: vec![] }));
    }

    #[test]
    fn others_may_give_up_what_is_theirs_and_nothing_else() {
        let purge = |all| Request::PurgeLog { path: "/coda/r".into(), all };
        assert!(SHARED.may(1001, &purge(false)) && !SHARED.may(1001, &purge(true)));
        assert!(SHARED.may(1000, &purge(true)) && !PRIVATE.may(1001, &purge(false)));
    }
}
