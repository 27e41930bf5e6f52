//! Room for what peers make us hold, and who has to leave it.
//!
//! Bytes of requests are held while they come, of answers until the peer has taken them. Whoever moves them slowly may
//! do so for hours, as on a poor line, for as long as nobody waits for the room. When somebody does, it must move at
//! some rate: a peer that takes a byte now and then would keep the room for ever.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

use crate::life::Life;

/// Bytes a second that must move where others wait for room.
const LEAST: u64 = 32 * 1024;
/// How often it is looked whether they do.
const LOOK: Duration = Duration::from_millis(500);

/// Room of one peer, or of all.
pub(crate) struct Memory {
    // Three: who holds a frame may wait for bulk, and who holds both for an answer's room; but who holds that waits
    // for nobody, only for its own peer, who must go on reading.
    pub frames: Semaphore,
    pub bulks: Semaphore,
    pub answers: Semaphore,
    bytes: usize,
    waiting: AtomicUsize,
}

impl Memory {
    /// So many bytes of each.
    pub fn new(bytes: u32) -> Memory {
        let room = || Semaphore::new(bytes as usize);
        let (frames, bulks, answers) = (room(), room(), room());
        Memory { frames, bulks, answers, bytes: bytes as usize, waiting: AtomicUsize::new(0) }
    }

    /// Room for so many bytes of one kind, when it is there. What is larger than all of it takes all of it.
    pub async fn take<'a>(
        &'a self,
        of: impl Fn(&'a Memory) -> &'a Semaphore,
        length: usize,
    ) -> SemaphorePermit<'a> {
        let (of, length) = (of(self), length.min(self.bytes) as u32);
        if let Ok(permit) = of.try_acquire_many(length) {
            return permit;
        }
        let _waits = Waits::new(&self.waiting);
        of.acquire_many(length).await.expect("never closed")
    }

    /// Ends when somebody waits for room while a peer is slower than it may be then.
    pub async fn is_wanted_from(&self, life: &Life, patience: Duration) {
        let (start, already) = (Instant::now(), life.bytes());
        loop {
            sleep(LOOK.min(patience)).await;
            let moved = life.bytes() - already;
            let may_take = patience + Duration::from_secs_f64(moved as f64 / LEAST as f64);
            if self.waiting.load(Relaxed) > 0 && start.elapsed() > may_take {
                return;
            }
        }
    }
}

/// Gives back what is more than so many bytes.
pub(crate) fn shrink(held: &mut SemaphorePermit<'_>, to: usize) {
    drop(held.split(held.num_permits().saturating_sub(to)));
}

struct Waits<'a>(&'a AtomicUsize);

impl Waits<'_> {
    fn new(count: &AtomicUsize) -> Waits<'_> {
        count.fetch_add(1, Relaxed);
        Waits(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_keeps_its_room_until_somebody_waits_for_it() {
        let (memory, life) = (Memory::new(10), Life::new());
        let held = memory.take(|memory| &memory.answers, 100).await;
        let patience = MINUTE / 2;
        let left = tokio::time::timeout(60 * MINUTE, memory.is_wanted_from(&life, patience)).await;
        assert!(left.is_err(), "nobody waits");
        let wants = memory.take(|memory| &memory.answers, 1);
        let begun = Instant::now();
        let lets_go = async {
            life.moved(60 * LEAST as usize);
            memory.is_wanted_from(&life, patience).await;
            let first = begun.elapsed();
            drop(held);
            first
        };
        let (_, waited) = tokio::join!(wants, lets_go);
        assert!(
            waited >= patience && waited < patience + MINUTE,
            "what moved before does not count: {waited:?}"
        );
        assert_eq!(memory.waiting.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_fast_enough_stays_however_long_it_takes() {
        let (memory, life) = (Memory::new(10), Life::new());
        let _held = memory.take(|memory| &memory.answers, 10).await;
        let moves = async {
            for _ in 0..600 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                life.moved(LEAST as usize);
            }
        };
        tokio::select! {
            biased;
            () = memory.is_wanted_from(&life, Duration::from_secs(1)) => panic!("it was fast enough"),
            _ = memory.take(|memory| &memory.answers, 1) => panic!("there was no room"),
            () = moves => {}
        }
    }

    #[tokio::test]
    async fn an_answer_keeps_no_more_than_it_takes() {
        let memory = Memory::new(10);
        let mut held = memory.take(|memory| &memory.answers, 8).await;
        shrink(&mut held, 3);
        assert_eq!(memory.answers.available_permits(), 7);
        shrink(&mut held, 5);
        assert_eq!(memory.answers.available_permits(), 7);
    }
}
