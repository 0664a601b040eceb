//! What Stripe has counted for a customer and a period, from its meter event summaries.
//!
//! Summaries start and end at whole minutes, periods at whole seconds. No single rounding is right: outward may count an
//! event of the neighbouring period, and a row that never arrived would pass as delivered; inward may miss the period's own
//! event, and a row that did arrive would be sent again, and billed twice. So both are asked, and both are given: the true
//! figure lies between them. Where they agree, it is exact. They agree whenever no event lies in the two minutes that the
//! period shares with its neighbours, and always when the period starts and ends at whole minutes.

use crate::client::Stripe;
use crate::failure::Failure;
use domain::{CustomerId, Period, Tokens};
use stripe_billing::billing_meter_event_summary::ListIdBillingMeterEventSummary;
use stripe_client_core::{StripeMethod, StripeRequest};

/// Seconds that a summary's bounds are multiples of.
const MINUTE_S: u64 = 60;
/// Summaries asked for in one page: Stripe's most. Without a grouping window there is one.
const PAGE_MAX: i64 = 100;
/// Pages read of one answer.
const PAGES_MAX: u32 = 10;

/// Tokens that Stripe has counted in a period, as close as whole minutes can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Counted in the minutes that lie wholly in the period.
    pub at_least: Tokens,
    /// Counted in all minutes that the period touches. Equal to `at_least` when the figure is exact.
    pub at_most: Tokens,
}

/// Stripe's count is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// No answer, or none now; ask again later.
    #[error("Stripe's count is not to be had now: {0}")]
    Unavailable(String),
    /// Refused; every such question would be, until a person looks.
    #[error("Stripe refused to count: {0}")]
    Refused(String),
    /// An answer that is no number of tokens: negative, fractional, above fifteen digits, or without an end.
    #[error("Stripe's count is no number of tokens: {0}")]
    NoTokens(String),
}

impl Stripe {
    /// Asks what Stripe has counted for `customer` on the meter `meter_id` (`mtr_...`) in `period`.
    ///
    /// An event shows up some time after Stripe has accepted it, so the answer may be behind.
    ///
    /// # Errors
    /// When Stripe does not answer, refuses, or answers with what is no number of tokens.
    pub async fn counted(
        &self,
        meter_id: &str,
        customer: &CustomerId,
        period: Period,
    ) -> Result<Counted, CountError> {
        let (start, end) = (period.start().s(), period.end().s());
        let inner = (ceil_minute(start), floor_minute(end));
        let outer = (floor_minute(start), ceil_minute(end));
        // Inner first: counts only grow, so that a count that moves in between cannot turn the two around.
        let at_least = self.counted_between(meter_id, customer, inner).await?;
        if inner == outer {
            return Ok(Counted { at_least, at_most: at_least });
        }
        let at_most = self.counted_between(meter_id, customer, outer).await?;
        Ok(Counted { at_least, at_most })
    }

    async fn counted_between(
        &self,
        meter_id: &str,
        customer: &CustomerId,
        (start, end): (u64, u64),
    ) -> Result<Tokens, CountError> {
        if start >= end {
            return Ok(Tokens::ZERO);
        }
        let stripe_time = |s: u64| {
            i64::try_from(s).map_err(|_| CountError::Refused("a time beyond Stripe's calendar".into()))
        };
        let mut request = ListIdBillingMeterEventSummary::new(
            meter_id,
            customer.as_str(),
            stripe_time(end)?,
            stripe_time(start)?,
        )
        .limit(PAGE_MAX);
        let mut sum = Tokens::ZERO;
        for _ in 0..PAGES_MAX {
            let page = self.call(StripeMethod::Get, request.customize()).await?;
            for summary in &page.data {
                let tokens = whole_tokens(summary.aggregated_value)?;
                sum = sum
                    .checked_add(tokens)
                    .ok_or_else(|| CountError::NoTokens("the sum is too large".into()))?;
            }
            match page.data.last() {
                Some(last) if page.has_more => request = request.starting_after(last.id.as_str()),
                Some(_) | None => return Ok(sum),
            }
        }
        Err(CountError::NoTokens(format!("more than {PAGES_MAX} pages")))
    }
}

/// Stripe gives the sum as a JSON number that the library reads as a float. Up to fifteen digits a float holds every whole
/// number exactly, and Rust prints it with all its digits and no exponent: reading that text back is exact, and fails on
/// what is no whole number.
fn whole_tokens(value: f64) -> Result<Tokens, CountError> {
    let text = value.to_string();
    let number = text.parse::<u64>().ok().and_then(|number| Tokens::new(number).ok());
    number.ok_or(CountError::NoTokens(text))
}

const fn floor_minute(s: u64) -> u64 {
    s - s % MINUTE_S
}

const fn ceil_minute(s: u64) -> u64 {
    s.next_multiple_of(MINUTE_S)
}

impl From<Failure> for CountError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Lost(reason) => Self::Unavailable(reason),
            Failure::Unusable(reason) => Self::Refused(reason),
            Failure::Answered(answer) if answer.busy() => Self::Unavailable(answer.to_string()),
            Failure::Answered(answer) => Self::Refused(answer.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_to_the_token_or_not_at_all() {
        assert_eq!(whole_tokens(0.0), Ok(Tokens::ZERO));
        assert_eq!(whole_tokens(999_999_999_999_999.0), Ok(Tokens::MAX));
        for bad in [1_000_000_000_000_000.0, 1.5, -1.0, f64::NAN, f64::INFINITY] {
            assert!(whole_tokens(bad).is_err(), "{bad} was read");
        }
    }
}
