//! An amount as Stripe's prices have it: US cents with up to twelve decimals, exact.

use std::fmt;
use std::num::NonZeroU64;

/// Decimals of a cent that Stripe takes.
const DECIMALS: usize = 12;
/// 10^12: the units in a cent.
const UNITS: u128 = 1_000_000_000_000;
/// A nano-dollar per million tokens is 10^-13 cents a token: ten of them are one unit.
const NANO_USD_PER_MILLION_IN_A_UNIT: u64 = 10;

/// US cents, in units of 10^-12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(u128);

/// A price per token that Stripe cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} nano-dollars per million tokens need more than {DECIMALS} decimals of a cent: use a multiple of 10"
)]
pub struct TooFine(pub NonZeroU64);

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount of cents with at most {DECIMALS} decimals")]
pub struct InvalidCents(pub String);

impl Cents {
    /// None.
    pub const ZERO: Self = Self(0);

    /// Whole cents.
    pub fn whole(cents: u32) -> Self {
        Self(u128::from(cents).saturating_mul(UNITS))
    }

    /// The price of one token, exact.
    ///
    /// # Errors
    /// [`TooFine`] if it has more decimals than Stripe takes.
    pub fn per_token(nano_usd_per_million: NonZeroU64) -> Result<Self, TooFine> {
        let price = nano_usd_per_million.get();
        if !price.is_multiple_of(NANO_USD_PER_MILLION_IN_A_UNIT) {
            return Err(TooFine(nano_usd_per_million));
        }
        Ok(Self(u128::from(price / NANO_USD_PER_MILLION_IN_A_UNIT)))
    }

    /// As a price of one token, what a million tokens cost in nano-dollars, exact; none where that is too much for a number.
    pub fn nano_usd_per_million(self) -> Option<u64> {
        u64::try_from(self.0).ok()?.checked_mul(NANO_USD_PER_MILLION_IN_A_UNIT)
    }

    /// Reads a decimal number such as `0.0002`.
    ///
    /// # Errors
    /// When it is none, is negative, or has more than twelve decimals that are not 0.
    pub fn parse(text: &str) -> Result<Self, InvalidCents> {
        let invalid = || InvalidCents(text.chars().take(40).collect());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let decimals = decimals.trim_end_matches('0');
        let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(decimals) || decimals.len() > DECIMALS {
            return Err(invalid());
        }
        let whole: u128 = whole.parse().map_err(|_| invalid())?;
        let decimals: u128 = format!("{decimals:0<DECIMALS$}").parse().map_err(|_| invalid())?;
        whole.checked_mul(UNITS).and_then(|units| units.checked_add(decimals)).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / UNITS, self.0 % UNITS);
        if decimals == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{decimals:0DECIMALS$}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(nano_usd_per_million: u64, expected: Option<&str>) {
        let price = Cents::per_token(NonZeroU64::new(nano_usd_per_million).unwrap());
        assert_eq!(price.ok().map(|price| price.to_string()).as_deref(), expected);
        let back = price.ok().and_then(Cents::nano_usd_per_million);
        assert_eq!(back, expected.map(|_| nano_usd_per_million));
    }

    #[test]
    fn a_price_per_token_is_told_exactly_or_not_at_all() {
        check(2_000_000_000, Some("0.0002"));
        check(1_500_000_000, Some("0.00015"));
        check(10_000_000_000_000, Some("1"));
        check(12_345_000_000_000_000, Some("1234.5"));
        check(10, Some("0.000000000001"));
        check(2_000_000_001, None);
        check(1, None);
    }

    #[test]
    fn an_amount_is_read_as_it_is_written() {
        for text in ["0", "1", "2000", "0.0002", "1234.5", "0.000000000001"] {
            assert_eq!(Cents::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Cents::parse("0.000200000000000").unwrap(), Cents::parse("0.0002").unwrap());
        assert_eq!(Cents::whole(2_000), Cents::parse("2000.0").unwrap());
        for bad in ["", ".5", "-1", "+1", "1e3", "0.0000000000001", "1.2.3", "1 ", "٣", &"9".repeat(40)] {
            assert!(Cents::parse(bad).is_err(), "{bad}");
        }
    }
}
