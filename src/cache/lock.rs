//! One lock per object, taken in order: two operations here never interleave on an object.
//!
//! A lock may be held while servers are asked, so only flows that miss or mutate take it; hits do not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::OwnedMutexGuard;

use crate::venus::face::ObjectId;

/// How many idle locks are kept before they are swept.
const IDLE: usize = 1024;

/// All objects' locks.
#[derive(Default)]
pub struct Locks {
    map: Mutex<HashMap<ObjectId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Objects locked until this is dropped.
#[derive(Debug)]
pub struct Held {
    guards: Vec<(ObjectId, OwnedMutexGuard<()>)>,
}

impl Held {
    /// Unlocks these already.
    pub fn release(&mut self, ids: &[ObjectId]) {
        self.guards.retain(|(id, _)| !ids.contains(id));
    }
}

impl Locks {
    /// Locks objects, each once and in one order for everybody, whatever the order asked.
    pub async fn hold(&self, ids: impl IntoIterator<Item = ObjectId>) -> Held {
        let mut ids: Vec<ObjectId> = ids.into_iter().collect();
        ids.sort();
        ids.dedup();
        let mut guards = Vec::with_capacity(ids.len());
        for id in ids {
            let lock = self.of(id);
            guards.push((id, lock.lock_owned().await));
        }
        Held { guards }
    }

    /// Locks an object, unless somebody else has.
    pub fn try_hold(&self, id: ObjectId) -> Option<Held> {
        self.of(id).try_lock_owned().ok().map(|guard| Held { guards: vec![(id, guard)] })
    }

    fn of(&self, id: ObjectId) -> Arc<tokio::sync::Mutex<()>> {
        let mut map = self.map.lock().expect("no holder panics");
        if map.len() >= IDLE {
            map.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        map.entry(id).or_default().clone()
    }
}
