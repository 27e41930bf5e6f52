//! A process: tasks that die together. Death comes between two polls of any of its tasks, so that everything
//! is tried that `kill -9` can do to a flow that waits.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use coda_proto::watch;
use futures::future::BoxFuture;
use tokio::task::AbortHandle;

/// One life of a client or server.
pub struct Process {
    /// For the trace.
    pub name: String,
    inner: Mutex<Inner>,
    alive: watch::Sender<bool>,
}

struct Inner {
    tasks: Vec<AbortHandle>,
    /// Polls until death, when that is decided.
    fuse: Option<u64>,
    /// Runs at the moment of death: keeps the disk as it is then.
    last_will: Option<Box<dyn FnOnce() + Send>>,
}

impl Process {
    /// A new life.
    pub fn new(name: impl Into<String>) -> Arc<Process> {
        let inner = Inner { tasks: Vec::new(), fuse: None, last_will: None };
        Arc::new(Process { name: name.into(), inner: Mutex::new(inner), alive: watch::Sender::new(true) })
    }

    /// What is done at the moment of death.
    pub fn set_last_will(&self, will: impl FnOnce() + Send + 'static) {
        self.inner().last_will = Some(Box::new(will));
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Waits for its death.
    pub async fn died(&self) {
        let mut alive = self.alive.subscribe();
        // The sender lives as long as `self`.
        let _ = alive.wait_for(|alive| !alive).await;
    }

    /// Runs a task until it ends or the process dies.
    pub fn spawn(self: &Arc<Process>, task: BoxFuture<'static, ()>) {
        if !self.is_alive() {
            return;
        }
        let handle = tokio::spawn(Living { process: Arc::clone(self), task: Some(task) });
        let mut inner = self.inner();
        inner.tasks.retain(|task| !task.is_finished());
        inner.tasks.push(handle.abort_handle());
    }

    /// It dies after so many further polls of its tasks.
    pub fn die_after(&self, polls: u64) {
        self.inner().fuse = Some(polls);
    }

    /// It dies now.
    pub fn die(&self) {
        if !self.alive.send_replace(false) {
            return;
        }
        let (will, tasks) = {
            let mut inner = self.inner();
            (inner.last_will.take(), std::mem::take(&mut inner.tasks))
        };
        if let Some(will) = will {
            will();
        }
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// Whether this poll is not to happen any more.
    fn burns(&self) -> bool {
        let over = match &mut self.inner().fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if over {
            self.die();
        }
        !self.is_alive()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

struct Living {
    process: Arc<Process>,
    task: Option<BoxFuture<'static, ()>>,
}

impl Future for Living {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.process.burns() {
            self.task = None;
            return Poll::Ready(());
        }
        match &mut self.task {
            Some(task) => task.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn all_tasks_stop_at_the_same_moment_and_the_will_is_done_once() {
        let process = Process::new("p");
        let (steps, wills) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let done = Arc::clone(&wills);
        process.set_last_will(move || {
            done.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..3 {
            let steps = Arc::clone(&steps);
            process.spawn(Box::pin(async move {
                loop {
                    steps.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }));
        }
        process.die_after(10);
        process.died().await;
        process.die();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(steps.load(Ordering::Relaxed), 10);
        assert_eq!(wills.load(Ordering::Relaxed), 1);
    }
}
