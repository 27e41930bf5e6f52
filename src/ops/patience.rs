//! `cfs waitforever`: whose operations wait for servers, rather than fail where there are none.
//!
//! Nobody waits so unless it was asked for: a program that waits cannot be interrupted. Each user decides for
//! itself, for one realm or for all; nothing of it is kept.

use std::time::Duration;

use super::{Core, Result, is_disconnected, locked};

/// It is tried again after so long, and whenever a server comes back.
const AGAIN: Duration = Duration::from_secs(15);

impl Core {
    /// From now on the operations of a user wait for servers, of one realm or of all; or they do not.
    pub(crate) fn wait_forever(&self, uid: u32, realm: Option<u32>, on: bool) {
        let mut patient = locked(&self.patient);
        match (on, realm) {
            (true, _) => drop(patient.insert((uid, realm))),
            (false, Some(_)) => drop(patient.remove(&(uid, realm))),
            (false, None) => patient.retain(|(other, _)| *other != uid),
        }
        drop(patient);
        // Whoever waits looks again whether that is still wanted.
        self.news.notify_waiters();
    }

    fn waits_forever(&self, uid: u32, realm: u32) -> bool {
        let patient = locked(&self.patient);
        patient.contains(&(uid, None)) || patient.contains(&(uid, Some(realm)))
    }

    /// Does something; again and again, for who wants to wait for servers.
    pub(crate) async fn patiently<T, F>(&self, uid: u32, realm: u32, mut work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            // What comes while it is tried is not missed.
            let news = self.news.notified();
            match work().await {
                Err(error) if is_disconnected(&error) && self.waits_forever(uid, realm) => {}
                done => return done,
            }
            tokio::select! {
                biased;
                () = news => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}
