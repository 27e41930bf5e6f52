//! A volume that is being served: one writer, any number of readers.
//!
//! Whoever wants to change something queues a job. The writer takes what has gathered, runs each job in a
//! savepoint, commits once, and only then tells anybody. It never waits for a client.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use coda_proto::{Author, Code, Fid, Refusal, ServerId, VolumeId};
use tokio::sync::oneshot;

use crate::{
    blocking::blocking,
    calls::Uploads,
    config::{CrashHook, CrashPoint},
    env::Env,
    resolution::Meetings,
    scrub::Health,
    store::{Batch, Replica, StoreError, Txn, View},
};

/// Jobs of one commit, at most.
const BATCH: usize = 64;

/// A served replica.
pub struct Volume {
    /// The group id.
    pub id: VolumeId,
    /// The server that serves it.
    pub server: ServerId,
    store: Replica,
    env: Arc<dyn Env>,
    crash: Option<CrashHook>,
    queue: Mutex<Queue>,
    pub(crate) uploading: Uploads,
    pub(crate) meetings: Arc<Meetings>,
    pub(crate) health: Health,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Box<dyn Job>>,
    running: bool,
    stopped: bool,
}

trait Job: Send {
    fn run(&mut self, batch: &mut Batch<'_>);
    fn finish(self: Box<Self>, committed: Result<(), Refusal>);
}

/// What a job answers, and what it changed.
pub struct Done<T> {
    /// Its answer.
    pub answer: T,
    /// Objects that are not what they were.
    pub changed: BTreeSet<Fid>,
}

impl Volume {
    /// Serves `store`.
    pub fn new(server: ServerId, store: Replica, env: Arc<dyn Env>, crash: Option<CrashHook>) -> Arc<Volume> {
        let meetings = Arc::new(Meetings::new(Author(env.random().max(2))));
        Arc::new(Volume {
            id: store.volume,
            server,
            store,
            env,
            crash,
            queue: Mutex::default(),
            uploading: Uploads::default(),
            meetings,
            health: Health::default(),
        })
    }

    /// Its containers and database.
    pub fn store(&self) -> &Replica {
        &self.store
    }

    /// Reads one consistent state.
    pub fn read<T>(&self, f: impl FnOnce(&View<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        // Inline: most reads take microseconds, which handing the thread over would multiply.
        self.store.read(|view| Ok(f(view)))?
    }

    /// Changes the replica, all or nothing. When it answers, the change is durable and `told` has run;
    /// both happen even if nobody waits any more.
    pub async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Refusal> + Send + 'static,
        told: impl FnOnce(&Done<T>) + Send + 'static,
    ) -> Result<T, Refusal> {
        self.queue(f, told).await.unwrap_or_else(|_| Err(StoreError::Stopped.into()))
    }

    /// The same without waiting.
    pub fn queue<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Refusal> + Send + 'static,
        told: impl FnOnce(&Done<T>) + Send + 'static,
    ) -> oneshot::Receiver<Result<T, Refusal>> {
        let (sender, receiver) = oneshot::channel();
        let job = JobOf { work: Some(f), result: None, told: Some(told), sender };
        let start = {
            let mut queue = self.queue.lock().expect("never held across a panic");
            if queue.stopped {
                return receiver;
            }
            queue.jobs.push_back(Box::new(job));
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            let volume = self.clone();
            self.env.spawn(Box::pin(async move { volume.work().await }));
        }
        receiver
    }

    async fn work(self: Arc<Self>) {
        while let Some(batch) = self.next_batch() {
            // A job that panics must not take the volume with it: its transaction is rolled back, and those
            // who wait learn that it failed.
            let commit = std::panic::AssertUnwindSafe(|| self.commit(batch));
            match blocking(|| std::panic::catch_unwind(commit)) {
                Ok(true) => blocking(|| self.collect()),
                Ok(false) => {}
                Err(_) => tracing::error!(volume = %self.id, "a job of the writer panicked"),
            }
            tokio::task::yield_now().await;
        }
    }

    fn next_batch(&self) -> Option<Vec<Box<dyn Job>>> {
        let mut queue = self.queue.lock().expect("never held across a panic");
        if queue.stopped || queue.jobs.is_empty() {
            queue.running = false;
            queue.jobs.clear();
            return None;
        }
        let size = queue.jobs.len().min(BATCH);
        Some(queue.jobs.drain(..size).collect())
    }

    fn commit(&self, mut jobs: Vec<Box<dyn Job>>) -> bool {
        let committed = self.store.write(
            |batch| {
                jobs.iter_mut().for_each(|job| job.run(batch));
                Ok(())
            },
            || self.survive(CrashPoint::BeforeCommit),
        );
        let committed = committed.and_then(|()| self.survive(CrashPoint::BeforeReply));
        if let Err(error) = &committed {
            tracing::error!(volume = %self.id, %error, "a commit failed");
            if error.is_io() {
                // The kernel reports a failed write once, and forgets it. Whatever a later sync says, only
                // what can be read again after a restart is durable.
                self.stop_queue();
            }
        }
        for job in jobs {
            let outcome = match &committed {
                Ok(()) => Ok(()),
                Err(StoreError::Stopped) => Err(StoreError::Stopped.into()),
                Err(error) => Err(Refusal::new(Code::Internal, error.to_string())),
            };
            job.finish(outcome);
        }
        committed.is_ok()
    }

    /// Goes on, or dies here if a test wants it.
    pub fn survive(&self, point: CrashPoint) -> Result<(), StoreError> {
        match &self.crash {
            Some(CrashHook(die)) if die(point) => {
                self.stop_queue();
                Err(StoreError::Stopped)
            }
            _ => Ok(()),
        }
    }

    /// Removes containers that no row names. Those who are reading one keep it open.
    fn collect(&self) {
        let collect = || -> Result<(), StoreError> {
            let names = self.store.garbage(256)?;
            if names.is_empty() {
                return Ok(());
            }
            self.survive(CrashPoint::BeforeCollection)?;
            for name in &names {
                self.store.containers.remove(name)?;
            }
            self.store.write(
                |batch| batch.job(|txn| names.iter().try_for_each(|name| txn.collected(name))),
                || Ok(()),
            )
        };
        if let Err(error) = collect() {
            tracing::warn!(volume = %self.id, %error, "could not remove containers");
        }
    }

    fn stop_queue(&self) {
        let mut queue = self.queue.lock().expect("never held across a panic");
        queue.stopped = true;
        queue.jobs.clear();
    }

    /// Takes no more jobs and closes the database.
    pub fn stop(&self) {
        self.stop_queue();
        self.meetings.wake();
        self.store.close();
    }

    /// What the volume needs from the world.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.meetings.wake();
    }
}

struct JobOf<F, T, C> {
    work: Option<F>,
    result: Option<Result<Done<T>, Refusal>>,
    told: Option<C>,
    sender: oneshot::Sender<Result<T, Refusal>>,
}

impl<F, T, C> Job for JobOf<F, T, C>
where
    F: FnOnce(&mut Txn<'_>) -> Result<T, Refusal> + Send,
    T: Send,
    C: FnOnce(&Done<T>) + Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) {
        let Some(work) = self.work.take() else { return };
        self.result = Some(batch.job(|txn| {
            let answer = work(txn)?;
            txn.settle()?;
            Ok(Done { answer, changed: txn.changed().clone() })
        }));
    }

    fn finish(mut self: Box<Self>, committed: Result<(), Refusal>) {
        let result = match (self.result, committed) {
            (_, Err(refusal)) => Err(refusal),
            (Some(result), Ok(())) => result,
            (None, Ok(())) => Err(StoreError::Stopped.into()),
        };
        if let (Ok(done), Some(told)) = (&result, self.told.take()) {
            told(done);
        }
        // Whoever asked may have gone; what was done stays done.
        let _ = self.sender.send(result.map(|done| done.answer));
    }
}
