//! How fast calls are made: one after the other from a common bucket, so that whoever shares it stays below a rate together.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A bucket that holds one call and is filled anew at a steady rate: in no second are more calls made than that, whoever makes
/// them. Clones share it. Its clock is the runtime's, which a test may stop.
#[derive(Clone, Debug)]
pub struct Pace {
    every: Duration,
    next: Arc<Mutex<Option<Instant>>>,
    made: Arc<AtomicU64>,
}

impl Pace {
    /// So many calls a second, evenly spaced.
    pub fn per_second(calls: NonZeroU32) -> Self {
        Self { every: Duration::from_secs(1) / calls.get(), next: Arc::default(), made: Arc::default() }
    }

    /// The same bucket, which counts from 0 what is made through the answer.
    #[must_use]
    pub fn counted_anew(&self) -> Self {
        Self { made: Arc::default(), ..self.clone() }
    }

    /// Calls that were made, or are about to be.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Waits until it is the caller's turn.
    pub async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + self.every);
            turn
        };
        tokio::time::sleep_until(turn).await;
        self.made.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    /// Nobody sleeps: the clock is the test's.
    #[tokio::test(start_paused = true)]
    async fn i8_no_second_has_more_calls_than_the_rate_whoever_makes_them() {
        let pace = Pace::per_second(NonZeroU32::new(20).unwrap());
        let start = Instant::now();
        let callers = (0..8).map(|caller| {
            let pace = if caller % 2 == 0 { pace.clone() } else { pace.counted_anew() };
            async move {
                let mut turns = Vec::new();
                for _ in 0..25 {
                    pace.turn().await;
                    turns.push(start.elapsed());
                }
                turns
            }
        });
        let mut turns: Vec<Duration> = join_all(callers).await.into_iter().flatten().collect();
        turns.sort_unstable();
        assert_eq!(turns.len(), 200);
        for (index, turn) in turns.iter().enumerate() {
            let within = turns[index..].iter().take_while(|later| **later < *turn + Duration::from_secs(1));
            assert!(within.count() <= 20, "too many after {turn:?}");
        }
        assert!(turns[199] < Duration::from_secs(10), "200 calls at 20 a second: {:?}", turns[199]);
        assert_eq!(pace.made(), 100, "the others counted for themselves");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_after_a_pause_need_not_wait_and_gets_no_more_than_one_call_for_it() {
        let pace = Pace::per_second(NonZeroU32::new(10).unwrap());
        tokio::time::advance(Duration::from_mins(1)).await;
        let start = Instant::now();
        pace.turn().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.turn().await;
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    }
}
