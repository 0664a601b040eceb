//! Amounts: tokens and nano-dollars. Integers only; nothing wraps, nothing rounds unless its name says so.

use std::{fmt, iter::Sum};

/// An amount outside the range of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} is more than the largest {unit} amount, {max}")]
pub struct OutOfRange {
    /// What was asked for.
    pub value: u64,
    /// The largest representable amount.
    pub max: u64,
    /// `tokens` or `nano-dollar`.
    pub unit: &'static str,
}

/// A number of tokens, from 0 to 999,999,999,999,999: what Stripe accepts as one meter event's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tokens(u64);

impl Tokens {
    /// No tokens.
    pub const ZERO: Self = Self(0);
    /// The largest amount: fifteen digits.
    pub const MAX: Self = Self(999_999_999_999_999);

    /// Tokens from a number.
    ///
    /// # Errors
    /// Above [`Tokens::MAX`].
    pub const fn new(value: u64) -> Result<Self, OutOfRange> {
        if value > Self::MAX.0 {
            return Err(OutOfRange { value, max: Self::MAX.0, unit: "tokens" });
        }
        Ok(Self(value))
    }

    /// Tokens from a number that always fits.
    pub fn from_u32(value: u32) -> Self {
        Self(u64::from(value))
    }

    /// Tokens from a length in bytes; a length beyond [`Tokens::MAX`] (900 TB) is that maximum.
    pub fn from_len(bytes: usize) -> Self {
        Self(u64::try_from(bytes).unwrap_or(u64::MAX).min(Self::MAX.0))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self + other`, or none above [`Tokens::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|sum| *sum <= Self::MAX.0).map(Self)
    }

    /// `self - other`, or none below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// `self + other`, at most [`Tokens::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        self.checked_add(other).unwrap_or(Self::MAX)
    }

    /// `self - other`, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self / divisor`, rounded up: the smaller of two bounds must not come out smaller still.
    #[must_use]
    pub fn div_ceil(self, divisor: std::num::NonZeroU64) -> Self {
        Self(self.0.div_ceil(divisor.get()))
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Money in nano-dollars (a billionth of a US dollar), from 0 to about 9.2 billion dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(u64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// The largest amount: what a signed 64-bit integer of a peer still holds.
    pub const MAX: Self = Self(9_223_372_036_854_775_807);

    /// Nano-dollars from a number.
    ///
    /// # Errors
    /// Above [`NanoUsd::MAX`].
    pub const fn new(value: u64) -> Result<Self, OutOfRange> {
        if value > Self::MAX.0 {
            return Err(OutOfRange { value, max: Self::MAX.0, unit: "nano-dollar" });
        }
        Ok(Self(value))
    }

    /// Whole US dollars.
    pub const fn of_usd(dollars: u32) -> Self {
        const NANO_PER_USD: u64 = 1_000_000_000;
        // At most 4.3 billion billion, which fits; widened without a cast, for there is no `const` conversion.
        let [a, b, c, d] = dollars.to_be_bytes();
        Self(u64::from_be_bytes([0, 0, 0, 0, a, b, c, d]).saturating_mul(NANO_PER_USD))
    }

    /// The number of nano-dollars.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self - other`, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self + other`, at most [`NanoUsd::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(Self::MAX.0))
    }

    /// The price of `tokens` at `per_million` nano-dollars a million tokens, rounded up to a whole nano-dollar.
    pub fn of(tokens: Tokens, per_million: std::num::NonZeroU64) -> Self {
        const MILLION: u128 = 1_000_000;
        let product = u128::from(tokens.get()).saturating_mul(u128::from(per_million.get()));
        let nano = product.div_ceil(MILLION);
        Self(u64::try_from(nano).unwrap_or(u64::MAX).min(Self::MAX.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    #[test]
    fn tokens_stay_within_what_stripe_accepts() {
        assert_eq!(Tokens::new(999_999_999_999_999), Ok(Tokens::MAX));
        assert!(Tokens::new(1_000_000_000_000_000).is_err());
        assert_eq!(Tokens::MAX.checked_add(Tokens::from_u32(1)), None);
        assert_eq!(Tokens::ZERO.checked_sub(Tokens::from_u32(1)), None);
    }

    #[test]
    fn an_amount_at_the_end_of_its_range_stays_there() {
        let one = Tokens::from_u32(1);
        assert_eq!(Tokens::MAX.saturating_add(one), Tokens::MAX);
        assert_eq!([Tokens::MAX, one].into_iter().sum::<Tokens>(), Tokens::MAX);
        assert_eq!(Tokens::ZERO.saturating_sub(one), Tokens::ZERO);
        let below = Tokens::new(Tokens::MAX.get() - 1).unwrap();
        assert_eq!(below.checked_add(one), Some(Tokens::MAX));
        assert_eq!(NanoUsd::new(NanoUsd::MAX.get()), Ok(NanoUsd::MAX));
        assert!(NanoUsd::new(NanoUsd::MAX.get() + 1).is_err());
        let nano = NanoUsd::new(1).unwrap();
        assert_eq!(NanoUsd::MAX.saturating_add(nano), NanoUsd::MAX);
        let dearest = NonZeroU64::new(u64::MAX).unwrap();
        assert_eq!(
            NanoUsd::of(Tokens::MAX, dearest),
            NanoUsd::MAX,
            "a price beyond the range became a small one"
        );
    }

    #[test]
    fn a_length_is_as_many_tokens_and_a_third_of_it_is_rounded_up() {
        let three = NonZeroU64::new(3).unwrap();
        let thirds = [0, 1, 3, 4].map(|bytes| Tokens::from_len(bytes).div_ceil(three).get());
        assert_eq!(thirds, [0, 1, 1, 2]);
        assert_eq!(Tokens::from_len(usize::MAX), Tokens::MAX);
    }

    #[test]
    fn a_refused_amount_is_named_with_its_limit() {
        let told = Tokens::new(1_000_000_000_000_000).unwrap_err().to_string();
        assert_eq!(told, "1000000000000000 is more than the largest tokens amount, 999999999999999");
        assert_eq!(Tokens::from_u32(1_234).to_string(), "1234");
    }

    #[test]
    fn a_price_rounds_up_to_the_nano_dollar_and_never_to_zero() {
        let two_dollars_a_million = NonZeroU64::new(2_000_000_000).unwrap();
        assert_eq!(NanoUsd::of(Tokens::from_u32(1_000), two_dollars_a_million).get(), 2_000_000);
        let tiny = NonZeroU64::new(1).unwrap();
        assert_eq!(NanoUsd::of(Tokens::from_u32(1), tiny).get(), 1);
        assert_eq!(NanoUsd::of(Tokens::ZERO, tiny), NanoUsd::ZERO);
    }
}
