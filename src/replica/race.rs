//! Asking one after another without waiting for the slow: the next is asked when the one before failed,
//! or has not answered within its grace, and the first good answer wins.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use crate::env::BoxFuture;

/// One thing to try. The future does nothing before it is polled.
pub struct Attempt<T, E> {
    /// Ends when it has run alone for long enough.
    pub patience: BoxFuture<'static, ()>,
    /// The try.
    pub run: BoxFuture<'static, Result<T, E>>,
    /// Called when the grace is over without an answer.
    pub overdue: Box<dyn FnOnce() + Send>,
}

/// Patience for so long.
pub fn for_a_while(grace: Duration) -> BoxFuture<'static, ()> {
    // Counted from the first poll, like everything about an attempt.
    async move { sleep(grace).await }.boxed()
}

/// Attempts that are still running: not to be dropped when their outcome matters to somebody.
pub type Running<T, E> = FuturesUnordered<BoxFuture<'static, Result<T, E>>>;

/// The first success and what still runs, or every failure in the order they came.
pub async fn race<T, E>(attempts: Vec<Attempt<T, E>>) -> Result<(T, Running<T, E>), Vec<E>> {
    let mut running = Running::new();
    let mut failures = Vec::new();
    let mut waiting = attempts.into_iter();
    while let Some(attempt) = waiting.next() {
        running.push(attempt.run);
        let mut overdue = Some(attempt.overdue);
        let mut patience = attempt.patience;
        let mut last = waiting.len() == 0;
        loop {
            tokio::select! {
                biased;
                outcome = running.next() => match outcome {
                    Some(Ok(answer)) => return Ok((answer, running)),
                    Some(Err(failure)) => {
                        failures.push(failure);
                        // The next one is asked at once; after the last one there is only waiting.
                        if !last { break }
                    }
                    None => break,
                },
                () = &mut patience, if overdue.is_some() => {
                    if let Some(overdue) = overdue.take() { overdue() }
                    if !last { break }
                    last = true;
                }
            }
        }
    }
    Err(failures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::time::Instant;

    type Log = Arc<Mutex<Vec<u32>>>;

    fn attempt(log: &Log, name: u32, after: u64, good: bool) -> Attempt<u32, u32> {
        let (begun, late) = (log.clone(), log.clone());
        Attempt {
            patience: for_a_while(Duration::from_secs(1)),
            run: Box::pin(async move {
                begun.lock().unwrap().push(name);
                sleep(Duration::from_secs(after)).await;
                if good { Ok(name) } else { Err(name) }
            }),
            overdue: Box::new(move || late.lock().unwrap().push(name + 100)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_first_choice_is_asked_alone() {
        let log = Log::default();
        let attempts = vec![attempt(&log, 1, 0, true), attempt(&log, 2, 0, true)];
        assert_eq!(race(attempts).await.unwrap().0, 1);
        assert_eq!(*log.lock().unwrap(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_is_joined_by_the_next_after_its_grace_and_goes_on() {
        let (log, began) = (Log::default(), Instant::now());
        let attempts = vec![attempt(&log, 1, 60, true), attempt(&log, 2, 0, true)];
        let (winner, running) = race(attempts).await.unwrap();
        assert_eq!((winner, running.len(), began.elapsed()), (2, 1, Duration::from_secs(1)));
        assert_eq!(*log.lock().unwrap(), [1, 101, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_moves_on_at_once_and_all_failures_are_told() {
        let (log, began) = (Log::default(), Instant::now());
        let attempts =
            vec![attempt(&log, 1, 0, false), attempt(&log, 2, 20, false), attempt(&log, 3, 30, false)];
        assert_eq!(race(attempts).await.err().unwrap(), [1, 2, 3]);
        assert_eq!(began.elapsed(), Duration::from_secs(31));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_that_answers_after_all_still_wins() {
        let log = Log::default();
        let attempts = vec![attempt(&log, 1, 3, true), attempt(&log, 2, 30, false)];
        assert_eq!(race(attempts).await.unwrap().0, 1);
        assert!(race::<u32, u32>(vec![]).await.err().unwrap().is_empty());
    }
}
