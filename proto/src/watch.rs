//! A value that others wait on. Like tokio's `watch`, but whoever waited first is woken first: tokio's draws
//! lots, and then two runs of one simulated world differ.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

/// Sets the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Waits for it to change. Each receiver remembers which change it saw last.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
    number: u64,
}

/// The sender is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

struct Shared<T>(Mutex<Inner<T>>);

struct Inner<T> {
    value: T,
    changes: u64,
    closed: bool,
    receivers: u64,
    /// In the order in which they began to wait.
    waiting: BTreeMap<u64, (u64, Waker)>,
    next: u64,
}

/// The value, while nobody can change it. Not to be held across an `await`.
pub struct Ref<'a, T>(MutexGuard<'a, Inner<T>>);

impl<T> std::ops::Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().expect("no holder panics")
    }

    fn wake(&self, change: impl FnOnce(&mut Inner<T>)) {
        let waiting = {
            let mut inner = self.lock();
            change(&mut inner);
            std::mem::take(&mut inner.waiting)
        };
        waiting.into_values().for_each(|(_, waker)| waker.wake());
    }
}

impl<T> Sender<T> {
    /// A value that nobody waits on yet.
    pub fn new(value: T) -> Sender<T> {
        let inner =
            Inner { value, changes: 0, closed: false, receivers: 0, waiting: BTreeMap::new(), next: 0 };
        Sender(Arc::new(Shared(Mutex::new(inner))))
    }

    /// Somebody who has seen the value as it is now.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut inner = self.0.lock();
        inner.receivers += 1;
        Receiver { seen: inner.changes, number: inner.receivers, shared: Arc::clone(&self.0) }
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.lock())
    }

    /// Sets the value; answers the old one.
    pub fn send_replace(&self, value: T) -> T {
        let mut old = value;
        self.send_modify(|value| std::mem::swap(value, &mut old));
        old
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value where `change` says that it did. Answers whether.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut inner = self.0.lock();
        let changed = change(&mut inner.value);
        drop(inner);
        if changed {
            self.0.wake(|inner| inner.changes += 1);
        }
        changed
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.wake(|inner| inner.closed = true);
    }
}

impl<T> Receiver<T> {
    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.lock())
    }

    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let inner = self.shared.lock();
        self.seen = inner.changes;
        Ref(inner)
    }

    /// Waits until the value is another one than was seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let (shared, number, seen) = (&self.shared, self.number, self.seen);
        let now = poll_fn(|context| {
            let mut inner = shared.lock();
            if inner.changes != seen {
                return Poll::Ready(Ok(inner.changes));
            }
            if inner.closed {
                return Poll::Ready(Err(Closed));
            }
            let waiter = inner.waiting.iter().find(|(_, (who, _))| *who == number).map(|(place, _)| *place);
            let place = waiter.unwrap_or(inner.next);
            inner.next = inner.next.max(place + 1);
            inner.waiting.insert(place, (number, context.waker().clone()));
            Poll::Pending
        });
        self.seen = now.await?;
        Ok(())
    }

    /// Waits until `wanted` holds of the value; answers it.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<T, Closed>
    where
        T: Clone,
    {
        loop {
            let held = {
                let value = self.borrow_and_update();
                wanted(&value).then(|| value.clone())
            };
            if let Some(value) = held {
                return Ok(value);
            }
            self.changed().await?;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let number = self.number;
        self.shared.lock().waiting.retain(|_, (who, _)| *who != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::pin,
        sync::atomic::{AtomicU32, Ordering},
        task::{Context, Wake},
    };

    struct Note(u32, Arc<Mutex<Vec<u32>>>, AtomicU32);
    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
            self.2.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waited_first_is_woken_first() {
        let sender = Sender::new(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut receivers: Vec<_> = (0..20).map(|_| sender.subscribe()).collect();
        let mut waits: Vec<_> =
            receivers.iter_mut().rev().map(|r| Box::pin(r.wait_for(|v| *v > 0))).collect();
        for (number, wait) in waits.iter_mut().enumerate() {
            let note = Arc::new(Note(number as u32, woken.clone(), AtomicU32::new(0)));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&note.into())).is_pending());
        }
        sender.send_replace(1);
        assert_eq!(*woken.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_change_before_the_wait_is_seen_and_a_dropped_sender_ends_it() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        let mut context = Context::from_waker(Waker::noop());
        sender.send_replace(2);
        assert_eq!(pin!(receiver.changed()).poll(&mut context), Poll::Ready(Ok(())));
        assert_eq!(*receiver.borrow(), 2);
        assert!(pin!(receiver.changed()).poll(&mut context).is_pending());
        assert!(!sender.send_if_modified(|_| false));
        assert!(pin!(receiver.changed()).poll(&mut context).is_pending());
        drop(sender);
        assert_eq!(pin!(receiver.changed()).poll(&mut context), Poll::Ready(Err(Closed)));
    }
}
