//! Exact prices: decimal cents, graduated tiers, one rounding for each line of an invoice.
//!
//! Owns the arithmetic, in integers of 10^-12 cents. It never uses a float and never rounds twice.

/// 10^-12 cents in one cent: Stripe takes at most twelve decimals.
const PICO_CENTS: i128 = 1_000_000_000_000;
/// Decimals that a price may have.
const MAX_DECIMALS: usize = 12;
/// Largest unit or flat amount of a price, in cents (eight digits, as Stripe has it for a charge).
const MAX_AMOUNT_CENTS: i128 = 99_999_999;
/// Largest amount for one metered unit, in cents. With at most 15 digits of usage, every line then fits 64 bits.
pub(super) const MAX_METERED_UNIT_CENTS: i64 = 1_000;

/// An amount of money in 10^-12 cents: zero or more, at most [`MAX_AMOUNT_CENTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Price(i128);

impl Price {
    /// Parses decimal cents, such as `0.0002`: digits, at most one point, at most twelve decimals, no sign.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > MAX_DECIMALS {
            return None;
        }
        if text.ends_with('.') {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let decimals: i128 = format!("{decimals:0<MAX_DECIMALS$}").parse().ok()?;
        let price = whole.checked_mul(PICO_CENTS)?.checked_add(decimals)?;
        (price <= MAX_AMOUNT_CENTS * PICO_CENTS).then_some(Self(price))
    }

    /// The price in decimal cents, without trailing zeros.
    pub(super) fn decimal(self) -> String {
        let (whole, decimals) = (self.0 / PICO_CENTS, self.0 % PICO_CENTS);
        let text = format!("{whole}.{decimals:0>MAX_DECIMALS$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    /// The price in whole cents, if it has no decimals.
    pub(super) fn whole_cents(self) -> Option<i64> {
        if self.0 % PICO_CENTS == 0 { i64::try_from(self.0 / PICO_CENTS).ok() } else { None }
    }

    /// Whether a meter may count units of this price.
    pub(super) fn fits_a_meter(self) -> bool {
        self.0 <= i128::from(MAX_METERED_UNIT_CENTS) * PICO_CENTS
    }

    /// `quantity` units and a flat amount, rounded half up to the cent, once; `None` if the cents do not fit, which the
    /// bounds on prices and quantities rule out.
    pub(super) fn charge(self, quantity: u64, flat: Self) -> Option<i64> {
        let exact = self.0.checked_mul(i128::from(quantity))?.checked_add(flat.0)?;
        i64::try_from(exact.checked_add(PICO_CENTS / 2)? / PICO_CENTS).ok()
    }
}

/// The share `part` of `whole` of an amount, rounded half away from zero to the cent. `None` if it does not fit, or for a
/// whole that is not above zero.
pub(super) fn share(cents: i64, part: i64, whole: i64) -> Option<i64> {
    if whole <= 0 {
        return None;
    }
    let (whole, exact) = (i128::from(whole), i128::from(cents).checked_mul(i128::from(part))?);
    let half = if exact < 0 { -whole } else { whole };
    i64::try_from(exact.checked_mul(2)?.checked_add(half)? / (2 * whole)).ok()
}

/// What one of `quantity` units costs of an amount, in decimal cents, cut after twelve decimals.
pub(super) fn per_unit(cents: i64, quantity: u64) -> String {
    let each = i128::from(cents.unsigned_abs()) * PICO_CENTS / i128::from(quantity.max(1));
    format!("{}{}", if cents < 0 { "-" } else { "" }, Price(each).decimal())
}

/// One tier of a graduated price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tier {
    /// Last unit of the tier; `None` for the last tier.
    pub(super) up_to: Option<u64>,
    /// For each unit that falls in the tier.
    pub(super) unit: Option<Price>,
    /// Once, if any unit falls in the tier.
    pub(super) flat: Option<Price>,
}

/// What one tier charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TierCharge {
    /// Which tier, from 1.
    pub(super) tier: usize,
    /// Units that fell in the tier.
    pub(super) quantity: u64,
    pub(super) unit: Price,
    pub(super) cents: i64,
}

/// Charges `quantity` units by graduated tiers: one charge for each tier reached, each rounded once. The first tier is
/// always reached, so that a period without usage still has its line. `None` if a charge does not fit.
pub(super) fn graduated(tiers: &[Tier], quantity: u64) -> Option<Vec<TierCharge>> {
    let mut charges = Vec::new();
    let mut below = 0;
    for (index, tier) in tiers.iter().enumerate() {
        let end = tier.up_to.unwrap_or(u64::MAX).min(quantity);
        let units = end.saturating_sub(below);
        if units == 0 && index > 0 {
            break;
        }
        let unit = tier.unit.unwrap_or_default();
        let flat = if units > 0 { tier.flat.unwrap_or_default() } else { Price::default() };
        charges.push(TierCharge { tier: index + 1, quantity: units, unit, cents: unit.charge(units, flat)? });
        below = end;
    }
    Some(charges)
}
