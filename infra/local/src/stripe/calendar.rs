//! Periods of a subscription, in UTC.
//!
//! Owns the arithmetic of billing periods. Every boundary is counted from the anchor, never from the previous boundary:
//! else a subscription of the 31st would stay on the 28th after its first February.

use chrono::{DateTime, Months};

/// Seconds of a day.
pub(super) const DAY_S: i64 = 86_400;
/// Seconds of a minute.
pub(super) const MINUTE_S: i64 = 60;
/// Seconds of an hour.
pub(super) const HOUR_S: i64 = 3_600;

/// How long the unit of a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interval {
    Day,
    Week,
    Month,
    Year,
}

impl Interval {
    /// Stripe's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// The length of a subscription's periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    pub(super) interval: Interval,
    pub(super) count: u32,
}

impl Cycle {
    /// The boundary that lies `index` periods after the anchor, in Unix seconds; `None` beyond the calendar's end.
    pub(super) fn boundary(self, anchor_s: i64, index: u32) -> Option<i64> {
        let units = self.count.checked_mul(index)?;
        match self.interval {
            Interval::Day => anchor_s.checked_add(i64::from(units).checked_mul(DAY_S)?),
            Interval::Week => anchor_s.checked_add(i64::from(units).checked_mul(7 * DAY_S)?),
            Interval::Month => add_months(anchor_s, units),
            Interval::Year => add_months(anchor_s, units.checked_mul(12)?),
        }
    }

    /// The boundary one period before the anchor.
    pub(super) fn before(self, anchor_s: i64) -> Option<i64> {
        let days = |days: i64| anchor_s.checked_sub(i64::from(self.count).checked_mul(days * DAY_S)?);
        let months = |months| {
            let at = DateTime::from_timestamp(anchor_s, 0)?;
            Some(at.checked_sub_months(Months::new(self.count.checked_mul(months)?))?.timestamp())
        };
        match self.interval {
            Interval::Day => days(1),
            Interval::Week => days(7),
            Interval::Month => months(1),
            Interval::Year => months(12),
        }
    }
}

/// Adds calendar months; a day that the month lacks becomes its last.
fn add_months(at_s: i64, months: u32) -> Option<i64> {
    let at = DateTime::from_timestamp(at_s, 0)?;
    Some(at.checked_add_months(Months::new(months))?.timestamp())
}
