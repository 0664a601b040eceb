//! Time: instants in milliseconds, and the billing periods that usage is charged to. No clock: `now` is an argument.

use chrono::{DateTime, Datelike, Months, Utc};
use std::fmt;

const MS_PER_S: u64 = 1_000;
const S_PER_MINUTE: u64 = 60;

/// An instant: milliseconds since 1970-01-01T00:00:00Z, from 0 to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last instant: 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// From milliseconds since the epoch; later than [`Timestamp::MAX`] is that maximum.
    pub const fn from_ms(ms: u64) -> Self {
        if ms > Self::MAX.0 { Self::MAX } else { Self(ms) }
    }

    /// From seconds since the epoch; later than [`Timestamp::MAX`] is that maximum.
    pub const fn from_s(s: u64) -> Self {
        Self::from_ms(s.saturating_mul(MS_PER_S))
    }

    /// Milliseconds since the epoch.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn s(self) -> u64 {
        self.0 / MS_PER_S
    }

    /// This instant's whole second, rounded down.
    #[must_use]
    pub const fn floor_s(self) -> Self {
        Self::from_s(self.s())
    }

    /// `ms` milliseconds later, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; zero when `earlier` is later.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds from now to this instant, rounded up: what `Retry-After` says.
    pub const fn s_after(self, now: Self) -> u64 {
        self.0.saturating_sub(now.0).div_ceil(MS_PER_S)
    }

    fn utc(self) -> Option<DateTime<Utc>> {
        i64::try_from(self.0).ok().and_then(DateTime::from_timestamp_millis)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the millisecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.utc() {
            Some(utc) => write!(f, "{}", utc.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// A billing period `[start, end)`, both whole seconds, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    start: Timestamp,
    end: Timestamp,
}

/// The most months that a period may lie from its anchor: a thousand years.
const MONTHS_MAX: i64 = 12_000;

impl Period {
    /// A period, to the second; none unless `start < end`.
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        let (start, end) = (start.floor_s(), end.floor_s());
        (start < end).then_some(Self { start, end })
    }

    /// The monthly period that holds `now`, counted from `anchor` as Stripe counts from a subscription's billing cycle
    /// anchor: the same day and second of each month, or the month's last day where it has no such day. Each boundary
    /// is reckoned from the anchor itself, so that 31 January, 28 February is followed by 31 March.
    ///
    /// None when it would begin before 1970, or a thousand years or more from its anchor. A period that would end after
    /// [`Timestamp::MAX`] ends there.
    pub fn monthly(anchor: Timestamp, now: Timestamp) -> Option<Self> {
        let anchor_utc = anchor.floor_s().utc()?;
        let now_utc = now.utc()?;
        let month_of =
            |at: DateTime<Utc>| i64::from(at.year()).checked_mul(12)?.checked_add(i64::from(at.month0()));
        let mut months = month_of(now_utc)?.checked_sub(month_of(anchor_utc)?)?;
        let mut start = months_from(anchor_utc, months)?;
        if start > now_utc {
            months = months.checked_sub(1)?;
            start = months_from(anchor_utc, months)?;
        }
        let end = months_from(anchor_utc, months.checked_add(1)?)?;
        Self::new(from_utc(start)?, from_utc(end)?)
    }

    /// The first instant.
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The first instant after it: when the period's counters end and the next one's begin.
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Whether `at` lies in it.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// The whole second nearest to `at` in those minutes that lie wholly in the period; in the period itself where it
    /// holds no whole minute. Stripe sums meter events by the minute, so an event in a minute that two periods share
    /// could not be told from the other period's.
    pub fn clamp_s(self, at: Timestamp) -> Timestamp {
        let (start_s, end_s) = (self.start.s(), self.end.s());
        let first_s = start_s.div_ceil(S_PER_MINUTE).saturating_mul(S_PER_MINUTE);
        let after_s = (end_s / S_PER_MINUTE).saturating_mul(S_PER_MINUTE);
        let (first_s, after_s) = if first_s < after_s { (first_s, after_s) } else { (start_s, end_s) };
        Timestamp::from_s(at.s().clamp(first_s, after_s.saturating_sub(1)))
    }
}

fn months_from(anchor: DateTime<Utc>, months: i64) -> Option<DateTime<Utc>> {
    if months.abs() > MONTHS_MAX {
        return None;
    }
    let distance = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { anchor.checked_sub_months(distance) } else { anchor.checked_add_months(distance) }
}

fn from_utc(at: DateTime<Utc>) -> Option<Timestamp> {
    u64::try_from(at.timestamp_millis()).ok().map(Timestamp::from_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        from_utc(text.parse().unwrap()).unwrap()
    }

    #[track_caller]
    fn check(anchor: &str, now: &str, start: &str, end: &str) {
        let period = Period::monthly(at(anchor), at(now)).unwrap();
        assert_eq!((period.start(), period.end()), (at(start), at(end)));
        assert!(period.contains(at(now)));
    }

    #[test]
    fn a_month_ends_on_its_last_day_and_returns_to_the_anchor_day() {
        let anchor = "2027-01-31T12:00:00Z";
        check(anchor, "2027-01-31T12:00:00Z", anchor, "2027-02-28T12:00:00Z");
        check(anchor, "2027-02-28T11:59:59.999Z", anchor, "2027-02-28T12:00:00Z");
        check(anchor, "2027-02-28T12:00:00Z", "2027-02-28T12:00:00Z", "2027-03-31T12:00:00Z");
        check(anchor, "2028-02-29T12:00:00Z", "2028-02-29T12:00:00Z", "2028-03-31T12:00:00Z");
    }

    #[test]
    fn a_period_before_the_anchor_is_counted_backwards() {
        check("2027-03-15T00:00:00Z", "2027-03-14T23:59:59Z", "2027-02-15T00:00:00Z", "2027-03-15T00:00:00Z");
    }

    #[test]
    fn a_period_lies_within_a_thousand_years_of_its_anchor() {
        let start = |anchor, now| Period::monthly(at(anchor), at(now)).map(Period::start);
        assert_eq!(start("2970-01-15T00:00:00Z", "1970-01-15T00:00:00Z"), Some(at("1970-01-15T00:00:00Z")));
        assert_eq!(start("2970-02-15T00:00:00Z", "1970-01-15T00:00:00Z"), None);
        assert_eq!(start("1970-01-15T00:00:00Z", "2970-01-14T23:59:59Z"), Some(at("2969-12-15T00:00:00Z")));
        assert_eq!(start("1970-01-15T00:00:00Z", "2970-01-15T00:00:00Z"), None);
        assert_eq!(start("1970-01-15T00:00:00Z", "1970-01-14T23:59:59Z"), None, "it would begin before 1970");
        let last = Period::monthly(at("9999-12-15T00:00:00Z"), at("9999-12-16T00:00:00Z")).unwrap();
        assert_eq!(last.end(), Timestamp::MAX.floor_s());
    }

    #[test]
    fn a_period_holds_its_first_instant_and_not_its_end() {
        let period = Period::new(Timestamp::from_s(100), Timestamp::from_s(200)).unwrap();
        let held = [99_999, 100_000, 199_999, 200_000].map(|ms| period.contains(Timestamp::from_ms(ms)));
        assert_eq!(held, [false, true, true, false]);
    }

    #[test]
    fn seconds_to_wait_are_rounded_up_and_never_negative() {
        let ms = Timestamp::from_ms;
        let waits = [5_000, 5_001, 6_000, 4_999].map(|until| ms(until).s_after(ms(5_000)));
        assert_eq!(waits, [0, 1, 1, 0]);
        let since = [5_000, 5_001, 4_999].map(|at| ms(at).ms_since(ms(5_000)));
        assert_eq!(since, [0, 1, 0]);
        let whole = ms(5_999);
        assert_eq!((whole.s(), whole.floor_s(), whole.plus_ms(1)), (5, ms(5_000), ms(6_000)));
    }

    #[test]
    fn an_instant_past_the_calendar_is_its_last_one() {
        let last = Timestamp::MAX;
        assert_eq!(at("9999-12-31T23:59:59.999Z"), last);
        assert_eq!([Timestamp::from_ms(u64::MAX), Timestamp::from_s(u64::MAX), last.plus_ms(1)], [last; 3]);
        let before = Timestamp::from_ms(last.ms() - 1);
        assert!(before < last && before.plus_ms(1) == last);
    }

    #[test]
    fn a_timestamp_is_clamped_into_its_period() {
        let clamped = |period: Period, at_ms| period.clamp_s(Timestamp::from_ms(at_ms)).s();
        let period = Period::new(Timestamp::from_s(100), Timestamp::from_s(300)).unwrap();
        assert_eq!(
            [1, 100_000, 150_999, 299_999, 500_000].map(|at| clamped(period, at)),
            [120, 120, 150, 299, 299]
        );
        let off = Period::new(Timestamp::from_s(100), Timestamp::from_s(310)).unwrap();
        assert_eq!(clamped(off, 309_000), 299, "a minute that the next period shares");
        let short = Period::new(Timestamp::from_s(100), Timestamp::from_s(130)).unwrap();
        assert_eq!([1, 500_000].map(|at| clamped(short, at)), [100, 129]);
        assert_eq!(Period::new(Timestamp::from_ms(1_000), Timestamp::from_ms(1_999)), None);
    }

    #[test]
    fn a_timestamp_prints_as_rfc_3339() {
        assert_eq!(at("2026-11-24T11:00:00.250Z").to_string(), "2026-11-24T11:00:00.250Z");
    }
}
