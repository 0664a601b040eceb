//! How fast calls are made: one after the other from a common bucket, so that whoever shares it stays below a rate together. What is
//! no meter event has a slower bucket besides, for Stripe takes fewer of these.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The share of all calls that may be no meter events: an eighth, which is 12 of the usual 100 a second, so that two runs stay below
/// what Stripe takes at each endpoint, 25 a second, and five below the 100 at all of them together; only meter events are counted apart, 1,000 a second
/// (docs.stripe.com/rate-limits). Whoever asks for more than 100 has had his limits raised.
const OTHERS_SHARE: NonZeroU32 = NonZeroU32::new(8).unwrap();
/// Calls a second that are no meter events, however few calls there are, unless there are still fewer.
const OTHERS_PER_S_MIN: NonZeroU32 = NonZeroU32::new(12).unwrap();

/// What a call is, as Stripe counts calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A meter event.
    Event,
    /// Anything else.
    Other,
}

/// A bucket that holds one call and is filled anew at a steady rate: in no second are more calls made than that, whoever makes
/// them. Clones share it. Its clock is the runtime's, which a test may stop.
#[derive(Clone, Debug)]
pub struct Pace {
    every: Duration,
    next: Arc<Mutex<Option<Instant>>>,
    others_every: Duration,
    others_next: Arc<Mutex<Option<Instant>>>,
    made: Arc<AtomicU64>,
}

impl Pace {
    /// So many calls a second, evenly spaced; of those that are no meter events at most an eighth, or 12.
    pub fn per_second(calls: NonZeroU32) -> Self {
        let share = NonZeroU32::new(calls.get() / OTHERS_SHARE).unwrap_or(OTHERS_PER_S_MIN);
        let others = share.max(OTHERS_PER_S_MIN).min(calls);
        let every = |calls: NonZeroU32| Duration::from_secs(1) / calls.get();
        Self {
            every: every(calls),
            next: Arc::default(),
            others_every: every(others),
            others_next: Arc::default(),
            made: Arc::default(),
        }
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
    pub(crate) async fn turn(&self, lane: Lane) {
        if lane == Lane::Other {
            tokio::time::sleep_until(taken(&self.others_next, self.others_every)).await;
        }
        tokio::time::sleep_until(taken(&self.next, self.every)).await;
        self.made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes the next turn of a bucket.
fn taken(next: &Mutex<Option<Instant>>, every: Duration) -> Instant {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let turn = next.map_or(now, |next| next.max(now));
    *next = Some(turn + every);
    turn
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
                    pace.turn(Lane::Event).await;
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
        pace.turn(Lane::Event).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.turn(Lane::Event).await;
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn i8_what_is_no_meter_event_is_asked_slower_and_events_do_not_wait_for_it() {
        let pace = Pace::per_second(NonZeroU32::new(100).unwrap());
        let start = Instant::now();
        let turns = |lane, calls: u32| {
            let pace = pace.clone();
            async move {
                for _ in 0..calls {
                    pace.turn(lane).await;
                }
                start.elapsed()
            }
        };
        let (events, questions) = tokio::join!(turns(Lane::Event, 80), turns(Lane::Other, 25));
        assert!(events < Duration::from_millis(1_100), "{events:?}");
        assert!(questions >= Duration::from_secs(2), "{questions:?}");
        assert_eq!(pace.made(), 105);
    }
}
